//! The gate of a guarded type: what a call passes on its way in, and where it says how it ended.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quark_base::{ActorId, Clock, Key};
use tokio::runtime::Handle;

use super::breaker::{Pass, SharedBreaker};
use super::rate::{Limiter, Place, WhenLimited};
use super::{Breaker, BreakerState, Guards};
use crate::actor::Actor;
use crate::error::{CallError, CircuitOpen, Failure, Overloaded, RateLimited};
use crate::services::Services;
use crate::timers::Timers;
use crate::turn::{Blocked, Slot, TaskRef};

/// What a gate says to a call.
pub(crate) enum Admission {
    /// It may begin.
    Go(Pass),
    /// It may not.
    Refused(Failure),
    /// It has a place in the line; when that resolves, it may begin or not.
    Waits(InLine),
}

/// A call's wait in the line of a rate limit. Dropping it leaves the line.
pub(crate) type InLine = Pin<Box<dyn Future<Output = Result<Pass, Failure>> + Send>>;

/// How a call ended, as far as a breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// The method answered.
    Answered,
    /// The method returned its own error.
    Erred,
    /// It panicked, could not be activated, or did not answer in time.
    Failed,
}

/// The guards of one actor type, as calls meet them.
pub(crate) struct Gate {
    actor_type: &'static str,
    clock: Arc<dyn Clock>,
    /// Where those who wait in the line hang their timers, and one-way messages do their waiting.
    timers: Arc<Timers>,
    handle: Handle,
    breaker: Option<(Breaker, SharedBreaker)>,
    limiter: Option<Arc<Limiter>>,
}

impl Gate {
    /// None where nothing is to be asked on the way in.
    pub(crate) fn of(guards: &Guards, actor_type: &'static str, services: &Services) -> Option<Arc<Self>> {
        let clock = &services.clock;
        let asks = guards.breaker.is_some() || guards.rate_limit.is_some();
        asks.then(|| {
            Arc::new(Self {
                actor_type,
                clock: clock.clone(),
                timers: services.nodes[0].timers().clone(),
                handle: services.lanes.handle.clone(),
                breaker: guards.breaker.map(|spec| (spec, SharedBreaker::new(spec))),
                limiter: guards.rate_limit.map(|limit| Arc::new(Limiter::new(limit, clock.clone()))),
            })
        })
    }

    /// Lets a call in, or says why not. An open breaker is asked first, so that a call which it refuses takes
    /// nothing from the rate; and last, so that it counts only probes that really begin.
    pub(crate) fn admit(self: &Arc<Self>, key: &Key) -> Admission {
        if let Some((_, breaker)) = &self.breaker
            && let Some(retry_after) = breaker.refused_for(|| self.clock.now())
        {
            return Admission::Refused(self.circuit_open(key, retry_after));
        }
        if let Some(limiter) = &self.limiter
            && let Err(retry_after) = limiter.take(key)
        {
            let queues = limiter.when_full() == WhenLimited::Queue;
            return match queues.then(|| limiter.queue(key)).flatten() {
                Some(place) => Admission::Waits(Box::pin(self.clone().wait(place, key.clone()))),
                None => Admission::Refused(self.rate_limited(key, retry_after)),
            };
        }
        self.pass_breaker(key).map_or_else(Admission::Refused, Admission::Go)
    }

    async fn wait(self: Arc<Self>, place: Place, key: Key) -> Result<Pass, Failure> {
        place.turn(|time| self.timers.sleep_until(self.clock.now().saturating_add(time))).await;
        self.pass_breaker(&key)
    }

    fn pass_breaker(&self, key: &Key) -> Result<Pass, Failure> {
        let Some((_, breaker)) = &self.breaker else { return Ok(Pass::ANY) };
        breaker.admit(|| self.clock.now()).map_err(|retry_after| self.circuit_open(key, retry_after))
    }

