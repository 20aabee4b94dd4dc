//! The stores of one silo, by the names that actors know them by.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::reminders::bell::Bell;
use crate::store::{HealthState, Store};

/// A store of a silo.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) store: Store,
    /// Told when a commit of this silo has put messages into an outbox there.
    pub(crate) outbox: Arc<Notify>,
    /// Told when this silo has set or removed a reminder there.
    pub(crate) reminders: Arc<Bell>,
}

/// One of a silo's stores, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// The name that actors know it by.
    pub name: String,
    /// Where it is, without secrets.
    pub place: Arc<str>,
    /// Whether it answers, as far as is known now.
    pub health: HealthState,
}

/// The stores of one silo. Fixed once it has started.
#[derive(Debug, Default)]
pub(crate) struct Stores(BTreeMap<String, Named>);

impl Stores {
    pub(crate) fn new(stores: BTreeMap<String, Store>) -> Self {
        let mut named: BTreeMap<String, Named> = BTreeMap::new();
        for (name, store) in stores {
            let twin = named.values().find(|other| Arc::ptr_eq(&other.store.actors, &store.actors));
            let (outbox, reminders) =
                twin.map_or_else(Default::default, |twin| (twin.outbox.clone(), twin.reminders.clone()));
            named.insert(name, Named { store, outbox, reminders });
        }
        Self(named)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Named> {
        self.0.get(name).cloned()
    }

    /// The stores of these names, each once.
    pub(crate) fn distinct_of(&self, names: &[&str]) -> Vec<Named> {
        let mut distinct: Vec<Named> = Vec::new();
        for named in names.iter().filter_map(|name| self.0.get(*name)) {
            if !distinct.iter().any(|other| Arc::ptr_eq(&other.outbox, &named.outbox)) {
                distinct.push(named.clone());
            }
        }
        distinct
    }

    /// How all of them are.
    pub(crate) fn status(&self) -> Vec<StoreStatus> {
        let status = |(name, named): (&String, &Named)| StoreStatus {
            name: name.clone(),
            place: named.store.name.clone(),
            health: named.store.health.state(),
        };
        self.0.iter().map(status).collect()
    }

    /// Each store once, by whatever of its names.
    pub(crate) fn distinct(&self) -> Vec<Named> {
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        self.distinct_of(&names)
    }
}
