//! The one task that writes.
//!
//! It takes all that waits, up to [`BATCH_MAX`], writes it in one transaction, commits, and answers everybody. A
//! commit whose expectations fail is answered with the others and has written nothing; another kind of work that fails
//! is undone alone, to a savepoint. If a transaction fails as a whole, each of its parts is tried by itself once, so
//! that one that cannot be written (a value for which there is no room) takes no other down with it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use quark_runtime::store::{Commit, StoreError};
use sqlx::{Connection as _, Row as _, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use super::PATIENCE;
use super::commits::Statements;
use super::error::{Errors, Stage};
use crate::known::Known;
use crate::sql::weight;

/// Pieces of work that wait. Whoever finds no room waits up to [`PATIENCE`], then hears that the store is unavailable.
const QUEUE_MAX: usize = 4096;
/// Pieces of work in one transaction. Beyond this a flush is cheap enough per piece, and the first of them has waited.
const BATCH_MAX: usize = 512;
/// Bytes of values in one transaction, after which no further commit is taken into it.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How long an answer is waited for: what a full queue takes while another process holds the file at each turn.
const ANSWER_MAX: Duration = PATIENCE.saturating_mul((QUEUE_MAX / BATCH_MAX) as u32 + 1);

/// How a piece of work is done with its data, within a transaction. It may be done again if that is rolled back.
type Run<D, T> = for<'c> fn(&'c D, &'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>;

/// A piece of work that is no commit.
trait Work: Send {
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> BoxFuture<'c, Result<(), sqlx::Error>>;
    /// Tells whoever asked for it how it ended.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Task<D, T> {
    data: D,
    run: Run<D, T>,
    value: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<D: Send + Sync, T: Send> Work for Task<D, T> {
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            self.value = Some((self.run)(&self.data, connection).await?);
            Ok(())
        })
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        // Without a value it has not run, and there is an error. Whoever asked may be gone.
        let _ = match (outcome, self.value) {
            (Ok(()), Some(value)) => self.answer.send(Ok(value)),
            (Ok(()), None) => return,
            (Err(error), _) => self.answer.send(Err(error)),
        };
    }
}

enum Job {
    Commit { commit: Commit, answer: oneshot::Sender<Result<(), StoreError>> },
    Work(Box<dyn Work>),
}

impl Job {
    fn weight(&self) -> usize {
        match self {
            Self::Commit { commit, .. } => weight(commit),
            Self::Work(_) => 0,
        }
    }

    fn finish(self, outcome: Result<(), StoreError>) {
        match self {
            Self::Commit { answer, .. } => {
                // Whoever asked may be gone.
                let _ = answer.send(outcome);
            }
            Self::Work(work) => work.finish(outcome),
        }
    }
}

/// The way to the task that writes. The task ends when this is dropped, after what waits.
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
    errors: Errors,
}

impl Writer {
    /// Starts the task on the present tokio runtime.
    pub(super) fn start(connection: SqliteConnection, readers: SqlitePool, errors: Errors) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let task = Batches {
            connection,
            readers,
            statements: Statements::new(),
            known: Known::nothing(),
            version: None,
            errors: errors.clone(),
        };
        tokio::spawn(task.run(jobs));
        Self { queue, errors }
    }

    /// Writes a commit together with others.
    pub(super) async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        let (answer, result) = oneshot::channel();
        self.send(Job::Commit { commit, answer }).await?;
        self.answer(result).await
    }

    /// Does something else together with others.
    pub(super) async fn write<D, T>(&self, data: D, run: Run<D, T>) -> Result<T, StoreError>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.send(Job::Work(Box::new(Task { data, run, value: None, answer }))).await?;
        self.answer(result).await
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        let cause = match tokio::time::timeout(PATIENCE, self.queue.send(job)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => "the runtime that it was opened on has ended",
            Err(_) => "too much waits to be written",
        };
        Err(StoreError::Unavailable { store: self.errors.store.clone(), cause: cause.into() })
    }

    async fn answer<T>(&self, result: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        let cause = match tokio::time::timeout(ANSWER_MAX, result).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => "the runtime that it was opened on has ended",
            Err(_) => "the disk does not answer",
        };
        Err(StoreError::Unknown { store: self.errors.store.clone(), cause: cause.into() })
    }
}

