//! How values become bytes and come back, also from older versions of their types.

use std::fmt;

use quark_base::ByteSize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Encoded, Format};

/// A type whose values can be stored: states, events, snapshots, items of durable streams, durable messages.
///
/// `#[derive(Stored)]` implements it for a type that serde can write and read. `#[stored(version = 2, upgrades =
/// ConfigV1)]` gives it a version and the type of the one before, which `From` turns into this one; what older versions
/// wrote is read as what it is and upgraded step by step. Numbers, text, `bool`, `()`, and vectors, options, maps and
/// pairs of stored types are version 1.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored",
    label = "put `#[derive(Serialize, Deserialize, Stored)]` on it"
)]
pub trait Stored: Sized + Send + Sync + 'static {
    /// The version that is written.
    const VERSION: u32 = 1;

    /// Writes the value.
    ///
    /// # Errors
    /// [`EncodeError`], if its `Serialize` fails.
    fn encode(&self, format: Format) -> Result<Encoded, EncodeError>;

    /// Reads a value of this version or an older one.
    ///
    /// # Errors
    /// [`DecodeError`].
    fn decode(stored: &Encoded) -> Result<Self, DecodeError>;
}

/// A value could not be written: its `Serialize` failed. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{type_name} cannot be written as {format}: {cause}")]
pub struct EncodeError {
    /// The Rust type.
    pub type_name: &'static str,
    /// The format.
    pub format: Format,
    /// What serde said.
    pub cause: Box<str>,
}

/// Why stored bytes were not read. They stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A later program wrote them, or the type's older versions are no longer declared.
    #[error("version {version} of {type_name} is not known here (newest: {newest}); {}",
            version_advice(*version, *newest))]
    Version {
        /// The Rust type.
        type_name: &'static str,
        /// The version that was found.
        version: u32,
        /// The version that this program writes.
        newest: u32,
    },
    /// The format has a name that this program does not know.
    #[error("format {found:?} is not known here; known are {} and {}", Format::Json, Format::Binary)]
    Format {
        /// The format's name, as far as it is of bounded length.
        found: Box<str>,
    },
    /// The bytes are no such value.
    #[error("{size} of {format} are no {type_name} (version {version}): {cause}")]
    Malformed {
        /// The Rust type.
        type_name: &'static str,
        /// The version they are said to be.
        version: u32,
        /// The format they are said to be in.
        format: Format,
        /// How many there are.
        size: ByteSize,
        /// What serde said. It may quote a part of the value.
        cause: Box<str>,
    },
}

fn version_advice(version: u32, newest: u32) -> &'static str {
    if version > newest { "a later program wrote it" } else { "name its type in `#[stored(upgrades = …)]`" }
}

/// Writes a value as the given version. For implementations of [`Stored`].
///
/// # Errors
/// [`EncodeError`].
pub fn write<T: Serialize>(value: &T, version: u32, format: Format) -> Result<Encoded, EncodeError> {
    let bytes = match format {
        Format::Json => serde_json::to_vec(value).map_err(|error| error.to_string()),
        Format::Binary => postcard::to_stdvec(value).map_err(|error| error.to_string()),
    };
    let failed = |cause: String| EncodeError {
        type_name: std::any::type_name::<T>(),
        format,
        cause: cause.into_boxed_str(),
    };
    Ok(Encoded { format: format.name().into(), version, bytes: bytes.map_err(failed)? })
}

/// Reads a value whose version is known to be `T`'s. For implementations of [`Stored`].
///
/// # Errors
/// [`DecodeError::Format`] and [`DecodeError::Malformed`].
pub fn read<T: DeserializeOwned>(stored: &Encoded) -> Result<T, DecodeError> {
    let format = format_of(stored)?;
    let read = match format {
        Format::Json => serde_json::from_slice(&stored.bytes).map_err(|error| error.to_string()),
        Format::Binary => postcard::from_bytes(&stored.bytes).map_err(|error| error.to_string()),
    };
    read.map_err(|cause| DecodeError::Malformed {
        type_name: std::any::type_name::<T>(),
        version: stored.version,
        format,
        size: ByteSize::bytes(stored.bytes.len() as u64),
        cause: cause.into_boxed_str(),
    })
}

