//! One connection to one node, kept alive by a task of its own.
//!
//! The task connects, watches, and connects again after a pause that grows to [`PAUSE_MAX`]; meanwhile callers hear at
//! once why there is no connection. A connection that owes an answer for too long is given up, since nobody can tell
//! a slow server from one that is gone.

use std::sync::Arc;
use std::time::Duration;

use quark_runtime::store::{HealthState, StoreError};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::dial::Dialer;
use super::settings::Node;

/// The pause after a first failure: a server that restarts takes about as long.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest pause: a silo is back within seconds after its store.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// An idle connection is tried so often, since a network that swallows packets says nothing by itself.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How many pipelines may be on their way over one connection. Whoever comes then waits, at most as long as for an
/// answer.
const IN_FLIGHT_MAX: usize = 512;

/// Whether what is sent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It does not: without an answer nothing has happened.
    Reads,
    /// It does: without an answer nobody knows.
    Writes,
}

/// A task that ends with its owner.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
enum State {
    Connecting,
    Up { connection: MultiplexedConnection, broken: Arc<Notify> },
    Down(StoreError),
}

/// A connection to one node. It is there for as long as this is.
pub(super) struct Link {
    dialer: Arc<Dialer>,
    state: Arc<watch::Sender<State>>,
    in_flight: Semaphore,
    _keeper: Task,
}

impl Link {
    pub(super) fn new(dialer: Arc<Dialer>, node: Node) -> Self {
        let state = Arc::new(watch::Sender::new(State::Connecting));
        let keeper = Task::spawn(keep(dialer.clone(), node, state.clone()));
        Self { dialer, state, in_flight: Semaphore::new(IN_FLIGHT_MAX), _keeper: keeper }
    }

    pub(super) fn health(&self) -> HealthState {
        match &*self.state.borrow() {
            State::Up { .. } => HealthState::Up,
            State::Connecting => HealthState::Down("connecting".into()),
            State::Down(error) => HealthState::Down(error.to_string().into()),
        }
    }

    /// Sends a pipeline and gives one answer for each of its commands.
    pub(super) async fn send(&self, pipeline: &Pipeline, effect: Effect) -> Result<Vec<Value>, StoreError> {
        let errors = &self.dialer.errors;
        let permit = timeout(self.dialer.settings.response_timeout, self.in_flight.acquire()).await;
        // The semaphore is never closed.
        let Ok(Ok(_permit)) = permit else {
            return Err(errors.unavailable("too much is on its way already"));
        };
        let (mut connection, broken) = self.connection().await?;
        match connection.send_packed_commands(pipeline, 0, pipeline.len()).await {
            Ok(answers) if answers.len() == pipeline.len() => Ok(answers),
            Ok(answers) => {
                let cause = format!("{} answers to {} commands", answers.len(), pipeline.len());
                self.give_up(&broken, errors.unavailable(&cause));
                Err(errors.unexpected(&cause))
            }
            Err(error) => {
                self.give_up(&broken, errors.unavailable(&error.to_string()));
                Err(match effect {
                    Effect::Reads => errors.unavailable(&error.to_string()),
                    Effect::Writes => errors.unknown(&error.to_string()),
                })
            }
        }
    }

    /// Lets nobody use this connection any more, from now on.
    fn give_up(&self, broken: &Arc<Notify>, why: StoreError) {
        self.state.send_if_modified(|state| {
            let is_this =
                matches!(&*state, State::Up { broken: current, .. } if Arc::ptr_eq(current, broken));
            if is_this {
                *state = State::Down(why);
            }
            is_this
        });
        broken.notify_one();
    }

    /// The connection, if there is one. Only the very first is waited for.
    async fn connection(&self) -> Result<(MultiplexedConnection, Arc<Notify>), StoreError> {
        let errors = &self.dialer.errors;
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting));
        let state = match timeout(self.dialer.settings.connect_timeout, settled).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => return Err(errors.unavailable("the store is being closed")),
            Err(_) => return Err(errors.unavailable("no connection yet")),
        };
        match state {
            State::Up { connection, broken } => Ok((connection, broken)),
            State::Down(error) => Err(error),
            State::Connecting => Err(errors.unavailable("no connection yet")),
        }
    }
}

/// Connects again and again.
async fn keep(dialer: Arc<Dialer>, node: Node, state: Arc<watch::Sender<State>>) {
    let mut pause = PAUSE_MIN;
    loop {
        let broken = Arc::new(Notify::new());
        match dialer.dial(&node, broken.clone()).await {
            Ok(connection) => {
                tracing::debug!(store = %dialer.errors.store, %node, "connected");
                pause = PAUSE_MIN;
                state.send_replace(State::Up { connection: connection.clone(), broken: broken.clone() });
                watch_over(connection, &broken).await;
                tracing::warn!(store = %dialer.errors.store, %node, "connection lost");
                let lost = dialer.errors.unavailable(&format!("{node}: connection lost"));
                state.send_if_modified(|state| {
                    // Whoever gave it up has said why.
                    let is_up = matches!(state, State::Up { .. });
                    if is_up {
                        *state = State::Down(lost);
                    }
                    is_up
                });
            }
            Err(error) => {
                // Said once, and then only when the reason changes: an outage may be long.
                let known = matches!(&*state.borrow(), State::Down(before) if *before == error);
                if !known {
                    tracing::warn!(store = %dialer.errors.store, %node, %error, "no connection");
                    state.send_replace(State::Down(error));
                }
            }
        }
        // Spread, so that the silos of a grid don't all come at the same moment.
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Ends when the connection does, or owes an answer for too long.
async fn watch_over(mut connection: MultiplexedConnection, broken: &Notify) {
    let ping = redis::cmd("PING");
    let beat = async {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if connection.send_packed_command(&ping).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = broken.notified() => (),
        () = beat => (),
    }
}
