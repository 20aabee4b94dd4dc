//! Sole possession of a slot, while its actor is made or unmade.

use std::sync::Arc;

use quark_base::Key;

use crate::actor::Actor;
use crate::error::{CallError, Failure};
use crate::turn::block::panic_message;
use crate::turn::cell::Sole;
use crate::turn::{Executor, Slot};

pub(super) fn report_drop_panic(key: &Key, dropped: std::thread::Result<()>) {
    if let Err(payload) = dropped {
        tracing::error!(%key, panic = %panic_message(payload), "dropping an actor panicked");
    }
}

/// Sole possession of a slot that is being activated or deactivated.
pub(crate) struct Resident<A: Actor> {
    pub(crate) slot: Arc<Slot<A>>,
    pub(super) sole: Sole,
    pub(super) settled: bool,
}

impl<A: Actor> Resident<A> {
    /// Puts the actor in.
    pub(crate) fn fill(&mut self, actor: A) {
        self.empty();
        self.slot.actor.fill(&mut self.sole, actor);
    }

    /// The actor, if it is in.
    pub(crate) fn actor(&mut self) -> Option<&mut A> {
        self.slot.actor.get(&mut self.sole)
    }

    /// Drops the actor, if it is in.
    pub(crate) fn empty(&mut self) {
        report_drop_panic(&self.slot.key, self.slot.actor.empty(&mut self.sole));
    }

    /// The actor is ready for its turns, which `executor` runs if they are bound to it.
    pub(crate) fn settle_active(mut self, executor: Option<Arc<Executor>>) {
        self.settled = true;
        if executor.is_some() {
            self.slot.mailbox.lock().extra().executor = executor;
        }
        let past = self.slot.word.settle_active();
        if (past.has_queued() || past.wants_close()) && self.slot.word.schedule() {
            self.slot.schedule();
        }
    }

    /// The slot is empty, and another activation of it begins in the same place: what waits goes on waiting, and a
    /// device lease is kept.
    pub(crate) fn begin_again(&mut self) {
        self.slot.end_timers();
        self.empty();
        let mut mailbox = self.slot.mailbox.lock();
        let extra = mailbox.extra();
        (extra.close_reason, extra.torn_since, extra.loss) = (None, None, None);
        extra.keepers.drain(..).for_each(|keeper| keeper.retire());
        self.slot.word.begin_again();
    }

    /// The slot is empty again. With `failure`, every message that waits ends in it; otherwise they begin the
    /// next activation.
    pub(crate) fn settle_vacant(mut self, failure: Option<&dyn Fn() -> Failure>) {
        self.vacate(failure);
    }

    fn vacate(&mut self, failure: Option<&dyn Fn() -> Failure>) {
        self.settled = true;
        self.empty();
        let slot = &self.slot;
        slot.end_timers();
        // The lease goes back to the ledger before a next activation can ask for it.
        let gone = slot.mailbox.lock().extra.take();
        if let Some(gone) = &gone {
            gone.keepers.iter().for_each(|keeper| keeper.retire());
        }
        drop(gone);
        let mut mailbox = slot.mailbox.lock();
        mailbox.extra = None;
        let rejected = match failure {
            Some(_) => slot.take_messages(&mut mailbox),
            None => Vec::new(),
        };
        let past = slot.word.settle_vacant();
        drop(mailbox);
        for turn in rejected {
            if let Some(failure) = failure {
                turn.reject(failure());
            }
        }
        if failure.is_none() && past.has_queued() {
            slot.activate_if_vacant();
        }
    }
}

impl<A: Actor> Drop for Resident<A> {
    /// The activation or deactivation was given up half-way, since the silo's runtimes ended: whoever waits
    /// hears of it.
    fn drop(&mut self) {
        if !self.settled {
            let actor = self.slot.actor_id();
            self.vacate(Some(&|| CallError::Draining(Box::new(actor.clone()))));
            self.slot.host.services.activation_ends();
        }
    }
}
