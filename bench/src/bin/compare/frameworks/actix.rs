//! actix 0.13. Actors and callers share the one thread of an actix system, where it is fastest; for two threads
//! the actor has a thread of its own.

use actix::prelude::*;

use super::MAILBOX;
use crate::works::{Framework, Work};

#[derive(Clone)]
struct Actix(ArbiterHandle);

struct Counter {
    count: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(MAILBOX);
    }
}

struct Add;
struct AddLater;

impl Message for Add {
    type Result = u64;
}

impl Message for AddLater {
    type Result = u64;
}

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Add, _: &mut Context<Self>) -> u64 {
        self.count += 1;
        self.count
    }
}

impl Handler<AddLater> for Counter {
    type Result = AtomicResponse<Self, u64>;

    fn handle(&mut self, _: AddLater, _: &mut Context<Self>) -> AtomicResponse<Self, u64> {
        let later = tokio::task::yield_now().into_actor(self).map(|(), counter, _| {
            counter.count += 1;
            counter.count
        });
        AtomicResponse::new(Box::pin(later))
    }
}

impl Framework for Actix {
    type Counter = Addr<Counter>;

    async fn spawn(&self, _: u64) -> Addr<Counter> {
        Counter::start_in_arbiter(&self.0, |_| Counter { count: 0 })
    }

    async fn ask(counter: &Addr<Counter>) -> u64 {
        counter.send(Add).await.expect("it runs")
    }

    async fn read(counter: &Addr<Counter>) -> u64 {
        counter.send(Add).await.expect("it runs")
    }

    async fn ask_later(counter: &Addr<Counter>) -> u64 {
        counter.send(AddLater).await.expect("it runs")
    }

    async fn tell(counter: &Addr<Counter>) {
        while counter.try_send(Add).is_err() {
            tokio::task::yield_now().await;
        }
    }
}

pub(super) fn measure(work: Work) -> f64 {
    System::new().block_on(async move {
        if work.threads() == 1 {
            return work.run(Actix(Arbiter::current())).await;
        }
        let arbiter = Arbiter::new();
        let figure = work.run(Actix(arbiter.handle())).await;
        arbiter.stop();
        figure
    })
}
