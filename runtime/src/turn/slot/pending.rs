//! Turns that have begun and wait: who they are, when they may go on, and how they are ended.

use std::time::Duration;

use super::Slot;
use super::watch::Pending;
use crate::actor::Actor;
use crate::error::StopCause;
use crate::services::TICK;
use crate::turn::sync::Ordering;
use crate::turn::{Hold, Item, Polled, TaskRef};

/// How long turns may go on beside one that panicked, in ticks: five seconds.
const TORN_TICKS_MAX: u32 = (Duration::from_secs(5).as_millis() / TICK.as_millis()) as u32;

impl<A: Actor> Slot<A> {
    /// Enters a turn that has begun among those that wait.
    pub(super) fn attach(&self, turn: &TaskRef) {
        turn.own(|| self.arc());
        let mut mailbox = self.mailbox.lock();
        let pending = &mut mailbox.extra().pending;
        turn.pending_index().store(pending.len() as u32, Ordering::Relaxed);
        pending.push(Pending::new(turn.clone(), self.host.tick()));
        // Those who end all turns may have looked before this one was there to be found.
        drop(mailbox);
        if self.host.services.has_stopped() {
            turn.abort(StopCause::Silo);
        }
    }

    pub(super) fn detach(&self, turn: &TaskRef) {
        let mut mailbox = self.mailbox.lock();
        // Read under the lock: another turn's end may move this one.
        let index = turn.pending_index().swap(u32::MAX, Ordering::Relaxed) as usize;
        let Some(extra) = mailbox.extra.as_mut().filter(|extra| index < extra.pending.len()) else { return };
        let gone = extra.pending.swap_remove(index);
        if let Some(moved) = extra.pending.get(index) {
            moved.turn.pending_index().store(index as u32, Ordering::Relaxed);
        }
        drop(mailbox);
        drop(gone);
    }

    pub(super) fn is_attached(turn: &TaskRef) -> bool {
        turn.pending_index().load(Ordering::Relaxed) != u32::MAX
    }

    /// The poll of a turn ended without its end.
    pub(super) fn pause(&self, turn: &TaskRef) {
        if turn.has_lent() {
            let next = self.mailbox.lock().extra().lends.park(turn);
            if let Some(next) = next {
                self.begin_taken(next, Hold::Lent);
            }
        }
        if turn.pause() {
            self.push(Item::Turn(turn.clone()));
        }
    }

    pub(super) fn lent_turn_over(&self) {
        let next = self.mailbox.lock().extra().lends.turn_over();
        match next {
            Some((turn, true)) => self.push(Item::Turn(turn)),
            Some((turn, false)) => self.begin_taken(turn, Hold::Lent),
            None => {}
        }
    }

    /// A poll of `turn`, which holds its part of the actor, has ended.
    pub(super) fn poll_ended(&self, turn: &TaskRef, polled: Polled) {
        match polled {
            Polled::Pending => self.pause(turn),
            Polled::Done => {
                if Self::is_attached(turn) {
                    // It may have begun long ago. One that ends in its first poll has not.
                    self.touch_for(turn);
                    self.detach(turn);
                }
                // Before the next turn begins, lest a call of this turn's chain pass for one that waits here.
                turn.end_chain();
                self.let_go(turn.hold());
                turn.finish();
            }
        }
    }

    /// Ends the turns that still share an actor some time after another turn's panic tore it: they may finish,
    /// but not hold up the fresh actor for as long as they please.
    pub(crate) fn end_torn_turns(&self, tick: u32) {
        let mut mailbox = self.mailbox.lock();
        if !mailbox.is_torn() {
            return;
        }
        let since = *mailbox.extra().torn_since.get_or_insert(tick);
        drop(mailbox);
        if tick.wrapping_sub(since) >= TORN_TICKS_MAX {
            self.abort_turns(StopCause::Torn);
        }
    }

    /// How many ticks after `tick` a look at an actor that is to leave may find something to do. An actor that waits
    /// for nothing but its executor is none of the sweep's business.
    pub(crate) fn closing_matters_in(&self, tick: u32) -> Option<u32> {
        let mailbox = self.mailbox.lock();
        if !mailbox.is_torn() {
            drop(mailbox);
            return self.watch_matters_in(tick);
        }
        let since = mailbox.extra.as_ref().and_then(|extra| extra.torn_since);
        Some(since.map_or(1, |since| TORN_TICKS_MAX.saturating_sub(tick.wrapping_sub(since)).max(1)))
    }

    /// Asks every turn that has begun to end.
    pub(super) fn abort_turns(&self, cause: StopCause) {
        let pending = self
            .mailbox
            .lock()
            .extra
            .as_ref()
            .map(|extra| extra.pending.iter().map(|pending| pending.turn.clone()).collect::<Vec<_>>());
        for turn in pending.into_iter().flatten() {
            turn.abort(cause);
        }
    }
}
