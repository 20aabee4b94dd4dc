//! How many commits a second a store acknowledges, beside what its server does without us.
//!
//! So many writers, each with an actor of its own, each with one commit on its way. On Redis the same script is called
//! by `redis-benchmark -P 16` against the same server right after, so that the ratio is of one run.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use quark_base::Timestamp;
use quark_runtime::store::{Address, Commit, ETag, Encoded, Epoch, Fence, SlotWrite, Store};

/// The script of a commit that writes one state.
const SCRIPT: &str = include_str!("../src/redis/scripts/commit_slot.lua");

/// Measures commits of one state each.
#[derive(Debug, Parser)]
struct Options {
    /// Which store: `redis`.
    #[arg(long, default_value = "redis")]
    store: String,
    /// How many writers.
    #[arg(long, default_value_t = 256)]
    writers: usize,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many bytes each state has.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// What `cargo bench` passes to each program.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Each commit to an actor that has committed before, or to one that never has.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Update,
    First,
}

fn main() {
    let options = Options::parse();
    assert_eq!(options.store, "redis", "the stores that can be measured: redis");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(redis(&options));
}

async fn redis(options: &Options) {
    let settings = ["--appendonly", "yes", "--appendfsync", "everysec"];
    let mut server = quark_servers::local::redis(&settings).unwrap_or_else(|error| panic!("{error}"));
    let url = server.address().parse().expect("an address");
    let store = quark_storage::open(&url).await.unwrap_or_else(|error| panic!("{error}"));
    let port = server.process().expect("a process of ours").port();
    println!("{} writers, states of {} bytes, appendfsync everysec", options.writers, options.bytes);
    measure(&store, options, Kind::Update).await;
    let rate = measure(&store, options, Kind::First).await;
    let bare = redis_benchmark(port, options);
    println!("first commits by redis-benchmark -P 16: {bare:.0}/s; ours are {:.2} of it", rate / bare);
}

/// Commits a second, each of them acknowledged.
async fn measure(store: &Store, options: &Options, kind: Kind) -> f64 {
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
    let mut fence = Fence { seen: Epoch::NONE, epoch: Epoch(1), sequence: 1 };
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

/// Calls of the same script a second by Redis' own tool, 50 connections with 16 calls on their way each.
///
/// Each is the first commit of another actor: of an update, the tool can say neither which number comes next nor which
/// ETag, and the script would refuse it.
fn redis_benchmark(port: u16, options: &Options) -> f64 {
    let port = port.to_string();
    let load = Command::new("redis-cli").args(["-p", &port, "SCRIPT", "LOAD", SCRIPT]).output();
    let hash = String::from_utf8(load.expect("redis-cli").stdout).expect("a hash").trim().to_owned();
    let value = format!("1-1 1 4 json{}", "x".repeat(options.bytes));
    let output = Command::new("redis-benchmark")
        .args(["-p", &port, "-P", "16", "-n", "500000", "-r", "1000000000", "--csv"])
        .args([
            "EVALSHA",
            &hash,
            "1",
            "{quark:0}:a:bench/tool-__rand_int__",
            "0",
            "1",
            "1",
            "s:state",
            "",
            &value,
        ])
        .output()
        .expect("redis-benchmark; install it: apt-get install redis-tools");
    let text = String::from_utf8_lossy(&output.stdout);
    // "test","rps",… and below it the command and its rate.
    let last = text.lines().last().unwrap_or_default();
    let rate = last.rsplit('"').map(str::trim).filter_map(|part| part.parse::<f64>().ok()).next_back();
    rate.unwrap_or_else(|| panic!("redis-benchmark said: {text}"))
}
