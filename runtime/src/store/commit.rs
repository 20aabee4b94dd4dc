//! What one actor writes at once.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use quark_base::{ActorId, Key, Timestamp};

/// An actor as stores know it. Unlike [`ActorId`] it can be read back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The type's wire name.
    pub actor_type: Cow<'static, str>,
    /// The key within the type.
    pub key: Key,
}

impl Address {
    /// The actor `key` of the type with this wire name.
    pub fn new(actor_type: impl Into<Cow<'static, str>>, key: impl Into<Key>) -> Self {
        Self { actor_type: actor_type.into(), key: key.into() }
    }
}

impl From<&ActorId> for Address {
    fn from(actor: &ActorId) -> Self {
        Self { actor_type: Cow::Borrowed(actor.actor_type), key: actor.key.clone() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.actor_type, self.key)
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// JSON text, which a person can read in the database.
    #[default]
    Json,
    /// [Postcard](https://postcard.jamesmunns.com/wire-format), compact and not self-describing.
    Binary,
}

impl Format {
    /// Its name in stores: at most 16 bytes, and never changed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Binary => "postcard",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value on its way into a store, or out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The name of its format. A store keeps what it is given, so that it can hold what another version wrote.
    pub format: Cow<'static, str>,
    /// The version of its type.
    pub version: u32,
    /// JSON is UTF-8 text.
    pub bytes: Vec<u8>,
}

/// One activation's number among all of its actor's. A later activation has a greater one. Zero: none has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// No activation has written yet.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Which commit wrote a state: the activation's epoch, and the commit's number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ETag {
    /// Whose commit.
    pub epoch: Epoch,
    /// Which of its commits, from 1.
    pub sequence: u64,
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.epoch, self.sequence)
    }
}

impl FromStr for ETag {
    type Err = ParseETagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |part: &str| u64::from_str_radix(part, 16).map_err(|_| ParseETagError);
        let (epoch, sequence) = text.split_once('-').ok_or(ParseETagError)?;
        Ok(Self { epoch: Epoch(hex(epoch)?), sequence: hex(sequence)? })
    }
}

/// Why a text is no [`ETag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no ETag; it is two hexadecimal numbers with a dash between them")]
pub struct ParseETagError;

/// What lets a commit in; see the [module](super) docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The actor's last commit when this activation loaded; `None` if there was none.
    pub seen: Option<ETag>,
    /// This activation's own, greater than that of `seen`.
    pub epoch: Epoch,
    /// The commit's number within the activation, from 1. A commit is sent again with the same one, and a later one
    /// has a greater one; one that was rejected has not used its number up.
    pub sequence: u64,
}

impl Fence {
    /// The ETag of what this commit writes.
    pub const fn etag(&self) -> ETag {
        ETag { epoch: self.epoch, sequence: self.sequence }
    }
}

/// Everything that one actor writes at once: all of it, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Whose.
    pub actor: Address,
    /// What lets it in.
    pub fence: Fence,
    /// When it was made: the time of its events, and from when its inbox entries are kept.
    pub time: Timestamp,
    /// States to write or clear. Each name once.
    pub slots: Vec<SlotWrite>,
    /// Events to append. Each journal once.
    pub appends: Vec<Append>,
    /// Messages to other actors, delivered after the commit, at least once.
    pub outbox: Vec<OutboxMessage>,
    /// Messages that took effect in this commit; none of them may have before.
    pub inbox: Vec<MessageId>,
}

impl Commit {
    /// A commit that writes nothing yet.
    pub fn new(actor: Address, fence: Fence, time: Timestamp) -> Self {
        let (slots, appends, outbox, inbox) = Default::default();
        Self { actor, fence, time, slots, appends, outbox, inbox }
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.appends.is_empty() && self.outbox.is_empty() && self.inbox.is_empty()
    }
}

