//! What a typed reference is made of.

use std::sync::Arc;

use crate::actor::{Actor, DeactivationReason, Method};
use crate::call::Call;
use crate::coalesce::{Coalesced, SharedCall};
use crate::turn::{AnySlot, Slot};
use crate::workers::Pool;

/// A reference to one actor. The macros wrap it into the typed reference with the actor's methods.
///
/// It shares the actor's slot with all others, so nothing in it can go stale: whether the actor is active, is
/// being moved, or does not exist yet is found out by each call.
pub struct ActorRef<A: Actor> {
    slot: Option<Arc<Slot<A>>>,
    /// Stateless workers share a key; `slot` is then the first of them.
    pool: Option<Arc<Pool<A>>>,
}

impl<A: Actor> ActorRef<A> {
    pub(crate) fn new(slot: Option<Arc<Slot<A>>>) -> Self {
        Self { slot, pool: None }
    }

    pub(crate) fn to_workers(pool: Arc<Pool<A>>) -> Self {
        Self { slot: Some(pool.first().clone()), pool: Some(pool) }
    }

    /// A call of one method. Nothing happens until it is awaited or told.
    #[inline]
    pub fn call<M: Method<A>>(&self, message: M) -> Call<'_, A, M> {
        Call::new(self, message)
    }

    /// A call that shares its run with identical ones.
    #[inline]
    pub fn shared_call<M: Coalesced<A>>(&self, message: M) -> SharedCall<'_, A, M> {
        SharedCall::new(self, message)
    }

    /// Asks the actor to deactivate as soon as no turn runs on it.
    pub fn deactivate(&self) {
        match (&self.pool, &self.slot) {
            (Some(pool), _) => pool.for_each(|slot| slot.request_deactivation(DeactivationReason::Requested)),
            (None, Some(slot)) => slot.request_deactivation(DeactivationReason::Requested),
            (None, None) => {}
        }
    }

    #[inline]
    pub(crate) fn slot(&self) -> Option<&Arc<Slot<A>>> {
        self.slot.as_ref()
    }

    /// The workers behind it, if they are several.
    #[inline]
    pub(crate) fn pool(&self) -> Option<&Arc<Pool<A>>> {
        if const { A::SPEC.workers.is_some() } { self.pool.as_ref() } else { None }
    }
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), pool: self.pool.clone() }
    }
}

impl<A: Actor> std::fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.slot {
            Some(slot) => write!(f, "{}", slot.actor_id()),
            None => write!(f, "{} (not hosted)", A::SPEC.name),
        }
    }
}
