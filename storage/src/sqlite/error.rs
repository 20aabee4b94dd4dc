//! What SQLite's errors mean to those who use a store. Codes: <https://sqlite.org/rescode.html>.

use std::sync::Arc;

use quark_runtime::store::StoreError;
use sqlx::migrate::MigrateError;

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
    pub(super) fn store_error(&self, error: sqlx::Error, stage: Stage) -> StoreError {
        let store = self.store.clone();
        let cause: Box<str> = error.to_string().into();
        let unclear = |cause| match stage {
            Stage::Commit => StoreError::Unknown { store: store.clone(), cause },
            Stage::Open | Stage::Read | Stage::Write => {
                StoreError::Unavailable { store: store.clone(), cause }
            }
        };
        let database = match &error {
            sqlx::Error::Database(database) => database,
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                return StoreError::Unavailable { store, cause };
            }
            sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) => return unclear(cause),
            _ => return StoreError::Unexpected { store, cause },
        };
        let extended: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
        let cause: Box<str> = database.message().into();
        match extended & 0xff {
            // BUSY, LOCKED: another process writes. PROTOCOL: too many begin at once.
            5 | 6 | 15 => StoreError::Unavailable { store, cause },
            // NOMEM, IOERR
            7 | 10 => unclear(cause),
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

    pub(super) fn migration_error(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                self.store_error(error, Stage::Open)
            }
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => StoreError::Unexpected {
                store: self.store.clone(),
                cause: "its tables are those of another version of Quark".into(),
            },
            other => StoreError::Unexpected { store: self.store.clone(), cause: other.to_string().into() },
        }
    }
}
