//! Reminders in PostgreSQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use quark_base::Timestamp;
use quark_runtime::store::{
    Address, Advance, DuePage, DuePlace, NameOf, ReminderRecord, ReminderStore, RingRange, StoreFuture,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::Shared;
use super::columns::{actor, addresses};
use crate::sql::{Last, int, limit, point, ring, time, timestamp, unsigned};

pub(super) struct Reminders(pub(super) Arc<Shared>);

/// A part of the ring: one that wraps around is outside of the gap between its ends. Of the place, the index takes time
/// and point; few share both.
const STRAIGHT: &str = "SELECT actor_type, actor_key, name, due, schedule, ring, version FROM quark_reminder \
     WHERE (due, ring, actor_type, actor_key, name) > ($4, $5, $6, $7, $8) AND due <= $3 \
     AND ring BETWEEN $1 AND $2 ORDER BY due, ring, actor_type, actor_key, name LIMIT $9";
const WRAPPED: &str = "SELECT actor_type, actor_key, name, due, schedule, ring, version FROM quark_reminder \
     WHERE (due, ring, actor_type, actor_key, name) > ($4, $5, $6, $7, $8) AND due <= $3 \
     AND (ring >= $1 OR ring <= $2) ORDER BY due, ring, actor_type, actor_key, name LIMIT $9";

fn record(row: &PgRow) -> ReminderRecord {
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
    async fn put(connection: &mut PgConnection, reminders: &[ReminderRecord]) -> Result<(), sqlx::Error> {
        // Each once, the last of them; and in the order of the keys, so that two silos do not wait for each other in
        // a circle.
        let reminders: BTreeMap<_, _> =
            reminders.iter().map(|reminder| ((&reminder.actor, &reminder.name), reminder)).collect();
        let (types, keys) = addresses(reminders.values().map(|reminder| &reminder.actor));
        let names: Vec<&str> = reminders.values().map(|reminder| reminder.name.as_str()).collect();
        let dues: Vec<i64> = reminders.values().map(|reminder| time(reminder.due)).collect();
        let schedules: Vec<&str> = reminders.values().map(|reminder| reminder.schedule.as_str()).collect();
        let rings: Vec<i64> = reminders.values().map(|reminder| ring(reminder.ring)).collect();
        let versions: Vec<i64> = reminders.values().map(|reminder| int(reminder.version)).collect();
        let query = sqlx::query(
            "INSERT INTO quark_reminder (actor_type, actor_key, name, due, schedule, ring, version) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], \
             $7::bigint[]) ON CONFLICT (actor_type, actor_key, name) DO UPDATE SET due = excluded.due, \
             schedule = excluded.schedule, ring = excluded.ring, version = excluded.version",
        );
        let query =
            query.bind(types).bind(keys).bind(names).bind(dues).bind(schedules).bind(rings).bind(versions);
        query.execute(connection).await.map(drop)
    }

    async fn remove(
        connection: &mut PgConnection,
        address: &Address,
        name: &str,
    ) -> Result<bool, sqlx::Error> {
        let query =
            sqlx::query("DELETE FROM quark_reminder WHERE actor_type = $1 AND actor_key = $2 AND name = $3");
        let query = query.bind(address.actor_type.as_ref()).bind(address.key.as_str()).bind(name);
        Ok(query.execute(connection).await?.rows_affected() > 0)
    }

    async fn of_actor(
        connection: &mut PgConnection,
        address: &Address,
    ) -> Result<Vec<ReminderRecord>, sqlx::Error> {
        let query = sqlx::query(
            "SELECT actor_type, actor_key, name, due, schedule, ring, version FROM quark_reminder \
             WHERE actor_type = $1 AND actor_key = $2 ORDER BY name",
        );
        let query = query.bind(address.actor_type.as_ref()).bind(address.key.as_str());
        Ok(query.fetch_all(connection).await?.iter().map(record).collect())
    }

    async fn due(
        connection: &mut PgConnection,
        range: RingRange,
        after: &DuePlace,
        until: Timestamp,
        rows: usize,
    ) -> Result<DuePage, sqlx::Error> {
        let query = sqlx::query(if range.first <= range.last { STRAIGHT } else { WRAPPED });
        let query = query.bind(ring(range.first)).bind(ring(range.last)).bind(time(until));
        let last = Last::of(after);
        let query = query.bind(time(after.due)).bind(ring(last.ring)).bind(last.actor_type);
        let query = query.bind(last.actor_key).bind(last.name).bind(limit(rows));
        let found = query.fetch_all(connection).await?;
        Ok(DuePage::up_to(rows, found.iter().map(record).collect()))
    }

    async fn next_due(
        connection: &mut PgConnection,
        range: RingRange,
    ) -> Result<Option<Timestamp>, sqlx::Error> {
        let soonest = Self::due(connection, range, &DuePlace::START, Timestamp(u64::MAX), 1).await?;
        Ok(soonest.reminders.first().map(|reminder| reminder.due))
    }

    /// The rows are locked in the order of their keys. A row that somebody else has moved meanwhile does not match its
    /// version any more, and is left alone.
    async fn advance(connection: &mut PgConnection, moves: &[Advance]) -> Result<Vec<bool>, sqlx::Error> {
        let (types, keys) = addresses(moves.iter().map(|step| &step.actor));
        let names: Vec<&str> = moves.iter().map(|step| step.name.as_str()).collect();
        let versions: Vec<i64> = moves.iter().map(|step| int(step.version)).collect();
        let nexts: Vec<Option<i64>> = moves.iter().map(|step| step.next.map(time)).collect();
        let next_versions: Vec<i64> = moves.iter().map(|step| int(step.next_version)).collect();
        let query = sqlx::query_scalar(
            "WITH seen AS MATERIALIZED (SELECT w.* \
             FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[]) \
             WITH ORDINALITY AS w (t, k, n, v, next, next_v, i) \
             JOIN quark_reminder r ON r.actor_type = t AND r.actor_key = k AND r.name = n AND r.version = v \
             ORDER BY r.actor_type, r.actor_key, r.name FOR UPDATE OF r), \
             moved AS (UPDATE quark_reminder r SET due = next, version = next_v FROM seen \
             WHERE r.actor_type = t AND r.actor_key = k AND r.name = n AND next IS NOT NULL RETURNING i), \
             removed AS (DELETE FROM quark_reminder r USING seen \
             WHERE r.actor_type = t AND r.actor_key = k AND r.name = n AND next IS NULL RETURNING i) \
             SELECT i FROM moved UNION ALL SELECT i FROM removed",
        );
        let query = query.bind(types).bind(keys).bind(names).bind(versions).bind(nexts).bind(next_versions);
        let places: Vec<i64> = query.fetch_all(connection).await?;
        let mut applied = vec![false; moves.len()];
        for place in places {
            // They are numbered from 1.
            if let Some(applied) = usize::try_from(place - 1).ok().and_then(|place| applied.get_mut(place)) {
                *applied = true;
            }
        }
        Ok(applied)
    }
}

impl ReminderStore for Reminders {
    fn put<'a>(&'a self, reminders: &'a [ReminderRecord]) -> StoreFuture<'a, ()> {
        async move {
            reminders.iter().try_for_each(ReminderRecord::check_names)?;
            self.0.write(async |connection| Self::put(connection, reminders).await).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, actor: &'a Address, name: &'a str) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            NameOf::Reminder.check(name)?;
            self.0.write(async |connection| Self::remove(connection, actor, name).await).await
        }
        .boxed()
    }

    fn of_actor<'a>(&'a self, actor: &'a Address) -> StoreFuture<'a, Vec<ReminderRecord>> {
        async move {
            actor.check_names()?;
            self.0.read(async |connection| Self::of_actor(connection, actor).await).await
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
        async move {
            self.0.read(async |connection| Self::due(connection, range, after, until, limit).await).await
        }
        .boxed()
    }

    fn next_due(&self, range: RingRange) -> StoreFuture<'_, Option<Timestamp>> {
        async move { self.0.read(async |connection| Self::next_due(connection, range).await).await }.boxed()
    }

    fn advance<'a>(&'a self, moves: &'a [Advance]) -> StoreFuture<'a, Vec<bool>> {
        async move { self.0.write(async |connection| Self::advance(connection, moves).await).await }.boxed()
    }
}
