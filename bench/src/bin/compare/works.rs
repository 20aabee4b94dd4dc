//! The works: what is done to a framework and what is measured of it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Barrier;

/// A framework under test: counters that can be asked and told.
pub(crate) trait Framework: Clone + Send + Sync + 'static {
    /// A reference to one counter.
    type Counter: Clone + Send + Sync + 'static;

    /// Makes counter number `key`. A framework with virtual actors makes it at its first message.
    fn spawn(&self, key: u64) -> impl Future<Output = Self::Counter> + Send;
    /// Adds one and gives the sum.
    fn ask(counter: &Self::Counter) -> impl Future<Output = u64> + Send;
    /// Reads the sum, by a shared turn where the framework has them.
    fn read(counter: &Self::Counter) -> impl Future<Output = u64> + Send;
    /// The same as `ask` by a method that awaits once.
    fn ask_later(counter: &Self::Counter) -> impl Future<Output = u64> + Send;
    /// Adds one; waits only where the mailbox is full.
    fn tell(counter: &Self::Counter) -> impl Future<Output = ()> + Send;
}

/// What is measured. Every figure is a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    AskOne,
    Ask64To1,
    Ask64To64,
    Tell,
    SharedOneThread,
    SharedTwoThreads,
    AskAwaits,
    SpawnAndAsk,
    IdleMemory,
    P99UnderLoad,
}

/// Messages per measurement: some tens of milliseconds for the slowest framework.
const MESSAGES: u64 = 64_000;
const CALLERS: u64 = 64;
/// How long a reader reads, and how often between two looks at the clock.
const READING: Duration = Duration::from_millis(30);
const READS: u64 = 1_000;
const SPAWNED: u64 = 10_000;

impl Work {
    pub(crate) const ALL: [Self; 10] = [
        Self::AskOne,
        Self::Ask64To1,
        Self::Ask64To64,
        Self::Tell,
        Self::SharedOneThread,
        Self::SharedTwoThreads,
        Self::AskAwaits,
        Self::SpawnAndAsk,
        Self::IdleMemory,
        Self::P99UnderLoad,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AskOne => "ask, one caller",
            Self::Ask64To1 => "ask, 64 callers to one actor",
            Self::Ask64To64 => "ask, 64 callers to 64 actors",
            Self::Tell => "tell",
            Self::SharedOneThread => "read of one actor from one thread",
            Self::SharedTwoThreads => "read of one actor from two threads",
            Self::AskAwaits => "ask of a method that awaits once",
            Self::SpawnAndAsk => "spawn and first ask",
            Self::IdleMemory => "memory of an idle actor",
            Self::P99UnderLoad => "99th percentile of an ask under load",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::IdleMemory => "bytes",
            _ => "ns",
        }
    }

    /// Threads that callers and actors share.
    pub(crate) fn threads(self) -> usize {
        if self == Self::SharedTwoThreads { 2 } else { 1 }
    }

    /// Does the work and gives its figure.
    pub(crate) async fn run<F: Framework>(self, framework: F) -> f64 {
        match self {
            Self::AskOne => per_message(MESSAGES, one_caller::<F, _, _>(&framework, ask::<F>)).await,
            Self::AskAwaits => {
                per_message(MESSAGES / 4, repeat(framework.spawn(0).await, MESSAGES / 4, ask_later::<F>))
                    .await
            }
            Self::Ask64To1 => {
                let counter = framework.spawn(0).await;
                let counters = vec![counter; CALLERS as usize];
                F::ask(&counters[0]).await;
                per_message(MESSAGES, fan::<F, _, _>(counters, MESSAGES / CALLERS, ask::<F>)).await
            }
            Self::Ask64To64 => {
                let counters = spawned(&framework, CALLERS).await;
                per_message(MESSAGES, fan::<F, _, _>(counters, MESSAGES / CALLERS, ask::<F>)).await
            }
            Self::Tell => {
                let counter = framework.spawn(0).await;
                F::ask(&counter).await;
                per_message(MESSAGES, async move {
                    for _ in 0..MESSAGES {
                        F::tell(&counter).await;
                    }
                    // Behind all of them, so its answer says that they have run.
                    F::ask(&counter).await;
                })
                .await
            }
            Self::SharedOneThread => shared::<F>(&framework, 1).await,
            Self::SharedTwoThreads => shared::<F>(&framework, 2).await,
            Self::SpawnAndAsk => {
                let begun = Instant::now();
                let counters = spawned(&framework, SPAWNED).await;
                let took = begun.elapsed();
                drop(counters);
                took.as_nanos() as f64 / SPAWNED as f64
            }
            Self::IdleMemory => {
                let mut counters = Vec::with_capacity(SPAWNED as usize);
                let before = crate::allocated();
                for key in 0..SPAWNED {
                    let counter = framework.spawn(key).await;
                    F::ask(&counter).await;
                    counters.push(counter);
                }
                (crate::allocated().saturating_sub(before)) as f64 / SPAWNED as f64
            }
            Self::P99UnderLoad => {
                let counters = spawned(&framework, CALLERS).await;
                p99::<F>(counters).await
            }
        }
    }
}

