//! What a predictor says about the near future.

use std::time::Duration;

/// A demand that a predictor expects on one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast<K> {
    /// Whom the demand will reach.
    pub key: K,
    /// When it is expected, on the caller's clock. A prewarm that is ready by then is in time.
    pub expected_at: Duration,
    /// The share of such forecasts that came true, as measured so far: 0 to 1.
    pub confidence: f32,
    /// The highest share that the measurements still allow for: 0 to 1, never below
    /// [`confidence`](Self::confidence).
    pub confidence_upper: f32,
    /// The share that was declared for this forecast's source. A forecast whose
    /// [`confidence_upper`](Self::confidence_upper) lies below it isn't worth acting on.
    pub declared: f32,
    /// After this, a demand is no longer what was forecast.
    pub expires_at: Duration,
}

impl<K> Forecast<K> {
    /// Whether the measurements contradict what was declared.
    pub fn is_below_declared(&self) -> bool {
        self.confidence_upper < self.declared
    }
}
