//! Forecasts from a declared rule: an event on this stream means a demand on the actor of the same key.
//!
//! A rule is a claim (`prewarm(stream = "sensors/motion", lead = "200ms", confidence = 0.8)`), and the predictor
//! holds it against what happens, whether or not anything was warmed for it. Each event opens a trial for its
//! key; a demand before the forecast expires makes it a success, none makes it a failure. The share of successes
//! is estimated with a Beta prior ([`HitRate`]), so that a rule is believed at first and judged as evidence comes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::forecast::Forecast;

/// How many leads after its event a forecast still counts. A demand at the lead is what was declared; up to four
/// leads it is the same burst come late, and later it is chance.
pub const EXPIRY_LEADS: u32 = 4;

/// Trials open at once in one predictor. At the bound the one that expires first is closed as a failure.
pub const MAX_OPEN_TRIALS: usize = 65_536;

/// The weight of the declared confidence, in trials: eight observations outweigh it.
pub const PRIOR_TRIALS: f64 = 8.0;

/// Trials that are remembered. Beyond it, old ones count half, so that a rule can win trust back.
pub const MAX_EVIDENCE: f64 = 1_000.0;

/// How many standard deviations above the estimate [`HitRate::upper`] lies: two cover 97.7 %, so a rule that
/// holds exactly as declared is rarely distrusted by chance.
pub const UPPER_DEVIATIONS: f64 = 2.0;

/// A declared rule: an event on `stream` for a key is followed by a demand on the actor of that key.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    stream: Arc<str>,
    lead: Duration,
    confidence: f32,
}

/// Why a rule can't be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// No stream is named.
    #[error("a prewarm rule needs the namespace of a stream, such as \"sensors/motion\"")]
    NoStream,
    /// The lead is zero, or more than [`MAX_LEAD`].
    #[error("the lead of a prewarm rule lies between 1 ns and {MAX_LEAD:?}; it was {0:?}")]
    Lead(Duration),
    /// The confidence is no share above 0 and up to 1.
    #[error("the confidence of a prewarm rule is a share above 0 and up to 1, such as 0.8; it was {0}")]
    Confidence(f32),
}

/// The longest lead a rule may declare: a day. Longer rhythms are a schedule, which a reminder says better.
pub const MAX_LEAD: Duration = Duration::from_secs(86_400);

impl Rule {
    /// A rule on events of the namespace `stream`: the demand comes `lead` after the event, in a share of
    /// `confidence` of the cases.
    ///
    /// # Errors
    /// A [`RuleError`] when a part of it is out of range.
    pub fn new(stream: impl Into<Arc<str>>, lead: Duration, confidence: f32) -> Result<Self, RuleError> {
        let stream = stream.into();
        if stream.is_empty() {
            return Err(RuleError::NoStream);
        }
        if lead.is_zero() || lead > MAX_LEAD {
            return Err(RuleError::Lead(lead));
        }
        if !(confidence > 0.0 && confidence <= 1.0) {
            return Err(RuleError::Confidence(confidence));
        }
        Ok(Self { stream, lead, confidence })
    }

    /// The namespace whose events the rule is about.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// How long before the demand the event comes.
    pub fn lead(&self) -> Duration {
        self.lead
    }

    /// The declared share of events that a demand follows.
    pub fn confidence(&self) -> f32 {
        self.confidence
    }
}

/// The estimated share of successes.
///
/// With a Beta(α₀, β₀) prior and `h` successes in `n` trials the posterior is Beta(α₀ + h, β₀ + n − h). The prior
/// here has the declared confidence `c` as its mean and weighs w = [`PRIOR_TRIALS`] trials: α₀ = c·w,
/// β₀ = (1 − c)·w. The estimate is the posterior's mean, (c·w + h) / (w + n); its variance is m(1 − m) / (w + n + 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HitRate {
    declared: f64,
    successes: f64,
    failures: f64,
}

impl HitRate {
    /// No trials yet, and `declared` as the prior's mean.
    pub fn new(declared: f32) -> Self {
        Self { declared: f64::from(declared), successes: 0.0, failures: 0.0 }
    }

    /// Adds one trial.
    pub fn record(&mut self, success: bool) {
        if success {
            self.successes += 1.0;
        } else {
            self.failures += 1.0;
        }
        if self.successes + self.failures > MAX_EVIDENCE {
            self.successes /= 2.0;
            self.failures /= 2.0;
        }
    }

    /// The estimate: the posterior's mean.
    pub fn mean(&self) -> f32 {
        (self.mean_f64() as f32).clamp(0.0, 1.0)
    }

