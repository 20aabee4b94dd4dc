//! The store in a SQLite file keeps the ports' promises.

use quark_runtime::store::Store;
use quark_storage::conformance::Fixture;
use tempfile::TempDir;

struct InFile(TempDir);

impl Fixture for InFile {
    async fn set_up() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    async fn open(&self) -> Store {
        let url = format!("sqlite://{}/store.db", self.0.path().display());
        quark_storage::open(&url.parse().expect("an address")).await.expect("a file can be opened")
    }
}

quark_storage::conformance_tests!(InFile);
quark_storage::stream_conformance_tests!(InFile);
