//! Stateless workers: several actors behind one key, as many as the load asks for.
//!
//! A type with `#[actor(workers(max = N))]` has a pool for each key and executor. A call takes the first worker that is
//! free, on its own thread if it can. If all are busy the pool grows by one, up to `N`; at `N` the call waits in the
//! shorter of two mailboxes. Workers that are not needed are idle like any actor, and go when their type's idle time
//! is over; since the first free one is always taken, it is the last ones that go.
//!
//! ```text
//! reference -> Pool (key) -> Crew (executor) -> first worker, and more of them while there is load
//! ```
//!
//! Each worker is an actor like any other, in a slot of its own: a `&mut self` method runs alone on its worker, not in
//! its pool. A message is given to one worker for good.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use quark_base::Key;

use crate::actor::Actor;
use crate::host::{Host, Hosted};
use crate::turn::local::Local;
use crate::turn::{Phase, Slot};

/// The most workers that a type may ask for, per key and executor.
pub const WORKERS_MAX: u32 = 1_024;

/// How a type's workers are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    max: u32,
}

impl Workers {
    /// At most so many per key and executor, from 1 up to [`WORKERS_MAX`].
    pub const fn max(max: u32) -> Self {
        let max = if max == 0 { 1 } else { max };
        Self { max: if max > WORKERS_MAX { WORKERS_MAX } else { max } }
    }
}

/// One worker's slot.
pub(crate) struct Worker<A: Actor> {
    pub(crate) slot: Arc<Slot<A>>,
    /// Calls that have chosen it and not yet reached it, so that a burst of them is not all given to one.
    claims: AtomicU32,
}

/// A call's way to the worker that it has chosen.
pub(crate) struct Claim<A: Actor>(Arc<Worker<A>>);

impl<A: Actor> Claim<A> {
    pub(crate) fn slot(&self) -> &Arc<Slot<A>> {
        &self.0.slot
    }
}

impl<A: Actor> Drop for Claim<A> {
    fn drop(&mut self) {
        self.0.claims.fetch_sub(1, Ordering::Release);
    }
}

impl<A: Actor> Worker<A> {
    fn new(key: &Key, host: &Arc<Host<A>>, node: u32) -> Arc<Self> {
        let slot = Slot::on_node(key.clone(), host.clone(), node);
        Arc::new(Self { slot, claims: AtomicU32::new(0) })
    }

    fn claim(self: &Arc<Self>) -> Claim<A> {
        self.claims.fetch_add(1, Ordering::AcqRel);
        Claim(self.clone())
    }

    fn is_claimed(&self) -> bool {
        self.claims.load(Ordering::Acquire) != 0
    }

    /// Whether a call of its mode would begin at once.
    fn is_free(&self, exclusive: bool) -> bool {
        let seen = self.slot.word.snapshot();
        let alone = !exclusive || (seen.readers() == 0 && self.slot.lanes_are_empty());
        seen.phase() == Phase::Active
            && alone
            && !seen.has_writer()
            && !seen.has_queued()
            && !self.is_claimed()
    }

    fn is_vacant(&self) -> bool {
        self.slot.word.snapshot().phase() == Phase::Vacant && !self.is_claimed()
    }

    /// Whether nobody but its crew and the sweep's hand refers to it.
    fn is_alone(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && Arc::strong_count(&self.slot) == 2 && self.is_vacant()
    }
}

/// The workers of one key on one executor.
pub(crate) struct Crew<A: Actor> {
    node: u32,
    first: Arc<Worker<A>>,
    more: RwLock<Vec<Arc<Worker<A>>>>,
    /// Where the next call looks for the shorter of two mailboxes.
    turn: AtomicUsize,
}

/// The workers of one key.
pub(crate) struct Pool<A: Actor> {
    /// Where new workers are enrolled for the sweep. Not held: slots must not keep a silo that is gone.
    hosted: Weak<Hosted<A>>,
    crews: Box<[Crew<A>]>,
    /// Which crew the next call from outside all executors is given to.
    turn: AtomicUsize,
}

impl<A: Actor> Crew<A> {
    fn new(key: &Key, host: &Arc<Host<A>>, node: u32) -> Self {
        let first = Worker::new(key, host, node);
        Self { node, first, more: RwLock::default(), turn: AtomicUsize::new(0) }
    }

    /// The first worker that `take` takes, of those that are there.
    #[inline]
    pub(crate) fn find<R>(
        &self,
        mut take: impl FnMut(&Arc<Slot<A>>) -> Option<R>,
    ) -> Option<(Arc<Slot<A>>, R)> {
        let mut look = |worker: &Arc<Worker<A>>| take(&worker.slot).map(|taken| (worker.slot.clone(), taken));
        look(&self.first).or_else(|| self.more.read().iter().find_map(look))
    }

