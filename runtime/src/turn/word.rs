//! The activation word: who may run on an actor now.
//!
//! | bits  | name        | set by                             | cleared by                           |
//! |-------|-------------|------------------------------------|--------------------------------------|
//! | 0-15  | readers     | a shared turn that begins          | the same turn as it ends             |
//! | 16    | `WRITER`    | an exclusive turn, (de)activation  | the same as it ends                  |
//! | 17    | `QUEUED`    | who puts the first message in      | who takes the last message out       |
//! | 18    | `SCHEDULED` | who puts the slot in a run queue   | the executor, before it looks inside |
//! | 19    | `CLOSE`     | who asks for deactivation          | the deactivation as it ends          |
//! | 20-22 | phase       | the holder of `WRITER`, or the     |                                      |
//! |       |             | compare-and-swap that leaves it    |                                      |
//! | 23    | `WATCHED`   | who wants to hear of the next call | that call, off the inline path       |
//! | 24    | `SPREAD`    | a shared turn that finds others    | who gathers, setting `GATHERING`     |
//! | 25    | `GATHERING` | who wants the actor alone          | who finds all lanes empty then       |
//!
//! `QUEUED` changes only under the mailbox lock. An inline caller wins the word only while nothing is queued and
//! no deactivation is asked for, so it never overtakes a queued message.
//!
//! While `SPREAD` is set, shared turns are counted in lanes (`lanes.rs`), and while `GATHERING` is, some of them may
//! still run. Both change under the mailbox lock, but that a shared turn sets `SPREAD` without it, while nobody waits.
//!
//! No wake-up is lost: `SCHEDULED` is cleared *before* the executor tries to take the turn, and whoever lets a
//! turn go looks at `QUEUED` and `CLOSE` in the very value that its release replaced. So a message that finds
//! the turn taken is found by whoever holds it, and one that finds it free schedules the slot itself.

use crate::turn::cell::Sole;
use crate::turn::sync::{AtomicU32, Ordering};

const READER: u32 = 1;
const READERS: u32 = 0xFFFF;
const WRITER: u32 = 1 << 16;
const QUEUED: u32 = 1 << 17;
const SCHEDULED: u32 = 1 << 18;
const CLOSE: u32 = 1 << 19;
const PHASE_SHIFT: u32 = 20;
const PHASE: u32 = 7 << PHASE_SHIFT;
const WATCHED: u32 = 1 << 23;
const SPREAD: u32 = 1 << 24;
const GATHERING: u32 = 1 << 25;

/// Shared turns that may begin on one activation beside others; the next one waits in the mailbox. The other half of
/// the count is for turns that began in a lane and outlive their first poll: a thread polls at most
/// [`INLINE_DEPTH_MAX`](crate::turn::INLINE_DEPTH_MAX) at once.
pub(crate) const SHARED_TURNS_MAX: u32 = READERS / 2;

/// Where an activation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Phase {
    /// There is no actor; the next message makes one.
    Vacant = 0,
    /// The actor is being made; messages wait.
    Activating = 1,
    /// The actor takes turns.
    Active = 2,
    /// The actor is being unmade; messages wait for the next one.
    Deactivating = 3,
    /// The slot has left the catalog; who holds it must look the actor up again.
    Retired = 4,
}

impl Phase {
    const fn bits(self) -> u32 {
        (self as u32) << PHASE_SHIFT
    }
}

/// A value of the word as it was at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(u32);

impl Snapshot {
    pub(crate) fn phase(self) -> Phase {
        match (self.0 & PHASE) >> PHASE_SHIFT {
            0 => Phase::Vacant,
            1 => Phase::Activating,
            2 => Phase::Active,
            3 => Phase::Deactivating,
            _ => Phase::Retired,
        }
    }

    pub(crate) fn readers(self) -> u32 {
        self.0 & READERS
    }

    /// Whether as many turns share the actor as can.
    pub(crate) fn is_crowded(self) -> bool {
        self.readers() >= SHARED_TURNS_MAX
    }

    pub(crate) fn has_writer(self) -> bool {
        self.0 & WRITER != 0
    }

    pub(crate) fn has_queued(self) -> bool {
        self.0 & QUEUED != 0
    }

    pub(crate) fn wants_close(self) -> bool {
        self.0 & CLOSE != 0
    }

    /// Whether shared turns may run that [`readers`](Self::readers) does not count.
    pub(crate) fn is_spread(self) -> bool {
        self.0 & (SPREAD | GATHERING) != 0
    }

    /// Whether somebody wanted the actor alone while shared turns were in lanes.
    pub(crate) fn is_gathering(self) -> bool {
        self.0 & GATHERING != 0
    }

