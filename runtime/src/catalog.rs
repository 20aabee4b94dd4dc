//! The slots of one actor type: found by key, and visited by a hand that goes round.
//!
//! The hand is the clock of page replacement (Corbató, *A Paging Experiment with the Multics System*, 1968): a visit
//! takes the slots at its front out of the ring, looks at each, and puts those that stay at the back. So a tick's
//! work is bounded however many actors there are, and one that goes costs no search.

use std::hash::BuildHasher;
use std::sync::Arc;

use crossbeam_queue::SegQueue;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::RwLock;
use quark_base::Key;

use crate::actor::Actor;
use crate::host::Host;
use crate::turn::Slot;
use crate::workers::Pools;

/// Parts of the catalog, each with a lock of its own: enough that two threads seldom meet in one, and that a table of
/// a million slots grows in pieces of some thousand.
const SHARDS: usize = 256;

/// Slots that one visit looks at in any case.
const VISIT_LEAST: usize = 1_024;

/// Slots that one visit looks at at most. At about 50 ns each, on actors that have left the processor's caches, that
/// is less than a millisecond in a tick of fifty.
const VISIT_MOST: usize = 16_384;

/// Ticks in which the hand goes round: ten seconds, while there are no more than three million slots. An actor's idle
/// time is late by that much at most.
const ROUND: usize = 200;

/// The slots of one actor type.
pub(crate) struct Catalog<A: Actor> {
    shards: Box<[Shard<A>]>,
    /// Seeded by chance, so that nobody outside can choose keys that collide.
    hasher: RandomState,
    /// The slots of stateless workers, of which a key has several; for all other types there are none.
    pub(crate) pools: Pools<A>,
    /// Every slot, once, but for those in the hand.
    ring: SegQueue<Arc<Slot<A>>>,
}

/// A cache line of its own, since its lock is written by every look-up.
#[repr(align(64))]
struct Shard<A: Actor>(RwLock<HashTable<Place<A>>>);

/// A slot, and its key's hash: a table that grows need not read the keys.
struct Place<A: Actor> {
    hash: u64,
    slot: Arc<Slot<A>>,
}

impl<A: Actor> Place<A> {
    fn is(&self, hash: u64, key: &str) -> bool {
        self.hash == hash && self.slot.key.as_str() == key
    }
}

/// What the hand does with a slot that it has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays.
    Stays,
    /// There is no actor; the slot may go if nobody refers to it.
    Vacant,
}

impl<A: Actor> Default for Catalog<A> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard(RwLock::new(HashTable::new()))).collect(),
            hasher: RandomState::default(),
            pools: Pools::default(),
            ring: SegQueue::new(),
        }
    }
}

impl<A: Actor> Catalog<A> {
    /// The slot of `key`, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Slot<A>>> {
        let (hash, shard) = self.place(key);
        shard.read().find(hash, |place| place.is(hash, key)).map(|place| place.slot.clone())
    }

    /// The slot of `key`, made if it is not there.
    pub(crate) fn slot(&self, key: &str, host: &Arc<Host<A>>) -> Arc<Slot<A>> {
        let (hash, shard) = self.place(key);
        if let Some(place) = shard.read().find(hash, |place| place.is(hash, key)) {
            return place.slot.clone();
        }
        let slot = match shard.write().entry(hash, |place| place.is(hash, key), |place| place.hash) {
            Entry::Occupied(there) => return there.get().slot.clone(),
            Entry::Vacant(vacant) => {
                let slot = Slot::new(Key::from(key), host.clone());
                vacant.insert(Place { hash, slot: slot.clone() });
                slot
            }
        };
        // Whoever put it in puts it into the ring: nobody else may, or it would be there twice.
        self.ring.push(slot.clone());
        slot
    }

    fn place(&self, key: &str) -> (u64, &RwLock<HashTable<Place<A>>>) {
        let hash = self.hasher.hash_one(key);
        // Not the bits at either end: the table itself goes by those.
        (hash, &self.shards[(hash >> 32) as usize % SHARDS].0)
    }

    /// Looks at as many slots as a tick should, or at all of them if there are few. True if that was all.
    pub(crate) fn visit(&self, hurry: bool, mut look: impl FnMut(&Arc<Slot<A>>) -> Verdict) -> bool {
        let slots = self.ring.len();
        let share = if hurry { VISIT_MOST } else { (slots / ROUND).clamp(VISIT_LEAST, VISIT_MOST) };
        for _ in 0..share.min(slots) {
            let Some(slot) = self.ring.pop() else { break };
            if look(&slot) == Verdict::Stays || !self.forget(&slot) {
                self.ring.push(slot);
            }
        }
        share >= slots
    }

    /// Takes a vacant slot out of the catalog if nobody refers to it. True if it is gone.
    fn forget(&self, slot: &Arc<Slot<A>>) -> bool {
        if const { A::SPEC.workers.is_some() } {
            return self.pools.forget(slot);
        }
        let (hash, shard) = self.place(slot.key.as_str());
        let mut slots = shard.write();
        // The catalog and the hand. Nobody gets another reference while the shard is locked.
        const OWN: usize = 2;
        if Arc::strong_count(slot) != OWN || !slot.word.retire() {
            return false;
        }
        if let Ok(own) = slots.find_entry(hash, |place| Arc::ptr_eq(&place.slot, slot)) {
            own.remove();
        }
        true
    }

    /// Calls `look` for every slot. As much work as there are slots: for the silo's end, and for reports.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Arc<Slot<A>>)) {
        for Shard(slots) in &self.shards {
            // What is done with a slot may come back here, so it is not done under the lock.
            let slots: Vec<_> = slots.read().iter().map(|place| place.slot.clone()).collect();
            slots.iter().for_each(&mut look);
        }
        self.pools.for_each(look);
    }

    /// Takes in a slot that was made elsewhere, for the hand to visit.
    pub(crate) fn enrol(&self, slot: &Arc<Slot<A>>) {
        self.ring.push(slot.clone());
    }

    /// Forgets every slot; only when the silo is gone.
    pub(crate) fn clear(&self) {
        for Shard(slots) in &self.shards {
            let gone = std::mem::take(&mut *slots.write());
            drop(gone);
        }
        self.pools.clear();
        while self.ring.pop().is_some() {}
    }
}
