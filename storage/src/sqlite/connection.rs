//! Connections to the file, and what must be true of it before it is used.

use quark_runtime::store::StoreError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::{Errors, Stage};
use super::{PATIENCE, SqliteSettings};
use crate::sql::limit;

/// The bytes of a page, SQLite's default; what `max_size` is counted in.
const PAGE_BYTES: u64 = 4096;
/// Statements that a connection keeps prepared: all that there are.
const STATEMENTS_MAX: usize = 64;
/// What brings the tables from each version to the next. The versions that a file went through are in a table of their
/// own, so that the file may be somebody else's too.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/sqlite/0001_stores.sql")];

/// Opens the connection that writes. It makes the file where it may, looks it through for damage, and brings its tables
/// up to date; others who do the same at the same time wait for their turn.
pub(super) fn writing(settings: &SqliteSettings, errors: &Errors) -> Result<Connection, StoreError> {
    let failed = |error| errors.store_error(error, Stage::Open);
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, settings.create);
    if settings.read_only {
        flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    }
    let mut connection = connect(settings, flags).map_err(failed)?;
    if !settings.read_only {
        prepare(&connection, settings, errors)?;
    }
    if settings.check {
        check(&connection, errors)?;
    }
    if !settings.read_only {
        migrate(&mut connection, errors)?;
    }
    Ok(connection)
}

/// Opens a connection that reads. It could write, so that it too puts the log into the file if it is the last to go.
pub(super) fn reading(settings: &SqliteSettings) -> rusqlite::Result<Connection> {
    let flags = match settings.read_only {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let connection = connect(settings, flags)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn connect(settings: &SqliteSettings, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time.
    let connection = Connection::open_with_flags(&settings.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

fn prepare(connection: &Connection, settings: &SqliteSettings, errors: &Errors) -> Result<(), StoreError> {
    let failed = |error| errors.store_error(error, Stage::Open);
    let mode = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0));
    let mode = mode.map_err(failed)?;
    if mode != "wal" {
        let cause =
            format!("it keeps no write-ahead log where it is, but a journal of the mode {mode}").into();
        return Err(StoreError::Unexpected { store: errors.store.clone(), cause });
    }
    connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
    // What a statement needs to undo itself. The transaction's own log is in the file.
    connection.pragma_update(None, "temp_store", "memory").map_err(failed)?;
    if let Some(size) = settings.max_size {
        let pages = i64::try_from((size.as_u64() / PAGE_BYTES).max(1)).unwrap_or(i64::MAX);
        connection.pragma_update(None, "max_page_count", pages).map_err(failed)?;
    }
    Ok(())
}

/// Looks through the whole file for damage.
fn check(connection: &Connection, errors: &Errors) -> Result<(), StoreError> {
    let mut found: Vec<String> = Vec::new();
    let look = connection.pragma(None, "quick_check", 3, |row| {
        found.push(row.get(0)?);
        Ok(())
    });
    look.map_err(|error| errors.store_error(error, Stage::Open))?;
    match found.as_slice() {
        [only] if only == "ok" => Ok(()),
        damage => Err(StoreError::Corrupt { store: errors.store.clone(), cause: damage.join("; ").into() }),
    }
}

fn migrate(connection: &mut Connection, errors: &Errors) -> Result<(), StoreError> {
    let failed = |error| errors.store_error(error, Stage::Open);
    let turn = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let version = version(&turn).map_err(failed)?;
    let Some(missing) = MIGRATIONS.get(version..) else {
        let cause = "its tables are those of another version of Quark".into();
        return Err(StoreError::Unexpected { store: errors.store.clone(), cause });
    };
    for (version, migration) in (version + 1..).zip(missing) {
        turn.execute_batch(migration).map_err(failed)?;
        let done = "INSERT INTO quark_migrations VALUES (?)";
        turn.execute(done, [limit(version)]).map_err(failed)?;
    }
    turn.commit().map_err(failed)
}

/// How many migrations the file went through.
fn version(connection: &Connection) -> rusqlite::Result<usize> {
    if !connection.table_exists(None, "quark_migrations")? {
        connection
            .execute_batch("CREATE TABLE quark_migrations (version INTEGER PRIMARY KEY NOT NULL) STRICT")?;
    }
    let version: i64 =
        connection.query_row("SELECT ifnull(max(version), 0) FROM quark_migrations", [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}
