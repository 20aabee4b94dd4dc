//! All families of one silo: who is whose child, and what a failure means all the way up. Pure but for its lock and
//! the users' `#[on_child_failure]` functions, which run outside it.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quark_base::{ActorId, Entropy, Fault, Outcome, Retry};
use tokio::sync::Notify;

use super::family::{ChildStatus, Family, Plan, Ruling, Verdict};
use super::{CHILDREN_MAX, ChildFailure, Directive, FailureCause, Orphans, SuperviseSpec};
use crate::actor::ActorSpec;

/// What an actor type does about its children, and what the silo does about actors of the type without a parent.
#[derive(Clone, Copy)]
pub(crate) struct Supervisor {
    pub(crate) spec: SuperviseSpec,
    pub(crate) decide: Option<fn(&ChildFailure) -> Directive>,
    pub(crate) root: Option<SuperviseSpec>,
    /// The type itself, if its actors are stateless workers, who may have no children.
    pub(crate) stateless: Option<&'static ActorSpec>,
}

impl Supervisor {
    fn directive(&self, failure: &ChildFailure) -> Directive {
        let Some(decide) = self.decide else { return self.spec.directive(&failure.cause) };
        catch_unwind(AssertUnwindSafe(|| decide(failure))).unwrap_or_else(|_| {
            tracing::error!(%failure, "an #[on_child_failure] function panicked; the declared directive holds");
            self.spec.directive(&failure.cause)
        })
    }
}

/// Who is whose child on this silo. Bounded by [`CHILDREN_MAX`] per active parent, and by the active actors that
/// failed and whose type declares `root(…)`.
#[derive(Default)]
pub(crate) struct Supervision {
    /// Whether there is any family, for those who need not know more.
    used: AtomicBool,
    registry: Mutex<Registry>,
    /// Told when a restart that waits may have become pointless.
    revised: Notify,
}

#[derive(Default)]
struct Registry {
    households: HashMap<ActorId, Household>,
    parents: HashMap<ActorId, ActorId>,
    /// Families of one: actors that the silo supervises, from their first failure to the end of their activation.
    roots: HashMap<ActorId, Family>,
}

struct Household {
    supervisor: Supervisor,
    family: Family,
}

/// What follows a failure.
#[derive(Debug)]
pub(super) struct Consequences {
    /// For who failed.
    pub(super) verdict: Verdict,
    /// Who else must end.
    pub(super) close: Vec<ActorId>,
    /// The failure that nobody up to the root could mend.
    pub(super) unmended: Option<ChildFailure>,
}

impl Supervision {
    /// Whether anybody on the silo has a parent, or a restart behind it.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Whether `actor` is a child.
    pub(crate) fn has_parent(&self, actor: &ActorId) -> bool {
        self.is_used() && self.registry.lock().parents.contains_key(actor)
    }

    pub(super) fn adopt(
        &self,
        parent: &ActorId,
        supervisor: Supervisor,
        child: &ActorId,
    ) -> Result<(), SpawnError> {
        let mut registry = self.registry.lock();
        registry.adopt(parent, supervisor, child)?;
        self.note_use(&registry);
        Ok(())
    }

    /// Ends the relation of a child to its parent. False if there is none.
    pub(super) fn disown(&self, parent: &ActorId, child: &ActorId) -> bool {
        let mut registry = self.registry.lock();
        if registry.parents.get(child) != Some(parent) {
            return false;
        }
        registry.parents.remove(child);
        if let Some(household) = registry.households.get_mut(parent) {
            household.family.remove(child);
        }
        self.note_use(&registry);
        drop(registry);
        self.revise();
        true
    }

