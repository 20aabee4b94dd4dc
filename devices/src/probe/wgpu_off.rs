//! In place of the Vulkan probe in a build without the feature `wgpu`.

use super::ProbeReport;
use crate::inventory::{Note, Source};

/// Says that this build can't ask.
pub fn probe() -> ProbeReport {
    let note = Note::missing(Source::Wgpu, "this build does not ask Vulkan (cargo feature `wgpu`)");
    ProbeReport { devices: Vec::new(), notes: vec![note] }
}
