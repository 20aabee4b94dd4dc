//! What loading and saving can end in.

use quark_base::{ActorId, ByteSize, Fault, Outcome, Retry};

use super::codec::{DecodeError, EncodeError};
use crate::store::StoreError;

/// Why a part of an actor was not loaded or saved. It names the actor and the part; what the actor has in memory is as
/// it was before the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} of {actor}: {cause}")]
pub struct StateError {
    /// Whose.
    pub actor: ActorId,
    /// Which part of it.
    pub part: Part,
    /// What went wrong. Apart, so that the error is small enough to travel.
    pub cause: Box<StateCause>,
}

impl StateError {
    pub(crate) fn new(actor: ActorId, part: Part, cause: impl Into<StateCause>) -> Self {
        Self { actor, part, cause: Box::new(cause.into()) }
    }
}

/// Which part of an actor an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The state of this name.
    State(&'static str),
    /// The journal of this name.
    Journal(&'static str),
    /// Several, written at once.
    Transaction,
    /// All of them.
    Whole,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::State(name) => write!(f, "state {name}"),
            Self::Journal(name) => write!(f, "journal {name}"),
            Self::Transaction => f.write_str("a transaction"),
            Self::Whole => f.write_str("what is stored"),
        }
    }
}

/// The details of [`StateError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateCause {
    /// The store said no, or did not answer. After [`StoreError::Conflict`] and [`StoreError::Unknown`] the activation
    /// ends, and the next one loads what the store has.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Failed: the stored bytes could not be read. They are untouched.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Rejected: the value could not be written as bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Rejected: the value is larger than its part's limit.
    #[error("{size} are more than its limit of {limit}; raise `#[state(max = …)]`, or keep less in it")]
    TooLarge {
        /// How large it is.
        size: ByteSize,
        /// The limit.
        limit: ByteSize,
    },
    /// Rejected: the activation has lost its actor to another one, or does not know what it last wrote. It is about to
    /// end; retry the call.
    #[error("the activation has lost it to another one and ends; retry the call")]
    Superseded,
    /// Rejected: the silo has no store of this name.
    #[error("the silo has no store named {0:?}; add `.store({0:?}, …)` to its builder")]
    NoStore(&'static str),
    /// Rejected: no silo hosts the type that a message is for.
    #[error("no silo hosts actors of type {0}, so nothing can be sent to them")]
    NotHosted(&'static str),
    /// Rejected: the actor was not made by a silo, so it has no store. In a test that calls methods directly, use
    /// `TestSilo`.
    #[error("the actor belongs to no silo, so nothing can be stored")]
    Detached,
    /// Rejected: the parts of one transaction are in several stores, and nothing is atomic across stores.
    #[error("its parts are in stores {0:?} and {1:?}; a transaction writes to one")]
    SeveralStores(&'static str, &'static str),
    /// Rejected: the message has taken effect already; the activation ends, since its memory says otherwise.
    #[error("the message has taken effect already")]
    Duplicate,
}

impl Fault for StateError {
    fn outcome(&self) -> Outcome {
        match &*self.cause {
            StateCause::Store(error) => error.outcome(),
            StateCause::Decode(_) => Outcome::Failed,
            StateCause::Encode(_)
            | StateCause::TooLarge { .. }
            | StateCause::Superseded
            | StateCause::NoStore(_)
            | StateCause::NotHosted(_)
            | StateCause::Detached
            | StateCause::SeveralStores(..)
            | StateCause::Duplicate => Outcome::Rejected,
        }
    }

    fn retry(&self) -> Retry {
        match &*self.cause {
            // Of the method's call, that is: the next activation loads what the winner wrote.
            StateCause::Store(StoreError::Conflict(_)) | StateCause::Superseded => Retry::Safe,
            StateCause::Store(error) => error.retry(),
            _ => Retry::Pointless,
        }
    }
}
