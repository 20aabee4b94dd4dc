//! The clock port. Deciding code takes `now` as an argument; only shells hold a clock.
//!
//! Who waits for a moment asks the clock how its moments come ([`Clock::attend`]): steadily, so that a system timer
//! serves, or in jumps, at each of which the clock tells its [`Waiter`]s. So a test that owns a [`VirtualClock`]
//! owns every timeout, idle time and backoff of a silo.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A source of monotonic time.
///
/// An implementation MUST never go backwards, and MUST count from one fixed origin for as long as it lives. One that
/// answers [`Passage::Jumps`] MUST tell every waiter of every jump, after [`now`](Self::now) says the new time, and
/// MUST NOT hold a lock meanwhile that `now` or `attend` takes.
pub trait Clock: Send + Sync + 'static {
    /// Time since the clock's origin.
    fn now(&self) -> Duration;

    /// The time of day, for what outlives the clock: reminders, events. It may be set, so it may jump back.
    fn timestamp(&self) -> Timestamp;

    /// Takes in somebody who waits for moments of this clock, until that one is dropped, and says how they come.
    fn attend(&self, _waiter: Weak<dyn Waiter>) -> Passage {
        Passage::Steady
    }
}

/// A time of day: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted, as POSIX does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Where a [`VirtualClock`] begins: 2026-01-01T00:00:00Z.
    pub const VIRTUAL_ORIGIN: Self = Self(1_767_225_600_000);

    /// What the machine says.
    pub fn of_system() -> Self {
        // A machine that believes to be before 1970 is at 1970.
        Self(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// So much later; the greatest if that is beyond it.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// So much earlier; the least if that is before it.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// How much later it is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How a clock's moments come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// As fast as real time: who waits sleeps on a system timer, and looks at the clock again when it fires.
    Steady,
    /// Whenever somebody moves the clock, which then tells its waiters.
    Jumps,
}

/// Somebody who waits for moments of a clock that jumps.
pub trait Waiter: Send + Sync + 'static {
    /// The first moment it waits for; none if it waits for nothing. A moment too early does no harm.
    fn next_due(&self) -> Option<Duration>;
    /// The clock now says `now`. Called on the thread that moves it.
    fn time_moved(&self, now: Duration);
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

    fn timestamp(&self) -> Timestamp {
        Timestamp::of_system()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn timestamp(&self) -> Timestamp {
        (**self).timestamp()
    }

    fn attend(&self, waiter: Weak<dyn Waiter>) -> Passage {
        (**self).attend(waiter)
    }
}

/// A clock that stands still until it is moved, and then stops at every moment that somebody waits for.
pub struct VirtualClock {
    now_ns: AtomicU64,
    /// The time of day at the clock's origin, in milliseconds. Below zero, wrapped around, if it was set to little.
    origin_ms: AtomicU64,
    /// As many as there are wheels and sweepers on the clock; those that are gone leave at the next look.
    waiters: Mutex<Vec<Weak<dyn Waiter>>>,
}

impl VirtualClock {
    /// A clock at its origin.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sets the time of day, as an operator may. [`now`](Clock::now) goes on as it was, so nobody is told.
    pub fn set_timestamp(&self, time: Timestamp) {
        self.origin_ms.store(time.0.wrapping_sub(millis(self.now())), Ordering::SeqCst);
    }

    /// The first moment after now that somebody waits for.
    pub fn next_due(&self) -> Option<Duration> {
        let now = self.now();
        self.living().iter().filter_map(|waiter| waiter.next_due()).filter(|&due| due > now).min()
    }

    /// Moves the clock to `at` in one jump, and tells who waits. It never goes back: an earlier `at` is now.
    pub fn move_to(&self, at: Duration) {
        self.now_ns.fetch_max(nanos(at), Ordering::SeqCst);
        let now = self.now();
        for waiter in self.living() {
            waiter.time_moved(now);
        }
    }

    /// Moves the clock on by `by`, with a stop at every moment that somebody waits for. What a stop sets off on
    /// other threads is not waited for.
    pub fn advance(&self, by: Duration) {
        let target = self.now().saturating_add(by);
        while let Some(due) = self.next_due().filter(|&due| due < target) {
            self.move_to(due);
        }
        self.move_to(target);
    }

    /// The waiters that are still there, taken out from under the lock.
    fn living(&self) -> Vec<Arc<dyn Waiter>> {
        let mut waiters = self.waiters();
        waiters.retain(|waiter| waiter.strong_count() > 0);
        waiters.iter().filter_map(Weak::upgrade).collect()
    }

    fn waiters(&self) -> MutexGuard<'_, Vec<Weak<dyn Waiter>>> {
        // A panic elsewhere leaves the list whole: each change to it is one call.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        let origin_ms = AtomicU64::new(Timestamp::VIRTUAL_ORIGIN.0);
        Self { now_ns: AtomicU64::new(0), origin_ms, waiters: Mutex::default() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::SeqCst))
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(self.origin_ms.load(Ordering::SeqCst).wrapping_add(millis(self.now())))
    }

    fn attend(&self, waiter: Weak<dyn Waiter>) -> Passage {
        self.waiters().push(waiter);
        Passage::Jumps
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualClock").field("now", &self.now()).finish_non_exhaustive()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Waits for each of `moments` in turn, and notes where the clock stood whenever it was told.
    struct Listener {
        moments: Vec<Duration>,
        told: Mutex<Vec<Duration>>,
    }

    impl Listener {
        fn new(seconds: &[u32]) -> Arc<Self> {
            let moments = seconds.iter().map(|&second| second * SECOND).collect();
            Arc::new(Self { moments, told: Mutex::default() })
        }

        fn told(&self) -> Vec<u64> {
            self.told.lock().unwrap().iter().map(Duration::as_secs).collect()
        }
    }

    impl Waiter for Listener {
        fn next_due(&self) -> Option<Duration> {
            let last = self.told.lock().unwrap().last().copied().unwrap_or_default();
            self.moments.iter().copied().find(|&moment| moment > last)
        }

        fn time_moved(&self, now: Duration) {
            self.told.lock().unwrap().push(now);
        }
    }

    #[test]
    fn an_advance_stops_at_every_moment_that_somebody_waits_for() {
        let (clock, one, other) = (VirtualClock::new(), Listener::new(&[2, 5]), Listener::new(&[3, 20]));
        let waiters: [Arc<dyn Waiter>; 2] = [one.clone(), other.clone()];
        for waiter in &waiters {
            assert_eq!(clock.attend(Arc::downgrade(waiter)), Passage::Jumps);
        }
        clock.advance(10 * SECOND);
        assert_eq!(one.told(), [2, 3, 5, 10]);
        assert_eq!(other.told(), one.told());
        assert_eq!((clock.now(), clock.next_due()), (10 * SECOND, Some(20 * SECOND)));
    }

    #[test]
    fn a_waiter_that_never_gets_enough_does_not_hold_the_clock() {
        struct Stuck;
        impl Waiter for Stuck {
            fn next_due(&self) -> Option<Duration> {
                Some(SECOND)
            }
            fn time_moved(&self, _now: Duration) {}
        }
        let (clock, stuck): (_, Arc<dyn Waiter>) = (VirtualClock::new(), Arc::new(Stuck));
        clock.attend(Arc::downgrade(&stuck));
        clock.advance(5 * SECOND);
        assert_eq!(clock.now(), 5 * SECOND);
        drop(stuck);
        assert_eq!(clock.next_due(), None);
    }

    #[test]
    fn the_time_of_day_can_be_set_and_goes_on_from_there() {
        let clock = VirtualClock::new();
        clock.advance(5 * SECOND);
        assert_eq!(clock.timestamp(), Timestamp::VIRTUAL_ORIGIN.saturating_add(5 * SECOND));
        clock.set_timestamp(Timestamp(3_000));
        assert_eq!((clock.now(), clock.timestamp()), (5 * SECOND, Timestamp(3_000)));
        clock.advance(SECOND);
        assert_eq!((clock.now(), clock.timestamp()), (6 * SECOND, Timestamp(4_000)));
    }

    #[test]
    fn a_clock_never_goes_back() {
        let clock = VirtualClock::new();
        clock.move_to(5 * SECOND);
        clock.move_to(SECOND);
        assert_eq!(clock.now(), 5 * SECOND);
    }
}
