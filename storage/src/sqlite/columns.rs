//! Values that take several columns.

use quark_runtime::store::{Address, ETag, Encoded};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite};

use crate::sql::{as_text, int};

pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Two columns: type and key.
pub(super) fn bind_actor<'q>(query: Statement<'q>, actor: &Address) -> Statement<'q> {
    query.bind(actor.actor_type.as_ref()).bind(actor.key.as_str())
}

/// Two columns: epoch and sequence.
pub(super) fn bind_etag(query: Statement<'_>, etag: ETag) -> Statement<'_> {
    query.bind(int(etag.epoch.0)).bind(int(etag.sequence))
}

/// Three columns: format, version, value.
pub(super) fn bind_value<'q>(query: Statement<'q>, value: &Encoded) -> Statement<'q> {
    let query = query.bind(value.format.as_ref()).bind(i64::from(value.version));
    match as_text(value) {
        Some(text) => query.bind(text),
        None => query.bind(value.bytes.as_slice()),
    }
}

/// What [`bind_actor`] wrote, from column `first` on.
pub(super) fn actor(row: &SqliteRow, first: usize) -> Address {
    Address::new(row.get::<String, _>(first), row.get::<String, _>(first + 1))
}

/// What [`bind_value`] wrote, from column `first` on.
pub(super) fn value(row: &SqliteRow, first: usize) -> Encoded {
    Encoded {
        format: row.get::<String, _>(first).into(),
        version: u32::try_from(row.get::<i64, _>(first + 1)).unwrap_or(u32::MAX),
        bytes: row.get(first + 2),
    }
}
