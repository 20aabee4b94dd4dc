//! Durable streams: namespaces whose items are kept in a store, and survive the silo.
//!
//! A topic becomes durable with [`RuntimeBuilder::durable_stream`](crate::RuntimeBuilder::durable_stream). From then on:
//!
//! - **A publication is in the store when it completes.** It waits for no subscriber.
//! - **Each `#[on_stream]` method that matches is a group** of readers, named `actor type.method`; the silos that host it
//!   share its items. An item is handed over as a turn and acknowledged when that turn has succeeded: **at least once**.
//!   A method that returns an error, panics or cannot be run gets the item again, less and less often; after
//!   [`max_attempts`](DurableStream::max_attempts) the item becomes a dead letter of the actor's type, which names its
//!   stream and position, and is acknowledged. An item that does not decode becomes one at once.
//! - **In order, by key.** A silo hands over an item only when the one before it of the same key is done with. Where a
//!   silo ends half-way, what it had not acknowledged is given to another one after
//!   [`visibility`](DurableStream::visibility), possibly behind items that came later.
//! - **Nothing is dropped for being slow.** A subscriber's flow must be one that keeps everything; how far it is behind
//!   is its lag. Its buffer is the store.
//! - **`cx.message_id()`** names the item, its stream and its group, the same at each delivery, so that a transaction
//!   takes it once. A batch has none, since it may be cut otherwise the next time.
//! - **Subscriptions of programs and of running actors** get what this silo publishes, while it does: they are not kept.
//!
//! - `pump`: what reads the store and hands items over
//! - `admin`: lag, seeking, trimming

mod admin;
mod pump;

use std::any::{Any, TypeId, type_name};
use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use quark_base::{Clock, StreamId, Timestamp};
use tokio::sync::watch;

pub use self::admin::{StreamAdmin, StreamAdminError};
use self::pump::{Command, GroupState, Pump};
use super::Subscriber;
use super::error::PublishError;
use super::registry::Registration;
use super::topic::Topic;
use crate::backoff::Backoff;
use crate::services::Services;
use crate::state::{DecodeError, EncodeError, Stored};
use crate::store::{Encoded, Format, Group, NewItem, ReadStart, Retention, StreamStore};

/// Durable topics that a silo may have. Each takes a task for each of its groups.
pub const DURABLE_STREAMS_MAX: usize = 1_024;

/// A shorter visibility would only have items read again and again while their turns run.
const VISIBILITY_MIN: Duration = Duration::from_millis(10);

/// How often old items are trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// How a durable stream is kept and read.
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until they are handed to `durable_stream`"]
pub struct DurableStream {
    store: Cow<'static, str>,
    format: Format,
    start: ReadStart,
    in_flight: usize,
    visibility: Duration,
    max_attempts: u32,
    backoff: Backoff,
    keep_items: Option<u64>,
    keep_for: Option<Duration>,
    poll: Duration,
}

impl Default for DurableStream {
    fn default() -> Self {
        Self {
            store: Cow::Borrowed("default"),
            format: Format::Json,
            start: ReadStart::Oldest,
            in_flight: 256,
            visibility: Duration::from_secs(30),
            max_attempts: 5,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            keep_items: None,
            keep_for: None,
            poll: Duration::from_millis(100),
        }
    }
}

impl DurableStream {
    /// In the silo's store `"default"`, as JSON; new groups begin at the oldest item.
    pub fn new() -> Self {
        Self::default()
    }

    /// In the silo's store of this name.
    pub fn store(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.store = name.into();
        self
    }

    /// How items are written.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Where a group begins that the store does not know yet.
    pub fn start(mut self, start: ReadStart) -> Self {
        self.start = start;
        self
    }

    /// Items of one group that this silo may hold and not have acknowledged, at least one. Of 256 unless it is said: at
    /// a millisecond of handling and ten of reading and acknowledging, none of them waits for the other.
    pub fn in_flight(mut self, items: usize) -> Self {
        self.in_flight = items.max(1);
        self
    }

