//! A store in this process's memory: for tests, for development, and as what the others are compared with.
//!
//! It is the plainest thing that keeps the ports' promises. What it holds ends with its last clone.

mod actors;
mod reminders;
mod streams;

use std::sync::Arc;

use quark_runtime::store::{Health, HealthState, Store};

/// A new, empty store. Its clones share what it holds; two calls share nothing.
pub fn memory() -> Store {
    Store {
        name: "memory://".into(),
        actors: Arc::new(actors::Actors::default()),
        reminders: Arc::new(reminders::Reminders::default()),
        streams: Some(Arc::new(streams::Streams::default())),
        health: Arc::new(AlwaysUp),
    }
}

struct AlwaysUp;

impl Health for AlwaysUp {
    fn state(&self) -> HealthState {
        HealthState::Up
    }
}
