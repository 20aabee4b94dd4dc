//! The fields of an actor that are stored, and how they are loaded when it is activated.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use super::behind::Behind;
use super::keeper::Keeper;
use super::{Part, State, StateCause, StateError, StateSpec, Stored};
use crate::journal::{Folded, Journal, JournalSpec};
use crate::store::{Address, Loaded, Wanted};
use crate::stores::Named;
use crate::turn::AnySlot;
use quark_base::ActorId;

/// The stored fields of one actor, while they are loaded. Filled by `#[derive(Actor)]`.
#[derive(Default)]
pub struct Kept<'a> {
    parts: Vec<(&'static str, Box<dyn KeptPart + 'a>)>,
}

/// One stored field.
trait KeptPart: Send {
    /// Says what of the actor it needs.
    fn want(&self, wanted: &mut Wanted);
    /// Takes what the store has.
    fn bind<'b>(&'b mut self, keeper: &'b Arc<Keeper>, found: Found)
    -> BoxFuture<'b, Result<(), StateError>>;
    /// What of it is still to be written.
    fn behind(&self) -> Option<Arc<Behind>>;
}

/// What a store has, handed out part by part.
struct Found {
    loaded: Arc<Loaded>,
    /// Which of the states, or of the journals.
    index: usize,
}

impl<'a> Kept<'a> {
    /// A `#[state]` field.
    pub fn state<T: Stored>(&mut self, field: &'a mut State<T>, spec: StateSpec) {
        self.parts.push((spec.store, Box::new((field, spec))));
    }

    /// A `#[journal]` field.
    pub fn journal<S: Folded>(&mut self, field: &'a mut Journal<S>, spec: JournalSpec) {
        self.parts.push((spec.store, Box::new((field, spec))));
    }

    /// Loads all parts: each store is asked once, and all of them at the same time.
    pub(crate) async fn load(self, slot: &Arc<dyn AnySlot>) -> Result<(), StateError> {
        let actor = slot.id();
        let mut groups: Vec<Group<'a>> = Vec::new();
        for (store_name, part) in self.parts {
            let named = slot.store(store_name);
            let named = named.ok_or_else(|| whole(&actor, StateCause::NoStore(store_name)))?;
            // Two names of one store are one store: an activation has one fence in it.
            match groups.iter_mut().find(|group| Arc::ptr_eq(&group.named.outbox, &named.outbox)) {
                Some(group) => group.parts.push(part),
                None => groups.push(Group { store_name, named, parts: vec![part] }),
            }
        }
        let loads = groups.iter_mut().map(|group| group.load(&actor));
        let loaded: Vec<Loaded> = join_all(loads).await.into_iter().collect::<Result<_, _>>()?;
        let mut binds = Vec::new();
        // In the order of the fields, so that the first keeper is the same one in each activation.
        for (group, loaded) in groups.iter_mut().zip(loaded) {
            let keeper = slot.keep(group.store_name, group.named.clone(), loaded.last);
            binds.push(group.bind(keeper, Arc::new(loaded)));
        }
        join_all(binds).await.into_iter().collect()
    }

    /// What is still to be written of all parts.
    pub(crate) fn behind(self) -> Vec<Arc<Behind>> {
        self.parts.iter().filter_map(|(_, part)| part.behind()).collect()
    }
}

/// The parts that are in one store.
struct Group<'a> {
    store_name: &'static str,
    named: Named,
    parts: Vec<Box<dyn KeptPart + 'a>>,
}

impl Group<'_> {
    async fn load(&mut self, actor: &ActorId) -> Result<Loaded, StateError> {
        let mut wanted = Wanted::default();
        self.parts.iter().for_each(|part| part.want(&mut wanted));
        let address = Address::from(actor);
        self.named.store.actors.load(&address, &wanted).await.map_err(|cause| whole(actor, cause))
    }

    async fn bind(&mut self, keeper: Arc<Keeper>, loaded: Arc<Loaded>) -> Result<(), StateError> {
        let mut asked = Wanted::default();
        let mut binds = Vec::with_capacity(self.parts.len());
        for part in &mut self.parts {
            let (slots, journals) = (asked.slots.len(), asked.journals.len());
            part.want(&mut asked);
            let index = if asked.slots.len() > slots { slots } else { journals };
            binds.push(part.bind(&keeper, Found { loaded: loaded.clone(), index }));
        }
        join_all(binds).await.into_iter().collect()
    }
}

fn whole(actor: &ActorId, cause: impl Into<StateCause>) -> StateError {
    StateError::new(actor.clone(), Part::Whole, cause)
}

impl<T: Stored> KeptPart for (&mut State<T>, StateSpec) {
    fn want(&self, wanted: &mut Wanted) {
        wanted.slots.push(self.1.name.into());
    }

    fn bind<'b>(
        &'b mut self,
        keeper: &'b Arc<Keeper>,
        found: Found,
    ) -> BoxFuture<'b, Result<(), StateError>> {
        let record = found.loaded.slots.get(found.index).and_then(Option::as_ref);
        keeper.set_etag(self.1.name, record.map(|record| record.etag));
        let bound = self.0.bind(keeper, self.1, record.map(|record| &record.value));
        Box::pin(std::future::ready(bound))
    }

    fn behind(&self) -> Option<Arc<Behind>> {
        self.0.behind()
    }
}

impl<S: Folded> KeptPart for (&mut Journal<S>, JournalSpec) {
    fn want(&self, wanted: &mut Wanted) {
        wanted.journals.push(self.1.name.into());
    }

    fn bind<'b>(
        &'b mut self,
        keeper: &'b Arc<Keeper>,
        found: Found,
    ) -> BoxFuture<'b, Result<(), StateError>> {
        let head = found.loaded.journals.get(found.index).cloned().unwrap_or_default();
        Box::pin(self.0.bind(keeper, self.1, head))
    }

    fn behind(&self) -> Option<Arc<Behind>> {
        None
    }
}
