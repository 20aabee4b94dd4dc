//! What guards, pools and joined calls cost, and what they save.

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use quark::guards::{Breaker, Guards, RateLimit};
use quark::prelude::*;
use quark_bench::Counter;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Work in a method: about as long as a small query takes to compute.
const STEPS: u64 = 2_000;

/// Callers that ask at the same time.
const CALLERS: u64 = 64;

/// A pool of one, and one of two workers, which compute.
#[derive(Actor)]
#[actor(name = "bench.lone", workers(max = 1))]
struct Lone;

#[derive(Actor)]
#[actor(name = "bench.pair", workers(max = 2))]
struct Pair;

fn compute(from: u64) -> u64 {
    (0..STEPS).fold(from, |sum, step| black_box(sum.rotate_left(7) ^ step))
}

#[methods]
impl Lone {
    pub async fn work(&mut self, from: u64) -> u64 {
        compute(from)
    }
}

#[methods]
impl Pair {
    pub async fn work(&mut self, from: u64) -> u64 {
        compute(from)
    }

    /// The same for all who ask at the same time; it waits once, as work that is worth joining does.
    #[coalesce]
    pub async fn joined(&mut self, from: u64) -> u64 {
        tokio::task::yield_now().await;
        compute(from)
    }

    pub async fn each(&mut self, from: u64) -> u64 {
        tokio::task::yield_now().await;
        compute(from)
    }
}

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime")
}

/// Runs `work` as a task of the runtime, which is where a program's calls come from.
fn timed<F>(runtime: &Runtime, work: F) -> Duration
where
    F: Future<Output = Duration> + Send + 'static,
{
    runtime.block_on(async { tokio::spawn(work).await.expect("the work does not panic") })
}

fn guards(criterion: &mut Criterion) {
    let runtime = runtime(1);
    let mut group = criterion.benchmark_group("guards");
    let breaker = Guards::none().breaker(Breaker::after(5));
    // Never used up, so that what is measured is the asking.
    let limit = Guards::none().rate_limit(RateLimit::per_second(u32::MAX).burst(u32::MAX));
    let by_key = Guards::none().rate_limit(RateLimit::per_second(u32::MAX).burst(u32::MAX).by_key());
    for (name, guards) in
        [("none", Guards::none()), ("breaker", breaker), ("rate_limit", limit), ("rate_limit_by_key", by_key)]
    {
        let _entered = runtime.enter();
        let silo = Silo::builder().host::<Counter>().guards::<Counter>(guards).start().expect("a silo");
        let grid = silo.grid();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let counter = grid.actor::<Counter>("ask");
                timed(&runtime, async move {
                    let begun = Instant::now();
                    for _ in 0..times {
                        black_box(counter.add(black_box(1)).await.expect("it is let in"));
                    }
                    begun.elapsed()
                })
            });
        });
    }
    group.finish();
}

/// So many calls by [`CALLERS`] tasks at the same time.
macro_rules! from_many {
    ($grid:expr, $times:expr, $actor:ty, $method:ident) => {{
        let (grid, times) = ($grid.clone(), $times);
        async move {
            let begun = Instant::now();
            let mut callers = JoinSet::new();
            for _ in 0..CALLERS {
                let actor = grid.actor::<$actor>("pool");
                callers.spawn(async move {
                    for round in 0..times.div_ceil(CALLERS) {
                        black_box(actor.$method(round).await.expect("it is there"));
                    }
                });
            }
            while let Some(caller) = callers.join_next().await {
                caller.expect("callers do not panic");
            }
            begun.elapsed()
        }
    }};
}

fn pools(criterion: &mut Criterion) {
    let runtime = runtime(2);
    let _entered = runtime.enter();
    let silo = Silo::builder().host::<Lone>().host::<Pair>().start().expect("a silo");
    let grid = silo.grid();
    let mut group = criterion.benchmark_group("workers");
    group.bench_function("one_worker_two_cores", |bencher| {
        bencher.iter_custom(|times| timed(&runtime, from_many!(grid, times, Lone, work)));
    });
    group.bench_function("two_workers_two_cores", |bencher| {
        bencher.iter_custom(|times| timed(&runtime, from_many!(grid, times, Pair, work)));
    });
    group.finish();
    let mut group = criterion.benchmark_group("coalesce");
    group.bench_function("each_for_itself", |bencher| {
        bencher.iter_custom(|times| timed(&runtime, from_many!(grid, times, Pair, each)));
    });
    group.bench_function("joined", |bencher| {
        bencher.iter_custom(|times| timed(&runtime, from_many!(grid, times, Pair, joined)));
    });
    group.finish();
}

criterion_group!(benches, guards, pools);
criterion_main!(benches);
