//! Latencies: recorded one by one, told as percentiles.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longer durations count as this long: whoever waits ten minutes has given up.
pub const LATENCY_MAX: Duration = Duration::from_secs(600);

/// Percentiles are right to three digits, one part in a thousand; a histogram then takes some 300 KiB.
const DIGITS: u8 = 3;

/// A histogram of durations, in nanoseconds up to [`LATENCY_MAX`].
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    histogram: Histogram<u64>,
    /// Kept beside the histogram, which rounds to its buckets.
    longest: Duration,
    sum: Duration,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, DIGITS)
            .expect("the bounds and digits are constants that HdrHistogram takes");
        Self { histogram, longest: Duration::ZERO, sum: Duration::ZERO }
    }
}

impl LatencyHistogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        let latency = latency.min(LATENCY_MAX);
        // Durations below a nanosecond are none; the histogram begins at one.
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.histogram.saturating_record(nanoseconds);
        self.longest = self.longest.max(latency);
        self.sum = self.sum.saturating_add(latency);
    }

    /// Adds what another histogram has recorded.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds and digits, so every value fits.
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok());
        self.longest = self.longest.max(other.longest);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that this share of the recorded ones does not exceed; `None` if there are none. `share` counts
    /// as between 0 and 1. Of fewer than 100 latencies the 99th percentile is the longest.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let at = || Duration::from_nanos(self.histogram.value_at_quantile(share)).min(self.longest);
        (self.count() > 0).then(at)
    }

    /// The percentiles that people ask for; `None` if nothing was recorded.
    pub fn summary(&self) -> Option<LatencySummary> {
        let count = self.count();
        Some(LatencySummary {
            count,
            p50: milliseconds(self.quantile(0.50)?),
            p90: milliseconds(self.quantile(0.90)?),
            p99: milliseconds(self.quantile(0.99)?),
            max: milliseconds(self.longest),
            mean: milliseconds(self.sum.div_f64(count as f64)),
        })
    }
}

/// Percentiles of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// How many latencies it is about.
    pub count: u64,
    /// Half of them are at most this long.
    pub p50: f64,
    /// 90 of 100 are.
    pub p90: f64,
    /// 99 of 100 are; of fewer than 100 latencies it is the longest.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.2} ms, p99 {:.2} ms", self.p50, self.p99)
    }
}

/// `duration` in milliseconds, to the microsecond.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_thousand_different_latencies() {
        let mut histogram = LatencyHistogram::new();
        for microseconds in 1..=1_000 {
            histogram.record(Duration::from_micros(microseconds));
        }
        let summary = histogram.summary().expect("a thousand were recorded");
        // Three digits, and microseconds.
        let near = |actual: f64, expected: f64| (actual - expected).abs() <= expected * 2e-3;
        assert!(near(summary.p50, 0.5) && near(summary.p90, 0.9) && near(summary.p99, 0.99), "{summary:?}");
        assert_eq!((summary.count, summary.max), (1_000, 1.0));
        assert!(near(summary.mean, 0.5005), "{summary:?}");
        assert_eq!(summary.to_string(), "p50 0.50 ms, p99 0.99 ms");
    }

    #[test]
    fn the_99th_percentile_of_few_is_the_longest() {
        let mut histogram = LatencyHistogram::new();
        for milliseconds in [1, 2, 50] {
            histogram.record(Duration::from_millis(milliseconds));
        }
        let summary = histogram.summary().expect("three were recorded");
        assert_eq!((summary.p99, summary.max), (50.0, 50.0));
    }

    #[test]
    fn histograms_add_up() {
        let (mut one, mut other) = (LatencyHistogram::new(), LatencyHistogram::new());
        one.record(Duration::from_millis(1));
        other.record(Duration::from_millis(3));
        one.add(&other);
        let summary = one.summary().expect("two were recorded");
        assert_eq!((summary.count, summary.max, summary.mean), (2, 3.0, 2.0));
    }

    #[test]
    fn nothing_recorded_has_no_summary() {
        let histogram = LatencyHistogram::new();
        assert_eq!((histogram.count(), histogram.summary(), histogram.quantile(0.5)), (0, None, None));
    }

    #[test]
    fn odd_durations_are_counted_within_the_bounds() {
        let mut histogram = LatencyHistogram::new();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        let summary = histogram.summary().expect("two were recorded");
        assert_eq!((summary.count, summary.max), (2, milliseconds(LATENCY_MAX)));
        assert!(summary.p50 < 1e-3, "{summary:?}");
    }
}
