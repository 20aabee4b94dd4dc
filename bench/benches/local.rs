//! Local calls on one core: ask, tell, the hand-over path, and a bare tokio channel beside them.

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use quark::{Grid, Silo};
use quark_bench::{Counter, bare_task};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// One worker thread: everything shares one core, as a busy silo's actors do.
fn one_core() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime with one thread")
}

/// Runs `work` as a task of the runtime, which is where a program's calls come from.
fn timed<F>(runtime: &Runtime, work: F) -> Duration
where
    F: Future<Output = Duration> + Send + 'static,
{
    runtime.block_on(async { tokio::spawn(work).await.expect("the work does not panic") })
}

fn silo(runtime: &Runtime) -> (Silo, Grid) {
    let _entered = runtime.enter();
    let silo = Silo::builder().host::<Counter>().start().expect("a silo needs nothing here");
    let grid = silo.grid();
    (silo, grid)
}

fn local(criterion: &mut Criterion) {
    let runtime = one_core();
    let (_silo, grid) = silo(&runtime);
    let mut group = criterion.benchmark_group("local");

    group.bench_function("ask", |bencher| {
        bencher.iter_custom(|times| {
            let counter = grid.actor::<Counter>("ask");
            timed(&runtime, async move {
                let begun = Instant::now();
                for _ in 0..times {
                    black_box(counter.add(black_box(1)).await.expect("it is there"));
                }
                begun.elapsed()
            })
        });
    });

    group.bench_function("ask_shared", |bencher| {
        bencher.iter_custom(|times| {
            let counter = grid.actor::<Counter>("ask_shared");
            timed(&runtime, async move {
                let begun = Instant::now();
                for _ in 0..times {
                    black_box(counter.read().await.expect("it is there"));
                }
                begun.elapsed()
            })
        });
    });

    group.bench_function("ask_by_key", |bencher| {
        bencher.iter_custom(|times| {
            let grid = grid.clone();
            timed(&runtime, async move {
                let begun = Instant::now();
                for _ in 0..times {
                    black_box(grid.actor::<Counter>(black_box("by_key")).add(1).await.expect("it is there"));
                }
                begun.elapsed()
            })
        });
    });

    group.bench_function("tell", |bencher| {
        bencher.iter_custom(|times| {
            let counter = grid.actor::<Counter>("tell");
            timed(&runtime, async move {
                /// Tells between two looks at whether the actor keeps up.
                const BURST: u64 = 1_000;
                let begun = Instant::now();
                let mut left = times;
                while left > 0 {
                    for _ in 0..left.min(BURST) {
                        counter.add(black_box(1)).tell().expect("the mailbox holds a burst");
                    }
                    left -= left.min(BURST);
                    // Queued behind the burst, so its answer says that all of it has run.
                    black_box(counter.read().await.expect("it is there"));
                }
                begun.elapsed()
            })
        });
    });

    group.bench_function("ask_that_awaits", |bencher| {
        bencher.iter_custom(|times| {
            let counter = grid.actor::<Counter>("awaits");
            timed(&runtime, async move {
                let begun = Instant::now();
                for _ in 0..times {
                    black_box(counter.add_later(black_box(1)).await.expect("it is there"));
                }
                begun.elapsed()
            })
        });
    });

    group.bench_function("activate_and_ask", |bencher| {
        bencher.iter_custom(|times| {
            let grid = grid.clone();
            timed(&runtime, async move {
                let begun = Instant::now();
                for key in 0..times {
                    black_box(grid.actor::<Counter>(key).add(1).await.expect("it is there"));
                }
                let took = begun.elapsed();
                for key in 0..times {
                    grid.deactivate::<Counter>(key);
                }
                took
            })
        });
    });

    group.bench_function("bare_mpsc_oneshot", |bencher| {
        bencher.iter_custom(|times| {
            timed(&runtime, async move {
                let task = bare_task();
                let begun = Instant::now();
                for _ in 0..times {
                    let (reply, answer) = oneshot::channel();
                    task.send((black_box(1), reply)).await.expect("the task runs");
                    black_box(answer.await.expect("the task answers"));
                }
                begun.elapsed()
            })
        });
    });
    group.finish();
}

criterion_group!(benches, local);
criterion_main!(benches);
