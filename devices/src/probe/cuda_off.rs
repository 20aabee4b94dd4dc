//! In place of the CUDA probe in a build without the feature `cuda`.

use super::ProbeReport;
use crate::inventory::{Note, Source};

/// Says that this build can't ask.
pub fn probe() -> ProbeReport {
    let note = Note::missing(Source::Cuda, "this build does not ask CUDA (cargo feature `cuda`)");
    ProbeReport { devices: Vec::new(), notes: vec![note] }
}
