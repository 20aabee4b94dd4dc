//! One turn as a block of memory: header, reply, and the arguments that become the method's future.
//!
//! ```text
//! +---------+----------------------+---------------------------+
//! | Header  | reply                | stage: args, then future  |
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

use std::alloc::Layout;
use std::any::Any;
use std::cell::UnsafeCell;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use parking_lot::Mutex;

use crate::actor::{Actor, Method};
use crate::chain::{Ancestor, ChainLink, Visit, walk_links};
use crate::context::{Cx, Request};
use crate::error::{CallError, Failure, Panicked, Stopped};
use crate::turn::local::{self, Local};
use crate::turn::{AnySlot, Item, Slot, TurnMode};

const QUEUED: u32 = 0;
const SCHEDULED: u32 = 1;
const RUNNING: u32 = 2;
const NOTIFIED: u32 = 3;
const IDLE: u32 = 4;
const DONE: u32 = 5;
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
}

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    Pending,
    Done { panicked: bool },
}

/// Where a turn's chain goes on.
enum Origin {
    /// Nobody waits for it, or nobody that is an actor.
    None,
    /// The turn on whose stack this one is being polled for the first time.
    Stack(*const Header),
    /// Written down.
    Link(Arc<ChainLink>),
}

/// The part of a turn that does not depend on its types.
#[repr(C)]
pub(crate) struct Header {
    vtable: &'static VTable,
    state: AtomicU32,
    counts: AtomicU32,
    hold: AtomicU8,
    /// Somebody wants the turn ended; its next poll drops the future.
    abort: AtomicBool,
    /// The caller has stopped waiting, so the chain ends here.
    severed: AtomicBool,
    /// One-way: nobody will read the reply.
    one_way: bool,
    /// How many frames of `cx.lend` this turn has open. Touched by the running thread.
    lends: AtomicU32,
    /// Where the turn stands in its slot's list of pending turns. Under the mailbox lock.
    pending_index: AtomicU32,
    /// The next message. Under the mailbox lock.
    pub(super) next: UnsafeCell<*const Header>,
    caller: Mutex<Option<Waker>>,
    /// Keeps the slot alive once the turn has outlived its first poll or was queued. Written before the turn can
    /// be seen by another thread, cleared by the thread that ends it.
    owner: UnsafeCell<Option<Arc<dyn AnySlot>>>,
    origin: UnsafeCell<Origin>,
    /// This turn as a link of its callees' chains.
    link: OnceLock<Arc<ChainLink>>,
    cx: Cx,
}

struct VTable {
    poll: unsafe fn(NonNull<Header>) -> Polled,
    fail: unsafe fn(NonNull<Header>, Failure),
    discard: unsafe fn(NonNull<Header>),
    report: unsafe fn(NonNull<Header>),
    free: unsafe fn(NonNull<Header>),
    future_range: unsafe fn(NonNull<Header>) -> (usize, usize),
    method: &'static str,
    method_index: usize,
    exclusive: bool,
}

/// What the caller may read without knowing the future's type.
#[repr(C)]
struct Replied<T, E> {
    header: Header,
    reply: UnsafeCell<Option<Result<T, CallError<E>>>>,
}

#[repr(C)]
struct Task<A: Actor, M: Method<A>, F, R> {
    replied: Replied<M::Ok, M::Error>,
    stage: UnsafeCell<Stage<M, F>>,
    run: R,
    actor: PhantomData<fn(A)>,
}

enum Stage<M, F> {
    Args(M),
    Future(F),
    Over,
}

/// A counted reference to a turn of any type.
pub(crate) struct TaskRef(NonNull<Header>);

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
    /// The slot the turn runs on. `owner`, or the caller of the first poll, keeps it alive until the turn has
    /// ended; nobody asks after that.
    fn slot(&self) -> &dyn AnySlot {
        self.cx.slot().unwrap_or_else(|| unreachable!("a turn's context is made on its slot"))
    }

    #[inline]
    fn end_link(&self) {
        if let Some(link) = self.link.get() {
            link.ended.store(true, Ordering::Release);
        }
    }
}

