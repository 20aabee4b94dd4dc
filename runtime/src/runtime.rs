//! Starting and stopping the runtime of one silo.

mod start_error;

use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quark_base::{ByteSize, Clock, Entropy, Key, MonotonicClock, Seeded, SiloId};
use quark_devices::inventory::{CpuSet, DeviceId, Inventory, NumaNode};
use quark_devices::pool::{DevicePool, PoolOptions};
use quark_placement::Api;
use quark_predictive::{PrewarmBudget, RuleError};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

pub use self::start_error::StartError;
use crate::actor::{Actor, ActorSpec, Create, DeactivationReason, HookError, PartSpec};
use crate::durable::Relay;
use crate::grid::{Grid, Hosts};
use crate::guards::Guards;
use crate::host::{AnyHost, Host, Hosted};
use crate::intercept::Interceptor;
use crate::pressure::{Bounds, MemoryGauge, Pressure};
use crate::prewarm::Prewarmer;
use crate::reminders::{ReminderSpec, RingOwnership, Service, WholeRing};
use crate::services::{Lanes, OwnRuntimes, Services, TICK, Tenants};
use crate::state::Stored;
use crate::store::Store;
use crate::stores::Stores;
use crate::streams::{DurableStream, DurableTopic, Registration, Streams, Subscriptions, Topic};
use crate::supervision::Supervision;
use crate::sweep::Sweeper;
use crate::timers::Timers;
use crate::turn::Executor;

/// Threads of the load lane: loads are bound by disk and copy engines, and two keep both busy.
const LOAD_THREADS: usize = 2;

/// How long a stopped silo's turns get to end after they were told to.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// The default prewarm budget: half of what the devices have, or without devices as many actors as a burst may
/// bring, kept for as long again as people wait before they ask what is wrong.
const PREWARM_ACTORS: usize = 1_024;
const PREWARM_TTL: Duration = Duration::from_secs(10);

type HostMaker = Box<
    dyn FnOnce(
            Arc<Services>,
            Weak<Hosts>,
            Guards,
            Option<Arc<dyn Interceptor>>,
        ) -> (Arc<dyn AnyHost>, Vec<Registration>)
        + Send,
>;

/// A type that the silo is to host.
struct HostedType {
    id: TypeId,
    spec: ActorSpec,
    parts: &'static [PartSpec],
    reminders: &'static [ReminderSpec],
    make: HostMaker,
}

/// Sets up the runtime of one silo.
pub struct RuntimeBuilder {
    devices: Option<Arc<DevicePool>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    api: Api,
    allow_simulated: bool,
    prewarm: bool,
    prewarm_budget: Option<PrewarmBudget>,
    types: Vec<HostedType>,
    guards: HashMap<TypeId, (&'static str, Guards)>,
    interceptors: HashMap<TypeId, Arc<dyn Interceptor>>,
    durable_streams: Vec<DurableTopic>,
    bounds: Bounds,
    stores: BTreeMap<String, Store>,
    ring: Arc<dyn RingOwnership>,
}

impl Default for RuntimeBuilder {
    fn default() -> Self {
        Self {
            devices: None,
            clock: Arc::new(MonotonicClock::new()),
            entropy: Arc::new(Seeded::from_system()),
            api: Api::Any,
            allow_simulated: false,
            prewarm: true,
            prewarm_budget: None,
            types: Vec::new(),
            guards: HashMap::new(),
            interceptors: HashMap::new(),
            durable_streams: Vec::new(),
            bounds: Bounds::default(),
            stores: BTreeMap::new(),
            ring: Arc::new(WholeRing),
        }
    }
}

impl RuntimeBuilder {
    /// The devices whose memory actors may lease. Without them there is none.
    pub fn devices(mut self, devices: Arc<DevicePool>) -> Self {
        self.devices = Some(devices);
        self
    }

    /// The clock for everything that waits for a moment: deadlines, timers, limits, idle times, prewarming. Only
    /// [`Runtime::shutdown`]'s patience is real time, so that a silo ends whatever its clock does.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where ids and jitter come from.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// The library through which actors will use their devices; only devices that it opens are chosen.
    pub fn device_api(mut self, api: Api) -> Self {
        self.api = api;
        self
    }

    /// Whether devices from a topology file are leased: for planning and for tests without a GPU.
    pub fn allow_simulated_devices(mut self, allowed: bool) -> Self {
        self.allow_simulated = allowed;
        self
    }

