//! What a typed reference is made of.

use std::sync::Arc;

use crate::actor::{Actor, Method};
use crate::call::Call;
use crate::coalesce::{Coalesced, SharedCall};
use crate::turn::Slot;

/// A reference to one actor. The macros wrap it into the typed reference with the actor's methods.
///
/// It shares the actor's slot with all others, so nothing in it can go stale: whether the actor is active, is
/// being moved, or does not exist yet is found out by each call.
pub struct ActorRef<A: Actor> {
    slot: Option<Arc<Slot<A>>>,
}

impl<A: Actor> ActorRef<A> {
    pub(crate) fn new(slot: Option<Arc<Slot<A>>>) -> Self {
        Self { slot }
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
        if let Some(slot) = &self.slot {
            crate::turn::AnySlot::request_deactivation(&**slot, crate::actor::DeactivationReason::Requested);
        }
    }

    #[inline]
    pub(crate) fn slot(&self) -> Option<&Arc<Slot<A>>> {
        self.slot.as_ref()
    }
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone() }
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
