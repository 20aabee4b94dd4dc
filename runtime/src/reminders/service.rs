//! The shell around [`Held`]: reads what is due soon, delivers it at its time, and moves it on in the store.
//!
//! Looks at the store (`look` says at what), deliveries, and the steps of those that were taken go on side by side, so that neither a slow
//! store nor a slow actor holds up the ticks of others. There is one page of it and one batch of steps at a time.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use quark_base::{Clock, Entropy, Timestamp};

use super::Tick;
use super::held::{Firing, Held, Number};
use super::look::{Brought, HORIZON, LOOK_EVERY, Looks, PAGE, Page};
use super::ownership::RingOwnership;
use super::schedule::Plan;
use crate::backoff::Backoff;
use crate::durable::DeliveryError;
use crate::grid::Hosts;
use crate::services::Services;
use crate::store::{DuePage, RingRange, StoreError};
use crate::stores::Named;
use crate::timers::Timers;

/// Ticks under way at the same time. An actor that takes long holds one of them; further ticks wait.
const IN_FLIGHT_MAX: usize = 4_096;

/// Steps that the store is told at once.
const STEPS_MAX: usize = 1_024;

/// The waits before a tick is tried again.
const TICK_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(60));

/// Tries are put off to whole multiples of this, so that a service with many that fail wakes seldom.
const RETRY_GRAIN: Duration = Duration::from_millis(50);

/// The waits before a store that did not answer is asked again. A failover of a database takes some seconds.
const STORE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(8));

/// Delivers the reminders of one store.
pub(crate) struct Service {
    named: Named,
    ownership: Arc<dyn RingOwnership>,
    services: Weak<Services>,
    hosts: Weak<Hosts>,
    timers: Arc<Timers>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    held: Held,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    looks: Looks,
    look: Work<Looked>,
    steps: Work<Stepped>,
    /// Ticks that were taken, and of which the store is not told yet.
    taken: Vec<Number>,
}

/// A page of the store, and what it has.
type Looked = (Page, Result<DuePage, StoreError>);

/// A batch of steps, and which of them the store has applied.
type Stepped = (Vec<Number>, Result<Vec<bool>, StoreError>);

/// How a delivery ended.
struct Ended {
    number: Number,
    result: Result<(), DeliveryError>,
}

/// One kind of work at the store: at most one is under way.
struct Work<T> {
    under_way: Option<BoxFuture<'static, T>>,
    /// Not before this moment of the silo's clock.
    next: Duration,
    /// Failures in a row.
    failures: u32,
}

/// What a service was woken by.
enum Event {
    /// A moment came, or a reminder was set.
    Woken,
    Ended(Ended),
    Looked(Looked),
    Stepped(Stepped),
}

impl Service {
    /// Begins to deliver, for each store that reminders of a hosted type are kept in, until the silo stops.
    pub(crate) fn start_all(
        services: &Arc<Services>,
        hosts: &Arc<Hosts>,
        ownership: &Arc<dyn RingOwnership>,
    ) {
        let kept = hosts.all().map(|host| host.reminders()).filter(|(specs, _)| !specs.is_empty());
        let names: Vec<&str> = kept.map(|(_, store)| store).collect();
        for named in services.stores.distinct_of(&names) {
            let timers = services.nodes[0].timers().clone();
            let now = timers.now();
            let service = Self {
                named,
                ownership: ownership.clone(),
                services: Arc::downgrade(services),
                hosts: Arc::downgrade(hosts),
                timers,
                clock: services.clock.clone(),
                entropy: services.entropy.clone(),
                held: Held::default(),
                under_way: FuturesUnordered::new(),
                looks: Looks::new(now, services.clock.timestamp()),
                look: Work::from(now),
                steps: Work::from(now),
                taken: Vec::new(),
            };
            let mut stopped = services.stop_signal.subscribe();
            services.lanes.handle.spawn(async move {
                tokio::select! {
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                    () = service.run() => {}
                }
            });
        }
    }

