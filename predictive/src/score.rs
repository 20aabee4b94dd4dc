//! Whether prewarming was worth it.

use serde::{Deserialize, Serialize};

/// Counts since the planner began. Every prewarm that has ended is in exactly one of `hits`, `late`, `wasted` and
/// `released`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Prewarms that were ready when their demand came.
    pub hits: u64,
    /// Demands that met a cold actor no prewarm was under way for.
    pub misses: u64,
    /// Prewarms whose demand came before they were ready.
    pub late: u64,
    /// Prewarms that ran out before any demand came.
    pub wasted: u64,
    /// Prewarms given up for another reason: the activation failed, the silo drained.
    pub released: u64,
    /// Memory times time that prewarms were held before their end, in byte-seconds: the price of all the above.
    pub warm_seconds_bytes: f64,
}

impl Score {
    /// The share of prewarms that a demand came for, (hits + late) / (hits + late + wasted); `None` before one
    /// has ended. Late ones foresaw the demand rightly, so they count.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.hits + self.late, self.hits + self.late + self.wasted)
    }

    /// The share of demands on not yet active actors that were found warm, hits / (hits + late + misses);
    /// `None` before one came.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.hits, self.hits + self.late + self.misses)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_are_shares_of_what_happened() {
        assert_eq!((Score::default().precision(), Score::default().recall()), (None, None));
        let score = Score { hits: 6, late: 2, wasted: 2, misses: 4, ..Score::default() };
        assert_eq!((score.precision(), score.recall()), (Some(0.8), Some(0.5)));
    }
}
