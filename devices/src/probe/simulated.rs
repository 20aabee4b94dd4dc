//! A machine that need not exist, from a TOML file: for tests, planning and development without a GPU.
//!
//! `devices/topologies/` has examples. Everything a simulated inventory holds says that it is simulated: the
//! inventory, each device and each device's name.

mod file;

use super::{cpu::count, cpu::group_caches};
use crate::{
    inventory::{
        CoreKind, Cpu, CpuSet, DeviceLimits, Host, Inventory, LogicalCpu, Memory, Note, NoteKind, NumaNode,
        PartialDevice, PciAddress, Source,
    },
    merge::merge,
};
use file::{CpuTable, GpuTable, Topology};
use quark_base::ByteSize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::{Path, PathBuf},
};

/// The largest topology file; the shipped ones have some 2 KB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most CPUs of a simulated machine: twice what today's largest servers have.
pub const MAX_CPUS: u32 = 4096;
/// The most GPUs of a simulated machine.
pub const MAX_GPUS: usize = 256;

/// Why a topology file can't be used. Nothing was changed; fixing the file helps.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file can't be read.
    #[error("cannot read the topology {}: {cause}; examples are in devices/topologies/", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is no TOML, or has a key or a value that no topology has.
    #[error("{}:{line}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there and what to write instead, in one line.
        problem: String,
    },
}

/// What is wrong at which bytes of the text.
struct Problem {
    at: Range<usize>,
    text: String,
}

impl Problem {
    fn new(at: Range<usize>, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }
}

/// Reads a topology file.
pub fn load(path: &Path) -> Result<Inventory, TopologyError> {
    let unreadable = |cause| TopologyError::Unreadable { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(io::Error::other(format!(
            "it is larger than {}",
            ByteSize::bytes(MAX_FILE_BYTES)
        ))));
    }
    let text = String::from_utf8(bytes).map_err(|cause| {
        invalid(path, cause.as_bytes(), cause.utf8_error().valid_up_to(), "this is no UTF-8 text")
    })?;
    parse(&text).map_err(|problem| invalid(path, text.as_bytes(), problem.at.start, &problem.text))
}

fn invalid(path: &Path, text: &[u8], at: usize, problem: &str) -> TopologyError {
    let line = 1 + text.iter().take(at).filter(|byte| **byte == b'\n').count();
    // TOML's messages come in several lines.
    let problem =
        problem.lines().map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    TopologyError::Invalid { path: path.to_owned(), line, problem }
}

fn parse(text: &str) -> Result<Inventory, Problem> {
    let topology: Topology =
        toml::from_str(text).map_err(|error| Problem::new(error.span().unwrap_or(0..0), error.message()))?;
    let cpu = cpu(&topology)?;
    let numa = numa(&topology, &cpu)?;
    let cpu = with_nodes(cpu, &numa);
    let numa_total: ByteSize = numa.iter().map(|node| node.memory).sum();
    let merged = merge(gpus(&topology, &numa)?);
    let mut notes = vec![Note::new(
        Source::Simulated,
        NoteKind::Discrepancy,
        "this comes from a topology file: no such machine need exist, and no work can run on its devices",
    )];
    notes.extend(merged.notes);
    Ok(Inventory {
        host: Host {
            name: topology.name,
            os: topology.host.os,
            kernel: topology.host.kernel,
            product: topology.host.product,
            hypervisor: None,
        },
        cpu,
        numa,
        memory: Memory {
            total: numa_total,
            available: None,
            swap: topology.host.swap.unwrap_or_default(),
            numa_total,
            limit: None,
        },
        devices: merged.devices,
        notes,
        simulated: true,
    })
}

/// One core before it has its CPU numbers: socket, hardware threads, kind.
struct Core {
    socket: u32,
    threads: u32,
    kind: usize,
}

