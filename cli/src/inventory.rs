//! `quark inventory`: what this machine has.

use anyhow::Context as _;
use quark::devices::{
    capture,
    inventory::Inventory,
    probe::{ProbeOptions, probe},
    render,
    sample::{self, Sampler},
};
use std::{
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The shortest pause between two samples: NVML and the kernel refresh their counters some ten times a second.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest pause: beyond a day nobody watches.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints the whole value as JSON
    #[arg(long)]
    json: bool,
    /// Shows the machine that a topology file describes instead of this one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "capture"])]
    topology: Option<PathBuf>,
    /// Reads a captured tree (DIR/sys, DIR/proc) instead of this machine
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Writes the files the probes read into an archive, to look at this machine from afar
    #[arg(long, value_name = "FILE.tar.gz")]
    capture: Option<PathBuf>,
    /// Counts software adapters (llvmpipe) among the GPUs
    #[arg(long)]
    software: bool,
    /// Shows how busy CPUs, memory and GPUs are, until interrupted; with --json one object a line
    #[arg(long, conflicts_with_all = ["topology", "root", "capture"])]
    watch: bool,
    /// The pause between two samples, such as 500ms or 2s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval, requires = "watch")]
    interval: Duration,
    /// Ends --watch after this many samples
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    samples: Option<u64>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|cause| format!("{cause}; write 500ms or 2s"))?;
    if duration < MIN_INTERVAL {
        return Err(format!("the shortest is {}", humantime::format_duration(MIN_INTERVAL)));
    }
    if duration > MAX_INTERVAL {
        return Err(format!("the longest is {}", humantime::format_duration(MAX_INTERVAL)));
    }
    Ok(duration)
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(path) = &args.capture {
        return take_capture(args, path, &mut out);
    }
    let inventory = probe(&options(args))?;
    if args.watch {
        return watch(args, &inventory, &mut out);
    }
    show(args, &inventory, &mut out)
}

fn options(args: &Args) -> ProbeOptions {
    let mut options = ProbeOptions::default();
    if let Some(file) = &args.topology {
        options = options.topology(file);
    }
    if let Some(dir) = &args.root {
        options = options.root(dir);
    }
    options
}

fn show(args: &Args, inventory: &Inventory, out: &mut impl Write) -> anyhow::Result<()> {
    if args.json {
        serde_json::to_writer_pretty(&mut *out, inventory).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let style = render::Style::default().software_counts(args.software);
        let style = match terminal_width() {
            Some(columns) => style.width(columns),
            None => style,
        };
        out.write_all(render::table_with(inventory, &style).as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

/// The terminal's width; `None` when stdout is a file or a pipe.
fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

fn take_capture(args: &Args, path: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let captured = match &args.root {
        Some(dir) => capture::capture_tree(dir, path),
        None => capture::capture(path),
    }
    .context("nothing was captured")?;
    if args.json {
        return show(args, &captured.inventory, out);
    }
    writeln!(out, "{} files ({}) in {}", captured.files, captured.bytes, path.display())?;
    writeln!(
        out,
        "to look at them: mkdir DIR && tar xzf {} -C DIR && quark inventory --root DIR",
        path.display()
    )?;
    out.flush()?;
    Ok(())
}

fn watch(args: &Args, inventory: &Inventory, out: &mut impl Write) -> anyhow::Result<()> {
    let mut sampler = Sampler::new(inventory);
    // On a terminal each sample takes the place of the one before; a file keeps them all.
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let mut left = args.samples.unwrap_or(u64::MAX);
    while left > 0 {
        // A load is the difference of two readings, so the pause comes first.
        thread::sleep(args.interval);
        let taken = sampler.sample();
        if args.json {
            serde_json::to_writer(&mut *out, &taken).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            write!(out, "{clear}{}", sample::render(&taken))?;
            for note in sampler.notes() {
                writeln!(out, "  {note}")?;
            }
        }
        out.flush()?;
        left -= 1;
    }
    Ok(())
}
