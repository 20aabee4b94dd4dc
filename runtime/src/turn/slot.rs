//! The place of one actor on this silo: its word, its mailbox, and the user's struct while it is active.
//!
//! ```text
//! Slot<A>: | word | last used | node, home | mailbox: lock, head, tail, length, extra | actor | lanes | key | host |
//! ```
//!
//! `extra` is a box with what only a busy actor has (`Extra`: pending turns, loans, timers, a device lease, a
//! request to leave and more). It is made when first needed and stays until the activation ends. An idle actor
//! has no task and no channel.
//!
//! Who may touch the actor: the holder of the exclusive turn, or of an activation or deactivation (`&mut`); the
//! holders of shared turns (`&`). The word says who that is.

mod drain;
mod kept;
mod pending;
mod shared;
mod submit;
mod ticks;
mod watch;

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use quark_base::{ActorId, Key};
use quark_devices::lease::DeviceLease;

use crate::actor::{Actor, DeactivationReason};
use crate::chain;
use crate::context::DeviceAbsent;
use crate::error::{CallError, Panicked, StopCause};
use crate::grid::Grid;
use crate::guards::Outlook;
use crate::host::Host;
use crate::state::keeper::{self, Home, Keeper, Loss};
use crate::store::ETag;
use crate::stores::Named;
use crate::supervision::{self, Supervisor};
use crate::turn::block::with_local;
use crate::turn::cell::{ActorAddress, ActorCell, Sole};
use crate::turn::lanes::Lanes;
use crate::turn::local::Local;
use crate::turn::mailbox::Mailbox;
use crate::turn::resident::report_drop_panic;
use crate::turn::sync::{AtomicU32, BriefGuard, BriefLock, Ordering};
use crate::turn::word::{Snapshot, Word};
use crate::turn::{Executor, Hold, Item, Phase, Polled, Resident, TaskRef};

pub(super) use self::drain::run_scheduled;
pub(crate) use self::submit::Blocked;
pub(super) use self::watch::{Pending, PollWatch};

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
    /// The same, to be taken for what it is.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// A turn that holds its part of the actor panicked. Its supervisor decides whether the actor, which may be
    /// torn, takes another one; `has_letter` says that the message left a dead letter of its own.
    fn turn_panicked(&self, details: &Panicked, has_letter: bool);
    /// What its type does about its children.
    fn supervisor(&self) -> Supervisor;
    /// Takes back what `lender` lent last.
    fn close_lend(&self, lender: &TaskRef);
    fn device(&self) -> Result<Arc<DeviceLease>, DeviceAbsent>;
    /// An item was late for a window in `turn`, which is being polled.
    fn note_late(&self, turn: &TaskRef);
    /// Whether it is active and no turn runs.
    fn is_idle(&self) -> bool;
    fn grid(&self) -> Grid;
    /// The silo has stopped: refuses what waits, and asks what runs to end.
    fn stop(&self);
    /// The silo's store of this name.
    fn store(&self, name: &str) -> Option<Named>;
    /// Begins the activation's hold on a store, which has `seen` as the actor's last commit.
    fn keep(&self, store_name: &'static str, store: Named, seen: Option<ETag>) -> Arc<Keeper>;
    /// The activation's hold on its stores.
    fn keepers(&self) -> Vec<Arc<Keeper>>;
    /// The activation has lost its state: it ends, and its turns' callers hear of it.
    fn supersede(&self, loss: Loss);
    /// Asks for deactivation as soon as no turn runs. Shared messages at the mailbox's head still join shared turns
    /// that run; what else waits begins the next activation.
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
    pub(super) mailbox: BriefLock<Mailbox>,
    pub(super) actor: ActorCell<A>,
    /// There once shared turns came from several threads.
    lanes: OnceLock<Lanes>,
    this: Weak<Self>,
    pub(crate) key: Key,
    pub(crate) host: Arc<Host<A>>,
}

impl<A: Actor> Slot<A> {
    pub(crate) fn new(key: Key, host: Arc<Host<A>>) -> Arc<Self> {
        let node = host.services.node_of(&key);
        Self::on_node(key, host, node)
    }

