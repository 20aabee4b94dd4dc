//! Holding a classifier against the oracle: in tests, and on a user's own device.

use crate::infer::cpu::oracle;
use crate::infer::{Classifier, InferenceError, Logits, PIXELS, Patch};
use crate::model::Weights;
use crate::random::Random;

/// How far a classifier may be from the oracle, relative to the largest score of the patch.
pub const TOLERANCE: f32 = 1e-3;

/// `count` patches of random grey, the same for the same seed.
pub fn random_patches(seed: u64, count: usize) -> Vec<Patch> {
    let mut random = Random::new(seed);
    (0..count).map(|_| Patch { pixels: [(); PIXELS].map(|()| random.unit()) }).collect()
}

/// The largest difference between `classifier` and the oracle on `patches`, relative to the largest score of its
/// patch: a score near zero is a difference of larger ones. Infinite where a score is missing or no number.
/// Takes about a millisecond a patch, for the oracle's sake.
///
/// # Errors
///
/// What the classifier reports.
pub fn disagreement(
    classifier: &mut dyn Classifier,
    weights: &Weights,
    patches: &[Patch],
) -> Result<f32, InferenceError> {
    let scores = classifier.classify(patches)?;
    if scores.len() != patches.len() {
        return Ok(f32::INFINITY);
    }
    let differences =
        patches.iter().zip(&scores).map(|(patch, actual)| difference(&oracle(weights, patch), actual));
    Ok(differences.fold(0.0, f32::max))
}

fn difference(expected: &Logits, actual: &Logits) -> f32 {
    /// Keeps a patch whose scores are all zero from dividing by it.
    const SCALE_MIN: f32 = 1e-3;
    let scale = expected.scores.iter().fold(SCALE_MIN, |scale, score| scale.max(score.abs()));
    let errors =
        expected.scores.iter().zip(actual.scores).map(|(expected, actual)| (expected - actual).abs() / scale);
    // `max` would pass over a NaN.
    errors.fold(0.0, |worst, error| if error.is_nan() { f32::INFINITY } else { worst.max(error) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::{Backend, CLASSES};

    /// Gives the scores that it was made with, whatever it is asked.
    struct Fixed(Vec<Logits>);

    impl Classifier for Fixed {
        fn classify(&mut self, _: &[Patch]) -> Result<Vec<Logits>, InferenceError> {
            Ok(self.0.clone())
        }

        fn backend(&self) -> Backend {
            Backend::Cpu
        }
    }

    #[test]
    fn wrong_missing_and_odd_scores_are_noticed() {
        let weights = Weights::trained().expect("the committed weights");
        let patches = random_patches(1, 2);
        let right: Vec<Logits> = patches.iter().map(|patch| oracle(&weights, patch)).collect();
        let measure = |scores: &[Logits]| {
            disagreement(&mut Fixed(scores.to_vec()), &weights, &patches).expect("nothing fails")
        };
        assert_eq!(measure(&right), 0.0);
        assert_eq!(measure(&right[..1]), f32::INFINITY);
        let swapped = [right[1], right[0]];
        assert!(measure(&swapped) > TOLERANCE);
        assert_eq!(measure(&[right[0], Logits { scores: [f32::NAN; CLASSES] }]), f32::INFINITY);
    }
}
