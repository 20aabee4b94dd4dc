//! The 64-bit hash that decides where a key lives.
//!
//! Two CRC32C lanes read the key eight bytes at a time; the first reads each
//! little-endian word as it is, the second reads the word multiplied by an odd
//! constant. The lanes make 64 bits, which a finalising mixer spreads.
//!
//! Why not raw CRC: it is linear over GF(2), so similar keys land close together
//! and a ring of raw CRC points balances badly. Why the multiplication: a second
//! lane that differs only in its seed differs from the first by a constant for
//! all keys of one length, so it adds no information. Multiplying by an odd
//! constant is a bijection of words that is not linear over GF(2).
//!
//! | path       | where                                 | chosen                |
//! |------------|---------------------------------------|-----------------------|
//! | `x86`      | SSE4.2 `crc32` on x86-64              | CPU says so           |
//! | `arm`      | ARMv8 `crc32cx`                       | CPU says so           |
//! | `software` | table, everywhere; the tests' oracle  | otherwise             |
//!
//! All paths give the same bits: a fleet of unlike machines must agree where a
//! key lives. The value is part of the contract between them, and tests pin it.

#[cfg(target_arch = "aarch64")]
#[path = "hash/arm.rs"]
mod hardware;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "hash/none.rs"]
mod hardware;
#[cfg(target_arch = "x86_64")]
#[path = "hash/x86.rs"]
mod hardware;
mod software;

/// The odd constant of the second lane: 2^64 divided by the golden ratio, made
/// odd (Knuth, TAOCP 3, 6.4), so that every input bit reaches the upper half.
const LANE_MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Start value of the first lane; CRC32C's own (RFC 3720, appendix B.4).
const LANE_A_SEED: u32 = 0xFFFF_FFFF;

/// Start value of the second lane. Any value unlike the first's does.
const LANE_B_SEED: u32 = 0x243F_6A88;

/// Hashes `key` to 64 well-mixed bits, the same on every machine.
///
/// Not a defence against chosen keys: CRC can be inverted. Whoever may choose
/// keys freely may also choose which silo they land on.
#[must_use]
pub fn hash(key: &[u8]) -> u64 {
    let (a, b) = hardware::lanes(key).unwrap_or_else(|| software::lanes(key));
    finish(a, b, key.len())
}

/// [`hash`] by the table path alone: what machines without a CRC instruction
/// run, and the oracle the other paths are tested against.
#[must_use]
pub fn hash_software(key: &[u8]) -> u64 {
    let (a, b) = software::lanes(key);
    finish(a, b, key.len())
}

/// Hashes `key` under a `salt`, for a second independent order of the same keys
/// (virtual nodes of a ring, tie-breaks of a director).
#[must_use]
pub fn hash_salted(key: &[u8], salt: u64) -> u64 {
    mix(hash(key) ^ salt.wrapping_mul(LANE_MULTIPLIER))
}

/// Joins the lanes. The length takes part because the last word says nothing about
/// it: without it `"aa"` and `"aaa"` would be one key.
fn finish(a: u32, b: u32, len: usize) -> u64 {
    let joined = (u64::from(a) << 32) | u64::from(b);
    mix(joined ^ (len as u64).wrapping_mul(LANE_MULTIPLIER))
}

/// A bijective finaliser of 64 bits: David Stafford's variant 13 of the
/// MurmurHash3 finaliser, as SplitMix64 uses it (Steele, Lea, Flood 2014).
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Splits `key` into its whole little-endian words and, unless its length is a
/// multiple of eight, one word for the rest.
fn words(key: &[u8]) -> (impl Iterator<Item = u64>, Option<u64>) {
    let (whole, rest) = key.as_chunks::<8>();
    let tail = (!rest.is_empty()).then(|| tail(key));
    (whole.iter().map(|word| u64::from_le_bytes(*word)), tail)
}

