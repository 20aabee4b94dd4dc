//! Subscriptions with a buffer for each actor, and the turns that empty it.
//!
//! However many items wait in a buffer, at most one message of it, a [`Delivery`], is in the actor's mailbox. Its turn
//! takes items out one after another and runs the method for each, as long as the method does not wait; so an actor that
//! is called meanwhile comes to its calls after at most [`PER_TURN`] quick items or one slow one.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use quark_base::{Clock, Key};

use super::Waiting;
use super::buffer::{Buffer, Counters, Offered, OfferedAll, count};
use super::flow::Flow;
use super::implicit::wait_for_room;
use super::report::BufferFill;
use crate::actor::{Actor, Method};
use crate::context::{Cx, Request};
use crate::dead_letters::{Past, Watched};
use crate::error::{CallError, Failure};
use crate::guards::Admission;
use crate::guards::rate::Limiter;
use crate::host::Hosted;
use crate::turn::block::unwatched;
use crate::turn::{AnySlot, Blocked, Slot, TurnMode};

/// Items, or batches of them, that one turn handles before the actor's other messages get theirs: as many as an executor
/// takes out of one mailbox.
const PER_TURN: usize = 64;

/// How soon a delivery is tried again that gave way at a full mailbox.
const RETRY: Duration = Duration::from_millis(10);

/// How items become messages.
pub(crate) trait Shape<A: Actor, T>: Send + Sync + 'static {
    /// The message.
    type Message: Method<A>;

    /// How many items a message takes at most.
    fn most(&self) -> usize {
        1
    }

    /// Takes the next message's items out of the front. None if there are none.
    fn next(&self, items: &mut VecDeque<T>) -> Option<Self::Message>;

    /// The message of one item alone.
    fn alone(&self, item: T) -> Self::Message;
}

/// Each item is a message.
pub(crate) struct One<T, M> {
    pub(crate) message: fn(T) -> M,
}

