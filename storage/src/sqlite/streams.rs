//! Durable streams in SQLite.
//!
//! A namespace is one partition: there is one writer anyway. A group's place and what it was given are rows, so that
//! a group is shared by all that have the file open. Visibility is measured by the machine's clock.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use quark_base::Timestamp;
use quark_runtime::store::{
    Delivered, Group, NameOf, NewItem, Position, ReadStart, Retention, StoreError, StoreFuture, StreamStore,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shared;
use super::chunks::Chunked;
use super::columns::{bind_value, value};
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

/// What a reading needs: the group, how many items, and how old a delivery must be to be given again.
type Reading = (Group, usize, Timestamp, Timestamp);

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
            if self.shared.read(self.has_any(group, given_before).await)?.unwrap_or(true) {
                let reading: Reading = (group.clone(), items, now, given_before);
                let answer = self.shared.noted(self.shared.writer.write(reading, read).await)?;
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

    /// Whether there is something for the group, asked without the writer; `None` if there is no such group.
    async fn has_any(&self, group: &Group, given_before: Timestamp) -> Result<Option<bool>, sqlx::Error> {
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM quark_stream_item i WHERE i.namespace = g.namespace AND position >= g.next) \
             OR EXISTS (SELECT 1 FROM quark_stream_pending p \
             WHERE p.namespace = g.namespace AND p.name = g.name AND given <= ?3) \
             FROM quark_stream_group g WHERE namespace = ?1 AND name = ?2",
        );
        let query = query.bind(group.namespace.as_str()).bind(group.name.as_str()).bind(time(given_before));
        query.fetch_optional(&self.shared.readers).await
    }

    async fn lag(&self, group: &Group) -> Result<Option<i64>, sqlx::Error> {
        let query = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM quark_stream_item i WHERE i.namespace = g.namespace AND position >= g.next) \
             + (SELECT count(*) FROM quark_stream_pending p WHERE p.namespace = g.namespace AND p.name = g.name) \
             FROM quark_stream_group g WHERE namespace = ?1 AND name = ?2",
        );
        query
            .bind(group.namespace.as_str())
            .bind(group.name.as_str())
            .fetch_optional(&self.shared.readers)
            .await
    }

    fn unopened(&self, group: &Group) -> StoreError {
        crate::unopened(&self.shared.errors.store, group)
    }
}

fn position(place: i64) -> Position {
    Position { partition: 0, major: unsigned(place), minor: 0 }
}

/// The place of the next item, which is also the end of the log.
async fn end(namespace: &str, connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT next FROM quark_stream WHERE namespace = ?");
    Ok(query.bind(namespace).fetch_optional(connection).await?.unwrap_or(0))
}

/// Where a group that begins there begins.
async fn place(
    namespace: &str,
    start: ReadStart,
    connection: &mut SqliteConnection,
) -> Result<i64, sqlx::Error> {
    let found = match start {
        ReadStart::Oldest => Some(0),
        ReadStart::Newest => None,
        ReadStart::Time(at) => {
            let query = sqlx::query_scalar(
                "SELECT position FROM quark_stream_item WHERE namespace = ? AND time >= ? \
                 ORDER BY position LIMIT 1",
            );
            query.bind(namespace).bind(time(at)).fetch_optional(&mut *connection).await?
        }
        ReadStart::At(position) => Some(int(position.major)),
    };
    let end = end(namespace, connection).await?;
    Ok(found.map_or(end, |place| place.clamp(0, end)))
}

fn append<'c>(
    (namespace, items): &'c (String, Vec<NewItem>),
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<Vec<Position>, sqlx::Error>> {
    async move {
        let first = end(namespace, connection).await?;
        let insert = Chunked::new("INSERT INTO quark_stream_item VALUES", "(?,?,?,?,?,?,?)", "");
        let placed: Vec<(i64, &NewItem)> = (first..).zip(items).collect();
        for (statement, part) in insert.parts(&placed) {
            let query = part.iter().fold(sqlx::query(statement), |query, (place, item)| {
                let query = query.bind(namespace.as_str()).bind(*place).bind(item.key.as_str());
                bind_value(query.bind(time(item.time)), &item.value)
            });
            query.execute(&mut *connection).await?;
        }
        let query = sqlx::query("INSERT OR REPLACE INTO quark_stream VALUES (?, ?)");
        query.bind(namespace.as_str()).bind(first + limit(items.len())).execute(&mut *connection).await?;
        Ok(placed.iter().map(|(place, _)| position(*place)).collect())
    }
    .boxed()
}

