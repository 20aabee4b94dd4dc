//! How values and records are written into Redis' strings: what a script looks at as text in front, the rest as
//! numbers and texts of known length.

use std::borrow::Cow;

use quark_base::{Key, Timestamp};
use quark_runtime::store::{
    Address, ETag, Encoded, Epoch, OutboxId, OutboxMessage, PendingMessage, SlotRecord, Snapshot,
};

/// A record that cannot be read: damaged, or written by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of another layout")]
pub(super) struct Damaged;

/// Puts a record together.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// A number or an ETag and a space after it.
    pub(super) fn word(mut self, word: impl std::fmt::Display) -> Self {
        use std::io::Write;
        // Writing to a vector does not fail.
        let _ = write!(self.0, "{word} ");
        self
    }

    /// A text, with its length in front.
    pub(super) fn text(self, text: &str) -> Self {
        let mut writer = self.word(text.len());
        writer.0.extend_from_slice(text.as_bytes());
        writer
    }

    /// A value; what comes last.
    pub(super) fn value(self, value: &Encoded) -> Vec<u8> {
        let mut writer = self.word(value.version).text(&value.format);
        writer.0.extend_from_slice(&value.bytes);
        writer.0
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes a record apart.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self(record)
    }

    /// What stands before the next space.
    pub(super) fn word<T: std::str::FromStr>(&mut self) -> Result<T, Damaged> {
        let space = self.0.iter().position(|&byte| byte == b' ').ok_or(Damaged)?;
        let (word, rest) = self.0.split_at(space);
        self.0 = &rest[1..];
        std::str::from_utf8(word).map_err(|_| Damaged)?.parse().map_err(|_| Damaged)
    }

    pub(super) fn text(&mut self) -> Result<String, Damaged> {
        let length = self.word()?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Damaged)
    }

    pub(super) fn value(mut self) -> Result<Encoded, Damaged> {
        let version = self.word()?;
        let format = Cow::Owned(self.text()?);
        Ok(Encoded { format, version, bytes: self.0.to_vec() })
    }

    fn address(&mut self) -> Result<Address, Damaged> {
        Ok(Address::new(self.text()?, self.text()?.as_str()))
    }
}

/// Room for what stands in front of a value.
const HEADER: usize = 64;

/// A state as the row keeps it: the ETag in front, for the script.
pub(super) fn slot(etag: ETag, value: &Encoded) -> Vec<u8> {
    Writer::with_capacity(HEADER + value.bytes.len()).word(etag).value(value)
}

pub(super) fn read_slot(record: &[u8]) -> Result<SlotRecord, Damaged> {
    let mut reader = Reader::new(record);
    Ok(SlotRecord { etag: reader.word()?, value: reader.value()? })
}

/// A value alone.
pub(super) fn value(value: &Encoded) -> Vec<u8> {
    Writer::with_capacity(HEADER + value.bytes.len()).value(value)
}

pub(super) fn read_value(record: &[u8]) -> Result<Encoded, Damaged> {
    Reader::new(record).value()
}

/// A journal's snapshot.
pub(super) fn snapshot(sequence: u64, value: &Encoded) -> Vec<u8> {
    Writer::with_capacity(HEADER + value.bytes.len()).word(sequence).value(value)
}

pub(super) fn read_snapshot(record: &[u8]) -> Result<Snapshot, Damaged> {
    let mut reader = Reader::new(record);
    Ok(Snapshot { sequence: reader.word()?, value: reader.value()? })
}

/// A message of an outbox.
pub(super) fn message(
    from: &Address,
    commit: ETag,
    index: u32,
    time: Timestamp,
    message: &OutboxMessage,
) -> Vec<u8> {
    Writer::with_capacity(4 * HEADER + message.body.bytes.len())
        .word(commit)
        .word(index)
        .word(time.0)
        .text(&from.actor_type)
        .text(from.key.as_str())
        .text(&message.to.actor_type)
        .text(message.to.key.as_str())
        .text(&message.method)
        .value(&message.body)
}

pub(super) fn read_message(record: &[u8]) -> Result<PendingMessage, Damaged> {
    let mut reader = Reader::new(record);
    let (commit, index, time) = (reader.word()?, reader.word()?, Timestamp(reader.word()?));
    let id = OutboxId { from: reader.address()?, commit, index };
    let (to, method) = (reader.address()?, Cow::Owned(reader.text()?));
    Ok(PendingMessage { id, message: OutboxMessage { to, method, body: reader.value()? }, time })
}

/// An epoch's text in rows.
pub(super) fn read_epoch(text: &[u8]) -> Result<Epoch, Damaged> {
    let text = std::str::from_utf8(text).map_err(|_| Damaged)?;
    u64::from_str_radix(text, 16).map(Epoch).map_err(|_| Damaged)
}

/// A number in decimal digits.
pub(super) fn read_number(text: &[u8]) -> Result<u64, Damaged> {
    std::str::from_utf8(text).map_err(|_| Damaged)?.parse().map_err(|_| Damaged)
}

/// A key's text.
pub(super) fn read_key(text: &[u8]) -> Result<Key, Damaged> {
    Ok(Key::from(std::str::from_utf8(text).map_err(|_| Damaged)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(format: &'static str, bytes: &[u8]) -> Encoded {
        Encoded { format: format.into(), version: u32::MAX, bytes: bytes.to_vec() }
    }

    #[test]
    fn what_is_packed_can_be_read_back() {
        let etag = ETag { epoch: Epoch(u64::MAX), sequence: 31 };
        for format in ["json", "", "a b\n 3 "] {
            for bytes in [&b""[..], b" 1 2 ", &[0, 255, 10, 32]] {
                let value = encoded(format, bytes);
                assert_eq!(read_slot(&slot(etag, &value)), Ok(SlotRecord { etag, value: value.clone() }));
                assert_eq!(
                    read_snapshot(&snapshot(7, &value)),
                    Ok(Snapshot { sequence: 7, value: value.clone() })
                );
                let from = Address::new("a b", "7 x");
                let sent = OutboxMessage { to: Address::new("", ""), method: "m".into(), body: value };
                let pending = read_message(&message(&from, etag, 3, Timestamp(9), &sent)).unwrap();
                assert_eq!(pending.id, OutboxId { from, commit: etag, index: 3 });
                assert_eq!((pending.message, pending.time), (sent, Timestamp(9)));
            }
        }
    }

    #[test]
    fn no_part_of_a_record_is_taken_for_the_whole() {
        let value = encoded("json", b"");
        let record = slot(ETag { epoch: Epoch(1), sequence: 1 }, &value);
        for end in 0..record.len() {
            assert_eq!(read_slot(&record[..end]), Err(Damaged), "{end}");
        }
    }
}