    /// Whether `prewarm(…)` rules are acted on. They are unless told otherwise.
    pub fn prewarm(mut self, enabled: bool) -> Self {
        self.prewarm = enabled;
        self
    }

    /// How much prewarmed actors may hold that nobody has called yet.
    pub fn prewarm_budget(mut self, budget: PrewarmBudget) -> Self {
        self.prewarm_budget = Some(budget);
        self
    }

    /// Hosts actors of type `A`.
    pub fn host<A: Create>(self) -> Self {
        self.host_with::<A>(|_| Ok(A::create()))
    }

    /// Hosts actors of type `A`, which `factory` makes.
    pub fn host_with<A: Actor>(
        mut self,
        factory: impl Fn(&Key) -> Result<A, HookError> + Send + Sync + 'static,
    ) -> Self {
        let make: HostMaker = Box::new(|services, hosts, guards, interceptor| {
            let host = Host::<A>::new(services, hosts, guards, interceptor, Box::new(factory));
            let hosted = Hosted::new(host);
            let mut subscriptions = Subscriptions::new(Arc::downgrade(&hosted));
            A::subscribe(&mut subscriptions);
            (hosted, subscriptions.into_found())
        });
        self.types.push(HostedType {
            id: TypeId::of::<A>(),
            spec: A::SPEC,
            parts: A::PARTS,
            reminders: A::REMINDERS,
            make,
        });
        self
    }

    /// Keeps no more actors active than this, besides those that are busy: above it, the idle ones that nobody called
    /// for longest are deactivated at the next tick of the silo's clock.
    pub fn max_activations(mut self, most: usize) -> Self {
        self.bounds.activations = Some(most);
        self
    }

    /// The same for the memory that `gauge` reads: while it is above `most`, actors leave, a share of them each
    /// second.
    pub fn max_memory(mut self, most: ByteSize, gauge: Arc<dyn MemoryGauge>) -> Self {
        self.bounds.memory = Some((most, gauge));
        self
    }

    /// Keeps what actors keep in the store of this name in `store`. A part that names none is in `"default"`.
    pub fn store(mut self, name: impl Into<String>, store: Store) -> Self {
        self.stores.insert(name.into(), store);
        self
    }

    /// Keeps the items of a topic in a store, until the actor types that read it have handled them.
    pub fn durable_stream<T: Stored>(mut self, topic: &Topic<T>, settings: DurableStream) -> Self {
        self.durable_streams.push(DurableTopic::new(topic, settings));
        self
    }

    /// Delivers the reminders of these parts of the hash ring instead of all.
    pub fn ring_ownership(mut self, ring: Arc<dyn RingOwnership>) -> Self {
        self.ring = ring;
        self
    }

    /// Guards actors of type `A` with these instead of what the type declares.
    pub fn guards<A: Actor>(mut self, guards: Guards) -> Self {
        self.guards.insert(TypeId::of::<A>(), (A::SPEC.rust_type, guards));
        self
    }

    /// Puts somebody between callers and the actors of type `A`: for tests.
    pub fn intercept<A: Actor>(mut self, interceptor: Arc<dyn Interceptor>) -> Self {
        self.interceptors.insert(TypeId::of::<A>(), interceptor);
        self
    }

    /// Whether a hosted type declares a device.
    pub fn needs_devices(&self) -> bool {
        self.types.iter().any(|hosted| hosted.spec.gpu.is_some())
    }

