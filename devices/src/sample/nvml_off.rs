//! In place of NVML's readings in a build without the feature `nvml`.

use super::DeviceSource;
use crate::inventory::{Inventory, Note};

/// None, and nothing to say: the inventory's notes say already that this build does not ask NVML.
pub(super) fn sources(_: &Inventory) -> (Vec<Box<dyn DeviceSource>>, Vec<Note>) {
    (Vec::new(), Vec::new())
}
