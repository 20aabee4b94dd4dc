//! Calling an actor: ask, tell, timeout.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quark_base::Clock;
use tokio::task::coop;

use crate::activation::{failure_of, note_failure};
use crate::actor::{Actor, Method};
use crate::actor_ref::ActorRef;
use crate::context::{Request, RequestContext};
use crate::dead_letters::{Past, Watched};
use crate::error::{CallError, Failure, Overloaded, Timeout};
use crate::guards::{Admission, InLine, Pass};
use crate::intercept::{self, Caught, Reply};
use crate::store::{Address, MessageId};
use crate::timers::Sleep;
use crate::turn::block::{self, with_local};
use crate::turn::local::Local;
use crate::turn::{
    AnySlot, Blocked, Hold, INLINE_DEPTH_MAX, Inline, Phase, Slot, Ticket, TurnMode, run_inline,
};
use crate::workers::{Claim, Pool};

/// How long a call waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// As long as the turn that it comes from.
    Inherited,
    /// No longer than this either.
    Within(Duration),
    /// For ever, whatever it comes from.
    None,
}

/// A call that has not begun. Await it for the answer, or [`tell`](Call::tell) it and go on.
#[must_use = "a call does nothing until it is awaited or told"]
pub struct Call<'r, A: Actor, M: Method<A>> {
    target: &'r ActorRef<A>,
    message: M,
    limit: Limit,
    context: Option<Arc<RequestContext>>,
}

impl<'r, A: Actor, M: Method<A>> Call<'r, A, M> {
    #[inline]
    pub(crate) fn new(target: &'r ActorRef<A>, message: M) -> Self {
        Self { target, message, limit: Limit::Inherited, context: None }
    }

    /// Waits no longer than this for the answer, counted from when the call is first polled. Calls that the
    /// method makes in its turn inherit what is left. No timer is armed unless the answer takes a wait.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limit = Limit::Within(timeout);
        self
    }

    /// Waits for as long as it takes, also where the current turn has a deadline.
    pub(crate) fn without_deadline(mut self) -> Self {
        self.limit = Limit::None;
        self
    }

    /// The message, without its call.
    pub(crate) fn into_message(self) -> M {
        self.message
    }

    /// Whom it is for, if that is known here, and the message.
    pub(crate) fn into_parts(self) -> (Option<Address>, M) {
        (self.target.slot().map(|slot| Address::from(&slot.actor_id())), self.message)
    }

    /// Says which durable message it is.
    pub(crate) fn with_message_id(self, id: MessageId) -> Self {
        let context = self.context.as_deref().cloned().unwrap_or_default();
        self.context(context.message(id))
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
        let context = self.context.or_else(|| with_local(block::current_context));
        let request = if context.is_some() { Request::new(context, None) } else { Request::default() };
        let chosen = self.target.pool().map(|pool| pool.choose_anywhere(<M::Mode as TurnMode<A>>::EXCLUSIVE));
        let slot = chosen.as_ref().map_or(slot, Claim::slot);
        let Some(message) = intercept::one_way(slot, self.message) else { return Ok(()) };
        let turn = block::one_way::<A, M>(slot, message, request);
        slot.send(turn).map_err(|blocked| refused(slot, blocked).widen())
    }
}

#[cold]
fn refused<A: Actor>(slot: &Slot<A>, blocked: Blocked) -> Failure {
    blocked.into_failure(slot)
}

impl<'r, A: Actor, M: Method<A>> IntoFuture for Call<'r, A, M> {
    type Output = Result<M::Ok, CallError<M::Error>>;
    type IntoFuture = Ask<'r, A, M>;

    #[inline]
    fn into_future(self) -> Ask<'r, A, M> {
        Ask {
            target: self.target,
            message: Some(self.message),
            limit: self.limit,
            context: self.context,
            waiting: None,
        }
    }
}

/// The answer to a call.
///
/// Dropping it before the turn began takes the call back; afterwards the turn runs to its end without a reader.
#[must_use = "a call does nothing until it is awaited"]
pub struct Ask<'r, A: Actor, M: Method<A>> {
    target: &'r ActorRef<A>,
    /// There until the call begins.
    message: Option<M>,
    limit: Limit,
    context: Option<Arc<RequestContext>>,
    /// There from when the call waits until it is answered.
    waiting: Option<Waiting<M::Ok, M::Error>>,
}

