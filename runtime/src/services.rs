//! What all actors of one silo share: executors, devices, load lanes, the coarse clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quark_base::{Clock, Entropy, Key, SiloId};
use quark_devices::inventory::DeviceId;
use quark_devices::lease::TurnPin;
use quark_devices::ledger::LeaseId;
use quark_devices::pool::DevicePool;
use tokio::runtime::{Handle, Runtime as TokioRuntime};
use tokio::sync::{Notify, Semaphore, watch};

use crate::actor::DeactivationReason;
use crate::pressure::Pressure;
use crate::prewarm::Prewarmer;
use crate::stores::Stores;
use crate::streams::Streams;
use crate::supervision::Supervision;
use crate::turn::{AnySlot, Executor};

/// How finely idle time is measured: a call writes nothing but a changed tick.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Activations that may load onto one device at once. Two keep the copy engine and the host's disk busy
/// together; more would only make each of them slower.
const LOADS_PER_DEVICE: usize = 2;

/// What all actors of one silo share.
pub(crate) struct Services {
    pub(crate) silo: SiloId,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where jitter comes from.
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) tick: AtomicU32,
    pub(crate) draining: AtomicBool,
    /// The silo has stopped: nothing begins any more.
    pub(crate) stopped: AtomicBool,
    /// The same, for activations under way, which are given up.
    pub(crate) stop_signal: watch::Sender<bool>,
    /// Activations that exist, in whatever phase but vacant.
    pub(crate) activations: AtomicUsize,
    /// Those of them that are being ended.
    pub(crate) leaving: AtomicUsize,
    pub(crate) pressure: Pressure,
    /// Told whenever an activation ends.
    pub(crate) ended: Notify,
    /// One executor per NUMA node; never empty.
    pub(crate) nodes: Box<[Arc<Executor>]>,
    pub(crate) device_executors: HashMap<DeviceId, Arc<Executor>>,
    pub(crate) devices: Arc<DevicePool>,
    pub(crate) api: quark_placement::Api,
    pub(crate) allow_simulated: bool,
    pub(crate) lanes: Lanes,
    pub(crate) tenants: Tenants,
    pub(crate) prewarmer: Prewarmer,
    pub(crate) streams: Streams,
    pub(crate) stores: Stores,
    pub(crate) supervision: Supervision,
    /// Taken when the silo stops.
    pub(crate) own_runtimes: Mutex<OwnRuntimes>,
}

impl Services {
    /// The tick of `now`.
    pub(crate) fn tick_of(now: Duration) -> u32 {
        (now.as_millis() / TICK.as_millis()) as u32
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The node that an actor without a device lives on: always the same one, so that its memory is local.
    pub(crate) fn node_of(&self, key: &Key) -> u32 {
        match self.nodes.len() {
            1 => 0,
            nodes => (quark_placement::hash::hash(key.as_str().as_bytes()) % nodes as u64) as u32,
        }
    }

    pub(crate) fn executors(&self) -> impl Iterator<Item = &Arc<Executor>> {
        self.nodes.iter().chain(self.device_executors.values())
    }

    /// Whether nothing happens until somebody calls or time moves on. What the calling runtime's threads do is the
    /// caller's to know.
    pub(crate) fn is_settled(&self) -> bool {
        let here = Handle::try_current().ok().map(|handle| handle.id());
        let handles = self.executors().map(|executor| executor.handle()).chain([&self.lanes.handle]);
        self.executors().all(|executor| executor.is_settled())
            && handles.filter(|handle| Some(handle.id()) != here).all(threads_rest)
    }

    pub(crate) fn activation_begins(&self) {
        self.activations.fetch_add(1, Ordering::AcqRel);
    }

    /// Activations that are not being ended.
    pub(crate) fn staying(&self) -> usize {
        let leaving = self.leaving.load(Ordering::Acquire);
        self.activations.load(Ordering::Acquire).saturating_sub(leaving)
    }

    pub(crate) fn activation_ends(&self) {
        self.activations.fetch_sub(1, Ordering::AcqRel);
        self.ended.notify_waiters();
    }
}

/// Whether all threads of a tokio runtime sleep. They do so only when no task of theirs is ready.
fn threads_rest(handle: &Handle) -> bool {
    let metrics = handle.metrics();
    // An odd count is that of a worker that sleeps.
    let rests = |worker| metrics.worker_park_unpark_count(worker) % 2 == 1;
    metrics.global_queue_depth() == 0 && (0..metrics.num_workers()).all(rests)
}

impl Drop for Services {
    fn drop(&mut self) {
        for executor in self.executors() {
            executor.close();
        }
    }
}

/// Runtimes that the silo made for itself. They may be dropped anywhere: a runtime as such may not where async code runs,
/// which is where most silos start, fail to start, and end.
#[derive(Default)]
pub(crate) struct OwnRuntimes(Vec<TokioRuntime>);

impl OwnRuntimes {
    pub(crate) fn add(&mut self, runtime: TokioRuntime) {
        self.0.push(runtime);
    }

    /// Ends them, and waits for the threads of each for so long. Only where a thread may block.
    pub(crate) fn end(mut self, patience: Duration) {
        for runtime in self.0.drain(..) {
            runtime.shutdown_timeout(patience);
        }
    }
}

impl Drop for OwnRuntimes {
    fn drop(&mut self) {
        for runtime in self.0.drain(..) {
            runtime.shutdown_background();
        }
    }
}

/// Where activations run: threads of their own, with a bound per device, so that a long load never stalls turns.
pub(crate) struct Lanes {
    pub(crate) handle: Handle,
    devices: HashMap<DeviceId, Arc<Semaphore>>,
}

impl Lanes {
    pub(crate) fn new(handle: Handle, devices: impl Iterator<Item = DeviceId>) -> Self {
        let devices = devices.map(|device| (device, Arc::new(Semaphore::new(LOADS_PER_DEVICE)))).collect();
        Self { handle, devices }
    }

    /// The lane of a device; `None` without one: loads of main memory are bounded by the lane's threads alone.
    pub(crate) fn of(&self, device: &DeviceId) -> Option<Arc<Semaphore>> {
        self.devices.get(device).cloned()
    }
}

/// Which slot holds which lease, so that memory can be asked back. As many entries as leases.
#[derive(Default)]
pub(crate) struct Tenants(Mutex<HashMap<LeaseId, Weak<dyn AnySlot>>>);

impl Tenants {
    pub(crate) fn enter(&self, lease: LeaseId, slot: Arc<dyn AnySlot>) {
        self.0.lock().insert(lease, Arc::downgrade(&slot));
    }

    pub(crate) fn leave(&self, lease: LeaseId) {
        self.0.lock().remove(&lease);
    }

    /// Keeps the leases of those who run a turn from being chosen, for as long as the result lives.
    pub(crate) fn pin_busy(&self) -> Vec<TurnPin> {
        let slots: Vec<_> = self.0.lock().values().filter_map(Weak::upgrade).collect();
        let busy = slots.iter().filter(|slot| !slot.is_idle());
        busy.filter_map(|slot| slot.device().ok()?.pin().ok()).collect()
    }

    /// Asks the holder of `lease` to deactivate. False if it is running a turn, or gone.
    pub(crate) fn evict(&self, lease: LeaseId) -> bool {
        let slot = self.0.lock().get(&lease).and_then(Weak::upgrade);
        slot.filter(|slot| slot.is_idle()).is_some_and(|slot| {
            slot.request_deactivation(DeactivationReason::Evicted);
            true
        })
    }
}
