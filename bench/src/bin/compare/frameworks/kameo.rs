//! kameo 0.22.

use kameo::Actor;
use kameo::actor::{ActorRef, Spawn};
use kameo::mailbox;
use kameo::message::{Context, Message};

use super::{MAILBOX, on_tokio};
use crate::works::{Framework, Work};

#[derive(Clone)]
struct Kameo;

#[derive(Actor)]
struct Counter {
    count: u64,
}

struct Add;
struct AddLater;

impl Message<Add> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Add, _: &mut Context<Self, u64>) -> u64 {
        self.count += 1;
        self.count
    }
}

impl Message<AddLater> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: AddLater, _: &mut Context<Self, u64>) -> u64 {
        tokio::task::yield_now().await;
        self.count += 1;
        self.count
    }
}

impl Framework for Kameo {
    type Counter = ActorRef<Counter>;

    async fn spawn(&self, _: u64) -> ActorRef<Counter> {
        Counter::spawn_with_mailbox(Counter { count: 0 }, mailbox::bounded(MAILBOX))
    }

    async fn ask(counter: &ActorRef<Counter>) -> u64 {
        counter.ask(Add).await.expect("it runs")
    }

    async fn read(counter: &ActorRef<Counter>) -> u64 {
        counter.ask(Add).await.expect("it runs")
    }

    async fn ask_later(counter: &ActorRef<Counter>) -> u64 {
        counter.ask(AddLater).await.expect("it runs")
    }

    async fn tell(counter: &ActorRef<Counter>) {
        counter.tell(Add).await.expect("it runs");
    }
}

pub(super) fn measure(work: Work) -> f64 {
    on_tokio(work, work.run(Kameo))
}
