//! Built without the feature `redis`: an address of such a store is an error that says so.

use std::fmt;

use quark_runtime::store::{Store, StoreError};

use crate::url::StoreUrlError;

/// Settings of a kind of store that this program was built without: there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisSettings {}

impl RedisSettings {
    pub(crate) fn parse(_: &str) -> Result<Self, StoreUrlError> {
        Err(StoreUrlError::NotBuilt("redis"))
    }
}

impl fmt::Display for RedisSettings {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(crate) async fn open(settings: &RedisSettings) -> Result<Store, StoreError> {
    match *settings {}
}
