//! Timers of an activation: messages that an actor sends to itself at their time.
//!
//! A tick is a one-way message through the actor's own method, so it is a turn like any other: it waits for the turns
//! before it, and a panic in it is handled as any turn's panic. What is particular to it:
//!
//! - **It ends with its activation.** A tick that still waits in the mailbox then is taken out.
//! - **Ticks never pile up.** A periodic timer sends its next tick only after the turn of the last one has ended; one
//!   that is due meanwhile is missed, and counted. So a timer has at most one message in the mailbox.
//! - **A full mailbox** costs a periodic timer that tick, which is counted as missed. The message of a timer that ticks
//!   once is tried again every [`RETRY`] until there is room.
//! - **It is no use of the actor**, as far as idle deactivation goes, unless its schedule says `keeping_active`.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quark_base::{ActorId, Fault, Outcome, Retry};

use super::schedule::Schedule;
use super::{Due, Fire, TimerKey, Timers};
use crate::actor::{Actor, Method, Reference};
use crate::actor_ref::ActorRef;
use crate::call::Call;
use crate::context::{Cx, Request};
use crate::dead_letters::{Past, Watched};
use crate::error::Failure;
use crate::turn::block::{panic_message, unwatched};
use crate::turn::{AnySlot, Blocked, Slot, TaskRef, TurnMode};

/// Timers that one activation may have at once. They are for the few rhythms of an actor's own life; what comes in
/// numbers is better kept as a list that one timer looks through.
pub const TIMERS_MAX: usize = 64;

/// How soon a message that found the mailbox full is tried again: a mailbox's worth of quick turns takes a few
/// milliseconds.
const RETRY: Duration = Duration::from_millis(10);

impl Cx {
    /// Sends the running actor a message after `delay`: `cx.after(ms(50), |me: &SensorRef| me.flush())`. The timer ends
    /// with the activation, or when it is cancelled; dropping it changes nothing.
    ///
    /// In a context without a silo nothing is sent, ever.
    ///
    /// # Errors
    /// [`TimerError`]; nothing was started.
    pub fn after<R, A, M>(
        &self,
        delay: Duration,
        message: impl for<'r> FnOnce(&'r R) -> Call<'r, A, M>,
    ) -> Result<Timer, TimerError>
    where
        R: Reference<Actor = A>,
        A: Actor<Ref = R>,
        M: Method<A>,
    {
        let Some(slot) = self.own_slot::<A>()? else { return Ok(Timer(None)) };
        let me = reference(&slot);
        let message = message(&me).into_message();
        start(&slot, Schedule::after(delay), Once { message: Mutex::new(Some(message)), actor: PhantomData })
    }

    /// Sends the running actor a message every `period`, which `message` makes anew each time:
    /// `cx.every(ms(50), |me: &SensorRef| me.poll())`. Otherwise as [`after`](Self::after).
    ///
    /// # Errors
    /// [`TimerError`]; nothing was started.
    pub fn every<R, A, M>(
        &self,
        period: Duration,
        message: impl for<'r> Fn(&'r R) -> Call<'r, A, M> + Send + Sync + 'static,
    ) -> Result<Timer, TimerError>
    where
        R: Reference<Actor = A>,
        A: Actor<Ref = R>,
        M: Method<A>,
    {
        self.timer(Schedule::every(period), message)
    }

    /// Sends the running actor messages by a schedule. `message` makes them on the thread that drives the silo's
    /// timers, so it should be quick; if it panics the timer ends.
    ///
    /// # Errors
    /// [`TimerError`]; nothing was started.
    pub fn timer<R, A, M>(
        &self,
        schedule: Schedule,
        message: impl for<'r> Fn(&'r R) -> Call<'r, A, M> + Send + Sync + 'static,
    ) -> Result<Timer, TimerError>
    where
        R: Reference<Actor = A>,
        A: Actor<Ref = R>,
        M: Method<A>,
    {
        let Some(slot) = self.own_slot::<A>()? else { return Ok(Timer(None)) };
        start(&slot, schedule, Again { message, actor: PhantomData })
    }

    /// The running actor's slot. None in a context without a silo.
    fn own_slot<A: Actor>(&self) -> Result<Option<Arc<Slot<A>>>, TimerError> {
        let Some(slot) = self.slot() else { return Ok(None) };
        let own: Arc<dyn Any + Send + Sync> = slot.shared().into_any();
        let own = own.downcast::<Slot<A>>();
        own.map(Some).map_err(|_| TimerError::OtherActor {
            actor: slot.id(),
            reference: std::any::type_name::<A::Ref>(),
        })
    }
}

