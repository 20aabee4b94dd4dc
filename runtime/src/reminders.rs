//! Reminders: durable timers, which outlive their actor's activation and every silo.
//!
//! An actor type names its reminders by methods with `#[on_reminder("name")]`. A reminder is set for one actor, by the
//! actor itself ([`Cx::remind`](crate::Cx::remind)) or from outside ([`Grid::reminders`](crate::Grid::reminders)), and
//! stands in a store until it is forgotten or has ticked for the last time. Its tick is a turn of that method; the actor
//! is activated for it.
//!
//! - **At least once.** The store is told of a tick after the actor has taken it. A tick whose turn fails, or whose actor
//!   cannot be activated, is tried again, less and less often, until it is taken. One whose silo ends in between comes
//!   again. [`Tick::id`], which is also [`Cx::message_id`](crate::Cx::message_id), is the same each time, so that a
//!   [`Transaction`](crate::state::Transaction) of the turn takes effect exactly once.
//! - **Late once.** The next moment is computed from the schedule and never from the last tick. Of moments that pass while
//!   nobody delivers, the first is ticked, and says how many more were missed.
//! - **As it was set.** A reminder that is set anew while its tick is under way stays as it was set.
//! - **By the time of day.** A clock that is set forward makes what it skips late; one that is set back ticks nothing
//!   twice.
//!
//! One service for each store (`service`) owns a part of the hash ring ([`RingOwnership`]), looks at the store each
//! [`LOOK_EVERY`], and reads [`HORIZON`] ahead, so that a tick does not wait for the store. What another silo sets or
//! forgets takes effect at the next look; a tick that has been read ahead may come meanwhile. Ticks that fail, however
//! many, make no others late.
//!
//! - `schedule`, `cron`: when a reminder ticks, pure
//! - `held`: what a service has in hand, pure
//! - `look`: which page of the store is read next, pure
//! - `service`: the shell that reads, delivers and moves on
//! - `handle`: setting, forgetting, listing
//! - `methods`: a type's `#[on_reminder]` methods

pub(crate) mod bell;
mod cron;
mod error;
mod handle;
mod held;
mod look;
mod methods;
mod ownership;
mod schedule;
mod service;

use std::sync::Arc;
use std::time::Duration;

use quark_base::Timestamp;

use crate::store::{MessageId, ReminderRecord};

pub use self::error::{ReminderError, ScheduleError};
pub use self::handle::{Reminder, Reminders};
pub use self::look::{HORIZON, LOOK_EVERY};
pub(crate) use self::methods::any_declared;
pub use self::methods::{DeclaredSchedule, ReminderMethods, ReminderSpec};
pub use self::ownership::{RingOwnership, WholeRing, point};
pub use self::schedule::{MISSED_COUNTED_MAX, PERIOD_MIN, ReminderSchedule};
pub(crate) use self::service::Service;

/// The longest name of a reminder, in bytes, so that it fits into an index and into a message's id.
pub const NAME_MAX: usize = 128;

/// The store of a type that names none.
pub const DEFAULT_STORE: &str = "default";

/// One tick of a reminder: the argument of a method with `#[on_reminder]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The reminder's name.
    pub name: Arc<str>,
    /// When it was due. The tick may be late.
    pub due: Timestamp,
    /// Further moments of the schedule that passed before this tick, and have no tick of their own. Counted up to
    /// [`MISSED_COUNTED_MAX`] for a cron line.
    pub missed: u32,
    /// The same at each delivery of this tick, and of no other.
    pub id: MessageId,
}

impl Tick {
    /// The tick that a stored reminder is due for. None if its name is too long, which no silo sets.
    pub(crate) fn of(record: &ReminderRecord, missed: u32) -> Option<Self> {
        let ReminderRecord { name, due, version, .. } = record;
        let id = (name.len() <= NAME_MAX).then(|| format!("reminder:{name}@{}.{version:x}", due.0))?;
        Some(Self { name: name.as_str().into(), due: *due, missed, id: MessageId::new(id)? })
    }

    /// How late it is at `now`.
    pub fn lateness(&self, now: Timestamp) -> Duration {
        now.since(self.due)
    }
}
