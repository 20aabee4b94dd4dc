//! Reminders in SQLite.

use std::sync::Arc;

use futures_util::FutureExt as _;
use quark_base::Timestamp;
use quark_runtime::store::{
    Address, Advance, DuePage, DuePlace, NameOf, ReminderRecord, ReminderStore, RingRange, StoreFuture,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Shared;
use super::columns::actor;
use super::commits::each;
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

fn record(row: &Row<'_>) -> rusqlite::Result<ReminderRecord> {
    Ok(ReminderRecord {
        actor: actor(row, 0)?,
        name: row.get(2)?,
        due: timestamp(row.get(3)?),
        schedule: row.get(4)?,
        ring: point(row.get(5)?),
        version: unsigned(row.get(6)?),
    })
}

fn of_actor(connection: &Connection, actor: &Address) -> rusqlite::Result<Vec<ReminderRecord>> {
    let sql = "SELECT * FROM quark_reminder WHERE actor_type = ? AND actor_key = ? ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(params![actor.actor_type, actor.key.as_str()], record)?.collect()
}

fn due(
    connection: &Connection,
    range: RingRange,
    after: &DuePlace,
    until: Timestamp,
    rows: usize,
) -> rusqlite::Result<DuePage> {
    let mut statement = connection.prepare_cached(in_range!("*", range.first <= range.last))?;
    let last = Last::of(after);
    let bounds = params![
        ring(range.first),
        ring(range.last),
        time(until),
        time(after.due),
        ring(last.ring),
        last.actor_type,
        last.actor_key,
        last.name,
        limit(rows),
    ];
    let found = statement.query_map(bounds, record)?.collect::<rusqlite::Result<_>>()?;
    Ok(DuePage::up_to(rows, found))
}

fn next_due(connection: &Connection, range: RingRange) -> rusqlite::Result<Option<Timestamp>> {
    let mut statement = connection.prepare_cached(in_range!("due", range.first <= range.last))?;
    let (first, last) = (ring(range.first), ring(range.last));
    let all = params![first, last, i64::MAX, 0, i64::MIN, "", "", "", 1];
    statement.query_row(all, |row| Ok(timestamp(row.get(0)?))).optional()
}

fn put(connection: &Connection, reminders: &[ReminderRecord]) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO quark_reminder VALUES (?, ?, ?, ?, ?, ?, ?)";
    each(connection, sql, reminders, |statement, reminder| {
        let actor = &reminder.actor;
        let columns = params![
            actor.actor_type,
            actor.key.as_str(),
            reminder.name,
            time(reminder.due),
            reminder.schedule,
            ring(reminder.ring),
            int(reminder.version),
        ];
        statement.execute(columns).map(drop)
    })
}

fn remove(connection: &Connection, actor: &Address, name: &str) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM quark_reminder WHERE actor_type = ? AND actor_key = ? AND name = ?";
    let key = params![actor.actor_type, actor.key.as_str(), name];
    Ok(connection.prepare_cached(sql)?.execute(key)? > 0)
}

fn advance(connection: &Connection, moves: &[Advance]) -> rusqlite::Result<Vec<bool>> {
    let mut go_on = connection.prepare_cached(
        "UPDATE quark_reminder SET due = ?5, version = ?6 \
         WHERE actor_type = ?1 AND actor_key = ?2 AND name = ?3 AND version = ?4",
    )?;
    let mut end = connection.prepare_cached(
        "DELETE FROM quark_reminder WHERE actor_type = ? AND actor_key = ? AND name = ? AND version = ?",
    )?;
    let apply = |step: &Advance| {
        let (actor_type, key) = (step.actor.actor_type.as_ref(), step.actor.key.as_str());
        let (name, version) = (step.name.as_str(), int(step.version));
        let rows = match step.next {
            Some(due) => {
                let next = (time(due), int(step.next_version));
                go_on.execute(params![actor_type, key, name, version, next.0, next.1])
            }
            None => end.execute(params![actor_type, key, name, version]),
        };
        rows.map(|rows| rows > 0)
    };
    moves.iter().map(apply).collect()
}

impl ReminderStore for Reminders {
    fn put<'a>(&'a self, reminders: &'a [ReminderRecord]) -> StoreFuture<'a, ()> {
        async move {
            reminders.iter().try_for_each(ReminderRecord::check_names)?;
            let reminders = reminders.to_vec();
            self.0.write(move |connection| put(connection, &reminders)).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, actor: &'a Address, name: &'a str) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            NameOf::Reminder.check(name)?;
            let (actor, name) = (actor.clone(), name.to_owned());
            self.0.write(move |connection| remove(connection, &actor, &name)).await
        }
        .boxed()
    }

    fn of_actor<'a>(&'a self, actor: &'a Address) -> StoreFuture<'a, Vec<ReminderRecord>> {
        async move {
            actor.check_names()?;
            let actor = actor.clone();
            self.0.read(move |connection| of_actor(connection, &actor)).await
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
        let after = after.clone();
        self.0.read(move |connection| due(connection, range, &after, until, limit)).boxed()
    }

    fn next_due(&self, range: RingRange) -> StoreFuture<'_, Option<Timestamp>> {
        self.0.read(move |connection| next_due(connection, range)).boxed()
    }

    fn advance<'a>(&'a self, moves: &'a [Advance]) -> StoreFuture<'a, Vec<bool>> {
        let moves = moves.to_vec();
        self.0.write(move |connection| advance(connection, &moves)).boxed()
    }
}
