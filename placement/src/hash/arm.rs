//! CRC32C by the ARMv8 instruction.

use super::{LANE_A_SEED, LANE_B_SEED, LANE_MULTIPLIER, words};
use std::arch::aarch64::__crc32cd;

/// Both lanes over `key`, or `None` on a CPU without the CRC extension.
pub(super) fn lanes(key: &[u8]) -> Option<(u32, u32)> {
    if !std::arch::is_aarch64_feature_detected!("crc") {
        return None;
    }
    // SAFETY: `lanes_crc` is a safe function whose only condition is that the
    // CPU has the CRC extension, which the line above has just asked.
    Some(unsafe { lanes_crc(key) })
}

/// Whether this build's usual machine has the instruction.
#[cfg(test)]
pub(super) const fn expected() -> bool {
    true
}

#[target_feature(enable = "crc")]
fn lanes_crc(key: &[u8]) -> (u32, u32) {
    let (mut a, mut b) = (LANE_A_SEED, LANE_B_SEED);
    let (whole, tail) = words(key);
    for word in whole.chain(tail) {
        a = __crc32cd(a, word);
        b = __crc32cd(b, word.wrapping_mul(LANE_MULTIPLIER));
    }
    (a, b)
}
