//! Actors' states, journals and messages in PostgreSQL.

use std::sync::Arc;

use futures_util::FutureExt as _;
use quark_base::Timestamp;
use quark_runtime::store::{
    ActorStore, Address, Commit, Event, FeedEvent, FeedPage, FeedPosition, JournalHead, Loaded, MessageId,
    NameOf, OutboxId, OutboxMessage, OutboxPage, OutboxPlace, PendingMessage, SlotRecord, Snapshot,
    StoreFuture, Wanted,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::Shared;
use super::columns::{actor, addresses, etag, value};
use crate::sql::{check_sizes, int, limit, time, timestamp, unsigned};

/// Inbox entries that are forgotten in one step, so that none takes long.
const FORGET_MAX: i64 = 1000;

pub(super) struct Actors(pub(super) Arc<Shared>);

/// Messages with their places; and whether no transaction is open that may still commit before them, which is true of a
/// beginning of the order.
const OUTBOX: &str = "SELECT actor_type, actor_key, epoch, sequence, message_index, time, to_type, to_key, method, \
     format, version, value_text, value, era, txid, position, (era, txid) < ((SELECT max(began) FROM quark_era), \
     pg_snapshot_xmin(pg_current_snapshot())::text::bigint) FROM quark_outbox ORDER BY era, txid, position LIMIT $1";
/// Those of a beginning of the order, from a place on.
const OUTBOX_AFTER: &str = "SELECT actor_type, actor_key, epoch, sequence, message_index, time, to_type, to_key, \
     method, format, version, value_text, value, era, txid, position, true FROM quark_outbox \
     WHERE (era, txid, position) > ($2, $3, $4) AND (era, txid) < ((SELECT max(began) FROM quark_era), \
     pg_snapshot_xmin(pg_current_snapshot())::text::bigint) AND position <> ALL ($5) \
     ORDER BY era, txid, position LIMIT $1";

impl Actors {
    /// All of it in one statement, which sees one state of the database.
    async fn load(
        connection: &mut PgConnection,
        address: &Address,
        wanted: &Wanted,
    ) -> Result<Loaded, sqlx::Error> {
        let slots: Vec<&str> = wanted.slots.iter().map(AsRef::as_ref).collect();
        let journals: Vec<&str> = wanted.journals.iter().map(AsRef::as_ref).collect();
        let rows = sqlx::query(
            "SELECT 0, 0::bigint, epoch, sequence, NULL, NULL::bigint, NULL, NULL::bytea FROM quark_actor \
             WHERE actor_type = $1 AND actor_key = $2 \
             UNION ALL \
             SELECT 1, i, epoch, sequence, format, version, value_text, value \
             FROM unnest($3::text[]) WITH ORDINALITY AS w (n, i) \
             JOIN quark_state s ON actor_type = $1 AND actor_key = $2 AND name = n \
             UNION ALL \
             SELECT 2, i, last, snapshot_sequence, snapshot_format, snapshot_version, snapshot_text, snapshot \
             FROM unnest($4::text[]) WITH ORDINALITY AS w (n, i) \
             JOIN quark_journal j ON actor_type = $1 AND actor_key = $2 AND journal = n",
        );
        let rows =
            rows.bind(address.actor_type.as_ref()).bind(address.key.as_str()).bind(&slots).bind(&journals);
        let rows = rows.fetch_all(connection).await?;
        let mut loaded = Loaded {
            last: None,
            slots: vec![None; slots.len()],
            journals: vec![JournalHead::default(); journals.len()],
        };
        for row in &rows {
            // Numbered from 1; 0 for the actor itself.
            let place = usize::try_from(row.get::<i64, _>(1)).unwrap_or(0).wrapping_sub(1);
            match row.get::<i32, _>(0) {
                0 => loaded.last = Some(etag(row, 2)),
                1 => loaded.slots[place] = Some(SlotRecord { etag: etag(row, 2), value: value(row, 4) }),
                _ => loaded.journals[place] = journal_head(row),
            }
        }
        Ok(loaded)
    }

    async fn events(
        connection: &mut PgConnection,
        address: &Address,
        journal: &str,
        after: u64,
        rows: usize,
    ) -> Result<Vec<Event>, sqlx::Error> {
        let query = sqlx::query(
            "SELECT sequence, time, format, version, value_text, value FROM quark_event \
             WHERE actor_type = $1 AND actor_key = $2 AND journal = $3 AND sequence > $4 ORDER BY sequence LIMIT $5",
        );
        let query = query.bind(address.actor_type.as_ref()).bind(address.key.as_str()).bind(journal);
        let rows = query.bind(int(after)).bind(limit(rows)).fetch_all(connection).await?;
        Ok(rows.iter().map(|row| event(row, 0)).collect())
    }

    /// Nothing of a transaction that may still have an older one beside it: see the table's comment.
    async fn feed(
        connection: &mut PgConnection,
        actor_type: &str,
        journal: &str,
        after: Place,
        rows: usize,
    ) -> Result<FeedPage, sqlx::Error> {
        let query = sqlx::query(
            "SELECT era, txid, position, actor_type, actor_key, sequence, time, format, version, value_text, value \
             FROM quark_event WHERE actor_type = $1 AND journal = $2 AND (era, txid, position) > ($3, $4, $5) \
             AND (era, txid) < ((SELECT max(began) FROM quark_era), \
             pg_snapshot_xmin(pg_current_snapshot())::text::bigint) ORDER BY era, txid, position LIMIT $6",
        );
        let query =
            query.bind(actor_type).bind(journal).bind(after.0).bind(after.1).bind(after.2).bind(limit(rows));
        let rows = query.fetch_all(connection).await?;
        let (era, txid, position) = rows.last().map_or(after, |row| (row.get(0), row.get(1), row.get(2)));
        let event = |row| FeedEvent { actor: actor(row, 3), event: event(row, 5) };
        Ok(FeedPage {
            events: rows.iter().map(event).collect(),
            next: FeedPosition(format!("{era}-{txid}-{position}")),
        })
    }

    /// From the beginning all that can be seen. From a place on nothing before which an open transaction may still commit:
    /// see the table's comment.
    async fn outbox(
        connection: &mut PgConnection,
        after: &OutboxPlace,
        rows: usize,
    ) -> Result<OutboxPage, sqlx::Error> {
        let OnTheWay { mut last, mut shown } = OnTheWay::of(after);
        let found = if after.0.is_empty() {
            sqlx::query(OUTBOX).bind(limit(rows)).fetch_all(connection).await?
        } else {
            let query = sqlx::query(OUTBOX_AFTER).bind(limit(rows)).bind(last.0).bind(last.1).bind(last.2);
            query.bind(&shown).fetch_all(connection).await?
        };
        for row in &found {
            match row.get(16) {
                true => last = (row.get(13), row.get(14), row.get(15)),
                false => shown.push(row.get(15)),
            }
        }
        Ok(OutboxPage {
            messages: found.iter().map(pending_message).collect(),
            next: OnTheWay { last, shown }.place(),
            is_last: found.len() < rows,
        })
    }

    async fn relayed(connection: &mut PgConnection, messages: &[OutboxId]) -> Result<(), sqlx::Error> {
        // In one order, so that two silos that relayed the same ones do not wait for each other in a circle.
        let mut messages: Vec<&OutboxId> = messages.iter().collect();
        messages.sort();
        let (types, keys) = addresses(messages.iter().map(|id| &id.from));
        let epochs: Vec<i64> = messages.iter().map(|id| int(id.commit.epoch.0)).collect();
        let sequences: Vec<i64> = messages.iter().map(|id| int(id.commit.sequence)).collect();
        let indices: Vec<i64> = messages.iter().map(|id| i64::from(id.index)).collect();
        let query = sqlx::query(
            "WITH gone AS MATERIALIZED (SELECT o.era, o.txid, o.position \
             FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS w (t, k, e, s, m) \
             JOIN quark_outbox o ON o.actor_type = w.t AND o.actor_key = w.k AND o.epoch = w.e AND o.sequence = w.s \
             AND o.message_index = w.m ORDER BY o.position FOR UPDATE OF o) \
             DELETE FROM quark_outbox WHERE (era, txid, position) IN (SELECT era, txid, position FROM gone)",
        );
        let query = query.bind(types).bind(keys).bind(epochs).bind(sequences).bind(indices);
        query.execute(connection).await.map(drop)
    }

    async fn has_received(
        connection: &mut PgConnection,
        address: &Address,
        message: &MessageId,
    ) -> Result<bool, sqlx::Error> {
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM quark_inbox WHERE actor_type = $1 AND actor_key = $2 AND message = $3)",
        );
        let query = query.bind(address.actor_type.as_ref()).bind(address.key.as_str()).bind(message.as_str());
        query.fetch_one(connection).await
    }

    async fn forget_received(connection: &mut PgConnection, before: Timestamp) -> Result<u64, sqlx::Error> {
        // What another silo is forgetting at this moment is left to it.
        let query = sqlx::query(
            "WITH old AS MATERIALIZED (SELECT actor_type, actor_key, message FROM quark_inbox WHERE time < $1 \
             LIMIT $2 FOR UPDATE SKIP LOCKED) \
             DELETE FROM quark_inbox i USING old \
             WHERE i.actor_type = old.actor_type AND i.actor_key = old.actor_key AND i.message = old.message",
        );
        let done = query.bind(time(before)).bind(FORGET_MAX).execute(connection).await?;
        Ok(done.rows_affected())
    }
}