    /// Starts the runtime.
    ///
    /// On a tokio runtime, and on a machine with one NUMA node, actors run on that runtime, and calls from its
    /// tasks are inline. Elsewhere the silo starts runtimes of its own.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(mut self) -> Result<Runtime, StartError> {
        let mut names: HashMap<&'static str, &'static str> = HashMap::new();
        for HostedType { spec, .. } in &self.types {
            if let Some(other) = names.insert(spec.name, spec.rust_type) {
                return Err(StartError::SameName { name: spec.name, first: other, second: spec.rust_type });
            }
        }
        let hosted = |id: &TypeId| self.types.iter().any(|hosted| hosted.id == *id);
        if let Some((_, (rust_type, _))) = self.guards.iter().find(|(id, _)| !hosted(id)) {
            return Err(StartError::GuardsWithoutHost { rust_type });
        }
        for hosted in &self.types {
            if let Some(part) = hosted.parts.iter().find(|part| !self.stores.contains_key(part.store())) {
                let known = self.stores.keys().cloned().collect();
                return Err(StartError::NoStore { part: *part, known });
            }
            self.check_reminders(hosted)?;
        }
        let devices = self
            .devices
            .clone()
            .unwrap_or_else(|| DevicePool::open(Arc::new(Inventory::default()), PoolOptions::new()));
        let prewarmer = self.prewarmer(&devices)?;
        let mut own = OwnRuntimes::default();
        let nodes = node_executors(&mut own, devices.inventory(), &self.clock)?;
        let lanes = own_runtime(&mut own, "quark-load", Some(LOAD_THREADS), None)?;
        let mut device_executors = HashMap::new();
        let needs_devices = self.needs_devices();
        for usage in devices.usage().into_iter().filter(|_| needs_devices) {
            let node = devices.device(&usage.device).and_then(|device| device.numa_node);
            let cpus = node.and_then(|node| cpus_of(devices.inventory(), devices.inventory().node(node)?));
            let handle = own_runtime(&mut own, "quark-gpu", Some(1), cpus)?;
            let executor = Executor::start(handle, Timers::new(self.clock.clone()));
            device_executors.insert(usage.device, executor);
        }
        let durable_streams = std::mem::take(&mut self.durable_streams);
        let threads = Threads { nodes, device_executors, lanes: lanes.clone(), own };
        let ring = self.ring.clone();
        let (services, hosts) = self.assemble(devices, prewarmer, threads)?;
        for executor in services.executors() {
            let (hosts, services) = (Arc::downgrade(&hosts), Arc::downgrade(&services));
            executor.on_end(move || {
                if let (Some(hosts), Some(services)) = (hosts.upgrade(), services.upgrade()) {
                    stop_all(&services, &hosts);
                }
            });
        }
        // Before the wheels, so that a turn which a timer begins finds the tick of its own moment.
        let sweeper = Sweeper::start(&services, &hosts);
        for executor in services.executors() {
            executor.timers().begin(&lanes);
        }
        Relay::start_all(&services, &hosts);
        let runtime = Runtime { services, hosts, sweeper };
        runtime.services.streams.open_logs(&durable_streams, &runtime.services)?;
        Service::start_all(&runtime.services, &runtime.hosts, &ring);
        Ok(runtime)
    }

    /// Whether the reminders of a type have their store, and schedules that can be read.
    fn check_reminders(&self, hosted: &HostedType) -> Result<(), StartError> {
        let ActorSpec { name: actor_type, reminders: store, .. } = hosted.spec;
        if !hosted.reminders.is_empty() && !self.stores.contains_key(store) {
            let known = self.stores.keys().cloned().collect();
            return Err(StartError::NoReminderStore { actor_type, store, known });
        }
        for ReminderSpec { name, method, schedule } in hosted.reminders {
            let Some(schedule) = schedule else { continue };
            // Some never come, and some come too often, which only shows when they are set.
            let now = self.clock.timestamp();
            let checked = schedule.read().and_then(|schedule| schedule.check(now));
            checked.map_err(|cause| StartError::Reminder { actor_type, name, method, cause })?;
        }
        Ok(())
    }

    pub(crate) fn prewarmer(&self, devices: &DevicePool) -> Result<Prewarmer, RuleError> {
        let budget = self.prewarm_budget.unwrap_or_else(|| default_budget(devices));
        let specs = self.types.iter().map(|hosted| hosted.spec);
        Prewarmer::new(self.clock.clone(), self.prewarm, budget, specs, !devices.usage().is_empty())
    }

