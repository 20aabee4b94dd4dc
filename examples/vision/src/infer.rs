//! Naming digits: the input and output of the network, and the contract of everything that runs it.
//!
//! [`cpu`] holds a plain oracle and the quick processor path, [`wgpu`] a compute shader, [`cuda`] a CUDA kernel;
//! [`check`] holds a classifier against the oracle.
//! All run the same network on the same [`Weights`](crate::model::Weights) and agree within 1e-3 relative.

pub mod check;
pub mod cpu;
pub mod cuda;
pub mod wgpu;

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

use crate::model::PARAMETERS;

/// Side of the network's square input, in pixels.
pub const SIDE: usize = 8;
/// Pixels of an input.
pub const PIXELS: usize = SIDE * SIDE;
/// Outputs of the network: ten digits and "none of them".
pub const CLASSES: usize = 11;
/// The class of patches that hold no digit.
pub const BACKGROUND: usize = 10;
/// The largest batch that a classifier reserves memory for; longer inputs run as several batches.
pub const MAX_BATCH: usize = 256;

/// One input of the network.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Patch {
    /// 8x8, row by row, 0 (background) to 1 (full ink).
    pub pixels: [f32; PIXELS],
}

/// One output of the network: a score a class, before the softmax.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Logits {
    /// Digits 0 to 9, then [`BACKGROUND`].
    pub scores: [f32; CLASSES],
}

impl Logits {
    /// The class with the highest score and its share of the softmax, 0 to 1. The first of equals wins.
    pub fn best(&self) -> (usize, f32) {
        let mut best = 0;
        for (class, score) in self.scores.iter().enumerate() {
            if *score > self.scores[best] {
                best = class;
            }
        }
        let highest = self.scores[best];
        let sum: f32 = self.scores.iter().map(|score| (score - highest).exp()).sum();
        (best, 1.0 / sum)
    }

    /// The best of the ten digits, whatever the score of the background.
    pub fn best_digit(&self) -> u8 {
        let mut best = 0u8;
        for digit in 1..BACKGROUND as u8 {
            if self.scores[usize::from(digit)] > self.scores[usize::from(best)] {
                best = digit;
            }
        }
        best
    }
}

/// What runs the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The processor.
    Cpu,
    /// A compute shader, through Vulkan.
    Wgpu,
    /// A CUDA kernel.
    Cuda,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        })
    }
}

/// Runs the network on batches of patches.
///
/// An implementation MUST return one result a patch, in the patches' order; MUST accept any number of patches,
/// none included; MUST agree with [`cpu::oracle`] within 1e-3 relative; and MUST stay usable after an error.
pub trait Classifier: Send {
    /// The scores of every patch. Blocks until they are there.
    ///
    /// # Errors
    ///
    /// [`InferenceError`] says whether the device is lost.
    fn classify(&mut self, patches: &[Patch]) -> Result<Vec<Logits>, InferenceError>;

    /// What runs the network here.
    fn backend(&self) -> Backend;
}

/// Why a network could not be built or run. No scores were produced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// The device has no room for the network. Nothing was kept; a retry can help once memory is free.
    #[error(
        "the {backend} device has no room for the {bytes} bytes of the network: free device memory or use another device"
    )]
    OutOfMemory {
        /// What would have run it.
        backend: Backend,
        /// What it needs.
        bytes: u64,
    },
    /// The kernel did not compile or load on this device. A retry can't help: use another backend.
    #[error("the network's {backend} kernel can't be built ({reason}): use another device or --device cpu")]
    Build {
        /// What would have run it.
        backend: Backend,
        /// What the compiler or the driver says, on one line.
        reason: String,
    },
    /// The device refused or lost the work. A retry can help on a device that is still there.
    #[error("the {backend} device failed while it ran the network ({reason}): try again or use --device cpu")]
    Device {
        /// What ran it.
        backend: Backend,
        /// What the driver says, on one line.
        reason: String,
    },
}

/// Device memory, in bytes, of the network's own buffers for batches of `batch` patches: the weights, the
/// patches and the scores, and the same again for scores on their way back.
///
/// Drivers round up and keep memory of their own beside it; `batch` counts as between 1 and [`MAX_BATCH`].
pub fn vram_needed(batch: usize) -> u64 {
    let batch = batch.clamp(1, MAX_BATCH) as u64;
    weight_bytes() + batch * (size_of::<Patch>() as u64 + 2 * size_of::<Logits>() as u64)
}

/// Bytes of the weights on a device: whole groups of four numbers.
const fn weight_bytes() -> u64 {
    (PARAMETERS.next_multiple_of(4) * size_of::<f32>()) as u64
}

/// The weights as the kernels read them: padded to whole groups of four.
fn padded(weights: &crate::model::Weights) -> Vec<f32> {
    let mut numbers = weights.as_slice().to_vec();
    numbers.resize(PARAMETERS.next_multiple_of(4), 0.0);
    numbers
}

/// Errors of drivers and compilers span lines; ours don't, and they stay short.
fn one_line(error: impl std::fmt::Display) -> String {
    /// Compiler logs can be pages long; the first words name the fault.
    const MAX_CHARS: usize = 300;
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
pub(crate) mod conformance;
