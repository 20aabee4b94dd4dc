//! A store that fails when a test says so.

mod reminders;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quark::base::Timestamp;
use quark::store::{
    ActorStore, Address, Commit, Event, FeedPage, FeedPosition, Loaded, MessageId, OutboxId, OutboxPage,
    OutboxPlace, Store, StoreError, StoreFuture, Wanted,
};
use tokio::sync::Notify;

use self::reminders::FaultyReminders;

/// What befalls a commit, or a batch of reminders' steps.
#[derive(Clone, Debug)]
pub enum CommitFault {
    /// It is answered with this error, and does not reach the store.
    Refused(StoreError),
    /// It is written, and its answer gets lost.
    AnswerLost,
    /// It is not written, and neither is that known.
    RequestLost,
    /// It waits until the test calls [`StoreFaults::release`].
    Held,
}

/// Stands between a silo and a store, and lets faults befall commits, in the order they are scripted.
///
/// ```
/// use quark::storage;
/// use quark_testkit::{CommitFault, StoreFaults};
///
/// let (store, faults) = StoreFaults::over(storage::memory());
/// faults.next(CommitFault::AnswerLost);
/// // silo.store("default", store): its first commit is written, and its answer lost.
/// # drop(store);
/// ```
#[derive(Clone)]
pub struct StoreFaults(Arc<Faulty>, Arc<FaultyReminders>);

struct Faulty {
    inner: Arc<dyn ActorStore>,
    name: Arc<str>,
    script: Mutex<VecDeque<CommitFault>>,
    /// Answers every load, while there is one.
    loads: Mutex<Option<StoreError>>,
    commits: AtomicU64,
    released: Arc<Notify>,
}

impl StoreFaults {
    /// Wraps `store`: gives what to hand to the silo, and the hold on its faults. Streams pass through.
    pub fn over(store: Store) -> (Store, Self) {
        let released = Arc::new(Notify::new());
        let faulty = Arc::new(Faulty {
            inner: store.actors.clone(),
            name: store.name.clone(),
            script: Mutex::default(),
            loads: Mutex::default(),
            commits: AtomicU64::new(0),
            released: released.clone(),
        });
        let reminders = Arc::new(FaultyReminders {
            inner: store.reminders.clone(),
            name: store.name.clone(),
            outage: Mutex::default(),
            advances: Mutex::default(),
            released,
        });
        (Store { actors: faulty.clone(), reminders: reminders.clone(), ..store }, Self(faulty, reminders))
    }

    /// What befalls the next commit that nothing is scripted for yet.
    pub fn next(&self, fault: CommitFault) {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner).push_back(fault);
    }

    /// Answers all loads with this error, or lets them through again.
    pub fn loads(&self, error: Option<StoreError>) {
        *self.0.loads.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Answers all that is asked of reminders with this error, or lets it through again.
    pub fn reminders(&self, error: Option<StoreError>) {
        *self.1.outage.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// What befalls the next batch of reminders' steps, after their ticks, that nothing is scripted for yet.
    pub fn next_advance(&self, fault: CommitFault) {
        self.1.advances.lock().unwrap_or_else(PoisonError::into_inner).push_back(fault);
    }

    /// How many commits came in, those with faults included.
    pub fn commits(&self) -> u64 {
        self.0.commits.load(Ordering::SeqCst)
    }

    /// Lets a commit, or a batch of steps, go on that is held, or the next one that will be.
    pub fn release(&self) {
        self.0.released.notify_one();
    }
}

impl ActorStore for Faulty {
    fn load<'a>(&'a self, actor: &'a Address, wanted: &'a Wanted) -> StoreFuture<'a, Loaded> {
        match self.loads.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(error) => Box::pin(std::future::ready(Err(error))),
            None => self.inner.load(actor, wanted),
        }
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> StoreFuture<'a, ()> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let fault = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let lost = || Err(StoreError::Unknown { store: self.name.clone(), cause: "a scripted fault".into() });
        Box::pin(async move {
            match fault {
                None => self.inner.commit(commit).await,
                Some(CommitFault::Refused(error)) => Err(error),
                Some(CommitFault::RequestLost) => lost(),
                Some(CommitFault::AnswerLost) => {
                    self.inner.commit(commit).await?;
                    lost()
                }
                Some(CommitFault::Held) => {
                    self.released.notified().await;
                    self.inner.commit(commit).await
                }
            }
        })
    }

    fn events<'a>(
        &'a self,
        actor: &'a Address,
        journal: &'a str,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Event>> {
        self.inner.events(actor, journal, after, limit)
    }

    fn feed<'a>(
        &'a self,
        actor_type: &'a str,
        journal: &'a str,
        after: &'a FeedPosition,
        limit: usize,
    ) -> StoreFuture<'a, FeedPage> {
        self.inner.feed(actor_type, journal, after, limit)
    }

    fn outbox<'a>(&'a self, after: &'a OutboxPlace, limit: usize) -> StoreFuture<'a, OutboxPage> {
        self.inner.outbox(after, limit)
    }

    fn relayed<'a>(&'a self, messages: &'a [OutboxId]) -> StoreFuture<'a, ()> {
        self.inner.relayed(messages)
    }

    fn has_received<'a>(&'a self, actor: &'a Address, message: &'a MessageId) -> StoreFuture<'a, bool> {
        self.inner.has_received(actor, message)
    }

    fn forget_received(&self, time: Timestamp) -> StoreFuture<'_, u64> {
        self.inner.forget_received(time)
    }
}
