//! Words that every layer of Quark shares: byte sizes, actor and silo ids, the clock and entropy ports, and
//! what a fault says about retrying.
//!
//! What does not belong here: I/O, threads, async, and anything that only one layer needs.
//!
//! - [`bytes`]: [`ByteSize`], an amount of memory that reads and prints as people write it
//! - [`id`]: [`Key`], [`ActorId`], [`SiloId`], [`StreamId`]
//! - [`time`]: the [`Clock`] port, the machine's clock behind it, and one that tests move
//! - [`entropy`]: the [`Entropy`] port and a seeded generator
//! - [`fault`]: [`Outcome`] and [`Retry`], what a caller may conclude from an error

pub mod bytes;
pub mod entropy;
pub mod fault;
pub mod id;
pub mod time;

pub use bytes::{ByteSize, ParseByteSizeError};
pub use entropy::{Entropy, Seeded};
pub use fault::{Fault, Outcome, Retry};
pub use id::{ActorId, Key, ParseStreamIdError, SiloId, StreamId};
pub use time::{Clock, MonotonicClock, Passage, Timestamp, VirtualClock, Waiter};
