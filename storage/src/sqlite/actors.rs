//! Actors' states, journals and messages in SQLite.

use std::sync::Arc;

use futures_util::FutureExt as _;
use quark_base::Timestamp;
use quark_runtime::store::{
    ActorStore, Address, Commit, Event, FeedEvent, FeedPage, FeedPosition, JournalHead, Loaded, MessageId,
    NameOf, OutboxId, OutboxMessage, OutboxPage, OutboxPlace, PendingMessage, SlotRecord, Snapshot,
    StoreFuture, Wanted,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Shared;
use super::columns::{actor, etag, value};
use super::commits::each;
use crate::sql::{check_sizes, int, limit, time, timestamp, unsigned};

/// Inbox entries that are forgotten in one step, so that others get their turn in between.
const FORGET_MAX: i64 = 1000;

pub(super) struct Actors(pub(super) Arc<Shared>);

/// All of it at one moment: a reading transaction sees one state of the file.
fn load(connection: &mut Connection, actor: &Address, wanted: &Wanted) -> rusqlite::Result<Loaded> {
    let snapshot = connection.transaction()?;
    let (actor_type, key) = (actor.actor_type.as_ref(), actor.key.as_str());
    let sql = "SELECT epoch, sequence FROM quark_actor WHERE actor_type = ? AND actor_key = ?";
    let last =
        snapshot.prepare_cached(sql)?.query_row(params![actor_type, key], |row| etag(row, 0)).optional()?;
    if last.is_none() {
        let journals = vec![JournalHead::default(); wanted.journals.len()];
        return Ok(Loaded { last, slots: vec![None; wanted.slots.len()], journals });
    }
    let mut loaded = Loaded { last, ..Loaded::default() };
    let sql = "SELECT epoch, sequence, format, version, value FROM quark_state \
               WHERE actor_type = ? AND actor_key = ? AND name = ?";
    each(&snapshot, sql, &wanted.slots, |statement, name| {
        let record = |row: &Row<'_>| Ok(SlotRecord { etag: etag(row, 0)?, value: value(row, 2)? });
        loaded.slots.push(statement.query_row(params![actor_type, key, name], record).optional()?);
        Ok(())
    })?;
    let sql = "SELECT last, snapshot_sequence, snapshot_format, snapshot_version, snapshot FROM quark_journal \
               WHERE actor_type = ? AND actor_key = ? AND journal = ?";
    each(&snapshot, sql, &wanted.journals, |statement, name| {
        let head = statement.query_row(params![actor_type, key, name], journal_head).optional()?;
        loaded.journals.push(head.unwrap_or_default());
        Ok(())
    })?;
    Ok(loaded)
}

fn events(
    connection: &Connection,
    actor: &Address,
    journal: &str,
    after: u64,
    rows: usize,
) -> rusqlite::Result<Vec<Event>> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, time, format, version, value FROM quark_event \
         WHERE actor_type = ? AND actor_key = ? AND journal = ? AND sequence > ? ORDER BY sequence LIMIT ?",
    )?;
    let key = params![actor.actor_type, actor.key.as_str(), journal, int(after), limit(rows)];
    statement.query_map(key, |row| event(row, 0))?.collect()
}

fn feed(
    connection: &Connection,
    actor_type: &str,
    journal: &str,
    after: i64,
    rows: usize,
) -> rusqlite::Result<FeedPage> {
    let mut statement = connection.prepare_cached(
        "SELECT position, actor_type, actor_key, sequence, time, format, version, value FROM quark_event \
         WHERE actor_type = ? AND journal = ? AND position > ? ORDER BY position LIMIT ?",
    )?;
    let mut rows = statement.query(params![actor_type, journal, after, limit(rows)])?;
    let (mut events, mut last) = (Vec::new(), after);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        events.push(FeedEvent { actor: actor(row, 1)?, event: event(row, 3)? });
    }
    Ok(FeedPage { events, next: FeedPosition(last.to_string()) })
}

/// A place is the number of the last message before it. They are numbered from one.
fn outbox(connection: &Connection, after: &OutboxPlace, rows: usize) -> rusqlite::Result<OutboxPage> {
    let position = after.0.first().copied().map_or(0, int);
    let mut statement = connection.prepare_cached(
        "SELECT actor_type, actor_key, epoch, sequence, message_index, time, to_type, to_key, method, \
         format, version, value, position FROM quark_outbox WHERE position > ? ORDER BY position LIMIT ?",
    )?;
    let found = statement.query_map(params![position, limit(rows)], |row| {
        Ok((pending_message(row)?, row.get::<_, i64>(12)?))
    })?;
    let (messages, positions): (Vec<_>, Vec<_>) =
        found.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().unzip();
    let next = positions.last().map_or_else(|| after.clone(), |last| OutboxPlace([unsigned(*last)].into()));
    let is_last = messages.len() < rows;
    Ok(OutboxPage { messages, next, is_last })
}

