//! Which forecasts are worth their memory.
//!
//! The planner decides and keeps the books; its caller warms and lets go. The life of a prewarm:
//!
//! ```text
//!   decide -> Prewarm -> on_demand(ready)      -> Hit       (the actor is now an active one like any other)
//!                        on_demand(not ready)  -> Late      (likewise: its load goes on, for the caller)
//!                        expire, past `until`  -> wasted    (the caller deactivates it)
//!                        release               -> released  (the activation failed, or the silo drains)
//! ```
//!
//! Each prewarm ends in exactly one of the four, and stops counting against the budget as it ends.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use quark_base::ByteSize;

use crate::forecast::Forecast;
use crate::score::Score;

/// Prewarms held at once, whatever the budget says.
pub const MAX_HELD: usize = 65_536;

/// How much of a silo prewarming may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrewarmBudget {
    /// Memory held by prewarmed actors that nobody has asked for yet.
    pub max_bytes: ByteSize,
    /// The number of such actors; more than [`MAX_HELD`] counts as that many.
    pub max_actors: usize,
    /// How long after the expected demand a prewarmed actor is kept.
    pub ttl: Duration,
}

/// What to do about a forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Activate the actor now, and keep it until then unless [`PrewarmPlanner::expire`] says otherwise.
    Prewarm {
        /// The moment at which the prewarm is wasted.
        until: Duration,
    },
    /// Leave it.
    Skip(SkipReason),
}

/// Why a forecast is left alone. Nothing changed, but for [`AlreadyWarm`](Self::AlreadyWarm).
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SkipReason {
    /// The rule behind it has not held as declared.
    #[error("forecasts like this came true in {measured:.2} of the cases, and {declared:.2} is declared")]
    BelowConfidence {
        /// The measured share.
        measured: f32,
        /// The declared share.
        declared: f32,
    },
    /// Its memory doesn't fit.
    #[error("it needs {needs} and {free} of the prewarm budget are free")]
    OverBudgetBytes {
        /// What the actor would hold.
        needs: ByteSize,
        /// What is left of the budget.
        free: ByteSize,
    },
    /// As many actors are held as may be.
    #[error("{max} prewarmed actors are held, as many as the budget allows")]
    OverBudgetActors {
        /// The bound.
        max: usize,
    },
    /// It is held already; the forecast has prolonged that.
    #[error("it is warm already")]
    AlreadyWarm {
        /// The moment at which the prewarm is now wasted.
        until: Duration,
    },
    /// The forecast had expired when it was looked at.
    #[error("the forecast has expired")]
    Expired,
}

/// What a demand found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A prewarmed, ready actor. The prewarm has ended.
    Hit {
        /// From the decision to prewarm to the demand.
        lead_achieved: Duration,
    },
    /// A prewarm under way, but not ready. It has ended; the demand waits for the same activation.
    Late,
    /// A cold actor that no prewarm was under way for.
    Miss,
    /// An actor that an earlier demand had activated. Says nothing about prewarming and counts nowhere.
    AlreadyActive,
}

/// Decides under a [`PrewarmBudget`] which forecasts to act on, and scores how it went. See the
/// [module](self) for a prewarm's life.
#[derive(Clone, Debug)]
pub struct PrewarmPlanner<K> {
    budget: PrewarmBudget,
    held: HashMap<K, Hold>,
    /// The same holds by end, then age.
    by_end: BTreeMap<(Duration, u64), K>,
    held_bytes: ByteSize,
    next_number: u64,
    score: Score,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    bytes: ByteSize,
    since: Duration,
    until: Duration,
    number: u64,
}

impl<K: Clone + Eq + Hash> PrewarmPlanner<K> {
    /// A planner that holds nothing.
    pub fn new(budget: PrewarmBudget) -> Self {
        let budget = PrewarmBudget { max_actors: budget.max_actors.min(MAX_HELD), ..budget };
        Self {
            budget,
            held: HashMap::new(),
            by_end: BTreeMap::new(),
            held_bytes: ByteSize::ZERO,
            next_number: 0,
            score: Score::default(),
        }
    }

