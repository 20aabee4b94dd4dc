//! The vision pipeline of the demo: cameras watch a conveyor of handwritten digits, a small convolutional
//! network names them, on the processor, through Vulkan or on a CUDA card, in an actor that is warm before a
//! camera's first frame arrives.
//!
//! What does not belong here: how actors are placed, scheduled and loaded ahead of time. That is what the
//! runtime is for; this crate is the work that it is given. It opens no device: it takes the one it is leased.
//!
//! - [`actor`]: the `VisionAnalyzer`; [`leased`]: its network on its share of a device
//! - [`frame`], [`pngs`], [`scene`]: grey frames, read from a user's PNG files or drawn from a seed
//! - [`detect`]: finds digits in a frame and cuts 8x8 patches; [`analyze`]: frame in, labelled digits out
//! - [`model`]: the network's shape and its checked weights; [`infer`]: running it, on three backends
//! - [`data`]: the handwritten digits; [`random`]: numbers from a seed
//! - `train/`: the program that wrote `model/digits.safetensors`

pub mod actor;
pub mod analyze;
pub mod data;
pub mod detect;
pub mod frame;
pub mod infer;
pub mod leased;
pub mod model;
pub mod pngs;
pub mod random;
pub mod scene;

pub use actor::{AnalyzerOptions, Motion, MotionLog, Sighting, VisionAnalyzer, VisionError};
pub use analyze::{Analysis, Analyzer, Detection};
pub use frame::{BBox, Frame};
pub use infer::{Classifier, InferenceError};
pub use model::{ModelError, Weights};

/// The README's example, so that it compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
