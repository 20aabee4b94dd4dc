//! The typed side of a turn's block: building it, its first poll on the caller's thread, its later ones, its end and
//! who hears of it, its memory, and the caller's hold on its reply. Who may touch what of it is the table of `task.rs`.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::actor::{Actor, Method};
use crate::context::{Cx, Request, RequestContext};
use crate::dead_letters::{Past, Watched};
use crate::error::{CallError, Failure, Panicked};
use crate::guards::Outlook;
use crate::turn::cell::{Origin, OwnLink};
use crate::turn::local::{self, Block, Local, Small};
use crate::turn::sync::{AtomicBool, AtomicU8, AtomicU32, Mutex, Ordering};
use crate::turn::task::{
    Asked, DONE, Header, Hold, Polled, QUEUED, RUNNING, Stage, Task, TaskRef, Told, VTable, contained,
    raw_waker,
};
use crate::turn::{AnySlot, ScopeRef, Slot, TurnMode};

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
    let task =
        make::<A, M, F, R, Asked<_, _>>(local, slot, request, run, RUNNING, hold, Origin::stack(outer));
    let header = task.cast::<Header>();
    // SAFETY: the block was made above and is known to nobody else. The `'static` borrows handed to `run` end
    // with the future, which is dropped before the turn lets go of actor and slot.
    let (stage, run, cx) = unsafe {
        let task = task.as_ref();
        (task.stage.get(), &task.run, &*ptr::from_ref(&task.head.header.cx))
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
        let details = task.bury_inline(payload, M::WATCHED);
        task.end_inline(local, carries_nothing, Layout::new::<Task<A, M, F, R, Asked<M::Ok, M::Error>>>());
        return Inline::Panicked(details);
    }
    let Some(answer) = answer else {
        let ticket = Ticket::of(&task);
        return Inline::Pending(task, ticket);
    };
    task.end_inline(local, carries_nothing, Layout::new::<Task<A, M, F, R, Asked<M::Ok, M::Error>>>());
    match answer {
        Ok(answer) => Inline::Done(answer),
        Err(error) => Inline::Failed(error),
    }
}

/// Calls `use_local` with the thread's notes; on a thread that is ending, with empty ones.
#[inline(always)]
pub(crate) fn with_local<R>(use_local: impl FnOnce(&Local) -> R) -> R {
    match local::address() {
        // A closure handed to `LocalKey` would be written to memory with all that it captures, a call's message
        // above all; see `poll_inline` on what that costs.
        // SAFETY: a thread's notes stay where they are until the thread ends, which it does not do in here.
        Some(local) => use_local(unsafe { &*local }),
        None => use_local(&Local::new()),
    }
}

