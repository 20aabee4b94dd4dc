//! NUMA nodes by sysfs, and main memory by `/proc/meminfo`.

use super::{cgroup::Limits, root::Root};
use crate::inventory::{CpuSet, Memory, Note, NoteKind, NumaNode, Source};
use quark_base::ByteSize;

const NODES: &str = "/sys/devices/system/node";

/// How far the nodes' memory may be off the whole's before it is worth a note. Kernels reserve some memory
/// per node, which is well below this.
const TOLERATED_PERCENT: u64 = 10;

/// The nodes; one node 0 with everything when the kernel lists none.
pub(super) fn probe(root: &Root, online: &CpuSet) -> Vec<NumaNode> {
    let ids = root
        .list(&format!("{NODES}/online"))
        .filter(|ids| !ids.is_empty())
        .unwrap_or_else(|| root.numbered(NODES, "node"));
    let mut nodes: Vec<NumaNode> = ids
        .iter()
        .filter(|id| {
            let there = root.is_dir(&format!("{NODES}/node{id}"));
            if !there {
                root.note(Note::broken(
                    Source::Sysfs,
                    format!("node {id} is listed but {NODES}/node{id} is missing"),
                ));
            }
            there
        })
        .map(|id| node(root, id, online))
        .collect();
    if nodes.is_empty() {
        root.note(Note::missing(Source::Sysfs, format!("no {NODES}: the machine is taken as one node")));
        let memory = meminfo(root).total.unwrap_or_default();
        return vec![NumaNode { id: 0, cpus: online.clone(), memory, ..NumaNode::default() }];
    }
    for node in &mut nodes {
        // The kernel writes one number per online node, in their order.
        if !node.distances.is_empty() && node.distances.len() != ids.len() {
            root.note(Note::broken(
                Source::Sysfs,
                format!("node {} has {} distances for {} nodes", node.id, node.distances.len(), ids.len()),
            ));
            node.distances.clear();
        }
    }
    // A node that was left out would shift the columns.
    if nodes.len() != ids.len() {
        nodes.iter_mut().for_each(|node| node.distances.clear());
    }
    let homeless = nodes.iter().fold(online.clone(), |rest, node| rest.difference(&node.cpus));
    if !homeless.is_empty() {
        root.note(Note::broken(Source::Sysfs, format!("CPUs {homeless} belong to no NUMA node")));
    }
    nodes
}

fn node(root: &Root, id: u32, online: &CpuSet) -> NumaNode {
    let folder = format!("{NODES}/node{id}");
    let cpus =
        root.mask_or_list(&format!("{folder}/cpumap"), &format!("{folder}/cpulist")).unwrap_or_default();
    let meminfo = root.text(&format!("{folder}/meminfo")).unwrap_or_default();
    let distances = root.text(&format!("{folder}/distance")).unwrap_or_default();
    let parsed: Result<Vec<u32>, _> = distances.split_ascii_whitespace().map(str::parse).collect();
    NumaNode {
        id,
        cpus: cpus.intersection(online),
        memory: field(&meminfo, "MemTotal").unwrap_or_default(),
        free: field(&meminfo, "MemFree"),
        distances: parsed.unwrap_or_else(|_| {
            root.garbage(&format!("{folder}/distance"), &distances);
            Vec::new()
        }),
    }
}

/// Main memory, with the nodes' sum beside the whole.
pub(super) fn memory(root: &Root, nodes: &[NumaNode], limits: &Limits) -> Memory {
    let MemInfo { total, available, swap } = meminfo(root);
    let numa_total: ByteSize = nodes.iter().map(|node| node.memory).sum();
    let total = total.unwrap_or_else(|| {
        root.note(Note::broken(
            Source::Procfs,
            "no MemTotal in /proc/meminfo: the NUMA nodes' sum stands for it",
        ));
        numa_total
    });
    note_discrepancy(root, total, numa_total);
    let limit = limits.memory.filter(|limit| *limit < total);
    if let Some(limit) = limit {
        root.note(Note::new(
            Source::Cgroup,
            NoteKind::Limit,
            format!("a cgroup limits this process to {limit} of {total} memory"),
        ));
    }
    Memory { total, available, swap: swap.unwrap_or_default(), numa_total, limit }
}

fn note_discrepancy(root: &Root, total: ByteSize, numa_total: ByteSize) {
    let gap = total.as_u64().abs_diff(numa_total.as_u64());
    if gap > total.as_u64() / 100 * TOLERATED_PERCENT {
        root.note(Note::new(
            Source::Sysfs,
            NoteKind::Discrepancy,
            format!("the NUMA nodes claim {numa_total} and the machine has {total} (virtual machines do that); budget from the latter"),
        ));
    }
}

struct MemInfo {
    total: Option<ByteSize>,
    available: Option<ByteSize>,
    swap: Option<ByteSize>,
}

fn meminfo(root: &Root) -> MemInfo {
    let text = root.text("/proc/meminfo").unwrap_or_default();
    MemInfo {
        total: field(&text, "MemTotal"),
        available: field(&text, "MemAvailable"),
        swap: field(&text, "SwapTotal"),
    }
}

/// A line of `meminfo`: "MemTotal:  24684092 kB", in a node's file with "Node 0 " before it.
fn field(text: &str, name: &str) -> Option<ByteSize> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        if key.split_ascii_whitespace().last() != Some(name) {
            return None;
        }
        let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(ByteSize::kib(kib))
    })
}
