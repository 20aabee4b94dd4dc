//! Reminders in SQLite.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use quark_base::Timestamp;
use quark_runtime::store::{
    Address, Advance, DuePage, DuePlace, NameOf, ReminderRecord, ReminderStore, RingRange, StoreFuture,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::Shared;
use super::chunks::Chunked;
use super::columns::{actor, bind_actor};
use crate::sql::{Last, int, limit, point, ring, time, timestamp, unsigned};

pub(super) struct Reminders(pub(super) Arc<Shared>);

/// The text of a query on a part of the ring: one that wraps around is outside of the gap between its ends. The index on
/// time and point goes on with the primary key, so it has the order as a whole.
macro_rules! in_range {
    ($columns:literal, $straight:expr) => {
        if $straight {
            in_range!(@text $columns, "ring BETWEEN ?1 AND ?2")
        } else {
            in_range!(@text $columns, "(ring >= ?1 OR ring <= ?2)")
        }
    };
    (@text $columns:literal, $range:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM quark_reminder WHERE (due, ring, actor_type, actor_key, name) > (?4, ?5, ?6, ?7, ?8) \
             AND due <= ?3 AND ",
            $range,
            " ORDER BY due, ring, actor_type, actor_key, name LIMIT ?9"
        )
    };
}

fn record(row: &SqliteRow) -> ReminderRecord {
    ReminderRecord {
        actor: actor(row, 0),
        name: row.get(2),
        due: timestamp(row.get(3)),
        schedule: row.get(4),
        ring: point(row.get(5)),
        version: unsigned(row.get(6)),
    }
}

impl Reminders {
    async fn of_actor(&self, address: &Address) -> Result<Vec<ReminderRecord>, sqlx::Error> {
        let query =
            sqlx::query("SELECT * FROM quark_reminder WHERE actor_type = ? AND actor_key = ? ORDER BY name");
        let rows = bind_actor(query, address).fetch_all(&self.0.readers).await?;
        Ok(rows.iter().map(record).collect())
    }

    async fn due(
        &self,
        range: RingRange,
        after: &DuePlace,
        until: Timestamp,
        rows: usize,
    ) -> Result<DuePage, sqlx::Error> {
        let query = sqlx::query(in_range!("*", range.first <= range.last));
        let query = query.bind(ring(range.first)).bind(ring(range.last)).bind(time(until));
        let last = Last::of(after);
        let query = query.bind(time(after.due)).bind(ring(last.ring)).bind(last.actor_type);
        let query = query.bind(last.actor_key).bind(last.name).bind(limit(rows));
        let found = query.fetch_all(&self.0.readers).await?;
        Ok(DuePage::up_to(rows, found.iter().map(record).collect()))
    }

    async fn next_due(&self, range: RingRange) -> Result<Option<Timestamp>, sqlx::Error> {
        let query = sqlx::query_scalar(in_range!("due", range.first <= range.last));
        let query = query.bind(ring(range.first)).bind(ring(range.last)).bind(i64::MAX);
        let query = query.bind(0_i64).bind(i64::MIN).bind("").bind("").bind("").bind(1_i64);
        Ok(query.fetch_optional(&self.0.readers).await?.map(timestamp))
    }
}

#[expect(clippy::ptr_arg, reason = "the writer lends what it was given as it was given")]
fn put<'c>(
    reminders: &'c Vec<ReminderRecord>,
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<(), sqlx::Error>> {
    async move {
        let replace = Chunked::new("INSERT OR REPLACE INTO quark_reminder VALUES", "(?,?,?,?,?,?,?)", "");
        for (statement, part) in replace.parts(reminders) {
            let query = part.iter().fold(sqlx::query(statement), |query, reminder| {
                bind_actor(query, &reminder.actor)
                    .bind(reminder.name.as_str())
                    .bind(time(reminder.due))
                    .bind(reminder.schedule.as_str())
                    .bind(ring(reminder.ring))
                    .bind(int(reminder.version))
            });
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }
    .boxed()
}

fn remove<'c>(
    (address, name): &'c (Address, String),
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<bool, sqlx::Error>> {
    async move {
        let query =
            sqlx::query("DELETE FROM quark_reminder WHERE actor_type = ? AND actor_key = ? AND name = ?");
        let done = bind_actor(query, address).bind(name.as_str()).execute(connection).await?;
        Ok(done.rows_affected() > 0)
    }
    .boxed()
}

fn advance<'c>(
    moves: &'c Vec<Advance>,
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<Vec<bool>, sqlx::Error>> {
    async move {
        let mut applied = Vec::with_capacity(moves.len());
        for step in moves {
            let query = match step.next {
                Some(due) => sqlx::query(
                    "UPDATE quark_reminder SET due = ?, version = ? \
                     WHERE actor_type = ? AND actor_key = ? AND name = ? AND version = ?",
                )
                .bind(time(due))
                .bind(int(step.next_version)),
                None => sqlx::query(
                    "DELETE FROM quark_reminder \
                     WHERE actor_type = ? AND actor_key = ? AND name = ? AND version = ?",
                ),
            };
            let query = bind_actor(query, &step.actor).bind(step.name.as_str()).bind(int(step.version));
            applied.push(query.execute(&mut *connection).await?.rows_affected() > 0);
        }
        Ok(applied)
    }
    .boxed()
}

impl ReminderStore for Reminders {
    fn put<'a>(&'a self, reminders: &'a [ReminderRecord]) -> StoreFuture<'a, ()> {
        async move {
            reminders.iter().try_for_each(ReminderRecord::check_names)?;
            self.0.noted(self.0.writer.write(reminders.to_vec(), put).await)
        }
        .boxed()
    }

    fn remove<'a>(&'a self, actor: &'a Address, name: &'a str) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            NameOf::Reminder.check(name)?;
            self.0.noted(self.0.writer.write((actor.clone(), name.to_owned()), remove).await)
        }
        .boxed()
    }

    fn of_actor<'a>(&'a self, actor: &'a Address) -> StoreFuture<'a, Vec<ReminderRecord>> {
        async move {
            actor.check_names()?;
            self.0.read(Reminders::of_actor(self, actor).await)
        }
        .boxed()
    }

    fn due<'a>(
        &'a self,
        range: RingRange,
        after: &'a DuePlace,
        until: Timestamp,
        limit: usize,
    ) -> StoreFuture<'a, DuePage> {
        async move { self.0.read(Reminders::due(self, range, after, until, limit).await) }.boxed()
    }

    fn next_due(&self, range: RingRange) -> StoreFuture<'_, Option<Timestamp>> {
        async move { self.0.read(Reminders::next_due(self, range).await) }.boxed()
    }

    fn advance<'a>(&'a self, moves: &'a [Advance]) -> StoreFuture<'a, Vec<bool>> {
        async move { self.0.noted(self.0.writer.write(moves.to_vec(), advance).await) }.boxed()
    }
}
