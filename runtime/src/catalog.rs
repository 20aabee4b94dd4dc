//! The slots of one actor type: found by key, and visited by a hand that goes round.
//!
//! The hand is the clock of page replacement (Corbató, *A Paging Experiment with the Multics System*, 1968): a visit
//! takes the slots at its front out of the ring, looks at each, and puts those that stay at the back. So a tick's
//! work is bounded however many actors there are, and one that goes costs no search.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crossbeam_queue::SegQueue;
use papaya::HashMap;
use quark_base::Key;

use crate::actor::Actor;
use crate::host::Host;
use crate::turn::{Phase, Slot};
use crate::workers::Pools;

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
    by_key: HashMap<Key, Arc<Slot<A>>>,
    /// The slots of stateless workers, of which a key has several; for all other types there are none.
    pub(crate) pools: Pools<A>,
    /// Every slot, once, but for those in the hand.
    ring: SegQueue<Arc<Slot<A>>>,
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
        Self { by_key: HashMap::new(), pools: Pools::default(), ring: SegQueue::new() }
    }
}

impl<A: Actor> Catalog<A> {
    /// The slot of `key`, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Slot<A>>> {
        self.by_key.pin().get(key).cloned()
    }

    /// The slot of `key`, made if it is not there.
    pub(crate) fn slot(&self, key: &str, host: &Arc<Host<A>>) -> Arc<Slot<A>> {
        loop {
            let slot = self.get(key).unwrap_or_else(|| self.insert(Key::from(key), host));
            // Pairs with the fence in `forget`: either it sees this reference, or this sees the slot retired.
            fence(Ordering::SeqCst);
            if slot.word.snapshot().phase() != Phase::Retired {
                return slot;
            }
            std::hint::spin_loop();
        }
    }

    fn insert(&self, key: Key, host: &Arc<Host<A>>) -> Arc<Slot<A>> {
        let new = Slot::new(key.clone(), host.clone());
        let slots = self.by_key.pin();
        let slot = slots.get_or_insert_with(key, || new.clone()).clone();
        // Whoever put it in puts it into the ring: nobody else may, or it would be there twice.
        if Arc::ptr_eq(&slot, &new) {
            self.ring.push(new);
        }
        slot
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
        // The catalog and the hand.
        const OWN: usize = 2;
        if Arc::strong_count(slot) != OWN || !slot.word.retire() {
            return false;
        }
        fence(Ordering::SeqCst);
        if Arc::strong_count(slot) == OWN {
            self.by_key.pin().remove(&slot.key);
            return true;
        }
        if slot.word.settle_vacant().has_queued() {
            slot.activate_if_vacant();
        }
        false
    }

    /// Calls `look` for every slot. As much work as there are slots: for the silo's end, and for reports.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Arc<Slot<A>>)) {
        for (_, slot) in self.by_key.pin().iter() {
            look(slot);
        }
        self.pools.for_each(look);
    }

    /// Takes in a slot that was made elsewhere, for the hand to visit.
    pub(crate) fn enrol(&self, slot: &Arc<Slot<A>>) {
        self.ring.push(slot.clone());
    }

    /// Forgets every slot; only when the silo is gone.
    pub(crate) fn clear(&self) {
        self.by_key.pin().clear();
        self.pools.clear();
        while self.ring.pop().is_some() {}
    }
}
