//! NUMA nodes by sysfs, and main memory by `/proc/meminfo`.

use super::{cgroup::Limits, root::Root};
use crate::inventory::{CpuSet, Memory, Note, NoteKind, NumaNode, Source};
use quark_base::ByteSize;

const NODES: &str = "/sys/devices/system/node";

/// How far the nodes' memory may be off the whole's before it is worth a note. Kernels reserve some memory
/// per node, which is well below this.
const TOLERATED_PERCENT: u64 = 10;

/// The nodes, and how much memory GPUs show as nodes of their own.
pub(super) struct Nodes {
    pub host: Vec<NumaNode>,
    pub gpu_memory: ByteSize,
}

/// The nodes; one node 0 with everything when the kernel lists none.
pub(super) fn probe(root: &Root, online: &CpuSet) -> Nodes {
    let listed = root
        .list(&format!("{NODES}/online"))
        .filter(|ids| !ids.is_empty())
        .unwrap_or_else(|| root.numbered(NODES, "node"));
    let gpus = gpu_nodes(root).intersection(&listed);
    if !gpus.is_empty() {
        let text = format!("NUMA nodes {gpus} are the memory of GPUs, and left out");
        root.note(Note::new(Source::Procfs, NoteKind::Limit, text));
    }
    let gpu_memory = gpus.iter().map(|id| node(root, id, online).memory).sum();
    let mut missing = CpuSet::new();
    for id in listed.iter().filter(|id| !root.is_dir(&format!("{NODES}/node{id}"))) {
        root.note(Note::broken(
            Source::Sysfs,
            format!("node {id} is listed but {NODES}/node{id} is missing"),
        ));
        missing.insert(id);
    }
    let ids = listed.difference(&gpus).difference(&missing);
    let mut nodes: Vec<NumaNode> = ids.iter().map(|id| node(root, id, online)).collect();
    if nodes.is_empty() {
        root.note(Note::missing(Source::Sysfs, format!("no {NODES}: the machine is taken as one node")));
        let memory = meminfo(root).total.unwrap_or_default();
        let only = NumaNode { id: 0, cpus: online.clone(), memory, ..NumaNode::default() };
        return Nodes { host: vec![only], gpu_memory };
    }
    for node in &mut nodes {
        // The kernel writes one number per online node, in their order, the GPUs' among them.
        if !node.distances.is_empty() && node.distances.len() != listed.len() {
            let found = node.distances.len();
            let text = format!("node {} has {found} distances for {} nodes", node.id, listed.len());
            root.note(Note::broken(Source::Sysfs, text));
            node.distances.clear();
        }
        let kept = listed.iter().zip(&node.distances).filter(|(id, _)| ids.contains(*id));
        node.distances = kept.map(|(_, distance)| *distance).collect();
    }
    let twice = disjoint(&mut nodes);
    if !twice.is_empty() {
        let text =
            format!("CPUs {twice} are on several NUMA nodes; they count for the smallest, else the first");
        root.note(Note::broken(Source::Sysfs, text));
    }
    let homeless = nodes.iter().fold(online.clone(), |rest, node| rest.difference(&node.cpus));
    if !homeless.is_empty() {
        root.note(Note::broken(Source::Sysfs, format!("CPUs {homeless} belong to no NUMA node")));
    }
    Nodes { host: nodes, gpu_memory }
}

/// Leaves each CPU on one node: the one with the fewest CPUs that claims it, of equals the one with the lowest
/// number. Gives the CPUs that were on several.
pub(super) fn disjoint(nodes: &mut [NumaNode]) -> CpuSet {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|at| (nodes[*at].cpus.len(), nodes[*at].id));
    let (mut taken, mut twice) = (CpuSet::new(), CpuSet::new());
    for at in order {
        twice = twice.union(&nodes[at].cpus.intersection(&taken));
        nodes[at].cpus = nodes[at].cpus.difference(&taken);
        taken = taken.union(&nodes[at].cpus);
    }
    twice
}

/// The nodes that are a GPU's memory (NVLink-attached cards on POWER9 and Grace show theirs as nodes): the
/// driver owns it, so no host memory may be budgeted there.
fn gpu_nodes(root: &Root) -> CpuSet {
    const GPUS: &str = "/proc/driver/nvidia/gpus";
    let status = |name: &String| root.text(&format!("{GPUS}/{name}/numa_status"));
    let number = |text: String| {
        let (_, number) = text.lines().next()?.split_once(':')?;
        number.trim().parse::<u32>().ok()
    };
    root.names(GPUS).iter().filter_map(|name| number(status(name)?)).collect()
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
pub(super) fn memory(root: &Root, nodes: &Nodes, limits: &Limits) -> Memory {
    let MemInfo { total, available, swap } = meminfo(root);
    let numa_total: ByteSize = nodes.host.iter().map(|node| node.memory).sum();
    // The kernel counts the GPUs' nodes among its memory.
    let total = total.map(|total| total.saturating_sub(nodes.gpu_memory)).unwrap_or_else(|| {
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
