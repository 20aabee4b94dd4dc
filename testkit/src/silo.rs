//! A silo in the test's own process and on the test's own time.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quark::actor::{Create, HookError};
use quark::base::{Clock, Seeded, Timestamp, VirtualClock};
use quark::devices::inventory::Inventory;
use quark::{Actor, Key, Shutdown, Silo, SiloBuilder, StartError};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{try_id, yield_now};

use crate::double::Double;
use crate::faults::Faults;

/// Looks in a row that must find the silo at rest. Each lets every task of the test's runtime that is ready run once
/// or more, so that a test's own tasks get to use what the silo gave them.
const CALM_LOOKS: u32 = 32;

/// Looks after which tasks of the test that never rest are no longer waited for: one that polls a condition in a loop
/// would otherwise hold time for ever.
const BUSY_LOOKS: u32 = 10_000;

/// Real time after which a silo that does not come to rest hangs. Only a guard: a test that passes never sees it.
const HANG: Duration = Duration::from_secs(20);

/// How long a silo gets to end its turns when a test shuts it down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// The seed of a test's silo, unless it names one.
const SEED: u64 = 1;

/// Sets up a [`TestSilo`].
#[must_use = "a builder starts nothing until `start`"]
pub struct TestSiloBuilder {
    silo: SiloBuilder,
    clock: Arc<VirtualClock>,
    seed: u64,
}

impl TestSiloBuilder {
    /// Hosts actors of type `A`.
    pub fn host<A: Create>(self) -> Self {
        self.configure(SiloBuilder::host::<A>)
    }

    /// Hosts actors of type `A`, which `factory` makes.
    pub fn host_with<A: Actor>(
        self,
        factory: impl Fn(&Key) -> Result<A, HookError> + Send + Sync + 'static,
    ) -> Self {
        self.configure(|silo| silo.host_with(factory))
    }

    /// Hosts a double in place of the actors of type `A`.
    pub fn double<A: Actor>(self, double: &Double<A>) -> Self {
        let script = double.script();
        let nobody = |_: &Key| Err("a double stands in for the type, so none of its actors is made".into());
        self.configure(|silo| silo.host_with::<A>(nobody).intercept::<A>(script))
    }

    /// Lets these faults befall the actors of type `A`, which is hosted besides.
    pub fn faults<A: Actor>(self, faults: &Faults<A>) -> Self {
        let plan = faults.plan();
        self.configure(|silo| silo.intercept::<A>(plan))
    }

    /// The seed of everything random in the silo.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The clock that the silo will have: for actors that are made with it.
    pub fn clock(&self) -> &Arc<VirtualClock> {
        &self.clock
    }

    /// The time of day at which the silo starts, instead of [`Timestamp::VIRTUAL_ORIGIN`]: of a second silo over the same
    /// store, for example.
    pub fn starting_at(self, time: Timestamp) -> Self {
        self.clock.set_timestamp(time);
        self
    }

    /// Anything else that a silo can be told. The clock is the test's whatever is said here.
    pub fn configure(mut self, configure: impl FnOnce(SiloBuilder) -> SiloBuilder) -> Self {
        self.silo = configure(self.silo);
        self
    }

    /// Starts the silo on the test's own tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(self) -> Result<TestSilo, StartError> {
        let Self { silo, clock, seed } = self;
        let silo = silo.clock(clock.clone()).entropy(Arc::new(Seeded::new(seed))).start()?;
        Ok(TestSilo { silo, clock })
    }
}

/// A silo on a [`VirtualClock`]. It is a [`Silo`] in all else; dropping it stops it.
///
/// Its time stands still but for [`advance`](Self::advance). What waits on the silo's clock waits on the test: calls'
/// timeouts, actors' timers, `cx.sleep`, limits of hooks, idle deactivation, backoff. What waits on something else, such
/// as `tokio::time::sleep` in a method, does not.
pub struct TestSilo {
    silo: Silo,
    clock: Arc<VirtualClock>,
}

impl TestSilo {
    /// Begins the set-up of a silo on a machine without devices.
    pub fn builder() -> TestSiloBuilder {
        let silo = Silo::builder().inventory(Arc::new(Inventory::default()));
        TestSiloBuilder { silo, clock: VirtualClock::new(), seed: SEED }
    }

    /// The silo's clock.
    pub fn clock(&self) -> &Arc<VirtualClock> {
        &self.clock
    }

    /// What the silo's clock says.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Moves time on by `by`. Everything that falls due on the way happens at its own time and in order, and what it
    /// sets off is waited for ([`settle`](Self::settle)) before time goes on.
    ///
    /// Dropping the future leaves time where it has come to.
    ///
    /// # Panics
    /// As [`settle`](Self::settle).
    pub async fn advance(&self, by: Duration) {
        let target = self.now().saturating_add(by);
        self.settle().await;
        while let Some(due) = self.clock.next_due().filter(|&due| due < target) {
            self.clock.move_to(due);
            self.settle().await;
        }
        self.clock.move_to(target);
        self.settle().await;
    }

    /// Waits until the silo is at rest: every turn, activation and deactivation has ended or waits for something, and so
    /// have the tasks on the test's runtime. It does not know of threads that are neither the silo's nor the test
    /// runtime's workers, such as those of `spawn_blocking`.
    ///
    /// # Panics
    /// When a turn keeps its thread for so long that it hangs.
    pub async fn settle(&self) {
        let begun = Instant::now();
        let (mut calm, mut looks) = (0, 0);
        while calm < CALM_LOOKS {
            yield_now().await;
            looks += 1;
            let at_rest = self.silo.is_settled() && (test_rests() || looks > BUSY_LOOKS);
            calm = if at_rest { calm + 1 } else { 0 };
            let census = || self.silo.grid().census();
            assert!(begun.elapsed() < HANG, "the silo does not come to rest: {:?}", census());
        }
    }

    /// Ends the silo as gently as [`Silo::shutdown`] does.
    pub async fn shutdown(self) -> Shutdown {
        self.silo.shutdown(SHUTDOWN_PATIENCE).await
    }
}

impl Deref for TestSilo {
    type Target = Silo;

    fn deref(&self) -> &Silo {
        &self.silo
    }
}

/// Whether no thread of the test's runtime works but the one that asks.
fn test_rests() -> bool {
    let Ok(runtime) = Handle::try_current() else { return true };
    if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
        return true;
    }
    let metrics = runtime.metrics();
    let workers = metrics.num_workers();
    // An odd count is that of a worker that sleeps.
    let at_work = (0..workers).filter(|&worker| metrics.worker_park_unpark_count(worker) % 2 == 0).count();
    // A task runs on a worker; `block_on` does not.
    at_work <= usize::from(try_id().is_some()) && metrics.global_queue_depth() == 0
}
