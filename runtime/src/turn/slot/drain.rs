//! How messages get out: what the executor does when it visits a slot.

use super::Slot;
use crate::actor::{Actor, DeactivationReason};
use crate::guards::Capacity;
use crate::turn::mailbox::Mailbox;
use crate::turn::{AnySlot, BATCH, Hold, Phase, Polled, TaskRef};

impl<A: Actor> Slot<A> {
    /// Begins what waits in the mailbox, as far as the word allows.
    pub(super) fn begin_waiting(&self) {
        let seen = self.word.begin_drain();
        if seen.phase() != Phase::Active {
            return;
        }
        if seen.wants_close() {
            if let Some(resident) = self.arc().take(Phase::Active, Phase::Deactivating) {
                let why = self.mailbox.lock().extra().close_reason.take();
                return crate::activation::end(resident, why.unwrap_or(DeactivationReason::Requested));
            }
            if self.mailbox.lock().is_torn() {
                // The last of the turns that run comes back here.
                return;
            }
        }
        for _ in 0..BATCH {
            let mut mailbox = self.mailbox.lock();
            match mailbox.first_is_exclusive() {
                None => return,
                Some(true) if self.gather(&mailbox) && self.word.take_exclusive() => {
                    let batch = self.take_exclusive_batch(&mut mailbox);
                    drop(mailbox);
                    return self.run_exclusive(batch);
                }
                // Shared turns that run may wait for this one, so a request to close does not keep it out.
                Some(false) if self.word.take_shared() || self.joins_before_close(&mailbox) => {
                    let Some(turn) = self.pop(&mut mailbox) else { return };
                    drop(mailbox);
                    self.touch_for(&turn);
                    self.begin_taken(turn, Hold::Shared);
                }
                // Whoever holds the actor schedules the slot again when it lets go.
                Some(_) => return,
            }
        }
        if self.word.snapshot().has_queued() && self.word.schedule() {
            self.schedule();
        }
    }

    /// Runs exclusive messages one after another. The caller has taken the exclusive turn, and `batch` out of the
    /// mailbox.
    fn run_exclusive(&self, mut batch: Batch) {
        let mut ran = 0;
        let mut last: Option<TaskRef> = None;
        while let Some(turn) = batch.next() {
            if let Some(over) = last.take() {
                over.finish();
            }
            if turn.begin(Hold::Exclusive) {
                self.touch_for(&turn);
                match self.timed_poll(&turn) {
                    Polled::Pending => {
                        self.put_back(batch);
                        self.attach(&turn);
                        return self.pause(&turn);
                    }
                    Polled::Done => last = Some(turn),
                }
            }
            ran += 1;
            if self.word.snapshot().wants_close() {
                break;
            }
            if batch.is_empty() && ran < BATCH {
                batch = self.take_exclusive_batch(&mut self.mailbox.lock());
            }
        }
        self.put_back(batch);
        self.let_go(Hold::Exclusive);
        // The last caller is woken when the actor is free again, so that its next call may run inline.
        if let Some(over) = last {
            over.finish();
        }
    }

    /// Notes that the actor is in use, unless only by itself.
    fn touch_for(&self, turn: &TaskRef) {
        if !turn.is_from_timer() {
            self.touch();
        }
    }

    /// Takes a shared turn beside others although the actor is to close when they have ended.
    /// Not beside one that has panicked: the actor is torn.
    fn joins_before_close(&self, mailbox: &Mailbox) -> bool {
        let seen = self.word.snapshot();
        seen.wants_close() && seen.readers() > 0 && !mailbox.is_torn() && self.word.reenter_shared()
    }

    /// The exclusive messages at the mailbox's head, as many as one visit to the lock should fetch.
    fn take_exclusive_batch(&self, mailbox: &mut Mailbox) -> Batch {
        let mut batch = Batch::default();
        while !batch.is_full() && mailbox.first_is_exclusive() == Some(true) {
            let Some(turn) = self.pop(mailbox) else { break };
            batch.push(turn);
        }
        batch
    }

    /// Puts back, in their place, messages that were fetched and not begun.
    fn put_back(&self, mut batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let mut mailbox = self.mailbox.lock();
        while let Some(turn) = batch.next_back() {
            mailbox.push_front(turn);
        }
        // The turn that the caller still holds sees to them when it ends.
        self.word.set_queued();
    }

    pub(crate) fn pop(&self, mailbox: &mut Mailbox) -> Option<TaskRef> {
        let was_full = mailbox.length >= self.capacity(mailbox);
        let first = mailbox.pop();
        if let Some(bounds) = &self.host.guards().mailbox {
            let left = mailbox.length;
            let capacity = mailbox.extra().capacity.get_or_insert_with(|| Capacity::new(bounds));
            capacity.drained(bounds, left, || self.host.services.clock.now());
        }
        if was_full {
            self.host.note_space();
        }
        if mailbox.length == 0 {
            self.word.clear_queued();
        }
        first
    }

    /// Takes every message out.
    pub(crate) fn take_messages(&self, mailbox: &mut Mailbox) -> Vec<TaskRef> {
        std::iter::from_fn(|| self.pop(mailbox)).collect()
    }
}

/// Polls a turn that an executor took out of its run queue.
pub(in crate::turn) fn run_scheduled(turn: TaskRef) {
    let Some(slot) = turn.owner() else { return };
    if !slot.lender_may_run(&turn) {
        return;
    }
    turn.resume();
    let polled = slot.timed_poll(&turn);
    slot.after_poll(&turn, polled);
}

/// Messages fetched under one lock.
#[derive(Default)]
struct Batch {
    turns: [Option<TaskRef>; Batch::SIZE],
    first: usize,
    end: usize,
}

impl Batch {
    const SIZE: usize = 16;

    fn is_empty(&self) -> bool {
        self.first == self.end
    }

    fn is_full(&self) -> bool {
        self.end == Self::SIZE
    }

    fn push(&mut self, turn: TaskRef) {
        self.turns[self.end] = Some(turn);
        self.end += 1;
    }

    fn next(&mut self) -> Option<TaskRef> {
        let turn = self.turns[..self.end].get_mut(self.first)?.take();
        self.first += 1;
        turn
    }

    fn next_back(&mut self) -> Option<TaskRef> {
        if self.is_empty() {
            return None;
        }
        self.end -= 1;
        self.turns[self.end].take()
    }
}
