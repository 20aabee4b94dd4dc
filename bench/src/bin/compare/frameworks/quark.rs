//! Quark.

use quark::{Grid, Silo};
use quark_bench::{Counter, CounterRef};

use super::on_tokio;
use crate::works::{Framework, Work};

#[derive(Clone)]
struct Quark(Grid);

impl Framework for Quark {
    type Counter = CounterRef;

    async fn spawn(&self, key: u64) -> CounterRef {
        self.0.actor::<Counter>(key)
    }

    async fn ask(counter: &CounterRef) -> u64 {
        counter.add(1).await.expect("it is there")
    }

    async fn read(counter: &CounterRef) -> u64 {
        counter.read().await.expect("it is there")
    }

    async fn ask_later(counter: &CounterRef) -> u64 {
        counter.add_later(1).await.expect("it is there")
    }

    async fn tell(counter: &CounterRef) {
        // A full mailbox is said at once; the teller then lets the actor run, as a bounded channel would make it.
        while counter.add(1).tell().is_err() {
            tokio::task::yield_now().await;
        }
    }
}

pub(super) fn measure(work: Work) -> f64 {
    on_tokio(work, async move {
        let silo = Silo::builder().host::<Counter>().start().expect("a silo needs nothing here");
        let figure = work.run(Quark(silo.grid())).await;
        silo.shutdown(std::time::Duration::from_secs(5)).await;
        figure
    })
}
