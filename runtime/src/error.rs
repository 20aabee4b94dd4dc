//! What a call can end in.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quark_base::{ActorId, Fault, Outcome, Retry};
use quark_placement::NoDevice;

use crate::actor::ActorSpec;
use crate::guards::Overflow;
use crate::reminders::ReminderError;
use crate::state::StateError;
use crate::supervision::Halted;

/// Why a call gave no answer. `E` is the method's own error.
///
/// [`Fault::outcome`] tells *rejected* (nothing ran), *failed* (it ran and said no, or broke) and *unknown*
/// (it may have run) apart; [`Fault::retry`] says whether another try is safe.
///
/// It is two words where `E` is one: a call's answer travels in registers, and a failure's details wait behind a
/// pointer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The method ran and returned this error.
    #[error("{0}")]
    Actor(E),
    /// Rejected: the actor's mailbox is full. Retry later, or raise `#[actor(mailbox = …)]`.
    #[error("{} is overloaded: {} messages wait already; retry later", .0.actor, .0.capacity)]
    Overloaded(Box<Overloaded>),
    /// Rejected: the message gave way to another one at a full mailbox, as the type's overflow policy says.
    #[error("{} dropped a message, since its mailbox was full ({}); retry later", .0.actor, .0.policy)]
    Dropped(Box<Dropped>),
    /// Rejected: the type's rate limit has no allowance left. Retry after the time it names.
    #[error("{} was not called: its rate limit is used up; retry after {:?}", .0.actor, .0.retry_after)]
    RateLimited(Box<RateLimited>),
    /// Rejected: calls of the type kept failing, so its circuit breaker is open. Retry after the time it names.
    #[error("{} was not called: its type kept failing; retry after {:?}", .0.actor, .0.retry_after)]
    CircuitOpen(Box<CircuitOpen>),
    /// Rejected: the silo is shutting down and starts no more activations. Retry at another silo.
    #[error("{0} was not called: the silo is draining; retry at another silo")]
    Draining(Box<ActorId>),
    /// Rejected: this silo hosts no such actor type.
    #[error(
        "no silo hosts actors of type {}; add `.host::<{}>()` to the silo's builder", .0.name, .0.rust_type
    )]
    NotHosted(&'static ActorSpec),
    /// Rejected: no device fits the actor's requirement. It names the requirement and what each device lacked.
    #[error("{0}")]
    NoDevice(Arc<NoDevice>),
    /// Rejected: the actor could not be activated; every waiting caller gets this same error. The method did not
    /// run. The next call tries to activate again.
    #[error("{0}")]
    Activation(Arc<ActivationError>),
    /// Rejected: the actor failed, and its supervisor stopped it. Its parent may spawn it again; an actor without
    /// a parent starts afresh at the next call.
    #[error("{0}")]
    Halted(Box<Halted>),
    /// Rejected: the call's chain came back to an actor whose turn is waiting for that very chain.
    #[error("deadlock: {0}; let the waiting method lend itself (`cx.lend`), or call it with tell")]
    Deadlock(Box<CallChain>),
    /// The method, or the drop of what it held, panicked. The actor starts afresh at its next message.
    #[error("{} panicked in {}: {}", .0.actor, .0.method, .0.message)]
    Panicked(Box<Panicked>),
    /// The deadline passed. If the turn had not begun, the call never ran and was taken out of the queue; else
    /// the turn goes on without a caller, and what it did is unknown.
    #[error("{} did not answer {} in time ({})", .0.actor, .0.method, .0.state())]
    Timeout(Box<Timeout>),
    /// The activation ends, since its memory does not follow its store any more: another one committed first, and what
    /// the method wanted to save was not saved; or a commit's answer is missing, and what the turn saved is unknown.
    /// What the method did elsewhere stands. The next call finds an activation that has loaded what is stored.
    #[error("{} could not go on in {}: {}", .0.actor, .0.method, .0.state())]
    Superseded(Box<Superseded>),
    /// Unknown: the turn was ended half-way, since the silo stopped or another turn's panic tore the actor.
    #[error("{} while {} was running {}; the outcome is unknown", .0.cause, .0.actor, .0.method)]
    Stopped(Box<Stopped>),
}

