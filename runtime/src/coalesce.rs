//! Identical calls that are under way at the same time become one run, whose answer all of them get.
//!
//! A call of a `#[coalesce]` method looks for a run of the same actor, method and arguments. If there is one it joins
//! it, else it begins one. The run belongs to all its callers alike: whoever goes away leaves the others their run,
//! and if all are gone it is called back like any call. A run that has its answer is joined by nobody any more, so an
//! answer is never older than the call. A panic is the answer of all.
//!
//! Each caller keeps its own timeout, and the run has none. What travels with a call (request context, chain) is that
//! of the caller who began the run. So a caller who joins is not seen in the run's chain: what it waits for through
//! the run is then found out only by its timeout, as with any two chains that wait for each other. A call whose own
//! chain passes through the actor already never joins: it could be waiting for itself.

use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, IntoFuture, poll_fn};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use parking_lot::Mutex;
use quark_base::Key;

use crate::actor::{Actor, Method};
use crate::actor_ref::ActorRef;
use crate::call::{self, Call};
use crate::context::RequestContext;
use crate::error::{CallError, Panicked, Timeout};
use crate::turn::block::panic_message;
use crate::turn::{AnySlot, Slot, TaskRef};

/// Runs of one method that may be joined at the same time. A call beyond them runs by itself.
const RUNS_MAX: usize = 10_000;

/// An argument of a `#[coalesce]` method.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not tell whether two calls are identical",
    label = "an argument of a `#[coalesce]` method is `Clone + Eq + Hash`",
    note = "derive them, or leave `#[coalesce]` out"
)]
pub trait Comparable: Clone + Eq + Hash {}

impl<T: Clone + Eq + Hash> Comparable for T {}

/// What a `#[coalesce]` method answers or fails with.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the answer to several calls",
    label = "the answer and the error of a `#[coalesce]` method are `Clone + Send + Sync`",
    note = "derive `Clone`, answer with an `Arc` of it, or leave `#[coalesce]` out"
)]
pub trait Answerable: Clone + Send + Sync {}

impl<T: Clone + Send + Sync> Answerable for T {}

/// A method whose identical calls are joined. `#[coalesce]` implements it.
pub trait Coalesced<A: Actor>: Method<A, Ok: Answerable, Error: Answerable> + Comparable {}

/// A call that has not begun, and that will share its run with identical ones.
#[must_use = "a call does nothing until it is awaited or told"]
pub struct SharedCall<'r, A: Actor, M: Coalesced<A>> {
    target: &'r ActorRef<A>,
    message: M,
    timeout: Option<Duration>,
    context: Option<RequestContext>,
}

impl<'r, A: Actor, M: Coalesced<A>> SharedCall<'r, A, M> {
    #[inline]
    pub(crate) fn new(target: &'r ActorRef<A>, message: M) -> Self {
        Self { target, message, timeout: None, context: None }
    }

    /// Waits no longer than this for the answer, counted from when the call is first polled. The run goes on for as
    /// long as somebody waits for it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends this along, if this call is the one that begins the run, instead of what the current turn was sent.
    pub fn context(mut self, context: RequestContext) -> Self {
        self.context = Some(context);
        self
    }

    /// The same call with a run of its own.
    pub fn alone(self) -> Call<'r, A, M> {
        let mut call = self.target.call(self.message);
        if let Some(timeout) = self.timeout {
            call = call.timeout(timeout);
        }
        if let Some(context) = self.context {
            call = call.context(context);
        }
        call
    }

    /// Puts the message into the actor's mailbox and goes on. Nobody hears of its answer, so there is nothing to
    /// share.
    ///
    /// # Errors
    /// As for [`Call::tell`].
    pub fn tell(self) -> Result<(), CallError<M::Error>> {
        self.alone().tell()
    }

    async fn ask(self) -> Result<M::Ok, CallError<M::Error>> {
        let Some(slot) = self.target.slot() else { return self.alone().await };
        if TaskRef::chain_passes(&slot.actor_id()) {
            return self.alone().await;
        }
        let timers = slot.executor().timers().clone();
        let own = self.timeout.map(|timeout| timers.now().saturating_add(timeout));
        let deadline = own.into_iter().chain(call::inherited_deadline()).min();
        let runs = slot.host.runs::<M>();
        let Some(run) = runs.join(self.target, slot, &self.message, self.context.as_ref()) else {
            return self.alone().await;
        };
        let Some(deadline) = deadline else { return run.await };
        let (mut run, mut sleep) = (pin!(run), timers.sleep_until(deadline));
        poll_fn(|cx| match run.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(answer),
            Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(late::<A, M>(slot))),
        })
        .await
    }
}

/// The run may have begun, and goes on if somebody else waits for it.
fn late<A: Actor, M: Method<A>>(slot: &Slot<A>) -> CallError<M::Error> {
    let method = A::METHODS[M::INDEX].name;
    CallError::Timeout(Box::new(Timeout { actor: slot.actor_id(), method, started: true }))
}