/// What a call waits for.
enum Waiting<T, E> {
    /// Its answer.
    Answer(Answer<T, E>),
    /// Its turn in the line of a rate limit.
    Line(Line<T, E>),
    /// What an interceptor answers.
    Intercepted(Reply<T, E>, Option<Sleep>),
}

struct Answer<T, E> {
    ticket: Ticket<T, E>,
    /// What the type's gate let the call in with.
    pass: Pass,
    timer: Option<Sleep>,
}

struct Line<T, E> {
    place: InLine,
    /// The call, which begins when its turn has come.
    begin: Box<Begin<T, E>>,
    timer: Option<Sleep>,
}

type Begin<T, E> =
    dyn FnOnce(&Local, Pass, &mut Option<Waiting<T, E>>) -> Poll<Result<T, CallError<E>>> + Send;

// Nothing in it is pinned in place: the message is moved out before anything borrows it, all else is boxed.
impl<A: Actor, M: Method<A>> Unpin for Ask<'_, A, M> {}

impl<A: Actor, M: Method<A>> Future for Ask<'_, A, M> {
    type Output = Result<M::Ok, CallError<M::Error>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.message.is_none() {
            return this.poll_waiting(cx);
        }
        // An inline turn is work on the caller's time, so it counts against the caller's budget.
        ready!(coop::poll_proceed(cx)).made_progress();
        let Some(message) = this.message.take() else { return Poll::Pending };
        let Some(slot) = this.target.slot() else { return Poll::Ready(Err(not_hosted::<A>().widen())) };
        let waiting = &mut this.waiting;
        let (context, limit) = (this.context.take(), this.limit);
        let begun = with_local(|local| {
            let request = request(local, slot, context, limit);
            if const { keeps_asks::<A>() } {
                let message = match caught(slot, message, &request, waiting) {
                    Some(message) => message,
                    None => return Poll::Pending,
                };
                let watched = Watched::new(slot, message, Past::asked());
                return begin(local, this.target, slot, watched, request, waiting);
            }
            begin(local, this.target, slot, message, request, waiting)
        });
        match begun {
            Poll::Ready(reply) => Poll::Ready(reply),
            Poll::Pending => this.poll_waiting(cx),
        }
    }
}

impl<A: Actor, M: Method<A>> Ask<'_, A, M> {
    #[inline(never)]
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<M::Ok, CallError<M::Error>>> {
        let Some(slot) = self.target.slot() else { return Poll::Ready(Err(not_hosted::<A>().widen())) };
        let late = |started| late(slot, M::INDEX, started);
        if let Some(Waiting::Line(line)) = &mut self.waiting {
            let passed = ready!(line.poll(cx, late));
            let Some(Waiting::Line(line)) = self.waiting.take() else { return Poll::Pending };
            let begun = match passed {
                Ok(pass) => with_local(|local| (line.begin)(local, pass, &mut self.waiting)),
                Err(failure) => Poll::Ready(Err(failure.widen())),
            };
            if begun.is_ready() {
                return begun;
            }
        }
        if let Some(Waiting::Intercepted(reply, timer)) = &mut self.waiting {
            if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
                self.waiting = None;
                return Poll::Ready(reply);
            }
            let Some(timer) = timer else { return Poll::Pending };
            ready!(Pin::new(timer).poll(cx));
            self.waiting = None;
            return Poll::Ready(Err(late(true).widen()));
        }
        let Some(Waiting::Answer(answer)) = &mut self.waiting else { return Poll::Pending };
        let reply = ready!(answer.poll(cx, late));
        if let Some(gate) = &slot.host.gate {
            gate.heard(answer.pass, &reply);
        }
        self.waiting = None;
        Poll::Ready(reply)
    }
}

impl<T, E> Answer<T, E> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        late: impl FnOnce(bool) -> Failure,
    ) -> Poll<Result<T, CallError<E>>> {
        if let Poll::Ready(reply) = self.ticket.poll(cx.waker()) {
            return Poll::Ready(reply);
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(Pin::new(timer).poll(cx));
        let started = !self.ticket.abandon();
        Poll::Ready(Err(late(started).widen()))
    }
}

