//! Who may commit: the table of [`ActorStore`](quark_runtime::store::ActorStore) as a function.

use std::sync::Arc;

use quark_runtime::store::{Commit, Conflict, ETag, Epoch, StoreError};

/// An actor's last commit, as a store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) epoch: Epoch,
    pub(crate) sequence: u64,
}

impl Last {
    pub(crate) fn etag(self) -> ETag {
        ETag { epoch: self.epoch, sequence: self.sequence }
    }
}

impl From<ETag> for Last {
    fn from(etag: ETag) -> Self {
        Self { epoch: etag.epoch, sequence: etag.sequence }
    }
}

/// What becomes of a commit that its fence does not keep out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Its expectations are to be checked.
    GoOn,
    /// It is in already.
    Again,
}

/// Whether `stored`, the actor's last commit, lets this one in.
pub(crate) fn enter(commit: &Commit, stored: Option<Last>, store: &Arc<str>) -> Result<Entry, StoreError> {
    let fence = commit.fence;
    match stored {
        None if fence.seen.is_none() && fence.sequence == 1 => Ok(Entry::GoOn),
        None => {
            let actor = Box::new(commit.actor.clone());
            Err(StoreError::Lost { store: store.clone(), actor })
        }
        Some(last) if last.epoch == fence.epoch && last.sequence == fence.sequence => Ok(Entry::Again),
        Some(last) if last.epoch == fence.epoch && last.sequence < fence.sequence => Ok(Entry::GoOn),
        Some(last) if fence.seen == Some(last.etag()) => Ok(Entry::GoOn),
        Some(last) => Err(Conflict::Fence { actor: commit.actor.clone(), stored: last.epoch }.into()),
    }
}