/// What to say of a version that is none of `T`'s. For implementations of [`Stored`].
pub fn unknown_version<T: Stored>(stored: &Encoded) -> DecodeError {
    DecodeError::Version {
        type_name: std::any::type_name::<T>(),
        version: stored.version,
        newest: T::VERSION,
    }
}

fn format_of(stored: &Encoded) -> Result<Format, DecodeError> {
    /// More of a wrong name says no more.
    const SHOWN: usize = 32;
    let known = [Format::Json, Format::Binary].into_iter().find(|format| format.name() == stored.format);
    known.ok_or_else(|| DecodeError::Format {
        found: stored.format.chars().take(SHOWN).collect::<String>().into(),
    })
}

macro_rules! stored_as_it_is {
    ($([$($parameter:ident: $($bound:path),+);*] $type:ty),* $(,)?) => {$(
        impl<$($parameter: $($bound +)+ 'static),*> Stored for $type {
            fn encode(&self, format: Format) -> Result<Encoded, EncodeError> {
                write(self, Self::VERSION, format)
            }

            fn decode(stored: &Encoded) -> Result<Self, DecodeError> {
                if stored.version == Self::VERSION { read(stored) } else { Err(unknown_version::<Self>(stored)) }
            }
        }
    )*};
}

stored_as_it_is!(
    [] (), [] bool, [] char, [] String, [] Box<str>,
    [] u8, [] u16, [] u32, [] u64, [] u128, [] usize,
    [] i8, [] i16, [] i32, [] i64, [] i128, [] isize, [] f32, [] f64,
    [T: Serialize, DeserializeOwned, Send, Sync] Vec<T>,
    [T: Serialize, DeserializeOwned, Send, Sync] Option<T>,
    [K: Serialize, DeserializeOwned, Send, Sync, Ord; V: Serialize, DeserializeOwned, Send, Sync]
        std::collections::BTreeMap<K, V>,
    [K: Serialize, DeserializeOwned, Send, Sync, Eq, std::hash::Hash; V: Serialize, DeserializeOwned, Send, Sync]
        std::collections::HashMap<K, V>,
    [K: Serialize, DeserializeOwned, Send, Sync, Ord] std::collections::BTreeSet<K>,
    [A: Serialize, DeserializeOwned, Send, Sync; B: Serialize, DeserializeOwned, Send, Sync] (A, B),
);

impl fmt::Display for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = ByteSize::bytes(self.bytes.len() as u64);
        write!(f, "{size} of {}, version {}", self.format, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_each_format() {
        for format in [Format::Json, Format::Binary] {
            let value: (u64, String) = (7, "seven".to_owned());
            assert_eq!(<(u64, String)>::decode(&value.encode(format).unwrap()).unwrap(), value, "{format}");
        }
        assert_eq!(vec![1u8, 2].encode(Format::Json).unwrap().bytes, b"[1,2]");
    }

    #[test]
    fn what_cannot_be_read_says_what_it_is() {
        let later = Encoded { format: "json".into(), version: 9, bytes: b"1".to_vec() };
        let error = u64::decode(&later).unwrap_err();
        assert!(
            error.to_string().contains("version 9 of u64") && error.to_string().contains("later program")
        );
        let strange = Encoded { format: "yaml".into(), version: 1, bytes: b"1".to_vec() };
        assert_eq!(u64::decode(&strange), Err(DecodeError::Format { found: "yaml".into() }));
        let torn = Encoded { format: "json".into(), version: 1, bytes: b"{\"a".to_vec() };
        assert!(matches!(u64::decode(&torn), Err(DecodeError::Malformed { version: 1, .. })));
        let short = Encoded { format: "postcard".into(), version: 1, bytes: vec![] };
        assert!(u64::decode(&short).unwrap_err().to_string().contains("0 B of postcard are no u64"));
    }
}
