//! The atomics, locks and thread-local notes that the turn engine is made of, so that its interleavings can be
//! explored: built with `--cfg quark_loom`, they are loom's, and `turn/models.rs` runs on them.

#[cfg(not(quark_loom))]
#[path = "sync/real.rs"]
mod chosen;
#[cfg(quark_loom)]
#[path = "sync/model.rs"]
mod chosen;

pub(crate) use chosen::*;
