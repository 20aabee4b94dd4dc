//! Durable streams: Redis' own streams and consumer groups.
//!
//! All silos read as one consumer: who holds an item shows in the time since it was given, not in a name, so nothing
//! is left behind by a silo that is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use quark_base::Timestamp;
use quark_runtime::store::{
    Delivered, Group, NameOf, NewItem, Position, ReadStart, Retention, StoreError, StoreFuture, StreamStore,
};
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::client::{Call, Client, WAIT_MAX};
use super::commit::check_size;
use super::keys::{self, PARTITIONS, Tag};
use super::link::Effect;
use super::pack;
use super::reply::Replies;
use super::scripts::Name;

/// The one consumer of each group.
const CONSUMER: &str = "quark";

/// The most items of one read: the script holds them all at once.
const READ_MAX: usize = 1000;

/// The shortest time after which a waiting read looks again for what was not acknowledged.
const LOOK_MIN: Duration = Duration::from_millis(10);

pub(super) struct Streams {
    client: Arc<Client>,
    /// The partition that the next read begins with, so that none starves behind a busy one.
    turn: AtomicU32,
}

impl Streams {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client, turn: AtomicU32::new(0) }
    }

    fn replies(&self, command: &'static str) -> Replies<'_> {
        Replies { errors: &self.client.errors, command }
    }

    /// A call of a script with some partitions as its keys.
    fn script(&self, name: Name, tag: &Tag, partitions: impl Iterator<Item = u32> + Clone) -> Cmd {
        let mut command = self.client.scripts.call(name, partitions.clone().count());
        partitions.for_each(|partition| {
            command.arg(tag.key(partition));
        });
        command
    }

    /// Sends a command of a group. Redis' word for one that was never opened becomes the ports'.
    async fn of_group(&self, group: &Group, call: Call, effect: Effect) -> Result<Value, StoreError> {
        self.client.call(call, effect).await.map_err(|error| self.told(group, error))
    }

    fn told(&self, group: &Group, error: StoreError) -> StoreError {
        match &error {
            StoreError::Unexpected { cause, .. } if cause.starts_with("NOGROUP") => {
                crate::unopened(&self.client.errors.store, group)
            }
            _ => error,
        }
    }

    async fn append(&self, namespace: &str, items: &[NewItem]) -> Result<Vec<Position>, StoreError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let tag = self.client.keys.stream(namespace);
        let mut command = self.script(Name::StreamAppend, &tag, 0..PARTITIONS);
        let mut bytes = 0;
        for item in items {
            bytes += item.value.bytes.len();
            command.arg(keys::partition(item.key.as_str()) + 1).arg(item.time.0);
            command.arg(item.key.as_str()).arg(pack::value(&item.value));
        }
        // They are written in one step.
        check_size(&self.client, bytes)?;
        let replies = self.replies("XADD");
        let ids = replies.list(self.client.call(Call::new(&tag, command), Effect::Writes).await?)?;
        if ids.len() != items.len() {
            return replies.unexpected(&Value::Array(ids));
        }
        let position = |(item, id): (&NewItem, Value)| {
            let (major, minor) = replies.id(&replies.text(id)?)?;
            Ok(Position { partition: keys::partition(item.key.as_str()), major, minor })
        };
        items.iter().zip(ids).map(position).collect()
    }

    /// Sends a group to a place, or makes it there.
    async fn place(&self, name: Name, group: &Group, start: ReadStart) -> Result<(), StoreError> {
        let tag = self.client.keys.stream(&group.namespace);
        let partitions = match (start, name) {
            (ReadStart::At(position), Name::StreamSeek) if position.partition < PARTITIONS => {
                position.partition..position.partition + 1
            }
            // A place that is in none of them moves nothing.
            (ReadStart::At(_), Name::StreamSeek) => return Ok(()),
            _ => 0..PARTITIONS,
        };
        let mut command = self.script(name, &tag, partitions.clone());
        command.arg(&group.name);
        for partition in partitions {
            command.arg(id_before(start, partition));
        }
        self.of_group(group, Call::new(&tag, command), Effect::Writes).await?;
        Ok(())
    }

    async fn read(
        &self,
        group: &Group,
        limit: usize,
        visibility: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivered>, StoreError> {
        let limit = limit.min(READ_MAX);
        let begun = Instant::now();
        loop {
            let items = self.read_now(group, limit, visibility).await?;
            let left = wait.saturating_sub(begun.elapsed());
            if !items.is_empty() || left.is_zero() || limit == 0 {
                return Ok(items);
            }
            // What becomes visible again is not what Redis waits for, so the wait is in parts.
            let part = left.min(visibility.max(LOOK_MIN)).min(WAIT_MAX);
            let items = self.read_new(group, limit, part).await?;
            if !items.is_empty() {
                return Ok(items);
            }
        }
    }

    async fn read_now(
        &self,
        group: &Group,
        limit: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivered>, StoreError> {
        let tag = self.client.keys.stream(&group.namespace);
        let mut command = self.script(Name::StreamRead, &tag, 0..PARTITIONS);
        let visibility = u64::try_from(visibility.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64);
        command.arg(&group.name).arg(CONSUMER).arg(visibility).arg(limit);
        command.arg(self.turn.fetch_add(1, Ordering::Relaxed) % PARTITIONS);
        let replies = self.replies("XREADGROUP");
        let given = self.of_group(group, Call::new(&tag, command), Effect::Reads).await?;
        let mut items = Vec::new();
        for item in replies.list(given)? {
            let parts = replies.list(item)?;
            let Ok([partition, id, fields, attempts]) = <[Value; 4]>::try_from(parts) else {
                return replies.unexpected(&Value::Nil);
            };
            let partition = replies.number(&partition)?;
            let attempts = u32::try_from(replies.number(&attempts)?).unwrap_or(u32::MAX);
            let entry = Value::Array(vec![id, fields]);
            items.push(self.item(&replies, partition.saturating_sub(1), entry, attempts)?);
        }
        Ok(items)
    }

    /// Waits for items that the group was not given yet.
    async fn read_new(
        &self,
        group: &Group,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Delivered>, StoreError> {
        let tag = self.client.keys.stream(&group.namespace);
        let keys: Vec<String> = (0..PARTITIONS).map(|partition| tag.key(partition)).collect();
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&group.name).arg(CONSUMER);
        // Each partition may give so many.
        command.arg("COUNT").arg(limit.div_ceil(keys.len()));
        command.arg("BLOCK").arg(wait.as_millis().max(1) as u64).arg("STREAMS").arg(&keys);
        keys.iter().for_each(|_| {
            command.arg(">");
        });
        let replies = self.replies("XREADGROUP");
        let answer = self.client.wait_for(Call::new(&tag, command), wait).await;
        let streams = match answer.map_err(|error| self.told(group, error))? {
            Value::Map(streams) => streams,
            Value::Nil => return Ok(Vec::new()),
            other => return replies.unexpected(&other),
        };
        let mut items = Vec::new();
        for (key, entries) in streams {
            let key = replies.text(key)?;
            let Some(partition) = keys.iter().position(|known| *known == key) else { continue };
            for entry in replies.list(entries)? {
                items.push(self.item(&replies, partition as u64, entry, 1)?);
            }
        }
        Ok(items)
    }

    fn item(
        &self,
        replies: &Replies<'_>,
        partition: u64,
        entry: Value,
        attempts: u32,
    ) -> Result<Delivered, StoreError> {
        let damaged = |damaged| self.client.errors.damaged("an item of a stream", damaged);
        let mut entry = replies.entry(entry)?;
        let (major, minor) = entry.id;
        // One of a few partitions.
        let position = Position { partition: partition as u32, major, minor };
        Ok(Delivered {
            position,
            key: pack::read_key(&entry.field("k")).map_err(damaged)?,
            time: Timestamp(pack::read_number(&entry.field("t")).map_err(damaged)?),
            value: pack::read_value(&entry.field("v")).map_err(damaged)?,
            attempts,
        })
    }

    async fn acknowledge(&self, group: &Group, positions: &[Position]) -> Result<(), StoreError> {
        let tag = self.client.keys.stream(&group.namespace);
        let mut command = self.script(Name::StreamAck, &tag, 0..PARTITIONS);
        command.arg(&group.name);
        let known = positions.iter().filter(|position| position.partition < PARTITIONS);
        for position in known {
            command.arg(position.partition + 1).arg(format!("{}-{}", position.major, position.minor));
        }
        self.client.call(Call::new(&tag, command), Effect::Writes).await?;
        Ok(())
    }

    async fn lag(&self, group: &Group) -> Result<u64, StoreError> {
        let tag = self.client.keys.stream(&group.namespace);
        let mut command = self.script(Name::StreamLag, &tag, 0..PARTITIONS);
        command.arg(&group.name);
        let answer = self.of_group(group, Call::new(&tag, command), Effect::Reads).await?;
        self.replies("XINFO").number(&answer)
    }

    async fn trim(&self, namespace: &str, keep: Retention) -> Result<u64, StoreError> {
        let tag = self.client.keys.stream(namespace);
        let calls = (0..PARTITIONS).map(|partition| {
            let mut command = self.script(Name::StreamTrim, &tag, partition..partition + 1);
            command.arg(keep.items.map(|items| items.to_string()).unwrap_or_default());
            command.arg(keep.since.map(|since| since.0.to_string()).unwrap_or_default());
            Call::new(&tag, command)
        });
        let counts = self.client.call_all(calls.collect(), Effect::Writes).await?;
        let replies = self.replies("XTRIM");
        counts.iter().map(|count| replies.number(count)).sum()
    }
}

/// The id after which a group begins in a partition.
fn id_before(start: ReadStart, partition: u32) -> String {
    let before = |major: u64, minor: u64| match (major, minor) {
        (0, 0) => "0".to_owned(),
        (major, 0) => format!("{}-{}", major - 1, u64::MAX),
        (major, minor) => format!("{major}-{}", minor - 1),
    };
    match start {
        ReadStart::Newest => "$".to_owned(),
        ReadStart::Time(time) => before(time.0, 0),
        ReadStart::At(position) if position.partition == partition => before(position.major, position.minor),
        ReadStart::Oldest | ReadStart::At(_) => "0".to_owned(),
    }
}

impl StreamStore for Streams {
    fn append<'a>(&'a self, namespace: &'a str, items: &'a [NewItem]) -> StoreFuture<'a, Vec<Position>> {
        async move {
            NameOf::Namespace.check(namespace)?;
            items.iter().try_for_each(NewItem::check_names)?;
            Self::append(self, namespace, items).await
        }
        .boxed()
    }

    fn open_group<'a>(&'a self, group: &'a Group, start: ReadStart) -> StoreFuture<'a, ()> {
        async move {
            group.check_names()?;
            self.place(Name::StreamOpen, group, start).await
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
        Self::read(self, group, limit, visibility, wait).boxed()
    }

    fn acknowledge<'a>(&'a self, group: &'a Group, positions: &'a [Position]) -> StoreFuture<'a, ()> {
        Self::acknowledge(self, group, positions).boxed()
    }

    fn seek<'a>(&'a self, group: &'a Group, to: ReadStart) -> StoreFuture<'a, ()> {
        self.place(Name::StreamSeek, group, to).boxed()
    }

    fn lag<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, u64> {
        Self::lag(self, group).boxed()
    }

    fn trim<'a>(&'a self, namespace: &'a str, keep: Retention) -> StoreFuture<'a, u64> {
        Self::trim(self, namespace, keep).boxed()
    }
}