fn event(row: &PgRow, first: usize) -> Event {
    Event {
        sequence: unsigned(row.get(first)),
        time: timestamp(row.get(first + 1)),
        value: value(row, first + 2),
    }
}

fn journal_head(row: &PgRow) -> JournalHead {
    let sequence: Option<i64> = row.get(3);
    let snapshot = sequence.map(|sequence| Snapshot { sequence: unsigned(sequence), value: value(row, 4) });
    JournalHead { last: unsigned(row.get(2)), snapshot }
}

fn pending_message(row: &PgRow) -> PendingMessage {
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

/// A place in a feed, or among messages: era, transaction, position.
type Place = (i64, i64, i64);

/// How far somebody has come who reads outboxes page by page.
struct OnTheWay {
    /// The last message that nothing can come before any more; an [`OutboxPlace`] begins with its three numbers.
    last: Place,
    /// Those of the first page behind it, by position: they are not shown again. Then come their numbers.
    shown: Vec<i64>,
}

impl OnTheWay {
    fn of(place: &OutboxPlace) -> Self {
        let mut numbers = place.0.iter().copied().map(int);
        let mut next = || numbers.next().unwrap_or(0);
        Self { last: (next(), next(), next()), shown: numbers.collect() }
    }

    fn place(&self) -> OutboxPlace {
        let (era, txid, position) = self.last;
        OutboxPlace([era, txid, position].iter().chain(&self.shown).copied().map(unsigned).collect())
    }
}

/// Reads what [`Actors::feed`] wrote.
fn place(position: &FeedPosition) -> Option<Place> {
    if position.0.is_empty() {
        return Some((0, 0, 0));
    }
    let mut numbers = position.0.splitn(3, '-').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

impl ActorStore for Actors {
    fn load<'a>(&'a self, actor: &'a Address, wanted: &'a Wanted) -> StoreFuture<'a, Loaded> {
        async move {
            actor.check_names()?;
            wanted.check_names()?;
            self.0.read(async |connection| Self::load(connection, actor, wanted).await).await
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
            self.0.read(async |connection| Self::events(connection, actor, journal, after, limit).await).await
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
            let place = place(after).ok_or_else(|| crate::unknown_position(&self.0.errors.store, after))?;
            self.0
                .read(async |connection| Self::feed(connection, actor_type, journal, place, limit).await)
                .await
        }
        .boxed()
    }

    fn outbox<'a>(&'a self, after: &'a OutboxPlace, limit: usize) -> StoreFuture<'a, OutboxPage> {
        async move { self.0.read(async |connection| Self::outbox(connection, after, limit).await).await }
            .boxed()
    }

    fn relayed<'a>(&'a self, messages: &'a [OutboxId]) -> StoreFuture<'a, ()> {
        async move {
            if messages.is_empty() {
                return Ok(());
            }
            self.0.write(async |connection| Self::relayed(connection, messages).await).await
        }
        .boxed()
    }

    fn has_received<'a>(&'a self, actor: &'a Address, message: &'a MessageId) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            self.0.read(async |connection| Self::has_received(connection, actor, message).await).await
        }
        .boxed()
    }

    fn forget_received(&self, time: Timestamp) -> StoreFuture<'_, u64> {
        async move { self.0.write(async |connection| Self::forget_received(connection, time).await).await }
            .boxed()
    }
}
