//! Proofs about the turn engine's unsafe code: models of its interleavings, and the tests under a memory checker.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::shell;

/// The target of the sanitizer's build; naming it keeps the flags from build scripts.
const SANITIZED_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Explores the interleavings of the turn engine's models (`runtime/src/turn/models.rs`) with loom.
pub(crate) fn loom(root: &Path, preemptions: Option<u32>) -> anyhow::Result<()> {
    let mut models = shell::cargo(root, ["test", "-p", "quark-runtime", "--lib", "--profile", "models"]);
    models.args(["--", "turn::models::"]);
    flagged(&mut models, root, "loom", "--cfg quark_loom");
    if let Some(preemptions) = preemptions {
        models.env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
    }
    shell::must(&mut models)
}

/// Runs the runtime's tests under AddressSanitizer. It comes with nightly compilers only.
pub(crate) fn asan(root: &Path) -> anyhow::Result<()> {
    let mut tests = nightly(root)?;
    tests.args(["test", "-p", "quark-runtime", "-p", "quark-tests", "--lib", "--tests"]);
    tests.args(["--target", SANITIZED_TARGET, "--no-fail-fast"]);
    // The compile errors of the macros are no matter of memory, and the sanitizer's own bytes are no actor's.
    tests.args(["--", "--skip", "trybuild"]);
    for counted in ["an_idle_activation_costs", "actors_that_are_gone_leave_nothing"] {
        tests.args(["--skip", counted]);
    }
    flagged(&mut tests, root, "asan", "-Zsanitizer=address");
    // Threads of a silo that a test drops may outlive it by a moment.
    tests.env("ASAN_OPTIONS", "detect_leaks=0");
    shell::must(&mut tests)
}

/// Runs the turn engine's unit tests under Miri, which needs a nightly compiler with its sources.
pub(crate) fn miri(root: &Path) -> anyhow::Result<()> {
    let mut tests = nightly(root)?;
    if !shell::succeeds(nightly(root)?.args(["miri", "--version"])) {
        bail!("Miri is not here; get it with: rustup +nightly component add miri rust-src");
    }
    tests.args(["miri", "test", "-p", "quark-runtime", "--lib", "--", "turn::"]);
    tests.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks");
    shell::must(&mut tests)
}

fn nightly(root: &Path) -> anyhow::Result<Command> {
    let mut rustup = Command::new("rustup");
    if !shell::succeeds(rustup.args(["run", "nightly", "rustc", "--version"])) {
        bail!("no nightly compiler is here; get one with: rustup toolchain install nightly");
    }
    let mut cargo = Command::new("rustup");
    cargo.current_dir(root).args(["run", "nightly", "cargo"]);
    Ok(cargo)
}

/// Builds with `flags` into a folder of its own, so that the ordinary build stays as it is.
fn flagged(command: &mut Command, root: &Path, folder: &str, flags: &str) {
    command.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", root.join("target").join(folder));
}
