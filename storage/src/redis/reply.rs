//! Answers taken apart.

use quark_runtime::store::StoreError;
use redis::Value;

use super::error::Errors;

/// Takes answers of one command apart; what does not fit is [`StoreError::Unexpected`].
pub(super) struct Replies<'a> {
    pub(super) errors: &'a Errors,
    pub(super) command: &'static str,
}

impl Replies<'_> {
    pub(super) fn unexpected<T>(&self, value: &Value) -> Result<T, StoreError> {
        let mut shown = format!("{value:?}");
        if let Some((end, _)) = shown.char_indices().nth(100) {
            shown.truncate(end);
        }
        Err(self.errors.unexpected(&format!("{} gave {shown}", self.command)))
    }

    /// The items of a list; none for nothing.
    pub(super) fn list(&self, value: Value) -> Result<Vec<Value>, StoreError> {
        match value {
            Value::Array(items) | Value::Set(items) => Ok(items),
            Value::Nil => Ok(Vec::new()),
            other => self.unexpected(&other),
        }
    }

    pub(super) fn bytes(&self, value: Value) -> Result<Vec<u8>, StoreError> {
        match value {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            other => self.unexpected(&other),
        }
    }

    pub(super) fn optional(&self, value: Value) -> Result<Option<Vec<u8>>, StoreError> {
        match value {
            Value::Nil => Ok(None),
            value => self.bytes(value).map(Some),
        }
    }

    pub(super) fn text(&self, value: Value) -> Result<String, StoreError> {
        let bytes = self.bytes(value)?;
        String::from_utf8(bytes).or_else(|error| self.unexpected(&Value::BulkString(error.into_bytes())))
    }

    pub(super) fn number(&self, value: &Value) -> Result<u64, StoreError> {
        match value {
            Value::Int(number) => u64::try_from(*number).or_else(|_| self.unexpected(value)),
            other => self.unexpected(other),
        }
    }

    /// An entry of a stream: the two halves of its id, and its fields by name.
    pub(super) fn entry(&self, value: Value) -> Result<Entry, StoreError> {
        let mut parts = self.list(value)?.into_iter();
        let (Some(id), Some(fields)) = (parts.next(), parts.next()) else {
            return self.unexpected(&Value::Nil);
        };
        let id = self.id(&self.text(id)?)?;
        let mut fields = self.list(fields)?.into_iter();
        let mut named = Vec::with_capacity(fields.len() / 2);
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            named.push((self.text(name)?, self.bytes(value)?));
        }
        Ok(Entry { id, fields: named })
    }

    /// A stream's id, `ms-number`.
    pub(super) fn id(&self, text: &str) -> Result<(u64, u64), StoreError> {
        let halves =
            text.split_once('-').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        halves.ok_or(()).or_else(|()| self.unexpected(&Value::SimpleString(text.to_owned())))
    }
}

/// An entry of a stream.
pub(super) struct Entry {
    pub(super) id: (u64, u64),
    fields: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// A field's value; nothing if it has none.
    pub(super) fn field(&mut self, name: &str) -> Vec<u8> {
        let place = self.fields.iter().position(|(of, _)| of == name);
        place.map(|place| self.fields.swap_remove(place).1).unwrap_or_default()
    }
}
