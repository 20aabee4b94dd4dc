//! What the SQL stores have in common: numbers and values as columns, and the largest value.

use quark_base::{ByteSize, Timestamp};
use quark_runtime::store::{Commit, DuePlace, Encoded, LastDue, StoreError};

/// The largest value that the SQL stores take. Both databases hold a gigabyte; several copies of a value are in memory
/// while it is written, and one of this size already takes a large part of a second.
pub(crate) const VALUE_MAX: ByteSize = ByteSize::mib(64);

/// A `u64` as a signed column. It comes back as it was; the order holds below 2^63.
pub(crate) fn int(number: u64) -> i64 {
    number.cast_signed()
}

/// What [`int`] wrote.
pub(crate) fn unsigned(column: i64) -> u64 {
    column.cast_unsigned()
}

/// A moment as a signed column, in milliseconds. One beyond 292 million years from now is as late as that.
pub(crate) fn time(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// What [`time`] wrote.
pub(crate) fn timestamp(column: i64) -> Timestamp {
    Timestamp(u64::try_from(column).unwrap_or(0))
}

/// A point of the ring as a signed column in the same order.
pub(crate) fn ring(point: u64) -> i64 {
    (point ^ (1 << 63)).cast_signed()
}

/// What [`ring`] wrote.
pub(crate) fn point(column: i64) -> u64 {
    column.cast_unsigned() ^ (1 << 63)
}

/// What a place among the due reminders adds to its time, as columns to be compared with. Each reminder comes after the
/// place before all of its time, since every actor has a type.
pub(crate) struct Last<'a> {
    pub(crate) ring: u64,
    pub(crate) actor_type: &'a str,
    pub(crate) actor_key: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> Last<'a> {
    pub(crate) fn of(place: &'a DuePlace) -> Self {
        match &place.last {
            None => Self { ring: 0, actor_type: "", actor_key: "", name: "" },
            Some(LastDue { ring, actor, name }) => {
                Self { ring: *ring, actor_type: &actor.actor_type, actor_key: actor.key.as_str(), name }
            }
        }
    }
}

/// A number of rows as a column.
pub(crate) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// The value as text that a person can read in the database; `None` if it is to be stored as bytes.
pub(crate) fn as_text(value: &Encoded) -> Option<&str> {
    if value.format != "json" || value.bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(&value.bytes).ok()
}

/// Refuses a commit with a value that is too large.
pub(crate) fn check_sizes(store: &std::sync::Arc<str>, commit: &Commit) -> Result<(), StoreError> {
    let slots = commit.slots.iter().filter_map(|slot| slot.value.as_ref());
    let events = commit.appends.iter().flat_map(|append| append.events.iter().chain(&append.snapshot));
    let messages = commit.outbox.iter().map(|message| &message.body);
    check_values(store, slots.chain(events).chain(messages))
}

/// Refuses values of which one is too large.
pub(crate) fn check_values<'a>(
    store: &std::sync::Arc<str>,
    values: impl Iterator<Item = &'a Encoded>,
) -> Result<(), StoreError> {
    for value in values {
        let size = ByteSize::bytes(value.bytes.len() as u64);
        if size > VALUE_MAX {
            return Err(StoreError::TooLarge { store: store.clone(), size, limit: VALUE_MAX });
        }
    }
    Ok(())
}

/// About how much memory a commit takes, for the bound of a batch.
pub(crate) fn weight(commit: &Commit) -> usize {
    let slots = commit.slots.iter().filter_map(|slot| slot.value.as_ref());
    let events = commit.appends.iter().flat_map(|append| append.events.iter().chain(&append.snapshot));
    let messages = commit.outbox.iter().map(|message| &message.body);
    slots.chain(events).chain(messages).map(|value| value.bytes.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_keep_their_order_as_columns() {
        let points = [0, 1, (1 << 63) - 1, 1 << 63, u64::MAX];
        assert!(points.map(ring).is_sorted());
        assert_eq!(points.map(ring).map(point), points);
        assert_eq!(points.map(int).map(unsigned), points);
    }
}
