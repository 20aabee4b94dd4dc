//! Built without the feature `containers`: there is none.

use crate::{Server, StartError};

/// There is no value of it.
pub(crate) enum Container {}

pub(crate) fn name(container: &Container) -> &'static str {
    match *container {}
}

pub(crate) async fn postgres() -> Result<Option<Server>, StartError> {
    Ok(None)
}

pub(crate) async fn redis() -> Result<Option<Server>, StartError> {
    Ok(None)
}
