//! Devices: GPUs, and what looks like one.

use super::{PciAddress, Source};
use quark_base::ByteSize;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One device, however many libraries see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name within this machine: the UUID if known, else the PCI address, else `wgpu:<index>:<name>`.
    pub id: DeviceId,
    /// What sort of device it is.
    pub kind: DeviceKind,
    /// The product's name as the best source gives it.
    pub name: String,
    /// Who makes it.
    pub vendor: Vendor,
    /// The vendor's unique id, such as "GPU-8f1c…".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Where it sits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
    /// PCI vendor and device id, such as (0x10de, 0x2330).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_ids: Option<(u16, u16)>,
    /// The NUMA node it hangs on; `None` when the machine doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Its own memory; zero when no source tells (a GPU known by sysfs alone) or it has none of its own.
    pub vram: ByteSize,
    /// CUDA compute capability, (major, minor).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<(u32, u32)>,
    /// Streaming multiprocessors or compute units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_units: Option<u32>,
    /// The driver's name and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// What shaders and kernels may use.
    pub features: DeviceFeatures,
    /// The graphics API's limits; only a wgpu source has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<DeviceLimits>,
    /// Multi-instance GPU, on devices that can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<Mig>,
    /// The number under which each library opens it.
    #[serde(default)]
    pub indices: SourceIndices,
    /// Who saw it, in ascending order, each once.
    pub sources: Vec<Source>,
    /// True when it comes from a topology file: no work can run on it.
    pub simulated: bool,
}

impl Device {
    /// Whether this source saw the device.
    pub fn seen_by(&self, source: Source) -> bool {
        self.sources.contains(&source)
    }
}

/// What one source says about one device; [`crate::merge::merge`] makes [`Device`]s of these. Whatever the
/// source does not know stays empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialDevice {
    /// Who says so.
    pub source: Source,
    /// See [`Device::kind`].
    pub kind: Option<DeviceKind>,
    /// See [`Device::name`].
    pub name: Option<String>,
    /// See [`Device::vendor`].
    pub vendor: Option<Vendor>,
    /// See [`Device::uuid`].
    pub uuid: Option<String>,
    /// See [`Device::pci`].
    pub pci: Option<PciAddress>,
    /// See [`Device::pci_ids`].
    pub pci_ids: Option<(u16, u16)>,
    /// See [`Device::numa_node`].
    pub numa_node: Option<u32>,
    /// See [`Device::vram`].
    pub vram: Option<ByteSize>,
    /// See [`Device::compute_capability`].
    pub compute_capability: Option<(u32, u32)>,
    /// See [`Device::compute_units`].
    pub compute_units: Option<u32>,
    /// See [`Device::driver`].
    pub driver: Option<String>,
    /// See [`Device::features`].
    pub features: DeviceFeatures,
    /// See [`Device::limits`].
    pub limits: Option<DeviceLimits>,
    /// See [`Device::mig`].
    pub mig: Option<Mig>,
    /// The number under which this source opens it.
    pub index: Option<u32>,
}

impl PartialDevice {
    /// A device this source has seen and knows nothing about yet.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            kind: None,
            name: None,
            vendor: None,
            uuid: None,
            pci: None,
            pci_ids: None,
            numa_node: None,
            vram: None,
            compute_capability: None,
            compute_units: None,
            driver: None,
            features: DeviceFeatures::default(),
            limits: None,
            mig: None,
            index: None,
        }
    }
}

/// A device's name within its machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(String);

impl DeviceId {
    /// The id of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What sort of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A GPU with memory of its own.
    Gpu,
    /// A GPU that shares main memory.
    IntegratedGpu,
    /// A GPU handed through by a hypervisor (virtio-gpu, vGPU).
    VirtualGpu,
    /// A CPU that plays GPU (llvmpipe, SwiftShader). Never counted as a GPU unless asked for.
    SoftwareAdapter,
    /// A display controller that computes nothing (a server's management console).
    Display,
    /// A device whose kind no source tells.
    Other,
}

impl DeviceKind {
    /// Whether it counts as a GPU.
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Gpu | Self::IntegratedGpu | Self::VirtualGpu)
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gpu => "GPU",
            Self::IntegratedGpu => "integrated GPU",
            Self::VirtualGpu => "virtual GPU",
            Self::SoftwareAdapter => "CPU (software adapter)",
            Self::Display => "display only",
            Self::Other => "unknown",
        })
    }
}

/// Who makes a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Vendor {
    /// NVIDIA, 0x10de.
    Nvidia,
    /// AMD, 0x1002 (and 0x1022).
    Amd,
    /// Intel, 0x8086.
    Intel,
    /// Apple, 0x106b.
    Apple,
    /// Arm, 0x13b5.
    Arm,
    /// Qualcomm, 0x5143.
    Qualcomm,
    /// Mesa's software drivers, 0x10005 in Vulkan's registry.
    Mesa,
    /// Any other, by name or by PCI id ("0x1a03").
    Other(String),
}