    /// The highest share that the trials still allow for: the mean and [`UPPER_DEVIATIONS`] standard deviations.
    pub fn upper(&self) -> f32 {
        let mean = self.mean_f64();
        let variance = mean * (1.0 - mean) / (self.weight() + 1.0);
        ((mean + UPPER_DEVIATIONS * variance.max(0.0).sqrt()) as f32).clamp(self.mean(), 1.0)
    }

    /// How many trials speak, after forgetting; without the prior.
    pub fn trials(&self) -> f64 {
        self.successes + self.failures
    }

    fn weight(&self) -> f64 {
        PRIOR_TRIALS + self.trials()
    }

    fn mean_f64(&self) -> f64 {
        (self.declared * PRIOR_TRIALS + self.successes) / self.weight()
    }
}

/// One rule at work: turns events into forecasts, and demands into a measured [`HitRate`].
#[derive(Clone, Debug)]
pub struct RulePredictor<K> {
    rule: Rule,
    rate: HitRate,
    open: HashMap<K, Trial>,
    /// The same trials by expiry, then age.
    by_expiry: BTreeMap<(Duration, u64), K>,
    next_trial: u64,
    max_open: usize,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    expires_at: Duration,
    number: u64,
}

impl<K: Clone + Eq + Hash> RulePredictor<K> {
    /// A predictor that believes `rule` as it was declared.
    pub fn new(rule: Rule) -> Self {
        let rate = HitRate::new(rule.confidence);
        Self {
            rule,
            rate,
            open: HashMap::new(),
            by_expiry: BTreeMap::new(),
            next_trial: 0,
            max_open: MAX_OPEN_TRIALS,
        }
    }

    /// The rule this predictor holds.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// What has been measured of it.
    pub fn hit_rate(&self) -> HitRate {
        self.rate
    }

    /// Trials that wait for their demand.
    pub fn open_trials(&self) -> usize {
        self.open.len()
    }

    /// Takes an event on the namespace `stream` for `key`. Answers a forecast if the rule is about that stream.
    /// An event for a key whose forecast is still open renews it, and is no trial of its own.
    pub fn observe(&mut self, stream: &str, key: &K, at: Duration) -> Option<Forecast<K>> {
        if stream != &*self.rule.stream {
            return None;
        }
        self.expire(at);
        let expires_at = at.saturating_add(self.rule.lead * EXPIRY_LEADS);
        if let Some(open) = self.open.remove(key) {
            self.by_expiry.remove(&(open.expires_at, open.number));
        } else if self.open.len() >= self.max_open
            && let Some((_, oldest)) = self.by_expiry.pop_first()
        {
            self.open.remove(&oldest);
            self.rate.record(false);
        }
        let number = self.next_trial;
        self.next_trial += 1;
        self.open.insert(key.clone(), Trial { expires_at, number });
        self.by_expiry.insert((expires_at, number), key.clone());
        Some(Forecast {
            key: key.clone(),
            expected_at: at.saturating_add(self.rule.lead),
            confidence: self.rate.mean(),
            confidence_upper: self.rate.upper(),
            declared: self.rule.confidence,
            expires_at,
        })
    }

    /// Takes a demand on `key`. Answers whether a forecast was open for it, which is then fulfilled.
    pub fn on_demand(&mut self, key: &K, now: Duration) -> bool {
        self.expire(now);
        let Some(trial) = self.open.remove(key) else { return false };
        self.by_expiry.remove(&(trial.expires_at, trial.number));
        self.rate.record(true);
        true
    }