fn open_group<'c>(
    (group, start): &'c (Group, ReadStart),
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<(), sqlx::Error>> {
    async move {
        let place = place(&group.namespace, *start, connection).await?;
        let query = sqlx::query("INSERT INTO quark_stream_group VALUES (?, ?, ?) ON CONFLICT DO NOTHING");
        let query = query.bind(group.namespace.as_str()).bind(group.name.as_str()).bind(place);
        query.execute(connection).await.map(drop)
    }
    .boxed()
}

/// Gives the group what it gets; `None` if there is no such group.
fn read<'c>(
    (group, items, now, given_before): &'c Reading,
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<Option<Vec<Delivered>>, sqlx::Error>> {
    async move {
        let (namespace, name) = (group.namespace.as_str(), group.name.as_str());
        let next = sqlx::query_scalar("SELECT next FROM quark_stream_group WHERE namespace = ? AND name = ?");
        let next: Option<i64> = next.bind(namespace).bind(name).fetch_optional(&mut *connection).await?;
        let Some(next) = next else { return Ok(None) };

        let again = sqlx::query(
            "SELECT position, attempts + 1, key, time, format, version, value \
             FROM quark_stream_pending JOIN quark_stream_item USING (namespace, position) \
             WHERE namespace = ? AND name = ? AND given <= ? ORDER BY position LIMIT ?",
        );
        let again = again.bind(namespace).bind(name).bind(time(*given_before)).bind(limit(*items));
        let mut rows = again.fetch_all(&mut *connection).await?;
        if let Some(last) = rows.last().map(|row| row.get::<i64, _>(0)) {
            let query = sqlx::query(
                "UPDATE quark_stream_pending SET given = ?, attempts = attempts + 1 \
                 WHERE namespace = ? AND name = ? AND given <= ? AND position <= ?",
            );
            let query =
                query.bind(time(*now)).bind(namespace).bind(name).bind(time(*given_before)).bind(last);
            query.execute(&mut *connection).await?;
        }

        let new = sqlx::query(
            "SELECT position, 1, key, time, format, version, value FROM quark_stream_item \
             WHERE namespace = ? AND position >= ? ORDER BY position LIMIT ?",
        );
        let new = new.bind(namespace).bind(next).bind(limit(*items - rows.len()));
        let new = new.fetch_all(&mut *connection).await?;
        if let Some(last) = new.last().map(|row| row.get::<i64, _>(0)) {
            let query = sqlx::query(
                "INSERT INTO quark_stream_pending SELECT namespace, ?, position, ?, 1 FROM quark_stream_item \
                 WHERE namespace = ? AND position BETWEEN ? AND ?",
            );
            let query = query.bind(name).bind(time(*now)).bind(namespace).bind(next).bind(last);
            query.execute(&mut *connection).await?;
            let query =
                sqlx::query("UPDATE quark_stream_group SET next = ? WHERE namespace = ? AND name = ?");
            query.bind(last + 1).bind(namespace).bind(name).execute(&mut *connection).await?;
        }
        rows.extend(new);
        Ok(Some(rows.iter().map(delivered).collect()))
    }
    .boxed()
}

fn delivered(row: &SqliteRow) -> Delivered {
    Delivered {
        position: position(row.get(0)),
        attempts: u32::try_from(row.get::<i64, _>(1)).unwrap_or(u32::MAX),
        key: row.get::<String, _>(2).into(),
        time: timestamp(row.get(3)),
        value: value(row, 4),
    }
}

