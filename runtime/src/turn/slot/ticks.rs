//! What an activation's timers mean for its slot: they end with it, and may keep it from being idle.

use std::mem;

use super::Slot;
use crate::actor::{Actor, DeactivationReason};
use crate::error::CallError;
use crate::supervision;
use crate::turn::AnySlot;

impl<A: Actor> Slot<A> {
    /// Ends the activation's own subscriptions and timers, and takes out of the mailbox what they sent.
    pub(crate) fn end_timers(&self) {
        let subscriptions = self.mailbox().extra.as_mut().map(|extra| mem::take(&mut extra.subscriptions));
        // Their items may be dropped with them, so not under the lock.
        drop(subscriptions);
        let timers = self.mailbox().extra.as_mut().map(|extra| mem::take(&mut extra.timers));
        if !timers.is_some_and(|mut timers| timers.end()) {
            return;
        }
        let mut mailbox = self.mailbox();
        let mut ticks = Vec::new();
        for _ in 0..mailbox.length {
            match mailbox.pop() {
                Some(turn) if turn.is_from_timer() => ticks.push(turn),
                Some(turn) => mailbox.push(turn),
                None => break,
            }
        }
        if mailbox.length == 0 && !ticks.is_empty() {
            self.word.clear_queued();
        }
        drop(mailbox);
        if !ticks.is_empty() {
            self.host.note_space();
        }
        for tick in ticks {
            // Given up first, so that its end is not reported as a failure.
            tick.abandon();
            tick.reject(CallError::Draining(Box::new(self.actor_id())));
        }
    }

    /// Whether a timer, or a child in use, keeps the actor active.
    pub(crate) fn is_kept(&self) -> bool {
        self.mailbox().extra.as_ref().is_some_and(|extra| extra.timers.keep_active())
            || supervision::has_live_children(&self.host, &self.key)
    }

    /// Deactivates an actor that nobody has used for its idle time, unless something keeps it.
    pub(crate) fn deactivate_idle(&self) {
        if self.is_kept() {
            // Looked at again after another idle time.
            self.touch();
        } else {
            self.request_deactivation(DeactivationReason::Idle);
        }
    }
}