    /// Closes the forecasts that no demand came for by `now`, as failures, and says how many.
    pub fn expire(&mut self, now: Duration) -> usize {
        let mut expired = 0;
        while let Some(entry) = self.by_expiry.first_entry() {
            if entry.key().0 >= now {
                break;
            }
            self.open.remove(&entry.remove());
            self.rate.record(false);
            expired += 1;
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn predictor(confidence: f32) -> RulePredictor<u32> {
        RulePredictor::new(Rule::new("sensors/motion", MS(200), confidence).unwrap())
    }

    #[test]
    fn an_event_forecasts_a_demand_one_lead_later() {
        let forecast = predictor(0.8).observe("sensors/motion", &7, MS(1_000)).unwrap();
        assert_eq!((forecast.key, forecast.expected_at, forecast.expires_at), (7, MS(1_200), MS(1_800)));
        assert!((forecast.confidence - 0.8).abs() < 1e-6);
        assert!(!forecast.is_below_declared());
    }

    #[test]
    fn other_streams_say_nothing() {
        let mut predictor = predictor(0.8);
        assert_eq!(predictor.observe("sensors/door", &7, MS(0)), None);
        assert!(!predictor.on_demand(&7, MS(10)));
        assert_eq!(predictor.hit_rate().trials(), 0.0);
    }

    #[test]
    fn the_estimate_is_the_posterior_mean() {
        let mut rate = HitRate::new(0.5);
        for success in [true, true, true, false] {
            rate.record(success);
        }
        // (0.5 * 8 + 3) / (8 + 4)
        assert!((f64::from(rate.mean()) - 7.0 / 12.0).abs() < 1e-6);
    }

    #[test]
    fn a_demand_after_expiry_is_a_failure() {
        let mut predictor = predictor(0.8);
        predictor.observe("sensors/motion", &7, MS(0)).unwrap();
        assert!(predictor.on_demand(&7, MS(800)), "the last moment still counts");
        predictor.observe("sensors/motion", &7, MS(1_000)).unwrap();
        assert!(!predictor.on_demand(&7, MS(1_801)));
        assert_eq!((predictor.rate.successes, predictor.rate.failures), (1.0, 1.0));
    }

    #[test]
    fn a_rule_that_does_not_hold_is_distrusted_and_can_win_trust_back() {
        let mut predictor = predictor(0.8);
        let mut at = MS(0);
        let mut run = |came_true: bool, rounds: u32| {
            let mut last = None;
            for _ in 0..rounds {
                at += MS(10_000);
                last = predictor.observe("sensors/motion", &7, at);
                if came_true {
                    assert!(predictor.on_demand(&7, at + MS(200)));
                }
            }
            last.unwrap().is_below_declared()
        };
        assert!(!run(true, 20));
        assert!(run(false, 60));
        assert!(!run(true, 600));
    }

    #[test]
    fn a_rule_that_holds_as_declared_stays_trusted() {
        let mut predictor = predictor(0.8);
        for round in 0..500_u64 {
            let at = MS(round * 10_000);
            let forecast = predictor.observe("sensors/motion", &7, at).unwrap();
            assert!(!forecast.is_below_declared(), "round {round}");
            if round % 5 != 0 {
                predictor.on_demand(&7, at + MS(150));
            }
        }
    }

    #[test]
    fn at_the_bound_the_first_to_expire_is_closed() {
        let mut predictor = predictor(0.8);
        predictor.max_open = 2;
        for key in 0..3 {
            predictor.observe("sensors/motion", &key, MS(u64::from(key))).unwrap();
        }
        assert_eq!(predictor.open_trials(), 2);
        assert!(!predictor.on_demand(&0, MS(10)) && predictor.on_demand(&2, MS(10)));
    }

    #[test]
    fn rules_out_of_range_are_refused() {
        assert_eq!(Rule::new("", MS(1), 0.5), Err(RuleError::NoStream));
        assert_eq!(Rule::new("s", MS(0), 0.5), Err(RuleError::Lead(MS(0))));
        assert!(matches!(Rule::new("s", Duration::MAX, 0.5), Err(RuleError::Lead(_))));
        for confidence in [0.0, -1.0, 1.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(Rule::new("s", MS(1), confidence), Err(RuleError::Confidence(_))));
        }
    }

    proptest! {
        #[test]
        fn every_trial_ends_once(steps in proptest::collection::vec((0..3_u8, 0..6_u32, 0..900_u64), 0..200)) {
            let mut predictor = predictor(0.7);
            predictor.max_open = 4;
            let (mut now, mut opened) = (MS(0), 0.0);
            for (step, key, pause) in steps {
                now += MS(pause);
                match step {
                    0 => {
                        predictor.expire(now);
                        let renewed = predictor.open.contains_key(&key);
                        predictor.observe("sensors/motion", &key, now).unwrap();
                        opened += f64::from(!renewed);
                    }
                    1 => { predictor.on_demand(&key, now); }
                    _ => { predictor.expire(now); }
                }
                prop_assert!(predictor.open.len() <= 4);
                prop_assert_eq!(predictor.open.len(), predictor.by_expiry.len());
                prop_assert_eq!(predictor.rate.trials() + predictor.open.len() as f64, opened);
                let (mean, upper) = (predictor.rate.mean(), predictor.rate.upper());
                prop_assert!((0.0..=1.0).contains(&mean) && mean <= upper && upper <= 1.0);
            }
        }
    }
}
