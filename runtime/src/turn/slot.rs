//! The place of one actor on this silo: its word, its mailbox, and the user's struct while it is active.
//!
//! ```text
//! Slot<A>: | word | last used | node, home | mailbox: lock, head, tail, length, extra | actor | key | host |
//! ```
//!
//! `extra` is a box that exists only while there are pending turns, lent turns, or a device lease. An idle
//! actor has none of these, no task and no channel.
//!
//! Who may touch the actor: the holder of the exclusive turn, or of an activation or deactivation (`&mut`); the
//! holders of shared turns (`&`). The word says who that is.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quark_base::{ActorId, Key};
use quark_devices::lease::DeviceLease;

use crate::actor::{Actor, DeactivationReason};
use crate::chain;
use crate::context::DeviceAbsent;
use crate::error::{CallError, Failure, StopCause};
use crate::grid::Grid;
use crate::host::Host;
use crate::services::TICK;
use crate::turn::cell::ActorAddress;
use crate::turn::lend::Lends;
use crate::turn::local;
use crate::turn::mailbox::Mailbox;
use crate::turn::resident::report_drop_panic;
use crate::turn::word::{Snapshot, Word};
use crate::turn::{BATCH, Executor, Hold, Item, Phase, Polled, Resident, TaskRef};

/// How long turns may go on beside one that panicked, in ticks: five seconds.
const TORN_TICKS_MAX: u32 = (Duration::from_secs(5).as_millis() / TICK.as_millis()) as u32;

/// A slot of any actor type, as executors, turns and contexts see it.
pub(crate) trait AnySlot: Send + Sync + 'static {
    fn id(&self) -> ActorId;
    fn executor(&self) -> Arc<Executor>;
    /// Begins what waits in the mailbox, as far as the word allows.
    fn drain(&self);
    /// A poll of `turn`, which holds its part of the actor, has ended.
    fn after_poll(&self, turn: &TaskRef, polled: Polled);
    /// Counts and times the poll of a turn.
    fn timed_poll(&self, turn: &TaskRef) -> Polled;
    /// Whether `turn` may be polled now: not while another turn uses what it lent.
    fn lender_may_run(&self, turn: &TaskRef) -> bool;
    /// Lends the actor of `lender`, which is being polled. False if `actor` is not that actor.
    fn open_lend(&self, lender: &TaskRef, actor: ActorAddress) -> bool;
    /// What the turns on the innermost loan in use borrow from.
    fn lent_actor(&self) -> Option<ActorAddress>;
    /// Another reference to this slot.
    fn shared(&self) -> Arc<dyn AnySlot>;
    /// Takes back what `lender` lent last.
    fn close_lend(&self, lender: &TaskRef);
    fn device(&self) -> Result<Arc<DeviceLease>, DeviceAbsent>;
    /// Whether it is active and no turn runs.
    fn is_idle(&self) -> bool;
    fn grid(&self) -> Grid;
    /// The silo has stopped: refuses what waits, and asks what runs to end.
    fn stop(&self);
    /// Asks for deactivation as soon as no turn runs.
    fn request_deactivation(&self, why: DeactivationReason);
}

/// The place of one actor.
pub(crate) struct Slot<A: Actor> {
    pub(crate) word: Word,
    /// The host's tick at the last turn.
    pub(crate) last_used: AtomicU32,
    /// The NUMA node that the actor lives on while it has no device: an index into the silo's executors.
    node: u32,
    /// The tokio runtime that drives it there, kept here for the inline path.
    home: tokio::runtime::Id,
    pub(super) mailbox: Mutex<Mailbox>,
    pub(super) actor: UnsafeCell<MaybeUninit<A>>,
    this: Weak<Self>,
    pub(crate) key: Key,
    pub(crate) host: Arc<Host<A>>,
}

// SAFETY: the actor is borrowed exclusively by one turn at a time (`A: Send`), or shared by turns whose mode
// demands `A: Sync`; the rest is atomic, behind the lock, or never changes.
unsafe impl<A: Actor> Send for Slot<A> {}
// SAFETY: as above.
unsafe impl<A: Actor> Sync for Slot<A> {}

/// Why a message did not get into the mailbox.
pub(crate) enum Blocked {
    /// For good; this is the caller's error.
    Failed(Failure),
    /// The mailbox is full; the message is still whole.
    Full(TaskRef),
}

