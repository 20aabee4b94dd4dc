//! The store in memory keeps the ports' promises.

use quark_runtime::store::Store;
use quark_storage::conformance::Fixture;

struct InMemory(Store);

impl Fixture for InMemory {
    async fn set_up() -> Self {
        Self(quark_storage::memory())
    }

    async fn open(&self) -> Store {
        self.0.clone()
    }
}

quark_storage::conformance_tests!(InMemory);
quark_storage::stream_conformance_tests!(InMemory);
