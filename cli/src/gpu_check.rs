//! `quark gpu-check`: what this machine's GPUs do with Quark, as a report in Markdown.
//!
//! Self-contained, so that the binary can be carried to a machine with a GPU: the inventory, then for each GPU and
//! each library that opens it the network against the oracle and the ledger's books, then the demo with its cold
//! and warm figures. A failed check makes the exit code nonzero; the report is whole all the same.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use quark::ByteSize;
use quark::devices::inventory::{Device, DeviceKind, Inventory, Source};
use quark::devices::pool::{DevicePool, PoolOptions};
use quark::devices::probe::this_machine;
use quark::devices::render;
use quark::placement::Api;
use quark_vision::Weights;
use quark_vision::detect::MAX_DETECTIONS;
use quark_vision::infer::check::{TOLERANCE, disagreement, random_patches};
use quark_vision::infer::vram_needed;
use quark_vision::leased::place;

use crate::demo::vision::{self, Choice};

/// Random inputs that each device is held against the oracle on: several batches, the last one not full.
const PATCHES: usize = 200;
const SEED: u64 = 20_261_120;
/// What a check leases.
const LEASE: ByteSize = ByteSize::mib(64);
/// What a warm first frame (99th percentile) may take more than a steady one (median).
const WARM_OVER_STEADY_MAX: Duration = Duration::from_millis(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Counts software adapters (llvmpipe) among the GPUs
    #[arg(long)]
    software: bool,
    /// Leaves the demo out
    #[arg(long)]
    no_demo: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let inventory = this_machine();
    let counts =
        |device: &Device| device.kind.is_gpu() || args.software && device.kind == DeviceKind::SoftwareAdapter;
    let gpus: Vec<Device> = inventory.devices.iter().filter(|device| counts(device)).cloned().collect();
    if gpus.is_empty() {
        bail!("this machine has no GPU that Quark sees; `quark inventory` shows what each library said");
    }
    let mut report = Report { out: io::stdout().lock(), checks: 0, failed: 0 };
    report.line(&format!("## Inventory\n\n```text\n{}\n```\n", render::table(&inventory).trim_end()))?;
    report.line("## Network and ledger\n")?;
    let inventory = Arc::new(inventory);
    for device in &gpus {
        for api in apis(device) {
            report.device(&inventory, device, api)?;
        }
    }
    if !args.no_demo {
        report.line("## Demo\n")?;
        for choice in choices(&gpus) {
            report.demo(choice, &inventory)?;
        }
    }
    let Report { checks, failed, .. } = report;
    report.line(&format!("## Result\n\n{} of {checks} checks passed.", checks - failed))?;
    if failed > 0 {
        bail!("{failed} of {checks} checks failed; the report says which");
    }
    Ok(())
}

/// The libraries that open a device.
fn apis(device: &Device) -> Vec<Api> {
    let known = [(Source::Cuda, Api::Cuda), (Source::Wgpu, Api::Wgpu)];
    known.into_iter().filter(|(source, _)| device.seen_by(*source)).map(|(_, api)| api).collect()
}

/// The demo's `--device` for the libraries that open any of these.
fn choices(gpus: &[Device]) -> Vec<Choice> {
    let any = |fits: &dyn Fn(&Device) -> bool| gpus.iter().any(fits);
    let mut choices = Vec::new();
    if any(&|device| device.kind.is_gpu() && device.seen_by(Source::Cuda)) {
        choices.push(Choice::Cuda);
    }
    if any(&|device| device.kind.is_gpu() && device.seen_by(Source::Wgpu)) {
        choices.push(Choice::Wgpu);
    }
    if any(&|device| device.kind == DeviceKind::SoftwareAdapter) {
        choices.push(Choice::Llvmpipe);
    }
    choices
}

/// Writes lines and counts failures.
struct Report<W> {
    out: W,
    checks: u32,
    failed: u32,
}

impl<W: Write> Report<W> {
    fn line(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{text}")?;
        // Somebody may be watching, and the demo takes a while.
        Ok(self.out.flush()?)
    }

    fn check(&mut self, what: &str, passed: bool, found: &str) -> anyhow::Result<()> {
        self.checks += 1;
        self.failed += u32::from(!passed);
        self.line(&format!("- {}: {what}: {found}", if passed { "ok" } else { "FAILED" }))
    }