impl<T, E> Line<T, E> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        late: impl FnOnce(bool) -> Failure,
    ) -> Poll<Result<Pass, Failure>> {
        if let Poll::Ready(passed) = self.place.as_mut().poll(cx) {
            return Poll::Ready(passed);
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(Pin::new(timer).poll(cx));
        Poll::Ready(Err(late(false)))
    }
}

impl<A: Actor, M: Method<A>> Drop for Ask<'_, A, M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(Waiting::Answer(answer)) = &self.waiting {
            answer.ticket.abandon();
        }
    }
}

#[cold]
fn late<A: Actor>(slot: &Slot<A>, method: usize, started: bool) -> Failure {
    let method = A::METHODS[method].name;
    CallError::Timeout(Box::new(Timeout { actor: slot.actor_id(), method, started }))
}

/// Begins a call: on this thread if the actor is free and lives here, else through its mailbox.
#[inline(always)]
fn begin<A: Actor, M: Method<A>>(
    local: &Local,
    target: &ActorRef<A>,
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
    waiting: &mut Option<Waiting<M::Ok, M::Error>>,
) -> Poll<Result<M::Ok, CallError<M::Error>>> {
    if let Some(pool) = target.pool() {
        return begin_at_worker(local, pool, message, request, waiting);
    }
    let here = may_run_here(local, slot, &request, M::INDEX);
    if here
        && slot.host.is_open()
        && let Some(hold) = acquire::<A, M>(local, slot)
    {
        return run_here(local, slot, message, request, hold, Pass::ANY, waiting);
    }
    begin_slowly(local, slot, message, request, here, waiting)
}

/// Begins a call at one of several workers: on this thread at the first that is free, else at one that is made or
/// waited for.
fn begin_at_worker<A: Actor, M: Method<A>>(
    local: &Local,
    pool: &Pool<A>,
    message: M,
    request: Request,
    waiting: &mut Option<Waiting<M::Ok, M::Error>>,
) -> Poll<Result<M::Ok, CallError<M::Error>>> {
    let open = pool.first().host.is_open();
    let take = |slot: &Arc<Slot<A>>| {
        let here = open && may_run_here(local, slot, &request, M::INDEX);
        here.then(|| acquire::<A, M>(local, slot)).flatten()
    };
    let crew = pool.crew(Some(local));
    if let Some((slot, hold)) = crew.find(take) {
        return run_here(local, &slot, message, request, hold, Pass::ANY, waiting);
    }
    let chosen = pool.choose(crew, <M::Mode as TurnMode<A>>::EXCLUSIVE);
    let here = may_run_here(local, chosen.slot(), &request, M::INDEX);
    begin_slowly(local, chosen.slot(), message, request, here, waiting)
}

/// Whether a turn may be polled on this thread, as far as method, caller and deadline go.
#[inline(always)]
fn may_run_here<A: Actor>(local: &Local, slot: &Slot<A>, request: &Request, method: usize) -> bool {
    slot.host.is_floating()
        && slot.host.is_quick(method)
        && local.depth.get() < INLINE_DEPTH_MAX
        && request.deadline().is_none_or(|deadline| deadline > slot.host.services.clock.now())
        && local.runs_in(slot.home())
}

/// Begins a call that did not get the actor at the first try, or that must pass its type's gate.
#[inline(never)]
fn begin_slowly<A: Actor, M: Method<A>>(
    local: &Local,
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
    here: bool,
    waiting: &mut Option<Waiting<M::Ok, M::Error>>,
) -> Poll<Result<M::Ok, CallError<M::Error>>> {
    if request.deadline().is_some_and(|deadline| deadline <= slot.host.services.clock.now()) {
        return Poll::Ready(Err(late(slot, M::INDEX, false).widen()));
    }
    // One that sees to its dead letter was shown before it was told to.
    let shown = if M::WATCHED { Some(message) } else { caught(slot, message, &request, waiting) };
    let Some(message) = shown else { return Poll::Pending };
    let Some(gate) = &slot.host.gate else {
        return begin_admitted(local, slot, message, request, here, Pass::ANY, waiting);
    };
    match gate.admit(&slot.key) {
        Admission::Go(pass) => begin_admitted(local, slot, message, request, here, pass, waiting),
        Admission::Refused(failure) => Poll::Ready(Err(failure.widen())),
        Admission::Waits(place) => {
            let timer = request.deadline().map(|at| slot.executor().timers().sleep_until(at));
            let slot = slot.clone();
            let begin: Box<Begin<_, _>> = Box::new(move |local, pass, waiting| {
                let here = may_run_here(local, &slot, &request, M::INDEX);
                begin_admitted(local, &slot, message, request, here, pass, waiting)
            });
            *waiting = Some(Waiting::Line(Line { place, begin, timer }));
            Poll::Pending
        }
    }
}