    /// Whether a shared turn may enter a lane.
    #[inline]
    pub(crate) fn lets_into_lanes(self) -> bool {
        self.0 & !(READERS | SCHEDULED) == Phase::Active.bits() | SPREAD && !self.is_crowded()
    }

    pub(crate) fn is_watched(self) -> bool {
        self.0 & WATCHED != 0
    }

    fn is_scheduled(self) -> bool {
        self.0 & SCHEDULED != 0
    }

    /// Whether whoever made this the past must now put the slot into the run queue.
    fn needs_executor(self) -> bool {
        (self.has_queued() || self.wants_close()) && !self.is_scheduled()
    }
}

/// The word itself.
#[derive(Debug, Default)]
pub(crate) struct Word(AtomicU32);

impl Word {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.0.load(Ordering::Acquire))
    }

    /// Takes the exclusive turn if the actor is idle with nothing waiting. The inline path.
    #[inline]
    pub(crate) fn try_exclusive(&self) -> bool {
        let idle = Phase::Active.bits();
        self.0.compare_exchange(idle, idle | WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes a shared turn of an idle actor with nothing waiting. The inline path.
    #[inline]
    pub(crate) fn try_shared_alone(&self) -> bool {
        let idle = Phase::Active.bits();
        self.0.compare_exchange(idle, idle + READER, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes a shared turn beside others if no writer runs or waits. The inline path.
    pub(crate) fn try_shared(&self) -> bool {
        self.update(|word| {
            let free =
                word & !(READERS | SCHEDULED) == Phase::Active.bits() && word & READERS < SHARED_TURNS_MAX;
            free.then_some(word + READER)
        })
        .is_ok()
    }

    /// The word, for the inline path of shared turns.
    #[inline]
    pub(crate) fn glance(&self) -> Snapshot {
        Snapshot(self.0.load(Ordering::SeqCst))
    }

    /// Lets shared turns into lanes from here on, if nobody waits. The caller holds a shared turn.
    pub(crate) fn spread(&self) {
        // Refused is as good: then somebody waits, or somebody else was quicker.
        let _ = self.update(|word| {
            let free = word & !(READERS | SCHEDULED) == Phase::Active.bits();
            free.then_some(word | SPREAD)
        });
    }

    /// Lets no turn into a lane any more. Under the mailbox lock.
    pub(crate) fn close_lanes(&self) {
        let closing = |word: u32| Some((word & !SPREAD) | GATHERING);
        // Never refused.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, closing);
    }

    /// Whoever was in a lane has left it. Under the same lock.
    pub(crate) fn lanes_are_empty(&self) {
        self.0.fetch_and(!GATHERING, Ordering::AcqRel);
    }

    /// Takes over a shared turn that was counted in a lane.
    pub(crate) fn leave_lane(&self) {
        self.0.fetch_add(READER, Ordering::AcqRel);
    }

    /// Whoever looks at `seen` after leaving a lane: true if he must schedule the slot.
    pub(crate) fn lane_left(&self, seen: Snapshot) -> bool {
        seen.needs_executor() && self.schedule()
    }

    /// Takes the exclusive turn for a queued message, whatever else waits.
    pub(crate) fn take_exclusive(&self) -> bool {
        self.update(|word| {
            let free = word & (PHASE | WRITER | READERS | CLOSE | SPREAD | GATHERING) == Phase::Active.bits();
            free.then_some(word | WRITER)
        })
        .is_ok()
    }

    /// Takes a shared turn for a queued message, whatever else waits.
    pub(crate) fn take_shared(&self) -> bool {
        self.update(|word| {
            let free =
                word & (PHASE | WRITER | CLOSE) == Phase::Active.bits() && word & READERS < SHARED_TURNS_MAX;
            free.then_some(word + READER)
        })
        .is_ok()
    }

    /// Takes one more shared turn for a chain that is in one here already, even if the actor is to close.
    pub(crate) fn reenter_shared(&self) -> bool {
        self.update(|word| {
            let free = word & (PHASE | WRITER) == Phase::Active.bits() && word & READERS < SHARED_TURNS_MAX;
            free.then_some(word + READER)
        })
        .is_ok()
    }

    /// Ends the exclusive turn. True if the slot must be scheduled.
    #[inline]
    pub(crate) fn release_exclusive(&self) -> bool {
        let past = Snapshot(self.0.fetch_sub(WRITER, Ordering::AcqRel));
        past.needs_executor() && self.schedule()
    }

    /// Ends a shared turn. True if the slot must be scheduled.
    #[inline]
    pub(crate) fn release_shared(&self) -> bool {
        let past = Snapshot(self.0.fetch_sub(READER, Ordering::AcqRel));
        past.needs_executor() && self.schedule()
    }

    /// Marks the slot as being in a run queue. True if the caller must put it there.
    pub(crate) fn schedule(&self) -> bool {
        !Snapshot(self.0.fetch_or(SCHEDULED, Ordering::AcqRel)).is_scheduled()
    }

    /// The executor has taken the slot out of its run queue and looks inside from here on.
    pub(crate) fn begin_drain(&self) -> Snapshot {
        Snapshot(self.0.fetch_and(!SCHEDULED, Ordering::AcqRel) & !SCHEDULED)
    }

    /// The mailbox has become non-empty. Call under its lock.
    pub(crate) fn set_queued(&self) -> Snapshot {
        Snapshot(self.0.fetch_or(QUEUED, Ordering::AcqRel) | QUEUED)
    }

    /// The mailbox has become empty. Call under its lock.
    pub(crate) fn clear_queued(&self) {
        self.0.fetch_and(!QUEUED, Ordering::AcqRel);
    }

    /// Asks for deactivation as soon as no turn runs, or as soon as the activation under way has ended. `None` if
    /// there is nothing to deactivate; else whether the slot must be scheduled.
    pub(crate) fn request_close(&self) -> Option<bool> {
        let live = [Phase::Active.bits(), Phase::Activating.bits()];
        let past = self.update(|word| live.contains(&(word & PHASE)).then_some(word | CLOSE)).ok()?;
        Some(!past.has_writer() && past.readers() == 0 && self.schedule())
    }

    /// Leaves `from` for `to` if that is still where the slot is, taking the exclusive turn with it when the new
    /// phase is one that owns the actor.
    pub(crate) fn begin(&self, from: Phase, to: Phase) -> Option<Sole> {
        let begun = self.update(|word| {
            let free = word & (PHASE | WRITER | READERS | SPREAD | GATHERING) == from.bits();
            free.then_some((word & !PHASE) | to.bits() | WRITER)
        });
        begun.ok().map(|_| Sole::hand_out(from == Phase::Active))
    }

    /// Ends an activation: the actor takes turns. The past value says what waits.
    pub(crate) fn settle_active(&self) -> Snapshot {
        self.settle(PHASE | WRITER, Phase::Active)
    }

    /// Ends a deactivation, or an activation that failed. A request to close is thereby met.
    pub(crate) fn settle_vacant(&self) -> Snapshot {
        self.settle(PHASE | WRITER | CLOSE, Phase::Vacant)
    }

    /// Leaves a deactivation, or an activation that failed, for another activation of the same slot.
    pub(crate) fn begin_again(&self) {
        self.settle(PHASE | CLOSE, Phase::Activating);
    }

    fn settle(&self, clear: u32, phase: Phase) -> Snapshot {
        let settled = self.update(|word| Some((word & !clear) | phase.bits()));
        settled.unwrap_or_else(|past| past)
    }

    /// Activates on the spot: the caller gets the exclusive turn of an actor that is about to be written.
    pub(crate) fn begin_instant(&self) -> Option<Sole> {
        let vacant = Phase::Vacant.bits();
        let taken = Phase::Activating.bits() | WRITER;
        let begun = self.0.compare_exchange(vacant, taken, Ordering::Acquire, Ordering::Relaxed);
        begun.ok().map(|_| Sole::hand_out(false))
    }

    /// The slot is going away, and its actor with it.
    pub(crate) fn end(&mut self) -> Sole {
        Sole::hand_out(self.snapshot().phase() == Phase::Active)
    }

    /// The actor of [`begin_instant`](Self::begin_instant) is there; its maker goes on into an exclusive or a
    /// shared turn. True if the slot must be scheduled, since others may share that turn.
    pub(crate) fn finish_instant(&self, exclusive: bool) -> bool {
        let phases = Phase::Active.bits() - Phase::Activating.bits();
        if exclusive {
            self.0.fetch_add(phases, Ordering::AcqRel);
            return false;
        }
        let past =
            Snapshot(self.0.fetch_add(phases.wrapping_sub(WRITER).wrapping_add(READER), Ordering::AcqRel));
        past.needs_executor() && self.schedule()
    }

    /// Makes the next call leave the inline path once, to report itself.
    pub(crate) fn watch(&self) {
        self.0.fetch_or(WATCHED, Ordering::AcqRel);
    }

    /// Ends the watch. True if there was one.
    pub(crate) fn end_watch(&self) -> bool {
        Snapshot(self.0.fetch_and(!WATCHED, Ordering::AcqRel)).is_watched()
    }

    /// Takes an empty slot out of use for good. True if it was vacant with nothing queued.
    pub(crate) fn retire(&self) -> bool {
        let vacant = Phase::Vacant.bits();
        self.0.compare_exchange(vacant, Phase::Retired.bits(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    #[inline]
    fn update(&self, next: impl Fn(u32) -> Option<u32>) -> Result<Snapshot, Snapshot> {
        let updated = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        updated.map(Snapshot).map_err(Snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active() -> Word {
        let word = Word::default();
        assert!(word.begin_instant().is_some());
        assert!(!word.finish_instant(true));
        assert!(!word.release_exclusive());
        word
    }

    #[test]
    fn an_actor_made_by_a_shared_call_is_shared_at_once() {
        let word = Word::default();
        assert!(word.begin_instant().is_some());
        word.set_queued();
        assert!(word.finish_instant(false), "what was queued meanwhile may share the turn");
        assert_eq!((word.snapshot().readers(), word.snapshot().has_writer()), (1, false));
        assert!(word.take_shared());
    }

    #[test]
    fn an_actor_that_is_to_close_begins_nothing_new_but_lets_its_chains_re_enter() {
        let word = active();
        assert!(word.try_shared());
        assert_eq!(word.request_close(), Some(false));
        assert!(!word.take_shared() && !word.take_exclusive());
        assert!(word.reenter_shared());
    }

    #[test]
    fn a_request_to_close_outlives_the_activation_it_came_in() {
        let word = Word::default();
        assert_eq!(word.request_close(), None);
        assert!(word.begin(Phase::Vacant, Phase::Activating).is_some());
        assert_eq!(word.request_close(), Some(false));
        assert!(word.settle_active().wants_close() && word.snapshot().wants_close());
    }

    #[test]
    fn lanes_that_are_open_or_being_gathered_keep_writers_and_deactivations_out() {
        let word = active();
        word.spread();
        assert!(word.snapshot().lets_into_lanes() && !word.try_exclusive() && !word.take_exclusive());
        assert!(word.begin(Phase::Active, Phase::Deactivating).is_none());
        word.close_lanes();
        assert!(!word.snapshot().lets_into_lanes() && !word.try_exclusive() && !word.take_exclusive());
        word.lanes_are_empty();
        assert!(word.take_exclusive());
    }

    #[test]
    fn a_crowded_actor_lets_nobody_else_share_it_not_even_in_a_lane() {
        let word = active();
        for _ in 0..SHARED_TURNS_MAX {
            assert!(word.reenter_shared());
        }
        word.spread();
        assert!(word.snapshot().is_crowded() && word.snapshot().is_spread());
        assert!(!word.snapshot().lets_into_lanes() && !word.try_shared() && !word.reenter_shared());
        word.release_shared();
        assert!(word.snapshot().lets_into_lanes());
    }

    #[test]
    fn nobody_spreads_an_actor_that_somebody_waits_for() {
        let word = active();
        word.set_queued();
        word.spread();
        assert!(!word.snapshot().is_spread() && word.take_exclusive());
    }

    #[test]
    fn an_exclusive_turn_excludes_everything() {
        let word = active();
        assert!(word.try_exclusive());
        assert!(!word.try_exclusive() && !word.try_shared() && !word.take_exclusive() && !word.take_shared());
        assert!(!word.release_exclusive());
        assert!(word.try_exclusive());
    }

    #[test]
    fn shared_turns_run_together_and_keep_writers_out() {
        let word = active();
        assert!(word.try_shared() && word.try_shared());
        assert_eq!(word.snapshot().readers(), 2);
        assert!(!word.try_exclusive() && !word.take_exclusive());
        word.release_shared();
        word.release_shared();
        assert!(word.take_exclusive());
    }

    #[test]
    fn an_inline_caller_never_overtakes_a_queued_message() {
        let word = active();
        word.set_queued();
        assert!(!word.try_exclusive() && !word.try_shared());
        assert!(word.take_exclusive());
    }

    #[test]
    fn the_release_of_a_turn_finds_what_was_queued_meanwhile() {
        let word = active();
        assert!(word.try_exclusive());
        word.set_queued();
        assert!(word.release_exclusive(), "nobody else will schedule the slot");
        word.begin_drain();
        assert!(word.take_exclusive());
        assert!(word.schedule());
        assert!(!word.release_exclusive(), "it is in a run queue already");
    }

    #[test]
    fn a_watched_actor_is_not_called_inline_until_somebody_looks() {
        let word = active();
        word.watch();
        assert!(!word.try_exclusive() && !word.try_shared());
        assert!(word.end_watch() && !word.end_watch());
        assert!(word.try_exclusive());
    }

    #[test]
    fn a_request_to_close_waits_for_the_running_turn() {
        let word = active();
        assert!(word.try_shared());
        assert_eq!(word.request_close(), Some(false));
        assert!(word.release_shared(), "the last turn hands the slot to the executor");
        word.begin_drain();
        assert!(word.begin(Phase::Active, Phase::Deactivating).is_some());
        word.settle_vacant();
        assert!(!word.snapshot().wants_close());
        assert!(word.retire());
        assert!(word.begin_instant().is_none());
    }
}