fn cores(table: &CpuTable, whole: Range<usize>) -> Result<Vec<Core>, Problem> {
    let all = u64::from(table.sockets.get()) * u64::from(table.cores_per_socket.get());
    if all * u64::from(table.threads_per_core.get()) > u64::from(MAX_CPUS) {
        return Err(Problem::new(
            whole,
            format!("more than {MAX_CPUS} CPUs; lower sockets, cores or threads"),
        ));
    }
    if table.core_kind.is_empty() {
        let cores = (0..table.sockets.get()).flat_map(|socket| {
            (0..table.cores_per_socket.get()).map(move |_| Core {
                socket,
                threads: table.threads_per_core.get(),
                kind: 0,
            })
        });
        return Ok(cores.collect());
    }
    let mut cores = Vec::new();
    for socket in 0..table.sockets.get() {
        let mut left = table.cores_per_socket.get();
        for (kind, group) in table.core_kind.iter().enumerate() {
            let wanted = group.get_ref().cores.get();
            let Some(rest) = left.checked_sub(wanted) else {
                return Err(Problem::new(
                    group.span(),
                    "the core kinds have more cores than cores_per_socket",
                ));
            };
            left = rest;
            let threads = group.get_ref().threads_per_core.get();
            if threads > table.threads_per_core.get() {
                return Err(Problem::new(
                    group.span(),
                    "threads_per_core is above the [cpu]'s threads_per_core",
                ));
            }
            cores.extend((0..wanted).map(|_| Core { socket, threads, kind }));
        }
        if left > 0 {
            return Err(Problem::new(whole, format!("the core kinds leave {left} of cores_per_socket out")));
        }
    }
    Ok(cores)
}

fn cpu(topology: &Topology) -> Result<Cpu, Problem> {
    let table = topology.cpu.get_ref();
    let cores = cores(table, topology.cpu.span())?;
    let mut logical = Vec::new();
    let mut kinds: Vec<CpuSet> = vec![CpuSet::new(); table.core_kind.len()];
    let place = |logical: &mut Vec<LogicalCpu>, at: usize, core: &Core| {
        let id = count(logical.len());
        logical.push(LogicalCpu { id, core: count(at), socket: core.socket, node: None });
        id
    };
    if table.core_kind.is_empty() {
        // Servers' firmware numbers the first thread of every core, then the second ones.
        for thread in 0..table.threads_per_core.get() {
            for (at, core) in cores.iter().enumerate().filter(|(_, core)| thread < core.threads) {
                place(&mut logical, at, core);
            }
        }
    } else {
        // Hybrid laptops number the threads of a core together.
        for (at, core) in cores.iter().enumerate() {
            for _ in 0..core.threads {
                kinds[core.kind].insert(place(&mut logical, at, core));
            }
        }
    }
    let online: CpuSet = logical.iter().map(|cpu| cpu.id).collect();
    let caches = table.cache.iter().flat_map(|cache| {
        (0..cache.count.get())
            .map(|_| (cache.level, cache.kind, cache.size, cache.line_bytes, cache.shared_by as usize))
    });
    let core_kinds = table.core_kind.iter().zip(kinds).map(|(kind, cpus)| {
        let kind = kind.get_ref();
        CoreKind { name: kind.name, cpus, max_mhz: kind.max_mhz }
    });
    Ok(Cpu {
        vendor: table.vendor.clone(),
        model: table.model.clone(),
        architecture: table.architecture.clone(),
        sockets: table.sockets.get(),
        cores: count(cores.len()),
        threads: count(logical.len()),
        allowed: online.clone(),
        online,
        offline: CpuSet::new(),
        quota: None,
        max_mhz: table.max_mhz,
        caches: group_caches(caches),
        features: table.features.iter().copied().collect(),
        core_kinds: core_kinds.collect(),
        logical,
    })
}

