//! What a call can end in.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quark_base::{ActorId, Fault, Outcome, Retry};
use quark_placement::NoDevice;

/// Why a call gave no answer. `E` is the method's own error.
///
/// [`Fault::outcome`] tells *rejected* (nothing ran), *failed* (it ran and said no, or broke) and *unknown*
/// (it may have run) apart; [`Fault::retry`] says whether another try is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The method ran and returned this error.
    #[error("{0}")]
    Actor(E),
    /// Rejected: the actor's mailbox is full. Retry later, or raise `#[actor(mailbox = …)]`.
    #[error("{actor} is overloaded: {capacity} messages wait already; retry later")]
    Overloaded {
        /// Whose mailbox is full.
        actor: ActorId,
        /// How many messages it holds.
        capacity: u32,
    },
    /// Rejected: the silo is shutting down and starts no more activations. Retry at another silo.
    #[error("{actor} was not called: the silo is draining; retry at another silo")]
    Draining {
        /// Who was called.
        actor: ActorId,
    },
    /// Rejected: this silo hosts no such actor type.
    #[error("no silo hosts actors of type {actor_type}; add `.host::<{rust_type}>()` to the silo's builder")]
    NotHosted {
        /// The wire name.
        actor_type: &'static str,
        /// The Rust type's name.
        rust_type: &'static str,
    },
    /// Rejected: no device fits the actor's requirement. It names the requirement and what each device lacked.
    #[error("{0}")]
    NoDevice(Arc<NoDevice>),
    /// Rejected: the actor could not be activated; every waiting caller gets this same error. The method did not
    /// run. The next call tries to activate again.
    #[error("{0}")]
    Activation(Arc<ActivationError>),
    /// Rejected: the call's chain came back to an actor whose turn is waiting for that very chain.
    #[error("deadlock: {0}; let the waiting method lend itself (`cx.lend`), or call it with tell")]
    Deadlock(Box<CallChain>),
    /// The method, or the drop of what it held, panicked. The actor starts afresh at its next message.
    #[error("{actor} panicked in {method}: {message}")]
    Panicked {
        /// Who panicked.
        actor: ActorId,
        /// In which method.
        method: &'static str,
        /// The panic's message.
        message: Box<str>,
    },
    /// The deadline passed. With `started` false the call never ran and was taken out of the queue; with true its
    /// turn goes on without a caller, and what it did is unknown.
    #[error("{actor} did not answer {method} in time ({})", if *.started { "its turn goes on; the outcome is unknown" } else { "it never ran" })]
    Timeout {
        /// Who was called.
        actor: ActorId,
        /// Which method.
        method: &'static str,
        /// Whether the turn had begun.
        started: bool,
    },
    /// Unknown: the silo stopped while the turn was under way.
    #[error("the silo stopped while {actor} was running {method}; the outcome is unknown")]
    Stopped {
        /// Who was called.
        actor: ActorId,
        /// Which method.
        method: &'static str,
    },
}

/// A call's failure where the method's own error cannot occur.
pub type Failure = CallError<Infallible>;

impl CallError<Infallible> {
    /// The same failure, for a method with errors of its own.
    pub fn widen<E>(self) -> CallError<E> {
        match self {
            CallError::Actor(never) => match never {},
            CallError::Overloaded { actor, capacity } => CallError::Overloaded { actor, capacity },
            CallError::Draining { actor } => CallError::Draining { actor },
            CallError::NotHosted { actor_type, rust_type } => CallError::NotHosted { actor_type, rust_type },
            CallError::NoDevice(lacks) => CallError::NoDevice(lacks),
            CallError::Activation(cause) => CallError::Activation(cause),
            CallError::Deadlock(chain) => CallError::Deadlock(chain),
            CallError::Panicked { actor, method, message } => CallError::Panicked { actor, method, message },
            CallError::Timeout { actor, method, started } => CallError::Timeout { actor, method, started },
            CallError::Stopped { actor, method } => CallError::Stopped { actor, method },
        }
    }
}

