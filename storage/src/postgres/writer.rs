//! The tasks that write commits.
//!
//! Each takes all that waits for it, up to [`BATCH_MAX`], and writes it in one transaction on a connection of the pool.
//! An actor's commits all go to the same task, so they stay in the order in which they came. If a transaction fails as
//! a whole for something that may be one commit's fault, each commit is tried by itself once.
//!
//! `BEGIN`, `COMMIT` and `ROLLBACK` go in the simple protocol: one message there, one back. So when no answer comes to a
//! `COMMIT`, it is not known whether it was done; and as long as none was sent, it is known that nothing was.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use quark_runtime::store::{Commit, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{mpsc, oneshot};

use super::ACQUIRE_MAX;
use super::commits::{self, Batch};
use super::error::{Errors, Stage};
use super::settings::PostgresSettings;
use crate::sql::weight;

/// Tasks, if the pool has connections for so many and as many readers. Enough that one gathers while another waits for
/// the server's disk; with more, batches get smaller and each commit dearer.
const TASKS: u32 = 4;
/// Commits that wait for a task. Whoever finds no room waits up to [`ACQUIRE_MAX`], then hears that the store is
/// unavailable.
const QUEUE_MAX: usize = 2048;
/// Commits in one transaction. Beyond this a flush is cheap enough per commit, and the first of them has waited.
const BATCH_MAX: usize = 512;
/// Bytes of values in one transaction, after which no further commit is taken into it.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How often a batch is begun anew because another silo was in between. Each time it sees what that one did, so more
/// than one in a row takes a silo that commits for the same actors all the time.
const ATTEMPTS_MAX: u32 = 5;
/// How long a rollback may take before the connection is given up instead.
const ROLLBACK_MAX: Duration = Duration::from_secs(1);

struct Job {
    commit: Commit,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// The way to the tasks that write. They end when this is dropped, after what waits.
pub(super) struct Writer {
    tasks: Vec<mpsc::Sender<Job>>,
    hasher: RandomState,
    errors: Errors,
}

impl Writer {
    /// Starts the tasks on the present tokio runtime.
    pub(super) fn start(pool: &PgPool, errors: &Errors, settings: &PostgresSettings) -> Self {
        let start = |_| {
            let (queue, jobs) = mpsc::channel(QUEUE_MAX);
            let (pool, errors, answer_max) = (pool.clone(), errors.clone(), settings.timeout);
            tokio::spawn(Batches { pool, errors, answer_max }.run(jobs));
            queue
        };
        let tasks = (0..TASKS.min(settings.pool / 2).max(1)).map(start).collect();
        Self { tasks, hasher: RandomState::new(), errors: errors.clone() }
    }

    /// Writes a commit together with others.
    pub(super) async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        let task = self.hasher.hash_one(&commit.actor) % self.tasks.len() as u64;
        let task = &self.tasks[usize::try_from(task).unwrap_or(0)];
        let (answer, result) = oneshot::channel();
        let ended = "the runtime that it was opened on has ended";
        match tokio::time::timeout(ACQUIRE_MAX, task.send(Job { commit, answer })).await {
            Ok(Ok(())) => (),
            Ok(Err(_)) => return Err(self.errors.unavailable(ended)),
            Err(_) => return Err(self.errors.unavailable("too much waits to be written")),
        }
        // The task answers in bounded time: each of the batches before ends in an answer or in an error.
        result.await.unwrap_or_else(|_| Err(self.errors.lost(Stage::Sent, ended)))
    }
}

/// A task.
struct Batches {
    pool: PgPool,
    errors: Errors,
    /// How long a batch may take, and then its end.
    answer_max: Duration,
}

impl Batches {
    async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.recv().await {
            let mut bytes = weight(&first.commit);
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(job) = jobs.try_recv()
            {
                bytes += weight(&job.commit);
                batch.push(job);
            }
            self.write(batch).await;
        }
    }

    async fn write(&self, batch: Vec<Job>) {
        let commits: Vec<&Commit> = batch.iter().map(|job| &job.commit).collect();
        let outcomes = match self.transaction(&commits).await {
            Ok(outcomes) => outcomes,
            Err(error) if commits.len() > 1 && is_of_one(&error) => {
                let mut outcomes = Vec::with_capacity(commits.len());
                for commit in commits {
                    outcomes.push(match self.transaction(&[commit]).await {
                        Ok(mut alone) => alone.pop().unwrap_or(Ok(())),
                        Err(error) => Err(error),
                    });
                }
                outcomes
            }
            Err(error) => vec![Err(error); batch.len()],
        };
        for (job, outcome) in batch.into_iter().zip(outcomes) {
            // Whoever asked may be gone.
            let _ = job.answer.send(outcome);
        }
    }

    /// Writes all of it and gives each commit's outcome; or writes nothing, as far as the error says so.
    async fn transaction(&self, commits: &[&Commit]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let failed = |error| self.errors.store_error(error, Stage::Before);
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        for _ in 0..ATTEMPTS_MAX {
            let in_time = tokio::time::timeout(self.answer_max, self.within(&mut connection, commits)).await;
            match in_time.unwrap_or_else(|_| Err(self.errors.unavailable("no answer in time"))) {
                Ok(Batch::Written(outcomes)) => {
                    let end = sqlx::raw_sql("COMMIT").execute(&mut *connection);
                    let cause = match tokio::time::timeout(self.answer_max, end).await {
                        Ok(Ok(_)) => return Ok(outcomes),
                        Ok(Err(error)) => self.errors.store_error(error, Stage::Sent),
                        Err(_) => self.errors.lost(Stage::Sent, "no answer in time"),
                    };
                    discard(connection);
                    return Err(cause);
                }
                Ok(Batch::Again) => {
                    let end = sqlx::raw_sql("ROLLBACK").execute(&mut *connection);
                    let cause = match tokio::time::timeout(ROLLBACK_MAX, end).await {
                        Ok(Ok(_)) => continue,
                        Ok(Err(error)) => self.errors.store_error(error, Stage::Before),
                        Err(_) => self.errors.unavailable("no answer in time"),
                    };
                    discard(connection);
                    return Err(cause);
                }
                Err(error) => {
                    undo(connection).await;
                    return Err(error);
                }
            }
        }
        Err(self.errors.unavailable("other silos write the same actors all the time"))
    }

    async fn within(
        &self,
        connection: &mut PoolConnection<Postgres>,
        commits: &[&Commit],
    ) -> Result<Batch, StoreError> {
        let begin = sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut **connection).await;
        begin.map_err(|error| self.errors.store_error(error, Stage::Before))?;
        commits::run(connection, commits, &self.errors).await
    }
}

/// Rolls back; a connection that cannot even do that is given up, and its transaction with it.
async fn undo(mut connection: PoolConnection<Postgres>) {
    let end = sqlx::raw_sql("ROLLBACK").execute(&mut *connection);
    if !matches!(tokio::time::timeout(ROLLBACK_MAX, end).await, Ok(Ok(_))) {
        discard(connection);
    }
}

/// Gives a connection up. Dropped, it is closed; the server rolls back what is open on it.
fn discard(connection: PoolConnection<Postgres>) {
    drop(connection.detach());
}

/// Whether the others of a batch may succeed without the one that failed.
fn is_of_one(error: &StoreError) -> bool {
    matches!(error, StoreError::Full { .. } | StoreError::TooLarge { .. } | StoreError::Unexpected { .. })
}
