//! Which device of one machine an actor gets.
//!
//! Candidates are all devices of the inventory. Filters refuse those that can't serve the need, and each refusal
//! is a [`Lack`] with numbers. The director scores the rest:
//!
//! | what                                             | weight              |
//! |--------------------------------------------------|---------------------|
//! | hardware rather than a software adapter          | [`WEIGHT_HARDWARE`] |
//! | the device the caller would like (model loaded)  | [`WEIGHT_PREFERRED`]|
//! | on the caller's NUMA node, when `numa = "local"` | [`WEIGHT_LOCAL`]    |
//! | the share of its memory that is free, 0 to 1     | 1                   |
//!
//! Each weight is more than all below it together, so the order is lexicographic and a score still reads as one
//! number. Memory comes last and spreads load: leases are hard promises, so packing tightly gains nothing while
//! whole devices stand idle.

use std::fmt;

use quark_base::ByteSize;
use quark_devices::inventory::{Device, DeviceId, DeviceKind, Inventory};
use quark_devices::ledger::DeviceUsage;
use serde::Serialize;

use crate::explain::Explanation;
use crate::requirement::{GpuNeed, NumaPreference};

/// Score of a device on the caller's NUMA node.
pub const WEIGHT_LOCAL: f64 = 2.0;
/// Score of the device the caller would like.
pub const WEIGHT_PREFERRED: f64 = 4.0;
/// Score of real hardware.
pub const WEIGHT_HARDWARE: f64 = 8.0;

const _: () = assert!(WEIGHT_LOCAL > 1.0 && WEIGHT_PREFERRED > WEIGHT_LOCAL + 1.0);
const _: () = assert!(WEIGHT_HARDWARE > WEIGHT_PREFERRED + WEIGHT_LOCAL + 1.0);

/// Kinds of refusal that a one-line [`NoDevice`] spells out; the rest is counted.
pub const MAX_REFUSALS_TOLD: usize = 8;

/// The library through which work reaches a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// Whichever opens it.
    #[default]
    Any,
    /// The CUDA driver.
    Cuda,
    /// wgpu (Vulkan).
    Wgpu,
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Any => "CUDA or Vulkan",
            Self::Cuda => "CUDA",
            Self::Wgpu => "Vulkan",
        })
    }
}

/// What the caller knows beside the need. The default knows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceHint {
    /// The NUMA node the work comes from.
    pub near_node: Option<u32>,
    /// A device that would be better than its equals: it has the model already.
    pub prefer: Option<DeviceId>,
    /// The only device to look at.
    pub only: Option<DeviceId>,
    /// The library that must be able to open the device.
    pub api: Api,
    /// Whether a device from a topology file will do: for planning, and for tests without a GPU.
    pub allow_simulated: bool,
    /// Whether only devices with books will do: a lease can be had of no others.
    pub leasable_only: bool,
}

/// What one device lacked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// The caller asked for another device.
    NotAsked,
    /// It computes nothing: a display controller, or something no source knows.
    NotAGpu {
        /// What it is.
        kind: DeviceKind,
    },
    /// It is a CPU that plays GPU, and the need didn't allow for it.
    SoftwareOnly,
    /// It comes from a topology file, so no work can run on it.
    Simulated,
    /// No library that may be used opens it.
    NoDriver {
        /// The library that was asked for.
        api: Api,
    },
    /// The silo leases nothing of it: its memory is unknown, or the silo's options leave it out.
    NotLeased,
    /// Its CUDA compute capability is too low, or it has none.
    Capability {
        /// What it has.
        has: Option<(u32, u32)>,
        /// What is needed.
        needs: (u32, u32),
    },
    /// A feature that no source says it has.
    Feature {
        /// The feature's name.
        name: &'static str,
    },
    /// It sits on another NUMA node.
    Numa {
        /// Where it sits, if known.
        has: Option<u32>,
        /// Where it should.
        needs: u32,
    },
    /// Empty it would be too small.
    VramTooSmall {
        /// What it could lease if nothing were taken.
        has: ByteSize,
        /// What is needed.
        needs: ByteSize,
    },
    /// It is large enough, but leased out or used by others. The only lack that an eviction cures.
    VramTaken {
        /// What a new lease could take.
        free: ByteSize,
        /// What the device has.
        of: ByteSize,
        /// What is needed.
        needs: ByteSize,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("is not the device that was asked for"),
            Self::NotAGpu { kind } => write!(f, "is no GPU ({kind})"),
            Self::SoftwareOnly => f.write_str("is a software adapter (gpu(software) would allow it)"),
            Self::Simulated => f.write_str("is simulated"),
            Self::NoDriver { api } => write!(f, "cannot be opened through {api} (no driver)"),
            Self::NotLeased => f.write_str("is not leased out here (set its capacity in the pool's options)"),
            Self::Capability { has: Some((major, minor)), needs: (needs_major, needs_minor) } => {
                write!(f, "has compute capability {major}.{minor}, below {needs_major}.{needs_minor}")
            }
            Self::Capability { has: None, .. } => f.write_str("has no CUDA compute capability"),
            Self::Feature { name } => write!(f, "does not report {name}"),
            Self::Numa { has: Some(node), .. } => write!(f, "sits on NUMA node {node}"),
            Self::Numa { has: None, .. } => f.write_str("has no known NUMA node"),
            Self::VramTooSmall { has, .. } => write!(f, "has {has} to lease in all"),
            Self::VramTaken { free, of, .. } => write!(f, "has {free} free of {of}"),
        }
    }
}

