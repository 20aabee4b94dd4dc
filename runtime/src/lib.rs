//! The actor runtime of one silo: activations, turns, mailboxes, devices, streams, prewarming.
//!
//! What does not belong here: networks, databases, macros, the command line. The runtime talks to the world
//! through ports.
//!
//! - [`actor`], [`actor_ref`], [`call`], [`context`], [`error`]: what users and their macros see
//! - [`turn`]: how a message runs: word, slot, task, executor, loan. All of the runtime's `unsafe`
//! - `activation`, `host`, `services`, `sweep`: how actors come and go, per type and per silo
//! - [`timers`], [`watchdog`]: everything that waits for a moment; turns that do not end
//! - [`dead_letters`], [`backoff`]: what becomes of messages that fail, and when they are tried again
//! - `catalog`, [`pressure`]: which actors a silo has, and which leave first when it has too many
//! - [`coalesce`]: identical calls that become one run
//! - [`workers`]: several actors behind one key
//! - [`guards`]: circuit breaker, rate limit, mailbox bounds
//! - [`supervision`]: children, and what happens to an actor that fails
//! - [`store`]: the ports to what survives a silo; [`state`], [`journal`], [`durable`]: what actors keep there, and
//!   messages that outlive their sender
//! - [`reminders`]: durable timers
//! - [`streams`], `prewarm`: publishing, and activating ahead of the first message
//! - [`metrics`]: the names of what is measured
//! - [`runtime`], [`grid`]: starting and stopping, and the handle on it all

mod activation;
pub mod actor;
pub mod actor_ref;
pub mod backoff;
pub mod call;
mod catalog;
mod chain;
pub mod coalesce;
pub mod context;
pub mod dead_letters;
pub mod durable;
pub mod error;
pub mod grid;
pub mod guards;
mod host;
pub mod intercept;
pub mod journal;
pub mod metrics;
pub mod pressure;
mod prewarm;
pub mod reminders;
pub mod runtime;
mod services;
pub mod state;
pub mod store;
mod stores;
pub mod streams;
pub mod supervision;
mod sweep;
pub mod timers;
pub mod turn;
pub mod watchdog;
pub mod workers;

pub use actor::{Actor, ActorSpec, Create, DeactivationReason, HookError, Method, Methods, ToKey};
pub use actor_ref::ActorRef;
pub use backoff::Backoff;
pub use call::{Ask, Call};
pub use coalesce::SharedCall;
pub use context::{Cx, DeviceAbsent, RequestContext, TraceParent};
pub use dead_letters::{DeadCause, DeadLetter, DeadLetterSpec, DeadLetters, LetterId, ReplayError, Replayed};
pub use error::{ActivationCause, ActivationError, CallChain, CallError};
pub use grid::{Grid, Published};
pub use reminders::{Reminder, ReminderError, ReminderSchedule, Reminders, ScheduleError, Tick};
pub use runtime::{Runtime, RuntimeBuilder, Shutdown, StartError};
pub use stores::StoreStatus;
pub use streams::PublishError;
pub use supervision::{
    ChildFailure, ChildState, ChildStatus, Directive, FailureCause, Halted, Orphans, SpawnError, Strategy,
    SuperviseSpec,
};
pub use timers::{Schedule, Timer, TimerError};
pub use watchdog::{StuckState, StuckTurn};
