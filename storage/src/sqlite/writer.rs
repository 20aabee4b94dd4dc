//! The one thread that writes.
//!
//! It takes all that waits, up to [`BATCH_MAX`], writes it in one transaction, commits, and answers everybody. A
//! commit whose expectations fail is answered with the others and has written nothing; another kind of work that fails
//! is undone alone, to a savepoint. If a transaction fails as a whole, each of its parts is tried by itself once, so
//! that one that cannot be written (a value for which there is no room) takes no other down with it.

use std::time::Duration;

use quark_runtime::store::{Commit, StoreError};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::{Errors, Stage};
use super::readers::Idle;
use super::{PATIENCE, SqliteSettings, commits, connection};
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

/// A piece of work that is no commit.
trait Work: Send {
    /// Does it, within a transaction. It may be done again if that is rolled back.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    /// Whether nobody waits for it any more.
    fn is_given_up(&self) -> bool;
    /// Tells whoever asked for it how it ended.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Task<F, T> {
    run: F,
    value: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Work for Task<F, T>
where
    F: Fn(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.value = Some((self.run)(connection)?);
        Ok(())
    }

    fn is_given_up(&self) -> bool {
        self.answer.is_closed()
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

    /// Whether nobody waits for it any more. Written late, it would only be in the way of what was read meanwhile.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Commit { answer, .. } => answer.is_closed(),
            Self::Work(work) => work.is_given_up(),
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

/// The way to the thread that writes. The thread ends when this is dropped, after what waits.
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
    errors: Errors,
}

impl Writer {
    /// Starts the thread, on which the file is opened too. It closes the readers when it ends.
    ///
    /// Dropping the future lets the opening end by itself; what it opened is closed.
    pub(super) async fn start(
        settings: SqliteSettings,
        readers: Idle,
        errors: Errors,
    ) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let (answer, opened) = oneshot::channel();
        let of_thread = errors.clone();
        let thread = std::thread::Builder::new().name("quark-sqlite".into()).spawn(move || {
            match connection::writing(&settings, &of_thread) {
                Ok(connection) => {
                    // If nobody waits any more, neither does any work.
                    let _ = answer.send(Ok(()));
                    let known = Known::nothing();
                    Batches { connection, readers, known, version: None, errors: of_thread }.run(jobs);
                }
                Err(error) => {
                    // Whoever asked may be gone.
                    let _ = answer.send(Err(error));
                }
            }
        });
        if let Err(error) = thread {
            return Err(errors.unavailable(&format!("no thread to write on: {error}")));
        }
        match opened.await {
            Ok(result) => result.map(|()| Self { queue, errors }),
            Err(_) => Err(errors.unavailable("the thread that writes has ended")),
        }
    }

    /// Writes a commit together with others.
    pub(super) async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        let (answer, result) = oneshot::channel();
        self.send(Job::Commit { commit, answer }).await?;
        self.answer(result).await
    }

    /// Does something else together with others. It may be done twice, the first time in a transaction that is rolled
    /// back.
    pub(super) async fn write<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.send(Job::Work(Box::new(Task { run, value: None, answer }))).await?;
        self.answer(result).await
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        match tokio::time::timeout(PATIENCE, self.queue.send(job)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.errors.unavailable("the thread that writes has ended")),
            Err(_) => Err(self.errors.unavailable("too much waits to be written")),
        }
    }

    async fn answer<T>(&self, result: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        let cause = match tokio::time::timeout(ANSWER_MAX, result).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => "the thread that writes has ended",
            Err(_) => "the disk does not answer",
        };
        Err(StoreError::Unknown { store: self.errors.store.clone(), cause: cause.into() })
    }
}

/// What the thread has.
struct Batches {
    connection: Connection,
    /// Only to be closed.
    readers: Idle,
    known: Known,
    /// The `data_version` of the last transaction.
    version: Option<i64>,
    errors: Errors,
}