impl TaskRef {
    #[inline]
    fn header(&self) -> &Header {
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

    pub(crate) fn method_index(&self) -> usize {
        self.header().vtable.method_index
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.header().vtable.exclusive
    }

    pub(crate) fn has_lent(&self) -> bool {
        self.header().lends.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn lends(&self) -> &AtomicU32 {
        &self.header().lends
    }

    /// The slot this turn runs on, unless it has ended.
    pub(super) fn owner(&self) -> Option<Arc<dyn AnySlot>> {
        // SAFETY: asked by the executor that is about to run the turn; `owner` was written before the turn could
        // be scheduled, and is cleared only by the thread that runs it.
        unsafe { (*self.header().owner.get()).clone() }
    }

    pub(crate) fn hold(&self) -> Hold {
        match self.header().hold.load(Ordering::Relaxed) {
            0 => Hold::Exclusive,
            1 => Hold::Shared,
            _ => Hold::Lent,
        }
    }

    pub(crate) fn pending_index(&self) -> &AtomicU32 {
        &self.header().pending_index
    }

    /// The mailbox's link to the next message; the caller holds the mailbox lock.
    pub(crate) fn next(&self) -> &UnsafeCell<*const Header> {
        &self.header().next
    }

    pub(crate) fn into_raw(self) -> *const Header {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// # Safety
    /// `raw` came from `into_raw`, once.
    pub(crate) unsafe fn from_raw(raw: *const Header) -> Self {
        // SAFETY: `into_raw` gave a pointer that was not null.
        Self(unsafe { NonNull::new_unchecked(raw.cast_mut()) })
    }

    /// The slot this turn runs on; valid for as long as the turn has not ended.
    fn slot(&self) -> &dyn AnySlot {
        self.header().slot()
    }

    /// A queued turn begins: it now holds `hold`. False if its caller has given it up; then it is emptied here.
    pub(crate) fn begin(&self, hold: Hold) -> bool {
        let header = self.header();
        header.hold.store(hold as u8, Ordering::Relaxed);
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
        if header.abort.load(Ordering::Acquire) {
            let stopped =
                CallError::Stopped(Box::new(Stopped { actor: self.slot().id(), method: self.method() }));
            self.fail_running(stopped);
            return Polled::Done { panicked: false };
        }
        // SAFETY: the state is `RUNNING`, and this thread is the one that runs.
        unsafe { (header.vtable.poll)(self.0) }
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
        if header.one_way {
            // SAFETY: the turn has ended on this thread, and nobody else reads the reply of a one-way message.
            unsafe { (header.vtable.report)(self.0) };
        }
        header.end_link();
        // SAFETY: we are the running thread until the next line says otherwise. The slot is let go last of all, once nothing here refers to it.
        let owner = unsafe { (*header.owner.get()).take() };
        header.state.store(DONE, Ordering::Release);
        let waker = header.caller.lock().take();
        if let Some(waker) = waker {
            waker.wake();
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
    pub(crate) fn abort(&self) {
        self.abort_unless_woken();
        wake(self.0);
    }

    /// The same for a turn that is about to be polled anyway.
    pub(crate) fn abort_unless_woken(&self) {
        self.header().abort.store(true, Ordering::Release);
    }

    /// The caller has stopped waiting. True if the turn had not begun and never will.
    pub(crate) fn abandon(&self) -> bool {
        let header = self.header();
        header.severed.store(true, Ordering::Release);
        if let Some(link) = header.link.get() {
            link.severed.store(true, Ordering::Release);
        }
        header.state.compare_exchange(QUEUED, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Makes the turn independent of the stack it was made on: it owns its slot, and its chain is written down.
    /// Only before another thread can see the turn.
    pub(crate) fn settle_down(&self, owner: Arc<dyn AnySlot>) {
        let header = self.header();
        // SAFETY: no other thread knows the turn yet (it is new, or in its first poll, which `pause` ends).
        unsafe {
            *header.owner.get() = Some(owner);
            let origin = &mut *header.origin.get();
            if let Origin::Stack(caller) = *origin {
                *origin = link_of(caller).map_or(Origin::None, Origin::Link);
            }
        }
    }

    fn forget_slot(&self) {
        // SAFETY: the turn has left every queue without beginning, so this thread is its only user but for a
        // caller, who does not touch `owner`.
        unsafe { *self.header().owner.get() = None };
    }

    /// Visits those who wait for this turn, innermost first.
    pub(crate) fn walk_callers(&self, visit: Visit<'_>) {
        // SAFETY: called by the thread that submits the turn, or under the mailbox lock, where `origin` does not
        // change any more.
        match unsafe { &*self.header().origin.get() } {
            Origin::None => {}
            // SAFETY: a turn on the stack below us is alive.
            Origin::Stack(caller) => unsafe { walk_stack(*caller, visit) },
            Origin::Link(link) => walk_links(Some(link), visit),
        }
    }

    /// Whether `address` lies in the memory of the method's future itself, not in something it boxed.
    pub(crate) fn holds_address(&self, address: usize) -> bool {
        // SAFETY: called by the turn itself while it is polled; only addresses are computed.
        let (start, end) = unsafe { (self.header().vtable.future_range)(self.0) };
        (start..end).contains(&address)
    }

    /// The turn that is being polled on this thread, if it is the one that `cx` belongs to.
    pub(crate) fn current(identity: usize) -> Option<TaskRef> {
        let current = local::with(|local| local.current.get());
        let header = NonNull::new(current.cast_mut())?;
        (header.as_ptr().addr() == identity).then(|| {
            // SAFETY: the current turn is alive: it is being polled below us on this stack.
            unsafe { header.as_ref() }.counts.fetch_add(1, Ordering::Relaxed);
            TaskRef(header)
        })
    }
}

/// A caller's hold on the reply.
pub(crate) struct Ticket<T, E>(TaskRef, PhantomData<fn() -> (T, E)>);

impl<T, E> Ticket<T, E> {
    /// The reply, or a promise to wake `waker` when it is there.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<T, CallError<E>>> {
        let header = self.0.header();
        if header.state.load(Ordering::Acquire) != DONE {
            let mut caller = header.caller.lock();
            match &mut *caller {
                Some(known) if known.will_wake(waker) => {}
                unknown => *unknown = Some(waker.clone()),
            }
            drop(caller);
            // The turn may have ended before the waker was there to be found.
            if header.state.load(Ordering::Acquire) != DONE {
                return Poll::Pending;
            }
        }
        let replied = self.0.0.cast::<Replied<T, E>>();
        // SAFETY: a ticket is made with its task's own reply types; `DONE` gives the reply to the caller.
        let reply = unsafe { (*replied.as_ref().reply.get()).take() };
        match reply {
            Some(reply) => Poll::Ready(reply),
            None => Poll::Pending,
        }
    }

    /// Stops waiting. True if the turn had not begun and never will.
    pub(crate) fn abandon(&self) -> bool {
        self.0.abandon()
    }
}

/// How the first poll on the caller's own thread ended. But for the last, nobody else has seen the turn.
pub(crate) enum Inline<T, E> {
    /// The method answered.
    Done(T),
    /// The method returned its error.
    Failed(E),
    /// The method panicked.
    Panicked(Box<Panicked>),
    /// The turn goes on; the caller must hand it over.
    Pending(TaskRef, Ticket<T, E>),
}

/// Polls `message` on `slot`, whose turn this thread holds, in a block of this thread's pool.
#[inline(always)]
pub(crate) fn run_inline<A: Actor, M: Method<A>>(
    local: &Local,
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
    hold: Hold,
) -> Inline<M::Ok, M::Error> {
    poll_inline::<A, M, _, _>(local, slot, message, request, hold, M::run)
}

#[inline(always)]
fn poll_inline<A, M, F, R>(
    local: &Local,
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
    hold: Hold,
    run: R,
) -> Inline<M::Ok, M::Error>
where
    A: Actor,
    M: Method<A>,
    R: Fn(M, <M::Mode as TurnMode<A>>::Borrow<'static>, &'static Cx) -> F,
    F: Future<Output = Result<M::Ok, M::Error>>,
{
    let outer = local.current.get();
    let carries_nothing = request.is_empty();
    let task = make::<A, M, F, R>(local, slot, request, run, RUNNING, hold, Origin::Stack(outer), false);
    let header = task.cast::<Header>();
    // SAFETY: the block was made above and is known to nobody else. The `'static` borrows handed to `run` end
    // with the future, which is dropped before the turn lets go of actor and slot.
    let (stage, run, cx) = unsafe {
        let task = task.as_ref();
        (task.stage.get(), &task.run, &*ptr::from_ref(&task.replied.header.cx))
    };
    // SAFETY: the block outlives this function's use of it; clones of the waker hold counts of their own.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(header)) });
    local.depth.set(local.depth.get() + 1);
    local.current.set(header.as_ptr());
    // The answer leaves by reference: returned through `catch_unwind` it would be written in words and read back
    // as a block, which stalls the processor for longer than all the rest takes.
    let mut answer = None;
    let polled = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller holds the turn of the method's mode; stage and reply are this thread's. The future
        // is written into the block and never moves from there.
        unsafe {
            let actor = <M::Mode as TurnMode<A>>::borrow(slot.actor());
            ptr::write(stage, Stage::Future(run(message, actor, cx)));
            let Stage::Future(future) = &mut *stage else { unreachable!("written just now") };
            if let Poll::Ready(reply) = Pin::new_unchecked(future).poll(&mut Context::from_waker(&waker)) {
                answer = Some(reply);
                // An assignment takes effect even if the drop of the old value panics.
                *stage = Stage::Over;
            }
        }
    }));
    local.current.set(outer);
    local.depth.set(local.depth.get() - 1);
    // SAFETY: the one count that the block was made with.
    let task = TaskRef(header);
    if let Err(payload) = polled {
        let details = task.bury_inline(payload);
        task.end_inline(local, carries_nothing, Layout::new::<Task<A, M, F, R>>());
        return Inline::Panicked(details);
    }
    let Some(answer) = answer else {
        let ticket = Ticket(task.clone(), PhantomData);
        return Inline::Pending(task, ticket);
    };
    task.end_inline(local, carries_nothing, Layout::new::<Task<A, M, F, R>>());
    match answer {
        Ok(answer) => Inline::Done(answer),
        Err(error) => Inline::Failed(error),
    }
}

impl TaskRef {
    /// Ends a turn that panicked in its inline poll.
    #[cold]
    fn bury_inline(&self, payload: Box<dyn Any + Send>) -> Box<Panicked> {
        let message = panic_message(payload);
        let actor = self.slot().id();
        // SAFETY: the stage is still this thread's.
        unsafe { (self.header().vtable.discard)(self.0) };
        Box::new(Panicked { actor, method: self.method(), message })
    }

    /// Lets go of a turn that ended in its inline poll.
    #[inline(always)]
    fn end_inline(self, local: &Local, carries_nothing: bool, layout: Layout) {
        let header = self.header();
        let alone = header.counts.load(Ordering::Acquire) == 1;
        if alone && carries_nothing && header.link.get().is_none() {
            // Nothing in the block is left to drop: the future is over, no reply was written, no caller
            // registered, no slot is owned, the chain lives on the stack.
            let block = ManuallyDrop::new(self).0.cast();
            // SAFETY: no waker holds a count, so the block is this thread's alone, and it came from a pool.
            unsafe { local.free(block, layout) };
            return;
        }
        header.state.store(DONE, Ordering::Release);
        header.end_link();
    }

    /// Polls on an executor: as [`poll`](Self::poll), with the thread's note of the current turn set.
    pub(crate) fn poll_as_current(&self, local: &Local) -> Polled {
        let outer = local.current.replace(self.0.as_ptr());
        let depth = local.depth.replace(0);
        let polled = self.poll();
        local.current.set(outer);
        local.depth.set(depth);
        polled
    }
}

/// What the turn that is being polled on this thread was sent.
#[inline(always)]
pub(crate) fn current_request(local: &Local) -> Option<Request> {
    let current = NonNull::new(local.current.get().cast_mut())?;
    // SAFETY: the current turn is alive: it is being polled below us on this stack.
    Some(unsafe { current.as_ref() }.cx.carried().clone())
}

/// A turn that waits, to be put into a mailbox.
pub(crate) fn queued<A: Actor, M: Method<A>>(
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
    one_way: bool,
) -> (TaskRef, Ticket<M::Ok, M::Error>) {
    let task = local::with(|local| {
        let outer = local.current.get();
        let origin = if one_way || outer.is_null() { Origin::None } else { Origin::Stack(outer) };
        let task = make::<A, M, _, _>(local, slot, request, M::run, QUEUED, Hold::Exclusive, origin, one_way);
        put_message(task, message)
    });
    let ticket = Ticket(task.clone(), PhantomData);
    (task, ticket)
}

/// The block of a turn, without its message. Field by field, in place: built on the stack and moved, it would
/// cost as much again as the whole call.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one place builds the block, field by field")]
fn make<A, M, F, R>(
    local: &Local,
    slot: &Arc<Slot<A>>,
    request: Request,
    run: R,
    state: u32,
    hold: Hold,
    origin: Origin,
    one_way: bool,
) -> NonNull<Task<A, M, F, R>>
where
    A: Actor,
    M: Method<A>,
    R: Fn(M, <M::Mode as TurnMode<A>>::Borrow<'static>, &'static Cx) -> F,
    F: Future<Output = Result<M::Ok, M::Error>>,
{
    let block = local.allocate(Layout::new::<Task<A, M, F, R>>()).cast::<Task<A, M, F, R>>();
    let scope: &dyn AnySlot = &**slot;
    let task = block.as_ptr();
    // SAFETY: the block is ours and large enough, and every field is written. The context lives in the block, is
    // lent to the method's future only, and the future is dropped before the turn lets go of its slot.
    unsafe {
        let header = &raw mut (*task).replied.header;
        (&raw mut (*header).vtable).write(const { &vtable::<A, M, F, R>() });
        (&raw mut (*header).state).write(AtomicU32::new(state));
        (&raw mut (*header).counts).write(AtomicU32::new(1));
        (&raw mut (*header).hold).write(AtomicU8::new(hold as u8));
        (&raw mut (*header).abort).write(AtomicBool::new(false));
        (&raw mut (*header).severed).write(AtomicBool::new(false));
        (&raw mut (*header).one_way).write(one_way);
        (&raw mut (*header).lends).write(AtomicU32::new(0));
        (&raw mut (*header).pending_index).write(AtomicU32::new(u32::MAX));
        (&raw mut (*header).next).write(UnsafeCell::new(ptr::null()));
        (&raw mut (*header).caller).write(Mutex::new(None));
        (&raw mut (*header).owner).write(UnsafeCell::new(None));
        (&raw mut (*header).origin).write(UnsafeCell::new(origin));
        (&raw mut (*header).link).write(OnceLock::new());
        (&raw mut (*header).cx).write(Cx::of_turn(NonNull::from(scope), task.addr(), request));
        (&raw mut (*task).replied.reply).write(UnsafeCell::new(None));
        (&raw mut (*task).stage).write(UnsafeCell::new(Stage::Over));
        (&raw mut (*task).run).write(run);
    }
    block
}

/// Puts the message into a block that nobody else knows yet.
fn put_message<A: Actor, M: Method<A>, F, R>(task: NonNull<Task<A, M, F, R>>, message: M) -> TaskRef {
    // SAFETY: the block is new, so its stage is ours; it holds nothing yet.
    unsafe { ptr::write(task.as_ref().stage.get(), Stage::Args(message)) };
    TaskRef(task.cast())
}

/// Where the turn's actor is.
///
/// # Safety
/// The turn runs on an actor of type `A`, and has not ended.
unsafe fn actor_of<A: Actor>(header: NonNull<Header>) -> *mut A {
    // SAFETY: the caller's promise: the slot is alive, and is a `Slot<A>`.
    unsafe { (*ptr::from_ref(header.as_ref().slot()).cast::<Slot<A>>()).actor() }
}

const fn vtable<A, M, F, R>() -> VTable
where
    A: Actor,
    M: Method<A>,
    R: Fn(M, <M::Mode as TurnMode<A>>::Borrow<'static>, &'static Cx) -> F,
    F: Future<Output = Result<M::Ok, M::Error>>,
{
    let method = A::METHODS[M::INDEX];
    VTable {
        poll: poll::<A, M, F, R>,
        fail: fail::<A, M, F, R>,
        discard: discard::<A, M, F, R>,
        report: report::<A, M, F, R>,
        free: free::<A, M, F, R>,
        future_range: future_range::<A, M, F, R>,
        method: method.name,
        method_index: M::INDEX,
        // Not what the method table says: that is anybody's to write.
        exclusive: <M::Mode as TurnMode<A>>::EXCLUSIVE,
    }
}

/// # Safety
/// The state is `RUNNING` on this thread, and the turn holds what its mode needs of the actor.
#[inline]
unsafe fn poll<A, M, F, R>(header: NonNull<Header>) -> Polled
where
    A: Actor,
    M: Method<A>,
    R: Fn(M, <M::Mode as TurnMode<A>>::Borrow<'static>, &'static Cx) -> F,
    F: Future<Output = Result<M::Ok, M::Error>>,
{
    let task = header.cast::<Task<A, M, F, R>>();
    // SAFETY: for all below: the vtable belongs to this very type; the running thread owns stage and reply.
    // The `'static` borrows handed to `run` end with the future, which is dropped before the turn ends.
    let (stage, reply, cx) = unsafe {
        let task = task.as_ref();
        (task.stage.get(), task.replied.reply.get(), &*ptr::from_ref(&task.replied.header.cx))
    };
    // SAFETY: the block outlives this function: its caller holds a count.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(header)) });
    let polled = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: see above.
        unsafe {
            if let Stage::Args(_) = &*stage {
                let Stage::Args(message) = mem::replace(&mut *stage, Stage::Over) else { unreachable!() };
                let actor = <M::Mode as TurnMode<A>>::borrow(actor_of::<A>(header));
                let future = (task.as_ref().run)(message, actor, cx);
                ptr::write(stage, Stage::Future(future));
            }
            let Stage::Future(future) = &mut *stage else {
                unreachable!("a turn is polled until it is done")
            };
            let polled = Pin::new_unchecked(future).poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                *stage = Stage::Over;
            }
            polled
        }
    }));
    match polled {
        Ok(Poll::Pending) => Polled::Pending,
        Ok(Poll::Ready(answer)) => {
            // SAFETY: see above.
            unsafe { *reply = Some(answer.map_err(CallError::Actor)) };
            Polled::Done { panicked: false }
        }
        Err(payload) => {
            // SAFETY: see above.
            unsafe { bury::<A, M, F, R>(header, payload) };
            Polled::Done { panicked: true }
        }
    }
}

