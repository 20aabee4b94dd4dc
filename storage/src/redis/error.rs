//! What Redis says, as the ports' errors.

use std::sync::Arc;

use quark_runtime::store::StoreError;
use redis::{ErrorKind, RedisError, ServerError};

use super::pack::Damaged;
use super::settings::RedisSettings;

/// Makes the errors of one store; none of them holds a password.
#[derive(Clone)]
pub(super) struct Errors {
    pub(super) store: Arc<str>,
    settings: Arc<RedisSettings>,
}

impl Errors {
    pub(super) fn new(settings: Arc<RedisSettings>) -> Self {
        Self { store: settings.to_string().into(), settings }
    }

    fn cause(&self, text: &str) -> Box<str> {
        self.settings.without_secrets(text).into()
    }

    /// Nothing was sent.
    pub(super) fn unavailable(&self, cause: &str) -> StoreError {
        StoreError::Unavailable { store: self.store.clone(), cause: self.cause(cause) }
    }

    /// It was sent, and no answer came.
    pub(super) fn unknown(&self, cause: &str) -> StoreError {
        StoreError::Unknown { store: self.store.clone(), cause: self.cause(cause) }
    }

    /// An answer that nobody expects.
    pub(super) fn unexpected(&self, cause: &str) -> StoreError {
        StoreError::Unexpected { store: self.store.clone(), cause: self.cause(cause) }
    }

    /// A record that cannot be read.
    pub(super) fn damaged(&self, what: &str, damaged: Damaged) -> StoreError {
        let cause = self.cause(&format!("{what}: {damaged}"));
        StoreError::Corrupt { store: self.store.clone(), cause }
    }

    fn denied(&self, cause: &str) -> StoreError {
        StoreError::Denied { store: self.store.clone(), cause: self.cause(cause) }
    }

    /// The server answered a command with an error. It has done nothing: commands check before they write, and the
    /// scripts are refused before their first line.
    pub(super) fn server(&self, error: &ServerError) -> StoreError {
        self.of_code(error.code(), error.details().unwrap_or_default())
    }

    fn of_code(&self, code: &str, details: &str) -> StoreError {
        let (store, text) = (self.store.clone(), format!("{code} {details}"));
        let cause = self.cause(&text);
        match code {
            // NOREPLICAS: too few replicas are there for `min-replicas-to-write`.
            "READONLY" | "NOREPLICAS" => StoreError::ReadOnly { store, cause },
            "OOM" => StoreError::Full { store, cause },
            // It cannot persist, and takes no writes until it can. Its text says whether there is no room.
            "MISCONF" if details.contains("No space left") => StoreError::Full { store, cause },
            "MISCONF" => StoreError::ReadOnly { store, cause },
            "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => StoreError::Denied { store, cause },
            "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "MOVED" | "ASK" => {
                StoreError::Unavailable { store, cause }
            }
            "WRONGTYPE" => StoreError::Corrupt { store, cause },
            _ => StoreError::Unexpected { store, cause },
        }
    }

    /// No connection could be made. Nothing but greetings was sent.
    pub(super) fn connecting(&self, error: &RedisError) -> StoreError {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) => self.denied(&error.to_string()),
            (ErrorKind::Server(_) | ErrorKind::Extension, Some(code)) => {
                self.of_code(code, error.detail().unwrap_or_default())
            }
            _ => self.unavailable(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors() -> Errors {
        Errors::new(Arc::new(RedisSettings::parse("redis://:hidden@h").unwrap()))
    }

    #[test]
    fn each_refusal_says_what_can_be_done() {
        let of = |code, details| errors().of_code(code, details);
        assert!(matches!(of("OOM", "command not allowed"), StoreError::Full { .. }));
        assert!(matches!(of("READONLY", "a replica"), StoreError::ReadOnly { .. }));
        let full = "Errors writing to the AOF file: No space left on device";
        assert!(matches!(of("MISCONF", full), StoreError::Full { .. }));
        assert!(matches!(of("MISCONF", "unable to persist to disk"), StoreError::ReadOnly { .. }));
        assert!(matches!(of("LOADING", "loading the dataset"), StoreError::Unavailable { .. }));
        assert!(matches!(of("WRONGTYPE", "a list"), StoreError::Corrupt { .. }));
        assert!(matches!(of("ERR", "unknown command"), StoreError::Unexpected { .. }));
    }

    #[test]
    fn no_error_shows_the_password() {
        let error = errors().of_code("WRONGPASS", "invalid password hidden");
        assert!(matches!(error, StoreError::Denied { .. }));
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
}