/// The block of a turn, without its message. Field by field, in place: built on the stack and moved, it would
/// cost as much again as the whole call.
#[inline(always)]
pub(super) fn make<A, M, F, R, H>(
    local: &Local,
    slot: &Arc<Slot<A>>,
    request: Request,
    run: R,
    state: u32,
    hold: Hold,
    origin: Origin,
) -> NonNull<Task<A, M, F, R, H>>
where
    A: Actor,
    M: Method<A>,
    H: Head<M::Ok, M::Error>,
    R: Fn(M, <M::Mode as TurnMode<A>>::Borrow<'static>, &'static Cx) -> F,
    F: Future<Output = Result<M::Ok, M::Error>>,
{
    let block = allocate(local, Layout::new::<Task<A, M, F, R, H>>()).cast::<Task<A, M, F, R, H>>();
    // As the `Arc` has it, so that one can be made of it again.
    let scope: *const dyn AnySlot = Arc::<Slot<A>>::as_ptr(slot);
    let task = block.as_ptr();
    // SAFETY: the block is ours and large enough, and every field is written. The context lives in the block, is
    // lent to the method's future only, and the future is dropped before the turn lets go of its slot.
    unsafe {
        let header = block.cast::<Header>().as_ptr();
        (&raw mut (*header).vtable).write(const { &vtable::<A, M, F, R, H>() });
        (&raw mut (*header).state).write(AtomicU32::new(state));
        (&raw mut (*header).counts).write(AtomicU32::new(1));
        (&raw mut (*header).hold).write(AtomicU8::new(hold as u8));
        (&raw mut (*header).abort).write(AtomicU8::new(0));
        (&raw mut (*header).severed).write(AtomicBool::new(false));
        (&raw mut (*header).owns).write(Cell::new(false));
        (&raw mut (*header).lends).write(AtomicU32::new(0));
        (&raw mut (*header).pending_index).write(AtomicU32::new(u32::MAX));
        (&raw mut (*header).next).write(UnsafeCell::new(ptr::null()));
        (&raw mut (*header).origin).write(UnsafeCell::new(origin));
        (&raw mut (*header).link).write(OwnLink::new());
        (&raw mut (*header).cx).write(Cx::of_turn(
            ScopeRef::turn(NonNull::new_unchecked(scope.cast_mut())),
            task.addr(),
            request,
        ));
        H::complete(&raw mut (*task).head);
        (&raw mut (*task).stage).write(UnsafeCell::new(Stage::Over));
        (&raw mut (*task).run).write(run);
        (&raw mut (*task).message).write(PhantomData);
    }
    block
}

/// Memory for a turn, owed back to [`release`] with the same layout, on whatever thread.
#[inline(always)]
fn allocate(local: &Local, layout: Layout) -> NonNull<u8> {
    if layout.align() > align_of::<Block<Small>>() {
        return from_system(layout);
    }
    match layout.size() {
        ..=128 => NonNull::from(Box::leak(local.tiny.take())).cast(),
        129..=256 => NonNull::from(Box::leak(local.small.take())).cast(),
        257..=512 => NonNull::from(Box::leak(local.medium.take())).cast(),
        513..=1_024 => NonNull::from(Box::leak(local.large.take())).cast(),
        1_025..=4_096 => NonNull::from(Box::leak(local.huge.take())).cast(),
        _ => from_system(layout),
    }
}

/// Takes memory back.
///
/// # Safety
/// It came from [`allocate`] with this very `layout`, and nobody uses it any more.
#[inline(always)]
pub(super) unsafe fn release(local: &Local, memory: NonNull<u8>, layout: Layout) {
    /// # Safety
    /// `memory` was leaked as a `Block<Room>`.
    #[inline(always)]
    unsafe fn block<Room>(memory: NonNull<u8>) -> Box<Block<Room>> {
        let block = memory.cast::<Block<Room>>();
        // SAFETY: the caller's promise; it is made a valid block again first.
        unsafe {
            block.write(Block::new());
            Box::from_raw(block.as_ptr())
        }
    }
    // SAFETY: the caller's promise: the same choice by the same layout as in `allocate`.
    unsafe {
        if layout.align() > align_of::<Block<Small>>() {
            return dealloc(memory.as_ptr(), layout);
        }
        match layout.size() {
            ..=128 => local.tiny.put(block(memory)),
            129..=256 => local.small.put(block(memory)),
            257..=512 => local.medium.put(block(memory)),
            513..=1_024 => local.large.put(block(memory)),
            1_025..=4_096 => local.huge.put(block(memory)),
            _ => dealloc(memory.as_ptr(), layout),
        }
    }
}