/// Shows the call to the type's interceptor, if it has one. None if that answers it.
#[inline]
fn caught<A: Actor, M: Method<A>>(
    slot: &Arc<Slot<A>>,
    message: M,
    request: &Request,
    waiting: &mut Option<Waiting<M::Ok, M::Error>>,
) -> Option<M> {
    let Some(interceptor) = &slot.host.interceptor else { return Some(message) };
    match intercept::ask(&**interceptor, slot, message) {
        Caught::Passes(message) => Some(message),
        Caught::Answered(reply) => {
            let timer = request.deadline().map(|at| slot.executor().timers().sleep_until(at));
            *waiting = Some(Waiting::Intercepted(reply, timer));
            None
        }
    }
}

/// Begins a call that the type's gate has let in.
fn begin_admitted<A: Actor, M: Method<A>>(
    local: &Local,
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
    here: bool,
    pass: Pass,
    waiting: &mut Option<Waiting<M::Ok, M::Error>>,
) -> Poll<Result<M::Ok, CallError<M::Error>>> {
    let reported = slot.report_demand();
    let gate = slot.host.gate.as_ref();
    if here {
        let mut hold = None;
        let exclusive = <M::Mode as TurnMode<A>>::EXCLUSIVE;
        let seen = slot.word.snapshot();
        // Also a shared call, when whoever wanted the actor alone has given up since.
        let gathers = seen.is_gathering() || (exclusive && seen.is_spread());
        let gathered = gathers && slot.gather(&slot.mailbox());
        if reported || gathered || gate.is_some() {
            hold = acquire::<A, M>(local, slot);
        }
        let vacant = || slot.word.snapshot().phase() == Phase::Vacant;
        if hold.is_none() && slot.host.activates_instantly() && vacant() {
            hold = match activate_here(slot, exclusive) {
                Some(Err(failure)) => return Poll::Ready(Err(failure.widen())),
                made => made.and_then(Result::ok),
            };
        }
        if let Some(hold) = hold {
            let begun = run_here(local, slot, message, request, hold, pass, waiting);
            if let (Some(gate), Poll::Ready(reply)) = (gate, &begun) {
                gate.heard(pass, reply);
            }
            return begun;
        }
    }
    let deadline = request.deadline();
    let (turn, ticket) = block::queued::<A, M>(slot, message, request);
    match slot.submit(turn) {
        Ok(()) => wait(slot, ticket, deadline, pass, waiting),
        Err(blocked) => Poll::Ready(Err(blocked.into_failure(slot).widen())),
    }
}

#[inline(always)]
fn acquire<A: Actor, M: Method<A>>(local: &Local, slot: &Slot<A>) -> Option<Hold> {
    if <M::Mode as TurnMode<A>>::EXCLUSIVE {
        slot.word.try_exclusive().then_some(Hold::Exclusive)
    } else {
        slot.acquire_shared(local)
    }
}

