//! Names of things: actors, silos and streams.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The part of an actor's identity that its user chooses, such as `"cam-7"`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Key {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One actor, wherever it lives: its type's wire name and its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId {
    /// The name given in `#[actor(name = …)]`, or the type's name.
    pub actor_type: &'static str,
    /// The key within the type.
    pub key: Key,
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.actor_type, self.key)
    }
}

/// One incarnation of a silo. A restarted silo is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiloId(pub u64);

impl fmt::Display for SiloId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "silo-{:016x}", self.0)
    }
}

/// A stream: a namespace, which subscriptions name, and a key within it. Written `namespace/key`; the namespace
/// may hold slashes, the key is what follows the last one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    namespace: Arc<str>,
    key: Key,
}

/// Why a text is no [`StreamId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no stream; write `namespace/key`, such as \"cameras/frames/cam-7\"")]
pub struct ParseStreamIdError(String);

impl StreamId {
    /// The stream `key` of `namespace`.
    ///
    /// # Errors
    /// When either is empty, or the key holds a slash.
    pub fn new(namespace: &str, key: &str) -> Result<Self, ParseStreamIdError> {
        if namespace.is_empty() || key.is_empty() || key.contains('/') {
            return Err(ParseStreamIdError(format!("{namespace}/{key}")));
        }
        Ok(Self { namespace: namespace.into(), key: key.into() })
    }

    /// What subscriptions name.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Which stream of the namespace: the key of the actor that an implicit subscription delivers to.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl FromStr for StreamId {
    type Err = ParseStreamIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.rsplit_once('/') {
            Some((namespace, key)) => Self::new(namespace, key),
            None => Err(ParseStreamIdError(text.into())),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_of_a_stream_name_is_its_key() {
        let stream: StreamId = "cameras/frames/cam-7".parse().unwrap();
        assert_eq!((stream.namespace(), stream.key().as_str()), ("cameras/frames", "cam-7"));
        assert_eq!(stream.to_string(), "cameras/frames/cam-7");
    }

    #[test]
    fn a_stream_needs_both_parts() {
        for text in ["", "frames", "/cam-7", "frames/"] {
            assert!(text.parse::<StreamId>().is_err(), "{text:?}");
        }
    }
}
