//! One actor type on one silo: its catalog of slots, its options, and what is known of its methods' speed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quark_base::Key;
use tokio::sync::Notify;

use crate::actor::{Actor, ActorSpec, DeactivationReason, HookError, PartSpec};
use crate::actor_ref::ActorRef;
use crate::catalog::{Catalog, Verdict};
use crate::coalesce::{AllRuns, Coalesced, Runs};
use crate::dead_letters::{self, Queue, Stored};
use crate::durable::{Delivery, DurableMethods};
use crate::error::{ActivationCause, ActivationError};
use crate::grid::{Grid, Hosts};
use crate::guards::{BreakerState, Gate, Guards, Outlook};
use crate::intercept::Interceptor;
use crate::pressure::Look;
use crate::reminders::{self, ReminderMethods, ReminderSpec, Tick};
use crate::services::Services;
use crate::store::{Address, Encoded, MessageId};
use crate::turn::block::panic_message;
use crate::turn::local::Local;
use crate::turn::sync::Instant;
use crate::turn::{AnySlot, Phase, Slot};
use crate::watchdog::{StuckTurn, ticks};
use crate::workers::Pool;

/// A method whose polls take longer than this on average is not run on its caller's thread: a caller's timeout,
/// `select!` and fan-out over many actors would lose their meaning. Ten thousand times the cost of the call
/// itself is saved at most once in a thousand; a tokio worker that is away for 50 µs is still a good citizen.
const INLINE_POLL_MAX: Duration = Duration::from_micros(50);

/// The first polls of a method are all timed, then one in so many.
const ALWAYS_TIMED: u32 = 8;
const TIMED_ONE_IN: u32 = 256;

/// Makes a fresh actor for a key.
pub(crate) type Factory<A> = Box<dyn Fn(&Key) -> Result<A, HookError> + Send + Sync>;

/// One actor type on one silo.
pub(crate) struct Host<A: Actor> {
    pub(crate) spec: ActorSpec,
    factory: Factory<A>,
    methods: Box<[MethodSpeed]>,
    runs: AllRuns,
    pub(crate) dead_letters: Mutex<Queue<Box<dyn Stored<A>>>>,
    pub(crate) services: Arc<Services>,
    guards: Guards,
    /// What calls pass on their way in; none for a type that nothing is asked of.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Who stands in for the type's actors, in a test.
    pub(crate) interceptor: Option<Arc<dyn Interceptor>>,
    /// Neither a gate nor an interceptor is in the way of an inline call.
    is_open: bool,
    /// Messages that gave way at full mailboxes.
    dropped: AtomicU64,
    hosts: Weak<Hosts>,
    /// Told when mailboxes have room again, if somebody waits.
    space: Notify,
    space_waiters: AtomicUsize,
}

/// How long a method's polls take.
#[derive(Default)]
pub(crate) struct MethodSpeed {
    timed: AtomicU32,
    /// Exponentially weighted mean of a poll, in nanoseconds.
    mean_ns: AtomicU32,
    slow: AtomicBool,
}

/// A poll that is being timed.
pub(crate) struct Timing<'a> {
    speed: &'a MethodSpeed,
    begun: Instant,
}

impl<'a> Timing<'a> {
    #[cold]
    fn begin(speed: &'a MethodSpeed) -> Self {
        Self { speed, begun: Instant::now() }
    }

    /// The poll is over.
    #[cold]
    pub(crate) fn end(self) {
        self.speed.record(self.begun.elapsed());
    }
}

impl MethodSpeed {
    fn record(&self, took: Duration) {
        let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
        let count = self.timed.fetch_add(1, Ordering::Relaxed);
        let before = self.mean_ns.load(Ordering::Relaxed);
        // Lost updates between threads only make the mean a little older.
        let mean = if count == 0 { took } else { before - before / 8 + took / 8 };
        self.mean_ns.store(mean, Ordering::Relaxed);
        let limit = INLINE_POLL_MAX.as_nanos() as u32;
        // Back on the inline path only when clearly below, so that a method at the limit does not flap.
        let slow = if self.slow.load(Ordering::Relaxed) { mean > limit / 2 } else { mean > limit };
        self.slow.store(slow, Ordering::Relaxed);
        if count == u32::MAX {
            self.timed.store(ALWAYS_TIMED, Ordering::Relaxed);
        }
    }
}

