//! Durable streams in SQLite.
//!
//! A namespace is one partition: there is one writer anyway. A group's place and what it was given are rows, so that
//! a group is shared by all that have the file open. Visibility is measured by the machine's clock.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use quark_base::Timestamp;
use quark_runtime::store::{
    Delivered, Group, NameOf, NewItem, Position, ReadStart, Retention, StoreError, StoreFuture, StreamStore,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shared;
use super::columns::{Content, value};
use super::commits::each;
use crate::sql::{check_values, int, limit, time, timestamp, unsigned};

/// How often a waiting reader looks for what other processes appended, and for what has become visible again. Appends
/// of this process are told at once.
const POLL: Duration = Duration::from_millis(100);
/// The longest that a read waits, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(3600);

pub(super) struct Streams {
    shared: Arc<Shared>,
    /// Told at each change that may give a waiting reader something.
    changed: Notify,
}

/// What a reading needs.
#[derive(Clone)]
struct Reading {
    group: Group,
    items: usize,
    now: Timestamp,
    /// What was given before then, and not acknowledged, is given again.
    given_before: Timestamp,
}

impl Streams {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, changed: Notify::new() }
    }

    async fn read(
        &self,
        group: &Group,
        items: usize,
        visibility: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivered>, StoreError> {
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        loop {
            // Made before looking, so that nothing which happens meanwhile is missed.
            let changed = self.changed.notified();
            let now = Timestamp::of_system();
            let given_before = now.saturating_sub(visibility);
            let reading = Reading { group: group.clone(), items, now, given_before };
            let look = reading.clone();
            let any = self.shared.read(move |connection| has_any(connection, &look)).await?;
            if any.unwrap_or(true) {
                let answer = self.shared.write(move |connection| read(connection, &reading)).await?;
                let items = answer.ok_or_else(|| self.unopened(group))?;
                if !items.is_empty() {
                    return Ok(items);
                }
            }
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
            // Whether it is time or a change, it is time to look again.
            let _ = tokio::time::timeout_at(deadline.min(Instant::now() + POLL), changed).await;
        }
    }

    fn unopened(&self, group: &Group) -> StoreError {
        crate::unopened(&self.shared.errors.store, group)
    }
}

fn position(place: i64) -> Position {
    Position { partition: 0, major: unsigned(place), minor: 0 }
}

/// Whether there is something for the group, asked without the writer; `None` if there is no such group.
fn has_any(connection: &Connection, reading: &Reading) -> rusqlite::Result<Option<bool>> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM quark_stream_item i WHERE i.namespace = g.namespace AND position >= g.next) \
         OR EXISTS (SELECT 1 FROM quark_stream_pending p \
         WHERE p.namespace = g.namespace AND p.name = g.name AND given <= ?3) \
         FROM quark_stream_group g WHERE namespace = ?1 AND name = ?2",
    )?;
    let Reading { group, given_before, .. } = reading;
    statement
        .query_row(params![group.namespace, group.name, time(*given_before)], |row| row.get(0))
        .optional()
}

/// How many items the group has not acknowledged; `None` if there is no such group.
fn lag(connection: &Connection, group: &Group) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT count(*) FROM quark_stream_item i WHERE i.namespace = g.namespace AND position >= g.next) \
         + (SELECT count(*) FROM quark_stream_pending p WHERE p.namespace = g.namespace AND p.name = g.name) \
         FROM quark_stream_group g WHERE namespace = ?1 AND name = ?2",
    )?;
    statement.query_row(params![group.namespace, group.name], |row| row.get(0)).optional()
}