    #[cold]
    fn circuit_open(&self, key: &Key, retry_after: Duration) -> Failure {
        CallError::CircuitOpen(Box::new(CircuitOpen { actor: self.actor(key), retry_after }))
    }

    #[cold]
    fn rate_limited(&self, key: &Key, retry_after: Duration) -> Failure {
        CallError::RateLimited(Box::new(RateLimited { actor: self.actor(key), retry_after }))
    }

    fn actor(&self, key: &Key) -> ActorId {
        ActorId { actor_type: self.actor_type, key: key.clone() }
    }

    /// Whether a message that nobody waits for is lost without a word for this.
    pub(crate) fn drops(&self, failure: &Failure) -> bool {
        let limiter = self.limiter.as_ref();
        matches!(failure, CallError::RateLimited(_))
            && limiter.is_some_and(|limiter| limiter.when_full() == WhenLimited::Drop)
    }

    /// A call that was let in with `pass` has ended; without one, a message that nobody waits for.
    pub(crate) fn ended(&self, pass: Option<Pass>, outlook: Outlook) {
        let Some((spec, breaker)) = &self.breaker else { return };
        let pass = pass.unwrap_or_else(|| breaker.current());
        match outlook {
            Outlook::Failed => breaker.failed(pass, self.clock.now()),
            Outlook::Erred if spec.counts_errors() => breaker.failed(pass, self.clock.now()),
            Outlook::Erred | Outlook::Answered => breaker.answered(pass),
        }
    }

    /// What a caller learned of a call that was let in with `pass`. Panics and failed activations are reported
    /// where they happen, once for all who hear of them.
    pub(crate) fn heard<T, E>(&self, pass: Pass, reply: &Result<T, CallError<E>>) {
        let outlook = match reply {
            Ok(_) => Outlook::Answered,
            Err(CallError::Actor(_)) => Outlook::Erred,
            Err(CallError::Timeout(_)) => Outlook::Failed,
            Err(_) => return,
        };
        self.ended(Some(pass), outlook);
    }

    pub(crate) fn breaker_state(&self) -> Option<BreakerState> {
        self.breaker.as_ref().map(|(_, breaker)| breaker.state())
    }

    /// Throws away what tells nothing any more.
    pub(crate) fn sweep(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.forget_full();
        }
    }
}

impl<A: Actor> Slot<A> {
    /// Sends a message that nobody waits for: through the type's gate, if it has one, into the mailbox. Where it must
    /// stand in line, it does so on the silo's own threads.
    #[inline]
    pub(crate) fn send(self: &Arc<Self>, turn: TaskRef) -> Result<(), Blocked> {
        self.report_demand();
        match &self.host.gate {
            None => self.submit(turn),
            Some(gate) => self.send_through(gate, turn),
        }
    }

    fn send_through(self: &Arc<Self>, gate: &Arc<Gate>, turn: TaskRef) -> Result<(), Blocked> {
        match gate.admit(&self.key) {
            Admission::Go(_) => self.submit(turn),
            Admission::Refused(failure) if gate.drops(&failure) => {
                self.lose(turn, failure);
                Ok(())
            }
            Admission::Refused(failure) => Err(Blocked::Failed(failure)),
            Admission::Waits(line) => {
                let slot = self.clone();
                gate.handle.spawn(async move {
                    let (turn, failure) = match line.await {
                        Err(failure) => (turn, failure),
                        Ok(_) => match slot.submit(turn) {
                            Ok(()) => return,
                            Err(Blocked::Failed(error)) => {
                                slot.host.note_dropped();
                                return tracing::warn!(%error, "a one-way message stood in line in vain");
                            }
                            Err(Blocked::Full(turn)) => {
                                let capacity = slot.mailbox_capacity();
                                let details = Overloaded { actor: slot.actor_id(), capacity };
                                (turn, CallError::Overloaded(Box::new(details)))
                            }
                        },
                    };
                    slot.lose(turn, failure);
                });
                Ok(())
            }
        }
    }
}