    /// Everything but what runs by itself.
    pub(crate) fn assemble(
        self,
        devices: Arc<DevicePool>,
        prewarmer: Prewarmer,
        threads: Threads,
    ) -> Result<(Arc<Services>, Arc<Hosts>), StartError> {
        let Threads { nodes, device_executors, lanes, own } = threads;
        let ids: Vec<_> = device_executors.keys().cloned().collect();
        let services = Arc::new(Services {
            silo: SiloId(self.entropy.next_u64()),
            tick: AtomicU32::new(Services::tick_of(self.clock.now())),
            clock: self.clock,
            entropy: self.entropy,
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            stop_signal: watch::Sender::new(false),
            activations: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            pressure: Pressure::new(self.bounds),
            ended: Notify::new(),
            nodes,
            device_executors,
            devices,
            api: self.api,
            allow_simulated: self.allow_simulated,
            lanes: Lanes::new(lanes, ids.into_iter()),
            tenants: Tenants::default(),
            prewarmer,
            streams: Streams::default(),
            stores: Stores::new(self.stores),
            supervision: Supervision::default(),
            own_runtimes: Mutex::new(own),
        });
        let mut found = Vec::new();
        let hosts = Arc::new_cyclic(|hosts: &Weak<Hosts>| {
            let mut by_type = HashMap::new();
            for HostedType { id, spec, make, .. } in self.types {
                let guards = self.guards.get(&id).map_or(spec.guards, |(_, guards)| *guards);
                let interceptor = self.interceptors.get(&id).cloned();
                let (host, subscriptions) = make(services.clone(), hosts.clone(), guards, interceptor);
                by_type.insert(id, host);
                found.extend(subscriptions);
            }
            Hosts::new(Some(services.clone()), by_type)
        });
        services.streams.open(found)?;
        Ok((services, hosts))
    }
}

/// What a silo's turns and loads run on.
pub(crate) struct Threads {
    pub(crate) nodes: Box<[Arc<Executor>]>,
    pub(crate) device_executors: HashMap<DeviceId, Arc<Executor>>,
    pub(crate) lanes: Handle,
    pub(crate) own: OwnRuntimes,
}

/// One executor per NUMA node that has CPUs, on pinned threads. With one such node there is nothing to pin, and
/// the caller's runtime serves, so that its calls run inline.
fn node_executors(
    own: &mut OwnRuntimes,
    inventory: &Inventory,
    clock: &Arc<dyn Clock>,
) -> Result<Box<[Arc<Executor>]>, StartError> {
    let nodes: Vec<_> = inventory.numa.iter().filter(|node| !node.cpus.is_empty()).collect();
    if nodes.len() <= 1 {
        let handle = match Handle::try_current() {
            Ok(handle) => handle,
            Err(_) => own_runtime(own, "quark-turn", None, None)?,
        };
        return Ok(Box::new([Executor::start(handle, Timers::new(clock.clone()))]));
    }
    let start = |node: &NumaNode| {
        let threads = if inventory.simulated { 1 } else { node.cpus.len() };
        let name = format!("quark-node-{}", node.id);
        let handle = own_runtime(own, &name, Some(threads), cpus_of(inventory, node))?;
        Ok(Executor::start(handle, Timers::new(clock.clone())))
    };
    nodes.into_iter().map(start).collect()
}

/// The CPUs to pin a node's threads to; none where the node is not of this machine.
fn cpus_of(inventory: &Inventory, node: &NumaNode) -> Option<CpuSet> {
    (!inventory.simulated && !node.cpus.is_empty()).then(|| node.cpus.clone())
}

fn default_budget(devices: &DevicePool) -> PrewarmBudget {
    let capacity: ByteSize = devices.usage().iter().map(|usage| usage.capacity).sum();
    let max_bytes = ByteSize::bytes(capacity.as_u64() / 2);
    PrewarmBudget { max_bytes, max_actors: PREWARM_ACTORS, ttl: PREWARM_TTL }
}

fn own_runtime(
    own: &mut OwnRuntimes,
    name: &str,
    threads: Option<usize>,
    cpus: Option<CpuSet>,
) -> Result<Handle, StartError> {
    let mut builder = Builder::new_multi_thread();
    builder.thread_name(name).enable_all();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    if let Some(cpus) = cpus {
        builder.on_thread_start(move || pin_thread(&cpus));
    }
    let runtime = builder.build().map_err(StartError::Threads)?;
    let handle = runtime.handle().clone();
    own.add(runtime);
    Ok(handle)
}

/// Keeps the calling thread on `cpus`. Memory that it touches first is then local to their node.
fn pin_thread(cpus: &CpuSet) {
    let mut set = nix::sched::CpuSet::new();
    for cpu in cpus.iter() {
        if set.set(cpu as usize).is_err() {
            tracing::warn!(cpu, "a CPU number that the system's masks cannot hold");
        }
    }
    // A container may forbid it, or own other CPUs; the thread then runs where the system lets it.
    if let Err(error) = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set) {
        tracing::warn!(%error, "a device's thread could not be kept near its device");
    }
}