#[cold]
fn from_system(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here has size zero: a turn's header alone is larger.
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Puts the message into a block that nobody else knows yet.
#[inline(always)]
fn put_message<A: Actor, M: Method<A>, F, R, H>(task: NonNull<Task<A, M, F, R, H>>, message: M) -> TaskRef {
    // SAFETY: the block is new, so its stage is ours; it holds nothing yet.
    unsafe { ptr::write(task.as_ref().stage.get(), Stage::Args(message)) };
    TaskRef(task.cast())
}

/// Where the turn's actor is: for a turn on a loan, what the lender lent, so that its borrow is one of the lender's.
///
/// # Safety
/// The turn runs on an actor of type `A`, and has not ended.
unsafe fn actor_of<A: Actor>(header: NonNull<Header>) -> *mut A {
    // SAFETY: the caller's promise.
    let header = unsafe { header.as_ref() };
    if header.hold.load(Ordering::Relaxed) == Hold::Lent as u8
        && let Some(lent) = header.slot().lent_actor()
    {
        return lent.pointer().cast();
    }
    // SAFETY: the slot is alive, and is a `Slot<A>`.
    unsafe { (*ptr::from_ref(header.slot()).cast::<Slot<A>>()).actor() }
}

/// What a block begins with, and who hears of the turn's end through it.
pub(super) trait Head<T, E> {
    /// Nobody waits for the reply.
    const ONE_WAY: bool;

    /// Writes what stands behind the header.
    ///
    /// # Safety
    /// `head` is in a new block.
    unsafe fn complete(head: *mut Self);

    /// The turn has ended so.
    ///
    /// # Safety
    /// It begins with a `Self`, is a message `M` to an `A`, and has ended on this thread.
    unsafe fn end<A: Actor, M: Method<A, Ok = T, Error = E>>(
        header: NonNull<Header>,
        ended: Result<T, CallError<E>>,
    );
}

impl<T, E> Head<T, E> for Asked<T, E> {
    const ONE_WAY: bool = false;

    #[inline(always)]
    unsafe fn complete(head: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            (&raw mut (*head).caller).write(Mutex::new(None));
            (&raw mut (*head).reply).write(UnsafeCell::new(None));
        }
    }

    #[inline(always)]
    unsafe fn end<A: Actor, M: Method<A, Ok = T, Error = E>>(
        header: NonNull<Header>,
        ended: Result<T, CallError<E>>,
    ) {
        // SAFETY: the caller's promise; the reply is the running thread's until the turn is `DONE`.
        unsafe { *header.cast::<Self>().as_ref().reply.get() = Some(ended) };
    }
}

impl<T, E> Head<T, E> for Told {
    const ONE_WAY: bool = true;

    #[inline(always)]
    unsafe fn complete(_: *mut Self) {}

    #[inline(always)]
    unsafe fn end<A: Actor, M: Method<A, Ok = T, Error = E>>(
        header: NonNull<Header>,
        ended: Result<T, CallError<E>>,
    ) {
        // SAFETY: the turn's slot is a `Slot<A>`, and alive until the turn lets go of it.
        let slot = unsafe { &*ptr::from_ref(header.as_ref().slot()).cast::<Slot<A>>() };
        match ended {
            Ok(answer) => {
                drop_contained(answer);
                slot.host.note_end(Outlook::Answered);
            }
            Err(ended) => contained(|| report::<A, M>(slot, ended)),
        }
    }
}

const fn vtable<A, M, F, R, H>() -> VTable
where
    A: Actor,
    M: Method<A>,
    H: Head<M::Ok, M::Error>,
    R: Fn(M, <M::Mode as TurnMode<A>>::Borrow<'static>, &'static Cx) -> F,
    F: Future<Output = Result<M::Ok, M::Error>>,
{
    let method = A::METHODS[M::INDEX];
    VTable {
        poll: poll::<A, M, F, R, H>,
        deliver: if H::ONE_WAY { deliver::<A, M, F, R> } else { never_delivered },
        fail: fail::<A, M, F, R, H>,
        discard: discard::<A, M, F, R, H>,
        free: free::<A, M, F, R, H>,
        future_range: future_range::<A, M, F, R, H>,
        method: method.name,
        method_index: M::INDEX,
        from_timer: M::FROM_TIMER,
        // Not what the method table says: that is anybody's to write.
        exclusive: <M::Mode as TurnMode<A>>::EXCLUSIVE,
        one_way: H::ONE_WAY,
    }
}

