//! A part of a PostgreSQL for each test.

use std::time::{SystemTime, UNIX_EPOCH};

use quark_servers::Server;
use quark_storage::StoreUrl;

/// A schema of its own on a server, which tests may share.
pub(crate) struct Database {
    pub(crate) server: Server,
    schema: String,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let server = Server::postgres().await;
        Self::on(server.unwrap_or_else(|error| panic!("this test needs a PostgreSQL: {error}")))
    }

    /// On a server of one's own, to do harm to.
    pub(crate) fn on(server: Server) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let schema = format!("test_{}_{}", std::process::id(), since_1970.as_nanos());
        Self { server, schema }
    }

    /// Its address, with few connections, and with more settings such as `&pool=4`.
    pub(crate) fn url(&self, settings: &str) -> StoreUrl {
        let Self { server, schema } = self;
        let url = format!("{}&schema={schema}&pool=6{settings}", server.address());
        url.parse().expect("the address of a test's server")
    }
}
