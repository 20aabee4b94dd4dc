//! The composition root: one silo, put together from the machine's devices and the actor runtime.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quark_base::{ByteSize, Clock, Entropy, Key, SiloId};
use quark_devices::inventory::{Inventory, Note};
use quark_devices::pool::{DevicePool, PoolOptions};
use quark_devices::probe::{ProbeError, ProbeOptions, probe};
use quark_devices::sample::ProcessMemory;
use quark_placement::Api;
use quark_predictive::PrewarmBudget;
use quark_runtime::actor::{Actor, Create, HookError};
use quark_runtime::guards::Guards;
use quark_runtime::intercept::Interceptor;
use quark_runtime::pressure::MemoryGauge;
use quark_runtime::reminders::RingOwnership;
use quark_runtime::state::Stored;
use quark_runtime::store::Store;
use quark_runtime::streams::{DurableStream, Topic};
use quark_runtime::{Grid, Runtime, RuntimeBuilder, Shutdown};

/// Sets up a silo.
#[derive(Default)]
#[must_use = "a builder starts nothing until `start`"]
pub struct SiloBuilder {
    runtime: RuntimeBuilder,
    hardware: Hardware,
    options: PoolOptions,
    max_memory: Option<ByteSize>,
}

/// Where the silo's view of its machine comes from.
#[derive(Default)]
enum Hardware {
    /// Looked up when the silo starts.
    #[default]
    Probe,
    /// A topology file: for planning and for tests without the hardware.
    Topology(PathBuf),
    /// Given.
    Known(Arc<Inventory>),
}

impl SiloBuilder {
    /// Hosts actors of type `A`.
    pub fn host<A: Create>(mut self) -> Self {
        self.runtime = self.runtime.host::<A>();
        self
    }

    /// Hosts actors of type `A`, which `factory` makes: the place to hand in what actors need from the program.
    pub fn host_with<A: Actor>(
        mut self,
        factory: impl Fn(&Key) -> Result<A, HookError> + Send + Sync + 'static,
    ) -> Self {
        self.runtime = self.runtime.host_with(factory);
        self
    }

    /// Keeps no more actors active than this, besides those that are busy: above it, the idle ones that nobody called
    /// for longest are deactivated at the next tick of the silo's clock.
    pub fn max_activations(mut self, most: usize) -> Self {
        self.runtime = self.runtime.max_activations(most);
        self
    }

    /// The same for the process's resident memory: while it is above `most`, idle actors leave, a share of them each
    /// second, least recently used first.
    pub fn max_memory(mut self, most: ByteSize) -> Self {
        self.max_memory = Some(most);
        self
    }

    /// The same for memory that `gauge` reads.
    pub fn max_memory_by(mut self, most: ByteSize, gauge: Arc<dyn MemoryGauge>) -> Self {
        self.runtime = self.runtime.max_memory(most, gauge);
        self
    }

    /// Keeps what actors keep in the store of this name in `store`. A part that names none is in `"default"`.
    pub fn store(mut self, name: impl Into<String>, store: Store) -> Self {
        self.runtime = self.runtime.store(name, store);
        self
    }

    /// Keeps the items of a topic in a store, until the actor types that read it have handled them.
    pub fn durable_stream<T: Stored>(mut self, topic: &Topic<T>, settings: DurableStream) -> Self {
        self.runtime = self.runtime.durable_stream(topic, settings);
        self
    }

    /// Delivers the reminders of these parts of the hash ring instead of all: where several silos share a store.
    pub fn ring_ownership(mut self, ring: Arc<dyn RingOwnership>) -> Self {
        self.runtime = self.runtime.ring_ownership(ring);
        self
    }

    /// Guards actors of type `A` with these instead of what the type declares.
    pub fn guards<A: Actor>(mut self, guards: Guards) -> Self {
        self.runtime = self.runtime.guards::<A>(guards);
        self
    }

    /// Puts somebody between callers and the actors of type `A`: for tests. `quark-testkit` has doubles and faults.
    pub fn intercept<A: Actor>(mut self, interceptor: Arc<dyn Interceptor>) -> Self {
        self.runtime = self.runtime.intercept::<A>(interceptor);
        self
    }

    /// Uses this inventory instead of looking at the machine.
    pub fn inventory(mut self, inventory: Arc<Inventory>) -> Self {
        self.hardware = Hardware::Known(inventory);
        self
    }

