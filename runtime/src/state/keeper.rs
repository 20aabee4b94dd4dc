//! An activation's hold on one store: its fence, the ETags of its states, and the one way to commit.

use std::borrow::Cow;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quark_base::{ActorId, Clock, Entropy, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::StateCause;
use crate::store::{Address, Commit, ETag, Epoch, Fence, Store, StoreError};
use crate::stores::Named;
use crate::timers::Timers;
use crate::turn::AnySlot;

/// How long a commit without an answer is sent again before the activation gives up and ends. A failover of a
/// database takes some seconds; a caller who waits longer has given up.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(5);

/// The first wait before a commit is sent again; each further one is twice as long, up to `RESEND_MAX`.
const RESEND_FIRST: Duration = Duration::from_millis(20);
const RESEND_MAX: Duration = Duration::from_millis(500);

/// An activation's hold on one store.
pub(crate) struct Keeper {
    pub(crate) actor: ActorId,
    address: Address,
    pub(crate) store_name: &'static str,
    pub(crate) store: Store,
    outbox: Arc<Notify>,
    home: Home,
    /// One commit at a time, so that their numbers arrive in order.
    fence: AsyncMutex<FenceState>,
    etags: Mutex<Vec<(&'static str, Option<ETag>)>>,
    /// The activation may not commit any more.
    lost: AtomicBool,
}

/// What a keeper needs of its silo.
pub(crate) struct Home {
    pub(crate) slot: Weak<dyn AnySlot>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timers: Arc<Timers>,
    /// The silo's own threads.
    pub(crate) handle: Handle,
}

struct FenceState {
    seen: Epoch,
    epoch: Epoch,
    /// The number of the last commit that was sent.
    sequence: u64,
}

impl Keeper {
    pub(crate) fn new(
        actor: ActorId,
        store_name: &'static str,
        Named { store, outbox, .. }: Named,
        home: Home,
        (seen, epoch): (Epoch, Epoch),
    ) -> Arc<Self> {
        Arc::new(Self {
            address: Address::from(&actor),
            actor,
            store_name,
            store,
            outbox,
            home,
            fence: AsyncMutex::new(FenceState { seen, epoch, sequence: 0 }),
            etags: Mutex::new(Vec::new()),
            lost: AtomicBool::new(false),
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn timers(&self) -> &Arc<Timers> {
        &self.home.timers
    }

    /// Lets the silo's own threads do something.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.home.handle.spawn(work);
    }

    /// A commit of ours has put messages into the outbox.
    pub(crate) fn notify_outbox(&self) {
        self.outbox.notify_one();
    }

    pub(crate) fn etag(&self, name: &str) -> Option<ETag> {
        self.etags.lock().iter().find(|(known, _)| *known == name).and_then(|(_, etag)| *etag)
    }

    pub(crate) fn set_etag(&self, name: &'static str, etag: Option<ETag>) {
        let mut etags = self.etags.lock();
        match etags.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = etag,
            None => etags.push((name, etag)),
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Ends the activation: it does not know any more what the store has. Its callers are told to retry.
    pub(crate) fn lose(&self) {
        if !self.lost.swap(true, Ordering::AcqRel)
            && let Some(slot) = self.home.slot.upgrade()
        {
            tracing::warn!(actor = %self.actor, "an activation lost its actor's state and ends");
            slot.supersede();
        }
    }

    /// The activation has ended.
    pub(crate) fn retire(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Commits what `fill` puts in, and gives the commit's ETag.
    ///
    /// A commit whose answer is missing is sent again for a while. If it stays unknown whether it is in, or another
    /// activation was first, or the future is dropped half-way, the activation ends. With nothing put in, nothing
    /// happens.
    pub(crate) async fn commit(&self, fill: impl FnOnce(&mut Commit)) -> Result<(), StateCause> {
        let mut state = self.fence.lock().await;
        if self.is_lost() {
            return Err(StateCause::Superseded);
        }
        let fence = Fence { seen: state.seen, epoch: state.epoch, sequence: state.sequence + 1 };
        let mut commit = Commit::new(self.address.clone(), fence, self.home.clock.timestamp());
        fill(&mut commit);
        if commit.is_empty() {
            return Ok(());
        }
        for write in &mut commit.slots {
            write.expected = self.etag(&write.name);
        }
        let unsettled = Unsettled(self);
        match self.send(&commit).await {
            Ok(()) => {
                std::mem::forget(unsettled);
                state.sequence = fence.sequence;
                for write in &commit.slots {
                    let etag = write.value.is_some().then(|| fence.etag());
                    if let Cow::Borrowed(name) = write.name {
                        self.set_etag(name, etag);
                    }
                }
                Ok(())
            }
            // It ends the activation by being dropped.
            Err(error @ (StoreError::Unknown { .. } | StoreError::Conflict(_) | StoreError::Lost { .. })) => {
                drop(unsettled);
                Err(error.into())
            }
            // Nothing was written.
            Err(error) => {
                std::mem::forget(unsettled);
                Err(error.into())
            }
        }
    }

    async fn send(&self, commit: &Commit) -> Result<(), StoreError> {
        let begun = self.timers().now();
        let mut wait = RESEND_FIRST;
        let mut may_be_in = None;
        loop {
            let error = match self.store.actors.commit(commit).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match &error {
                StoreError::Unknown { .. } => may_be_in = Some(error),
                // It is not in by this try, but may be by an earlier one.
                StoreError::Unavailable { .. } if may_be_in.is_some() => {}
                _ => return Err(error),
            }
            if self.timers().now().saturating_sub(begun) + wait > UNKNOWN_PATIENCE {
                return Err(may_be_in.unwrap_or(StoreError::Unknown {
                    store: self.store.name.clone(),
                    cause: "no answer".into(),
                }));
            }
            self.timers().sleep_until(self.timers().now().saturating_add(wait)).await;
            wait = (wait * 2).min(RESEND_MAX);
        }
    }
}

/// A commit under way. Dropped before its answer is known, it ends the activation.
struct Unsettled<'a>(&'a Keeper);

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.0.lose();
    }
}

/// An epoch after `seen` that no other activation is likely to choose: the time in microseconds, with chance in its
/// low bits. Two that choose the same are still held apart, as the first commit of one changes what the other saw,
/// but for the case in which both choose the same after the same past.
pub(crate) fn next_epoch(seen: Epoch, now: Timestamp, entropy: &dyn Entropy) -> Epoch {
    /// Milliseconds to the left of so many bits of chance leave 2^43 ms, 278 years, in 63 bits.
    const CHANCE_BITS: u32 = 20;
    let chance = entropy.next_u64() >> (u64::BITS - CHANCE_BITS);
    let by_time = (now.0 << CHANCE_BITS | chance) & (i64::MAX as u64);
    Epoch(by_time.max(seen.0 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quark_base::Seeded;

    #[test]
    fn an_epoch_is_later_than_what_was_seen_also_when_the_clock_went_back() {
        let entropy = Seeded::new(1);
        let first = next_epoch(Epoch::NONE, Timestamp::VIRTUAL_ORIGIN, &entropy);
        let second = next_epoch(first, Timestamp(0), &entropy);
        assert!(second > first);
        assert!(first.0 < i64::MAX as u64, "databases have signed numbers");
    }
}
