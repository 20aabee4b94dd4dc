//! Actors' states, journals and messages in SQLite.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use quark_base::Timestamp;
use quark_runtime::store::{
    ActorStore, Address, Commit, ETag, Epoch, Event, FeedEvent, FeedPage, FeedPosition, JournalHead, Loaded,
    MessageId, NameOf, OutboxId, OutboxMessage, OutboxPage, OutboxPlace, PendingMessage, SlotRecord,
    Snapshot, StoreFuture, Wanted,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::Shared;
use super::chunks::Chunked;
use super::columns::{actor, bind_actor, bind_etag, value};
use crate::sql::{check_sizes, int, limit, outbox_after, outbox_page, time, timestamp, unsigned};

/// Inbox entries that are forgotten in one step, so that others get their turn in between.
const FORGET_MAX: i64 = 1000;

pub(super) struct Actors(pub(super) Arc<Shared>);

impl Actors {
    /// All of it at one moment: a reading transaction sees one state of the file.
    async fn load(&self, address: &Address, wanted: &Wanted) -> Result<Loaded, sqlx::Error> {
        let mut reader = self.0.readers.acquire().await?;
        let mut snapshot = reader.begin().await?;
        let row =
            sqlx::query("SELECT epoch, sequence FROM quark_actor WHERE actor_type = ? AND actor_key = ?");
        let last = bind_actor(row, address).fetch_optional(&mut *snapshot).await?;
        let Some(last) = last else {
            let journals = vec![JournalHead::default(); wanted.journals.len()];
            return Ok(Loaded { last: None, slots: vec![None; wanted.slots.len()], journals });
        };
        let mut loaded = Loaded { last: Some(etag(&last, 0)), ..Loaded::default() };
        for name in &wanted.slots {
            let row = sqlx::query(
                "SELECT epoch, sequence, format, version, value FROM quark_state \
                 WHERE actor_type = ? AND actor_key = ? AND name = ?",
            );
            let row = bind_actor(row, address).bind(name.as_ref()).fetch_optional(&mut *snapshot).await?;
            let record = |row: SqliteRow| SlotRecord { etag: etag(&row, 0), value: value(&row, 2) };
            loaded.slots.push(row.map(record));
        }
        for name in &wanted.journals {
            let row = sqlx::query(
                "SELECT last, snapshot_sequence, snapshot_format, snapshot_version, snapshot FROM quark_journal \
                 WHERE actor_type = ? AND actor_key = ? AND journal = ?",
            );
            let row = bind_actor(row, address).bind(name.as_ref()).fetch_optional(&mut *snapshot).await?;
            loaded.journals.push(row.as_ref().map(journal_head).unwrap_or_default());
        }
        Ok(loaded)
    }

    async fn events(
        &self,
        address: &Address,
        journal: &str,
        after: u64,
        rows: usize,
    ) -> Result<Vec<Event>, sqlx::Error> {
        let query = sqlx::query(
            "SELECT sequence, time, format, version, value FROM quark_event \
             WHERE actor_type = ? AND actor_key = ? AND journal = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        );
        let query = bind_actor(query, address).bind(journal).bind(int(after)).bind(limit(rows));
        let rows = query.fetch_all(&self.0.readers).await?;
        Ok(rows.iter().map(|row| event(row, 0)).collect())
    }

    async fn feed(
        &self,
        actor_type: &str,
        journal: &str,
        after: i64,
        rows: usize,
    ) -> Result<FeedPage, sqlx::Error> {
        let query = sqlx::query(
            "SELECT position, actor_type, actor_key, sequence, time, format, version, value FROM quark_event \
             WHERE actor_type = ? AND journal = ? AND position > ? ORDER BY position LIMIT ?",
        );
        let query = query.bind(actor_type).bind(journal).bind(after).bind(limit(rows));
        let rows = query.fetch_all(&self.0.readers).await?;
        let last = rows.last().map_or(after, |row| row.get(0));
        let event = |row| FeedEvent { actor: actor(row, 1), event: event(row, 3) };
        Ok(FeedPage { events: rows.iter().map(event).collect(), next: FeedPosition(last.to_string()) })
    }

    async fn outbox(&self, after: &OutboxPlace, rows: usize) -> Result<OutboxPage, sqlx::Error> {
        let query = sqlx::query(
            "SELECT actor_type, actor_key, epoch, sequence, message_index, time, to_type, to_key, method, \
             format, version, value, position FROM quark_outbox WHERE position > ? ORDER BY position LIMIT ?",
        );
        let found = query.bind(outbox_after(after)).bind(limit(rows)).fetch_all(&self.0.readers).await?;
        let found = found.iter().map(|row| (row.get("position"), pending_message(row))).collect();
        Ok(outbox_page(after, rows, found))
    }

    async fn has_received(&self, address: &Address, message: &MessageId) -> Result<bool, sqlx::Error> {
        let query =
            sqlx::query("SELECT 1 FROM quark_inbox WHERE actor_type = ? AND actor_key = ? AND message = ?");
        let query = bind_actor(query, address).bind(message.as_str());
        Ok(query.fetch_optional(&self.0.readers).await?.is_some())
    }
}

fn etag(row: &SqliteRow, first: usize) -> ETag {
    ETag { epoch: Epoch(unsigned(row.get(first))), sequence: unsigned(row.get(first + 1)) }
}

fn event(row: &SqliteRow, first: usize) -> Event {
    Event {
        sequence: unsigned(row.get(first)),
        time: timestamp(row.get(first + 1)),
        value: value(row, first + 2),
    }
}

fn journal_head(row: &SqliteRow) -> JournalHead {
    let sequence: Option<i64> = row.get(1);
    let snapshot = sequence.map(|sequence| Snapshot { sequence: unsigned(sequence), value: value(row, 2) });
    JournalHead { last: unsigned(row.get(0)), snapshot }
}

fn pending_message(row: &SqliteRow) -> PendingMessage {
    let index = u32::try_from(row.get::<i64, _>(4)).unwrap_or(u32::MAX);
    PendingMessage {
        id: OutboxId { from: actor(row, 0), commit: etag(row, 2), index },
        message: OutboxMessage {
            to: actor(row, 6),
            method: row.get::<String, _>(8).into(),
            body: value(row, 9),
        },
        time: timestamp(row.get(5)),
    }
}

/// Takes messages out of the outbox.
#[expect(clippy::ptr_arg, reason = "the writer lends what it was given as it was given")]
fn relayed<'c>(
    messages: &'c Vec<OutboxId>,
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<(), sqlx::Error>> {
    async move {
        let delete = Chunked::new(
            "DELETE FROM quark_outbox WHERE (actor_type, actor_key, epoch, sequence, message_index) IN (VALUES",
            "(?,?,?,?,?)",
            ")",
        );
        for (statement, part) in delete.parts(messages) {
            let query = part.iter().fold(sqlx::query(statement), |query, id| {
                bind_etag(bind_actor(query, &id.from), id.commit).bind(i64::from(id.index))
            });
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }
    .boxed()
}

/// Forgets some old inbox entries.
fn forget_received<'c>(
    before: &'c Timestamp,
    connection: &'c mut SqliteConnection,
) -> BoxFuture<'c, Result<u64, sqlx::Error>> {
    async move {
        let query = sqlx::query(
            "DELETE FROM quark_inbox WHERE (actor_type, actor_key, message) IN \
             (SELECT actor_type, actor_key, message FROM quark_inbox WHERE time < ? LIMIT ?)",
        );
        let done = query.bind(time(*before)).bind(FORGET_MAX).execute(connection).await?;
        Ok(done.rows_affected())
    }
    .boxed()
}

impl ActorStore for Actors {
    fn load<'a>(&'a self, actor: &'a Address, wanted: &'a Wanted) -> StoreFuture<'a, Loaded> {
        async move {
            actor.check_names()?;
            wanted.check_names()?;
            self.0.read(Actors::load(self, actor, wanted).await)
        }
        .boxed()
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> StoreFuture<'a, ()> {
        async move {
            commit.check_names()?;
            check_sizes(&self.0.errors.store, commit)?;
            self.0.noted(self.0.writer.commit(commit.clone()).await)
        }
        .boxed()
    }

    fn events<'a>(
        &'a self,
        actor: &'a Address,
        journal: &'a str,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Event>> {
        async move {
            actor.check_names()?;
            NameOf::Journal.check(journal)?;
            self.0.read(Actors::events(self, actor, journal, after, limit).await)
        }
        .boxed()
    }

    fn feed<'a>(
        &'a self,
        actor_type: &'a str,
        journal: &'a str,
        after: &'a FeedPosition,
        limit: usize,
    ) -> StoreFuture<'a, FeedPage> {
        async move {
            NameOf::ActorType.check(actor_type)?;
            NameOf::Journal.check(journal)?;
            let place = match after.0.as_str() {
                "" => Ok(0),
                text => text.parse(),
            };
            let place = place.map_err(|_| crate::unknown_position(&self.0.errors.store, after))?;
            self.0.read(Actors::feed(self, actor_type, journal, place, limit).await)
        }
        .boxed()
    }

    fn outbox<'a>(&'a self, after: &'a OutboxPlace, limit: usize) -> StoreFuture<'a, OutboxPage> {
        async move { self.0.read(Actors::outbox(self, after, limit).await) }.boxed()
    }

    fn relayed<'a>(&'a self, messages: &'a [OutboxId]) -> StoreFuture<'a, ()> {
        async move {
            if messages.is_empty() {
                return Ok(());
            }
            self.0.noted(self.0.writer.write(messages.to_vec(), relayed).await)
        }
        .boxed()
    }

    fn has_received<'a>(&'a self, actor: &'a Address, message: &'a MessageId) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            self.0.read(Actors::has_received(self, actor, message).await)
        }
        .boxed()
    }

    fn forget_received(&self, time: Timestamp) -> StoreFuture<'_, u64> {
        async move { self.0.noted(self.0.writer.write(time, forget_received).await) }.boxed()
    }
}
