//! Built without the feature `postgres`: an address of such a store is an error that says so.

use std::fmt;

use quark_runtime::store::{Store, StoreError};

use crate::url::StoreUrlError;

/// Settings of a kind of store that this program was built without: there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresSettings {}

impl PostgresSettings {
    pub(crate) fn parse(_: &str) -> Result<Self, StoreUrlError> {
        Err(StoreUrlError::NotBuilt("postgres"))
    }
}

impl fmt::Display for PostgresSettings {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(crate) async fn open(settings: &PostgresSettings) -> Result<Store, StoreError> {
    match *settings {}
}
