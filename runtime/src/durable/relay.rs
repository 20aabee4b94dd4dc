//! Taking messages out of outboxes and to their receivers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::yield_now;

use super::DeliveryError;
use crate::grid::Hosts;
use crate::services::Services;
use crate::store::{Address, OutboxId, PendingMessage};
use crate::stores::Named;
use crate::timers::Timers;

/// Messages that are read at once; as many more, up to `PAGE_MAX`, as cannot be delivered now and stand before others.
const PAGE: usize = 1_024;
const PAGE_MAX: usize = 65_536;

/// Lines, each of one sender and receiver, that are served at the same time, and the messages of one that are
/// delivered before their removal.
const LINES: usize = 64;
const LINE_MAX: usize = 64;

/// How long lines are waited for before those that have ended are looked after.
const ROUND_MAX: Duration = Duration::from_millis(100);

/// How long one delivery may take. Its turn goes on after that, and the message is delivered again.
const DELIVERY_MAX: Duration = Duration::from_secs(30);

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

/// Carries the messages of one store's outboxes.
pub(crate) struct Relay {
    named: Named,
    services: Weak<Services>,
    hosts: Weak<Hosts>,
    timers: Arc<Timers>,
    /// Messages that were not taken; as many as a page holds, since only what is read again is remembered.
    failing: HashMap<OutboxId, Failing>,
    /// Lines under way.
    carried: FuturesUnordered<BoxFuture<'static, Carried>>,
    busy: HashSet<Line>,
    /// How many messages are read at once.
    page: usize,
    /// When old entries of inboxes are looked for next.
    forget_at: Duration,
}

/// A message that was not taken.
struct Failing {
    times: u32,
    /// When it is tried again.
    due: Duration,
}

/// Sender and receiver.
type Line = (Address, Address);

/// What became of some messages of a line.
struct Carried {
    line: Line,
    taken: Vec<OutboxId>,
    /// The first that was not taken; those behind it were not tried.
    failed: Option<(OutboxId, DeliveryError)>,
}

