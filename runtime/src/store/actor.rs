//! The port to actors' states, journals and messages.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use quark_base::Timestamp;

use super::{Address, Commit, ETag, Encoded, MessageId, OutboxId, PendingMessage, StoreFuture};

/// How long an activation waits to learn whether a commit is in before it gives up and ends. A failover of a database takes
/// some seconds; a caller who waits longer has given up.
pub const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// Keeps what belongs to actors.
///
/// An implementation MUST
///
/// - write a [`Commit`] wholly or not at all, and answer it only when it survives the end of the silo and, as far as
///   the store promises, of the store;
/// - let a commit in by its fence, as the actor's last commit says:
///
///   | the store has | it MUST |
///   |---|---|
///   | nothing of the actor, `seen` is `None` and `sequence` is 1 | go on |
///   | nothing of the actor, else | answer [`StoreError::Lost`](super::StoreError::Lost) |
///   | the fence's `epoch` and `sequence` | answer `Ok` and write nothing: it is the same commit, sent again |
///   | the fence's `epoch` and a smaller sequence | go on |
///   | the fence's `seen`, epoch and sequence | go on |
///   | anything else | answer [`Conflict::Fence`](super::Conflict::Fence) |
///
/// - then check every expectation in the same atomic step, in this order: slots' ETags, journals' last sequence numbers,
///   inbox ids that are not there; and answer the first that fails as
///   [`StoreError::Conflict`](super::StoreError::Conflict), with nothing written;
/// - refuse names that others do not take ([`names`](super::names)) before anything is sent, with
///   [`StoreError::Name`](super::StoreError::Name), so that one bad commit keeps no other back;
/// - say [`StoreError::Unknown`](super::StoreError) and nothing milder when a commit was sent and its answer is
///   missing;
/// - answer in bounded time: an outage is an error, not a wait. A commit that is not answered within
///   [`COMMIT_PATIENCE`] is unknown to its activation, which ends;
/// - stay usable after every error.
///
/// Dropping a future of `commit` leaves it unknown whether the commit is in, never half of it.
pub trait ActorStore: Send + Sync + 'static {
    /// Reads what an activation needs.
    fn load<'a>(&'a self, actor: &'a Address, wanted: &'a Wanted) -> StoreFuture<'a, Loaded>;

    /// Writes one commit.
    fn commit<'a>(&'a self, commit: &'a Commit) -> StoreFuture<'a, ()>;

    /// Reads the events of a journal after sequence number `after`, in order, at most `limit` of them.
    fn events<'a>(
        &'a self,
        actor: &'a Address,
        journal: &'a str,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Event>>;

    /// Reads the events of all journals of this name of an actor type, at most `limit` of them, for projections.
    ///
    /// Each event comes after those before it in its journal. Between journals the order is the store's, and the same
    /// at each reading. An event is never skipped because its commit ended later than another's; to keep to that, a
    /// store may show an event only some time after its commit was answered.
    fn feed<'a>(
        &'a self,
        actor_type: &'a str,
        journal: &'a str,
        after: &'a FeedPosition,
        limit: usize,
    ) -> StoreFuture<'a, FeedPage>;

    /// Reads messages of outboxes that are still there and come after a place, at most `limit`, which is at least one;
    /// those of one actor in the order of its commits.
    ///
    /// Pages that each begin where the one before it ended MUST leave no message out, whenever it was committed; to keep
    /// to that, a store may show a message from a place on only some time after its commit was answered. From the
    /// beginning it MUST show it at once. A page MUST take no longer for what stands before its place.
    fn outbox<'a>(&'a self, after: &'a OutboxPlace, limit: usize) -> StoreFuture<'a, OutboxPage>;

    /// Takes messages out of their outboxes, since they were delivered. One that is gone already is no error.
    fn relayed<'a>(&'a self, messages: &'a [OutboxId]) -> StoreFuture<'a, ()>;

    /// Whether a commit of the actor has this message in its inbox.
    fn has_received<'a>(&'a self, actor: &'a Address, message: &'a MessageId) -> StoreFuture<'a, bool>;

    /// Forgets inbox entries of commits from before `time`, and says how many. It may do so in parts: call again until it is 0.
    fn forget_received(&self, time: Timestamp) -> StoreFuture<'_, u64>;
}

/// What an activation needs of its actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// States, by name.
    pub slots: Vec<Cow<'static, str>>,
    /// Journals, by name.
    pub journals: Vec<Cow<'static, str>>,
}

/// What a store has of an actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The actor's last commit; `None` if there was none.
    pub last: Option<ETag>,
    /// The wanted states, in the order they were asked for.
    pub slots: Vec<Option<SlotRecord>>,
    /// The wanted journals, likewise.
    pub journals: Vec<JournalHead>,
}

/// A state as a store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRecord {
    /// Which commit wrote it.
    pub etag: ETag,
    /// Its value.
    pub value: Encoded,
}

/// Where a journal ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalHead {
    /// The sequence number of its last event; zero for none.
    pub last: u64,
    /// Its newest snapshot.
    pub snapshot: Option<Snapshot>,
}

/// The folded state of a journal at one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The sequence number of the last event in it.
    pub sequence: u64,
    /// The state.
    pub value: Encoded,
}

/// One event of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number within the journal, from 1.
    pub sequence: u64,
    /// When it was committed.
    pub time: Timestamp,
    /// The event.
    pub value: Encoded,
}

/// One event among those of many actors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// Whose journal.
    pub actor: Address,
    /// The event.
    pub event: Event,
}

/// A part of a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedPage {
    /// The events; none if there are no further ones now.
    pub events: Vec<FeedEvent>,
    /// Where the next page begins. To be kept by whoever reads.
    pub next: FeedPosition,
}

/// A part of the messages that wait in outboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxPage {
    /// The messages.
    pub messages: Vec<PendingMessage>,
    /// Where the next page begins.
    pub next: OutboxPlace,
    /// There were no further ones to be seen.
    pub is_last: bool,
}

/// A place among the messages that wait in outboxes. Its numbers are the store's own; the default is the beginning. Not
/// to be kept for another process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxPlace(pub Box<[u64]>);

/// A place in a feed. Its text is the store's own; the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FeedPosition(pub String);

impl fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
