//! The clock port. Deciding code takes `now` as an argument; only shells hold a clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A source of monotonic time.
///
/// An implementation MUST never go backwards, and MUST count from one fixed origin for as long as it lives.
pub trait Clock: Send + Sync + 'static {
    /// Time since the clock's origin.
    fn now(&self) -> Duration;
}

/// The machine's monotonic clock, counted from when this value was made.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock that begins now.
    #[expect(clippy::new_without_default, reason = "its origin is a side effect, not a default")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}
