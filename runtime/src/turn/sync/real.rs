//! What a silo runs on.

use std::hint;
use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};
use std::thread;
use std::time::Duration;
pub(crate) use std::time::Instant;

pub(crate) use crossbeam_queue::SegQueue as Queue;
pub(crate) use parking_lot::Mutex;

pub(crate) use crate::turn::lock::{SpinGuard as BriefGuard, SpinLock as BriefLock};

/// Orders what stands before it against what stands after, for threads that do the same the other way round.
/// Operations with `SeqCst` on both sides do so by themselves; loom's do not.
#[inline(always)]
pub(crate) fn model_fence() {}

/// Lets time pass between two looks at a lock that another thread holds. A holder that runs is done within some spins;
/// one that does not gets the processor, by a sleep if need be.
pub(crate) fn pause(looks: u32) {
    const SPINS: u32 = 64;
    const PATIENCE: u32 = SPINS + 64;
    const SLEEP: Duration = Duration::from_micros(50);
    match looks {
        0..SPINS => hint::spin_loop(),
        SPINS..PATIENCE => thread::yield_now(),
        PATIENCE.. => thread::sleep(SLEEP),
    }
}

/// Lanes that a spread slot has: a power of two.
pub(crate) fn lanes() -> usize {
    const MAX: usize = 64;
    // The system reads files to answer.
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| {
        std::thread::available_parallelism().map_or(1, usize::from).next_power_of_two().min(MAX)
    })
}

/// Numbers the threads that ask, one after another: neighbours get different lanes. It concerns threads, which
/// belong to the process and not to a silo.
pub(crate) fn number_thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A `static` of which each thread has its own.
macro_rules! per_thread {
    ($name:ident: $type:ty = $first:expr) => {
        thread_local! {
            static $name: $type = const { $first };
        }
    };
}
pub(crate) use per_thread;
