//! Who drives turns that do not end on their caller's thread: a run queue served by one task per thread of a
//! tokio runtime.
//!
//! The tokio runtime is what a turn's own I/O and timers hang on. A floating executor borrows the runtime that
//! the silo was started on; the others have one of their own, whose threads are pinned near a NUMA node or GPU.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{self, Handle};
use tokio::task::coop;

use crate::error::StopCause;
use crate::timers::Timers;
use crate::turn::block::panic_message;
use crate::turn::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, Queue, fence};
use crate::turn::visit::Visit;
use crate::turn::{AnySlot, TaskRef};

/// Items that a worker runs before it lets tokio look after its sockets and timers.
const ITEMS_PER_VISIT: usize = 32;

/// What an executor runs.
pub(crate) enum Item {
    /// A slot with messages, or one that is to be deactivated.
    Slot(Arc<dyn AnySlot>),
    /// A turn that holds its part of the actor already.
    Turn(TaskRef),
}

/// A run queue and its workers. Items are bounded by the mailboxes and turns they come from: a slot or a turn
/// stands in the queue at most once.
pub(crate) struct Executor {
    queue: Queue<Item>,
    workers: Box<[Worker]>,
    parked: AtomicUsize,
    /// Workers that are still there. Without one, whoever brings an item ends it.
    live: AtomicUsize,
    /// Somebody is ending what is left.
    ending: AtomicBool,
    end_hook: OnceLock<Box<dyn Fn() + Send + Sync>>,
    closed: AtomicBool,
    home: runtime::Id,
    handle: Handle,
    timers: Arc<Timers>,
}

#[derive(Default)]
struct Worker {
    waker: Mutex<Option<Waker>>,
    parked: AtomicBool,
    visit: Visit,
}

/// A worker's time at work. It ends with the worker, also when tokio ends that by itself.
struct Shift(Arc<Executor>);

impl Drop for Shift {
    fn drop(&mut self) {
        let last = self.0.live.fetch_sub(1, Ordering::SeqCst) == 1;
        fence(Ordering::SeqCst);
        if last {
            if let Some(hook) = self.0.end_hook.get() {
                contained(hook);
            }
            self.0.end_items();
        }
    }
}

/// Turns contain their own panics; should one get through all the same, it costs no worker.
fn contained(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        tracing::error!(panic = %panic_message(payload), "a panic reached an executor");
    }
}

impl Executor {
    /// Serves items on the runtime behind `handle` until [`close`](Self::close).
    pub(crate) fn start(handle: Handle, timers: Arc<Timers>) -> Arc<Self> {
        let executor = Arc::new(Self::new(handle, timers));
        for index in 0..executor.workers.len() {
            let shift = Shift(executor.clone());
            executor.handle.spawn(async move { poll_fn(|cx| shift.0.serve(index, cx)).await });
        }
        executor
    }

    /// An executor that nobody serves yet.
    pub(super) fn new(handle: Handle, timers: Arc<Timers>) -> Self {
        let workers = handle.metrics().num_workers().max(1);
        Self {
            queue: Queue::new(),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            parked: AtomicUsize::new(0),
            live: AtomicUsize::new(workers),
            ending: AtomicBool::new(false),
            end_hook: OnceLock::new(),
            closed: AtomicBool::new(false),
            home: handle.id(),
            handle,
            timers,
        }
    }

    /// Which tokio runtime's threads run its turns.
    #[inline]
    pub(crate) fn home(&self) -> runtime::Id {
        self.home
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether it has several threads, so that others may be at work beside a turn of its own.
    pub(crate) fn is_parallel(&self) -> bool {
        self.workers.len() > 1
    }

    /// The moments that its turns and their callers wait for.
    pub(crate) fn timers(&self) -> &Arc<Timers> {
        &self.timers
    }

    /// Notes where the workers are at `tick`, for the watchdog.
    pub(crate) fn observe(&self, tick: u32) {
        self.workers.iter().for_each(|worker| worker.visit.observe(tick));
    }

    /// For how many ticks a worker is known to have been in the slot at this address.
    pub(crate) fn ticks_in(&self, slot: usize, tick: u32) -> Option<u32> {
        self.workers.iter().find_map(|worker| worker.visit.ticks_in(slot, tick))
    }

    /// Whether nothing waits to be run, and nothing that is due to happen.
    pub(crate) fn is_settled(&self) -> bool {
        let idle = || self.parked.load(Ordering::SeqCst) == self.live.load(Ordering::SeqCst);
        self.timers.is_settled() && idle() && self.queue.is_empty() && idle()
    }

    /// Ends the workers as soon as the queue is empty.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Pairs with the fence in `serve`: either the worker is seen parked, or it sees that this is the end.
        fence(Ordering::SeqCst);
        self.timers.close();
        for worker in &self.workers {
            self.unpark(worker);
        }
    }

