//! The reminders that a service has in hand: read ahead of their time, late, under way, or to be tried again. Pure.
//!
//! ```text
//! waiting --due--> under way --taken--> taken --advanced--> (gone; in again with its next moment, if that is near)
//! late ----------> under way --failed--> retrying --its time--> under way
//!                                    \--> (put aside; in again when a page of the store shows it after that time)
//! ```
//!
//! Each is here once, by actor and name, from when it is read until the store has its next moment. What a page of the
//! store has of one that is here already says nothing new, unless it has another version; and what it has of one that
//! moved on while the page was under way is older than what is known.
//!
//! Those that come in time and those that do not stand in lines of their own, which are served by turns.

mod aside;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use quark_base::Timestamp;

use self::aside::Aside;
use crate::store::{Address, Advance, ReminderRecord, RingRange};

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// In hand. At the bound, others wait in the store.
    pub(super) held: usize,
    /// In hand of those that wait to be tried again. Further ones are put aside.
    pub(super) retrying: usize,
    /// Put aside. Of further ones it is not known when they are to be tried again: they are when they are read again.
    pub(super) aside: usize,
}

impl Bounds {
    /// Three quarters of what is in hand are left to those that do not fail. Each that is put aside takes some 50 bytes.
    pub(super) const DEFAULT: Self = Self { held: 65_536, retrying: 16_384, aside: 262_144 };
}

/// Whose reminder, and its name.
pub(super) type Id = (Address, String);

/// Names a reminder in hand.
pub(super) type Number = u64;

/// The reminders in hand.
pub(super) struct Held {
    bounds: Bounds,
    entries: HashMap<Number, Entry>,
    numbers: HashMap<Id, Number>,
    /// Seen before they are due.
    waiting: BTreeSet<(Timestamp, Number)>,
    /// Seen when they were due already.
    late: BTreeSet<(Timestamp, Number)>,
    retrying: BTreeSet<(Duration, Number)>,
    aside: Aside,
    last_number: Number,
    /// The last one that began, of the passes through the store.
    pass: u64,
    /// What changed while a page is under way; none while there is no page.
    changed: Option<HashSet<Id>>,
    /// Of those in time and the others, whose turn it is.
    others_next: bool,
}

struct Entry {
    record: Arc<ReminderRecord>,
    place: Place,
    tries: u32,
    /// It was seen before it was due, so nobody can have delivered this tick already.
    fresh: bool,
    /// The last pass before or in which it was known to be in the store.
    seen: u64,
    /// What it is moved on to, once it has been taken.
    next: Option<Timestamp>,
    /// What this silo has made of it while somebody was at work on it: another one, if that is due soon, or none.
    changed: Option<Option<ReminderRecord>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Waiting,
    Late,
    Retrying(Duration),
    UnderWay,
    Taken,
}

impl Place {
    /// Nobody is at work on it.
    const fn is_idle(self) -> bool {
        matches!(self, Self::Waiting | Self::Late | Self::Retrying(_))
    }
}

/// A tick to be delivered.
#[derive(Clone)]
pub(super) struct Firing {
    pub(super) number: Number,
    pub(super) record: Arc<ReminderRecord>,
    /// Nobody can have delivered it before.
    pub(super) is_first: bool,
}

/// From one due time to another, with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Default for Held {
    fn default() -> Self {
        Self::new(Bounds::DEFAULT)
    }
}