impl<E> Fault for CallError<E> {
    fn outcome(&self) -> Outcome {
        match self {
            CallError::Actor(_) | CallError::Panicked { .. } => Outcome::Failed,
            CallError::Timeout { started: true, .. } | CallError::Stopped { .. } => Outcome::Unknown,
            CallError::Overloaded { .. }
            | CallError::Draining { .. }
            | CallError::NotHosted { .. }
            | CallError::NoDevice(_)
            | CallError::Activation(_)
            | CallError::Deadlock(_)
            | CallError::Timeout { started: false, .. } => Outcome::Rejected,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            CallError::Overloaded { .. }
            | CallError::Draining { .. }
            | CallError::Activation(_)
            | CallError::Timeout { started: false, .. } => Retry::Safe,
            // Another actor may give its memory back.
            CallError::NoDevice(lacks) if lacks.full_devices().next().is_some() => Retry::Safe,
            CallError::Panicked { .. }
            | CallError::Timeout { started: true, .. }
            | CallError::Stopped { .. } => Retry::IfIdempotent,
            CallError::Actor(_)
            | CallError::NotHosted { .. }
            | CallError::NoDevice(_)
            | CallError::Deadlock(_) => Retry::Pointless,
        }
    }
}

/// The actors that a call came through, outermost first; the last one is the one that was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallChain(pub Vec<ActorId>);

impl fmt::Display for CallChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        for (step, actor) in self.0.iter().enumerate() {
            if self.0.len() > SHOWN && (SHOWN / 2..self.0.len() - SHOWN / 2).contains(&step) {
                if step == SHOWN / 2 {
                    write!(f, " -> … {} more …", self.0.len() - SHOWN)?;
                }
                continue;
            }
            write!(f, "{}{actor}", if step == 0 { "" } else { " -> " })?;
        }
        Ok(())
    }
}

/// Why an actor could not be activated. Nothing is left of the attempt: its device lease is given back.
#[derive(Debug, thiserror::Error)]
#[error("{actor} could not be activated: {cause}")]
pub struct ActivationError {
    /// Who could not be activated.
    pub actor: ActorId,
    /// Why.
    #[source]
    pub cause: ActivationCause,
}

/// What went wrong in an activation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationCause {
    /// The constructor or the `#[on_activate]` method returned this error.
    #[error("{0}")]
    Failed(Box<dyn Error + Send + Sync>),
    /// The constructor or the `#[on_activate]` method panicked.
    #[error("panicked: {0}")]
    Panicked(Box<str>),
    /// It took longer than the type's activation limit and was dropped.
    #[error("took longer than {0:?}; raise `#[actor(activation_limit = …)]` if that is too short")]
    TimedOut(Duration),
    /// No device fits.
    #[error("{0}")]
    NoDevice(Arc<NoDevice>),
    /// The device's memory was promised, but the device could not be opened or the lease not be had.
    #[error("{0}")]
    Lease(Box<dyn Error + Send + Sync>),
    /// The silo stopped.
    #[error("the silo is stopping")]
    Stopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor() -> ActorId {
        ActorId { actor_type: "test.actor", key: "a".into() }
    }

    #[test]
    fn only_what_never_ran_is_safe_to_retry() {
        let overloaded: Failure = CallError::Overloaded { actor: actor(), capacity: 8 };
        assert_eq!((overloaded.outcome(), overloaded.retry()), (Outcome::Rejected, Retry::Safe));
        let late: Failure = CallError::Timeout { actor: actor(), method: "m", started: true };
        assert_eq!((late.outcome(), late.retry()), (Outcome::Unknown, Retry::IfIdempotent));
        let early: Failure = CallError::Timeout { actor: actor(), method: "m", started: false };
        assert_eq!((early.outcome(), early.retry()), (Outcome::Rejected, Retry::Safe));
    }

    #[test]
    fn a_long_chain_prints_its_ends() {
        let chain =
            CallChain((0..100).map(|n| ActorId { actor_type: "t", key: n.to_string().into() }).collect());
        let text = chain.to_string();
        assert!(
            text.starts_with("t/0 -> t/1") && text.ends_with("t/98 -> t/99") && text.contains("88 more"),
            "{text}"
        );
    }
}