impl Batches {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut bytes = first.weight();
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(job) = jobs.try_recv()
            {
                bytes += job.weight();
                batch.push(job);
            }
            match self.begin() {
                Ok(()) => {
                    // Another process may have had the file for long.
                    batch.retain(|job| !job.is_given_up());
                    self.write(batch);
                }
                // What waits behind it has waited as long, and would do so again for each batch.
                Err(error) => {
                    let waiting = std::iter::from_fn(|| jobs.try_recv().ok()).take(QUEUE_MAX);
                    batch.into_iter().chain(waiting).for_each(|job| job.finish(Err(error.clone())));
                }
            }
        }
        // The last connection to go puts what is in the log into the file, which takes time and may fail.
        self.readers.lock().clear();
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(store = %self.errors.store, %error, "a SQLite store was not closed properly");
        }
    }

    /// Ends a transaction that has begun with these pieces of work in it.
    fn write(&mut self, mut batch: Vec<Job>) {
        match self.transaction(&mut batch) {
            Ok(outcomes) => {
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    job.finish(outcome);
                }
            }
            Err(error) if batch.len() > 1 && is_of_one(&error) => {
                for mut job in batch {
                    let outcome =
                        self.begin().and_then(|()| self.transaction(std::slice::from_mut(&mut job)));
                    job.finish(outcome.and_then(|mut outcomes| outcomes.pop().unwrap_or(Ok(()))));
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
    fn transaction(&mut self, batch: &mut [Job]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let outcome = match self.within(batch) {
            Ok(outcomes) => self.execute("COMMIT", Stage::Commit).map(|()| outcomes),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.known.forget();
            // Should this fail as well, the next transaction begins with another try.
            let _ = self.roll_back();
        }
        outcome
    }

    fn within(&mut self, batch: &mut [Job]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let commits: Vec<&Commit> = batch
            .iter()
            .filter_map(|job| match job {
                Job::Commit { commit, .. } => Some(commit),
                Job::Work(_) => None,
            })
            .collect();
        let of_commits = commits::run(&self.connection, &commits, &mut self.known, &self.errors)?;
        let mut of_commits = of_commits.into_iter();
        let mut outcomes = Vec::with_capacity(batch.len());
        for job in batch {
            outcomes.push(match job {
                Job::Commit { .. } => of_commits.next().unwrap_or(Ok(())),
                Job::Work(work) => self.work(work.as_mut())?,
            });
        }
        Ok(outcomes)
    }

    /// Takes the file's one write lock, which begins a transaction, and looks whether somebody else has written since this connection last did.
    fn begin(&mut self) -> Result<(), StoreError> {
        self.roll_back()?;
        self.execute("BEGIN IMMEDIATE", Stage::Write)?;
        let version = self.connection.prepare_cached("PRAGMA data_version");
        let version = version.and_then(|mut statement| statement.query_row([], |row| row.get(0)));
        let version = match version {
            Ok(version) => version,
            Err(error) => {
                // As after any transaction that fails.
                let _ = self.roll_back();
                return Err(self.errors.store_error(error, Stage::Write));
            }
        };
        if self.version.replace(version) != Some(version) {
            self.known.forget();
        }
        Ok(())
    }

    /// Ends a transaction that did not end well. After some errors SQLite has done so by itself.
    fn roll_back(&self) -> Result<(), StoreError> {
        match self.connection.is_autocommit() {
            true => Ok(()),
            false => self.execute("ROLLBACK", Stage::Write),
        }
    }

    /// Does one piece of work, or undoes it.
    fn work(&self, work: &mut dyn Work) -> Result<Result<(), StoreError>, StoreError> {
        self.execute("SAVEPOINT work", Stage::Write)?;
        let outcome = work.run(&self.connection);
        let outcome = outcome.map_err(|error| self.errors.store_error(error, Stage::Write));
        if outcome.is_err() {
            // After some errors the whole transaction is gone already.
            if self.connection.is_autocommit() {
                return outcome.map(Ok);
            }
            self.execute("ROLLBACK TO work", Stage::Write)?;
        }
        self.execute("RELEASE work", Stage::Write)?;
        Ok(outcome)
    }

    fn execute(&self, sql: &str, stage: Stage) -> Result<(), StoreError> {
        let result = self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        result.map(drop).map_err(|error| self.errors.store_error(error, stage))
    }
}

/// Whether the others of a batch may succeed without the one that failed.
fn is_of_one(error: &StoreError) -> bool {
    matches!(error, StoreError::Full { .. } | StoreError::TooLarge { .. } | StoreError::Unexpected { .. })
}
