//! Moments that somebody waits for: one wheel per executor, behind one sleeping future.
//!
//! What waits for a moment is an entry of a wheel: a call's deadline, a hook's limit, `cx.sleep`, an actor's timer. The
//! wheel has one driver, which sleeps until the first entry is due and is woken only if an earlier one comes; so a
//! deadline that is met costs an insertion and a removal, and tokio's timer sees none of it. The driver runs on the
//! silo's load lane, so that neither a busy executor nor a caller's runtime that ended holds a deadline back.
//!
//! On a clock that jumps there is no driver: whoever moves the clock does its work, on the spot.
//!
//! - `wheel`: the data structure, pure
//! - `sleep`: futures that wait for a moment
//! - `schedule`, `actor`: timers of an activation, which send it messages

mod actor;
mod schedule;
mod sleep;
mod wheel;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quark_base::{Clock, Passage, Waiter};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep as SystemSleep, sleep_until};

pub(crate) use self::actor::ActorTimers;
pub use self::actor::{TIMERS_MAX, Timer, TimerError};
pub use self::schedule::Schedule;
pub(crate) use self::sleep::Sleep;
use self::wheel::{TimerKey, Wheel};
use crate::turn::block::panic_message;

/// Entries that one visit moves or expires before others get the lock and the thread.
const STEPS_PER_VISIT: usize = 256;

/// The driver looks at the clock again after this long, whatever the wheel says: a system timer cannot be set for
/// ever, and a day is long enough to cost nothing.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3_600);

/// What happens when a moment comes.
enum Due {
    /// A future goes on.
    Wake(Waker),
    /// An actor's timer ticks.
    Fire(Arc<dyn Fire>),
}

/// What an entry of the wheel does.
trait Fire: Send + Sync {
    fn fire(self: Arc<Self>);
}

/// A wheel, and who waits for it to turn.
pub(crate) struct Timers {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    wheel: Wheel<Due>,
    /// The moment that the driver sleeps until; `None` while it waits for an entry, or there is no driver.
    armed: Option<Duration>,
    driver: Option<Waker>,
    /// The silo has ended: nothing becomes due any more.
    closed: bool,
}

impl Timers {
    /// A wheel on `clock`. It stands still until [`begin`](Self::begin).
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let wheel = Wheel::new(clock.now());
        let state = State { wheel, armed: None, driver: None, closed: false };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// Lets it turn: as real time passes, driven on the runtime behind `handle`, or whenever its clock jumps.
    pub(crate) fn begin(self: &Arc<Self>, handle: &Handle) {
        let waiter: Weak<Self> = Arc::downgrade(self);
        match self.clock.attend(waiter) {
            Passage::Steady => {
                let timers = self.clone();
                handle.spawn(async move { timers.drive().await });
            }
            // What became due before the clock knew of this wheel.
            Passage::Jumps => self.turn_all(),
        }
    }

    /// Ends the driver. Who still waits is woken, and finds out by the clock whether its moment has come.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let driver = state.driver.take();
        let now = self.clock.now();
        let left = std::mem::replace(&mut state.wheel, Wheel::new(now));
        drop(state);
        left.into_values().for_each(Due::happen);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Whether everything that is due has happened.
    pub(crate) fn is_settled(&self) -> bool {
        let now = self.clock.now();
        self.state.lock().wheel.next_look().is_none_or(|at| at > now)
    }

    /// Lets `due` happen at `at`. Gives it back if that has come already, or never will.
    fn insert(&self, at: Duration, due: Due) -> Result<TimerKey, Due> {
        let state = self.state.lock();
        // Read under the lock: a clock that jumps afterwards finds the entry.
        if state.closed || at <= self.clock.now() {
            return Err(due);
        }
        Ok(Self::put(state, at, due))
    }

    /// Lets `due` happen at `at`, or very soon if that has come meanwhile. None once the silo has ended.
    fn insert_late(&self, at: Duration, due: Due) -> Option<TimerKey> {
        let state = self.state.lock();
        if state.closed {
            // Dropped after the lock, since it may be the last reference to somebody's values.
            drop(state);
            return None;
        }
        Some(Self::put(state, at, due))
    }

    fn put(mut state: MutexGuard<'_, State>, at: Duration, due: Due) -> TimerKey {
        let key = state.wheel.insert(at, due);
        let driver = match state.armed {
            Some(armed) if armed <= at => None,
            _ => state.driver.take(),
        };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        key
    }

    fn cancel(&self, key: TimerKey) {
        let cancelled = self.state.lock().wheel.cancel(key);
        // A foreign waker's drop is not run under the lock.
        drop(cancelled);
    }

    /// Lets what is due happen, as far as one visit goes. True if there may be more.
    fn turn(&self, now: Duration) -> bool {
        let mut steps = STEPS_PER_VISIT;
        let mut happening = Vec::new();
        let mut state = self.state.lock();
        while let Some(due) = state.wheel.expire(now, &mut steps) {
            happening.push(due);
        }
        drop(state);
        happening.into_iter().for_each(Due::happen);
        steps == 0
    }

    fn turn_all(&self) {
        while self.turn(self.clock.now()) {}
    }

    async fn drive(&self) {
        let mut sleep = Box::pin(sleep_until(Instant::now()));
        poll_fn(|cx| self.poll_driver(cx, sleep.as_mut())).await;
    }

    fn poll_driver(&self, cx: &mut Context<'_>, mut sleep: Pin<&mut SystemSleep>) -> Poll<()> {
        if self.turn(self.clock.now()) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut state = self.state.lock();
        if state.closed {
            return Poll::Ready(());
        }
        state.driver = Some(cx.waker().clone());
        state.armed = state.wheel.next_look();
        let armed = state.armed;
        drop(state);
        let Some(armed) = armed else { return Poll::Pending };
        let left = armed.saturating_sub(self.clock.now()).min(LONGEST_SLEEP);
        sleep.as_mut().reset(Instant::now() + left);
        if sleep.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Waiter for Timers {
    fn next_due(&self) -> Option<Duration> {
        self.state.lock().wheel.next_look()
    }

    fn time_moved(&self, _now: Duration) {
        self.turn_all();
    }
}

impl Due {
    /// A foreign waker may panic; that must not reach the others that are due.
    fn happen(self) {
        let happened = catch_unwind(AssertUnwindSafe(|| match self {
            Due::Wake(waker) => waker.wake(),
            Due::Fire(entry) => entry.fire(),
        }));
        if let Err(payload) = happened {
            tracing::error!(panic = %panic_message(payload), "what was due panicked");
        }
    }
}

#[cfg(test)]
mod tests;
