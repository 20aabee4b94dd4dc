//! A hierarchical timing wheel: what is due when, with insertion and cancellation in constant time.
//!
//! The scheme is that of Varghese and Lauck ("Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7). A moment
//! is a number of ticks, read as eleven digits of base 64, which hold every `u64`. An entry stands at the level of
//! the first digit in which it differs from the time that has passed, in that digit's slot:
//!
//! ```text
//! passed  … 0 0 2 7          entry … 0 0 2 9   level 0, slot 9
//!                            entry … 0 0 5 1   level 1, slot 5
//! ```
//!
//! So the lowest level that holds anything holds what is due first, and when time reaches a slot of a higher level
//! its entries move down, each at most ten times in its life. One step moves or expires one entry, so that a caller
//! bounds the work by counting steps.
//!
//! Pure: `now` is an argument.

use std::num::NonZeroU64;
use std::time::Duration;

/// The wheel's resolution. An entry is never early, and late by less than this.
pub(crate) const RESOLUTION: Duration = Duration::from_millis(1);

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = (u64::BITS as usize).div_ceil(BITS as usize);

/// No entry.
const NONE: u32 = u32::MAX;

/// Memory for so many entries is kept while the wheel is empty; more goes back to the allocator.
const KEPT_ENTRIES: usize = 1_024;

/// Values that become due. As many as their owners put in, each of whom is bounded: calls that wait, and timers of
/// actors.
pub(crate) struct Wheel<T> {
    /// Ticks that have passed. No slot that begins earlier holds anything.
    passed: u64,
    levels: Box<[Level; LEVELS]>,
    /// The level whose current slot is being emptied into lower ones.
    emptying: Option<usize>,
    entries: Vec<Entry<T>>,
    /// The first of the unused entries, which are linked by `next`.
    unused: u32,
    length: usize,
    last_serial: u64,
}

/// Names an entry for as long as it is in the wheel, and nothing afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    index: u32,
    serial: NonZeroU64,
}

struct Level {
    /// One bit per slot that holds something.
    occupied: u64,
    slots: [Slot; SLOTS],
}

/// A doubly linked list of entries, first come first.
#[derive(Clone, Copy)]
struct Slot {
    first: u32,
    last: u32,
}

struct Entry<T> {
    due: u64,
    serial: NonZeroU64,
    level: u8,
    slot: u8,
    previous: u32,
    next: u32,
    /// None while the entry is unused.
    value: Option<T>,
}

