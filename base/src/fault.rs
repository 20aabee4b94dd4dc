//! What a caller may conclude from an error.

use std::fmt;

/// What an error says about the work that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing ran; the state is as it was.
    Rejected,
    /// It ran, and said no or broke.
    Failed,
    /// It may have run, wholly or in part.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Rejected => "rejected",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown outcome",
        })
    }
}

/// Whether trying again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call may succeed, and repeating it is safe whatever it does.
    Safe,
    /// The same call may succeed, but it may then have run twice: repeat it only if it is idempotent.
    IfIdempotent,
    /// The same call will fail again until somebody changes something.
    Pointless,
}

/// An error that tells its caller what happened and whether to retry.
pub trait Fault {
    /// What happened to the work.
    fn outcome(&self) -> Outcome;
    /// Whether to try again.
    fn retry(&self) -> Retry;
}
