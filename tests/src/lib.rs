//! What the behavioural tests share. The tests themselves stand in `tests/tests/`, by topic.
//!
//! What belongs here: ways to wait without sleeping, a clock that a test moves, silos that are alike on every
//! machine. What does not: actors, which each topic defines for itself.
//!
//! - [`wait`]: hang guards, gates, conditions
//! - [`silo`]: silos on simulated machines

pub mod silo;
pub mod wait;

pub use quark::base::VirtualClock as TestClock;
pub use silo::{builder, builder_on, topology};
pub use wait::{Gate, on_both_runtimes, on_threads, soon, until};
