//! Columns of rows, and arrays of them.

use quark_runtime::store::{Address, ETag, Encoded, Epoch};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::sql::{as_text, unsigned};

/// Values as the arrays of their four columns.
#[derive(Default)]
pub(super) struct Values<'a> {
    pub(super) formats: Vec<&'a str>,
    pub(super) versions: Vec<i64>,
    pub(super) texts: Vec<Option<&'a str>>,
    pub(super) bytes: Vec<Option<&'a [u8]>>,
}

impl<'a> Values<'a> {
    pub(super) fn of(values: impl IntoIterator<Item = &'a Encoded>) -> Self {
        let mut arrays = Self::default();
        for value in values {
            let text = as_text(value);
            arrays.formats.push(value.format.as_ref());
            arrays.versions.push(i64::from(value.version));
            arrays.texts.push(text);
            arrays.bytes.push(text.is_none().then_some(value.bytes.as_slice()));
        }
        arrays
    }
}

/// Actors as the arrays of their two columns.
pub(super) fn addresses<'a>(actors: impl IntoIterator<Item = &'a Address>) -> (Vec<&'a str>, Vec<&'a str>) {
    actors.into_iter().map(|actor| (actor.actor_type.as_ref(), actor.key.as_str())).unzip()
}

/// An actor, from column `first` on.
pub(super) fn actor(row: &PgRow, first: usize) -> Address {
    Address::new(row.get::<String, _>(first), row.get::<String, _>(first + 1))
}

/// An ETag, from column `first` on.
pub(super) fn etag(row: &PgRow, first: usize) -> ETag {
    ETag { epoch: Epoch(unsigned(row.get(first))), sequence: unsigned(row.get(first + 1)) }
}

/// A value, from column `first` on: format, version, text, bytes.
pub(super) fn value(row: &PgRow, first: usize) -> Encoded {
    let text: Option<String> = row.get(first + 2);
    let bytes = match text {
        Some(text) => text.into_bytes(),
        None => row.get::<Option<Vec<u8>>, _>(first + 3).unwrap_or_default(),
    };
    Encoded {
        format: row.get::<String, _>(first).into(),
        version: u32::try_from(row.get::<i64, _>(first + 1)).unwrap_or(u32::MAX),
        bytes,
    }
}