/// # Safety
/// The state is `RUNNING` on this thread, and the turn holds what its mode needs of the actor.
#[inline(always)]
unsafe fn poll<A, M, F, R, H>(header: NonNull<Header>) -> Polled
where
    A: Actor,
    M: Method<A>,
    H: Head<M::Ok, M::Error>,
    R: Fn(M, <M::Mode as TurnMode<A>>::Borrow<'static>, &'static Cx) -> F,
    F: Future<Output = Result<M::Ok, M::Error>>,
{
    let task = header.cast::<Task<A, M, F, R, H>>();
    // SAFETY: for all below: the vtable belongs to this very type; the running thread owns stage and reply.
    // The `'static` borrows handed to `run` end with the future, which is dropped before the turn ends.
    let (stage, cx) = unsafe { (task.as_ref().stage.get(), &*ptr::from_ref(&header.as_ref().cx)) };
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
            // SAFETY: the slot is alive, and is a `Slot<A>`.
            let superseded =
                unsafe { (*ptr::from_ref(header.as_ref().slot()).cast::<Slot<A>>()).superseded::<M>() };
            let ended = match superseded {
                Some(lost) => {
                    drop_contained(answer);
                    Err(lost)
                }
                None => answer.map_err(CallError::Actor),
            };
            // SAFETY: see above.
            unsafe { H::end::<A, M>(header, ended) };
            Polled::Done
        }
        Err(payload) => {
            // SAFETY: see above.
            unsafe { bury::<A, M, F, R, H>(header, payload) };
            Polled::Done
        }
    }
}

/// Polls a one-way message for the first time. Ended, it is reported and let go of: the caller's count is used up.
///
/// # Safety
/// As for [`poll`]; the turn is one-way, and in no list.
unsafe fn deliver<A, M, F, R>(header: NonNull<Header>, local: &Local) -> Polled
where
    A: Actor,
    M: Method<A>,
    R: Fn(M, <M::Mode as TurnMode<A>>::Borrow<'static>, &'static Cx) -> F,
    F: Future<Output = Result<M::Ok, M::Error>>,
{
    let (outer, depth) = (local.current.replace(header.as_ptr()), local.depth.replace(0));
    // SAFETY: the caller's promise.
    let polled = unsafe { poll::<A, M, F, R, Told>(header) };
    // Before the block goes, with what is in it.
    local.current.set(outer);
    local.depth.set(depth);
    if polled == Polled::Pending {
        return polled;
    }
    // SAFETY: the caller's count, which moves in here.
    let task = TaskRef(header);
    if task.is_bare() {
        let block = ManuallyDrop::new(task).0.cast();
        // SAFETY: nobody else has a count, so the block is this thread's alone; nothing in it is left to drop.
        unsafe { release(local, block, Layout::new::<Task<A, M, F, R, Told>>()) };
    } else {
        task.finish();
    }
    polled
}

impl TaskRef {
    /// Whether the block of a one-way message that has ended has nothing left to drop: no waker holds a count, no slot is
    /// owned, the chain was never written down, nothing was sent along. Its stage is over, and a caller it never had.
    #[inline(always)]
    fn is_bare(&self) -> bool {
        let header = self.header();
        let alone = header.counts.load(Ordering::Acquire) == 1;
        alone
            && !header.owns.get()
            && !self.has_callers()
            && header.link.get().is_none()
            && header.cx.carried().is_empty()
    }
}

/// In place of [`deliver`], for what is no one-way message.
unsafe fn never_delivered(_: NonNull<Header>, _: &Local) -> Polled {
    unreachable!("a call has a caller")
}

/// Ends a turn that panicked.
///
/// # Safety
/// As for [`poll`].
#[cold]
unsafe fn bury<A, M, F, R, H>(header: NonNull<Header>, payload: Box<dyn Any + Send>)
where
    A: Actor,
    M: Method<A>,
    H: Head<M::Ok, M::Error>,
{
    let message = panic_message(payload);
    // SAFETY: the running thread may use slot, stage and reply.
    unsafe {
        let actor = header.as_ref().slot().id();
        let method = header.as_ref().vtable.method;
        let details = Panicked { actor, method, message };
        header.as_ref().slot().turn_panicked(&details, H::ONE_WAY || M::WATCHED);
        fail::<A, M, F, R, H>(header, CallError::Panicked(Box::new(details)));
    }
}

