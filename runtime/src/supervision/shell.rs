//! Does what supervision decides: ends activations, restarts them, and says what happened.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quark_base::{ActorId, Key};

use super::family::{ChildState, ChildStatus, Plan, Verdict};
use super::registry::{Consequences, SpawnError, Supervisor};
use super::{FailureCause, Halted};
use crate::activation;
use crate::actor::{Actor, DeactivationReason};
use crate::dead_letters::{DeadCause, Past};
use crate::error::{ActivationError, CallError, Panicked};
use crate::grid::Hosts;
use crate::host::Host;
use crate::turn::{AnySlot, Resident, Slot};

/// What the type does about its children.
pub(crate) fn supervisor_of<A: Actor>() -> Supervisor {
    Supervisor {
        spec: A::SPEC.supervise.unwrap_or_default(),
        decide: A::ON_CHILD_FAILURE.then_some(A::on_child_failure),
        root: A::SPEC.root,
        stateless: const { if A::SPEC.workers.is_some() { Some(&A::SPEC) } else { None } },
    }
}

/// A turn panicked, and still holds its part of the actor: decides whether the actor may take another one.
/// `has_letter` says that the message has a dead letter already.
pub(crate) fn turn_panicked<A: Actor>(slot: &Slot<A>, details: &Panicked, has_letter: bool) {
    let Some(consequences) = failed(slot, FailureCause::Panicked(Box::new(details.clone())), false) else {
        return slot.request_deactivation(DeactivationReason::Panicked);
    };
    if !has_letter {
        let cause = DeadCause::Call(CallError::Panicked(Box::new(details.clone())));
        slot.host.bury(&slot.key, details.method, cause, Past::asked(), None);
    }
    if consequences.verdict != Verdict::Resume {
        slot.request_deactivation(DeactivationReason::Panicked);
    }
    conclude(&slot.host, consequences);
}

/// An activation failed. Gives when it is to be tried again, if its supervisor wants that.
pub(crate) fn activation_failed<A: Actor>(slot: &Slot<A>, error: &Arc<ActivationError>) -> Option<Duration> {
    let consequences = failed(slot, FailureCause::Activation(error.clone()), true)?;
    conclude(&slot.host, consequences);
    match slot.host.services.supervision.plan(&slot.actor_id()) {
        Plan::Restart { until } => Some(until),
        Plan::Stop { .. } | Plan::None => None,
    }
}

fn failed<A: Actor>(slot: &Slot<A>, cause: FailureCause, again: bool) -> Option<Consequences> {
    let services = &slot.host.services;
    if A::SPEC.root.is_none() && !services.supervision.is_used() {
        return None;
    }
    let (now, entropy) = (services.clock.now(), &*services.entropy);
    services.supervision.failed(&slot.actor_id(), cause, A::SPEC.root, again, now, entropy)
}

/// Ends who must end for somebody else's failure.
fn conclude<A: Actor>(host: &Host<A>, consequences: Consequences) {
    if let Some(failure) = &consequences.unmended {
        tracing::error!(%failure, "a failure escalated out of its supervision tree; who it reached is deactivated");
    }
    close(host, consequences.close);
}

fn close<A: Actor>(host: &Host<A>, actors: Vec<ActorId>) {
    if actors.is_empty() {
        return;
    }
    let Some(hosts) = host.hosts() else { return };
    for actor in actors {
        close_one(&hosts, &actor);
    }
}

fn close_one(hosts: &Hosts, actor: &ActorId) {
    if let Some(host) = hosts.named(actor.actor_type) {
        host.close(&actor.key, DeactivationReason::Supervision);
    }
}

/// What is to follow an activation that ends.
pub(crate) enum Next {
    /// The slot becomes vacant.
    Vacancy,
    /// The same, and what waits is refused.
    Halt(Halted),
    /// A fresh actor in the same place, at that time.
    Restart(Duration),
}

/// What is to follow the end of an activation.
pub(crate) fn next<A: Actor>(slot: &Slot<A>) -> Next {
    let supervision = &slot.host.services.supervision;
    if !supervision.is_used() {
        return Next::Vacancy;
    }
    let actor = slot.actor_id();
    match supervision.plan(&actor) {
        _ if slot.host.is_draining() => Next::Vacancy,
        Plan::None => Next::Vacancy,
        Plan::Restart { until } => Next::Restart(until),
        Plan::Stop { because } => Next::Halt(Halted { by: supervision.parent(&actor), actor, because }),
    }
}

