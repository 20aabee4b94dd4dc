//! `quark demo vision`: the same run of cameras without prewarming and with it, and what each frame waited.
//!
//! - `target`: which device; `belt`: the frames; `plan`: who sees what when, from the seed
//! - `phase`: one silo's run; `report`: what came out, as text and as JSON

mod belt;
mod phase;
mod plan;
mod report;
mod target;

use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use quark::ByteSize;
use quark::devices::inventory::Inventory;
use quark::devices::probe::this_machine;
use quark::devices::sample::Sampler;
use quark_vision::Weights;

use self::belt::Belt;
use self::phase::{Phase, Stage};
use self::plan::Plan;
pub(crate) use self::report::Report;
use self::report::Run;
pub(crate) use self::target::Choice;
use self::target::Target;

/// More cameras than this are more than any one machine's demo needs.
const CAMERAS_MAX: u32 = 256;
/// A burst of this many frames takes about three minutes.
const FRAMES_MAX: u32 = 10_000;
/// Rounds of one phase.
const ROUNDS_MAX: u32 = 1_000;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Cameras that watch the conveyor
    #[arg(long, value_name = "N", default_value = "8",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(CAMERAS_MAX)))]
    pub(crate) cameras: u32,
    /// Frames in a camera's burst
    #[arg(long, value_name = "N", default_value = "30",
          value_parser = clap::value_parser!(u32).range(2..=i64::from(FRAMES_MAX)))]
    pub(crate) frames: u32,
    /// Bursts a camera sends in each of the two phases; as many as make meaningful percentiles in ten seconds
    /// unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)))]
    pub(crate) rounds: Option<u32>,
    /// Decides what the frames show and who moves when
    #[arg(long, value_name = "N", default_value = "20261120")]
    pub(crate) seed: u64,
    /// What runs the network; auto takes CUDA, else Vulkan on a GPU, else the CPU
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: Choice,
    /// Leases out at most this much of each device, such as 512MiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) vram: Option<ByteSize>,
    /// Takes the PNG files of this folder as the cameras' frames
    #[arg(long, value_name = "DIR")]
    pub(crate) frames_from: Option<PathBuf>,
    /// Uses these weights (safetensors) instead of the trained network's
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Prints one JSON object instead of the report
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// The defaults, on this device.
    pub(crate) fn on(device: Choice) -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: Args,
        }
        let defaults = <Alone as clap::Parser>::parse_from(["demo"]).args;
        Self { device, ..defaults }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let report = measure(args, this_machine())?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    Ok(())
}

/// Makes the run on one of the inventory's devices. Blocks until it is over.
pub(crate) fn measure(args: &Args, inventory: Inventory) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let target = Target::choose(inventory, args.device, args.vram)?;
    // Each activation reads the file anew; a bad one is told before anything is started.
    if let Some(file) = &args.model {
        Weights::load(file)?;
    }
    let rounds = args.rounds.unwrap_or_else(|| plan::rounds_for(args.cameras, args.frames));
    let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    let belt = match &args.frames_from {
        Some(folder) => Belt::of_pngs(folder)?,
        None => Belt::drawn(args.seed, args.cameras, args.frames.saturating_mul(rounds.get()))?,
    };
    let plan = Plan::new(args.seed, args.cameras, args.frames, rounds);
    let bar = progress_bar(plan.frames() * 2);
    let phase = Phase {
        target: &target,
        belt: Arc::new(belt),
        plan: &plan,
        model: args.model.clone(),
        bar: bar.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context(
        "the demo's threads could not be started; free some memory or raise the limit of processes",
    )?;
    // The processors alone: a load is the difference of two readings, and this is the first.
    let mut sampler = Sampler::new(&Inventory::default());
    sampler.sample();
    let (cold, warm) = runtime.block_on(async {
        let cold = phase.run(Stage::Cold).await?;
        let warm = phase.run(Stage::Warm).await?;
        Ok::<_, anyhow::Error>((cold, warm))
    })?;
    bar.finish_and_clear();
    let cpu_load = sampler.sample().cpu.map(|cpu| cpu.total);
    Ok(Report::new(&target, &plan, args, cold, warm, Run { took: begun.elapsed(), cpu_load }))
}

/// Draws itself only where stderr is a terminal.
fn progress_bar(frames: u64) -> ProgressBar {
    let bar = ProgressBar::new(frames);
    let style =
        ProgressStyle::with_template("{msg:<22} {bar:40.cyan/blue} {pos:>6}/{len} frames  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
