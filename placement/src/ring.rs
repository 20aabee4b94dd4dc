//! A consistent-hash ring: which silo a key falls to, given only the silo list.
//!
//! The ring is an immutable value. A membership change builds a new one from the
//! new list, and whoever reads shares it behind an `Arc`, so looking a key up takes
//! no lock. Two silos with the same list build the same ring, whatever order the
//! list came in.

use crate::hash::{hash, mix};
use quark_base::SiloId;

/// Points each silo has on the ring. The share of a silo has a relative standard
/// deviation of about 1 / sqrt(points): 8 % at 150, which keeps the fullest of ten
/// silos below 1.25 of the mean; twice the points would win a third of that for
/// twice the memory.
pub const VIRTUAL_NODES: usize = 150;

/// Silos one ring takes. 16,384 silos are 2.5 million points, 40 MB.
pub const MAX_SILOS: usize = 16_384;

const _: () = assert!(MAX_SILOS * VIRTUAL_NODES < u32::MAX as usize, "point indices are 32 bits");

/// An immutable 64-bit ring over a list of silos. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Sorted, without duplicates.
    silos: Box<[SiloId]>,
    /// Sorted by position. The second part is an index into `silos`.
    points: Box<[(u64, u32)]>,
}

/// A silo list that no ring can be built from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// More silos than [`MAX_SILOS`]. Nothing was built.
    #[error("{given} silos do not fit one ring; at most {MAX_SILOS} do")]
    TooManySilos {
        /// Distinct silos in the list.
        given: usize,
    },
}

impl Ring {
    /// Builds the ring of `silos`. Duplicates count once; an empty list makes a
    /// ring on which every lookup answers `None`.
    pub fn new(silos: impl IntoIterator<Item = SiloId>) -> Result<Self, RingError> {
        let mut silos: Vec<SiloId> = silos.into_iter().collect();
        silos.sort_unstable();
        silos.dedup();
        if silos.len() > MAX_SILOS {
            return Err(RingError::TooManySilos { given: silos.len() });
        }
        let mut points: Vec<(u64, u32)> = Vec::with_capacity(silos.len() * VIRTUAL_NODES);
        for (index, silo) in silos.iter().enumerate() {
            let base = hash(&silo.0.to_le_bytes());
            // Two silos may meet in one point (once in 2^64 / points^2). The lower
            // silo sorts first and wins, on every machine alike.
            points.extend((1..=VIRTUAL_NODES as u64).map(|node| (point(base, node), index as u32)));
        }
        points.sort_unstable();
        Ok(Self { silos: silos.into(), points: points.into() })
    }

    /// The silo that `key` falls to: the owner of the first point at or after the
    /// key's hash. `None` only on a ring without silos.
    #[must_use]
    pub fn lookup(&self, key: &[u8]) -> Option<SiloId> {
        self.lookup_hash(hash(key))
    }

    /// [`lookup`](Self::lookup) for a hash that the caller has already.
    #[must_use]
    pub fn lookup_hash(&self, hash: u64) -> Option<SiloId> {
        let at = self.points.partition_point(|(position, _)| *position < hash);
        let (_, index) = self.points.get(at).or_else(|| self.points.first())?;
        self.silos.get(*index as usize).copied()
    }

    /// Up to `count` distinct silos for `key`, in the order in which they would
    /// take it over: the owner first.
    #[must_use]
    pub fn preference(&self, key: &[u8], count: usize) -> Vec<SiloId> {
        let wanted = count.min(self.silos.len());
        let start = self.points.partition_point(|(position, _)| *position < hash(key));
        let mut taken: Vec<u32> = Vec::with_capacity(wanted);
        for (_, index) in self.points[start..].iter().chain(&self.points[..start]) {
            if taken.len() == wanted {
                break;
            }
            if !taken.contains(index) {
                taken.push(*index);
            }
        }
        taken.into_iter().map(|index| self.silos[index as usize]).collect()
    }

    /// The silos of this ring, sorted.
    #[must_use]
    pub fn silos(&self) -> &[SiloId] {
        &self.silos
    }
}

