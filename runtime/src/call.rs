//! Calling an actor: ask, tell, timeout.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::task::coop;
use tokio::time::{Sleep, sleep_until};

use crate::activation::failure_of;
use crate::actor::{Actor, Method};
use crate::actor_ref::ActorRef;
use crate::context::{Request, RequestContext};
use crate::error::{CallError, Failure};
use crate::turn::local::{self, Local};
use crate::turn::task::{self, run_inline};
use crate::turn::{Blocked, Hold, INLINE_DEPTH_MAX, Inline, Phase, Slot, Ticket, TurnMode};

/// A call that has not begun. Await it for the answer, or [`tell`](Call::tell) it and go on.
#[must_use = "a call does nothing until it is awaited or told"]
pub struct Call<'r, A: Actor, M: Method<A>> {
    target: &'r ActorRef<A>,
    message: M,
    timeout: Option<Duration>,
    context: Option<Arc<RequestContext>>,
}

impl<'r, A: Actor, M: Method<A>> Call<'r, A, M> {
    #[inline]
    pub(crate) fn new(target: &'r ActorRef<A>, message: M) -> Self {
        Self { target, message, timeout: None, context: None }
    }

    /// Waits no longer than this for the answer, counted from when the call is first polled. Calls that the
    /// method makes in its turn inherit what is left. No timer is armed unless the answer takes a wait.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends this along instead of what the current turn was sent.
    pub fn context(mut self, context: RequestContext) -> Self {
        self.context = Some(Arc::new(context));
        self
    }

    /// Puts the message into the actor's mailbox and goes on. Nobody hears of its answer; an error or panic is
    /// logged.
    ///
    /// # Errors
    /// When the message did not get into the mailbox: nothing ran.
    pub fn tell(self) -> Result<(), CallError<M::Error>> {
        let Some(slot) = self.target.slot() else { return Err(not_hosted::<A>().widen()) };
        let mut request = local::with(inherited);
        request.deadline = None;
        if let Some(context) = self.context {
            request.context = Some(context);
        }
        slot.report_demand();
        let (turn, _) = task::queued::<A, M>(slot, self.message, request, true);
        slot.submit(turn).map_err(|blocked| blocked.into_failure(slot).widen())
    }
}

impl<'r, A: Actor, M: Method<A>> IntoFuture for Call<'r, A, M> {
    type Output = Result<M::Ok, CallError<M::Error>>;
    type IntoFuture = Ask<'r, A, M>;

    #[inline]
    fn into_future(self) -> Ask<'r, A, M> {
        Ask { target: self.target, timeout: self.timeout, state: State::New(self.message, self.context) }
    }
}

/// The answer to a call.
///
/// Dropping it before the turn began takes the call back; afterwards the turn runs to its end without a reader.
#[must_use = "a call does nothing until it is awaited"]
pub struct Ask<'r, A: Actor, M: Method<A>> {
    target: &'r ActorRef<A>,
    timeout: Option<Duration>,
    state: State<A, M>,
}

enum State<A: Actor, M: Method<A>> {
    New(M, Option<Arc<RequestContext>>),
    Waiting(Ticket<M::Ok, M::Error>, Option<Pin<Box<Sleep>>>),
    Over,
}

// Nothing in it is pinned in place: the message is moved out before anything borrows it, the timer is boxed.
impl<A: Actor, M: Method<A>> Unpin for Ask<'_, A, M> {}

/// How a call began.
enum Begun<M: Method<A>, A: Actor> {
    Done(Result<M::Ok, CallError<M::Error>>),
    Waits(Ticket<M::Ok, M::Error>),
}

impl<A: Actor, M: Method<A>> Future for Ask<'_, A, M> {
    type Output = Result<M::Ok, CallError<M::Error>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let State::New(..) = this.state {
            let Some(slot) = this.target.slot() else {
                this.state = State::Over;
                return Poll::Ready(Err(not_hosted::<A>().widen()));
            };
            // An inline turn is work on the caller's time, so it counts against the caller's budget.
            let budget = ready!(coop::poll_proceed(cx));
            let State::New(message, context) = std::mem::replace(&mut this.state, State::Over) else {
                unreachable!("checked above")
            };
            let (begun, deadline) = begin(slot, message, context, this.timeout);
            budget.made_progress();
            match begun {
                Begun::Done(reply) => return Poll::Ready(reply),
                Begun::Waits(ticket) => {
                    let timer = deadline.map(|deadline| {
                        let _entered = slot.node_executor().handle().enter();
                        Box::pin(sleep_until(deadline.into()))
                    });
                    this.state = State::Waiting(ticket, timer);
                }
            }
        }
        this.poll_waiting(cx)
    }
}

impl<A: Actor, M: Method<A>> Ask<'_, A, M> {
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<M::Ok, CallError<M::Error>>> {
        let State::Waiting(ticket, timer) = &mut self.state else { return Poll::Pending };
        if let Poll::Ready(reply) = ticket.poll(cx.waker()) {
            self.state = State::Over;
            return Poll::Ready(reply);
        }
        let Some(timer) = timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        let started = !ticket.abandon();
        self.state = State::Over;
        let method = A::METHODS[M::INDEX].name;
        let actor = self.target.slot().map(|slot| slot.actor_id());
        Poll::Ready(match actor {
            Some(actor) => Err(CallError::Timeout { actor, method, started }),
            None => Err(not_hosted::<A>().widen()),
        })
    }
}

