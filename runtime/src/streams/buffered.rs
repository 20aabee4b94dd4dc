//! Subscriptions with a buffer for each actor.
//!
//! However many items wait in a buffer, at most one message of it, a [`Delivery`], is in the actor's mailbox; its turn
//! empties the buffer. A publisher whose own chain holds the actor calls such a turn itself when the buffer is full, and
//! hears of a deadlock where the actor cannot take it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use quark_base::{ActorId, Key};

use super::Waiting;
use super::buffer::{Buffer, Counters, Offered, OfferedAll, count};
use super::delivery::{Called, Delivery};
use super::flow::Flow;
use super::implicit::{wait_for_room, waits_for_itself};
use super::report::BufferFill;
use super::throttle::{Pace, Throttle};
use crate::actor::{Actor, Method};
use crate::context::Request;
use crate::dead_letters::{Past, Watched};
use crate::error::Failure;
use crate::guards::Admission;
use crate::host::Hosted;
use crate::turn::block::{self, unwatched};
use crate::turn::{AnySlot, Blocked, Phase, Slot, TaskRef};

/// How items become messages.
pub(crate) trait Shape<A: Actor, T>: Send + Sync + 'static {
    /// The message.
    type Message: Method<A>;

    /// How many items a message takes at most.
    fn most(&self) -> usize {
        1
    }

    /// Takes the next message's items out of the front. None if there are none.
    fn next(&self, slot: &Arc<Slot<A>>, items: &mut VecDeque<T>) -> Option<Self::Message> {
        items.pop_front().map(|item| self.alone(slot, item))
    }

    /// The message of one item alone.
    fn alone(&self, slot: &Arc<Slot<A>>, item: T) -> Self::Message;
}

/// Each item is a message.
pub(crate) struct One<T, M> {
    pub(crate) message: fn(T) -> M,
}

impl<A: Actor, T: Send + 'static, M: Method<A>> Shape<A, T> for One<T, M> {
    type Message = M;

    fn alone(&self, _slot: &Arc<Slot<A>>, item: T) -> M {
        (self.message)(item)
    }
}

/// Items that wait together are one message.
pub(crate) struct Many<T, M> {
    pub(crate) message: fn(Vec<T>) -> M,
    pub(crate) most: usize,
}

impl<A: Actor, T: Send + 'static, M: Method<A>> Shape<A, T> for Many<T, M> {
    type Message = M;

    fn most(&self) -> usize {
        self.most
    }

    fn next(&self, _slot: &Arc<Slot<A>>, items: &mut VecDeque<T>) -> Option<M> {
        if items.is_empty() {
            return None;
        }
        let batch = if items.len() <= self.most {
            Vec::from(std::mem::take(items))
        } else {
            items.drain(..self.most).collect()
        };
        Some((self.message)(batch))
    }

    fn alone(&self, _slot: &Arc<Slot<A>>, item: T) -> M {
        (self.message)(vec![item])
    }
}

/// A subscription whose items wait in a buffer for each actor. Clones share it.
pub(crate) struct Buffered<A: Actor, T, P> {
    shared: Arc<Shared<A, T, P>>,
}

impl<A: Actor, T, P> Clone for Buffered<A, T, P> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

type Buffers<A, T, P> = HashMap<Key, Arc<ActorBuffer<A, T, P>>, RandomState>;

struct Shared<A: Actor, T, P> {
    flow: Flow,
    /// One for each actor that has had an item lately: [`sweep`](Buffered::sweep) forgets those that rest.
    buffers: RwLock<Buffers<A, T, P>>,
}

