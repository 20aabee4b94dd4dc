//! The network's shape and its weights: read from a safetensors file, checked before anything uses them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::infer::{CLASSES, SIDE};

/// Output channels of the first convolution.
pub const CONV1: usize = 16;
/// Output channels of the second convolution.
pub const CONV2: usize = 32;
/// A 3x3 kernel has nine taps.
pub const TAPS: usize = 9;
/// The image's side after the 2x2 pool.
pub const POOLED_SIDE: usize = SIDE / 2;
/// Inputs of the first dense layer: 4 x 4 x 32.
pub const FLAT: usize = POOLED_SIDE * POOLED_SIDE * CONV2;
/// Outputs of the first dense layer.
pub const HIDDEN: usize = 64;

/// The trained network as it is committed.
pub const TRAINED: &[u8] = include_bytes!("../model/digits.safetensors");
/// What [`TRAINED`] is called in messages.
pub const TRAINED_NAME: &str = "examples/vision/model/digits.safetensors";

/// The version of the tensors' layout; a file of another version is refused.
pub const FORMAT_VERSION: u32 = 1;
/// A weights file larger than this is none of ours: the real one has about 154 kB.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// The one metadata key, holding [`Training`] as JSON. One key, because the file format writes several in
/// random order, and the file shall be the same bytes for the same seed.
const METADATA_KEY: &str = "training";

/// One tensor: its name in the file and its shape, outermost dimension first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSpec {
    /// As in the file.
    pub name: &'static str,
    /// Convolutions are `[row, column, input, output]`, dense layers `[input, output]`, biases `[output]`.
    pub shape: &'static [usize],
    /// Where its first number lies in [`Weights::as_slice`].
    pub offset: usize,
}

impl TensorSpec {
    const fn after(name: &'static str, shape: &'static [usize], previous: &TensorSpec) -> Self {
        Self { name, shape, offset: previous.offset + previous.numbers() }
    }

    /// How many numbers it holds.
    pub const fn numbers(&self) -> usize {
        let (mut product, mut index) = (1, 0);
        while index < self.shape.len() {
            product *= self.shape[index];
            index += 1;
        }
        product
    }

    /// Its place in [`Weights::as_slice`].
    pub const fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.numbers()
    }
}

/// `[3, 3, 1, 16]`
pub const CONV1_WEIGHT: TensorSpec = TensorSpec { name: "conv1.weight", shape: &[3, 3, 1, CONV1], offset: 0 };
/// `[16]`
pub const CONV1_BIAS: TensorSpec = TensorSpec::after("conv1.bias", &[CONV1], &CONV1_WEIGHT);
/// `[3, 3, 16, 32]`
pub const CONV2_WEIGHT: TensorSpec = TensorSpec::after("conv2.weight", &[3, 3, CONV1, CONV2], &CONV1_BIAS);
/// `[32]`
pub const CONV2_BIAS: TensorSpec = TensorSpec::after("conv2.bias", &[CONV2], &CONV2_WEIGHT);
/// `[512, 64]`; inputs in the order row, column, channel.
pub const DENSE1_WEIGHT: TensorSpec = TensorSpec::after("dense1.weight", &[FLAT, HIDDEN], &CONV2_BIAS);
/// `[64]`
pub const DENSE1_BIAS: TensorSpec = TensorSpec::after("dense1.bias", &[HIDDEN], &DENSE1_WEIGHT);
/// `[64, 11]`
pub const DENSE2_WEIGHT: TensorSpec = TensorSpec::after("dense2.weight", &[HIDDEN, CLASSES], &DENSE1_BIAS);
/// `[11]`
pub const DENSE2_BIAS: TensorSpec = TensorSpec::after("dense2.bias", &[CLASSES], &DENSE2_WEIGHT);

/// All tensors, in the order in which they lie in [`Weights::as_slice`].
pub const TENSORS: [TensorSpec; 8] = [
    CONV1_WEIGHT,
    CONV1_BIAS,
    CONV2_WEIGHT,
    CONV2_BIAS,
    DENSE1_WEIGHT,
    DENSE1_BIAS,
    DENSE2_WEIGHT,
    DENSE2_BIAS,
];

/// Numbers in the whole network: 38,347.
pub const PARAMETERS: usize = DENSE2_BIAS.range().end;

