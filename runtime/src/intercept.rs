//! The port of a test kit: somebody who stands between callers and the actors of one type on one silo.
//!
//! An interceptor sees every message before it goes to its actor, and may answer it in the actor's place, let it go
//! later, or have the actor panic. A type without one pays nothing: its calls look for an interceptor only where they
//! look for a gate, off the inline path. Messages cross the port as `Any`, since one interceptor is about all methods of
//! a type; the test kit puts the types back.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quark_base::{ActorId, Key};

use crate::actor::{Actor, HookError, Method};
use crate::context::{Cx, Request};
use crate::error::{CallError, Failure, Panicked};
use crate::turn::block::{queued, unwatched};
use crate::turn::{Exclusive, Slot, TurnMode};

/// A message of any method.
pub type AnyMessage = Box<dyn Any + Send>;

/// The answer to an intercepted call.
pub type Reply<T, E> = Pin<Box<dyn Future<Output = Result<T, CallError<E>>> + Send>>;

/// Stands between callers and the actors of one type. Called on the caller's thread, so it must not block.
pub trait Interceptor: Send + Sync + 'static {
    /// A message to `actor` has come. It is the method's own message type; `method` is its index.
    fn call(&self, actor: &ActorId, method: usize, message: AnyMessage) -> Intercepted;

    /// The actor of `key` is about to be made.
    ///
    /// # Errors
    /// What the activation is to fail with.
    fn activate(&self, _key: &Key) -> Result<(), HookError> {
        Ok(())
    }
}

/// What becomes of an intercepted message.
pub enum Intercepted {
    /// It goes to its actor.
    Passes(AnyMessage),
    /// It goes to its actor, which is kept in a turn of its own for so long before.
    Later(AnyMessage, Duration),
    /// It is answered; this is a [`Reply`] of the method's types.
    Answered(Box<dyn Any + Send>),
    /// It is gone, and its actor panics with this.
    Panics(String),
    /// Nobody answers it. The caller is told so as [`CallError::Panicked`].
    Unanswered,
}

/// A message that came back from the interceptor.
pub(crate) enum Caught<M, T, E> {
    Passes(M),
    Answered(Reply<T, E>),
}

/// Shows a call to the type's interceptor.
#[cold]
pub(crate) fn ask<A: Actor, M: Method<A>>(
    interceptor: &dyn Interceptor,
    slot: &Arc<Slot<A>>,
    message: M,
) -> Caught<M, M::Ok, M::Error> {
    let failed = |message: String| {
        let details = Panicked { actor: slot.actor_id(), method: name::<A, M>(), message: message.into() };
        let failure: Failure = CallError::Panicked(Box::new(details));
        Caught::Answered(Box::pin(async move { Err(failure.widen()) }))
    };
    let message = match interceptor.call(&slot.actor_id(), M::INDEX, Box::new(message)) {
        Intercepted::Passes(message) => message,
        Intercepted::Later(message, delay) => {
            inject(slot, Act::Delay(delay));
            message
        }
        Intercepted::Answered(reply) => {
            return match reply.downcast::<Reply<M::Ok, M::Error>>() {
                Ok(reply) => Caught::Answered(*reply),
                Err(_) => failed("the interceptor answered with another method's types".to_owned()),
            };
        }
        Intercepted::Panics(message) => return Caught::Answered(panic_of::<A, M>(slot, message)),
        Intercepted::Unanswered => return failed(unanswered::<A, M>()),
    };
    match message.downcast::<M>() {
        Ok(message) => Caught::Passes(*message),
        Err(_) => failed("the interceptor gave another message back".to_owned()),
    }
}

/// Shows a message that nobody waits for to the type's interceptor, if it has one. None if it does not go on.
#[inline]
pub(crate) fn one_way<A: Actor, M: Method<A>>(slot: &Arc<Slot<A>>, message: M) -> Option<M> {
    match &slot.host.interceptor {
        None => Some(message),
        Some(interceptor) => shown(&**interceptor, slot, message),
    }
}

#[cold]
fn shown<A: Actor, M: Method<A>>(
    interceptor: &dyn Interceptor,
    slot: &Arc<Slot<A>>,
    message: M,
) -> Option<M> {
    let message = match interceptor.call(&slot.actor_id(), M::INDEX, Box::new(message)) {
        Intercepted::Passes(message) => message,
        Intercepted::Later(message, delay) => {
            inject(slot, Act::Delay(delay));
            message
        }
        Intercepted::Answered(_) => return None,
        Intercepted::Panics(message) => {
            inject(slot, Act::Panic(message));
            return None;
        }
        Intercepted::Unanswered => {
            let actor = slot.actor_id();
            tracing::warn!(%actor, "{}", unanswered::<A, M>());
            return None;
        }
    };
    message.downcast().ok().map(|message| *message)
}

fn name<A: Actor, M: Method<A>>() -> &'static str {
    A::METHODS[M::INDEX].name
}

fn unanswered<A: Actor, M: Method<A>>() -> String {
    format!("the stand-in for {} has no answer for {}", A::SPEC.rust_type, name::<A, M>())
}

/// Puts a turn of the interceptor's own into the mailbox. A full one has no room for it either.
fn inject<A: Actor>(slot: &Arc<Slot<A>>, act: Act) {
    if slot.submit(unwatched(slot, Injected(act), Request::default())).is_err() {
        tracing::warn!(actor = %slot.actor_id(), "an injected fault found no room");
    }
}

/// Lets the actor panic in a turn, and gives what the caller of that turn hears.
fn panic_of<A: Actor, M: Method<A>>(slot: &Arc<Slot<A>>, message: String) -> Reply<M::Ok, M::Error> {
    let (turn, ticket) = queued::<A, Injected>(slot, Injected(Act::Panic(message)), Request::default());
    let refused = slot.submit(turn).err().map(|blocked| blocked.into_failure(slot));
    Box::pin(async move {
        let failure = match refused {
            Some(refused) => refused,
            None => match poll_fn(|cx| ticket.poll(cx.waker())).await {
                Ok(()) => unreachable!("the turn panics"),
                Err(failure) => failure,
            },
        };
        Err(match failure {
            // The turn was the interceptor's; the fault is the method's.
            CallError::Panicked(details) => {
                CallError::Panicked(Box::new(Panicked { method: name::<A, M>(), ..*details }))
            }
            other => other.widen(),
        })
    })
}

/// A turn that an interceptor runs on an actor.
struct Injected(Act);

enum Act {
    Delay(Duration),
    Panic(String),
}

impl<A: Actor> Method<A> for Injected {
    type Mode = Exclusive;
    type Ok = ();
    type Error = Infallible;
    // The turn needs some entry of the table. There is one: a message has come.
    const INDEX: usize = 0;

    async fn run<'a>(
        self,
        _actor: <Exclusive as TurnMode<A>>::Borrow<'a>,
        cx: &'a Cx,
    ) -> Result<(), Infallible> {
        match self.0 {
            Act::Delay(delay) => cx.sleep(delay).await,
            Act::Panic(message) => panic!("{message}"),
        }
        Ok(())
    }
}
