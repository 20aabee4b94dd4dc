//! The tasks that write commits.
//!
//! Each takes all that waits for it, up to [`BATCH_MAX`], and writes it in one transaction ([`Session`]). An actor's
//! commits all go to the same task, so they stay in the order in which they came.
//!
//! A commit whose actor's row somebody else keeps locked is held by the task and tried again until its time is over,
//! while the others go on.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use quark_runtime::store::{Address, Commit, StoreError};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::commits::{Caution, Outcome};
use super::error::{Errors, Stage};
use super::session::Session;
use super::settings::PostgresSettings;
use super::{ACQUIRE_MAX, LOCK_PART};
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
/// Commits that a task holds because somebody else keeps their actors' rows. When there are so many, none is taken from
/// the queue until one of them is done.
const HELD_MAX: usize = BATCH_MAX;
/// When held commits are tried again. Another silo's batch takes about as long.
const HELD_PAUSE: Duration = Duration::from_millis(5);

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
            let task = Batches {
                session: Session::new(pool, errors, settings),
                held: Vec::new(),
                next_try: Instant::now(),
                lock_max: settings.timeout.mul_f64(LOCK_PART),
            };
            tokio::spawn(task.run(jobs));
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
    session: Session,
    /// Commits whose actors' rows somebody else keeps, in their order, each with the moment when it is given up. At most
    /// [`HELD_MAX`].
    held: Vec<(Job, Instant)>,
    /// When they are tried again.
    next_try: Instant,
    /// How long a commit waits for its actor's row.
    lock_max: Duration,
}

impl Batches {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(batch) = self.gather(&mut jobs).await {
            self.write(batch).await;
            if !self.held.is_empty() && self.next_try <= Instant::now() {
                let held = std::mem::take(&mut self.held);
                self.settle(held, Caution::Careful).await;
                self.next_try = Instant::now() + HELD_PAUSE;
            }
        }
    }

    /// Takes all that waits, up to a bound, as soon as there is something or the held ones are to be tried; `None` when
    /// all is done and nothing more comes.
    async fn gather(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Vec<Job>> {
        let mut batch = Vec::new();
        let mut room = BATCH_MAX;
        if !self.held.is_empty() {
            room = room.min(HELD_MAX - self.held.len());
            let comes = async { if room > 0 { jobs.recv().await } else { None } };
            match tokio::time::timeout_at(self.next_try, comes).await {
                Ok(Some(job)) => batch.push(job),
                Ok(None) => tokio::time::sleep_until(self.next_try).await,
                Err(_) => (),
            }
        } else {
            batch.push(jobs.recv().await?);
        }
        let mut bytes: usize = batch.iter().map(|job| weight(&job.commit)).sum();
        while batch.len() < room
            && bytes < BATCH_BYTES_MAX
            && let Ok(job) = jobs.try_recv()
        {
            bytes += weight(&job.commit);
            batch.push(job);
        }
        Some(batch)
    }

    /// Writes what has come, except what comes after a held commit of the same actor.
    async fn write(&mut self, mut batch: Vec<Job>) {
        let until = Instant::now() + self.lock_max;
        if !self.held.is_empty() {
            let actors: HashSet<&Address> = self.held.iter().map(|(held, _)| &held.commit.actor).collect();
            let (behind, free) = batch.into_iter().partition(|job: &Job| actors.contains(&job.commit.actor));
            let behind: Vec<Job> = behind;
            drop(actors);
            self.held.extend(behind.into_iter().map(|job| (job, until)));
            batch = free;
        }
        self.settle(batch.into_iter().map(|job| (job, until)).collect(), Caution::Hopeful).await;
    }

    /// Writes commits and answers them; those of locked actors are held, unless their time is over.
    async fn settle(&mut self, batch: Vec<(Job, Instant)>, caution: Caution) {
        if batch.is_empty() {
            return;
        }
        let commits: Vec<&Commit> = batch.iter().map(|(job, _)| &job.commit).collect();
        let outcomes = self.session.write(&commits, caution).await;
        if self.held.is_empty() {
            self.next_try = Instant::now() + HELD_PAUSE;
        }
        for ((job, until), outcome) in batch.into_iter().zip(outcomes) {
            let result = match outcome {
                Outcome::Done(result) => result,
                Outcome::Locked if Instant::now() < until => {
                    self.held.push((job, until));
                    continue;
                }
                Outcome::Locked => {
                    Err(self.session.errors.unavailable("somebody else keeps the actor's row locked"))
                }
            };
            // Whoever asked may be gone.
            let _ = job.answer.send(result);
        }
    }
}
