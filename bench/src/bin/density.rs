//! Many actors on one silo: what each costs, how fast they come, and whether it stays quick with a million of them.
//!
//! The population grows to each size in turn, on one core, as one caller makes it. Then, with everybody idle, one
//! ask to each of many actors in random order: that is what processor caches and the catalog make of a large
//! population. Then the sweep: one tick's look at them, on a clock that this program moves.

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{Cell, CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use quark::base::{Clock, VirtualClock};
use quark::{Grid, Silo};
use quark_bench::Counter;
use serde::Serialize;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Asks whose times are measured at each size.
const ASKS: u64 = 200_000;

/// Ticks whose sweeps are measured at each size: two rounds of the hand.
const SWEEPS: u32 = 400;

/// Measures a silo with many idle actors.
#[derive(Debug, Parser)]
struct Args {
    /// Sizes of the population, growing
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    actors: Vec<u64>,
    /// Prints an array of objects for machines
    #[arg(long)]
    json: bool,
}

/// What was measured at one size.
#[derive(Debug, Serialize)]
struct Row {
    actors: u64,
    /// Of activation and first call, over those made for this size.
    activations_per_second: f64,
    /// Allocated for each actor, its key and struct included.
    bytes_per_actor: f64,
    /// What the system says that the process holds for each actor.
    resident_bytes_per_actor: f64,
    /// A call of a random actor by its key.
    ask_p50_ns: u64,
    ask_p99_ns: u64,
    /// One tick's look around.
    sweep_mean_us: f64,
    sweep_max_us: f64,
    /// Of one core, at twenty ticks a second.
    sweep_share: f64,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime with one thread");
    let rows = runtime.block_on(async {
        // A task of the runtime, which is where a program's calls come from.
        tokio::spawn(measure(args.actors)).await.expect("the measurement does not panic")
    });
    #[expect(clippy::print_stdout, reason = "the figures are what this program prints")]
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).expect("rows are plain values"));
    } else {
        println!("{}", table(&rows));
    }
}

async fn measure(sizes: Vec<u64>) -> Vec<Row> {
    let clock = VirtualClock::new();
    let silo = Silo::builder().clock(clock.clone()).host::<Counter>().start().expect("a silo needs nothing");
    let (grid, mut there, mut rows) = (silo.grid(), 0, Vec::new());
    let (allocated_before, resident_before) = (allocated(), resident());
    for actors in sizes {
        let begun = Instant::now();
        for key in there..actors {
            black_box(grid.actor::<Counter>(key).add(1).await.expect("it is made"));
        }
        let took = begun.elapsed();
        let made = actors.saturating_sub(there);
        there = there.max(actors);
        let per_actor = |now: f64, before: f64| (now - before) / there as f64;
        let (bytes, resident_bytes) =
            (per_actor(allocated(), allocated_before), per_actor(resident(), resident_before));
        let asks = ask_at_random(&grid, there).await;
        let (sweep_mean, sweep_max) = sweep(&clock);
        rows.push(Row {
            actors: there,
            activations_per_second: made as f64 / took.as_secs_f64(),
            bytes_per_actor: bytes,
            resident_bytes_per_actor: resident_bytes,
            ask_p50_ns: asks.value_at_quantile(0.5),
            ask_p99_ns: asks.value_at_quantile(0.99),
            sweep_mean_us: sweep_mean.as_secs_f64() * 1e6,
            sweep_max_us: sweep_max.as_secs_f64() * 1e6,
            sweep_share: sweep_mean.as_secs_f64() * 20.0,
        });
    }
    rows
}

async fn ask_at_random(grid: &Grid, actors: u64) -> Histogram<u64> {
    let mut times = Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("bounds in order, three digits");
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..ASKS {
        // Weyl's sequence through a multiplication: spread well enough that no prefetcher follows.
        state = state.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(1);
        let key = (state >> 20) % actors;
        let begun = Instant::now();
        black_box(grid.actor::<Counter>(key).add(1).await.expect("it is there"));
        times.saturating_record(begun.elapsed().as_nanos() as u64);
    }
    times
}

/// The mean and the longest of many ticks' looks around. Nobody is idle for long enough to leave.
fn sweep(clock: &VirtualClock) -> (Duration, Duration) {
    let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..SWEEPS {
        let begun = Instant::now();
        clock.move_to(clock.now() + Duration::from_millis(50));
        let took = begun.elapsed();
        all += took;
        longest = longest.max(took);
    }
    (all / SWEEPS, longest)
}

/// Bytes allocated now.
fn allocated() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// Bytes that the process holds of main memory; not a number if the system does not tell.
fn resident() -> f64 {
    let memory = quark::devices::sample::ProcessMemory::open().ok().and_then(|process| process.read());
    memory.map_or(f64::NAN, |bytes| bytes.as_u64() as f64)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "actors",
        "activations/s",
        "bytes each",
        "resident each",
        "ask p50 ns",
        "ask p99 ns",
        "sweep µs",
        "longest µs",
        "of one core",
    ]);
    for row in rows {
        let cells = [
            row.actors.to_string(),
            format!("{:.0}", row.activations_per_second),
            format!("{:.0}", row.bytes_per_actor),
            format!("{:.0}", row.resident_bytes_per_actor),
            row.ask_p50_ns.to_string(),
            row.ask_p99_ns.to_string(),
            format!("{:.1}", row.sweep_mean_us),
            format!("{:.1}", row.sweep_max_us),
            format!("{:.2} %", row.sweep_share * 100.0),
        ];
        table.add_row(cells.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right)));
    }
    table
}
