//! Taking messages out of outboxes and to their receivers.
//!
//! Each round reads the outbox from its beginning, a page. While at least half of that page stays, since it was not taken and
//! waits for its next try, or since its line is under way, others may stand behind it: then the rest of the outbox is read too, page by page
//! (`Beyond`), and what is committed from then on where that ended. A line of which a message was left behind on the way
//! has none delivered that comes after it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::{JoinError, JoinSet, yield_now};

use super::DeliveryError;
use crate::grid::Hosts;
use crate::services::Services;
use crate::store::{Address, OutboxId, OutboxPlace, PendingMessage, StoreError};
use crate::stores::Named;
use crate::timers::Timers;

/// Messages that are read at once.
const PAGE: usize = 1_024;

/// Lines that are remembered as left behind beyond the first page. What comes after as many waits until some are taken.
const BEHIND_MAX: usize = 262_144;

/// Messages of which it is remembered how often they were not taken. Further ones are tried whenever they are read.
const FAILING_MAX: usize = 262_144;

/// Lines, each of one sender and receiver, that are served at the same time, and the messages of one that are
/// delivered before their removal.
const LINES: usize = 64;
const LINE_MAX: usize = 64;

/// How long one delivery may take. Its turn goes on after that, and the message is delivered again.
const DELIVERY_MAX: Duration = Duration::from_secs(30);

/// How often an outbox is looked at without being told to: for what another silo left there when it ended, and after
/// an error. What this silo's actors send is seen at once.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often what is beyond the first page is read again if some of it was left there for lack of room.
const BEYOND_EVERY: Duration = Duration::from_millis(500);

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
    hasher: RandomState,
    /// Messages that were not taken, by hash. One that is taken for another waits at most as long as that one.
    failing: HashMap<u64, Failing>,
    /// When the next of those in sight is tried again.
    retry: Option<Duration>,
    /// Lines under way.
    carried: JoinSet<Carried>,
    busy: HashSet<Line>,
    /// On the first page there is more for lines that are under way, or for which there was no room.
    left: bool,
    /// Pages read so far.
    pages: u64,
    /// Lines, by hash, of which messages of the first page were left there.
    first_behind: HashSet<u64>,
    beyond: Option<Beyond>,
    /// When old entries of inboxes are looked for next.
    forget_at: Duration,
}

/// A message that was not taken.
struct Failing {
    times: u32,
    /// When it is tried again.
    due: Duration,
    /// The last page that it was on.
    page: u64,
}

/// A way through what comes after the first page.
struct Beyond {
    /// Where the next page begins.
    place: OutboxPlace,
    /// Lines, by hash, of which messages were left before the place.
    behind: HashSet<u64>,
    begun: Duration,
    first_page: u64,
    /// Messages were left for another reason than that they wait for their next try.
    left: bool,
    has_ended: bool,
    /// There was no room for all of the last page that was read, or to read one.
    lacked_room: bool,
}

