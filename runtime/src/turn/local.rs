//! What a thread keeps for turns: which turn it is polling, and blocks of memory.
//!
//! Blocks are kept in per-thread lists so that a call allocates nothing in the steady state. One freed on another
//! thread joins that thread's list. Each list is bounded; past the bound a block goes back to the allocator.

use std::cell::Cell;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::Arc;

use tokio::runtime::{self, Handle};
use tokio::task;

use crate::chain::ChainLink;
use crate::turn::INLINE_DEPTH_MAX;
use crate::turn::cell::fetch;
use crate::turn::sync::{number_thread, per_thread};
use crate::turn::task::Header;

per_thread!(LOCAL: Local = Local::new());

/// The thread's own notes. They concern the stack and its memory only; nothing in here belongs to a silo.
pub(crate) struct Local {
    /// The turn being polled; null outside turns.
    pub(crate) current: Cell<*const Header>,
    /// The hook being polled, as the first link of its calls' chains; none outside hooks.
    hook: Cell<Option<Arc<ChainLink>>>,
    /// How many inline turns are being polled on top of each other.
    pub(crate) depth: Cell<u32>,
    /// Counts inline turns, to time one in so many.
    pub(crate) ticks: Cell<u32>,
    /// Messages of the same actor were taken out of its mailbox with the one whose turn runs, and wait behind it.
    pub(crate) others_in_hand: Cell<bool>,
    /// The thread's number, once it is asked for.
    number: Cell<Option<u32>>,
    /// The tokio task last seen here, and the runtime it lives on.
    seen: Cell<Option<(task::Id, runtime::Id)>>,
    // A mailbox's worth of messages stays out of the allocator's hands; altogether at most 2 MiB a thread.
    pub(crate) tiny: FreeList<Tiny, 4_096>,
    pub(crate) small: FreeList<Small, 2_048>,
    pub(crate) medium: FreeList<Medium, 1_024>,
    pub(crate) large: FreeList<Large, 256>,
    pub(crate) huge: FreeList<Huge, 64>,
}

impl Local {
    pub(super) const fn new() -> Self {
        Self {
            current: Cell::new(ptr::null()),
            hook: Cell::new(None),
            depth: Cell::new(0),
            ticks: Cell::new(0),
            others_in_hand: Cell::new(false),
            number: Cell::new(None),
            seen: Cell::new(None),
            tiny: FreeList::new(),
            small: FreeList::new(),
            medium: FreeList::new(),
            large: FreeList::new(),
            huge: FreeList::new(),
        }
    }

    /// Polls a hook. Its calls are not run on its stack, where there is no turn that they could come from.
    pub(crate) fn poll_hook<R>(&self, link: &Arc<ChainLink>, poll: impl FnOnce() -> R) -> R {
        let outer = (self.hook.replace(Some(link.clone())), self.depth.replace(INLINE_DEPTH_MAX));
        let polled = poll();
        self.hook.set(outer.0);
        self.depth.set(outer.1);
        polled
    }

    /// The hook being polled.
    pub(crate) fn hook(&self) -> Option<Arc<ChainLink>> {
        let hook = self.hook.take();
        self.hook.set(hook.clone());
        hook
    }

    /// The thread's number among those that asked.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number.get().unwrap_or_else(|| {
            let number = number_thread();
            self.number.set(Some(number));
            number
        })
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
}

/// Where the thread's notes are until it ends; `None` while it ends.
#[inline(always)]
pub(super) fn address() -> Option<*const Local> {
    LOCAL.try_with(ptr::from_ref).ok()
}

/// A piece of memory for one turn, aligned to two cache lines so that neighbours never share one.
#[repr(C, align(128))]
pub(crate) struct Block<Room> {
    next: Option<Box<Self>>,
    room: MaybeUninit<Room>,
}

impl<Room> Block<Room> {
    pub(crate) const fn new() -> Self {
        Self { next: None, room: MaybeUninit::uninit() }
    }
}

/// The sizes that blocks come in, with the link. A one-way message's header takes 88 bytes, a call's with its reply
/// some 140, and the method's future the rest.
pub(crate) type Tiny = [u8; 128 - size_of::<usize>()];
pub(crate) type Small = [u8; 256 - size_of::<usize>()];
pub(crate) type Medium = [u8; 512 - size_of::<usize>()];
pub(crate) type Large = [u8; 1_024 - size_of::<usize>()];
pub(crate) type Huge = [u8; 4_096 - size_of::<usize>()];

/// Free blocks of one thread and size, at most `MAX`.
pub(crate) struct FreeList<Room, const MAX: u32> {
    head: Cell<Option<Box<Block<Room>>>>,
    length: Cell<u32>,
}

impl<Room, const MAX: u32> FreeList<Room, MAX> {
    const fn new() -> Self {
        Self { head: Cell::new(None), length: Cell::new(0) }
    }

    #[inline(always)]
    pub(crate) fn take(&self) -> Box<Block<Room>> {
        let Some(mut block) = self.head.take() else { return Self::from_system() };
        let next = block.next.take();
        if let Some(next) = &next {
            fetch::to_write(ptr::from_ref(&**next));
        }
        self.set_head(next);
        self.length.set(self.length.get() - 1);
        block
    }

    #[inline(always)]
    pub(crate) fn put(&self, mut block: Box<Block<Room>>) {
        if self.length.get() >= MAX {
            return Self::to_system(block);
        }
        let next = mem::replace(&mut block.next, self.head.take());
        debug_assert!(next.is_none(), "a block in use is in no list");
        mem::forget(next);
        self.set_head(Some(block));
        self.length.set(self.length.get() + 1);
    }

    /// Sets the head, which was taken before: there is nothing to drop, and no code to ask whether there is.
    #[inline(always)]
    fn set_head(&self, head: Option<Box<Block<Room>>>) {
        mem::forget(self.head.replace(head));
    }

    #[cold]
    fn to_system(block: Box<Block<Room>>) {
        drop(block);
    }

    #[cold]
    fn from_system() -> Box<Block<Room>> {
        Box::new(Block::new())
    }
}

impl<Room, const MAX: u32> Drop for FreeList<Room, MAX> {
    /// One by one: a list of thousands would end the stack.
    fn drop(&mut self) {
        let mut next = self.head.take();
        while let Some(mut block) = next {
            next = block.next.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_block_is_the_next_one_given() {
        let list = FreeList::<Small, 4>::new();
        let first = list.take();
        let address = ptr::from_ref(&*first).addr();
        list.put(first);
        assert_eq!(ptr::from_ref(&*list.take()).addr(), address);
    }

    #[test]
    fn free_blocks_are_bounded() {
        let list = FreeList::<Small, 4>::new();
        let blocks: Vec<_> = (0..10).map(|_| list.take()).collect();
        for block in blocks {
            list.put(block);
        }
        assert_eq!(list.length.get(), 4);
    }

    #[test]
    fn a_block_is_as_large_as_its_class() {
        assert_eq!((size_of::<Block<Tiny>>(), size_of::<Block<Small>>()), (128, 256));
        assert_eq!(size_of::<Block<Medium>>(), 512);
        assert_eq!((size_of::<Block<Large>>(), size_of::<Block<Huge>>()), (1_024, 4_096));
    }
}
