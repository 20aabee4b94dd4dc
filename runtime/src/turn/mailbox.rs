//! The messages that wait for one actor: a list through the turns' own blocks.

use std::sync::Arc;

use quark_devices::lease::DeviceLease;

use crate::actor::DeactivationReason;
use crate::guards::Capacity;
use crate::state::keeper::{Keeper, Loss};
use crate::streams::OwnSubscriptions;
use crate::timers::ActorTimers;
use crate::turn::lend::Lends;
use crate::turn::slot::{Pending, PollWatch};
use crate::turn::task::TaskList;
use crate::turn::{Executor, TaskRef};

/// The messages that wait, and what else only a busy actor has.
pub(crate) struct Mailbox {
    messages: TaskList,
    pub(super) length: u32,
    pub(super) extra: Option<Box<Extra>>,
}

/// What only a busy actor, or one with a device, has.
#[derive(Default)]
pub(crate) struct Extra {
    /// Turns that have begun and wait. Bounded: one exclusive turn, the lent ones, and the shared ones that the
    /// word counts.
    pub(super) pending: Vec<Pending>,
    /// A poll that may not return.
    pub(super) poll: Option<PollWatch>,
    pub(crate) lends: Lends,
    pub(crate) timers: ActorTimers,
    pub(crate) subscriptions: OwnSubscriptions,
    pub(crate) lease: Option<Arc<DeviceLease>>,
    pub(crate) no_device: Option<Arc<quark_placement::NoDevice>>,
    pub(super) close_reason: Option<DeactivationReason>,
    /// The activation's hold on its stores.
    pub(super) keepers: Vec<Arc<Keeper>>,
    /// Its memory does not follow its store any more.
    pub(super) loss: Option<Loss>,
    /// When the sweep first saw that a turn's panic had torn the actor.
    pub(super) torn_since: Option<u32>,
    /// How many messages may wait, where that follows how fast they are drained.
    pub(super) capacity: Option<Capacity>,
    /// Who runs its turns, if not the type's own executor.
    pub(super) executor: Option<Arc<Executor>>,
}

impl Mailbox {
    pub(super) const fn new() -> Self {
        Self { messages: TaskList::new(), length: 0, extra: None }
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// How many messages may wait, once that was measured.
    pub(crate) fn measured_capacity(&self) -> Option<u32> {
        Some(self.extra.as_ref()?.capacity.as_ref()?.limit())
    }

    /// Whether a turn panicked, so that the actor must not take another one.
    pub(super) fn is_torn(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.close_reason == Some(DeactivationReason::Panicked))
    }

    pub(super) fn push(&mut self, turn: TaskRef) {
        self.messages.push(turn);
        self.length += 1;
    }

    /// Takes the exclusive messages at the head out, `most` of them at most, and says how many.
    pub(super) fn take_exclusive(&mut self, most: u32) -> (TaskList, u32) {
        let (turns, taken) = self.messages.take_exclusive(most);
        self.length -= taken;
        (turns, taken)
    }

    /// Puts messages back that were taken out too early.
    pub(super) fn put_back(&mut self, turns: TaskList, count: u32) {
        self.messages.prepend(turns);
        self.length += count;
    }

    /// Whether the first message wants to run alone.
    pub(crate) fn first_is_exclusive(&self) -> Option<bool> {
        self.messages.first().map(TaskRef::is_exclusive)
    }

    pub(super) fn pop(&mut self) -> Option<TaskRef> {
        let first = self.messages.pop()?;
        self.length -= 1;
        Some(first)
    }
}