fn has_received(connection: &Connection, actor: &Address, message: &MessageId) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM quark_inbox WHERE actor_type = ? AND actor_key = ? AND message = ?";
    let key = params![actor.actor_type, actor.key.as_str(), message.as_str()];
    connection.prepare_cached(sql)?.exists(key)
}

fn event(row: &Row<'_>, first: usize) -> rusqlite::Result<Event> {
    Ok(Event {
        sequence: unsigned(row.get(first)?),
        time: timestamp(row.get(first + 1)?),
        value: value(row, first + 2)?,
    })
}

fn journal_head(row: &Row<'_>) -> rusqlite::Result<JournalHead> {
    let snapshot = match row.get::<_, Option<i64>>(1)? {
        Some(sequence) => Some(Snapshot { sequence: unsigned(sequence), value: value(row, 2)? }),
        None => None,
    };
    Ok(JournalHead { last: unsigned(row.get(0)?), snapshot })
}

fn pending_message(row: &Row<'_>) -> rusqlite::Result<PendingMessage> {
    let id = OutboxId { from: actor(row, 0)?, commit: etag(row, 2)?, index: row.get(4)? };
    let method = row.get::<_, String>(8)?.into();
    let message = OutboxMessage { to: actor(row, 6)?, method, body: value(row, 9)? };
    Ok(PendingMessage { id, message, time: timestamp(row.get(5)?) })
}

/// Takes messages out of the outbox.
fn relayed(connection: &Connection, messages: &[OutboxId]) -> rusqlite::Result<()> {
    let sql = "DELETE FROM quark_outbox WHERE actor_type = ? AND actor_key = ? AND epoch = ? AND sequence = ? \
               AND message_index = ?";
    each(connection, sql, messages, |statement, id| {
        let (from, commit) = (&id.from, id.commit);
        let (epoch, sequence) = (int(commit.epoch.0), int(commit.sequence));
        statement.execute(params![from.actor_type, from.key.as_str(), epoch, sequence, id.index]).map(drop)
    })
}

/// Forgets some old inbox entries.
fn forget_received(connection: &Connection, before: Timestamp) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM quark_inbox WHERE (actor_type, actor_key, message) IN \
         (SELECT actor_type, actor_key, message FROM quark_inbox WHERE time < ? LIMIT ?)",
    )?;
    statement.execute(params![time(before), FORGET_MAX]).map(|rows| rows as u64)
}

impl ActorStore for Actors {
    fn load<'a>(&'a self, actor: &'a Address, wanted: &'a Wanted) -> StoreFuture<'a, Loaded> {
        async move {
            actor.check_names()?;
            wanted.check_names()?;
            let (actor, wanted) = (actor.clone(), wanted.clone());
            self.0.read(move |connection| load(connection, &actor, &wanted)).await
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
            let (actor, journal) = (actor.clone(), journal.to_owned());
            self.0.read(move |connection| events(connection, &actor, &journal, after, limit)).await
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
            let (actor_type, journal) = (actor_type.to_owned(), journal.to_owned());
            self.0.read(move |connection| feed(connection, &actor_type, &journal, place, limit)).await
        }
        .boxed()
    }

    fn outbox<'a>(&'a self, after: &'a OutboxPlace, limit: usize) -> StoreFuture<'a, OutboxPage> {
        let after = after.clone();
        self.0.read(move |connection| outbox(connection, &after, limit)).boxed()
    }

    fn relayed<'a>(&'a self, messages: &'a [OutboxId]) -> StoreFuture<'a, ()> {
        async move {
            if messages.is_empty() {
                return Ok(());
            }
            let messages = messages.to_vec();
            self.0.write(move |connection| relayed(connection, &messages)).await
        }
        .boxed()
    }

    fn has_received<'a>(&'a self, actor: &'a Address, message: &'a MessageId) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            let (actor, message) = (actor.clone(), message.clone());
            self.0.read(move |connection| has_received(connection, &actor, &message)).await
        }
        .boxed()
    }

    fn forget_received(&self, time: Timestamp) -> StoreFuture<'_, u64> {
        self.0.write(move |connection| forget_received(connection, time)).boxed()
    }
}