impl<A: Actor> Slot<A> {
    pub(crate) fn new(key: Key, host: Arc<Host<A>>) -> Arc<Self> {
        let node = host.services.node_of(&key);
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            word: Word::default(),
            last_used: AtomicU32::new(host.tick()),
            node,
            home: host.services.nodes[node as usize].home(),
            mailbox: Mutex::new(Mailbox::new()),
            actor: UnsafeCell::new(MaybeUninit::uninit()),
            key,
            host,
        })
    }

    pub(crate) fn actor_id(&self) -> ActorId {
        ActorId { actor_type: A::SPEC.name, key: self.key.clone() }
    }

    /// Where the actor is. Only the holder of a turn may look.
    #[inline]
    pub(crate) fn actor(&self) -> *mut A {
        self.actor.get().cast()
    }

    pub(crate) fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock()
    }

    fn arc(&self) -> Arc<Self> {
        self.this.upgrade().unwrap_or_else(|| unreachable!("a slot that is in use is counted"))
    }

    /// Notes that the actor is in use.
    #[inline]
    pub(crate) fn touch(&self) {
        let tick = self.host.tick();
        if self.last_used.load(Ordering::Relaxed) != tick {
            self.last_used.store(tick, Ordering::Relaxed);
        }
    }

    /// Who runs its turns while it has no device.
    #[inline]
    pub(crate) fn node_executor(&self) -> &Arc<Executor> {
        &self.host.services.nodes[self.node as usize]
    }

    /// The tokio runtime that may poll its turns inline.
    #[inline]
    pub(crate) fn home(&self) -> tokio::runtime::Id {
        self.home
    }

    fn current_executor(&self) -> Arc<Executor> {
        self.device_executor().unwrap_or_else(|| self.node_executor().clone())
    }

    fn device_executor(&self) -> Option<Arc<Executor>> {
        if self.host.is_floating() {
            return None;
        }
        self.mailbox.lock().extra.as_ref().and_then(|extra| extra.executor.clone())
    }

    /// Hands an item to whoever runs the actor's turns.
    fn push(&self, item: Item) {
        match self.device_executor() {
            Some(executor) => executor.push(item),
            None => self.node_executor().push(item),
        }
    }

    #[cold]
    pub(super) fn schedule(&self) {
        self.push(Item::Slot(self.arc()));
    }

    /// Ends a turn that ran on its caller's thread.
    #[inline(always)]
    pub(crate) fn release(&self, hold: Hold) {
        let needs_executor = match hold {
            Hold::Exclusive => self.word.release_exclusive(),
            Hold::Shared => self.word.release_shared(),
            Hold::Lent => unreachable!("lent turns run on executors"),
        };
        if needs_executor {
            self.schedule();
        }
    }

    /// The same for a turn that panicked.
    #[cold]
    pub(crate) fn release_poisoned(&self, hold: Hold) {
        self.poison();
        self.release(hold);
    }

    /// A turn that began on its caller's thread goes on without it.
    #[cold]
    pub(crate) fn hand_over(self: &Arc<Self>, turn: TaskRef) {
        turn.settle_down(self.clone());
        self.attach(&turn);
        self.pause(&turn);
    }

    /// Puts a message where it will be run: into the mailbox, or past it if its own chain waits for it here.
    pub(crate) fn submit(self: &Arc<Self>, turn: TaskRef) -> Result<(), Blocked> {
        turn.settle_down(self.clone());
        let mut mailbox = self.mailbox.lock();
        let seen = self.word.snapshot();
        if seen.has_writer() || seen.readers() > 0 {
            match self.comes_back(&turn, &mut mailbox) {
                ComesBack::No => {}
                ComesBack::Reenters if self.word.reenter_shared() => {
                    drop(mailbox);
                    self.begin_taken(turn, Hold::Shared);
                    return Ok(());
                }
                ComesBack::Reenters => {}
                ComesBack::Lent { begin } => {
                    drop(mailbox);
                    if begin {
                        self.begin_taken(turn, Hold::Lent);
                    }
                    return Ok(());
                }
                ComesBack::Deadlock(names) => {
                    drop(mailbox);
                    let chain = chain::describe(names, self.actor_id());
                    return Err(Blocked::Failed(CallError::Deadlock(chain)));
                }
            }
        }
        if self.host.services.has_stopped() || (seen.phase() == Phase::Vacant && self.host.is_draining()) {
            return Err(Blocked::Failed(CallError::Draining(Box::new(self.actor_id()))));
        }
        if mailbox.length >= self.host.mailbox_capacity() {
            return Err(Blocked::Full(turn));
        }
        let was_empty = mailbox.length == 0;
        mailbox.push(turn);
        if was_empty {
            let now = self.word.set_queued();
            drop(mailbox);
            self.attend(now);
        }
        Ok(())
    }

    /// The mailbox has just become non-empty: sees to it that somebody looks at it.
    fn attend(&self, now: Snapshot) {
        match now.phase() {
            Phase::Vacant => self.activate_if_vacant(),
            Phase::Active if !now.has_writer() && self.word.schedule() => self.schedule(),
            // Whoever holds the turn, or ends the (de)activation, finds `QUEUED` set.
            _ => {}
        }
    }

    /// Begins an activation unless somebody else has.
    pub(crate) fn activate_if_vacant(&self) {
        if let Some(resident) = self.arc().take(Phase::Vacant, Phase::Activating) {
            crate::activation::start(resident);
        }
    }

    /// Leaves `from` for `to`, which owns the actor.
    pub(crate) fn take(self: Arc<Self>, from: Phase, to: Phase) -> Option<Resident<A>> {
        self.word.begin(from, to).then(|| Resident {
            filled: from == Phase::Active,
            settled: false,
            slot: self,
        })
    }

    /// Writes the actor of an activation that needs to wait for nothing. The caller holds `begin_instant`.
    #[inline]
    pub(crate) fn fill_instant(&self, actor: A, exclusive: bool) -> Hold {
        // SAFETY: `begin_instant` gave this thread the vacant slot.
        unsafe { (*self.actor.get()).write(actor) };
        if self.word.finish_instant(exclusive) {
            self.schedule();
        }
        if exclusive { Hold::Exclusive } else { Hold::Shared }
    }

    /// The constructor of an instant activation failed: the slot is vacant again, and whoever waits hears of it.
    #[cold]
    pub(crate) fn abandon_instant(self: &Arc<Self>, error: &Arc<crate::error::ActivationError>) {
        let resident = Resident { slot: self.clone(), filled: false, settled: false };
        resident.settle_vacant(Some(&|| crate::activation::failure_of(error)));
        self.host.services.activation_ends();
    }

    /// Tells the predictors that a message has come, if they want to hear of it. True if the actor was watched.
    pub(crate) fn report_demand(&self) -> bool {
        let seen = self.word.snapshot();
        let watched = seen.is_watched() && self.word.end_watch();
        let cold = seen.phase() == Phase::Vacant && !self.host.spec.prewarm.is_empty();
        if watched || cold {
            self.host.services.prewarmer.on_demand(&self.actor_id(), seen.phase() == Phase::Active);
        }
        watched
    }

    /// Runs a turn that was given its part of the actor by the caller.
    fn begin_taken(&self, turn: TaskRef, hold: Hold) {
        if turn.begin_scheduled(hold) {
            self.attach(&turn);
            self.push(Item::Turn(turn));
        } else {
            self.let_go(hold);
        }
    }

    fn let_go(&self, hold: Hold) {
        let needs_executor = match hold {
            Hold::Exclusive => self.word.release_exclusive(),
            Hold::Shared => self.word.release_shared(),
            Hold::Lent => {
                self.lent_turn_over();
                false
            }
        };
        if needs_executor {
            self.schedule();
        }
    }

    fn comes_back(&self, turn: &TaskRef, mailbox: &mut Mailbox) -> ComesBack {
        let here = ptr::from_ref(self).addr();
        let mut names = Vec::new();
        let mut found = None;
        turn.walk_callers(&mut |ancestor, slot| {
            names.push(slot.id());
            if found.is_none() && ancestor.slot == here {
                found = Some(ancestor);
            }
            true
        });
        let Some(ancestor) = found else { return ComesBack::No };
        let lends = mailbox.extra.as_mut().map(|extra| &mut extra.lends);
        if ancestor.exclusive {
            if let Some(begin) = lends.and_then(|lends| lends.admit(ancestor.turn, turn)) {
                return ComesBack::Lent { begin };
            }
            return ComesBack::Deadlock(names);
        }
        if turn.is_exclusive() {
            return ComesBack::Deadlock(names);
        }
        let joins = lends.is_some_and(Lends::joins);
        if joins { ComesBack::Lent { begin: true } } else { ComesBack::Reenters }
    }

    fn attach(&self, turn: &TaskRef) {
        let mut mailbox = self.mailbox.lock();
        let pending = &mut mailbox.extra().pending;
        turn.pending_index().store(pending.len() as u32, Ordering::Relaxed);
        pending.push(turn.clone());
        // Those who end all turns may have looked before this one was there to be found.
        drop(mailbox);
        if self.host.services.has_stopped() {
            turn.abort(StopCause::Silo);
        }
    }

    fn detach(&self, turn: &TaskRef) {
        let mut mailbox = self.mailbox.lock();
        // Read under the lock: another turn's end may move this one.
        let index = turn.pending_index().swap(u32::MAX, Ordering::Relaxed) as usize;
        let Some(extra) = mailbox.extra.as_mut().filter(|extra| index < extra.pending.len()) else { return };
        let gone = extra.pending.swap_remove(index);
        if let Some(moved) = extra.pending.get(index) {
            moved.pending_index().store(index as u32, Ordering::Relaxed);
        }
        drop(mailbox);
        drop(gone);
    }

    fn is_attached(turn: &TaskRef) -> bool {
        turn.pending_index().load(Ordering::Relaxed) != u32::MAX
    }

    /// The poll of a turn ended without its end.
    fn pause(&self, turn: &TaskRef) {
        if turn.has_lent() {
            let next = self.mailbox.lock().extra().lends.park(turn);
            if let Some(next) = next {
                self.begin_taken(next, Hold::Lent);
            }
        }
        if turn.pause() {
            self.push(Item::Turn(turn.clone()));
        }
    }

    fn lent_turn_over(&self) {
        let next = self.mailbox.lock().extra().lends.turn_over();
        match next {
            Some((turn, true)) => self.push(Item::Turn(turn)),
            Some((turn, false)) => self.begin_taken(turn, Hold::Lent),
            None => {}
        }
    }

    /// A turn panicked: its actor may be torn and must not take another turn.
    #[cold]
    fn poison(&self) {
        self.request_deactivation(DeactivationReason::Panicked);
    }

    /// Runs exclusive messages one after another. The caller has taken the exclusive turn, and `batch` out of the
    /// mailbox.
    fn run_exclusive(&self, mut batch: Batch) {
        let mut ran = 0;
        let mut last: Option<TaskRef> = None;
        while let Some(turn) = batch.next() {
            if let Some(over) = last.take() {
                over.finish();
            }
            if turn.begin(Hold::Exclusive) {
                self.touch();
                match self.timed_poll(&turn) {
                    Polled::Pending => {
                        self.put_back(batch);
                        self.attach(&turn);
                        return self.pause(&turn);
                    }
                    Polled::Done { panicked } => {
                        last = Some(turn);
                        if panicked {
                            self.poison();
                        }
                    }
                }
            }
            ran += 1;
            if self.word.snapshot().wants_close() {
                break;
            }
            if batch.is_empty() && ran < BATCH {
                batch = self.take_exclusive_batch(&mut self.mailbox.lock());
            }
        }
        self.put_back(batch);
        self.let_go(Hold::Exclusive);
        // The last caller is woken when the actor is free again, so that its next call may run inline.
        if let Some(over) = last {
            over.finish();
        }
    }

    /// Takes a shared turn beside others although the actor is to close when they have ended.
    fn joins_before_close(&self, seen: Snapshot) -> bool {
        seen.wants_close() && seen.readers() > 0 && self.word.reenter_shared()
    }

    /// The exclusive messages at the mailbox's head, as many as one visit to the lock should fetch.
    fn take_exclusive_batch(&self, mailbox: &mut Mailbox) -> Batch {
        let mut batch = Batch::default();
        while !batch.is_full() && mailbox.first_is_exclusive() == Some(true) {
            let Some(turn) = self.pop(mailbox) else { break };
            batch.push(turn);
        }
        batch
    }

    /// Puts back, in their place, messages that were fetched and not begun.
    fn put_back(&self, mut batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let mut mailbox = self.mailbox.lock();
        while let Some(turn) = batch.next_back() {
            mailbox.push_front(turn);
        }
        // The turn that the caller still holds sees to them when it ends.
        self.word.set_queued();
    }

    fn pop(&self, mailbox: &mut Mailbox) -> Option<TaskRef> {
        let was_full = mailbox.length >= self.host.mailbox_capacity();
        let first = mailbox.pop();
        if was_full {
            self.host.note_space();
        }
        if mailbox.length == 0 {
            self.word.clear_queued();
        }
        first
    }

    /// Takes every message out.
    pub(crate) fn take_messages(&self, mailbox: &mut Mailbox) -> Vec<TaskRef> {
        std::iter::from_fn(|| self.pop(mailbox)).collect()
    }

    /// How many messages wait.
    pub(crate) fn queued(&self) -> u32 {
        self.mailbox.lock().length
    }

    /// Ends the turns that still share an actor some time after another turn's panic tore it: they may finish,
    /// but not hold up the fresh actor for as long as they please.
    pub(crate) fn end_torn_turns(&self, tick: u32) {
        let mut mailbox = self.mailbox.lock();
        if !mailbox.is_torn() {
            return;
        }
        let since = *mailbox.extra().torn_since.get_or_insert(tick);
        drop(mailbox);
        if tick.wrapping_sub(since) >= TORN_TICKS_MAX {
            self.abort_turns(StopCause::Torn);
        }
    }

    /// Asks every turn that has begun to end.
    fn abort_turns(&self, cause: StopCause) {
        let pending =
            self.mailbox.lock().extra.as_ref().map(|extra| extra.pending.clone()).unwrap_or_default();
        for turn in pending {
            turn.abort(cause);
        }
    }
}