    /// Decides what follows `cause`. `None` if nobody supervises the actor; `root` is what its type says about that.
    /// `again` says that a restart failed, rather than a turn.
    pub(super) fn failed(
        &self,
        actor: &ActorId,
        cause: FailureCause,
        mut root: Option<SuperviseSpec>,
        mut again: bool,
        now: Duration,
        entropy: &dyn Entropy,
    ) -> Option<Consequences> {
        let mut failure = ChildFailure { child: actor.clone(), cause, restarts: 0 };
        let (mut close, mut own) = (Vec::new(), None);
        loop {
            let judged = self.judge(&mut failure, root, again, now, entropy.next_u64());
            let Some((ruling, up)) = judged else {
                // Nobody above: without a parent it ends, and its next message makes it afresh.
                let verdict = own?;
                close.push(failure.child.clone());
                return Some(Consequences { verdict, close, unmended: Some(failure) });
            };
            close.extend(ruling.others);
            if own.is_some() && ruling.verdict != Verdict::Resume {
                close.push(failure.child.clone());
            }
            let verdict = *own.get_or_insert(ruling.verdict);
            if ruling.verdict != Verdict::Escalate {
                return Some(Consequences { verdict, close, unmended: None });
            }
            let Some((parent, above)) = up else {
                return Some(Consequences { verdict, close, unmended: Some(failure) });
            };
            failure = ChildFailure {
                child: parent,
                cause: FailureCause::Escalated(Box::new(failure)),
                restarts: 0,
            };
            (root, again) = (above, false);
        }
    }

    /// What the supervisor of `failure.child` says, and who that is with what holds for it in turn.
    #[expect(clippy::type_complexity, reason = "one private answer")]
    fn judge(
        &self,
        failure: &mut ChildFailure,
        root: Option<SuperviseSpec>,
        again: bool,
        now: Duration,
        random: u64,
    ) -> Option<(Ruling, Option<(ActorId, Option<SuperviseSpec>)>)> {
        let mut registry = self.registry.lock();
        let (family, supervisor) = registry.family_of(&failure.child, root)?;
        failure.restarts = family.restarts(&failure.child, now);
        drop(registry);
        let mut directive = supervisor.directive(failure);
        if directive == Directive::Resume && matches!(failure.cause, FailureCause::Activation(_)) {
            directive = Directive::Restart;
        }
        let because = failure.to_string().into();
        let mut registry = self.registry.lock();
        let up = registry.parents.get(&failure.child).cloned();
        let (family, supervisor) = registry.family_of(&failure.child, root)?;
        let ruling = family.failed(&failure.child, directive, &because, again, now, random);
        self.note_use(&registry);
        // What is on its way out already goes on to its end.
        let ruling = ruling.unwrap_or(Ruling { verdict: Verdict::End, others: Vec::new() });
        Some((ruling, up.map(|parent| (parent, supervisor.root))))
    }

    /// The child takes calls again.
    pub(super) fn settled(&self, actor: &ActorId) {
        if let Some((family, _)) = self.registry.lock().family_of(actor, None) {
            family.settled(actor);
        }
    }

    /// What is to become of an actor whose activation ends.
    pub(super) fn plan(&self, actor: &ActorId) -> Plan {
        if !self.is_used() {
            return Plan::None;
        }
        let mut registry = self.registry.lock();
        registry.family_of(actor, None).map_or(Plan::None, |(family, _)| family.plan(actor))
    }

    /// Its parent, as far as it has one.
    pub(super) fn parent(&self, actor: &ActorId) -> Option<ActorId> {
        self.registry.lock().parents.get(actor).cloned()
    }

    /// The actor's activation is over; gives the children that must end with it. One that is `restarting` stays
    /// who it is to its own parent.
    pub(super) fn ended(&self, actor: &ActorId, restarting: bool) -> Vec<ActorId> {
        let mut registry = self.registry.lock();
        let household = registry.households.remove(actor);
        let mut close = Vec::new();
        if let Some(Household { family, .. }) = &household {
            for child in family.actors() {
                registry.parents.remove(child);
                if family.spec.orphans == Orphans::Stop {
                    close.push(child.clone());
                }
            }
        }
        if !restarting {
            registry.roots.remove(actor);
            if let Some((family, _)) = registry.family_of(actor, None) {
                family.settled(actor);
            }
        }
        self.note_use(&registry);
        drop(registry);
        if household.is_some() {
            self.revise();
        }
        close
    }

    pub(super) fn status(&self, parent: &ActorId, now: Duration) -> Vec<ChildStatus> {
        let mut registry = self.registry.lock();
        let household = registry.households.get_mut(parent);
        household.map_or_else(Vec::new, |household| household.family.status(now))
    }

    /// Lets restarts that wait look whether they are still wanted.
    pub(crate) fn revise(&self) {
        self.revised.notify_waiters();
    }