/// One state of an actor, written or cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    /// The state's name within its actor.
    pub name: Cow<'static, str>,
    /// What the store must have: this ETag, or nothing.
    pub expected: Option<ETag>,
    /// The new value; `None` clears the state.
    pub value: Option<Encoded>,
}

/// Events for one journal of an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The journal's name within its actor.
    pub journal: Cow<'static, str>,
    /// The sequence number of the last event that the store must have; zero for none.
    pub expected: u64,
    /// The events; the first of them gets `expected + 1`. There may be none, with a snapshot alone.
    pub events: Vec<Encoded>,
    /// The folded state after the last of them, in place of the journal's snapshot.
    pub snapshot: Option<Encoded>,
}

/// Names a message for as long as anybody may send it again. At most [`MessageId::LENGTH_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Box<str>);

impl MessageId {
    /// The longest id in bytes: a name of a sender and a number fit, a whole message does not.
    pub const LENGTH_MAX: usize = 512;

    /// The id with this text; `None` if it is empty or too long, or has the character U+0000 in it.
    pub fn new(text: impl Into<Box<str>>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty() && text.len() <= Self::LENGTH_MAX && !text.contains('\0')).then_some(Self(text))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message to an actor's method, on its way into an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMessage {
    /// To whom.
    pub to: Address,
    /// Which method.
    pub method: Cow<'static, str>,
    /// Its arguments.
    pub body: Encoded,
}

/// One message of an outbox: whose it is, the commit that sent it, and which of that commit's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId {
    /// The sender.
    pub from: Address,
    /// The commit.
    pub commit: ETag,
    /// Its place among the commit's messages, from 0.
    pub index: u32,
}

impl OutboxId {
    /// The same as the id that its receiver remembers. A sender with a long key is in it by the key's beginning and
    /// hash.
    pub fn message_id(&self) -> MessageId {
        const SENDER_MAX: usize = 256;
        let sender = self.from.to_string();
        let commit = format!("#{}.{}", self.commit, self.index);
        if sender.len() <= SENDER_MAX {
            return MessageId((sender + &commit).into());
        }
        let hash = quark_placement::hash::hash(sender.as_bytes());
        let beginning = sender.chars().take(SENDER_MAX / char::MAX.len_utf8()).collect::<String>();
        MessageId(format!("{beginning}~{hash:016x}{commit}").into())
    }
}

/// A message of an outbox that is still to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingMessage {
    /// Its id.
    pub id: OutboxId,
    /// The message.
    pub message: OutboxMessage,
    /// When it was committed.
    pub time: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_survives_its_text() {
        let etag = ETag { epoch: Epoch(0x1f_0000), sequence: 31 };
        assert_eq!(etag.to_string(), "1f0000-1f");
        assert_eq!(etag.to_string().parse(), Ok(etag));
        for text in ["", "1", "x-1", "1-", "1-2-3"] {
            assert_eq!(text.parse::<ETag>(), Err(ParseETagError), "{text:?}");
        }
    }

    #[test]
    fn a_long_key_makes_no_long_message_id() {
        let commit = ETag { epoch: Epoch(u64::MAX), sequence: u64::MAX };
        let id = |key: &str| OutboxId { from: Address::new("t", key), commit, index: u32::MAX }.message_id();
        let (long, other) = (id(&"ü".repeat(4_000)), id(&"ü".repeat(4_001)));
        assert!(long.as_str().len() <= MessageId::LENGTH_MAX);
        assert_ne!(long, other);
        assert_eq!(id("a").as_str(), "t/a#ffffffffffffffff-ffffffffffffffff.4294967295");
    }

    #[test]
    fn a_message_id_is_bounded() {
        assert!(MessageId::new("").is_none());
        assert!(MessageId::new("a\0b").is_none());
        assert!(MessageId::new("x".repeat(MessageId::LENGTH_MAX)).is_some());
        assert!(MessageId::new("x".repeat(MessageId::LENGTH_MAX + 1)).is_none());
    }
}
