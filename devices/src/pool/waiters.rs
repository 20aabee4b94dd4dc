//! Waiting for memory, without a runtime: a counter of releases and the wakers that watch it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Tasks that may wait for memory of one pool at once. Beyond it a wait completes at once, so that its task asks
/// again instead of being forgotten.
pub const MAX_WAITERS: usize = 4096;

/// Who waits for the next release.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    releases: u64,
    next_waiter: u64,
    wakers: Vec<(u64, Waker)>,
}

impl Waiters {
    pub(super) fn wait(waiters: &Arc<Mutex<Self>>) -> MemoryFreed {
        let mut locked = waiters.lock();
        let waiter = locked.next_waiter;
        locked.next_waiter += 1;
        MemoryFreed { seen: locked.releases, waiter, waiters: Arc::clone(waiters) }
    }

    /// Wakes all that wait. Wakers run outside the lock: waking may drop a task that waits here too.
    pub(super) fn wake_all(waiters: &Mutex<Self>) {
        let wakers = {
            let mut locked = waiters.lock();
            locked.releases += 1;
            std::mem::take(&mut locked.wakers)
        };
        for (_, waker) in wakers {
            waker.wake();
        }
    }
}

/// The future of [`super::DevicePool::memory_freed`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct MemoryFreed {
    seen: u64,
    waiter: u64,
    waiters: Arc<Mutex<Waiters>>,
}

impl Future for MemoryFreed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut waiters = self.waiters.lock();
        if waiters.releases != self.seen {
            return Poll::Ready(());
        }
        let known = waiters.wakers.iter().position(|(waiter, _)| *waiter == self.waiter);
        let replaced = match known {
            Some(place) => Some(std::mem::replace(&mut waiters.wakers[place].1, waker)),
            None if waiters.wakers.len() >= MAX_WAITERS => return Poll::Ready(()),
            None => {
                waiters.wakers.push((self.waiter, waker));
                None
            }
        };
        // A waker's drop is foreign code, as its wake is.
        drop(waiters);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for MemoryFreed {
    fn drop(&mut self) {
        let mut waiters = self.waiters.lock();
        let place = waiters.wakers.iter().position(|(waiter, _)| *waiter == self.waiter);
        let waker = place.map(|place| waiters.wakers.swap_remove(place));
        drop(waiters);
        drop(waker);
    }
}
