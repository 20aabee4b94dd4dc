//! How many messages a mailbox should hold: as many as it drains in the time that they may wait.
//!
//! By Little's law the last of `n` messages waits `n` times what one takes. The limit follows what is measured by
//! additive increase and multiplicative decrease, which converges and is fair among many mailboxes that share a
//! processor (Chiu and Jain, *Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer
//! Networks*, 1989). It grows only while it is used: an idle mailbox proves nothing.

use std::time::Duration;

/// Messages drained without a pause in between, after which the limit is looked at again. Four batches of the
/// executor, which takes sixteen messages out at once.
const WINDOW: u32 = 64;

/// A limit that is too high shrinks to three quarters, down to what would fit.
const SHRINK: (u32, u32) = (3, 4);

/// A mailbox bound that follows how fast messages are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveMailbox {
    min: u32,
    max: u32,
    target: Duration,
}

impl AdaptiveMailbox {
    /// Bounds between `min`, at least one, and `max`; the last message is to wait no longer than 50 ms.
    pub const fn between(min: u32, max: u32) -> Self {
        let min = if min == 0 { 1 } else { min };
        let max = if max < min { min } else { max };
        Self { min, max, target: Self::TARGET }
    }

    /// How long the last message may wait, if nothing is said: half of what people take for "at once".
    pub const TARGET: Duration = Duration::from_millis(50);

    /// How long the last message may wait.
    pub const fn target(mut self, target: Duration) -> Self {
        self.target = target;
        self
    }

    pub(crate) fn min(&self) -> u32 {
        self.min
    }

    /// The limit after so many messages took so long, where the limit was `limit`, and was reached meanwhile or not.
    pub(crate) fn adapt(&self, limit: u32, messages: u32, took: Duration, reached: bool) -> u32 {
        let each = (took.as_nanos() / u128::from(messages.max(1))).max(1);
        let fits = u32::try_from(self.target.as_nanos() / each).unwrap_or(u32::MAX);
        let limit = if limit > fits {
            fits.max(limit / SHRINK.1 * SHRINK.0)
        } else if reached {
            fits.min(limit.saturating_add(WINDOW))
        } else {
            limit
        };
        limit.clamp(self.min, self.max)
    }
}

/// The limit of one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    limit: u32,
    /// When the running window began.
    since: Option<Duration>,
    drained: u32,
    /// More than half of the limit was in use.
    used: bool,
}

impl Capacity {
    /// The least: an actor first shows that it is quick.
    pub(crate) fn new(bounds: &AdaptiveMailbox) -> Self {
        Self { limit: bounds.min, since: None, drained: 0, used: false }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// A message was taken out, and `left` remain. Asks for the time at both ends of a window only.
    pub(crate) fn drained(&mut self, bounds: &AdaptiveMailbox, left: u32, now: impl FnOnce() -> Duration) {
        self.used |= left >= self.limit / 2;
        let Some(since) = self.since else {
            if left > 0 {
                (self.since, self.drained) = (Some(now()), 0);
            }
            return;
        };
        self.drained += 1;
        if self.drained >= WINDOW {
            self.adapt(bounds, now().saturating_sub(since));
            (self.since, self.used) = (None, false);
        } else if left == 0 {
            // The time until the next message says nothing about how fast they are drained.
            self.since = None;
        }
    }

    fn adapt(&mut self, bounds: &AdaptiveMailbox, took: Duration) {
        self.limit = bounds.adapt(self.limit, WINDOW, took, self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: AdaptiveMailbox = AdaptiveMailbox::between(100, 10_000);

    /// Drains full windows of a mailbox that always holds `left`, at so much a message.
    fn drain(capacity: &mut Capacity, windows: u32, left: u32, each: Duration) {
        let mut now = Duration::from_secs(1);
        for _ in 0..windows * (WINDOW + 1) {
            now += each;
            capacity.drained(&BOUNDS, left, || now);
        }
    }

    #[test]
    fn a_quick_actor_gets_a_long_mailbox_and_a_slow_one_the_least() {
        let mut capacity = Capacity::new(&BOUNDS);
        drain(&mut capacity, 1_000, 20_000, Duration::from_micros(20));
        // 50 ms at 20 µs each.
        assert!((2_300..=2_500).contains(&capacity.limit()), "{}", capacity.limit());
        drain(&mut capacity, 20, 20_000, Duration::from_millis(10));
        assert_eq!(capacity.limit(), 100);
        drain(&mut capacity, 1_000, 20_000, Duration::from_nanos(100));
        assert_eq!(capacity.limit(), 10_000);
    }

    #[test]
    fn it_grows_only_while_it_is_used() {
        let mut capacity = Capacity::new(&BOUNDS);
        drain(&mut capacity, 100, 10, Duration::from_micros(1));
        assert_eq!(capacity.limit(), 100);
    }

    #[test]
    fn pauses_between_messages_do_not_count_as_slowness() {
        let mut capacity = Capacity::new(&BOUNDS);
        drain(&mut capacity, 10, 20_000, Duration::from_micros(1));
        let grown = capacity.limit();
        for second in 0..1_000 {
            capacity.drained(&BOUNDS, 1, || Duration::from_secs(1_000 + second));
            capacity.drained(&BOUNDS, 0, || Duration::from_secs(1_000 + second));
        }
        assert_eq!(capacity.limit(), grown);
    }

    #[test]
    fn bounds_that_cross_are_one_bound() {
        assert_eq!(AdaptiveMailbox::between(0, 0), AdaptiveMailbox::between(1, 1));
    }
}
