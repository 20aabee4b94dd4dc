//! What a thread keeps for turns: which turn it is polling, and blocks of memory.
//!
//! Blocks are kept in per-thread lists so that a call allocates nothing in the steady state. One freed on another
//! thread joins that thread's list. Each list is bounded; past the bound a block goes back to the allocator.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::{self, NonNull};

use tokio::runtime::{self, Handle};
use tokio::task;

use crate::turn::task::Header;

thread_local! {
    static LOCAL: Local = const { Local::new() };
}

/// The thread's own notes. They concern the stack and its memory only; nothing in here belongs to a silo.
pub(crate) struct Local {
    /// The turn being polled; null outside turns.
    pub(crate) current: Cell<*const Header>,
    /// How many inline turns are being polled on top of each other.
    pub(crate) depth: Cell<u32>,
    /// Counts inline turns, to time one in so many.
    pub(crate) ticks: Cell<u32>,
    /// The tokio task last seen here, and the runtime it lives on.
    seen: Cell<Option<(task::Id, runtime::Id)>>,
    pool: Pool,
}

impl Local {
    const fn new() -> Self {
        Self {
            current: Cell::new(ptr::null()),
            depth: Cell::new(0),
            ticks: Cell::new(0),
            seen: Cell::new(None),
            pool: Pool::new(),
        }
    }

    /// Whether the code that runs now runs inside the tokio runtime `home`.
    ///
    /// Asking tokio for its current handle clones a counted pointer that all threads share. A task's id is free
    /// to read, unique in the process, and a task never changes its runtime; so the answer is kept per task.
    #[inline]
    pub(crate) fn runs_in(&self, home: runtime::Id) -> bool {
        let task = task::try_id();
        if let (Some(task), Some((seen, runtime))) = (task, self.seen.get())
            && task == seen
        {
            return runtime == home;
        }
        let Ok(handle) = Handle::try_current() else { return false };
        if let Some(task) = task {
            self.seen.set(Some((task, handle.id())));
        }
        handle.id() == home
    }

    #[inline]
    pub(crate) fn allocate(&self, layout: Layout) -> NonNull<u8> {
        self.pool.allocate(layout)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// As for the free function [`free`].
    #[inline]
    pub(crate) unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise. Every block of a class is alike, whatever its thread.
        unsafe { self.pool.free(block, layout) };
    }
}

/// Calls `use_local` with the thread's notes; on a thread that is ending, with empty ones.
#[inline]
pub(crate) fn with<R>(use_local: impl FnOnce(&Local) -> R) -> R {
    match LOCAL.try_with(ptr::from_ref) {
        // SAFETY: a thread's notes stay where they are until the thread ends, which it does not do in here.
        Ok(local) => use_local(unsafe { &*local }),
        Err(_) => use_local(&Local::new()),
    }
}

/// Takes a block back.
///
/// # Safety
/// `block` came from [`Local::allocate`] on some thread with this very `layout`, and nobody uses it any more.
#[inline]
pub(crate) unsafe fn free(block: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's promise is the callee's demand. Every block of a class is alike, whatever its thread.
    with(|local| unsafe { local.pool.free(block, layout) });
}

/// Block sizes in bytes. A turn's header takes some 200 of them, its future the rest.
const CLASSES: [usize; 4] = [256, 512, 1024, 4096];

/// Alignment of every pooled block: two cache lines, so that neighbours never share one.
const BLOCK_ALIGN: usize = 128;

/// Free blocks kept per class and thread. A mailbox's worth of small messages stays out of the allocator's hands;
/// altogether at most 2 MiB a thread.
const FREE_BLOCKS_MAX: [u32; CLASSES.len()] = [4_096, 1_024, 256, 64];

/// Free blocks of one thread.
struct Pool {
    lists: [FreeList; CLASSES.len()],
}

struct FreeList {
    head: Cell<*mut u8>,
    length: Cell<u32>,
}

