//! The watchdog: names turns that do not end.
//!
//! Nothing can end a poll that does not return, and a turn that waits may be right to do so. So the watchdog does not
//! judge: the sweep, which looks at every actor with a turn anyway, writes a warning for each turn older than its type's
//! `turn_limit`, once more whenever its age has doubled, and `Grid::stuck_turns` lists them. Calls pay nothing for it:
//!
//! - A turn that *waits* is in its slot's list of pending turns, since a known tick and by its method's name.
//! - A turn that *is being polled*, and has been since before its first poll ended, is not in that list. Its slot shows
//!   that somebody holds the actor, and the tick of its last use; if an executor's worker polls it, since when that
//!   worker has not come back. Its method is not known. One of several `&self` turns on an actor whose other turns go on
//!   is not noticed: each of them is a use.

use std::fmt;
use std::time::Duration;

use quark_base::ActorId;

use crate::services::TICK;

/// Age from which a turn is worth a warning, for a type that names none. Ten times what a user waits for a page.
pub(crate) const TURN_LIMIT: Duration = Duration::from_secs(30);

/// Stuck turns that one list names. A silo with more has one cause for them all.
pub const STUCK_LISTED_MAX: usize = 1_000;

/// A turn that has lasted for longer than its type's `turn_limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckTurn {
    /// Whose turn.
    pub actor: ActorId,
    /// Which method; not known of a turn whose first poll has not returned.
    pub method: Option<&'static str>,
    /// Since when, to within some ticks of 50 ms.
    pub age: Duration,
    /// What it is doing.
    pub state: StuckState,
}

/// What a turn is doing that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StuckState {
    /// It waits for something, and keeps no thread.
    Waits,
    /// It is being polled: it computes or blocks, and keeps a thread.
    Polls,
}

impl fmt::Display for StuckState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waits => "waits",
            Self::Polls => "keeps its thread",
        })
    }
}

impl StuckTurn {
    pub(crate) fn warn(&self) {
        let Self { actor, method, age, state } = self;
        tracing::warn!(%actor, method = method.unwrap_or("(unknown)"), ?age, %state, "a turn does not end");
    }
}

/// When a turn was last warned of, as its age in ticks; zero before the first time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Warned(u32);

impl Warned {
    /// The age at which the next warning is due.
    pub(crate) fn next(self, limit: u32) -> u32 {
        if self.0 == 0 { limit } else { self.0.saturating_mul(2) }
    }

    /// Whether a turn of this age is due for a warning; then it has been given.
    pub(crate) fn is_due(&mut self, age: u32, limit: u32) -> bool {
        let due = age >= self.next(limit);
        if due {
            self.0 = age.max(1);
        }
        due
    }
}

/// A limit or an age, in ticks.
pub(crate) fn ticks(duration: Duration) -> u32 {
    (duration.as_millis() / TICK.as_millis()).clamp(1, u32::MAX.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_come_at_the_limit_and_then_at_twice_the_age() {
        let mut warned = Warned::default();
        let given: Vec<u32> = (0..1_000).filter(|&age| warned.is_due(age, 100)).collect();
        assert_eq!(given, [100, 200, 400, 800]);
    }

    #[test]
    fn a_look_that_comes_late_doubles_from_there() {
        let mut warned = Warned::default();
        assert!(warned.is_due(300, 100) && !warned.is_due(599, 100) && warned.is_due(600, 100));
    }
}
