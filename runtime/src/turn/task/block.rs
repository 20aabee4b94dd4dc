//! The typed side of a turn's block: building it, polling its future, ending it.

use std::alloc::Layout;
use std::any::Any;
use std::cell::UnsafeCell;
use std::future::Future;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::waker::raw_waker;
use super::{Header, Hold, Origin, Polled, Stage, Task, TaskRef, VTable};
use crate::actor::{Actor, Method};
use crate::context::{Cx, Request};
use crate::error::{CallError, Failure, Panicked};
use crate::turn::local::{self, Local};
use crate::turn::{AnySlot, ScopeRef, Slot, TurnMode};

/// The block of a turn, without its message. Field by field, in place: built on the stack and moved, it would
/// cost as much again as the whole call.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one place builds the block, field by field")]
pub(super) fn make<A, M, F, R>(
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
        (&raw mut (*header).abort).write(AtomicU8::new(0));
        (&raw mut (*header).severed).write(AtomicBool::new(false));
        (&raw mut (*header).one_way).write(one_way);
        (&raw mut (*header).lends).write(AtomicU32::new(0));
        (&raw mut (*header).pending_index).write(AtomicU32::new(u32::MAX));
        (&raw mut (*header).next).write(UnsafeCell::new(ptr::null()));
        (&raw mut (*header).caller).write(Mutex::new(None));
        (&raw mut (*header).owner).write(UnsafeCell::new(None));
        (&raw mut (*header).origin).write(UnsafeCell::new(origin));
        (&raw mut (*header).link).write(OnceLock::new());
        (&raw mut (*header).cx).write(Cx::of_turn(
            ScopeRef::turn(NonNull::from(scope)),
            task.addr(),
            request,
        ));
        (&raw mut (*task).replied.reply).write(UnsafeCell::new(None));
        (&raw mut (*task).stage).write(UnsafeCell::new(Stage::Over));
        (&raw mut (*task).run).write(run);
    }
    block
}

/// Puts the message into a block that nobody else knows yet.
pub(super) fn put_message<A: Actor, M: Method<A>, F, R>(
    task: NonNull<Task<A, M, F, R>>,
    message: M,
) -> TaskRef {
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
pub(super) unsafe fn fail<A: Actor, M: Method<A>, F, R>(header: NonNull<Header>, failure: Failure) {
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
pub(super) unsafe fn discard<A: Actor, M: Method<A>, F, R>(header: NonNull<Header>) {
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
