//! Models of the turn engine: every interleaving of a few threads that call one actor, under loom.
//!
//! They run the real slot, word, mailbox, blocks, loans and executor, on loom's atomics and locks. What they watch is
//! the actor itself: its state is a loom cell, so that two turns which overlap, or a turn that does not see what the
//! one before it wrote, end the model; and every message and answer is counted, so that none is lost or dropped twice.
//!
//! `cargo xtask loom` builds and runs them. One thread of each model is a caller and the executor's worker in turn. The
//! exploration is bounded by involuntary switches: with two of them nearly all known races show (Musuvathi and Qadeer,
//! PLDI 2007), and a third thread costs as much as two more switches. `cargo xtask loom --preemptions 3` goes further.

use std::convert::Infallible;
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::model::Builder;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use quark_base::MonotonicClock;
use quark_devices::inventory::Inventory;
use quark_devices::pool::{DevicePool, PoolOptions};
use tokio::runtime::{Builder as TokioBuilder, Handle};

use crate::actor::{Actor, ActorSpec, DeactivationReason, Method, MethodSpec, Methods, Reference};
use crate::actor_ref::ActorRef;
use crate::context::Cx;
use crate::guards::Guards;
use crate::host::Host;
use crate::runtime::{RuntimeBuilder, Threads};
use crate::timers::Timers;
use crate::turn::block::with_local;
use crate::turn::{AnySlot, Exclusive, Executor, Shared, Slot};

/// Involuntary switches between two threads, between two whose every step has many outcomes, and between three.
const TWO: usize = 2;
const ONE: usize = 1;
const THREE: usize = 1;

/// Words of stack for a modelled thread; a turn is polled on it.
const STACK: usize = 1 << 15;

/// An actor whose state notices turns that overlap.
struct Register {
    value: UnsafeCell<usize>,
    _counted: Counted,
}

// SAFETY: loom's cell ends the model when two threads use it at once, which is what it is here for.
unsafe impl Sync for Register {}

/// A cell that several threads see.
struct Shareable(UnsafeCell<usize>);

// SAFETY: as above.
unsafe impl Sync for Shareable {}

/// Counts what exists.
#[derive(Default)]
struct Live(AtomicUsize);

/// One of what is counted.
struct Counted(Arc<Live>);