    async fn run(mut self) {
        while let Some(wake) = self.begin_what_can_begin() {
            let bell = self.named.reminders.clone();
            let event = tokio::select! {
                Some(ended) = self.under_way.next(), if !self.under_way.is_empty() => Event::Ended(ended),
                stepped = self.steps.done() => Event::Stepped(stepped),
                looked = self.look.done() => Event::Looked(looked),
                () = bell.rung() => Event::Woken,
                () = self.timers.sleep_until(wake) => Event::Woken,
            };
            match event {
                Event::Woken => {}
                Event::Looked(looked) => self.looked(looked),
                Event::Stepped(stepped) => self.stepped(stepped),
                Event::Ended(ended) => {
                    self.ended(ended);
                    // Those that have ended meanwhile go to the store together.
                    while let Some(Some(ended)) = self.under_way.next().now_or_never() {
                        self.ended(ended);
                    }
                }
            }
        }
    }

    /// Begins all that is due, and says when to look again at the latest. None once the silo is gone.
    fn begin_what_can_begin(&mut self) -> Option<Duration> {
        self.hear();
        self.begin_steps();
        let (services, hosts) = (self.services.upgrade()?, self.hosts.upgrade()?);
        let now = self.timers.now();
        if services.is_draining() {
            return Some(now.saturating_add(LOOK_EVERY));
        }
        self.fire(&hosts);
        self.begin_look();
        let mut wake = now.saturating_add(LOOK_EVERY);
        let mut wake_by = |at: Duration| wake = wake.min(at);
        if self.look.under_way.is_none() {
            wake_by(self.look.next.max(self.looks.next(&self.held)));
        }
        if self.steps.under_way.is_none() && !self.taken.is_empty() {
            wake_by(self.steps.next);
        }
        if self.under_way.len() < IN_FLIGHT_MAX {
            if let Some(at) = self.held.next_retry() {
                wake_by(at);
            }
            if let Some(due) = self.held.next_due() {
                wake_by(now.saturating_add(due.since(self.clock.timestamp())));
            }
        }
        Some(wake)
    }

    /// Takes in what this silo has set and removed.
    fn hear(&mut self) {
        let changes = self.named.reminders.take();
        if changes.each.is_empty() {
            return;
        }
        let (today, now) = (self.clock.timestamp(), self.timers.now());
        let soon = today.saturating_add(HORIZON);
        let owned = self.ownership.owned();
        for change in changes.each {
            let is_ours = |ring| owned.iter().any(|range: &RingRange| range.contains(ring));
            let record = change.record.filter(|record| record.due <= soon && is_ours(record.ring));
            self.held.changed(change.id, record, today, now);
        }
        if changes.too_many {
            self.held.forget_waiting();
            self.looks.again(now);
        }
    }

    /// Begins the deliveries whose time has come.
    fn fire(&mut self, hosts: &Arc<Hosts>) {
        let (today, now) = (self.clock.timestamp(), self.timers.now());
        while self.under_way.len() < IN_FLIGHT_MAX
            && let Some(firing) = self.held.next(today, now)
        {
            let number = firing.number;
            match self.delivery(hosts, firing, today) {
                Ok(delivery) => self.under_way.push(delivery),
                Err(error) => self.failed(number, &error),
            }
        }
    }

