//! What the benchmarks run: the actors, and the bare channel that stands for "no framework at all".
//!
//! Each comparison runs in one process and one run, with the same guarantees where the peer has them. The figures
//! are ratios: these machines are shared, so absolute times move.

use quark::prelude::*;
use tokio::sync::{mpsc, oneshot};

/// The actor that is called.
#[derive(Actor)]
#[actor(name = "bench.counter", mailbox = 1_024)]
pub struct Counter {
    count: u64,
}

#[methods]
impl Counter {
    /// Adds in an exclusive turn that ends in its first poll.
    pub async fn add(&mut self, amount: u64) -> u64 {
        self.count += amount;
        self.count
    }

    /// Reads in a shared turn that ends in its first poll.
    pub async fn read(&self) -> u64 {
        self.count
    }

    /// Adds in an exclusive turn that awaits once, so that it is handed over to the executor.
    pub async fn add_later(&mut self, amount: u64) -> u64 {
        tokio::task::yield_now().await;
        self.count += amount;
        self.count
    }
}

/// A message to the bare task: an amount, and where the answer goes.
pub type Bare = (u64, oneshot::Sender<u64>);

/// The least that a hand-written actor is: a task, a bounded channel, a oneshot for each answer.
pub fn bare_task() -> mpsc::Sender<Bare> {
    let (sender, mut receiver) = mpsc::channel::<Bare>(1_024);
    tokio::spawn(async move {
        let mut count = 0u64;
        while let Some((amount, reply)) = receiver.recv().await {
            count += amount;
            // A caller that has gone away needs no answer.
            let _ = reply.send(count);
        }
    });
    sender
}
