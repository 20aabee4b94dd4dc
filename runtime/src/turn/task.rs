//! One turn as a block of memory: header, reply, and the arguments that become the method's future.
//!
//! ```text
//! +---------+----------------------+---------------------------+
//! | Header  | a call's: its reply  | stage: args, then future  |
//! +---------+----------------------+---------------------------+
//! ```
//!
//! Who may touch what:
//!
//! | state       | stage             | reply             | meaning                                        |
//! |-------------|-------------------|-------------------|------------------------------------------------|
//! | `QUEUED`    | nobody            | nobody            | waits in a mailbox                             |
//! | `SCHEDULED` | nobody            | nobody            | holds its turn and waits in a run queue        |
//! | `RUNNING`   | the running thread| the running thread| is being polled                                |
//! | `NOTIFIED`  | the running thread| the running thread| is being polled, and woken meanwhile           |
//! | `IDLE`      | nobody            | nobody            | holds its turn and waits for a wake-up         |
//! | `DONE`      | nobody            | the caller        | has ended                                      |
//! | `CANCELLED` | the mailbox's     | nobody            | was given up before it began                   |
//! |             | drain             |                   |                                                |
//!
//! The block is counted: its caller, the mailbox or pending list, the run queue and every waker hold a count.
//!
//! Through the block go the list that it stands in ([`TaskList`]; who has the list may follow `next`), and the chain of
//! those who wait for the turn ([`walk_stack`]; `origin` is the running thread's, and fixed once another sees the turn).

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable, Waker};

use quark_base::ActorId;

use crate::actor::{Actor, Method};
use crate::chain::{Ancestor, ChainLink, Visit, walk_links};
use crate::context::Cx;
use crate::error::{CallError, Failure, StopCause, Stopped};
use crate::turn::block::with_local;
use crate::turn::cell::{Origin, OwnLink, Place, fetch};
use crate::turn::local::Local;
use crate::turn::sync::{AtomicBool, AtomicU8, AtomicU32, Mutex, Ordering, fence};
use crate::turn::{AnySlot, Item};

pub(super) const QUEUED: u32 = 0;
const SCHEDULED: u32 = 1;
pub(super) const RUNNING: u32 = 2;
const NOTIFIED: u32 = 3;
const IDLE: u32 = 4;
pub(super) const DONE: u32 = 5;
const CANCELLED: u32 = 6;

/// What part of the actor a turn holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Hold {
    /// The exclusive turn.
    Exclusive,
    /// A shared turn.
    Shared,
    /// What a waiting turn of its own chain lent.
    Lent,
    /// A shared turn that its thread's lane counts: only while it is polled inline.
    Lane,
}

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    Pending,
    Done,
}

/// The part of a turn that does not depend on its types.
#[repr(C)]
pub(crate) struct Header {
    pub(super) vtable: &'static VTable,
    pub(super) state: AtomicU32,
    pub(super) counts: AtomicU32,
    pub(super) hold: AtomicU8,
    /// Somebody wants the turn ended; its next poll drops the future. Zero, or a `StopCause`.
    pub(super) abort: AtomicU8,
    /// The caller has stopped waiting, so the chain ends here.
    pub(super) severed: AtomicBool,
    /// Whether the turn keeps its slot alive, since it has begun and waits. Set before the turn can be scheduled,
    /// cleared by the thread that ends it; what it stands for is a count of the slot that `cx` points to.
    pub(super) owns: Cell<bool>,
    /// How many frames of `cx.lend` this turn has open. Touched by the running thread.
    pub(super) lends: AtomicU32,
    /// Where the turn stands in its slot's list of pending turns. Under the mailbox lock.
    pub(super) pending_index: AtomicU32,
    /// The next message. Under the mailbox lock.
    pub(super) next: UnsafeCell<*const Header>,
    pub(super) origin: UnsafeCell<Origin>,
    /// This turn as a link of its callees' chains.
    pub(super) link: OwnLink,
    pub(super) cx: Cx,
}

