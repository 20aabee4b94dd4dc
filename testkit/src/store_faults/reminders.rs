//! Reminders whose store fails when a test says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use quark::base::Timestamp;
use quark::store::{
    Address, Advance, DuePage, DuePlace, ReminderRecord, ReminderStore, RingRange, StoreError, StoreFuture,
};
use tokio::sync::Notify;

use super::CommitFault;

pub(super) struct FaultyReminders {
    pub(super) inner: Arc<dyn ReminderStore>,
    pub(super) name: Arc<str>,
    /// Answers everything, while there is one.
    pub(super) outage: Mutex<Option<StoreError>>,
    pub(super) advances: Mutex<VecDeque<CommitFault>>,
    pub(super) released: Arc<Notify>,
}

impl FaultyReminders {
    fn unless_away<'a, T>(&self, otherwise: StoreFuture<'a, T>) -> StoreFuture<'a, T>
    where
        T: Send + 'a,
    {
        match self.outage.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(error) => Box::pin(std::future::ready(Err(error))),
            None => otherwise,
        }
    }
}

impl ReminderStore for FaultyReminders {
    fn put<'a>(&'a self, reminders: &'a [ReminderRecord]) -> StoreFuture<'a, ()> {
        self.unless_away(self.inner.put(reminders))
    }

    fn remove<'a>(&'a self, actor: &'a Address, name: &'a str) -> StoreFuture<'a, bool> {
        self.unless_away(self.inner.remove(actor, name))
    }

    fn of_actor<'a>(&'a self, actor: &'a Address) -> StoreFuture<'a, Vec<ReminderRecord>> {
        self.unless_away(self.inner.of_actor(actor))
    }

    fn due<'a>(
        &'a self,
        range: RingRange,
        after: &'a DuePlace,
        until: Timestamp,
        limit: usize,
    ) -> StoreFuture<'a, DuePage> {
        self.unless_away(self.inner.due(range, after, until, limit))
    }

    fn next_due(&self, range: RingRange) -> StoreFuture<'_, Option<Timestamp>> {
        self.unless_away(self.inner.next_due(range))
    }

    fn advance<'a>(&'a self, moves: &'a [Advance]) -> StoreFuture<'a, Vec<bool>> {
        let fault = self.advances.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let lost = || Err(StoreError::Unknown { store: self.name.clone(), cause: "a scripted fault".into() });
        let advance = async move {
            match fault {
                None => self.inner.advance(moves).await,
                Some(CommitFault::Refused(error)) => Err(error),
                Some(CommitFault::RequestLost) => lost(),
                Some(CommitFault::AnswerLost) => {
                    self.inner.advance(moves).await?;
                    lost()
                }
                Some(CommitFault::Held) => {
                    self.released.notified().await;
                    self.inner.advance(moves).await
                }
            }
        };
        self.unless_away(Box::pin(advance))
    }
}
