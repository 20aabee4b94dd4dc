//! Many reminders in one store: how fast they are set, and how late their ticks come.
//!
//! A population of reminders is stored, each of an actor of its own, most of them due far in the future and the rest
//! spread evenly over some seconds that begin when all are stored. Then a silo is started over the store, before the first
//! is due, and the actors note how late each tick comes. The machine's own clock is used, and the clock's unit is a
//! millisecond.

use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{Cell, CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use quark::base::Timestamp;
use quark::prelude::*;
use quark::reminders::point;
use quark::storage::{self, StoreUrl};
use quark::store::{Address, ReminderRecord, RingRange, Store};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// Reminders that are stored at once.
const BATCH: usize = 1_000;

/// From when all are stored until the first is due: the silo's start.
const HEAD_START: Duration = Duration::from_secs(3);

/// Without a tick for this long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures how late reminders tick.
#[derive(Debug, Parser)]
struct Args {
    /// Where they are kept: `memory`, or the address of a store
    #[arg(long, default_value = "memory")]
    store: String,
    /// How many are stored
    #[arg(long, default_value_t = 1_000_000)]
    stored: u64,
    /// How many of them are due
    #[arg(long, default_value_t = 100_000)]
    due: u64,
    /// Within how many seconds those are due
    #[arg(long, default_value_t = 10)]
    within: u64,
    /// Prints an object for machines
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    store: String,
    stored: u64,
    stored_per_second: f64,
    due: u64,
    within_seconds: u64,
    /// Ticks that came, of those due. More than were due if one came twice.
    ticked: u64,
    lateness_p50_ms: u64,
    lateness_p99_ms: u64,
    lateness_max_ms: u64,
    /// From the last due time until no due reminder was left in the store.
    noted_after_ms: u64,
}

/// An actor that tells how late its ticks come, in milliseconds.
#[derive(Actor)]
#[actor(name = "bench.reminded", factory)]
struct Reminded {
    late: UnboundedSender<u64>,
}

#[methods]
impl Reminded {
    #[on_reminder("due")]
    async fn due(&mut self, tick: Tick) {
        let late = tick.lateness(Timestamp::of_system());
        // Nobody hears it once enough have come.
        let _ = self.late.send(u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let figures = measure(&args).await?;
    #[expect(clippy::print_stdout, reason = "the figures are what this program prints")]
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        println!("{}", table(&figures));
    }
    Ok(())
}

async fn measure(args: &Args) -> Result<Figures> {
    let store = match args.store.as_str() {
        "memory" => storage::memory(),
        address => storage::open(&address.parse::<StoreUrl>()?).await?,
    };
    let due = args.due.min(args.stored);
    let begun = Instant::now();
    // Those far off first: when the others are due depends on how long this takes.
    let far = Timestamp::of_system().saturating_add(Duration::from_secs(86_400));
    put(&store, due..args.stored, |_| far).await?;
    let storing = begun.elapsed();
    // As long as the rest will take to be stored, and as much again.
    let rest = storing.mul_f64(2.0 * due as f64 / (args.stored - due).max(1) as f64);
    let first = Timestamp::of_system().saturating_add(rest + HEAD_START);
    let within = Duration::from_secs(args.within);
    put(&store, 0..due, |key| first.saturating_add(within.mul_f64(key as f64 / due as f64))).await?;
    let stored_per_second = args.stored as f64 / begun.elapsed().as_secs_f64();

    let (late, mut heard) = unbounded_channel();
    let make = move |_: &Key| Ok(Reminded { late: late.clone() });
    let silo = Silo::builder().host_with(make).store("default", store.clone()).start()?;
    let mut lateness = Histogram::<u64>::new(3)?;
    for _ in 0..due {
        lateness.saturating_record(next(&mut heard).await?);
    }
    while store.reminders.next_due(RingRange::ALL).await?.is_some_and(|next| next < far) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let noted_after = Timestamp::of_system().since(first.saturating_add(within));
    while let Ok(again) = heard.try_recv() {
        lateness.saturating_record(again);
    }
    silo.shutdown(Duration::from_secs(5)).await;
    Ok(Figures {
        store: store.name.to_string(),
        stored: args.stored,
        stored_per_second,
        due,
        within_seconds: args.within,
        ticked: lateness.len(),
        lateness_p50_ms: lateness.value_at_quantile(0.5),
        lateness_p99_ms: lateness.value_at_quantile(0.99),
        lateness_max_ms: lateness.max(),
        noted_after_ms: u64::try_from(noted_after.as_millis())?,
    })
}

async fn next(heard: &mut UnboundedReceiver<u64>) -> Result<u64> {
    let next = timeout(PATIENCE, heard.recv()).await?;
    next.ok_or_else(|| quark::Error::msg("the silo has ended"))
}

/// Stores the reminders of these actors, as other silos would: in batches, several at a time.
async fn put(store: &Store, keys: std::ops::Range<u64>, due: impl Fn(u64) -> Timestamp) -> Result<()> {
    const AT_A_TIME: usize = 4;
    let mut batches = tokio::task::JoinSet::new();
    let mut keys = keys.peekable();
    while keys.peek().is_some() {
        let batch: Vec<_> = keys.by_ref().take(BATCH).map(|key| record(key, due(key))).collect();
        let reminders = store.reminders.clone();
        batches.spawn(async move { reminders.put(&batch).await });
        if batches.len() >= AT_A_TIME
            && let Some(stored) = batches.join_next().await
        {
            stored??;
        }
    }
    while let Some(stored) = batches.join_next().await {
        stored??;
    }
    Ok(())
}

fn record(key: u64, due: Timestamp) -> ReminderRecord {
    let actor = Address::new("bench.reminded", key.to_string());
    let ring = point(&actor);
    let schedule = format!("{{\"once\":{}}}", due.0);
    ReminderRecord { actor, name: "due".into(), due, schedule, ring, version: 1 }
}

fn table(figures: &Figures) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "store",
        "stored",
        "stored/s",
        "due",
        "within s",
        "ticked",
        "late p50 ms",
        "p99 ms",
        "max ms",
        "noted after ms",
    ]);
    let cells = [
        figures.store.clone(),
        figures.stored.to_string(),
        format!("{:.0}", figures.stored_per_second),
        figures.due.to_string(),
        figures.within_seconds.to_string(),
        figures.ticked.to_string(),
        figures.lateness_p50_ms.to_string(),
        figures.lateness_p99_ms.to_string(),
        figures.lateness_max_ms.to_string(),
        figures.noted_after_ms.to_string(),
    ];
    table.add_row(cells.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right)));
    table
}