async fn ask<F: Framework>(counter: F::Counter, times: u64) {
    for _ in 0..times {
        std::hint::black_box(F::ask(&counter).await);
    }
}

async fn read<F: Framework>(counter: F::Counter, times: u64) {
    for _ in 0..times {
        std::hint::black_box(F::read(&counter).await);
    }
}

/// Reads of one actor from `tasks` tasks for a fixed time, which begins when all of them run: a count of messages would
/// be over before the second thread has woken.
async fn shared<F: Framework>(framework: &F, tasks: usize) -> f64 {
    let counter = framework.spawn(0).await;
    F::ask(&counter).await;
    let start = Arc::new(Barrier::new(tasks));
    let readers: Vec<_> = (0..tasks)
        .map(|_| {
            let (counter, start) = (counter.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let (begun, mut times) = (Instant::now(), 0);
                while begun.elapsed() < READING {
                    read::<F>(counter.clone(), READS).await;
                    times += READS;
                }
                times as f64 / begun.elapsed().as_nanos() as f64
            })
        })
        .collect();
    let mut per_ns = 0.0;
    for reader in readers {
        per_ns += reader.await.expect("no work panics");
    }
    1.0 / per_ns
}

async fn ask_later<F: Framework>(counter: F::Counter, times: u64) {
    for _ in 0..times {
        std::hint::black_box(F::ask_later(&counter).await);
    }
}

async fn repeat<C, W, Fut>(counter: C, times: u64, work: W)
where
    W: Fn(C, u64) -> Fut,
    Fut: Future<Output = ()>,
{
    work(counter, times).await;
}

async fn one_caller<F, W, Fut>(framework: &F, work: W)
where
    F: Framework,
    W: Fn(F::Counter, u64) -> Fut,
    Fut: Future<Output = ()>,
{
    work(framework.spawn(0).await, MESSAGES).await;
}

async fn spawned<F: Framework>(framework: &F, count: u64) -> Vec<F::Counter> {
    let mut counters = Vec::with_capacity(count as usize);
    for key in 0..count {
        let counter = framework.spawn(key).await;
        F::ask(&counter).await;
        counters.push(counter);
    }
    counters
}

/// One task per counter reference, each doing `times` of the work.
async fn fan<F, W, Fut>(counters: Vec<F::Counter>, times: u64, work: W)
where
    F: Framework,
    W: Fn(F::Counter, u64) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let tasks: Vec<_> = counters.into_iter().map(|counter| tokio::spawn(work(counter, times))).collect();
    for task in tasks {
        task.await.expect("no work panics");
    }
}

async fn per_message(messages: u64, work: impl Future<Output = ()>) -> f64 {
    let begun = Instant::now();
    work.await;
    begun.elapsed().as_nanos() as f64 / messages as f64
}

async fn p99<F: Framework>(counters: Vec<F::Counter>) -> f64 {
    let tasks: Vec<_> = counters
        .into_iter()
        .map(|counter| {
            tokio::spawn(async move {
                let mut waits = Vec::with_capacity((MESSAGES / CALLERS) as usize);
                for _ in 0..MESSAGES / CALLERS {
                    let begun = Instant::now();
                    std::hint::black_box(F::ask(&counter).await);
                    waits.push(begun.elapsed().as_nanos() as u64);
                    // Lets the others in, so that there is a load to wait behind.
                    tokio::task::yield_now().await;
                }
                waits
            })
        })
        .collect();
    let mut all = Histogram::<u64>::new(3).expect("three digits are allowed");
    for task in tasks {
        for wait in task.await.expect("no work panics") {
            all.record(wait).expect("the histogram grows as it must");
        }
    }
    all.value_at_quantile(0.99) as f64
}