    /// Whether to act on `forecast`, for an actor that would hold `bytes`. Ask only about actors that aren't
    /// active: the planner knows what it has warmed, not what runs.
    ///
    /// [`Decision::Prewarm`] has taken `bytes` of the budget when it returns. Call [`expire`](Self::expire)
    /// first, so that what has run out doesn't stand in the way.
    pub fn decide(&mut self, forecast: &Forecast<K>, bytes: ByteSize, now: Duration) -> Decision {
        if forecast.expires_at < now {
            return Decision::Skip(SkipReason::Expired);
        }
        if forecast.is_below_declared() {
            let (measured, declared) = (forecast.confidence, forecast.declared);
            return Decision::Skip(SkipReason::BelowConfidence { measured, declared });
        }
        let until = forecast.expected_at.max(now).saturating_add(self.budget.ttl);
        if let Some(hold) = self.held.get_mut(&forecast.key) {
            if until > hold.until {
                self.by_end.remove(&(hold.until, hold.number));
                hold.until = until;
                self.by_end.insert((until, hold.number), forecast.key.clone());
            }
            return Decision::Skip(SkipReason::AlreadyWarm { until: hold.until });
        }
        if self.held.len() >= self.budget.max_actors {
            return Decision::Skip(SkipReason::OverBudgetActors { max: self.budget.max_actors });
        }
        let free = self.budget.max_bytes.saturating_sub(self.held_bytes);
        if bytes > free {
            return Decision::Skip(SkipReason::OverBudgetBytes { needs: bytes, free });
        }
        let number = self.next_number;
        self.next_number += 1;
        self.held.insert(forecast.key.clone(), Hold { bytes, since: now, until, number });
        self.by_end.insert((until, number), forecast.key.clone());
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        Decision::Prewarm { until }
    }

    /// Takes a demand on `key`; `warm` says whether the actor was active and ready when it came.
    pub fn on_demand(&mut self, key: &K, warm: bool, now: Duration) -> Outcome {
        match (self.end(key, now), warm) {
            (Some(hold), true) => {
                self.score.hits += 1;
                Outcome::Hit { lead_achieved: now.saturating_sub(hold.since) }
            }
            (Some(_), false) => {
                self.score.late += 1;
                Outcome::Late
            }
            (None, false) => {
                self.score.misses += 1;
                Outcome::Miss
            }
            (None, true) => Outcome::AlreadyActive,
        }
    }

