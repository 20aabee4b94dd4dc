//! Writing a state a little later, so that many saves become one.
//!
//! A save encodes the value and leaves it here in place of the one that waits. A task of the silo's own threads writes
//! it when its time has come; so a crash loses no more than the saves of the last `write_behind`, or of an outage of
//! the store for as long as that lasts, which further saves hear of. An activation that ends writes what waits first.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::keeper::Keeper;
use super::{StateCause, StateSpec};
use crate::store::{Commit, Encoded, SlotWrite, StoreError};
use quark_base::{Fault, Retry};

/// The longest wait between two tries to write to a store that does not take it.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The first wait before an activation that ends tries again.
const LAST_RETRY: Duration = Duration::from_millis(100);

/// One state's value that waits.
pub(crate) struct Behind {
    keeper: Arc<Keeper>,
    spec: StateSpec,
    delay: Duration,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    /// The newest value that is not written; at most one.
    value: Option<Encoded>,
    /// Counts what was left here and what took its place, so that a value which could not be written comes back only
    /// if it is still the newest.
    generation: u64,
    /// Somebody will write it.
    is_scheduled: bool,
    /// What the last try ended in; the next save is told.
    failed: Option<StateCause>,
}

/// A value that was taken out.
pub(crate) struct Taken {
    value: Option<Encoded>,
    generation: u64,
}

impl Behind {
    pub(super) fn new(keeper: Arc<Keeper>, spec: StateSpec, delay: Duration) -> Arc<Self> {
        Arc::new(Self { keeper, spec, delay, waits: Mutex::default() })
    }

    /// Leaves a value to be written. If the last try failed, it says so; the value is taken all the same, unless the
    /// activation has lost the actor.
    pub(super) fn put(self: &Arc<Self>, value: Encoded) -> Result<(), StateCause> {
        if self.keeper.is_lost() {
            return Err(StateCause::Superseded);
        }
        let mut waits = self.waits.lock();
        waits.value = Some(value);
        waits.generation += 1;
        if !std::mem::replace(&mut waits.is_scheduled, true) {
            let behind = self.clone();
            self.keeper.spawn(async move { behind.write_soon().await });
        }
        waits.failed.take().map_or(Ok(()), Err)
    }

    /// Takes out what waits, as a newer value is being written. To be called when that commit's turn has come.
    pub(crate) fn take(&self) -> Taken {
        let mut waits = self.waits.lock();
        waits.generation += 1;
        Taken { value: waits.value.take(), generation: waits.generation }
    }

    /// Puts back what was taken, unless there is something newer: the commit was refused.
    pub(crate) fn put_back(&self, taken: Taken) {
        let mut waits = self.waits.lock();
        if waits.generation == taken.generation {
            waits.value = taken.value;
        }
    }

    async fn write_soon(self: Arc<Self>) {
        let timers = self.keeper.timers();
        let mut delay = self.delay;
        loop {
            timers.sleep_until(timers.now().saturating_add(delay)).await;
            let written = self.flush().await;
            let mut waits = self.waits.lock();
            match written {
                Err(StateCause::Store(error)) if error.retry() == Retry::Safe => {
                    waits.failed = Some(StateCause::Store(error));
                    delay = (delay * 2).min(RETRY_MAX.max(self.delay));
                    continue;
                }
                Err(cause) => {
                    tracing::error!(actor = %self.keeper.actor, state = self.spec.name, error = %cause,
                                    "a state that was to be written later is lost");
                    waits.failed = Some(cause);
                }
                Ok(()) => {}
            }
            delay = self.delay;
            // A newer value may have come meanwhile.
            if waits.value.is_none() || self.keeper.is_lost() {
                waits.is_scheduled = false;
                return;
            }
        }
    }

    /// Writes what waits, now.
    pub(crate) async fn flush(&self) -> Result<(), StateCause> {
        if self.waits.lock().value.is_none() {
            return Ok(());
        }
        let mut taken = None;
        // What waits is taken only when the commit's turn has come, lest an older value follow a newer one.
        let written = self.keeper.commit(|commit: &mut Commit| {
            let waiting = self.take();
            commit.slots.extend(waiting.value.clone().map(|value| SlotWrite {
                name: self.spec.name.into(),
                expected: None,
                value: Some(value),
            }));
            taken = Some(waiting);
        });
        let Err(cause) = written.await else { return Ok(()) };
        if let (Some(taken), Retry::Safe) = (taken, retry(&cause)) {
            self.put_back(taken);
        }
        Err(cause)
    }

    /// The same, again and again while the store may take it later. For an activation that ends.
    pub(crate) async fn flush_patiently(&self) -> Result<(), StateCause> {
        let timers = self.keeper.timers();
        let mut wait = LAST_RETRY;
        loop {
            match self.flush().await {
                Err(cause) if retry(&cause) == Retry::Safe => {
                    tracing::warn!(actor = %self.keeper.actor, state = self.spec.name, error = %cause,
                                   "a last save is tried again");
                    timers.sleep_until(timers.now().saturating_add(wait)).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
                ended => return ended,
            }
        }
    }
}

/// Whether the same write may succeed later.
fn retry(cause: &StateCause) -> Retry {
    match cause {
        StateCause::Store(StoreError::Conflict(_)) => Retry::Pointless,
        StateCause::Store(error) => error.retry(),
        _ => Retry::Pointless,
    }
}
