//! Installs what the tests need, where that is one command.

use std::process::Command;

use anyhow::bail;

use crate::{host, shell};

/// What the tests need beyond Rust and a C compiler: a software Vulkan driver for the wgpu path, what the feature
/// `hwloc` links, and the servers that stores are tested with. None is needed to build or run Quark.
const PACKAGES: [&str; 6] =
    ["mesa-vulkan-drivers", "libhwloc-dev", "libudev-dev", "pkg-config", "postgresql", "redis-server"];

/// The same for those who have no apt-get.
const OTHERWISE: &str = "install a Vulkan driver (Mesa's llvmpipe will do), hwloc, libudev and pkg-config with their \
                         headers, PostgreSQL and Redis";

/// `cargo xtask setup`.
pub(crate) fn run() -> anyhow::Result<()> {
    if !host::is_debian() {
        bail!("this is no Debian or Ubuntu; {OTHERWISE}");
    }
    let missing = missing_packages();
    if missing.is_empty() {
        eprintln!("everything is there: {}", PACKAGES.join(", "));
        return Ok(());
    }
    if !host::is_root() {
        println!("{}", line_to_type(&missing));
        return Ok(());
    }
    install(&missing)
}

/// Installs what is missing if that can be done here, and says so if not. Never an error: the tests then tell
/// what can't run without it.
pub(crate) fn install_if_possible() {
    let missing = if host::is_debian() && host::is_root() { missing_packages() } else { Vec::new() };
    if !missing.is_empty()
        && let Err(error) = install(&missing)
    {
        eprintln!("xtask: {error:#}");
    }
}

/// How to get what is missing here.
pub(crate) fn advice() -> String {
    if host::is_debian() {
        // Installed and still not found (a broken driver): naming all of them is the best that can be said.
        let missing = missing_packages();
        line_to_type(if missing.is_empty() { &PACKAGES } else { &missing })
    } else {
        OTHERWISE.into()
    }
}

fn line_to_type(missing: &[&str]) -> String {
    format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", missing.join(" "))
}

fn install(missing: &[&str]) -> anyhow::Result<()> {
    // Stale lists may still do, so a failed update isn't the end.
    if let Err(error) = shell::must(apt().arg("update")) {
        eprintln!("xtask: {error:#}; trying with the package lists as they are");
    }
    shell::must(apt().args(["install", "-y", "--no-install-recommends"]).args(missing))
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    // Another apt may hold the lock for a while on a fresh machine.
    apt.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-q",
        "-o",
        "DPkg::Lock::Timeout=120",
        "-o",
        "Acquire::Retries=3",
    ]);
    apt
}

fn missing_packages() -> Vec<&'static str> {
    PACKAGES.into_iter().filter(|package| !is_installed(package)).collect()
}

fn is_installed(package: &str) -> bool {
    let mut ask = Command::new("dpkg-query");
    shell::ask(ask.args(["-W", "-f", "${db:Status-Status}", package]))
        .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_type_names_only_what_is_missing() {
        let line = line_to_type(&["libudev-dev", "pkg-config"]);
        assert!(line.ends_with("install -y --no-install-recommends libudev-dev pkg-config"), "{line}");
    }

    #[test]
    fn a_package_that_is_not_there_is_not_installed() {
        assert!(!is_installed("no-such-package-anywhere"));
    }
}
