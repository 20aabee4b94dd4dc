//! The inventory: what this machine is, as plain serialisable values.
//!
//! Nothing here touches hardware or the file system. [`crate::probe`] fills these types in, [`crate::merge`]
//! joins what several libraries say about one device, and everything above only reads them.

mod cpu;
mod cpu_set;
mod device;
mod isa;
mod pci;

pub use cpu::{Cache, CacheKind, CoreKind, CoreKindName, Cpu, CpuVendor, LogicalCpu};
pub use cpu_set::{CpuSet, CpuSetError, MAX_ID};
pub use device::{
    Device, DeviceFeatures, DeviceId, DeviceKind, DeviceLimits, Mig, MigInstance, PartialDevice,
    SourceIndices, Vendor,
};
pub use isa::IsaFeature;
pub use pci::{PciAddress, PciAddressError};

use quark_base::ByteSize;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Everything known about one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The machine and its operating system.
    pub host: Host,
    /// The processors.
    pub cpu: Cpu,
    /// NUMA nodes in ascending order of their number; numbers may have gaps. Never empty: a machine without
    /// NUMA has one node 0 that holds everything.
    pub numa: Vec<NumaNode>,
    /// Main memory.
    pub memory: Memory,
    /// GPUs, software adapters and display controllers, each physical device once.
    pub devices: Vec<Device>,
    /// What could not be read, what disagrees, which library is missing. Never empty of meaning: each note
    /// is one line a person can act on.
    pub notes: Vec<Note>,
    /// True when this came from a topology file and no such machine need exist.
    pub simulated: bool,
}

impl Default for Inventory {
    /// A machine of which nothing is known but that this runs on it: one CPU on one node, no device.
    fn default() -> Self {
        let cpus = CpuSet::from_iter([0]);
        let cpu = Cpu {
            sockets: 1,
            cores: 1,
            threads: 1,
            online: cpus.clone(),
            allowed: cpus.clone(),
            logical: vec![LogicalCpu { node: Some(0), ..LogicalCpu::default() }],
            ..Cpu::default()
        };
        Self {
            host: Host::default(),
            cpu,
            numa: vec![NumaNode { cpus, ..NumaNode::default() }],
            memory: Memory::default(),
            devices: Vec::new(),
            notes: Vec::new(),
            simulated: false,
        }
    }
}

impl Inventory {
    /// Whether it came from a topology file, so that no such machine need exist.
    pub fn is_simulated(&self) -> bool {
        self.simulated
    }

    /// The devices that count as GPUs: discrete, integrated and virtual ones, without software adapters and
    /// plain display controllers.
    pub fn gpus(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.kind.is_gpu())
    }

    /// The device of this id.
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| &device.id == id)
    }

    /// The NUMA node of this number (numbers may have gaps, so it is not an index).
    pub fn node(&self, id: u32) -> Option<&NumaNode> {
        self.numa.iter().find(|node| node.id == id)
    }

    /// The sum of the GPUs' video memory.
    pub fn total_vram(&self) -> ByteSize {
        ByteSize::bytes(self.gpus().fold(0u64, |sum, device| sum.saturating_add(device.vram.as_u64())))
    }
}

/// The machine and its operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The kernel's host name; empty when unknown.
    pub name: String,
    /// The distribution, such as "Debian GNU/Linux 13 (trixie)".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The kernel's name and release, such as "Linux 6.12.0".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The machine's product name from its firmware, such as "PowerEdge XE9680".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// The hypervisor, when the CPU says that there is one ("kvm", or "yes" if its name is not known).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
}

/// One NUMA node: CPUs and memory that are near each other. Either may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// The kernel's number of the node.
    pub id: u32,
    /// The online CPUs of the node; empty for a memory-only node (CXL, HBM).
    pub cpus: CpuSet,
    /// Memory of the node as its `meminfo` says; zero for a node without memory. In virtual machines the
    /// sum over the nodes can be far off [`Memory::total`]: compare before budgeting.
    pub memory: ByteSize,
    /// Free memory of the node, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<ByteSize>,
    /// Distance to each node, in the order of [`Inventory::numa`]; 10 is local (ACPI SLIT). Empty when the
    /// firmware gives none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distances: Vec<u32>,
}

/// Main memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All the memory the kernel manages (`MemTotal`).
    pub total: ByteSize,
    /// What could be had without swapping (`MemAvailable`), if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<ByteSize>,
    /// Swap space.
    pub swap: ByteSize,
    /// The sum of the NUMA nodes' memory, kept beside `total` since the two can disagree.
    pub numa_total: ByteSize,
    /// The tightest cgroup memory limit over this process, if there is one below `total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<ByteSize>,
}

impl Memory {
    /// What this process may use at most: `total`, or the cgroup's limit if that is smaller.
    pub fn usable(&self) -> ByteSize {
        self.limit.map_or(self.total, |limit| limit.min(self.total))
    }
}

/// Where a statement of the inventory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// NVIDIA's management library.
    Nvml,
    /// The CUDA driver.
    Cuda,
    /// Vulkan, through wgpu.
    Wgpu,
    /// The kernel's `/sys`.
    Sysfs,
    /// The kernel's `/proc`.
    Procfs,
    /// The control group of this process.
    Cgroup,
    /// The hwloc library.
    Hwloc,
    /// A topology file.
    Simulated,
    /// The step that joins what the others say.
    Merge,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nvml => "nvml",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
            Self::Sysfs => "sysfs",
            Self::Procfs => "procfs",
            Self::Cgroup => "cgroup",
            Self::Hwloc => "hwloc",
            Self::Simulated => "simulated",
            Self::Merge => "merge",
        })
    }
}

/// What sort of thing a [`Note`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoteKind {
    /// Something optional is not there: a library, a directory.
    Missing,
    /// Something is there and could not be read or makes no sense.
    Broken,
    /// Two sources disagree; the note says which was believed.
    Discrepancy,
    /// This process may use less than the machine has.
    Limit,
}

/// One line about what the probes could not read or had to decide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Note {
    /// Who says so.
    pub source: Source,
    /// What sort of thing it tells.
    pub kind: NoteKind,
    /// The line itself.
    pub text: String,
}

impl Note {
    /// A note of any kind.
    pub fn new(source: Source, kind: NoteKind, text: impl Into<String>) -> Self {
        Self { source, kind, text: text.into() }
    }

    /// Something optional is not there.
    pub fn missing(source: Source, text: impl Into<String>) -> Self {
        Self::new(source, NoteKind::Missing, text)
    }

    /// Something is there and could not be used.
    pub fn broken(source: Source, text: impl Into<String>) -> Self {
        Self::new(source, NoteKind::Broken, text)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.text)
    }
}
