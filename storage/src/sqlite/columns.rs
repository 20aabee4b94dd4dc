//! Values that take several columns, and those of several kinds.

use quark_runtime::store::{Address, ETag, Encoded, Epoch};
use rusqlite::Row;
use rusqlite::types::{FromSqlError, ToSql, ToSqlOutput, ValueRef};

use crate::sql::{as_text, unsigned};

/// The content of a value as a column: text that a person can read in the database, or bytes.
pub(super) struct Content<'a>(pub(super) &'a Encoded);

impl ToSql for Content<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match as_text(self.0) {
            Some(text) => ValueRef::Text(text.as_bytes()),
            None => ValueRef::Blob(&self.0.bytes),
        }))
    }
}

/// Two columns, type and key, from column `first` on.
pub(super) fn actor(row: &Row<'_>, first: usize) -> rusqlite::Result<Address> {
    Ok(Address::new(row.get::<_, String>(first)?, row.get::<_, String>(first + 1)?))
}

/// Two columns, epoch and sequence, from column `first` on.
pub(super) fn etag(row: &Row<'_>, first: usize) -> rusqlite::Result<ETag> {
    Ok(ETag { epoch: Epoch(unsigned(row.get(first)?)), sequence: unsigned(row.get(first + 1)?) })
}

/// Three columns, format, version and [`Content`], from column `first` on.
pub(super) fn value(row: &Row<'_>, first: usize) -> rusqlite::Result<Encoded> {
    let bytes = match row.get_ref(first + 2)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        _ => return Err(FromSqlError::InvalidType.into()),
    };
    Ok(Encoded { format: row.get::<_, String>(first)?.into(), version: row.get(first + 1)?, bytes })
}
