//! The inline path: a turn's first poll, on its caller's thread.

use std::alloc::Layout;
use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::block::make;
use super::waker::raw_waker;
use super::{DONE, Header, Hold, Origin, Polled, RUNNING, Stage, Task, TaskRef, Ticket, panic_message};
use crate::actor::{Actor, Method};
use crate::context::{Cx, Request};
use crate::error::Panicked;
use crate::turn::local::Local;
use crate::turn::{Slot, TurnMode};

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
