//! The silo's coarse clock, and the regular look at what is idle, torn, or warmed in vain.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use quark_base::{Passage, Waiter};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::grid::Hosts;
use crate::services::{Services, TICK};

/// Looks around at every tick of the silo's clock.
pub(crate) struct Sweeper {
    services: Weak<Services>,
    hosts: Weak<Hosts>,
    /// What lets it look on a clock that runs by itself.
    task: OnceLock<JoinHandle<()>>,
}

impl Sweeper {
    /// Begins to look, until [`stop`](Self::stop).
    pub(crate) fn start(services: &Arc<Services>, hosts: &Arc<Hosts>) -> Arc<Self> {
        let sweeper = Arc::new(Self {
            services: Arc::downgrade(services),
            hosts: Arc::downgrade(hosts),
            task: OnceLock::new(),
        });
        let waiter: Weak<Self> = Arc::downgrade(&sweeper);
        if services.clock.attend(waiter) == Passage::Steady {
            let weak = Arc::downgrade(&sweeper);
            // On the silo's own threads, so that a busy or stopped caller's runtime does not hold back idle
            // deactivation.
            sweeper.task.get_or_init(|| services.lanes.handle.spawn(sweep_steadily(weak)));
        }
        sweeper
    }

    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// One look, unless this tick has had its own.
    pub(crate) fn sweep(&self) {
        let (Some(services), Some(hosts)) = (self.services.upgrade(), self.hosts.upgrade()) else { return };
        let tick = Services::tick_of(services.clock.now());
        if services.tick.swap(tick, Ordering::Relaxed) == tick {
            return;
        }
        for actor in services.prewarmer.expire() {
            hosts.end_prewarm(&actor);
        }
        for executor in services.executors() {
            executor.observe(tick);
        }
        let actors = services.staying();
        let mut look = services.pressure.begin(tick, services.clock.now(), actors);
        for host in hosts.all() {
            host.sweep(&mut look);
        }
        services.pressure.end(look);
        services.streams.sweep(services.clock.now());
    }
}

async fn sweep_steadily(sweeper: Weak<Sweeper>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(sweeper) = sweeper.upgrade() else { return };
        sweeper.sweep();
    }
}

impl Waiter for Sweeper {
    /// The next tick at which there may be anything to do.
    fn next_due(&self) -> Option<Duration> {
        let (services, hosts) = (self.services.upgrade()?, self.hosts.upgrade()?);
        let tick = Services::tick_of(services.clock.now());
        let at_every_tick = services.prewarmer.is_used() || hosts.all().any(|host| host.has_retries());
        let ticks = if at_every_tick {
            Some(1)
        } else {
            let types = hosts.all().filter_map(|host| host.sweep_matters_in(tick)).min();
            types.into_iter().chain(services.pressure.matters_in(services.staying())).min()
        };
        ticks.map(|ticks| TICK.saturating_mul(tick.saturating_add(ticks)))
    }

    fn time_moved(&self, _now: Duration) {
        self.sweep();
    }
}