fn reference<A: Actor>(slot: &Arc<Slot<A>>) -> A::Ref {
    A::Ref::from(ActorRef::new(Some(slot.clone())))
}

/// A timer that was started. Dropping it does not end it.
#[derive(Clone)]
pub struct Timer(Option<Arc<Shared>>);

/// Why a timer was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimerError {
    /// The activation has as many timers as it may have. Cancel one first, or let one timer serve several purposes.
    #[error("{actor} has {} timers already; cancel one, or let one serve several purposes", TIMERS_MAX)]
    TooMany {
        /// Whose they are.
        actor: ActorId,
    },
    /// A periodic timer needs a period.
    #[error("a timer's period must not be zero")]
    NoPeriod,
    /// The message is another actor type's. A timer calls the actor that started it.
    #[error("{actor} cannot start a timer for a {reference}: a timer calls the actor that started it")]
    OtherActor {
        /// Who is running.
        actor: ActorId,
        /// Whose message it would have been.
        reference: &'static str,
    },
}

impl Fault for TimerError {
    fn outcome(&self) -> Outcome {
        Outcome::Rejected
    }

    fn retry(&self) -> Retry {
        match self {
            TimerError::TooMany { .. } => Retry::Safe,
            TimerError::NoPeriod | TimerError::OtherActor { .. } => Retry::Pointless,
        }
    }
}

impl Timer {
    /// Ends the timer. A tick that waits in the mailbox does not run any more; one that runs goes on.
    pub fn cancel(&self) {
        if let Some(shared) = &self.0 {
            shared.end();
        }
    }

    /// Whether it will tick again.
    pub fn is_active(&self) -> bool {
        self.next_due().is_some()
    }

    /// When it ticks next, as the silo's clock counts.
    pub fn next_due(&self) -> Option<Duration> {
        self.0.as_ref()?.course.lock().next
    }

    /// Ticks that were sent.
    pub fn ticks(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.ticks.load(Ordering::Relaxed))
    }

    /// Ticks that were due and not sent: the last one had not ended, or the mailbox was full.
    pub fn missed(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.missed.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer")
            .field("next_due", &self.next_due())
            .field("ticks", &self.ticks())
            .field("missed", &self.missed())
            .finish()
    }
}

/// What a timer's handle, its activation, its entry in the wheel and its tick under way share.
struct Shared {
    timers: Arc<Timers>,
    schedule: Schedule,
    course: Mutex<Course>,
    /// Whether it will tick again: `next` for those who may not wait for its lock.
    active: AtomicBool,
    /// A tick of it waits or runs.
    in_flight: AtomicBool,
    ticks: AtomicU64,
    missed: AtomicU64,
}

/// Where a timer is in its life.
struct Course {
    /// Its entry in the wheel.
    key: Option<TimerKey>,
    /// None once it will not tick again.
    next: Option<Duration>,
    /// It was ended: what it sent does not run any more.
    ended: bool,
}

impl Shared {
    fn end(&self) {
        let mut course = self.course.lock();
        course.ended = true;
        self.set_next(&mut course, None);
        if let Some(key) = course.key.take() {
            self.timers.cancel(key);
        }
    }

    fn is_ended(&self) -> bool {
        self.course.lock().ended
    }

    /// Its entry has come out of the wheel. Gives the tick's time, unless the timer was ended meanwhile.
    fn comes(&self) -> Option<Duration> {
        let mut course = self.course.lock();
        course.key = None;
        course.next
    }