#[inline(always)]
fn run_here<A: Actor, M: Method<A>>(
    local: &Local,
    slot: &Arc<Slot<A>>,
    message: M,
    request: Request,
    hold: Hold,
    pass: Pass,
    waiting: &mut Option<Waiting<M::Ok, M::Error>>,
) -> Poll<Result<M::Ok, CallError<M::Error>>> {
    slot.touch();
    let deadline = request.deadline();
    let timing = slot.host.time(local, M::INDEX);
    let begun = run_inline(local, slot, message, request, hold);
    if let Some(timing) = timing {
        timing.end();
    }
    match begun {
        Inline::Done(reply) => {
            let superseded = slot.superseded::<M>();
            slot.release(hold, local);
            Poll::Ready(superseded.map_or(Ok(reply), Err))
        }
        Inline::Failed(error) => {
            let superseded = slot.superseded::<M>();
            slot.release(hold, local);
            Poll::Ready(Err(superseded.unwrap_or(CallError::Actor(error))))
        }
        Inline::Panicked(details) => {
            slot.release(hold, local);
            Poll::Ready(Err(CallError::Panicked(details)))
        }
        Inline::Pending(turn, ticket) => {
            slot.hand_over(turn, local);
            wait(slot, ticket, deadline, pass, waiting)
        }
    }
}

/// The call takes a wait.
#[cold]
fn wait<A: Actor, T, E>(
    slot: &Slot<A>,
    ticket: Ticket<T, E>,
    deadline: Option<Duration>,
    pass: Pass,
    waiting: &mut Option<Waiting<T, E>>,
) -> Poll<Result<T, CallError<E>>> {
    let timer = deadline.map(|at| slot.executor().timers().sleep_until(at));
    *waiting = Some(Waiting::Answer(Answer { ticket, pass, timer }));
    Poll::Pending
}

/// Makes the actor on the spot. `None` if somebody else is about to.
#[cold]
fn activate_here<A: Actor>(slot: &Arc<Slot<A>>, exclusive: bool) -> Option<Result<Hold, Failure>> {
    if slot.host.is_draining() {
        return Some(Err(CallError::Draining(Box::new(slot.actor_id()))));
    }
    // One that a supervisor may have stopped, or will want to try again, activates where that is known.
    if A::SPEC.root.is_some() || slot.host.services.supervision.has_parent(&slot.actor_id()) {
        return None;
    }
    let sole = slot.word.begin_instant()?;
    slot.host.services.activation_begins();
    Some(match slot.host.create(&slot.key) {
        Ok(actor) => Ok(slot.fill_instant(sole, actor, exclusive)),
        Err(cause) => {
            note_failure(&slot.host, &cause);
            let error = Arc::new(slot.host.activation_error(&slot.key, cause));
            slot.abandon_instant(sole, &error);
            Err(failure_of(&error))
        }
    })
}

#[inline(always)]
fn request<A: Actor>(
    local: &Local,
    slot: &Slot<A>,
    context: Option<Arc<RequestContext>>,
    limit: Limit,
) -> Request {
    let inherited = inherited(local);
    if context.is_none() && limit == Limit::Inherited {
        return inherited;
    }
    own_request(&inherited, &*slot.host.services.clock, context, limit)
}

#[cold]
fn own_request(
    inherited: &Request,
    clock: &dyn Clock,
    context: Option<Arc<RequestContext>>,
    limit: Limit,
) -> Request {
    let deadline = match limit {
        Limit::Inherited => inherited.deadline(),
        Limit::Within(time) => clock.now().checked_add(time).into_iter().chain(inherited.deadline()).min(),
        Limit::None => None,
    };
    Request::new(context.or_else(|| inherited.context().cloned()), deadline)
}

/// What the turn that is being polled on this thread was sent.
#[inline(always)]
fn inherited(local: &Local) -> Request {
    block::current_request(local).unwrap_or_default()
}

/// When the turn that is being polled on this thread must have its answers.
pub(crate) fn inherited_deadline() -> Option<Duration> {
    with_local(inherited).deadline()
}

/// Whether the type's asks are kept beside their turns for the dead letters.
const fn keeps_asks<A: Actor>() -> bool {
    match A::SPEC.dead_letters {
        Some(spec) => spec.asks,
        None => false,
    }
}

fn not_hosted<A: Actor>() -> Failure {
    CallError::NotHosted(const { &A::SPEC })
}

impl Blocked {
    pub(crate) fn into_failure<A: Actor>(self, slot: &Slot<A>) -> Failure {
        match self {
            Blocked::Failed(failure) => failure,
            Blocked::Full(_) => {
                let details = Overloaded { actor: slot.actor_id(), capacity: slot.mailbox_capacity() };
                CallError::Overloaded(Box::new(details))
            }
        }
    }
}
