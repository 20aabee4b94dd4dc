//! CRC32C by the SSE4.2 instruction.

use super::{LANE_A_SEED, LANE_B_SEED, LANE_MULTIPLIER, words};
use std::arch::x86_64::_mm_crc32_u64;

/// Both lanes over `key`, or `None` on a CPU without SSE4.2.
pub(super) fn lanes(key: &[u8]) -> Option<(u32, u32)> {
    if !std::arch::is_x86_feature_detected!("sse4.2") {
        return None;
    }
    // SAFETY: `lanes_sse42` is a safe function whose only condition is that the
    // CPU has SSE4.2, which the line above has just asked.
    Some(unsafe { lanes_sse42(key) })
}

/// Whether this build's usual machine has the instruction.
#[cfg(test)]
pub(super) const fn expected() -> bool {
    true
}

#[target_feature(enable = "sse4.2")]
fn lanes_sse42(key: &[u8]) -> (u32, u32) {
    let (mut a, mut b) = (u64::from(LANE_A_SEED), u64::from(LANE_B_SEED));
    let (whole, tail) = words(key);
    for word in whole.chain(tail) {
        a = _mm_crc32_u64(a, word);
        b = _mm_crc32_u64(b, word.wrapping_mul(LANE_MULTIPLIER));
    }
    // The instruction leaves its result in the lower half.
    (a as u32, b as u32)
}
