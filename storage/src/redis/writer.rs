//! Commits that wait, sent together.
//!
//! Each lane takes all that waits, up to [`BATCH_MAX`] commits or [`BATCH_BYTES_MAX`], sends it as one pipeline, and
//! hands the answers out. So the more writers there are, the fewer system calls each commit costs. While one lane's
//! batch is at the server, the other lanes fill theirs.

use std::sync::Arc;

use quark_runtime::store::StoreError;
use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::client::{Call, Client};
use super::link::{Effect, Task};

/// How many batches are on their way at once.
const LANES: usize = 2;

/// How many commits one batch may hold: it keeps the server from other work for about a millisecond.
const BATCH_MAX: usize = 256;

/// How many bytes a batch may hold, unless its one commit is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How many commits may wait in a lane. Whoever comes then waits for a place, at most as long as for an answer.
const WAITING_MAX: usize = 1024;

struct Waiting {
    call: Call,
    since: Instant,
    answer: oneshot::Sender<Result<Value, StoreError>>,
}

/// Sends commits together.
pub(super) struct Writer {
    client: Arc<Client>,
    lanes: Vec<mpsc::Sender<Waiting>>,
    _tasks: Vec<Task>,
}

impl Writer {
    pub(super) fn new(client: Arc<Client>) -> Self {
        let (mut lanes, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..LANES {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            lanes.push(sender);
            tasks.push(Task::spawn(send_all(client.clone(), receiver)));
        }
        Self { client, lanes, _tasks: tasks }
    }

    /// Sends one command with those that wait. One that is dropped before its batch is made is not sent.
    pub(super) async fn send(&self, place: usize, call: Call) -> Result<Value, StoreError> {
        let errors = &self.client.errors;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { call, since: Instant::now(), answer };
        let lane = &self.lanes[place % self.lanes.len()];
        match timeout(self.client.patience(), lane.send(waiting)).await {
            Ok(Ok(())) => (),
            Ok(Err(_)) => return Err(errors.unavailable("the store is being closed")),
            Err(_) => return Err(errors.unavailable("too many commits are waiting already")),
        }
        answered.await.unwrap_or_else(|_| Err(errors.unknown("the store was closed")))
    }
}

/// Sends what waits until nobody can come any more.
async fn send_all(client: Arc<Client>, mut receiver: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::with_capacity(BATCH_MAX);
    while receiver.recv_many(&mut waiting, BATCH_MAX).await > 0 {
        let now = Instant::now();
        let patience = client.patience();
        let (mut calls, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        for Waiting { call, since, answer } in waiting.drain(..) {
            if answer.is_closed() {
                continue;
            }
            if now.duration_since(since) > patience {
                // Whoever is gone does not hear it.
                let _ = answer.send(Err(client.errors.unavailable("it waited too long to be sent")));
                continue;
            }
            let size: usize = call.command.args_iter().map(size_of_argument).sum();
            if bytes + size > BATCH_BYTES_MAX && !calls.is_empty() {
                flush(&client, &mut calls, &mut answers).await;
                bytes = 0;
            }
            bytes += size;
            calls.push(call);
            answers.push(answer);
        }
        flush(&client, &mut calls, &mut answers).await;
    }
}

fn size_of_argument(argument: redis::Arg<&[u8]>) -> usize {
    match argument {
        redis::Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    }
}

async fn flush(
    client: &Client,
    calls: &mut Vec<Call>,
    answers: &mut Vec<oneshot::Sender<Result<Value, StoreError>>>,
) {
    let results = client.run(std::mem::take(calls), Effect::Writes).await;
    for (answer, result) in answers.drain(..).zip(results) {
        // Whoever is gone does not hear it.
        let _ = answer.send(result);
    }
}
