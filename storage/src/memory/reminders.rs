//! Reminders in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use quark_base::Timestamp;
use quark_runtime::store::{
    Address, Advance, DuePage, DuePlace, NameOf, ReminderRecord, ReminderStore, RingRange, StoreFuture,
};

/// By actor and name, and by due time.
#[derive(Default)]
pub(super) struct Reminders(Mutex<Table>);

#[derive(Default)]
struct Table {
    reminders: BTreeMap<Id, ReminderRecord>,
    by_due: BTreeSet<Due>,
}

type Id = (Address, String);

/// Due time, point of the ring, and which one.
type Due = (Timestamp, u64, Id);

fn due_of(reminder: &ReminderRecord) -> Due {
    (reminder.due, reminder.ring, (reminder.actor.clone(), reminder.name.clone()))
}

impl Table {
    fn put(&mut self, reminder: &ReminderRecord) {
        let id = (reminder.actor.clone(), reminder.name.clone());
        self.remove(&id);
        self.by_due.insert(due_of(reminder));
        self.reminders.insert(id, reminder.clone());
    }

    fn remove(&mut self, id: &Id) -> Option<ReminderRecord> {
        let reminder = self.reminders.remove(id)?;
        self.by_due.remove(&due_of(&reminder));
        Some(reminder)
    }

    /// Those of a range that come after a place, soonest first.
    fn after(&self, place: &DuePlace, range: RingRange) -> impl Iterator<Item = &ReminderRecord> {
        let from = match &place.last {
            Some(last) => Bound::Excluded((place.due, last.ring, (last.actor.clone(), last.name.clone()))),
            None => Bound::Included((place.due, 0, (Address::new("", ""), String::new()))),
        };
        let soonest_first = self.by_due.range((from, Bound::Unbounded));
        let in_range = soonest_first.filter(move |(_, ring, _)| range.contains(*ring));
        in_range.filter_map(|(_, _, id)| self.reminders.get(id))
    }

    fn advance(&mut self, step: &Advance) -> bool {
        let id = (step.actor.clone(), step.name.clone());
        if self.reminders.get(&id).is_none_or(|reminder| reminder.version != step.version) {
            return false;
        }
        let Some(reminder) = self.remove(&id) else { return false };
        if let Some(due) = step.next {
            self.put(&ReminderRecord { due, version: step.next_version, ..reminder });
        }
        true
    }
}

impl ReminderStore for Reminders {
    fn put<'a>(&'a self, reminders: &'a [ReminderRecord]) -> StoreFuture<'a, ()> {
        async move {
            reminders.iter().try_for_each(ReminderRecord::check_names)?;
            let mut table = self.0.lock();
            reminders.iter().for_each(|reminder| table.put(reminder));
            Ok(())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, actor: &'a Address, name: &'a str) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            NameOf::Reminder.check(name)?;
            Ok(self.0.lock().remove(&(actor.clone(), name.to_owned())).is_some())
        }
        .boxed()
    }

    fn of_actor<'a>(&'a self, actor: &'a Address) -> StoreFuture<'a, Vec<ReminderRecord>> {
        async move {
            actor.check_names()?;
            let table = self.0.lock();
            let from = table.reminders.range((actor.clone(), String::new())..);
            let of_actor = from.map(|(_, reminder)| reminder).take_while(|reminder| reminder.actor == *actor);
            Ok(of_actor.cloned().collect())
        }
        .boxed()
    }

    fn due<'a>(
        &'a self,
        range: RingRange,
        after: &'a DuePlace,
        until: Timestamp,
        limit: usize,
    ) -> StoreFuture<'a, DuePage> {
        async move {
            let table = self.0.lock();
            let due = table.after(after, range).take_while(|reminder| reminder.due <= until);
            Ok(DuePage::up_to(limit, due.take(limit).cloned().collect()))
        }
        .boxed()
    }

    fn next_due(&self, range: RingRange) -> StoreFuture<'_, Option<Timestamp>> {
        async move { Ok(self.0.lock().after(&DuePlace::START, range).next().map(|reminder| reminder.due)) }
            .boxed()
    }

    fn advance<'a>(&'a self, moves: &'a [Advance]) -> StoreFuture<'a, Vec<bool>> {
        async move {
            let mut table = self.0.lock();
            Ok(moves.iter().map(|step| table.advance(step)).collect())
        }
        .boxed()
    }
}