impl<A: Actor, M: Method<A>> Drop for Ask<'_, A, M> {
    fn drop(&mut self) {
        if let State::Waiting(ticket, _) = &self.state {
            ticket.abandon();
        }
    }
}

/// Begins a call: on this thread if the actor is free and lives here, else through its mailbox.
#[inline]
fn begin<A: Actor, M: Method<A>>(
    slot: &Arc<Slot<A>>,
    message: M,
    context: Option<Arc<RequestContext>>,
    timeout: Option<Duration>,
) -> (Begun<M, A>, Option<Instant>) {
    local::with(|local| {
        let request = request(local, context, timeout);
        let deadline = request.deadline;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let late = CallError::Timeout {
                actor: slot.actor_id(),
                method: A::METHODS[M::INDEX].name,
                started: false,
            };
            return (Begun::Done(Err(late)), deadline);
        }
        let host = &slot.host;
        let may_run_here = host.is_floating()
            && host.is_quick(M::INDEX)
            && local.depth.get() < INLINE_DEPTH_MAX
            && local.runs_in(slot.node_executor().home());
        if may_run_here {
            if let Some(hold) = acquire::<A, M>(slot) {
                return (run_here(local, slot, message, request, hold), deadline);
            }
            if slot.report_demand()
                && let Some(hold) = acquire::<A, M>(slot)
            {
                return (run_here(local, slot, message, request, hold), deadline);
            }
            if host.activates_instantly() && slot.word.snapshot().phase() == Phase::Vacant {
                match activate_here(slot) {
                    Some(Ok(())) => {
                        return (run_here(local, slot, message, request, Hold::Exclusive), deadline);
                    }
                    Some(Err(failure)) => return (Begun::Done(Err(failure.widen())), deadline),
                    None => {}
                }
            }
        } else {
            slot.report_demand();
        }
        let (turn, ticket) = task::queued::<A, M>(slot, message, request, false);
        match slot.submit(turn) {
            Ok(()) => (Begun::Waits(ticket), deadline),
            Err(blocked) => (Begun::Done(Err(blocked.into_failure(slot).widen())), deadline),
        }
    })
}

#[inline]
fn acquire<A: Actor, M: Method<A>>(slot: &Slot<A>) -> Option<Hold> {
    if <M::Mode as TurnMode<A>>::EXCLUSIVE {
        slot.word.try_exclusive().then_some(Hold::Exclusive)
    } else {
        slot.word.try_shared().then_some(Hold::Shared)
    }
}

#[inline]
fn run_here<A: Actor, M: Method<A>>(
    local: &Local,
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
    hold: Hold,
) -> Begun<M, A> {
    slot.touch();
    match slot.host.timed(M::INDEX, || run_inline(local, slot, message, request, hold)) {
        Inline::Done { reply, panicked } => {
            slot.release(hold, panicked);
            Begun::Done(reply)
        }
        Inline::Pending(turn, ticket) => {
            slot.hand_over(turn);
            Begun::Waits(ticket)
        }
    }
}

/// Makes the actor on the spot. `None` if somebody else is about to.
#[cold]
fn activate_here<A: Actor>(slot: &Arc<Slot<A>>) -> Option<Result<(), Failure>> {
    if slot.host.is_draining() {
        return Some(Err(CallError::Draining { actor: slot.actor_id() }));
    }
    if !slot.word.begin_instant() {
        return None;
    }
    slot.host.services.activation_begins();
    Some(match slot.host.create(&slot.key) {
        Ok(actor) => {
            slot.fill_instant(actor);
            Ok(())
        }
        Err(cause) => {
            let error = Arc::new(slot.host.activation_error(&slot.key, cause));
            slot.abandon_instant(&error);
            Err(failure_of(&error))
        }
    })
}

#[inline]
fn request(local: &Local, context: Option<Arc<RequestContext>>, timeout: Option<Duration>) -> Request {
    let mut request = inherited(local);
    if let Some(context) = context {
        request.context = Some(context);
    }
    if let Some(timeout) = timeout {
        let own = Instant::now().checked_add(timeout);
        request.deadline = match (own, request.deadline) {
            (Some(own), Some(outer)) => Some(own.min(outer)),
            (own, outer) => own.or(outer),
        };
    }
    request
}

/// What the turn that is being polled on this thread was sent.
#[inline]
fn inherited(local: &Local) -> Request {
    task::current_request(local).unwrap_or_default()
}

fn not_hosted<A: Actor>() -> Failure {
    CallError::NotHosted { actor_type: A::SPEC.name, rust_type: A::SPEC.rust_type }
}

impl Blocked {
    fn into_failure<A: Actor>(self, slot: &Slot<A>) -> Failure {
        match self {
            Blocked::Failed(failure) => failure,
            Blocked::Full(_) => {
                CallError::Overloaded { actor: slot.actor_id(), capacity: slot.host.mailbox_capacity() }
            }
        }
    }
}
