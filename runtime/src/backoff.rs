//! How long to wait before the next try.

use std::time::Duration;

/// Waits that double from try to try, between two bounds, each shortened by chance.
///
/// The wait before try `n` lies between half of `first * 2^n` and all of it, and never above `max`. The fixed half
/// gives what failed its time to recover, the random half keeps those who failed together from coming back
/// together ("equal jitter"; M. Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait, before jitter. Zero: never wait.
    pub first: Duration,
    /// No wait is longer.
    pub max: Duration,
}

impl Backoff {
    /// No wait at all.
    pub const NONE: Self = Self { first: Duration::ZERO, max: Duration::ZERO };

    /// From `first`, doubling up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The wait before try `attempt`, counted from 0. `random` is the chance in it.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let doubled = 2_u32.checked_pow(attempt).and_then(|factor| self.first.checked_mul(factor));
        let full = doubled.unwrap_or(self.max).min(self.max);
        // The upper half of 64 random bits, as a share of the half that is up to chance.
        let share = (random >> 32) as f64 / f64::from(u32::MAX);
        full / 2 + (full / 2).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));

    #[test]
    fn waits_double_up_to_the_bound() {
        let longest = |attempt| BACKOFF.delay(attempt, u64::MAX);
        assert_eq!(longest(0), Duration::from_millis(100));
        assert_eq!(longest(3), Duration::from_millis(800));
        assert_eq!(longest(9), Duration::from_secs(30));
        assert_eq!(longest(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn without_a_first_wait_there_is_none() {
        assert_eq!(Backoff::NONE.delay(7, u64::MAX), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_wait_is_between_half_and_all_of_its_step(attempt in 0_u32..100, random: u64) {
            let full = BACKOFF.delay(attempt, u64::MAX);
            let wait = BACKOFF.delay(attempt, random);
            prop_assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
    }
}
