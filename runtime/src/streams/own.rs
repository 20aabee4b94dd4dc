//! Subscriptions that an actor makes at run time. They end with its activation.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use quark_base::{Key, StreamId};

use super::buffer::{Counters, count};
use super::buffered::{ActorBuffer, Shape};
use super::error::{Reader, SubscribeError};
use super::flow::Flow;
use super::pattern::Pattern;
use super::registry::{Registration, RegistrationId};
use super::report::{BufferFill, Reported};
use super::topic::Topic;
use super::{Subscriber, Waiting};
use crate::actor::{Actor, Method, Reference, ToKey};
use crate::actor_ref::ActorRef;
use crate::call::Call;
use crate::context::Cx;
use crate::error::Failure;
use crate::services::Services;
use crate::turn::Slot;

/// Subscriptions that one activation may have at once. An actor that needs more streams than this reads them by a
/// pattern.
pub const ACTOR_SUBSCRIPTIONS_MAX: usize = 1_024;

impl Cx {
    /// Subscribes the running actor to one stream of a topic, from now on and until it is deactivated:
    /// `cx.subscribe(&FRAMES, "cam-7", |me: &ViewerRef, frame| me.frame(frame))`. Items wait in a buffer of
    /// [`BUFFER`](super::BUFFER); a full one makes the publisher wait.
    ///
    /// Items are use of the actor: it is not idle while they come. In a context without a silo nothing ever comes.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing has changed.
    pub fn subscribe<T, R, A, M>(
        &self,
        topic: &Topic<T>,
        key: impl ToKey,
        message: impl for<'r> Fn(&'r R, T) -> Call<'r, A, M> + Send + Sync + 'static,
    ) -> Result<ActorSubscription, SubscribeError>
    where
        T: Send + 'static,
        R: Reference<Actor = A>,
        A: Actor<Ref = R>,
        M: Method<A>,
    {
        self.subscribe_with(topic, key, Flow::wait(), message)
    }

    /// The same, with a flow of its own.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing has changed.
    pub fn subscribe_with<T, R, A, M>(
        &self,
        topic: &Topic<T>,
        key: impl ToKey,
        flow: Flow,
        message: impl for<'r> Fn(&'r R, T) -> Call<'r, A, M> + Send + Sync + 'static,
    ) -> Result<ActorSubscription, SubscribeError>
    where
        T: Send + 'static,
        R: Reference<Actor = A>,
        A: Actor<Ref = R>,
        M: Method<A>,
    {
        let Some(slot) = self.slot() else { return Ok(ActorSubscription(None)) };
        let own: Arc<dyn Any + Send + Sync> = slot.shared().into_any();
        let slot = own
            .downcast::<Slot<A>>()
            .map_err(|_| SubscribeError::OtherActor { actor: slot.id(), reference: type_name::<A::Ref>() })?;
        let grid = self.grid();
        let (Some(services), Some(hosted)) = (grid.services(), grid.hosted_arc::<A>()) else {
            return Err(SubscribeError::Stopped);
        };
        if slot.mailbox().extra().subscriptions.is_full() {
            return Err(SubscribeError::TooMany { max: ACTOR_SUBSCRIPTIONS_MAX });
        }
        let counters: Arc<Counters> = Arc::default();
        let shape = Made { message, types: PhantomData };
        let buffer = ActorBuffer::of_activation(&slot, &hosted, flow, shape, counters.clone());
        let own = Arc::new(Own { buffer, counters });
        let subscriber: Arc<dyn Subscriber<T>> = own.clone();
        let id = services.streams.register(Registration {
            pattern: Pattern::unchecked(topic.namespace()),
            key: Some(key.with_key(|key| Key::from(key))),
            item: TypeId::of::<T>(),
            item_name: type_name::<T>(),
            reader: Reader::Method { actor_type: A::SPEC.name, method: A::METHODS[M::INDEX].name },
            is_implicit: false,
            flow,
            subscriber: Arc::new(subscriber),
            reported: own.clone(),
        })?;
        let made = Arc::new(Held {
            id,
            services: Arc::downgrade(services),
            buffer: own,
            ended: AtomicBool::new(false),
        });
        slot.mailbox().extra().subscriptions.0.push(made.clone());
        Ok(ActorSubscription(Some(made)))
    }
}

