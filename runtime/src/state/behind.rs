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
    /// Somebody will write it.
    is_scheduled: bool,
    /// What the last try ended in; the next save is told.
    failed: Option<StateCause>,
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
        if !std::mem::replace(&mut waits.is_scheduled, true) {
            let behind = self.clone();
            self.keeper.spawn(async move { behind.write_soon().await });
        }
        waits.failed.take().map_or(Ok(()), Err)
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
                }
                Err(cause) => {
                    tracing::error!(actor = %self.keeper.actor, state = self.spec.name, error = %cause,
                                    "a state that was to be written later is lost");
                    *waits = Waits { failed: Some(cause), ..Waits::default() };
                    return;
                }
                Ok(()) if waits.value.is_some() => delay = self.delay,
                Ok(()) => {
                    waits.is_scheduled = false;
                    return;
                }
            }
        }
    }

    /// Writes what waits, now.
    pub(crate) async fn flush(&self) -> Result<(), StateCause> {
        let mut taken = None;
        // What waits is taken only when the commit's turn has come, lest an older value follow a newer one.
        let written = self.keeper.commit(|commit: &mut Commit| {
            taken = self.waits.lock().value.take();
            let write = |value: &Encoded| SlotWrite {
                name: self.spec.name.into(),
                expected: None,
                value: Some(value.clone()),
            };
            commit.slots.extend(taken.as_ref().map(write));
        });
        match written.await {
            Ok(()) => Ok(()),
            Err(cause) => {
                let keep = !matches!(
                    &cause,
                    StateCause::Superseded
                        | StateCause::Store(
                            StoreError::Conflict(_) | StoreError::Unknown { .. } | StoreError::Lost { .. }
                        )
                );
                if let Some(value) = taken.filter(|_| keep) {
                    self.waits.lock().value.get_or_insert(value);
                }
                Err(cause)
            }
        }
    }
}
