//! Actors' states, journals and messages.

use std::sync::Arc;

use futures_util::FutureExt as _;
use quark_base::Timestamp;
use quark_runtime::store::{
    ActorStore, Address, Commit, ETag, Event, FeedPage, FeedPosition, JournalHead, Loaded, MessageId, NameOf,
    OutboxId, OutboxPage, OutboxPlace, StoreError, StoreFuture, Wanted,
};
use redis::Value;

use super::client::{Call, Client};
use super::commit;
use super::feed;
use super::keys;
use super::link::Effect;
use super::pack::{self, Damaged};
use super::reply::{Entry, Replies};
use super::scripts::Name;
use super::writer::Writer;

/// How many receipts one look forgets in each shard.
const FORGET_MAX: usize = 1000;

/// How many messages are read at first from each shard; one that has more is read again if there is room.
const OUTBOX_FIRST: usize = 8;

pub(super) struct Actors {
    client: Arc<Client>,
    writer: Writer,
}

impl Actors {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { writer: Writer::new(client.clone()), client }
    }

    async fn load(&self, actor: &Address, wanted: &Wanted) -> Result<Loaded, StoreError> {
        let client = &self.client;
        let text = keys::actor(actor);
        let tag = client.keys.shard(&text);
        let mut command = redis::cmd("HMGET");
        command.arg(commit::row_key(tag, &text)).arg(commit::EPOCH).arg(commit::NUMBER);
        wanted.slots.iter().for_each(|name| {
            command.arg(commit::slot_field(name));
        });
        for name in &wanted.journals {
            command.arg(commit::journal_field(name)).arg(commit::snapshot_field(name));
        }
        let replies = Replies { errors: &client.errors, command: "HMGET" };
        let fields = replies.list(client.call(Call::new(tag, command), Effect::Reads).await?)?;
        if fields.len() != 2 + wanted.slots.len() + 2 * wanted.journals.len() {
            return replies.unexpected(&Value::Array(fields));
        }
        let mut fields = fields.into_iter().map(|field| replies.optional(field));
        let mut next = || fields.next().transpose().map(Option::flatten);
        let damaged = |damaged| client.errors.damaged(&format!("row of {actor}"), damaged);
        let epoch = read(next()?, pack::read_epoch).map_err(damaged)?;
        let sequence = read(next()?, pack::read_number).map_err(damaged)?;
        let last = epoch.zip(sequence).map(|(epoch, sequence)| ETag { epoch, sequence });
        let mut loaded = Loaded { last, ..Loaded::default() };
        for _ in &wanted.slots {
            loaded.slots.push(read(next()?, pack::read_slot).map_err(damaged)?);
        }
        for _ in &wanted.journals {
            let last = read(next()?, pack::read_number).map_err(damaged)?.unwrap_or_default();
            let snapshot = read(next()?, pack::read_snapshot).map_err(damaged)?;
            loaded.journals.push(JournalHead { last, snapshot });
        }
        Ok(loaded)
    }

    async fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        let call = commit::call(&self.client, commit)?;
        // An actor's commits keep to one lane, so that they arrive in order.
        let lane = usize::from(call.slot);
        let answer = self.writer.send(lane, call).await?;
        commit::outcome(&self.client, commit, answer)
    }

    async fn events(
        &self,
        actor: &Address,
        journal: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let Some(first) = after.checked_add(1).filter(|_| limit > 0) else { return Ok(Vec::new()) };
        let client = &self.client;
        let text = keys::actor(actor);
        let tag = client.keys.shard(&text);
        let mut command = redis::cmd("XRANGE");
        command.arg(commit::journal_key(tag, journal, &text)).arg(first).arg("+");
        command.arg("COUNT").arg(limit);
        let replies = Replies { errors: &client.errors, command: "XRANGE" };
        let entries = replies.list(client.call(Call::new(tag, command), Effect::Reads).await?)?;
        let event = |entry| {
            read_event(replies.entry(entry)?)
                .map_err(|damaged| client.errors.damaged(&format!("journal {journal} of {actor}"), damaged))
        };
        entries.into_iter().map(event).collect()
    }

    /// A place has the score of the last message before it in each shard; they are numbered from one.
    async fn outbox(&self, after: &OutboxPlace, limit: usize) -> Result<OutboxPage, StoreError> {
        let client = &self.client;
        let replies = Replies { errors: &client.errors, command: "ZRANGEBYSCORE" };
        let shards = client.keys.shards().len();
        let mut place = after.0.to_vec();
        place.resize(shards, 0);
        let index = |shard: usize, count: usize| {
            let tag = &client.keys.shards()[shard];
            let mut command = redis::cmd("ZRANGEBYSCORE");
            command.arg(tag.key("outx")).arg(format!("({}", place[shard])).arg("+inf").arg("WITHSCORES");
            command.arg("LIMIT").arg(0).arg(count);
            Call::new(tag, command)
        };
        let first = limit.div_ceil(shards).max(OUTBOX_FIRST).min(limit);
        let calls = (0..shards).map(|shard| index(shard, first)).collect();
        let answers = client.call_all(calls, Effect::Reads).await?;
        let lists = answers.into_iter().map(|answer| outbox_index(&replies, answer));
        let mut waiting = lists.collect::<Result<Vec<_>, _>>()?;
        let total: usize = waiting.iter().map(Vec::len).sum();
        let longer: Vec<usize> = (0..shards).filter(|shard| waiting[*shard].len() == first).collect();
        let mut is_last = longer.is_empty();
        if total < limit && first < limit && !is_last {
            let calls = longer.iter().map(|shard| index(*shard, limit)).collect();
            for (shard, answer) in longer.iter().zip(client.call_all(calls, Effect::Reads).await?) {
                waiting[*shard] = outbox_index(&replies, answer)?;
            }
            is_last = longer.iter().all(|shard| waiting[*shard].len() < limit);
        }
        // The shards take turns, so that none that is stuck keeps the others out.
        let mut waiting: Vec<_> = waiting.into_iter().map(Vec::into_iter).collect();
        let mut taken: Vec<Vec<(Vec<u8>, u64)>> = vec![Vec::new(); shards];
        let mut left = limit;
        while left > 0 {
            let before = left;
            for (waiting, taken) in waiting.iter_mut().zip(&mut taken) {
                if left > 0
                    && let Some(message) = waiting.next()
                {
                    taken.push(message);
                    left -= 1;
                }
            }
            if left == before {
                break;
            }
        }
        is_last &= waiting.iter().all(|waiting| waiting.len() == 0);
        let mut calls = Vec::new();
        for (shard, fields) in taken.into_iter().enumerate().filter(|(_, fields)| !fields.is_empty()) {
            let tag = &client.keys.shards()[shard];
            let mut command = redis::cmd("HMGET");
            command.arg(tag.key("out"));
            for (field, score) in fields {
                command.arg(field);
                place[shard] = score;
            }
            calls.push(Call::new(tag, command));
        }
        let mut messages = Vec::new();
        for answer in client.call_all(calls, Effect::Reads).await? {
            for record in replies.list(answer)? {
                // One that is gone by now was relayed by somebody else.
                let Some(record) = replies.optional(record)? else { continue };
                let message = pack::read_message(&record);
                messages.push(message.map_err(|damaged| client.errors.damaged("a message", damaged))?);
            }
        }
        Ok(OutboxPage { messages, next: OutboxPlace(place.into()), is_last })
    }

    async fn relayed(&self, messages: &[OutboxId]) -> Result<(), StoreError> {
        let client = &self.client;
        let mut of_shards: Vec<Vec<String>> = vec![Vec::new(); client.keys.shards().len()];
        for message in messages {
            let shard = client.keys.shard_index(&keys::actor(&message.from));
            of_shards[shard].push(keys::outbox_field(message));
        }
        let calls = client.keys.shards().iter().zip(of_shards).filter(|(_, fields)| !fields.is_empty());
        let calls = calls.map(|(tag, fields)| {
            let mut command = client.scripts.call(Name::Relayed, 2);
            command.arg(tag.key("outx")).arg(tag.key("out")).arg(fields);
            Call::new(tag, command)
        });
        client.call_all(calls.collect(), Effect::Writes).await?;
        Ok(())
    }

    async fn has_received(&self, actor: &Address, message: &MessageId) -> Result<bool, StoreError> {
        let text = keys::actor(actor);
        let tag = self.client.keys.shard(&text);
        let mut command = redis::cmd("ZSCORE");
        command.arg(tag.key("in")).arg(keys::owned(&text, message));
        let score = self.client.call(Call::new(tag, command), Effect::Reads).await?;
        Ok(score != Value::Nil)
    }

    async fn forget_received(&self, time: Timestamp) -> Result<u64, StoreError> {
        let client = &self.client;
        let replies = Replies { errors: &client.errors, command: "forget" };
        let calls = client.keys.shards().iter().map(|tag| {
            let mut command = client.scripts.call(Name::Forget, 1);
            command.arg(tag.key("in")).arg(time.0).arg(FORGET_MAX);
            Call::new(tag, command)
        });
        let counts = client.call_all(calls.collect(), Effect::Writes).await?;
        counts.iter().map(|count| replies.number(count)).sum()
    }
}

