//! The reminders that a service has in hand: read ahead of their time, under way, or to be tried again. Pure.
//!
//! ```text
//! waiting --due--> under way --taken--> taken --advanced--> (gone; in again with its next moment, if that is near)
//!                  under way --failed--> retrying --its time--> under way
//! ```
//!
//! Each is here once, by actor and name, from when it is read until the store has its next moment. What a look at the
//! store finds of one that is here already says nothing new, unless it has another version; and what it finds of one that
//! moved on while the look was under way is older than what is known.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use quark_base::Timestamp;

use crate::store::{Address, Advance, ReminderRecord, RingRange};

/// Reminders in hand. At the bound, those due later wait in the store.
pub(super) const HELD_MAX: usize = 65_536;

/// Whose reminder, and its name.
pub(super) type Id = (Address, String);

/// Names a reminder in hand.
pub(super) type Number = u64;

/// The reminders in hand.
#[derive(Default)]
pub(super) struct Held {
    entries: HashMap<Number, Entry>,
    numbers: HashMap<Id, Number>,
    waiting: BTreeSet<(Timestamp, Number)>,
    retrying: BTreeSet<(Duration, Number)>,
    last_number: Number,
    /// The look that is under way, or the last one.
    look: u64,
    /// What changed while a look is under way; none while there is no look.
    changed: Option<HashSet<Id>>,
}

struct Entry {
    record: Arc<ReminderRecord>,
    place: Place,
    tries: u32,
    /// It was seen before it was due, so nobody can have delivered this tick already.
    fresh: bool,
    /// The last look before or at which it was known to be in the store.
    look: u64,
    /// What it is moved on to, once it has been taken.
    next: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Waiting,
    Retrying(Duration),
    UnderWay,
    Taken,
}

/// A tick to be delivered.
#[derive(Clone)]
pub(super) struct Firing {
    pub(super) number: Number,
    pub(super) record: Arc<ReminderRecord>,
    /// Nobody can have delivered it before.
    pub(super) is_first: bool,
}

/// What a look found in one range of the ring.
pub(super) struct Seen {
    pub(super) range: RingRange,
    pub(super) records: Vec<ReminderRecord>,
    /// All that was due by then is among the records.
    pub(super) complete_until: Timestamp,
    /// There was more than it asked for.
    pub(super) is_cut_off: bool,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many wait for their time.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= HELD_MAX
    }

    /// A look at the store begins.
    pub(super) fn begin_look(&mut self) {
        self.look += 1;
        self.changed = Some(HashSet::new());
    }

    /// The look has ended without an answer.
    pub(super) fn give_up_look(&mut self) {
        self.changed = None;
    }

    /// Takes in what the look found, and lets go what the store does not have any more or what others own now.
    pub(super) fn end_look(&mut self, seen: Vec<Seen>, now: Timestamp) {
        let changed = self.changed.take().unwrap_or_default();
        let owned: Vec<(RingRange, Timestamp)> =
            seen.iter().map(|seen| (seen.range, seen.complete_until)).collect();
        for record in seen.into_iter().flat_map(|seen| seen.records) {
            let id = (record.actor.clone(), record.name.clone());
            if !changed.contains(&id) {
                self.found(id, record, now);
            }
        }
        let look = self.look;
        let gone = |entry: &Entry| {
            let idle = matches!(entry.place, Place::Waiting | Place::Retrying(_));
            let range = owned.iter().find(|(range, _)| range.contains(entry.record.ring));
            idle && range.is_none_or(|(_, until)| entry.look < look && entry.record.due <= *until)
        };
        let gone: Vec<Number> =
            self.entries.iter().filter(|(_, entry)| gone(entry)).map(|(number, _)| *number).collect();
        for number in gone {
            self.remove(number);
        }
    }

    /// One that the store has now, by a look or by this silo's own setting.
    fn found(&mut self, id: Id, record: ReminderRecord, now: Timestamp) {
        if let Some(&number) = self.numbers.get(&id)
            && let Some(entry) = self.entries.get_mut(&number)
        {
            let is_known = entry.record.version == record.version;
            match entry.place {
                Place::Waiting | Place::Retrying(_) if is_known => {
                    entry.look = self.look;
                    return;
                }
                Place::Waiting | Place::Retrying(_) => drop(self.remove(number)),
                // It is looked at again when the tick that is under way has ended.
                Place::UnderWay | Place::Taken => return,
            }
        }
        if self.is_full() {
            return;
        }
        self.last_number += 1;
        let number = self.last_number;
        self.waiting.insert((record.due, number));
        self.numbers.insert(id, number);
        let (fresh, look) = (record.due > now, self.look);
        let entry =
            Entry { record: Arc::new(record), place: Place::Waiting, tries: 0, fresh, look, next: None };
        self.entries.insert(number, entry);
    }

    /// This silo has set a reminder that is due soon, or one that is not, or has removed one.
    pub(super) fn changed(&mut self, id: Id, soon: Option<ReminderRecord>, now: Timestamp) {
        if let Some(changed) = &mut self.changed {
            changed.insert(id.clone());
        }
        if let Some(&number) = self.numbers.get(&id)
            && let Some(Entry { place: Place::Waiting | Place::Retrying(_), .. }) = self.entries.get(&number)
        {
            self.remove(number);
        }
        if let Some(record) = soon {
            self.found(id, record, now);
        }
    }

    /// Lets go all that waits, to be read anew.
    pub(super) fn forget_waiting(&mut self) {
        let waiting: Vec<Number> = self.waiting.iter().map(|(_, number)| *number).collect();
        for number in waiting {
            self.remove(number);
        }
    }

    /// The next tick whose time has come, by the time of day, or for another try by the silo's clock. It is under way
    /// from now on.
    pub(super) fn next(&mut self, today: Timestamp, now: Duration) -> Option<Firing> {
        let number = match (self.waiting.first(), self.retrying.first()) {
            (_, Some(&(at, number))) if at <= now => number,
            (Some(&(due, number)), _) if due <= today => number,
            _ => return None,
        };
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

    /// The actor has not taken the tick. It is tried again at `retry_at`, which is told how often it was tried before.
    pub(super) fn failed(&mut self, number: Number, retry_at: impl FnOnce(u32) -> Duration) {
        if let Some(entry) = self.entries.get_mut(&number) {
            let at = retry_at(entry.tries);
            entry.tries = entry.tries.saturating_add(1);
            entry.place = Place::Retrying(at);
            self.retrying.insert((at, number));
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
    pub(super) fn advanced(&mut self, number: Number, applied: bool, now: Timestamp, soon: Timestamp) {
        let Some(step) = self.advance_of(number) else { return };
        let Some(entry) = self.remove(number) else { return };
        let id = (step.actor, step.name);
        if let Some(changed) = &mut self.changed {
            changed.insert(id.clone());
        }
        if let Some(due) = step.next.filter(|due| applied && *due <= soon) {
            let record = ReminderRecord { due, version: step.next_version, ..(*entry.record).clone() };
            self.found(id, record, now);
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
