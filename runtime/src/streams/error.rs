//! What publishing and subscribing can end in.

use std::fmt;
use std::sync::Arc;

use quark_base::{Fault, Outcome, ParseStreamIdError, Retry, StreamId};

use crate::error::{CallChain, Failure};
use crate::state::EncodeError;
use crate::store::StoreError;

/// Who reads a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reader {
    /// A method of an actor type.
    Method {
        /// The type's wire name.
        actor_type: &'static str,
        /// The method.
        method: &'static str,
    },
    /// A subscription that the program holds, by the name that it was given.
    Named(Arc<str>),
}

impl Reader {
    /// The name of its group at durable streams. None for what is not kept.
    pub(crate) fn group(&self) -> Option<String> {
        match self {
            Self::Method { actor_type, method } => Some(format!("{actor_type}.{method}")),
            Self::Named(_) => None,
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method { actor_type, .. } => f.write_str(actor_type),
            Self::Named(name) => write!(f, "subscription {name}"),
        }
    }
}

/// Two readers disagree about what a stream carries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream {namespace} carries {first_item} to {first}{} and {second_item} to {second}; \
     give one of them another namespace", as_part_of(.namespace, .first_namespace)
)]
pub struct StreamTypeConflict {
    /// The namespace, or the pattern, of who disagrees.
    pub namespace: &'static str,
    /// That of who was first, which overlaps it.
    pub first_namespace: &'static str,
    /// Who was first.
    pub first: Reader,
    /// Its item type.
    pub first_item: &'static str,
    /// Who disagrees.
    pub second: Reader,
    /// Its item type.
    pub second_item: &'static str,
}

fn as_part_of(namespace: &str, first: &str) -> String {
    if namespace == first { String::new() } else { format!(" (which reads {first})") }
}

/// Why a durable stream cannot be: nothing has started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurableStreamError {
    /// Two settings for one namespace.
    #[error("durable stream {namespace} is set twice; leave one of them out")]
    Twice {
        /// The namespace.
        namespace: &'static str,
    },
    /// There are too many.
    #[error("a silo has at most {max} durable streams; keep more keys in fewer namespaces")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// The silo has no store of the name.
    #[error(
        "durable stream {namespace} is kept in store {store:?}, which the silo does not have; add `.store({store:?}, …)`"
    )]
    NoStore {
        /// The namespace.
        namespace: &'static str,
        /// The store's name.
        store: String,
    },
    /// The store keeps no streams.
    #[error("store {store} keeps no streams; keep durable stream {namespace} in another one")]
    NoStreams {
        /// The namespace.
        namespace: &'static str,
        /// The store.
        store: Arc<str>,
    },
    /// A reader takes another type.
    #[error("durable stream {namespace} carries {item}, but {reader} reads {read}")]
    OtherItem {
        /// The namespace.
        namespace: &'static str,
        /// Its item type.
        item: &'static str,
        /// Who reads something else.
        reader: Reader,
        /// What it reads.
        read: &'static str,
    },
    /// A reader's flow drops items or limits their rate.
    #[error(
        "durable stream {namespace} keeps every item, but {reader} samples, drops or limits them; a method that reads \
         durable streams says nothing of flow, sample or rate"
    )]
    Drops {
        /// The namespace.
        namespace: &'static str,
        /// Whose flow it is.
        reader: Reader,
    },
}

/// Why an item was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Rejected: nobody reads the namespace.
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
    /// Rejected: the key is none that a stream can have.
    #[error(transparent)]
    BadKey(#[from] ParseStreamIdError),
    /// Rejected: the item cannot be written for its durable stream.
    #[error("an item of stream {stream} cannot be stored: {cause}")]
    Encode {
        /// The stream.
        stream: StreamId,
        /// Why not.
        #[source]
        cause: EncodeError,
    },
    /// The store of a durable stream did not take the item; whether it has it all the same, the cause tells.
    #[error("stream {stream}: {cause}")]
    Store {
        /// The stream.
        stream: StreamId,
        /// What the store said.
        #[source]
        cause: Box<StoreError>,
    },
    /// A subscriber has no room for the item, and will have none: it is in a turn that waits for this very publication.
    /// The item was offered to all others, too, and what was published before stays.
    #[error(
        "stream {stream}: {reader} has no room, and makes none while it waits for its own publication: {chain}; publish \
         in a task of its own, lend the actor meanwhile (`cx.lend`) with a buffer for its items, or let its flow drop some"
    )]
    Deadlock {
        /// The stream.
        stream: StreamId,
        /// The subscriber.
        reader: Reader,
        /// The turns that wait for the publication, outermost first, and the subscriber.
        chain: Box<CallChain>,
    },
    /// A subscriber did not take the item, and is the first that did not. It was offered to all others, too.
    #[error("{reader} did not take an item of stream {stream}: {cause}")]
    NotDelivered {
        /// The stream.
        stream: StreamId,
        /// The subscriber.
        reader: Reader,
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
            Self::NobodyReads { .. } | Self::WrongItem { .. } | Self::BadKey(_) | Self::Encode { .. } => {
                Outcome::Rejected
            }
            Self::Store { cause, .. } => cause.outcome(),
            // Another subscriber may have it already.
            Self::Deadlock { .. } => Outcome::Unknown,
            Self::NotDelivered { cause, .. } => match cause.outcome() {
                // Another subscriber may have it already.
                Outcome::Rejected => Outcome::Unknown,
                outcome => outcome,
            },
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::NobodyReads { .. }
            | Self::WrongItem { .. }
            | Self::BadKey(_)
            | Self::Encode { .. }
            | Self::Deadlock { .. } => Retry::Pointless,
            Self::Store { cause, .. } => cause.retry(),
            Self::NotDelivered { .. } => Retry::IfIdempotent,
        }
    }
}

/// Why a subscription was not made. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// Rejected: somebody reads the stream as another type.
    #[error(transparent)]
    Conflict(#[from] Box<StreamTypeConflict>),
    /// Rejected: the silo has as many subscriptions as it may have.
    #[error("the silo has {max} subscriptions already; end one first")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// Rejected: the silo has stopped.
    #[error("the silo has stopped")]
    Stopped,
    /// Rejected: the message is another actor type's. A subscription of an actor calls the actor that made it.
    #[error("{actor} cannot subscribe a {reference}: a subscription calls the actor that made it")]
    OtherActor {
        /// Who is running.
        actor: quark_base::ActorId,
        /// Whose message it would have been.
        reference: &'static str,
    },
}

impl Fault for SubscribeError {
    fn outcome(&self) -> Outcome {
        Outcome::Rejected
    }

    fn retry(&self) -> Retry {
        match self {
            Self::TooMany { .. } => Retry::Safe,
            Self::Conflict(_) | Self::Stopped | Self::OtherActor { .. } => Retry::Pointless,
        }
    }
}