// The GPU kernels read the weights four at a time and name these offsets: change both together.
const _: () = {
    assert!(CONV1_BIAS.offset == 144 && CONV2_WEIGHT.offset == 160 && CONV2_BIAS.offset == 4_768);
    assert!(DENSE1_WEIGHT.offset == 4_800 && DENSE1_BIAS.offset == 37_568);
    assert!(DENSE2_WEIGHT.offset == 37_632 && DENSE2_BIAS.offset == 38_336 && PARAMETERS == 38_347);
};

/// How the weights came to be; stored in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Layout of the tensors: [`FORMAT_VERSION`].
    pub version: u32,
    /// The seed that repeats the training.
    pub seed: u64,
    /// Passes over the training set.
    pub epochs: u32,
    /// First and last row of the data that the network was trained on.
    pub trained_rows: [u32; 2],
    /// Share of the held-out rows that it names rightly, 0 to 1, as the training program measured it.
    pub held_out_accuracy: f64,
}

/// The checked weights of the network. Every number is finite.
#[derive(Clone, PartialEq)]
pub struct Weights {
    numbers: Vec<f32>,
    training: Training,
}

impl Weights {
    /// The network that is compiled into this crate.
    ///
    /// # Errors
    ///
    /// Only where the crate was built from a damaged checkout.
    pub fn trained() -> Result<Self, ModelError> {
        Self::parse(TRAINED_NAME, TRAINED)
    }

    /// Reads and checks a file of at most [`MAX_FILE_BYTES`].
    ///
    /// # Errors
    ///
    /// [`ModelError`] names the file, the tensor at fault and what to do.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let unreadable = |source| ModelError::Unreadable { file: name.clone(), source };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        Self::parse(&name, &bytes)
    }

    /// Reads and checks the bytes of a file. Messages call it "the weights".
    ///
    /// # Errors
    ///
    /// [`ModelError`] names the tensor at fault and what to do.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, ModelError> {
        Self::parse("the weights", bytes)
    }

    fn parse(file: &str, bytes: &[u8]) -> Result<Self, ModelError> {
        let file = || file.to_owned();
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(ModelError::TooLarge { file: file() });
        }
        let corrupt = |error: safetensors::SafeTensorError| ModelError::Corrupt {
            file: file(),
            reason: one_line(&error.to_string()),
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(corrupt)?;
        let training = read_training(header.metadata().as_ref())
            .map_err(|reason| ModelError::Metadata { file: file(), reason: one_line(&reason) })?;
        if training.version != FORMAT_VERSION {
            return Err(ModelError::Version { file: file(), found: training.version });
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(corrupt)?;
        let mut numbers = Vec::with_capacity(PARAMETERS);
        for spec in &TENSORS {
            let tensor = tensors
                .tensor(spec.name)
                .map_err(|_| ModelError::MissingTensor { file: file(), tensor: spec.name })?;
            append(&mut numbers, spec, &tensor, &file)?;
        }
        Ok(Self { numbers, training })
    }

    /// Weights from numbers in the order of [`TENSORS`]; what the training program and tests build.
    ///
    /// # Errors
    ///
    /// [`ModelError::WrongCount`] unless there are [`PARAMETERS`] numbers; [`ModelError::NotFinite`] where one
    /// is infinite or not a number.
    pub fn from_numbers(numbers: Vec<f32>, training: Training) -> Result<Self, ModelError> {
        if numbers.len() != PARAMETERS {
            return Err(ModelError::WrongCount(numbers.len()));
        }
        for spec in &TENSORS {
            if let Some(index) = numbers[spec.range()].iter().position(|number| !number.is_finite()) {
                return Err(ModelError::NotFinite { file: "the weights".into(), tensor: spec.name, index });
            }
        }
        Ok(Self { numbers, training })
    }

    /// The file that [`Weights::load`] reads. Equal weights give equal bytes.
    ///
    /// # Errors
    ///
    /// [`ModelError::Corrupt`] where the format can't express the weights, which no checked weights meet.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, ModelError> {
        let corrupt = |reason: String| ModelError::Corrupt { file: "the weights".into(), reason };
        let mut views = Vec::with_capacity(TENSORS.len());
        let bytes: Vec<u8> = self.numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        for spec in &TENSORS {
            let range = spec.range();
            let data = &bytes[range.start * 4..range.end * 4];
            let view = TensorView::new(Dtype::F32, spec.shape.to_vec(), data)
                .map_err(|error| corrupt(error.to_string()))?;
            views.push((spec.name, view));
        }
        let training = serde_json::to_string(&self.training).map_err(|error| corrupt(error.to_string()))?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), training)]);
        safetensors::serialize(views, Some(metadata)).map_err(|error| corrupt(error.to_string()))
    }

    /// All numbers, tensor after tensor, in the order of [`TENSORS`].
    pub fn as_slice(&self) -> &[f32] {
        &self.numbers
    }

    /// The numbers of one tensor.
    pub fn tensor(&self, spec: &TensorSpec) -> &[f32] {
        &self.numbers[spec.range()]
    }

    /// How these weights came to be.
    pub fn training(&self) -> &Training {
        &self.training
    }
}

