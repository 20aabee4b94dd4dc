//! What a turn's block begins with: a call's has a place for the reply, a one-way message's has none.

use std::cell::UnsafeCell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use crate::actor::{Actor, Method};
use crate::error::CallError;
use crate::guards::Outlook;
use crate::turn::Slot;
use crate::turn::block::panic_message;
use crate::turn::sync::Mutex;
use crate::turn::task::{Asked, Header, Told, contained};

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
