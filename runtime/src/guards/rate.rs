//! The rate limit: how many calls may begin in a time.
//!
//! The bucket is the generic cell rate algorithm of the `governor` crate, on the silo's own clock. Calls that wait
//! their turn stand in a line of their own per bucket, first come first served: only its head watches the clock.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use quark_base::{Clock, Key};
use tokio::sync::Semaphore;

/// Calls that may wait their turn in one line. At 100 a second the last one waits 10 s, which few callers will.
pub const LINE_MAX: u32 = 1_000;

/// How often buckets that are full again, and so tell nothing, are thrown away.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// How many calls of a type, or of one actor, may begin in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The time in which one call's allowance comes back.
    each: Duration,
    burst: NonZeroU32,
    when_full: WhenLimited,
    by_key: bool,
}

impl RateLimit {
    /// So many calls a second, at least one, and as many at once.
    pub const fn per_second(calls: u32) -> Self {
        Self::per(calls, Duration::from_secs(1))
    }

    /// So many calls a minute, at least one, and as many at once.
    pub const fn per_minute(calls: u32) -> Self {
        Self::per(calls, Duration::from_secs(60))
    }

    const fn per(calls: u32, time: Duration) -> Self {
        let calls = match NonZeroU32::new(calls) {
            Some(calls) => calls,
            None => NonZeroU32::MIN,
        };
        let each = Duration::from_nanos(time.as_nanos() as u64 / calls.get() as u64);
        Self { each, burst: calls, when_full: WhenLimited::Reject, by_key: false }
    }

    /// So many calls at once after a quiet time, at least one.
    pub const fn burst(mut self, calls: u32) -> Self {
        self.burst = match NonZeroU32::new(calls) {
            Some(calls) => calls,
            None => NonZeroU32::MIN,
        };
        self
    }

    /// What becomes of a call above the limit.
    pub const fn when_full(mut self, what: WhenLimited) -> Self {
        self.when_full = what;
        self
    }

    /// Limits each actor by itself, instead of all actors of the type together.
    pub const fn by_key(mut self) -> Self {
        self.by_key = true;
        self
    }

    fn quota(&self) -> Quota {
        // A period of zero would be no limit at all; a nanosecond is as good as none.
        let each = self.each.max(Duration::from_nanos(1));
        Quota::with_period(each)
            .map_or(Quota::per_second(NonZeroU32::MAX), |quota| quota.allow_burst(self.burst))
    }
}

/// What becomes of a call above the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenLimited {
    /// It is refused with the time after which it may be tried again.
    #[default]
    Reject,
    /// It waits its turn, behind at most [`LINE_MAX`] others; above that it is refused.
    Queue,
    /// A `tell` is lost without a word; a call that somebody waits for is refused.
    Drop,
}

impl fmt::Display for WhenLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reject => "reject",
            Self::Queue => "queue",
            Self::Drop => "drop",
        })
    }
}

/// The clock port as the bucket reads it.
struct BucketClock(Arc<dyn Clock>);

impl GovernorClock for BucketClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.now()
    }
}

type Bucket<K, S> = RateLimiter<K, S, BucketClock, NoOpMiddleware<Duration>>;

enum Buckets {
    OfType(Bucket<NotKeyed, InMemoryState>),
    OfActors(Bucket<Key, DashMapStateStore<Key>>),
}

/// The limit at work.
pub(crate) struct Limiter {
    spec: RateLimit,
    clock: Arc<dyn Clock>,
    buckets: Buckets,
    /// One line for each bucket that is waited for.
    lines: Mutex<HashMap<Option<Key>, Line>>,
    forgot_at: Mutex<Duration>,
}

struct Line {
    /// Only the head of the line watches the bucket. Fair: permits go out in the order they were asked for.
    head: Arc<Semaphore>,
    waiting: u32,
}

impl Limiter {
    pub(crate) fn new(spec: RateLimit, clock: Arc<dyn Clock>) -> Self {
        let bucket_clock = BucketClock(clock.clone());
        let buckets = if spec.by_key {
            Buckets::OfActors(RateLimiter::new(spec.quota(), DashMapStateStore::default(), bucket_clock))
        } else {
            Buckets::OfType(RateLimiter::new(spec.quota(), InMemoryState::default(), bucket_clock))
        };
        Self { spec, forgot_at: Mutex::new(clock.now()), clock, buckets, lines: Mutex::default() }
    }

    pub(crate) fn when_full(&self) -> WhenLimited {
        self.spec.when_full
    }

    /// Takes one call's allowance, or says how long there will be none. Nobody overtakes a line.
    pub(crate) fn take(&self, key: &Key) -> Result<(), Duration> {
        let queues = self.spec.when_full == WhenLimited::Queue;
        if queues && let Some(line) = self.lines.lock().get(&self.line_of(key)) {
            return Err(self.spec.each.saturating_mul(line.waiting));
        }
        self.take_unfairly(key)
    }

    fn take_unfairly(&self, key: &Key) -> Result<(), Duration> {
        let taken = match &self.buckets {
            Buckets::OfType(bucket) => bucket.check(),
            Buckets::OfActors(buckets) => buckets.check_key(key),
        };
        taken.map_err(|until| until.wait_time_from(self.clock.now()))
    }

    fn line_of(&self, key: &Key) -> Option<Key> {
        self.spec.by_key.then(|| key.clone())
    }

