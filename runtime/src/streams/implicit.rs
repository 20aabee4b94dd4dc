//! Subscriptions of actor types: what an `#[on_stream]` method becomes.

use std::any::{TypeId, type_name};
use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use quark_base::{ActorId, Key, StreamId};

use super::buffered::{Buffered, Many, One, Shape};
use super::durable::{Handling, TurnFailed};
use super::error::Reader;
use super::flow::Flow;
use super::pattern::Pattern;
use super::registry::Registration;
use super::report::{BufferFill, Reported};
use super::topic::Source;
use super::{Subscriber, Waiting};
use crate::actor::{Actor, Method};
use crate::actor_ref::ActorRef;
use crate::chain;
use crate::context::Request;
use crate::dead_letters::{self, DeadCause, Past};
use crate::error::{CallError, Failure};
use crate::guards::Admission;
use crate::host::Hosted;
use crate::intercept;
use crate::store::MessageId;
use crate::streams::buffer::{Counters, count};
use crate::turn::{Blocked, Slot, TaskRef, block};

/// The implicit subscriptions of one actor type, collected from its `#[on_stream]` methods.
pub struct Subscriptions<A: Actor> {
    host: Weak<Hosted<A>>,
    found: Vec<Registration>,
}

impl<A: Actor> Subscriptions<A> {
    pub(crate) fn new(host: Weak<Hosted<A>>) -> Self {
        Self { host, found: Vec::new() }
    }

    pub(crate) fn into_found(self) -> Vec<Registration> {
        self.found
    }

    /// Delivers each item of `source` as the message that `message` makes of it. Written by `#[methods]`.
    pub fn on<S, M>(&mut self, source: S, flow: Flow, message: fn(S::Item) -> M)
    where
        S: Source<Item: Send + 'static>,
        M: Method<A>,
    {
        self.add(source, flow, One { message });
    }

    /// Delivers the items of `source` that wait together as the message that `message` makes of them. Written by
    /// `#[methods]`.
    pub fn on_batch<S, M>(&mut self, source: S, flow: Flow, message: fn(Vec<S::Item>) -> M)
    where
        S: Source<Item: Send + 'static>,
        M: Method<A>,
    {
        let most = flow.batch_max();
        self.add(source, flow, Many { message, most });
    }

    fn add<S: Source<Item: Send + 'static>, P: Shape<A, S::Item>>(
        &mut self,
        source: S,
        flow: Flow,
        shape: P,
    ) {
        let implicit = Arc::new(Implicit {
            buffered: (!flow.is_direct()).then(|| Buffered::new(flow)),
            host: self.host.clone(),
            shape: Arc::new(shape),
            counters: Arc::default(),
            item: PhantomData,
        });
        let subscriber: Arc<dyn Subscriber<S::Item>> = implicit.clone();
        self.found.push(Registration {
            pattern: Pattern::unchecked(source.pattern()),
            key: None,
            item: TypeId::of::<S::Item>(),
            item_name: type_name::<S::Item>(),
            reader: Reader::Method {
                actor_type: A::SPEC.name,
                method: A::METHODS[<P::Message as Method<A>>::INDEX].name,
            },
            is_implicit: true,
            flow,
            subscriber: Arc::new(subscriber),
            reported: implicit,
        });
    }
}

