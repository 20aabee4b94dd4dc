//! Reminders in memory.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use quark_base::Timestamp;
use quark_runtime::store::{Address, Advance, ReminderRecord, ReminderStore, RingRange, StoreFuture};

/// By actor and name. A look at what is due goes through all of them.
#[derive(Default)]
pub(super) struct Reminders(Mutex<BTreeMap<(Address, String), ReminderRecord>>);

impl Reminders {
    fn due(&self, range: RingRange, until: Timestamp, limit: usize) -> Vec<ReminderRecord> {
        let reminders = self.0.lock();
        let is_due = |reminder: &&ReminderRecord| range.contains(reminder.ring) && reminder.due <= until;
        let mut due: Vec<ReminderRecord> = reminders.values().filter(is_due).cloned().collect();
        due.sort_by_key(|reminder| reminder.due);
        due.truncate(limit);
        due
    }

    fn advance(&self, step: &Advance) -> bool {
        let mut reminders = self.0.lock();
        let id = (step.actor.clone(), step.name.clone());
        let Some(reminder) = reminders.get_mut(&id).filter(|reminder| reminder.version == step.version)
        else {
            return false;
        };
        match step.next {
            Some(due) => (reminder.due, reminder.version) = (due, step.next_version),
            None => {
                reminders.remove(&id);
            }
        }
        true
    }
}

impl ReminderStore for Reminders {
    fn put<'a>(&'a self, reminders: &'a [ReminderRecord]) -> StoreFuture<'a, ()> {
        async move {
            let entry = |reminder: &ReminderRecord| {
                ((reminder.actor.clone(), reminder.name.clone()), reminder.clone())
            };
            self.0.lock().extend(reminders.iter().map(entry));
            Ok(())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, actor: &'a Address, name: &'a str) -> StoreFuture<'a, bool> {
        async move { Ok(self.0.lock().remove(&(actor.clone(), name.to_owned())).is_some()) }.boxed()
    }

    fn of_actor<'a>(&'a self, actor: &'a Address) -> StoreFuture<'a, Vec<ReminderRecord>> {
        async move {
            let reminders = self.0.lock();
            Ok(reminders.values().filter(|reminder| reminder.actor == *actor).cloned().collect())
        }
        .boxed()
    }

    fn due(&self, range: RingRange, until: Timestamp, limit: usize) -> StoreFuture<'_, Vec<ReminderRecord>> {
        async move { Ok(self.due(range, until, limit)) }.boxed()
    }

    fn next_due(&self, range: RingRange) -> StoreFuture<'_, Option<Timestamp>> {
        async move { Ok(self.due(range, Timestamp(u64::MAX), 1).first().map(|reminder| reminder.due)) }
            .boxed()
    }

    fn advance<'a>(&'a self, moves: &'a [Advance]) -> StoreFuture<'a, Vec<bool>> {
        async move { Ok(moves.iter().map(|step| self.advance(step)).collect()) }.boxed()
    }
}