/// A subscription that an actor has made. Dropping it does not end it.
#[derive(Clone)]
pub struct ActorSubscription(Option<Arc<Held>>);

impl ActorSubscription {
    /// Ends it. What waits is lost; an item whose turn runs goes on.
    pub fn end(&self) {
        if let Some(held) = &self.0 {
            held.end();
        }
    }

    /// Whether items may come.
    pub fn is_active(&self) -> bool {
        self.0.as_ref().is_some_and(|held| !held.has_ended())
    }
}

impl fmt::Debug for ActorSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorSubscription").field("is_active", &self.is_active()).finish()
    }
}

/// What ends a subscription.
pub(super) struct Held {
    id: RegistrationId,
    services: Weak<Services>,
    buffer: Arc<dyn Close>,
    ended: AtomicBool,
}

trait Close: Send + Sync {
    fn close(&self);
    /// Counts an item as late for a window, if this is the turn that handles it.
    fn note_late(&self, turn: usize) -> bool;
}

impl Held {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// As [`Close::note_late`].
    pub(super) fn note_late(&self, turn: usize) -> bool {
        self.buffer.note_late(turn)
    }

    fn end(&self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        self.buffer.close();
        let gone = self.services.upgrade().and_then(|services| services.streams.remove(self.id));
        drop(gone);
    }
}

/// The subscriptions of one activation. Its drop ends them.
#[derive(Default)]
pub(crate) struct OwnSubscriptions(Vec<Arc<Held>>);

impl OwnSubscriptions {
    pub(super) fn held(&self) -> Vec<Arc<Held>> {
        self.0.clone()
    }

    fn is_full(&mut self) -> bool {
        if self.0.len() >= ACTOR_SUBSCRIPTIONS_MAX {
            self.0.retain(|held| !held.has_ended());
        }
        self.0.len() >= ACTOR_SUBSCRIPTIONS_MAX
    }
}

impl Drop for OwnSubscriptions {
    fn drop(&mut self) {
        self.0.iter().for_each(|held| held.end());
    }
}

/// One such subscription.
struct Own<A: Actor, T, P> {
    buffer: Arc<ActorBuffer<A, T, P>>,
    counters: Arc<Counters>,
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Subscriber<T> for Own<A, T, P> {
    fn deliver(&self, _stream: &StreamId, item: T) -> Result<Option<Waiting>, Failure> {
        self.buffer.take_in(item)
    }

    fn deliver_all(&self, _stream: &StreamId, items: Vec<T>) -> Result<Option<Waiting>, Failure> {
        self.buffer.take_all_in(items)
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Reported for Own<A, T, P> {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn fill(&self) -> BufferFill {
        let (used, capacity) = self.buffer.fill();
        let mut fill = BufferFill::default();
        fill.add(used, capacity);
        fill
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Close for Own<A, T, P> {
    fn close(&self) {
        self.buffer.close();
    }

    fn note_late(&self, turn: usize) -> bool {
        let is_ours = self.buffer.buffer.served_by() == Some(turn);
        count(&self.counters.late, usize::from(is_ours));
        is_ours
    }
}

/// Each item is the message that a function makes of it.
struct Made<F, A, T, M> {
    message: F,
    types: PhantomData<fn(A, T) -> M>,
}

impl<F, A, T, M> Shape<A, T> for Made<F, A, T, M>
where
    F: for<'r> Fn(&'r A::Ref, T) -> Call<'r, A, M> + Send + Sync + 'static,
    A: Actor,
    T: Send + 'static,
    M: Method<A>,
{
    type Message = M;

    fn alone(&self, slot: &Arc<Slot<A>>, item: T) -> M {
        let me = A::Ref::from(ActorRef::new(Some(slot.clone())));
        (self.message)(&me, item).into_message()
    }
}
