//! The turn that empties a buffer.
//!
//! It takes items out one after another and runs the method for each, as long as the method does not wait; so an actor
//! that is called meanwhile comes to its calls after at most [`PER_TURN`] quick items or one slow one. What it took and
//! did not handle goes back, whether it is done, or panicked, or was dropped.
//!
//! A turn that has come up with its publisher lingers for a moment before it ends: to call the next one costs the
//! publisher a system call, and the items the time in which a thread wakes up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::buffer::count;
use super::buffered::{ActorBuffer, Shape};
use crate::actor::{Actor, Method};
use crate::context::Cx;
use crate::dead_letters::{Past, Watched};
use crate::error::{CallError, Failure, Panicked, StopCause, Stopped};
use crate::turn::block::panic_text;
use crate::turn::{AnySlot, BATCH, Slot, Ticket, TurnMode};

/// Items, or batches of them, that one turn handles before the actor's other messages get theirs: as many as an executor
/// takes out of one mailbox.
const PER_TURN: usize = 64;

/// The same where the actor has no other messages, before other actors get their turns: as many as so many full turns
/// that follow each other.
const PER_VISIT: usize = PER_TURN * BATCH;

/// How often a turn looks whether more has come before it ends, and how often the processor pauses before each look:
/// together for a few microseconds, which is what it takes to wake a thread. Between two looks, a quick publisher has
/// published several items.
const LOOKS: usize = 8;
const PAUSES: usize = 16;

/// How soon a delivery is tried again that gave way at a full mailbox.
const RETRY: Duration = Duration::from_millis(10);

/// The message whose turn empties a buffer.
pub(super) struct Delivery<A: Actor, T, P> {
    pub(super) buffer: Arc<ActorBuffer<A, T, P>>,
    pub(super) slot: Arc<Slot<A>>,
    /// It came through the mailbox, on behalf of all items. Else a publisher called it, that waits for room.
    pub(super) came: bool,
}

/// A delivery that a publisher waits for. Dropping it takes it back if it has not begun.
pub(super) struct Called(pub(super) Ticket<(), Infallible>);

