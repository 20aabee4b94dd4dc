//! Opening stores by their addresses.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quark_base::{Fault, Outcome, Retry};
use quark_runtime::store::{Store, StoreError};
use tokio::sync::OnceCell;

use crate::url::Place;
use crate::{StoreUrl, memory, postgres, redis, sqlite};

/// Opens stores, and gives those who open the same address the same connections.
///
/// It keeps what it opened: connections end when the hub and all stores of it are dropped.
#[derive(Default)]
pub struct Stores {
    open: Mutex<HashMap<Box<str>, Opened>>,
}

/// A store, once somebody has opened it.
struct Opened {
    /// The whole address: with one that differs only in its settings or its password, nothing is shared.
    url: StoreUrl,
    store: Arc<OnceCell<Store>>,
}

impl Stores {
    /// The most addresses that one hub opens. A silo has a handful; more are a mistake that would leak connections.
    pub const ADDRESSES_MAX: usize = 64;

    /// A hub that has opened nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a store, or gives the one that is open already. It creates the file or the tables that are missing.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. An address that failed may be tried again.
    ///
    /// # Cancellation
    ///
    /// Dropping the future gives nobody a store; somebody else who waits for the same address goes on with it. A SQLite
    /// file that was being opened is closed again once that has ended.
    pub async fn open(&self, url: &StoreUrl) -> Result<Store, OpenError> {
        let cell = self.cell(url)?;
        cell.get_or_try_init(|| open(url)).await.cloned()
    }

    fn cell(&self, url: &StoreUrl) -> Result<Arc<OnceCell<Store>>, OpenError> {
        let name = url.to_string();
        let mut open = self.open.lock();
        if let Some(opened) = open.get(name.as_str()) {
            if opened.url == *url {
                return Ok(opened.store.clone());
            }
            return Err(OpenError::OtherSettings { store: name.into() });
        }
        if open.len() == Self::ADDRESSES_MAX {
            return Err(OpenError::TooMany { limit: Self::ADDRESSES_MAX });
        }
        let store = Arc::default();
        open.insert(name.into(), Opened { url: url.clone(), store: Arc::clone(&store) });
        Ok(store)
    }
}

/// Opens a store with connections of its own. [`Stores`] shares them.
///
/// # Errors
///
/// See [`OpenError`].
pub async fn open(url: &StoreUrl) -> Result<Store, OpenError> {
    match &url.0 {
        Place::Memory(_) => Ok(memory()),
        Place::Sqlite(settings) => Ok(sqlite::open(settings).await?),
        Place::Postgres(settings) => Ok(postgres::open(settings).await?),
        Place::Redis(settings) => Ok(redis::open(settings).await?),
    }
}

/// Why a store was not opened. No text in it holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store's own reason: it does not answer, does not let us in, is damaged or of another version.
    #[error("cannot open the store: {0}")]
    Store(#[from] StoreError),
    /// The hub has opened this place with other settings or another user.
    #[error("{store} is open already with other settings; use one address for it everywhere")]
    OtherSettings {
        /// Which store.
        store: Box<str>,
    },
    /// The hub has opened as many addresses as it may.
    #[error("{limit} stores are open, which is as many as there may be; use fewer addresses")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
}

impl Fault for OpenError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Store(error) => error.outcome(),
            Self::OtherSettings { .. } | Self::TooMany { .. } => Outcome::Rejected,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            // To open is to look; once more does no harm.
            Self::Store(StoreError::Unknown { .. }) => Retry::Safe,
            Self::Store(error) => error.retry(),
            Self::OtherSettings { .. } | Self::TooMany { .. } => Retry::Pointless,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> StoreUrl {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_same_address_gives_the_same_store() {
        let stores = Stores::new();
        let (one, same) = (stores.open(&url("memory://a")).await, stores.open(&url("memory://a")).await);
        let other = stores.open(&url("memory://b")).await.unwrap();
        let another_hub = Stores::new().open(&url("memory://a")).await.unwrap();
        let (one, same) = (one.unwrap(), same.unwrap());
        assert!(Arc::ptr_eq(&one.actors, &same.actors));
        assert!(!Arc::ptr_eq(&one.actors, &other.actors));
        assert!(!Arc::ptr_eq(&one.actors, &another_hub.actors));
    }

    #[tokio::test]
    async fn a_hub_has_a_bound() {
        let stores = Stores::new();
        for index in 0..Stores::ADDRESSES_MAX {
            stores.open(&url(&format!("memory://{index}"))).await.unwrap();
        }
        let error = stores.open(&url("memory://one more")).await.unwrap_err();
        assert_eq!(error, OpenError::TooMany { limit: Stores::ADDRESSES_MAX });
        stores.open(&url("memory://0")).await.unwrap();
    }
}