impl<A: Actor> Host<A> {
    pub(crate) fn new(
        services: Arc<Services>,
        hosts: Weak<Hosts>,
        guards: Guards,
        interceptor: Option<Arc<dyn Interceptor>>,
        factory: Factory<A>,
    ) -> Arc<Self> {
        let gate = Gate::of(&guards, A::SPEC.name, &services);
        Arc::new(Self {
            is_open: gate.is_none() && interceptor.is_none(),
            gate,
            interceptor,
            guards,
            dropped: AtomicU64::new(0),
            spec: A::SPEC,
            factory,
            dead_letters: Mutex::new(Queue::new(A::SPEC.dead_letters.unwrap_or_default())),
            methods: A::METHODS.iter().map(|_| MethodSpeed::default()).collect(),
            runs: AllRuns::of(A::METHODS.len()),
            services,
            hosts,
            space: Notify::new(),
            space_waiters: AtomicUsize::new(0),
        })
    }

    /// A fresh actor.
    pub(crate) fn create(&self, key: &Key) -> Result<A, ActivationCause> {
        let make = || {
            self.interceptor.as_ref().map_or(Ok(()), |interceptor| interceptor.activate(key))?;
            (self.factory)(key)
        };
        match catch_unwind(AssertUnwindSafe(make)) {
            Ok(made) => made.map_err(ActivationCause::Failed),
            Err(payload) => Err(ActivationCause::Panicked(panic_message(payload))),
        }
    }

    /// Whether an activation needs nothing but the constructor.
    #[inline]
    pub(crate) fn activates_instantly(&self) -> bool {
        !A::ON_ACTIVATE
            && A::PARTS.is_empty()
            && const { !reminders::any_declared(A::REMINDERS) }
            && self.spec.gpu.is_none()
            && self.spec.prewarm.is_empty()
    }

    pub(crate) fn activation_error(&self, key: &Key, cause: ActivationCause) -> ActivationError {
        ActivationError { actor: quark_base::ActorId { actor_type: self.spec.name, key: key.clone() }, cause }
    }

    /// Whether the method may run on its caller's thread, as far as its speed goes.
    #[inline]
    pub(crate) fn is_quick(&self, method: usize) -> bool {
        self.methods.get(method).is_some_and(|speed| !speed.slow.load(Ordering::Relaxed))
    }

    /// Whether actors of the type run on their caller's thread at all: one with a device is bound to it.
    #[inline]
    pub(crate) fn is_floating(&self) -> bool {
        const { A::SPEC.gpu.is_none() }
    }

    /// Whether nothing is in the way of an inline call.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Begins to time a poll of the method, now and then.
    #[inline(always)]
    pub(crate) fn time(&self, local: &Local, method: usize) -> Option<Timing<'_>> {
        let ticks = local.ticks.get().wrapping_add(1);
        local.ticks.set(ticks);
        let speed = self.methods.get(method)?;
        let due = ticks.is_multiple_of(TIMED_ONE_IN) || speed.timed.load(Ordering::Relaxed) < ALWAYS_TIMED;
        due.then(|| Timing::begin(speed))
    }

    #[inline]
    pub(crate) fn tick(&self) -> u32 {
        self.services.tick.load(Ordering::Relaxed)
    }

    /// The type's idle time in ticks.
    fn idle_ticks(&self) -> u32 {
        ticks(self.spec.idle)
    }

    /// From which age in ticks a turn is worth a warning.
    pub(crate) fn turn_limit_ticks(&self) -> u32 {
        ticks(self.spec.turn_limit)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.services.is_draining()
    }

    /// The runs of a method whose identical calls are joined.
    pub(crate) fn runs<M: Coalesced<A>>(&self) -> &Runs<A, M> {
        self.runs.of_method()
    }

    pub(crate) fn guards(&self) -> &Guards {
        &self.guards
    }

    /// A turn of the type, or an activation, ended without anybody who holds its pass.
    pub(crate) fn note_end(&self, outlook: Outlook) {
        if let Some(gate) = &self.gate {
            gate.ended(None, outlook);
        }
    }

    /// A message gave way at a full mailbox.
    pub(crate) fn note_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn hosts(&self) -> Option<Arc<Hosts>> {
        self.hosts.upgrade()
    }

    pub(crate) fn grid(&self) -> Grid {
        self.hosts.upgrade().map_or_else(Grid::empty, Grid::over)
    }

    /// Mailboxes of the type have been worked on.
    pub(crate) fn note_space(&self) {
        if self.space_waiters.load(Ordering::Acquire) != 0 {
            self.space.notify_waiters();
        }
    }

    /// Waits until `try_again` gets its way, which a full mailbox prevents.
    pub(crate) async fn wait_for_space<R>(&self, mut try_again: impl FnMut() -> Option<R>) -> R {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.space_waiters.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.space_waiters);
        loop {
            let room = self.space.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Some(result) = try_again() {
                return result;
            }
            room.await;
        }
    }
}

