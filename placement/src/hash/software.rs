//! CRC32C by table: slow, portable, and the oracle of the instruction paths.

use super::{LANE_A_SEED, LANE_B_SEED, LANE_MULTIPLIER, words};

/// Castagnoli's polynomial, reflected (RFC 3720).
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn step(crc: u32, word: u64) -> u32 {
    word.to_le_bytes()
        .into_iter()
        .fold(crc, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xFF) as usize])
}

/// Both lanes over `key`.
pub(super) fn lanes(key: &[u8]) -> (u32, u32) {
    let (whole, tail) = words(key);
    whole.chain(tail).fold((LANE_A_SEED, LANE_B_SEED), |(a, b), word| {
        (step(a, word), step(b, word.wrapping_mul(LANE_MULTIPLIER)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_crc32c() {
        // Check values: RFC 3720 appendix B.4, 32 bytes of zeros and of ones.
        let crc = |byte: u8| !(0..4).fold(0xFFFF_FFFF, |crc, _| step(crc, u64::from_le_bytes([byte; 8])));
        assert_eq!(crc(0x00), 0x8A91_36AA);
        assert_eq!(crc(0xFF), 0x62A8_AB43);
    }
}
