//! Who reads what: subscriptions by namespace, and the way from a publication to them.

use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use quark_base::{Key, StreamId};

use super::durable::{AnyLog, DURABLE_STREAMS_MAX, DurableTopic};
use super::error::{DurableStreamError, PublishError, Reader, StreamTypeConflict, SubscribeError};
use super::flow::Flow;
use super::pattern::Pattern;
use super::report::{GroupReport, Reported, SubscriptionReport};
use super::{Delivery, Subscriber};
use crate::services::Services;

/// Subscriptions that a silo may have at once. Each takes some hundred bytes and a place in a report.
pub const SUBSCRIPTIONS_MAX: usize = 1_000_000;

/// Namespaces that are remembered because a pattern matched them. Beyond it they are forgotten together, and looked up
/// again as they come.
const SPACES_MAX: usize = 10_000;

/// How often buffers are looked through for those that rest.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A subscription on its way in.
pub(crate) struct Registration {
    pub(crate) pattern: Pattern,
    /// The one stream that it is about, of an exact pattern; else all.
    pub(crate) key: Option<Key>,
    pub(crate) item: TypeId,
    pub(crate) item_name: &'static str,
    pub(crate) reader: Reader,
    /// It belongs to an actor type, so that durable streams are kept for it.
    pub(crate) is_implicit: bool,
    pub(crate) flow: Flow,
    /// An `Arc<dyn Subscriber<T>>`.
    pub(crate) subscriber: Arc<dyn Any + Send + Sync>,
    pub(crate) reported: Arc<dyn Reported>,
}

/// A subscription's name within its silo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RegistrationId(u64);

/// A subscription of a namespace.
#[derive(Clone)]
struct Entry {
    id: RegistrationId,
    registration: Arc<Registration>,
}

/// Who reads one namespace.
struct Space {
    item: TypeId,
    item_name: &'static str,
    /// Those who read all its streams.
    all: Arc<[Entry]>,
    /// Those who read one.
    keyed: HashMap<Key, Arc<[Entry]>, RandomState>,
}

type ByMethod = HashMap<(&'static str, &'static str), Arc<dyn Reported>, RandomState>;

/// The subscriptions of one silo.
#[derive(Default)]
pub(crate) struct Streams {
    state: RwLock<State>,
    /// The durable namespaces. Fixed once the silo has started.
    logs: OnceLock<HashMap<&'static str, Arc<dyn AnyLog>, RandomState>>,
    /// The subscriptions of actor types, by type and method. Fixed once the silo has started.
    implicit: OnceLock<ByMethod>,
    swept_at: Mutex<Duration>,
}

#[derive(Default)]
struct State {
    /// Those who read all streams of their namespaces, in the order they came.
    patterns: Vec<Entry>,
    spaces: HashMap<&'static str, Space, RandomState>,
    /// Namespaces that only patterns read, by their own text.
    matched: HashMap<Box<str>, Space, RandomState>,
    registered: BTreeMap<RegistrationId, Arc<Registration>>,
    next: u64,
    closed: bool,
}

impl Streams {
    /// Adds the subscriptions of all hosted types.
    pub(crate) fn open(&self, all: Vec<Registration>) -> Result<(), Box<StreamTypeConflict>> {
        let mut state = self.state.write();
        let mut implicit = ByMethod::default();
        for registration in all {
            state.check(&registration)?;
            if let Reader::Method { actor_type, method } = registration.reader {
                implicit.insert((actor_type, method), registration.reported.clone());
            }
            state.add(registration);
        }
        // Opened once, by the silo's start.
        self.implicit.get_or_init(|| implicit);
        Ok(())
    }

    /// The subscription of an actor type's method.
    pub(crate) fn implicit(&self, actor_type: &'static str, method: &'static str) -> Option<&dyn Reported> {
        self.implicit.get()?.get(&(actor_type, method)).map(|reported| &**reported)
    }

    /// Adds a subscription.
    pub(crate) fn register(&self, registration: Registration) -> Result<RegistrationId, SubscribeError> {
        let mut state = self.state.write();
        if state.closed {
            return Err(SubscribeError::Stopped);
        }
        if state.registered.len() >= SUBSCRIPTIONS_MAX {
            return Err(SubscribeError::TooMany { max: SUBSCRIPTIONS_MAX });
        }
        self.check_logs(&registration)?;
        state.check(&registration)?;
        Ok(state.add(registration))
    }