/// The items that wait for one actor.
pub(crate) struct ActorBuffer<A: Actor, T, P> {
    pub(super) buffer: Buffer<T>,
    key: Key,
    host: Weak<Hosted<A>>,
    /// The one activation's slot that it is for; without, that of whoever is active.
    only: Option<Weak<Slot<A>>>,
    pub(super) shape: Arc<P>,
    throttle: Throttle,
    pub(super) counters: Arc<Counters>,
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Buffered<A, T, P> {
    pub(crate) fn new(flow: Flow) -> Self {
        Self { shared: Arc::new(Shared { flow, buffers: RwLock::default() }) }
    }

    fn buffer(
        &self,
        hosted: &Arc<Hosted<A>>,
        key: &Key,
        shape: &Arc<P>,
        counters: &Arc<Counters>,
    ) -> Arc<ActorBuffer<A, T, P>> {
        if let Some(buffer) = self.shared.buffers.read().get(key) {
            return buffer.clone();
        }
        let mut buffers = self.shared.buffers.write();
        let made = || {
            let (key, only) = (key.clone(), None);
            ActorBuffer::new(key, only, hosted, self.shared.flow, shape.clone(), counters.clone())
        };
        buffers.entry(key.clone()).or_insert_with(made).clone()
    }

    /// Takes an item in, or gives the future that does.
    pub(crate) fn deliver(
        &self,
        hosted: &Arc<Hosted<A>>,
        shape: &Arc<P>,
        counters: &Arc<Counters>,
        key: &Key,
        item: T,
    ) -> Result<Option<Waiting>, Failure> {
        let waits = self.shared.flow.keeps_all();
        let buffer = self.buffer(hosted, key, shape, counters);
        let Some(gate) = &hosted.host().gate else { return buffer.take_in(item) };
        match gate.admit(key) {
            Admission::Go(_) => buffer.take_in(item),
            Admission::Refused(failure) => {
                count(&counters.refused, 1);
                if waits && !gate.drops(&failure) { Err(failure) } else { Ok(None) }
            }
            Admission::Waits(line) if waits => Ok(Some(Box::pin(async move {
                if let Err(failure) = line.await {
                    return buffer.refuse(1, failure);
                }
                let waiting = buffer.take_in(item)?;
                match waiting {
                    None => Ok(()),
                    Some(room) => room.await,
                }
            }))),
            Admission::Waits(_) => {
                count(&counters.above_rate, 1);
                Ok(None)
            }
        }
    }

    /// Takes several items in, or gives the future that takes the rest. Of a type without a gate.
    pub(crate) fn deliver_all(
        &self,
        hosted: &Arc<Hosted<A>>,
        shape: &Arc<P>,
        counters: &Arc<Counters>,
        key: &Key,
        items: Vec<T>,
    ) -> Result<Option<Waiting>, Failure> {
        self.buffer(hosted, key, shape, counters).take_all_in(items)
    }

    pub(crate) fn fill(&self) -> BufferFill {
        let mut fill = BufferFill::default();
        for buffer in self.shared.buffers.read().values() {
            let (used, capacity) = buffer.buffer.fill();
            fill.add(used, capacity);
        }
        fill
    }

    /// Forgets buffers that rest.
    pub(crate) fn sweep(&self, now: Duration) {
        let mut buffers = self.shared.buffers.write();
        // Nobody gets another reference while the map is locked.
        buffers.retain(|_, buffer| Arc::strong_count(buffer) > 1 || !buffer.buffer.rests(now));
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> ActorBuffer<A, T, P> {
    fn new(
        key: Key,
        only: Option<Weak<Slot<A>>>,
        hosted: &Arc<Hosted<A>>,
        flow: Flow,
        shape: Arc<P>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        let services = &hosted.host().services;
        let who = ActorId { actor_type: A::SPEC.name, key: key.clone() };
        let throttle = Throttle::new(&flow, &services.clock, services.nodes[0].timers(), who);
        let (buffer, host) = (Buffer::new(flow), Arc::downgrade(hosted));
        Arc::new(Self { buffer, key, host, only, shape, throttle, counters })
    }

    /// A buffer for one activation, whose slot this is.
    pub(crate) fn of_activation(
        slot: &Arc<Slot<A>>,
        hosted: &Arc<Hosted<A>>,
        flow: Flow,
        shape: P,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Self::new(slot.key.clone(), Some(Arc::downgrade(slot)), hosted, flow, Arc::new(shape), counters)
    }

    pub(crate) fn close(&self) {
        count(&self.counters.lost, self.buffer.close().len());
    }

    pub(crate) fn fill(&self) -> (usize, usize) {
        self.buffer.fill()
    }

    pub(super) fn now(&self) -> Duration {
        self.host.upgrade().map_or(Duration::ZERO, |host| host.host().services.clock.now())
    }

    /// Takes an item in at the subscription's rate, or gives the future that does.
    pub(crate) fn take_in(self: &Arc<Self>, item: T) -> Result<Option<Waiting>, Failure> {
        match self.throttle.pace() {
            Pace::Now => Ok(self.put(item)),
            Pace::Never => {
                count(&self.counters.above_rate, 1);
                Ok(None)
            }
            Pace::LineFull(failure) => {
                count(&self.counters.above_rate, 1);
                Err(failure)
            }
            Pace::Later(line) => {
                let own = self.clone();
                Ok(Some(Box::pin(async move {
                    line.await;
                    match own.put(item) {
                        None => Ok(()),
                        Some(room) => room.await,
                    }
                })))
            }
        }
    }

    fn put(self: &Arc<Self>, item: T) -> Option<Waiting> {
        let item = match self.buffer.offer(item, || self.now()) {
            Offered::Taken { attend } => {
                if attend {
                    self.attend();
                }
                return None;
            }
            Offered::Replaced { oldest, attend } => {
                count(&self.counters.dropped_oldest, 1);
                if attend {
                    self.attend();
                }
                drop(oldest);
                return None;
            }
            Offered::DroppedNewest(_) => {
                count(&self.counters.dropped_newest, 1);
                return None;
            }
            Offered::SampledOut(_) => {
                count(&self.counters.sampled_out, 1);
                return None;
            }
            Offered::Closed(_) => {
                count(&self.counters.lost, 1);
                return None;
            }
            Offered::Full(item) => item,
        };
        let own = self.clone();
        Some(Box::pin(async move {
            match own.buffer.offer_until_taken(item, || own.now(), || own.call_back()).await {
                Ok(Some(true)) => own.attend(),
                Ok(Some(false)) => {}
                Ok(None) => count(&own.counters.lost, 1),
                Err(failure) => return own.refuse(1, failure),
            }
            Ok(())
        }))
    }

    pub(crate) fn take_all_in(self: &Arc<Self>, items: Vec<T>) -> Result<Option<Waiting>, Failure> {
        let own = self.clone();
        if !self.throttle.is_off() {
            return Ok(Some(Box::pin(async move {
                for item in items {
                    let waiting = own.take_in(item)?;
                    if let Some(waiting) = waiting {
                        waiting.await?;
                    }
                }
                Ok(())
            })));
        }
        let mut items = VecDeque::from(items);
        let offered = self.buffer.offer_all(&mut items, true, || self.now());
        if self.note(offered, items.len()) || items.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::pin(async move {
            while !items.is_empty() {
                let offered = match own.buffer.offer_more(&mut items, || own.now(), || own.call_back()).await
                {
                    Ok(offered) => offered,
                    Err(failure) => return own.refuse(items.len(), failure),
                };
                if own.note(offered, items.len()) {
                    break;
                }
            }
            Ok(())
        })))
    }

    /// Notes what became of several items, and drops those that gave way. True if the buffer is closed.
    fn note(self: &Arc<Self>, offered: OfferedAll<T>, left: usize) -> bool {
        let closed = self.counters.note(&offered, left);
        if offered.attend {
            self.attend();
        }
        closed
    }

    fn refuse(&self, items: usize, failure: Failure) -> Result<(), Failure> {
        count(&self.counters.refused, items);
        Err(failure)
    }

    fn actor_id(&self) -> ActorId {
        ActorId { actor_type: A::SPEC.name, key: self.key.clone() }
    }

    /// The actor's place, while there is one; of stateless workers, that of any of them.
    fn slot(&self) -> Option<Arc<Slot<A>>> {
        match &self.only {
            None => Some(self.host.upgrade()?.slot(self.key.as_str())),
            Some(slot) => slot.upgrade(),
        }
    }

    /// Sends the message whose turn empties the buffer.
    fn attend(self: &Arc<Self>) {
        let Some(slot) = self.slot() else {
            return match self.only {
                None => count(&self.counters.lost, self.buffer.take_all().len()),
                Some(_) => self.close(),
            };
        };
        slot.touch();
        slot.report_demand();
        self.send(&slot);
    }

    /// Where the publisher's own chain holds the actor, which therefore does not come to its mailbox: a call of that
    /// chain that empties the buffer, on a loan or beside the chain's shared turn. None where the actor comes by itself.
    ///
    /// # Errors
    /// `Deadlock`, where the chain lets nothing run on the actor, or is just handling an item out of this buffer: its
    /// items are handled one after another.
    fn call_back(self: &Arc<Self>) -> Result<Option<Waiting>, Failure> {
        // Of stateless workers, only the one that has the message in its mailbox matters. While it is being sent, this
        // publisher waits, and hears of where.
        let (server, place) = (self.buffer.served_by(), self.buffer.coming_to());
        let (mut held, mut serves) = (None, false);
        TaskRef::walk_current(&mut |ancestor, here| {
            serves |= Some(ancestor.turn) == server;
            if held.is_none() && Some(ancestor.slot) == place {
                held = Some(here.shared());
            }
            !serves
        });
        if serves {
            return Err(waits_for_itself(self.actor_id()));
        }
        // Whoever takes items out now makes room, or tells when it has ended.
        let (None, Some(held)) = (server, held) else { return Ok(None) };
        let Ok(slot) = held.into_any().downcast::<Slot<A>>() else { return Ok(None) };
        let delivery = Delivery { buffer: self.clone(), slot: slot.clone(), came: false };
        let (turn, ticket) = block::queued(&slot, delivery, Request::default());
        slot.submit(turn).map_err(|blocked| blocked.into_failure(&slot))?;
        Ok(Some(Box::pin(Called(ticket))))
    }

    pub(super) fn send(self: &Arc<Self>, slot: &Arc<Slot<A>>) {
        self.buffer.comes_to(Arc::as_ptr(slot).addr());
        let delivery = Delivery { buffer: self.clone(), slot: slot.clone(), came: true };
        match slot.submit(unwatched(slot, delivery, Request::default())) {
            Ok(()) => {}
            Err(Blocked::Failed(failure)) => self.lose(slot, &failure),
            Err(Blocked::Full(turn)) => {
                let (own, slot) = (self.clone(), slot.clone());
                slot.executor().handle().spawn(async move {
                    if let Err(failure) = wait_for_room(slot.clone(), turn).await {
                        own.lose(&slot, &failure);
                    }
                });
            }
        }
    }

    /// The turn that emptied the buffer goes; if there is more, another one comes.
    pub(super) fn go_on(self: &Arc<Self>, slot: &Arc<Slot<A>>, rest: VecDeque<T>) {
        let gone = self.buffer.put_back(rest);
        count(&self.counters.dropped_oldest, gone.len());
        if !self.buffer.end_serving() {
            return;
        }
        // The slot may have been let go of, and another one be there for the key.
        if slot.word.snapshot().phase() == Phase::Retired { self.attend() } else { self.send(slot) }
    }

    /// What waits cannot be delivered: each of its messages ends as one that was refused in the mailbox does.
    pub(super) fn lose(&self, slot: &Arc<Slot<A>>, failure: &Failure) {
        let mut items = self.buffer.take_all();
        count(&self.counters.lost, items.len());
        while let Some(message) = self.shape.next(slot, &mut items) {
            if const { A::SPEC.dead_letters.is_some() } {
                Watched::new(slot, message, Past::one_way()).lost(failure);
            } else {
                slot.host.bury_unkept::<P::Message>(&slot.key, &failure.clone().widen());
            }
        }
    }
}