    /// The network on one device through one library, and its ledger.
    fn device(&mut self, inventory: &Arc<Inventory>, device: &Device, api: Api) -> anyhow::Result<()> {
        self.line(&format!("### {} through {api}\n", device.name))?;
        let options = PoolOptions::new().software_adapters(true);
        match exercise(inventory, device, api, options) {
            Ok(seen) => {
                let Seen { worst, expected, debited, refused, left, built, classified } = seen;
                let agrees = worst <= TOLERANCE;
                let found = format!("largest relative difference {worst:.1e} (at most {TOLERANCE:.0e})");
                self.check(&format!("{PATCHES} random inputs against the oracle"), agrees, &found)?;
                let found = format!("{debited} of {expected}");
                self.check("the lease is debited what the network takes", debited == expected, &found)?;
                let found = if refused { "refused" } else { "granted" };
                self.check("one byte more than the lease", refused, found)?;
                let found = format!("{left} left");
                self.check("all is given back", left.is_zero(), &found)?;
                self.line(&format!(
                    "- opening the device, compiling and uploading took {:.1} ms, {PATCHES} inputs {:.1} ms\n",
                    built.as_secs_f64() * 1e3,
                    classified.as_secs_f64() * 1e3
                ))
            }
            Err(error) => self.check("the network runs", false, &format!("{error:#}")),
        }
    }

    fn demo(&mut self, choice: Choice, inventory: &Arc<Inventory>) -> anyhow::Result<()> {
        self.line(&format!("### quark demo vision --device {}\n", choice.as_str()))?;
        match vision::measure(&vision::Args::on(choice), Inventory::clone(inventory)) {
            Ok(measured) => {
                self.line(&format!("```text\n{}\n```\n", measured.to_string().trim_end()))?;
                let accuracy = format!("{:.2} %", measured.accuracy * 100.0);
                self.check("held-out accuracy of 95 % or more", measured.accuracy >= 0.95, &accuracy)?;
                let over = measured.warm_over_steady_ms.unwrap_or(f64::INFINITY);
                let near = over < WARM_OVER_STEADY_MAX.as_secs_f64() * 1e3;
                let found = format!("{over:.3} ms");
                self.check("warm first frame (p99) less than 1 ms above a steady one (p50)", near, &found)?;
                self.line("")
            }
            Err(error) => self.check("the demo runs", false, &format!("{error:#}")),
        }
    }
}

/// What one device did.
struct Seen {
    /// Against the oracle, relative.
    worst: f32,
    /// What the network's buffers come to.
    expected: ByteSize,
    /// What the lease was debited for them.
    debited: ByteSize,
    /// Whether an allocation beyond the lease was refused.
    refused: bool,
    /// Granted or debited once all was dropped.
    left: ByteSize,
    built: Duration,
    classified: Duration,
}

fn exercise(
    inventory: &Arc<Inventory>,
    device: &Device,
    api: Api,
    options: PoolOptions,
) -> anyhow::Result<Seen> {
    let pool = DevicePool::open(Arc::clone(inventory), options);
    let weights = Weights::trained()?;
    let lease = pool.lease(&device.id, LEASE, "gpu-check", Duration::ZERO)?;
    let begun = Instant::now();
    let mut classifier = place(&lease, api, &weights, MAX_DETECTIONS)?;
    let built = begun.elapsed();
    let patches = random_patches(SEED, PATCHES);
    let begun = Instant::now();
    classifier.classify(&patches)?;
    let classified = begun.elapsed();
    let worst = disagreement(classifier.as_mut(), &weights, &patches)?;
    let debited = lease.used();
    let beyond = LEASE.saturating_sub(debited).saturating_add(ByteSize::bytes(1));
    let refused = lease.reserve(beyond).is_err();
    drop(classifier);
    drop(lease);
    let books = pool.usage().into_iter().find(|books| books.device == device.id);
    let left = books.map_or(ByteSize::ZERO, |books| books.granted.saturating_add(books.debited));
    let expected = ByteSize::bytes(vram_needed(MAX_DETECTIONS));
    Ok(Seen { worst, expected, debited, refused, left, built, classified })
}
