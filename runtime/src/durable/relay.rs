//! Taking messages out of outboxes and to their receivers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::DeliveryError;
use crate::grid::Hosts;
use crate::services::Services;
use crate::store::{Address, OutboxId, PendingMessage};
use crate::stores::Named;
use crate::timers::Timers;

/// Messages that are read at once.
const PAGE: usize = 1_024;

/// Lines, each of one sender and receiver, that are served at the same time.
const LINES: usize = 64;

/// How often an outbox is looked at without being told to: for what another silo left there when it ended, and after
/// an error. What this silo's actors send is seen at once.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The wait before a message is tried again; each further one is twice as long, up to `RETRY_MAX`.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long an inbox remembers a message: longer than any sender goes on sending it again, outages included.
const INBOX_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often older entries are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// The messages whose failures are remembered. Of more, some are tried again sooner than their waits say.
const FAILING_MAX: usize = 65_536;

/// Carries the messages of one store's outboxes.
pub(crate) struct Relay {
    named: Named,
    services: Weak<Services>,
    hosts: Weak<Hosts>,
    timers: Arc<Timers>,
    failing: HashMap<OutboxId, Failing>,
    /// When old entries of inboxes are looked for next.
    forget_at: Duration,
}

/// A message that was not taken.
struct Failing {
    times: u32,
    /// When it is tried again.
    due: Duration,
}

/// Messages of one sender to one receiver, in order.
type Lines = BTreeMap<(Address, Address), Vec<PendingMessage>>;

impl Relay {
    /// Begins to carry messages, for each store, until the silo stops.
    pub(crate) fn start_all(services: &Arc<Services>, hosts: &Arc<Hosts>) {
        for named in services.stores.distinct() {
            let relay = Self {
                named,
                services: Arc::downgrade(services),
                hosts: Arc::downgrade(hosts),
                timers: services.nodes[0].timers().clone(),
                failing: HashMap::new(),
                forget_at: services.nodes[0].timers().now(),
            };
            let mut stopped = services.stop_signal.subscribe();
            services.lanes.handle.spawn(async move {
                tokio::select! {
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                    () = relay.run() => {}
                }
            });
        }
    }

    async fn run(mut self) {
        let told = self.named.outbox.clone();
        while let Some(wait) = self.round().await {
            if wait.is_zero() {
                continue;
            }
            let at = self.timers.now().saturating_add(wait);
            tokio::select! {
                () = told.notified() => {}
                () = self.timers.sleep_until(at) => {}
            }
        }
    }

    /// Carries what is there, and says how long there is nothing more to do; `None` once the silo is gone.
    async fn round(&mut self) -> Option<Duration> {
        if self.services.upgrade()?.is_draining() {
            return Some(LOOK_EVERY);
        }
        if self.timers.now() >= self.forget_at {
            self.forget().await;
        }
        let found = match self.named.store.actors.outbox(PAGE).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "an outbox could not be read");
                return Some(LOOK_EVERY);
            }
        };
        let is_full = found.len() == PAGE;
        let lines = self.lines(found);
        let (done, failed) = carry_all(&self.hosts.upgrade()?, lines).await;
        if !done.is_empty()
            && let Err(error) = self.named.store.actors.relayed(&done).await
        {
            // They are delivered again.
            tracing::warn!(%error, "delivered messages could not be taken out of their outboxes");
            return Some(LOOK_EVERY);
        }
        for id in &done {
            self.failing.remove(id);
        }
        for (id, error) in failed {
            self.note_failure(id, &error);
        }
        let soonest = self.failing.values().map(|failing| failing.due).min();
        let until_retry = soonest.map_or(LOOK_EVERY, |due| due.saturating_sub(self.timers.now()));
        // A full page of messages that cannot be delivered is no reason to hurry.
        Some(if is_full && !done.is_empty() { Duration::ZERO } else { until_retry.min(LOOK_EVERY) })
    }

    /// Lets inboxes forget what is old. What is left after an error is forgotten an hour later.
    async fn forget(&mut self) {
        self.forget_at = self.timers.now().saturating_add(FORGET_EVERY);
        let Some(services) = self.services.upgrade() else { return };
        let before = services.clock.timestamp().saturating_sub(INBOX_KEPT);
        loop {
            match self.named.store.actors.forget_received(before).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::warn!(%error, "old entries of inboxes were not removed"),
            }
        }
    }

    /// What is due. A message that waits for its next try holds back those behind it in its line.
    fn lines(&self, found: Vec<PendingMessage>) -> Lines {
        let now = self.timers.now();
        let mut lines = Lines::new();
        let mut held = Vec::new();
        for message in found {
            let line = (message.id.from.clone(), message.message.to.clone());
            if self.failing.get(&message.id).is_some_and(|failing| failing.due > now) {
                held.push(line);
            } else if !held.contains(&line) {
                lines.entry(line).or_default().push(message);
            }
        }
        lines
    }

    fn note_failure(&mut self, id: OutboxId, error: &DeliveryError) {
        if self.failing.len() >= FAILING_MAX {
            self.failing.clear();
        }
        let now = self.timers.now();
        let from = id.from.clone();
        let failing = self.failing.entry(id).or_insert(Failing { times: 0, due: now });
        let wait = RETRY_FIRST.saturating_mul(1 << failing.times.min(16)).min(RETRY_MAX);
        failing.times = failing.times.saturating_add(1);
        failing.due = now.saturating_add(wait);
        tracing::warn!(%from, times = failing.times, %error, retry_in = ?wait, "a durable message was not taken");
    }
}

/// Carries all lines, [`LINES`] of them at a time.
async fn carry_all(hosts: &Arc<Hosts>, lines: Lines) -> (Vec<OutboxId>, Vec<(OutboxId, DeliveryError)>) {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let mut waiting = lines.into_values().map(|line| carry(hosts, line));
    let mut under_way: FuturesUnordered<_> = waiting.by_ref().take(LINES).collect();
    while let Some((taken, refused)) = under_way.next().await {
        done.extend(taken);
        failed.extend(refused);
        under_way.extend(waiting.next());
    }
    (done, failed)
}

/// Delivers the messages of one line, in order, up to the first that is not taken.
async fn carry(
    hosts: &Arc<Hosts>,
    line: Vec<PendingMessage>,
) -> (Vec<OutboxId>, Option<(OutboxId, DeliveryError)>) {
    let mut taken = Vec::with_capacity(line.len());
    for PendingMessage { id, message, .. } in line {
        let Some(host) = hosts.named(&message.to.actor_type) else {
            let error = DeliveryError::NotHosted { actor_type: message.to.actor_type.into() };
            return (taken, Some((id, error)));
        };
        match host.deliver(&message.to.key, &message.method, &message.body, id.message_id()).await {
            Ok(()) => taken.push(id),
            Err(error) => return (taken, Some((id, error))),
        }
    }
    (taken, None)
}