    /// Makes these namespaces durable, and begins to read them for the actor types that subscribe to them.
    pub(crate) fn open_logs(
        &self,
        topics: &[DurableTopic],
        services: &Arc<Services>,
    ) -> Result<(), Box<DurableStreamError>> {
        let registered: Vec<_> = self.state.read().registered.values().cloned().collect();
        let mut logs: HashMap<&'static str, Arc<dyn AnyLog>, RandomState> = HashMap::default();
        for topic in topics {
            let namespace = topic.namespace;
            let readers = registered.iter().filter(|one| one.pattern.matches(namespace));
            for Registration { item, item_name: read, reader, flow, .. } in readers.map(|one| &**one) {
                let reader = || reader.clone();
                if *item != topic.item {
                    let item = topic.item_name;
                    let other = DurableStreamError::OtherItem { namespace, item, reader: reader(), read };
                    return Err(Box::new(other));
                }
                if !flow.keeps_all() || flow.rate().is_some() {
                    return Err(Box::new(DurableStreamError::Drops { namespace, reader: reader() }));
                }
            }
            let store = services.stores.get(topic.options.store_name()).ok_or_else(|| {
                let store = topic.options.store_name().to_owned();
                Box::new(DurableStreamError::NoStore { namespace, store })
            })?;
            let Some(streams) = store.store.streams else {
                return Err(Box::new(DurableStreamError::NoStreams { namespace, store: store.store.name }));
            };
            if logs.insert(namespace, topic.open(streams, services.clock.clone())).is_some() {
                return Err(Box::new(DurableStreamError::Twice { namespace }));
            }
        }
        if logs.len() > DURABLE_STREAMS_MAX {
            return Err(Box::new(DurableStreamError::TooMany { max: DURABLE_STREAMS_MAX }));
        }
        for (namespace, log) in &logs {
            for registration in
                registered.iter().filter(|one| one.is_implicit && one.pattern.matches(namespace))
            {
                log.clone().read_by(registration, services);
            }
            log.clone().keep_trimmed(services);
        }
        // Opened once, by the silo's start.
        self.logs.get_or_init(|| logs);
        Ok(())
    }

    /// The durable namespace, if it is one.
    #[inline]
    pub(crate) fn log(&self, namespace: &str) -> Option<Arc<dyn AnyLog>> {
        let logs = self.logs.get().filter(|logs| !logs.is_empty())?;
        logs.get(namespace).cloned()
    }

