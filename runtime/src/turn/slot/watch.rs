//! What the watchdog finds in a slot: turns that have waited for long, and a poll that does not return.

use super::Slot;
use crate::actor::Actor;
use crate::services::TICK;
use crate::turn::sync::Ordering;
use crate::turn::word::Snapshot;
use crate::turn::{AnySlot, Phase, TaskRef};
use crate::watchdog::{StuckState, StuckTurn, Warned};

/// A turn that has begun and waits.
pub(in crate::turn) struct Pending {
    pub(super) turn: TaskRef,
    /// The tick at which it began.
    pub(super) since: u32,
    warned: Warned,
}

impl Pending {
    pub(super) fn new(turn: TaskRef, since: u32) -> Self {
        Self { turn, since, warned: Warned::default() }
    }
}

/// A poll that may not return: somebody holds the actor and is not among the turns that wait.
#[derive(Clone, Copy)]
pub(in crate::turn) struct PollWatch {
    /// The actor's last use, by which the next look knows whether it is the same poll.
    last_used: u32,
    /// It has been the same in two looks. One may come between a call's taking the actor and its noting that.
    confirmed: bool,
    warned: Warned,
}

impl<A: Actor> Slot<A> {
    /// Warns of turns that have lasted too long.
    pub(crate) fn watch_turns(&self, seen: Snapshot, tick: u32) {
        let limit = self.host.turn_limit_ticks();
        self.watch_poll(seen, tick, limit);
        let mut stuck = Vec::new();
        let mut mailbox = self.mailbox.lock();
        let Some(extra) = &mut mailbox.extra else { return };
        for pending in &mut extra.pending {
            let age = tick.wrapping_sub(pending.since);
            if pending.warned.is_due(age, limit) {
                stuck.push(self.stuck_pending(pending, age));
            }
        }
        if let Some(poll) = extra.poll.as_mut().filter(|poll| poll.confirmed) {
            let age = tick.wrapping_sub(poll.last_used);
            if poll.warned.is_due(age, limit) {
                stuck.push(self.stuck_poll(age));
            }
        }
        drop(mailbox);
        stuck.iter().for_each(StuckTurn::warn);
    }

    /// The turns that have lasted longer than the type's limit, as the last look found them.
    pub(crate) fn stuck_turns(&self, tick: u32) -> Vec<StuckTurn> {
        let limit = self.host.turn_limit_ticks();
        let mailbox = self.mailbox.lock();
        let Some(extra) = &mailbox.extra else { return Vec::new() };
        let old = extra.pending.iter().map(|pending| (pending, tick.wrapping_sub(pending.since)));
        let old = old.filter(|&(_, age)| age >= limit);
        let holders = self.holders(self.word.snapshot());
        let goes_on = |poll: &PollWatch| {
            let same = poll.last_used == self.last_used.load(Ordering::Relaxed);
            poll.confirmed && same && holders > extra.pending.len()
        };
        let polled = extra.poll.filter(goes_on);
        let polled = polled.map(|poll| self.stuck_poll(tick.wrapping_sub(poll.last_used)));
        old.map(|(pending, age)| self.stuck_pending(pending, age)).chain(polled).collect()
    }

    /// How many ticks after `tick` the next warning is due.
    pub(crate) fn watch_matters_in(&self, tick: u32) -> Option<u32> {
        let limit = self.host.turn_limit_ticks();
        let mailbox = self.mailbox.lock();
        let pending = &mailbox.extra.as_ref()?.pending;
        let left = |pending: &Pending| {
            let age = tick.wrapping_sub(pending.since);
            pending.warned.next(limit).saturating_sub(age).max(1)
        };
        pending.iter().map(left).min()
    }

    /// Looks for a turn that holds the actor without being among those that wait.
    fn watch_poll(&self, seen: Snapshot, tick: u32, limit: u32) {
        let executor = self.current_executor();
        let last_used = self.last_used.load(Ordering::Relaxed);
        let mut mailbox = self.mailbox.lock();
        let waiting = mailbox.extra.as_ref().map_or(0, |extra| extra.pending.len());
        // A timer's turn is no use of the actor, so an executor's word on how long it has been there counts as well.
        let unused = tick.wrapping_sub(last_used);
        let age = executor.ticks_in(self.place(), tick).map_or(unused, |there| there.min(unused));
        if self.holders(seen) <= waiting || age < limit {
            if let Some(extra) = &mut mailbox.extra {
                extra.poll = None;
            }
            return;
        }
        let poll = &mut mailbox.extra().poll;
        match poll {
            Some(poll) if poll.last_used == last_used => poll.confirmed = true,
            _ => *poll = Some(PollWatch { last_used, confirmed: false, warned: Warned::default() }),
        }
    }

    /// How many turns hold the actor; those in lanes, which are all in their first poll, count as one.
    fn holders(&self, seen: Snapshot) -> usize {
        let in_lanes = !self.lanes_are_empty();
        seen.readers() as usize + usize::from(seen.has_writer()) + usize::from(in_lanes)
    }

    /// Whether a turn holds the actor.
    pub(crate) fn has_turns(&self) -> bool {
        let seen = self.word.snapshot();
        seen.phase() == Phase::Active && self.holders(seen) > 0
    }

    fn stuck_pending(&self, pending: &Pending, age: u32) -> StuckTurn {
        let state = if pending.turn.is_being_polled() { StuckState::Polls } else { StuckState::Waits };
        StuckTurn {
            actor: self.id(),
            method: Some(pending.turn.method()),
            age: TICK.saturating_mul(age),
            state,
        }
    }

    fn stuck_poll(&self, age: u32) -> StuckTurn {
        StuckTurn { actor: self.id(), method: None, age: TICK.saturating_mul(age), state: StuckState::Polls }
    }

    /// The slot's address, as a worker notes it.
    fn place(&self) -> usize {
        std::ptr::from_ref(self).cast::<()>().addr()
    }
}
