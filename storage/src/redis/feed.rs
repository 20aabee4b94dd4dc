//! The feed of a journal: the events of all actors of a type, merged from its shards.
//!
//! Each shard has a stream of references, written with the events. A position says how far each of them was read, so
//! no event is skipped, whenever its commit ended. The merged order is that of the streams' ids, which begin with the
//! server's time. Events of the present millisecond are left for the next look: another one of it might still come
//! in before them. So each reading of a server has the same order. Nodes of a cluster whose clocks disagree by more
//! than [`SETTLE_TRIES`] milliseconds may show one event before another at one reading, and after it at the next.

use std::collections::HashMap;
use std::time::Duration;

use quark_base::Key;
use quark_runtime::store::{Address, Event, FeedEvent, FeedPage, FeedPosition, StoreError};
use redis::Value;

use super::actors::read_event;
use super::client::{Call, Client};
use super::commit;
use super::keys;
use super::link::Effect;
use super::pack;
use super::reply::Replies;

/// How often a look at nothing but the present millisecond is repeated, a millisecond later each time. Then the
/// server's clock was set back, and what is there is given.
const SETTLE_TRIES: u32 = 20;

/// The fewest references that are read from a shard at once.
const SHARD_MIN: usize = 16;

/// A place in a stream.
type Id = (u64, u64);

/// Where a reader is in each shard.
type Places = Vec<Option<Id>>;

/// An event's place, and where it is kept.
struct Reference {
    id: Id,
    shard: usize,
    key: Key,
    sequence: u64,
}

