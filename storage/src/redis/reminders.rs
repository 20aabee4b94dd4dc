//! Reminders.
//!
//! An actor's reminders are in one part of [`REMINDER_SHARDS`](keys::REMINDER_SHARDS), so that one script changes all
//! that belongs to one of them. Within a part they stand by due time in buckets of the ring, so that a silo's look at
//! its range reads only the buckets that the range touches.

use std::ops::Range;
use std::sync::Arc;

use futures_util::FutureExt as _;
use quark_base::Timestamp;
use quark_runtime::reminders;
use quark_runtime::store::{
    Address, Advance, DuePage, DuePlace, NameOf, ReminderRecord, ReminderStore, RingRange, StoreError,
    StoreFuture,
};
use redis::Value;

use super::client::{Call, Client};
use super::commit::check_size;
use super::keys::{self, RING_BUCKETS, Tag};
use super::link::Effect;
use super::pack::{Damaged, Reader, Writer};
use super::reply::Replies;
use super::scripts::Name;

/// Of a page, each part is asked for this many times its even share, and for so many at least: enough that a page is
/// seldom short, and little that is read in vain.
const SHARE: usize = 2;
const SHARE_MIN: usize = 64;

pub(super) struct Reminders {
    client: Arc<Client>,
}

impl Reminders {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// Calls a script that changes one reminder for each of these. It is given the one bucket that the actor's point is
    /// in, and all of them only if the reminder was put on another point: names of 64 keys cost more than the rest.
    async fn change_all(&self, name: Name, changes: &[Change]) -> Result<Vec<u64>, StoreError> {
        let call = |change: &Change, buckets: Range<u64>| {
            let tag = self.client.keys.reminder_shard(&change.actor);
            // At most 64.
            let count = (buckets.end - buckets.start) as usize;
            let mut command = self.client.scripts.call(name, 2 + count);
            command.arg(tag.key("rec")).arg(tag.key("names"));
            for bucket in buckets.clone() {
                command.arg(bucket_key(tag, bucket));
            }
            command.arg(keys::owned(&change.actor, &change.name)).arg(&change.arguments).arg(buckets.start);
            Call::new(tag, command)
        };
        let replies = Replies { errors: &self.client.errors, command: "reminder" };
        let first = changes.iter().map(|change| call(change, change.bucket..change.bucket + 1));
        let answers = self.client.call_all(first.collect(), Effect::Writes).await?;
        let mut answers: Vec<u64> =
            answers.iter().map(|answer| replies.number(answer)).collect::<Result<_, _>>()?;
        let others: Vec<usize> = (0..answers.len()).filter(|index| answers[*index] == OTHER_BUCKET).collect();
        if !others.is_empty() {
            let again = others.iter().map(|index| call(&changes[*index], 0..RING_BUCKETS));
            for (index, answer) in
                others.iter().zip(self.client.call_all(again.collect(), Effect::Writes).await?)
            {
                answers[*index] = replies.number(&answer)?;
            }
        }
        Ok(answers)
    }

    async fn put(&self, reminders: &[ReminderRecord]) -> Result<(), StoreError> {
        let mut changes = Vec::with_capacity(reminders.len());
        for reminder in reminders {
            check_size(&self.client, reminder.schedule.len())?;
            let due = reminder.due.0.to_string().into();
            let arguments = [write(reminder), due, point(reminder.ring).into()];
            changes.push(Change::of(&reminder.actor, &reminder.name, reminder.ring, arguments));
        }
        self.change_all(Name::ReminderPut, &changes).await.map(drop)
    }

    async fn remove(&self, actor: &Address, name: &str) -> Result<bool, StoreError> {
        let change = Change::of(actor, name, reminders::point(actor), [const { Vec::new() }; 3]);
        Ok(self.change_all(Name::ReminderMove, &[change]).await? == [1])
    }

    async fn advance(&self, moves: &[Advance]) -> Result<Vec<bool>, StoreError> {
        let changes = moves.iter().map(|step| {
            let next = step.next.map(|next| next.0.to_string()).unwrap_or_default();
            let arguments = [step.version.to_string(), next, step.next_version.to_string()];
            let point = reminders::point(&step.actor);
            Change::of(&step.actor, &step.name, point, arguments.map(String::into_bytes))
        });
        let answers = self.change_all(Name::ReminderMove, &changes.collect::<Vec<_>>()).await?;
        Ok(answers.into_iter().map(|answer| answer == 1).collect())
    }

    async fn of_actor(&self, actor: &Address) -> Result<Vec<ReminderRecord>, StoreError> {
        let text = keys::actor(actor);
        let tag = self.client.keys.reminder_shard(&text);
        let prefix = keys::owned_prefix(&text);
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(tag.key("names")).arg(format!("[{prefix}"));
        // No name holds this byte, which is no part of UTF-8.
        command.arg([b"(".as_slice(), prefix.as_bytes(), b"\xff"].concat());
        let replies = Replies { errors: &self.client.errors, command: "ZRANGEBYLEX" };
        let names = replies.list(self.client.call(Call::new(tag, command), Effect::Reads).await?)?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("HMGET");
        command.arg(tag.key("rec"));
        for name in names {
            command.arg(replies.bytes(name)?);
        }
        let records = replies.list(self.client.call(Call::new(tag, command), Effect::Reads).await?)?;
        self.read_all(&replies, records)
    }

