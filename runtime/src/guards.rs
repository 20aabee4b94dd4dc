//! What keeps an actor type from being called to death: circuit breaker, rate limit, mailbox bounds.
//!
//! A type declares its guards with `#[actor(…)]`, or the silo's builder sets them in its place. A type without any
//! has no `Gate`, and its calls do not even ask for one on their way. Each guard is one bounded mechanism:
//!
//! | guard       | what it bounds                             | what a caller gets                              |
//! |-------------|--------------------------------------------|-------------------------------------------------|
//! | [`Breaker`] | calls of a type that keeps failing         | `CircuitOpen`, with how long it stays so        |
//! | [`RateLimit`] | calls in a time, by type or by actor     | `RateLimited`, a place in a line, or nothing    |
//! | [`AdaptiveMailbox`] | how long the last message waits    | `Overloaded`                                    |
//! | [`Overflow`] | who gives way at a full mailbox           | `Overloaded`, `Dropped`, or a longer wait       |
//!
//! - `breaker`, `rate`, `capacity`: one state machine each; the time is an argument
//! - `gate`: the shell around the first two, which a call passes on its way in
//! - `overflow`: what happens at a full mailbox

pub(crate) mod breaker;
pub(crate) mod capacity;
pub(crate) mod gate;
pub(crate) mod overflow;
pub(crate) mod rate;

pub(crate) use self::breaker::Pass;
pub use self::breaker::{Breaker, BreakerState, FAILURES_MAX};
pub use self::capacity::AdaptiveMailbox;
pub(crate) use self::capacity::Capacity;
pub(crate) use self::gate::{Admission, Gate, InLine, Outlook};
pub(crate) use self::overflow::Room;
pub use self::overflow::{Overflow, WAITERS_MAX};
pub use self::rate::{LINE_MAX, RateLimit, WhenLimited};

/// What guards an actor type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    pub(crate) breaker: Option<Breaker>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) mailbox: Option<AdaptiveMailbox>,
    pub(crate) overflow: Overflow,
}

impl Guards {
    /// None: a full mailbox rejects, and that is all.
    pub const fn none() -> Self {
        Self { breaker: None, rate_limit: None, mailbox: None, overflow: Overflow::Reject }
    }

    /// Refuses calls for a while when they keep failing.
    pub const fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// Lets only so many calls begin in a time.
    pub const fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// Sizes each mailbox by how fast it drains, instead of by `#[actor(mailbox = …)]`.
    pub const fn mailbox(mut self, bounds: AdaptiveMailbox) -> Self {
        self.mailbox = Some(bounds);
        self
    }

    /// Says who gives way at a full mailbox.
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }
}
