//! ractor 0.16. Its mailboxes have no bound.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use super::on_tokio;
use crate::works::{Framework, Work};

#[derive(Clone)]
struct Ractor;

struct Counter;

enum Request {
    Add(RpcReplyPort<u64>),
    AddLater(RpcReplyPort<u64>),
    Tell,
}

impl Actor for Counter {
    type Msg = Request;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Request>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Request>,
        request: Request,
        count: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match request {
            Request::Add(reply) => {
                *count += 1;
                reply.send(*count)?;
            }
            Request::AddLater(reply) => {
                tokio::task::yield_now().await;
                *count += 1;
                reply.send(*count)?;
            }
            Request::Tell => *count += 1,
        }
        Ok(())
    }
}

impl Framework for Ractor {
    type Counter = ActorRef<Request>;

    async fn spawn(&self, _: u64) -> ActorRef<Request> {
        Actor::spawn(None, Counter, ()).await.expect("it starts").0
    }

    async fn ask(counter: &ActorRef<Request>) -> u64 {
        counter.call(Request::Add, None).await.expect("it runs").expect("it answers")
    }

    async fn read(counter: &ActorRef<Request>) -> u64 {
        Self::ask(counter).await
    }

    async fn ask_later(counter: &ActorRef<Request>) -> u64 {
        counter.call(Request::AddLater, None).await.expect("it runs").expect("it answers")
    }

    async fn tell(counter: &ActorRef<Request>) {
        counter.cast(Request::Tell).expect("it runs");
    }
}

pub(super) fn measure(work: Work) -> f64 {
    on_tokio(work, work.run(Ractor))
}
