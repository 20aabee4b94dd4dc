//! The store on Redis keeps the ports' promises, on servers that these tests start, and through what happens to them.

#[path = "../certificates/mod.rs"]
mod certificates;
mod cluster;
mod faults;
mod proxy;
mod sentinel;
mod server;
mod tls;

use std::sync::atomic::{AtomicU32, Ordering};

use quark_runtime::store::{Store, StoreError};
use quark_storage::conformance::Fixture;
use quark_storage::{OpenError, StoreUrl};

/// Keys of one case's own, on whichever server there is.
struct OnRedis {
    server: quark_servers::Server,
    prefix: String,
}

impl Fixture for OnRedis {
    async fn set_up() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = quark_servers::Server::redis().await.unwrap_or_else(|error| panic!("{error}"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let prefix = format!("case-{}-{}-{number}", std::process::id(), now.as_nanos());
        Self { server, prefix }
    }

    async fn open(&self) -> Store {
        open_url(&format!("{}?prefix={}", self.server.address(), self.prefix)).await
    }
}

quark_storage::conformance_tests!(OnRedis);
quark_storage::stream_conformance_tests!(OnRedis);

fn url(text: &str) -> StoreUrl {
    text.parse().expect("an address")
}

async fn open_url(text: &str) -> Store {
    quark_storage::open(&url(text)).await.expect("a store")
}

/// Why a store cannot be opened.
async fn refused(text: &str) -> StoreError {
    match quark_storage::open(&url(text)).await {
        Err(OpenError::Store(error)) => error,
        other => panic!("it should not have opened: {other:?}"),
    }
}
