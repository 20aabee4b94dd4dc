//! `cargo xtask crash-test`: what a killed process had acknowledged is still there.

use std::path::Path;

use clap::Args;

use crate::shell;

/// Which store, and how often.
#[derive(Args)]
pub(crate) struct CrashTestArgs {
    /// sqlite, postgres or redis, of which one is started; or the address of one that runs
    #[arg(long, default_value = "sqlite")]
    store: String,
    /// How often the process is killed
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// What the times of the kills and the order of the work come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the `crash` program of the tests (`tests/src/bin/crash/`).
pub(crate) fn run(root: &Path, args: &CrashTestArgs) -> anyhow::Result<()> {
    let mut crash = shell::cargo(root, ["run", "-p", "quark-tests", "--bin", "crash", "--"]);
    crash.args([
        "--store",
        &args.store,
        "--kills",
        &args.kills.to_string(),
        "--seed",
        &args.seed.to_string(),
    ]);
    shell::must(&mut crash)
}
