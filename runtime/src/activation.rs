//! How actors come to life and leave it.
//!
//! An activation that needs nothing but a constructor happens on the spot. Any other runs on the load lane:
//! a device is chosen and leased, the actor is made, its `#[on_activate]` runs under the type's limit. Messages
//! that arrive meanwhile wait; all of them get the same error if it fails, and nothing of the attempt is left.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use quark_devices::lease::DeviceLease;
use quark_devices::pool::LeaseError;
use quark_placement::{DeviceHint, GpuNeed, NoDevice, choose_device};

use crate::actor::{Actor, DeactivationReason, HookError};
use crate::chain::ChainLink;
use crate::context::Cx;
use crate::error::{ActivationCause, ActivationError, CallError, Failure};
use crate::guards::Outlook;
use crate::host::Host;
use crate::reminders::{Reminders, any_declared};
use crate::services::Services;
use crate::store::Address;
use crate::supervision::{self, Halted, Next};
use crate::turn::block::{panic_message, with_local};
use crate::turn::{AnySlot, Executor, Resident};

/// Times a lease is tried again because somebody else took the memory between choice and grant.
const LEASE_TRIES: u32 = 8;

/// How long an activation waits for memory that others are asked to give back.
const EVICTION_PATIENCE: Duration = Duration::from_secs(5);

/// Begins the activation of a slot that is `Activating`.
pub(crate) fn start<A: Actor>(mut resident: Resident<A>) {
    let host = resident.slot.host.clone();
    host.services.activation_begins();
    if let Some(halted) = supervision::refusal(&resident.slot) {
        return finish(resident, Some(halted));
    }
    if host.activates_instantly() {
        match host.create(&resident.slot.key) {
            Ok(actor) => {
                resident.fill(actor);
                settle(resident, None);
            }
            Err(cause) => fail(resident, cause),
        }
        return;
    }
    let lanes = host.services.lanes.handle.clone();
    lanes.spawn(load(resident));
}

/// Makes the actor and lets it take its turns. On the load lane.
pub(crate) async fn load<A: Actor>(mut resident: Resident<A>) {
    let mut stopped = resident.slot.host.services.stop_signal.subscribe();
    let made = tokio::select! {
        biased;
        _ = stopped.wait_for(|stopped| *stopped) => Err(ActivationCause::Stopping),
        made = make(&mut resident) => made,
    };
    match made {
        Ok(executor) => settle(resident, executor),
        Err(cause) => fail(resident, cause),
    }
}

fn settle<A: Actor>(resident: Resident<A>, executor: Option<Arc<Executor>>) {
    supervision::activated(&resident.slot);
    resident.settle_active(executor);
}

fn fail<A: Actor>(resident: Resident<A>, cause: ActivationCause) {
    let host = resident.slot.host.clone();
    let error = Arc::new(host.activation_error(&resident.slot.key, cause));
    tracing::warn!(%error, "activation failed");
    note_failure(&host, &error.cause);
    host.services.prewarmer.activation_failed(&resident.slot.actor_id());
    if !matches!(error.cause, ActivationCause::Stopping)
        && let Some(until) = supervision::activation_failed(&resident.slot, &error)
    {
        return supervision::restart(resident, until);
    }
    if let Some(halted) = supervision::refusal(&resident.slot) {
        return finish(resident, Some(halted));
    }
    supervision::ended(&resident.slot);
    resident.slot.word.end_watch();
    if let Some(lease) = &resident.slot.mailbox().extra().lease {
        host.services.tenants.leave(lease.id());
    }
    resident.settle_vacant(Some(&|| failure_of(&error)));
    host.services.activation_ends();
}

/// Tells the type's breaker. A missing device or a stopping silo is no fault of the type's.
pub(crate) fn note_failure<A: Actor>(host: &Host<A>, cause: &ActivationCause) {
    if !matches!(cause, ActivationCause::NoDevice(_) | ActivationCause::Stopping) {
        host.note_end(Outlook::Failed);
    }
}

/// What a caller hears of a failed activation.
pub(crate) fn failure_of(error: &Arc<ActivationError>) -> Failure {
    match &error.cause {
        ActivationCause::NoDevice(lacks) => CallError::NoDevice(lacks.clone()),
        ActivationCause::Stopping => CallError::Draining(Box::new(error.actor.clone())),
        _ => CallError::Activation(error.clone()),
    }
}

