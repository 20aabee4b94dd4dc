//! In place of the NVML probe in a build without the feature `nvml`.

use super::ProbeReport;
use crate::inventory::{Note, Source};

/// Says that this build can't ask.
pub fn probe() -> ProbeReport {
    let note = Note::missing(Source::Nvml, "this build does not ask NVML (cargo feature `nvml`)");
    ProbeReport { devices: Vec::new(), notes: vec![note] }
}
