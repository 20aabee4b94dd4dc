//! What a store's last operation said about its health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quark_runtime::store::{Health, HealthState, StoreError};

/// Remembers whether the last operation was answered.
///
/// `is_up` is only a shortcut past the lock; the lock's value is what counts.
pub(crate) struct LastAnswer {
    is_up: AtomicBool,
    state: Mutex<HealthState>,
}

impl LastAnswer {
    pub(crate) fn up() -> Self {
        Self { is_up: AtomicBool::new(true), state: Mutex::new(HealthState::Up) }
    }

    /// Takes note of how an operation ended. Whatever the store itself said is an answer.
    pub(crate) fn note<T>(&self, result: &Result<T, StoreError>) {
        let down: Arc<str> = match result {
            Err(StoreError::Unavailable { cause, .. } | StoreError::Unknown { cause, .. }) => {
                cause.as_ref().into()
            }
            Err(error @ (StoreError::Denied { .. } | StoreError::Corrupt { .. })) => error.to_string().into(),
            Ok(_) | Err(_) => {
                if !self.is_up.load(Ordering::Relaxed) {
                    let mut state = self.state.lock();
                    *state = HealthState::Up;
                    self.is_up.store(true, Ordering::Relaxed);
                }
                return;
            }
        };
        let mut state = self.state.lock();
        *state = HealthState::Down(down);
        self.is_up.store(false, Ordering::Relaxed);
    }
}

impl Health for LastAnswer {
    fn state(&self) -> HealthState {
        self.state.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_brings_a_store_up_again() {
        let health = LastAnswer::up();
        let unavailable = StoreError::Unavailable { store: "s".into(), cause: "refused".into() };
        health.note::<()>(&Err(unavailable));
        assert_eq!(health.state(), HealthState::Down("refused".into()));
        // A full disk is an answer.
        health.note::<()>(&Err(StoreError::Full { store: "s".into(), cause: "full".into() }));
        assert_eq!(health.state(), HealthState::Up);
    }
}