/// The position of one virtual node. Derived from the silo's hash rather than by
/// hashing name and number together: 150 words instead of 150 strings per silo.
fn point(silo_hash: u64, node: u64) -> u64 {
    mix(silo_hash.wrapping_add(mix(node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Incarnations as membership makes them: random numbers, here from a seed.
    fn silos(count: usize, seed: u64) -> Vec<SiloId> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..count).map(|_| SiloId(random.u64(..))).collect()
    }

    fn keys(count: usize) -> impl Iterator<Item = Vec<u8>> {
        (0..count).map(|i| format!("cam-{i}").into_bytes())
    }

    #[test]
    fn ten_silos_share_evenly() {
        const KEYS: usize = 200_000;
        let counted: Vec<SiloId> = (0..10).map(SiloId).collect();
        for fleet in [counted, silos(10, 1), silos(10, 2), silos(10, 3)] {
            let ring = Ring::new(fleet.iter().copied()).unwrap();
            let mut load: HashMap<SiloId, usize> = HashMap::new();
            for key in keys(KEYS) {
                *load.entry(ring.lookup(&key).unwrap()).or_default() += 1;
            }
            assert_eq!(load.len(), 10);
            let max = *load.values().max().unwrap() as f64;
            let ratio = max / (KEYS as f64 / 10.0);
            assert!(ratio <= 1.25, "{fleet:?}: the fullest silo has {ratio:.3} of the mean");
        }
    }

    #[test]
    fn a_silo_that_joins_takes_keys_only_to_itself() {
        let before = Ring::new(silos(10, 4)).unwrap();
        let new = SiloId(77);
        let after = Ring::new(silos(10, 4).into_iter().chain([new])).unwrap();
        let mut moved = 0;
        for key in keys(50_000) {
            let (old, now) = (before.lookup(&key).unwrap(), after.lookup(&key).unwrap());
            if old != now {
                assert_eq!(now, new);
                moved += 1;
            }
        }
        // A fair share is 1/11 of 50,000 = 4,545; the ring's balance allows 1.25 of it.
        assert!((3_000..=5_682).contains(&moved), "{moved} keys moved");
    }

    #[test]
    fn a_silo_that_leaves_gives_up_only_its_own_keys() {
        let all = silos(10, 5);
        let leaver = all[3];
        let before = Ring::new(all.iter().copied()).unwrap();
        let after = Ring::new(all.into_iter().filter(|silo| *silo != leaver)).unwrap();
        for key in keys(50_000) {
            let (old, now) = (before.lookup(&key).unwrap(), after.lookup(&key).unwrap());
            assert!(old == now || old == leaver);
            assert_ne!(now, leaver);
        }
    }

    #[test]
    fn the_next_in_preference_is_who_takes_over() {
        let ring = Ring::new(silos(6, 6)).unwrap();
        for key in keys(500) {
            let order = ring.preference(&key, 3);
            assert_eq!(order[0], ring.lookup(&key).unwrap());
            let without = Ring::new(silos(6, 6).into_iter().filter(|silo| *silo != order[0])).unwrap();
            assert_eq!(without.lookup(&key).unwrap(), order[1]);
        }
    }

    #[test]
    fn an_empty_ring_answers_none_and_too_many_silos_are_refused() {
        let empty = Ring::new([]).unwrap();
        assert_eq!(empty.lookup(b"k"), None);
        assert!(empty.preference(b"k", 3).is_empty());
        let many = (0..=MAX_SILOS as u64).map(SiloId);
        assert_eq!(Ring::new(many), Err(RingError::TooManySilos { given: MAX_SILOS + 1 }));
    }

    proptest! {
        #[test]
        fn order_and_duplicates_make_no_difference(
            mut ids in proptest::collection::vec(0..40_u64, 1..12), turn in any::<prop::sample::Index>(),
        ) {
            let one = Ring::new(ids.iter().copied().map(SiloId)).unwrap();
            ids.extend(ids.clone());
            let by = turn.index(ids.len());
            ids.rotate_left(by);
            ids.reverse();
            prop_assert_eq!(one, Ring::new(ids.into_iter().map(SiloId)).unwrap());
        }

        #[test]
        fn a_preference_list_has_distinct_silos(count in 1..8_usize, wanted in 0..12_usize, key in ".*") {
            let ring = Ring::new(silos(count, 7)).unwrap();
            let mut order = ring.preference(key.as_bytes(), wanted);
            prop_assert_eq!(order.len(), wanted.min(count));
            order.sort_unstable();
            order.dedup();
            prop_assert_eq!(order.len(), wanted.min(count));
        }
    }
}