fn acknowledge<'c>(
    (group, positions): &'c (Group, Vec<Position>),
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<(), sqlx::Error>> {
    async move {
        let delete = Chunked::new(
            "DELETE FROM quark_stream_pending WHERE (namespace, name, position) IN (VALUES",
            "(?,?,?)",
            ")",
        );
        for (statement, part) in delete.parts(positions) {
            let query = part.iter().fold(sqlx::query(statement), |query, position| {
                query.bind(group.namespace.as_str()).bind(group.name.as_str()).bind(int(position.major))
            });
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }
    .boxed()
}

/// Sends a group elsewhere; false if there is no such group.
fn seek<'c>(
    (group, to): &'c (Group, ReadStart),
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<bool, sqlx::Error>> {
    async move {
        let (namespace, name) = (group.namespace.as_str(), group.name.as_str());
        let place = place(namespace, *to, connection).await?;
        let query = sqlx::query("DELETE FROM quark_stream_pending WHERE namespace = ? AND name = ?");
        query.bind(namespace).bind(name).execute(&mut *connection).await?;
        let query = sqlx::query("UPDATE quark_stream_group SET next = ? WHERE namespace = ? AND name = ?");
        let done = query.bind(place).bind(namespace).bind(name).execute(&mut *connection).await?;
        Ok(done.rows_affected() > 0)
    }
    .boxed()
}

fn trim<'c>(
    (namespace, keep): &'c (String, Retention),
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<u64, sqlx::Error>> {
    async move {
        let end = end(namespace, connection).await?;
        let by_count =
            keep.items.map_or(0, |items| end.saturating_sub(i64::try_from(items).unwrap_or(i64::MAX)));
        let by_time = match keep.since {
            Some(since) => place(namespace, ReadStart::Time(since), connection).await?,
            None => 0,
        };
        let begin = by_count.max(by_time);
        let query = sqlx::query("DELETE FROM quark_stream_pending WHERE namespace = ? AND position < ?");
        query.bind(namespace.as_str()).bind(begin).execute(&mut *connection).await?;
        let query = sqlx::query("DELETE FROM quark_stream_item WHERE namespace = ? AND position < ?");
        let done = query.bind(namespace.as_str()).bind(begin).execute(&mut *connection).await?;
        Ok(done.rows_affected())
    }
    .boxed()
}

impl StreamStore for Streams {
    fn append<'a>(&'a self, namespace: &'a str, items: &'a [NewItem]) -> StoreFuture<'a, Vec<Position>> {
        async move {
            NameOf::Namespace.check(namespace)?;
            items.iter().try_for_each(NewItem::check_names)?;
            check_values(&self.shared.errors.store, items.iter().map(|item| &item.value))?;
            let data = (namespace.to_owned(), items.to_vec());
            let positions = self.shared.noted(self.shared.writer.write(data, append).await)?;
            self.changed.notify_waiters();
            Ok(positions)
        }
        .boxed()
    }

    fn open_group<'a>(&'a self, group: &'a Group, start: ReadStart) -> StoreFuture<'a, ()> {
        async move {
            group.check_names()?;
            self.shared.noted(self.shared.writer.write((group.clone(), start), open_group).await)
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
            let data = (group.clone(), positions.to_vec());
            self.shared.noted(self.shared.writer.write(data, acknowledge).await)
        }
        .boxed()
    }

    fn seek<'a>(&'a self, group: &'a Group, to: ReadStart) -> StoreFuture<'a, ()> {
        async move {
            if !self.shared.noted(self.shared.writer.write((group.clone(), to), seek).await)? {
                return Err(self.unopened(group));
            }
            self.changed.notify_waiters();
            Ok(())
        }
        .boxed()
    }

    fn lag<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, u64> {
        async move {
            let lag = self.shared.read(self.lag(group).await)?.ok_or_else(|| self.unopened(group))?;
            Ok(unsigned(lag))
        }
        .boxed()
    }

    fn trim<'a>(&'a self, namespace: &'a str, keep: Retention) -> StoreFuture<'a, u64> {
        async move { self.shared.noted(self.shared.writer.write((namespace.to_owned(), keep), trim).await) }
            .boxed()
    }
}
