//! One commit as one call, and what its script answers.

use quark_base::ByteSize;
use quark_runtime::store::{Commit, Conflict, Encoded, StoreError};
use redis::{Cmd, Value};

use super::client::{Call, Client};
use super::keys;
use super::pack;
use super::scripts::Name;

/// The largest value that is taken: Redis does nothing else while it reads or writes one, and this takes it some
/// milliseconds. Its own limit is 512 MiB.
pub(super) const VALUE_MAX: ByteSize = ByteSize::mib(16);

/// Refuses a value that is too large.
pub(super) fn check_size(client: &Client, bytes: usize) -> Result<(), StoreError> {
    let size = ByteSize::bytes(bytes as u64);
    if size <= VALUE_MAX {
        return Ok(());
    }
    Err(StoreError::TooLarge { store: client.errors.store.clone(), size, limit: VALUE_MAX })
}

/// The fields of a row.
pub(super) const EPOCH: &str = "e";
pub(super) const NUMBER: &str = "n";

pub(super) fn slot_field(name: &str) -> String {
    format!("s:{name}")
}

pub(super) fn journal_field(name: &str) -> String {
    format!("j:{name}")
}

pub(super) fn snapshot_field(name: &str) -> String {
    format!("p:{name}")
}

/// The key of an actor's row.
pub(super) fn row_key(tag: &keys::Tag, actor: &str) -> String {
    tag.key(format_args!("a:{actor}"))
}

/// The key of a journal's stream.
pub(super) fn journal_key(tag: &keys::Tag, journal: &str, actor: &str) -> String {
    tag.key(format_args!("j:{}:{actor}", keys::escape(journal)))
}

/// The key of a feed's part in one shard.
pub(super) fn feed_key(tag: &keys::Tag, actor_type: &str, journal: &str) -> String {
    tag.key(format_args!("f:{}:{}", keys::escape(actor_type), keys::escape(journal)))
}

/// The call that writes a commit.
pub(super) fn call(client: &Client, commit: &Commit) -> Result<Call, StoreError> {
    let values = commit.slots.iter().filter_map(|slot| slot.value.as_ref());
    let events = commit.appends.iter().flat_map(|append| append.events.iter().chain(&append.snapshot));
    let messages = commit.outbox.iter().map(|message| &message.body);
    for Encoded { bytes, .. } in values.chain(events).chain(messages) {
        check_size(client, bytes.len())?;
    }
    let actor = keys::actor(&commit.actor);
    let tag = client.keys.shard(&actor);
    let single = commit.slots.len() == 1
        && commit.appends.is_empty()
        && commit.outbox.is_empty()
        && commit.inbox.is_empty();
    let command = match single {
        true => slot_call(client, commit, &row_key(tag, &actor)),
        false => full_call(client, commit, tag, &actor),
    };
    Ok(Call::new(tag, command))
}

/// Adds what lets the commit in.
fn fence(command: &mut Cmd, commit: &Commit) {
    // As the row has it: epoch and number, each in its own text.
    let seen = commit.fence.seen.map(|seen| format!("{}-{}", seen.epoch, seen.sequence));
    command.arg(seen.as_deref().unwrap_or("0"));
    command.arg(commit.fence.epoch.to_string());
    command.arg(commit.fence.sequence);
}

/// Adds a state to write.
fn slot(command: &mut Cmd, commit: &Commit, slot: &quark_runtime::store::SlotWrite) {
    command.arg(slot_field(&slot.name));
    command.arg(slot.expected.map(|etag| etag.to_string()).unwrap_or_default());
    command.arg(slot.value.as_ref().map(|value| pack::slot(commit.fence.etag(), value)).unwrap_or_default());
}

fn slot_call(client: &Client, commit: &Commit, row: &str) -> Cmd {
    let mut command = client.scripts.call(Name::CommitSlot, 1);
    command.arg(row);
    fence(&mut command, commit);
    slot(&mut command, commit, &commit.slots[0]);
    command
}

fn full_call(client: &Client, commit: &Commit, tag: &keys::Tag, actor: &str) -> Cmd {
    let mut command = client.scripts.call(Name::Commit, 4 + 2 * commit.appends.len());
    command.arg(row_key(tag, actor)).arg(tag.key("outx")).arg(tag.key("out")).arg(tag.key("in"));
    for append in &commit.appends {
        command.arg(journal_key(tag, &append.journal, actor));
        command.arg(feed_key(tag, &commit.actor.actor_type, &append.journal));
    }
    fence(&mut command, commit);
    command.arg(commit.time.0);
    command.arg(commit.slots.len());
    commit.slots.iter().for_each(|write| slot(&mut command, commit, write));
    command.arg(commit.appends.len());
    for append in &commit.appends {
        // No journal ends where these would overflow, so the script refuses such an append.
        let last = append.expected.saturating_add(append.events.len() as u64);
        let snapshot = append.snapshot.as_ref().map(|value| pack::snapshot(last, value));
        command.arg(journal_field(&append.journal)).arg(append.expected).arg(last);
        command.arg(snapshot_field(&append.journal)).arg(snapshot.unwrap_or_default());
        command.arg(commit.actor.key.as_str()).arg(append.events.len());
        for (sequence, event) in (append.expected.saturating_add(1)..).zip(&append.events) {
            command.arg(sequence).arg(pack::value(event));
        }
    }
    command.arg(commit.outbox.len());
    for (index, message) in (0..).zip(&commit.outbox) {
        let etag = commit.fence.etag();
        command.arg(keys::owned(actor, format_args!("{etag}.{index}")));
        command.arg(pack::message(&commit.actor, etag, index, commit.time, message));
    }
    command.arg(commit.inbox.len());
    for message in &commit.inbox {
        command.arg(keys::owned(actor, message));
    }
    command
}

/// What the script said about a commit.
pub(super) fn outcome(client: &Client, commit: &Commit, answer: Value) -> Result<(), StoreError> {
    let unexpected = |answer: &Value| Err(client.errors.unexpected(&format!("a commit gave {answer:?}")));
    let said = match &answer {
        // Written, or it was already.
        Value::Int(0 | 1) => return Ok(()),
        Value::Array(said) => said.as_slice(),
        _ => return unexpected(&answer),
    };
    // Scripts count from 1.
    let item = |index: i64| usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
    let actor = commit.actor.clone();
    let conflict = match said {
        [Value::Int(1), Value::BulkString(epoch)] => {
            let stored = pack::read_epoch(epoch);
            let stored =
                stored.map_err(|damaged| client.errors.damaged(&format!("epoch of {actor}"), damaged))?;
            Some(Conflict::Fence { actor, stored })
        }
        [Value::Int(2), Value::Int(index)] => item(*index).and_then(|index| {
            let name = commit.slots.get(index)?.name.as_ref().into();
            Some(Conflict::Slot { actor, name })
        }),
        [Value::Int(3), Value::Int(index), Value::BulkString(last)] => item(*index).and_then(|index| {
            let journal = commit.appends.get(index)?.journal.as_ref().into();
            Some(Conflict::Journal { actor, journal, last: pack::read_number(last).ok()? })
        }),
        [Value::Int(4), Value::Int(index)] => item(*index)
            .and_then(|index| Some(Conflict::Inbox { actor, message: commit.inbox.get(index)?.clone() })),
        [Value::Int(5)] => {
            return Err(StoreError::Lost { store: client.errors.store.clone(), actor: Box::new(actor) });
        }
        _ => None,
    };
    match conflict {
        Some(conflict) => Err(conflict.into()),
        None => unexpected(&answer),
    }
}