/// The details of [`CallError::Overloaded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overloaded {
    /// Whose mailbox is full.
    pub actor: ActorId,
    /// How many messages it holds.
    pub capacity: u32,
}

/// The details of [`CallError::Dropped`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Whose mailbox was full.
    pub actor: ActorId,
    /// Why it was this message.
    pub policy: Overflow,
}

/// The details of [`CallError::RateLimited`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// Who was called.
    pub actor: ActorId,
    /// When there will be an allowance again, if nobody else takes it.
    pub retry_after: Duration,
}

/// The details of [`CallError::CircuitOpen`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitOpen {
    /// Who was called.
    pub actor: ActorId,
    /// When the type will be tried again.
    pub retry_after: Duration,
}

/// The details of [`CallError::Panicked`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    /// Who panicked.
    pub actor: ActorId,
    /// In which method.
    pub method: &'static str,
    /// The panic's message.
    pub message: Box<str>,
}

/// The details of [`CallError::Timeout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// Who was called.
    pub actor: ActorId,
    /// Which method.
    pub method: &'static str,
    /// Whether the turn had begun.
    pub started: bool,
}

impl Timeout {
    fn state(&self) -> &'static str {
        if self.started { "its turn goes on; the outcome is unknown" } else { "it never ran" }
    }
}

/// The details of [`CallError::Stopped`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Who was called.
    pub actor: ActorId,
    /// Which method.
    pub method: &'static str,
    /// What ended the turn.
    pub cause: StopCause,
}

/// The details of [`CallError::Superseded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// Who was called.
    pub actor: ActorId,
    /// Which method.
    pub method: &'static str,
    /// Whether what the turn wanted to save is stored: yes, if the message that it ran for took effect before; `None`
    /// if that is unknown.
    pub is_written: Option<bool>,
}

impl Superseded {
    fn state(&self) -> &'static str {
        match self.is_written {
            None => "the store did not answer, so it is unknown what is saved; retry if that does no harm",
            Some(true) => "the message had taken effect before",
            Some(false) => "another activation was first, and what it wanted to save was not saved; retry",
        }
    }
}

/// What ended a turn half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StopCause {
    /// The silo stopped. Retry at another one.
    Silo = 1,
    /// Another turn on the same actor panicked, so its state may be torn. The next message finds a fresh actor.
    Torn = 2,
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silo => "the silo stopped",
            Self::Torn => "another turn panicked",
        })
    }
}

/// A call's failure where the method's own error cannot occur.
pub type Failure = CallError<Infallible>;

// The hot path's return value; see the type's docs.
const _: () = assert!(size_of::<Result<u64, Failure>>() <= 16);

impl CallError<Infallible> {
    /// The same failure, for a method with errors of its own.
    pub fn widen<E>(self) -> CallError<E> {
        match self {
            CallError::Actor(never) => match never {},
            CallError::Overloaded(details) => CallError::Overloaded(details),
            CallError::Dropped(details) => CallError::Dropped(details),
            CallError::RateLimited(details) => CallError::RateLimited(details),
            CallError::CircuitOpen(details) => CallError::CircuitOpen(details),
            CallError::Draining(actor) => CallError::Draining(actor),
            CallError::NotHosted(spec) => CallError::NotHosted(spec),
            CallError::NoDevice(lacks) => CallError::NoDevice(lacks),
            CallError::Activation(cause) => CallError::Activation(cause),
            CallError::Halted(details) => CallError::Halted(details),
            CallError::Deadlock(chain) => CallError::Deadlock(chain),
            CallError::Panicked(details) => CallError::Panicked(details),
            CallError::Timeout(details) => CallError::Timeout(details),
            CallError::Superseded(details) => CallError::Superseded(details),
            CallError::Stopped(details) => CallError::Stopped(details),
        }
    }
}

impl<E> CallError<E> {
    /// Whether the call was a message that had taken effect before: there is nothing more to do for it.
    pub(crate) fn is_taken_already(&self) -> bool {
        matches!(self, CallError::Superseded(details) if details.is_written == Some(true))
    }

