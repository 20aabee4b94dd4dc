//! The ports to what survives a silo: actors' state, journals and messages, reminders, durable streams.
//!
//! A store keeps four things, each behind a trait of its own:
//!
//! - [`ActorStore`]: all that belongs to one actor, written in one atomic [`Commit`] behind one [`Fence`]: named
//!   states, journals of events, messages to other actors (the outbox) and the ids of messages that took effect
//!   (the inbox)
//! - [`ReminderStore`]: due times, by range of the hash ring
//! - [`StreamStore`]: durable streams, read by groups
//! - [`Health`]: whether the store answers
//!
//! [`Store`] joins what one server or file offers. The implementations are in `quark-storage`, with the conformance
//! suite that each of them passes.
//!
//! ## Two activations, one commit
//!
//! An activation reads which commit was the actor's last when it loads, and chooses a greater epoch for itself. Its
//! first commit goes through only while that one is still the last; from then on, only while the store has its own
//! epoch. So
//! of two activations that loaded the same past only one can ever commit, whichever states or journals they touch, and
//! no write is needed to claim an actor that only reads. The other one hears [`Conflict::Fence`].
//!
//! A commit is numbered. One whose answer got lost may be sent again with the same number: a store that has it already
//! says so instead of writing twice.

mod actor;
mod commit;
mod error;
pub mod names;
mod reminder;
mod stream;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use actor::{
    ActorStore, COMMIT_PATIENCE, Event, FeedEvent, FeedPage, FeedPosition, JournalHead, Loaded, OutboxPage,
    OutboxPlace, SlotRecord, Snapshot, Wanted,
};
pub use commit::{
    Address, Append, Commit, ETag, Encoded, Epoch, Fence, Format, MessageId, OutboxId, OutboxMessage,
    PendingMessage, SlotWrite,
};
pub use error::{Conflict, StoreError};
pub use names::{NameError, NameOf};
pub use reminder::{Advance, DuePage, DuePlace, LastDue, ReminderRecord, ReminderStore, RingRange};
pub use stream::{Delivered, Group, NewItem, Position, ReadStart, Retention, StreamStore};

/// What a store's methods return: nothing happens until it is awaited.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Whether a store answers, as far as its connections know.
pub trait Health: Send + Sync + 'static {
    /// What is known now, without asking the server.
    fn state(&self) -> HealthState;
}

/// What is known of a store's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// The last operation was answered.
    Up,
    /// The server has not answered lately, or refuses. What it says names no secret.
    Down(Arc<str>),
}

/// One server or file, with all that it offers. Cheap to clone; clones share its connections.
#[derive(Clone)]
pub struct Store {
    /// What it is, without secrets: `postgres://db.example/quark`.
    pub name: Arc<str>,
    /// States, journals, outboxes and inboxes.
    pub actors: Arc<dyn ActorStore>,
    /// Reminders.
    pub reminders: Arc<dyn ReminderStore>,
    /// Durable streams; none where the store has no fit for them.
    pub streams: Option<Arc<dyn StreamStore>>,
    /// Whether it answers.
    pub health: Arc<dyn Health>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("name", &self.name).finish_non_exhaustive()
    }
}
