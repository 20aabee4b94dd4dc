//! Instruction-set extensions a placement or a kernel may ask for.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One row a feature: the variant, its name here, the kernel's flag on x86 and on Arm ("" where it has none).
macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $x86:literal, $arm:literal;)*) => {
        /// An instruction-set extension. Serialised and shown by its usual name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum IsaFeature {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl IsaFeature {
            /// Every feature this crate knows, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its usual name: "avx2", "avx512f", "sve".
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            const fn flags(self) -> (&'static str, &'static str) {
                match self { $(Self::$variant => ($x86, $arm)),* }
            }
        }
    };
}

features! {
    /// SSE 4.2, which brings CRC32C.
    Sse42, "sse4.2", "sse4_2", "";
    /// AVX.
    Avx, "avx", "avx", "";
    /// AVX2.
    Avx2, "avx2", "avx2", "";
    /// Fused multiply-add.
    Fma, "fma", "fma", "";
    /// Half-precision conversions.
    F16c, "f16c", "f16c", "";
    /// AVX-VNNI: dot products of bytes in 256-bit registers.
    AvxVnni, "avx_vnni", "avx_vnni", "";
    /// AVX-512 foundation.
    Avx512F, "avx512f", "avx512f", "";
    /// AVX-512 bytes and words.
    Avx512Bw, "avx512bw", "avx512bw", "";
    /// AVX-512 conflict detection.
    Avx512Cd, "avx512cd", "avx512cd", "";
    /// AVX-512 doubles and quadwords.
    Avx512Dq, "avx512dq", "avx512dq", "";
    /// AVX-512 in shorter registers.
    Avx512Vl, "avx512vl", "avx512vl", "";
    /// AVX-512 52-bit integer multiply-add.
    Avx512Ifma, "avx512ifma", "avx512ifma", "";
    /// AVX-512 byte permutations.
    Avx512Vbmi, "avx512vbmi", "avx512vbmi", "";
    /// AVX-512 byte permutations, second part.
    Avx512Vbmi2, "avx512vbmi2", "avx512_vbmi2", "";
    /// AVX-512 dot products of bytes.
    Avx512Vnni, "avx512vnni", "avx512_vnni", "";
    /// AVX-512 bit algorithms.
    Avx512Bitalg, "avx512bitalg", "avx512_bitalg", "";
    /// AVX-512 population count.
    Avx512Vpopcntdq, "avx512vpopcntdq", "avx512_vpopcntdq", "";
    /// AVX-512 brain floats.
    Avx512Bf16, "avx512bf16", "avx512_bf16", "";
    /// AVX-512 half-precision floats.
    Avx512Fp16, "avx512fp16", "avx512_fp16", "";
    /// AMX tiles.
    AmxTile, "amx-tile", "amx_tile", "";
    /// AMX on bytes.
    AmxInt8, "amx-int8", "amx_int8", "";
    /// AMX on brain floats.
    AmxBf16, "amx-bf16", "amx_bf16", "";
    /// AES instructions.
    Aes, "aes", "aes", "aes";
    /// AES on wide registers.
    Vaes, "vaes", "vaes", "";
    /// Carry-less multiplication.
    Pclmulqdq, "pclmulqdq", "pclmulqdq", "pmull";
    /// Carry-less multiplication on wide registers.
    Vpclmulqdq, "vpclmulqdq", "vpclmulqdq", "";
    /// SHA instructions.
    Sha, "sha", "sha_ni", "sha2";
    /// Population count.
    Popcnt, "popcnt", "popcnt", "";
    /// Bit manipulation, second part.
    Bmi2, "bmi2", "bmi2", "";
    /// Arm Advanced SIMD.
    Neon, "neon", "", "asimd";
    /// Arm CRC32 instructions.
    ArmCrc32, "crc32", "", "crc32";
    /// Arm large system extensions: atomics in one instruction.
    Lse, "lse", "", "atomics";
    /// Arm dot products of bytes.
    DotProd, "dotprod", "", "asimddp";
    /// Arm half-precision arithmetic.
    ArmFp16, "fp16", "", "asimdhp";
    /// Arm brain floats.
    ArmBf16, "bf16", "", "bf16";
    /// Arm 8-bit matrix multiplication.
    I8mm, "i8mm", "", "i8mm";
    /// Arm scalable vectors.
    Sve, "sve", "", "sve";
    /// Arm scalable vectors, second version.
    Sve2, "sve2", "", "sve2";
    /// Arm scalable matrices.
    Sme, "sme", "", "sme";
}

impl IsaFeature {
    /// The feature behind a flag of `/proc/cpuinfo` (its "flags" line on x86).
    pub fn from_x86_flag(flag: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|feature| !flag.is_empty() && feature.flags().0 == flag)
    }

    /// The feature behind a flag of `/proc/cpuinfo` (its "Features" line on Arm; 32-bit kernels say "neon").
    pub fn from_arm_flag(flag: &str) -> Option<Self> {
        let flag = if flag == "neon" { "asimd" } else { flag };
        Self::ALL.iter().copied().find(|feature| !flag.is_empty() && feature.flags().1 == flag)
    }
}

impl fmt::Display for IsaFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_names_are_unique() {
        for (at, one) in IsaFeature::ALL.iter().enumerate() {
            for other in &IsaFeature::ALL[at + 1..] {
                assert_ne!(one.as_str(), other.as_str());
                assert!(one.flags().0.is_empty() || one.flags().0 != other.flags().0, "{one} {other}");
                assert!(one.flags().1.is_empty() || one.flags().1 != other.flags().1, "{one} {other}");
            }
        }
        assert_eq!(IsaFeature::from_x86_flag("avx512_vnni"), Some(IsaFeature::Avx512Vnni));
        assert_eq!(IsaFeature::from_arm_flag("asimd"), Some(IsaFeature::Neon));
        assert_eq!(IsaFeature::from_x86_flag(""), None);
    }
}