    /// The same failure without the method's own error; `None` if it is that.
    pub fn as_failure(&self) -> Option<Failure> {
        Some(match self {
            CallError::Actor(_) => return None,
            CallError::Overloaded(details) => CallError::Overloaded(details.clone()),
            CallError::Dropped(details) => CallError::Dropped(details.clone()),
            CallError::RateLimited(details) => CallError::RateLimited(details.clone()),
            CallError::CircuitOpen(details) => CallError::CircuitOpen(details.clone()),
            CallError::Draining(actor) => CallError::Draining(actor.clone()),
            CallError::NotHosted(spec) => CallError::NotHosted(spec),
            CallError::NoDevice(lacks) => CallError::NoDevice(lacks.clone()),
            CallError::Activation(cause) => CallError::Activation(cause.clone()),
            CallError::Halted(details) => CallError::Halted(details.clone()),
            CallError::Deadlock(chain) => CallError::Deadlock(chain.clone()),
            CallError::Panicked(details) => CallError::Panicked(details.clone()),
            CallError::Timeout(details) => CallError::Timeout(details.clone()),
            CallError::Superseded(details) => CallError::Superseded(details.clone()),
            CallError::Stopped(details) => CallError::Stopped(details.clone()),
        })
    }

    /// How long to wait before another try, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            CallError::RateLimited(details) => Some(details.retry_after),
            CallError::CircuitOpen(details) => Some(details.retry_after),
            _ => None,
        }
    }
}

impl<E> Fault for CallError<E> {
    fn outcome(&self) -> Outcome {
        match self {
            CallError::Superseded(details) if details.is_written.is_none() => Outcome::Unknown,
            CallError::Actor(_) | CallError::Panicked(_) | CallError::Superseded(_) => Outcome::Failed,
            CallError::Timeout(timeout) if timeout.started => Outcome::Unknown,
            CallError::Stopped(_) => Outcome::Unknown,
            CallError::Overloaded(_)
            | CallError::Dropped(_)
            | CallError::RateLimited(_)
            | CallError::CircuitOpen(_)
            | CallError::Draining(_)
            | CallError::NotHosted(_)
            | CallError::NoDevice(_)
            | CallError::Activation(_)
            | CallError::Halted(_)
            | CallError::Deadlock(_)
            | CallError::Timeout(_) => Outcome::Rejected,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            CallError::Timeout(timeout) if timeout.started => Retry::IfIdempotent,
            CallError::Superseded(details) if details.is_written == Some(true) => Retry::Pointless,
            CallError::Overloaded(_)
            | CallError::Dropped(_)
            | CallError::RateLimited(_)
            | CallError::CircuitOpen(_)
            | CallError::Draining(_)
            | CallError::Activation(_)
            | CallError::Timeout(_) => Retry::Safe,
            // Without a parent nobody has to spawn it first.
            CallError::Halted(halted) if halted.by.is_none() => Retry::Safe,
            // Another actor may give its memory back.
            CallError::NoDevice(lacks) if lacks.full_devices().next().is_some() => Retry::Safe,
            CallError::Panicked(_) | CallError::Superseded(_) | CallError::Stopped(_) => Retry::IfIdempotent,
            CallError::Actor(_)
            | CallError::NotHosted(_)
            | CallError::NoDevice(_)
            | CallError::Halted(_)
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
    /// What is stored of it could not be loaded.
    #[error("{0}")]
    State(StateError),
    /// The reminders that its type declares could not be set.
    #[error("its reminders could not be set: {0}")]
    Reminders(ReminderError),
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
        let overloaded: Failure = CallError::Overloaded(Box::new(Overloaded { actor: actor(), capacity: 8 }));
        assert_eq!((overloaded.outcome(), overloaded.retry()), (Outcome::Rejected, Retry::Safe));
        let late: Failure =
            CallError::Timeout(Box::new(Timeout { actor: actor(), method: "m", started: true }));
        assert_eq!((late.outcome(), late.retry()), (Outcome::Unknown, Retry::IfIdempotent));
        let early: Failure =
            CallError::Timeout(Box::new(Timeout { actor: actor(), method: "m", started: false }));
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
