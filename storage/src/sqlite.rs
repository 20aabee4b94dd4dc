//! A store in one SQLite file.
//!
//! One thread writes ([`writer`]): it takes all that waits and writes it in one transaction, so that a thousand commits
//! cost one flush of the disk. Readers have connections of their own and never wait for the writer (write-ahead log).
//! Everything that was answered is on the disk (`synchronous = FULL`). Several processes may have the file open at
//! once; they take turns in writing.

mod actors;
mod columns;
mod commits;
mod connection;
mod error;
mod readers;
mod reminders;
mod settings;
mod streams;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use quark_runtime::store::{COMMIT_PATIENCE, Store, StoreError};
use rusqlite::Connection;

use crate::health::LastAnswer;
use error::Errors;
use readers::Readers;
use writer::Writer;

pub use settings::SqliteSettings;

/// How long another process's write is waited for, and a reader for a free connection. Well above the slowest
/// transaction that Quark makes, and well below the time for which an activation waits to learn whether a commit is in:
/// that another process has the file is to be told as what it is.
const PATIENCE: Duration = Duration::from_secs(3);
const _: () = assert!(PATIENCE.as_secs() < COMMIT_PATIENCE.as_secs());

/// What all parts of a SQLite store share.
struct Shared {
    errors: Errors,
    readers: Readers,
    writer: Writer,
    health: Arc<LastAnswer>,
}

impl Shared {
    /// Takes note of how an operation ended.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.health.note(&result);
        result
    }

    /// Reads, and takes note of how it ended.
    async fn read<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.noted(self.readers.read(run).await)
    }

    /// Writes together with others, and takes note of how it ended. It may be done twice, the first time in vain.
    async fn write<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.noted(self.writer.write(run).await)
    }
}

/// Opens the file, or makes it; checks it, and brings its tables up to date.
pub(crate) async fn open(settings: &SqliteSettings) -> Result<Store, StoreError> {
    let name: Arc<str> = settings.to_string().into();
    let errors = Errors { store: name.clone() };
    // Connections that are opened later are to find the same file, whatever the working folder is by then.
    let path = std::path::absolute(&settings.path).unwrap_or_else(|_| settings.path.clone());
    let settings = SqliteSettings { path, ..settings.clone() };
    let readers = Readers::new(settings.clone(), errors.clone());
    let writer = Writer::start(settings, readers.idle(), errors.clone()).await?;
    let health = Arc::new(LastAnswer::up());
    let shared = Arc::new(Shared { errors, readers, writer, health: health.clone() });
    Ok(Store {
        name,
        actors: Arc::new(actors::Actors(shared.clone())),
        reminders: Arc::new(reminders::Reminders(shared.clone())),
        streams: Some(Arc::new(streams::Streams::new(shared))),
        health,
    })
}