    /// After how long an item is given again that was given and not acknowledged, at least 10 ms: 30 s unless it is said.
    /// Longer than a turn takes, with all its attempts; else another silo may be given it, too.
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.visibility = visibility.max(VISIBILITY_MIN);
        self
    }

    /// How often an item is handed over before it becomes a dead letter, at least once: 5 times unless it is said.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// How long to wait before an item that failed is handed over again: from 100 ms up to 10 s unless it is said.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Keeps at most so many items a partition, whether or not all groups have them. All, unless it is said.
    pub fn keep_items(mut self, items: u64) -> Self {
        self.keep_items = Some(items);
        self
    }

    /// Keeps items for so long, whether or not all groups have them. For ever, unless it is said.
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.keep_for = Some(time);
        self
    }

    /// How long a read waits for items that other silos publish: 100 ms unless it is said. What this silo publishes is
    /// read at once.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// The store's name.
    pub(crate) fn store_name(&self) -> &str {
        &self.store
    }

    fn retention(&self, now: Timestamp) -> Option<Retention> {
        let since = self.keep_for.map(|time| now.saturating_sub(time));
        let keep = Retention { items: self.keep_items, since };
        (keep != Retention::default()).then_some(keep)
    }
}

/// A durable topic on its way into a silo.
pub(crate) struct DurableTopic {
    pub(crate) namespace: &'static str,
    pub(crate) item: TypeId,
    pub(crate) item_name: &'static str,
    pub(crate) options: DurableStream,
    open: fn(Opening) -> Arc<dyn AnyLog>,
}

struct Opening {
    namespace: &'static str,
    options: DurableStream,
    store: Arc<dyn StreamStore>,
    clock: Arc<dyn Clock>,
}

impl DurableTopic {
    pub(crate) fn new<T: Stored>(topic: &Topic<T>, options: DurableStream) -> Self {
        Self {
            namespace: topic.namespace(),
            item: TypeId::of::<T>(),
            item_name: type_name::<T>(),
            options,
            open: |opening| Log::<T>::open(opening),
        }
    }

    pub(crate) fn open(&self, store: Arc<dyn StreamStore>, clock: Arc<dyn Clock>) -> Arc<dyn AnyLog> {
        let (namespace, options) = (self.namespace, self.options.clone());
        (self.open)(Opening { namespace, options, store, clock })
    }
}

/// A durable topic of a silo, of whatever item type.
pub(crate) trait AnyLog: Any + Send + Sync {
    fn as_any(&self) -> &(dyn Any + Send + Sync);
    fn item(&self) -> (TypeId, &'static str);
    /// Begins to hand items to a group of readers. False if the registration is none that keeps items.
    fn read_by(self: Arc<Self>, registration: &Arc<Registration>, services: &Arc<Services>) -> bool;
    /// Begins to trim.
    fn keep_trimmed(self: Arc<Self>, services: &Arc<Services>);
    fn groups(&self) -> Vec<Arc<GroupState>>;
    fn store(&self) -> &Arc<dyn StreamStore>;
    /// Somebody of this silo has appended something.
    fn tell(&self);
}

/// A durable topic of items of type `T`.
pub(crate) struct Log<T> {
    namespace: &'static str,
    options: DurableStream,
    store: Arc<dyn StreamStore>,
    clock: Arc<dyn Clock>,
    encode: fn(&T, Format) -> Result<Encoded, EncodeError>,
    decode: fn(&Encoded) -> Result<T, DecodeError>,
    groups: Mutex<Vec<Arc<GroupState>>>,
}

impl<T: Stored> Log<T> {
    fn open(opening: Opening) -> Arc<dyn AnyLog> {
        let Opening { namespace, options, store, clock } = opening;
        Arc::new(Self {
            namespace,
            options,
            store,
            clock,
            encode: T::encode,
            decode: T::decode,
            groups: Mutex::default(),
        })
    }
}

impl<T: 'static> Log<T> {
    /// Items as they are stored.
    pub(crate) fn encode(&self, stream: &StreamId, items: &[T]) -> Result<Vec<NewItem>, PublishError> {
        let time = self.clock.timestamp();
        let encode = |item: &T| {
            let value = (self.encode)(item, self.options.format)
                .map_err(|cause| PublishError::Encode { stream: stream.clone(), cause })?;
            Ok(NewItem { key: stream.key().clone(), time, value })
        };
        items.iter().map(encode).collect()
    }
}

