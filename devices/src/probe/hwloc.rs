//! hwloc's view of the machine, where the library is compiled in. It leads: where it and sysfs differ, its
//! value stands and a note says so.
//!
//! hwloc is linked, not loaded, so this module needs `libhwloc-dev` and `libudev-dev` to build.

use super::{
    cpu::{count, group_caches, socket_numbers},
    numa::disjoint,
};
use crate::inventory::{
    CacheKind, CpuSet, Inventory, LogicalCpu, Note, NoteKind, NumaNode, PartialDevice, PciAddress, Source,
    Vendor,
};
use hwlocality::{
    Topology,
    object::{
        TopologyObject,
        attributes::ObjectAttributes,
        distance::DistancesKind,
        types::{CacheType, ObjectType},
    },
    topology::builder::{BuildFlags, TypeFilter},
};
use quark_base::ByteSize;
use std::fmt::Debug;

/// What hwloc says, in this crate's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// Whether this is the machine the process runs on; hwloc's environment variables can name another.
    pub this_system: bool,
    /// Sockets.
    pub sockets: u32,
    /// Cores.
    pub cores: u32,
    /// Each CPU with its place; cores are numbered in order of their lowest CPU.
    pub logical: Vec<LogicalCpu>,
    /// Caches, as [`crate::inventory::Cpu::caches`].
    pub caches: Vec<crate::inventory::Cache>,
    /// NUMA nodes, as [`Inventory::numa`], without their free memory.
    pub numa: Vec<NumaNode>,
    /// Display controllers and accelerators with their NUMA node, where hwloc places them near one only.
    pub pci: Vec<(PciAddress, Option<u32>)>,
}

/// Reads the topology hwloc finds: of this machine, or of the tree that its environment variable
/// `HWLOC_FSROOT` names.
pub fn view() -> Result<View, String> {
    // Disallowed resources are kept, since sysfs shows them too; what this process may use is told apart.
    let topology = Topology::builder()
        .with_flags(BuildFlags::INCLUDE_DISALLOWED)
        .map_err(|cause| cause.to_string())?
        .with_io_type_filter(TypeFilter::KeepAll)
        .map_err(|cause| cause.to_string())?
        // hwloc leaves instruction caches out unless asked.
        .with_cpu_icache_type_filter(TypeFilter::KeepAll)
        .map_err(|cause| cause.to_string())?
        .build()
        .map_err(|cause| cause.to_string())?;
    Ok(read(&topology))
}

/// Puts hwloc's values in the place of the sysfs probe's.
pub fn overlay(inventory: &mut Inventory, partials: &mut Vec<PartialDevice>) {
    let view = match view() {
        Ok(view) if view.this_system && !view.logical.is_empty() => view,
        Ok(view) => {
            let text = match view.this_system {
                true => "hwloc finds no CPU; the sysfs view stands",
                false => "the HWLOC_ variables name another machine; the sysfs view stands",
            };
            inventory.notes.push(Note::broken(Source::Hwloc, text));
            return;
        }
        Err(cause) => {
            let text = format!("hwloc can't read this machine ({cause}); the sysfs view stands");
            inventory.notes.push(Note::broken(Source::Hwloc, text));
            return;
        }
    };
    let notes = &mut inventory.notes;
    let cpu = &mut inventory.cpu;
    lead(notes, "sockets", &mut cpu.sockets, view.sockets);
    lead(notes, "cores", &mut cpu.cores, view.cores);
    if !view.caches.is_empty() {
        lead(notes, "caches", &mut cpu.caches, view.caches);
    }
    lead(notes, "the place of CPUs", &mut cpu.logical, view.logical);
    cpu.threads = count(cpu.logical.len());
    cpu.online = cpu.logical.iter().map(|cpu| cpu.id).collect();
    let mut numa = view.numa;
    for node in &mut numa {
        // hwloc doesn't read free memory, and keeps no distances for a single node.
        if let Some(ours) = inventory.numa.iter().find(|ours| ours.id == node.id) {
            node.free = ours.free;
            if node.distances.is_empty() {
                node.distances.clone_from(&ours.distances);
            }
        }
    }
    if !numa.is_empty() {
        lead(notes, "NUMA nodes", &mut inventory.numa, numa);
    }
    inventory.memory.numa_total = inventory.numa.iter().map(|node| node.memory).sum();
    for (address, node) in view.pci {
        // A device that sysfs doesn't call a GPU is none for us either.
        if let Some(known) = partials.iter().find(|device| device.pci == Some(address)) {
            let mut device = PartialDevice::new(Source::Hwloc);
            device.pci = Some(address);
            device.vendor = known.vendor.clone().filter(|vendor| *vendor != Vendor::Other(String::new()));
            device.numa_node = node;
            partials.push(device);
        }
    }
}

fn lead<T: PartialEq + Debug>(notes: &mut Vec<Note>, what: &str, ours: &mut T, theirs: T) {
    if *ours != theirs {
        let mut text = format!("hwloc and sysfs differ about {what}: {theirs:?} against {ours:?}");
        if text.len() > 200 {
            text = format!("hwloc and sysfs differ about {what}; hwloc is believed");
        }
        notes.push(Note::new(Source::Hwloc, NoteKind::Discrepancy, text));
        *ours = theirs;
    }
}

