//! What reads a group's items and hands them over: one task for each group on each silo.
//!
//! Items of one key are a line: one item, or one batch, of a line is handed over at a time. So lines run beside each
//! other, and an item that fails holds back its own key only.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quark_base::{Key, Passage, StreamId, Waiter};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{Log, TurnFailed};
use crate::dead_letters::DeadCause;
use crate::services::Services;
use crate::store::{Delivered, Group, MessageId, Position, ReadStart, StoreError};
use crate::streams::Subscriber;
use crate::streams::report::GroupReport;
use crate::timers::Timers;

/// The wait after the store failed, and before an item is handed over again that nobody could take.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the lag is asked for.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Orders that may wait for one pump.
const COMMANDS_MAX: usize = 16;

/// What a pump is told from outside.
pub(crate) enum Command {
    /// Go to another place, once what is under way has ended.
    Seek(ReadStart, oneshot::Sender<Result<(), StoreError>>),
}

/// What is known of a group on this silo.
pub(crate) struct GroupState {
    pub(crate) group: Group,
    pub(crate) commands: mpsc::Sender<Command>,
    /// This silo has appended something.
    told: Notify,
    /// The group goes elsewhere: what fails is not tried again.
    leaves: AtomicBool,
    in_flight: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    redelivered: AtomicU64,
    dead: AtomicU64,
    lag: AtomicU64,
}

impl GroupState {
    pub(super) fn new(group: Group) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, orders) = mpsc::channel(COMMANDS_MAX);
        let zero = || AtomicU64::new(0);
        let state = Self {
            group,
            commands,
            told: Notify::new(),
            leaves: AtomicBool::new(false),
            in_flight: zero(),
            acknowledged: zero(),
            failed: zero(),
            redelivered: zero(),
            dead: zero(),
            lag: zero(),
        };
        (Arc::new(state), orders)
    }

    /// Says that something was appended; also to a pump that does not listen right now.
    pub(super) fn tell(&self) {
        self.told.notify_one();
    }

    pub(crate) fn report(&self) -> GroupReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Before what is in flight; see `acknowledge`.
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        GroupReport {
            namespace: self.group.namespace.clone(),
            name: self.group.name.clone(),
            in_flight: read(&self.in_flight),
            acknowledged,
            failed_attempts: read(&self.failed),
            redelivered: read(&self.redelivered),
            dead: read(&self.dead),
            lag: read(&self.lag),
        }
    }
}

pub(super) struct Pump<T> {
    log: Arc<Log<T>>,
    state: Arc<GroupState>,
    commands: mpsc::Receiver<Command>,
    reader: Arc<dyn Subscriber<T>>,
    batch_max: usize,
    services: Weak<Services>,
    timers: Arc<Timers>,
    /// How long a read waits in the store. On a clock that jumps it does not, since the store knows nothing of that clock.
    wait: Duration,
    /// What waits behind an item of its key that is under way. As many as are in flight.
    lines: HashMap<Key, VecDeque<Delivered>>,
    in_flight: HashSet<Position>,
    running: FuturesUnordered<BoxFuture<'static, Handled>>,
    /// Done with, and not yet acknowledged.
    done: Vec<Position>,
}

/// One item or batch that has come to an end.
struct Handled {
    key: Key,
    positions: Vec<Position>,
    /// Whether they are done with. If not, they will be given again.
    done: bool,
}

