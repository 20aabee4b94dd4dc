//! Counting shared turns apart, so that threads which share an actor do not share a cache line.
//!
//! A slot whose shared turns come from several threads is *spread*: a shared turn is then counted in its thread's own
//! lane instead of the slot's word, which all of them only read. Whoever needs the actor alone *gathers* it first:
//! he takes the word's `SPREAD` away, so that no turn enters a lane any more, and has the actor to himself once all
//! lanes are empty. The idea is that of biased reader-writer locks (Dice and Kogan, "BRAVO", USENIX ATC 2019), with
//! the counts kept per lock instead of in a table that all of them share.
//!
//! A turn enters by counting itself in its lane and looking at the word *afterwards*; whoever gathers changes the word
//! and looks at the lanes *afterwards*. So one of the two sees the other. A turn that leaves its lane looks at the word
//! once more, and schedules the slot if somebody waits for it.
//!
//! All of it happens under the mailbox lock but for entering, leaving, and spreading, which a turn does that shares
//! the actor already and sees that nobody waits.

use crate::turn::sync::{AtomicU32, Ordering, lanes, model_fence};

/// A count on a cache line of its own; two lines, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(AtomicU32);

/// The lanes of one slot.
#[derive(Debug)]
pub(crate) struct Lanes(Box<[Lane]>);

impl Lanes {
    /// As many as threads can run at once, at most 64: more threads than that share lanes, which costs speed only.
    pub(crate) fn new() -> Self {
        Self((0..lanes()).map(|_| Lane::default()).collect())
    }

    /// Counts a turn of `thread` in. It may run only if the word, looked at after this, still says so.
    #[inline]
    pub(crate) fn enter(&self, thread: u32) {
        self.lane(thread).fetch_add(1, Ordering::SeqCst);
        model_fence();
    }

    /// Counts a turn of `thread` out. Look at the word after this: somebody may wait.
    #[inline]
    pub(crate) fn leave(&self, thread: u32) {
        self.lane(thread).fetch_sub(1, Ordering::SeqCst);
        model_fence();
    }

    /// Whether nobody is in a lane. Look after the word has changed.
    pub(crate) fn are_empty(&self) -> bool {
        model_fence();
        self.0.iter().all(|lane| lane.0.load(Ordering::SeqCst) == 0)
    }

    #[inline]
    fn lane(&self, thread: u32) -> &AtomicU32 {
        // A power of two, so that this is no division.
        &self.0[thread as usize & (self.0.len() - 1)].0
    }
}
