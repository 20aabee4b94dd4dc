//! Flow control: what becomes of a subscription's items when they come faster than they are handled.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::guards::{AdaptiveMailbox, RateLimit, WhenLimited};

/// Items that wait for one subscriber at most, where a subscription has a buffer and names no size. A burst of a second
/// at a thousand a second fits; a subscriber that is behind by more had better be slowed down or skipped.
pub const BUFFER: u32 = 1_024;

/// The least of an adaptive buffer that names only its upper bound.
const ADAPTIVE_MIN: u32 = 16;

/// Who gives way at a full buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// Nobody: the publisher waits.
    #[default]
    Wait,
    /// The item that has waited longest.
    DropOldest,
    /// The new item.
    DropNewest,
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
        })
    }
}

/// Which items a subscription takes at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sample {
    /// The first of every so many.
    OneIn(NonZeroU32),
    /// The first, and then the first after each such time.
    Every(Duration),
}

/// How a subscription's items flow: what it takes, how many may wait, and what happens when those are too many.
///
/// Sample, rate and buffer each hold for one subscriber of one stream key: two actors of a type do not share them.
///
/// | set          | an item                                                                              |
/// |--------------|--------------------------------------------------------------------------------------|
/// | nothing      | waits in the actor's mailbox; a full mailbox makes the publisher wait                |
/// | `buffer`     | waits in a buffer of the subscription's own, behind at most one message in the mailbox |
/// | `when_full`  | at a full buffer waits with its publisher, or the oldest or newest one is dropped    |
/// | `one_in`, `sample_every` | is dropped unless it is the one of its number or its time               |
/// | `per_second` | above the rate waits with its publisher; where the flow drops, it is dropped         |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    when_full: WhenFull,
    buffer: Option<Bounds>,
    sample: Option<Sample>,
    per_second: Option<NonZeroU32>,
    batch: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounds {
    Fixed(NonZeroU32),
    Adaptive(AdaptiveMailbox),
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl Flow {
    /// Nobody gives way: the publisher waits.
    pub const fn wait() -> Self {
        Self { when_full: WhenFull::Wait, buffer: None, sample: None, per_second: None, batch: None }
    }

    /// A full buffer drops the item that has waited longest: for readings that only matter while they are fresh.
    pub const fn drop_oldest() -> Self {
        Self { when_full: WhenFull::DropOldest, ..Self::wait() }
    }

    /// A full buffer drops the new item.
    pub const fn drop_newest() -> Self {
        Self { when_full: WhenFull::DropNewest, ..Self::wait() }
    }

    /// At most so many items wait, at least one.
    pub const fn buffer(mut self, items: u32) -> Self {
        self.buffer = Some(Bounds::Fixed(at_least_one(items)));
        self
    }

    /// The buffer follows how fast it is drained, between these bounds: the last item is to wait no longer than 50 ms.
    pub const fn buffer_between(mut self, min: u32, max: u32) -> Self {
        self.buffer = Some(Bounds::Adaptive(AdaptiveMailbox::between(min, max)));
        self
    }

    /// The buffer follows how fast it is drained, up to `max`.
    pub const fn buffer_up_to(self, max: u32) -> Self {
        self.buffer_between(ADAPTIVE_MIN, max)
    }

    /// Takes the first of every `n` items, and drops the others.
    pub const fn one_in(mut self, n: u32) -> Self {
        self.sample = Some(Sample::OneIn(at_least_one(n)));
        self
    }

    /// Takes an item, and then none for so long.
    pub const fn sample_every(mut self, time: Duration) -> Self {
        self.sample = Some(Sample::Every(time));
        self
    }

    /// Takes so many items a second, and at most a tenth of them at once.
    pub const fn per_second(mut self, items: u32) -> Self {
        self.per_second = Some(at_least_one(items));
        self
    }

    /// Hands over what waits together, up to so many items. Set by `#[on_stream(…, batch = …)]`.
    #[doc(hidden)]
    pub const fn batch(mut self, items: u32) -> Self {
        self.batch = Some(at_least_one(items));
        self
    }

    pub(crate) fn batch_max(&self) -> usize {
        self.batch.map_or(1, |items| items.get() as usize)
    }

    /// Who gives way at a full buffer.
    pub const fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// Whether items go into the mailbox without a buffer in between.
    pub(crate) fn is_direct(&self) -> bool {
        *self == Self::wait()
    }

    /// Whether every item is handed over, however long that takes.
    pub(crate) fn keeps_all(&self) -> bool {
        self.when_full == WhenFull::Wait && self.sample.is_none()
    }

    pub(crate) fn sample(&self) -> Option<Sample> {
        self.sample
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.buffer.unwrap_or(Bounds::Fixed(const { at_least_one(BUFFER) }))
    }

    /// The limit at the source, of one subscriber.
    pub(crate) fn rate(&self) -> Option<RateLimit> {
        let per_second = self.per_second?.get();
        let above = if self.when_full == WhenFull::Wait { WhenLimited::Queue } else { WhenLimited::Drop };
        Some(RateLimit::per_second(per_second).burst(per_second.div_ceil(10)).when_full(above))
    }
}

/// What a sample has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sampler {
    seen: u32,
    next: Option<Duration>,
}

impl Sampler {
    /// Whether what it has seen still says something.
    pub(crate) fn holds(&self, now: Duration) -> bool {
        self.next.is_some_and(|next| next > now)
    }

    /// Whether the next item is one that is taken.
    pub(crate) fn takes(&mut self, sample: Sample, now: impl FnOnce() -> Duration) -> bool {
        match sample {
            Sample::OneIn(n) => {
                let takes = self.seen == 0;
                self.seen = (self.seen + 1) % n.get();
                takes
            }
            Sample::Every(time) => {
                let now = now();
                let takes = self.next.is_none_or(|next| now >= next);
                if takes {
                    self.next = Some(now.saturating_add(time));
                }
                takes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_n_takes_the_first_of_each_n() {
        let mut sampler = Sampler::default();
        let sample = Sample::OneIn(at_least_one(3));
        let taken: Vec<u32> =
            (0..9).filter(|_| sampler.takes(sample, || unreachable!("it counts"))).collect();
        assert_eq!(taken, [0, 3, 6]);
    }

    #[test]
    fn a_sample_by_time_takes_the_first_and_then_the_first_after_each_period() {
        let mut sampler = Sampler::default();
        let ms = Duration::from_millis;
        let takes = |at: &u64| sampler.takes(Sample::Every(ms(100)), || ms(*at));
        let taken: Vec<u64> = [5, 6, 104, 105, 150, 204, 206, 900, 999].into_iter().filter(takes).collect();
        assert_eq!(taken, [5, 105, 206, 900]);
    }

    #[test]
    fn a_flow_that_says_nothing_needs_no_buffer() {
        assert!(Flow::wait().is_direct());
        for flow in
            [Flow::drop_oldest(), Flow::wait().buffer(1), Flow::wait().one_in(2), Flow::wait().batch(2)]
        {
            assert!(!flow.is_direct(), "{flow:?}");
        }
        assert_eq!(Flow::wait().buffer(0), Flow::wait().buffer(1));
    }
}
