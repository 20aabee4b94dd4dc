//! A store in one SQLite file.
//!
//! One task writes ([`writer`]): it takes all that waits and writes it in one transaction, so that a thousand commits
//! cost one flush of the disk. Readers have connections of their own and never wait for the writer (write-ahead log).
//! Everything that was answered is on the disk (`synchronous = FULL`). Several processes may have the file open at
//! once; they take turns in writing.

mod actors;
mod chunks;
mod columns;
mod commits;
mod error;
mod reminders;
mod settings;
mod streams;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use quark_runtime::store::{Store, StoreError};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlSafeStr as _, SqliteConnection, SqlitePool};

use crate::health::LastAnswer;
use error::{Errors, Stage};
use writer::Writer;

pub use settings::SqliteSettings;

/// Connections that read. More would not read faster from one file on the machines that SQLite is meant for.
const READERS: u32 = 4;
/// How long another process's write is waited for, and a reader for a free connection. Well above the slowest
/// transaction that Quark makes, and still an answer in the time of a call.
const PATIENCE: Duration = Duration::from_secs(5);
/// The bytes of a page, SQLite's default; what `max_size` is counted in.
const PAGE_BYTES: u64 = 4096;

/// What all parts of a SQLite store share.
struct Shared {
    errors: Errors,
    readers: SqlitePool,
    writer: Writer,
    health: Arc<LastAnswer>,
}

impl Shared {
    /// Takes note of how an operation ended.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.health.note(&result);
        result
    }

    /// Turns the error of a reading into ours, and takes note of it.
    fn read<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        self.noted(result.map_err(|error| self.errors.store_error(error, Stage::Read)))
    }
}

/// Opens the file, or makes it; checks it, and brings its tables up to date.
pub(crate) async fn open(settings: &SqliteSettings) -> Result<Store, StoreError> {
    let name: Arc<str> = settings.to_string().into();
    let errors = Errors { store: name.clone() };
    let failed = |error| errors.store_error(error, Stage::Open);
    let options = SqliteConnectOptions::new()
        .filename(&settings.path)
        .busy_timeout(PATIENCE)
        .disable_statement_logging();
    let mut connection = if settings.read_only {
        options.clone().read_only(true).connect().await.map_err(failed)?
    } else {
        let pages = settings.max_size.map(|size| (size.as_u64() / PAGE_BYTES).max(1).to_string());
        let options = options
            .clone()
            .create_if_missing(settings.create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let options =
            pages.into_iter().fold(options, |options, pages| options.pragma("max_page_count", pages));
        options.connect().await.map_err(failed)?
    };
    if settings.check {
        check(&mut connection, &errors).await?;
    }
    if !settings.read_only {
        migrate(&mut connection, &errors).await?;
    }
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .connect_lazy_with(options.read_only(true));
    let health = Arc::new(LastAnswer::up());
    let writer = Writer::start(connection, readers.clone(), errors.clone());
    let shared = Arc::new(Shared { errors, readers, writer, health: health.clone() });
    Ok(Store {
        name,
        actors: Arc::new(actors::Actors(shared.clone())),
        reminders: Arc::new(reminders::Reminders(shared.clone())),
        streams: Some(Arc::new(streams::Streams::new(shared))),
        health,
    })
}

/// Looks through the whole file for damage.
async fn check(connection: &mut SqliteConnection, errors: &Errors) -> Result<(), StoreError> {
    let found: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(3)")
        .fetch_all(connection)
        .await
        .map_err(|error| errors.store_error(error, Stage::Open))?;
    match found.as_slice() {
        [only] if only == "ok" => Ok(()),
        damage => Err(StoreError::Corrupt { store: errors.store.clone(), cause: damage.join("; ").into() }),
    }
}

/// Brings the tables up to date. Others who open the file at the same time wait for their turn.
async fn migrate(connection: &mut SqliteConnection, errors: &Errors) -> Result<(), StoreError> {
    let first = include_str!("../migrations/sqlite/0001_stores.sql").into_sql_str();
    let first = Migration::new(1, "stores".into(), MigrationType::Simple, first, false);
    let mut migrator = Migrator::with_migrations(vec![first]);
    migrator.dangerous_set_table_name("quark_migrations");
    let failed = |error| errors.store_error(error, Stage::Open);
    let mut turn = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    // `run` asks for a trait that the compiler cannot see to hold here (rust-lang/rust#100013).
    migrator.run_direct(None, &mut *turn, false).await.map_err(|error| errors.migration_error(error))?;
    turn.commit().await.map_err(failed)
}
