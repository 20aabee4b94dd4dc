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
use crate::store::{Address, COMMIT_PATIENCE, Commit, Conflict, ETag, Epoch, Fence, Store, StoreError};
use crate::stores::Named;
use crate::timers::Timers;
use crate::turn::AnySlot;

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
    seen: Option<ETag>,
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
        (seen, epoch): (Option<ETag>, Epoch),
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

    /// Ends the activation: memory does not follow the store any more. Its callers are told so.
    fn lose(&self, loss: Loss) {
        if !self.lost.swap(true, Ordering::AcqRel)
            && let Some(slot) = self.home.slot.upgrade()
        {
            tracing::warn!(actor = %self.actor, ?loss, "an activation lost its actor's state and ends");
            slot.supersede(loss);
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
        let mut unsettled = Unsettled { keeper: self, loss: Loss::Unknown };
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
            // They end the activation by being dropped.
            Err(error @ (StoreError::Conflict(_) | StoreError::Lost { .. })) => {
                unsettled.loss = if is_own_message(&error, &commit) { Loss::Taken } else { Loss::Outrun };
                Err(error.into())
            }
            Err(error @ StoreError::Unknown { .. }) => Err(error.into()),
            // Nothing was written.
            Err(error) => {
                std::mem::forget(unsettled);
                Err(error.into())
            }
        }
    }

    /// Sends a commit until it is known whether it is in, or for [`COMMIT_PATIENCE`].
    async fn send(&self, commit: &Commit) -> Result<(), StoreError> {
        let until = self.timers().now().saturating_add(COMMIT_PATIENCE);
        let mut wait = RESEND_FIRST;
        let mut may_be_in = None;
        loop {
            let left = until.saturating_sub(self.timers().now());
            let tried = self.timers().timeout(left, self.store.actors.commit(commit)).await;
            let unanswered = || StoreError::Unknown {
                store: self.store.name.clone(),
                cause: format!("no answer within {COMMIT_PATIENCE:?}").into(),
            };
            let error = match tried.unwrap_or_else(|_| Err(unanswered())) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match (&error, &may_be_in) {
                (StoreError::Unknown { .. }, _) => may_be_in = Some(error),
                (_, None) => return Err(error),
                // The store let it in and then refused it, so no earlier try has written it.
                (StoreError::Conflict(conflict), Some(_))
                    if !matches!(**conflict, Conflict::Fence { .. }) =>
                {
                    return Err(error);
                }
                // This try was refused, which says nothing of the earlier one.
                (_, Some(_)) => {}
            }
            if let Some(unknown) = &may_be_in
                && self.timers().now().saturating_add(wait) > until
            {
                return Err(unknown.clone());
            }
            self.timers().sleep_until(self.timers().now().saturating_add(wait)).await;
            wait = (wait * 2).min(RESEND_MAX);
        }
    }
}

/// Why memory does not follow the store any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The store refused a commit, since somebody else was first: nothing of it was written.
    Outrun,
    /// The same, as the message that the turn runs for has taken effect before.
    Taken,
    /// It is not known whether a commit is in.
    Unknown,
}

/// Whether a commit was refused since its first message, which is the one that its turn runs for if there is any, has
/// taken effect before.
fn is_own_message(error: &StoreError, commit: &Commit) -> bool {
    let StoreError::Conflict(conflict) = error else { return false };
    matches!(&**conflict, Conflict::Inbox { message, .. } if commit.inbox.first() == Some(message))
}

/// A commit under way. Dropped before its answer is known, it ends the activation.
struct Unsettled<'a> {
    keeper: &'a Keeper,
    loss: Loss,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.keeper.lose(self.loss);
    }
}

/// An epoch after `seen` that no other activation chooses: the time, with chance in its low bits; where the clock is
/// behind `seen`, that one and as much chance. Two that saw the same commit and chose the same epoch would take each
/// other's first commit for their own, so chance is what keeps them apart in one millisecond.
pub(crate) fn next_epoch(seen: Option<ETag>, now: Timestamp, entropy: &dyn Entropy) -> Epoch {
    /// Milliseconds to the left of so many bits of chance leave 2^41 ms from 2020 on, 69 years, in 63 bits.
    const CHANCE_BITS: u32 = 22;
    /// 2020-01-01T00:00:00Z.
    const ORIGIN_MS: u64 = 1_577_836_800_000;
    const MAX: u64 = i64::MAX as u64;
    let chance = entropy.next_u64() >> (u64::BITS - CHANCE_BITS);
    let by_time = (now.0.saturating_sub(ORIGIN_MS) << CHANCE_BITS | chance) & MAX;
    let after = seen.map_or(0, |seen| seen.epoch.0.saturating_add(1 + chance));
    Epoch(by_time.max(after).min(MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quark_base::Seeded;

    #[test]
    fn an_epoch_is_later_than_what_was_seen_also_when_the_clock_went_back() {
        let entropy = Seeded::new(1);
        let first = next_epoch(None, Timestamp::VIRTUAL_ORIGIN, &entropy);
        let seen = Some(ETag { epoch: first, sequence: 1 });
        let second = next_epoch(seen, Timestamp(0), &entropy);
        assert!(second > first);
        assert_ne!(second, next_epoch(seen, Timestamp(0), &entropy), "two that saw the same choose apart");
        let damaged = Some(ETag { epoch: Epoch(u64::MAX), sequence: 1 });
        assert_eq!(
            next_epoch(damaged, Timestamp(0), &entropy).0,
            i64::MAX as u64,
            "databases have signed numbers"
        );
    }
}