impl Future for Called {
    type Output = Result<(), Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.0.poll(cx.waker()).map(|ended| match ended {
            // That was one of the items, not the publisher's.
            Err(CallError::Panicked(_) | CallError::Superseded(_)) => Ok(()),
            ended => ended,
        })
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// A turn at work. However it ends, what it took and did not handle goes back, and the next one follows.
struct Serving<A: Actor, T: Send + 'static, P: Shape<A, T>> {
    of: Delivery<A, T, P>,
    items: VecDeque<T>,
    handled: usize,
    /// When it began, where that matters.
    since: Option<Duration>,
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Drop for Serving<A, T, P> {
    fn drop(&mut self) {
        let buffer = &self.of.buffer;
        if let Some(since) = self.since {
            buffer.buffer.drained(self.handled, buffer.now().saturating_sub(since));
        }
        buffer.go_on(&self.of.slot, std::mem::take(&mut self.items));
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Serving<A, T, P> {
    /// None while another turn is at work.
    fn begin(of: Delivery<A, T, P>, turn: usize) -> Option<Self> {
        if !of.buffer.buffer.begin_serving(turn, of.came) {
            return None;
        }
        let since = of.buffer.buffer.adapts().then(|| of.buffer.now());
        Some(Self { of, items: VecDeque::new(), handled: 0, since })
    }

    /// Waits a moment for more items. True if there are. Only where a publisher may be at work at the same time and has
    /// just been, and nobody else wants the actor. One that waited for room may need this very thread.
    fn lingers(&self) -> bool {
        let Delivery { buffer, slot, came } = &self.of;
        let may_come = self.handled > 1 && slot.node_executor().is_parallel() && !buffer.buffer.has_waiters();
        if !came || !may_come {
            return false;
        }
        for _ in 0..LOOKS {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
            if slot.others_wait() || slot.word.snapshot().wants_close() {
                return false;
            }
            if !buffer.buffer.is_empty() {
                return true;
            }
        }
        false
    }

    fn next(&mut self, at_once: usize) -> Option<P::Message> {
        let ActorBuffer { buffer, shape, .. } = &*self.of.buffer;
        if self.items.is_empty() {
            buffer.take_on(at_once * shape.most(), &mut self.items);
        }
        let before = self.items.len();
        let message = shape.next(&self.of.slot, &mut self.items)?;
        let handled = before - self.items.len();
        self.handled += handled;
        count(&self.of.buffer.counters.delivered, handled);
        Some(message)
    }
}

impl<A: Actor, T: Send + 'static, P: Shape<A, T>> Method<A> for Delivery<A, T, P> {
    type Mode = <P::Message as Method<A>>::Mode;
    type Ok = ();
    type Error = Infallible;
    const INDEX: usize = <P::Message as Method<A>>::INDEX;
    // Each of its messages leaves a letter of its own, so that it needs none.
    const WATCHED: bool = true;

    async fn run<'a>(
        self,
        mut actor: <Self::Mode as TurnMode<A>>::Borrow<'a>,
        cx: &'a Cx,
    ) -> Result<(), Infallible> {
        let Some(mut serving) = Serving::begin(self, cx.turn()) else { return Ok(()) };
        let mut ran = 0;
        loop {
            // The first shows whether the method waits; then what has not come yet would be fresher.
            let at_once = if ran == 0 { 1 } else { PER_TURN };
            let Some(message) = serving.next(at_once) else {
                if serving.lingers() {
                    continue;
                }
                break;
            };
            let Delivery { buffer, slot, came } = &serving.of;
            let borrow = <Self::Mode as TurnMode<A>>::reborrow(&mut actor);
            let waited =
                run_one::<A, P::Message>(slot, message, borrow, cx, || buffer.buffer.tell_waiters()).await;
            ran += 1;
            if waited || slot.word.snapshot().wants_close() {
                break;
            }
            // A publisher that called waits for the turn's end.
            if ran >= PER_TURN && (slot.others_wait() || !came || ran >= PER_VISIT) {
                break;
            }
        }
        Ok(())
    }

    fn lost(self, failure: &Failure) {
        let Self { buffer, slot, came } = self;
        // Its caller hears of it.
        if !came {
            return;
        }
        if !matches!(failure, CallError::Dropped(_)) {
            return buffer.lose(&slot, failure);
        }
        // It gave way at a full mailbox, where the items still have a place in their buffer.
        let timers = slot.executor().timers().clone();
        slot.executor().handle().spawn(async move {
            timers.sleep_until(timers.now().saturating_add(RETRY)).await;
            buffer.send(&slot);
        });
    }
}

/// Runs one message as a part of the turn. True if it waited; `on_wait` is called when it begins to.
async fn run_one<'a, A: Actor, M: Method<A>>(
    slot: &Arc<Slot<A>>,
    message: M,
    actor: <M::Mode as TurnMode<A>>::Borrow<'a>,
    cx: &'a Cx,
    on_wait: impl Fn(),
) -> bool {
    if const { A::SPEC.dead_letters.is_some() } {
        let watched = Watched::new(slot, message, Past::one_way());
        let (_, waited) = noting_waits(watched.run(actor, cx), on_wait).await;
        return waited;
    }
    let mut letter = Letter::<A, M> { slot, over: false, message: PhantomData };
    let (answer, waited) = noting_waits(letter.unless_it_ends(message.run(actor, cx)), on_wait).await;
    if let Err(error) = answer {
        let (actor_type, method) = (A::SPEC.name, A::METHODS[M::INDEX].name);
        tracing::warn!(actor_type, method, "a stream's item ended in an error");
        slot.host.bury_unkept::<M>(&slot.key, &CallError::Actor(error));
    }
    waited
}

/// The dead letter of an item whose message is not kept, unless its run comes to an end.
struct Letter<'a, A: Actor, M: Method<A>> {
    slot: &'a Arc<Slot<A>>,
    over: bool,
    message: PhantomData<fn() -> M>,
}

impl<A: Actor, M: Method<A>> Letter<'_, A, M> {
    async fn unless_it_ends<F: Future>(&mut self, run: F) -> F::Output {
        let mut run = pin!(run);
        let ended = poll_fn(|task| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(task))) {
            Ok(polled) => polled.map(Ok),
            Err(payload) => Poll::Ready(Err(payload)),
        });
        let ended = ended.await;
        self.over = true;
        ended.unwrap_or_else(|payload| {
            let details = Panicked {
                actor: self.slot.actor_id(),
                method: A::METHODS[M::INDEX].name,
                message: panic_text(&*payload).into(),
            };
            self.slot.host.bury_unkept::<M>(&self.slot.key, &CallError::Panicked(Box::new(details)));
            // The turn's own boundary does the rest.
            resume_unwind(payload)
        })
    }
}

impl<A: Actor, M: Method<A>> Drop for Letter<'_, A, M> {
    /// The turn was dropped before its end.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let cause = if self.slot.host.services.has_stopped() { StopCause::Silo } else { StopCause::Torn };
        let (actor, method) = (self.slot.actor_id(), A::METHODS[M::INDEX].name);
        let stopped = CallError::Stopped(Box::new(Stopped { actor, method, cause }));
        self.slot.host.bury_unkept::<M>(&self.slot.key, &stopped);
    }
}

async fn noting_waits<F: Future>(future: F, on_wait: impl Fn()) -> (F::Output, bool) {
    let (mut future, mut waited) = (pin!(future), false);
    let output = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => {
            if !std::mem::replace(&mut waited, true) {
                on_wait();
            }
            Poll::Pending
        }
    })
    .await;
    (output, waited)
}