    /// A place in the line; none if that is full.
    pub(crate) fn queue(self: &Arc<Self>, key: &Key) -> Option<Place> {
        let name = self.line_of(key);
        let mut lines = self.lines.lock();
        let line = lines
            .entry(name.clone())
            .or_insert_with(|| Line { head: Arc::new(Semaphore::new(1)), waiting: 0 });
        if line.waiting >= LINE_MAX {
            return None;
        }
        line.waiting += 1;
        let head = line.head.clone();
        Some(Place { limiter: self.clone(), key: key.clone(), name, head })
    }

    /// Throws away buckets that are full again, now and then.
    pub(crate) fn forget_full(&self) {
        let Buckets::OfActors(buckets) = &self.buckets else { return };
        let now = self.clock.now();
        let mut forgot_at = self.forgot_at.lock();
        if now.saturating_sub(*forgot_at) >= FORGET_EVERY {
            *forgot_at = now;
            drop(forgot_at);
            buckets.retain_recent();
        }
    }
}

/// A call's place in the line. Dropping it leaves the line.
pub(crate) struct Place {
    limiter: Arc<Limiter>,
    key: Key,
    name: Option<Key>,
    head: Arc<Semaphore>,
}

impl Place {
    /// Waits for its turn, with `sleep` to pass the time until the bucket has something again.
    pub(crate) async fn turn<S: Future<Output = ()>>(self, sleep: impl Fn(Duration) -> S) {
        // It is never closed, so that the only way on is the permit.
        let _head = self.head.acquire().await;
        while let Err(still) = self.limiter.take_unfairly(&self.key) {
            sleep(still).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.limiter.lines.lock();
        if let Some(line) = lines.get_mut(&self.name) {
            line.waiting -= 1;
            if line.waiting == 0 {
                lines.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Hands(AtomicU64);

    impl Hands {
        fn advance(&self, milliseconds: u64) {
            self.0.fetch_add(milliseconds, Ordering::SeqCst);
        }
    }

    impl Clock for Hands {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst))
        }

        fn timestamp(&self) -> quark_base::Timestamp {
            quark_base::Timestamp::VIRTUAL_ORIGIN.saturating_add(self.now())
        }
    }

    fn limiter(spec: RateLimit) -> (Arc<Limiter>, Arc<Hands>) {
        let hands = Arc::new(Hands::default());
        (Arc::new(Limiter::new(spec, hands.clone())), hands)
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn after_a_burst_calls_begin_at_the_declared_rate() {
        let (limiter, hands) = limiter(RateLimit::per_second(10).burst(2));
        let key = Key::from("a");
        assert_eq!((limiter.take(&key), limiter.take(&key)), (Ok(()), Ok(())));
        assert_eq!(limiter.take(&key), Err(MS(100)));
        hands.advance(60);
        assert_eq!(limiter.take(&key), Err(MS(40)));
        hands.advance(40);
        assert_eq!(limiter.take(&key), Ok(()));
        assert_eq!(limiter.take(&"b".into()), Err(MS(100)), "all actors of the type share one bucket");
    }

    #[test]
    fn by_key_each_actor_has_its_own_bucket_for_as_long_as_it_tells_something() {
        let (limiter, hands) = limiter(RateLimit::per_minute(1).by_key());
        assert_eq!(limiter.take(&"a".into()), Ok(()));
        assert_eq!(limiter.take(&"b".into()), Ok(()));
        assert_eq!(limiter.take(&"a".into()), Err(MS(60_000)));
        let Buckets::OfActors(buckets) = &limiter.buckets else { panic!("it is by key") };
        hands.advance(50_000);
        limiter.forget_full();
        assert_eq!(buckets.len(), 2);
        // It is full again after a minute, and kept for another one.
        hands.advance(71_000);
        limiter.forget_full();
        assert_eq!(buckets.len(), 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_line_is_served_in_order_and_nobody_overtakes_it() {
        let (limiter, hands) = limiter(RateLimit::per_second(10).burst(1).when_full(WhenLimited::Queue));
        let key = Key::from("a");
        limiter.take(&key).unwrap();
        let begun = Arc::new(Mutex::new(Vec::new()));
        let callers: Vec<_> = (0..3)
            .map(|number| {
                let (place, begun, hands) = (limiter.queue(&key).unwrap(), begun.clone(), hands.clone());
                tokio::spawn(async move {
                    let passes = |time: Duration| {
                        hands.advance(time.as_millis() as u64);
                        tokio::task::yield_now()
                    };
                    place.turn(passes).await;
                    begun.lock().push(number);
                })
            })
            .collect();
        assert_eq!(limiter.take(&key), Err(MS(300)));
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(*begun.lock(), [0, 1, 2]);
        assert!(limiter.lines.lock().is_empty());
    }

    #[test]
    fn the_line_is_bounded_and_who_leaves_it_makes_room() {
        let (limiter, _) = limiter(RateLimit::per_second(1).when_full(WhenLimited::Queue));
        let key = Key::from("a");
        let mut places: Vec<_> = (0..LINE_MAX).map(|_| limiter.queue(&key).unwrap()).collect();
        assert!(limiter.queue(&key).is_none());
        places.pop();
        assert!(limiter.queue(&key).is_some());
        places.clear();
        assert!(limiter.lines.lock().is_empty());
    }
}
