//! A part of a PostgreSQL for each test.

#![allow(dead_code, reason = "each test file uses its own part of it")]

pub(crate) mod proxy;

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
        self.url_at(self.port(), settings)
    }

    /// The same through another port of the loopback. The sessions carry the schema as their name.
    pub(crate) fn url_at(&self, port: u16, settings: &str) -> StoreUrl {
        let Self { server, schema } = self;
        let address = server.address().replace(&format!(":{}/", self.port()), &format!(":{port}/"));
        let pool = if settings.contains("pool=") { "" } else { "&pool=6" };
        let url = format!("{address}&schema={schema}&application_name={schema}{pool}{settings}");
        url.parse().expect("the address of a test's server")
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The server's port.
    pub(crate) fn port(&self) -> u16 {
        let (before_path, _) = self.server.address().rsplit_once('/').expect("an address with a path");
        let (_, port) = before_path.rsplit_once(':').expect("an address with a port");
        port.parse().expect("a port")
    }
}