    /// Ends the prewarms that no demand came for by `now`, as wasted, and names their keys in the order in which
    /// they ran out: the caller deactivates them.
    pub fn expire(&mut self, now: Duration) -> Vec<K> {
        let mut wasted = Vec::new();
        while let Some(entry) = self.by_end.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.get().clone();
            self.end(&key, now);
            self.score.wasted += 1;
            wasted.push(key);
        }
        wasted
    }

    /// Ends the prewarm of `key` for a reason that says nothing about the forecast: its activation failed, or the
    /// silo drains. Answers whether it was held.
    pub fn release(&mut self, key: &K, now: Duration) -> bool {
        let held = self.end(key, now).is_some();
        self.score.released += u64::from(held);
        held
    }

    /// The next moment at which [`expire`](Self::expire) has something to do: what to set a timer to.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.by_end.first_key_value().map(|((until, _), _)| *until)
    }

    /// Whether `key` is prewarmed and not yet asked for.
    pub fn is_held(&self, key: &K) -> bool {
        self.held.contains_key(key)
    }

    /// How many prewarmed actors wait for their demand.
    pub fn held_actors(&self) -> usize {
        self.held.len()
    }

    /// What they hold.
    pub fn held_bytes(&self) -> ByteSize {
        self.held_bytes
    }

    /// The bounds this planner keeps.
    pub fn budget(&self) -> PrewarmBudget {
        self.budget
    }

    /// How it went so far.
    pub fn score(&self) -> Score {
        self.score
    }

    fn end(&mut self, key: &K, now: Duration) -> Option<Hold> {
        let hold = self.held.remove(key)?;
        self.by_end.remove(&(hold.until, hold.number));
        self.held_bytes = self.held_bytes.saturating_sub(hold.bytes);
        let held_for = now.saturating_sub(hold.since);
        self.score.warm_seconds_bytes += hold.bytes.as_f64() * held_for.as_secs_f64();
        Some(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Rule, RulePredictor};
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const BUDGET: PrewarmBudget =
        PrewarmBudget { max_bytes: ByteSize::mib(10), max_actors: 3, ttl: Duration::from_secs(2) };

    fn forecast(key: u32, expected_at: Duration) -> Forecast<u32> {
        Forecast {
            key,
            expected_at,
            confidence: 0.9,
            confidence_upper: 0.95,
            declared: 0.8,
            expires_at: expected_at + MS(600),
        }
    }

    #[test]
    fn a_prewarm_that_is_asked_for_is_a_hit() {
        let mut planner = PrewarmPlanner::new(BUDGET);
        let decision = planner.decide(&forecast(1, MS(200)), ByteSize::mib(4), MS(0));
        assert_eq!(decision, Decision::Prewarm { until: MS(2_200) });
        assert_eq!(planner.held_bytes(), ByteSize::mib(4));
        assert_eq!(planner.on_demand(&1, true, MS(190)), Outcome::Hit { lead_achieved: MS(190) });
        assert_eq!(planner.held_bytes(), ByteSize::ZERO);
        assert_eq!(planner.on_demand(&1, true, MS(300)), Outcome::AlreadyActive);
        assert_eq!(planner.score().hits, 1);
        let expected = ByteSize::mib(4).as_f64() * 0.19;
        assert!((planner.score().warm_seconds_bytes - expected).abs() < 1.0);
    }

    #[test]
    fn a_demand_during_the_load_is_late_and_one_without_a_prewarm_a_miss() {
        let mut planner = PrewarmPlanner::new(BUDGET);
        planner.decide(&forecast(1, MS(200)), ByteSize::mib(4), MS(0));
        assert_eq!(planner.on_demand(&1, false, MS(50)), Outcome::Late);
        assert_eq!(planner.on_demand(&2, false, MS(50)), Outcome::Miss);
        assert_eq!((planner.score().late, planner.score().misses), (1, 1));
    }

    #[test]
    fn what_nobody_asks_for_is_wasted_at_its_time() {
        let mut planner = PrewarmPlanner::new(BUDGET);
        planner.decide(&forecast(1, MS(200)), ByteSize::mib(4), MS(0));
        planner.decide(&forecast(2, MS(100)), ByteSize::mib(4), MS(0));
        assert_eq!(planner.next_expiry(), Some(MS(2_100)));
        assert!(planner.expire(MS(2_099)).is_empty());
        assert_eq!(planner.expire(MS(2_200)), [2, 1]);
        assert_eq!((planner.score().wasted, planner.held_actors()), (2, 0));
    }

    #[test]
    fn another_event_prolongs_a_held_prewarm() {
        let mut planner = PrewarmPlanner::new(BUDGET);
        planner.decide(&forecast(1, MS(200)), ByteSize::mib(4), MS(0));
        let again = planner.decide(&forecast(1, MS(1_200)), ByteSize::mib(4), MS(1_000));
        assert_eq!(again, Decision::Skip(SkipReason::AlreadyWarm { until: MS(3_200) }));
        assert!(planner.expire(MS(2_200)).is_empty());
        assert_eq!(planner.expire(MS(3_200)), [1]);
    }

    #[test]
    fn the_budget_refuses_by_bytes_and_by_number() {
        let mut planner = PrewarmPlanner::new(BUDGET);
        let big = planner.decide(&forecast(1, MS(1)), ByteSize::mib(11), MS(0));
        let reason = SkipReason::OverBudgetBytes { needs: ByteSize::mib(11), free: ByteSize::mib(10) };
        assert_eq!(big, Decision::Skip(reason));
        assert_eq!(reason.to_string(), "it needs 11 MiB and 10 MiB of the prewarm budget are free");
        for key in 1..4 {
            planner.decide(&forecast(key, MS(1)), ByteSize::ZERO, MS(0));
        }
        let many = planner.decide(&forecast(4, MS(1)), ByteSize::ZERO, MS(0));
        assert_eq!(many, Decision::Skip(SkipReason::OverBudgetActors { max: 3 }));
    }

    #[test]
    fn a_distrusted_or_expired_forecast_is_skipped() {
        let mut planner = PrewarmPlanner::new(BUDGET);
        let doubtful = Forecast { confidence: 0.3, confidence_upper: 0.5, ..forecast(1, MS(200)) };
        assert!(matches!(
            planner.decide(&doubtful, ByteSize::ZERO, MS(0)),
            Decision::Skip(SkipReason::BelowConfidence { .. })
        ));
        assert_eq!(
            planner.decide(&forecast(1, MS(200)), ByteSize::ZERO, MS(801)),
            Decision::Skip(SkipReason::Expired)
        );
    }

    #[test]
    fn a_rule_drives_the_planner_through_a_day_of_cameras() {
        let mut predictor = RulePredictor::new(Rule::new("sensors/motion", MS(200), 0.5).unwrap());
        let mut planner = PrewarmPlanner::new(BUDGET);
        for visit in 0..100_u64 {
            let at = MS(visit * 10_000);
            planner.expire(at);
            let forecast = predictor.observe("sensors/motion", &7, at).unwrap();
            assert!(matches!(planner.decide(&forecast, ByteSize::mib(2), at), Decision::Prewarm { .. }));
            // Every fourth motion is a cat: no frames follow.
            if visit % 4 != 0 {
                predictor.on_demand(&7, at + MS(210));
                assert_eq!(
                    planner.on_demand(&7, true, at + MS(210)),
                    Outcome::Hit { lead_achieved: MS(210) }
                );
            }
        }
        planner.expire(MS(2_000_000));
        let score = planner.score();
        assert_eq!((score.hits, score.wasted, score.misses), (75, 25, 0));
        assert_eq!((score.precision(), score.recall()), (Some(0.75), Some(1.0)));
        assert!((predictor.hit_rate().mean() - 0.75).abs() < 0.03);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Forecast { key: u32, mib: u64, in_ms: u64 },
        Demand { key: u32, warm: bool },
        Expire,
        Release { key: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..8_u32, 0..12_u64, 0..500_u64).prop_map(|(key, mib, in_ms)| Step::Forecast { key, mib, in_ms }),
            3 => (0..8_u32, any::<bool>()).prop_map(|(key, warm)| Step::Demand { key, warm }),
            2 => Just(Step::Expire),
            1 => (0..8_u32).prop_map(|key| Step::Release { key }),
        ]
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_each_prewarm_ends_once(
            steps in proptest::collection::vec((step(), 0..1_500_u64), 0..150),
        ) {
            let mut planner = PrewarmPlanner::new(BUDGET);
            let (mut now, mut begun) = (MS(0), 0);
            for (step, pause) in steps {
                now += MS(pause);
                match step {
                    Step::Forecast { key, mib, in_ms } => {
                        let was_held = planner.is_held(&key);
                        let decision = planner.decide(&forecast(key, now + MS(in_ms)), ByteSize::mib(mib), now);
                        if let Decision::Prewarm { until } = decision {
                            begun += 1;
                            prop_assert!(!was_held && until > now);
                        }
                    }
                    Step::Demand { key, warm } => {
                        let was_held = planner.is_held(&key);
                        let outcome = planner.on_demand(&key, warm, now);
                        let ended = matches!(outcome, Outcome::Hit { .. } | Outcome::Late);
                        prop_assert_eq!(ended, was_held);
                    }
                    Step::Expire => {
                        let wasted = planner.expire(now);
                        prop_assert!(wasted.iter().all(|key| !planner.is_held(key)));
                        prop_assert!(planner.next_expiry().is_none_or(|next| next > now));
                    }
                    Step::Release { key } => { planner.release(&key, now); }
                }
                let score = planner.score();
                prop_assert!(planner.held_bytes() <= BUDGET.max_bytes);
                prop_assert!(planner.held_actors() <= BUDGET.max_actors);
                prop_assert_eq!(planner.held_actors(), planner.by_end.len());
                let ended = score.hits + score.late + score.wasted + score.released;
                prop_assert_eq!(ended + planner.held_actors() as u64, begun);
            }
            for key in 0..8 {
                planner.release(&key, now);
            }
            prop_assert_eq!(planner.held_bytes(), ByteSize::ZERO);
        }
    }
}
