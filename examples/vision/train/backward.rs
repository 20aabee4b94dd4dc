//! The slope of the loss in every weight, by hand: the network is small enough.

use quark_vision::infer::cpu::forward;
use quark_vision::infer::{CLASSES, PIXELS, SIDE};
use quark_vision::model::{
    CONV1, CONV1_BIAS, CONV1_WEIGHT, CONV2, CONV2_BIAS, CONV2_WEIGHT, DENSE1_BIAS, DENSE1_WEIGHT,
    DENSE2_BIAS, DENSE2_WEIGHT, FLAT, HIDDEN, POOLED_SIDE, TensorSpec,
};

use crate::samples::Sample;

/// The truth counts for this much less than 1, spread over all classes: the network shall not be surer than it
/// can be (Szegedy et al. 2016, label smoothing).
const SMOOTHING: f32 = 0.05;

/// Adds the slopes for one sample to `gradient`, laid out as the weights are, and returns the cross-entropy.
pub(crate) fn add_gradient(numbers: &[f32], sample: &Sample, gradient: &mut [f32]) -> f32 {
    let (logits, layers) = forward(numbers, &sample.patch);

    let highest = logits.scores.iter().fold(f32::MIN, |highest, &score| highest.max(score));
    let shares = logits.scores.map(|score| (score - highest).exp());
    let sum: f32 = shares.iter().sum();
    let mut slopes = [0.0; CLASSES];
    let mut loss = 0.0;
    for (class, slope) in slopes.iter_mut().enumerate() {
        let hit = if class == sample.class { 1.0 - SMOOTHING } else { 0.0 };
        let wanted = hit + SMOOTHING / CLASSES as f32;
        *slope = shares[class] / sum - wanted;
        loss -= wanted * (shares[class] / sum).max(f32::MIN_POSITIVE).ln();
    }

    let mut hidden = [0.0; HIDDEN];
    dense(numbers, gradient, (&DENSE2_WEIGHT, &DENSE2_BIAS), &layers.hidden, &slopes, &mut hidden);
    through_relu(&layers.hidden, &mut hidden);
    let mut pooled = [0.0; FLAT];
    dense(numbers, gradient, (&DENSE1_WEIGHT, &DENSE1_BIAS), &layers.pooled[..], &hidden, &mut pooled);

    let second = through_pool(&layers.conv2, &layers.pooled, &pooled);
    let mut first = Box::new([[0.0; CONV1]; PIXELS]);
    let tensors = (&CONV2_WEIGHT, &CONV2_BIAS);
    convolution(numbers, gradient, tensors, &layers.conv1, &second, &mut first);
    for (slopes, outputs) in first.iter_mut().zip(layers.conv1.iter()) {
        through_relu(outputs, slopes);
    }
    let image: [[f32; 1]; PIXELS] = sample.patch.pixels.map(|pixel| [pixel]);
    let mut unused = Box::new([[0.0; 1]; PIXELS]);
    convolution(numbers, gradient, (&CONV1_WEIGHT, &CONV1_BIAS), &image, &first, &mut unused);
    loss
}

fn through_relu(outputs: &[f32], slopes: &mut [f32]) {
    for (slope, output) in slopes.iter_mut().zip(outputs) {
        if *output <= 0.0 {
            *slope = 0.0;
        }
    }
}

/// The slope of a pooled value belongs to the pixel that was the largest of the four; none to a value of zero,
/// which the relu cut off.
fn through_pool(
    outputs: &[[f32; CONV2]; PIXELS],
    pooled: &[f32; FLAT],
    slopes: &[f32; FLAT],
) -> Box<[[f32; CONV2]; PIXELS]> {
    let mut result = Box::new([[0.0; CONV2]; PIXELS]);
    let mut given = [false; FLAT];
    for (pixel, channels) in outputs.iter().enumerate() {
        let cell = (pixel / SIDE / 2) * POOLED_SIDE + pixel % SIDE / 2;
        for (channel, &output) in channels.iter().enumerate() {
            let place = cell * CONV2 + channel;
            if output > 0.0 && output == pooled[place] && !given[place] {
                given[place] = true;
                result[pixel][channel] = slopes[place];
            }
        }
    }
    result
}

