//! What happens to a message that finds the mailbox full, and to one that must give way.

use std::fmt;

use crate::actor::Actor;
use crate::error::{CallError, Dropped, Failure};
use crate::turn::{Blocked, Mailbox, Slot, TaskRef};

/// Callers that may wait for room behind one full mailbox. As many again as the default mailbox holds: whoever
/// waits behind 20,000 messages has better things to do.
pub const WAITERS_MAX: u32 = 10_000;

/// Who gives way at a full mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The new message: its caller gets [`Overloaded`](CallError::Overloaded).
    #[default]
    Reject,
    /// The message that waits longest: its caller gets [`Dropped`](CallError::Dropped). For readings that only
    /// matter while they are fresh.
    DropOldest,
    /// The new message: a caller gets [`Dropped`](CallError::Dropped), and a `tell` goes on as if nothing had
    /// happened.
    DropNewest,
    /// Nobody: callers wait in the order they came, behind the mailbox, up to [`WAITERS_MAX`] of them; the next one
    /// is `Overloaded`. A `tell` has nobody to wait, so it is `Overloaded` at once.
    Wait,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reject => "reject",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::Wait => "wait",
        })
    }
}

/// What a new message finds at a full mailbox.
pub(crate) enum Room {
    /// No place; the message is its caller's to keep.
    None,
    /// A place behind the others, past the mailbox's capacity.
    Behind,
    /// The place of this message, which waited longest.
    Of(TaskRef),
    /// No place; the message is lost.
    NotEvenThis,
}

impl<A: Actor> Slot<A> {
    /// How many messages may wait here.
    pub(crate) fn capacity(&self, mailbox: &Mailbox) -> u32 {
        match &self.host.guards().mailbox {
            None => self.host.spec.mailbox,
            Some(bounds) => mailbox.measured_capacity().unwrap_or(bounds.min()),
        }
    }

    /// How many messages may wait here now.
    pub(crate) fn mailbox_capacity(&self) -> u32 {
        self.capacity(&self.mailbox())
    }

    /// Decides who gives way to a new message at a full mailbox.
    #[cold]
    pub(crate) fn make_room(&self, mailbox: &mut Mailbox, new: &TaskRef) -> Room {
        match self.host.guards().overflow {
            Overflow::Reject => Room::None,
            Overflow::Wait if new.is_one_way() => Room::None,
            Overflow::Wait if mailbox.length() >= self.capacity(mailbox).saturating_add(WAITERS_MAX) => {
                Room::None
            }
            Overflow::Wait => Room::Behind,
            Overflow::DropOldest => self.pop(mailbox).map_or(Room::Behind, Room::Of),
            Overflow::DropNewest => Room::NotEvenThis,
        }
    }

    /// Ends a new message that gives way to those that wait. Call without the mailbox lock.
    #[cold]
    pub(crate) fn drop_newest(&self, new: TaskRef) -> Result<(), Blocked> {
        if new.is_one_way() {
            self.shed(new);
            return Ok(());
        }
        Err(Blocked::Failed(self.gave_way()))
    }

    /// Ends a message that gave way before it began. Call without the mailbox lock: its drop may run the user's
    /// code.
    #[cold]
    pub(crate) fn shed(&self, turn: TaskRef) {
        let failure = self.gave_way();
        turn.reject(failure);
    }

    /// Ends a one-way message that a guard keeps out. Like every message that ends before it began, it becomes a
    /// dead letter.
    #[cold]
    pub(crate) fn lose(&self, turn: TaskRef, failure: Failure) {
        self.host.note_dropped();
        turn.reject(failure);
    }

    fn gave_way(&self) -> Failure {
        let policy = self.host.guards().overflow;
        self.host.note_dropped();
        CallError::Dropped(Box::new(Dropped { actor: self.actor_id(), policy }))
    }
}
