//! Shared turns on their callers' threads: one counts in the word, many threads' count in lanes.

use super::Slot;
use crate::actor::Actor;
use crate::turn::lanes::Lanes;
use crate::turn::local::Local;
use crate::turn::mailbox::Mailbox;
use crate::turn::sync::BriefGuard;
use crate::turn::{Hold, TaskRef};

/// Of the shared turns that meet others, one in so many spreads its actor. Gathering costs about a microsecond; spread
/// over some turns that meet, that is less than what they cost each other.
const SPREAD_ONE_IN: u32 = 16;

impl<A: Actor> Slot<A> {
    /// Takes a shared turn on the caller's thread, if no writer runs or waits.
    #[inline(always)]
    pub(crate) fn acquire_shared(&self, local: &Local) -> Option<Hold> {
        if self.word.glance().lets_into_lanes() {
            return self.enter_lane(local);
        }
        if self.word.try_shared_alone() {
            return Some(Hold::Shared);
        }
        self.acquire_beside_others(local)
    }

    #[inline]
    fn enter_lane(&self, local: &Local) -> Option<Hold> {
        let lanes = self.lanes.get()?;
        lanes.enter(local.number());
        if self.word.glance().lets_into_lanes() {
            return Some(Hold::Lane);
        }
        self.leave_lane(local);
        None
    }

    #[inline(never)]
    fn acquire_beside_others(&self, local: &Local) -> Option<Hold> {
        if !self.word.try_shared() {
            return None;
        }
        if local.ticks.get().is_multiple_of(SPREAD_ONE_IN) {
            self.spread();
        }
        Some(Hold::Shared)
    }

    /// Lets shared turns into lanes. The caller holds one.
    pub(crate) fn spread(&self) {
        self.lanes.get_or_init(Lanes::new);
        self.word.spread();
    }

    /// Ends a shared turn that a lane counts.
    #[inline]
    pub(super) fn leave_lane(&self, local: &Local) {
        let Some(lanes) = self.lanes.get() else { return };
        lanes.leave(local.number());
        let seen = self.word.glance();
        if !seen.lets_into_lanes() && self.word.lane_left(seen) {
            self.schedule();
        }
    }

    /// A turn that a lane counts outlives its first poll: the word counts it from here on.
    #[cold]
    pub(super) fn leave_lane_for_good(&self, turn: &TaskRef, local: &Local) {
        self.word.leave_lane();
        turn.leave_lane();
        self.leave_lane(local);
    }

    /// Whether no lane counts a shared turn now.
    pub(crate) fn lanes_are_empty(&self) -> bool {
        self.lanes.get().is_none_or(Lanes::are_empty)
    }

    /// Sees to it that the word counts every shared turn. False if some still run that it does not count: the last of
    /// them schedules the slot. Under the mailbox lock, so that no two gather at once.
    pub(crate) fn gather(&self, _lock: &BriefGuard<'_, Mailbox>) -> bool {
        if !self.word.snapshot().is_spread() {
            return true;
        }
        self.word.close_lanes();
        let empty = self.lanes_are_empty();
        if empty {
            self.word.lanes_are_empty();
        }
        empty
    }
}
