//! One task's way to the database: transactions on a connection that it keeps.
//!
//! `BEGIN`, `COMMIT` and `ROLLBACK` go in the simple protocol: one message there, one back. So when no answer comes to a
//! `COMMIT`, it is not known whether it was done; and as long as none was sent, it is known that nothing was.

use std::collections::HashSet;
use std::time::Duration;

use quark_runtime::store::{Commit, StoreError};
use sqlx::{PgConnection, PgPool};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use super::ACQUIRE_MAX;
use super::commits::{self, Batch, Caution, Outcome};
use super::era;
use super::error::{Errors, Stage, is_locked};
use super::lease::Lease;
use super::settings::PostgresSettings;
use crate::known::Known;

/// Locks are hardly waited for: who finds one held tries again, and lets others go first.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '50ms'";
/// How often a batch is begun anew because another silo was in between. Each time it sees what that one did, so more
/// than one in a row takes a silo that commits for the same actors all the time.
const ATTEMPTS_MAX: u32 = 5;
/// How long a rollback may take before the connection is given up instead.
const ROLLBACK_MAX: Duration = Duration::from_secs(1);
/// Commits in a row that find something locked, when each is tried by itself, before the rest is taken to be locked too:
/// somebody may have locked a whole table.
const LOCKED_MAX: u32 = 3;

/// A task's connection, with what is known of the database.
pub(super) struct Session {
    pool: PgPool,
    pub(super) errors: Errors,
    /// Kept from batch to batch, so that none costs the pool's question whether it still answers.
    connection: Option<Lease>,
    known: Known,
    /// How long a batch may take, and then its end.
    answer_max: Duration,
}

/// Why a transaction came to nothing.
enum Failure {
    /// Somebody else kept a lock that it needed.
    Locked,
    Error(StoreError),
}

impl Failure {
    /// Whether the others of a batch may succeed without the one that failed.
    fn is_of_one(&self) -> bool {
        match self {
            Self::Locked => true,
            Self::Error(error) => matches!(
                error,
                StoreError::Full { .. } | StoreError::TooLarge { .. } | StoreError::Unexpected { .. }
            ),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Locked => Outcome::Locked,
            Self::Error(error) => Outcome::Done(Err(error.clone())),
        }
    }
}

impl Session {
    pub(super) fn new(pool: &PgPool, errors: &Errors, settings: &PostgresSettings) -> Self {
        Self {
            pool: pool.clone(),
            errors: errors.clone(),
            connection: None,
            known: Known::nothing(),
            answer_max: settings.timeout,
        }
    }

    /// Writes commits and says what became of each. If they fail as a whole for something that may be one commit's
    /// fault, each is tried by itself once.
    pub(super) async fn write(&mut self, commits: &[&Commit], caution: Caution) -> Vec<Outcome> {
        match self.transaction(commits, caution).await {
            Ok(outcomes) => outcomes,
            Err(failure) if commits.len() > 1 && failure.is_of_one() => self.write_each(commits).await,
            Err(failure) => commits.iter().map(|_| failure.outcome()).collect(),
        }
    }

    async fn write_each(&mut self, commits: &[&Commit]) -> Vec<Outcome> {
        let end = Instant::now() + self.answer_max;
        let (mut actors, mut in_a_row) = (HashSet::new(), 0);
        let mut outcomes = Vec::with_capacity(commits.len());
        for commit in commits {
            // What comes after a commit of the same actor does not overtake it.
            let outcome = if in_a_row == LOCKED_MAX || actors.contains(&commit.actor) {
                Outcome::Locked
            } else if Instant::now() > end {
                Outcome::Done(Err(self.errors.unavailable("no answer in time")))
            } else {
                match self.transaction(&[commit], Caution::Hopeful).await {
                    Ok(alone) => alone.into_iter().next().unwrap_or(Outcome::Done(Ok(()))),
                    Err(failure) => failure.outcome(),
                }
            };
            match outcome {
                Outcome::Locked => {
                    actors.insert(&commit.actor);
                    in_a_row = LOCKED_MAX.min(in_a_row + 1);
                }
                Outcome::Done(_) => in_a_row = 0,
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Writes all of it and gives each commit's outcome; or writes nothing, as far as the error says so.
    async fn transaction(
        &mut self,
        commits: &[&Commit],
        mut caution: Caution,
    ) -> Result<Vec<Outcome>, Failure> {
        for _ in 0..ATTEMPTS_MAX {
            let mut connection = self.begin().await?;
            let batch = self.within(&mut connection, commits, caution).await;
            if let Ok(Batch::Written(outcomes)) = batch {
                self.commit(connection).await?;
                return Ok(outcomes);
            }
            self.known.forget();
            match batch {
                // The server may have become another one by the time that it takes writes.
                Err(failure @ Failure::Error(StoreError::ReadOnly { .. })) => return Err(failure),
                Err(Failure::Locked) if caution == Caution::Hopeful => {
                    caution = Caution::Careful;
                    self.roll_back(connection).await;
                }
                Err(failure) => {
                    self.roll_back(connection).await;
                    return Err(failure);
                }
                Ok(_) => self.roll_back(connection).await,
            }
        }
        Err(Failure::Error(self.errors.unavailable("other silos write the same actors all the time")))
    }

    /// Begins on the connection that is kept; should that have gone meanwhile, on another one.
    async fn begin(&mut self) -> Result<Lease, Failure> {
        if let Some(mut kept) = self.connection.take()
            && matches!(timeout(ACQUIRE_MAX, execute(&mut kept, BEGIN)).await, Ok(Ok(())))
        {
            return Ok(kept);
        }
        // Another connection may lead to another server.
        self.known.forget();
        let begun = async {
            let mut connection = Lease::of(&self.pool).await?;
            // It may be older than the era: a standby that is promoted keeps its connections.
            era::settle(&mut connection).await?;
            execute(&mut connection, BEGIN).await?;
            Ok(connection)
        };
        let result = timeout(self.answer_max, begun).await;
        self.told(result, Stage::Before)
    }

    async fn within(
        &mut self,
        connection: &mut PgConnection,
        commits: &[&Commit],
        caution: Caution,
    ) -> Result<Batch, Failure> {
        let run = commits::run(connection, commits, caution, &mut self.known, &self.errors.store);
        let result = timeout(self.answer_max, run).await;
        self.told(result, Stage::Before)
    }

    async fn commit(&mut self, mut connection: Lease) -> Result<(), Failure> {
        let result = timeout(self.answer_max, execute(&mut connection, "COMMIT")).await;
        let result = self.told(result, Stage::Sent);
        match result {
            // A server that has done a `COMMIT` stays in its era as long as its connections last.
            Ok(()) => self.connection = Some(connection),
            Err(_) => self.known.forget(),
        }
        result
    }

    /// A connection that cannot even do that is given up, and its transaction with it.
    async fn roll_back(&mut self, mut connection: Lease) {
        if matches!(timeout(ROLLBACK_MAX, execute(&mut connection, "ROLLBACK")).await, Ok(Ok(()))) {
            connection.give_back();
        }
    }

    /// What ended in time, or did not, to those who wait.
    fn told<T>(&self, result: Result<Result<T, sqlx::Error>, Elapsed>, stage: Stage) -> Result<T, Failure> {
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if is_locked(&error) => Err(Failure::Locked),
            Ok(Err(error)) => Err(Failure::Error(self.errors.store_error(error, stage))),
            Err(_) => Err(Failure::Error(self.errors.lost(stage, "no answer in time"))),
        }
    }
}

async fn execute(connection: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(connection).await.map(drop)
}