fn dense<const OUT: usize>(
    numbers: &[f32],
    gradient: &mut [f32],
    (weight, bias): (&TensorSpec, &TensorSpec),
    input: &[f32],
    slopes: &[f32; OUT],
    input_slopes: &mut [f32],
) {
    add_scaled(&mut gradient[bias.range()], 1.0, slopes);
    let rows = numbers[weight.range()].as_chunks::<OUT>().0;
    let row_slopes = gradient[weight.range()].as_chunks_mut::<OUT>().0;
    for (((value, row), row_slopes), input_slope) in input.iter().zip(rows).zip(row_slopes).zip(input_slopes)
    {
        add_scaled(row_slopes, *value, slopes);
        *input_slope = dot(row, slopes);
    }
}

fn convolution<const IN: usize, const OUT: usize>(
    numbers: &[f32],
    gradient: &mut [f32],
    (weight, bias): (&TensorSpec, &TensorSpec),
    input: &[[f32; IN]; PIXELS],
    slopes: &[[f32; OUT]; PIXELS],
    input_slopes: &mut [[f32; IN]; PIXELS],
) {
    for slopes in slopes {
        add_scaled(&mut gradient[bias.range()], 1.0, slopes);
    }
    let taps = numbers[weight.range()].as_chunks::<OUT>().0;
    let tap_slopes = gradient[weight.range()].as_chunks_mut::<OUT>().0;
    for (pixel, slopes) in slopes.iter().enumerate() {
        let (row, column) = (pixel / SIDE, pixel % SIDE);
        for y in row.saturating_sub(1)..(row + 2).min(SIDE) {
            for x in column.saturating_sub(1)..(column + 2).min(SIDE) {
                let tap = ((y + 1 - row) * 3 + x + 1 - column) * IN;
                for channel in 0..IN {
                    add_scaled(&mut tap_slopes[tap + channel], input[y * SIDE + x][channel], slopes);
                    input_slopes[y * SIDE + x][channel] += dot(&taps[tap + channel], slopes);
                }
            }
        }
    }
}

fn add_scaled(sums: &mut [f32], factor: f32, values: &[f32]) {
    if factor != 0.0 {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += factor * value;
        }
    }
}

/// Eight sums side by side, which the compiler keeps in vector registers.
fn dot<const N: usize>(a: &[f32; N], b: &[f32; N]) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use quark_vision::infer::Patch;
    use quark_vision::model::{PARAMETERS, TENSORS};
    use quark_vision::random::Random;

    use super::*;

    /// Each slope against the difference that a small step makes, for some weights of every tensor.
    #[test]
    fn slopes_agree_with_differences() {
        let mut random = Random::new(4);
        let mut numbers = crate::initial(&mut random);
        let pixels = std::array::from_fn(|_| random.unit());
        let sample = Sample { patch: Patch { pixels }, class: 3 };
        let mut gradient = vec![0.0; PARAMETERS];
        add_gradient(&numbers, &sample, &mut gradient);
        let mut unused = vec![0.0; PARAMETERS];
        for spec in &TENSORS {
            let mut close = 0;
            for _ in 0..20 {
                let index = spec.offset + random.below(spec.numbers());
                let (before, step) = (numbers[index], 2e-3);
                numbers[index] = before + step;
                let above = add_gradient(&numbers, &sample, &mut unused);
                numbers[index] = before - step;
                let below = add_gradient(&numbers, &sample, &mut unused);
                numbers[index] = before;
                let measured = (above - below) / (2.0 * step);
                close += usize::from((measured - gradient[index]).abs() <= 3e-3 + 0.05 * measured.abs());
            }
            // A step may carry a relu or a pool over its corner, where no slope fits.
            assert!(close >= 18, "{}: {close} of 20", spec.name);
        }
    }
}
