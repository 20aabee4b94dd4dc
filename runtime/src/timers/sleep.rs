//! Futures that wait for a moment of the silo's clock.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Due, TimerKey, Timers};

/// Ready once its moment has come. Dropping it takes it out of the wheel.
pub(crate) struct Sleep {
    timers: Arc<Timers>,
    at: Duration,
    key: Option<TimerKey>,
}

/// The limit passed before the future was ready; the future has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl Timers {
    /// Waits until the clock says `at`.
    pub(crate) fn sleep_until(self: &Arc<Self>, at: Duration) -> Sleep {
        Sleep { timers: self.clone(), at, key: None }
    }

    /// Gives `future` this long.
    pub(crate) async fn timeout<F: Future>(
        self: &Arc<Self>,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut sleep = self.sleep_until(self.now().saturating_add(limit));
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
        })
        .await
    }

    /// Whether the sleep at `key` goes on; then it will wake the polling task.
    fn goes_on(&self, key: TimerKey, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        let Some(Due::Wake(waker)) = state.wheel.get_mut(key) else { return false };
        if waker.will_wake(cx.waker()) {
            return true;
        }
        let old = std::mem::replace(waker, cx.waker().clone());
        drop(state);
        drop(old);
        true
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(key) = self.key {
            if self.timers.goes_on(key, cx) {
                return Poll::Pending;
            }
            self.key = None;
        }
        if self.timers.now() >= self.at {
            return Poll::Ready(());
        }
        match self.timers.insert(self.at, Due::Wake(cx.waker().clone())) {
            Ok(key) => self.key = Some(key),
            Err(_) if self.timers.now() >= self.at => return Poll::Ready(()),
            // The silo has ended, and with it whoever would have woken this.
            Err(_) => {}
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.cancel(key);
        }
    }
}
