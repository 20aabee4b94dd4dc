//! What the models act on: one actor on a silo without threads of its own, and the messages that it takes.

use std::convert::Infallible;
use std::future::{IntoFuture, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use quark_base::MonotonicClock;
use quark_devices::inventory::Inventory;
use quark_devices::pool::{DevicePool, PoolOptions};
use tokio::runtime::Handle;

use crate::actor::{Actor, ActorSpec, Method, MethodSpec, Methods, Reference};
use crate::actor_ref::ActorRef;
use crate::context::Cx;
use crate::guards::Guards;
use crate::host::Host;
use crate::runtime::{RuntimeBuilder, Threads};
use crate::timers::Timers;
use crate::turn::{Exclusive, Executor, Shared, Slot};

/// Words of stack for a modelled thread; a turn is polled on it.
const STACK: usize = 1 << 15;

/// An actor whose state notices turns that overlap.
pub(super) struct Register {
    value: UnsafeCell<usize>,
    _counted: Counted,
}

// SAFETY: loom's cell ends the model when two threads use it at once, which is what it is here for.
unsafe impl Sync for Register {}

/// A cell that several threads see.
pub(super) struct Shareable(pub(super) UnsafeCell<usize>);

// SAFETY: as above.
unsafe impl Sync for Shareable {}

/// Counts what exists.
#[derive(Default)]
pub(super) struct Live(AtomicUsize);

/// One of what is counted.
pub(super) struct Counted(Arc<Live>);

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
pub(super) struct Add(#[expect(dead_code, reason = "counts the message")] pub(super) Counted);

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
pub(super) struct Read(#[expect(dead_code, reason = "counts the message")] pub(super) Counted);

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
pub(super) struct Door(Mutex<(bool, Option<Waker>)>);

impl Door {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut door = self.0.lock().unwrap();
        if door.0 {
            return Poll::Ready(());
        }
        door.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn open(&self) {
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
pub(super) struct Wait(
    #[expect(dead_code, reason = "counts the message")] pub(super) Counted,
    pub(super) Arc<Door>,
);

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
pub(super) struct Watch(
    #[expect(dead_code, reason = "counts the message")] pub(super) Counted,
    pub(super) Arc<Door>,
);

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
pub(super) struct LendItself(
    pub(super) Counted,
    pub(super) Arc<Door>,
    pub(super) ActorRef<Register>,
    pub(super) Counted,
);

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
pub(super) struct Stage {
    pub(super) slot: Arc<Slot<Register>>,
    executor: Arc<Executor>,
    live: Arc<Live>,
}

impl Stage {
    pub(super) fn new() -> Self {
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
            own: Default::default(),
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

    pub(super) fn actor(&self) -> ActorRef<Register> {
        ActorRef::new(Some(self.slot.clone()))
    }

    pub(super) fn counted(&self) -> Counted {
        Counted::new(&self.live)
    }

    /// A stage whose actor is active, with its shared turns counted in lanes.
    pub(super) fn spread() -> Self {
        let stage = Self::new();
        assert_eq!(stage.ask_here(Read(stage.counted())), 0);
        assert!(stage.slot.word.try_shared());
        stage.slot.spread();
        assert!(!stage.slot.word.release_shared());
        assert!(stage.slot.word.snapshot().lets_into_lanes());
        stage
    }

    /// Asks from a thread of its own.
    pub(super) fn ask<M: Method<Register, Error = Infallible>>(&self, message: M) -> Elsewhere<M::Ok> {
        let actor = self.actor();
        self.run(move || block_on(async { actor.call(message).await }).unwrap())
    }

    pub(super) fn run<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> Elsewhere<T> {
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
    pub(super) fn ask_here<M: Method<Register, Error = Infallible>>(&self, message: M) -> M::Ok {
        let actor = self.actor();
        let mut call = pin!(actor.call(message).into_future());
        self.serve_until(|cx| call.as_mut().poll(cx)).unwrap()
    }

    /// Waits for what another thread does; this one serves the executor meanwhile.
    pub(super) fn join<T>(&self, elsewhere: Elsewhere<T>) -> T {
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

    pub(super) fn serve_until<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        block_on(poll_fn(|cx| {
            let polled = poll(cx);
            if polled.is_pending() {
                assert!(self.executor.serve(0, cx).is_pending(), "it is not closed yet");
            }
            polled
        }))
    }

    /// Everything has been answered: serves what is left, and sees that nothing is lost.
    pub(super) fn end(self) {
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
pub(super) struct Elsewhere<T> {
    thread: thread::JoinHandle<()>,
    done: Arc<Mutex<(Option<T>, Option<Waker>)>>,
}