/// # Safety
/// The state is `RUNNING` on this thread.
unsafe fn fail<A, M, F, R, H>(header: NonNull<Header>, failure: Failure)
where
    A: Actor,
    M: Method<A>,
    H: Head<M::Ok, M::Error>,
{
    let task = header.cast::<Task<A, M, F, R, H>>();
    // SAFETY: the running thread owns stage and reply.
    unsafe {
        if H::ONE_WAY {
            lose(&mut *task.as_ref().stage.get(), |message: M| message.lost(&failure));
        }
        discard::<A, M, F, R, H>(header);
        H::end::<A, M>(header, Err(failure.widen()));
    }
}

/// Hands over a message that never began.
fn lose<M, F>(stage: &mut Stage<M, F>, take: impl FnOnce(M)) {
    if let Stage::Args(_) = stage
        && let Stage::Args(message) = mem::replace(stage, Stage::Over)
        && let Err(payload) = catch_unwind(AssertUnwindSafe(|| take(message)))
    {
        tracing::error!(panic = %panic_message(payload), "dropping a message that never began panicked");
    }
}

/// Drops arguments or future. A panic in there is contained: what it leaves behind is leaked, not run again.
///
/// # Safety
/// The calling thread owns the stage.
unsafe fn discard<A: Actor, M: Method<A>, F, R, H>(header: NonNull<Header>) {
    let task = header.cast::<Task<A, M, F, R, H>>();
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

/// # Safety
/// Nobody refers to the block any more.
unsafe fn free<A: Actor, M: Method<A>, F, R, H>(header: NonNull<Header>) {
    let task = header.cast::<Task<A, M, F, R, H>>();
    // SAFETY: the last reference is gone, so the block's contents and memory are ours.
    unsafe {
        let dropped = catch_unwind(AssertUnwindSafe(|| ptr::drop_in_place(task.as_ptr())));
        with_local(|local| release(local, task.cast(), Layout::new::<Task<A, M, F, R, H>>()));
        if let Err(payload) = dropped {
            tracing::error!(panic = %panic_message(payload), "dropping a turn panicked");
        }
    }
}

/// # Safety
/// `header` is a task of this type.
unsafe fn future_range<A: Actor, M: Method<A>, F, R, H>(header: NonNull<Header>) -> (usize, usize) {
    let task = header.cast::<Task<A, M, F, R, H>>();
    // SAFETY: only the address is taken.
    let start = unsafe { (*task.as_ptr()).stage.get() }.addr();
    (start, start + size_of::<Stage<M, F>>())
}

impl TaskRef {
    /// Ends a turn that panicked in its inline poll.
    #[cold]
    fn bury_inline(&self, payload: Box<dyn Any + Send>, has_letter: bool) -> Box<Panicked> {
        let message = panic_message(payload);
        let actor = self.slot().id();
        // SAFETY: the stage is still this thread's.
        unsafe { (self.header().vtable.discard)(self.0) };
        let details = Box::new(Panicked { actor, method: self.method(), message });
        self.slot().turn_panicked(&details, has_letter);
        details
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
            unsafe { release(local, block, layout) };
            return;
        }
        header.state.store(DONE, Ordering::Release);
        header.end_link();
    }
}

/// Logs what went wrong in a turn that nobody waits for.
#[cold]
fn report<A: Actor, M: Method<A>>(slot: &Slot<A>, ended: CallError<M::Error>) {
    let (actor_type, method) = (A::SPEC.name, A::METHODS[M::INDEX].name);
    if !M::WATCHED {
        slot.host.bury_unkept::<M>(&slot.key, &ended);
    }
    match ended {
        CallError::Actor(_) => {
            slot.host.note_end(Outlook::Erred);
            tracing::warn!(actor_type, method, "a one-way message returned an error")
        }
        CallError::Panicked(details) => {
            tracing::error!(actor = %details.actor, method, panic = %details.message, "a one-way message panicked");
        }
        _ => tracing::warn!(actor_type, method, "a one-way message did not run to its end"),
    }
}

