//! What the demo tells at its end.

use std::fmt;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use quark::ByteSize;
use quark::profiling::{DeviceReport, LatencySummary, device_report, latency::milliseconds};
use quark_vision::infer::Backend;
use serde::Serialize;

use super::Args;
use super::phase::Outcome;
use super::plan::Plan;
use super::target::{Choice, Target};

/// Both phases together. Times are in milliseconds, shares 0 to 1.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What `--device` came to.
    pub(crate) device: Choice,
    device_name: String,
    pub(crate) backend: Backend,
    cameras: u32,
    /// In a burst.
    frames: u32,
    rounds: usize,
    seed: u64,
    seconds: f64,
    /// The mean of all CPUs over the run, by whatever ran on the machine, 0 to 1.
    cpu_load: Option<f32>,
    frames_analysed: u64,
    digits_seen: u64,
    /// Digits shown in full; `None` for the user's own frames.
    digits_shown: Option<u64>,
    /// Of those, found and named rightly.
    recall: Option<f64>,
    /// Of the detections, right.
    precision: Option<f64>,
    /// Held-out digits that the network names rightly on this device.
    pub(crate) accuracy: f64,
    /// A silo's first activation: opens the device and compiles, which the others share.
    first_activation_ms: f64,
    pub(crate) first_frame_ms: FirstFrames,
    /// All frames of the warm phase but the first of each burst.
    pub(crate) steady_frame_ms: Option<LatencySummary>,
    /// The 99th percentile of warm first frames less the median of steady ones.
    pub(crate) warm_over_steady_ms: Option<f64>,
    prewarm: Prewarm,
    vram: Vram,
    devices: Vec<DeviceReport>,
}

/// What was seen of the run as a whole.
pub(crate) struct Run {
    pub(crate) took: Duration,
    pub(crate) cpu_load: Option<f32>,
}

/// From the publication of a burst's first frame to its result.
#[derive(Debug, Serialize)]
pub(crate) struct FirstFrames {
    /// Prewarming off.
    pub(crate) cold: Option<LatencySummary>,
    /// Prewarming on, after a motion; late ones included.
    pub(crate) warm: Option<LatencySummary>,
    /// Prewarming on, but no motion announced the burst.
    unannounced: Option<LatencySummary>,
}

#[derive(Debug, Serialize)]
struct Prewarm {
    hits: u64,
    misses: u64,
    late: u64,
    wasted: u64,
    /// Motions that frames followed, of all that were acted on.
    precision: Option<f64>,
    /// Bursts that found their analyzer warm, of all.
    recall: Option<f64>,
    warm_seconds_bytes: f64,
}

/// Peaks over all devices and both phases.
#[derive(Debug, Serialize)]
struct Vram {
    leases_peak: u64,
    granted_peak_bytes: u64,
    debited_peak_bytes: u64,
    granted_at_end_bytes: u64,
}

impl Report {
    pub(crate) fn new(
        target: &Target,
        plan: &Plan,
        args: &Args,
        mut cold: Outcome,
        mut warm: Outcome,
        run: Run,
    ) -> Self {
        let mut score = cold.score;
        if let (Some(score), Some(more)) = (&mut score, warm.score) {
            *score += more;
        }
        cold.announced.add(&cold.unannounced);
        warm.meter.add(&cold.meter);
        let devices = warm.meter.reports();
        let sum = |size: fn(&DeviceReport) -> ByteSize| devices.iter().map(size).sum::<ByteSize>().as_u64();
        let steady = warm.steady.summary();
        let first = FirstFrames {
            cold: cold.announced.summary(),
            warm: warm.announced.summary(),
            unannounced: warm.unannounced.summary(),
        };
        let over = first.warm.zip(steady).map(|(first, steady)| first.p99 - steady.p50);
        Self {
            device: target.choice,
            device_name: target.name(),
            backend: warm.backend,
            cameras: plan.cameras,
            frames: plan.frames,
            rounds: plan.rounds.len(),
            seed: args.seed,
            seconds: milliseconds(run.took) / 1e3,
            cpu_load: run.cpu_load,
            frames_analysed: cold.frames + warm.frames,
            digits_seen: cold.digits_seen + warm.digits_seen,
            digits_shown: score.map(|score| score.shown),
            recall: score.map(|score| score.recall()),
            precision: score.map(|score| score.precision()),
            accuracy: warm.accuracy,
            first_activation_ms: milliseconds(cold.first_activation),
            first_frame_ms: first,
            steady_frame_ms: steady,
            warm_over_steady_ms: over,
            prewarm: Prewarm {
                hits: warm.prewarm.hits,
                misses: warm.prewarm.misses,
                late: warm.prewarm.late,
                wasted: warm.prewarm.wasted,
                precision: warm.prewarm.precision(),
                recall: warm.prewarm.recall(),
                warm_seconds_bytes: warm.prewarm.warm_seconds_bytes,
            },
            vram: Vram {
                leases_peak: devices.iter().map(|device| device.leases_peak).sum(),
                granted_peak_bytes: sum(|device| device.vram_granted_peak),
                debited_peak_bytes: sum(|device| device.vram_debited_peak),
                granted_at_end_bytes: cold.leased_at_end.saturating_add(warm.leased_at_end).as_u64(),
            },
            devices,
        }
    }

