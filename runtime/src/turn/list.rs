//! Turns in a row, as a mailbox and whoever empties it have them.

use std::mem::{self, ManuallyDrop};
use std::ptr::{self, NonNull};

use crate::turn::task::Header;
use crate::turn::{TaskRef, fetch};

/// Turns in a row, linked through their own blocks: what a mailbox keeps its messages in. A turn stands in one list
/// at most, and whoever has the list may follow its links.
pub(crate) struct TaskList {
    head: *const Header,
    tail: *const Header,
}

// SAFETY: head and tail are counted references to turns (see `TaskRef`), whose links belong to the list.
unsafe impl Send for TaskList {}

impl TaskList {
    pub(crate) const fn new() -> Self {
        Self { head: ptr::null(), tail: ptr::null() }
    }

    pub(crate) fn first(&self) -> Option<&TaskRef> {
        // SAFETY: a `TaskRef` is, transparently, a non-null pointer to a header, which is what a non-null head is; `push`
        // left its count with the list.
        (!self.head.is_null()).then(|| unsafe { &*ptr::from_ref(&self.head).cast::<TaskRef>() })
    }

    pub(crate) fn push(&mut self, turn: TaskRef) {
        let turn = ManuallyDrop::new(turn).0.as_ptr().cast_const();
        if self.tail.is_null() {
            self.head = turn;
        } else {
            // SAFETY: the tail is in this list, so its link is ours.
            unsafe { *(*self.tail).next.get() = turn };
        }
        self.tail = turn;
    }

    /// Takes the exclusive turns at the head out, `most` of them at most, and says how many.
    pub(crate) fn take_exclusive(&mut self, most: u32) -> (Self, u32) {
        let (mut last, mut next, mut taken) = (ptr::null(), self.head, 0);
        while taken < most && !next.is_null() {
            // SAFETY: it is in this list, which holds a count of it.
            let header = unsafe { &*next };
            if !header.vtable.exclusive {
                break;
            }
            fetch::second_line(next);
            last = next;
            // SAFETY: it is in this list, so its link is ours.
            next = unsafe { *header.next.get() };
            taken += 1;
        }
        if last.is_null() {
            return (Self::new(), 0);
        }
        // SAFETY: as above; the list ends here.
        unsafe { *(*last).next.get() = ptr::null() };
        let first = mem::replace(&mut self.head, next);
        if next.is_null() {
            self.tail = ptr::null();
        }
        (Self { head: first, tail: last }, taken)
    }

    /// Puts those of `front` before its own.
    pub(crate) fn prepend(&mut self, mut front: Self) {
        if front.tail.is_null() {
            return;
        }
        // SAFETY: the tail is in that list, so its link is ours.
        unsafe { *(*front.tail).next.get() = self.head };
        if self.tail.is_null() {
            self.tail = front.tail;
        }
        self.head = mem::replace(&mut front.head, ptr::null());
        front.tail = ptr::null();
    }

    pub(crate) fn pop(&mut self) -> Option<TaskRef> {
        let first = NonNull::new(self.head.cast_mut())?;
        // SAFETY: it is in this list, so its link is ours; its count moves from the list into the reference.
        self.head = unsafe { mem::replace(&mut *first.as_ref().next.get(), ptr::null()) };
        if self.head.is_null() {
            self.tail = ptr::null();
        }
        Some(TaskRef(first))
    }
}

impl Drop for TaskList {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}