/// One device and what it lacked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lacking {
    /// Which device.
    pub device: DeviceId,
    /// The product's name.
    pub name: String,
    /// What it lacked.
    pub lack: Lack,
}

/// No device fits. Nothing was taken; `Display` is one line that says what each device lacked.
///
/// A retry can help only when [`full_devices`](Self::full_devices) names one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NoDevice {
    /// What was asked for.
    pub need: GpuNeed,
    /// Each device in the inventory's order with the first thing it lacked.
    pub lacked: Vec<Lacking>,
}

impl std::error::Error for NoDevice {}

impl NoDevice {
    /// The devices that lacked nothing but free memory: an eviction, or time, would make them fit.
    pub fn full_devices(&self) -> impl Iterator<Item = &DeviceId> {
        let full = self.lacked.iter().filter(|one| matches!(one.lack, Lack::VramTaken { .. }));
        full.map(|one| &one.device)
    }
}

impl fmt::Display for NoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lacked.is_empty() {
            let advice = "make it gpu(optional) to let it run on the CPU, or install the GPU's driver";
            return write!(f, "no device fits {}: this machine has no GPU; {advice}", self.need);
        }
        // Eight equal cards that lack the same are one statement.
        let mut groups: Vec<(&str, &Lack, usize)> = Vec::new();
        for Lacking { name, lack, .. } in &self.lacked {
            match groups.iter_mut().find(|(known, same, _)| known == name && *same == lack) {
                Some((_, _, count)) => *count += 1,
                None => groups.push((name, lack, 1)),
            }
        }
        write!(f, "no device fits {}: ", self.need)?;
        for (at, (name, lack, count)) in groups.iter().take(MAX_REFUSALS_TOLD).enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            match count {
                1 => write!(f, "{separator}{name} {lack}")?,
                _ => write!(f, "{separator}each of {count} {name} {lack}")?,
            }
        }
        match groups.len().saturating_sub(MAX_REFUSALS_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// A device that fits, and why it was this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The device.
    pub device: DeviceId,
    /// Its NUMA node: where the actor's executor should be.
    pub numa_node: Option<u32>,
    /// Every candidate's verdict.
    pub explanation: Explanation<DeviceId, Lack>,
}

/// Chooses a device of `inventory` for `need`. `usage` is the ledger's snapshot; a device without books counts as
/// empty, with its whole memory to lease.
///
/// Whatever is chosen satisfies the need at the moment of the snapshot; the ledger's grant has the last word.
///
/// # Errors
/// [`NoDevice`] when none fits, also for an optional need: whether that is an error is the caller's to say.
pub fn choose_device(
    inventory: &Inventory,
    usage: &[DeviceUsage],
    need: &GpuNeed,
    hint: &DeviceHint,
) -> Result<Chosen, NoDevice> {
    let explanation = explain_device(&inventory.devices, inventory.memory.usable(), usage, need, hint);
    let device = explanation.chosen().and_then(|chosen| inventory.device(&chosen.id));
    match device {
        Some(device) => Ok(Chosen { device: device.id.clone(), numa_node: device.numa_node, explanation }),
        None => Err(NoDevice { need: *need, lacked: refusals(explanation) }),
    }
}

/// The pipeline behind [`choose_device`]: `memory` is the main memory that devices without their own may use.
pub fn explain_device(
    devices: &[Device],
    memory: ByteSize,
    usage: &[DeviceUsage],
    need: &GpuNeed,
    hint: &DeviceHint,
) -> Explanation<DeviceId, Lack> {
    let filtered = devices.iter().map(|device| {
        let room = Room::of(device, memory, usage);
        let scored = filter(device, &room, need, hint).map(|()| score(device, &room, need, hint));
        (device.id.clone(), device.name.clone(), scored)
    });
    let director = "hardware, preference, NUMA node, free memory".to_owned();
    Explanation::direct(need.to_string(), director, filtered.collect()).0
}

