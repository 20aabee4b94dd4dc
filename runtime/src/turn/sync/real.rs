//! What a silo runs on.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};
pub(crate) use std::time::Instant;

pub(crate) use crossbeam_queue::SegQueue as Queue;
pub(crate) use parking_lot::{Mutex, MutexGuard};

/// A `static` of which each thread has its own.
macro_rules! per_thread {
    ($name:ident: $type:ty = $first:expr) => {
        thread_local! {
            static $name: $type = const { $first };
        }
    };
}
pub(crate) use per_thread;