impl Held {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: HashMap::new(),
            numbers: HashMap::new(),
            waiting: BTreeSet::new(),
            late: BTreeSet::new(),
            retrying: BTreeSet::new(),
            aside: Aside::new(bounds.aside),
            last_number: 0,
            pass: 0,
            changed: None,
            others_next: false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.bounds.held
    }

    /// Whether a page of what is late would find little of such that waits for its turn. Ticks that a slow store has not
    /// noted yet do not count: others must not become late by them.
    pub(super) fn has_room_for_late(&self, page: usize) -> bool {
        !self.is_full() && self.late.len() < page / 2
    }

    /// A pass through the store begins, over these parts of the ring. Lets go what others own now. Gives the pass's
    /// number.
    pub(super) fn begin_pass(&mut self, owned: &[RingRange]) -> u64 {
        self.pass += 1;
        let is_owned = |ring| owned.iter().any(|range| range.contains(ring));
        self.let_go(|entry| !is_owned(entry.record.ring));
        self.pass
    }

    /// A pass has ended that saw all of a span. Lets go what was in it and is not in the store any more.
    pub(super) fn end_pass(&mut self, pass: u64, span: Span) {
        let is_within = |due| span.from <= due && due <= span.until;
        self.let_go(|entry| entry.seen < pass && is_within(entry.record.due));
        if span.from == Timestamp(0) {
            self.aside.forget_before(pass);
        }
    }

    fn let_go(&mut self, is_gone: impl Fn(&Entry) -> bool) {
        let gone = self.entries.iter().filter(|(_, entry)| entry.place.is_idle() && is_gone(entry));
        let gone: Vec<Number> = gone.map(|(number, _)| *number).collect();
        for number in gone {
            self.remove(number);
        }
    }

    /// A page of the store is asked for.
    pub(super) fn begin_page(&mut self) {
        self.changed = Some(HashSet::new());
    }

    /// There is no answer.
    pub(super) fn give_up_page(&mut self) {
        self.changed = None;
    }

    /// Takes in what the page has. Says how many were not in hand before.
    pub(super) fn end_page(&mut self, page: Vec<ReminderRecord>, today: Timestamp, now: Duration) -> usize {
        let changed = self.changed.take().unwrap_or_default();
        let mut taken = 0;
        for record in page {
            let id = (record.actor.clone(), record.name.clone());
            if !changed.contains(&id) {
                taken += usize::from(self.found(id, record, today, now));
            }
        }
        taken
    }

    /// One that the store has now, by a page or by this silo's own setting. Says whether it is in hand anew.
    fn found(&mut self, id: Id, record: ReminderRecord, today: Timestamp, now: Duration) -> bool {
        if let Some(&number) = self.numbers.get(&id)
            && let Some(entry) = self.entries.get_mut(&number)
        {
            // One that is under way is looked at again when its tick has ended.
            if !entry.place.is_idle() || entry.record.version == record.version {
                entry.seen = self.pass;
                return false;
            }
            self.remove(number);
        }
        let Some(tries) = self.aside.take(&record, now, self.pass) else { return false };
        if self.is_full() {
            return false;
        }
        self.last_number += 1;
        let number = self.last_number;
        let fresh = record.due > today;
        let (line, place) = match fresh {
            true => (&mut self.waiting, Place::Waiting),
            false => (&mut self.late, Place::Late),
        };
        line.insert((record.due, number));
        self.numbers.insert(id, number);
        let (record, seen) = (Arc::new(record), self.pass);
        self.entries.insert(number, Entry { record, place, tries, fresh, seen, next: None, changed: None });
        true
    }

    /// This silo has set a reminder that is due soon, or one that is not, or has removed one.
    pub(super) fn changed(&mut self, id: Id, soon: Option<ReminderRecord>, today: Timestamp, now: Duration) {
        if let Some(changed) = &mut self.changed {
            changed.insert(id.clone());
        }
        if let Some(&number) = self.numbers.get(&id)
            && let Some(entry) = self.entries.get_mut(&number)
        {
            if !entry.place.is_idle() {
                entry.changed = Some(soon);
                return;
            }
            self.remove(number);
        }
        if let Some(record) = soon {
            self.found(id, record, today, now);
        }
    }

    /// Lets go all that waits for its first try, to be read anew.
    pub(super) fn forget_waiting(&mut self) {
        self.let_go(|entry| matches!(entry.place, Place::Waiting | Place::Late));
    }

    /// The next tick whose time has come, by the time of day, or for another try by the silo's clock. It is under way
    /// from now on.
    pub(super) fn next(&mut self, today: Timestamp, now: Duration) -> Option<Firing> {
        let in_time = self.waiting.first().filter(|(due, _)| *due <= today).map(|(_, number)| *number);
        let retry = self.retrying.first().filter(|(at, _)| *at <= now).map(|(_, number)| *number);
        let other = retry.or_else(|| self.late.first().map(|(_, number)| *number));
        let is_other = other.is_some() && (in_time.is_none() || self.others_next);
        self.others_next = !is_other;
        let number = if is_other { other? } else { in_time? };
        self.leave_lines(number);
        let entry = self.entries.get_mut(&number)?;
        entry.place = Place::UnderWay;
        Some(Firing { number, record: entry.record.clone(), is_first: entry.fresh && entry.tries == 0 })
    }

    /// What the tick that is under way is followed by.
    pub(super) fn set_next(&mut self, number: Number, next: Option<Timestamp>) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.next = next;
        }
    }

    /// The actor has taken the tick.
    pub(super) fn taken(&mut self, number: Number) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.place = Place::Taken;
        }
    }

    /// The actor has not taken the tick. It is tried again at `retry_at`, which is told how often it was tried before;
    /// unless this silo has changed it meanwhile.
    pub(super) fn failed(
        &mut self,
        number: Number,
        today: Timestamp,
        now: Duration,
        retry_at: impl FnOnce(u32) -> Duration,
    ) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        if let Some(changed) = entry.changed.take() {
            self.remove(number);
            if let Some(record) = changed {
                self.found((record.actor.clone(), record.name.clone()), record, today, now);
            }
            return;
        }
        let at = retry_at(entry.tries);
        entry.tries = entry.tries.saturating_add(1);
        if self.retrying.len() < self.bounds.retrying {
            entry.place = Place::Retrying(at);
            self.retrying.insert((at, number));
        } else if let Some(entry) = self.remove(number) {
            self.aside.put(&entry.record, entry.tries, at, self.pass);
        }
    }

    /// One in hand, as the store has it.
    pub(super) fn record(&self, number: Number) -> Option<Arc<ReminderRecord>> {
        Some(self.entries.get(&number)?.record.clone())
    }

    /// The step to tell the store of one that was taken.
    pub(super) fn advance_of(&self, number: Number) -> Option<Advance> {
        let Entry { record, next, .. } = self.entries.get(&number)?;
        Some(Advance {
            actor: record.actor.clone(),
            name: record.name.clone(),
            version: record.version,
            next: *next,
            next_version: record.version.wrapping_add(1),
        })
    }

    /// The store has taken the step of one, or has another version of it. One whose next moment is at `soon` or before
    /// is in hand again.
    pub(super) fn advanced(
        &mut self,
        number: Number,
        applied: bool,
        today: Timestamp,
        now: Duration,
        soon: Timestamp,
    ) {
        let Some(step) = self.advance_of(number) else { return };
        let Some(entry) = self.remove(number) else { return };
        let id = (step.actor, step.name);
        if let Some(changed) = &mut self.changed {
            changed.insert(id.clone());
        }
        let next = match entry.changed {
            Some(changed) => changed,
            None => step.next.filter(|due| applied && *due <= soon).map(|due| ReminderRecord {
                due,
                version: step.next_version,
                ..(*entry.record).clone()
            }),
        };
        if let Some(record) = next {
            self.found(id, record, today, now);
        }
    }

    /// When the next one is due that waits.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// When the next one is tried again.
    pub(super) fn next_retry(&self) -> Option<Duration> {
        self.retrying.first().map(|(at, _)| *at)
    }

    fn leave_lines(&mut self, number: Number) {
        if let Some(entry) = self.entries.get(&number) {
            match entry.place {
                Place::Waiting => self.waiting.remove(&(entry.record.due, number)),
                Place::Late => self.late.remove(&(entry.record.due, number)),
                Place::Retrying(at) => self.retrying.remove(&(at, number)),
                Place::UnderWay | Place::Taken => false,
            };
        }
    }

    fn remove(&mut self, number: Number) -> Option<Entry> {
        self.leave_lines(number);
        let entry = self.entries.remove(&number)?;
        self.numbers.remove(&(entry.record.actor.clone(), entry.record.name.clone()));
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
