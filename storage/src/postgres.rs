//! A store in a PostgreSQL database.
//!
//! Commits that arrive together are written in one transaction by a few tasks ([`writer`]); an actor's commits all go
//! through the same one and stay in order. Whatever the batch's size, it is a handful of statements with arrays. Rows
//! of an actor change only under the lock of its row in `quark_actor`, also when another silo writes.
//!
//! The tables are in a schema of their own, brought up to date under a lock when a silo opens the store, so that several
//! may start at once. There are no durable streams here: a log is what PostgreSQL is not made for.

mod actors;
mod columns;
mod commits;
mod era;
mod error;
mod lease;
mod reminders;
mod session;
mod settings;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use quark_runtime::store::{Store, StoreError};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool, SqlSafeStr as _};

use crate::health::LastAnswer;
use error::{Errors, Stage};
use lease::Lease;
use writer::Writer;

pub use settings::PostgresSettings;

/// How long a connection is waited for, a new one or one that somebody else uses. Three times the wait of TCP for a
/// lost first packet.
const ACQUIRE_MAX: Duration = Duration::from_secs(3);
/// For which part of an answer's time a lock is waited for: half of what the server takes at most, so that what waited
/// can still be done.
const LOCK_PART: f64 = 0.4;
/// How long the tables' update may wait for another silo that does it.
const MIGRATION_MAX: Duration = Duration::from_secs(60);

/// What all parts of a PostgreSQL store share.
struct Shared {
    errors: Errors,
    pool: PgPool,
    writer: Writer,
    /// How long an answer is waited for.
    answer_max: Duration,
    health: Arc<LastAnswer>,
}

impl Shared {
    /// Takes note of how an operation ended.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.health.note(&result);
        result
    }

    /// Reads on a connection of the pool in bounded time, and takes note of how it ended.
    async fn read<T>(
        &self,
        reading: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.noted(self.bounded(reading, Stage::Before).await)
    }

    /// The same for a statement that writes.
    async fn write<T>(
        &self,
        writing: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.noted(self.bounded(writing, Stage::Sent).await)
    }

    /// Whoever stops waiting, here or by dropping this, leaves a connection with an answer on its way, which is closed.
    async fn bounded<T>(
        &self,
        operation: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
        stage: Stage,
    ) -> Result<T, StoreError> {
        let lease = Lease::of(&self.pool).await;
        let mut lease = lease.map_err(|error| self.errors.store_error(error, Stage::Before))?;
        let result = tokio::time::timeout(self.answer_max, operation(&mut lease)).await;
        let result = result.map_err(|_| self.errors.lost(stage, "no answer in time"))?;
        if matches!(result, Ok(_) | Err(sqlx::Error::Database(_))) {
            lease.give_back();
        }
        result.map_err(|error| self.errors.store_error(error, stage))
    }
}

/// Connects, and brings the tables up to date.
pub(crate) async fn open(settings: &PostgresSettings) -> Result<Store, StoreError> {
    let name: Arc<str> = settings.to_string().into();
    let errors = Errors { store: name.clone() };
    migrate(settings, &errors).await?;
    let pool = PgPoolOptions::new()
        .max_connections(settings.pool)
        .acquire_timeout(ACQUIRE_MAX)
        .after_connect(|connection, _| Box::pin(era::settle(connection)))
        .connect_lazy_with(session(settings));
    let health = Arc::new(LastAnswer::up());
    let writer = Writer::start(&pool, &errors, settings);
    let answer_max = settings.timeout;
    let shared = Arc::new(Shared { errors, pool, writer, answer_max, health: health.clone() });
    Ok(Store {
        name,
        actors: Arc::new(actors::Actors(shared.clone())),
        reminders: Arc::new(reminders::Reminders(shared)),
        streams: None,
        health,
    })
}

/// How our sessions are.
fn session(settings: &PostgresSettings) -> PgConnectOptions {
    let millis = |part: f64| format!("{}ms", settings.timeout.mul_f64(part).as_millis().max(1));
    settings.options.clone().options([
        ("search_path", settings.schema.to_string()),
        // The server gives up a little before we do, so that we hear of it; then its locks are free. Those who write
        // commits hardly wait for a lock and try again instead.
        ("statement_timeout", millis(0.8)),
        ("lock_timeout", millis(LOCK_PART)),
        // Of a silo of which it hears nothing, for instance because that lost its power.
        ("idle_in_transaction_session_timeout", millis(1.5)),
        // Our statements look rows up by their keys. Without statistics of a table that has just been filled, the
        // planner would rather read all of it.
        ("enable_seqscan", "off".into()),
        ("enable_hashjoin", "off".into()),
        ("enable_mergejoin", "off".into()),
    ])
}

/// Makes the schema and brings its tables up to date. Others who open the store at the same time wait.
async fn migrate(settings: &PostgresSettings, errors: &Errors) -> Result<(), StoreError> {
    let first = include_str!("../migrations/postgres/0001_stores.sql").into_sql_str();
    let first = Migration::new(1, "stores".into(), MigrationType::Simple, first, false);
    let mut migrator = Migrator::with_migrations(vec![first]);
    migrator.dangerous_set_table_name("quark_migrations");
    let options = settings.options.clone().options([("search_path", settings.schema.as_ref())]);
    let connecting = tokio::time::timeout(ACQUIRE_MAX, options.connect());
    let connection = connecting.await.map_err(|_| errors.unavailable("no connection in time"))?;
    let mut connection = connection.map_err(|error| errors.store_error(error, Stage::Before))?;
    let update = async {
        make_schema(&mut connection, &settings.schema)
            .await
            .map_err(|error| errors.store_error(error, Stage::Before))?;
        // `run` asks for a trait that the compiler cannot see to hold here (rust-lang/rust#100013). It takes an
        // advisory lock of the database.
        let updated = migrator.run_direct(None, &mut connection, false).await;
        updated.map_err(|error| errors.migration_error(error))?;
        // What is wrong with it is better heard now than from the pool, which only says that it has no connection.
        era::settle(&mut connection).await.map_err(|error| errors.store_error(error, Stage::Before))
    };
    let updated = tokio::time::timeout(MIGRATION_MAX, update).await;
    updated.map_err(|_| errors.unavailable("another silo updates its tables"))??;
    // The connection has done its work, whether or not it ends politely.
    let _ = connection.close().await;
    Ok(())
}

/// Makes the schema unless it is there, which needs a right that a user of an existing one may lack.
async fn make_schema(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let is_there = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    if sqlx::query_scalar(is_there).bind(schema).fetch_one(&mut *connection).await? {
        return Ok(());
    }
    // The name is letters, digits and underscores. Two who make it at once: one hears of a duplicate, and has it.
    let make = AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    match sqlx::raw_sql(make).execute(connection).await {
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("23505" | "42P06")) => {
            Ok(())
        }
        other => other.map(drop),
    }
}