impl<'r, A: Actor, M: Coalesced<A>> IntoFuture for SharedCall<'r, A, M> {
    type Output = Result<M::Ok, CallError<M::Error>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'r>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.ask())
    }
}

type Run<T, E> = Pin<Box<dyn Future<Output = Result<T, CallError<E>>> + Send>>;

/// The runs of one method that are under way.
pub(crate) struct Runs<A: Actor, M: Coalesced<A>>(Mutex<UnderWay<A, M>>);

struct UnderWay<A: Actor, M: Coalesced<A>> {
    by_call: HashMap<(Key, M), Entry<M::Ok, M::Error>>,
    /// Tells a run from one that had its place before.
    next: u64,
}

struct Entry<T, E> {
    number: u64,
    run: WeakShared<Run<T, E>>,
}

impl<A: Actor, M: Coalesced<A>> Runs<A, M> {
    fn new() -> Self {
        Self(Mutex::new(UnderWay { by_call: HashMap::new(), next: 0 }))
    }

    /// The run of an identical call, or a new one; `None` if there are too many.
    fn join(
        &self,
        target: &ActorRef<A>,
        slot: &Slot<A>,
        message: &M,
        context: Option<&RequestContext>,
    ) -> Option<Shared<Run<M::Ok, M::Error>>> {
        let call = (slot.key.clone(), message.clone());
        let mut under_way = self.0.lock();
        // One that has its answer, and is not out of here yet, is too old to join.
        let joined = under_way.by_call.get(&call).and_then(|entry| entry.run.upgrade());
        if let Some(run) = joined.filter(|run| run.peek().is_none()) {
            return Some(run);
        }
        if under_way.by_call.len() >= RUNS_MAX {
            return None;
        }
        let number = under_way.next;
        under_way.next += 1;
        let place = Place { target: target.clone(), call: call.clone(), number };
        let run = run(place, context.cloned()).shared();
        if let Some(weak) = run.downgrade() {
            under_way.by_call.insert(call, Entry { number, run: weak });
        }
        Some(run)
    }
}

/// One run for all who will join it. It never panics, which would reach all of them.
fn run<A: Actor, M: Coalesced<A>>(
    place: Place<A, M>,
    context: Option<RequestContext>,
) -> Run<M::Ok, M::Error> {
    let (target, message) = (place.target.clone(), place.call.1.clone());
    let ask = async move {
        let mut call = target.call(message).without_deadline();
        if let Some(context) = context {
            call = call.context(context);
        }
        call.await
    };
    let ask = AssertUnwindSafe(ask).catch_unwind();
    Box::pin(async move {
        let answer = ask.await.unwrap_or_else(|payload| Err(place.panicked(payload)));
        // Given up before anybody sees the answer, so that nobody joins who comes after it.
        drop(place);
        answer
    })
}

/// A run's place among those under way, for as long as it can be joined.
struct Place<A: Actor, M: Coalesced<A>> {
    target: ActorRef<A>,
    call: (Key, M),
    number: u64,
}

impl<A: Actor, M: Coalesced<A>> Place<A, M> {
    #[cold]
    fn panicked(&self, payload: Box<dyn Any + Send>) -> CallError<M::Error> {
        let actor = quark_base::ActorId { actor_type: A::SPEC.name, key: self.call.0.clone() };
        let (method, message) = (A::METHODS[M::INDEX].name, panic_message(payload));
        CallError::Panicked(Box::new(Panicked { actor, method, message }))
    }
}

impl<A: Actor, M: Coalesced<A>> Drop for Place<A, M> {
    fn drop(&mut self) {
        let Some(slot) = self.target.slot() else { return };
        let mut under_way = slot.host.runs::<M>().0.lock();
        let own = under_way.by_call.get(&self.call).is_some_and(|entry| entry.number == self.number);
        let gone = own.then(|| under_way.by_call.remove_entry(&self.call));
        drop(under_way);
        // The message's drop is the user's code, and does not run under the lock.
        drop(gone);
    }
}

/// The runs of all methods of a type, each made when it is first asked for.
pub(crate) struct AllRuns(Box<[OnceLock<Arc<dyn Any + Send + Sync>>]>);

impl AllRuns {
    pub(crate) fn of(methods: usize) -> Self {
        Self((0..methods).map(|_| OnceLock::new()).collect())
    }

    pub(crate) fn of_method<A: Actor, M: Coalesced<A>>(&self) -> &Runs<A, M> {
        let runs = self.0[M::INDEX].get_or_init(|| Arc::new(Runs::<A, M>::new()));
        // One method, one message type: a method's index belongs to it alone.
        runs.downcast_ref().unwrap_or_else(|| unreachable!("the macro numbers each method once"))
    }
}
