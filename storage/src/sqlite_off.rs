//! Built without the feature `sqlite`: an address of such a store is an error that says so.

use std::fmt;

use quark_runtime::store::{Store, StoreError};

use crate::url::StoreUrlError;

/// Settings of a kind of store that this program was built without: there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqliteSettings {}

impl SqliteSettings {
    pub(crate) fn parse(_: &str) -> Result<Self, StoreUrlError> {
        Err(StoreUrlError::NotBuilt("sqlite"))
    }
}

impl fmt::Display for SqliteSettings {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(crate) async fn open(settings: &SqliteSettings) -> Result<Store, StoreError> {
    match *settings {}
}
