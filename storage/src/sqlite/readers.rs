//! Connections that read. They never wait for the one that writes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quark_runtime::store::StoreError;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::error::{Errors, Stage};
use super::{PATIENCE, SqliteSettings, connection};

/// Connections that read. More would not read faster from one file on the machines that SQLite is meant for.
const READERS_MAX: usize = 4;

/// How long a reading may take. The largest answers are pages of a few megabytes.
const READ_MAX: Duration = Duration::from_secs(30);

/// Connections that are open and that nobody uses.
pub(super) type Idle = Arc<Mutex<Vec<Connection>>>;

pub(super) struct Readers {
    settings: SqliteSettings,
    errors: Errors,
    /// One permit for each connection that may be open.
    permits: Arc<Semaphore>,
    idle: Idle,
}

impl Readers {
    pub(super) fn new(settings: SqliteSettings, errors: Errors) -> Self {
        let permits = Arc::new(Semaphore::new(READERS_MAX));
        Self { settings, errors, permits, idle: Idle::default() }
    }

    /// For whoever is to close them.
    pub(super) fn idle(&self) -> Idle {
        self.idle.clone()
    }

    /// Reads on a thread that may block. Dropping the future lets the reading end by itself.
    pub(super) async fn read<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = match tokio::time::timeout(PATIENCE, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(self.errors.unavailable("all connections that read are in use")),
        };
        let (idle, settings) = (self.idle.clone(), self.settings.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let unused = idle.lock().pop();
            let mut connection = match unused {
                Some(connection) => connection,
                None => connection::reading(&settings)?,
            };
            // One that failed is not used again.
            let value = run(&mut connection)?;
            idle.lock().push(connection);
            drop(permit);
            Ok(value)
        });
        match tokio::time::timeout(READ_MAX, reading).await {
            Ok(Ok(result)) => result.map_err(|error| self.errors.store_error(error, Stage::Read)),
            Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Ok(Err(_)) => Err(self.errors.unavailable("the runtime that it is used on ends")),
            Err(_) => Err(self.errors.unavailable("the disk does not answer")),
        }
    }
}
