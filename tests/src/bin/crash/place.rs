//! Where the store is.

use quark::Result;
use quark_servers::Server;

/// A store that is there as long as this value.
pub(crate) enum Place {
    /// A file in a folder of its own.
    File { address: String, _folder: tempfile::TempDir },
    /// A server that was started for this, or that the environment names.
    Server(Server),
    /// Somebody else's.
    Given(String),
}

/// Makes the store that `name` asks for, or takes it as the address of one.
pub(crate) async fn find(name: &str) -> Result<Place> {
    Ok(match name {
        "sqlite" => {
            let folder = tempfile::tempdir()?;
            let address = format!("sqlite://{}", folder.path().join("crash.db").display());
            Place::File { address, _folder: folder }
        }
        "postgres" => Place::Server(Server::postgres().await?),
        "redis" => Place::Server(Server::redis().await?),
        address => Place::Given(address.to_owned()),
    })
}

impl Place {
    pub(crate) fn address(&self) -> &str {
        match self {
            Self::File { address, .. } | Self::Given(address) => address,
            Self::Server(server) => server.address(),
        }
    }
}
