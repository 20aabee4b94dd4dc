//! Subscriptions that a program holds: a buffer that it reads.

use std::any::{TypeId, type_name};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::task::AtomicWaker;
use quark_base::{ActorId, Clock, Key, StreamId};

use super::buffer::{Buffer, Counters, Offered, count};
use super::error::{Reader, SubscribeError};
use super::flow::Flow;
use super::pattern::Pattern;
use super::registry::{Registration, RegistrationId};
use super::report::{BufferFill, Reported};
use super::throttle::{Pace, Throttle};
use super::topic::Source;
use super::{Subscriber, Waiting};
use crate::actor::ToKey;
use crate::error::Failure;
use crate::grid::Grid;
use crate::services::Services;

/// How a program subscribes.
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until they are handed to `subscribe`"]
pub struct SubscribeOptions {
    flow: Flow,
    key: Option<Key>,
    name: Option<Arc<str>>,
}

impl SubscribeOptions {
    /// All streams of the topic, through a buffer of [`BUFFER`](super::BUFFER) items; a full one makes publishers wait.
    pub fn new() -> Self {
        Self::default()
    }

    /// How its items flow. Sample, rate and buffer hold for the subscription as a whole.
    pub fn flow(mut self, flow: Flow) -> Self {
        self.flow = flow;
        self
    }

    /// Only the stream of this key. Of several [`Topics`](super::Topics), it holds for each.
    pub fn key(mut self, key: impl ToKey) -> Self {
        self.key = Some(key.with_key(|key| Key::from(key)));
        self
    }

    /// What it is called in reports and errors.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// An item, and the stream that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<T> {
    /// Where it was published.
    pub stream: StreamId,
    /// What was published.
    pub item: T,
}

/// A subscription that the program reads. It is also a [`Stream`] of [`Incoming`] items. Dropping it ends it; what waits
/// then is lost.
pub struct Subscription<T> {
    queue: Arc<ReaderQueue<T>>,
    id: RegistrationId,
    services: Weak<Services>,
}

struct ReaderQueue<T> {
    buffer: Buffer<Incoming<T>>,
    key: Option<Key>,
    reader: AtomicWaker,
    counters: Counters,
    clock: Arc<dyn Clock>,
    throttle: Throttle,
    name: Arc<str>,
}

impl Grid {
    /// Subscribes to a topic, or to several, from outside of actors: items published from now on come out of the
    /// [`Subscription`].
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing has changed.
    pub fn subscribe<S>(
        &self,
        source: S,
        options: SubscribeOptions,
    ) -> Result<Subscription<S::Item>, SubscribeError>
    where
        S: Source<Item: Send + 'static>,
    {
        let services = self.services().ok_or(SubscribeError::Stopped)?;
        let SubscribeOptions { flow, key, name } = options;
        let name = name.unwrap_or_else(|| source.pattern().into());
        let who = ActorId { actor_type: "subscription", key: Key::from(name.clone()) };
        let throttle = Throttle::new(&flow, &services.clock, services.nodes[0].timers(), who);
        let queue = Arc::new(ReaderQueue {
            buffer: Buffer::new(flow),
            key: key.clone(),
            reader: AtomicWaker::new(),
            counters: Counters::default(),
            clock: services.clock.clone(),
            throttle,
            name: name.clone(),
        });
        let pattern = Pattern::unchecked(source.pattern());
        let subscriber: Arc<dyn Subscriber<S::Item>> = Arc::new(Feed(queue.clone()));
        let id = services.streams.register(Registration {
            // A reader of one key of several topics looks at the key itself.
            key: key.filter(|_| pattern.is_exact()),
            pattern,
            item: TypeId::of::<S::Item>(),
            item_name: type_name::<S::Item>(),
            reader: Reader::Named(name),
            is_implicit: false,
            flow,
            subscriber: Arc::new(subscriber),
            reported: queue.clone(),
        })?;
        Ok(Subscription { queue, id, services: Arc::downgrade(services) })
    }
}

impl<T> Subscription<T> {
    /// The next item. None once the silo has stopped and everything that waited was read.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Incoming<T>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next items, up to `most`, as many as wait, behind those in `items`; and how many. Waits for the first. Zero
    /// once the silo has stopped and everything was read, or if `most` is zero.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv_many(&mut self, items: &mut Vec<Incoming<T>>, most: usize) -> usize {
        if most == 0 {
            return 0;
        }
        let mut taken = VecDeque::new();
        poll_fn(|cx| self.queue.poll_take(cx, most, &mut taken)).await;
        let count = taken.len();
        items.extend(taken);
        count
    }

    /// The next item if one waits.
    pub fn try_recv(&mut self) -> Option<Incoming<T>> {
        let mut taken = VecDeque::new();
        self.queue.take(1, &mut taken);
        taken.pop_front()
    }

    /// As [`recv`](Self::recv), for a future of one's own.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming<T>>> {
        let mut taken = VecDeque::new();
        self.queue.poll_take(cx, 1, &mut taken).map(|()| taken.pop_front())
    }
}