impl Relay {
    /// Begins to carry messages, for each store, until the silo stops.
    pub(crate) fn start_all(services: &Arc<Services>, hosts: &Arc<Hosts>) {
        for named in services.stores.distinct() {
            let timers = services.nodes[0].timers().clone();
            let relay = Self {
                named,
                services: Arc::downgrade(services),
                hosts: Arc::downgrade(hosts),
                forget_at: timers.now(),
                timers,
                failing: HashMap::new(),
                carried: FuturesUnordered::new(),
                busy: HashSet::new(),
                page: PAGE,
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
            let at = self.timers.now().saturating_add(wait);
            tokio::select! {
                Some(ended) = self.carried.next() => self.settle(vec![ended]).await,
                () = told.notified() => {}
                () = self.timers.sleep_until(at), if !wait.is_zero() => {}
                // Also without a wait others get their turn, the silo's stop among them.
                () = yield_now(), if wait.is_zero() => {}
            }
        }
    }

    /// Begins to carry what is there, and says how long there is nothing more to do; `None` once the silo is gone.
    async fn round(&mut self) -> Option<Duration> {
        if self.services.upgrade()?.is_draining() {
            return Some(LOOK_EVERY);
        }
        if self.timers.now() >= self.forget_at {
            self.forget().await;
        }
        let found = match self.named.store.actors.outbox(self.page).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "an outbox could not be read");
                return Some(LOOK_EVERY);
            }
        };
        let is_full = found.len() == self.page;
        let there: HashSet<&OutboxId> = found.iter().map(|message| &message.id).collect();
        // What is there no more was delivered, by whomever.
        self.failing.retain(|id, _| there.contains(id));
        drop(there);
        let begun = self.begin(found);
        let ended = self.wait_a_little().await;
        let taken = ended.iter().any(|ended| !ended.taken.is_empty());
        self.settle(ended).await;
        // Where nothing of a full page can be delivered now, others may stand behind it.
        let grows = is_full && begun == 0 && self.busy.is_empty() && self.page < PAGE_MAX;
        self.page = if grows {
            (self.page * 2).min(PAGE_MAX)
        } else if begun > 0 {
            PAGE
        } else {
            self.page
        };
        if (is_full && taken) || grows {
            return Some(Duration::ZERO);
        }
        let soonest = self.failing.values().map(|failing| failing.due).min();
        let until_retry = soonest.map_or(LOOK_EVERY, |due| due.saturating_sub(self.timers.now()));
        Some(until_retry.clamp(RETRY_FIRST, LOOK_EVERY))
    }

    /// Begins to carry what is due, in lines. A message that waits for its next try holds back those behind it in its
    /// line. Says how many lines it began.
    fn begin(&mut self, found: Vec<PendingMessage>) -> usize {
        let now = self.timers.now();
        let mut lines: BTreeMap<Line, Vec<PendingMessage>> = BTreeMap::new();
        let mut held: HashSet<Line> = HashSet::new();
        for message in found {
            let line = (message.id.from.clone(), message.message.to.clone());
            if self.busy.contains(&line) || held.contains(&line) {
                continue;
            }
            if self.failing.get(&message.id).is_some_and(|failing| failing.due > now) {
                held.insert(line);
                continue;
            }
            let messages = lines.entry(line).or_default();
            if messages.len() < LINE_MAX {
                messages.push(message);
            }
        }
        let room = LINES.saturating_sub(self.busy.len());
        let begun = lines.len().min(room);
        for (line, messages) in lines.into_iter().take(room) {
            self.busy.insert(line.clone());
            self.carried.push(Box::pin(carry(self.hosts.clone(), self.timers.clone(), line, messages)));
        }
        begun
    }

    /// Waits for the lines under way, but not long for any.
    async fn wait_a_little(&mut self) -> Vec<Carried> {
        let mut ended = Vec::new();
        let limit = self.timers.sleep_until(self.timers.now().saturating_add(ROUND_MAX));
        let mut limit = pin!(limit);
        while !self.carried.is_empty() {
            tokio::select! {
                biased;
                Some(carried) = self.carried.next() => ended.push(carried),
                () = &mut limit => break,
                () = self.named.outbox.notified() => {
                    // Somebody has sent something, which is not to wait for those that take long.
                    self.named.outbox.notify_one();
                    break;
                }
            }
        }
        ended
    }

    /// Takes out of the outboxes what was delivered, and notes what was not.
    async fn settle(&mut self, ended: Vec<Carried>) {
        let mut taken = Vec::new();
        for Carried { line, taken: delivered, failed } in ended {
            self.busy.remove(&line);
            taken.extend(delivered);
            if let Some((id, error)) = failed {
                self.note_failure(id, &error);
            }
        }
        if taken.is_empty() {
            return;
        }
        for id in &taken {
            self.failing.remove(id);
        }
        if let Err(error) = self.named.store.actors.relayed(&taken).await {
            // They are delivered again, once for each time that this fails.
            tracing::warn!(%error, "delivered messages could not be taken out of their outboxes");
            self.timers.sleep_until(self.timers.now().saturating_add(LOOK_EVERY)).await;
        }
    }

    /// Lets inboxes forget what is old. What is left after an error is forgotten an hour later.
    async fn forget(&mut self) {
        self.forget_at = self.timers.now().saturating_add(FORGET_EVERY);
        let Some(services) = self.services.upgrade() else { return };
        let before = services.clock.timestamp().saturating_sub(INBOX_KEPT);
        drop(services);
        loop {
            match self.named.store.actors.forget_received(before).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::warn!(%error, "old entries of inboxes were not removed"),
            }
        }
    }

    fn note_failure(&mut self, id: OutboxId, error: &DeliveryError) {
        let now = self.timers.now();
        let from = id.from.clone();
        let failing = self.failing.entry(id).or_insert(Failing { times: 0, due: now });
        let wait = RETRY_FIRST.saturating_mul(1 << failing.times.min(16)).min(RETRY_MAX);
        failing.times = failing.times.saturating_add(1);
        failing.due = now.saturating_add(wait);
        tracing::warn!(%from, times = failing.times, %error, retry_in = ?wait, "a durable message was not taken");
    }
}

/// Delivers messages of one line, in order, up to the first that is not taken.
async fn carry(
    hosts: Weak<Hosts>,
    timers: Arc<Timers>,
    line: Line,
    messages: Vec<PendingMessage>,
) -> Carried {
    let mut carried = Carried { line, taken: Vec::with_capacity(messages.len()), failed: None };
    for PendingMessage { id, message, .. } in messages {
        let delivery = {
            // The silo is gone, and the message is another one's to deliver.
            let Some(hosts) = hosts.upgrade() else { return carried };
            match hosts.named(&message.to.actor_type) {
                Some(host) => host.deliver(&message.to.key, &message.method, &message.body, id.message_id()),
                None => {
                    let error = DeliveryError::NotHosted { actor_type: message.to.actor_type.into() };
                    carried.failed = Some((id, error));
                    return carried;
                }
            }
        };
        match timers.timeout(DELIVERY_MAX, delivery).await {
            Ok(Ok(())) => carried.taken.push(id),
            Ok(Err(error)) => {
                carried.failed = Some((id, error));
                return carried;
            }
            Err(_) => {
                carried.failed = Some((id, DeliveryError::TooLate(DELIVERY_MAX)));
                return carried;
            }
        }
    }
    carried
}