impl Vendor {
    /// The vendor of a PCI vendor id or of a Vulkan vendor id (which may be above 16 bits).
    pub fn from_id(id: u32) -> Self {
        match id {
            0x10de => Self::Nvidia,
            0x1002 | 0x1022 => Self::Amd,
            0x8086 => Self::Intel,
            0x106b => Self::Apple,
            0x13b5 => Self::Arm,
            0x5143 => Self::Qualcomm,
            0x10005 => Self::Mesa,
            0x1a03 => Self::Other("ASPEED".into()),
            0x102b => Self::Other("Matrox".into()),
            0x1013 => Self::Other("Cirrus Logic".into()),
            0x1234 => Self::Other("QEMU".into()),
            0x1af4 | 0x1b36 => Self::Other("Red Hat".into()),
            0x15ad => Self::Other("VMware".into()),
            0x1414 => Self::Other("Microsoft".into()),
            other => Self::Other(format!("{other:#06x}")),
        }
    }

    /// The vendor's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
            Self::Apple => "Apple",
            Self::Arm => "Arm",
            Self::Qualcomm => "Qualcomm",
            Self::Mesa => "Mesa",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for Vendor {
    fn from(name: String) -> Self {
        [Self::Nvidia, Self::Amd, Self::Intel, Self::Apple, Self::Arm, Self::Qualcomm, Self::Mesa]
            .into_iter()
            .find(|vendor| vendor.as_str().eq_ignore_ascii_case(&name))
            .unwrap_or(Self::Other(name))
    }
}

impl From<Vendor> for String {
    fn from(vendor: Vendor) -> Self {
        vendor.as_str().to_owned()
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What shaders and kernels may use. False also stands for "no source tells".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceFeatures {
    /// 16-bit floats in arithmetic.
    pub f16: bool,
    /// Brain floats in arithmetic (CUDA compute capability 8.0 and up).
    pub bf16: bool,
    /// 64-bit floats.
    pub f64: bool,
    /// Timestamp queries: device-side timing.
    pub timestamps: bool,
    /// Subgroup (warp) operations in shaders.
    pub subgroups: bool,
    /// Error-correcting memory is on.
    pub ecc: bool,
}

/// Compute capability from which there is arithmetic on 16-bit floats, and on brain floats (CUDA C++ Programming
/// Guide, "Compute Capabilities").
const F16_SINCE: (u32, u32) = (5, 3);
const BF16_SINCE: (u32, u32) = (8, 0);

impl DeviceFeatures {
    /// What a CUDA compute capability brings.
    pub fn of_compute_capability(capability: (u32, u32)) -> Self {
        Self {
            f16: capability >= F16_SINCE,
            bf16: capability >= BF16_SINCE,
            // Every device that a driver of today supports has doubles, warp operations and events with time
            // stamps.
            f64: true,
            timestamps: true,
            subgroups: true,
            ecc: false,
        }
    }

    /// What either has.
    pub fn union(self, other: Self) -> Self {
        Self {
            f16: self.f16 || other.f16,
            bf16: self.bf16 || other.bf16,
            f64: self.f64 || other.f64,
            timestamps: self.timestamps || other.timestamps,
            subgroups: self.subgroups || other.subgroups,
            ecc: self.ecc || other.ecc,
        }
    }

    /// The names of those that are there, in a fixed order.
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.f16, "f16"),
            (self.bf16, "bf16"),
            (self.f64, "f64"),
            (self.timestamps, "timestamps"),
            (self.subgroups, "subgroups"),
            (self.ecc, "ecc"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect()
    }
}

/// Limits of the graphics API on this device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceLimits {
    /// The largest buffer.
    pub max_buffer: ByteSize,
    /// The largest part of a buffer that a shader may see as one storage binding.
    pub max_storage_binding: ByteSize,
    /// Shared memory of one workgroup.
    pub max_workgroup_storage: ByteSize,
    /// The largest workgroup per dimension, in invocations.
    pub max_workgroup_size: [u32; 3],
    /// The most invocations in one workgroup.
    pub max_workgroup_invocations: u32,
    /// The most workgroups per dimension of one dispatch.
    pub max_workgroups_per_dimension: u32,
    /// The smallest subgroup, in invocations; 0 when unknown.
    pub min_subgroup_size: u32,
    /// The largest subgroup, in invocations; 0 when unknown.
    pub max_subgroup_size: u32,
}

/// Multi-instance GPU: one card that is split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mig {
    /// Whether the mode is on now.
    pub enabled: bool,
    /// The most instances the card can hold.
    pub max_instances: u32,
    /// The instances there are.
    #[serde(default)]
    pub instances: Vec<MigInstance>,
}

/// One part of a split card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigInstance {
    /// Its id, "MIG-…".
    pub uuid: String,
    /// Its profile, such as "1g.18gb"; empty when unknown.
    pub profile: String,
    /// Its memory.
    pub memory: ByteSize,
}

/// The number under which each library opens a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceIndices {
    /// NVML's index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvml: Option<u32>,
    /// The CUDA ordinal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<u32>,
    /// The position among wgpu's adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wgpu: Option<u32>,
}
