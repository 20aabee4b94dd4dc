//! What SQLite's errors mean to those who use a store. Codes: <https://sqlite.org/rescode.html>.

use std::sync::Arc;

use quark_runtime::store::StoreError;

use crate::sql::VALUE_MAX;

/// When an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The file was being opened.
    Open,
    /// Nothing was to be written.
    Read,
    /// Within a transaction, which is rolled back.
    Write,
    /// The transaction was being committed.
    Commit,
}

/// Makes a store's errors.
#[derive(Clone)]
pub(super) struct Errors {
    pub(super) store: Arc<str>,
}

impl Errors {
    pub(super) fn store_error(&self, error: rusqlite::Error, stage: Stage) -> StoreError {
        let store = self.store.clone();
        let (code, cause): (_, Box<str>) = match error {
            rusqlite::Error::SqliteFailure(failure, Some(message)) => {
                (failure.extended_code & 0xff, message.into())
            }
            rusqlite::Error::SqliteFailure(failure, None) => {
                (failure.extended_code & 0xff, failure.to_string().into())
            }
            other => return StoreError::Unexpected { store, cause: other.to_string().into() },
        };
        match code {
            // BUSY, LOCKED: another process writes. PROTOCOL: too many begin at once.
            5 | 6 | 15 => StoreError::Unavailable { store, cause },
            // NOMEM, IOERR
            7 | 10 if stage == Stage::Commit => StoreError::Unknown { store, cause },
            7 | 10 => StoreError::Unavailable { store, cause },
            // READONLY
            8 => StoreError::ReadOnly { store, cause },
            // CORRUPT, NOTADB
            11 | 26 => StoreError::Corrupt { store, cause },
            // FULL
            13 => StoreError::Full { store, cause },
            // PERM, CANTOPEN, AUTH
            3 | 14 | 23 => StoreError::Denied { store, cause },
            // TOOBIG
            18 => StoreError::TooLarge { store, size: VALUE_MAX, limit: VALUE_MAX },
            _ => StoreError::Unexpected { store, cause },
        }
    }

    pub(super) fn unavailable(&self, cause: &str) -> StoreError {
        StoreError::Unavailable { store: self.store.clone(), cause: cause.into() }
    }
}
