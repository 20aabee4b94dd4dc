//! The port to durable streams.

use std::fmt;
use std::time::Duration;

use quark_base::{Key, Timestamp};

use super::{Encoded, StoreFuture};

/// Keeps durable streams.
///
/// A namespace is a log in a few partitions; an item's key chooses its partition, so that the items of one key keep
/// their order. Groups read the log: each group gets every item at least once, and remembers what it acknowledged.
///
/// An implementation MUST answer an append only when the items survive the end of the silo; MUST give the items of a
/// key in the order of their appends; MUST give an item again that a group was given and has not acknowledged, after
/// `visibility`; MUST refuse [names](super::names) that others do not take; MUST NOT give an item to a group that has acknowledged it, unless the group was sent back; and MUST
/// answer in bounded time. A group that was never opened reads nothing: `read`, `seek` and `lag` of it are
/// [`StoreError::Unexpected`](super::StoreError::Unexpected).
pub trait StreamStore: Send + Sync + 'static {
    /// Appends items and gives their positions, in the same order. Items of one call are written in one step each
    /// partition.
    fn append<'a>(&'a self, namespace: &'a str, items: &'a [NewItem]) -> StoreFuture<'a, Vec<Position>>;

    /// Makes a group that begins at `start`. One that is there already goes on where it is.
    fn open_group<'a>(&'a self, group: &'a Group, start: ReadStart) -> StoreFuture<'a, ()>;

    /// Gives items to the group that it was not given, or was given `visibility` ago or longer without an
    /// acknowledgement; at most `limit`. Waits up to `wait` for the first. Several may read for a group at once: each
    /// item goes to one of them.
    fn read<'a>(
        &'a self,
        group: &'a Group,
        limit: usize,
        visibility: Duration,
        wait: Duration,
    ) -> StoreFuture<'a, Vec<Delivered>>;

    /// The group is done with these. Unknown positions are no error.
    fn acknowledge<'a>(&'a self, group: &'a Group, positions: &'a [Position]) -> StoreFuture<'a, ()>;

    /// Sends a group to another place, back or forth. What it was given and has not acknowledged is forgotten.
    fn seek<'a>(&'a self, group: &'a Group, to: ReadStart) -> StoreFuture<'a, ()>;

    /// How many items the group has still to acknowledge.
    fn lag<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, u64>;

    /// Drops old items of a namespace, whether or not all groups have them, and says how many; it may keep some more
    /// than asked where that is cheaper.
    fn trim<'a>(&'a self, namespace: &'a str, keep: Retention) -> StoreFuture<'a, u64>;
}

/// An item on its way into a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewItem {
    /// The stream's key within its namespace.
    pub key: Key,
    /// When it was published.
    pub time: Timestamp,
    /// The item.
    pub value: Encoded,
}

/// Where an item stands in its namespace's log. Within a partition, later items have greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The log's partition.
    pub partition: u32,
    /// The place in it.
    pub major: u64,
    /// Among those with the same `major`.
    pub minor: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.partition, self.major, self.minor)
    }
}

/// Who reads a namespace: several groups read it independently of each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// What is read.
    pub namespace: String,
    /// Who reads: the subscription's name.
    pub name: String,
}

/// Where a group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStart {
    /// At the oldest item that is kept.
    Oldest,
    /// After the newest.
    Newest,
    /// At the first item that was published at this time or later.
    Time(Timestamp),
    /// At this item, in its partition; the other partitions stay where they are.
    At(Position),
}

/// An item that a group is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Where it stands.
    pub position: Position,
    /// Its stream's key.
    pub key: Key,
    /// When it was published.
    pub time: Timestamp,
    /// The item.
    pub value: Encoded,
    /// How often the group was given it, this time included.
    pub attempts: u32,
}

/// What a stream keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// At most so many items a partition.
    pub items: Option<u64>,
    /// Only what was published at this time or later.
    pub since: Option<Timestamp>,
}
