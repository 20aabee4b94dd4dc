//! One topic to one subscriber in memory: items a second, single and in batches, beside a bare tokio channel in the same
//! run. Then a subscriber that is stalled while as many items come as in a long time: what that leaves in memory.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use comfy_table::{Cell, CellAlignment, Table, presets};
use quark::prelude::*;
use quark::streams::{Flow, SubscribeOptions};
use serde::Serialize;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::{Semaphore, mpsc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Items that are published at once in the batched rows.
const BATCH: u64 = 256;

/// The bound of every channel and buffer.
const BUFFER: usize = 4_096;

const MAILBOX: Topic<u64> = Topic::new("bench/mailbox");
const BUFFERED: Topic<u64> = Topic::new("bench/buffered");
const BATCHED: Topic<u64> = Topic::new("bench/batched");
const STALLED: Topic<u64> = Topic::new("bench/stalled");
const PROGRAM: Topic<u64> = Topic::new("bench/program");

/// Measures streams in memory.
#[derive(Debug, Parser)]
struct Args {
    /// Items of each measurement
    #[arg(long, default_value_t = 4_000_000)]
    items: u64,
    /// Items that come while the subscriber is stalled: as many as a minute brings at a million a second
    #[arg(long, default_value_t = 60_000_000)]
    stalled_items: u64,
    /// Only these ways, such as `buffer,mailbox`; all unless it is said
    #[arg(long, value_delimiter = ',')]
    only: Vec<Way>,
    /// Threads of the runtime
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Prints an object for machines
    #[arg(long)]
    json: bool,
}

/// A way from a publisher to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    Mpsc,
    MpscBatches,
    Mailbox,
    Buffer,
    PublishedBatches,
    Batches,
    Program,
    ProgramBatches,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Mpsc => "tokio mpsc, one by one",
            Self::MpscBatches => "tokio mpsc, received in batches",
            Self::Mailbox => "actor, one by one, through its mailbox",
            Self::Buffer => "actor, one by one, through a buffer",
            Self::PublishedBatches => "actor, published in batches",
            Self::Batches => "actor, published and handled in batches",
            Self::Program => "program, one by one",
            Self::ProgramBatches => "program, in batches",
        }
    }

    async fn take(self, grid: &Grid, items: u64, seen: &Seen) {
        match self {
            Self::Mpsc => bare(items, 1).await,
            Self::MpscBatches => bare(items, BATCH as usize).await,
            Self::Mailbox => publish(grid, &MAILBOX, items, seen).await,
            Self::Buffer => publish(grid, &BUFFERED, items, seen).await,
            Self::PublishedBatches => publish_all(grid, &BUFFERED, items, seen).await,
            Self::Batches => publish_all(grid, &BATCHED, items, seen).await,
            Self::Program => program(grid, items, 1).await,
            Self::ProgramBatches => program(grid, items, BATCH).await,
        }
    }
}

/// What all subscribers have seen.
#[derive(Default)]
struct Seen {
    items: AtomicU64,
    sum: AtomicU64,
}

#[derive(Actor)]
#[actor(name = "bench.sink", factory, mailbox = 4_096)]
struct Sink {
    seen: Arc<Seen>,
    stall: Arc<Semaphore>,
}

#[methods]
impl Sink {
    #[on_stream(MAILBOX)]
    async fn mailbox(&mut self, item: u64) {
        self.take(1, item);
    }

    #[on_stream(BUFFERED, buffer = 4_096)]
    async fn buffered(&mut self, item: u64) {
        self.take(1, item);
    }

    #[on_stream(BATCHED, buffer = 4_096, batch = 256)]
    async fn batched(&mut self, items: Vec<u64>) {
        self.take(items.len() as u64, items.iter().sum());
    }

    #[on_stream(STALLED, flow = "drop_oldest", buffer = 4_096)]
    async fn stalled(&mut self, item: u64) {
        // It is closed when the subscriber may go on.
        let _ = self.stall.acquire().await;
        self.take(1, item);
    }

    fn take(&self, items: u64, sum: u64) {
        self.seen.items.fetch_add(items, Ordering::Relaxed);
        self.seen.sum.fetch_add(sum, Ordering::Relaxed);
    }
}

#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    items_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: Vec<Row>,
    stalled_items: u64,
    /// Allocated when the last of them was published, above what was before the first.
    stalled_bytes: f64,
    stalled_dropped: u64,
    stalled_seconds: f64,
}

fn main() {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let json = args.json;
    let report = runtime
        .block_on(async { tokio::spawn(measure(args)).await.expect("the measurement does not panic") });
    #[expect(clippy::print_stdout, reason = "the figures are what this program prints")]
    if json {
        println!("{}", serde_json::to_string_pretty(&report).expect("rows are plain values"));
    } else {
        println!("{}", table(&report));
        println!(
            "stalled for {} items ({:.1} s): {:.0} KiB more allocated, {} dropped",
            report.stalled_items,
            report.stalled_seconds,
            report.stalled_bytes / 1024.0,
            report.stalled_dropped,
        );
    }
}

