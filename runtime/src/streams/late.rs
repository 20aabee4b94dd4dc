//! Late items of windows, told of with the subscription whose items they are.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::window::{Added, Window};
use crate::actor::Actor;
use crate::context::Cx;
use crate::turn::{Slot, TaskRef};

impl Cx {
    /// Puts an item that the running method was handed into a window of its actor, as [`Window::add`] does. One that is
    /// late is counted by the window, and by the report of the subscription that the turn runs for
    /// ([`SubscriptionReport::late`](super::SubscriptionReport::late)). A turn of an `#[on_stream]` method runs for its
    /// subscription also where a caller has handed it the item; in one that runs for none, the window counts alone.
    pub fn gather<T: Clone>(&self, window: &mut Window<T>, time: Duration, item: T) -> Added<T> {
        let added = window.add(time, item);
        if matches!(added, Added::Late(_))
            && let Some(turn) = TaskRef::current(self.turn())
            && let Some(slot) = self.slot()
        {
            slot.note_late(&turn);
        }
        added
    }
}

impl<A: Actor> Slot<A> {
    /// Counts an item that was late for a window in `turn`, which is being polled.
    pub(crate) fn count_late(&self, turn: &TaskRef) {
        // A subscription of the actor's own has its turns to itself; all others are known by their method.
        let own = self.mailbox().extra().subscriptions.held();
        if own.iter().any(|held| held.note_late(turn.identity())) {
            return;
        }
        let method = A::METHODS[turn.method_index()].name;
        if let Some(reported) = self.host.services.streams.implicit(A::SPEC.name, method) {
            reported.counters().late.fetch_add(1, Ordering::Relaxed);
        }
    }
}
