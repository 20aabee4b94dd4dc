//! Why a silo does not start.

use std::io;

use quark_predictive::RuleError;

use crate::actor::PartSpec;
use crate::reminders::ScheduleError;
use crate::streams::{DurableStreamError, StreamTypeConflict};

/// Why a silo did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Two hosted types have one wire name.
    #[error("{first} and {second} are both named {name:?}; give one another #[actor(name = …)]")]
    SameName {
        /// The wire name.
        name: &'static str,
        /// One type.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Guards were set for a type that the silo does not host.
    #[error("guards are set for {rust_type}, which is not hosted; add `.host::<{rust_type}>()`")]
    GuardsWithoutHost {
        /// The type.
        rust_type: &'static str,
    },
    /// An actor type keeps something in a store that the silo does not have.
    #[error("{} is kept in a store named {:?}, and {}; add `.store({:?}, …)`", shown(part), .part.store(),
            listed(known), .part.store())]
    NoStore {
        /// The part that needs it.
        part: PartSpec,
        /// The stores that there are.
        known: Vec<String>,
    },
    /// An actor type keeps its reminders in a store that the silo does not have.
    #[error(
        "the reminders of {actor_type} are kept in a store named {store:?}, and {}; add `.store({store:?}, …)`",
        listed(known)
    )]
    NoReminderStore {
        /// The type's wire name.
        actor_type: &'static str,
        /// The store's name.
        store: &'static str,
        /// The stores that there are.
        known: Vec<String>,
    },
    /// The schedule that an actor type declares for a reminder is none.
    #[error("#[on_reminder({name:?})] on {method} of {actor_type}: {cause}")]
    Reminder {
        /// The type's wire name.
        actor_type: &'static str,
        /// The reminder.
        name: &'static str,
        /// Its method.
        method: &'static str,
        /// What is wrong.
        cause: ScheduleError,
    },
    /// A stream is read as two item types.
    #[error(transparent)]
    Stream(#[from] Box<StreamTypeConflict>),
    /// A durable stream cannot be as it is set up.
    #[error(transparent)]
    DurableStream(#[from] Box<DurableStreamError>),
    /// A `prewarm(…)` rule makes no sense.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// Threads could not be started.
    #[error("the silo's threads could not be started: {0}")]
    Threads(#[source] io::Error),
}

fn shown(part: &PartSpec) -> String {
    match part {
        PartSpec::State(spec) => format!("state {}", spec.name),
        PartSpec::Journal(spec) => format!("journal {}", spec.name),
    }
}

fn listed(known: &[String]) -> String {
    if known.is_empty() {
        "the silo has none".into()
    } else {
        format!("the silo has only {}", known.join(", "))
    }
}