/// One `#[on_stream]` method on one silo.
struct Implicit<A: Actor, T, P> {
    host: Weak<Hosted<A>>,
    shape: Arc<P>,
    counters: Arc<Counters>,
    /// None where items go into the mailbox.
    buffered: Option<Buffered<A, T, P>>,
    item: PhantomData<fn(T)>,
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Implicit<A, T, P> {
    fn hosted(&self, key: &Key) -> Result<Arc<Hosted<A>>, Failure> {
        self.host.upgrade().ok_or_else(|| {
            CallError::Draining(Box::new(ActorId { actor_type: A::SPEC.name, key: key.clone() }))
        })
    }

    /// Puts an item's own message into the mailbox.
    fn direct(&self, slot: &Arc<Slot<A>>, item: T) -> Result<Option<Waiting>, Failure> {
        let message = self.shape.alone(slot, item);
        let Some(message) = intercept::one_way(slot, message) else { return Ok(None) };
        let turn = block::one_way::<A, P::Message>(slot, message, Request::default());
        deliver(slot, turn)
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Subscriber<T> for Implicit<A, T, P> {
    fn deliver(&self, stream: &StreamId, item: T) -> Result<Option<Waiting>, Failure> {
        let key = stream.key();
        let hosted = self.hosted(key)?;
        // An interceptor answers in place of actors that are never made, so it sees each item as it comes.
        if let Some(buffered) = self.buffered.as_ref().filter(|_| hosted.host().interceptor.is_none()) {
            return buffered.deliver(&hosted, &self.shape, &self.counters, key, item);
        }
        let slot = hosted.slot(key.as_str());
        let Some(gate) = &slot.host.gate else {
            let delivered = self.direct(&slot, item);
            return counted(&self.counters, delivered);
        };
        let message = self.shape.alone(&slot, item);
        let Some(message) = intercept::one_way(&slot, message) else { return Ok(None) };
        let turn = block::one_way::<A, P::Message>(&slot, message, Request::default());
        match gate.admit(key) {
            Admission::Go(_) => counted(&self.counters, deliver(&slot, turn)),
            Admission::Refused(failure) if gate.drops(&failure) => {
                count(&self.counters.refused, 1);
                slot.lose(turn, failure);
                Ok(None)
            }
            Admission::Refused(failure) => counted(&self.counters, Err(failure)),
            Admission::Waits(line) => {
                let sent: Waiting = Box::pin(async move {
                    line.await?;
                    match deliver(&slot, turn)? {
                        Some(room) => room.await,
                        None => Ok(()),
                    }
                });
                counted(&self.counters, Ok(Some(sent)))
            }
        }
    }

    fn deliver_all(&self, stream: &StreamId, items: Vec<T>) -> Result<Option<Waiting>, Failure> {
        let hosted = self.hosted(stream.key())?;
        if let Some(buffered) = &self.buffered
            && hosted.host().interceptor.is_none()
            && hosted.host().gate.is_none()
        {
            return buffered.deliver_all(&hosted, &self.shape, &self.counters, stream.key(), items);
        }
        one_by_one(self, stream, items)
    }

    fn handle(&self, key: &Key, items: Vec<T>, id: Option<MessageId>) -> Option<Handling> {
        let hosted = self.host.upgrade()?;
        let actor = hosted.reference(key.as_str());
        let slot = actor.slot()?.clone();
        let (count_of, mut items) = (items.len(), VecDeque::from(items));
        let message = self.shape.next(&slot, &mut items)?;
        let counters = self.counters.clone();
        Some(Box::pin(async move {
            Self::ask(actor, message, id).await?;
            count(&counters.delivered, count_of);
            Ok(())
        }))
    }

    fn bury(&self, key: &Key, item: Option<T>, cause: DeadCause, attempts: u32) {
        let Some(hosted) = self.host.upgrade() else { return };
        let slot = hosted.slot(key.as_str());
        count(&self.counters.lost, 1);
        let kept = item.filter(|_| A::SPEC.dead_letters.is_some()).map(|item| self.shape.alone(&slot, item));
        dead_letters::bury::<A, P::Message>(&slot, cause, Past::after(attempts), kept);
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Implicit<A, T, P> {
    async fn ask(actor: ActorRef<A>, message: P::Message, id: Option<MessageId>) -> Result<(), TurnFailed> {
        let call = actor.call(message);
        let call = match id {
            Some(id) => call.with_message_id(id),
            None => call,
        };
        let Err(error) = call.await else { return Ok(()) };
        match error {
            error if error.is_taken_already() => Ok(()),
            CallError::Actor(error) => Err(TurnFailed::Tried(DeadCause::returned::<A, P::Message>(&error))),
            CallError::Overloaded(_)
            | CallError::Dropped(_)
            | CallError::RateLimited(_)
            | CallError::CircuitOpen(_)
            | CallError::Draining(_)
            | CallError::Superseded(_) => Err(TurnFailed::NotNow),
            other => Err(match other.as_failure() {
                Some(failure) => TurnFailed::Tried(DeadCause::Call(failure)),
                None => TurnFailed::NotNow,
            }),
        }
    }
}

/// Delivers items until one of them must wait.
fn one_by_one<A: Actor, T: Send + 'static, P: Shape<A, T>>(
    implicit: &Implicit<A, T, P>,
    stream: &StreamId,
    items: Vec<T>,
) -> Result<Option<Waiting>, Failure> {
    let mut items = items.into_iter();
    while let Some(item) = items.next() {
        let Some(first) = implicit.deliver(stream, item)? else { continue };
        let rest = Implicit {
            host: implicit.host.clone(),
            shape: implicit.shape.clone(),
            counters: implicit.counters.clone(),
            buffered: implicit.buffered.clone(),
            item: PhantomData,
        };
        let stream = stream.clone();
        return Ok(Some(Box::pin(async move {
            first.await?;
            for item in items {
                // A statement of its own, so that nothing but the future is held while it is awaited.
                let waiting = rest.deliver(&stream, item)?;
                if let Some(waiting) = waiting {
                    waiting.await?;
                }
            }
            Ok(())
        })));
    }
    Ok(None)
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Reported for Implicit<A, T, P> {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn fill(&self) -> BufferFill {
        self.buffered.as_ref().map(Buffered::fill).unwrap_or_default()
    }

    fn sweep(&self, now: Duration) {
        if let Some(buffered) = &self.buffered {
            buffered.sweep(now);
        }
    }
}

/// Counts what becomes of an item: of one that waits, once its waiting has ended.
fn counted(
    counters: &Arc<Counters>,
    sent: Result<Option<Waiting>, Failure>,
) -> Result<Option<Waiting>, Failure> {
    let ended = match sent {
        Ok(Some(room)) => {
            let counters = counters.clone();
            return Ok(Some(Box::pin(async move { counters.note_sent(room.await) })));
        }
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    counters.note_sent(ended).map(|()| None)
}

/// Puts a message into its actor's mailbox, or gives the future that does.
pub(super) fn deliver<A: Actor>(slot: &Arc<Slot<A>>, turn: TaskRef) -> Result<Option<Waiting>, Failure> {
    slot.touch();
    slot.report_demand();
    match slot.submit(turn) {
        Ok(()) => Ok(None),
        Err(Blocked::Failed(failure)) => Err(failure),
        Err(Blocked::Full(turn)) => Ok(Some(Box::pin(wait_for_room(slot.clone(), turn)))),
    }
}

/// Waits for room in the actor's mailbox. `Deadlock` where the publisher's own chain keeps the actor from it.
pub(super) fn wait_for_room<A: Actor>(
    slot: Arc<Slot<A>>,
    turn: TaskRef,
) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> {
    Box::pin(async move {
        let mut turn = Some(turn);
        let submit = || match slot.submit(turn.take()?) {
            Ok(()) => Some(Ok(())),
            Err(Blocked::Failed(failure)) => Some(Err(failure)),
            Err(Blocked::Full(_)) if own_chain_keeps_from_mailbox(&slot) => {
                Some(Err(waits_for_itself(slot.actor_id())))
            }
            Err(Blocked::Full(back)) => {
                turn = Some(back);
                None
            }
        };
        slot.host.wait_for_space(submit).await
    })
}

/// Whether the mailbox waits for the chain of the turn that is being polled here: behind an exclusive turn of it, also
/// one that lends itself, since that lets in calls of the chain only; or with an exclusive message first, behind a
/// shared one.
fn own_chain_keeps_from_mailbox<A: Actor>(slot: &Arc<Slot<A>>) -> bool {
    let place = Arc::as_ptr(slot).addr();
    let (mut shared, mut exclusive) = (false, false);
    TaskRef::walk_current(&mut |ancestor, _| {
        let here = ancestor.slot == place;
        exclusive |= here && ancestor.exclusive;
        shared |= here;
        !exclusive
    });
    exclusive || (shared && slot.mailbox().first_is_exclusive() == Some(true))
}

/// What a publisher hears that waits for its own chain to make room.
pub(super) fn waits_for_itself(actor: ActorId) -> Failure {
    let mut names = Vec::new();
    TaskRef::walk_current(&mut |_, slot| {
        names.push(slot.id());
        true
    });
    CallError::Deadlock(chain::describe(names, actor))
}
