//! Taking messages out of outboxes and to their receivers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::{JoinError, JoinSet, yield_now};

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
    carried: JoinSet<Carried>,
    busy: HashSet<Line>,
    /// There is more for lines that are under way, or for which there was no room.
    left: bool,
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
                carried: JoinSet::new(),
                left: false,
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
            let look = self.timers.now().saturating_add(wait);
            // Until there is something new to read: what ends meanwhile is looked after.
            loop {
                let retry = self.failing.values().map(|failing| failing.due).min();
                let at = retry.map_or(look, |due| look.min(due.max(self.timers.now() + RETRY_FIRST / 2)));
                tokio::select! {
                    Some(ended) = self.carried.join_next() => {
                        let ended = self.with_others(ended).await;
                        self.settle(ended).await;
                        if self.left && self.busy.len() <= LINES / 2 {
                            break;
                        }
                    }
                    () = told.notified() => break,
                    () = self.timers.sleep_until(at), if !wait.is_zero() => break,
                    // Also without a wait others get their turn, the silo's stop among them.
                    () = yield_now(), if wait.is_zero() => break,
                }
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
        let held = self.begin(found);
        self.left |= is_full;
        // Where a page is full of what cannot be delivered now, others may stand behind it.
        if is_full && held == self.page && self.page < PAGE_MAX {
            self.page = (self.page * 2).min(PAGE_MAX);
            return Some(Duration::ZERO);
        }
        if held < PAGE / 2 {
            self.page = PAGE;
        }
        Some(LOOK_EVERY)
    }

    /// What ended together with `first`, so that it is settled together.
    async fn with_others(&mut self, first: Result<Carried, JoinError>) -> Vec<Carried> {
        let mut ended: Vec<Carried> = first.into_iter().collect();
        yield_now().await;
        while let Some(next) = self.carried.try_join_next() {
            ended.extend(next);
        }
        ended
    }

    /// Begins to carry what is due, in lines. A message that waits for its next try holds back those behind it in its
    /// line. Says how many messages are held back.
    fn begin(&mut self, found: Vec<PendingMessage>) -> usize {
        let now = self.timers.now();
        let mut lines: BTreeMap<Line, Vec<PendingMessage>> = BTreeMap::new();
        let mut waiting: HashSet<Line> = HashSet::new();
        let mut held = 0;
        self.left = false;
        for message in found {
            let line = (message.id.from.clone(), message.message.to.clone());
            if self.busy.contains(&line) {
                self.left = true;
                continue;
            }
            if waiting.contains(&line)
                || self.failing.get(&message.id).is_some_and(|failing| failing.due > now)
            {
                waiting.insert(line);
                held += 1;
                continue;
            }
            let messages = lines.entry(line).or_default();
            if messages.len() < LINE_MAX {
                messages.push(message);
            } else {
                self.left = true;
            }
        }
        let room = LINES.saturating_sub(self.busy.len());
        self.left |= lines.len() > room;
        for (line, messages) in lines.into_iter().take(room) {
            self.busy.insert(line.clone());
            let carry = carry(self.hosts.clone(), self.timers.clone(), line.clone(), messages);
            // A task each, as one that is not polled might hold a connection that another one waits for.
            self.carried.spawn(async move {
                let carried = AssertUnwindSafe(carry).catch_unwind().await;
                carried.unwrap_or(Carried { line, taken: Vec::new(), failed: None })
            });
        }
        held
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