/// Ends a turn that panicked.
///
/// # Safety
/// As for [`poll`].
#[cold]
unsafe fn bury<A: Actor, M: Method<A>, F, R>(header: NonNull<Header>, payload: Box<dyn Any + Send>) {
    let message = panic_message(payload);
    // SAFETY: the running thread may use slot, stage and reply.
    unsafe {
        let actor = header.as_ref().slot().id();
        let method = header.as_ref().vtable.method;
        fail::<A, M, F, R>(header, CallError::Panicked(Box::new(Panicked { actor, method, message })));
    }
}

/// # Safety
/// The state is `RUNNING` on this thread.
unsafe fn fail<A: Actor, M: Method<A>, F, R>(header: NonNull<Header>, failure: Failure) {
    let task = header.cast::<Task<A, M, F, R>>();
    // SAFETY: the running thread owns stage and reply.
    unsafe {
        discard::<A, M, F, R>(header);
        *task.as_ref().replied.reply.get() = Some(Err(failure.widen()));
    }
}

/// Drops arguments or future. A panic in there is contained: what it leaves behind is leaked, not run again.
///
/// # Safety
/// The calling thread owns the stage.
unsafe fn discard<A: Actor, M: Method<A>, F, R>(header: NonNull<Header>) {
    let task = header.cast::<Task<A, M, F, R>>();
    // SAFETY: the calling thread owns the stage. It is marked over first, so that nobody drops it twice, but
    // dropped in place, since a future is pinned.
    unsafe {
        let stage = task.as_ref().stage.get();
        let dropped = catch_unwind(AssertUnwindSafe(|| match &mut *stage {
            Stage::Args(message) => ptr::drop_in_place(message),
            Stage::Future(future) => ptr::drop_in_place(future),
            Stage::Over => {}
        }));
        ptr::write(stage, Stage::Over);
        if let Err(payload) = dropped {
            tracing::error!(panic = %panic_message(payload), "dropping a turn's future panicked");
        }
    }
}

