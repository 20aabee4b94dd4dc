//! What setting, forgetting and listing reminders can end in.

use std::time::Duration;

use quark_base::{Fault, Outcome, Retry};

use super::schedule::PERIOD_MIN;
use crate::store::StoreError;

/// Why a schedule is none. Nothing was set; pointless to retry as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The cron line cannot be read.
    #[error(
        "cron = {line:?}: {cause}; a line is minute, hour, day of month, month, day of week, such as \"0 8 * * *\""
    )]
    Cron {
        /// The line.
        line: Box<str>,
        /// What is wrong with it.
        cause: Box<str>,
    },
    /// There is no such time zone.
    #[error(
        "zone = {zone:?}: no such time zone; write \"UTC\", an offset such as \"+05:30\", or a name such as \"Europe/Berlin\""
    )]
    Zone {
        /// What was given.
        zone: Box<str>,
    },
    /// Only a cron line is read in a time zone.
    #[error("zone = {zone:?}: only a cron line is read in a time zone")]
    ZoneWithoutCron {
        /// What was given.
        zone: Box<str>,
    },
    /// The period is too short for something that is stored at each tick.
    #[error("every = {period:?}: a reminder's period is {PERIOD_MIN:?} or more; use a timer for less")]
    TooOften {
        /// The period.
        period: Duration,
    },
    /// No moment in the future matches it.
    #[error("{schedule} never comes")]
    Never {
        /// What was given.
        schedule: Box<str>,
    },
    /// A stored schedule was written by a version that knows more.
    #[error("the stored schedule {text:?} cannot be read: {cause}; set the reminder anew")]
    Unreadable {
        /// What is stored.
        text: Box<str>,
        /// What is wrong with it.
        cause: Box<str>,
    },
}

/// Why a reminder was not set, forgotten or listed. It names no reminder: the call does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReminderError {
    /// Rejected: the type has no method for it.
    #[error("{actor_type} has no #[on_reminder({name:?})]; {}", known_names(.known))]
    UnknownName {
        /// The type's wire name.
        actor_type: Box<str>,
        /// What was given.
        name: Box<str>,
        /// The names that the type has methods for.
        known: Box<[&'static str]>,
    },
    /// Rejected: the schedule is none.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Rejected: the silo has no such store.
    #[error(
        "the reminders of {actor_type} are kept in a store named {store:?}, which the silo does not have; add `.store({store:?}, …)` to its builder"
    )]
    NoStore {
        /// The type's wire name.
        actor_type: Box<str>,
        /// The store's name.
        store: &'static str,
    },
    /// Rejected: the context was made without a silo. In a test that calls methods directly, use `TestSilo`.
    #[error("the actor belongs to no silo, so it has no reminders")]
    Detached,
    /// The store said no, or did not answer. After [`StoreError::Unknown`] it may have been done; doing it again is
    /// safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn known_names(known: &[&str]) -> String {
    match known {
        [] => "it has no reminders".into(),
        known => format!("its reminders are {}", known.join(", ")),
    }
}

impl Fault for ReminderError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Store(error) => error.outcome(),
            Self::UnknownName { .. } | Self::Schedule(_) | Self::NoStore { .. } | Self::Detached => {
                Outcome::Rejected
            }
        }
    }

    fn retry(&self) -> Retry {
        match self {
            // Setting and forgetting twice is the same as once.
            Self::Store(StoreError::Unknown { .. }) => Retry::Safe,
            Self::Store(error) => error.retry(),
            Self::UnknownName { .. } | Self::Schedule(_) | Self::NoStore { .. } | Self::Detached => {
                Retry::Pointless
            }
        }
    }
}