/// Why a new activation is refused: its supervisor stopped the actor.
pub(crate) fn refusal<A: Actor>(slot: &Slot<A>) -> Option<Halted> {
    match next(slot) {
        Next::Halt(halted) => Some(halted),
        Next::Vacancy | Next::Restart(_) => None,
    }
}

/// The actor of an activation is ready for its turns.
pub(crate) fn activated<A: Actor>(slot: &Slot<A>) {
    let supervision = &slot.host.services.supervision;
    // One that a sibling's failure asks to go at once is restarted still.
    if supervision.is_used() && !slot.word.snapshot().wants_close() {
        supervision.settled(&slot.actor_id());
    }
}

/// An activation is over: its children lose their parent.
pub(crate) fn ended<A: Actor>(slot: &Slot<A>) {
    orphan(slot, false);
}

fn orphan<A: Actor>(slot: &Slot<A>, restarting: bool) {
    let supervision = &slot.host.services.supervision;
    if supervision.is_used() {
        close(&slot.host, supervision.ended(&slot.actor_id(), restarting));
    }
}

/// Makes the actor afresh in its place once its backoff is over. Messages wait in the mailbox meanwhile.
pub(crate) fn restart<A: Actor>(mut resident: Resident<A>, until: Duration) {
    resident.begin_again();
    orphan(&resident.slot, true);
    let lanes = resident.slot.host.services.lanes.handle.clone();
    lanes.spawn(async move {
        if backoff_is_over(&resident.slot, until).await {
            activation::load(resident).await;
        } else {
            activation::finish(resident, None);
        }
    });
}

/// Waits for a restart's time. False if it is no longer wanted: the silo is draining, or the parent has gone.
async fn backoff_is_over<A: Actor>(slot: &Arc<Slot<A>>, until: Duration) -> bool {
    let supervision = &slot.host.services.supervision;
    let mut sleep = pin!(slot.node_executor().timers().sleep_until(until));
    loop {
        let mut revised = pin!(supervision.revised().notified());
        revised.as_mut().enable();
        if !matches!(next(slot), Next::Restart(_)) {
            return false;
        }
        tokio::select! {
            biased;
            () = &mut sleep => return true,
            () = revised => {}
        }
    }
}

/// Makes `child` a child of the running actor, and activates it.
pub(crate) fn adopt<B: Actor>(parent: &dyn AnySlot, child: &Arc<Slot<B>>) -> Result<(), SpawnError> {
    let services = &child.host.services;
    if services.is_draining() {
        return Err(SpawnError::Draining(child.actor_id()));
    }
    let supervisor = parent.supervisor();
    if let Some(stateless) = supervisor.stateless.or(supervisor_of::<B>().stateless) {
        return Err(SpawnError::Stateless(stateless));
    }
    services.supervision.adopt(&parent.id(), supervisor, &child.actor_id())?;
    child.touch();
    child.activate_if_vacant();
    Ok(())
}

/// Ends a child of `parent`. False if it is none.
pub(crate) fn dismiss<B: Actor>(parent: &ActorId, child: &Slot<B>) -> bool {
    let disowned = child.host.services.supervision.disown(parent, &child.actor_id());
    if disowned {
        child.request_deactivation(DeactivationReason::Supervision);
    }
    disowned
}

/// The children of an actor, in the order they were spawned.
pub(crate) fn children(hosts: &Hosts, parent: &ActorId) -> Vec<ChildStatus> {
    let Some(services) = &hosts.services else { return Vec::new() };
    let mut all = services.supervision.status(parent, services.clock.now());
    for child in &mut all {
        if child.state == ChildState::Active && !is_live(hosts, &child.actor) {
            child.state = ChildState::Idle;
        }
    }
    all
}

/// Whether an actor has children that are in use, so that it should not go either.
pub(crate) fn has_live_children<A: Actor>(host: &Host<A>, key: &Key) -> bool {
    let supervision = &host.services.supervision;
    if !supervision.is_used() {
        return false;
    }
    let parent = ActorId { actor_type: A::SPEC.name, key: key.clone() };
    let Some(hosts) = host.hosts() else { return false };
    let children = supervision.status(&parent, host.services.clock.now());
    children.iter().any(|child| is_live(&hosts, &child.actor))
}

fn is_live(hosts: &Hosts, actor: &ActorId) -> bool {
    hosts.named(actor.actor_type).is_some_and(|host| host.is_live(&actor.key))
}
