//! What every store takes as names, so that an actor that one of them keeps can be kept by any other.
//!
//! The bounds come from PostgreSQL, whose index rows hold 2,704 bytes: the longest is an actor's type and key with a
//! message's id. Redis and SQLite would take more.

use std::fmt;

use super::{Address, Commit, Encoded, Group, NewItem, ReminderRecord, Wanted};

/// The longest wire name of an actor type, in bytes.
pub const ACTOR_TYPE_MAX: usize = 256;
/// The longest key of an actor or of a stream, in bytes.
pub const KEY_MAX: usize = 1024;
/// The longest name of a state, journal, reminder, method, format, stream namespace or group of readers, in bytes.
pub const NAME_MAX: usize = 256;

const _: () = assert!(ACTOR_TYPE_MAX + KEY_MAX + super::MessageId::LENGTH_MAX + 64 < 2704);

/// How many characters of a name an error shows.
const BEGINNING: usize = 40;

/// Why a name cannot be kept in a store. Nothing was sent; it is pointless to try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is longer than stores take.
    #[error("the {what} {beginning:?}… has {length} bytes; stores take at most {limit}")]
    TooLong {
        /// What it names.
        what: NameOf,
        /// How it begins.
        beginning: Box<str>,
        /// Its bytes.
        length: usize,
        /// The most that there may be.
        limit: usize,
    },
    /// It has the character U+0000 in it, which PostgreSQL's texts cannot hold.
    #[error("the {what} {name:?} has the character U+0000 in it, which stores do not take")]
    Nul {
        /// What it names.
        what: NameOf,
        /// How it begins.
        name: Box<str>,
    },
}

/// What a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameOf {
    /// A type of actors.
    ActorType,
    /// An actor, or a stream.
    Key,
    /// A state of an actor.
    State,
    /// A journal of an actor.
    Journal,
    /// A reminder of an actor.
    Reminder,
    /// When a reminder is due; not a name, and of any length.
    Schedule,
    /// A method of an actor.
    Method,
    /// How a value is written.
    Format,
    /// A durable stream's namespace.
    Namespace,
    /// Who reads a durable stream.
    Group,
}

impl NameOf {
    const fn limit(self) -> usize {
        match self {
            Self::ActorType => ACTOR_TYPE_MAX,
            Self::Key => KEY_MAX,
            Self::Schedule => usize::MAX,
            _ => NAME_MAX,
        }
    }

    /// Whether stores take such a name.
    ///
    /// # Errors
    ///
    /// If it is too long, or holds a character that they do not take.
    pub fn check(self, name: &str) -> Result<(), NameError> {
        let (what, length, limit) = (self, name.len(), self.limit());
        let beginning = || name.chars().take(BEGINNING).collect::<String>().into();
        if length > limit {
            return Err(NameError::TooLong { what, beginning: beginning(), length, limit });
        }
        if name.as_bytes().contains(&0) {
            return Err(NameError::Nul { what, name: beginning() });
        }
        Ok(())
    }
}

impl fmt::Display for NameOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ActorType => "actor type",
            Self::Key => "key",
            Self::State => "state's name",
            Self::Journal => "journal's name",
            Self::Reminder => "reminder's name",
            Self::Schedule => "reminder's schedule",
            Self::Method => "method's name",
            Self::Format => "format's name",
            Self::Namespace => "stream namespace",
            Self::Group => "reading group's name",
        })
    }
}

impl Address {
    /// Whether stores take its names.
    ///
    /// # Errors
    ///
    /// See [`NameError`].
    pub fn check_names(&self) -> Result<(), NameError> {
        NameOf::ActorType.check(&self.actor_type)?;
        NameOf::Key.check(self.key.as_str())
    }
}

impl Encoded {
    fn check_names(&self) -> Result<(), NameError> {
        NameOf::Format.check(&self.format)
    }
}

impl Commit {
    /// Whether stores take all names in it.
    ///
    /// # Errors
    ///
    /// The first that they do not take.
    pub fn check_names(&self) -> Result<(), NameError> {
        self.actor.check_names()?;
        for slot in &self.slots {
            NameOf::State.check(&slot.name)?;
            slot.value.iter().try_for_each(Encoded::check_names)?;
        }
        for append in &self.appends {
            NameOf::Journal.check(&append.journal)?;
            append.events.iter().chain(&append.snapshot).try_for_each(Encoded::check_names)?;
        }
        for message in &self.outbox {
            message.to.check_names()?;
            NameOf::Method.check(&message.method)?;
            message.body.check_names()?;
        }
        Ok(())
    }
}

impl Wanted {
    /// Whether stores take all names in it.
    ///
    /// # Errors
    ///
    /// The first that they do not take.
    pub fn check_names(&self) -> Result<(), NameError> {
        self.slots.iter().try_for_each(|name| NameOf::State.check(name))?;
        self.journals.iter().try_for_each(|name| NameOf::Journal.check(name))
    }
}

impl ReminderRecord {
    /// Whether stores take all texts in it.
    ///
    /// # Errors
    ///
    /// The first that they do not take.
    pub fn check_names(&self) -> Result<(), NameError> {
        self.actor.check_names()?;
        NameOf::Reminder.check(&self.name)?;
        NameOf::Schedule.check(&self.schedule)
    }
}

impl Group {
    /// Whether stores take its names.
    ///
    /// # Errors
    ///
    /// See [`NameError`].
    pub fn check_names(&self) -> Result<(), NameError> {
        NameOf::Namespace.check(&self.namespace)?;
        NameOf::Group.check(&self.name)
    }
}

impl NewItem {
    /// Whether stores take its key.
    ///
    /// # Errors
    ///
    /// See [`NameError`].
    pub fn check_names(&self) -> Result<(), NameError> {
        NameOf::Key.check(self.key.as_str())?;
        self.value.check_names()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_are_taken_and_one_byte_more_is_not() {
        for (what, limit) in [(NameOf::ActorType, 256), (NameOf::Key, 1024), (NameOf::Journal, 256)] {
            assert_eq!(what.check(&"n".repeat(limit)), Ok(()));
            let error = what.check(&"n".repeat(limit + 1)).unwrap_err();
            assert!(matches!(error, NameError::TooLong { .. }), "{error:?}");
            assert!(error.to_string().contains(&format!("{}", limit + 1)), "{error}");
            assert!(error.to_string().len() < 200, "{error}");
        }
    }

    #[test]
    fn the_error_shows_the_name_without_its_nul() {
        let error = NameOf::Key.check("cam\0era").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the key \"cam\\0era\" has the character U+0000 in it, which stores do not take"
        );
        assert_eq!(NameOf::State.check(""), Ok(()));
    }
}