/// Gives the executor that the actor is bound to, if it is.
async fn make<A: Actor>(resident: &mut Resident<A>) -> Result<Option<Arc<Executor>>, ActivationCause> {
    let host = resident.slot.host.clone();
    let services = &host.services;
    let mut lane = None;
    let mut executor = None;
    if let Some(need) = &host.spec.gpu {
        // A restart keeps the lease that it finds.
        let kept = resident.slot.mailbox().extra().lease.clone();
        let leased = match kept {
            Some(lease) => Ok(lease),
            None => lease(resident, need).await.map(Arc::new),
        };
        match leased {
            Ok(lease) => {
                let device = lease.device().id.clone();
                lane = services.lanes.of(&device);
                executor = services.device_executors.get(&device).cloned();
                services.tenants.enter(lease.id(), resident.slot.clone());
                resident.slot.mailbox().extra().lease = Some(lease);
            }
            Err(ActivationCause::NoDevice(lacks)) if need.optional => {
                resident.slot.mailbox().extra().no_device = Some(lacks);
            }
            Err(cause) => return Err(cause),
        }
    }
    let _permit = match &lane {
        Some(lane) => Some(lane.acquire().await.map_err(|_| ActivationCause::Stopping)?),
        None => None,
    };
    let actor = host.create(&resident.slot.key)?;
    resident.fill(actor);
    let limit = host.spec.activation_limit;
    let timers = resident.slot.node_executor().timers().clone();
    let begun = timers.now();
    if const { !A::PARTS.is_empty() } {
        let slot: Arc<dyn AnySlot> = resident.slot.clone();
        let Some(actor) = resident.actor() else { return Err(ActivationCause::Stopping) };
        // Reading what is stored runs code of the user's types.
        let load = AssertUnwindSafe(async { actor.kept().load(&slot).await }).catch_unwind();
        match timers.timeout(limit, load).await {
            Ok(Ok(loaded)) => loaded.map_err(ActivationCause::State)?,
            Ok(Err(payload)) => return Err(ActivationCause::Panicked(panic_message(payload))),
            Err(_) => return Err(ActivationCause::TimedOut(limit)),
        }
    }
    if const { any_declared(A::REMINDERS) } {
        let left = limit.saturating_sub(timers.now().saturating_sub(begun));
        let actor = Address::from(&resident.slot.actor_id());
        let reminders = Reminders::new(services, actor, A::REMINDERS, A::SPEC.reminders);
        match timers.timeout(left, reminders.ensure_declared()).await {
            Ok(set) => set.map_err(ActivationCause::Reminders)?,
            Err(_) => return Err(ActivationCause::TimedOut(limit)),
        }
    }
    if !A::ON_ACTIVATE {
        return Ok(executor);
    }
    let cx = Cx::of_hook(resident.slot.clone());
    let slot = resident.slot.clone();
    let Some(actor) = resident.actor() else { return Err(ActivationCause::Stopping) };
    let left = limit.saturating_sub(timers.now().saturating_sub(begun));
    match timers.timeout(left, contained(slot, actor.on_activate(&cx))).await {
        Ok(Ok(Ok(()))) => {
            if let Ok(lease) = cx.device() {
                lease.set_reload_cost(timers.now().saturating_sub(begun));
            }
            Ok(executor)
        }
        Ok(Ok(Err(error))) => Err(ActivationCause::Failed(error)),
        Ok(Err(panic)) => Err(ActivationCause::Panicked(panic)),
        Err(_) => Err(ActivationCause::TimedOut(limit)),
    }
}