/// Messages fetched under one lock.
#[derive(Default)]
struct Batch {
    turns: [Option<TaskRef>; Batch::SIZE],
    first: usize,
    end: usize,
}

impl Batch {
    const SIZE: usize = 16;

    fn is_empty(&self) -> bool {
        self.first == self.end
    }

    fn is_full(&self) -> bool {
        self.end == Self::SIZE
    }

    fn push(&mut self, turn: TaskRef) {
        self.turns[self.end] = Some(turn);
        self.end += 1;
    }

    fn next(&mut self) -> Option<TaskRef> {
        let turn = self.turns[..self.end].get_mut(self.first)?.take();
        self.first += 1;
        turn
    }

    fn next_back(&mut self) -> Option<TaskRef> {
        if self.is_empty() {
            return None;
        }
        self.end -= 1;
        self.turns[self.end].take()
    }
}

enum ComesBack {
    /// The call is no part of a chain that waits here.
    No,
    /// Its chain is in a shared turn here, and it wants to share.
    Reenters,
    /// Its chain lent the actor; `begin` if nobody uses it yet, else the message waits for its turn there.
    Lent { begin: bool },
    /// Its chain waits here and does not lend. The chain's actors, innermost first.
    Deadlock(Vec<ActorId>),
}

/// Polls a turn that an executor took out of its run queue.
pub(super) fn run_scheduled(turn: TaskRef) {
    let Some(slot) = turn.owner() else { return };
    if !slot.lender_may_run(&turn) {
        return;
    }
    turn.resume();
    let polled = slot.timed_poll(&turn);
    slot.after_poll(&turn, polled);
}