    /// Cold and warm first frames and steady ones, as a table.
    pub(crate) fn latencies(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
        table.set_header(["from capture to result", "p50", "p99", "of"]);
        let FirstFrames { cold, warm, unannounced } = &self.first_frame_ms;
        let rows = [
            ("first frame, cold: prewarming off", cold),
            ("first frame, warm: announced by a motion", warm),
            ("first frame, unannounced: a prewarm miss", unannounced),
            ("steady frame: all others, prewarming on", &self.steady_frame_ms),
        ];
        for (what, summary) in rows {
            let Some(summary) = summary else { continue };
            let time = |milliseconds: f64| format!("{milliseconds:.2} ms");
            table.add_row([what.to_owned(), time(summary.p50), time(summary.p99), summary.count.to_string()]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        writeln!(f, "device    {} ({})", self.device_name, self.backend)?;
        writeln!(
            f,
            "run       {} cameras, {} rounds of {} frames a burst, without and with prewarming; seed {}",
            self.cameras, self.rounds, self.frames, self.seed
        )?;
        write!(f, "time      {:.1} s", self.seconds)?;
        if let Some(load) = self.cpu_load {
            write!(f, ", with the machine's CPUs {:.0} % busy", load * 100.0)?;
        }
        writeln!(f)?;
        write!(f, "digits    {} seen in {} frames", self.digits_seen, self.frames_analysed)?;
        if let (Some(shown), Some(recall), Some(precision)) = (self.digits_shown, self.recall, self.precision)
        {
            let (recall, precision) = (percent(recall), percent(precision));
            write!(
                f,
                "; {recall} of the {shown} shown in full are named rightly, {precision} of the seen are right"
            )?;
        }
        writeln!(f, "\nnetwork   {:.2} % of the held-out digits named rightly", self.accuracy * 100.0)?;
        writeln!(f, "\n{}", self.latencies())?;
        if let Some(over) = self.warm_over_steady_ms {
            writeln!(f, "Warm first frames (p99) take {over:.2} ms more than steady ones (p50).")?;
        }
        let pays = match self.vram.leases_peak {
            0 => "the weights, working memory and a first run",
            _ => "a lease, the weights, buffers and a first run",
        };
        writeln!(f, "A cold first frame pays for {pays}.")?;
        if self.vram.leases_peak > 0 {
            let once = self.first_activation_ms;
            writeln!(
                f,
                "Opening a device and compiling for it come once a silo, in {once:.1} ms with the first activation."
            )?;
        }
        writeln!(f)?;
        let Prewarm { hits, misses, late, wasted, .. } = &self.prewarm;
        writeln!(f, "prewarm   {hits} hits, {misses} misses, {late} late, {wasted} wasted")?;
        let Vram { leases_peak, granted_peak_bytes, debited_peak_bytes, granted_at_end_bytes } = self.vram;
        let size = ByteSize::bytes;
        match leases_peak {
            0 => writeln!(f, "VRAM      no leases: the actors ran on the processor")?,
            _ => writeln!(
                f,
                "VRAM      {leases_peak} leases at the peak, {} leased and {} of that allocated; {} still leased at the end",
                size(granted_peak_bytes),
                size(debited_peak_bytes),
                size(granted_at_end_bytes)
            )?,
        }
        writeln!(f, "{}", device_report::table(&self.devices, "frames"))
    }
}
