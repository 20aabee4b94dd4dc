//! What an actor type asks of the machine it runs on.
//!
//! Plain `const` values: `#[actor(gpu(vram = "2 GiB", numa = "local"))]` expands to
//! `GpuNeed::new(2_147_483_648).numa(NumaPreference::Local)` in a constant.

use std::fmt;

use quark_base::ByteSize;
use quark_devices::inventory::IsaFeature;
use serde::{Deserialize, Serialize};

/// Where a device or silo should sit among the machine's NUMA nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumaPreference {
    /// Anywhere.
    #[default]
    Any,
    /// Near what it works with: a device of the caller's node is preferred, and the actor's turns and memory
    /// follow the device it gets. Never a reason to refuse a device.
    Local,
    /// On this node and no other, by the kernel's number.
    Node(u32),
}

/// What `#[actor(gpu(...))]` declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GpuNeed {
    /// Video memory that the actor's lease covers.
    pub vram: ByteSize,
    /// Where the device should sit.
    pub numa: NumaPreference,
    /// Whether the actor also runs with no device. Changes what the caller does with a refusal, not the choice.
    pub optional: bool,
    /// The lowest CUDA compute capability, (major, minor). Devices without one don't fit.
    pub min_capability: Option<(u32, u32)>,
    /// 16-bit floats in arithmetic.
    pub f16: bool,
    /// Brain floats in arithmetic.
    pub bf16: bool,
    /// Whether a software adapter (llvmpipe) will do where there is no GPU.
    pub allow_software: bool,
}

impl GpuNeed {
    /// A device that can lease `vram_bytes`, and nothing else asked.
    #[must_use]
    pub const fn new(vram_bytes: u64) -> Self {
        Self {
            vram: ByteSize::bytes(vram_bytes),
            numa: NumaPreference::Any,
            optional: false,
            min_capability: None,
            f16: false,
            bf16: false,
            allow_software: false,
        }
    }

    /// The same need with a wish for a NUMA node.
    #[must_use]
    pub const fn numa(self, numa: NumaPreference) -> Self {
        Self { numa, ..self }
    }

    /// The same need for an actor that also runs with no device.
    #[must_use]
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// The same need with a lowest CUDA compute capability.
    #[must_use]
    pub const fn capability(self, major: u32, minor: u32) -> Self {
        Self { min_capability: Some((major, minor)), ..self }
    }

    /// The same need with 16-bit floats.
    #[must_use]
    pub const fn f16(self) -> Self {
        Self { f16: true, ..self }
    }

    /// The same need with brain floats.
    #[must_use]
    pub const fn bf16(self) -> Self {
        Self { bf16: true, ..self }
    }

    /// The same need, for which a software adapter will do.
    #[must_use]
    pub const fn software(self) -> Self {
        Self { allow_software: true, ..self }
    }
}

/// As it stands in the attribute: `gpu(vram = 2 GiB, numa = local, f16)`.
impl fmt::Display for GpuNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.vram.is_zero() {
            parts.push(format!("vram = {}", self.vram));
        }
        match self.numa {
            NumaPreference::Any => {}
            NumaPreference::Local => parts.push("numa = local".into()),
            NumaPreference::Node(node) => parts.push(format!("numa = {node}")),
        }
        if let Some((major, minor)) = self.min_capability {
            parts.push(format!("capability = {major}.{minor}"));
        }
        let flags = [
            (self.f16, "f16"),
            (self.bf16, "bf16"),
            (self.allow_software, "software"),
            (self.optional, "optional"),
        ];
        parts.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()));
        if parts.is_empty() { f.write_str("gpu") } else { write!(f, "gpu({})", parts.join(", ")) }
    }
}

/// What an actor asks of the processors of its silo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct CpuNeed {
    /// Instruction-set features that all CPUs must have.
    pub features: &'static [IsaFeature],
    /// CPUs that the silo may use, at least.
    pub min_cpus: u32,
    /// Main memory that the silo may use, at least.
    pub min_memory: ByteSize,
}

impl CpuNeed {
    /// Nothing asked.
    pub const ANY: Self = Self { features: &[], min_cpus: 0, min_memory: ByteSize::ZERO };
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: GpuNeed =
        GpuNeed::new(2 << 30).numa(NumaPreference::Local).capability(8, 0).f16().software().optional();

    #[test]
    fn a_need_reads_like_its_attribute() {
        let text = "gpu(vram = 2 GiB, numa = local, capability = 8.0, f16, software, optional)";
        assert_eq!(DECLARED.to_string(), text);
        assert_eq!(GpuNeed::new(0).to_string(), "gpu");
        assert_eq!(GpuNeed::new(0).numa(NumaPreference::Node(1)).bf16().to_string(), "gpu(numa = 1, bf16)");
    }
}
