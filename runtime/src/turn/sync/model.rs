//! What a model runs on: loom's types behind the interfaces of the real ones.

use std::collections::VecDeque;
use std::time::Duration;

pub(crate) use loom::sync::atomic::{Ordering, fence};

/// Atomics whose stores are read-modify-write operations: loom lets such an operation read past a plain store that
/// another thread made meanwhile, which no memory model allows (C++20, [intro.races], atomicity).
macro_rules! atomics {
    ($($name:ident: $type:ty),*) => {$(
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        impl $name {
            pub(crate) fn new(value: $type) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn store(&self, value: $type, ordering: Ordering) {
                self.0.swap(value, ordering);
            }
        }

        impl std::ops::Deref for $name {
            type Target = loom::sync::atomic::$name;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    )*};
}

atomics!(AtomicBool: bool, AtomicU8: u8, AtomicU32: u32, AtomicUsize: usize);

/// A lock without poisoning.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> BriefGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A queue whose emptiness is read beside its lock, as in the real one.
pub(crate) struct Queue<T> {
    length: AtomicUsize,
    items: Mutex<VecDeque<T>>,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { length: AtomicUsize::new(0), items: Mutex::new(VecDeque::new()) }
    }

    pub(crate) fn push(&self, item: T) {
        let mut items = self.items.lock();
        items.push_back(item);
        self.length.store(items.len(), Ordering::Release);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let mut items = self.items.lock();
        let item = items.pop_front();
        self.length.store(items.len(), Ordering::Release);
        item
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length.load(Ordering::Acquire) == 0
    }
}

/// What a short-held lock does for its user; itself it has a model of its own.
pub(crate) use self::Mutex as BriefLock;
pub(crate) use loom::sync::MutexGuard as BriefGuard;

/// See the real one.
pub(crate) fn pause(_looks: u32) {
    loom::thread::yield_now();
}

/// See the real one.
pub(crate) fn model_fence() {
    fence(Ordering::SeqCst);
}

/// See the real one: two, so that turns meet in lanes and pass each other.
pub(crate) fn lanes() -> usize {
    2
}

/// See the real one.
pub(crate) fn number_thread() -> u32 {
    loom::lazy_static! {
        static ref NEXT: loom::sync::atomic::AtomicU32 = loom::sync::atomic::AtomicU32::new(0);
    }
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Time stands still in a model, so that nothing depends on how long its exploration takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Self {
        Self
    }

    pub(crate) fn elapsed(self) -> Duration {
        Duration::ZERO
    }
}

/// A `static` of which each thread has its own.
macro_rules! per_thread {
    ($name:ident: $type:ty = $first:expr) => {
        loom::thread_local! {
            static $name: $type = $first;
        }
    };
}
pub(crate) use per_thread;