impl<A: Actor> AnySlot for Slot<A> {
    fn id(&self) -> ActorId {
        self.actor_id()
    }

    fn executor(&self) -> Arc<Executor> {
        self.current_executor()
    }

    fn drain(&self) {
        let seen = self.word.begin_drain();
        if seen.phase() != Phase::Active {
            return;
        }
        if seen.wants_close() {
            if let Some(resident) = self.arc().take(Phase::Active, Phase::Deactivating) {
                let why = self.mailbox.lock().extra().close_reason.take();
                return crate::activation::end(resident, why.unwrap_or(DeactivationReason::Requested));
            }
            if self.mailbox.lock().is_torn() {
                // The last of the turns that run comes back here.
                return;
            }
        }
        for _ in 0..BATCH {
            let mut mailbox = self.mailbox.lock();
            match mailbox.first_is_exclusive() {
                None => return,
                Some(true) if self.word.take_exclusive() => {
                    let batch = self.take_exclusive_batch(&mut mailbox);
                    drop(mailbox);
                    return self.run_exclusive(batch);
                }
                // Shared turns that run may wait for this one, so a request to close does not keep it out.
                Some(false) if self.word.take_shared() || self.joins_before_close(seen) => {
                    let Some(turn) = self.pop(&mut mailbox) else { return };
                    drop(mailbox);
                    self.touch();
                    self.begin_taken(turn, Hold::Shared);
                }
                // Whoever holds the actor schedules the slot again when it lets go.
                Some(_) => return,
            }
        }
        if self.word.snapshot().has_queued() && self.word.schedule() {
            self.schedule();
        }
    }