/// A host of any type.
pub(crate) trait AnyHost: Send + Sync + 'static {
    fn as_any(&self) -> &dyn Any;
    fn name(&self) -> &'static str;
    /// If `key` is active by an earlier message, asks to hear of its next one. False if it is not.
    fn watch_if_active(&self, key: &Key) -> bool;
    /// Activates `key` ahead of its first message, and watches for that message.
    fn prewarm(&self, key: &Key);
    /// Lets a prewarmed actor go that nobody called.
    fn end_prewarm(&self, key: &Key);
    /// Deactivates what has been idle for the type's idle time, as far as one look goes.
    fn sweep(&self, look: &mut Look);
    /// How many ticks after `tick` a sweep may find something to do, as far as can be said now.
    fn sweep_matters_in(&self, tick: u32) -> Option<u32>;
    /// The turns that have lasted too long, at most `max`.
    fn stuck_turns(&self, tick: u32, max: usize) -> Vec<StuckTurn>;
    /// Delivers a durable message to the actor of `key`.
    fn deliver(&self, key: &Key, method: &str, body: &Encoded, id: MessageId) -> Delivery;
    /// The type's reminders, and the name of their store.
    fn reminders(&self) -> (&'static [ReminderSpec], &'static str);
    /// Delivers a reminder's tick to the actor of `key`, unless it took effect already, which may be if it is `again`.
    fn tick(&self, key: &Key, tick: Tick, again: bool) -> Delivery;
    /// How many dead letters there are.
    fn dead_letters(&self) -> usize;
    /// Whether dead letters wait to be sent again.
    fn has_retries(&self) -> bool;
    /// Asks for the deactivation of one actor, if it is active or about to be.
    fn close(&self, key: &Key, why: DeactivationReason);
    /// Whether an actor is active, or about to be.
    fn is_live(&self, key: &Key) -> bool;
    /// Deactivates everything.
    fn close_all(&self, why: DeactivationReason);
    /// Refuses what waits and ends every turn that is under way.
    fn stop_all(&self);
    /// Forgets every slot; only when the silo is gone.
    fn clear(&self);
    /// How many actors are active.
    fn active(&self) -> usize;
    /// How many messages wait.
    fn queued(&self) -> u64;
    /// How many messages gave way at full mailboxes.
    fn dropped(&self) -> u64;
    /// Where the type's circuit breaker is, if it has one.
    fn breaker(&self) -> Option<BreakerState>;
}

/// An actor type's host and its slots. Slots refer to their host, and nothing of theirs refers back here, so
/// that a silo which is gone leaves nothing behind.
pub(crate) struct Hosted<A: Actor> {
    host: Arc<Host<A>>,
    catalog: Catalog<A>,
    durable: DurableMethods<A>,
    reminders: ReminderMethods<A>,
    this: Weak<Self>,
}

impl<A: Actor> Hosted<A> {
    pub(crate) fn new(host: Arc<Host<A>>) -> Arc<Self> {
        let mut durable = DurableMethods::default();
        A::durable(&mut durable);
        let mut reminders = ReminderMethods::default();
        A::reminders(&mut reminders);
        let catalog = Catalog::default();
        Arc::new_cyclic(|this| Self { host, catalog, durable, reminders, this: this.clone() })
    }

