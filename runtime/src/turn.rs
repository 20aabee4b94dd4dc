//! The turn: how a message runs on an actor.
//!
//! A call to a local actor takes the activation's word, writes the method's future into a pooled
//! block and polls it once on the caller's thread. If that ends the turn, nothing was allocated and
//! nobody was woken. Otherwise the block belongs to the activation from then on, its executor drives it, and
//! the caller waits on the block's reply. A call that does not get the word waits in the slot's mailbox.
//!
//! What holds, whatever happens:
//! - Exclusive turns (`&mut self`) run alone; shared turns (`&self`) run together.
//! - Messages that wait begin in the order they came, and no inline caller overtakes one.
//! - A turn that has begun is polled to its end even if its caller goes away.
//! - A call whose caller goes away before its turn began never runs. It keeps its place in the mailbox, and counts
//!   against the bound, until an executor comes to it.
//! - A panic ends its turn only; the actor is made afresh before its next message.
//! - A chain of calls that comes back to an actor which waits for it is refused at once, unless the waiting
//!   turn shares or lends the actor.

pub(crate) mod block;
mod cell;
mod executor;
mod lanes;
mod lend;
pub(crate) mod local;
mod lock;
mod mailbox;
#[cfg(all(test, quark_loom))]
mod models;
mod resident;
mod slot;
pub(crate) mod sync;
mod task;
mod visit;
mod word;

pub(crate) use block::{Inline, Ticket, run_inline};
pub(crate) use cell::{Apart, ScopeRef};
pub use cell::{Exclusive, Shared, TurnMode};
pub(crate) use executor::{Executor, Item};
pub use lend::Lend;
pub(crate) use mailbox::Mailbox;
pub(crate) use resident::Resident;
pub(crate) use slot::{AnySlot, Blocked, Slot};
pub(crate) use task::{Hold, Polled, TaskRef};
pub(crate) use word::Phase;

/// Inline turns that may be polled on top of each other on one stack; deeper calls go through the queue. An
/// inline turn's frames take some 500 bytes and the methods' own on top of it; 32 of them stay well inside the
/// 2 MiB stack of a tokio worker even if each method keeps 16 KiB there.
pub(crate) const INLINE_DEPTH_MAX: u32 = 32;

/// Messages that one visit of the executor takes from one mailbox before others get their turn.
pub(crate) const BATCH: usize = 64;