    fn after_poll(&self, turn: &TaskRef, polled: Polled) {
        match polled {
            Polled::Pending => self.pause(turn),
            Polled::Done { panicked } => {
                if Self::is_attached(turn) {
                    self.detach(turn);
                }
                if panicked {
                    self.poison();
                }
                // Before the next turn begins, lest a call of this turn's chain pass for one that waits here.
                turn.end_chain();
                self.let_go(turn.hold());
                turn.finish();
            }
        }
    }

    fn timed_poll(&self, turn: &TaskRef) -> Polled {
        local::with(|local| {
            let timing = self.host.time(local, turn.method_index());
            let polled = turn.poll_as_current(local);
            if let Some(timing) = timing {
                timing.end();
            }
            polled
        })
    }

    fn lender_may_run(&self, turn: &TaskRef) -> bool {
        !turn.has_lent() || self.mailbox.lock().extra().lends.may_run(turn)
    }

    fn open_lend(&self, lender: &TaskRef, actor: ActorAddress) -> bool {
        let own = actor.is(&ActorAddress::of::<A>(self.actor()));
        if own {
            self.mailbox.lock().extra().lends.open(lender, actor);
        }
        own
    }

    fn lent_actor(&self) -> Option<ActorAddress> {
        self.mailbox.lock().extra.as_ref()?.lends.actor_in_use()
    }