/// The word that covers the end of a key: reads of fixed width that overlap what was read before, since copying a
/// rest of unknown length costs more than all the hashing of a short key.
fn tail(key: &[u8]) -> u64 {
    if let Some(last) = key.last_chunk::<8>() {
        u64::from_le_bytes(*last)
    } else if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        u64::from(u32::from_le_bytes(*first)) | (u64::from(u32::from_le_bytes(*last)) << 32)
    } else if let (Some(first), Some(middle), Some(last)) = (key.first(), key.get(key.len() / 2), key.last())
    {
        u64::from(*first) | (u64::from(*middle) << 8) | (u64::from(*last) << 16)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Keys counted up in the shapes users give them.
    const SEQUENTIAL_KEYS: u64 = 1_000_000;

    proptest! {
        #[test]
        fn hardware_and_software_agree(key in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(hash(&key), hash_software(&key));
        }

        #[test]
        fn one_flipped_bit_changes_the_value(
            key in proptest::collection::vec(any::<u8>(), 1..64), at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let mut other = key.clone();
            other[at.index(key.len())] ^= 1 << bit;
            prop_assert_ne!(hash(&key), hash(&other));
        }

        #[test]
        fn one_byte_more_is_another_key(key in proptest::collection::vec(any::<u8>(), 0..40), byte in any::<u8>()) {
            let mut longer = key.clone();
            longer.push(byte);
            prop_assert_ne!(hash(&key), hash(&longer));
        }

        #[test]
        fn runs_of_one_byte_are_keys_of_their_own(byte in any::<u8>(), one in 0..70_usize, other in 0..70_usize) {
            prop_assert_eq!(hash(&vec![byte; one]) == hash(&vec![byte; other]), one == other);
        }
    }

    #[test]
    fn the_machines_own_path_is_the_one_tested() {
        // On the machines that CI runs on the instruction is there; a silent fall
        // back to the table would make the agreement test compare it with itself.
        assert!(hardware::lanes(b"x").is_some() || !hardware::expected());
    }

    #[test]
    fn values_are_pinned() {
        // Part of the contract between machines: a change here moves every key of
        // every running grid. Worked out by a second implementation, bit by bit.
        for (key, value) in [
            ("", 0x48D2_7A70_B595_A5C5),
            ("ab", 0x9F85_CCEF_D991_DD98),
            ("cam-7", 0xBB83_674E_2865_3F81),
            ("vision.analyzer/cam-7", 0xFD44_2D08_C257_6EBB),
        ] {
            assert_eq!((hash(key.as_bytes()), hash_software(key.as_bytes())), (value, value), "{key:?}");
        }
    }

    fn collisions(keys: impl Iterator<Item = Vec<u8>>) -> usize {
        let mut seen = HashSet::new();
        keys.filter(|key| !seen.insert(hash(key))).count()
    }

    #[test]
    fn sequential_text_keys_do_not_collide() {
        assert_eq!(collisions((0..SEQUENTIAL_KEYS).map(|i| format!("sensor-{i:010}").into_bytes())), 0);
    }

    #[test]
    fn sequential_binary_keys_do_not_collide() {
        assert_eq!(collisions((0..SEQUENTIAL_KEYS).map(|i| i.to_be_bytes().to_vec())), 0);
        assert_eq!(collisions((0..SEQUENTIAL_KEYS).map(|i| (u128::from(i) << 40).to_le_bytes().to_vec())), 0);
    }

    #[test]
    fn every_output_bit_is_balanced_over_sequential_keys() {
        const KEYS: u32 = 65_536;
        let mut ones = [0_u32; 64];
        for i in 0..KEYS {
            let value = hash(format!("k{i}").as_bytes());
            for (bit, count) in ones.iter_mut().enumerate() {
                *count += u32::from(value >> bit & 1 == 1);
            }
        }
        // Five standard deviations of a fair coin: 5 * sqrt(65536) / 2 = 640.
        for (bit, count) in ones.iter().enumerate() {
            assert!(count.abs_diff(KEYS / 2) < 640, "bit {bit} was set {count} times of {KEYS}");
        }
    }
}