impl Pool {
    const fn new() -> Self {
        Self {
            lists: [const { FreeList { head: Cell::new(ptr::null_mut()), length: Cell::new(0) } };
                CLASSES.len()],
        }
    }

    /// Memory for `layout`. The caller owes it back to [`free`](Self::free), on any thread, with that layout.
    #[inline]
    fn allocate(&self, layout: Layout) -> NonNull<u8> {
        let Some(class) = class_of(layout) else { return from_system(layout) };
        let list = &self.lists[class];
        let head = list.head.get();
        if head.is_null() {
            return from_system(block_layout(class));
        }
        // SAFETY: a non-null head is a free block that `free` put there and nobody else holds; its first word is
        // the next block of the list.
        let next = unsafe { head.cast::<*mut u8>().read() };
        list.head.set(next);
        list.length.set(list.length.get() - 1);
        // SAFETY: checked above.
        unsafe { NonNull::new_unchecked(head) }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` came from `allocate` with this very `layout`, and nobody uses it any more.
    #[inline]
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: `allocate` took a block without a class from the system with this layout.
            return unsafe { dealloc(block.as_ptr(), layout) };
        };
        let list = &self.lists[class];
        if list.length.get() >= FREE_BLOCKS_MAX[class] {
            // SAFETY: a block of a class has that class's layout.
            return unsafe { dealloc(block.as_ptr(), block_layout(class)) };
        }
        // SAFETY: the block is ours, and large and aligned enough for a pointer.
        unsafe { block.as_ptr().cast::<*mut u8>().write(list.head.get()) };
        list.head.set(block.as_ptr());
        list.length.set(list.length.get() + 1);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (class, list) in self.lists.iter().enumerate() {
            let mut block = list.head.replace(ptr::null_mut());
            while !block.is_null() {
                // SAFETY: as in `allocate`: a free block that starts with the next one's address.
                let next = unsafe { block.cast::<*mut u8>().read() };
                // SAFETY: it has its class's layout, and left the list with this step.
                unsafe { dealloc(block, block_layout(class)) };
                block = next;
            }
        }
    }
}

#[inline]
const fn class_of(layout: Layout) -> Option<usize> {
    if layout.align() > BLOCK_ALIGN {
        return None;
    }
    let mut class = 0;
    while class < CLASSES.len() {
        if layout.size() <= CLASSES[class] {
            return Some(class);
        }
        class += 1;
    }
    None
}

const fn block_layout(class: usize) -> Layout {
    match Layout::from_size_align(CLASSES[class], BLOCK_ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("every class is a valid layout"),
    }
}

#[cold]
fn from_system(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here has size zero: a turn's header alone is larger.
    let block = unsafe { alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_block_is_the_next_one_given() {
        let (pool, layout) = (Pool::new(), Layout::new::<[u64; 40]>());
        let first = pool.allocate(layout);
        // SAFETY: `first` came from this pool with this layout.
        unsafe { pool.free(first, layout) };
        assert_eq!(pool.allocate(layout), first);
        // SAFETY: as above.
        unsafe { pool.free(first, layout) };
    }

    #[test]
    fn free_blocks_are_bounded() {
        let (pool, layout) = (Pool::new(), Layout::new::<[u64; 8]>());
        let blocks: Vec<_> = (0..FREE_BLOCKS_MAX[0] + 10).map(|_| pool.allocate(layout)).collect();
        for block in blocks {
            // SAFETY: each came from this pool with this layout.
            unsafe { pool.free(block, layout) };
        }
        assert_eq!(pool.lists[0].length.get(), FREE_BLOCKS_MAX[0]);
    }

    #[test]
    fn blocks_past_the_classes_come_from_the_system() {
        let (pool, layout) = (Pool::new(), Layout::new::<[u64; 4096]>());
        let block = pool.allocate(layout);
        // SAFETY: it came from this pool with this layout.
        unsafe { pool.free(block, layout) };
        assert!(pool.lists.iter().all(|list| list.length.get() == 0));
    }
}