async fn measure(args: Args) -> Report {
    let (seen, stall) = (Arc::new(Seen::default()), Arc::new(Semaphore::new(0)));
    let own = (seen.clone(), stall.clone());
    let silo = Silo::builder()
        .host_with(move |_| Ok(Sink { seen: own.0.clone(), stall: own.1.clone() }))
        .start()
        .expect("a silo needs nothing");
    let grid = silo.grid();
    let mut rows = Vec::new();
    for round in ["warm-up", "measured"] {
        for way in Way::value_variants().iter().filter(|way| args.only.is_empty() || args.only.contains(way))
        {
            let begun = Instant::now();
            way.take(&grid, args.items, &seen).await;
            if round == "measured" {
                let items_per_second = args.items as f64 / begun.elapsed().as_secs_f64();
                rows.push(Row { what: way.name(), items_per_second });
            }
        }
    }
    // The sink is made and has its first item, so that what is measured is what waits.
    let topic = grid.topic(&STALLED);
    topic.publish("a", 0).await.expect("it is read");
    for item in 0..BUFFER as u64 {
        topic.publish("a", item).await.expect("it is read");
    }
    let (before, begun) = (allocated(), Instant::now());
    for item in 0..args.stalled_items {
        topic.publish("a", item).await.expect("it is read");
    }
    let (stalled_bytes, stalled_seconds) = (allocated() - before, begun.elapsed().as_secs_f64());
    let reports = grid.streams();
    let stalled_dropped = reports
        .iter()
        .find(|report| report.namespace == STALLED.namespace())
        .map_or(0, |report| report.dropped.oldest);
    stall.close();
    Report { rows, stalled_items: args.stalled_items, stalled_bytes, stalled_dropped, stalled_seconds }
}

/// The least that a stream is: a bounded channel and a task.
async fn bare(items: u64, at_once: usize) {
    let (sender, mut receiver) = mpsc::channel::<u64>(BUFFER);
    let reader = tokio::spawn(async move {
        let (mut sum, mut some) = (0_u64, Vec::new());
        while receiver.recv_many(&mut some, at_once).await > 0 {
            sum += some.drain(..).sum::<u64>();
        }
        sum
    });
    for item in 0..items {
        sender.send(item).await.expect("the reader is there");
    }
    drop(sender);
    assert_eq!(reader.await.expect("it does not panic"), (0..items).sum::<u64>());
}

async fn publish(grid: &Grid, topic: &Topic<u64>, items: u64, seen: &Seen) {
    let (before, sum) = (seen.items.load(Ordering::Relaxed), seen.sum.load(Ordering::Relaxed));
    let stream = StreamId::new(topic.namespace(), "a").expect("a name");
    for item in 0..items {
        grid.publish(&stream, item).await.expect("it is read");
    }
    all_seen(seen, before + items, sum + (0..items).sum::<u64>()).await;
}

async fn publish_all(grid: &Grid, topic: &Topic<u64>, items: u64, seen: &Seen) {
    let (before, sum) = (seen.items.load(Ordering::Relaxed), seen.sum.load(Ordering::Relaxed));
    let stream = StreamId::new(topic.namespace(), "a").expect("a name");
    let mut first = 0;
    while first < items {
        let end = (first + BATCH).min(items);
        grid.publish_all(&stream, first..end).await.expect("it is read");
        first = end;
    }
    all_seen(seen, before + items, sum + (0..items).sum::<u64>()).await;
}

async fn all_seen(seen: &Seen, items: u64, sum: u64) {
    while seen.items.load(Ordering::Relaxed) < items {
        tokio::task::yield_now().await;
    }
    assert_eq!(seen.sum.load(Ordering::Relaxed), sum, "each item once");
}

async fn program(grid: &Grid, items: u64, at_once: u64) {
    let options = SubscribeOptions::new().flow(Flow::wait().buffer(BUFFER as u32));
    let mut subscription = grid.subscribe(PROGRAM, options).expect("nobody else reads it");
    let reader = tokio::spawn(async move {
        let (mut sum, mut read, mut some) = (0_u64, 0, Vec::new());
        while read < items {
            read += subscription.recv_many(&mut some, at_once as usize).await as u64;
            sum += some.drain(..).map(|incoming| incoming.item).sum::<u64>();
        }
        sum
    });
    let stream = StreamId::new(PROGRAM.namespace(), "a").expect("a name");
    let mut first = 0;
    while first < items {
        let end = (first + at_once).min(items);
        match at_once {
            1 => grid.publish(&stream, first).await.expect("it is read"),
            _ => grid.publish_all(&stream, first..end).await.expect("it is read"),
        };
        first = end;
    }
    assert_eq!(reader.await.expect("it does not panic"), (0..items).sum::<u64>());
}

/// Bytes allocated now.
fn allocated() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["one topic, one subscriber", "items/s"]);
    for row in &report.rows {
        let cells = [row.what.to_owned(), format!("{:.0}", row.items_per_second)];
        table.add_row(cells.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right)));
    }
    table
}