impl<T: Send + Sync + 'static> AnyLog for Log<T> {
    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn item(&self) -> (TypeId, &'static str) {
        (TypeId::of::<T>(), type_name::<T>())
    }

    fn read_by(self: Arc<Self>, registration: &Arc<Registration>, services: &Arc<Services>) -> bool {
        let Some(subscriber) = registration.subscriber.downcast_ref::<Arc<dyn Subscriber<T>>>() else {
            return false;
        };
        let Some(name) = registration.reader.group() else { return false };
        let group = Group { namespace: self.namespace.to_owned(), name };
        let (state, commands) = GroupState::new(group);
        self.groups.lock().push(state.clone());
        let pump = Pump::new(
            self.clone(),
            state,
            commands,
            subscriber.clone(),
            registration.flow.batch_max(),
            services,
        );
        spawn(services, pump.run());
        true
    }

    fn keep_trimmed(self: Arc<Self>, services: &Arc<Services>) {
        if self.options.retention(Timestamp::default()).is_none() {
            return;
        }
        let timers = services.nodes[0].timers().clone();
        spawn(services, async move {
            loop {
                timers.sleep_until(timers.now().saturating_add(TRIM_EVERY)).await;
                let Some(keep) = self.options.retention(self.clock.timestamp()) else { return };
                if let Err(error) = self.store.trim(self.namespace, keep).await {
                    tracing::warn!(namespace = self.namespace, %error, "a durable stream could not be trimmed");
                }
            }
        });
    }

    fn groups(&self) -> Vec<Arc<GroupState>> {
        self.groups.lock().clone()
    }

    fn store(&self) -> &Arc<dyn StreamStore> {
        &self.store
    }

    fn tell(&self) {
        self.groups.lock().iter().for_each(|group| group.tell());
    }
}

/// Appends items to a durable stream. They are in the store when it completes.
pub(crate) async fn append(
    log: &dyn AnyLog,
    stream: &StreamId,
    items: Vec<NewItem>,
) -> Result<(), PublishError> {
    let appended = log.store().append(stream.namespace(), &items).await;
    appended.map_err(|cause| PublishError::Store { stream: stream.clone(), cause: Box::new(cause) })?;
    log.tell();
    Ok(())
}

/// The items of a stream as they are stored.
pub(crate) fn encode<T: 'static>(
    log: &dyn AnyLog,
    stream: &StreamId,
    items: &[T],
) -> Result<Vec<NewItem>, PublishError> {
    let of_type = log.as_any().downcast_ref::<Log<T>>().ok_or_else(|| PublishError::WrongItem {
        stream: stream.clone(),
        carries: log.item().1,
        got: type_name::<T>(),
    })?;
    of_type.encode(stream, items)
}

/// Runs until the silo stops.
fn spawn(services: &Arc<Services>, work: impl Future<Output = ()> + Send + 'static) {
    let mut stopped: watch::Receiver<bool> = services.stop_signal.subscribe();
    services.nodes[0].handle().spawn(async move {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = work => {}
        }
    });
}

/// Why a turn did not succeed.
pub(crate) enum TurnFailed {
    /// It did not begin, for a reason that passes: full mailbox, rate limit, draining.
    NotNow,
    /// It was tried. What a dead letter says of it.
    Tried(crate::dead_letters::DeadCause),
}

/// A turn for items of a durable stream, under way.
pub(crate) type Handling = BoxFuture<'static, Result<(), TurnFailed>>;