    /// Puts an item behind the others.
    pub(crate) fn push(&self, item: Item) {
        self.queue.push(item);
        // Pairs with the fence in `serve`: either this thread sees the worker parked, or it sees the item.
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) != 0 {
            self.unpark_one();
        }
        if self.live.load(Ordering::Relaxed) == 0 {
            self.end_items();
        }
    }

    /// Ends what is left when nobody will run it any more: its callers hear that the silo has stopped. Their
    /// turns' futures are dropped on the calling thread.
    #[cold]
    fn end_items(&self) {
        while !self.queue.is_empty() {
            // The end of one turn wakes the next; that must not nest, since chains may be long.
            if self.ending.swap(true, Ordering::SeqCst) {
                return;
            }
            while let Some(item) = self.queue.pop() {
                contained(|| match item {
                    Item::Slot(slot) => slot.stop(),
                    Item::Turn(turn) => {
                        turn.abort_unless_woken(StopCause::Silo);
                        crate::turn::slot::run_scheduled(turn);
                    }
                });
            }
            self.ending.store(false, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }

    /// Calls `hook` when the last worker has gone, also when tokio ended it.
    pub(crate) fn on_end(&self, hook: impl Fn() + Send + Sync + 'static) {
        // Set once, by the silo's start.
        self.end_hook.get_or_init(|| Box::new(hook));
    }

    fn unpark_one(&self) {
        for worker in &self.workers {
            if worker.parked.load(Ordering::Relaxed) && self.unpark(worker) {
                return;
            }
        }
    }

    fn unpark(&self, worker: &Worker) -> bool {
        let woken = worker.parked.swap(false, Ordering::AcqRel);
        if woken {
            self.parked.fetch_sub(1, Ordering::AcqRel);
            let waker = worker.waker.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        woken
    }

    pub(super) fn serve(&self, index: usize, cx: &mut Context<'_>) -> Poll<()> {
        let worker = &self.workers[index];
        // Woken by tokio itself rather than by a push: it is no longer parked either way.
        if worker.parked.swap(false, Ordering::AcqRel) {
            self.parked.fetch_sub(1, Ordering::AcqRel);
        }
        for _ in 0..ITEMS_PER_VISIT {
            // Read first: what was pushed before the end is served before the end.
            let closed = self.closed.load(Ordering::SeqCst);
            match self.queue.pop() {
                Some(Item::Slot(slot)) => {
                    worker.visit.begin(Arc::as_ptr(&slot).cast::<()>().addr());
                    contained(|| slot.drain());
                    worker.visit.end();
                }
                Some(Item::Turn(turn)) => contained(|| crate::turn::slot::run_scheduled(turn)),
                None if closed => return Poll::Ready(()),
                None => {
                    *worker.waker.lock() = Some(cx.waker().clone());
                    worker.parked.store(true, Ordering::Release);
                    self.parked.fetch_add(1, Ordering::AcqRel);
                    // Pairs with the fence in `push`.
                    fence(Ordering::SeqCst);
                    let raced = !self.queue.is_empty() || self.closed.load(Ordering::SeqCst);
                    if !raced {
                        return Poll::Pending;
                    }
                    if worker.parked.swap(false, Ordering::AcqRel) {
                        self.parked.fetch_sub(1, Ordering::AcqRel);
                    }
                }
            }
            // Turns that run dry of tokio's budget wake themselves at once; without a return to tokio they
            // would do so for ever.
            if !coop::has_budget_remaining() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
