//! What a store's operation can end in.

use std::sync::Arc;

use quark_base::{ByteSize, Fault, Outcome, Retry};

use super::{Address, Epoch, MessageId, NameError};

/// Why a store did not do what it was asked. No text in it holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Rejected, nothing was written: something that the commit expects is not so. Not to be repeated as it is.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// Rejected, nothing was sent: the server does not answer, or its connections are all in use. Retry later; the
    /// store connects again by itself.
    #[error("store {store} is unavailable: {cause}; retry later")]
    Unavailable {
        /// Which store.
        store: Arc<str>,
        /// What is wrong.
        cause: Box<str>,
    },
    /// Unknown: it was sent, and no answer came. The same commit may be sent again: it takes effect once.
    #[error("store {store} gave no answer: {cause}; what was sent may have been done")]
    Unknown {
        /// Which store.
        store: Arc<str>,
        /// What is wrong.
        cause: Box<str>,
    },
    /// Rejected, nothing was written: the store takes no writes now. Retry later.
    #[error("store {store} is read-only: {cause}; retry when it takes writes again")]
    ReadOnly {
        /// Which store.
        store: Arc<str>,
        /// What it said.
        cause: Box<str>,
    },
    /// Rejected, nothing was written: its disk or memory is full. Retry when there is room again.
    #[error("store {store} is full: {cause}; retry when there is room again")]
    Full {
        /// Which store.
        store: Arc<str>,
        /// What it said.
        cause: Box<str>,
    },
    /// Rejected: it does not know us, or does not let us do this. Pointless until its settings or ours change.
    #[error("store {store} refuses access: {cause}; check user, password and rights")]
    Denied {
        /// Which store.
        store: Arc<str>,
        /// What it said, without the password.
        cause: Box<str>,
    },
    /// Failed: what the store holds is damaged. Pointless until somebody restores it.
    #[error("store {store} is damaged: {cause}; restore it from a backup")]
    Corrupt {
        /// Which store.
        store: Arc<str>,
        /// What it found.
        cause: Box<str>,
    },
    /// Rejected: the store has nothing of an actor that has committed there. It has lost its data, or another
    /// one answers at its address.
    #[error("store {store} has lost what {actor} had committed; restore it, or let the actor begin anew")]
    Lost {
        /// Which store.
        store: Arc<str>,
        /// Whose data is gone.
        actor: Box<Address>,
    },
    /// Rejected, nothing was written: the value is larger than the store takes.
    #[error("{size} are more than store {store} takes for one value ({limit})")]
    TooLarge {
        /// Which store.
        store: Arc<str>,
        /// How large it is.
        size: ByteSize,
        /// The largest.
        limit: ByteSize,
    },
    /// Rejected, nothing was sent: a key or name is one that stores do not take. Pointless.
    #[error("{0}")]
    Name(Box<NameError>),
    /// Failed: the store answered what nobody expects of it, such as a table of another layout. Pointless.
    #[error("store {store} answered unexpectedly: {cause}")]
    Unexpected {
        /// Which store.
        store: Arc<str>,
        /// What it said.
        cause: Box<str>,
    },
}

/// What a commit expected, and what the store has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// Another activation of the actor has committed since this one loaded.
    #[error("another activation of {actor} has committed (epoch {stored})")]
    Fence {
        /// Whose commit.
        actor: Address,
        /// The epoch that the store has.
        stored: Epoch,
    },
    /// The state was written since it was read.
    #[error("state {name} of {actor} was written by somebody else since it was read")]
    Slot {
        /// Whose commit.
        actor: Address,
        /// Which state.
        name: Box<str>,
    },
    /// The journal has another last event than expected.
    #[error("journal {journal} of {actor} ends at event {last}")]
    Journal {
        /// Whose commit.
        actor: Address,
        /// Which journal.
        journal: Box<str>,
        /// The sequence number of its last event.
        last: u64,
    },
    /// The message has taken effect already.
    #[error("{actor} has taken message {message} already")]
    Inbox {
        /// Whose commit.
        actor: Address,
        /// Which message.
        message: MessageId,
    },
}

impl From<Conflict> for StoreError {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(Box::new(conflict))
    }
}

impl From<NameError> for StoreError {
    fn from(error: NameError) -> Self {
        Self::Name(Box::new(error))
    }
}

impl Fault for StoreError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Conflict(_)
            | Self::Unavailable { .. }
            | Self::ReadOnly { .. }
            | Self::Full { .. }
            | Self::Denied { .. }
            | Self::Lost { .. }
            | Self::TooLarge { .. }
            | Self::Name(_) => Outcome::Rejected,
            Self::Unknown { .. } => Outcome::Unknown,
            Self::Corrupt { .. } | Self::Unexpected { .. } => Outcome::Failed,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } | Self::ReadOnly { .. } | Self::Full { .. } => Retry::Safe,
            Self::Unknown { .. } => Retry::IfIdempotent,
            Self::Conflict(_)
            | Self::Denied { .. }
            | Self::Corrupt { .. }
            | Self::Lost { .. }
            | Self::TooLarge { .. }
            | Self::Name(_)
            | Self::Unexpected { .. } => Retry::Pointless,
        }
    }
}
