//! Stores: what actors, reminders and durable streams are kept in.
//!
//! What belongs here: implementations of the runtime's store ports, and the suite that each of them passes. What does
//! not: what is kept, in which format, and when.
//!
//! - [`Stores`], [`open`]: from an address ([`StoreUrl`]) to a store
//! - [`memory()`]: in this process, the reference of the others
//! - `sqlite`, `postgres`: in a file, in a PostgreSQL. `batch` decides for both which commits of a batch go
//!   through; `known` spares SQLite the questions whose answers it has
//! - `redis`: in a Redis, a cluster of them, or one that sentinels watch
//! - [`conformance`]: what every store must do, as tests that run against any implementation

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod batch;
pub mod conformance;
mod fence;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod health;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod known;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(not(feature = "postgres"))]
#[path = "postgres_off.rs"]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(not(feature = "redis"))]
#[path = "redis_off.rs"]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(not(feature = "sqlite"))]
#[path = "sqlite_off.rs"]
mod sqlite;
mod stores;
mod url;

pub use memory::memory;
pub use postgres::PostgresSettings;
pub use redis::RedisSettings;
pub use sqlite::SqliteSettings;
pub use stores::{OpenError, Stores, open};
pub use url::{StoreUrl, StoreUrlError};

use quark_runtime::store::{FeedPosition, Group, StoreError};

/// A feed is to be read from a place that this store never gave out.
pub(crate) fn unknown_position(store: &str, position: &FeedPosition) -> StoreError {
    let cause = format!("{position:?} is no position of this store's feeds").into();
    StoreError::Unexpected { store: store.into(), cause }
}

/// A group that nobody opened is used.
pub(crate) fn unopened(store: &str, group: &Group) -> StoreError {
    let cause = format!("group {} of stream {} was never opened", group.name, group.namespace).into();
    StoreError::Unexpected { store: store.into(), cause }
}
