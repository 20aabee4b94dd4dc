//! The names of keys.
//!
//! All that one commit writes stands under keys with one hash tag, the part in braces, so that a cluster keeps it on
//! one node and one script may write it. An actor's tag is that of its shard, `{quark:12}`, one of [`SHARDS`].
//!
//! | key                           | what it is                                                             |
//! |-------------------------------|------------------------------------------------------------------------|
//! | `{quark:12}:a:type/key`       | hash, an actor's row: `e` its epoch, `n` its last commit's number, `s:name` a state, `j:name` a journal's last event, `p:name` its snapshot |
//! | `{quark:12}:j:name:type/key`  | stream, a journal; the ids are `sequence-0`                            |
//! | `{quark:12}:f:type/name`      | stream, the feed: whose event, and its number                          |
//! | `{quark:12}:out`              | hash of messages to deliver by [`OutboxId`], and the counter `n`       |
//! | `{quark:12}:outx`             | sorted set of their ids in the order of their commits                  |
//! | `{quark:12}:in`               | sorted set of messages that took effect, by time                       |
//! | `{quark:r3}:rec`              | hash of reminders                                                      |
//! | `{quark:r3}:names`            | sorted set of their names, in lexical order, to find those of an actor |
//! | `{quark:r3}:due:17`           | sorted set of those of one bucket of the ring, by due time             |
//! | `{quark:s:namespace}:5`       | stream, one partition of a durable stream                              |

use quark_placement::hash;
use quark_runtime::store::{Address, OutboxId};

/// How many parts the actors of a grid are in. A cluster spreads them over its nodes; each look for messages to
/// deliver asks each part, so that more of them make that slower. Never changed: it says where everything is.
pub(super) const SHARDS: u16 = 64;

/// How many parts the reminders are in; each look for due ones asks each part.
pub(super) const REMINDER_SHARDS: u16 = 16;

/// How many buckets the ring is in, in each part of the reminders: the upper six bits of a point choose.
pub(super) const RING_BUCKETS: u64 = 64;

/// How many partitions a durable stream has. All have one tag, so that one blocking read waits for them all.
pub(super) const PARTITIONS: u32 = 8;

/// How many slots a cluster has (Redis Cluster specification, "Key distribution model").
const SLOTS: u16 = 16384;

/// What a cluster places keys by.
pub(super) type Slot = u16;

/// A hash tag with its braces, and the slot that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    text: Box<str>,
    pub(super) slot: Slot,
}

impl Tag {
    fn new(inner: &str) -> Self {
        Self { text: format!("{{{inner}}}").into(), slot: slot_of(inner.as_bytes()) }
    }

    /// The key of this tag with this rest.
    pub(super) fn key(&self, rest: impl std::fmt::Display) -> String {
        format!("{}:{rest}", self.text)
    }
}

/// The names of one grid's keys.
pub(super) struct Keys {
    prefix: String,
    shards: Vec<Tag>,
    reminders: Vec<Tag>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            shards: (0..SHARDS).map(|shard| Tag::new(&format!("{prefix}:{shard}"))).collect(),
            reminders: (0..REMINDER_SHARDS).map(|shard| Tag::new(&format!("{prefix}:r{shard}"))).collect(),
        }
    }

    /// All parts of the actors.
    pub(super) fn shards(&self) -> &[Tag] {
        &self.shards
    }

    /// The part that an actor, by its [`actor`] text, is in.
    pub(super) fn shard(&self, actor: &str) -> &Tag {
        &self.shards[self.shard_index(actor)]
    }

    /// Its place among all parts.
    pub(super) fn shard_index(&self, actor: &str) -> usize {
        place(actor, SHARDS)
    }

    /// All parts of the reminders.
    pub(super) fn reminder_shards(&self) -> &[Tag] {
        &self.reminders
    }

    /// The part that an actor's reminders are in.
    pub(super) fn reminder_shard(&self, actor: &str) -> &Tag {
        &self.reminders[place(actor, REMINDER_SHARDS)]
    }

    /// The tag of a durable stream.
    pub(super) fn stream(&self, namespace: &str) -> Tag {
        Tag::new(&format!("{}:s:{}", self.prefix, escape(namespace)))
    }
}

/// Which of so many parts a text is in.
fn place(text: &str, parts: u16) -> usize {
    // The remainder is below 2^16.
    (hash::hash(text.as_bytes()) % u64::from(parts)) as usize
}

/// The bucket of the ring that a point is in.
pub(super) const fn ring_bucket(point: u64) -> u64 {
    point >> (64 - RING_BUCKETS.ilog2())
}

/// The partition of a durable stream that a key's items are in.
pub(super) fn partition(key: &str) -> u32 {
    // The remainder is below 2^32.
    (hash::hash(key.as_bytes()) % u64::from(PARTITIONS)) as u32
}

/// An actor's text in keys: `type/key`, where a slash within the type is escaped.
pub(super) fn actor(address: &Address) -> String {
    format!("{}/{}", escape(&address.actor_type), address.key)
}

/// The text of something of an actor's, such that no two actors share one: the actor's length goes first.
pub(super) fn owned(actor: &str, rest: impl std::fmt::Display) -> String {
    format!("{}{rest}", owned_prefix(actor))
}

/// What the texts of all that an actor owns begin with, and no other actor's.
pub(super) fn owned_prefix(actor: &str) -> String {
    format!("{}:{actor}:", actor.len())
}

/// A message's place in its shard's outbox.
pub(super) fn outbox_field(id: &OutboxId) -> String {
    owned(&actor(&id.from), format_args!("{}.{}", id.commit, id.index))
}

/// Writes what separates the parts of a key as a percent sign and two digits.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '%' | '/' | ':' | '{' | '}' => escaped.push_str(&format!("%{:02X}", u32::from(char))),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// The slot of a hash tag: CRC16-CCITT of the XMODEM kind (Redis Cluster specification, appendix A).
fn slot_of(tag: &[u8]) -> Slot {
    let mut crc = 0_u16;
    for &byte in tag {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The specification's own test value, and two that a server's CLUSTER KEYSLOT gave.
        assert_eq!(slot_of(b"123456789"), 0x31C3 % SLOTS);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"user1000"), 3443);
    }

    #[test]
    fn no_two_actors_share_a_text() {
        let odd = ["", "a", "a/b", "b", "/", "a:b", "%", "%2F", "a%2Fb", "{}", "1:a"];
        let actors: Vec<_> = odd
            .iter()
            .flat_map(|actor_type| odd.iter().map(|key| Address::new((*actor_type).to_owned(), *key)))
            .map(|address| actor(&address))
            .collect();
        assert_eq!(actors.iter().collect::<HashSet<_>>().len(), odd.len() * odd.len());
        let owned: HashSet<_> =
            actors.iter().flat_map(|actor| odd.iter().map(move |rest| owned(actor, rest))).collect();
        assert_eq!(owned.len(), odd.len() * odd.len() * odd.len());
        for one in &actors {
            for other in actors.iter().filter(|&other| other != one) {
                assert!(!owned_prefix(other).starts_with(&owned_prefix(one)), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn an_actors_shard_never_moves() {
        let keys = Keys::new("quark");
        assert_eq!(keys.shard("counter/a").key("a"), "{quark:22}:a");
        assert_eq!((ring_bucket(0), ring_bucket(u64::MAX), ring_bucket(1 << 58)), (0, 63, 1));
    }
}
