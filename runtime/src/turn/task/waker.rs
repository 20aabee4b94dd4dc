//! The waker of a turn: a counted pointer to its block.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::task::{RawWaker, RawWakerVTable};

use super::{Header, IDLE, NOTIFIED, RUNNING, SCHEDULED, TaskRef};
use crate::turn::Item;

/// Makes a turn that waits for a wake-up runnable.
pub(super) fn wake(header: NonNull<Header>) {
    // SAFETY: every caller holds a count.
    let state = unsafe { &header.as_ref().state };
    let woken = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
        RUNNING => Some(NOTIFIED),
        IDLE => Some(SCHEDULED),
        _ => None,
    });
    if woken == Ok(IDLE) {
        // SAFETY: as above; a turn that was idle owns its slot, and cannot end before this push is taken up.
        let (task, executor) = unsafe {
            header.as_ref().counts.fetch_add(1, Ordering::Relaxed);
            (TaskRef(header), header.as_ref().slot().executor())
        };
        executor.push(Item::Turn(task));
    }
}

static WAKER: RawWakerVTable = RawWakerVTable::new(waker_clone, waker_wake, waker_wake_by_ref, waker_drop);

pub(super) fn raw_waker(header: NonNull<Header>) -> RawWaker {
    RawWaker::new(header.as_ptr().cast_const().cast(), &WAKER)
}

/// # Safety
/// `data` is a header with at least one count, as in every function below.
unsafe fn waker_clone(data: *const ()) -> RawWaker {
    // SAFETY: a waker's data is its turn's header, kept alive by the waker's own count.
    unsafe {
        let header = NonNull::new_unchecked(data.cast_mut().cast::<Header>());
        header.as_ref().counts.fetch_add(1, Ordering::Relaxed);
        raw_waker(header)
    }
}

unsafe fn waker_wake(data: *const ()) {
    // SAFETY: see `waker_clone`; the count moves into the reference and ends with it.
    let task = unsafe { TaskRef::from_raw(data.cast()) };
    wake(task.0);
}

unsafe fn waker_wake_by_ref(data: *const ()) {
    // SAFETY: see `waker_clone`.
    wake(unsafe { NonNull::new_unchecked(data.cast_mut().cast()) });
}

unsafe fn waker_drop(data: *const ()) {
    // SAFETY: see `waker_clone`; this was the waker's count.
    drop(unsafe { TaskRef::from_raw(data.cast()) });
}
