//! Processors.

use super::{CpuSet, IsaFeature};
use quark_base::ByteSize;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// The processors of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Who makes it.
    pub vendor: CpuVendor,
    /// The model's name; empty when unknown (most Arm kernels give none).
    pub model: String,
    /// The instruction set, as `uname -m` writes it: "x86_64", "aarch64"; empty when unknown.
    pub architecture: String,
    /// Sockets with at least one online CPU.
    pub sockets: u32,
    /// Physical cores with at least one online CPU.
    pub cores: u32,
    /// Online hardware threads, which is what the kernel calls a CPU.
    pub threads: u32,
    /// The online CPUs.
    pub online: CpuSet,
    /// CPUs that are present and switched off.
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub offline: CpuSet,
    /// The online CPUs this process may run on (affinity and cgroup cpusets).
    pub allowed: CpuSet,
    /// CPU time this process may use, in CPUs (1.5 is one and a half), if a cgroup limits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<f64>,
    /// The highest clock, in MHz, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_mhz: Option<u32>,
    /// Caches, by level and kind.
    pub caches: Vec<Cache>,
    /// Instruction-set extensions that all online CPUs have.
    pub features: BTreeSet<IsaFeature>,
    /// The kinds of cores of a hybrid processor, fastest first; empty when all are alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub core_kinds: Vec<CoreKind>,
    /// Each online CPU and where it sits.
    pub logical: Vec<LogicalCpu>,
}

impl Cpu {
    /// Whether all online CPUs have this extension.
    pub fn has(&self, feature: IsaFeature) -> bool {
        self.features.contains(&feature)
    }

    /// How many CPUs this process can keep busy: the allowed ones, fewer if a quota is below. At least 1.
    pub fn usable(&self) -> u32 {
        let allowed = u32::try_from(self.allowed.len()).unwrap_or(u32::MAX);
        // A quota of 1.5 keeps two threads busy part of the time; rounding up is what the field does.
        let quota = self.quota.map_or(u32::MAX, |quota| quota.ceil().clamp(1.0, f64::from(u32::MAX)) as u32);
        allowed.min(quota).max(1)
    }
}

/// One online CPU (hardware thread).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalCpu {
    /// The kernel's number.
    pub id: u32,
    /// Its core, numbered 0 to [`Cpu::cores`] over the whole machine (the kernel's own core numbers repeat
    /// in each socket).
    pub core: u32,
    /// Its socket, as the kernel numbers it.
    pub socket: u32,
    /// Its NUMA node, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
}

/// Who makes a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum CpuVendor {
    /// Intel.
    Intel,
    /// AMD.
    Amd,
    /// Arm's own cores (Cortex, Neoverse).
    Arm,
    /// Apple.
    Apple,
    /// Ampere.
    Ampere,
    /// NVIDIA (Grace and Denver).
    Nvidia,
    /// Qualcomm.
    Qualcomm,
    /// Any other, by the name the kernel gives.
    Other(String),
    /// No source tells.
    #[default]
    Unknown,
}

impl CpuVendor {
    /// The vendor's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Intel => "Intel",
            Self::Amd => "AMD",
            Self::Arm => "Arm",
            Self::Apple => "Apple",
            Self::Ampere => "Ampere",
            Self::Nvidia => "NVIDIA",
            Self::Qualcomm => "Qualcomm",
            Self::Other(name) => name,
            Self::Unknown => "unknown",
        }
    }

    /// The vendor of x86's CPUID vendor string.
    pub fn from_cpuid(text: &str) -> Self {
        match text {
            "" => Self::Unknown,
            "GenuineIntel" => Self::Intel,
            "AuthenticAMD" => Self::Amd,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The vendor of Arm's MIDR implementer byte (Arm ARM, MIDR_EL1).
    pub fn from_arm_implementer(code: u32) -> Self {
        match code {
            0x41 => Self::Arm,
            0x61 => Self::Apple,
            0xc0 => Self::Ampere,
            0x4e => Self::Nvidia,
            0x51 => Self::Qualcomm,
            0x46 => Self::Other("Fujitsu".into()),
            0x48 => Self::Other("HiSilicon".into()),
            0x42 => Self::Other("Broadcom".into()),
            0x43 => Self::Other("Cavium".into()),
            0x6d => Self::Other("Microsoft".into()),
            other => Self::Other(format!("implementer {other:#04x}")),
        }
    }
}

impl From<String> for CpuVendor {
    fn from(name: String) -> Self {
        [
            Self::Intel,
            Self::Amd,
            Self::Arm,
            Self::Apple,
            Self::Ampere,
            Self::Nvidia,
            Self::Qualcomm,
            Self::Unknown,
        ]
        .into_iter()
        .find(|vendor| vendor.as_str().eq_ignore_ascii_case(&name))
        .unwrap_or(Self::Other(name))
    }
}

impl From<CpuVendor> for String {
    fn from(vendor: CpuVendor) -> Self {
        vendor.as_str().to_owned()
    }
}

impl fmt::Display for CpuVendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    Unified,
}

/// All caches of one level, kind and size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cache {
    /// 1 for the nearest.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// The size of one of them.
    pub size: ByteSize,
    /// How many of them the machine has.
    pub count: u32,
    /// Bytes of a line; 0 when unknown.
    pub line_bytes: u32,
    /// How many online CPUs share one of them at most.
    pub shared_by: u32,
}

impl Cache {
    /// Its usual short name: "L1d", "L1i", "L2".
    pub fn label(&self) -> String {
        let kind = match self.kind {
            CacheKind::Data => "d",
            CacheKind::Instruction => "i",
            CacheKind::Unified => "",
        };
        format!("L{}{kind}", self.level)
    }
}

/// The role of a kind of core in a hybrid processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CoreKindName {
    /// The fastest cores (Intel P-cores, Arm's prime and big ones).
    Performance,
    /// Those between the fastest and the most frugal.
    Middle,
    /// The frugal cores (Intel E-cores, Arm's little ones).
    Efficiency,
}

impl fmt::Display for CoreKindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Performance => "performance",
            Self::Middle => "middle",
            Self::Efficiency => "efficiency",
        })
    }
}

/// One kind of cores of a hybrid processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreKind {
    /// Its role.
    pub name: CoreKindName,
    /// The online CPUs of this kind.
    pub cpus: CpuSet,
    /// The highest clock of this kind, in MHz, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_mhz: Option<u32>,
}