    /// A worker for a call that found none to run on at once.
    fn choose(&self, exclusive: bool, hosted: &Weak<Hosted<A>>) -> Claim<A> {
        // One at a time, so that each sees what the others have claimed.
        let mut more = self.more.write();
        let all = || std::iter::once(&self.first).chain(more.iter());
        let free = all()
            .find(|worker| worker.is_free(exclusive))
            .or_else(|| all().find(|worker| worker.is_vacant()));
        if let Some(worker) = free {
            return worker.claim();
        }
        // A silo that is gone makes no more of them; those that are there say so to the caller.
        if more.len() + 1 < Self::MAX
            && let Some(hosted) = hosted.upgrade()
        {
            let worker = Worker::new(&self.first.slot.key, hosted.host(), self.node);
            let claim = worker.claim();
            hosted.enrol(&worker.slot);
            more.push(worker);
            return claim;
        }
        // The shorter of two comes close to the shortest of all (Mitzenmacher, *The Power of Two Choices in
        // Randomized Load Balancing*, 2001), and costs two locks instead of N.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let pick = |index: usize| match index % (more.len() + 1) {
            0 => &self.first,
            index => &more[index - 1],
        };
        // The second one comes from half-way round, and moves on each time the first has been round.
        let (one, other) = (pick(turn), pick(turn + more.len().div_ceil(2) + turn / (more.len() + 1)));
        if other.slot.queued() < one.slot.queued() { other.claim() } else { one.claim() }
    }

    const MAX: usize = match A::SPEC.workers {
        Some(workers) => workers.max as usize,
        None => 1,
    };
}

impl<A: Actor> Pool<A> {
    fn new(key: &Key, hosted: &Arc<Hosted<A>>) -> Arc<Self> {
        let host = hosted.host();
        let crews = (0..host.services.nodes.len()).map(|node| Crew::new(key, host, node as u32)).collect();
        Arc::new(Self { hosted: Arc::downgrade(hosted), crews, turn: AtomicUsize::new(0) })
    }

    /// A slot that stands for them all: it has their key.
    pub(crate) fn first(&self) -> &Arc<Slot<A>> {
        &self.crews[0].first.slot
    }

    /// The crew of the executor that the code runs on; outside of them all, each in turn.
    pub(crate) fn crew(&self, local: Option<&Local>) -> &Crew<A> {
        if let [only] = &*self.crews {
            return only;
        }
        let here = |crew: &&Crew<A>| local.is_some_and(|local| local.runs_in(crew.first.slot.home()));
        self.crews
            .iter()
            .find(here)
            .unwrap_or_else(|| &self.crews[self.turn.fetch_add(1, Ordering::Relaxed) % self.crews.len()])
    }

    /// A worker of `crew` for a call that found none to run on at once.
    pub(crate) fn choose(&self, crew: &Crew<A>, exclusive: bool) -> Claim<A> {
        crew.choose(exclusive, &self.hosted)
    }

    /// A worker for a message that does not run on its sender's thread.
    pub(crate) fn choose_anywhere(&self, exclusive: bool) -> Claim<A> {
        self.choose(self.crew(None), exclusive)
    }

    pub(crate) fn for_each(&self, mut look: impl FnMut(&Arc<Slot<A>>)) {
        for crew in &self.crews {
            look(&crew.first.slot);
            crew.more.read().iter().for_each(|worker| look(&worker.slot));
        }
    }

    fn holds(&self, slot: &Arc<Slot<A>>) -> bool {
        let mut holds = false;
        self.for_each(|own| holds |= Arc::ptr_eq(own, slot));
        holds
    }

    /// Lets a worker go that nobody refers to. True if it was one of those that come and go.
    fn dismiss(&self, slot: &Arc<Slot<A>>) -> bool {
        self.crews.iter().any(|crew| {
            let mut more = crew.more.write();
            let place = more.iter().position(|worker| {
                Arc::ptr_eq(&worker.slot, slot) && worker.is_alone() && slot.word.retire()
            });
            let gone = place.map(|place| more.remove(place));
            drop(more);
            gone.is_some()
        })
    }

    /// Whether nothing of it is in use.
    fn is_unused(&self) -> bool {
        self.crews.iter().all(|crew| crew.more.read().is_empty() && crew.first.is_alone())
    }
}

/// The pools of a type, by key.
pub(crate) struct Pools<A: Actor>(Mutex<HashMap<Key, Arc<Pool<A>>>>);

impl<A: Actor> Default for Pools<A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<A: Actor> Pools<A> {
    /// The pool of `key`, made if it is not there.
    pub(crate) fn pool(&self, key: &str, hosted: &Arc<Hosted<A>>) -> Arc<Pool<A>> {
        let mut pools = self.0.lock();
        if let Some(pool) = pools.get(key) {
            return pool.clone();
        }
        let key = Key::from(key);
        let pool = Pool::new(&key, hosted);
        pools.insert(key, pool.clone());
        drop(pools);
        pool.for_each(|slot| hosted.enrol(slot));
        pool
    }

    /// Lets a vacant worker go that nobody refers to, and its pool with the last one. True if it is gone.
    pub(crate) fn forget(&self, slot: &Arc<Slot<A>>) -> bool {
        let mut pools = self.0.lock();
        let Some(pool) = pools.get(&slot.key).cloned() else { return true };
        // One of a pool that went before has nobody left.
        if !pool.holds(slot) || pool.dismiss(slot) {
            return true;
        }
        // The map and this function: nobody gets another reference while the map is locked.
        let gone = Arc::strong_count(&pool) == 2 && pool.is_unused();
        let gone = gone.then(|| pools.remove(&slot.key));
        drop(pools);
        gone.is_some()
    }

    pub(crate) fn for_each(&self, mut look: impl FnMut(&Arc<Slot<A>>)) {
        let pools: Vec<_> = self.0.lock().values().cloned().collect();
        pools.iter().for_each(|pool| pool.for_each(&mut look));
    }

    pub(crate) fn clear(&self) {
        let gone = std::mem::take(&mut *self.0.lock());
        drop(gone);
    }
}