/// The place of the next item, which is also the end of the log.
fn end(connection: &Connection, namespace: &str) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT next FROM quark_stream WHERE namespace = ?")?;
    Ok(statement.query_row([namespace], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Where a group that begins there begins.
fn place(connection: &Connection, namespace: &str, start: ReadStart) -> rusqlite::Result<i64> {
    let found = match start {
        ReadStart::Oldest => Some(0),
        ReadStart::Newest => None,
        ReadStart::Time(at) => {
            let mut statement = connection.prepare_cached(
                "SELECT position FROM quark_stream_item WHERE namespace = ? AND time >= ? \
                 ORDER BY position LIMIT 1",
            )?;
            statement.query_row(params![namespace, time(at)], |row| row.get(0)).optional()?
        }
        ReadStart::At(position) => Some(int(position.major)),
    };
    let end = end(connection, namespace)?;
    Ok(found.map_or(end, |place| place.clamp(0, end)))
}

fn append(connection: &Connection, namespace: &str, items: &[NewItem]) -> rusqlite::Result<Vec<Position>> {
    let first = end(connection, namespace)?;
    let placed: Vec<(i64, &NewItem)> = (first..).zip(items).collect();
    let sql = "INSERT INTO quark_stream_item VALUES (?, ?, ?, ?, ?, ?, ?)";
    each(connection, sql, &placed, |statement, (place, item)| {
        let (key, time, body) = (item.key.as_str(), time(item.time), &item.value);
        let columns = params![namespace, place, key, time, body.format, body.version, Content(body)];
        statement.execute(columns).map(drop)
    })?;
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO quark_stream VALUES (?, ?)")?;
    statement.execute(params![namespace, first + limit(items.len())])?;
    Ok(placed.iter().map(|(place, _)| position(*place)).collect())
}

fn open_group(connection: &Connection, group: &Group, start: ReadStart) -> rusqlite::Result<()> {
    let place = place(connection, &group.namespace, start)?;
    let sql = "INSERT INTO quark_stream_group VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
    connection.prepare_cached(sql)?.execute(params![group.namespace, group.name, place]).map(drop)
}

/// Gives the group what it gets; `None` if there is no such group.
fn read(connection: &Connection, reading: &Reading) -> rusqlite::Result<Option<Vec<Delivered>>> {
    let Group { namespace, name } = &reading.group;
    let (now, given_before) = (time(reading.now), time(reading.given_before));
    let sql = "SELECT next FROM quark_stream_group WHERE namespace = ? AND name = ?";
    let next = connection.prepare_cached(sql)?.query_row([namespace, name], |row| row.get(0)).optional()?;
    let next: i64 = match next {
        Some(next) => next,
        None => return Ok(None),
    };

    let mut again = connection.prepare_cached(
        "SELECT position, attempts + 1, key, time, format, version, value \
         FROM quark_stream_pending JOIN quark_stream_item USING (namespace, position) \
         WHERE namespace = ? AND name = ? AND given <= ? ORDER BY position LIMIT ?",
    )?;
    let again = again.query_map(params![namespace, name, given_before, limit(reading.items)], delivered)?;
    let mut items = again.collect::<rusqlite::Result<Vec<_>>>()?;
    if let Some(last) = items.last() {
        let mut statement = connection.prepare_cached(
            "UPDATE quark_stream_pending SET given = ?, attempts = attempts + 1 \
             WHERE namespace = ? AND name = ? AND given <= ? AND position <= ?",
        )?;
        statement.execute(params![now, namespace, name, given_before, int(last.position.major)])?;
    }

    let mut new = connection.prepare_cached(
        "SELECT position, 1, key, time, format, version, value FROM quark_stream_item \
         WHERE namespace = ? AND position >= ? ORDER BY position LIMIT ?",
    )?;
    let new = new.query_map(params![namespace, next, limit(reading.items - items.len())], delivered)?;
    let new = new.collect::<rusqlite::Result<Vec<_>>>()?;
    if let Some(last) = new.last().map(|item| int(item.position.major)) {
        let mut statement = connection.prepare_cached(
            "INSERT INTO quark_stream_pending SELECT namespace, ?, position, ?, 1 FROM quark_stream_item \
             WHERE namespace = ? AND position BETWEEN ? AND ?",
        )?;
        statement.execute(params![name, now, namespace, next, last])?;
        let sql = "UPDATE quark_stream_group SET next = ? WHERE namespace = ? AND name = ?";
        connection.prepare_cached(sql)?.execute(params![last + 1, namespace, name])?;
    }
    items.extend(new);
    Ok(Some(items))
}

fn delivered(row: &Row<'_>) -> rusqlite::Result<Delivered> {
    Ok(Delivered {
        position: position(row.get(0)?),
        attempts: row.get(1)?,
        key: row.get::<_, String>(2)?.into(),
        time: timestamp(row.get(3)?),
        value: value(row, 4)?,
    })
}

fn acknowledge(connection: &Connection, group: &Group, positions: &[Position]) -> rusqlite::Result<()> {
    let sql = "DELETE FROM quark_stream_pending WHERE namespace = ? AND name = ? AND position = ?";
    each(connection, sql, positions, |statement, position| {
        statement.execute(params![group.namespace, group.name, int(position.major)]).map(drop)
    })
}

/// Sends a group elsewhere; false if there is no such group.
fn seek(connection: &Connection, group: &Group, to: ReadStart) -> rusqlite::Result<bool> {
    let Group { namespace, name } = group;
    let place = place(connection, namespace, to)?;
    let sql = "DELETE FROM quark_stream_pending WHERE namespace = ? AND name = ?";
    connection.prepare_cached(sql)?.execute([namespace, name])?;
    let sql = "UPDATE quark_stream_group SET next = ? WHERE namespace = ? AND name = ?";
    Ok(connection.prepare_cached(sql)?.execute(params![place, namespace, name])? > 0)
}

fn trim(connection: &Connection, namespace: &str, keep: Retention) -> rusqlite::Result<u64> {
    let end = end(connection, namespace)?;
    let by_count = keep.items.map_or(0, |items| end.saturating_sub(i64::try_from(items).unwrap_or(i64::MAX)));
    let by_time = match keep.since {
        Some(since) => place(connection, namespace, ReadStart::Time(since))?,
        None => 0,
    };
    let begin = by_count.max(by_time);
    let sql = "DELETE FROM quark_stream_pending WHERE namespace = ? AND position < ?";
    connection.prepare_cached(sql)?.execute(params![namespace, begin])?;
    let sql = "DELETE FROM quark_stream_item WHERE namespace = ? AND position < ?";
    connection.prepare_cached(sql)?.execute(params![namespace, begin]).map(|rows| rows as u64)
}

impl StreamStore for Streams {
    fn append<'a>(&'a self, namespace: &'a str, items: &'a [NewItem]) -> StoreFuture<'a, Vec<Position>> {
        async move {
            NameOf::Namespace.check(namespace)?;
            items.iter().try_for_each(NewItem::check_names)?;
            check_values(&self.shared.errors.store, items.iter().map(|item| &item.value))?;
            let (namespace, items) = (namespace.to_owned(), items.to_vec());
            let positions =
                self.shared.write(move |connection| append(connection, &namespace, &items)).await?;
            self.changed.notify_waiters();
            Ok(positions)
        }
        .boxed()
    }

    fn open_group<'a>(&'a self, group: &'a Group, start: ReadStart) -> StoreFuture<'a, ()> {
        async move {
            group.check_names()?;
            let group = group.clone();
            self.shared.write(move |connection| open_group(connection, &group, start)).await
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        group: &'a Group,
        limit: usize,
        visibility: Duration,
        wait: Duration,
    ) -> StoreFuture<'a, Vec<Delivered>> {
        Streams::read(self, group, limit, visibility, wait).boxed()
    }

    fn acknowledge<'a>(&'a self, group: &'a Group, positions: &'a [Position]) -> StoreFuture<'a, ()> {
        async move {
            if positions.is_empty() {
                return Ok(());
            }
            let (group, positions) = (group.clone(), positions.to_vec());
            self.shared.write(move |connection| acknowledge(connection, &group, &positions)).await
        }
        .boxed()
    }

    fn seek<'a>(&'a self, group: &'a Group, to: ReadStart) -> StoreFuture<'a, ()> {
        async move {
            let sent = group.clone();
            if !self.shared.write(move |connection| seek(connection, &sent, to)).await? {
                return Err(self.unopened(group));
            }
            self.changed.notify_waiters();
            Ok(())
        }
        .boxed()
    }

    fn lag<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, u64> {
        async move {
            let asked = group.clone();
            let lag = self.shared.read(move |connection| lag(connection, &asked)).await?;
            Ok(unsigned(lag.ok_or_else(|| self.unopened(group))?))
        }
        .boxed()
    }

    fn trim<'a>(&'a self, namespace: &'a str, keep: Retention) -> StoreFuture<'a, u64> {
        let namespace = namespace.to_owned();
        self.shared.write(move |connection| trim(connection, &namespace, keep)).boxed()
    }
}