/// The task.
struct Batches {
    connection: SqliteConnection,
    /// Only to be closed.
    readers: SqlitePool,
    statements: Statements,
    known: Known,
    /// The `data_version` of the last transaction.
    version: Option<i64>,
    errors: Errors,
}

impl Batches {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.recv().await {
            let mut bytes = first.weight();
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(job) = jobs.try_recv()
            {
                bytes += job.weight();
                batch.push(job);
            }
            self.write(batch).await;
        }
        // The last connection to go puts what is in the log into the file; a reader could not.
        self.readers.close().await;
        if let Err(error) = self.connection.close().await {
            tracing::warn!(store = %self.errors.store, %error, "a SQLite store was not closed properly");
        }
    }

    async fn write(&mut self, mut batch: Vec<Job>) {
        match self.transaction(&mut batch).await {
            Ok(outcomes) => {
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    job.finish(outcome);
                }
            }
            Err(error) if batch.len() > 1 && is_of_one(&error) => {
                for job in batch {
                    let mut alone = [job];
                    let outcome = match self.transaction(&mut alone).await {
                        Ok(mut outcomes) => outcomes.pop().unwrap_or(Ok(())),
                        Err(error) => Err(error),
                    };
                    let [job] = alone;
                    job.finish(outcome);
                }
            }
            Err(error) => {
                for job in batch {
                    job.finish(Err(error.clone()));
                }
            }
        }
    }

    /// Writes all of it and gives each piece's outcome; or writes nothing, as far as the error says so.
    async fn transaction(&mut self, batch: &mut [Job]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let outcome = match self.within(batch).await {
            Ok(outcomes) => self.execute("COMMIT", Stage::Commit).await.map(|()| outcomes),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.known.forget();
            // After some errors SQLite has rolled back by itself, and says so.
            let _ = self.execute("ROLLBACK", Stage::Write).await;
        }
        outcome
    }

    async fn within(&mut self, batch: &mut [Job]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.begin().await?;
        let commits: Vec<&Commit> = batch
            .iter()
            .filter_map(|job| match job {
                Job::Commit { commit, .. } => Some(commit),
                Job::Work(_) => None,
            })
            .collect();
        let mut of_commits = Vec::new();
        if !commits.is_empty() {
            of_commits =
                self.statements.run(&mut self.connection, &commits, &mut self.known, &self.errors).await?;
        }
        let mut of_commits = of_commits.into_iter();
        let mut outcomes = Vec::with_capacity(batch.len());
        for job in batch {
            outcomes.push(match job {
                Job::Commit { .. } => of_commits.next().unwrap_or(Ok(())),
                Job::Work(work) => self.work(work.as_mut()).await?,
            });
        }
        Ok(outcomes)
    }

    /// Takes the file's one write lock, and looks whether somebody else has written since this connection last did.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let begin =
            sqlx::raw_sql("BEGIN IMMEDIATE; PRAGMA data_version").fetch_one(&mut self.connection).await;
        let version = begin.and_then(|row| row.try_get(0));
        let version = version.map_err(|error| self.errors.store_error(error, Stage::Write))?;
        if self.version.replace(version) != Some(version) {
            self.known.forget();
        }
        Ok(())
    }

    /// Does one piece of work, or undoes it.
    async fn work(&mut self, work: &mut dyn Work) -> Result<Result<(), StoreError>, StoreError> {
        self.execute("SAVEPOINT work", Stage::Write).await?;
        let outcome = work.run(&mut self.connection).await;
        if outcome.is_err() {
            self.execute("ROLLBACK TO work", Stage::Write).await?;
        }
        self.execute("RELEASE work", Stage::Write).await?;
        Ok(outcome.map_err(|error| self.errors.store_error(error, Stage::Write)))
    }

    async fn execute(&mut self, statement: &'static str, stage: Stage) -> Result<(), StoreError> {
        let result = sqlx::query(statement).execute(&mut self.connection).await;
        result.map(drop).map_err(|error| self.errors.store_error(error, stage))
    }
}

/// Whether the others of a batch may succeed without the one that failed.
fn is_of_one(error: &StoreError) -> bool {
    matches!(error, StoreError::Full { .. } | StoreError::TooLarge { .. } | StoreError::Unexpected { .. })
}
