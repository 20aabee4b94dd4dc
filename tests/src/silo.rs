//! Silos on simulated machines, so that a test means the same on a laptop and on a server.

use std::path::PathBuf;

use quark::{Silo, SiloBuilder};

/// A topology file that ships with Quark, by its name.
pub fn topology(name: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../devices/topologies").join(name);
    file.with_extension("toml")
}

/// A silo on a machine with one NUMA node: it runs on the test's own tokio runtime, and calls are inline.
pub fn builder() -> SiloBuilder {
    builder_on("laptop")
}

/// A silo on the machine of the named topology file.
pub fn builder_on(machine: &str) -> SiloBuilder {
    Silo::builder().topology(topology(machine))
}