    fn delivery(
        &mut self,
        hosts: &Arc<Hosts>,
        firing: Firing,
        today: Timestamp,
    ) -> Result<BoxFuture<'static, Ended>, DeliveryError> {
        let Firing { number, record, is_first } = firing;
        let failed = |error: &dyn std::fmt::Display| DeliveryError::Failed(error.to_string().into());
        let step = Plan::parse(&record.schedule).map_err(|error| failed(&error))?.step(record.due, today);
        let tick = Tick::of(&record, step.missed).ok_or_else(|| failed(&"its name is too long"))?;
        let not_hosted = || DeliveryError::NotHosted { actor_type: (&*record.actor.actor_type).into() };
        let host = hosts.named(&record.actor.actor_type).ok_or_else(not_hosted)?;
        self.held.set_next(number, step.next);
        let delivery = host.tick(&record.actor.key, tick, !is_first);
        Ok(Box::pin(async move { Ended { number, result: delivery.await } }))
    }

    fn ended(&mut self, Ended { number, result }: Ended) {
        match result {
            Ok(()) => {
                self.held.taken(number);
                self.taken.push(number);
            }
            Err(error) => self.failed(number, &error),
        }
    }

    fn failed(&mut self, number: Number, error: &DeliveryError) {
        let (today, now) = (self.clock.timestamp(), self.timers.now());
        let (record, chance) = (self.held.record(number), self.entropy.next_u64());
        self.held.failed(number, today, now, |tries| {
            let wait = TICK_BACKOFF.delay(tries, chance);
            if let Some(record) = record {
                let (actor, name) = (&record.actor, &record.name);
                tracing::warn!(%actor, name, tries = tries + 1, %error, retry_in = ?wait, "a reminder's tick was not taken");
            }
            let at = now.saturating_add(wait);
            // Less than a grain.
            let into = Duration::from_nanos((at.as_nanos() % RETRY_GRAIN.as_nanos()) as u64);
            at.saturating_add(RETRY_GRAIN - into)
        });
    }

    /// Begins to read the next page of the store, if it is time for one.
    fn begin_look(&mut self) {
        let (today, now) = (self.clock.timestamp(), self.timers.now());
        if self.look.under_way.is_some() || now < self.look.next {
            return;
        }
        let owned = || self.ownership.owned();
        let Some(page) = self.looks.next_page(&mut self.held, owned, today, now) else { return };
        let store = self.named.store.reminders.clone();
        self.look.under_way = Some(Box::pin(async move {
            let result = store.due(page.range, &page.after, page.until, PAGE).await;
            (page, result)
        }));
    }

    fn looked(&mut self, (page, result): Looked) {
        let (today, now) = (self.clock.timestamp(), self.timers.now());
        match result {
            Ok(DuePage { reminders, next }) => {
                self.look.failures = 0;
                let read = reminders.len();
                let taken = self.held.end_page(reminders, today, now);
                self.looks.read(&mut self.held, page.which, Brought { read, taken, next }, now);
            }
            Err(error) => {
                self.held.give_up_page();
                self.looks.failed(page.which);
                let wait = self.look.put_off(now, self.entropy.next_u64());
                tracing::warn!(store = %self.named.store.name, %error, retry_in = ?wait, "reminders could not be read");
            }
        }
    }

    /// Tells the store of ticks that were taken.
    fn begin_steps(&mut self) {
        if self.steps.under_way.is_some() || self.taken.is_empty() || self.timers.now() < self.steps.next {
            return;
        }
        let rest = self.taken.split_off(self.taken.len().min(STEPS_MAX));
        let numbers = std::mem::replace(&mut self.taken, rest);
        let steps: Vec<_> = numbers.iter().filter_map(|number| self.held.advance_of(*number)).collect();
        let store = self.named.store.reminders.clone();
        self.steps.under_way = Some(Box::pin(async move {
            let result = store.advance(&steps).await;
            (numbers, result)
        }));
    }

    fn stepped(&mut self, (numbers, result): Stepped) {
        let (today, now) = (self.clock.timestamp(), self.timers.now());
        match result {
            Ok(applied) => {
                self.steps.failures = 0;
                let soon = today.saturating_add(HORIZON);
                // One that was not applied was set anew, or removed, or moved by a try whose answer got lost.
                if applied.contains(&false) {
                    self.looks.again(now);
                }
                for (number, applied) in numbers.into_iter().zip(applied) {
                    self.held.advanced(number, applied, today, now, soon);
                }
            }
            Err(error) => {
                self.taken.extend(numbers);
                let wait = self.steps.put_off(now, self.entropy.next_u64());
                tracing::warn!(store = %self.named.store.name, %error, retry_in = ?wait, "ticks that were taken could not be noted");
            }
        }
    }
}

impl<T> Work<T> {
    fn from(next: Duration) -> Self {
        Self { under_way: None, next, failures: 0 }
    }

    /// Ready when what is under way has ended, and never if nothing is.
    async fn done(&mut self) -> T {
        match &mut self.under_way {
            Some(work) => {
                let result = work.await;
                self.under_way = None;
                result
            }
            None => std::future::pending().await,
        }
    }

    /// It failed. Gives the wait before the next try.
    fn put_off(&mut self, now: Duration, chance: u64) -> Duration {
        let wait = STORE_BACKOFF.delay(self.failures, chance);
        self.failures = self.failures.saturating_add(1);
        self.next = now.saturating_add(wait);
        wait
    }
}