impl Counted {
    fn new(live: &Arc<Live>) -> Self {
        live.0.fetch_add(1, Ordering::Relaxed);
        Self(live.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Register {
    fn add(&mut self) -> usize {
        self.value.with_mut(|value| {
            // SAFETY: loom has just checked that nobody else is in here.
            unsafe {
                *value += 1;
                *value
            }
        })
    }

    fn read(&self) -> usize {
        // SAFETY: as above.
        self.value.with(|value| unsafe { *value })
    }
}

impl Actor for Register {
    const SPEC: ActorSpec = ActorSpec::new("model.register", "Register");
    type Ref = ActorRef<Self>;
}

impl Reference for ActorRef<Register> {
    type Actor = Register;
}

impl Methods for Register {
    const METHODS: &'static [MethodSpec] = &[
        MethodSpec { name: "add", exclusive: true },
        MethodSpec { name: "read", exclusive: false },
        MethodSpec { name: "wait", exclusive: true },
        MethodSpec { name: "lend", exclusive: true },
        MethodSpec { name: "watch", exclusive: false },
    ];
}

/// Adds one, alone.
struct Add(#[expect(dead_code, reason = "counts the message")] Counted);

impl Method<Register> for Add {
    type Mode = Exclusive;
    type Ok = usize;
    type Error = Infallible;
    const INDEX: usize = 0;

    async fn run(self, actor: &mut Register, _cx: &Cx) -> Result<usize, Infallible> {
        Ok(actor.add())
    }
}

/// Reads, beside others.
struct Read(#[expect(dead_code, reason = "counts the message")] Counted);

impl Method<Register> for Read {
    type Mode = Shared;
    type Ok = usize;
    type Error = Infallible;
    const INDEX: usize = 1;

    async fn run(self, actor: &Register, _cx: &Cx) -> Result<usize, Infallible> {
        Ok(actor.read())
    }
}

/// A door that one turn waits at until somebody opens it.
#[derive(Default)]
struct Door(Mutex<(bool, Option<Waker>)>);

impl Door {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut door = self.0.lock().unwrap();
        if door.0 {
            return Poll::Ready(());
        }
        door.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn open(&self) {
        let mut door = self.0.lock().unwrap();
        door.0 = true;
        let waker = door.1.take();
        drop(door);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Adds one, waits at the door, and adds one more.
struct Wait(#[expect(dead_code, reason = "counts the message")] Counted, Arc<Door>);

impl Method<Register> for Wait {
    type Mode = Exclusive;
    type Ok = usize;
    type Error = Infallible;
    const INDEX: usize = 2;

    async fn run(self, actor: &mut Register, _cx: &Cx) -> Result<usize, Infallible> {
        actor.add();
        poll_fn(|cx| self.1.poll(cx)).await;
        Ok(actor.add())
    }
}

/// Reads, waits at the door beside others, and reads again.
struct Watch(#[expect(dead_code, reason = "counts the message")] Counted, Arc<Door>);

impl Method<Register> for Watch {
    type Mode = Shared;
    type Ok = usize;
    type Error = Infallible;
    const INDEX: usize = 4;

    async fn run(self, actor: &Register, _cx: &Cx) -> Result<usize, Infallible> {
        let before = actor.read();
        poll_fn(|cx| self.1.poll(cx)).await;
        assert_eq!(actor.read(), before, "nobody writes beside a shared turn");
        Ok(before)
    }
}

/// Lends itself while it waits at the door and calls its own actor back.
struct LendItself(Counted, Arc<Door>, ActorRef<Register>, Counted);

impl Method<Register> for LendItself {
    type Mode = Exclusive;
    type Ok = usize;
    type Error = Infallible;
    const INDEX: usize = 3;

    async fn run(self, actor: &mut Register, cx: &Cx) -> Result<usize, Infallible> {
        actor.add();
        let Self(_counted, door, own, inner) = self;
        let back = async {
            poll_fn(|cx| door.poll(cx)).await;
            own.call(Add(inner)).await
        };
        let answered = cx.lend(actor, back).await;
        assert!(matches!(answered, Ok(_)), "a chain may come back to what it lent: {answered:?}");
        Ok(actor.add())
    }
}

/// One actor on a silo without threads of its own: the model's threads are all there is.
struct Stage {
    slot: Arc<Slot<Register>>,
    executor: Arc<Executor>,
    live: Arc<Live>,
}

impl Stage {
    fn new() -> Self {
        let handle = Handle::current();
        let timers = Timers::new(Arc::new(MonotonicClock::new()));
        let executor = Arc::new(Executor::new(handle.clone(), timers));
        let devices = DevicePool::open(Arc::new(Inventory::default()), PoolOptions::new());
        let builder = RuntimeBuilder::default();
        let prewarmer = builder.prewarmer(&devices).expect("there are no rules");
        let threads = Threads {
            nodes: Box::new([executor.clone()]),
            device_executors: Default::default(),
            lanes: handle,
            own: Vec::new(),
        };
        let (services, hosts) = builder.assemble(devices, prewarmer, threads).expect("there are no types");
        let live = Arc::<Live>::default();
        let of_actors = live.clone();
        // Not through the catalog: its map frees what is removed at a time of its own.
        let factory =
            move |_: &_| Ok(Register { value: UnsafeCell::new(0), _counted: Counted::new(&of_actors) });
        let host = Host::<Register>::new(
            services,
            Arc::downgrade(&hosts),
            Guards::default(),
            None,
            Box::new(factory),
        );
        Self { slot: Slot::new("a".into(), host), executor, live }
    }

    fn actor(&self) -> ActorRef<Register> {
        ActorRef::new(Some(self.slot.clone()))
    }

    fn counted(&self) -> Counted {
        Counted::new(&self.live)
    }

    /// A stage whose actor is active, with its shared turns counted in lanes.
    fn spread() -> Self {
        let stage = Self::new();
        assert_eq!(stage.ask_here(Read(stage.counted())), 0);
        assert!(stage.slot.word.try_shared());
        stage.slot.spread();
        assert!(!stage.slot.word.release_shared());
        assert!(stage.slot.word.snapshot().lets_into_lanes());
        stage
    }

    /// Asks from a thread of its own.
    fn ask<M: Method<Register, Error = Infallible>>(&self, message: M) -> Elsewhere<M::Ok> {
        let actor = self.actor();
        self.run(move || block_on(async { actor.call(message).await }).unwrap())
    }

    fn run<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> Elsewhere<T> {
        let done = Arc::new(Mutex::new((None, None::<Waker>)));
        let here = done.clone();
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
            let value = run();
            let mut done = done.lock().unwrap();
            done.0 = Some(value);
            let waker = done.1.take();
            drop(done);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Elsewhere { thread: thread.unwrap(), done: here }
    }

    /// Asks from this thread, which serves the executor while it waits.
    fn ask_here<M: Method<Register, Error = Infallible>>(&self, message: M) -> M::Ok {
        let actor = self.actor();
        let mut call = pin!(actor.call(message).into_future());
        self.serve_until(|cx| call.as_mut().poll(cx)).unwrap()
    }

    /// Waits for what another thread does; this one serves the executor meanwhile.
    fn join<T>(&self, elsewhere: Elsewhere<T>) -> T {
        let value = self.serve_until(|cx| {
            let mut done = elsewhere.done.lock().unwrap();
            match done.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    done.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        elsewhere.thread.join().unwrap();
        value
    }

    fn serve_until<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        block_on(poll_fn(|cx| {
            let polled = poll(cx);
            if polled.is_pending() {
                assert!(self.executor.serve(0, cx).is_pending(), "it is not closed yet");
            }
            polled
        }))
    }

    /// Everything has been answered: serves what is left, and sees that nothing is lost.
    fn end(self) {
        self.executor.close();
        block_on(poll_fn(|cx| self.executor.serve(0, cx)));
        let seen = self.slot.word.snapshot();
        assert!(!seen.has_writer() && seen.readers() == 0 && !seen.has_queued(), "{seen:?}");
        assert_eq!(Arc::strong_count(&self.slot), 1, "nobody has the slot any more");
        drop((self.slot, self.executor));
        assert_eq!(self.live.0.load(Ordering::Acquire), 0, "each message and each actor is dropped once");
    }
}

/// What another thread does.
struct Elsewhere<T> {
    thread: thread::JoinHandle<()>,
    done: Arc<Mutex<(Option<T>, Option<Waker>)>>,
}

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    // Never driven: it is only what `Handle::current` names.
    let tokio = TokioBuilder::new_current_thread().build().unwrap();
    let _entered = tokio.enter();
    let mut builder = Builder::new();
    // `LOOM_MAX_PREEMPTIONS` explores further.
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 50_000;
    builder.check(move || {
        let model = &model;
        model();
    });
}

#[test]
fn exclusive_asks_of_two_threads_never_overlap() {
    explore(TWO, || {
        let stage = Stage::new();
        let other = stage.ask(Add(stage.counted()));
        let here = stage.ask_here(Add(stage.counted()));
        let there = stage.join(other);
        assert_eq!(here + there, 3);
        stage.end();
    });
}

#[test]
fn a_read_sees_all_or_nothing_of_a_write() {
    explore(TWO, || {
        let stage = Stage::new();
        let other = stage.ask(Read(stage.counted()));
        let written = stage.ask_here(Add(stage.counted()));
        let read = stage.join(other);
        assert!(written == 1 && read <= 1);
        stage.end();
    });
}

#[test]
fn reads_of_two_threads_share_the_actor() {
    explore(TWO, || {
        let stage = Stage::new();
        let other = stage.ask(Read(stage.counted()));
        assert_eq!(stage.ask_here(Read(stage.counted())), 0);
        assert_eq!(stage.join(other), 0);
        stage.end();
    });
}

#[test]
fn every_one_way_message_runs_once() {
    explore(TWO, || {
        let stage = Stage::new();
        let (actor, message) = (stage.actor(), Add(stage.counted()));
        let other = stage.run(move || actor.call(message).tell().unwrap());
        stage.actor().call(Add(stage.counted())).tell().unwrap();
        stage.join(other);
        // Behind both of them, in the mailbox or after it.
        assert_eq!(stage.ask_here(Add(stage.counted())), 3);
        stage.end();
    });
}

#[test]
fn a_turn_that_waits_is_handed_over_and_woken() {
    explore(TWO, || {
        let stage = Stage::new();
        let door = Arc::<Door>::default();
        let opener = door.clone();
        let other = stage.run(move || opener.open());
        assert_eq!(stage.ask_here(Wait(stage.counted(), door)), 2);
        stage.join(other);
        stage.end();
    });
}

#[test]
fn a_call_behind_a_turn_that_waits_runs_after_it() {
    explore(TWO, || {
        let stage = Stage::new();
        let door = Arc::<Door>::default();
        let waits = stage.ask(Wait(stage.counted(), door.clone()));
        door.open();
        let added = stage.ask_here(Add(stage.counted()));
        let waited = stage.join(waits);
        assert!((added, waited) == (1, 3) || (added, waited) == (3, 2), "{added} {waited}");
        stage.end();
    });
}

#[test]
fn a_call_given_up_runs_to_its_end_or_not_at_all() {
    explore(TWO, || {
        let stage = Stage::new();
        let other = stage.ask(Add(stage.counted()));
        let (actor, message) = (stage.actor(), Add(stage.counted()));
        let answered = {
            // Polled once and dropped: in the mailbox, or done.
            let mut call = Box::pin(actor.call(message).into_future());
            stage.serve_until(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready()))
        };
        let there = stage.join(other);
        let last = stage.ask_here(Add(stage.counted()));
        assert!(if answered { last == 3 } else { last == 2 || last == 3 }, "{answered} {there} {last}");
        drop(actor);
        stage.end();
    });
}

#[test]
fn a_deactivation_never_takes_the_actor_from_under_a_turn() {
    explore(TWO, || {
        let stage = Stage::new();
        assert_eq!(stage.ask_here(Add(stage.counted())), 1);
        let other = stage.ask(Add(stage.counted()));
        stage.slot.request_deactivation(DeactivationReason::Requested);
        let added = stage.join(other);
        assert!(added == 2 || added == 1, "on the old actor or a fresh one: {added}");
        stage.end();
    });
}

#[test]
fn a_loan_is_used_by_its_chain_alone() {
    explore(TWO, || {
        let stage = Stage::new();
        let door = Arc::<Door>::default();
        let own = stage.actor();
        let lends = stage.ask(LendItself(stage.counted(), door.clone(), own, stage.counted()));
        door.open();
        let stranger = stage.ask_here(Add(stage.counted()));
        let lender = stage.join(lends);
        assert!((stranger, lender) == (1, 4) || (stranger, lender) == (4, 3), "{stranger} {lender}");
        stage.end();
    });
}

#[test]
fn three_callers_get_their_turns_one_after_another() {
    explore(THREE, || {
        let stage = Stage::new();
        let one = stage.ask(Add(stage.counted()));
        let other = stage.ask(Add(stage.counted()));
        let here = stage.ask_here(Add(stage.counted()));
        assert_eq!(here + stage.join(one) + stage.join(other), 6);
        stage.end();
    });
}

#[test]
fn a_waiting_write_is_not_lost_among_reads() {
    explore(THREE, || {
        let stage = Stage::new();
        let one = stage.ask(Read(stage.counted()));
        let other = stage.ask(Read(stage.counted()));
        assert_eq!(stage.ask_here(Add(stage.counted())), 1);
        assert!(stage.join(one) <= 1 && stage.join(other) <= 1);
        stage.end();
    });
}

#[test]
fn a_tell_and_an_ask_survive_a_deactivation() {
    explore(THREE, || {
        let stage = Stage::new();
        let (actor, message) = (stage.actor(), Add(stage.counted()));
        let told = stage.run(move || actor.call(message).tell().unwrap());
        let asked = stage.ask(Add(stage.counted()));
        stage.slot.request_deactivation(DeactivationReason::Requested);
        stage.join(told);
        let added = stage.join(asked);
        assert!(added == 1 || added == 2, "{added}");
        stage.end();
    });
}

#[test]
fn a_read_in_a_lane_and_a_write_exclude_each_other() {
    explore(ONE, || {
        let stage = Stage::spread();
        let other = stage.ask(Read(stage.counted()));
        assert_eq!(stage.ask_here(Add(stage.counted())), 1);
        assert!(stage.join(other) <= 1);
        stage.end();
    });
}

#[test]
fn a_turn_that_waits_leaves_its_lane_and_still_keeps_writers_out() {
    explore(ONE, || {
        let stage = Stage::spread();
        let door = Arc::<Door>::default();
        let watches = stage.ask(Watch(stage.counted(), door.clone()));
        let adds = {
            stage.actor().call(Add(stage.counted())).tell().unwrap();
            door.open();
            stage.ask_here(Add(stage.counted()))
        };
        let seen = stage.join(watches);
        assert!(adds == 2 && (seen == 0 || seen == 1 || seen == 2), "{adds} {seen}");
        stage.end();
    });
}

#[test]
fn an_actor_spreads_while_it_is_written_to() {
    explore(TWO, || {
        let stage = Stage::new();
        assert_eq!(stage.ask_here(Read(stage.counted())), 0);
        let slot = stage.slot.clone();
        let spreads = stage.run(move || {
            if slot.word.try_shared() {
                slot.spread();
                if slot.word.release_shared() {
                    slot.schedule();
                }
            }
        });
        assert_eq!(stage.ask_here(Add(stage.counted())), 1);
        stage.join(spreads);
        assert_eq!(stage.ask_here(Add(stage.counted())), 2);
        stage.end();
    });
}

#[test]
fn turns_in_two_lanes_and_an_exclusive_one_exclude_each_other() {
    // Without messages: what a lane is for is small enough to be explored with three threads in full.
    fn read(slot: &Arc<Slot<Register>>, value: &UnsafeCell<usize>) {
        with_local(|local| {
            if let Some(hold) = slot.acquire_shared(local) {
                // SAFETY: loom checks that nobody writes meanwhile.
                value.with(|value| assert!(unsafe { *value } <= 1));
                slot.release(hold, local);
            }
        });
    }
    explore(TWO, || {
        let stage = Stage::spread();
        let value = Arc::new(Shareable(UnsafeCell::new(0)));
        let readers = [(); 2].map(|()| {
            let (slot, value) = (stage.slot.clone(), value.clone());
            stage.run(move || read(&slot, &value.0))
        });
        let lock = stage.slot.mailbox();
        let taken = stage.slot.gather(&lock) && stage.slot.word.take_exclusive();
        drop(lock);
        if taken {
            // SAFETY: as above.
            value.0.with_mut(|value| unsafe { *value += 1 });
            assert!(!stage.slot.word.release_exclusive());
        }
        for reader in readers {
            stage.join(reader);
        }
        stage.end();
    });
}

#[test]
fn a_deactivation_waits_for_a_turn_in_a_lane() {
    explore(ONE, || {
        let stage = Stage::spread();
        let other = stage.ask(Read(stage.counted()));
        stage.slot.request_deactivation(DeactivationReason::Requested);
        assert_eq!(stage.join(other), 0);
        stage.end();
    });
}

#[test]
fn an_actor_that_nobody_wants_alone_any_more_is_shared_inline_again() {
    explore(ONE, || {
        let stage = Stage::spread();
        with_local(|local| {
            let hold = stage.slot.acquire_shared(local).expect("nobody waits");
            assert!(!stage.slot.gather(&stage.slot.mailbox()), "a turn is in its lane");
            stage.slot.release(hold, local);
        });
        assert!(stage.slot.word.snapshot().is_gathering());
        assert_eq!(stage.ask_here(Read(stage.counted())), 0);
        assert!(!stage.slot.word.snapshot().is_spread());
        stage.end();
    });
}