impl<T> Wheel<T> {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            passed: passed_ticks(now),
            levels: Box::new(
                [const { Level { occupied: 0, slots: [Slot { first: NONE, last: NONE }; SLOTS] } }; LEVELS],
            ),
            emptying: None,
            entries: Vec::new(),
            unused: NONE,
            length: 0,
            last_serial: 0,
        }
    }

    /// How many entries it holds.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.length
    }

    /// Puts `value` in, to come out at `at`.
    pub(crate) fn insert(&mut self, at: Duration, value: T) -> TimerKey {
        self.last_serial += 1;
        let serial = NonZeroU64::new(self.last_serial).unwrap_or(NonZeroU64::MAX);
        let entry = Entry {
            due: due_ticks(at),
            serial,
            level: 0,
            slot: 0,
            previous: NONE,
            next: NONE,
            value: Some(value),
        };
        let index = match self.entries.get(self.unused as usize) {
            Some(unused) => {
                let index = self.unused;
                self.unused = unused.next;
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.length += 1;
        self.place(index);
        TimerKey { index, serial }
    }

    /// Takes a value out before it is due. None if it has come out already.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.get_mut(key)?;
        self.unlink(key.index);
        self.free(key.index)
    }

    /// A value that is still in.
    pub(crate) fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.serial == key.serial { entry.value.as_mut() } else { None }
    }

    /// When to look again: not later than the first value is due, and never before something is to be done.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        self.next().map(|(_, _, start)| moment(start))
    }

    /// Everything that is in it, in no order.
    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.entries.into_iter().filter_map(|entry| entry.value)
    }

    /// The next value that is due at `now`, in the order of their ticks. Each value that moves on the way costs one
    /// of `steps`; none left means that there may be more.
    pub(crate) fn expire(&mut self, now: Duration, steps: &mut usize) -> Option<T> {
        let now = passed_ticks(now);
        while *steps > 0 {
            let Some((level, slot, start)) = self.next().filter(|&(_, _, start)| start <= now) else {
                self.passed = self.passed.max(now);
                return None;
            };
            *steps -= 1;
            self.passed = start;
            let index = self.levels[level].slots[slot].first;
            self.unlink(index);
            if level == 0 {
                return self.free(index);
            }
            let left = self.levels[level].occupied & (1 << slot) != 0;
            self.emptying = left.then_some(level);
            self.place(index);
        }
        None
    }

    /// The level and slot to look at next, and the tick at which that slot begins.
    fn next(&self) -> Option<(usize, usize, u64)> {
        if let Some(level) = self.emptying {
            let slot = digit(self.passed, level);
            if self.levels[level].occupied & (1 << slot) != 0 {
                return Some((level, slot, self.passed));
            }
        }
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        // No slot before the current one holds anything: its entries would differ in a higher digit.
        let slot = self.levels[level].occupied.trailing_zeros() as usize;
        let below = BITS * level as u32;
        let above = self.passed.checked_shr(below + BITS).map_or(0, |high| high << (below + BITS));
        Some((level, slot, above | (slot as u64) << below))
    }

    /// Puts an entry where its digits say.
    fn place(&mut self, index: u32) {
        let due = self.entries[index as usize].due.max(self.passed);
        let level = ((due ^ self.passed) | 1).ilog2() / BITS;
        let slot = digit(due, level as usize);
        let Level { occupied, slots } = &mut self.levels[level as usize];
        *occupied |= 1 << slot;
        let last = slots[slot].last;
        slots[slot].last = index;
        match self.entries.get_mut(last as usize) {
            Some(last) => last.next = index,
            None => slots[slot].first = index,
        }
        let entry = &mut self.entries[index as usize];
        (entry.level, entry.slot) = (level as u8, slot as u8);
        (entry.previous, entry.next) = (last, NONE);
    }

    /// Takes an entry out of its slot.
    fn unlink(&mut self, index: u32) {
        let Entry { level, slot, previous, next, .. } = self.entries[index as usize];
        let level = &mut self.levels[usize::from(level)];
        let ends = &mut level.slots[usize::from(slot)];
        match self.entries.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => ends.first = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(next) => next.previous = previous,
            None => ends.last = previous,
        }
        if ends.first == NONE {
            level.occupied &= !(1 << slot);
        }
    }

    /// Gives an unlinked entry's memory back.
    fn free(&mut self, index: u32) -> Option<T> {
        let value = self.entries[index as usize].value.take();
        self.entries[index as usize].next = self.unused;
        self.unused = index;
        self.length -= 1;
        if self.length == 0 && self.entries.capacity() > KEPT_ENTRIES {
            self.entries = Vec::new();
            self.unused = NONE;
        }
        value
    }
}

fn digit(ticks: u64, level: usize) -> usize {
    (ticks >> (BITS * level as u32)) as usize % SLOTS
}

/// Whole ticks that have passed at `now`.
fn passed_ticks(now: Duration) -> u64 {
    u64::try_from(now.as_nanos() / RESOLUTION.as_nanos()).unwrap_or(u64::MAX)
}

/// The first tick that is not before `at`.
fn due_ticks(at: Duration) -> u64 {
    u64::try_from(at.as_nanos().div_ceil(RESOLUTION.as_nanos())).unwrap_or(u64::MAX)
}

/// When a tick begins.
fn moment(ticks: u64) -> Duration {
    // Past what nanoseconds in a `u64` can say, which is 584 years, nobody waits for the difference.
    Duration::from_nanos(ticks.saturating_mul(RESOLUTION.as_nanos() as u64))
}

#[cfg(test)]
mod tests;
