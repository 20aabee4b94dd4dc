//! The handle through which everything is reached: actors by type and key, streams by name.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quark_base::{ActorId, SiloId, StreamId};
use quark_devices::pool::DevicePool;
use quark_predictive::Score;

use crate::actor::{Actor, PartSpec, ToKey};
use crate::actor_ref::ActorRef;
use crate::dead_letters::DeadLetters;
use crate::guards::BreakerState;
use crate::host::{AnyHost, Hosted};
use crate::journal::Folded;
use crate::journal::reader::{JournalReader, ReaderError};
use crate::services::Services;
use crate::stores::StoreStatus;
use crate::streams::{self, AnyLog, PublishError, SubscriptionReport};
use crate::supervision::{self, ChildStatus};
use crate::watchdog::{STUCK_LISTED_MAX, StuckTurn};

/// The actor types of one silo.
pub(crate) struct Hosts {
    pub(crate) services: Option<Arc<Services>>,
    by_type: HashMap<TypeId, Arc<dyn AnyHost>>,
}

impl Hosts {
    pub(crate) fn new(services: Option<Arc<Services>>, by_type: HashMap<TypeId, Arc<dyn AnyHost>>) -> Self {
        Self { services, by_type }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn AnyHost>> {
        self.by_type.values()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<dyn AnyHost>> {
        self.all().find(|host| host.name() == name)
    }

    fn of<A: Actor>(&self) -> Option<&Hosted<A>> {
        self.by_type.get(&TypeId::of::<A>())?.as_any().downcast_ref::<Hosted<A>>()
    }

    /// Lets a prewarmed actor go that nobody called.
    pub(crate) fn end_prewarm(&self, actor: &ActorId) {
        if let Some(host) = self.named(actor.actor_type) {
            host.end_prewarm(&actor.key);
        }
    }
}

/// A handle on the grid. Cheap to clone; it does not keep the silo running.
#[derive(Clone)]
pub struct Grid {
    hosts: Arc<Hosts>,
}

impl Grid {
    pub(crate) fn over(hosts: Arc<Hosts>) -> Self {
        Self { hosts }
    }

    /// A grid that hosts nothing: what is left of one that has stopped.
    pub(crate) fn empty() -> Self {
        Self::over(Arc::new(Hosts::new(None, HashMap::new())))
    }

    /// The actor of type `A` with this key, wherever it is and whether it is active or not.
    ///
    /// Nothing happens until it is called. If no silo hosts the type, each call says so.
    pub fn actor<A: Actor>(&self, key: impl ToKey) -> A::Ref {
        let hosted = self.hosts.of::<A>();
        A::Ref::from(hosted.map_or(ActorRef::new(None), |hosted| key.with_key(|key| hosted.reference(key))))
    }

    pub(crate) fn host_named(&self, name: &str) -> Option<&Arc<dyn AnyHost>> {
        self.hosts.named(name)
    }

    pub(crate) fn hosted<A: Actor>(&self) -> Option<&Hosted<A>> {
        self.hosts.of::<A>()
    }

    /// The children of an actor, in the order they were spawned; none if it is not active.
    pub fn children<A: Actor>(&self, key: impl ToKey) -> Vec<ChildStatus> {
        key.with_key(|key| self.children_of(&ActorId { actor_type: A::SPEC.name, key: key.into() }))
    }

    pub(crate) fn children_of(&self, parent: &ActorId) -> Vec<ChildStatus> {
        supervision::children(&self.hosts, parent)
    }

    /// The messages to actors of type `A` that failed: to look at, to send again, to drop.
    pub fn dead_letters<A: Actor>(&self) -> DeadLetters<A> {
        DeadLetters::new(self.clone())
    }

    /// Reads the journals of this name of the actors of type `A`, without activating any: events, states as they were,
    /// projections. `S` is what the journals fold to.
    ///
    /// # Errors
    /// [`ReaderError`], if the type has no such journal or the silo not its store.
    pub fn journals<A: Actor, S: Folded>(&self, journal: &str) -> Result<JournalReader<A, S>, ReaderError> {
        let declared = A::PARTS.iter().find_map(|part| match part {
            PartSpec::Journal(spec) if spec.name == journal => Some(spec),
            _ => None,
        });
        let spec = declared.ok_or_else(|| ReaderError::NoJournal {
            actor_type: A::SPEC.name,
            journal: journal.to_owned(),
        })?;
        let named = self.hosts.services.as_ref().and_then(|services| services.stores.get(spec.store));
        Ok(JournalReader::new(named.ok_or(ReaderError::NoStore(spec.store))?.store, spec.name))
    }

    /// Publishes `item` to the stream `namespace/key`. Completes when every subscriber has it, or has dropped it as its
    /// [`Flow`](crate::streams::Flow) says; a full mailbox, or a full buffer of one that says `wait`, is waited for.
    ///
    /// Dropping the future half-way leaves the item with those subscribers that have it already.
    ///
    /// # Errors
    /// [`PublishError`], when the stream has no reader or carries another type, or a subscriber refuses the item;
    /// then the first refusal, once the others were served. A full subscriber whose turn waits for this publication is
    /// not waited for: that is a [`Deadlock`](PublishError::Deadlock).
    pub async fn publish<T: Clone + Send + 'static>(
        &self,
        stream: &StreamId,
        item: T,
    ) -> Result<Published, PublishError> {
        let Some(services) = &self.hosts.services else {
            return Err(PublishError::NobodyReads { stream: stream.clone(), read: Vec::new() });
        };
        let watched = self.announce(services, stream);
        if let Some(log) = services.streams.log(stream.namespace()) {
            return self.publish_durably(services, &*log, stream, vec![item]).await;
        }
        let delivery = services.streams.deliver(stream, item, watched)?;
        let subscribers = delivery.complete(stream).await?;
        Ok(Published { subscribers })
    }

    /// Publishes several items to one stream, in their order. What each costs is less than with
    /// [`publish`](Self::publish).
    ///
    /// Dropping the future half-way leaves some of the items with some of the subscribers.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), with the first refusal of any item; then some may be with some subscribers.
    pub async fn publish_all<T: Clone + Send + 'static>(
        &self,
        stream: &StreamId,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Published, PublishError> {
        let items: Vec<T> = items.into_iter().collect();
        let Some(services) = &self.hosts.services else {
            return Err(PublishError::NobodyReads { stream: stream.clone(), read: Vec::new() });
        };
        if items.is_empty() {
            return Ok(Published { subscribers: 0 });
        }
        let watched = self.announce(services, stream);
        if let Some(log) = services.streams.log(stream.namespace()) {
            return self.publish_durably(services, &*log, stream, items).await;
        }
        let delivery = services.streams.deliver_all(stream, items, watched)?;
        let subscribers = delivery.complete(stream).await?;
        Ok(Published { subscribers })
    }

    async fn publish_durably<T: Clone + Send + 'static>(
        &self,
        services: &Arc<Services>,
        log: &dyn AnyLog,
        stream: &StreamId,
        items: Vec<T>,
    ) -> Result<Published, PublishError> {
        let new = streams::encode(log, stream, &items)?;
        streams::append(log, stream, new).await?;
        let delivery = services.streams.deliver_live(stream, items)?;
        let subscribers = delivery.complete(stream).await?;
        Ok(Published { subscribers })
    }

