//! Probes: the only code that touches hardware.
//!
//! Each probe looks at one source and never fails: what it can't read becomes a [`Note`]. The libraries are
//! loaded at run time, so a build with all features runs on a machine with none of them. A feature that is
//! off puts a module of the same shape in the probe's place.

mod cgroup;
mod cpu;
mod cpuinfo;
mod host;
mod numa;
mod pci;
pub mod root;
pub mod simulated;

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "cuda_off.rs"]
pub mod cuda;
#[cfg(feature = "hwloc")]
pub mod hwloc;
#[cfg(not(feature = "hwloc"))]
#[path = "hwloc_off.rs"]
pub mod hwloc;
#[cfg(feature = "nvml")]
pub mod nvml;
#[cfg(not(feature = "nvml"))]
#[path = "nvml_off.rs"]
pub mod nvml;
#[cfg(feature = "wgpu")]
pub mod wgpu;
#[cfg(not(feature = "wgpu"))]
#[path = "wgpu_off.rs"]
pub mod wgpu;

use crate::{
    inventory::{DeviceKind, Inventory, Note, PartialDevice, Source},
    merge::merge,
};
use root::{Root, RootError};
use simulated::TopologyError;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// What a GPU library's probe brings: each device it sees, and what went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// The devices.
    pub devices: Vec<PartialDevice>,
    /// The notes.
    pub notes: Vec<Note>,
}

/// What to look at.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    root: Option<PathBuf>,
    topology: Option<PathBuf>,
    software_adapters: bool,
    libraries: bool,
}

impl Default for ProbeOptions {
    /// This machine, with everything that can be known of it.
    fn default() -> Self {
        Self { root: None, topology: None, software_adapters: true, libraries: true }
    }
}

impl ProbeOptions {
    /// Reads the captured tree under `dir` instead of this machine. Libraries are not asked then, since they
    /// would answer for this machine.
    pub fn root(mut self, dir: impl Into<PathBuf>) -> Self {
        self.root = Some(dir.into());
        self
    }

    /// Takes the machine that a topology file describes; nothing else is read then.
    pub fn topology(mut self, file: impl Into<PathBuf>) -> Self {
        self.topology = Some(file.into());
        self
    }

    /// Whether software adapters (llvmpipe) are listed at all; they are by default, as devices that don't
    /// count as GPUs.
    pub fn software_adapters(mut self, list: bool) -> Self {
        self.software_adapters = list;
        self
    }

    /// Whether the GPU libraries and hwloc are asked; they are by default. Without them the answer comes from
    /// `/sys` and `/proc` alone, in milliseconds.
    pub fn libraries(mut self, ask: bool) -> Self {
        self.libraries = ask;
        self
    }
}

/// Why there is no inventory. Only a file or directory that the caller named can cause it.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The topology file can't be used. Fixing the file helps.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The captured tree can't be used. Naming the right directory helps.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Takes the inventory. Reads files and loads libraries: blocking, some milliseconds to a few seconds (a
/// first load of a GPU driver).
pub fn probe(options: &ProbeOptions) -> Result<Inventory, ProbeError> {
    let mut inventory = match (&options.topology, &options.root) {
        (Some(file), _) => simulated::load(file)?,
        (None, Some(dir)) => tree(&Root::captured(dir)?),
        (None, None) if options.libraries => live(),
        (None, None) => tree(&Root::live()),
    };
    if !options.software_adapters {
        inventory.devices.retain(|device| device.kind != DeviceKind::SoftwareAdapter);
    }
    Ok(inventory)
}

/// The inventory of this machine; never fails.
pub fn this_machine() -> Inventory {
    live()
}

/// The inventory of a captured tree; see [`ProbeOptions::root`].
pub fn captured(dir: &Path) -> Result<Inventory, RootError> {
    Ok(tree(&Root::captured(dir)?))
}

/// What `/sys` and `/proc` say, without any library.
pub(crate) fn tree(root: &Root) -> Inventory {
    let (mut inventory, partials) = files(root);
    finish(&mut inventory, partials);
    inventory
}

fn live() -> Inventory {
    let (mut inventory, mut partials) = files(&Root::live());
    hwloc::overlay(&mut inventory, &mut partials);
    let reports = [
        guarded(Source::Nvml, nvml::probe),
        guarded(Source::Cuda, cuda::probe),
        guarded(Source::Wgpu, wgpu::probe),
    ];
    for report in reports {
        partials.extend(report.devices);
        inventory.notes.extend(report.notes);
    }
    finish(&mut inventory, partials);
    inventory
}

fn files(root: &Root) -> (Inventory, Vec<PartialDevice>) {
    let info = cpuinfo::read(root);
    let online = cpu::online(root, &info);
    let limits = cgroup::probe(root);
    let host = host::probe(root, &info);
    let numa = numa::probe(root, &online);
    let memory = numa::memory(root, &numa, &limits);
    let cpu = cpu::probe(root, info, &online, &numa.host, &limits);
    let numa = numa.host;
    let partials = pci::probe(root);
    let notes = root.take_notes();
    (Inventory { host, cpu, numa, memory, devices: Vec::new(), notes, simulated: false }, partials)
}

fn finish(inventory: &mut Inventory, partials: Vec<PartialDevice>) {
    let merged = merge(partials);
    inventory.devices = merged.devices;
    inventory.notes.extend(merged.notes);
    for device in &inventory.devices {
        if let Some(node) =
            device.numa_node.filter(|node| inventory.numa.iter().all(|known| known.id != *node))
        {
            inventory.notes.push(Note::broken(
                Source::Merge,
                format!(
                    "{} is said to be on NUMA node {node}, which this machine does not list",
                    device.name
                ),
            ));
        }
    }
}

/// Runs a library's probe; a panic inside (a driver that lacks a symbol) is a note.
fn guarded(source: Source, probe: impl FnOnce() -> ProbeReport) -> ProbeReport {
    catch_unwind(AssertUnwindSafe(probe)).unwrap_or_else(|_| ProbeReport {
        devices: Vec::new(),
        notes: vec![Note::broken(source, "the library's probe panicked; its devices are left out")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_library_is_a_note() {
        let report = guarded(Source::Cuda, || panic!("driver without cuFoo"));
        assert!(report.devices.is_empty());
        assert_eq!(report.notes[0].source, Source::Cuda);
    }
}
