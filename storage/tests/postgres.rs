//! The store in a PostgreSQL keeps the ports' promises.

mod postgres_support;

use postgres_support::Database;
use quark_runtime::store::Store;
use quark_storage::conformance::Fixture;

impl Fixture for Database {
    async fn set_up() -> Self {
        Self::new().await
    }

    async fn open(&self) -> Store {
        quark_storage::open(&self.url("")).await.expect("a PostgreSQL can be opened")
    }
}

quark_storage::conformance_tests!(Database);
