//! The `quark` command: a short dispatch; each subcommand has a module of its own.
//!
//! An error is one line on stderr that says what to do, with exit code 1; wrong usage is one line too, with
//! exit code 2. A reader that closes the pipe (`quark inventory | head`) is no error.

mod demo;
mod gpu_check;
mod inventory;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::{
    io::{self, Write as _},
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

/// Virtual actors that know the hardware they run on.
#[derive(Debug, Parser)]
#[command(name = "quark", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what this machine has: CPUs, NUMA nodes, memory, GPUs
    Inventory(inventory::Args),
    /// Runs a demonstration on this machine's devices
    Demo(demo::Args),
    /// Checks and measures this machine's GPUs, and reports it in Markdown
    GpuCheck(gpu_check::Args),
}

/// What shells and clap mean by it.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    quiet_vulkan();
    show_log();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return wrong_usage(&usage),
    };
    let outcome = match cli.command {
        Command::Inventory(args) => inventory::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::GpuCheck(args) => gpu_check::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr closed too there is nobody left to tell.
            let _ = writeln!(io::stderr(), "error: {}", one_line(&told(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Help and version as clap writes them; an error as one line, with what to write instead.
fn wrong_usage(usage: &clap::Error) -> ExitCode {
    if !usage.use_stderr() || usage.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        usage.exit();
    }
    // With stderr closed too there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{}", one_line(&usage.to_string()));
    ExitCode::from(WRONG_USAGE)
}

/// Shows what the layers below log where `RUST_LOG` asks for it; otherwise stderr holds nothing but errors.
fn show_log() {
    if let Ok(filter) = EnvFilter::try_from_default_env() {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// The error and its causes, each once: many name their cause in their own words.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        known if known.contains(&cause) => told,
        known => format!("{known}: {cause}"),
    })
}

/// Errors from below may hold line breaks; a log reader counts on one line for one error.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Mesa's Vulkan drivers write "error: XDG_RUNTIME_DIR is invalid or not set" to stderr where it isn't set (in
/// containers, over sudo), though nothing here opens a window. Any directory satisfies them.
fn quiet_vulkan() {
    const NAME: &str = "XDG_RUNTIME_DIR";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: this is the first statement of main, so no other thread runs that could read or write the
        // environment at the same time.
        unsafe { std::env::set_var(NAME, std::env::temp_dir()) };
    }
}