fn numa(topology: &Topology, cpu: &Cpu) -> Result<Vec<NumaNode>, Problem> {
    let mut nodes: BTreeMap<u32, NumaNode> = BTreeMap::new();
    let mut taken = CpuSet::new();
    for entry in &topology.numa {
        let table = entry.get_ref();
        let unknown = table.cpus.difference(&cpu.online);
        let twice = table.cpus.intersection(&taken);
        if !unknown.is_empty() {
            let have = &cpu.online;
            return Err(Problem::new(
                entry.span(),
                format!("node {} lists CPUs {unknown}; [cpu] makes {have}", table.id),
            ));
        }
        if !twice.is_empty() {
            return Err(Problem::new(entry.span(), format!("CPUs {twice} are already on another node")));
        }
        if !table.distances.is_empty() && table.distances.len() != topology.numa.len() {
            let wanted = topology.numa.len();
            return Err(Problem::new(
                entry.span(),
                format!("distances needs {wanted} numbers, one for each node"),
            ));
        }
        taken = taken.union(&table.cpus);
        let node = NumaNode {
            id: table.id,
            cpus: table.cpus.clone(),
            memory: table.memory,
            free: None,
            distances: table.distances.clone(),
        };
        if nodes.insert(table.id, node).is_some() {
            return Err(Problem::new(entry.span(), format!("node {} is there twice", table.id)));
        }
    }
    if nodes.is_empty() {
        return Err(Problem::new(
            0..0,
            "there is no [[numa]] node; give at least one with id, cpus and memory",
        ));
    }
    let homeless = cpu.online.difference(&taken);
    if !homeless.is_empty() {
        return Err(Problem::new(topology.cpu.span(), format!("CPUs {homeless} are on no [[numa]] node")));
    }
    Ok(nodes.into_values().collect())
}

fn with_nodes(mut cpu: Cpu, nodes: &[NumaNode]) -> Cpu {
    for logical in &mut cpu.logical {
        logical.node = nodes.iter().find(|node| node.cpus.contains(logical.id)).map(|node| node.id);
    }
    cpu
}

fn gpus(topology: &Topology, nodes: &[NumaNode]) -> Result<Vec<PartialDevice>, Problem> {
    let mut devices: Vec<PartialDevice> = Vec::new();
    let mut addresses: BTreeMap<PciAddress, ()> = BTreeMap::new();
    for entry in &topology.gpu {
        let table = entry.get_ref();
        if nodes.iter().all(|node| table.numa_node.is_some_and(|wanted| wanted != node.id)) {
            let node = table.numa_node.unwrap_or_default();
            return Err(Problem::new(
                entry.span(),
                format!("NUMA node {node} of this GPU is none of the [[numa]] nodes"),
            ));
        }
        if devices.len() >= MAX_GPUS {
            return Err(Problem::new(entry.span(), format!("more than {MAX_GPUS} GPUs")));
        }
        if let Some(pci) = table.pci
            && addresses.insert(pci, ()).is_some()
        {
            return Err(Problem::new(entry.span(), format!("PCI address {pci} is there twice")));
        }
        devices.push(gpu(&topology.name, devices.len(), table));
    }
    Ok(devices)
}

fn gpu(machine: &str, at: usize, table: &GpuTable) -> PartialDevice {
    let mut device = PartialDevice::new(Source::Simulated);
    device.kind = Some(table.kind);
    device.name = Some(format!("{} (simulated)", table.name));
    device.vendor = Some(table.vendor.clone());
    device.uuid = Some(format!("SIM-{machine}-{at}"));
    device.pci = table.pci;
    device.numa_node = table.numa_node;
    device.vram = Some(table.vram);
    device.compute_capability = table.compute_capability.map(|[major, minor]| (major, minor));
    device.compute_units = table.compute_units;
    device.driver = table.driver.clone();
    device.features = table.features;
    device.limits = table.limits.map(|limits| DeviceLimits {
        max_buffer: limits.max_buffer,
        max_storage_binding: limits.max_storage_binding,
        ..DeviceLimits::default()
    });
    device.index = Some(count(at));
    device
}

#[cfg(test)]
mod tests;