/// Logs what went wrong in a turn that nobody waits for.
///
/// # Safety
/// The turn has ended on this thread, and nobody reads its reply.
unsafe fn report<A: Actor, M: Method<A>, F, R>(header: NonNull<Header>) {
    let task = header.cast::<Task<A, M, F, R>>();
    // SAFETY: the caller's promise.
    let reply = unsafe { (*task.as_ref().replied.reply.get()).take() };
    let (actor_type, method) = (A::SPEC.name, A::METHODS[M::INDEX].name);
    match reply {
        Some(Err(CallError::Actor(_))) => {
            tracing::warn!(actor_type, method, "a one-way message returned an error")
        }
        Some(Err(CallError::Panicked(details))) => {
            tracing::error!(actor = %details.actor, method, panic = %details.message, "a one-way message panicked");
        }
        Some(Err(_)) => tracing::warn!(actor_type, method, "a one-way message did not run to its end"),
        Some(Ok(answer)) => drop_contained(answer),
        None => {}
    }
}

/// Drops what a user's type made, whose drop may panic; that must not reach an executor.
fn drop_contained<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::error!(panic = %panic_message(payload), "dropping an answer panicked");
    }
}

/// # Safety
/// Nobody refers to the block any more.
unsafe fn free<A: Actor, M: Method<A>, F, R>(header: NonNull<Header>) {
    let task = header.cast::<Task<A, M, F, R>>();
    // SAFETY: the last reference is gone, so the block's contents and memory are ours.
    unsafe {
        let dropped = catch_unwind(AssertUnwindSafe(|| ptr::drop_in_place(task.as_ptr())));
        local::free(task.cast(), Layout::new::<Task<A, M, F, R>>());
        if let Err(payload) = dropped {
            tracing::error!(panic = %panic_message(payload), "dropping a turn panicked");
        }
    }
}