    /// The same on the node of that index among the silo's executors.
    pub(crate) fn on_node(key: Key, host: Arc<Host<A>>, node: u32) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            word: Word::default(),
            last_used: AtomicU32::new(host.tick()),
            node,
            home: host.services.nodes[node as usize].home(),
            mailbox: BriefLock::new(Mailbox::new()),
            actor: ActorCell::new(),
            lanes: OnceLock::new(),
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
        self.actor.pointer()
    }

    pub(crate) fn mailbox(&self) -> BriefGuard<'_, Mailbox> {
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

    /// Ends a turn that ran on its caller's thread, which is this one.
    #[inline(always)]
    pub(crate) fn release(&self, hold: Hold, local: &Local) {
        let needs_executor = match hold {
            Hold::Exclusive => self.word.release_exclusive(),
            Hold::Shared => self.word.release_shared(),
            Hold::Lane => return self.leave_lane(local),
            Hold::Lent => unreachable!("lent turns run on executors"),
        };
        if needs_executor {
            self.schedule();
        }
    }

    /// A turn that began on its caller's thread, which is this one, goes on without it.
    #[cold]
    pub(crate) fn hand_over(self: &Arc<Self>, turn: TaskRef, local: &Local) {
        turn.write_down_chain();
        turn.own(|| self.clone());
        if turn.hold() == Hold::Lane {
            self.leave_lane_for_good(&turn, local);
        }
        self.attach(&turn);
        self.pause(&turn);
    }

    /// Begins an activation unless somebody else has.
    pub(crate) fn activate_if_vacant(&self) {
        if let Some(resident) = self.arc().take(Phase::Vacant, Phase::Activating) {
            crate::activation::start(resident);
        }
    }

    /// Leaves `from` for `to`, which owns the actor.
    pub(crate) fn take(self: Arc<Self>, from: Phase, to: Phase) -> Option<Resident<A>> {
        if from == Phase::Active && !self.gather(&self.mailbox.lock()) {
            return None;
        }
        let sole = self.word.begin(from, to)?;
        Some(Resident { sole, settled: false, slot: self })
    }

    /// Writes the actor of an activation that needs to wait for nothing.
    #[inline]
    pub(crate) fn fill_instant(&self, mut sole: Sole, actor: A, exclusive: bool) -> Hold {
        self.actor.fill(&mut sole, actor);
        if self.word.finish_instant(exclusive) {
            self.schedule();
        }
        if exclusive { Hold::Exclusive } else { Hold::Shared }
    }

    /// The constructor of an instant activation failed: the slot is vacant again, and whoever waits hears of it.
    #[cold]
    pub(crate) fn abandon_instant(self: &Arc<Self>, sole: Sole, error: &Arc<crate::error::ActivationError>) {
        let resident = Resident { slot: self.clone(), sole, settled: false };
        resident.settle_vacant(Some(&|| crate::activation::failure_of(error)));
        self.host.services.activation_ends();
    }

    /// Tells the predictors that a message has come, if they want to hear of it. True if the actor was watched.
    #[inline(always)]
    pub(crate) fn report_demand(&self) -> bool {
        let seen = self.word.snapshot();
        let may_matter = seen.is_watched() || seen.phase() == Phase::Vacant;
        may_matter && self.report_demand_seen(seen)
    }

    #[cold]
    fn report_demand_seen(&self, seen: Snapshot) -> bool {
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
            Hold::Lane => unreachable!("a turn that is handed over has left its lane"),
        };
        if needs_executor {
            self.schedule();
        }
    }

    /// Whether other messages wait for the actor whose turn is being polled here.
    pub(crate) fn others_wait(&self) -> bool {
        self.word.snapshot().has_queued() || with_local(|local| local.others_in_hand.get())
    }

    /// How many messages wait.
    pub(crate) fn queued(&self) -> u32 {
        self.mailbox.lock().length
    }
}

impl<A: Actor> AnySlot for Slot<A> {
    fn id(&self) -> ActorId {
        self.actor_id()
    }

    fn executor(&self) -> Arc<Executor> {
        self.current_executor()
    }

    fn drain(&self) {
        self.begin_waiting();
    }

    fn after_poll(&self, turn: &TaskRef, polled: Polled) {
        self.poll_ended(turn, polled);
    }

    fn timed_poll(&self, turn: &TaskRef) -> Polled {
        with_local(|local| {
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

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    #[cold]
    fn turn_panicked(&self, details: &Panicked, has_letter: bool) {
        self.host.note_end(Outlook::Failed);
        supervision::turn_panicked(self, details, has_letter);
    }

    fn supervisor(&self) -> Supervisor {
        supervision::supervisor_of::<A>()
    }

    fn close_lend(&self, lender: &TaskRef) {
        let waiting = self.mailbox.lock().extra().lends.close(lender.identity());
        for turn in waiting {
            turn.reject(CallError::Deadlock(chain::describe(submit::callers(&turn), self.actor_id())));
        }
    }

    #[cold]
    fn note_late(&self, turn: &TaskRef) {
        self.count_late(turn);
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
        seen.phase() == Phase::Active
            && !seen.has_writer()
            && seen.readers() == 0
            && !seen.has_queued()
            && self.lanes_are_empty()
    }

    fn grid(&self) -> Grid {
        self.host.grid()
    }

    fn store(&self, name: &str) -> Option<Named> {
        self.host.services.stores.get(name)
    }

    fn keep(&self, store_name: &'static str, store: Named, seen: Option<ETag>) -> Arc<Keeper> {
        let services = &self.host.services;
        let home = Home {
            slot: self.this.clone(),
            clock: services.clock.clone(),
            timers: self.node_executor().timers().clone(),
            handle: services.lanes.handle.clone(),
        };
        let epoch = keeper::next_epoch(seen, services.clock.timestamp(), &*services.entropy);
        let keeper = Keeper::new(self.actor_id(), store_name, store, home, (seen, epoch));
        self.mailbox.lock().extra().keepers.push(keeper.clone());
        keeper
    }

    fn keepers(&self) -> Vec<Arc<Keeper>> {
        self.mailbox.lock().extra.as_ref().map(|extra| extra.keepers.clone()).unwrap_or_default()
    }

    fn supersede(&self, loss: Loss) {
        self.mailbox.lock().extra().loss = Some(loss);
        self.request_deactivation(DeactivationReason::Superseded);
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
        let mut sole = self.word.end();
        report_drop_panic(&self.key, self.actor.empty(&mut sole));
        // Whoever waits for an answer has the slot, and a silo that stops refuses what waits; so none is left.
        let messages = self.mailbox.get_mut().length;
        if messages > 0 {
            tracing::error!(key = %self.key, messages, "a slot went away with messages in its mailbox");
        }
    }
}
