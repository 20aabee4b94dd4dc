//! How a silo's own settings reach its service without a wait for the next look at the store.

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::held::Id;
use crate::store::ReminderRecord;

/// Changes that wait for the service. Of more, it hears only that there were some, and reads anew what it holds.
const CHANGES_MAX: usize = 4_096;

/// Told of each reminder that this silo sets or removes in one store.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    changes: Mutex<Changes>,
    rung: Notify,
}

/// What changed since the service looked last.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// In the order of their answers.
    pub(super) each: Vec<Change>,
    /// There were too many.
    pub(super) too_many: bool,
}

/// One reminder that was set, or removed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) id: Id,
    /// As the store has it now; none if it was removed.
    pub(super) record: Option<ReminderRecord>,
}

impl Bell {
    pub(super) fn ring(&self, change: Change) {
        let mut changes = self.changes.lock();
        if changes.each.len() < CHANGES_MAX {
            changes.each.push(change);
        } else {
            changes.too_many = true;
        }
        drop(changes);
        self.rung.notify_one();
    }

    /// Ready once it has been rung since the last time.
    pub(super) fn rung(&self) -> Notified<'_> {
        self.rung.notified()
    }

    pub(super) fn take(&self) -> Changes {
        std::mem::take(&mut self.changes.lock())
    }
}
