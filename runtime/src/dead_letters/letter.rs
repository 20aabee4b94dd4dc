//! What a dead letter says.

use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use quark_base::{ActorId, StreamId};

use crate::actor::{Actor, Method};
use crate::error::Failure;
use crate::state::DecodeError;
use crate::store::Position;

/// Text of a message or an error that is kept or shown, in bytes; the rest is cut off. A letter may hold a picture.
const TEXT_MAX: usize = 1_024;

/// A letter's name within its type's queue. It keeps it through its retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub(crate) u64);

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A dead letter as it was when somebody looked.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its name, for [`DeadLetters::replay`](crate::dead_letters::DeadLetters::replay).
    pub id: LetterId,
    /// To whom it was sent.
    pub actor: ActorId,
    /// For which method.
    pub method: &'static str,
    /// Why its last delivery failed.
    pub cause: DeadCause,
    /// How often it was delivered, or tried to be.
    pub attempts: u32,
    /// When it first failed, on the silo's clock.
    pub first_at: Duration,
    /// When it last failed.
    pub last_at: Duration,
    /// When it is sent again by itself.
    pub retry_at: Option<Duration>,
    /// The message's `Debug` text, at most a kilobyte of it. `None` if the message itself was not kept: such a
    /// letter cannot be replayed.
    pub message: Option<Box<str>>,
}

/// Why a message is dead.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DeadCause {
    /// The method ran and returned an error; this is its `Debug` text, at most a kilobyte of it.
    Returned(Box<str>),
    /// What a caller who waited would have heard: panicked, stopped half-way, never begun since the actor could
    /// not be activated or was stopped by its supervisor, and so on. Whether it ran is its
    /// [`outcome`](quark_base::Fault::outcome).
    Call(Failure),
    /// An item of a durable stream that is no value of the stream's type. It is acknowledged; it stays in the stream
    /// until it is trimmed.
    Undecodable {
        /// Its stream.
        stream: StreamId,
        /// Where it stands there.
        position: Position,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// An item of a durable stream that failed as often as it may. It is acknowledged; it stays in the stream until it is
    /// trimmed.
    GivenUp {
        /// Its stream.
        stream: StreamId,
        /// Where it stands there.
        position: Position,
        /// Why it failed last.
        cause: Box<DeadCause>,
    },
}

impl DeadCause {
    pub(crate) fn returned<A: Actor, M: Method<A>>(error: &M::Error) -> Self {
        Self::Returned(cut_text(&fmt::from_fn(|f| M::describe_error(error, f))))
    }
}

impl fmt::Display for DeadCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(error) => write!(f, "it returned an error: {error}"),
            Self::Call(failure) => failure.fmt(f),
            Self::Undecodable { stream, position, error } => {
                write!(f, "item {position} of stream {stream} cannot be read: {error}")
            }
            Self::GivenUp { stream, position, cause } => {
                write!(f, "item {position} of stream {stream} was given up: {cause}")
            }
        }
    }
}

/// The text of `value`, as far as it is kept. Formatting ends where the text is cut, and at a panic of the user's
/// own `Debug`.
pub(super) fn cut_text(value: &dyn fmt::Display) -> Box<str> {
    struct Cut(String);
    impl Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = TEXT_MAX - self.0.len();
            if text.len() <= room {
                self.0.push_str(text);
                return Ok(());
            }
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            Err(fmt::Error)
        }
    }
    let mut cut = Cut(String::new());
    let written = catch_unwind(AssertUnwindSafe(|| write!(cut, "{value}")));
    if !matches!(written, Ok(Ok(()))) {
        cut.0.push('…');
    }
    cut.0.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(&*cut_text(&"short"), "short");
        let cut = cut_text(&fmt::from_fn(|f| (0..).try_for_each(|_| f.write_str("äöü"))));
        assert!(cut.len() <= TEXT_MAX + '…'.len_utf8() && cut.ends_with('…'), "{} bytes", cut.len());
    }
}
