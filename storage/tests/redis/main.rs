//! The store on Redis keeps the ports' promises, on servers that these tests start, and through what happens to them.

mod cluster;
mod faults;
mod proxy;
mod sentinel;
mod server;
mod tls;

use quark_runtime::store::Store;
use quark_storage::conformance::Fixture;
use quark_storage::redis::{RedisSettings, open};

use server::Server;

/// A server of its own for each case.
struct OnRedis(Server);

impl Fixture for OnRedis {
    async fn set_up() -> Self {
        Self(Server::start(&[]).await)
    }

    async fn open(&self) -> Store {
        open_url(&self.0.url()).await
    }
}

quark_storage::conformance_tests!(OnRedis);
quark_storage::stream_conformance_tests!(OnRedis);

fn settings(url: &str) -> RedisSettings {
    url.parse().expect("an address")
}

async fn open_url(url: &str) -> Store {
    open(settings(url)).await.expect("a store")
}