    pub(super) fn revised(&self) -> &Notify {
        &self.revised
    }

    fn note_use(&self, registry: &MutexGuard<'_, Registry>) {
        let used = !(registry.households.is_empty() && registry.roots.is_empty());
        self.used.store(used, Ordering::Release);
    }
}

impl Registry {
    fn adopt(&mut self, parent: &ActorId, supervisor: Supervisor, child: &ActorId) -> Result<(), SpawnError> {
        match self.parents.get(child) {
            Some(known) if known == parent => {}
            Some(other) => {
                return Err(SpawnError::HasParent { child: child.clone(), parent: other.clone() });
            }
            None => self.refuse_cycle(parent, child)?,
        }
        let new = || Household { supervisor, family: Family::new(supervisor.spec) };
        let household = self.households.entry(parent.clone()).or_insert_with(new);
        if household.family.len() >= CHILDREN_MAX && !self.parents.contains_key(child) {
            return Err(SpawnError::TooMany { parent: parent.clone() });
        }
        household.family.adopt(child.clone());
        self.parents.insert(child.clone(), parent.clone());
        // From here on its parent supervises it.
        self.roots.remove(child);
        Ok(())
    }

    fn refuse_cycle(&self, parent: &ActorId, child: &ActorId) -> Result<(), SpawnError> {
        let mut ancestor = Some(parent);
        while let Some(actor) = ancestor {
            if actor == child {
                return Err(SpawnError::Cycle { child: child.clone(), parent: parent.clone() });
            }
            ancestor = self.parents.get(actor);
        }
        Ok(())
    }

    /// The family that the actor is a child of: its parent's, or one of its own if `root` says that it has one.
    fn family_of(
        &mut self,
        actor: &ActorId,
        root: Option<SuperviseSpec>,
    ) -> Option<(&mut Family, Supervisor)> {
        if let Some(parent) = self.parents.get(actor) {
            let household = self.households.get_mut(parent)?;
            return Some((&mut household.family, household.supervisor));
        }
        if let Some(spec) = root
            && !self.roots.contains_key(actor)
        {
            let mut alone = Family::new(spec);
            alone.adopt(actor.clone());
            self.roots.insert(actor.clone(), alone);
        }
        let family = self.roots.get_mut(actor)?;
        let supervisor = Supervisor { spec: family.spec, decide: None, root: None, stateless: None };
        Some((family, supervisor))
    }
}

impl fmt::Debug for Supervision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registry = self.registry.lock();
        f.debug_struct("Supervision")
            .field("parents", &registry.households.len())
            .field("children", &registry.parents.len())
            .finish_non_exhaustive()
    }
}

/// Why an actor did not become a child. Nothing has changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// This silo hosts no such actor type.
    #[error(
        "no silo hosts actors of type {}; add `.host::<{}>()` to the silo's builder", .0.name, .0.rust_type
    )]
    NotHosted(&'static ActorSpec),
    /// Stateless workers are several behind one key, which is nobody's parent or child.
    #[error("{} is a type of stateless workers, which are nobody's parents or children; call them instead", .0.name)]
    Stateless(&'static ActorSpec),
    /// The silo is shutting down.
    #[error("{0} was not spawned: the silo is draining")]
    Draining(ActorId),
    /// The actor is somebody else's child.
    #[error("{child} is a child of {parent} already; call it instead")]
    HasParent {
        /// Who was to be spawned.
        child: ActorId,
        /// Whose child it is.
        parent: ActorId,
    },
    /// The actor is the parent itself, or one above it.
    #[error("{parent} cannot be the parent of {child}, which is above it")]
    Cycle {
        /// Who was to be spawned.
        child: ActorId,
        /// Who wanted to.
        parent: ActorId,
    },
    /// The parent has as many children as one may have.
    #[error("{parent} has {CHILDREN_MAX} children, the most that one may have; stop some, or spread them")]
    TooMany {
        /// The parent.
        parent: ActorId,
    },
}

impl Fault for SpawnError {
    fn outcome(&self) -> Outcome {
        Outcome::Rejected
    }

    fn retry(&self) -> Retry {
        match self {
            SpawnError::Draining(_) => Retry::Safe,
            _ => Retry::Pointless,
        }
    }
}