/// Drops what a user's type made, whose drop may panic; that must not reach an executor.
pub(super) fn drop_contained<T>(value: T) {
    if mem::needs_drop::<T>()
        && let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value)))
    {
        tracing::error!(panic = %panic_message(payload), "dropping an answer panicked");
    }
}

/// What the turn that is being polled on this thread hands on to the messages that it sends.
#[inline(always)]
pub(crate) fn current_context(local: &Local) -> Option<Arc<RequestContext>> {
    current_request(local)?.context().cloned()
}

/// What the turn that is being polled on this thread was sent.
#[inline(always)]
pub(crate) fn current_request(local: &Local) -> Option<Request> {
    let current = NonNull::new(local.current.get().cast_mut())?;
    // SAFETY: the current turn is alive: it is being polled below us on this stack.
    Some(unsafe { current.as_ref() }.cx.carried().for_calls())
}

/// A caller's hold on the reply.
pub(crate) struct Ticket<T, E>(TaskRef, PhantomData<fn() -> (T, E)>);

impl<T, E> Ticket<T, E> {
    /// The hold of whoever asked with `turn`, whose reply is of these types.
    pub(super) fn of(turn: &TaskRef) -> Self {
        Self(turn.clone(), PhantomData)
    }

    /// The reply, or a promise to wake `waker` when it is there.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<T, CallError<E>>> {
        let header = self.0.header();
        if header.state.load(Ordering::Acquire) != DONE {
            let Some(caller) = self.0.caller() else { unreachable!("a ticket is a call's") };
            let mut caller = caller.lock();
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
        let asked = self.0.0.cast::<Asked<T, E>>();
        // SAFETY: a ticket is made with its task's own reply types; `DONE` gives the reply to the caller.
        let reply = unsafe { (*asked.as_ref().reply.get()).take() };
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

/// A call that waits, to be put into a mailbox.
pub(crate) fn queued<A: Actor, M: Method<A>>(
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
) -> (TaskRef, Ticket<M::Ok, M::Error>) {
    let task = with_local(|local| {
        let outer = local.current.get();
        let origin = match outer.is_null() {
            true => Origin::link(local.hook()),
            false => Origin::stack(outer),
        };
        let task =
            make::<A, M, _, _, Asked<_, _>>(local, slot, request, M::run, QUEUED, Hold::Exclusive, origin);
        put_message(task, message)
    });
    let ticket = Ticket::of(&task);
    (task, ticket)
}

/// A message that nobody waits for, to be put into a mailbox.
#[inline]
pub(crate) fn one_way<A: Actor, M: Method<A>>(slot: &Arc<Slot<A>>, message: M, request: Request) -> TaskRef {
    if const { A::SPEC.dead_letters.is_some() } {
        unwatched(slot, Watched::new(slot, message, Past::one_way()), request)
    } else {
        unwatched(slot, message, request)
    }
}

/// The same, of a message that sees to its dead letter itself or has none.
#[inline]
pub(crate) fn unwatched<A: Actor, M: Method<A>>(
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
) -> TaskRef {
    with_local(|local| {
        let task =
            make::<A, M, _, _, Told>(local, slot, request, M::run, QUEUED, Hold::Exclusive, Origin::NONE);
        put_message(task, message)
    })
}

/// What a panic said, without letting its payload panic again.
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> Box<str> {
    let message = panic_text(&*payload).into();
    // A payload's own drop may panic; that must not leave here.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
    message
}

/// What a panic said, as far as it is text.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<&str>() {
        Some(text) => text,
        None => payload.downcast_ref::<String>().map_or("(no message)", String::as_str),
    }
}