/// # Safety
/// `header` is a task of this type.
unsafe fn future_range<A: Actor, M: Method<A>, F, R>(header: NonNull<Header>) -> (usize, usize) {
    let task = header.cast::<Task<A, M, F, R>>();
    // SAFETY: only the address is taken.
    let start = unsafe { (*task.as_ptr()).stage.get() }.addr();
    (start, start + size_of::<Stage<M, F>>())
}

/// What a panic said, without letting its payload panic again.
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> Box<str> {
    let message = match payload.downcast_ref::<&str>() {
        Some(text) => (*text).into(),
        None => payload.downcast_ref::<String>().map_or("(no message)".into(), |text| text.as_str().into()),
    };
    // A payload's own drop may panic; that must not leave here.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
    message
}

/// Writes down the turn at `turn` and those below it on the stack.
///
/// # Safety
/// `turn` is null, or being polled on this thread further down the stack.
unsafe fn link_of(turn: *const Header) -> Option<Arc<ChainLink>> {
    let mut missing = Vec::new();
    let mut next = turn;
    let mut link = loop {
        if next.is_null() {
            break None;
        }
        // SAFETY: stack turns are alive.
        let header = unsafe { &*next };
        if let Some(link) = header.link.get() {
            break Some(link.clone());
        }
        missing.push(header);
        // SAFETY: `origin` of a running turn belongs to the thread that runs it, which is this one.
        match unsafe { &*header.origin.get() } {
            Origin::None => break None,
            Origin::Stack(caller) => next = *caller,
            Origin::Link(link) => break Some(link.clone()),
        }
    };
    for header in missing.into_iter().rev() {
        let slot = ptr::from_ref(header.slot());
        // SAFETY: the slot of a turn that runs is alive, and was an `Arc` when the turn was made.
        let slot = unsafe {
            Arc::increment_strong_count(slot);
            Arc::from_raw(slot)
        };
        let here = Arc::new(ChainLink {
            turn: ptr::from_ref(header).addr(),
            slot,
            exclusive: header.vtable.exclusive,
            caller: link,
            ended: AtomicBool::new(false),
            severed: AtomicBool::new(false),
        });
        // Only the thread that runs a turn writes it down, so the cell is still empty.
        let here = header.link.get_or_init(|| here).clone();
        // After the link is there to be found, so that a caller who leaves now is not missed by both.
        here.severed.fetch_or(header.severed.load(Ordering::Acquire), Ordering::AcqRel);
        link = Some(here);
    }
    link
}

/// Visits the turn at `turn` and those who wait for it.
///
/// # Safety
/// As for [`link_of`].
unsafe fn walk_stack(turn: *const Header, visit: Visit<'_>) {
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
        match unsafe { &*header.origin.get() } {
            Origin::None => return,
            Origin::Stack(caller) => next = *caller,
            Origin::Link(link) => return walk_links(Some(link), visit),
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

fn raw_waker(header: NonNull<Header>) -> RawWaker {
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