/// What a one-way message's block begins with. Nobody hears how it ends but the log.
#[repr(C)]
pub(super) struct Told {
    pub(super) header: Header,
}

// Leaves 40 bytes of two cache lines for the method's future.
#[cfg(all(not(quark_loom), target_pointer_width = "64"))]
const _: () = assert!(size_of::<Told>() <= 88);

/// What a call's block begins with, as far as it does not depend on the reply's type.
#[repr(C)]
pub(super) struct Heard {
    pub(super) header: Header,
    pub(super) caller: Mutex<Option<Waker>>,
}

/// What a call's block begins with: what the caller may read without knowing the future's type.
#[repr(C)]
pub(super) struct Asked<T, E> {
    pub(super) header: Header,
    pub(super) caller: Mutex<Option<Waker>>,
    pub(super) reply: UnsafeCell<Option<Result<T, CallError<E>>>>,
}

pub(super) struct VTable {
    pub(super) poll: unsafe fn(NonNull<Header>) -> Polled,
    pub(super) deliver: unsafe fn(NonNull<Header>, &Local) -> Polled,
    pub(super) fail: unsafe fn(NonNull<Header>, Failure),
    pub(super) discard: unsafe fn(NonNull<Header>),
    pub(super) free: unsafe fn(NonNull<Header>),
    pub(super) future_range: unsafe fn(NonNull<Header>) -> (usize, usize),
    pub(super) method: &'static str,
    pub(super) method_index: usize,
    pub(super) from_timer: bool,
    pub(super) exclusive: bool,
    /// Nobody waits for the reply: the block begins with `Told`, else with `Asked`.
    pub(super) one_way: bool,
}

/// A turn's block; `H` is `Told` or `Asked`.
#[repr(C)]
pub(super) struct Task<A: Actor, M: Method<A>, F, R, H> {
    pub(super) head: H,
    pub(super) stage: UnsafeCell<Stage<M, F>>,
    pub(super) run: R,
    pub(super) message: PhantomData<fn(A, M)>,
}

pub(super) enum Stage<M, F> {
    Args(M),
    Future(F),
    Over,
}

/// Calls foreign code, a waker's or a log's, whose panic must not reach an executor that holds others' turns.
pub(super) fn contained(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        // What it says may be what panics: this is as far as it goes.
        mem::forget(payload);
    }
}

/// A counted reference to a turn of any type. Transparent, so that a list's head can be lent as one.
#[repr(transparent)]
pub(crate) struct TaskRef(pub(super) NonNull<Header>);

// SAFETY: arguments, future and reply of a `Task` are `Send` (bounds of `Method`); every other field is atomic,
// behind a lock, or touched by one thread at a time as the tables above say.
unsafe impl Send for TaskRef {}
// SAFETY: as above; a shared `TaskRef` gives access to atomics and locks only.
unsafe impl Sync for TaskRef {}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        self.header().counts.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for TaskRef {
    #[inline]
    fn drop(&mut self) {
        let header = self.header();
        // The last holder needs no atomic decrement: nobody else can make another reference.
        if header.counts.load(Ordering::Acquire) != 1 {
            if header.counts.fetch_sub(1, Ordering::Release) != 1 {
                return;
            }
            fence(Ordering::Acquire);
        }
        // SAFETY: that was the last count.
        unsafe { (header.vtable.free)(self.0) }
    }
}

impl Header {
    /// The slot the turn runs on. `owner`, or whoever polls it the first time, keeps it alive until the turn has
    /// ended; nobody asks after that.
    pub(super) fn slot(&self) -> &dyn AnySlot {
        self.cx.slot().unwrap_or_else(|| unreachable!("a turn's context is made on its slot"))
    }

    #[inline]
    pub(super) fn end_link(&self) {
        if let Some(link) = self.link.get() {
            link.ended.store(true, Ordering::Release);
        }
    }
}

