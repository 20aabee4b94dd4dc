//! The rate of one subscriber, at the source.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use quark_base::{ActorId, Clock, Key};

use super::flow::Flow;
use crate::error::{CallError, Failure, Overloaded};
use crate::guards::LINE_MAX;
use crate::guards::rate::Limiter;
use crate::timers::Timers;

/// The rate at which one subscriber is given items, if it has one.
pub(crate) struct Throttle(Option<Limited>);

struct Limited {
    limiter: Arc<Limiter>,
    timers: Arc<Timers>,
    /// Whether what is above the rate waits with its publisher.
    waits: bool,
    who: ActorId,
}

/// What the rate says to an item.
pub(crate) enum Pace {
    Now,
    /// When this is over.
    Later(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It is above the rate, and dropped.
    Never,
    /// It is above the rate, and too many wait already.
    LineFull(Failure),
}

impl Throttle {
    pub(crate) fn new(flow: &Flow, clock: &Arc<dyn Clock>, timers: &Arc<Timers>, who: ActorId) -> Self {
        Self(flow.rate().map(|rate| Limited {
            limiter: Arc::new(Limiter::new(rate, clock.clone())),
            timers: timers.clone(),
            waits: flow.keeps_all(),
            who,
        }))
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn pace(&self) -> Pace {
        let Some(Limited { limiter, timers, waits, who }) = &self.0 else { return Pace::Now };
        let key: &Key = &who.key;
        if limiter.take(key).is_ok() {
            return Pace::Now;
        }
        if !waits {
            return Pace::Never;
        }
        let Some(place) = limiter.queue(key) else {
            let details = Overloaded { actor: who.clone(), capacity: LINE_MAX };
            return Pace::LineFull(CallError::Overloaded(Box::new(details)));
        };
        let timers = timers.clone();
        Pace::Later(Box::pin(async move {
            place.turn(|time| timers.sleep_until(timers.now().saturating_add(time))).await;
        }))
    }
}
