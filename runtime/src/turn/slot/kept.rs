//! What an activation that lost its stored state tells its callers.

use super::Slot;
use crate::actor::{Actor, Method};
use crate::error::{CallError, Failure, Superseded};
use crate::state::keeper::Loss;

impl<A: Actor> Slot<A> {
    /// What the caller of a turn that has just ended hears if the activation lost its state.
    #[inline(always)]
    pub(crate) fn superseded<M: Method<A>>(&self) -> Option<CallError<M::Error>> {
        if const { A::PARTS.is_empty() } || !self.word.snapshot().wants_close() {
            return None;
        }
        self.superseded_in(A::METHODS[M::INDEX].name).map(Failure::widen)
    }

    #[cold]
    fn superseded_in(&self, method: &'static str) -> Option<Failure> {
        let loss = self.mailbox.lock().extra.as_ref().and_then(|extra| extra.loss)?;
        let is_written = match loss {
            Loss::Outrun => Some(false),
            Loss::Taken => Some(true),
            Loss::Unknown => None,
        };
        Some(CallError::Superseded(Box::new(Superseded { actor: self.actor_id(), method, is_written })))
    }
}
