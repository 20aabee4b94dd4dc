//! The fields of an actor that are stored, and how they are loaded when it is activated.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use super::behind::Behind;
use super::keeper::Keeper;
use super::{Part, State, StateCause, StateError, StateSpec, Stored};
use crate::journal::{Folded, Journal, JournalSpec};
use crate::store::{Loaded, Wanted};
use crate::turn::AnySlot;

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
    pub(crate) async fn load(mut self, slot: &Arc<dyn AnySlot>) -> Result<(), StateError> {
        let mut stores: Vec<&'static str> = Vec::new();
        for (store, _) in &self.parts {
            if !stores.contains(store) {
                stores.push(store);
            }
        }
        let mut by_store: Vec<(&'static str, Vec<Box<dyn KeptPart + 'a>>)> =
            stores.into_iter().map(|store| (store, Vec::new())).collect();
        for (store, part) in self.parts.drain(..) {
            if let Some((_, parts)) = by_store.iter_mut().find(|(name, _)| *name == store) {
                parts.push(part);
            }
        }
        let loads = by_store.into_iter().map(|(store, parts)| load_from(slot, store, parts));
        join_all(loads).await.into_iter().collect()
    }

    /// What is still to be written of all parts.
    pub(crate) fn behind(self) -> Vec<Arc<Behind>> {
        self.parts.iter().filter_map(|(_, part)| part.behind()).collect()
    }
}

async fn load_from(
    slot: &Arc<dyn AnySlot>,
    store_name: &'static str,
    mut parts: Vec<Box<dyn KeptPart + '_>>,
) -> Result<(), StateError> {
    let actor = slot.id();
    let failed = |cause: StateCause| StateError::new(actor.clone(), Part::Whole, cause);
    let named = slot.store(store_name).ok_or_else(|| failed(StateCause::NoStore(store_name)))?;
    let mut wanted = Wanted::default();
    let mut indices = Vec::with_capacity(parts.len());
    for part in &parts {
        let (slots, journals) = (wanted.slots.len(), wanted.journals.len());
        part.want(&mut wanted);
        indices.push(if wanted.slots.len() > slots { slots } else { journals });
    }
    let address = crate::store::Address::from(&actor);
    let loaded = named.store.actors.load(&address, &wanted).await.map_err(|cause| failed(cause.into()))?;
    let keeper = slot.keep(store_name, named, loaded.epoch);
    let loaded = Arc::new(loaded);
    let binds = parts.iter_mut().zip(indices).map(|(part, index)| {
        let found = Found { loaded: loaded.clone(), index };
        part.bind(&keeper, found)
    });
    join_all(binds).await.into_iter().collect()
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
