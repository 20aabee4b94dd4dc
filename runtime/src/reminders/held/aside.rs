//! Reminders that failed, of which too many are in hand: how often they failed, and when they are to be tried again.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::store::ReminderRecord;

/// What is remembered of those put aside. They are told apart by a hash: one that is taken for another one is tried again
/// when that one is, at most a minute later.
pub(super) struct Aside {
    hasher: RandomState,
    by_hash: HashMap<u64, Failing>,
    max: usize,
}

struct Failing {
    again: Duration,
    tries: u32,
    /// The last pass through the store before or in which it was seen.
    seen: u64,
}

impl Aside {
    pub(super) fn new(max: usize) -> Self {
        Self { hasher: RandomState::new(), by_hash: HashMap::new(), max }
    }

    /// One that has failed so often. At the bound it is not remembered, and is tried again as if for the first time when
    /// it is found again.
    pub(super) fn put(&mut self, record: &ReminderRecord, tries: u32, again: Duration, seen: u64) {
        if self.by_hash.len() < self.max {
            self.by_hash.insert(self.hash(record), Failing { again, tries, seen });
        }
    }

    /// How often one that was found in the store has failed; none if it still waits to be tried again.
    pub(super) fn take(&mut self, record: &ReminderRecord, now: Duration, pass: u64) -> Option<u32> {
        if self.by_hash.is_empty() {
            return Some(0);
        }
        let hash = self.hash(record);
        let Some(failing) = self.by_hash.get_mut(&hash) else { return Some(0) };
        if now < failing.again {
            failing.seen = pass;
            return None;
        }
        self.by_hash.remove(&hash).map(|failing| failing.tries)
    }

    /// Forgets those that were not seen since the pass began: they are gone, or were moved on.
    pub(super) fn forget_before(&mut self, pass: u64) {
        self.by_hash.retain(|_, failing| failing.seen >= pass);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    fn hash(&self, record: &ReminderRecord) -> u64 {
        self.hasher.hash_one((&record.actor, &record.name, record.version))
    }
}
