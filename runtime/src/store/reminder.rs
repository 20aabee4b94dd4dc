//! The port to reminders' due times.

use quark_base::Timestamp;

use super::{Address, StoreFuture};

/// Keeps reminders in a table that is indexed by due time.
///
/// An implementation MUST keep at most one reminder for each actor and name, MUST change it only as a whole, and MUST
/// answer only when a change survives the end of the silo. Like every store it answers in bounded time, and refuses
/// [names](super::names) that others do not take.
pub trait ReminderStore: Send + Sync + 'static {
    /// Writes reminders, each in place of one with the same actor and name. All or nothing is not promised for more
    /// than one.
    fn put<'a>(&'a self, reminders: &'a [ReminderRecord]) -> StoreFuture<'a, ()>;

    /// Removes a reminder; false if it is not there.
    fn remove<'a>(&'a self, actor: &'a Address, name: &'a str) -> StoreFuture<'a, bool>;

    /// An actor's reminders, by name.
    fn of_actor<'a>(&'a self, actor: &'a Address) -> StoreFuture<'a, Vec<ReminderRecord>>;

    /// The reminders of a part of the ring that come after a place and are due at `until` or before, soonest first, at
    /// most `limit` of them, which is at least one.
    ///
    /// Those of the same time come in an order of the store's own, the same at each reading, so that pages which each
    /// begin where the one before it ended leave nothing out that was there all the while, and give nothing twice that
    /// was not moved. A page MUST take no longer for what stands before its place.
    fn due<'a>(
        &'a self,
        range: RingRange,
        after: &'a DuePlace,
        until: Timestamp,
        limit: usize,
    ) -> StoreFuture<'a, DuePage>;

    /// When the soonest reminder of a part of the ring is due; `None` if there is none.
    fn next_due(&self, range: RingRange) -> StoreFuture<'_, Option<Timestamp>>;

    /// Moves reminders on after their ticks. Each is applied only if the stored reminder still has that version, so
    /// that one which was set anew meanwhile stays as it was set. Says which were applied.
    fn advance<'a>(&'a self, moves: &'a [Advance]) -> StoreFuture<'a, Vec<bool>>;
}

/// A reminder as stores keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReminderRecord {
    /// Who is reminded.
    pub actor: Address,
    /// Of what; unique within the actor.
    pub name: String,
    /// When next.
    pub due: Timestamp,
    /// Its schedule, in the runtime's own text (JSON).
    pub schedule: String,
    /// Where its actor stands on the hash ring.
    pub ring: u64,
    /// Changes with each setting and each advance.
    pub version: u64,
}

/// A place among the reminders in the order of their due times: before all of a time, or just after one reminder,
/// whether or not that one is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuePlace {
    /// The time.
    pub due: Timestamp,
    /// The one that was the last of those before.
    pub last: Option<LastDue>,
}

/// What tells one reminder from the others of its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastDue {
    /// Where its actor stands on the hash ring.
    pub ring: u64,
    /// Whose.
    pub actor: Address,
    /// Which.
    pub name: String,
}

/// A part of the reminders that are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuePage {
    /// Soonest first. A store may give fewer than it was asked for, and none only if there are none.
    pub reminders: Vec<ReminderRecord>,
    /// Where the next page begins, if there may be one.
    pub next: Option<DuePlace>,
}

impl DuePlace {
    /// Before all.
    pub const START: Self = Self::before(Timestamp(0));

    /// Before those that are due at `due`.
    pub const fn before(due: Timestamp) -> Self {
        Self { due, last: None }
    }

    /// Just after one.
    pub fn after(reminder: &ReminderRecord) -> Self {
        let ReminderRecord { actor, name, due, ring, .. } = reminder;
        Self { due: *due, last: Some(LastDue { ring: *ring, actor: actor.clone(), name: name.clone() }) }
    }
}

impl DuePage {
    /// The first `limit` of what was found, of which there may be more if there are as many.
    pub fn up_to(limit: usize, reminders: Vec<ReminderRecord>) -> Self {
        let next = reminders.last().filter(|_| reminders.len() >= limit).map(DuePlace::after);
        Self { reminders, next }
    }
}

/// One reminder's step to its next due time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Whose.
    pub actor: Address,
    /// Which.
    pub name: String,
    /// The version that was seen.
    pub version: u64,
    /// When next; `None` removes it.
    pub next: Option<Timestamp>,
    /// The version that it has then.
    pub next_version: u64,
}

/// A part of the 64-bit hash ring. Both ends belong to it; one that wraps around has `first > last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingRange {
    /// Its first point.
    pub first: u64,
    /// Its last point.
    pub last: u64,
}

impl RingRange {
    /// The whole ring.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// Whether `point` is in it.
    pub const fn contains(&self, point: u64) -> bool {
        if self.first <= self.last {
            self.first <= point && point <= self.last
        } else {
            self.first <= point || point <= self.last
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_may_wrap_around() {
        let plain = RingRange { first: 10, last: 20 };
        let wrapped = RingRange { first: 20, last: 10 };
        assert!(plain.contains(10) && plain.contains(20) && !plain.contains(21));
        assert!(
            wrapped.contains(u64::MAX)
                && wrapped.contains(0)
                && wrapped.contains(10)
                && !wrapped.contains(11)
        );
        assert!(RingRange::ALL.contains(0) && RingRange::ALL.contains(u64::MAX));
    }
}
