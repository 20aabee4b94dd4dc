//! CPUs by sysfs: sockets, cores, threads, caches, hybrid cores.

use super::{
    cgroup::Limits,
    cpuinfo::{CpuInfo, InfoCpu},
    root::Root,
};
use crate::inventory::{
    Cache, CacheKind, CoreKind, CoreKindName, Cpu, CpuSet, LogicalCpu, Note, NoteKind, NumaNode, Source,
};
use quark_base::ByteSize;
use std::collections::{BTreeMap, BTreeSet};

const CPUS: &str = "/sys/devices/system/cpu";

/// The online CPUs: what sysfs says, else what `/proc/cpuinfo` lists, else CPU 0, so that nobody above needs
/// to think about a machine without CPUs.
pub(super) fn online(root: &Root, info: &CpuInfo) -> CpuSet {
    let listed = |ids: CpuSet| (!ids.is_empty()).then_some(ids);
    if let Some(set) = root.list(&format!("{CPUS}/online")).and_then(listed) {
        return set;
    }
    // Kernels without hotplug have no such file; then every cpuN directory is online.
    let directories = root.numbered(CPUS, "cpu");
    let switched_off = |id: u32| root.value::<u32>(&format!("{CPUS}/cpu{id}/online")) == Some(0);
    if let Some(set) = listed(directories.iter().filter(|id| !switched_off(*id)).collect()) {
        return set;
    }
    if let Some(set) = listed(info.cpus.iter().map(|cpu| cpu.id).collect()) {
        root.note(Note::missing(Source::Sysfs, format!("no {CPUS}; CPUs are taken from /proc/cpuinfo")));
        return set;
    }
    root.note(Note::broken(Source::Sysfs, "neither /sys nor /proc lists a CPU; one is assumed"));
    CpuSet::from_iter([0])
}

pub(super) fn probe(root: &Root, info: CpuInfo, online: &CpuSet, nodes: &[NumaNode], limits: &Limits) -> Cpu {
    let present = root.list(&format!("{CPUS}/present")).unwrap_or_default();
    let mut cpu = Cpu {
        architecture: architecture(root, &info),
        online: online.clone(),
        offline: present.difference(online),
        threads: count(online.len()),
        ..Cpu::default()
    };
    let siblings = place(root, &info, nodes, &mut cpu);
    cpu.caches = caches(root, online, &siblings);
    cpu.max_mhz = online.iter().filter_map(|id| max_mhz(root, id)).max();
    cpu.core_kinds = core_kinds(root, online, &cpu.architecture);
    cpu.allowed = allowed(root, online, limits);
    cpu.quota = limits.cpus.filter(|quota| *quota < f64::from(cpu.threads));
    (cpu.vendor, cpu.model, cpu.features) = (info.vendor, info.model, info.features);
    note_limits(root, &cpu);
    cpu
}

fn architecture(root: &Root, info: &CpuInfo) -> String {
    // Linux 6.1 and up say it; before that the form of /proc/cpuinfo gives it away.
    root.word("/proc/sys/kernel/arch").unwrap_or_else(|| {
        let known = info.architecture;
        if known.is_empty() && root.is_live() { std::env::consts::ARCH.into() } else { known.into() }
    })
}

/// Fills sockets, cores and the place of each CPU; gives each CPU's core siblings.
fn place(root: &Root, info: &CpuInfo, nodes: &[NumaNode], cpu: &mut Cpu) -> BTreeMap<u32, CpuSet> {
    let by_id: BTreeMap<u32, InfoCpu> = info.cpus.iter().map(|cpu| (cpu.id, *cpu)).collect();
    let mut sockets: Vec<(Group, Option<u32>)> = Vec::new();
    let mut cores: BTreeMap<Group, u32> = BTreeMap::new();
    let mut core_siblings = BTreeMap::new();
    let online = cpu.online.clone();
    for id in online.iter() {
        let topology = format!("{CPUS}/cpu{id}/topology");
        let known = by_id.get(&id).copied().unwrap_or_default();
        // -1 is how the kernel says that it doesn't know.
        let number = root
            .value::<i64>(&format!("{topology}/physical_package_id"))
            .map_or(known.socket, |number| u32::try_from(number).ok());
        // New names since Linux 5.1, the old ones before (and beside them, until today).
        let package = siblings(root, id, &online, ["package_cpus", "core_siblings"]);
        let group = package.map_or(Group::Numbered(0, number.unwrap_or(0)), |set| Group::first_of(&set));
        let socket = sockets.iter().position(|(other, _)| *other == group).unwrap_or_else(|| {
            sockets.push((group, number));
            sockets.len() - 1
        });
        let siblings = siblings(root, id, &online, ["core_cpus", "thread_siblings"]);
        let group = match &siblings {
            Some(siblings) => Group::first_of(siblings),
            None => match root.value::<u32>(&format!("{topology}/core_id")).or(known.core) {
                Some(core) => Group::Numbered(count(socket), core),
                None => Group::Siblings(id),
            },
        };
        core_siblings.extend(siblings.map(|siblings| (id, siblings)));
        let next = count(cores.len());
        let core = *cores.entry(group).or_insert(next);
        let node = nodes.iter().find(|node| node.cpus.contains(id)).map(|node| node.id);
        cpu.logical.push(LogicalCpu { id, core, socket: count(socket), node });
    }
    let numbers = socket_numbers(sockets.iter().map(|(_, number)| *number).collect());
    for logical in &mut cpu.logical {
        logical.socket = numbers[logical.socket as usize];
    }
    cpu.sockets = count(sockets.len());
    cpu.cores = count(cores.len());
    core_siblings
}

