//! The network on the processor: a plain oracle, and a path quick enough for a camera.

use crate::infer::{Backend, CLASSES, Classifier, InferenceError, Logits, PIXELS, Patch, SIDE};
use crate::model::{self, CONV1, CONV2, FLAT, HIDDEN, POOLED_SIDE, Weights};

/// The network written as its definition: slow, and right by inspection. Every backend is measured against it.
///
/// conv 3x3 (1 -> 16), relu, conv 3x3 (16 -> 32), relu, 2x2 max pool, dense (512 -> 64), relu, dense (64 -> 11);
/// convolutions are padded with zeros. Sums run in 64 bits, so that their order doesn't matter.
pub fn oracle(weights: &Weights, patch: &Patch) -> Logits {
    let image: Vec<f64> = patch.pixels.iter().map(|&pixel| f64::from(pixel)).collect();
    let first = convolve(weights, &model::CONV1_WEIGHT, &model::CONV1_BIAS, &image);
    let second = convolve(weights, &model::CONV2_WEIGHT, &model::CONV2_BIAS, &first);
    let pooled = pool(&second);
    let mut hidden = dense(weights, &model::DENSE1_WEIGHT, &model::DENSE1_BIAS, &pooled);
    hidden.iter_mut().for_each(|value| *value = value.max(0.0));
    let scores = dense(weights, &model::DENSE2_WEIGHT, &model::DENSE2_BIAS, &hidden);
    Logits { scores: std::array::from_fn(|class| scores[class] as f32) }
}

/// A 3x3 convolution with zero padding and a relu. `input` is `[row, column, channel]`.
fn convolve(
    weights: &Weights,
    weight: &model::TensorSpec,
    bias: &model::TensorSpec,
    input: &[f64],
) -> Vec<f64> {
    let (inputs, outputs) = (weight.shape[2], weight.shape[3]);
    let (kernel, bias) = (weights.tensor(weight), weights.tensor(bias));
    let mut output = Vec::with_capacity(PIXELS * outputs);
    for row in 0..SIDE {
        for column in 0..SIDE {
            for out in 0..outputs {
                let mut sum = f64::from(bias[out]);
                for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                    let (y, x) = (row + dy, column + dx);
                    // Tap (1, 1) lies on the pixel itself; what lies outside the image counts as zero.
                    if (1..=SIDE).contains(&y) && (1..=SIDE).contains(&x) {
                        for channel in 0..inputs {
                            let pixel = input[((y - 1) * SIDE + x - 1) * inputs + channel];
                            let tap = kernel[((dy * 3 + dx) * inputs + channel) * outputs + out];
                            sum += pixel * f64::from(tap);
                        }
                    }
                }
                output.push(sum.max(0.0));
            }
        }
    }
    output
}

/// The largest of each 2x2 block, channel by channel.
fn pool(input: &[f64]) -> Vec<f64> {
    let mut output = vec![f64::MIN; FLAT];
    for (index, &value) in input.iter().enumerate() {
        let (pixel, channel) = (index / CONV2, index % CONV2);
        let cell = (pixel / SIDE / 2) * POOLED_SIDE + pixel % SIDE / 2;
        let slot = &mut output[cell * CONV2 + channel];
        *slot = slot.max(value);
    }
    output
}

fn dense(weights: &Weights, weight: &model::TensorSpec, bias: &model::TensorSpec, input: &[f64]) -> Vec<f64> {
    let outputs = weight.shape[1];
    let (matrix, bias) = (weights.tensor(weight), weights.tensor(bias));
    (0..outputs)
        .map(|out| {
            let products = input.iter().enumerate().map(|(i, x)| x * f64::from(matrix[i * outputs + out]));
            f64::from(bias[out]) + products.sum::<f64>()
        })
        .collect()
}

/// The quick path: channels innermost, so that the compiler adds several at once.
#[derive(Debug, Clone)]
pub struct CpuClassifier {
    weights: Weights,
}

impl CpuClassifier {
    /// A classifier with its own copy of the weights: about 154 kB.
    pub fn new(weights: Weights) -> Self {
        Self { weights }
    }
}

impl Classifier for CpuClassifier {
    fn classify(&mut self, patches: &[Patch]) -> Result<Vec<Logits>, InferenceError> {
        Ok(patches.iter().map(|patch| forward(self.weights.as_slice(), patch).0).collect())
    }

    fn backend(&self) -> Backend {
        Backend::Cpu
    }
}

/// What each layer put out, after its relu; training needs all of it. `[row, column, channel]`.
#[derive(Debug, Clone)]
pub struct Activations {
    /// 8 x 8 x 16.
    pub conv1: Box<[[f32; CONV1]; PIXELS]>,
    /// 8 x 8 x 32.
    pub conv2: Box<[[f32; CONV2]; PIXELS]>,
    /// 4 x 4 x 32.
    pub pooled: Box<[f32; FLAT]>,
    /// 64.
    pub hidden: [f32; HIDDEN],
}

