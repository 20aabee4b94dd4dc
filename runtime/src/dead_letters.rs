//! Dead letters: messages that reached nobody, or whose turn failed, kept for somebody to look at and send again.
//!
//! Each actor type has a bounded queue of them. A one-way message (a tell, a stream's item, a timer's tick) comes
//! here when it was dropped before its turn, when its turn panicked or was ended half-way, and when its method
//! returned an error. An ask does not: its caller was told. Two exceptions: the panic of a supervised actor is
//! recorded whoever sent the message, and a type with `dead_letters(asks)` keeps asks that ran and broke as well.
//!
//! Every type's letters say what happened, to whom and when. The message itself is there only where the type says
//! `#[actor(dead_letters(…))]`: it is moved in whole if its turn never began, and kept as a copy beside the turn
//! otherwise, which is why the arguments of such a type are `Clone`. A method opts out with `#[no_dead_letters]`.
//! Types that declare nothing pay nothing.
//!
//! ```text
//! tell --> mailbox --> turn --> over
//!             |          |
//!             v          v        retry: its backoff is over (one-way letters only), or by hand
//!           dead letter queue  ------------------------------------------------------> mailbox
//!             |
//!             v  full: the oldest goes, counted
//! ```
//!
//! A retry is the same message to the same method of the same actor, sent one-way. It is off the queue while it is
//! under way, and back with one attempt more if it fails again; after the last automatic try it stays for
//! inspection.
//!
//! - `letter`: what a letter says; `queue`: the pure queue; `watch`: the message that is not lost
//! - `fields`: what a message's fields can do; `handle`: [`DeadLetters`], the way to it all

mod fields;
mod handle;
mod letter;
mod queue;
mod watch;

use std::time::Duration;

use quark_base::Key;

pub use self::fields::{CannotCopy, CannotShow, Copies, IsCopied, NotCopied, Shown};
pub(crate) use self::handle::retry_due;
pub use self::handle::{DeadLetters, ReplayError, Replayed};
pub use self::letter::{DeadCause, DeadLetter, LetterId};
pub(crate) use self::queue::{Past, Queue};
pub(crate) use self::watch::{Stored, Watched, bury};
use crate::actor::{Actor, Method};
use crate::backoff::Backoff;
use crate::error::CallError;
use crate::host::Host;

/// What a type declared with `dead_letters(…)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterSpec {
    /// Letters that are kept; the oldest goes when one more comes.
    pub max: u32,
    /// How often a one-way letter is sent again by itself.
    pub retries: u32,
    /// How long it waits before each time.
    pub backoff: Backoff,
    /// Whether one-way messages whose method returned an error are kept.
    pub errors: bool,
    /// Whether asks that ran and broke are kept as well. They are never sent again by themselves: their callers
    /// were told, and may have done so.
    pub asks: bool,
}

impl DeadLetterSpec {
    /// Letters that are kept of a type that says nothing else: enough to see a pattern in a failure, and at some
    /// hundred bytes each not much.
    pub const MAX: u32 = 1_000;
    /// Waits between tries of a type that says nothing else. The first is two ticks of the silo's clock.
    pub const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    /// What holds for a type that declares nothing.
    pub const DEFAULT: Self =
        Self { max: Self::MAX, retries: 0, backoff: Self::BACKOFF, errors: true, asks: false };
}

impl Default for DeadLetterSpec {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Letters that one look at the clock sends again, per type: a burst of retries must not hold up the sweep. What
/// is left is sent at the next tick.
const RETRIES_PER_TICK: usize = 256;

impl<A: Actor> Host<A> {
    pub(crate) fn dead_letter_spec(&self) -> DeadLetterSpec {
        self.spec.dead_letters.unwrap_or_default()
    }

    /// Takes in what has become of a message.
    pub(crate) fn bury(
        &self,
        key: &Key,
        method: &'static str,
        cause: DeadCause,
        past: Past,
        message: Option<Box<dyn Stored<A>>>,
    ) {
        let services = &self.services;
        let (now, random) = (services.clock.now(), services.entropy.next_u64());
        let gone = self.dead_letters.lock().bury(key.clone(), method, cause, past, message, now, random);
        gone.into_iter().for_each(handle::drop_message);
    }

    /// The same for a one-way message whose type keeps no messages; `ended` is what its caller would have heard.
    pub(crate) fn bury_unkept<M: Method<A>>(&self, key: &Key, ended: &CallError<M::Error>) {
        let cause = match ended {
            CallError::Actor(error) => DeadCause::returned::<A, M>(error),
            other => match other.as_failure() {
                Some(failure) => DeadCause::Call(failure),
                None => return,
            },
        };
        self.bury(key, A::METHODS[M::INDEX].name, cause, Past::one_way(), None);
    }
}