/// The first of `names` that there is, as far as it is about online CPUs and about this one at all.
fn siblings(root: &Root, id: u32, online: &CpuSet, names: [&str; 2]) -> Option<CpuSet> {
    let topology = format!("{CPUS}/cpu{id}/topology");
    names
        .iter()
        .find_map(|name| root.mask_or_list(&format!("{topology}/{name}"), &format!("{topology}/{name}_list")))
        .filter(|siblings| siblings.contains(id))
        .map(|siblings| siblings.intersection(online))
}

/// What tells one socket or core from another: its lowest online CPU, else its number within what holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Siblings(u32),
    Numbered(u32, u32),
}

impl Group {
    fn first_of(siblings: &CpuSet) -> Self {
        Self::Siblings(siblings.first().unwrap_or(0))
    }
}

/// The kernel's numbers of the sockets, given in order of their lowest CPU; their order where it has none, or
/// gives one number to several (ia64 counts anew in each node).
pub(super) fn socket_numbers(kernel: Vec<Option<u32>>) -> Vec<u32> {
    let distinct: BTreeSet<u32> = kernel.iter().copied().flatten().collect();
    if distinct.len() == kernel.len() {
        return kernel.into_iter().flatten().collect();
    }
    (0..count(kernel.len())).collect()
}

fn caches(root: &Root, online: &CpuSet, siblings: &BTreeMap<u32, CpuSet>) -> Vec<Cache> {
    // One physical cache is known by its level, kind and the CPUs that share it.
    let mut seen: BTreeMap<(u8, CacheKind, CpuSet), (ByteSize, u32)> = BTreeMap::new();
    for id in online.iter() {
        let folder = format!("{CPUS}/cpu{id}/cache");
        for index in root.numbered(&folder, "index").iter() {
            let cache = format!("{folder}/index{index}");
            let Some(level) = root.value::<u8>(&format!("{cache}/level")) else { continue };
            let Some(kind) = root.text(&format!("{cache}/type")) else { continue };
            let kind = match kind.as_str() {
                "Data" => CacheKind::Data,
                "Instruction" => CacheKind::Instruction,
                "Unified" => CacheKind::Unified,
                other => {
                    root.garbage(&format!("{cache}/type"), other);
                    continue;
                }
            };
            let Some(size) = root.text(&format!("{cache}/size")) else { continue };
            let Some(size) = cache_size(&size) else {
                root.garbage(&format!("{cache}/size"), &size);
                continue;
            };
            let line = root.value(&format!("{cache}/coherency_line_size")).unwrap_or(0);
            let shared = root
                .mask_or_list(&format!("{cache}/shared_cpu_map"), &format!("{cache}/shared_cpu_list"))
                .map(|shared| shared.intersection(online))
                .filter(|shared| shared.contains(id))
                // A cache that the kernel says nobody shares (an empty map) is shared by a core's threads.
                .or_else(|| siblings.get(&id).cloned())
                .unwrap_or_else(|| CpuSet::from_iter([id]));
            seen.insert((level, kind, shared), (size, line));
        }
    }
    group_caches(
        seen.into_iter().map(|((level, kind, shared), (size, line))| (level, kind, size, line, shared.len())),
    )
}