    /// Pretends to be the machine of a topology file. Its devices have leases and books, and no contexts.
    pub fn topology(mut self, file: impl Into<PathBuf>) -> Self {
        self.hardware = Hardware::Topology(file.into());
        self.runtime = self.runtime.allow_simulated_devices(true);
        self
    }

    /// How devices are leased: capacities, reserves, and whether CPUs that play GPU count.
    pub fn devices(mut self, options: PoolOptions) -> Self {
        self.options = options;
        self
    }

    /// The library through which actors use their devices.
    pub fn device_api(mut self, api: Api) -> Self {
        self.runtime = self.runtime.device_api(api);
        self
    }

    /// Whether `prewarm(…)` rules are acted on. They are unless told otherwise.
    pub fn prewarm(mut self, enabled: bool) -> Self {
        self.runtime = self.runtime.prewarm(enabled);
        self
    }

    /// How much prewarmed actors may hold that nobody has called yet.
    pub fn prewarm_budget(mut self, budget: PrewarmBudget) -> Self {
        self.runtime = self.runtime.prewarm_budget(budget);
        self
    }

    /// The clock for everything that waits for a moment, and for the devices' books.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.options = self.options.clock(clock.clone());
        self.runtime = self.runtime.clock(clock);
        self
    }

    /// Where ids come from.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.runtime = self.runtime.entropy(entropy);
        self
    }

    /// Starts the silo. Blocks while it looks at the hardware: some milliseconds, or about a second where GPU
    /// drivers have to be woken.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(mut self) -> Result<Silo, StartError> {
        if let Some(most) = self.max_memory {
            let gauge = ProcessMemory::open().map_err(StartError::Memory)?;
            self.runtime = self.runtime.max_memory(most, Arc::new(gauge));
        }
        let inventory = match self.hardware {
            Hardware::Known(inventory) => inventory,
            // Waking GPU drivers takes a second and more; nobody waits for it who hosts nothing that needs one.
            Hardware::Probe => {
                Arc::new(probe(&ProbeOptions::default().libraries(self.runtime.needs_devices()))?)
            }
            Hardware::Topology(file) => Arc::new(probe(&ProbeOptions::default().topology(file))?),
        };
        let pool = DevicePool::open(inventory, self.options);
        let runtime = self.runtime.devices(pool).start()?;
        Ok(Silo { runtime })
    }
}

/// Why a silo did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The machine's description could not be read.
    #[error(transparent)]
    Inventory(#[from] ProbeError),
    /// A bound on memory was asked for, and the system does not tell how much the process holds.
    #[error("{0}")]
    Memory(Note),
    /// The actor runtime did not start.
    #[error(transparent)]
    Runtime(#[from] quark_runtime::StartError),
}

/// One process's part of the grid. Dropping it stops it at once; [`shutdown`](Self::shutdown) is the gentle way.
pub struct Silo {
    runtime: Runtime,
}

impl Silo {
    /// Begins the set-up of a silo.
    pub fn builder() -> SiloBuilder {
        SiloBuilder::default()
    }

    /// A handle on the grid.
    pub fn grid(&self) -> Grid {
        self.runtime.grid()
    }

    /// This incarnation's id.
    pub fn id(&self) -> SiloId {
        self.runtime.silo()
    }

    /// The machine as the silo sees it.
    pub fn inventory(&self) -> &Arc<Inventory> {
        self.runtime.devices().inventory()
    }

    /// The devices and the books on their memory.
    pub fn devices(&self) -> &Arc<DevicePool> {
        self.runtime.devices()
    }

    /// Whether the silo is at rest: nothing that is due is still to happen, no turn waits for a thread, and none of the
    /// silo's own threads works. For tests that move the clock.
    pub fn is_settled(&self) -> bool {
        self.runtime.is_settled()
    }

    /// Looks at once for idle actors and expired prewarms. For tests that move the clock.
    pub fn sweep_now(&self) {
        self.runtime.sweep_now();
    }

    /// Lets every turn end, deactivates every actor, and stops. New activations are refused with `Draining` from
    /// the first moment. What still runs after `patience` is ended, and its callers get `Stopped`.
    ///
    /// Dropping the future stops the silo at once.
    pub async fn shutdown(self, patience: Duration) -> Shutdown {
        self.runtime.shutdown(patience).await
    }
}
