//! Streams of one silo, in memory: who reads which namespace, and how an item gets there.
//!
//! An item published to `namespace/key` is delivered to actor `key` of every type with an
//! `#[on_stream("namespace")]` method, in the order of publication, at most once. A full mailbox makes the
//! publisher wait. A subscriber that refuses an item does not keep it from the others.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};

use quark_base::{ActorId, Fault, Key, Outcome, Retry, StreamId};

use crate::actor::{Actor, Method};
use crate::context::Request;
use crate::error::{CallError, Failure};
use crate::guards::Admission;
use crate::host::Hosted;
use crate::intercept;
use crate::turn::{Blocked, Slot, TaskRef, block};

/// An item that still waits for room in its subscriber's mailbox.
type Waiting = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// A subscriber to items of type `T`: an actor type.
trait Subscriber<T>: Send + Sync {
    /// Delivers at once, or gives the future that does.
    fn deliver(&self, key: &Key, item: T) -> Result<Option<Waiting>, Failure>;
}

/// The implicit subscriptions of one actor type, collected from its `#[on_stream]` methods.
pub struct Subscriptions<A: Actor> {
    host: Weak<Hosted<A>>,
    found: Vec<Subscription>,
}

struct Subscription {
    namespace: &'static str,
    item: TypeId,
    item_name: &'static str,
    actor_type: &'static str,
    /// An `Arc<dyn Subscriber<T>>`.
    subscriber: Box<dyn Any + Send + Sync>,
}

struct Implicit<A: Actor, T, M> {
    host: Weak<Hosted<A>>,
    message: fn(T) -> M,
}

impl<A: Actor> Subscriptions<A> {
    pub(crate) fn new(host: Weak<Hosted<A>>) -> Self {
        Self { host, found: Vec::new() }
    }

    /// Delivers items of `namespace` as the message that `message` makes of them. Written by `#[methods]`.
    pub fn on<T: Send + 'static, M: Method<A>>(&mut self, namespace: &'static str, message: fn(T) -> M) {
        let subscriber: Arc<dyn Subscriber<T>> = Arc::new(Implicit { host: self.host.clone(), message });
        self.found.push(Subscription {
            namespace,
            item: TypeId::of::<T>(),
            item_name: type_name::<T>(),
            actor_type: A::SPEC.name,
            subscriber: Box::new(subscriber),
        });
    }
}

impl<A: Actor, T: Send + 'static, M: Method<A>> Subscriber<T> for Implicit<A, T, M> {
    fn deliver(&self, key: &Key, item: T) -> Result<Option<Waiting>, Failure> {
        let Some(host) = self.host.upgrade() else {
            let actor = ActorId { actor_type: A::SPEC.name, key: key.clone() };
            return Err(CallError::Draining(Box::new(actor)));
        };
        let slot = host.slot(key.as_str());
        let Some(message) = intercept::one_way(&slot, (self.message)(item)) else { return Ok(None) };
        let turn = block::one_way::<A, M>(&slot, message, Request::default());
        let Some(gate) = &slot.host.gate else { return deliver(&slot, turn) };
        match gate.admit(key) {
            Admission::Go(_) => deliver(&slot, turn),
            Admission::Refused(failure) if gate.drops(&failure) => {
                slot.lose(turn, failure);
                Ok(None)
            }
            Admission::Refused(failure) => Err(failure),
            Admission::Waits(line) => Ok(Some(Box::pin(async move {
                line.await?;
                match deliver(&slot, turn)? {
                    Some(room) => room.await,
                    None => Ok(()),
                }
            }))),
        }
    }
}

fn deliver<A: Actor>(slot: &Arc<Slot<A>>, turn: TaskRef) -> Result<Option<Waiting>, Failure> {
    slot.touch();
    slot.report_demand();
    match slot.submit(turn) {
        Ok(()) => Ok(None),
        Err(Blocked::Failed(failure)) => Err(failure),
        Err(Blocked::Full(turn)) => Ok(Some(Box::pin(wait_for_room(slot.clone(), turn)))),
    }
}

async fn wait_for_room<A: Actor>(slot: Arc<Slot<A>>, turn: TaskRef) -> Result<(), Failure> {
    let mut turn = Some(turn);
    let submit = || match slot.submit(turn.take()?) {
        Ok(()) => Some(Ok(())),
        Err(Blocked::Failed(failure)) => Some(Err(failure)),
        Err(Blocked::Full(back)) => {
            turn = Some(back);
            None
        }
    };
    slot.host.wait_for_space(submit).await
}

/// Who reads what. Fixed once the silo has started.
#[derive(Default)]
pub(crate) struct Streams {
    topics: OnceLock<HashMap<&'static str, Topic>>,
}

struct Topic {
    item: TypeId,
    item_name: &'static str,
    subscriptions: Vec<Subscription>,
}

/// Two actor types disagree about what a stream carries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream {namespace} carries {first_item} to {first_type} and {second_item} to {second_type}; \
     give one of them another namespace"
)]
pub struct StreamTypeConflict {
    /// The namespace.
    pub namespace: &'static str,
    /// Who was first, and what it takes.
    pub first_type: &'static str,
    /// Its item type.
    pub first_item: &'static str,
    /// Who disagrees, and what it takes.
    pub second_type: &'static str,
    /// Its item type.
    pub second_item: &'static str,
}