/// Counts equal caches. Items: level, kind, size, line bytes, CPUs that share it.
pub(super) fn group_caches(items: impl Iterator<Item = (u8, CacheKind, ByteSize, u32, usize)>) -> Vec<Cache> {
    /// Level, kind, size (largest first), line bytes.
    type Alike = (u8, CacheKind, std::cmp::Reverse<ByteSize>, u32);
    let mut groups: BTreeMap<Alike, (u32, u32)> = BTreeMap::new();
    for (level, kind, size, line, shared) in items {
        let group = groups.entry((level, kind, std::cmp::Reverse(size), line)).or_default();
        *group = (group.0 + 1, group.1.max(count(shared)));
    }
    groups
        .into_iter()
        .map(|((level, kind, size, line_bytes), (count, shared_by))| Cache {
            level,
            kind,
            size: size.0,
            count,
            line_bytes,
            shared_by,
        })
        .collect()
}

/// "32K", "36M", "1024".
fn cache_size(text: &str) -> Option<ByteSize> {
    let (digits, unit) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(ByteSize::bytes)
}

fn max_mhz(root: &Root, id: u32) -> Option<u32> {
    root.value::<u32>(&format!("{CPUS}/cpu{id}/cpufreq/cpuinfo_max_freq"))
        .map(|khz| khz / 1000)
        .filter(|mhz| *mhz > 0)
}

/// The kinds of cores, fastest first; empty when all are alike.
///
/// On x86 the kernel's performance-monitoring units tell P-cores from E-cores for certain; `cpu_capacity`
/// there also differs between equal cores of unequal luck ("favoured cores"), so it decides only elsewhere.
fn core_kinds(root: &Root, online: &CpuSet, architecture: &str) -> Vec<CoreKind> {
    let mut groups: Vec<CpuSet> = if architecture.starts_with("x86") || architecture.starts_with("i") {
        ["cpu_core", "cpu_atom", "cpu_lowpower"]
            .iter()
            .filter_map(|unit| root.list(&format!("/sys/devices/{unit}/cpus")))
            .map(|cpus| cpus.intersection(online))
            .collect()
    } else {
        let mut by_capacity: BTreeMap<std::cmp::Reverse<u32>, Vec<u32>> = BTreeMap::new();
        for id in online.iter() {
            let Some(capacity) = root.value(&format!("{CPUS}/cpu{id}/cpu_capacity")) else {
                return Vec::new();
            };
            by_capacity.entry(std::cmp::Reverse(capacity)).or_default().push(id);
        }
        by_capacity.into_values().map(CpuSet::from_iter).collect()
    };
    groups.retain(|cpus| !cpus.is_empty());
    if groups.len() < 2 {
        return Vec::new();
    }
    let last = groups.len() - 1;
    groups
        .into_iter()
        .enumerate()
        .map(|(at, cpus)| CoreKind {
            name: match at {
                0 => CoreKindName::Performance,
                at if at == last => CoreKindName::Efficiency,
                _ => CoreKindName::Middle,
            },
            max_mhz: cpus.iter().filter_map(|id| max_mhz(root, id)).max(),
            cpus,
        })
        .collect()
}

fn allowed(root: &Root, online: &CpuSet, limits: &Limits) -> CpuSet {
    let affinity = root.text("/proc/self/status").and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        line.parse::<CpuSet>().ok()
    });
    let mut allowed = online.clone();
    for narrower in [affinity, limits.cpuset.clone()].into_iter().flatten() {
        let both = allowed.intersection(&narrower);
        // A set that leaves no CPU describes another machine's process (a stale capture); believe the CPUs.
        if !both.is_empty() {
            allowed = both;
        }
    }
    allowed
}

fn note_limits(root: &Root, cpu: &Cpu) {
    if cpu.allowed != cpu.online {
        root.note(Note::new(
            Source::Cgroup,
            NoteKind::Limit,
            format!("this process may use {} of {} CPUs: {}", cpu.allowed.len(), cpu.threads, cpu.allowed),
        ));
    }
    if let Some(quota) = cpu.quota {
        root.note(Note::new(
            Source::Cgroup,
            NoteKind::Limit,
            format!("a cgroup limits this process to {quota} CPUs' time of {}", cpu.threads),
        ));
    }
}

pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_sizes_have_the_kernels_units() {
        assert_eq!(cache_size("32K"), Some(ByteSize::kib(32)));
        assert_eq!(cache_size("36M"), Some(ByteSize::mib(36)));
        assert_eq!(cache_size("512"), Some(ByteSize::bytes(512)));
        for text in ["", "K", "-1K", "99999999999999999999M", "18446744073709551615K"] {
            assert_eq!(cache_size(text), None, "{text}");
        }
    }
}
