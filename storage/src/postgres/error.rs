//! What PostgreSQL's errors mean to those who use a store.
//! Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::borrow::Cow;
use std::sync::Arc;

use quark_runtime::store::StoreError;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Whether the server takes no writes, be it that this session or the whole server is read-only.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code == "25006")
}

/// Whether somebody else kept a lock for longer than it was waited for.
pub(super) fn is_locked(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code == "55P03")
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

/// When an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was to be written, or it is within a transaction whose end was not sent: nothing is written.
    Before,
    /// What was sent may have been done.
    Sent,
}

/// Makes a store's errors.
#[derive(Clone)]
pub(super) struct Errors {
    pub(super) store: Arc<str>,
}

impl Errors {
    pub(super) fn store_error(&self, error: sqlx::Error, stage: Stage) -> StoreError {
        let store = self.store.clone();
        let database = match error {
            sqlx::Error::Database(database) => database,
            sqlx::Error::PoolTimedOut => return self.unavailable("no connection could be had in time"),
            sqlx::Error::PoolClosed => return self.unavailable("it was closed"),
            error @ (sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed) => {
                return self.lost(stage, &error.to_string());
            }
            sqlx::Error::Tls(cause) => return self.unavailable(&format!("TLS: {cause}")),
            other => return StoreError::Unexpected { store, cause: other.to_string().into() },
        };
        let severity = database.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
        let ends = matches!(severity, Some(PgSeverity::Panic | PgSeverity::Fatal));
        self.server_error(database.code().as_deref().unwrap_or(""), ends, database.message(), stage)
    }

    /// What a code means; `ends` if the server, or at least the session, ends over it.
    fn server_error(&self, code: &str, ends: bool, message: &str, stage: Stage) -> StoreError {
        let store = self.store.clone();
        let cause: Box<str> = message.into();
        match code {
            // read_only_sql_transaction
            "25006" => StoreError::ReadOnly { store, cause },
            // disk_full, out_of_memory. If the server ends over it, what was sent may be in all the same.
            "53100" | "53200" if ends => self.lost(stage, &cause),
            "53100" | "53200" => StoreError::Full { store, cause },
            // invalid_authorization_specification, invalid_password, invalid_catalog_name, insufficient_privilege
            "28000" | "28P01" | "3D000" | "42501" => StoreError::Denied { store, cause },
            // data_corrupted, index_corrupted: what was sent may be in if the server ends over it.
            "XX001" | "XX002" if ends && stage == Stage::Sent => self.lost(stage, &cause),
            "XX001" | "XX002" => StoreError::Corrupt { store, cause },
            // query_canceled (statement_timeout), lock_not_available, serialization_failure, deadlock_detected,
            // idle_in_transaction_session_timeout: the server says that it has undone the transaction.
            "57014" | "55P03" | "40001" | "40P01" | "25P03" => StoreError::Unavailable { store, cause },
            // statement_completion_unknown
            "40003" => StoreError::Unknown { store, cause },
            // Connection exceptions, insufficient resources, operator intervention (shutdown), system errors.
            code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                self.lost(stage, &cause)
            }
            // A server may panic after it has written that a transaction is committed.
            _ if ends => self.lost(stage, &cause),
            _ => StoreError::Unexpected { store, cause },
        }
    }

    /// The connection went away, or the server does.
    pub(super) fn lost(&self, stage: Stage, cause: &str) -> StoreError {
        let store = self.store.clone();
        match stage {
            Stage::Before => StoreError::Unavailable { store, cause: cause.into() },
            Stage::Sent => StoreError::Unknown { store, cause: cause.into() },
        }
    }

    pub(super) fn unavailable(&self, cause: &str) -> StoreError {
        StoreError::Unavailable { store: self.store.clone(), cause: cause.into() }
    }

    pub(super) fn migration_error(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                self.store_error(error, Stage::Before)
            }
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => StoreError::Unexpected {
                store: self.store.clone(),
                cause: "its tables are those of another version of Quark".into(),
            },
            other => StoreError::Unexpected { store: self.store.clone(), cause: other.to_string().into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, ends: bool, stage: Stage) -> StoreError {
        Errors { store: "postgres".into() }.server_error(code, ends, "as if it were so", stage)
    }

    /// internal_error, out_of_memory, data_corrupted, admin_shutdown, and one that nobody expects.
    const ENDS: [&str; 5] = ["XX000", "53200", "XX001", "57P01", "22021"];

    #[test]
    fn what_was_sent_to_a_server_that_ends_over_it_may_be_in() {
        for code in ENDS {
            let error = error(code, true, Stage::Sent);
            assert!(matches!(error, StoreError::Unknown { .. }), "{code}: {error:?}");
        }
    }

    #[test]
    fn nothing_is_in_if_the_server_ends_before_it_was_sent() {
        for code in ENDS {
            let error = error(code, true, Stage::Before);
            assert!(
                matches!(error, StoreError::Unavailable { .. } | StoreError::Corrupt { .. }),
                "{code}: {error:?}"
            );
        }
    }

    #[test]
    fn a_transaction_that_the_server_has_undone_may_be_tried_again() {
        for code in ["25P03", "40001", "40P01", "55P03", "57014"] {
            for ends in [false, true] {
                let error = error(code, ends, Stage::Sent);
                assert!(matches!(error, StoreError::Unavailable { .. }), "{code}: {error:?}");
            }
        }
    }
}