impl<A: Actor, T: Send + 'static, M: Method<A>> Shape<A, T> for One<T, M> {
    type Message = M;

    fn next(&self, items: &mut VecDeque<T>) -> Option<M> {
        items.pop_front().map(self.message)
    }

    fn alone(&self, item: T) -> M {
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

    fn next(&self, items: &mut VecDeque<T>) -> Option<M> {
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

    fn alone(&self, item: T) -> M {
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

struct Shared<A: Actor, T, P> {
    host: Weak<Hosted<A>>,
    flow: Flow,
    /// One for each actor that has had an item lately: [`sweep`](Buffered::sweep) forgets those that rest.
    buffers: RwLock<HashMap<Key, Arc<ActorBuffer<A, T, P>>, RandomState>>,
    /// The rate at the source; made with the first item, when there is a clock.
    limiter: std::sync::OnceLock<Option<Arc<Limiter>>>,
}

/// The items that wait for one actor.
pub(crate) struct ActorBuffer<A: Actor, T, P> {
    buffer: Buffer<T>,
    key: Key,
    host: Weak<Hosted<A>>,
    /// The one activation's slot that it is for; without, that of whoever is active.
    only: Option<Weak<Slot<A>>>,
    shape: Arc<P>,
    counters: Arc<Counters>,
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Buffered<A, T, P> {
    pub(crate) fn new(host: Weak<Hosted<A>>, flow: Flow) -> Self {
        let limiter = std::sync::OnceLock::new();
        Self { shared: Arc::new(Shared { host, flow, buffers: RwLock::default(), limiter }) }
    }

    fn buffer(&self, key: &Key, shape: &Arc<P>, counters: &Arc<Counters>) -> Arc<ActorBuffer<A, T, P>> {
        if let Some(buffer) = self.shared.buffers.read().get(key) {
            return buffer.clone();
        }
        let mut buffers = self.shared.buffers.write();
        let made = || {
            Arc::new(ActorBuffer {
                buffer: Buffer::new(self.shared.flow),
                key: key.clone(),
                host: self.shared.host.clone(),
                only: None,
                shape: shape.clone(),
                counters: counters.clone(),
            })
        };
        buffers.entry(key.clone()).or_insert_with(made).clone()
    }

    fn limiter(&self, clock: &Arc<dyn Clock>) -> Option<&Arc<Limiter>> {
        let made = || self.shared.flow.rate().map(|rate| Arc::new(Limiter::new(rate, clock.clone())));
        self.shared.limiter.get_or_init(made).as_ref()
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
        let mut in_line: Option<Waiting> = None;
        if let Some(gate) = &hosted.host().gate {
            match gate.admit(key) {
                Admission::Go(_) => {}
                Admission::Refused(failure) => {
                    count(&counters.refused, 1);
                    return if waits && !gate.drops(&failure) { Err(failure) } else { Ok(None) };
                }
                Admission::Waits(line) if waits => {
                    in_line = Some(Box::pin(async move { line.await.map(|_| ()) }));
                }
                Admission::Waits(_) => {
                    count(&counters.above_rate, 1);
                    return Ok(None);
                }
            }
        }
        let services = &hosted.host().services;
        if let Some(limiter) = self.limiter(&services.clock)
            && limiter.take(key).is_err()
        {
            let Some(place) = limiter.queue(key).filter(|_| waits) else {
                count(&counters.above_rate, 1);
                return if waits { Err(self.overloaded(key)) } else { Ok(None) };
            };
            let (timers, gate) = (services.nodes[0].timers().clone(), in_line.take());
            in_line = Some(Box::pin(async move {
                if let Some(gate) = gate {
                    gate.await?;
                }
                place.turn(|time| timers.sleep_until(timers.now().saturating_add(time))).await;
                Ok(())
            }));
        }
        let buffer = self.buffer(key, shape, counters);
        match in_line {
            None => Ok(buffer.take_in(item)),
            Some(line) => Ok(Some(Box::pin(async move {
                line.await?;
                match buffer.take_in(item) {
                    None => Ok(()),
                    Some(room) => room.await,
                }
            }))),
        }
    }

    /// The line of those who wait for the rate is full.
    fn overloaded(&self, key: &Key) -> Failure {
        let actor = quark_base::ActorId { actor_type: A::SPEC.name, key: key.clone() };
        CallError::Overloaded(Box::new(crate::error::Overloaded { actor, capacity: crate::guards::LINE_MAX }))
    }

    /// Takes several items in, or gives the future that takes the rest.
    pub(crate) fn deliver_all(
        &self,
        hosted: &Arc<Hosted<A>>,
        shape: &Arc<P>,
        counters: &Arc<Counters>,
        key: &Key,
        items: Vec<T>,
    ) -> Result<Option<Waiting>, Failure> {
        if self.limiter(&hosted.host().services.clock).is_none() {
            return Ok(self.buffer(key, shape, counters).take_all_in(items.into()));
        }
        let mut items = items.into_iter();
        let (own, hosted, key) = (self.clone(), hosted.clone(), key.clone());
        let (shape, counters) = (shape.clone(), counters.clone());
        while let Some(item) = items.next() {
            let Some(first) = own.deliver(&hosted, &shape, &counters, &key, item)? else { continue };
            return Ok(Some(Box::pin(async move {
                first.await?;
                for item in items {
                    let waiting = own.deliver(&hosted, &shape, &counters, &key, item)?;
                    if let Some(waiting) = waiting {
                        waiting.await?;
                    }
                }
                Ok(())
            })));
        }
        Ok(None)
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
        if let Some(Some(limiter)) = self.shared.limiter.get() {
            limiter.forget_full();
        }
        let mut buffers = self.shared.buffers.write();
        // Nobody gets another reference while the map is locked.
        buffers.retain(|_, buffer| Arc::strong_count(buffer) > 1 || !buffer.buffer.rests(now));
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> ActorBuffer<A, T, P> {
    /// A buffer for one activation, whose slot this is.
    pub(crate) fn of_activation(
        slot: &Arc<Slot<A>>,
        hosted: &Arc<Hosted<A>>,
        flow: Flow,
        shape: P,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            buffer: Buffer::new(flow),
            key: slot.key.clone(),
            host: Arc::downgrade(hosted),
            only: Some(Arc::downgrade(slot)),
            shape: Arc::new(shape),
            counters,
        })
    }

    pub(crate) fn close(&self) {
        count(&self.counters.lost, self.buffer.close().len());
    }

    pub(crate) fn fill(&self) -> (usize, usize) {
        self.buffer.fill()
    }

    fn now(&self) -> Duration {
        self.host.upgrade().map_or(Duration::ZERO, |host| host.host().services.clock.now())
    }

    pub(crate) fn take_in(self: &Arc<Self>, item: T) -> Option<Waiting> {
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
            match own.buffer.offer_until_taken(item, || own.now()).await {
                Some(true) => own.attend(),
                Some(false) => {}
                None => count(&own.counters.lost, 1),
            }
            Ok(())
        }))
    }

    pub(crate) fn take_all_in(self: &Arc<Self>, mut items: VecDeque<T>) -> Option<Waiting> {
        let offered = self.buffer.offer_all(&mut items, true, || self.now());
        let closed = offered.closed;
        self.note(offered, &items);
        if items.is_empty() || closed {
            return None;
        }
        let own = self.clone();
        Some(Box::pin(async move {
            while !items.is_empty() {
                let offered = own.buffer.offer_more(&mut items, || own.now()).await;
                let closed = offered.closed;
                own.note(offered, &items);
                if closed {
                    break;
                }
            }
            Ok(())
        }))
    }

    fn note(self: &Arc<Self>, offered: OfferedAll<T>, left: &VecDeque<T>) {
        let OfferedAll { attend, dropped, oldest, newest, sampled_out, closed } = offered;
        count(&self.counters.dropped_oldest, oldest);
        count(&self.counters.dropped_newest, newest);
        count(&self.counters.sampled_out, sampled_out);
        if closed {
            count(&self.counters.lost, left.len());
        }
        if attend {
            self.attend();
        }
        drop(dropped);
    }

    /// Sends the message whose turn empties the buffer.
    fn attend(self: &Arc<Self>) {
        let Some(host) = self.host.upgrade() else {
            return count(&self.counters.lost, self.buffer.take_all().len());
        };
        let slot = match &self.only {
            None => host.slot(self.key.as_str()),
            Some(slot) => match slot.upgrade() {
                Some(slot) => slot,
                None => return self.close(),
            },
        };
        slot.touch();
        slot.report_demand();
        self.send(&slot);
    }

    fn send(self: &Arc<Self>, slot: &Arc<Slot<A>>) {
        let delivery = Delivery { buffer: self.clone(), slot: slot.clone() };
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

    /// Whoever emptied the buffer goes; if there is more, another turn will.
    fn go_on(self: &Arc<Self>, slot: &Arc<Slot<A>>, rest: VecDeque<T>) {
        let gone = self.buffer.put_back(rest);
        count(&self.counters.dropped_oldest, gone.len());
        if !self.buffer.stays() {
            return;
        }
        // The slot may have been let go of, and another one be there for the key.
        if slot.word.snapshot().phase() == crate::turn::Phase::Retired { self.attend() } else { self.send(slot) }
    }

    /// What waits cannot be delivered: each of its messages ends as one that was refused in the mailbox does.
    fn lose(&self, slot: &Arc<Slot<A>>, failure: &Failure) {
        let mut items = self.buffer.take_all();
        count(&self.counters.lost, items.len());
        while let Some(message) = self.shape.next(&mut items) {
            if const { A::SPEC.dead_letters.is_some() } {
                Watched::new(slot, message, Past::one_way()).lost(failure);
            } else {
                slot.host.bury_unkept::<P::Message>(&slot.key, &failure.clone().widen());
            }
        }
    }
}

/// The message whose turn empties a buffer.
struct Delivery<A: Actor, T, P> {
    buffer: Arc<ActorBuffer<A, T, P>>,
    slot: Arc<Slot<A>>,
}

/// A turn at work. However it ends, what it took and did not handle goes back, and the next one follows.
struct Serving<A: Actor, T: Send + 'static, P: Shape<A, T>> {
    of: Delivery<A, T, P>,
    items: VecDeque<T>,
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Drop for Serving<A, T, P> {
    fn drop(&mut self) {
        self.of.buffer.go_on(&self.of.slot, std::mem::take(&mut self.items));
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Serving<A, T, P> {
    fn next(&mut self, at_once: usize) -> Option<(usize, P::Message)> {
        let ActorBuffer { buffer, shape, .. } = &*self.of.buffer;
        if self.items.is_empty() {
            buffer.take(at_once * shape.most(), &mut self.items, || self.of.buffer.now());
        }
        let before = self.items.len();
        let message = shape.next(&mut self.items)?;
        Some((before - self.items.len(), message))
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Method<A> for Delivery<A, T, P> {
    type Mode = <P::Message as Method<A>>::Mode;
    type Ok = ();
    type Error = Infallible;
    const INDEX: usize = <P::Message as Method<A>>::INDEX;
    // Each of its messages leaves a letter of its own, so that it needs none.
    const WATCHED: bool = A::SPEC.dead_letters.is_some();

    fn run<'a>(
        self,
        mut actor: <Self::Mode as TurnMode<A>>::Borrow<'a>,
        cx: &'a Cx,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'a {
        async move {
            let mut serving = Serving { of: self, items: VecDeque::new() };
            for ran in 0..PER_TURN {
                // The first shows whether the method waits; then what has not come yet would be fresher.
                let at_once = if ran == 0 { 1 } else { PER_TURN };
                let Some((items, message)) = serving.next(at_once) else { break };
                let slot = serving.of.slot.clone();
                count(&serving.of.buffer.counters.delivered, items);
                let borrow = <Self::Mode as TurnMode<A>>::reborrow(&mut actor);
                let waited = run_one::<A, P::Message>(&slot, message, borrow, cx).await;
                if waited || slot.word.snapshot().wants_close() {
                    break;
                }
            }
            Ok(())
        }
    }

    fn lost(self, failure: &Failure) {
        let Self { buffer, slot } = self;
        if !matches!(failure, CallError::Dropped(_)) {
            return buffer.lose(&slot, failure);
        }
        // It gave way at a full mailbox, where the items still have a place in their buffer.
        let timers = slot.executor().timers().clone();
        slot.executor().handle().spawn(async move {
            timers.sleep_until(timers.now().saturating_add(RETRY)).await;
            buffer.send(&slot);
        });
    }
}

/// Runs one message as a part of the turn. True if it waited.
async fn run_one<'a, A: Actor, M: Method<A>>(
    slot: &Arc<Slot<A>>,
    message: M,
    actor: <M::Mode as TurnMode<A>>::Borrow<'a>,
    cx: &'a Cx,
) -> bool {
    if const { A::SPEC.dead_letters.is_some() } {
        let watched = Watched::new(slot, message, Past::one_way());
        let (_, waited) = noting_waits(watched.run(actor, cx)).await;
        return waited;
    }
    let (answer, waited) = noting_waits(message.run(actor, cx)).await;
    if let Err(error) = answer {
        let (actor_type, method) = (A::SPEC.name, A::METHODS[M::INDEX].name);
        tracing::warn!(actor_type, method, "a stream's item ended in an error");
        slot.host.bury_unkept::<M>(&slot.key, &CallError::Actor(error));
    }
    waited
}

async fn noting_waits<F: Future>(future: F) -> (F::Output, bool) {
    let (mut future, mut waited) = (pin!(future), false);
    let output = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => {
            waited = true;
            Poll::Pending
        }
    })
    .await;
    (output, waited)
}