/// Reads a page.
pub(super) async fn read(
    client: &Client,
    actor_type: &str,
    journal: &str,
    after: &FeedPosition,
    limit: usize,
) -> Result<FeedPage, StoreError> {
    let mut places = parse(after).ok_or_else(|| crate::unknown_position(&client.errors.store, after))?;
    if limit == 0 {
        return Ok(FeedPage { events: Vec::new(), next: after.clone() });
    }
    let mut tries = 0;
    let references = loop {
        let ignore_clock = tries == SETTLE_TRIES;
        match look(client, actor_type, journal, &places, limit, ignore_clock).await? {
            Some(references) => break references,
            None => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let events = fetch(client, actor_type, journal, &references).await?;
    for reference in &references {
        places[reference.shard] = Some(reference.id);
    }
    Ok(FeedPage { events, next: print(&places) })
}

/// The next references in order; none if there are only such as might still get another order.
async fn look(
    client: &Client,
    actor_type: &str,
    journal: &str,
    places: &Places,
    limit: usize,
    ignore_clock: bool,
) -> Result<Option<Vec<Reference>>, StoreError> {
    let tags = client.keys.shards();
    let count = (limit.div_ceil(tags.len()) * 2).max(SHARD_MIN).min(limit);
    let mut calls = Vec::with_capacity(2 * tags.len());
    for (tag, place) in tags.iter().zip(places) {
        // The time of the very node, and before the entries are read.
        calls.push(Call::new(tag, redis::cmd("TIME")));
        let mut command = redis::cmd("XRANGE");
        command.arg(commit::feed_key(tag, actor_type, journal));
        match place {
            Some((major, minor)) => command.arg(format!("({major}-{minor}")),
            None => command.arg("-"),
        };
        command.arg("+").arg("COUNT").arg(count);
        calls.push(Call::new(tag, command));
    }
    let replies = Replies { errors: &client.errors, command: "XRANGE" };
    let mut answers = client.call_all(calls, Effect::Reads).await?.into_iter();
    let mut shards = Vec::with_capacity(tags.len());
    let mut present = u64::MAX;
    while let (Some(time), Some(entries)) = (answers.next(), answers.next()) {
        present = present.min(read_time(&replies, time)?);
        let shard = shards.len();
        let reference = |entry| reference(client, &replies, shard, entry);
        shards.push(replies.list(entries)?.into_iter().map(reference).collect::<Result<Vec<_>, _>>()?);
    }
    let any = shards.iter().any(|shard| !shard.is_empty());
    let before = if ignore_clock { u64::MAX } else { present };
    let merged = merge(shards, count, limit, before);
    Ok((!merged.is_empty() || !any).then_some(merged))
}

fn read_time(replies: &Replies<'_>, value: Value) -> Result<u64, StoreError> {
    let parts = replies.list(value)?;
    let mut numbers = Vec::new();
    for part in parts {
        let number = pack::read_number(&replies.bytes(part)?);
        numbers.push(number.map_err(|damaged| replies.errors.damaged("the server's time", damaged))?);
    }
    match numbers.as_slice() {
        [seconds, micros] => Ok(seconds * 1000 + micros / 1000),
        _ => replies.unexpected(&Value::Nil),
    }
}

fn reference(
    client: &Client,
    replies: &Replies<'_>,
    shard: usize,
    entry: Value,
) -> Result<Reference, StoreError> {
    let damaged = |damaged| client.errors.damaged("a feed", damaged);
    let mut entry = replies.entry(entry)?;
    let key = pack::read_key(&entry.field("a")).map_err(damaged)?;
    let sequence = pack::read_number(&entry.field("n")).map_err(damaged)?;
    Ok(Reference { id: entry.id, shard, key, sequence })
}

/// The first `limit` references of all shards by id, of those from before a time. A shard that gave `count` may have
/// more, so nothing that might come after those can be given.
fn merge(shards: Vec<Vec<Reference>>, count: usize, limit: usize, before: u64) -> Vec<Reference> {
    let full: Vec<bool> = shards.iter().map(|shard| shard.len() >= count).collect();
    let mut shards: Vec<_> = shards.into_iter().map(|shard| shard.into_iter().peekable()).collect();
    let mut merged = Vec::new();
    while merged.len() < limit {
        let heads = shards.iter_mut().filter_map(|shard| shard.peek());
        let next = heads.filter(|head| head.id.0 < before).min_by_key(|head| (head.id, head.shard));
        let Some(shard) = next.map(|head| head.shard) else { break };
        merged.extend(shards[shard].next());
        if full[shard] && shards[shard].peek().is_none() {
            break;
        }
    }
    merged
}

/// Reads the events that references name.
async fn fetch(
    client: &Client,
    actor_type: &str,
    journal: &str,
    references: &[Reference],
) -> Result<Vec<FeedEvent>, StoreError> {
    // The events of one actor follow each other without a gap, so one range has them.
    let mut ranges: Vec<(&Reference, u64)> = Vec::new();
    let mut of_key: HashMap<&str, usize> = HashMap::new();
    for reference in references {
        let place = *of_key.entry(reference.key.as_str()).or_insert_with(|| {
            ranges.push((reference, 0));
            ranges.len() - 1
        });
        ranges[place].1 = reference.sequence;
    }
    let address = |key: &Key| Address::new(actor_type.to_owned(), key.as_str());
    let calls = ranges.iter().map(|(first, last)| {
        let tag = &client.keys.shards()[first.shard];
        let mut command = redis::cmd("XRANGE");
        command.arg(commit::journal_key(tag, journal, &keys::actor(&address(&first.key))));
        command.arg(first.sequence).arg(last);
        Call::new(tag, command)
    });
    let replies = Replies { errors: &client.errors, command: "XRANGE" };
    let damaged = |damaged| client.errors.damaged("an event", damaged);
    let mut events = Vec::with_capacity(ranges.len());
    for answer in client.call_all(calls.collect(), Effect::Reads).await? {
        let list =
            replies.list(answer)?.into_iter().map(|entry| read_event(replies.entry(entry)?).map_err(damaged));
        events.push(list.collect::<Result<Vec<Event>, _>>()?.into_iter());
    }
    let mut found = Vec::with_capacity(references.len());
    for reference in references {
        let event = of_key.get(reference.key.as_str()).and_then(|place| events[*place].next());
        match event {
            Some(event) if event.sequence == reference.sequence => {
                found.push(FeedEvent { actor: address(&reference.key), event });
            }
            _ => return Err(damaged(pack::Damaged)),
        }
    }
    Ok(found)
}

/// Writes a position: `shard:id` of each shard that was read of.
fn print(places: &Places) -> FeedPosition {
    let read = places
        .iter()
        .enumerate()
        .filter_map(|(shard, place)| place.map(|(major, minor)| format!("{shard}:{major}-{minor}")));
    FeedPosition(read.collect::<Vec<_>>().join(","))
}

fn parse(position: &FeedPosition) -> Option<Places> {
    let mut places = vec![None; usize::from(keys::SHARDS)];
    for part in position.0.split(',').filter(|part| !part.is_empty()) {
        let (shard, id) = part.split_once(':')?;
        let (major, minor) = id.split_once('-')?;
        let place = places.get_mut(shard.parse::<usize>().ok()?)?;
        *place = Some((major.parse().ok()?, minor.parse().ok()?));
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(shard: usize, ids: &[Id]) -> Vec<Reference> {
        ids.iter().map(|&id| Reference { id, shard, key: Key::from("k"), sequence: 1 }).collect()
    }

    fn merged(shards: Vec<Vec<Reference>>, count: usize, limit: usize, before: u64) -> Vec<(usize, Id)> {
        merge(shards, count, limit, before).into_iter().map(|found| (found.shard, found.id)).collect()
    }

    #[test]
    fn shards_are_merged_by_time() {
        let shards = || vec![shard(0, &[(1, 0), (5, 0)]), shard(1, &[]), shard(2, &[(1, 0), (2, 7)])];
        let all = [(0, (1, 0)), (2, (1, 0)), (2, (2, 7)), (0, (5, 0))];
        assert_eq!(merged(shards(), 10, 10, u64::MAX), all);
        assert_eq!(merged(shards(), 10, 3, u64::MAX), all[..3]);
    }

    #[test]
    fn what_might_still_be_overtaken_is_left() {
        let shards = || vec![shard(0, &[(1, 0), (5, 0)]), shard(1, &[(2, 0), (9, 0)])];
        assert_eq!(merged(shards(), 10, 10, 5), [(0, (1, 0)), (1, (2, 0))]);
        // The first shard gave as many as it was asked for: after its last one, others of it may come.
        assert_eq!(merged(shards(), 2, 10, u64::MAX), [(0, (1, 0)), (1, (2, 0)), (0, (5, 0))]);
    }

    #[test]
    fn a_position_survives_its_text() {
        let mut places = vec![None; usize::from(keys::SHARDS)];
        assert_eq!(print(&places), FeedPosition::default());
        places[3] = Some((1_767_225_600_000, 12));
        places[63] = Some((u64::MAX, u64::MAX));
        assert_eq!(parse(&print(&places)), Some(places));
        for wrong in ["64:1-1", "1", "1:1", "x:1-1", "1:1-x"] {
            assert_eq!(parse(&FeedPosition(wrong.into())), None, "{wrong}");
        }
    }
}
