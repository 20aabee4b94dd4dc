//! How many actors a silo keeps, and which ones leave first when it has too many.
//!
//! A silo may have a bound on its activations, and one on its process's memory. Above a bound the idle actors that
//! nobody called for longest are deactivated. The sweep's hand sees only a part of all actors at a time, so that
//! "longest" is judged by the ages that it saw on its last way round (`Ages`): a histogram, from which the age is
//! read above which as many actors lie as are too many.
//!
//! A bound is kept by the sweep, not at the call: between two ticks actors may be made beyond it.

mod ages;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quark_base::ByteSize;
use quark_devices::sample::ProcessMemory;

use self::ages::Ages;
use crate::actor::DeactivationReason;
use crate::services::TICK;
use crate::turn::AnySlot;

/// How often the process's memory is read. It follows deactivations slowly: the allocator keeps pages for later.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The share of all actors that leaves at each reading above the bound: one in so many. Memory is back under it in
/// some ten seconds if actors are what fills it, and a short peak costs few of them.
const SHED_ONE_IN: usize = 16;

/// Tells how much memory the process uses.
///
/// An implementation MUST answer within a millisecond or so, from any thread: the sweep asks it once a second.
pub trait MemoryGauge: Send + Sync + 'static {
    /// What the process holds; `None` if the system does not tell.
    fn used(&self) -> Option<ByteSize>;
}

impl MemoryGauge for ProcessMemory {
    fn used(&self) -> Option<ByteSize> {
        self.read()
    }
}

/// What bounds a silo's actors. Nothing, unless told otherwise.
#[derive(Clone, Default)]
pub(crate) struct Bounds {
    pub(crate) activations: Option<usize>,
    pub(crate) memory: Option<(ByteSize, Arc<dyn MemoryGauge>)>,
}

/// The bounds at work.
pub(crate) struct Pressure {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ages: Ages,
    read_at: Option<Duration>,
    /// Actors that the last reading of the memory wants gone.
    owed: usize,
}

/// What a sweep looks for, and what it found.
pub(crate) struct Look {
    pub(crate) tick: u32,
    /// Actors that there are, and how many of them are too many.
    actors: usize,
    excess: usize,
    /// Idle actors seen in this sweep, with their ages in ticks; only while there are too many.
    idle: Vec<(u32, Arc<dyn AnySlot>)>,
    /// What the hand saw lately; none without a bound.
    ages: Option<Ages>,
    /// Every actor was seen.
    complete: bool,
}

impl Pressure {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default() }
    }

    /// What the sweep at `tick` is to look for, with so many actors that are not on their way out.
    pub(crate) fn begin(&self, tick: u32, now: Duration, actors: usize) -> Look {
        let mut look = Look { tick, actors, excess: 0, idle: Vec::new(), ages: None, complete: true };
        let Bounds { activations, memory } = &self.bounds;
        if activations.is_some() || memory.is_some() {
            let beyond = activations.map_or(0, |most| actors.saturating_sub(most));
            let mut state = self.state.lock();
            look.excess = beyond.max(state.owed(memory.as_ref(), now, actors));
            look.ages = Some(std::mem::take(&mut state.ages));
        }
        look
    }

    /// In how many ticks a sweep may find too many, with so many actors there.
    pub(crate) fn matters_in(&self, actors: usize) -> Option<u32> {
        let Bounds { activations, memory } = &self.bounds;
        if activations.is_some_and(|most| actors > most) {
            return Some(1);
        }
        (memory.is_some() && actors > 0).then_some((READ_EVERY.as_millis() / TICK.as_millis()) as u32)
    }

    /// Deactivates what was found and is too many, least recently used first.
    pub(crate) fn end(&self, look: Look) {
        let Look { actors, excess, mut idle, ages, complete, .. } = look;
        let Some(ages) = ages else { return };
        // Who has seen all actors knows the oldest ones by themselves.
        let age = if complete { 0 } else { ages.oldest(excess, actors) };
        idle.retain(|&(own, _)| own >= age);
        // Stable: of those that are equally old, the one made first is the first to leave.
        idle.sort_by_key(|&(own, _)| Reverse(own));
        idle.truncate(excess);
        let mut state = self.state.lock();
        state.ages = ages;
        state.owed = state.owed.saturating_sub(idle.len());
        drop(state);
        if !idle.is_empty() {
            tracing::debug!(actors, excess, leaving = idle.len(), "too many actors");
        }
        for (_, slot) in idle {
            slot.request_deactivation(DeactivationReason::Pressure);
        }
    }
}

impl State {
    /// Actors that must go for the sake of memory.
    fn owed(
        &mut self,
        memory: Option<&(ByteSize, Arc<dyn MemoryGauge>)>,
        now: Duration,
        actors: usize,
    ) -> usize {
        let Some((most, gauge)) = memory else { return 0 };
        if self.read_at.is_none_or(|at| now.saturating_sub(at) >= READ_EVERY) {
            self.read_at = Some(now);
            let above = gauge.used().is_some_and(|used| used > *most);
            self.owed = if above { (actors / SHED_ONE_IN).max(1) } else { 0 };
        }
        self.owed
    }
}

impl Look {
    /// Whether there are too many actors.
    pub(crate) fn hurries(&self) -> bool {
        self.excess > 0
    }

    /// A type's actors have been looked at: all of them, or not.
    pub(crate) fn saw(&mut self, all: bool) {
        self.complete &= all;
    }

    /// An idle actor that nobody has called for `age` ticks.
    pub(crate) fn found<S: AnySlot>(&mut self, age: u32, slot: &Arc<S>) {
        if let Some(ages) = &mut self.ages {
            ages.record(age);
        }
        if self.excess > 0 {
            self.idle.push((age, slot.clone()));
        }
    }
}
