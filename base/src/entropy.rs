//! The entropy port: randomness that a test can repeat from a seed.

use std::sync::Arc;
use std::sync::Mutex;

/// A source of random numbers for ids and jitter. Not for secrets.
pub trait Entropy: Send + Sync + 'static {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// Repeatable randomness: the same seed gives the same numbers in the same order.
#[derive(Debug)]
pub struct Seeded(Mutex<fastrand::Rng>);

impl Seeded {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    /// A sequence that differs from process to process.
    pub fn from_system() -> Self {
        Self(Mutex::new(fastrand::Rng::new()))
    }
}

impl Entropy for Seeded {
    fn next_u64(&self) -> u64 {
        // A poisoned lock means that another thread panicked between two reads of a number; the generator's
        // state is whole all the same.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).u64(..)
    }
}

impl<E: Entropy + ?Sized> Entropy for Arc<E> {
    fn next_u64(&self) -> u64 {
        (**self).next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_sequence() {
        let (first, second) = (Seeded::new(7), Seeded::new(7));
        let numbers: Vec<u64> = (0..8).map(|_| first.next_u64()).collect();
        assert_eq!(numbers, (0..8).map(|_| second.next_u64()).collect::<Vec<_>>());
        assert_ne!(numbers[0], Seeded::new(8).next_u64());
    }
}