/// Runs the network on `numbers`, laid out as [`model::TENSORS`] says, and keeps what lies between.
///
/// # Panics
///
/// Where `numbers` is shorter than [`model::PARAMETERS`].
pub fn forward(numbers: &[f32], patch: &Patch) -> (Logits, Activations) {
    let image: &[[f32; 1]; PIXELS] = bytemuck::cast_ref(&patch.pixels);
    let mut conv1 = Box::new([[0.0; CONV1]; PIXELS]);
    let mut conv2 = Box::new([[0.0; CONV2]; PIXELS]);
    layer(&numbers[model::CONV1_WEIGHT.range()], &numbers[model::CONV1_BIAS.range()], image, &mut conv1);
    layer(&numbers[model::CONV2_WEIGHT.range()], &numbers[model::CONV2_BIAS.range()], &conv1, &mut conv2);
    let mut pooled = Box::new([0.0f32; FLAT]);
    for (pixel, channels) in conv2.iter().enumerate() {
        let cell = (pixel / SIDE / 2) * POOLED_SIDE + pixel % SIDE / 2;
        let slots = &mut pooled[cell * CONV2..][..CONV2];
        // A relu came before, so zero is the smallest value there is.
        slots.iter_mut().zip(channels).for_each(|(slot, value)| *slot = slot.max(*value));
    }
    let mut hidden = [0.0; HIDDEN];
    hidden.copy_from_slice(&numbers[model::DENSE1_BIAS.range()]);
    multiply_add(&numbers[model::DENSE1_WEIGHT.range()], &pooled[..], &mut hidden);
    hidden.iter_mut().for_each(|value| *value = value.max(0.0));
    let mut scores = [0.0; CLASSES];
    scores.copy_from_slice(&numbers[model::DENSE2_BIAS.range()]);
    multiply_add(&numbers[model::DENSE2_WEIGHT.range()], &hidden, &mut scores);
    (Logits { scores }, Activations { conv1, conv2, pooled, hidden })
}

fn layer<const IN: usize, const OUT: usize>(
    kernel: &[f32],
    bias: &[f32],
    input: &[[f32; IN]; PIXELS],
    output: &mut [[f32; OUT]; PIXELS],
) {
    let taps = kernel.as_chunks::<OUT>().0;
    for row in 0..SIDE {
        for column in 0..SIDE {
            let mut sums = [0.0; OUT];
            sums.copy_from_slice(bias);
            for y in row.saturating_sub(1)..(row + 2).min(SIDE) {
                for x in column.saturating_sub(1)..(column + 2).min(SIDE) {
                    let tap = ((y + 1 - row) * 3 + x + 1 - column) * IN;
                    for (pixel, tap) in input[y * SIDE + x].iter().zip(&taps[tap..tap + IN]) {
                        for (sum, weight) in sums.iter_mut().zip(tap) {
                            *sum += pixel * weight;
                        }
                    }
                }
            }
            output[row * SIDE + column] = sums.map(|sum| sum.max(0.0));
        }
    }
}

/// `output += input * matrix`, with the matrix as `[input, output]`.
fn multiply_add<const OUT: usize>(matrix: &[f32], input: &[f32], output: &mut [f32; OUT]) {
    for (value, row) in input.iter().zip(matrix.as_chunks::<OUT>().0) {
        // After a relu about half of the values are zero.
        if *value != 0.0 {
            for (sum, weight) in output.iter_mut().zip(row) {
                *sum += value * weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::conformance;

    #[test]
    fn quick_path_agrees_with_the_oracle() {
        conformance::agrees_with_oracle(|weights| Ok(Box::new(CpuClassifier::new(weights.clone()))));
    }

    #[test]
    fn the_oracle_is_the_definition_on_a_case_done_by_hand() {
        // Only the middle tap of the first output channel passes the image on, twice; the rest is zero but for
        // one weight a layer. A pixel of 0.5 in the upper left corner becomes 2 * 0.5 * 3 * 5 + 1 on class 7.
        let mut numbers = vec![0.0; model::PARAMETERS];
        numbers[model::CONV1_WEIGHT.offset + 4 * CONV1] = 2.0;
        numbers[model::CONV2_WEIGHT.offset + 4 * CONV1 * CONV2] = 3.0;
        numbers[model::DENSE1_WEIGHT.offset] = 5.0;
        numbers[model::DENSE2_WEIGHT.offset + 7] = 1.0;
        numbers[model::DENSE2_BIAS.offset + 7] = 1.0;
        let weights = Weights::from_numbers(numbers, conformance::training()).expect("finite");
        let mut patch = Patch { pixels: [0.0; PIXELS] };
        patch.pixels[0] = 0.5;
        let logits = oracle(&weights, &patch);
        assert_eq!(logits.scores[7], 16.0);
        assert_eq!(logits.scores[0], 0.0);
        assert_eq!(logits.best().0, 7);
    }
}