    pub(crate) fn durable_names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.logs.get().into_iter().flat_map(|logs| logs.keys().copied()).collect();
        names.sort_unstable();
        names
    }

    /// Whether a new reader takes what the durable namespaces carry.
    fn check_logs(&self, new: &Registration) -> Result<(), Box<StreamTypeConflict>> {
        let logs = self.logs.get().into_iter().flatten();
        let mut others = logs.filter(|(name, log)| new.pattern.matches(name) && log.item().0 != new.item);
        others.next().map_or(Ok(()), |(namespace, log)| {
            Err(Box::new(StreamTypeConflict {
                namespace: new.pattern.as_str(),
                first_namespace: namespace,
                first: Reader::Named("of its store".into()),
                first_item: log.item().1,
                second: new.reader.clone(),
                second_item: new.item_name,
            }))
        })
    }

    /// Hands items that are in the store to those who read them live, and gives the number of all readers.
    pub(crate) fn deliver_live<T: Clone + Send + 'static>(
        &self,
        stream: &StreamId,
        items: Vec<T>,
    ) -> Result<Delivery, PublishError> {
        let mut found = self.readers::<T>(stream, true)?;
        let all = found.all.len() + found.keyed.as_ref().map_or(0, |keyed| keyed.len());
        found.all = found.all.iter().filter(|entry| !entry.registration.is_implicit).cloned().collect();
        let delivery =
            found.each(items, |subscriber: &dyn Subscriber<T>, items| subscriber.deliver_all(stream, items));
        Ok(Delivery { subscribers: all, ..delivery })
    }

    /// Takes a subscription out. Gives it back to be dropped, out of the lock.
    pub(crate) fn remove(&self, id: RegistrationId) -> Option<Arc<Registration>> {
        self.state.write().remove(id)
    }

    /// Takes all out; nobody reads anything any more.
    pub(crate) fn close(&self) {
        let mut state = self.state.write();
        let gone = std::mem::take(&mut *state);
        state.closed = true;
        drop(state);
        gone.registered.values().for_each(|registration| registration.reported.end());
    }

    /// What `look` sees in the space of a namespace, if anybody reads that.
    fn in_space<R>(&self, namespace: &str, look: impl FnOnce(&Space) -> R) -> Option<R> {
        let state = self.state.read();
        if let Some(space) = state.space(namespace) {
            return Some(look(space));
        }
        if !state.patterns.iter().any(|entry| entry.registration.pattern.matches(namespace)) {
            return None;
        }
        drop(state);
        self.state.write().match_space(namespace).map(look)
    }

    /// The patterns that are read.
    fn names(&self) -> Vec<&'static str> {
        let state = self.state.read();
        let mut names: Vec<_> =
            state.patterns.iter().map(|entry| entry.registration.pattern.as_str()).collect();
        names.extend(state.spaces.keys());
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The readers of a stream, who take items of type `T`. `watched` says that somebody reads it for prewarming, so that
    /// an item without a subscriber is no mistake.
    fn readers<T: 'static>(&self, stream: &StreamId, watched: bool) -> Result<Found, PublishError> {
        let look = |space: &Space| match space.item == TypeId::of::<T>() {
            true => Ok(space.readers_of(stream.key())),
            false => Err(space.item_name),
        };
        let found = match self.in_space(stream.namespace(), look) {
            None => Found::default(),
            Some(Ok(found)) => found,
            Some(Err(carries)) => {
                let (stream, got) = (stream.clone(), type_name::<T>());
                return Err(PublishError::WrongItem { stream, carries, got });
            }
        };
        if found.is_empty() && !watched {
            return Err(PublishError::NobodyReads { stream: stream.clone(), read: self.names() });
        }
        Ok(found)
    }

    /// Hands `item` to every subscriber, whether or not another one refuses it.
    pub(crate) fn deliver<T: Clone + Send + 'static>(
        &self,
        stream: &StreamId,
        item: T,
        watched: bool,
    ) -> Result<Delivery, PublishError> {
        let found = self.readers::<T>(stream, watched)?;
        Ok(found.each(item, |subscriber: &dyn Subscriber<T>, item| subscriber.deliver(stream, item)))
    }

    /// The same for several items of one stream.
    pub(crate) fn deliver_all<T: Clone + Send + 'static>(
        &self,
        stream: &StreamId,
        items: Vec<T>,
        watched: bool,
    ) -> Result<Delivery, PublishError> {
        let found = self.readers::<T>(stream, watched)?;
        Ok(found.each(items, |subscriber: &dyn Subscriber<T>, items| subscriber.deliver_all(stream, items)))
    }

    /// What the subscriptions have done, by namespace.
    pub(crate) fn report(&self) -> Vec<SubscriptionReport> {
        let registered: Vec<_> = self.state.read().registered.values().cloned().collect();
        let mut all: Vec<_> = registered
            .iter()
            .map(|registration| {
                let counters = registration.reported.counters();
                SubscriptionReport {
                    namespace: registration.pattern.as_str(),
                    reader: registration.reader.clone(),
                    flow: registration.flow,
                    delivered: counters.delivered.load(Ordering::Relaxed),
                    dropped: counters.drops(),
                    late: counters.late.load(Ordering::Relaxed),
                    buffer: registration.reported.fill(),
                    groups: self.groups_of(registration),
                }
            })
            .collect();
        all.sort_by_key(|report| report.namespace);
        all
    }

    fn groups_of(&self, registration: &Registration) -> Vec<GroupReport> {
        let Some(name) = registration.reader.group().filter(|_| registration.is_implicit) else {
            return Vec::new();
        };
        let logs = self.logs.get().into_iter().flatten();
        let read = logs.filter(|(namespace, _)| registration.pattern.matches(namespace));
        let groups = read.flat_map(|(_, log)| log.groups());
        groups.filter(|state| state.group.name == name).map(|state| state.report()).collect()
    }

    /// Throws away what is no longer needed, now and then.
    pub(crate) fn sweep(&self, now: Duration) {
        let mut swept_at = self.swept_at.lock();
        if now.saturating_sub(*swept_at) < SWEEP_EVERY {
            return;
        }
        *swept_at = now;
        drop(swept_at);
        let registered: Vec<_> = self.state.read().registered.values().cloned().collect();
        registered.iter().for_each(|registration| registration.reported.sweep(now));
    }
}

impl State {
    /// Whether everybody who reads the same streams takes the same items.
    fn check(&self, new: &Registration) -> Result<(), Box<StreamTypeConflict>> {
        let others = self.patterns.iter().map(|entry| &entry.registration);
        let keyed = self.spaces.values().filter_map(|space| space.any_keyed());
        let keyed: Vec<_> = keyed.collect();
        let mut all = others.chain(keyed.iter());
        let first = all.find(|other| other.item != new.item && other.pattern.overlaps(new.pattern));
        first.map_or(Ok(()), |first| {
            Err(Box::new(StreamTypeConflict {
                namespace: new.pattern.as_str(),
                first_namespace: first.pattern.as_str(),
                first: first.reader.clone(),
                first_item: first.item_name,
                second: new.reader.clone(),
                second_item: new.item_name,
            }))
        })
    }

