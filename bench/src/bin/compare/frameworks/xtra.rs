//! xtra 0.6.

use xtra::prelude::*;

use super::{MAILBOX, on_tokio};
use crate::works::{Framework, Work};

#[derive(Clone)]
struct Xtra;

#[derive(xtra::Actor)]
struct Counter {
    count: u64,
}

struct Add;
struct AddLater;

impl Handler<Add> for Counter {
    type Return = u64;

    async fn handle(&mut self, _: Add, _: &mut Context<Self>) -> u64 {
        self.count += 1;
        self.count
    }
}

impl Handler<AddLater> for Counter {
    type Return = u64;

    async fn handle(&mut self, _: AddLater, _: &mut Context<Self>) -> u64 {
        tokio::task::yield_now().await;
        self.count += 1;
        self.count
    }
}

impl Framework for Xtra {
    type Counter = Address<Counter>;

    async fn spawn(&self, _: u64) -> Address<Counter> {
        xtra::spawn_tokio(Counter { count: 0 }, Mailbox::bounded(MAILBOX))
    }

    async fn ask(counter: &Address<Counter>) -> u64 {
        counter.send(Add).await.expect("it runs")
    }

    async fn read(counter: &Address<Counter>) -> u64 {
        counter.send(Add).await.expect("it runs")
    }

    async fn ask_later(counter: &Address<Counter>) -> u64 {
        counter.send(AddLater).await.expect("it runs")
    }

    async fn tell(counter: &Address<Counter>) {
        // Waits for room, and gives a receiver of the answer, which nobody reads.
        drop(counter.send(Add).detach().await.expect("it runs"));
    }
}

pub(super) fn measure(work: Work) -> f64 {
    on_tokio(work, work.run(Xtra))
}
