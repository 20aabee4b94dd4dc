//! `quark demo`: the main job, on real data, on this machine's devices.

pub(crate) mod vision;

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    demo: Demo,
}

#[derive(Debug, clap::Subcommand)]
enum Demo {
    /// Cameras watch a conveyor of handwritten digits; their analyzers are warm before the first frame
    Vision(vision::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.demo {
        Demo::Vision(args) => vision::run(args),
    }
}