    fn add(&mut self, registration: Registration) -> RegistrationId {
        let id = RegistrationId(self.next);
        self.next += 1;
        let entry = Entry { id, registration: Arc::new(registration) };
        let Registration { pattern, key, item, item_name, .. } = &*entry.registration;
        if pattern.is_exact() && !self.spaces.contains_key(pattern.as_str()) {
            self.matched.remove(pattern.as_str());
            let all = self.matching(pattern.as_str());
            let space = Space { item: *item, item_name, all, keyed: HashMap::default() };
            self.spaces.insert(pattern.as_str(), space);
        }
        match key {
            Some(key) => {
                if let Some(space) = self.spaces.get_mut(pattern.as_str()) {
                    push(space.keyed.entry(key.clone()).or_default(), &entry);
                }
            }
            None => {
                for space in self.spaces_of(*pattern) {
                    push(&mut space.all, &entry);
                }
                self.patterns.push(entry.clone());
            }
        }
        self.registered.insert(id, entry.registration);
        id
    }

    fn remove(&mut self, id: RegistrationId) -> Option<Arc<Registration>> {
        let gone = self.registered.remove(&id)?;
        self.patterns.retain(|entry| entry.id != id);
        for space in self.spaces_of(gone.pattern) {
            let Some(key) = &gone.key else {
                space.all = space.all.iter().filter(|entry| entry.id != id).cloned().collect();
                continue;
            };
            if let Some(of_key) = space.keyed.get_mut(key) {
                *of_key = of_key.iter().filter(|entry| entry.id != id).cloned().collect();
                if of_key.is_empty() {
                    space.keyed.remove(key);
                }
            }
        }
        self.spaces.retain(|_, space| !space.is_unread());
        self.matched.retain(|_, space| !space.is_unread());
        Some(gone)
    }

    fn space(&self, namespace: &str) -> Option<&Space> {
        self.spaces.get(namespace).or_else(|| self.matched.get(namespace))
    }

    fn spaces_of(&mut self, pattern: Pattern) -> Vec<&mut Space> {
        if pattern.is_exact() {
            return self.spaces.get_mut(pattern.as_str()).into_iter().collect();
        }
        let own = self.spaces.iter_mut().map(|(name, space)| (*name, space));
        let matched = self.matched.iter_mut().map(|(name, space)| (&**name, space));
        own.chain(matched).filter(|(name, _)| pattern.matches(name)).map(|(_, space)| space).collect()
    }

    /// Those who read all streams of a namespace.
    fn matching(&self, namespace: &str) -> Arc<[Entry]> {
        self.patterns.iter().filter(|entry| entry.registration.pattern.matches(namespace)).cloned().collect()
    }

    /// The space of a namespace that patterns match.
    fn match_space(&mut self, namespace: &str) -> Option<&Space> {
        if self.space(namespace).is_none() {
            let all = self.matching(namespace);
            let first = &all.first()?.registration;
            let space =
                Space { item: first.item, item_name: first.item_name, all, keyed: HashMap::default() };
            if self.matched.len() >= SPACES_MAX {
                self.matched.clear();
            }
            self.matched.insert(namespace.into(), space);
        }
        self.space(namespace)
    }
}

fn push(entries: &mut Arc<[Entry]>, entry: &Entry) {
    *entries = entries.iter().chain([entry]).cloned().collect();
}

impl Space {
    fn readers_of(&self, key: &Key) -> Found {
        Found { all: self.all.clone(), keyed: self.keyed.get(key).cloned() }
    }

    fn any_keyed(&self) -> Option<Arc<Registration>> {
        self.keyed.values().next()?.first().map(|entry| entry.registration.clone())
    }

    fn is_unread(&self) -> bool {
        self.all.is_empty() && self.keyed.is_empty()
    }
}

/// The readers of one stream.
#[derive(Default)]
struct Found {
    all: Arc<[Entry]>,
    keyed: Option<Arc<[Entry]>>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.keyed.is_none()
    }

    fn each<T, I: Clone>(
        &self,
        items: I,
        deliver: impl Fn(&dyn Subscriber<T>, I) -> Result<Option<super::Waiting>, crate::error::Failure>,
    ) -> Delivery
    where
        T: 'static,
    {
        let keyed = self.keyed.as_deref().unwrap_or_default();
        let mut left = self.all.len() + keyed.len();
        let mut delivery = Delivery { subscribers: left, ..Delivery::default() };
        let mut items = Some(items);
        for Entry { registration, .. } in self.all.iter().chain(keyed) {
            left -= 1;
            let Some(subscriber) = registration.subscriber.downcast_ref::<Arc<dyn Subscriber<T>>>() else {
                continue;
            };
            let Some(items) = (if left == 0 { items.take() } else { items.clone() }) else { continue };
            match deliver(&**subscriber, items) {
                Ok(None) => {}
                Ok(Some(room)) => delivery.waiting.push((registration.reader.clone(), room)),
                Err(cause) => {
                    delivery.refused.get_or_insert_with(|| (registration.reader.clone(), cause));
                }
            }
        }
        delivery
    }
}