impl TaskRef {
    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: the count that `self` holds keeps the block alive.
        unsafe { self.0.as_ref() }
    }

    /// The turn's identity in chains.
    pub(crate) fn identity(&self) -> usize {
        self.0.as_ptr().addr()
    }

    pub(crate) fn method(&self) -> &'static str {
        self.header().vtable.method
    }

    /// Whether some thread is polling it.
    pub(crate) fn is_being_polled(&self) -> bool {
        matches!(self.header().state.load(Ordering::Relaxed), RUNNING | NOTIFIED)
    }

    /// Whether the actor's own timer sent it.
    pub(crate) fn is_from_timer(&self) -> bool {
        self.header().vtable.from_timer
    }

    pub(crate) fn method_index(&self) -> usize {
        self.header().vtable.method_index
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.header().vtable.exclusive
    }

    pub(crate) fn is_one_way(&self) -> bool {
        self.header().vtable.one_way
    }

    pub(crate) fn has_lent(&self) -> bool {
        self.header().lends.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn lends(&self) -> &AtomicU32 {
        &self.header().lends
    }

    /// The slot this turn runs on, unless it has ended.
    pub(super) fn owner(&self) -> Option<Arc<dyn AnySlot>> {
        // Asked by the executor that is about to run the turn; `owns` was written before the turn could be scheduled,
        // and is cleared only by the thread that runs it.
        self.header().owns.get().then(|| self.slot().shared())
    }

    pub(crate) fn hold(&self) -> Hold {
        match self.header().hold.load(Ordering::Relaxed) {
            0 => Hold::Exclusive,
            1 => Hold::Shared,
            2 => Hold::Lent,
            _ => Hold::Lane,
        }
    }

    /// The turn leaves its lane and is counted in the word from here on. Before another thread can see it.
    pub(crate) fn leave_lane(&self) {
        self.header().hold.store(Hold::Shared as u8, Ordering::Relaxed);
    }

    pub(crate) fn pending_index(&self) -> &AtomicU32 {
        &self.header().pending_index
    }

    /// The slot this turn runs on; valid for as long as the turn has not ended.
    pub(super) fn slot(&self) -> &dyn AnySlot {
        self.header().slot()
    }

    /// A queued turn begins: it now holds `hold`. False if its caller has given it up; then it is emptied here.
    pub(crate) fn begin(&self, hold: Hold) -> bool {
        let header = self.header();
        header.hold.store(hold as u8, Ordering::Relaxed);
        if header.vtable.one_way {
            // Nobody holds a ticket, so nobody can give it up.
            header.state.store(RUNNING, Ordering::Relaxed);
            return true;
        }
        let begun =
            header.state.compare_exchange(QUEUED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !begun {
            // SAFETY: the only other way out of `QUEUED` is `CANCELLED`, and then the stage is ours.
            unsafe { (header.vtable.discard)(self.0) };
            self.forget_slot();
        }
        begun
    }

    /// A queued turn gets its hold and waits in the run queue for its first poll.
    pub(crate) fn begin_scheduled(&self, hold: Hold) -> bool {
        let begun = self.begin(hold);
        if begun {
            self.header().state.store(SCHEDULED, Ordering::Release);
        }
        begun
    }

    /// The executor has taken a scheduled turn out of its run queue.
    pub(crate) fn resume(&self) {
        self.header().state.store(RUNNING, Ordering::Relaxed);
    }

    /// Polls once. The caller's thread is the one running the turn (`RUNNING`).
    pub(crate) fn poll(&self) -> Polled {
        let header = self.header();
        let cause = match header.abort.load(Ordering::Acquire) {
            0 => None,
            cause if cause == StopCause::Torn as u8 => Some(StopCause::Torn),
            _ => Some(StopCause::Silo),
        };
        if let Some(cause) = cause {
            let details = Stopped { actor: self.slot().id(), method: self.method(), cause };
            self.fail_running(CallError::Stopped(Box::new(details)));
            return Polled::Done;
        }
        // SAFETY: the state is `RUNNING`, and this thread is the one that runs.
        unsafe { (header.vtable.poll)(self.0) }
    }

    /// The same with the thread's note of the current turn set.
    pub(crate) fn poll_as_current(&self, local: &Local) -> Polled {
        let outer = local.current.replace(self.0.as_ptr());
        let depth = local.depth.replace(0);
        let polled = self.poll();
        local.current.set(outer);
        local.depth.set(depth);
        polled
    }

    /// Begins a one-way message and polls it, with the thread's note of the current turn set. Ended, it is let go of
    /// altogether; else it is given back. Nobody has asked it to end: whom nobody has seen begin, nobody aborts.
    #[inline(always)]
    pub(crate) fn deliver(self, hold: Hold, local: &Local) -> Option<Self> {
        let turn = ManuallyDrop::new(self).0;
        // SAFETY: the count that was `self`'s keeps the block alive. The message has left its queue and nobody holds a
        // ticket, so it is this thread's to run; `deliver` uses the count up if it ends.
        let polled = unsafe {
            let header = turn.as_ref();
            debug_assert!(header.vtable.one_way, "a caller would wait for the reply");
            header.hold.store(hold as u8, Ordering::Relaxed);
            header.state.store(RUNNING, Ordering::Relaxed);
            (header.vtable.deliver)(turn, local)
        };
        (polled == Polled::Pending).then(|| Self(turn))
    }

    /// Ends a running turn with `failure` instead of polling it.
    pub(crate) fn fail_running(&self, failure: Failure) {
        // SAFETY: the state is `RUNNING` on this thread, so stage and reply are ours.
        unsafe { (self.header().vtable.fail)(self.0, failure) };
    }

    /// The poll ended and the turn goes on. True if it was woken meanwhile: the caller must schedule it.
    pub(crate) fn pause(&self) -> bool {
        let state = &self.header().state;
        if state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return false;
        }
        state.store(SCHEDULED, Ordering::Release);
        true
    }

    /// The turn has ended and its hold is let go: publishes the reply and wakes the caller.
    pub(crate) fn finish(&self) {
        let header = self.header();
        header.end_link();
        // We are the running thread until the next line says otherwise. The slot is let go last of all, once nothing
        // here refers to it.
        let owner = self.take_owner();
        header.state.store(DONE, Ordering::Release);
        if let Some(caller) = self.caller() {
            let waker = caller.lock().take();
            if let Some(waker) = waker {
                contained(|| waker.wake());
            }
        }
        drop(owner);
    }

    /// Ends a turn that never began (it is in no queue any more) with `failure`.
    pub(crate) fn reject(&self, failure: Failure) {
        let header = self.header();
        if header.state.compare_exchange(QUEUED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.fail_running(failure);
            self.finish();
        } else {
            // SAFETY: given up by its caller, and out of the queue: the stage is ours.
            unsafe { (header.vtable.discard)(self.0) };
            self.forget_slot();
        }
    }

    /// Asks a turn that is under way to end without being polled again.
    pub(crate) fn abort(&self, cause: StopCause) {
        self.abort_unless_woken(cause);
        wake(self.0);
    }

    /// The same for a turn that is about to be polled anyway.
    pub(crate) fn abort_unless_woken(&self, cause: StopCause) {
        self.header().abort.store(cause as u8, Ordering::Release);
    }

    /// The turn has ended, as far as its callees' chains are concerned.
    pub(crate) fn end_chain(&self) {
        self.header().end_link();
    }

    /// The caller has stopped waiting. True if the turn had not begun and never will.
    pub(crate) fn abandon(&self) -> bool {
        let header = self.header();
        header.severed.store(true, Ordering::Release);
        // Pairs with the fence in `link_of`: one of the two sees what the other wrote.
        fence(Ordering::SeqCst);
        if let Some(link) = header.link.get() {
            link.severed.store(true, Ordering::Release);
        }
        header.state.compare_exchange(QUEUED, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Makes the turn independent of the stack it was made on: its chain is written down. Only before another thread
    /// can see the turn.
    #[inline(always)]
    pub(crate) fn write_down_chain(&self) {
        if self.has_callers() {
            self.write_down_callers();
        }
    }

    #[inline(never)]
    fn write_down_callers(&self) {
        // SAFETY: no other thread knows the turn yet (it is new, or in its first poll, which `pause` ends).
        unsafe {
            let origin = &mut *self.header().origin.get();
            if let Place::Stack(caller) = origin.place() {
                *origin = Origin::link(link_of(caller));
            }
        }
    }

    /// Whether a turn waits for this one. As for [`walk_callers`](Self::walk_callers).
    #[inline(always)]
    pub(crate) fn has_callers(&self) -> bool {
        // SAFETY: as there.
        !unsafe { &*self.header().origin.get() }.is_none()
    }

    /// Lets a turn that will wait keep its slot alive; before that its queue's slot does. Only by the thread that runs
    /// the turn, or is about to schedule it for the first time.
    pub(crate) fn own(&self, slot: impl FnOnce() -> Arc<dyn AnySlot>) {
        if !self.header().owns.replace(true) {
            // Kept as the count that `owns` stands for.
            mem::forget(slot());
        }
    }

    /// The turn's hold on its slot, if it has one. By the thread that runs the turn, or takes it out of its last queue.
    fn take_owner(&self) -> Option<Arc<dyn AnySlot>> {
        let slot = self.header().owns.replace(false).then(|| self.header().cx.turn_slot()).flatten()?;
        // SAFETY: the context's pointer came from an `Arc`, and `own` left a count of it.
        Some(unsafe { Arc::from_raw(slot.as_ptr().cast_const()) })
    }

    fn forget_slot(&self) {
        // The turn has left every queue without beginning, so this thread is its only user but for a caller, who does
        // not touch what it owns.
        drop(self.take_owner());
    }

    /// Where its caller waits, if it has one.
    pub(super) fn caller(&self) -> Option<&Mutex<Option<Waker>>> {
        // SAFETY: a turn that is not one-way begins with `Asked`, of which `Heard` is the beginning.
        (!self.is_one_way()).then(|| unsafe { &self.0.cast::<Heard>().as_ref().caller })
    }

    /// Visits those who wait for this turn, innermost first.
    pub(crate) fn walk_callers(&self, visit: Visit<'_>) {
        // SAFETY: called by the thread that submits the turn, or under the mailbox lock, where `origin` does not
        // change any more.
        match unsafe { &*self.header().origin.get() }.place() {
            Place::Nowhere => {}
            // SAFETY: a turn on the stack below us is alive.
            Place::Stack(caller) => unsafe { walk_stack(caller, visit) },
            Place::Link(link) => walk_links(Some(&link), visit),
        }
    }

    /// Whether `address` lies in the memory of the method's future itself, not in something it boxed.
    pub(crate) fn holds_address(&self, address: usize) -> bool {
        // SAFETY: called by the turn itself while it is polled; only addresses are computed.
        let (start, end) = unsafe { (self.header().vtable.future_range)(self.0) };
        (start..end).contains(&address)
    }

    /// Visits the turn that is being polled on this thread and those who wait for it, innermost first; while a hook is,
    /// that.
    pub(crate) fn walk_current(visit: Visit<'_>) {
        let current = with_local(|local| local.current.get());
        if current.is_null() {
            return walk_links(with_local(Local::hook).as_ref(), visit);
        }
        // SAFETY: the current turn is being polled on this thread.
        unsafe { walk_stack(current, visit) };
    }

    /// Whether the turn that is being polled on this thread, or one that waits for it, runs on `actor`.
    pub(crate) fn chain_passes(actor: &ActorId) -> bool {
        let mut passes = false;
        Self::walk_current(&mut |_, slot| {
            passes = slot.id() == *actor;
            !passes
        });
        passes
    }

    /// The turn that is being polled on this thread, if it is the one that `cx` belongs to.
    pub(crate) fn current(identity: usize) -> Option<TaskRef> {
        let current = with_local(|local| local.current.get());
        let header = NonNull::new(current.cast_mut())?;
        (header.as_ptr().addr() == identity).then(|| {
            // SAFETY: the current turn is alive: it is being polled below us on this stack.
            unsafe { header.as_ref() }.counts.fetch_add(1, Ordering::Relaxed);
            TaskRef(header)
        })
    }
}

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

/// Writes down the turn at `turn` and those below it on the stack.
///
/// # Safety
/// `turn` is null, or being polled on this thread further down the stack.
pub(super) unsafe fn link_of(turn: *const Header) -> Option<Arc<ChainLink>> {
    let mut missing = Vec::new();
    let mut next = turn;
    let mut link = loop {
        if next.is_null() {
            break None;
        }
        // SAFETY: stack turns are alive, and so are their slots.
        let header = unsafe { &*next };
        if let Some(link) = header.link.counted() {
            break Some(link);
        }
        missing.push(header);
        // SAFETY: `origin` of a running turn belongs to the thread that runs it, which is this one.
        match unsafe { &*header.origin.get() }.place() {
            Place::Nowhere => break None,
            Place::Stack(caller) => next = caller,
            Place::Link(link) => break Some(link),
        }
    };
    for header in missing.into_iter().rev() {
        let slot = header.slot().shared();
        let here = Arc::new(ChainLink {
            turn: ptr::from_ref(header).addr(),
            slot,
            exclusive: header.vtable.exclusive,
            caller: link,
            ended: AtomicBool::new(false),
            severed: AtomicBool::new(false),
        });
        // Only the thread that runs a turn writes it down, so the cell is still empty.
        header.link.set(here.clone());
        // After the link is there to be found, so that a caller who leaves now is not missed by both: pairs with
        // the fence in `abandon`.
        fence(Ordering::SeqCst);
        here.severed.fetch_or(header.severed.load(Ordering::Acquire), Ordering::AcqRel);
        link = Some(here);
    }
    link
}

/// Visits the turn at `turn` and those who wait for it.
///
/// # Safety
/// As for [`link_of`].
pub(super) unsafe fn walk_stack(turn: *const Header, visit: Visit<'_>) {
    let mut next = turn;
    while !next.is_null() {
        // SAFETY: stack turns are alive, and so are their slots.
        let header = unsafe { &*next };
        let slot = header.slot();
        let place = ptr::from_ref(slot).cast::<()>().addr();
        let ancestor = Ancestor { turn: next.addr(), slot: place, exclusive: header.vtable.exclusive };
        if !visit(ancestor, slot) || header.severed.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: `origin` of a running turn belongs to this thread.
        match unsafe { &*header.origin.get() }.place() {
            Place::Nowhere => return,
            Place::Stack(caller) => next = caller,
            Place::Link(link) => return walk_links(Some(&link), visit),
        }
    }
}

/// Makes a turn that waits for a wake-up runnable.
fn wake(header: NonNull<Header>) {
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
    let task = unsafe { TaskRef(NonNull::new_unchecked(data.cast_mut().cast())) };
    wake(task.0);
}

unsafe fn waker_wake_by_ref(data: *const ()) {
    // SAFETY: see `waker_clone`.
    wake(unsafe { NonNull::new_unchecked(data.cast_mut().cast()) });
}

unsafe fn waker_drop(data: *const ()) {
    // SAFETY: see `waker_clone`; this was the waker's count.
    drop(unsafe { TaskRef(NonNull::new_unchecked(data.cast_mut().cast())) });
}
