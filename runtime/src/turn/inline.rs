//! A turn's first poll on its caller's own thread.

use std::alloc::Layout;
use std::any::Any;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::actor::{Actor, Method};
use crate::context::{Cx, Request};
use crate::error::Panicked;
use crate::turn::block::{Ticket, make, panic_message, release};
use crate::turn::local::Local;
use crate::turn::origin::Origin;
use crate::turn::sync::Ordering;
use crate::turn::task::{Asked, DONE, Header, Hold, RUNNING, Stage, Task, TaskRef, raw_waker};
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
