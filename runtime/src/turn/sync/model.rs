//! What a model runs on: loom's types behind the interfaces of the real ones.

use std::collections::VecDeque;

pub(crate) use loom::sync::MutexGuard;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};

/// A lock without poisoning.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
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

/// A `static` of which each thread has its own.
macro_rules! per_thread {
    ($name:ident: $type:ty = $first:expr) => {
        loom::thread_local! {
            static $name: $type = $first;
        }
    };
}
pub(crate) use per_thread;
