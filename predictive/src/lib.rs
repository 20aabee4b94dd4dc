//! Guessing what will be asked for next, and deciding what to warm for it.
//!
//! What belongs here: plain state machines that are told what happened and when, and answer with forecasts and
//! decisions. What does not: clocks (every `now` is a `Duration` since one origin that the caller keeps), tasks,
//! activating an actor, holding memory. The runtime does those and tells this crate how they went.
//!
//! - [`history`]: what has been seen per stream and key, bounded
//! - [`rule`]: [`RulePredictor`], a declared "an event here means a demand there", measured as it runs
//! - [`forecast`]: [`Forecast`], what a predictor says
//! - [`planner`]: [`PrewarmPlanner`], which forecasts are worth their memory under a [`PrewarmBudget`]
//! - [`score`]: [`Score`], whether it was worth it: hits, misses, waste, precision, recall

pub mod forecast;
pub mod history;
pub mod planner;
pub mod rule;
pub mod score;

pub use forecast::Forecast;
pub use history::History;
pub use planner::{Decision, Outcome, PrewarmBudget, PrewarmPlanner, SkipReason};
pub use rule::{HitRate, Rule, RuleError, RulePredictor};
pub use score::Score;
