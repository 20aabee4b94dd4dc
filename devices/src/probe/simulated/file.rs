//! The topology file's tables, as TOML has them.

use crate::inventory::{
    CacheKind, CoreKindName, CpuSet, CpuVendor, DeviceFeatures, DeviceKind, IsaFeature, PciAddress, Vendor,
};
use quark_base::ByteSize;
use serde::Deserialize;
use std::num::NonZeroU32;
use toml::Spanned;

const ONE: NonZeroU32 = NonZeroU32::MIN;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topology {
    /// The machine's name, which is its host name too.
    pub name: String,
    #[serde(default)]
    pub host: HostTable,
    pub cpu: Spanned<CpuTable>,
    #[serde(default)]
    pub numa: Vec<Spanned<NumaTable>>,
    #[serde(default)]
    pub gpu: Vec<Spanned<GpuTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostTable {
    pub os: Option<String>,
    pub kernel: Option<String>,
    pub product: Option<String>,
    pub swap: Option<ByteSize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CpuTable {
    pub vendor: CpuVendor,
    pub model: String,
    pub architecture: String,
    #[serde(default = "one")]
    pub sockets: NonZeroU32,
    pub cores_per_socket: NonZeroU32,
    #[serde(default = "one")]
    pub threads_per_core: NonZeroU32,
    pub max_mhz: Option<u32>,
    #[serde(default)]
    pub features: Vec<IsaFeature>,
    #[serde(default)]
    pub cache: Vec<CacheTable>,
    /// Hybrid processors only: the kinds of cores of one socket, fastest first.
    #[serde(default)]
    pub core_kind: Vec<Spanned<CoreKindTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CacheTable {
    pub level: u8,
    #[serde(default = "unified")]
    pub kind: CacheKind,
    pub size: ByteSize,
    /// How many the machine has.
    pub count: CacheCount,
    #[serde(default = "line")]
    pub line_bytes: u32,
    /// How many CPUs share one.
    #[serde(default = "alone")]
    pub shared_by: u32,
}

/// How many caches of a kind; bounded so that a slip can't ask for four billion.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct CacheCount(u32);

impl CacheCount {
    pub(super) fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for CacheCount {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        let most = super::MAX_CPUS;
        if (1..=most).contains(&count) {
            Ok(Self(count))
        } else {
            Err(format!("a cache's count is 1 to {most}"))
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CoreKindTable {
    pub name: CoreKindName,
    pub cores: NonZeroU32,
    #[serde(default = "one")]
    pub threads_per_core: NonZeroU32,
    pub max_mhz: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NumaTable {
    pub id: u32,
    /// The kernel's list format, "0-3,8"; may be left out for a memory-only node.
    #[serde(default)]
    pub cpus: CpuSet,
    #[serde(default)]
    pub memory: ByteSize,
    #[serde(default)]
    pub distances: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GpuTable {
    pub name: String,
    pub vendor: Vendor,
    #[serde(default = "discrete")]
    pub kind: DeviceKind,
    pub pci: Option<PciAddress>,
    pub numa_node: Option<u32>,
    pub vram: ByteSize,
    /// `[major, minor]`.
    pub compute_capability: Option<[u32; 2]>,
    pub compute_units: Option<u32>,
    pub driver: Option<String>,
    #[serde(default)]
    pub features: DeviceFeatures,
    pub limits: Option<LimitsTable>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    pub max_buffer: ByteSize,
    pub max_storage_binding: ByteSize,
}

fn one() -> NonZeroU32 {
    ONE
}

fn alone() -> u32 {
    1
}

fn line() -> u32 {
    64
}

fn unified() -> CacheKind {
    CacheKind::Unified
}

fn discrete() -> DeviceKind {
    DeviceKind::Gpu
}