impl Streams {
    /// Adds the subscriptions of all hosted types.
    pub(crate) fn open(&self, all: Vec<Found>) -> Result<(), StreamTypeConflict> {
        let mut topics: HashMap<&'static str, Topic> = HashMap::new();
        for Found(subscription) in all {
            let Subscription { namespace, item, item_name, .. } = subscription;
            let topic = topics.entry(namespace).or_insert_with(|| Topic {
                item,
                item_name,
                subscriptions: Vec::new(),
            });
            if let (true, Some(first)) = (topic.item != item, topic.subscriptions.first()) {
                return Err(StreamTypeConflict {
                    namespace,
                    first_type: first.actor_type,
                    first_item: topic.item_name,
                    second_type: subscription.actor_type,
                    second_item: item_name,
                });
            }
            topic.subscriptions.push(subscription);
        }
        // A second opening would find the same; the first one stands.
        self.topics.get_or_init(|| topics);
        Ok(())
    }

    fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.topics.get().into_iter().flat_map(|topics| topics.keys().copied()).collect();
        names.sort_unstable();
        names
    }

    /// Hands `item` to every subscriber, whether or not another one refuses it. `watched` says that somebody reads
    /// the stream for prewarming, so that an item without a subscriber is no mistake.
    pub(crate) fn deliver<T: Clone + Send + 'static>(
        &self,
        stream: &StreamId,
        item: T,
        watched: bool,
    ) -> Result<Delivery, PublishError> {
        let Some(topic) = self.topics.get().and_then(|topics| topics.get(stream.namespace())) else {
            if watched {
                return Ok(Delivery::default());
            }
            return Err(PublishError::NobodyReads { stream: stream.clone(), read: self.names() });
        };
        if topic.item != TypeId::of::<T>() {
            return Err(PublishError::WrongItem {
                stream: stream.clone(),
                carries: topic.item_name,
                got: type_name::<T>(),
            });
        }
        let mut delivery = Delivery { subscribers: topic.subscriptions.len(), ..Delivery::default() };
        let mut item = Some(item);
        let last = topic.subscriptions.len() - 1;
        for (index, subscription) in topic.subscriptions.iter().enumerate() {
            let Some(subscriber) = subscription.subscriber.downcast_ref::<Arc<dyn Subscriber<T>>>() else {
                continue;
            };
            let Some(item) = (if index == last { item.take() } else { item.clone() }) else { continue };
            match subscriber.deliver(stream.key(), item) {
                Ok(None) => {}
                Ok(Some(room)) => delivery.waiting.push((subscription.actor_type, room)),
                Err(cause) => {
                    delivery.refused.get_or_insert((subscription.actor_type, cause));
                }
            }
        }
        Ok(delivery)
    }
}

/// One publication on its way.
#[derive(Default)]
pub(crate) struct Delivery {
    subscribers: usize,
    /// The subscribers whose mailboxes have no room yet.
    waiting: Vec<(&'static str, Waiting)>,
    /// The first subscriber that refused, and why.
    refused: Option<(&'static str, Failure)>,
}

impl Delivery {
    /// Waits until each subscriber has the item or has refused it; gives their number, or the first refusal.
    pub(crate) async fn complete(mut self, stream: &StreamId) -> Result<usize, PublishError> {
        for (actor_type, room) in self.waiting {
            if let Err(cause) = room.await {
                self.refused.get_or_insert((actor_type, cause));
            }
        }
        match self.refused {
            None => Ok(self.subscribers),
            Some((actor_type, cause)) => {
                Err(PublishError::NotDelivered { stream: stream.clone(), actor_type, cause: Box::new(cause) })
            }
        }
    }
}

/// One subscription, on its way into [`Streams::open`].
pub(crate) struct Found(Subscription);

impl<A: Actor> Subscriptions<A> {
    pub(crate) fn into_found(self) -> Vec<Found> {
        self.found.into_iter().map(Found).collect()
    }
}

/// Why an item was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Rejected: no hosted actor type reads the namespace.
    #[error(
        "nobody reads stream {stream}; host an actor with #[on_stream(\"{}\")]{}",
        .stream.namespace(), also(.read)
    )]
    NobodyReads {
        /// The stream.
        stream: StreamId,
        /// The namespaces that are read.
        read: Vec<&'static str>,
    },
    /// Rejected: the stream carries another type.
    #[error("stream {stream} carries {carries}, not {got}")]
    WrongItem {
        /// The stream.
        stream: StreamId,
        /// Its item type.
        carries: &'static str,
        /// The published type.
        got: &'static str,
    },
    /// A subscriber did not take the item, and is the first that did not. It was offered to all others, too.
    #[error("{actor_type} did not take an item of stream {stream}: {cause}")]
    NotDelivered {
        /// The stream.
        stream: StreamId,
        /// The subscriber.
        actor_type: &'static str,
        /// Why not.
        #[source]
        cause: Box<Failure>,
    },
}

fn also(read: &[&'static str]) -> String {
    if read.is_empty() { String::new() } else { format!(" (these are read: {})", read.join(", ")) }
}

impl Fault for PublishError {
    fn outcome(&self) -> Outcome {
        match self {
            PublishError::NobodyReads { .. } | PublishError::WrongItem { .. } => Outcome::Rejected,
            PublishError::NotDelivered { cause, .. } => match cause.outcome() {
                // Another subscriber may have it already.
                Outcome::Rejected => Outcome::Unknown,
                outcome => outcome,
            },
        }
    }

    fn retry(&self) -> Retry {
        match self {
            PublishError::NobodyReads { .. } | PublishError::WrongItem { .. } => Retry::Pointless,
            PublishError::NotDelivered { .. } => Retry::IfIdempotent,
        }
    }
}
