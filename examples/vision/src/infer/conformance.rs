//! What every classifier owes, run against each of them.

use crate::infer::check::{TOLERANCE, disagreement, random_patches};
use crate::infer::{Classifier, InferenceError};
use crate::model::{FORMAT_VERSION, PARAMETERS, TENSORS, Training, Weights};
use crate::random::Random;

/// Some description of a training that never was.
pub(crate) fn training() -> Training {
    Training { version: FORMAT_VERSION, seed: 0, epochs: 0, trained_rows: [0, 0], held_out_accuracy: 0.0 }
}

/// Random weights of a size that keeps every layer's output near 1.
pub(crate) fn random_weights(seed: u64) -> Weights {
    let mut random = Random::new(seed);
    let mut numbers = Vec::with_capacity(PARAMETERS);
    for spec in &TENSORS {
        let inputs: usize = spec.shape[..spec.shape.len() - 1].iter().product();
        let deviation = (2.0 / inputs.max(1) as f32).sqrt();
        numbers.extend((0..spec.numbers()).map(|_| deviation * random.normal()));
    }
    Weights::from_numbers(numbers, training()).expect("finite numbers in the right count")
}

/// Random weights and inputs, and the trained network; batches of none, one, several and more than a buffer.
pub(crate) fn agrees_with_oracle(build: impl Fn(&Weights) -> Result<Box<dyn Classifier>, InferenceError>) {
    let trained = Weights::trained().expect("the committed weights");
    for (seed, weights) in [(1, random_weights(1)), (2, random_weights(2)), (3, trained)] {
        let mut classifier = build(&weights).expect("the classifier builds");
        for count in [0, 1, 5, 32, 70, 1] {
            let patches = random_patches(seed * 1_000 + count as u64, count);
            let worst = disagreement(classifier.as_mut(), &weights, &patches).expect("the classifier runs");
            assert!(worst <= TOLERANCE, "seed {seed}, {count} patches: {worst}");
        }
    }
}