    /// What the silo's stream subscriptions have done, by namespace.
    pub fn streams(&self) -> Vec<SubscriptionReport> {
        self.hosts.services.as_ref().map(|services| services.streams.report()).unwrap_or_default()
    }

    pub(crate) fn hosted_arc<A: Actor>(&self) -> Option<Arc<Hosted<A>>> {
        self.hosts.of::<A>()?.shared()
    }

    pub(crate) fn services(&self) -> Option<&Arc<Services>> {
        self.hosts.services.as_ref()
    }

    /// Tells the predictors of an event and begins what they ask for. True if any of them listens.
    fn announce(&self, services: &Services, stream: &StreamId) -> bool {
        let is_active = |actor: &ActorId| {
            self.hosts.named(actor.actor_type).is_some_and(|host| host.watch_if_active(&actor.key))
        };
        for actor in services.prewarmer.on_event(stream.namespace(), stream.key(), is_active) {
            if let Some(host) = self.hosts.named(actor.actor_type) {
                host.prewarm(&actor.key);
            }
        }
        services.prewarmer.watches(stream.namespace())
    }

    /// The silo behind this handle; `None` once it is gone.
    pub fn silo(&self) -> Option<SiloId> {
        self.hosts.services.as_ref().map(|services| services.silo)
    }

