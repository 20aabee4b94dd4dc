//! Prewarming: the shell around [`quark_predictive`]. Stream events go in, activations ahead of time come out,
//! and what really happened is fed back.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quark_base::{ActorId, ByteSize, Clock, Key};
use quark_predictive::{Decision, Outcome, PrewarmBudget, PrewarmPlanner, Rule, RulePredictor, Score};

use crate::actor::ActorSpec;

/// Watches streams for the actor types that declared `prewarm(…)`.
pub(crate) struct Prewarmer {
    clock: Arc<dyn Clock>,
    enabled: bool,
    /// Which rules listen to which stream namespace, and which belong to which actor type. Out of the lock, so that
    /// publishers whose streams no rule listens to do not meet there.
    by_stream: HashMap<&'static str, Vec<usize>>,
    by_type: HashMap<&'static str, Vec<usize>>,
    state: Mutex<State>,
}

struct State {
    rules: Vec<Watch>,
    planner: PrewarmPlanner<ActorId>,
}

struct Watch {
    actor_type: &'static str,
    bytes: ByteSize,
    predictor: RulePredictor<Key>,
}

impl Prewarmer {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        enabled: bool,
        budget: PrewarmBudget,
        specs: impl Iterator<Item = ActorSpec>,
        has_devices: bool,
    ) -> Result<Self, quark_predictive::RuleError> {
        let mut state = State { rules: Vec::new(), planner: PrewarmPlanner::new(budget) };
        let (mut by_stream, mut by_type) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for spec in specs {
            for declared in spec.prewarm {
                let rule = Rule::new(declared.stream, declared.lead, declared.confidence as f32)?;
                let index = state.rules.len();
                // Without a device an optional actor runs on the CPU and holds none of its memory.
                let bytes = spec.gpu.filter(|_| has_devices).map_or(ByteSize::ZERO, |need| need.vram);
                let predictor = RulePredictor::new(rule);
                state.rules.push(Watch { actor_type: spec.name, bytes, predictor });
                by_stream.entry(declared.stream).or_default().push(index);
                by_type.entry(spec.name).or_default().push(index);
            }
        }
        Ok(Self { clock, enabled, by_stream, by_type, state: Mutex::new(state) })
    }

    /// Whether a type declared that it watches this namespace, also while prewarming is switched off: that is no
    /// reason to refuse a publisher.
    pub(crate) fn watches(&self, namespace: &str) -> bool {
        self.by_stream.contains_key(namespace)
    }

    /// Takes in an event on `namespace` with `key`; gives the actors to warm now. Those that `is_active` need no
    /// warming and hold no budget; their next message tells whether the rule held.
    pub(crate) fn on_event(
        &self,
        namespace: &str,
        key: &Key,
        is_active: impl Fn(&ActorId) -> bool,
    ) -> Vec<ActorId> {
        if !self.enabled {
            return Vec::new();
        }
        let Some(listening) = self.by_stream.get(namespace) else { return Vec::new() };
        let now = self.clock.now();
        let mut state = self.state.lock();
        let State { rules, planner } = &mut *state;
        let mut warm = Vec::new();
        for &index in listening {
            let Watch { actor_type, bytes, predictor } = &mut rules[index];
            let Some(forecast) = predictor.observe(namespace, key, now) else { continue };
            let actor = ActorId { actor_type, key: forecast.key.clone() };
            if is_active(&actor) {
                continue;
            }
            let forecast = quark_predictive::Forecast {
                key: actor.clone(),
                expected_at: forecast.expected_at,
                confidence: forecast.confidence,
                confidence_upper: forecast.confidence_upper,
                declared: forecast.declared,
                expires_at: forecast.expires_at,
            };
            match planner.decide(&forecast, *bytes, now) {
                Decision::Prewarm { .. } => warm.push(actor),
                Decision::Skip(reason) => tracing::debug!(%actor, %reason, "not prewarmed"),
            }
        }
        warm
    }

    /// A message has come for `actor`: the first to a cold actor, to one being activated, or to a prewarmed one.
    pub(crate) fn on_demand(&self, actor: &ActorId, ready: bool) {
        let Some(own) = self.by_type.get(actor.actor_type) else { return };
        let now = self.clock.now();
        let mut state = self.state.lock();
        let State { rules, planner } = &mut *state;
        for &index in own {
            rules[index].predictor.on_demand(&actor.key, now);
        }
        match planner.on_demand(actor, ready, now) {
            Outcome::Hit { lead_achieved } => tracing::debug!(%actor, ?lead_achieved, "prewarm hit"),
            outcome => tracing::debug!(%actor, ?outcome, "demand"),
        }
    }

    /// A prewarm ended without a message because its activation failed.
    pub(crate) fn activation_failed(&self, actor: &ActorId) {
        let now = self.clock.now();
        self.state.lock().planner.release(actor, now);
    }

    /// Gives the prewarmed actors that nobody called in time.
    pub(crate) fn expire(&self) -> Vec<ActorId> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        for watch in &mut state.rules {
            watch.predictor.expire(now);
        }
        state.planner.expire(now)
    }

    /// Whether anything may have to be ended in time.
    pub(crate) fn is_used(&self) -> bool {
        self.enabled && !self.state.lock().rules.is_empty()
    }

    /// How prewarming has done so far.
    pub(crate) fn score(&self) -> Score {
        self.state.lock().planner.score()
    }
}