/// What became of a page's messages.
#[derive(Default)]
struct Begun {
    /// So many stay where they are for now.
    stay: usize,
    /// There is more for lines that are under way.
    left: bool,
    /// Lines, by hash, for which there was no room.
    unserved: Vec<u64>,
    /// When the next of those that wait for that is tried again.
    retry: Option<Duration>,
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
                hasher: RandomState::new(),
                failing: HashMap::new(),
                retry: None,
                carried: JoinSet::new(),
                left: false,
                busy: HashSet::new(),
                pages: 0,
                first_behind: HashSet::new(),
                beyond: None,
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
        let mut goes_on = false;
        while let Some(wait) = self.round(goes_on).await {
            let look = self.timers.now().saturating_add(wait);
            goes_on = false;
            // Until there is something new to read: what ends meanwhile is looked after.
            loop {
                let at =
                    self.retry.map_or(look, |due| look.min(due.max(self.timers.now() + RETRY_FIRST / 2)));
                tokio::select! {
                    Some(ended) = self.carried.join_next() => {
                        let ended = self.with_others(ended).await;
                        self.settle(ended).await;
                        let left_beyond = self.beyond.as_ref().is_some_and(|beyond| beyond.lacked_room);
                        if (self.left || left_beyond) && self.busy.len() <= LINES / 2 {
                            goes_on = !self.left;
                            break;
                        }
                    }
                    () = told.notified() => break,
                    () = self.timers.sleep_until(at), if !wait.is_zero() => break,
                    // Also without a wait others get their turn, the silo's stop among them.
                    () = yield_now(), if wait.is_zero() => {
                        goes_on = true;
                        break;
                    }
                }
            }
        }
    }

    /// Begins to carry what is there, and says how long there is nothing more to do; `None` once the silo is gone. A
    /// round that goes on does so where the last one ended, and does not look at the first page again.
    async fn round(&mut self, goes_on: bool) -> Option<Duration> {
        if self.services.upgrade()?.is_draining() {
            return Some(LOOK_EVERY);
        }
        if self.timers.now() >= self.forget_at {
            self.forget().await;
        }
        let read = if goes_on { Ok(()) } else { self.read_first().await };
        let read = match read {
            Ok(()) => self.read_beyond().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(wait) => Some(wait),
            Err(error) => {
                tracing::warn!(%error, "an outbox could not be read");
                Some(LOOK_EVERY)
            }
        }
    }

    /// Reads the first page, and begins to carry what is there.
    async fn read_first(&mut self) -> Result<(), StoreError> {
        let page = self.named.store.actors.outbox(&OutboxPlace::default(), PAGE).await?;
        self.pages += 1;
        self.first_behind.clear();
        let mut behind = HashSet::new();
        let begun = self.begin(page.messages, &mut behind);
        self.retry = begun.retry;
        self.left = begun.left || !begun.unserved.is_empty();
        behind.extend(begun.unserved);
        let now = self.timers.now();
        if page.is_last {
            // What is there no more was delivered, by whomever.
            let this = self.pages;
            self.failing.retain(|_, failing| failing.page == this);
        }
        if page.is_last || begun.stay < PAGE / 2 {
            self.beyond = None;
        } else if self.beyond.as_ref().is_none_or(|beyond| beyond.has_ended && beyond.again_at() <= now) {
            self.beyond = Some(Beyond {
                place: page.next,
                behind: behind.clone(),
                begun: now,
                first_page: self.pages,
                left: false,
                has_ended: false,
                lacked_room: false,
            });
        }
        self.first_behind = behind;
        Ok(())
    }

    /// Reads the next page beyond the first one, if there is room to carry what may be there. Says how long there is
    /// nothing more to read.
    async fn read_beyond(&mut self) -> Result<Duration, StoreError> {
        let Some(mut beyond) = self.beyond.take() else { return Ok(LOOK_EVERY) };
        let is_full = beyond.behind.len() >= BEHIND_MAX;
        if is_full || self.busy.len() >= LINES {
            beyond.lacked_room = !is_full;
            beyond.has_ended |= is_full;
            self.beyond = Some(beyond);
            return Ok(LOOK_EVERY);
        }
        // If there is an error, the way begins anew.
        let page = self.named.store.actors.outbox(&beyond.place, PAGE).await?;
        self.pages += 1;
        let begun = self.begin(page.messages, &mut beyond.behind);
        beyond.left |= begun.left;
        beyond.lacked_room = !begun.unserved.is_empty();
        let wait = if beyond.lacked_room {
            // The page is read again when there is.
            LOOK_EVERY
        } else {
            beyond.place = page.next;
            if page.is_last && !beyond.has_ended {
                let first = beyond.first_page;
                self.failing.retain(|_, failing| failing.page >= first);
            }
            beyond.has_ended |= page.is_last;
            match beyond.has_ended {
                true => beyond.again_at().saturating_sub(self.timers.now()).max(RETRY_FIRST),
                false => Duration::ZERO,
            }
        };
        self.beyond = Some(beyond);
        Ok(wait)
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

    /// Begins to carry what is due of a page, in lines. A message that is left holds back those behind it in its line,
    /// which `behind` remembers. Lines of messages that were not tried before go first.
    fn begin(&mut self, found: Vec<PendingMessage>, behind: &mut HashSet<u64>) -> Begun {
        let now = self.timers.now();
        let mut begun = Begun::default();
        let mut lines: Vec<(Line, bool, Vec<PendingMessage>)> = Vec::new();
        let mut places: HashMap<Line, usize> = HashMap::new();
        for message in found {
            let line = (message.id.from.clone(), message.message.to.clone());
            let hash = self.hasher.hash_one(&line);
            let failing = self.hasher.hash_one(&message.id);
            let failing = self.failing.get_mut(&failing).map(|failing| {
                failing.page = self.pages;
                failing.due
            });
            if let Some(place) = places.get(&line) {
                match &mut lines[*place].2 {
                    messages if messages.len() < LINE_MAX => messages.push(message),
                    _ => {
                        // Those behind it find no place any more.
                        places.remove(&line);
                        begun.left = true;
                        behind.insert(hash);
                        begun.stay += 1;
                    }
                }
            } else if behind.contains(&hash) || self.first_behind.contains(&hash) {
                begun.stay += 1;
            } else if self.busy.contains(&line) {
                begun.left = true;
                behind.insert(hash);
                begun.stay += 1;
            } else if let Some(due) = failing.filter(|due| *due > now) {
                begun.retry = Some(begun.retry.map_or(due, |retry| retry.min(due)));
                behind.insert(hash);
                begun.stay += 1;
            } else {
                places.insert(line.clone(), lines.len());
                lines.push((line, failing.is_some(), vec![message]));
            }
        }
        let room = LINES.saturating_sub(self.busy.len());
        lines.sort_by_key(|(_, was_tried, _)| *was_tried);
        let unserved = lines.split_off(room.min(lines.len()));
        begun.unserved = unserved.iter().map(|(line, ..)| self.hasher.hash_one(line)).collect();
        for (line, _, messages) in lines {
            self.busy.insert(line.clone());
            let carry = carry(self.hosts.clone(), self.timers.clone(), line.clone(), messages);
            // A task each, as one that is not polled might hold a connection that another one waits for.
            self.carried.spawn(async move {
                let carried = AssertUnwindSafe(carry).catch_unwind().await;
                carried.unwrap_or(Carried { line, taken: Vec::new(), failed: None })
            });
        }
        begun
    }

    /// Takes out of the outboxes what was delivered, and notes what was not.
    async fn settle(&mut self, ended: Vec<Carried>) {
        let mut taken = Vec::new();
        for Carried { line, taken: delivered, failed } in ended {
            self.busy.remove(&line);
            // The others, or all after a panic, are left where they are.
            if (failed.is_some() || delivered.is_empty())
                && let Some(beyond) = &mut self.beyond
            {
                beyond.behind.insert(self.hasher.hash_one(&line));
            }
            taken.extend(delivered);
            if let Some((id, error)) = failed {
                self.note_failure(&id, &error);
            }
        }
        if taken.is_empty() {
            return;
        }
        for id in &taken {
            self.failing.remove(&self.hasher.hash_one(id));
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

    fn note_failure(&mut self, id: &OutboxId, error: &DeliveryError) {
        let (now, page) = (self.timers.now(), self.pages);
        let hash = self.hasher.hash_one(id);
        let times = self.failing.get(&hash).map_or(0, |failing| failing.times);
        let wait = RETRY_FIRST.saturating_mul(1 << times.min(16)).min(RETRY_MAX);
        let (times, due) = (times.saturating_add(1), now.saturating_add(wait));
        if self.failing.len() < FAILING_MAX || self.failing.contains_key(&hash) {
            self.failing.insert(hash, Failing { times, due, page });
        }
        self.retry = Some(self.retry.map_or(due, |retry| retry.min(due)));
        let from = &id.from;
        tracing::warn!(%from, times, %error, retry_in = ?wait, "a durable message was not taken");
    }
}

impl Beyond {
    /// When it begins anew, once it has ended.
    fn again_at(&self) -> Duration {
        self.begun.saturating_add(if self.left { BEYOND_EVERY } else { LOOK_EVERY })
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
