//! How messages get out: what the executor does when it visits a slot.

use super::Slot;
use crate::actor::{Actor, DeactivationReason};
use crate::guards::Capacity;
use crate::turn::block::with_local;
use crate::turn::local::Local;
use crate::turn::mailbox::Mailbox;
use crate::turn::task::TaskList;
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
    fn run_exclusive(&self, batch: Batch) {
        with_local(|local| self.run_exclusive_here(local, batch));
    }

    fn run_exclusive_here(&self, local: &Local, mut batch: Batch) {
        let mut ran = 0;
        let mut last: Option<TaskRef> = None;
        while let Some(turn) = batch.next() {
            if let Some(over) = last.take() {
                over.finish();
            }
            local.others_in_hand.set(!batch.is_empty());
            let ran_one = self.run_one(local, turn);
            local.others_in_hand.set(false);
            match ran_one {
                Ran::Waits(turn) => {
                    self.put_back(batch);
                    self.attach(&turn);
                    return self.pause(&turn);
                }
                Ran::Answered(turn) => last = Some(turn),
                Ran::Over => {}
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

    /// Begins an exclusive message, and polls it.
    #[inline(always)]
    fn run_one(&self, local: &Local, turn: TaskRef) -> Ran {
        if turn.is_one_way() {
            self.touch_for(&turn);
            let timing = self.host.time(local, turn.method_index());
            let waits = turn.deliver(Hold::Exclusive, local);
            if let Some(timing) = timing {
                timing.end();
            }
            return waits.map_or(Ran::Over, Ran::Waits);
        }
        if !turn.begin(Hold::Exclusive) {
            return Ran::Over;
        }
        self.touch_for(&turn);
        match self.timed_poll(&turn) {
            Polled::Pending => Ran::Waits(turn),
            Polled::Done => Ran::Answered(turn),
        }
    }

    /// Notes that the actor is in use, unless only by itself.
    pub(super) fn touch_for(&self, turn: &TaskRef) {
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
        if self.host.guards().mailbox.is_some() {
            return self.take_measured_batch(mailbox);
        }
        let was_full = mailbox.length >= self.capacity(mailbox);
        let (turns, length) = mailbox.take_exclusive(Batch::SIZE);
        if was_full {
            self.host.note_space();
        }
        if length > 0 && mailbox.length == 0 {
            self.word.clear_queued();
        }
        Batch { turns, length }
    }

    /// The same where the mailbox's capacity follows how fast it is drained.
    fn take_measured_batch(&self, mailbox: &mut Mailbox) -> Batch {
        let mut batch = Batch { turns: TaskList::new(), length: 0 };
        while batch.length < Batch::SIZE && mailbox.first_is_exclusive() == Some(true) {
            let Some(turn) = self.pop(mailbox) else { break };
            batch.turns.push(turn);
            batch.length += 1;
        }
        batch
    }

    /// Puts back, in their place, messages that were fetched and not begun.
    fn put_back(&self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let mut mailbox = self.mailbox.lock();
        mailbox.put_back(batch.turns, batch.length);
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

/// How the first poll of an exclusive message ended.
enum Ran {
    /// The turn goes on.
    Waits(TaskRef),
    /// Somebody waits for its end, who is to hear of it.
    Answered(TaskRef),
    /// Nobody does, or it was given up before it began.
    Over,
}

/// Messages fetched under one lock.
struct Batch {
    turns: TaskList,
    length: u32,
}

impl Batch {
    const SIZE: u32 = 16;

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn next(&mut self) -> Option<TaskRef> {
        let turn = self.turns.pop()?;
        self.length -= 1;
        Some(turn)
    }
}
