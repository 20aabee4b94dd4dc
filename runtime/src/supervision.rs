//! Supervision: what happens to an actor that fails, and who decides it.
//!
//! An actor becomes a child by `cx.spawn` in a turn or hook of its parent, and stays one for as long as the parent's
//! activation lasts. A child fails when one of its turns panics (calls, tells, timers, stream items) or when it cannot
//! be activated. Its parent's type says what follows, by `#[actor(supervise(…))]` or by an `#[on_child_failure]`
//! function that is given the failure:
//!
//! | directive  | the child                                                                                       |
//! |------------|-------------------------------------------------------------------------------------------------|
//! | `resume`   | goes on with the state it has. A turn that panicked may have left that half-changed: only for   |
//! |            | actors whose every change is one step. One that cannot be activated is restarted instead        |
//! | `restart`  | is dropped and made afresh, in the same slot, with the same device lease and the same mailbox,  |
//! |            | after a backoff; messages wait meanwhile, as many as the mailbox holds                          |
//! | `stop`     | is dropped; what waits and what comes is refused with `Halted`, until the parent spawns it      |
//! |            | again or ends                                                                                   |
//! | `escalate` | is stopped, and the parent has failed in its turn: its own supervisor decides                   |
//!
//! The strategy says whom else it touches: nobody (one-for-one), all of the parent's children (all-for-one), or those
//! spawned after it (rest-for-one). Siblings are not torn, so their `#[on_deactivate]` runs before they go.
//! Restarts are counted per failing child within a window; one too many is an escalation.
//!
//! An actor without a parent is supervised by the silo: by `#[actor(root(…))]` of its own type, or by default as a
//! virtual actor is: dropped, and made afresh at its next message. A failure that escalates out of the tree ends the
//! actor that it reached in that same way, and the log says so.
//!
//! A parent that ends or restarts stops its children, unless its type says `orphans = "keep"`; either way they are
//! nobody's children then. The message whose turn panicked leaves a dead letter if its actor is supervised, also where
//! its caller was told.
//!
//! Deciding is pure: `family` is one parent's children, `registry` all of a silo's. `shell` does what they decide.

mod family;
mod registry;
mod shell;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quark_base::ActorId;

pub use self::family::{ChildState, ChildStatus};
pub use self::registry::SpawnError;
pub(crate) use self::registry::{Supervision, Supervisor};
pub(crate) use self::shell::{
    Next, activated, activation_failed, adopt, children, dismiss, ended, has_live_children, next, refusal,
    restart, supervisor_of, turn_panicked,
};
use crate::backoff::Backoff;
use crate::error::{ActivationError, Panicked};

/// Children that one parent may have. More are a crowd, which stateless workers or plain actors serve better.
pub const CHILDREN_MAX: usize = 10_000;

/// How a parent supervises its children, or the silo an actor without a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuperviseSpec {
    /// Whom a failure touches.
    pub strategy: Strategy,
    /// What follows a panic, or a failure that escalated.
    pub on_panic: Directive,
    /// What follows an activation that failed. `Resume` is `Restart` here: there is nothing to go on with.
    pub on_activation: Directive,
    /// Restarts of one child within `within`; one more escalates.
    pub max_restarts: u32,
    /// The window in which restarts are counted.
    pub within: Duration,
    /// The wait before a restart.
    pub backoff: Backoff,
    /// What becomes of the children when their parent ends.
    pub orphans: Orphans,
}

impl SuperviseSpec {
    /// What holds for a type that declares nothing else. Five restarts with these waits take about three seconds:
    /// what has not come back by then is not a passing trouble.
    pub const DEFAULT: Self = Self {
        strategy: Strategy::OneForOne,
        on_panic: Directive::Restart,
        on_activation: Directive::Restart,
        max_restarts: 5,
        within: Duration::from_secs(60),
        backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
        orphans: Orphans::Stop,
    };

    fn directive(&self, cause: &FailureCause) -> Directive {
        match cause {
            FailureCause::Panicked(_) | FailureCause::Escalated(_) => self.on_panic,
            FailureCause::Activation(_) => self.on_activation,
        }
    }
}

impl Default for SuperviseSpec {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Whom a child's failure touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The child alone.
    OneForOne,
    /// All children of its parent.
    AllForOne,
    /// The child and those spawned after it.
    RestForOne,
}

/// What is to happen to a child that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Directive {
    /// It goes on with the state it has, which its panic may have left half-changed.
    Resume,
    /// It is made afresh in its place, after a backoff.
    Restart,
    /// It is dropped, and refuses calls until its parent spawns it again.
    Stop,
    /// Its parent has failed, too.
    Escalate,
}

/// What becomes of children when their parent ends or restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Orphans {
    /// They are deactivated.
    Stop,
    /// They live on, without a parent.
    Keep,
}

/// A child's failure, for whoever decides what follows.
#[derive(Clone, Debug)]
pub struct ChildFailure {
    /// Who failed.
    pub child: ActorId,
    /// How.
    pub cause: FailureCause,
    /// How often it was restarted within the window so far.
    pub restarts: u32,
}

impl fmt::Display for ChildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            FailureCause::Panicked(details) => {
                write!(f, "{} panicked in {}: {}", self.child, details.method, details.message)
            }
            FailureCause::Activation(error) => error.fmt(f),
            FailureCause::Escalated(inner) => write!(f, "{} could not help it that {inner}", self.child),
        }
    }
}

/// How an actor failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FailureCause {
    /// A turn panicked.
    Panicked(Box<Panicked>),
    /// It could not be activated.
    Activation(Arc<ActivationError>),
    /// A child of its own failed beyond what it can mend.
    Escalated(Box<ChildFailure>),
}

/// An actor that its supervisor stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halted {
    /// Who was called.
    pub actor: ActorId,
    /// Its parent; `None` if the silo supervises it.
    pub by: Option<ActorId>,
    /// The failure that it was stopped for.
    pub because: Arc<str>,
}

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actor, by, because } = self;
        match by {
            Some(parent) => {
                write!(f, "{actor} was stopped by its parent {parent}, which may spawn it again: {because}")
            }
            None => write!(f, "{actor} was stopped by its silo; the next call starts it afresh: {because}"),
        }
    }
}
