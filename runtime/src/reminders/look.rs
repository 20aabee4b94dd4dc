//! Which page of the store is read next. Pure.
//!
//! Two ways lead through the reminders in the order of their due times, each again and again. One reads what is due soon;
//! it has little to read and never waits for the other. The other one reads what is late: after an outage, set by
//! another silo for a time that has passed, or failing. So however many fail, those that are due soon are found in time.
//!
//! A page of what is late that brings much is followed by the next as soon as that has been begun; one that brings little
//! is full of what fails and waits for its next try, and the next page waits for a while.

use std::time::Duration;

use quark_base::Timestamp;

use super::held::{Held, Span};
use crate::store::{DuePlace, RingRange};

/// How often the store is looked at: for what other silos set, and for what comes into sight.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How far ahead is read: two looks, so that one that takes a while makes nothing late.
pub const HORIZON: Duration = Duration::from_secs(2);

const _: () =
    assert!(HORIZON.as_millis() >= 2 * LOOK_EVERY.as_millis(), "each due time is in sight of a look");

/// Reminders that are read at once: at 10,000 ticks a second, those of most of a second.
pub(super) const PAGE: usize = 8_192;

/// A page of what is late brings much if it brings at least this part of itself.
const MUCH: usize = 8;

/// Both ways, and how far they have come.
pub(super) struct Looks {
    soon: Way,
    late: Way,
    /// Up to where the last pass of `soon` has been.
    seen_until: Timestamp,
}

struct Way {
    /// Neither a page nor a pass begins before.
    not_before: Duration,
    pass: Option<Pass>,
}

/// One pass through all owned parts of the ring.
struct Pass {
    /// As `Held` numbers it.
    number: u64,
    begun: Duration,
    span: Span,
    owned: Vec<RingRange>,
    /// The part that is being read, and how far.
    part: usize,
    after: DuePlace,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Soon,
    Late,
}

/// A page to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) which: Which,
    pub(super) range: RingRange,
    pub(super) after: DuePlace,
    pub(super) until: Timestamp,
}

/// What a page brought.
#[derive(Clone, Debug)]
pub(super) struct Brought {
    /// Reminders that were read.
    pub(super) read: usize,
    /// How many of them were taken in hand.
    pub(super) taken: usize,
    /// Where the next page begins.
    pub(super) next: Option<DuePlace>,
}

impl Looks {
    pub(super) fn new(now: Duration, today: Timestamp) -> Self {
        let way = || Way { not_before: now, pass: None };
        Self { soon: way(), late: way(), seen_until: today }
    }

    /// When the next page may be read, unless something ends before that and makes room.
    pub(super) fn next(&self, held: &Held) -> Duration {
        let late = held.has_room_for_late(PAGE).then_some(self.late.not_before);
        late.map_or(self.soon.not_before, |late| late.min(self.soon.not_before))
    }

    /// Something is known to have changed: what is due soon is looked through anew, and what is late sooner.
    pub(super) fn again(&mut self, now: Duration) {
        self.soon = Way { not_before: now, pass: None };
        self.late.not_before = now;
    }

    /// Begins the next page, if it is time for one. What is due soon goes first.
    pub(super) fn next_page(
        &mut self,
        held: &mut Held,
        owned: impl FnOnce() -> Vec<RingRange>,
        today: Timestamp,
        now: Duration,
    ) -> Option<Page> {
        if self.soon.pass.is_some() && held.is_full() {
            // What is left of it waits in the store until it is late.
            self.end(Which::Soon);
        }
        let which = if now >= self.soon.not_before {
            Which::Soon
        } else if now >= self.late.not_before && held.has_room_for_late(PAGE) {
            Which::Late
        } else {
            return None;
        };
        let owned = owned();
        let span = match which {
            // With what other silos set for a moment that has just passed, or passed during an outage.
            Which::Soon => {
                let from = self.seen_until.min(today.saturating_sub(HORIZON));
                Span { from, until: today.saturating_add(HORIZON) }
            }
            Which::Late => Span { from: Timestamp(0), until: today },
        };
        let way = self.way(which);
        // A part that was not this silo's before is read from its beginning.
        let pass = way.pass.take().filter(|pass| pass.owned == owned);
        let pass = pass.unwrap_or_else(|| {
            let (number, after) = (held.begin_pass(&owned), DuePlace::before(span.from));
            Pass { number, begun: now, span, owned, part: 0, after }
        });
        let Some(range) = pass.owned.get(pass.part).copied() else {
            way.not_before = now.saturating_add(LOOK_EVERY);
            return None;
        };
        held.begin_page();
        let page = Page { which, range, after: pass.after.clone(), until: pass.span.until };
        way.pass = Some(pass);
        Some(page)
    }

    /// The page has been read.
    pub(super) fn read(&mut self, held: &mut Held, which: Which, brought: Brought, now: Duration) {
        let way = self.way(which);
        let Some(pass) = &mut way.pass else { return };
        pass.part += usize::from(brought.next.is_none());
        pass.after = brought.next.unwrap_or_else(|| DuePlace::before(pass.span.from));
        if pass.part < pass.owned.len() {
            let waits = which == Which::Late && brought.taken * MUCH < brought.read;
            way.not_before = if waits { now.saturating_add(LOOK_EVERY) } else { now };
            return;
        }
        held.end_pass(pass.number, pass.span);
        self.end(which);
    }

    /// The page could not be read. What is due soon is looked for anew, as it is later then.
    pub(super) fn failed(&mut self, which: Which) {
        if which == Which::Soon {
            self.soon.pass = None;
        }
    }

    /// A pass has ended; the next one begins a look's time after it began.
    fn end(&mut self, which: Which) {
        let way = self.way(which);
        let Some(pass) = way.pass.take() else { return };
        way.not_before = pass.begun.saturating_add(LOOK_EVERY);
        if which == Which::Soon {
            self.seen_until = pass.span.until;
        }
    }

    fn way(&mut self, which: Which) -> &mut Way {
        match which {
            Which::Soon => &mut self.soon,
            Which::Late => &mut self.late,
        }
    }
}

#[cfg(test)]
mod tests;
