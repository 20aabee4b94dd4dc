//! Which slot a worker is looking into: two plain stores a visit, for whoever wonders why it does not come back.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// A worker's note of where it is, and an observer's note of since when.
#[derive(Default)]
pub(crate) struct Visit {
    /// The slot's address, never followed; zero between visits. Written by the worker.
    slot: AtomicUsize,
    /// Counts visits. Written by the worker.
    number: AtomicU32,
    /// The visit that the observer saw last, and the tick at which it first did.
    seen: AtomicU32,
    since: AtomicU32,
}

impl Visit {
    /// The worker goes in.
    pub(super) fn begin(&self, slot: usize) {
        self.number.store(self.number.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// The worker has come back.
    pub(super) fn end(&self) {
        self.slot.store(0, Ordering::Relaxed);
    }

    /// Notes where the worker is at `tick`. For one observer.
    pub(crate) fn observe(&self, tick: u32) {
        let number = self.number.load(Ordering::Relaxed);
        if self.seen.swap(number, Ordering::Relaxed) != number {
            self.since.store(tick, Ordering::Relaxed);
        }
    }

    /// For how many ticks the worker is known to have been in `slot`; none if it is elsewhere.
    pub(crate) fn ticks_in(&self, slot: usize, tick: u32) -> Option<u32> {
        let there = self.slot.load(Ordering::Relaxed) == slot;
        let known = self.seen.load(Ordering::Relaxed) == self.number.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        there.then(|| if known { tick.wrapping_sub(since) } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_is_as_old_as_it_has_been_seen() {
        let visit = Visit::default();
        visit.begin(7);
        assert_eq!((visit.ticks_in(7, 10), visit.ticks_in(8, 10)), (Some(0), None));
        visit.observe(10);
        visit.observe(15);
        assert_eq!(visit.ticks_in(7, 15), Some(5));
        visit.end();
        visit.begin(7);
        assert_eq!(visit.ticks_in(7, 16), Some(0), "another visit to the same slot");
    }
}
