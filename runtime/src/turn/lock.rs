//! The mailbox's lock: held for a few instructions at a time, and let go by a plain store.
//!
//! A lock that parks its waiters must ask, as it is let go, whether somebody waits: a second locked operation, which
//! costs a message as much as the first. Here nobody tells a waiter. It looks again by itself: at once for some time,
//! then after others had the processor, then after short sleeps. So a holder that has lost its processor gets it back,
//! whatever its waiters' priorities, and a waiter comes at most one sleep late.
//!
//! | `locked` | who may touch the value | set by                         | cleared by      |
//! |----------|-------------------------|--------------------------------|-----------------|
//! | false    | nobody                  |                                |                 |
//! | true     | who set it              | a swap that found it cleared   | its guard's end |

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::turn::cell::{Guarded, Held};
use crate::turn::sync::{AtomicBool, Ordering, pause};

/// A lock without poisoning, for what takes less than a microsecond.
#[derive(Debug)]
pub(crate) struct SpinLock<T> {
    locked: AtomicBool,
    value: Guarded<T>,
}

impl<T> SpinLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { locked: AtomicBool::new(false), value: Guarded::new(value) }
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        if self.locked.swap(true, Ordering::Acquire) {
            self.wait();
        }
        SpinGuard { lock: self, held: Held::hand_out(), value: PhantomData }
    }

    /// Comes back with the lock.
    #[cold]
    fn wait(&self) {
        let mut looks = 0;
        loop {
            // Looked at before it is taken: waiters that only read leave the holder its cache line.
            if !self.locked.load(Ordering::Relaxed) && !self.locked.swap(true, Ordering::Acquire) {
                return;
            }
            pause(looks);
            looks = looks.saturating_add(1);
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.alone()
    }
}

/// The right to use what is locked, until it is dropped.
#[derive(Debug)]
pub(crate) struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
    held: Held,
    /// It is as good as a mutable borrow, also for who may send or share it.
    value: PhantomData<&'a mut T>,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.lock.value.get(&self.held)
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        self.lock.value.get_mut(&mut self.held)
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
    }
}

#[cfg(all(test, not(quark_loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    #[test]
    fn what_several_threads_do_under_the_lock_is_done_one_after_another() {
        const TIMES: usize = 10_000;
        let lock = SpinLock::new((0_usize, 0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..TIMES {
                        let mut pair = lock.lock();
                        pair.0 += 1;
                        if pair.0.is_multiple_of(1_000) {
                            // Others find it taken for as long as they run.
                            thread::yield_now();
                        }
                        pair.1 = pair.0;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), (4 * TIMES, 4 * TIMES));
    }

    #[test]
    fn a_panic_under_the_lock_lets_it_go() {
        let lock = SpinLock::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut value = lock.lock();
            *value = 2;
            panic!("under the lock");
        }));
        assert!(panicked.is_err());
        assert_eq!(*lock.lock(), 2);
    }
}
