//! The address of a store, read once and never printed with its secrets.

use std::fmt;
use std::str::FromStr;

use crate::postgres::PostgresSettings;
use crate::redis::RedisSettings;
use crate::sqlite::SqliteSettings;

/// Where a store is:
///
/// | address | what it is |
/// |---|---|
/// | `memory://name` | in this process; ends with it. One for each name of a [`Stores`](crate::Stores) |
/// | `sqlite://folder/file.db` | one file; a third slash makes the path absolute. See [`SqliteSettings`] |
/// | `postgres://user:password@host:5432/database` | a PostgreSQL. See [`PostgresSettings`] |
/// | `redis://user:password@host:6379/0` | a Redis; also clusters and sentinels. See [`RedisSettings`] |
///
/// Neither [`Display`](fmt::Display) nor [`Debug`](fmt::Debug) shows a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(pub(crate) Place);

/// The parts of a [`StoreUrl`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Memory(Box<str>),
    Sqlite(SqliteSettings),
    Postgres(Box<PostgresSettings>),
    Redis(Box<RedisSettings>),
}

/// Why a text is no address of a store. It holds nothing of the text that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreUrlError {
    /// It does not begin with the kind of the store.
    #[error(
        "no address of a store; write `sqlite://folder/file.db`, `postgres://user:password@host/database`, \
         `redis://host:6379` or `memory://`"
    )]
    NoScheme,
    /// A kind of store that nobody knows.
    #[error(
        "unknown kind of store {0:?}; there are sqlite, postgres, redis and memory, such as \
         `sqlite://folder/file.db`"
    )]
    UnknownScheme(Box<str>),
    /// The program was built without this kind of store.
    #[error("this program was built without the feature `{0}` of quark-storage, which such an address needs")]
    NotBuilt(&'static str),
    /// The address names no file, host or database.
    #[error("the address has no {missing}; write it as in `{example}`")]
    Missing {
        /// What is missing.
        missing: &'static str,
        /// An address that has it.
        example: &'static str,
    },
    /// A part of the address cannot be read.
    #[error("the address's {part} is no {expected}; write it as in `{example}`")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What it should be.
        expected: &'static str,
        /// An address that has it right.
        example: &'static str,
    },
    /// A setting that this kind of store does not have.
    #[error("unknown setting {name:?}; there are: {known}")]
    UnknownSetting {
        /// Its name.
        name: Box<str>,
        /// Those that there are.
        known: &'static str,
    },
    /// A setting with a value that it cannot have.
    #[error("setting {name} is not what it takes: {expected}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What it takes.
        expected: &'static str,
    },
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(StoreUrlError::NoScheme)?;
        Ok(Self(match scheme {
            "memory" => Place::Memory(rest.into()),
            "sqlite" => Place::Sqlite(SqliteSettings::parse(rest)?),
            "postgres" | "postgresql" => Place::Postgres(Box::new(PostgresSettings::parse(text)?)),
            "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel"
            | "rediss+sentinel" => Place::Redis(Box::new(RedisSettings::parse(text)?)),
            // Whatever stands before the colon could be a secret that lost its scheme; a word is none.
            _ if scheme.len() < 20 && scheme.bytes().all(|b| b.is_ascii_lowercase() || b == b'+') => {
                return Err(StoreUrlError::UnknownScheme(scheme.into()));
            }
            _ => return Err(StoreUrlError::NoScheme),
        }))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Memory(name) => write!(f, "memory://{name}"),
            Place::Sqlite(settings) => settings.fmt(f),
            Place::Postgres(settings) => settings.fmt(f),
            Place::Redis(settings) => settings.fmt(f),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// The settings that follow the `?` of an address: names and values, joined by `&`.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
pub(crate) fn settings(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(all(test, feature = "sqlite", feature = "postgres"))]
mod tests {
    use super::*;

    fn wrong(text: &str) -> StoreUrlError {
        text.parse::<StoreUrl>().expect_err(text)
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (text, shown) in [
            ("memory://", "memory://"),
            ("memory://one", "memory://one"),
            ("sqlite://folder/file.db?max_size=1GiB", "sqlite://folder/file.db"),
            ("sqlite:///var/lib/quark.db", "sqlite:///var/lib/quark.db"),
            ("postgres://quark:s3cret@db.example/grid?sslmode=require", "postgres://db.example/grid"),
            ("postgresql://db.example:6000/grid?password=s3cret", "postgres://db.example:6000/grid"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("s3cret"));
        }
    }

    #[test]
    fn a_malformed_address_says_what_is_wrong_and_shows_an_example() {
        for (text, part) in [
            ("", "sqlite://"),
            ("quark.db", "sqlite://"),
            ("mysql://quark:s3cret@host/db", "mysql"),
            ("sqlite://", "file"),
            ("sqlite://x.db?max_size=s3cret", "max_size"),
            ("sqlite://x.db?sync=off", "sync"),
            ("postgres://", "host"),
            ("postgres://quark:s3cret@host", "database"),
            ("postgres://quark:s3cret@host/", "database"),
            ("postgres://quark:s3cret@host:port/db", "port"),
            ("postgres://quark:s3cret@host/db?sslmode=s3cret", "sslmode"),
            ("postgres://quark:s3cret@host/db?pool=0", "pool"),
            ("postgres://quark:s3cret@host/db?s=s3cret", "unknown setting"),
            ("postgres://host/db?password=p&s3cret", "password"),
            ("s3cret@postgres://host/db", "sqlite://"),
        ] {
            let error = wrong(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
    }
}