impl std::fmt::Debug for Weights {
    /// Leaves the 38,347 numbers out.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Weights").field("training", &self.training).finish_non_exhaustive()
    }
}

fn read_training(metadata: Option<&HashMap<String, String>>) -> Result<Training, String> {
    let text = metadata
        .and_then(|entries| entries.get(METADATA_KEY))
        .ok_or_else(|| format!("the entry `{METADATA_KEY}` is missing"))?;
    serde_json::from_str(text).map_err(|error| format!("the entry `{METADATA_KEY}`: {error}"))
}

fn append(
    numbers: &mut Vec<f32>,
    spec: &TensorSpec,
    tensor: &TensorView<'_>,
    file: &impl Fn() -> String,
) -> Result<(), ModelError> {
    if tensor.dtype() != Dtype::F32 {
        return Err(ModelError::WrongDtype {
            file: file(),
            tensor: spec.name,
            found: format!("{:?}", tensor.dtype()),
        });
    }
    if tensor.shape() != spec.shape {
        return Err(ModelError::WrongShape {
            file: file(),
            tensor: spec.name,
            found: tensor.shape().to_vec(),
            expected: spec.shape,
        });
    }
    for (index, bytes) in tensor.data().as_chunks::<4>().0.iter().enumerate() {
        let number = f32::from_le_bytes(*bytes);
        if !number.is_finite() {
            return Err(ModelError::NotFinite { file: file(), tensor: spec.name, index });
        }
        numbers.push(number);
    }
    Ok(())
}

/// Errors of other libraries may span lines; ours don't.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why a weights file was refused. Nothing was loaded, and a retry can't help before the file changes.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file can't be opened or read.
    #[error("{file}: can't be read ({source}): give the path of a .safetensors file you may read")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Far larger than this network's weights.
    #[error("{file}: larger than {} MiB, so these are not this network's weights: give model/digits.safetensors", MAX_FILE_BYTES >> 20)]
    TooLarge {
        /// The file.
        file: String,
    },
    /// Not a safetensors file, or one that was cut or damaged.
    #[error(
        "{file}: not a whole safetensors file ({reason}): fetch it again, or run `cargo run --release -p quark-vision --bin train-digits`"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The description of the training is missing or damaged.
    #[error("{file}: its metadata is not this network's ({reason}): write it with the train-digits program")]
    Metadata {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Written for another layout of the network.
    #[error(
        "{file}: format version {found}, but this program reads version {FORMAT_VERSION}: train it anew with train-digits"
    )]
    Version {
        /// The file.
        file: String,
        /// The version it names.
        found: u32,
    },
    /// A tensor isn't there.
    #[error("{file}: the tensor `{tensor}` is missing: use a file that train-digits wrote")]
    MissingTensor {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: &'static str,
    },
    /// A tensor has another shape.
    #[error(
        "{file}: the tensor `{tensor}` has the shape {found:?} where {expected:?} belongs: use a file that train-digits wrote"
    )]
    WrongShape {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that belongs there.
        expected: &'static [usize],
    },
    /// A tensor's numbers are no 32-bit floats.
    #[error("{file}: the tensor `{tensor}` holds {found} where F32 belongs: convert it to 32-bit floats")]
    WrongDtype {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: &'static str,
        /// Its number type.
        found: String,
    },
    /// A number is infinite or not a number.
    #[error(
        "{file}: the tensor `{tensor}` holds an infinite number or NaN at index {index}: the training diverged or the file is damaged, so train it anew"
    )]
    NotFinite {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: &'static str,
        /// Where in the tensor.
        index: usize,
    },
    /// [`Weights::from_numbers`] was given another network's numbers.
    #[error("the weights: {0} numbers where {PARAMETERS} belong: give the tensors in the order of TENSORS")]
    WrongCount(usize),
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
