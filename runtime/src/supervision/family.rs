//! One parent's children and what a failure of one of them means for all: pure, with `now` and chance as arguments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quark_base::ActorId;

use super::{Directive, Strategy, SuperviseSpec};

/// Where a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// It takes calls.
    Active,
    /// It was deactivated by itself, idle for instance; its next message activates it.
    Idle,
    /// It failed, or a sibling did, and is being made afresh. Times are of the silo's clock.
    Restarting {
        /// When that was decided.
        since: Duration,
        /// When its backoff is over.
        until: Duration,
    },
    /// Its supervisor stopped it; calls are refused.
    Stopped {
        /// Since when.
        since: Duration,
    },
}

/// A child as its parent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// Who it is.
    pub actor: ActorId,
    /// Where it is.
    pub state: ChildState,
    /// How often it was restarted within the window because it failed itself.
    pub restarts: u32,
}

/// What is to become of a child when its activation ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: it may come back by its next message.
    None,
    Restart {
        until: Duration,
    },
    Stop {
        because: Arc<str>,
    },
}

/// What a failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    pub(super) verdict: Verdict,
    /// Siblings that share the child's lot.
    pub(super) others: Vec<ActorId>,
}

/// What a failure means for who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on as it is.
    Resume,
    /// It ends; its plan says what then.
    End,
    /// It ends, and its parent has failed.
    Escalate,
}

/// The children of one parent, in the order they were spawned.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) spec: SuperviseSpec,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    actor: ActorId,
    state: State,
    /// When it was restarted for failures of its own; at most as many as the limit.
    restarts: VecDeque<Duration>,
}

#[derive(Clone, Debug)]
enum State {
    Well,
    Restarting { since: Duration, until: Duration },
    Stopped { since: Duration, because: Arc<str> },
}

impl Family {
    pub(super) fn new(spec: SuperviseSpec) -> Self {
        Self { spec, children: Vec::new() }
    }

    /// Adds a child, or brings one back that was stopped, with its restarts forgotten.
    pub(super) fn adopt(&mut self, actor: ActorId) {
        match self.child(&actor) {
            Some(child) if matches!(child.state, State::Stopped { .. }) => {
                child.state = State::Well;
                child.restarts.clear();
            }
            Some(_) => {}
            None => self.children.push(Child { actor, state: State::Well, restarts: VecDeque::new() }),
        }
    }

    pub(super) fn remove(&mut self, actor: &ActorId) {
        self.children.retain(|child| child.actor != *actor);
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    pub(super) fn actors(&self) -> impl Iterator<Item = &ActorId> {
        self.children.iter().map(|child| &child.actor)
    }

    /// A child failed while `directive` holds. `None` if that is no news: it is on its way out already.
    ///
    /// `again` says that a restart failed, rather than a turn beside the one that is the reason for it.
    pub(super) fn failed(
        &mut self,
        actor: &ActorId,
        directive: Directive,
        because: &Arc<str>,
        again: bool,
        now: Duration,
        random: u64,
    ) -> Option<Ruling> {
        let Self { spec, children } = self;
        let at = children.iter().position(|child| child.actor == *actor)?;
        let child = &mut children[at];
        match child.state {
            State::Stopped { .. } => return None,
            State::Restarting { .. } if !again => return None,
            _ => {}
        }
        let directive = match directive {
            Directive::Restart => child.count_restart(spec, now),
            other => other,
        };
        let (verdict, state) = match directive {
            Directive::Resume => return Some(Ruling { verdict: Verdict::Resume, others: Vec::new() }),
            Directive::Restart => {
                let attempt = child.restarts.len().saturating_sub(1) as u32;
                let until = now.saturating_add(spec.backoff.delay(attempt, random));
                (Verdict::End, State::Restarting { since: now, until })
            }
            Directive::Stop => (Verdict::End, State::Stopped { since: now, because: because.clone() }),
            Directive::Escalate => {
                (Verdict::Escalate, State::Stopped { since: now, because: because.clone() })
            }
        };
        child.state = state.clone();
        let touched = match spec.strategy {
            Strategy::OneForOne => at..at,
            Strategy::AllForOne => 0..children.len(),
            Strategy::RestForOne => at..children.len(),
        };
        let mut others = Vec::new();
        for (index, sibling) in children.iter_mut().enumerate() {
            if index != at && touched.contains(&index) && matches!(sibling.state, State::Well) {
                sibling.state = state.clone();
                others.push(sibling.actor.clone());
            }
        }
        Some(Ruling { verdict, others })
    }

    /// How often the child was restarted within the window.
    pub(super) fn restarts(&mut self, actor: &ActorId, now: Duration) -> u32 {
        let within = self.spec.within;
        self.child(actor).map_or(0, |child| child.restarts_within(within, now))
    }

    /// The child takes calls again, or its activation ended.
    pub(super) fn settled(&mut self, actor: &ActorId) {
        if let Some(child) = self.child(actor)
            && matches!(child.state, State::Restarting { .. })
        {
            child.state = State::Well;
        }
    }

    pub(super) fn plan(&self, actor: &ActorId) -> Plan {
        match self.children.iter().find(|child| child.actor == *actor).map(|child| &child.state) {
            Some(&State::Restarting { until, .. }) => Plan::Restart { until },
            Some(State::Stopped { because, .. }) => Plan::Stop { because: because.clone() },
            Some(State::Well) | None => Plan::None,
        }
    }

    pub(super) fn status(&mut self, now: Duration) -> Vec<ChildStatus> {
        let within = self.spec.within;
        let status = |child: &mut Child| {
            let state = match child.state {
                State::Well => ChildState::Active,
                State::Restarting { since, until } => ChildState::Restarting { since, until },
                State::Stopped { since, .. } => ChildState::Stopped { since },
            };
            let restarts = child.restarts_within(within, now);
            ChildStatus { actor: child.actor.clone(), state, restarts }
        };
        self.children.iter_mut().map(status).collect()
    }

    fn child(&mut self, actor: &ActorId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.actor == *actor)
    }
}

impl Child {
    /// Counts one more restart, if the limit allows for it; else the failure escalates.
    fn count_restart(&mut self, spec: &SuperviseSpec, now: Duration) -> Directive {
        if self.restarts_within(spec.within, now) >= spec.max_restarts {
            return Directive::Escalate;
        }
        self.restarts.push_back(now);
        Directive::Restart
    }

    fn restarts_within(&mut self, within: Duration, now: Duration) -> u32 {
        self.restarts.retain(|&at| now.saturating_sub(at) < within);
        self.restarts.len() as u32
    }
}