/// Reads a field that may not be there.
fn read<T>(
    field: Option<Vec<u8>>,
    reader: impl FnOnce(&[u8]) -> Result<T, Damaged>,
) -> Result<Option<T>, Damaged> {
    field.map(|field| reader(&field)).transpose()
}

/// An event of a journal's stream.
pub(super) fn read_event(mut entry: Entry) -> Result<Event, Damaged> {
    Ok(Event {
        sequence: entry.id.0,
        time: Timestamp(pack::read_number(&entry.field("t"))?),
        value: pack::read_value(&entry.field("v"))?,
    })
}

/// The fields of messages, each with its score.
fn outbox_index(replies: &Replies<'_>, answer: Value) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
    let pair = |pair: Value| match <[Value; 2]>::try_from(replies.list(pair)?) {
        // A counter, exact up to 2^53.
        Ok([field, Value::Double(score)]) => Ok((replies.bytes(field)?, score as u64)),
        Ok(other) => replies.unexpected(&Value::Array(other.into())),
        Err(other) => replies.unexpected(&Value::Array(other)),
    };
    replies.list(answer)?.into_iter().map(pair).collect()
}

impl ActorStore for Actors {
    fn load<'a>(&'a self, actor: &'a Address, wanted: &'a Wanted) -> StoreFuture<'a, Loaded> {
        async move {
            actor.check_names()?;
            wanted.check_names()?;
            Self::load(self, actor, wanted).await
        }
        .boxed()
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> StoreFuture<'a, ()> {
        async move {
            commit.check_names()?;
            Self::commit(self, commit).await
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
            Self::events(self, actor, journal, after, limit).await
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
            feed::read(&self.client, actor_type, journal, after, limit).await
        }
        .boxed()
    }

    fn outbox<'a>(&'a self, after: &'a OutboxPlace, limit: usize) -> StoreFuture<'a, OutboxPage> {
        Self::outbox(self, after, limit).boxed()
    }

    fn relayed<'a>(&'a self, messages: &'a [OutboxId]) -> StoreFuture<'a, ()> {
        Self::relayed(self, messages).boxed()
    }

    fn has_received<'a>(&'a self, actor: &'a Address, message: &'a MessageId) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            Self::has_received(self, actor, message).await
        }
        .boxed()
    }

    fn forget_received(&self, time: Timestamp) -> StoreFuture<'_, u64> {
        Self::forget_received(self, time).boxed()
    }
}
