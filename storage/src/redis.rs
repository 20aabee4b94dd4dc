//! Redis: one server, a cluster, or a server that sentinels watch.
//!
//! - `settings.rs` where it is and how it is spoken to
//! - `dial.rs`, `link.rs`, `routes.rs`, `client.rs` connections, and which node answers for what; `writer.rs` commits
//!   that are sent together
//! - `keys.rs`, `pack.rs` the names of keys and how records are written; `scripts/` what runs at the server
//! - `actors.rs` with `commit.rs` and `feed.rs`, `reminders.rs`, `streams.rs` the ports
//!
//! **What is promised.** A commit is one Lua script, so it is wholly in or not at all. What is acknowledged survives as
//! far as the server's own settings promise: with `appendfsync everysec`, a crash of its machine may cost the last
//! second; with `appendfsync always`, nothing. A failover may lose what its replica did not have yet; an activation
//! that goes on then hears of it, as a conflict or as [`StoreError::Lost`]. A Redis that drops keys when its memory is
//! full (`allkeys-…`) is no store; a warning says so.

mod actors;
mod client;
mod commit;
mod dial;
mod error;
mod feed;
mod keys;
mod link;
mod pack;
mod reminders;
mod reply;
mod routes;
mod scripts;
mod settings;
mod streams;
mod writer;

use std::sync::Arc;

use quark_runtime::store::{Store, StoreError};

pub use settings::RedisSettings;

use client::Client;

/// Connects to a Redis.
///
/// # Errors
///
/// When nobody answers now, when it refuses us, or when it is older than 7.0. Once connected, the store connects again
/// by itself whenever it has to.
pub(crate) async fn open(settings: &RedisSettings) -> Result<Store, StoreError> {
    let client = Arc::new(Client::connect(settings.clone()).await?);
    Ok(Store {
        name: client.errors.store.clone(),
        actors: Arc::new(actors::Actors::new(client.clone())),
        reminders: Arc::new(reminders::Reminders::new(client.clone())),
        streams: Some(Arc::new(streams::Streams::new(client.clone()))),
        health: client,
    })
}
