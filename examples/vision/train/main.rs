//! Trains the digit network from a seed and writes `model/digits.safetensors`:
//!
//! ```text
//! cargo run --release -p quark-vision --bin train-digits -- [--seed N] [--epochs N] [--out FILE]
//! ```
//!
//! It learns from rows 0 to 1,199 alone: as they are, bent and shifted, and as the detector cuts them out of
//! drawn scenes. The held-out rows are looked at once, at the end, to note the accuracy in the file. The same
//! seed gives the same file on the same platform.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks to its user")]

mod adam;
mod backward;
mod samples;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use adam::Adam;
use quark_vision::analyze::accuracy;
use quark_vision::data::{Digits, TRAINING_ROWS};
use quark_vision::infer::cpu::CpuClassifier;
use quark_vision::model::{FORMAT_VERSION, PARAMETERS, TENSORS, Training, Weights};
use quark_vision::random::Random;
use samples::Samples;

/// Samples between two steps of the optimiser.
const BATCH: usize = 32;
/// The first step's size; it falls to zero along a half cosine.
const RATE: f32 = 2e-3;

struct Options {
    seed: u64,
    epochs: u32,
    out: PathBuf,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| train(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    const USAGE: &str = "use: train-digits [--seed N] [--epochs N] [--out FILE]";
    let out = concat!(env!("CARGO_MANIFEST_DIR"), "/model/digits.safetensors").into();
    let mut options = Options { seed: 7, epochs: 24, out };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value; {USAGE}"))?;
        let number = || value.parse::<u32>().map_err(|_| format!("{word} {value}: no whole number; {USAGE}"));
        match word.as_str() {
            "--seed" => options.seed = number()?.into(),
            "--epochs" => options.epochs = number()?.max(1),
            "--out" => options.out = value.into(),
            _ => return Err(format!("unknown option {word}; {USAGE}")),
        }
    }
    Ok(options)
}

fn train(options: &Options) -> Result<(), String> {
    let digits = Digits::load().map_err(|error| error.to_string())?;
    let mut random = Random::keyed(&[options.seed]);
    let samples = Samples::new(digits.training(), options.seed);
    println!(
        "{} patches cut from scenes, {} of them background",
        samples.scene_patches(),
        samples.background()
    );

    let mut numbers = initial(&mut random);
    let mut adam = Adam::new();
    let mut gradient = vec![0.0; PARAMETERS];
    let start = Instant::now();
    for epoch in 0..options.epochs {
        let epoch_samples = samples.epoch(&mut random);
        let batches = epoch_samples.len().div_ceil(BATCH);
        let mut loss = 0.0;
        for (index, batch) in epoch_samples.chunks(BATCH).enumerate() {
            gradient.fill(0.0);
            for sample in batch {
                loss += f64::from(backward::add_gradient(&numbers, sample, &mut gradient));
            }
            gradient.iter_mut().for_each(|slope| *slope /= batch.len() as f32);
            let done = (epoch as f32 + index as f32 / batches as f32) / options.epochs as f32;
            let rate = RATE * 0.5 * (1.0 + (std::f32::consts::PI * done).cos());
            adam.step(&mut numbers, &gradient, rate);
        }
        let mean = loss / epoch_samples.len() as f64;
        println!("epoch {:2}: mean loss {mean:.4}, {:.0?}", epoch + 1, start.elapsed());
    }

    let training = |held_out_accuracy| Training {
        version: FORMAT_VERSION,
        seed: options.seed,
        epochs: options.epochs,
        trained_rows: [0, TRAINING_ROWS as u32 - 1],
        held_out_accuracy,
    };
    let finished =
        Weights::from_numbers(numbers.clone(), training(0.0)).map_err(|error| error.to_string())?;
    let mut classifier = CpuClassifier::new(finished);
    let mut measure = |digits| accuracy(&mut classifier, digits).map_err(|error| error.to_string());
    let (learnt, held_out) = (measure(digits.training())?, measure(digits.held_out())?);
    println!("accuracy: training rows {:.2} %, held-out rows {:.2} %", 100.0 * learnt, 100.0 * held_out);

    let weights = Weights::from_numbers(numbers, training(held_out)).map_err(|error| error.to_string())?;
    let bytes = weights.to_safetensors().map_err(|error| error.to_string())?;
    std::fs::write(&options.out, &bytes)
        .map_err(|error| format!("{}: can't be written ({error})", options.out.display()))?;
    println!("wrote {} ({} bytes)", options.out.display(), bytes.len());
    Ok(())
}

/// Normal weights of variance 2 / inputs (He et al. 2015, for relu layers), and no bias.
fn initial(random: &mut Random) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(PARAMETERS);
    for spec in &TENSORS {
        let inputs: usize = spec.shape[..spec.shape.len() - 1].iter().product();
        let is_bias = spec.shape.len() == 1;
        let deviation = if is_bias { 0.0 } else { (2.0 / inputs as f32).sqrt() };
        numbers.extend((0..spec.numbers()).map(|_| deviation * random.normal()));
    }
    numbers
}