fn read(topology: &Topology) -> View {
    let numa = nodes(topology);
    let mut cores: Vec<CpuSet> = topology.objects_with_type(ObjectType::Core).map(cpus).collect();
    cores.sort_by_key(CpuSet::first);
    let mut packages: Vec<(CpuSet, Option<u32>)> =
        topology.objects_with_type(ObjectType::Package).map(|object| (cpus(object), index(object))).collect();
    packages.sort_by_key(|(cpus, _)| cpus.first());
    let numbers = socket_numbers(packages.iter().map(|(_, number)| *number).collect());
    let sockets: Vec<(u32, CpuSet)> =
        numbers.into_iter().zip(packages.into_iter().map(|(cpus, _)| cpus)).collect();
    let mut logical: Vec<LogicalCpu> = topology
        .objects_with_type(ObjectType::PU)
        .filter_map(|object| {
            let id = index(object)?;
            Some(LogicalCpu {
                id,
                core: cores.iter().position(|core| core.contains(id)).map_or(id, count),
                socket: sockets.iter().find(|(_, cpus)| cpus.contains(id)).map_or(0, |(socket, _)| *socket),
                node: numa.iter().find(|node| node.cpus.contains(id)).map(|node| node.id),
            })
        })
        .collect();
    logical.sort_by_key(|cpu| cpu.id);
    View {
        this_system: topology.is_this_system(),
        // hwloc makes no object of what the kernel doesn't tell apart; one CPU is one core of one socket then.
        sockets: count(sockets.len()).max(1),
        cores: if cores.is_empty() { count(logical.len()) } else { count(cores.len()) },
        logical,
        caches: caches(topology),
        numa,
        pci: pci(topology),
    }
}

fn caches(topology: &Topology) -> Vec<crate::inventory::Cache> {
    let objects = topology.normal_objects().filter_map(|object| {
        let Some(ObjectAttributes::Cache(cache)) = object.attributes() else { return None };
        let kind = match cache.cache_type() {
            CacheType::Data => CacheKind::Data,
            CacheType::Instruction => CacheKind::Instruction,
            _ => CacheKind::Unified,
        };
        let size = ByteSize::bytes(cache.size()?.get());
        let line = cache.line_size().and_then(|line| u32::try_from(line.get()).ok()).unwrap_or(0);
        Some((u8::try_from(cache.depth()).ok()?, kind, size, line, cpus(object).len()))
    });
    group_caches(objects)
}

fn nodes(topology: &Topology) -> Vec<NumaNode> {
    let mut nodes: Vec<NumaNode> = topology
        .objects_with_type(ObjectType::NUMANode)
        .filter_map(|object| {
            let memory = match object.attributes() {
                Some(ObjectAttributes::NUMANode(node)) => node.local_memory().map_or(0, |bytes| bytes.get()),
                _ => 0,
            };
            Some(NumaNode {
                id: index(object)?,
                cpus: cpus(object),
                memory: ByteSize::bytes(memory),
                ..NumaNode::default()
            })
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    // hwloc gives a memory-only node the CPUs near it; here a node holds only CPUs that are its own.
    disjoint(&mut nodes);
    distances(topology, &mut nodes);
    nodes
}

fn distances(topology: &Topology, nodes: &mut [NumaNode]) {
    let kind = DistancesKind::FROM_OS | DistancesKind::MEANS_LATENCY;
    let Ok(matrices) = topology.distances(Some(kind)) else { return };
    let Some(matrix) = matrices.iter().find(|matrix| matrix.num_objects() == nodes.len()) else { return };
    let pairs: Vec<(u32, u32, u32)> = matrix
        .object_distances()
        .filter_map(|((from, to), distance)| {
            Some((index(from?)?, index(to?)?, u32::try_from(distance).unwrap_or(u32::MAX)))
        })
        .collect();
    let ids: Vec<u32> = nodes.iter().map(|node| node.id).collect();
    for node in nodes {
        let row: Option<Vec<u32>> = ids
            .iter()
            .map(|to| pairs.iter().find(|pair| (pair.0, pair.1) == (node.id, *to)).map(|pair| pair.2))
            .collect();
        node.distances = row.unwrap_or_default();
    }
}

fn pci(topology: &Topology) -> Vec<(PciAddress, Option<u32>)> {
    let mut found: Vec<(PciAddress, Option<u32>)> = topology
        .io_objects()
        .filter_map(|object| {
            let Some(ObjectAttributes::PCIDevice(pci)) = object.attributes() else { return None };
            if !matches!(pci.class_id() >> 8, 0x03 | 0x12) {
                return None;
            }
            let address =
                PciAddress::new(pci.domain().into(), pci.bus_id(), pci.bus_device(), pci.function());
            // Above several nodes hwloc means "not known"; one node alone on a machine is certain.
            let near = object.first_non_io_ancestor().and_then(TopologyObject::nodeset).map(|set| {
                let mut ids = set.iter_set();
                (ids.next(), ids.next())
            });
            let node = match near {
                Some((Some(only), None)) => u32::try_from(usize::from(only)).ok(),
                _ => None,
            };
            Some((address, node))
        })
        .collect();
    found.sort_unstable();
    found
}

fn index(object: &TopologyObject) -> Option<u32> {
    object.os_index().and_then(|index| u32::try_from(index).ok())
}

fn cpus(object: &TopologyObject) -> CpuSet {
    let Some(set) = object.cpuset() else { return CpuSet::new() };
    set.iter_set().filter_map(|id| u32::try_from(usize::from(id)).ok()).collect()
}
