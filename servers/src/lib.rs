//! Real servers for tests and benchmarks: a PostgreSQL, a Redis.
//!
//! What belongs here: finding and starting them, and ending them with whoever asked. What does not: anything that the
//! product needs, or that knows a store.
//!
//! - [`Server::postgres`], [`Server::redis`]: whichever way there is, in this order: an address in the environment,
//!   a container, the machine's own programs
//! - [`local`]: the machine's own programs, each on a free port of the loopback and in a folder of its own
//! - `containers`: the same in containers (feature `containers`)
//!
//! `cargo xtask test` starts one of each and passes their addresses on, so that tests share them; a test that is run
//! without it starts its own. Where no server can be had, that is an error that says what to install.

#[cfg(feature = "containers")]
mod containers;
#[cfg(not(feature = "containers"))]
#[path = "containers_off.rs"]
mod containers;
pub mod local;

use std::fmt;

/// Where a running PostgreSQL may be told: an address with a user that may make schemas.
pub const POSTGRES_VARIABLE: &str = "QUARK_TEST_POSTGRES";
/// Where a running Redis may be told.
pub const REDIS_VARIABLE: &str = "QUARK_TEST_REDIS";

/// A server that runs at least as long as this value.
pub struct Server {
    address: String,
    kind: Kind,
}

/// How a server came to run, and what ends it when dropped.
enum Kind {
    /// Somebody else's.
    Given,
    Local(local::Process),
    #[cfg_attr(not(feature = "containers"), expect(dead_code, reason = "there is no such value then"))]
    Container(Box<containers::Container>),
}

impl Server {
    /// A PostgreSQL, shared if the environment names one.
    ///
    /// # Errors
    ///
    /// If there is none to be had; the text says what to install.
    pub async fn postgres() -> Result<Self, StartError> {
        if let Some(given) = Self::given(POSTGRES_VARIABLE) {
            return Ok(given);
        }
        match containers::postgres().await? {
            Some(container) => Ok(container),
            None => local::postgres(&[]),
        }
    }

    /// A Redis, shared if the environment names one.
    ///
    /// # Errors
    ///
    /// If there is none to be had; the text says what to install.
    pub async fn redis() -> Result<Self, StartError> {
        if let Some(given) = Self::given(REDIS_VARIABLE) {
            return Ok(given);
        }
        match containers::redis().await? {
            Some(container) => Ok(container),
            None => local::redis(&[]),
        }
    }

    /// A PostgreSQL in a container; `None` without an engine or its image, and without the feature `containers`.
    ///
    /// # Errors
    ///
    /// If the container does not start.
    pub async fn postgres_container() -> Result<Option<Self>, StartError> {
        containers::postgres().await
    }

    /// A Redis in a container; `None` without an engine or its image, and without the feature `containers`.
    ///
    /// # Errors
    ///
    /// If the container does not start.
    pub async fn redis_container() -> Result<Option<Self>, StartError> {
        containers::redis().await
    }

    fn given(variable: &str) -> Option<Self> {
        let address = std::env::var(variable).ok().filter(|address| !address.is_empty())?;
        Some(Self { address, kind: Kind::Given })
    }

    /// Its address, such as `postgres://user:password@127.0.0.1:50000/postgres`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process, if it is the machine's own program and ours: to stop it and start it again.
    pub fn process(&mut self) -> Option<&mut local::Process> {
        match &mut self.kind {
            Kind::Local(process) => Some(process),
            Kind::Given | Kind::Container(_) => None,
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Given => "given",
            Kind::Local(_) => "local",
            Kind::Container(container) => containers::name(container),
        };
        write!(f, "Server({}, {kind})", self.address)
    }
}

/// Why no server runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program is not on this machine.
    #[error(
        "no {program} on this machine; install it (Debian: `apt-get install {package}`, or `cargo xtask setup`), or \
         name a running one in {variable}"
    )]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// Debian's package of it.
        package: &'static str,
        /// What can name a running one.
        variable: &'static str,
    },
    /// A program ended or said no.
    #[error("{program} does not start: {output}")]
    Failed {
        /// The program.
        program: String,
        /// What it said.
        output: String,
    },
    /// A folder or process could not be made.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The container engine could not do it.
    #[error("the container does not start: {0}")]
    Container(String),
}