/// Nothing begins any more; what waits is refused, what runs is ended.
fn stop_all(services: &Services, hosts: &Hosts) {
    services.draining.store(true, Ordering::SeqCst);
    services.stopped.store(true, Ordering::SeqCst);
    services.stop_signal.send_replace(true);
    services.supervision.revise();
    for host in hosts.all() {
        host.stop_all();
    }
    services.streams.close();
}

/// The runtime of one silo. Dropping it stops the silo at once; [`shutdown`](Self::shutdown) is the gentle way.
pub struct Runtime {
    services: Arc<Services>,
    hosts: Arc<Hosts>,
    sweeper: Arc<Sweeper>,
}

impl Runtime {
    /// Begins the set-up of a runtime.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// A handle on its actors and streams.
    pub fn grid(&self) -> Grid {
        Grid::over(self.hosts.clone())
    }

    /// The silo's id.
    pub fn silo(&self) -> SiloId {
        self.services.silo
    }

    /// The silo's devices and the books on their memory.
    pub fn devices(&self) -> &Arc<DevicePool> {
        &self.services.devices
    }

    /// Whether the silo is at rest: nothing that is due is still to happen, no turn waits for a thread, and none of the
    /// silo's own threads works. The threads of the calling runtime are not looked at.
    pub fn is_settled(&self) -> bool {
        self.services.is_settled()
    }

    /// Looks at once for idle actors and expired prewarms, instead of waiting for the next tick. For tests that
    /// move the clock.
    pub fn sweep_now(&self) {
        self.sweeper.sweep();
    }

    /// Lets every turn end, deactivates every actor, and stops; new activations are refused with `Draining`
    /// from the first moment. What is still running after `patience` is ended: its callers get `Stopped`.
    ///
    /// Dropping the future stops the silo at once.
    pub async fn shutdown(self, patience: Duration) -> Shutdown {
        // Its timers hang on the silo's own threads, so that it can be awaited anywhere.
        let handle = self.services.lanes.handle.clone();
        let mut drain = pin!(self.drain(patience));
        poll_fn(|cx| {
            let _entered = handle.enter();
            drain.as_mut().poll(cx)
        })
        .await
    }

    async fn drain(self, patience: Duration) -> Shutdown {
        self.services.draining.store(true, Ordering::SeqCst);
        let drained = timeout(patience, self.quiet()).await.is_ok();
        if !drained {
            stop_all(&self.services, &self.hosts);
            // What does not even end when told to is stuck in a poll, and nothing can end that.
            let ended = timeout(ABORT_PATIENCE, self.quiet()).await.is_ok();
            tracing::warn!(ended, "turns were still running when the silo stopped");
        }
        self.end_threads().await;
        Shutdown { drained }
    }

    /// Waits for the silo's own threads: what they hold, an opened device above all, is gone when the shutdown
    /// is over, and nothing of it runs into the end of the process.
    async fn end_threads(&self) {
        self.sweeper.stop();
        for executor in self.services.executors() {
            executor.close();
        }
        let runtimes = std::mem::take(&mut *self.services.own_runtimes.lock());
        let (done, ended) = oneshot::channel();
        // Joining threads blocks, so it has one of its own.
        let joiner = std::thread::Builder::new().name("quark-stop".to_owned()).spawn(move || {
            runtimes.end(ABORT_PATIENCE);
            // Nobody waits any more if the shutdown was given up.
            let _ = done.send(());
        });
        if joiner.is_ok() {
            // An error says that the thread is gone, which is what is waited for.
            let _ = ended.await;
        }
    }

    async fn quiet(&self) {
        loop {
            let ended = self.services.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            for host in self.hosts.all() {
                host.close_all(DeactivationReason::Shutdown);
            }
            // Restarts whose time has not come are given up.
            self.services.supervision.revise();
            if self.services.activations.load(Ordering::Acquire) == 0 {
                return;
            }
            // An activation that was under way when the actors were closed is closed in the next round.
            if timeout(TICK, ended).await.is_err() {
                continue;
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.services.draining.store(true, Ordering::SeqCst);
        self.sweeper.stop();
        for host in self.hosts.all() {
            host.close_all(DeactivationReason::Shutdown);
        }
        stop_all(&self.services, &self.hosts);
        for host in self.hosts.all() {
            host.clear();
        }
        for executor in self.services.executors() {
            executor.close();
        }
    }
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Every turn ended and every actor was deactivated in time.
    pub drained: bool,
}
