//! Streams of one silo, in memory: who reads which namespace, and how an item gets there.
//!
//! An item published to `namespace/key` is delivered to
//!
//! - actor `key` of every type with an `#[on_stream("namespace")]` method, or one of a [pattern](Topics) or a [`Topic`]
//!   that matches the namespace;
//! - every actor that has subscribed to it at run time ([`Cx::subscribe`](crate::Cx::subscribe)), until it is
//!   deactivated;
//! - every [`Subscription`] that the program holds.
//!
//! ## What holds
//!
//! - **At most once.** An item that was taken and not handled when its silo ends is gone; [`DurableStream`]s keep theirs in
//!   a store until they were handled.
//! - **In order.** What one publisher publishes to one stream, one after another, each subscriber gets in that order.
//!   Drop policies leave gaps, never another order.
//! - **One item type.** Readers whose namespaces overlap agree about the item's type, or the silo does not start.
//! - **A refusal by one subscriber does not keep an item from the others.**
//! - **A slow subscriber slows nobody unless told to.** Where it has a buffer ([`Flow`]), a publisher waits for it only if
//!   its flow is `wait`, and only when everybody else has the item. Without any flow it is told to: items wait in the
//!   actor's mailbox, and a full one makes the publisher wait.
//! - **A publisher never waits for itself.** Where its own call chain holds the subscriber, the chain's turns empty the
//!   subscriber's buffer if the actor is shared or lent; else the publication ends in
//!   [`Deadlock`](PublishError::Deadlock) at once.
//! - **Bounded.** What waits is bounded by the mailbox or the buffer, and by the publishers that wait, with one item or
//!   one batch each.
//!
//! ## Modules
//!
//! - `pattern`, `topic`, `flow`: what a subscription says; `flow` and `buffer` hold the policies
//! - `registry`: from a namespace to its readers
//! - `implicit`, `own`: subscriptions of actor types, and of actors; `buffered`, `delivery`, `throttle`: how their items
//!   wait and are handed over
//! - `publisher`, `reader`: publishing to a topic, and reading it from outside of actors
//! - `durable`: streams that a store keeps
//! - [`window`]: items gathered by time or by number; `late`: those that come too late, for reports
//! - `report`, `error`: what is told about them

mod buffer;
mod buffered;
mod delivery;
mod durable;
mod error;
mod flow;
mod implicit;
mod late;
mod own;
mod pattern;
mod publisher;
mod reader;
mod registry;
mod report;
mod throttle;
mod topic;
pub mod window;

use std::future::Future;
use std::pin::Pin;

use futures_util::future::join_all;
use quark_base::{Key, StreamId};

use self::durable::Handling;
pub(crate) use self::durable::{AnyLog, DurableTopic, append, encode};
pub use self::durable::{DURABLE_STREAMS_MAX, DurableStream, StreamAdmin, StreamAdminError};
pub use self::error::{DurableStreamError, PublishError, Reader, StreamTypeConflict, SubscribeError};
pub use self::flow::{BUFFER, Flow, WhenFull};
pub use self::implicit::Subscriptions;
pub(crate) use self::own::OwnSubscriptions;
pub use self::own::{ACTOR_SUBSCRIPTIONS_MAX, ActorSubscription};
pub use self::publisher::Publisher;
pub use self::reader::{Incoming, SubscribeOptions, Subscription};
pub use self::registry::SUBSCRIPTIONS_MAX;
pub(crate) use self::registry::{Registration, Streams};
pub use self::report::{BufferFill, Drops, GroupReport, SubscriptionReport};
pub use self::topic::{Source, Topic, Topics};
use crate::dead_letters::DeadCause;
use crate::error::{CallError, Failure};
use crate::store::MessageId;

/// An item that still waits for room at its subscriber.
type Waiting = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// A subscriber to items of type `T`.
trait Subscriber<T>: Send + Sync {
    /// Delivers at once, or gives the future that does.
    fn deliver(&self, stream: &StreamId, item: T) -> Result<Option<Waiting>, Failure>;

    /// The same for several items of a stream, in their order.
    fn deliver_all(&self, stream: &StreamId, items: Vec<T>) -> Result<Option<Waiting>, Failure>;

    /// Runs one turn for items of a durable stream, and tells how it ends. None once nobody is there to run it.
    fn handle(&self, _key: &Key, _items: Vec<T>, _id: Option<MessageId>) -> Option<Handling> {
        None
    }

    /// An item of a durable stream is given up; none if it could not even be read.
    fn bury(&self, _key: &Key, _item: Option<T>, _cause: DeadCause, _attempts: u32) {}
}

/// One publication on its way.
#[derive(Default)]
pub(crate) struct Delivery {
    subscribers: usize,
    /// The subscribers that have no room yet.
    waiting: Vec<(Reader, Waiting)>,
    /// The first subscriber that refused, and why.
    refused: Option<(Reader, Failure)>,
}

impl Delivery {
    /// Waits until each subscriber has the item or has refused it; gives their number, or the first refusal.
    pub(crate) async fn complete(self, stream: &StreamId) -> Result<usize, PublishError> {
        if self.waiting.is_empty() && self.refused.is_none() {
            return Ok(self.subscribers);
        }
        self.complete_slowly(stream).await
    }

    async fn complete_slowly(mut self, stream: &StreamId) -> Result<usize, PublishError> {
        // Together: who has room need not wait for who has none.
        let waiting = self.waiting.into_iter().map(|(reader, room)| async { (reader, room.await) });
        for (reader, outcome) in join_all(waiting).await {
            if let Err(cause) = outcome {
                self.refused.get_or_insert((reader, cause));
            }
        }
        match self.refused {
            None => Ok(self.subscribers),
            Some((reader, CallError::Deadlock(chain))) => {
                Err(PublishError::Deadlock { stream: stream.clone(), reader, chain })
            }
            Some((reader, cause)) => {
                Err(PublishError::NotDelivered { stream: stream.clone(), reader, cause: Box::new(cause) })
            }
        }
    }
}