    pub(crate) fn host(&self) -> &Arc<Host<A>> {
        &self.host
    }

    /// Another reference to it. None once the silo is gone.
    pub(crate) fn shared(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// The slot of `key`, made if it is not there; of stateless workers, that of one which is free, if any is.
    pub(crate) fn slot(&self, key: &str) -> Arc<Slot<A>> {
        match self.pool(key) {
            Some(pool) => pool.choose_anywhere(true).slot().clone(),
            None => self.catalog.slot(key, &self.host),
        }
    }

    /// A reference to the actor, or the workers, of `key`.
    pub(crate) fn reference(&self, key: &str) -> ActorRef<A> {
        match self.pool(key) {
            Some(pool) => ActorRef::to_workers(pool),
            None => ActorRef::new(Some(self.catalog.slot(key, &self.host))),
        }
    }

    /// The workers of `key`; none where the type has one actor for each key.
    fn pool(&self, key: &str) -> Option<Arc<Pool<A>>> {
        if const { A::SPEC.workers.is_none() } {
            return None;
        }
        Some(self.catalog.pools.pool(key, &self.this.upgrade()?))
    }

    /// Takes in a worker's slot.
    pub(crate) fn enrol(&self, slot: &Arc<Slot<A>>) {
        self.catalog.enrol(slot);
    }

    /// Makes a delivery of a message, unless a commit of its receiver says that it took effect.
    fn unless_received(&self, key: &Key, id: MessageId, delivery: Delivery) -> Delivery {
        let stores: Vec<_> = A::PARTS.iter().map(PartSpec::store).collect();
        let actor = Address::new(A::SPEC.name, key.clone());
        let services = self.host.services.clone();
        Box::pin(async move {
            // A message that took effect has nothing more to do; the receiver's own commit would only find it out later.
            for named in services.stores.distinct_of(&stores) {
                if named.store.actors.has_received(&actor, &id).await? {
                    return Ok(());
                }
            }
            delivery.await
        })
    }

    /// Looks after one slot at the tick of `look`.
    fn look_at(&self, slot: &Arc<Slot<A>>, look: &mut Look, idle: u32) -> Verdict {
        let seen = slot.word.snapshot();
        if slot.has_turns() {
            slot.watch_turns(seen, look.tick);
        }
        match seen.phase() {
            Phase::Vacant => return Verdict::Vacant,
            Phase::Active if seen.wants_close() => slot.end_torn_turns(look.tick),
            Phase::Active if slot.is_idle() => {
                let age = look.tick.wrapping_sub(slot.last_used.load(Ordering::Relaxed));
                if age >= idle {
                    slot.deactivate_idle();
                } else if !(look.hurries() && slot.is_kept()) {
                    look.found(age, slot);
                }
            }
            _ => {}
        }
        Verdict::Stays
    }
}

impl<A: Actor> AnyHost for Hosted<A> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &'static str {
        self.host.spec.name
    }

    fn watch_if_active(&self, key: &Key) -> bool {
        let found = self.catalog.get(key.as_str());
        let active = found.filter(|slot| {
            let seen = slot.word.snapshot();
            seen.phase() == Phase::Active && !seen.is_watched()
        });
        active.is_some_and(|slot| {
            slot.word.watch();
            true
        })
    }

    fn prewarm(&self, key: &Key) {
        let slot = self.slot(key.as_str());
        slot.word.watch();
        slot.touch();
        slot.activate_if_vacant();
    }

    fn end_prewarm(&self, key: &Key) {
        let found = self.catalog.get(key.as_str());
        if let Some(slot) = found.filter(|slot| slot.word.snapshot().is_watched()) {
            slot.request_deactivation(DeactivationReason::PrewarmExpired);
        }
    }

    fn sweep(&self, look: &mut Look) {
        dead_letters::retry_due(self);
        if let Some(gate) = &self.host.gate {
            gate.sweep();
        }
        let idle = self.host.idle_ticks();
        let all = self.catalog.visit(look.hurries(), |slot| self.look_at(slot, look, idle));
        look.saw(all);
    }

    fn sweep_matters_in(&self, tick: u32) -> Option<u32> {
        let idle = self.host.idle_ticks();
        let mut soonest: Option<u32> = None;
        self.catalog.for_each(|slot| {
            let seen = slot.word.snapshot();
            let left = match seen.phase() {
                Phase::Active if seen.wants_close() => match slot.closing_matters_in(tick) {
                    Some(left) => left,
                    None => return,
                },
                Phase::Active if !seen.has_writer() && seen.readers() == 0 => {
                    let unused = tick.wrapping_sub(slot.last_used.load(Ordering::Relaxed));
                    idle.saturating_sub(unused).max(1)
                }
                Phase::Active => match slot.watch_matters_in(tick) {
                    Some(left) => left,
                    None => return,
                },
                _ => return,
            };
            soonest = Some(soonest.map_or(left, |soonest| soonest.min(left)));
        });
        soonest
    }

    fn stuck_turns(&self, tick: u32, max: usize) -> Vec<StuckTurn> {
        let mut stuck = Vec::new();
        self.catalog.for_each(|slot| {
            if stuck.len() < max && slot.has_turns() {
                stuck.extend(slot.stuck_turns(tick));
            }
        });
        stuck
    }

    fn deliver(&self, key: &Key, method: &str, body: &Encoded, id: MessageId) -> Delivery {
        let delivery = self.durable.deliver(self, key.as_str(), method, body, id.clone());
        self.unless_received(key, id, delivery)
    }

    fn reminders(&self) -> (&'static [ReminderSpec], &'static str) {
        (A::REMINDERS, A::SPEC.reminders)
    }

    fn tick(&self, key: &Key, tick: Tick, again: bool) -> Delivery {
        let id = tick.id.clone();
        let delivery = self.reminders.deliver(self.reference(key.as_str()), tick);
        if again { self.unless_received(key, id, delivery) } else { delivery }
    }

    fn dead_letters(&self) -> usize {
        self.host.dead_letters.lock().len()
    }

    fn has_retries(&self) -> bool {
        self.host.dead_letters.lock().has_retries()
    }

    fn close(&self, key: &Key, why: DeactivationReason) {
        if let Some(slot) = self.catalog.get(key.as_str()) {
            slot.request_deactivation(why);
        }
    }

    fn is_live(&self, key: &Key) -> bool {
        let phase = self.catalog.get(key.as_str()).map(|slot| slot.word.snapshot().phase());
        matches!(phase, Some(Phase::Activating | Phase::Active))
    }

    fn close_all(&self, why: DeactivationReason) {
        self.catalog.for_each(|slot| slot.request_deactivation(why));
    }

    fn stop_all(&self) {
        self.catalog.for_each(|slot| slot.stop());
    }

    fn clear(&self) {
        self.catalog.clear();
    }

    fn active(&self) -> usize {
        let mut active = 0;
        self.catalog.for_each(|slot| active += usize::from(slot.word.snapshot().phase() == Phase::Active));
        active
    }

    fn queued(&self) -> u64 {
        let mut queued = 0;
        self.catalog.for_each(|slot| queued += u64::from(slot.queued()));
        queued
    }

    fn dropped(&self) -> u64 {
        self.host.dropped.load(Ordering::Relaxed)
    }

    fn breaker(&self) -> Option<BreakerState> {
        self.host.gate.as_ref()?.breaker_state()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_method_leaves_the_inline_path_and_comes_back_only_when_clearly_quick() {
        let speed = MethodSpeed::default();
        speed.record(INLINE_POLL_MAX / 10);
        assert!(!speed.slow.load(Ordering::Relaxed));
        for _ in 0..64 {
            speed.record(INLINE_POLL_MAX * 2);
        }
        assert!(speed.slow.load(Ordering::Relaxed));
        for _ in 0..64 {
            speed.record(INLINE_POLL_MAX * 3 / 4);
        }
        assert!(speed.slow.load(Ordering::Relaxed), "at three quarters of the limit it would flap");
        for _ in 0..64 {
            speed.record(INLINE_POLL_MAX / 10);
        }
        assert!(!speed.slow.load(Ordering::Relaxed));
    }
}