    /// Lets `entry` come out again at `next`, or never.
    fn goes_on(&self, next: Option<Duration>, entry: Arc<dyn Fire>) {
        let mut course = self.course.lock();
        if course.ended {
            return;
        }
        self.set_next(&mut course, next);
        course.key = next.and_then(|at| self.timers.insert_late(at, Due::Fire(entry)));
    }

    fn set_next(&self, course: &mut Course, next: Option<Duration>) {
        course.next = next;
        self.active.store(next.is_some(), Ordering::Release);
    }

    fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    fn miss(&self, ticks: u64) {
        self.missed.fetch_add(ticks, Ordering::Relaxed);
    }
}

/// The timers of one activation. Its drop ends them.
#[derive(Default)]
pub(crate) struct ActorTimers(Vec<Arc<Shared>>);

impl ActorTimers {
    /// Whether one of them keeps the actor from idle deactivation.
    pub(crate) fn keep_active(&self) -> bool {
        self.0.iter().any(|timer| timer.schedule.keeps_active && timer.is_active())
    }

    /// Ends them all. True if there was any, so that a tick may wait in the mailbox.
    pub(crate) fn end(&mut self) -> bool {
        let ended = std::mem::take(&mut self.0);
        ended.iter().for_each(|timer| timer.end());
        !ended.is_empty()
    }

    fn admit(&mut self, timer: &Arc<Shared>) -> bool {
        self.0.retain(|timer| timer.is_active());
        let room = self.0.len() < TIMERS_MAX;
        if room {
            self.0.push(timer.clone());
        }
        room
    }
}

impl Drop for ActorTimers {
    fn drop(&mut self) {
        self.end();
    }
}

fn start<A: Actor>(
    slot: &Arc<Slot<A>>,
    schedule: Schedule,
    ticks: impl Ticks<A>,
) -> Result<Timer, TimerError> {
    if schedule.period.is_some_and(|period| period.is_zero()) {
        return Err(TimerError::NoPeriod);
    }
    let timers = slot.executor().timers().clone();
    let first = schedule.start(timers.now());
    let shared = Arc::new(Shared {
        timers,
        schedule,
        course: Mutex::new(Course { key: None, next: Some(first), ended: false }),
        active: AtomicBool::new(true),
        in_flight: AtomicBool::new(false),
        ticks: AtomicU64::new(0),
        missed: AtomicU64::new(0),
    });
    if !slot.mailbox().extra().timers.admit(&shared) {
        return Err(TimerError::TooMany { actor: slot.id() });
    }
    let entry =
        Arc::new(Entry { shared: shared.clone(), slot: Arc::downgrade(slot), ticks, full: Mutex::default() });
    if schedule.first.is_zero() {
        entry.fire();
    } else {
        shared.goes_on(Some(first), entry);
    }
    Ok(Timer(Some(shared)))
}

/// Makes a timer's messages.
trait Ticks<A: Actor>: Send + Sync + 'static {
    /// The next one, as a turn to be; none if there are no more.
    fn next(&self, slot: &Arc<Slot<A>>, flight: InFlight) -> Option<TaskRef>;
}

struct Once<A, M> {
    message: Mutex<Option<M>>,
    actor: PhantomData<fn(A)>,
}

impl<A: Actor, M: Method<A>> Ticks<A> for Once<A, M> {
    fn next(&self, slot: &Arc<Slot<A>>, flight: InFlight) -> Option<TaskRef> {
        let message = self.message.lock().take()?;
        Some(tick::<A, M>(slot, message, flight))
    }
}

struct Again<A, F> {
    message: F,
    actor: PhantomData<fn(A)>,
}

impl<A, M, F> Ticks<A> for Again<A, F>
where
    A: Actor,
    M: Method<A>,
    F: for<'r> Fn(&'r A::Ref) -> Call<'r, A, M> + Send + Sync + 'static,
{
    fn next(&self, slot: &Arc<Slot<A>>, flight: InFlight) -> Option<TaskRef> {
        let me = reference(slot);
        let made = catch_unwind(AssertUnwindSafe(|| (self.message)(&me).into_message()));
        match made {
            Ok(message) => Some(tick::<A, M>(slot, message, flight)),
            Err(payload) => {
                let (actor, panic) = (slot.id(), panic_message(payload));
                tracing::error!(%actor, %panic, "a timer's message could not be made; the timer has ended");
                None
            }
        }
    }
}