    /// Reads records; one that is gone by now is left out.
    fn read_all(
        &self,
        replies: &Replies<'_>,
        records: Vec<Value>,
    ) -> Result<Vec<ReminderRecord>, StoreError> {
        let mut reminders = Vec::with_capacity(records.len());
        for record in records {
            let Some(record) = replies.optional(record)? else { continue };
            let reminder = read(&record);
            reminders.push(reminder.map_err(|damaged| self.client.errors.damaged("a reminder", damaged))?);
        }
        Ok(reminders)
    }

    async fn due(
        &self,
        range: RingRange,
        after: &DuePlace,
        until: Timestamp,
        limit: usize,
    ) -> Result<DuePage, StoreError> {
        let buckets = buckets(range);
        // How the buckets stand to the place: how many are before its own, and whether that is one of them.
        let (member, before, own) = match &after.last {
            None => (String::new(), 0, false),
            Some(last) => {
                let bucket = keys::ring_bucket(last.ring);
                let before = buckets.iter().filter(|other| **other < bucket).count();
                (member(last.ring, &last.actor, &last.name), before, buckets.contains(&bucket))
            }
        };
        let shards = self.client.keys.reminder_shards();
        let limit_of_each = limit.min((SHARE * limit / shards.len()).max(SHARE_MIN));
        let calls = shards.iter().map(|tag| {
            let mut command = self.client.scripts.call(Name::ReminderDue, 1 + buckets.len());
            command.arg(tag.key("rec"));
            for bucket in &buckets {
                command.arg(bucket_key(tag, *bucket));
            }
            command.arg(point(range.first)).arg(point(range.last)).arg(until.0).arg(limit_of_each);
            command.arg(after.due.0).arg(&member).arg(before).arg(u8::from(own));
            Call::new(tag, command)
        });
        let replies = Replies { errors: &self.client.errors, command: "due" };
        let mut reminders = Vec::new();
        // The soonest of the last ones of the parts that may have more: what the others have after it may not be next.
        let mut end: Option<Due> = None;
        for answer in self.client.call_all(calls.collect(), Effect::Reads).await? {
            let of_part = self.read_all(&replies, replies.list(answer)?)?.into_iter();
            let of_part: Vec<_> = of_part.map(|reminder| (Due::of(&reminder), reminder)).collect();
            if of_part.len() >= limit_of_each
                && let Some((last, _)) = of_part.last()
            {
                end = Some(end.map_or_else(|| last.clone(), |end| end.min(last.clone())));
            }
            reminders.extend(of_part);
        }
        reminders.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(end) = end {
            reminders.truncate(reminders.partition_point(|(due, _)| *due <= end).min(limit));
            let next = reminders.last().map(|(_, reminder)| DuePlace::after(reminder));
            return Ok(DuePage {
                reminders: reminders.into_iter().map(|(_, reminder)| reminder).collect(),
                next,
            });
        }
        reminders.truncate(limit);
        Ok(DuePage::up_to(limit, reminders.into_iter().map(|(_, reminder)| reminder).collect()))
    }

    async fn next_due(&self, range: RingRange) -> Result<Option<Timestamp>, StoreError> {
        let buckets = buckets(range);
        let calls = self.client.keys.reminder_shards().iter().map(|tag| {
            let mut command = self.client.scripts.call(Name::ReminderNext, buckets.len());
            for bucket in &buckets {
                command.arg(bucket_key(tag, *bucket));
            }
            command.arg(point(range.first)).arg(point(range.last));
            Call::new(tag, command)
        });
        let replies = Replies { errors: &self.client.errors, command: "next due" };
        let mut soonest = None;
        for answer in self.client.call_all(calls.collect(), Effect::Reads).await? {
            let Some(score) = replies.optional(answer)? else { continue };
            let due =
                read_score(&score).map_err(|damaged| self.client.errors.damaged("a due time", damaged))?;
            soonest = Some(soonest.map_or(due, |soonest: Timestamp| soonest.min(due)));
        }
        Ok(soonest)
    }
}

/// What a script answers that was not given the bucket it needs. It has changed nothing.
const OTHER_BUCKET: u64 = 2;

/// What one call of a script is about.
struct Change {
    /// The actor's text.
    actor: String,
    name: String,
    /// Where the reminder is, if it stands on its actor's point.
    bucket: u64,
    /// Those between its name and its bucket.
    arguments: [Vec<u8>; 3],
}