/// Chooses a device and leases the declared memory of it. When only memory is missing, idle actors are asked to
/// give theirs back, cheapest first, and their memory is waited for.
async fn lease<A: Actor>(resident: &Resident<A>, need: &GpuNeed) -> Result<DeviceLease, ActivationCause> {
    let services = &resident.slot.host.services;
    let timers = resident.slot.node_executor().timers();
    let pool = &services.devices;
    let owner = resident.slot.actor_id().to_string();
    let hint = DeviceHint {
        api: services.api,
        allow_simulated: services.allow_simulated,
        leasable_only: true,
        ..DeviceHint::default()
    };
    let mut last = None;
    for _ in 0..LEASE_TRIES {
        // Asked for before the look at the books, so that memory freed in between is not missed.
        let freed = pool.memory_freed();
        match choose_device(pool.inventory(), &pool.usage(), need, &hint) {
            Ok(chosen) => match pool.lease(&chosen.device, need.vram, &owner, Duration::ZERO) {
                Ok(lease) => return Ok(lease),
                Err(error @ LeaseError::Shortfall(_)) => last = Some(ActivationCause::Lease(Box::new(error))),
                Err(error) => return Err(ActivationCause::Lease(Box::new(error))),
            },
            Err(lacks) => {
                let evicting = evict(resident, &lacks);
                last = Some(ActivationCause::NoDevice(Arc::new(lacks)));
                if !evicting || timers.timeout(EVICTION_PATIENCE, freed).await.is_err() {
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or(ActivationCause::Stopping))
}

/// Asks the cheapest idle owners of a full device to give their memory back. False if nobody can.
fn evict<A: Actor>(resident: &Resident<A>, lacks: &NoDevice) -> bool {
    let services = &resident.slot.host.services;
    let _busy = services.tenants.pin_busy();
    lacks.full_devices().any(|device| {
        let victims = services.devices.victims(device, lacks.need.vram);
        victims.into_iter().filter(|&lease| services.tenants.evict(lease)).count() > 0
    })
}

/// Ends an activation that is `Deactivating`.
pub(crate) fn end<A: Actor>(mut resident: Resident<A>, why: DeactivationReason) {
    resident.slot.end_timers();
    let host = resident.slot.host.clone();
    // After a panic the state may be torn, so the actor's own code does not see it again.
    let hook = A::ON_DEACTIVATE && why != DeactivationReason::Panicked;
    let behind = match resident.actor() {
        Some(actor) if const { !A::PARTS.is_empty() } => actor.kept().behind(),
        _ => Vec::new(),
    };
    if !hook && behind.is_empty() {
        return conclude(resident);
    }
    let limit = host.spec.activation_limit;
    let executor = resident.slot.node_executor().clone();
    let leaving = Leaving::begin(&host.services);
    executor.handle().clone().spawn(async move {
        let _leaving = leaving;
        let slot = resident.slot.clone();
        let cx = Cx::of_hook(slot.clone());
        if let Some(actor) = resident.actor().filter(|_| hook) {
            let ended = contained(slot.clone(), actor.on_deactivate(&cx, why));
            let ended = executor.timers().timeout(limit, ended).await;
            let actor = resident.slot.actor_id();
            match ended {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::warn!(%actor, %error, "on_deactivate failed"),
                Ok(Err(panic)) => tracing::error!(%actor, %panic, "on_deactivate panicked"),
                Err(_) => tracing::warn!(%actor, ?limit, "on_deactivate took too long and was dropped"),
            }
        }
        drop(cx);
        // Last, as the hook may have saved something. What a save has acknowledged is whole, also after a panic.
        for part in behind {
            match executor.timers().timeout(limit, part.flush_patiently()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(actor = %slot.actor_id(), %error, "a last save was lost"),
                Err(_) => tracing::error!(actor = %slot.actor_id(), ?limit, "a last save took too long"),
            }
        }
        conclude(resident);
    });
}

/// The actor has said its last word: what follows is up to its supervisor.
fn conclude<A: Actor>(resident: Resident<A>) {
    match supervision::next(&resident.slot) {
        Next::Restart(until) => supervision::restart(resident, until),
        Next::Halt(halted) => finish(resident, Some(halted)),
        Next::Vacancy => finish(resident, None),
    }
}

/// An actor that takes its time to leave. It is still there, but no longer one that is too many.
struct Leaving(Arc<Services>);

impl Leaving {
    fn begin(services: &Arc<Services>) -> Self {
        services.leaving.fetch_add(1, Ordering::AcqRel);
        Self(services.clone())
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leaving.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Leaves the slot vacant. What waits is refused if a supervisor `halted` the actor.
pub(crate) fn finish<A: Actor>(resident: Resident<A>, halted: Option<Halted>) {
    let (slot, host) = (resident.slot.clone(), resident.slot.host.clone());
    supervision::ended(&slot);
    slot.word.end_watch();
    if let Some(lease) = &slot.mailbox().extra().lease {
        host.services.tenants.leave(lease.id());
    }
    if host.is_draining() {
        let actor = slot.actor_id();
        resident.settle_vacant(Some(&|| CallError::Draining(Box::new(actor.clone()))));
    } else if let Some(halted) = halted {
        resident.settle_vacant(Some(&|| CallError::Halted(Box::new(halted.clone()))));
    } else {
        resident.settle_vacant(None);
    }
    host.services.activation_ends();
}

/// Polls a hook of the actor at `slot` with its panics caught. A call of its chain that comes back to the actor, which
/// can take no turn meanwhile, is a deadlock.
async fn contained(
    slot: Arc<dyn AnySlot>,
    hook: impl Future<Output = Result<(), HookError>>,
) -> Result<Result<(), HookError>, Box<str>> {
    /// The hook is over, also when it is dropped half-way.
    struct Chain(Arc<ChainLink>);
    impl Drop for Chain {
        fn drop(&mut self) {
            self.0.ended.store(true, Ordering::Release);
        }
    }
    let chain = Chain(ChainLink::of_hook(slot));
    let mut hook = pin!(hook);
    poll_fn(|cx| {
        let polled = with_local(|local| {
            local.poll_hook(&chain.0, || catch_unwind(AssertUnwindSafe(|| hook.as_mut().poll(cx))))
        });
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(payload) => Poll::Ready(Err(panic_message(payload))),
        }
    })
    .await
}