    /// The silo's devices and the books on their memory.
    pub fn devices(&self) -> Option<&Arc<DevicePool>> {
        self.hosts.services.as_ref().map(|services| &services.devices)
    }

    /// How prewarming has done since the silo started.
    pub fn prewarm_score(&self) -> Score {
        self.hosts.services.as_ref().map(|services| services.prewarmer.score()).unwrap_or_default()
    }

    /// Asks an actor to deactivate as soon as no turn runs on it; nothing happens if it is not active.
    pub fn deactivate<A: Actor>(&self, key: impl ToKey) {
        if let Some(hosted) = self.hosts.of::<A>() {
            key.with_key(|key| hosted.reference(key).deactivate());
        }
    }

    /// The turns that have lasted longer than their types' `turn_limit`, as the silo's last look found them; at most
    /// [`STUCK_LISTED_MAX`].
    pub fn stuck_turns(&self) -> Vec<StuckTurn> {
        let Some(services) = &self.hosts.services else { return Vec::new() };
        let tick = services.tick.load(Ordering::Relaxed);
        let stuck = self.hosts.all().flat_map(|host| host.stuck_turns(tick, STUCK_LISTED_MAX));
        stuck.take(STUCK_LISTED_MAX).collect()
    }

    /// The silo's stores, and whether they answer, as far as is known without asking them.
    pub fn stores(&self) -> Vec<StoreStatus> {
        self.hosts.services.as_ref().map(|services| services.stores.status()).unwrap_or_default()
    }

    /// What the silo is doing, for reports.
    pub fn census(&self) -> Census {
        let services = self.hosts.services.as_ref();
        Census {
            activations: services.map_or(0, |services| services.activations.load(Ordering::Acquire)),
            types: self
                .hosts
                .all()
                .map(|host| TypeCensus {
                    name: host.name(),
                    active: host.active(),
                    queued: host.queued(),
                    dropped: host.dropped(),
                    dead_letters: host.dead_letters(),
                    breaker: host.breaker(),
                })
                .collect(),
        }
    }
}

impl std::fmt::Debug for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grid").field("silo", &self.silo()).finish_non_exhaustive()
    }
}

/// Where an item went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// How many actor types took it. Zero if only predictors listen.
    pub subscribers: usize,
}

/// A count of a silo's actors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Actors that are active, or on the way there or back.
    pub activations: usize,
    /// The same by type.
    pub types: Vec<TypeCensus>,
}

/// The actors of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeCensus {
    /// The type's wire name.
    pub name: &'static str,
    /// Active ones.
    pub active: usize,
    /// Messages that wait for them.
    pub queued: u64,
    /// Messages that gave way at full mailboxes since the silo started.
    pub dropped: u64,
    /// Messages that failed and are kept for inspection; see [`Grid::dead_letters`].
    pub dead_letters: usize,
    /// Where the type's circuit breaker is, if it has one.
    pub breaker: Option<BreakerState>,
}