impl<T: Send + Sync + 'static> Pump<T> {
    pub(super) fn new(
        log: Arc<Log<T>>,
        state: Arc<GroupState>,
        commands: mpsc::Receiver<Command>,
        reader: Arc<dyn Subscriber<T>>,
        batch_max: usize,
        services: &Arc<Services>,
    ) -> Self {
        let nobody: Weak<NoWaiter> = Weak::new();
        let wait = match services.clock.attend(nobody) {
            Passage::Steady => log.options.poll,
            Passage::Jumps => Duration::ZERO,
        };
        Self {
            log,
            state,
            commands,
            reader,
            batch_max,
            services: Arc::downgrade(services),
            timers: services.nodes[0].timers().clone(),
            wait,
            lines: HashMap::new(),
            in_flight: HashSet::new(),
            running: FuturesUnordered::new(),
            done: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        self.open().await;
        let mut lag_at = Duration::ZERO;
        let mut reading: Option<BoxFuture<'static, Result<Vec<Delivered>, StoreError>>> = None;
        let mut not_before = Duration::ZERO;
        let state = self.state.clone();
        loop {
            self.acknowledge().await;
            let Some(services) = self.services.upgrade() else { return };
            let draining = services.is_draining();
            drop(services);
            let now = self.timers.now();
            if now >= lag_at {
                self.look_at_lag().await;
                lag_at = now.saturating_add(LAG_EVERY);
            }
            let room = self.log.options.in_flight.saturating_sub(self.in_flight.len());
            if reading.is_none() && room > 0 && !draining && now >= not_before {
                reading = Some(self.read(room));
            }
            let idle_until = if draining { now.saturating_add(PAUSE) } else { not_before };
            tokio::select! {
                biased;
                Some(handled) = self.running.next() => self.end(handled),
                Some(command) = self.commands.recv() => {
                    // What the read brings belongs to the old place.
                    let given = match reading.take() {
                        Some(reading) => reading.await.unwrap_or_default(),
                        None => Vec::new(),
                    };
                    drop(given);
                    self.obey(command).await;
                    not_before = Duration::ZERO;
                }
                read = async { match &mut reading { Some(reading) => reading.await, None => std::future::pending().await } } => {
                    reading = None;
                    not_before = match read {
                        Ok(items) if items.is_empty() => now.saturating_add(self.log.options.poll),
                        Ok(items) => {
                            self.take_in(items);
                            Duration::ZERO
                        }
                        Err(error) => {
                            tracing::warn!(group = %self.state.group.name, %error, "a durable stream could not be read");
                            self.timers.now().saturating_add(PAUSE)
                        }
                    };
                }
                () = state.told.notified(), if reading.is_none() && room > 0 => not_before = Duration::ZERO,
                () = self.timers.sleep_until(idle_until), if reading.is_none() && room > 0 => {}
            }
        }
    }

    async fn open(&mut self) {
        while let Err(error) = self.log.store.open_group(&self.state.group, self.log.options.start).await {
            tracing::warn!(group = %self.state.group.name, %error, "a group of readers could not be opened");
            self.timers.sleep_until(self.timers.now().saturating_add(PAUSE)).await;
        }
    }

    fn read(&self, room: usize) -> BoxFuture<'static, Result<Vec<Delivered>, StoreError>> {
        let (log, state, wait) = (self.log.clone(), self.state.clone(), self.wait);
        Box::pin(async move { log.store.read(&state.group, room, log.options.visibility, wait).await })
    }

    fn take_in(&mut self, items: Vec<Delivered>) {
        for item in items {
            if item.attempts > 1 {
                self.state.redelivered.fetch_add(1, Ordering::Relaxed);
            }
            // Given again while it is still under way here.
            if !self.in_flight.insert(item.position) {
                continue;
            }
            let key = item.key.clone();
            match self.lines.get_mut(&key) {
                Some(line) => line.push_back(item),
                None => {
                    self.lines.insert(key.clone(), VecDeque::from([item]));
                    self.begin(key);
                }
            }
        }
        self.note_in_flight();
    }

    /// Hands over the next of a line.
    fn begin(&mut self, key: Key) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        if line.is_empty() {
            self.lines.remove(&key);
            return;
        }
        let items: Vec<_> = line.drain(..line.len().min(self.batch_max)).collect();
        let handing = Handing {
            log: self.log.clone(),
            state: self.state.clone(),
            reader: self.reader.clone(),
            services: self.services.clone(),
            timers: self.timers.clone(),
            key,
            is_batch: self.batch_max > 1,
        };
        self.running.push(Box::pin(handing.run(items)));
    }

    fn end(&mut self, handled: Handled) {
        let Handled { key, positions, done } = handled;
        if done {
            self.done.extend(positions);
            return self.begin(key);
        }
        // They are given again, and what waits behind them too.
        let behind = self.lines.remove(&key).unwrap_or_default();
        for position in positions.into_iter().chain(behind.iter().map(|item| item.position)) {
            self.in_flight.remove(&position);
        }
        self.note_in_flight();
    }

    /// Acknowledges what is done with. What cannot be is tried again, and until then is not given up.
    async fn acknowledge(&mut self) {
        // What ended meanwhile goes along.
        while let Some(Some(handled)) = futures_util::FutureExt::now_or_never(self.running.next()) {
            self.end(handled);
        }
        if self.done.is_empty() {
            return;
        }
        match self.log.store.acknowledge(&self.state.group, &self.done).await {
            Ok(()) => {
                let count = self.done.len() as u64;
                for position in self.done.drain(..) {
                    self.in_flight.remove(&position);
                }
                self.note_in_flight();
                // Behind it: what a report counts as acknowledged, it does not count as in flight.
                self.state.acknowledged.fetch_add(count, Ordering::Release);
            }
            Err(error) => {
                tracing::warn!(group = %self.state.group.name, %error, "items could not be acknowledged");
                self.timers.sleep_until(self.timers.now().saturating_add(PAUSE)).await;
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        let Command::Seek(to, answer) = command;
        // What waits in lines belongs to the old place; what runs is waited for.
        self.state.leaves.store(true, Ordering::Release);
        self.lines.values_mut().for_each(VecDeque::clear);
        while let Some(handled) = self.running.next().await {
            self.end(handled);
        }
        self.state.leaves.store(false, Ordering::Release);
        self.acknowledge().await;
        self.lines.clear();
        self.in_flight.clear();
        let sought = self.log.store.seek(&self.state.group, to).await;
        self.look_at_lag().await;
        // Nobody waits any more if the seek was given up.
        let _ = answer.send(sought);
    }

    async fn look_at_lag(&mut self) {
        match self.log.store.lag(&self.state.group).await {
            Ok(lag) => self.state.lag.store(lag, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(group = %self.state.group.name, %error, "a group's lag could not be read");
            }
        }
    }

    fn note_in_flight(&self) {
        self.state.in_flight.store(self.in_flight.len() as u64, Ordering::Relaxed);
    }
}

/// Nobody, to ask a clock how its moments come.
struct NoWaiter;

impl Waiter for NoWaiter {
    fn next_due(&self) -> Option<Duration> {
        None
    }

    fn time_moved(&self, _now: Duration) {}
}

/// One item or batch on its way to its actor.
struct Handing<T> {
    log: Arc<Log<T>>,
    state: Arc<GroupState>,
    reader: Arc<dyn Subscriber<T>>,
    services: Weak<Services>,
    timers: Arc<Timers>,
    key: Key,
    is_batch: bool,
}

impl<T: Send + Sync + 'static> Handing<T> {
    async fn run(self, items: Vec<Delivered>) -> Handled {
        let positions = items.iter().map(|item| item.position).collect();
        let done = self.hand_over(&items).await;
        Handled { key: self.key, positions, done }
    }

    /// Hands items over until they are done with: handled, or dead. False if the silo goes before.
    async fn hand_over(&self, items: &[Delivered]) -> bool {
        let options = &self.log.options;
        let mut tried = items.iter().map(|item| item.attempts.saturating_sub(1)).max().unwrap_or(0);
        let mut waits = 0;
        let (mut values, items) = self.read(items);
        while !items.is_empty() {
            if self.gives_up() {
                return false;
            }
            if values.is_empty() {
                values = items.iter().filter_map(|item| (self.log.decode)(&item.value).ok()).collect();
            }
            let values = std::mem::take(&mut values);
            let failed = match self.reader.handle(&self.key, values, self.message_id(&items)) {
                Some(handling) => match handling.await {
                    Ok(()) => return true,
                    Err(failed) => failed,
                },
                None => TurnFailed::NotNow,
            };
            let wait = match failed {
                TurnFailed::NotNow => {
                    waits += 1;
                    options.backoff.delay(waits.min(8), u64::MAX).max(Duration::from_millis(1))
                }
                TurnFailed::Tried(cause) => {
                    tried += 1;
                    self.state.failed.fetch_add(1, Ordering::Relaxed);
                    if tried >= options.max_attempts {
                        self.bury(&items, tried, &cause);
                        return true;
                    }
                    let random = self.services.upgrade().map_or(0, |services| services.entropy.next_u64());
                    options.backoff.delay(tried - 1, random)
                }
            };
            if !wait.is_zero() && !self.gives_up() {
                self.timers.sleep_until(self.timers.now().saturating_add(wait)).await;
            }
        }
        true
    }

    /// Whether the silo goes, or the group elsewhere.
    fn gives_up(&self) -> bool {
        self.state.leaves.load(Ordering::Acquire)
            || self.services.upgrade().is_none_or(|services| services.is_draining())
    }

    /// The items as values, and which those are. One that does not decode becomes a dead letter, and is left out.
    fn read<'i>(&self, items: &'i [Delivered]) -> (Vec<T>, Vec<&'i Delivered>) {
        let (mut values, mut readable) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for item in items {
            match (self.log.decode)(&item.value) {
                Ok(value) => {
                    values.push(value);
                    readable.push(item);
                }
                Err(error) => {
                    let (stream, position) = (self.stream(), item.position);
                    tracing::error!(%stream, %position, %error, "an item of a durable stream cannot be read");
                    self.state.dead.fetch_add(1, Ordering::Relaxed);
                    let cause = DeadCause::Undecodable { stream, position, error };
                    self.reader.bury(&self.key, None, cause, item.attempts);
                }
            }
        }
        (values, readable)
    }

    fn bury(&self, items: &[&Delivered], attempts: u32, cause: &DeadCause) {
        for item in items {
            let Ok(value) = (self.log.decode)(&item.value) else { continue };
            let (stream, position) = (self.stream(), item.position);
            tracing::error!(%stream, %position, attempts, %cause, "an item of a durable stream is given up");
            self.state.dead.fetch_add(1, Ordering::Relaxed);
            let cause = DeadCause::GivenUp { stream, position, cause: Box::new(cause.clone()) };
            self.reader.bury(&self.key, Some(value), cause, attempts);
        }
    }

    fn stream(&self) -> StreamId {
        StreamId::new(self.log.namespace, self.key.as_str())
            .unwrap_or_else(|_| unreachable!("an item's key was one when it was published"))
    }

    /// What names the item at each of its deliveries.
    fn message_id(&self, items: &[&Delivered]) -> Option<MessageId> {
        let [item] = items else { return None };
        if self.is_batch {
            return None;
        }
        let Group { namespace, name } = &self.state.group;
        let whole = format!("{namespace}@{}>{name}", item.position);
        MessageId::new(whole).or_else(|| {
            let names = quark_placement::hash::hash(format!("{namespace}>{name}").as_bytes());
            MessageId::new(format!("{names:016x}@{}", item.position))
        })
    }
}