/// What a timer has in the wheel.
struct Entry<A: Actor, T> {
    shared: Arc<Shared>,
    slot: Weak<Slot<A>>,
    ticks: T,
    /// The message of a timer that ticks once, while the mailbox is full.
    full: Mutex<Option<TaskRef>>,
}

impl<A: Actor, T: Ticks<A>> Fire for Entry<A, T> {
    fn fire(self: Arc<Self>) {
        let Some(due) = self.shared.comes() else { return };
        let Some(slot) = self.slot.upgrade() else { return self.shared.end() };
        let now = self.shared.timers.now();
        let next = self.shared.schedule.next(due, now).map(|(next, late)| {
            self.shared.miss(late);
            next
        });
        let next = match self.send(&slot) {
            Sent::Yes => next,
            Sent::NoRoom if next.is_none() => Some(now.saturating_add(RETRY)),
            Sent::NoRoom | Sent::LastRuns => {
                self.shared.miss(1);
                next
            }
            Sent::Never => None,
        };
        let shared = self.shared.clone();
        shared.goes_on(next, self);
    }
}

enum Sent {
    Yes,
    /// The mailbox is full.
    NoRoom,
    /// The turn of the last tick has not ended.
    LastRuns,
    /// Nor will it be: there are no more messages, or the silo has stopped.
    Never,
}

impl<A: Actor, T: Ticks<A>> Entry<A, T> {
    fn send(&self, slot: &Arc<Slot<A>>) -> Sent {
        let tick = match self.full.lock().take() {
            Some(tick) => tick,
            None => {
                if self.shared.in_flight.swap(true, Ordering::AcqRel) {
                    return Sent::LastRuns;
                }
                let Some(tick) = self.ticks.next(slot, InFlight(self.shared.clone())) else {
                    return Sent::Never;
                };
                tick
            }
        };
        match slot.submit(tick) {
            Ok(()) => {
                self.shared.ticks.fetch_add(1, Ordering::Relaxed);
                Sent::Yes
            }
            Err(Blocked::Full(tick)) => {
                if self.shared.schedule.period.is_none() {
                    *self.full.lock() = Some(tick);
                }
                Sent::NoRoom
            }
            Err(Blocked::Failed(failure)) => {
                tracing::debug!(actor = %slot.id(), %failure, "a timer has ended");
                Sent::Never
            }
        }
    }
}

/// A timer's message as a turn to be. Its dead letter, where the type keeps them, is the message without its timer.
fn tick<A: Actor, M: Method<A>>(slot: &Arc<Slot<A>>, message: M, flight: InFlight) -> TaskRef {
    if const { A::SPEC.dead_letters.is_some() } {
        let message = Watched::new(slot, message, Past::one_way());
        unwatched(slot, Tick { message, flight }, Request::default())
    } else {
        unwatched(slot, Tick { message, flight }, Request::default())
    }
}

/// A timer's message on its way, until its turn has ended or it was dropped.
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.store(false, Ordering::Release);
    }
}

/// A message that a timer sends: the same method, without a reader for its answer.
struct Tick<M> {
    message: M,
    flight: InFlight,
}

impl<A: Actor, M: Method<A>> Method<A> for Tick<M> {
    type Mode = M::Mode;
    type Ok = ();
    type Error = M::Error;
    const INDEX: usize = M::INDEX;
    const WATCHED: bool = M::WATCHED;
    const FROM_TIMER: bool = true;

    async fn run<'a>(
        self,
        actor: <Self::Mode as TurnMode<A>>::Borrow<'a>,
        cx: &'a Cx,
    ) -> Result<(), M::Error> {
        let Tick { message, flight } = self;
        if !flight.0.is_ended() {
            message.run(actor, cx).await?;
        }
        Ok(())
    }

    fn lost(self, failure: &Failure) {
        self.message.lost(failure);
    }
}