    fn shared(&self) -> Arc<dyn AnySlot> {
        self.arc()
    }

    fn close_lend(&self, lender: &TaskRef) {
        let waiting = self.mailbox.lock().extra().lends.close(lender.identity());
        for turn in waiting {
            let mut names = Vec::new();
            turn.walk_callers(&mut |_, slot| {
                names.push(slot.id());
                true
            });
            turn.reject(CallError::Deadlock(chain::describe(names, self.actor_id())));
        }
    }

    fn device(&self) -> Result<Arc<DeviceLease>, DeviceAbsent> {
        let mailbox = self.mailbox.lock();
        let extra = mailbox.extra.as_ref();
        if let Some(lease) = extra.and_then(|extra| extra.lease.clone()) {
            return Ok(lease);
        }
        let lacks = extra.and_then(|extra| extra.no_device.clone());
        Err(lacks.map_or(DeviceAbsent::NotDeclared { actor_type: A::SPEC.name }, DeviceAbsent::NoneFits))
    }

    fn is_idle(&self) -> bool {
        let seen = self.word.snapshot();
        seen.phase() == Phase::Active && !seen.has_writer() && seen.readers() == 0 && !seen.has_queued()
    }

    fn grid(&self) -> Grid {
        self.host.grid()
    }

    fn request_deactivation(&self, why: DeactivationReason) {
        let mut mailbox = self.mailbox.lock();
        // Under the lock, so that whoever finds the request finds its reason.
        let Some(needs_executor) = self.word.request_close() else { return };
        let reason = &mut mailbox.extra().close_reason;
        if why == DeactivationReason::Panicked {
            // Stronger than any other: the torn actor's own code must not run again.
            *reason = Some(why);
        } else {
            reason.get_or_insert(why);
        }
        drop(mailbox);
        if needs_executor {
            self.schedule();
        }
    }

    fn stop(&self) {
        // It may come out of a run queue, and must be able to get into one again.
        self.word.begin_drain();
        let rejected = self.take_messages(&mut self.mailbox.lock());
        for turn in rejected {
            turn.reject(CallError::Draining(Box::new(self.actor_id())));
        }
        self.abort_turns(StopCause::Silo);
    }
}

impl<A: Actor> Drop for Slot<A> {
    fn drop(&mut self) {
        if self.word.snapshot().phase() == Phase::Active {
            // SAFETY: an active slot holds an actor, and nobody else has the slot any more.
            let dropped =
                catch_unwind(AssertUnwindSafe(|| unsafe { self.actor.get_mut().assume_init_drop() }));
            report_drop_panic(&self.key, dropped);
        }
        while let Some(turn) = self.mailbox.get_mut().pop() {
            turn.reject(CallError::Draining(Box::new(self.actor_id())));
        }
    }
}