impl<T> Stream for Subscription<T> {
    type Item = Incoming<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming<T>>> {
        self.poll_recv(cx)
    }
}

// Nothing of it is pinned.
impl<T> Unpin for Subscription<T> {}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let left = self.queue.buffer.close();
        count(&self.queue.counters.lost, left.len());
        let gone = self.services.upgrade().and_then(|services| services.streams.remove(self.id));
        drop((left, gone));
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("name", &self.queue.name).finish_non_exhaustive()
    }
}

impl<T> ReaderQueue<T> {
    fn take(&self, most: usize, taken: &mut VecDeque<Incoming<T>>) {
        self.buffer.take(most, taken);
        count(&self.counters.delivered, taken.len());
    }

    fn poll_take(&self, cx: &mut Context<'_>, most: usize, taken: &mut VecDeque<Incoming<T>>) -> Poll<()> {
        loop {
            self.take(most, taken);
            if !taken.is_empty() {
                return Poll::Ready(());
            }
            self.reader.register(cx.waker());
            // Read before the last look: what was taken in before the end is found.
            let closed = self.buffer.is_closed();
            if !self.buffer.stays() {
                return if closed { Poll::Ready(()) } else { Poll::Pending };
            }
        }
    }

    fn attend(&self, attend: bool) {
        if attend {
            self.reader.wake();
        }
    }
}

impl<T: Send + 'static> ReaderQueue<T> {
    fn take_in(self: &Arc<Self>, item: Incoming<T>) -> Option<Waiting> {
        match self.buffer.offer(item, || self.clock.now()) {
            Offered::Taken { attend } => self.attend(attend),
            Offered::Replaced { oldest, attend } => {
                count(&self.counters.dropped_oldest, 1);
                self.attend(attend);
                drop(oldest);
            }
            Offered::DroppedNewest(_) => count(&self.counters.dropped_newest, 1),
            Offered::SampledOut(_) => count(&self.counters.sampled_out, 1),
            Offered::Closed(_) => count(&self.counters.lost, 1),
            Offered::Full(item) => {
                let own = self.clone();
                return Some(Box::pin(async move {
                    // Whoever reads it is no turn that could be waiting for this one.
                    match own.buffer.offer_until_taken(item, || own.clock.now(), || Ok(None)).await? {
                        Some(attend) => own.attend(attend),
                        None => count(&own.counters.lost, 1),
                    }
                    Ok(())
                }));
            }
        }
        None
    }

    /// Takes an item in at the subscription's rate, or gives the future that does.
    fn take_in_at_rate(self: &Arc<Self>, item: Incoming<T>) -> Result<Option<Waiting>, Failure> {
        match self.throttle.pace() {
            Pace::Now => Ok(self.take_in(item)),
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
                    match own.take_in(item) {
                        None => Ok(()),
                        Some(room) => room.await,
                    }
                })))
            }
        }
    }
}

/// What publications know of a queue.
struct Feed<T>(Arc<ReaderQueue<T>>);

impl<T: Send + 'static> Subscriber<T> for Feed<T> {
    fn deliver(&self, stream: &StreamId, item: T) -> Result<Option<Waiting>, Failure> {
        if self.0.key.as_ref().is_some_and(|key| key != stream.key()) {
            return Ok(None);
        }
        let item = Incoming { stream: stream.clone(), item };
        self.0.take_in_at_rate(item)
    }

    fn deliver_all(&self, stream: &StreamId, items: Vec<T>) -> Result<Option<Waiting>, Failure> {
        if self.0.key.as_ref().is_some_and(|key| key != stream.key()) {
            return Ok(None);
        }
        if !self.0.throttle.is_off() {
            let (own, stream) = (self.0.clone(), stream.clone());
            return Ok(Some(Box::pin(async move {
                for item in items {
                    let item = Incoming { stream: stream.clone(), item };
                    let waiting = own.take_in_at_rate(item)?;
                    if let Some(waiting) = waiting {
                        waiting.await?;
                    }
                }
                Ok(())
            })));
        }
        let mut items: VecDeque<_> =
            items.into_iter().map(|item| Incoming { stream: stream.clone(), item }).collect();
        let offered = self.0.buffer.offer_all(&mut items, true, || self.0.clock.now());
        let closed = self.0.counters.note(&offered, items.len());
        self.0.attend(offered.attend);
        if items.is_empty() || closed {
            return Ok(None);
        }
        let own = self.0.clone();
        Ok(Some(Box::pin(async move {
            while !items.is_empty() {
                let offered = own.buffer.offer_more(&mut items, || own.clock.now(), || Ok(None)).await?;
                let closed = own.counters.note(&offered, items.len());
                own.attend(offered.attend);
                if closed {
                    break;
                }
            }
            Ok(())
        })))
    }
}

impl<T: Send> Reported for ReaderQueue<T> {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn fill(&self) -> BufferFill {
        let (used, capacity) = self.buffer.fill();
        let mut fill = BufferFill::default();
        fill.add(used, capacity);
        fill
    }

    fn end(&self) {
        self.buffer.end();
        self.reader.wake();
    }
}
