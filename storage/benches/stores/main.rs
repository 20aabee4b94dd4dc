//! How many commits a second a store acknowledges, beside what its server does without us.
//!
//! So many writers, each with an actor of its own, each with one commit on its way. On Redis the same script is called
//! by `redis-benchmark -P 16` against the same server, in turns with us, so that what else the machine does meets both;
//! on SQLite and PostgreSQL statements that are commits of their own are measured right before.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod redis;
mod sql;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use quark_base::Timestamp;
use quark_runtime::store::{Address, Commit, ETag, Encoded, Epoch, Fence, SlotWrite, Store};

/// Measures commits of one state each.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Which store.
    #[arg(long, value_enum, default_value_t = Which::Redis)]
    store: Which,
    /// How many writers.
    #[arg(long, default_value_t = 256)]
    pub(crate) writers: usize,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// How many bytes each state has.
    #[arg(long, default_value_t = 256)]
    pub(crate) bytes: usize,
    /// How many times Redis and its own tool take turns; the figures at the end are those in the middle.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// What `cargo bench` passes to each program.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A store that can be measured.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Which {
    Redis,
    Sqlite,
    Postgres,
}

/// Each commit to an actor that has committed before, or to one that never has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Update,
    First,
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match options.store {
            Which::Redis => redis::redis(&options).await,
            Which::Sqlite => sql::sqlite(&options).await,
            Which::Postgres => sql::postgres(&options).await,
        }
    });
}

/// Commits a second, each of them acknowledged.
pub(crate) async fn measure(store: &Store, options: &Options, kind: Kind) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let measuring = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..options.writers)
        .map(|writer| {
            let (store, stop, measuring) = (store.clone(), stop.clone(), measuring.clone());
            let bytes = options.bytes;
            tokio::spawn(async move { write(&store, writer, bytes, kind, &stop, &measuring).await })
        })
        .collect();
    // Warm.
    tokio::time::sleep(Duration::from_secs(1)).await;
    measuring.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    measuring.store(false, Ordering::Relaxed);
    let elapsed = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut times = Histogram::<u64>::new(3).expect("a histogram");
    for writer in writers {
        times.add(writer.await.expect("no writer fails")).expect("the same bounds");
    }
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    let micros = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
    println!("{kind:?}: {rate:.0} commits/s, p50 {:.0} us, p99 {:.0} us", micros(0.5), micros(0.99));
    rate
}

/// Commits one after the other, and gives the nanoseconds of those that were measured.
async fn write(
    store: &Store,
    writer: usize,
    bytes: usize,
    kind: Kind,
    stop: &AtomicBool,
    measuring: &AtomicBool,
) -> Histogram<u64> {
    let mut times = Histogram::<u64>::new(3).expect("a histogram");
    let value = Encoded { format: "json".into(), version: 1, bytes: vec![b'x'; bytes] };
    let address = |round: u64| match kind {
        Kind::Update => Address::new("bench", format!("update-{writer}")),
        Kind::First => Address::new("bench", format!("first-{writer}-{round}")),
    };
    let mut fence = Fence { seen: None, epoch: Epoch(1), sequence: 1 };
    let mut expected: Option<ETag> = None;
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut commit = Commit::new(address(round), fence, Timestamp(0));
        commit.slots.push(SlotWrite { name: "state".into(), expected, value: Some(value.clone()) });
        let begun = Instant::now();
        store.actors.commit(&commit).await.expect("an acknowledged commit");
        if measuring.load(Ordering::Relaxed) {
            let nanos = u64::try_from(begun.elapsed().as_nanos()).expect("less than centuries");
            times.record(nanos).expect("a histogram that grows");
        }
        round += 1;
        if let Kind::Update = kind {
            expected = Some(fence.etag());
            fence.sequence += 1;
        }
    }
    times
}
