//! Looking after durable streams: how far readers are, sending them elsewhere, dropping old items.

use std::fmt;
use std::sync::Arc;

use quark_base::{Fault, Outcome, Retry};
use tokio::sync::oneshot;

use super::{AnyLog, Command, GroupState};
use crate::grid::Grid;
use crate::store::{ReadStart, Retention, StoreError};
use crate::streams::report::GroupReport;

impl Grid {
    /// The way to look after the durable streams of a namespace.
    ///
    /// # Errors
    /// [`StreamAdminError::NotDurable`], with those that are.
    pub fn stream_admin(&self, namespace: &str) -> Result<StreamAdmin, StreamAdminError> {
        let services = self.services().ok_or(StreamAdminError::Stopped)?;
        let log = services.streams.log(namespace);
        let log = log.ok_or_else(|| StreamAdminError::NotDurable {
            namespace: namespace.to_owned(),
            durable: services.streams.durable_names(),
        })?;
        Ok(StreamAdmin { namespace: namespace.into(), log })
    }
}

/// What can be done about the durable streams of one namespace.
#[derive(Clone)]
pub struct StreamAdmin {
    namespace: Arc<str>,
    log: Arc<dyn AnyLog>,
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamAdminError {
    /// Rejected: the silo has no durable stream of the namespace.
    #[error("namespace {namespace} is not durable here; these are: {}", .durable.join(", "))]
    NotDurable {
        /// What was asked for.
        namespace: String,
        /// The durable ones.
        durable: Vec<&'static str>,
    },
    /// Rejected: the silo has no group of this name.
    #[error("no group {group} reads namespace {namespace} here; these do: {}", .known.join(", "))]
    NoGroup {
        /// Of which namespace.
        namespace: Arc<str>,
        /// What was asked for.
        group: String,
        /// The groups there are.
        known: Vec<String>,
    },
    /// What the store said.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rejected: the silo has stopped.
    #[error("the silo has stopped")]
    Stopped,
}

impl Fault for StreamAdminError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Store(error) => error.outcome(),
            Self::NotDurable { .. } | Self::NoGroup { .. } | Self::Stopped => Outcome::Rejected,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Store(error) => error.retry(),
            Self::NotDurable { .. } | Self::NoGroup { .. } | Self::Stopped => Retry::Pointless,
        }
    }
}

impl StreamAdmin {
    /// The groups that read the namespace on this silo.
    pub fn groups(&self) -> Vec<GroupReport> {
        self.log.groups().iter().map(|state| state.report()).collect()
    }

    /// How many items a group has still to acknowledge, as the store knows it now.
    ///
    /// # Errors
    /// [`StreamAdminError`].
    pub async fn lag(&self, group: &str) -> Result<u64, StreamAdminError> {
        let state = self.group(group)?;
        Ok(self.log.store().lag(&state.group).await?)
    }

    /// Sends a group to another place, back or forth. What it has under way on this silo is waited for; what waits to be
    /// handed over is forgotten, as is what other silos hold and have not acknowledged.
    ///
    /// Dropping the future may leave the group at either place.
    ///
    /// # Errors
    /// [`StreamAdminError`].
    pub async fn seek(&self, group: &str, to: ReadStart) -> Result<(), StreamAdminError> {
        let state = self.group(group)?;
        let (answer, sought) = oneshot::channel();
        let sent = state.commands.send(Command::Seek(to, answer)).await;
        sent.map_err(|_| StreamAdminError::Stopped)?;
        Ok(sought.await.map_err(|_| StreamAdminError::Stopped)??)
    }

    /// Drops old items, whether or not all groups have them, and says how many.
    ///
    /// # Errors
    /// [`StreamAdminError`].
    pub async fn trim(&self, keep: Retention) -> Result<u64, StreamAdminError> {
        Ok(self.log.store().trim(&self.namespace, keep).await?)
    }

    fn group(&self, name: &str) -> Result<Arc<GroupState>, StreamAdminError> {
        let groups = self.log.groups();
        let found = groups.iter().find(|state| state.group.name == name).cloned();
        found.ok_or_else(|| StreamAdminError::NoGroup {
            namespace: self.namespace.clone(),
            group: name.to_owned(),
            known: groups.iter().map(|state| state.group.name.clone()).collect(),
        })
    }
}

impl fmt::Debug for StreamAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamAdmin").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
