//! How long idle actors have been idle: a histogram of what the sweep's hand saw lately.

/// Ages below this have a bin each; above, each doubling has as many bins.
const FINE: u32 = 16;

/// Doublings from `FINE` to the longest age in ticks.
const DOUBLINGS: u32 = u32::BITS - FINE.ilog2();

const BINS: usize = (FINE + DOUBLINGS * FINE) as usize;

/// Ages after which the older half of the memory is dropped: some visits of the hand.
const WINDOW: u32 = 65_536;

/// A histogram of ages in ticks, exact to a sixteenth. It remembers between one and two windows.
#[derive(Default)]
pub(super) struct Ages {
    now: Bins,
    before: Bins,
}

#[derive(Default)]
struct Bins {
    /// Made with the first age: a silo without bounds has none.
    counts: Option<Box<[u32; BINS]>>,
    total: u32,
}

impl Ages {
    pub(super) fn record(&mut self, age: u32) {
        if self.now.total >= WINDOW {
            self.before = std::mem::take(&mut self.now);
        }
        self.now.counts.get_or_insert_with(|| Box::new([0; BINS]))[bin(age)] += 1;
        self.now.total += 1;
    }

    /// The greatest age such that at least `excess` of `actors` actors are that old, as far as is known.
    pub(super) fn oldest(&self, excess: usize, actors: usize) -> u32 {
        let total = u64::from(self.now.total) + u64::from(self.before.total);
        let wanted = (total * excess as u64).div_ceil(actors.max(1) as u64);
        let mut older = 0;
        for bin in (0..BINS).rev() {
            older += u64::from(self.now.count(bin)) + u64::from(self.before.count(bin));
            if older >= wanted && older > 0 {
                return least_age(bin);
            }
        }
        0
    }
}

impl Bins {
    fn count(&self, bin: usize) -> u32 {
        self.counts.as_ref().map_or(0, |counts| counts[bin])
    }
}

fn bin(age: u32) -> usize {
    if age < FINE {
        return age as usize;
    }
    let doubling = age.ilog2() - FINE.ilog2();
    (FINE + doubling * FINE + ((age >> doubling) - FINE)) as usize
}

/// The least age of a bin.
fn least_age(bin: usize) -> u32 {
    let bin = bin as u32;
    if bin < FINE {
        return bin;
    }
    let (doubling, part) = ((bin - FINE) / FINE, (bin - FINE) % FINE);
    (FINE + part) << doubling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_age_is_in_the_bin_that_begins_at_it_or_a_sixteenth_below() {
        for age in (0..100_000).chain([u32::MAX / 3, u32::MAX - 1, u32::MAX]) {
            let least = least_age(bin(age));
            assert!(least <= age && age - least <= age / FINE, "{age} is in the bin of {least}");
        }
        assert_eq!(bin(u32::MAX), BINS - 1);
    }

    #[test]
    fn it_knows_the_age_above_which_so_many_lie() {
        let mut ages = Ages::default();
        for age in 0..1_000 {
            ages.record(age);
        }
        let age = ages.oldest(100, 1_000);
        assert!((840..=900).contains(&age), "{age}");
        // What it saw is a sample of a hundred times as many.
        assert_eq!(ages.oldest(10_000, 100_000), age);
        assert_eq!(ages.oldest(1_000, 1_000), 0);
    }

    #[test]
    fn it_forgets_what_it_saw_long_ago() {
        let mut ages = Ages::default();
        for _ in 0..WINDOW {
            ages.record(1_000_000);
        }
        for _ in 0..2 * WINDOW {
            ages.record(3);
        }
        assert_eq!(ages.oldest(1, 1_000), 3);
    }

    #[test]
    fn who_saw_nothing_spares_nobody() {
        assert_eq!(Ages::default().oldest(5, 10), 0);
    }
}
