//! `cargo xtask`: the chores of this repository, in Rust so that they run wherever it builds.
//!
//! What does not belong here: anything the product needs at run time. Nothing depends on this crate.
//!
//! - [`mod@test`]: all tests, with what they need; [`ci`]: what a change must pass
//! - [`tidy`]: dependency direction, file sizes, bans
//! - [`crash_test`]: kills a process that writes to a store, and looks for what it acknowledged
//! - [`setup`]: installs what tests need on Debian and Ubuntu; [`images`]: container images of servers, from it
//! - [`gpu_check`]: one binary to carry to a machine with an NVIDIA GPU, and its results
//! - [`proofs`]: the turn engine under loom, AddressSanitizer and Miri
//! - [`shell`]: running other programs

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "talking to a terminal is what this program is for"
)]

mod ci;
mod crash_test;
mod gpu_check;
mod host;
mod images;
mod proofs;
mod setup;
mod shell;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of this repository", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs all tests; as root on Debian or Ubuntu it first installs what they need
    Test,
    /// Runs what a change must pass: format, clippy, docs, tidy, dependency bans, tests
    Ci,
    /// Checks dependency direction, file sizes and the bans of DESIGN.md
    Tidy,
    /// Runs the benchmarks; what follows `--` goes to them
    Bench {
        /// Arguments for the benchmarks, such as a filter
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Installs what the tests need (Debian and Ubuntu, as root), or prints the line to type
    Setup,
    /// Makes container images of the servers that tests need, from what is installed here
    Images,
    /// Explores the interleavings of the turn engine's models
    Loom {
        /// Involuntary switches to explore, instead of each model's own bound
        #[arg(long)]
        preemptions: Option<u32>,
    },
    /// Runs the runtime's tests under AddressSanitizer; needs a nightly compiler
    Asan,
    /// Runs the turn engine's unit tests under Miri; needs a nightly compiler with its sources
    Miri,
    /// Kills a process that writes to a store, again and again, and looks for what it had acknowledged
    CrashTest(crash_test::CrashTestArgs),
    /// Builds the one binary that checks a machine with an NVIDIA GPU, and runs it where there is one
    GpuCheck(gpu_check::GpuCheckArgs),
}

fn main() -> ExitCode {
    match run(Args::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let root = root()?;
    match task {
        Task::Test => test::run(&root),
        Task::Ci => ci::run(&root),
        Task::Tidy => tidy::run(&root),
        Task::Bench { args } => {
            let mut bench = shell::cargo(&root, ["bench", "-p", "quark-bench"]);
            if !args.is_empty() {
                bench.arg("--").args(args);
            }
            shell::must(&mut bench)
        }
        Task::Setup => setup::run(),
        Task::Images => images::run(),
        Task::Loom { preemptions } => proofs::loom(&root, preemptions),
        Task::Asan => proofs::asan(&root),
        Task::Miri => proofs::miri(&root),
        Task::CrashTest(args) => crash_test::run(&root, &args),
        Task::GpuCheck(args) => gpu_check::run(&root, &args),
    }
}

/// The workspace's folder: the parent of this crate's.
fn root() -> anyhow::Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("start this with `cargo xtask`")?;
    let parent = PathBuf::from(manifest).parent().map(PathBuf::from);
    parent.context("the folder of xtask has no parent")
}
