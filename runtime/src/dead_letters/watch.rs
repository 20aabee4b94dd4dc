//! The message that is not lost: what a type that keeps dead letters sends in place of the bare message.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::letter::{DeadCause, cut_text};
use super::queue::Past;
use crate::actor::{Actor, Method};
use crate::context::{Cx, Request};
use crate::error::{CallError, Failure, Overloaded, Panicked, StopCause, Stopped};
use crate::turn::block;
use crate::turn::{Blocked, Slot, TaskRef, TurnMode};

/// A message in a letter: what it is, and how to send it again.
pub(crate) trait Stored<A: Actor>: Send + 'static {
    /// The message as a one-way turn.
    fn into_turn(self: Box<Self>, slot: &Arc<Slot<A>>, past: Past) -> TaskRef;
    /// Its text, cut.
    fn text(&self) -> Box<str>;
}

struct Kept<M>(M);

impl<A: Actor, M: Method<A>> Stored<A> for Kept<M> {
    fn into_turn(self: Box<Self>, slot: &Arc<Slot<A>>, past: Past) -> TaskRef {
        block::unwatched(slot, Watched::new(slot, self.0, past), Request::default())
    }

    fn text(&self) -> Box<str> {
        cut_text(&fmt::from_fn(|f| self.0.describe(f)))
    }
}

/// A message that becomes a dead letter if it does not run to a good end.
///
/// Before its turn it is moved into the letter as it is; once its turn has begun, a copy is kept beside it.
pub(crate) struct Watched<A: Actor, M: Method<A>> {
    /// There until its turn begins or it becomes a letter.
    message: Option<M>,
    past: Past,
    slot: Arc<Slot<A>>,
}

impl<A: Actor, M: Method<A>> Watched<A, M> {
    pub(crate) fn new(slot: &Arc<Slot<A>>, message: M, past: Past) -> Self {
        Self { message: Some(message), past, slot: slot.clone() }
    }
}

impl<A: Actor, M: Method<A>> Method<A> for Watched<A, M> {
    type Mode = M::Mode;
    type Ok = M::Ok;
    type Error = M::Error;
    const INDEX: usize = M::INDEX;
    const WATCHED: bool = true;

    fn run<'a>(
        mut self,
        actor: <Self::Mode as TurnMode<A>>::Borrow<'a>,
        cx: &'a Cx,
    ) -> impl Future<Output = Result<Self::Ok, Self::Error>> + Send + 'a {
        let message = self.message.take();
        let (past, slot) = (self.past, self.slot.clone());
        async move {
            let Some(message) = message else { unreachable!("a message runs once") };
            let mut beside = Beside { kept: None, past, slot, over: false };
            beside.kept = message.copy();
            let mut turn = pin!(message.run(actor, cx));
            let ended = poll_fn(|task| match catch_unwind(AssertUnwindSafe(|| turn.as_mut().poll(task))) {
                Ok(polled) => polled.map(Ok),
                Err(payload) => Poll::Ready(Err(payload)),
            })
            .await;
            match ended {
                Ok(answer) => {
                    beside.returned(answer.as_ref().err());
                    answer
                }
                Err(payload) => {
                    beside.panicked(&*payload);
                    // The turn's own boundary does the rest.
                    resume_unwind(payload)
                }
            }
        }
    }

    fn lost(mut self, failure: &Failure) {
        let kept = self.message.take();
        bury::<A, M>(&self.slot, DeadCause::Call(failure.clone()), self.past, kept);
    }
}

impl<A: Actor, M: Method<A>> Drop for Watched<A, M> {
    /// A letter whose delivery was refused goes back; whoever sends a new message is told by the refusal.
    fn drop(&mut self) {
        if self.past.is_replay()
            && let Some(message) = self.message.take()
        {
            let refused = CallError::Draining(Box::new(self.slot.actor_id()));
            bury::<A, M>(&self.slot, DeadCause::Call(refused), self.past, Some(message));
        }
    }
}

/// What waits beside a turn for how it ends.
struct Beside<A: Actor, M: Method<A>> {
    kept: Option<M>,
    past: Past,
    slot: Arc<Slot<A>>,
    over: bool,
}

impl<A: Actor, M: Method<A>> Beside<A, M> {
    fn returned(&mut self, error: Option<&M::Error>) {
        self.over = true;
        // An error is an answer like any other to a caller who waits for it.
        let told = !self.past.retried;
        let kept = self.slot.host.dead_letter_spec().errors;
        if let Some(error) = error.filter(|_| kept && !told) {
            let cause = DeadCause::returned::<A, M>(error);
            bury::<A, M>(&self.slot, cause, self.past, self.kept.take());
        }
    }

    fn panicked(&mut self, payload: &(dyn Any + Send)) {
        self.over = true;
        let details = Panicked {
            actor: self.slot.actor_id(),
            method: A::METHODS[M::INDEX].name,
            message: block::panic_text(payload).into(),
        };
        let cause = DeadCause::Call(CallError::Panicked(Box::new(details)));
        bury::<A, M>(&self.slot, cause, self.past, self.kept.take());
    }
}

impl<A: Actor, M: Method<A>> Drop for Beside<A, M> {
    /// The turn was dropped before its end.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let cause = if self.slot.host.services.has_stopped() { StopCause::Silo } else { StopCause::Torn };
        let details = Stopped { actor: self.slot.actor_id(), method: A::METHODS[M::INDEX].name, cause };
        let cause = DeadCause::Call(CallError::Stopped(Box::new(details)));
        bury::<A, M>(&self.slot, cause, self.past, self.kept.take());
    }
}

/// Keeps what has become of a message.
pub(crate) fn bury<A: Actor, M: Method<A>>(slot: &Slot<A>, cause: DeadCause, past: Past, kept: Option<M>) {
    let method = A::METHODS[M::INDEX].name;
    let kept = kept.map(|message| Box::new(Kept(message)) as Box<dyn Stored<A>>);
    slot.host.bury(&slot.key, method, cause, past, kept);
}

/// Sends a letter's message again. Refused, it goes back to the letters.
pub(super) fn deliver<A: Actor>(
    slot: &Arc<Slot<A>>,
    message: Box<dyn Stored<A>>,
    past: Past,
) -> Result<(), Failure> {
    slot.touch();
    match slot.send(message.into_turn(slot, past)) {
        Ok(()) => Ok(()),
        Err(Blocked::Failed(failure)) => Err(failure),
        Err(Blocked::Full(turn)) => {
            let capacity = slot.mailbox_capacity();
            let full = || CallError::Overloaded(Box::new(Overloaded { actor: slot.actor_id(), capacity }));
            turn.reject(full());
            Err(full())
        }
    }
}