impl Change {
    fn of(actor: &Address, name: &str, point: u64, arguments: [Vec<u8>; 3]) -> Self {
        let (actor, bucket) = (keys::actor(actor), keys::ring_bucket(point));
        Self { actor, name: name.to_owned(), bucket, arguments }
    }
}

/// The order of the parts' sorted sets: by due time, then by member.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Due(Timestamp, String);

impl Due {
    fn of(reminder: &ReminderRecord) -> Self {
        Self(reminder.due, member(reminder.ring, &reminder.actor, &reminder.name))
    }
}

/// What stands for a reminder in its bucket.
fn member(ring: u64, actor: &Address, name: &str) -> String {
    point(ring) + &keys::owned(&keys::actor(actor), name)
}

fn bucket_key(tag: &Tag, bucket: u64) -> String {
    tag.key(format_args!("due:{bucket}"))
}

/// A point of the ring as text that sorts like it.
fn point(ring: u64) -> String {
    format!("{ring:016x}")
}

/// The buckets that a range touches.
fn buckets(range: RingRange) -> Vec<u64> {
    let (first, last) = (keys::ring_bucket(range.first), keys::ring_bucket(range.last));
    if range.first <= range.last {
        return (first..=last).collect();
    }
    // Around the end of the ring; one bucket may hold both ends.
    (0..RING_BUCKETS).filter(|bucket| *bucket >= first || *bucket <= last).collect()
}

/// Version, due time and ring point in front, for the scripts.
fn write(reminder: &ReminderRecord) -> Vec<u8> {
    Writer::default()
        .word(reminder.version)
        .word(reminder.due.0)
        .word(point(reminder.ring))
        .text(&reminder.actor.actor_type)
        .text(reminder.actor.key.as_str())
        .text(&reminder.name)
        .text(&reminder.schedule)
        .finish()
}

fn read(record: &[u8]) -> Result<ReminderRecord, Damaged> {
    let mut reader = Reader::new(record);
    let (version, due) = (reader.word()?, Timestamp(reader.word()?));
    let ring = u64::from_str_radix(&reader.word::<String>()?, 16).map_err(|_| Damaged)?;
    let actor = Address::new(reader.text()?, reader.text()?.as_str());
    Ok(ReminderRecord { actor, name: reader.text()?, due, schedule: reader.text()?, ring, version })
}

/// A score is a floating point number: exact up to 2^53 milliseconds, the year 287396.
fn read_score(text: &[u8]) -> Result<Timestamp, Damaged> {
    let text = std::str::from_utf8(text).map_err(|_| Damaged)?;
    match text.parse() {
        Ok(millis) => Ok(Timestamp(millis)),
        // Casts saturate.
        Err(_) => text.parse::<f64>().map(|millis| Timestamp(millis as u64)).map_err(|_| Damaged),
    }
}

impl ReminderStore for Reminders {
    fn put<'a>(&'a self, reminders: &'a [ReminderRecord]) -> StoreFuture<'a, ()> {
        async move {
            reminders.iter().try_for_each(ReminderRecord::check_names)?;
            Self::put(self, reminders).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, actor: &'a Address, name: &'a str) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            NameOf::Reminder.check(name)?;
            Self::remove(self, actor, name).await
        }
        .boxed()
    }

    fn of_actor<'a>(&'a self, actor: &'a Address) -> StoreFuture<'a, Vec<ReminderRecord>> {
        async move {
            actor.check_names()?;
            Self::of_actor(self, actor).await
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
        Self::due(self, range, after, until, limit).boxed()
    }

    fn next_due(&self, range: RingRange) -> StoreFuture<'_, Option<Timestamp>> {
        Self::next_due(self, range).boxed()
    }

    fn advance<'a>(&'a self, moves: &'a [Advance]) -> StoreFuture<'a, Vec<bool>> {
        Self::advance(self, moves).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_its_buckets_only() {
        const BUCKET: u64 = 1 << 58;
        let of = |first, last| buckets(RingRange { first, last });
        assert_eq!(of(0, u64::MAX).len(), 64);
        assert_eq!(of(0, 0), [0]);
        assert_eq!(of(BUCKET - 1, BUCKET), [0, 1]);
        assert_eq!(of(u64::MAX, 0), [0, 63]);
        assert_eq!(of(10, 9).len(), 64);
    }

    #[test]
    fn a_reminder_survives_its_record() {
        let reminder = ReminderRecord {
            actor: Address::new("a b", "7 "),
            name: String::new(),
            due: Timestamp(u64::MAX),
            schedule: "{\"every\": \"5 s\"}".into(),
            ring: 1 << 63,
            version: u64::MAX,
        };
        assert_eq!(read(&write(&reminder)), Ok(reminder));
        assert_eq!(read_score(b"1767225600000"), Ok(Timestamp(1_767_225_600_000)));
        assert_eq!(read_score(b"1.8446744073709552e+19"), Ok(Timestamp(u64::MAX)));
    }
}
