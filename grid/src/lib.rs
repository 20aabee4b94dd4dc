//! Quark: virtual actors that know the hardware they run on.
//!
//! Write a plain struct with `async fn` methods; Quark activates it on its first call, runs its methods in turns,
//! gives it the device it declared, and warms it before the first message where a stream announces one.
//!
//! ```
//! use quark::prelude::*;
//!
//! #[derive(Actor)]
//! struct Counter {
//!     count: u64,
//! }
//!
//! #[methods]
//! impl Counter {
//!     pub async fn add(&mut self, amount: u64) -> u64 {
//!         self.count += amount;
//!         self.count
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let silo = Silo::builder().host::<Counter>().start()?;
//! let grid = silo.grid();
//! grid.actor::<Counter>("visits").add(2).await?;
//! assert_eq!(grid.actor::<Counter>("visits").add(3).await?, 5);
//! silo.shutdown(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! What belongs in this crate: the composition root and the names that users import. What does not: logic.
//!
//! - [`prelude`]: what most programs import
//! - [`silo`]: [`Silo`] and its builder, where devices and runtime meet
//! - [`devices`], [`placement`], [`predictive`], [`runtime`], [`profiling`]: the layers, for those who need one
//! - [`macro_support`]: what the macros expand to

pub mod silo;

pub use quark_base as base;
pub use quark_devices as devices;
pub use quark_placement as placement;
pub use quark_predictive as predictive;
pub use quark_profiling as profiling;
pub use quark_runtime as runtime;
pub use quark_storage as storage;

pub use anyhow::{Error, Result};
pub use quark_base::{ActorId, ByteSize, Fault, Key, Outcome, Retry, SiloId, StreamId};
pub use quark_macros::{Actor, Stored, methods};
pub use quark_runtime::actor::{self, Actor};
pub use quark_runtime::guards;
pub use quark_runtime::journal::{self, Folded, Journal};
pub use quark_runtime::reminders;
pub use quark_runtime::state::{self, State, StateCause, StateError, Stored, Transaction};
pub use quark_runtime::store::{self, MessageId, Store};
pub use quark_runtime::streams::{self, Topic, Topics};
pub use quark_runtime::{
    ActivationCause, ActivationError, Call, CallChain, CallError, ChildFailure, ChildState, ChildStatus, Cx,
    DeactivationReason, DeadCause, DeadLetter, DeadLetters, DeviceAbsent, Directive, FailureCause, Grid,
    Halted, PublishError, Published, Reminder, ReminderError, ReminderSchedule, Reminders, ReplayError,
    Replayed, RequestContext, Schedule, ScheduleError, SharedCall, Shutdown, SpawnError, StuckState,
    StuckTurn, Tick, Timer, TimerError, TraceParent,
};
pub use silo::{Silo, SiloBuilder, StartError};

/// A duration in milliseconds.
pub const fn ms(milliseconds: u64) -> std::time::Duration {
    std::time::Duration::from_millis(milliseconds)
}

/// What most programs import.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::{
        Actor, ByteSize, CallError, Cx, DeactivationReason, Fault, Folded, Grid, Journal, Key,
        ReminderSchedule, Result, Silo, State, StateError, Stored, StreamId, Tick, Topic, Topics, methods,
        ms,
    };
}

/// What the macros expand to. Not for other use; it changes with them.
#[doc(hidden)]
pub mod macro_support {
    pub use quark_base::ByteSize;
    pub use quark_placement::{GpuNeed, NumaPreference};
    pub use quark_runtime::actor::{
        Actor, ActorSpec, Create, DeactivationReason, HookError, Message, Method, MethodSpec, Methods,
        PartSpec, PrewarmSpec, Reference, ResultLike, Unfailing,
    };
    pub use quark_runtime::coalesce::{Answerable, Coalesced, Comparable};
    pub use quark_runtime::dead_letters::{
        CannotCopy, CannotShow, Copies, DeadLetterSpec, IsCopied, NotCopied, Shown,
    };
    pub use quark_runtime::durable::{self, DurableMessage, DurableMethods, Storable};
    pub use quark_runtime::guards::{AdaptiveMailbox, Breaker, Guards, Overflow, RateLimit, WhenLimited};
    pub use quark_runtime::journal::JournalSpec;
    pub use quark_runtime::reminders::{DeclaredSchedule, ReminderMethods, ReminderSpec, Tick};
    pub use quark_runtime::state::{DecodeError, EncodeError, Kept, StateSpec, Stored, codec};
    pub use quark_runtime::store::{Encoded, Format};
    pub use quark_runtime::streams::{Flow, Subscriptions, Topics};
    pub use quark_runtime::supervision::{ChildFailure, Directive, Orphans, Strategy, SuperviseSpec};
    pub use quark_runtime::turn::{Exclusive, Shared, TurnMode};
    pub use quark_runtime::workers::Workers;
    pub use quark_runtime::{ActorRef, Backoff, Call, Cx, SharedCall};
}

/// The README's code is compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
