//! Architectures without a CRC32C instruction that we use.

/// Always `None`: the table path serves.
pub(super) fn lanes(_key: &[u8]) -> Option<(u32, u32)> {
    None
}

/// Whether this build's usual machine has the instruction.
#[cfg(test)]
pub(super) const fn expected() -> bool {
    false
}