pub(crate) fn refusals(explanation: Explanation<DeviceId, Lack>) -> Vec<Lacking> {
    let refused = explanation.candidates.into_iter().filter_map(|candidate| match candidate.verdict {
        crate::Verdict::Refused(lack) => Some(Lacking { device: candidate.id, name: candidate.name, lack }),
        _ => None,
    });
    refused.collect()
}

/// A device's memory as leases see it.
struct Room {
    has_books: bool,
    capacity: ByteSize,
    leasable: ByteSize,
    free: ByteSize,
}

impl Room {
    fn of(device: &Device, memory: ByteSize, usage: &[DeviceUsage]) -> Self {
        if let Some(books) = usage.iter().find(|books| books.device == device.id) {
            let leasable = books.capacity.saturating_sub(books.reserve);
            return Self { has_books: true, capacity: books.capacity, leasable, free: books.free };
        }
        // Software adapters and integrated GPUs live in main memory.
        let shares = matches!(device.kind, DeviceKind::SoftwareAdapter | DeviceKind::IntegratedGpu);
        let capacity = if device.vram.is_zero() && shares { memory } else { device.vram };
        Self { has_books: false, capacity, leasable: capacity, free: capacity }
    }

    fn free_share(&self) -> f64 {
        if self.capacity.is_zero() { 0.0 } else { (self.free.as_f64() / self.capacity.as_f64()).min(1.0) }
    }
}

/// Free memory is looked at last, so that [`Lack::VramTaken`] means that all else is right.
fn filter(device: &Device, room: &Room, need: &GpuNeed, hint: &DeviceHint) -> Result<(), Lack> {
    if hint.only.as_ref().is_some_and(|only| *only != device.id) {
        return Err(Lack::NotAsked);
    }
    match device.kind {
        DeviceKind::Gpu | DeviceKind::IntegratedGpu | DeviceKind::VirtualGpu => {}
        DeviceKind::SoftwareAdapter if need.allow_software => {}
        DeviceKind::SoftwareAdapter => return Err(Lack::SoftwareOnly),
        kind @ (DeviceKind::Display | DeviceKind::Other) => return Err(Lack::NotAGpu { kind }),
    }
    if device.simulated && !hint.allow_simulated {
        return Err(Lack::Simulated);
    }
    let (cuda, wgpu) = (device.indices.cuda.is_some(), device.indices.wgpu.is_some());
    let opens = match hint.api {
        Api::Any => cuda || wgpu,
        Api::Cuda => cuda,
        Api::Wgpu => wgpu,
    };
    // A topology file says what a machine has, not how its libraries number it.
    if !opens && !device.simulated {
        return Err(Lack::NoDriver { api: hint.api });
    }
    if hint.leasable_only && !room.has_books {
        return Err(Lack::NotLeased);
    }
    if let Some(needs) = need.min_capability
        && device.compute_capability.is_none_or(|has| has < needs)
    {
        return Err(Lack::Capability { has: device.compute_capability, needs });
    }
    for (needed, has, name) in
        [(need.f16, device.features.f16, "f16"), (need.bf16, device.features.bf16, "bf16")]
    {
        if needed && !has {
            return Err(Lack::Feature { name });
        }
    }
    if let NumaPreference::Node(needs) = need.numa
        && device.numa_node != Some(needs)
    {
        return Err(Lack::Numa { has: device.numa_node, needs });
    }
    if need.vram > room.leasable {
        return Err(Lack::VramTooSmall { has: room.leasable, needs: need.vram });
    }
    if need.vram > room.free {
        return Err(Lack::VramTaken { free: room.free, of: room.capacity, needs: need.vram });
    }
    Ok(())
}

fn score(device: &Device, room: &Room, need: &GpuNeed, hint: &DeviceHint) -> f64 {
    let hardware = device.kind != DeviceKind::SoftwareAdapter;
    let preferred = hint.prefer.as_ref() == Some(&device.id);
    let wants_local = need.numa == NumaPreference::Local;
    let local = wants_local && hint.near_node.is_some() && hint.near_node == device.numa_node;
    let weights = [(hardware, WEIGHT_HARDWARE), (preferred, WEIGHT_PREFERRED), (local, WEIGHT_LOCAL)];
    weights.into_iter().filter(|(holds, _)| *holds).map(|(_, weight)| weight).sum::<f64>() + room.free_share()
}

#[cfg(test)]
mod tests;
