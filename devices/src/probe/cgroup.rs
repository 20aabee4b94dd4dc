//! Control groups, version 1, version 2 and both at once: what this process may use.
//!
//! The groups are looked for where every distribution and container runtime mounts them. A container without
//! a cgroup namespace sees the host's path in `/proc/self/cgroup` and its own group at the mount, so a path
//! that isn't there stands for the mount itself.

use super::root::Root;
use crate::inventory::CpuSet;
use quark_base::ByteSize;

const MOUNT: &str = "/sys/fs/cgroup";

/// The most levels that are climbed; systemd and Kubernetes nest about six.
const MAX_DEPTH: usize = 32;

/// Version 1 says "no limit" with the largest page-aligned number; anything above this is no limit.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The tightest limits over this process.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Limits {
    /// CPU time, in CPUs.
    pub cpus: Option<f64>,
    /// Memory.
    pub memory: Option<ByteSize>,
    /// The CPUs it may run on.
    pub cpuset: Option<CpuSet>,
}

pub(super) fn probe(root: &Root) -> Limits {
    let membership = root.text("/proc/self/cgroup").unwrap_or_default();
    let mut limits = Limits::default();
    for mount in [MOUNT.to_owned(), format!("{MOUNT}/unified")] {
        if root.text(&format!("{mount}/cgroup.controllers")).is_some() {
            let path = membership.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
            for group in ancestry(root, &mount, path) {
                version_2(root, &group, &mut limits);
            }
        }
    }
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        for controller in controllers.split(',').filter(|name| ["cpu", "memory", "cpuset"].contains(name)) {
            // "cpu" and "cpuacct" are often mounted together, under either order of their names.
            let mount = [controllers, controller, "cpu,cpuacct", "cpuacct,cpu"]
                .iter()
                .filter(|name| name.split(',').any(|part| part == controller))
                .map(|name| format!("{MOUNT}/{name}"))
                .find(|mount| root.is_dir(mount));
            let Some(mount) = mount else { continue };
            for group in ancestry(root, &mount, path) {
                version_1(root, &group, controller, &mut limits);
            }
        }
    }
    limits
}

/// The group and all above it, innermost first.
fn ancestry(root: &Root, mount: &str, path: &str) -> Vec<String> {
    let outside = path.split('/').any(|part| part == "..");
    let start = format!("{mount}{}", path.trim_end_matches('/'));
    if outside || !root.is_dir(&start) {
        return vec![mount.to_owned()];
    }
    let mut groups = Vec::new();
    let mut group = start.as_str();
    while group.len() >= mount.len() && groups.len() < MAX_DEPTH {
        groups.push(group.to_owned());
        let Some((parent, _)) = group.rsplit_once('/') else { break };
        group = parent;
    }
    groups
}

fn version_2(root: &Root, group: &str, limits: &mut Limits) {
    if let Some(text) = root.text(&format!("{group}/cpu.max")) {
        let mut words = text.split_ascii_whitespace();
        let (quota, period) = (words.next().unwrap_or_default(), words.next().unwrap_or("100000"));
        match (quota, quota.parse::<f64>(), period.parse::<f64>()) {
            ("max", ..) => {}
            (_, Ok(quota), Ok(period)) if quota > 0.0 && period > 0.0 => tighten_cpus(limits, quota / period),
            _ => root.garbage(&format!("{group}/cpu.max"), &text),
        }
    }
    if let Some(text) = root.text(&format!("{group}/memory.max")).filter(|text| text != "max") {
        match text.parse() {
            Ok(bytes) => tighten_memory(limits, bytes),
            Err(_) => root.garbage(&format!("{group}/memory.max"), &text),
        }
    }
    tighten_cpuset(limits, root.list(&format!("{group}/cpuset.cpus.effective")));
}

fn version_1(root: &Root, group: &str, controller: &str, limits: &mut Limits) {
    match controller {
        "cpu" => {
            // -1 is no limit.
            let quota = root.value::<i64>(&format!("{group}/cpu.cfs_quota_us")).filter(|quota| *quota > 0);
            if let Some(quota) = quota {
                let period =
                    root.value::<i64>(&format!("{group}/cpu.cfs_period_us")).filter(|period| *period > 0);
                tighten_cpus(limits, quota as f64 / period.unwrap_or(100_000) as f64);
            }
        }
        "memory" => {
            if let Some(bytes) = root.value::<u64>(&format!("{group}/memory.limit_in_bytes")) {
                tighten_memory(limits, bytes);
            }
        }
        _ => {
            let effective = root
                .list(&format!("{group}/cpuset.effective_cpus"))
                .or_else(|| root.list(&format!("{group}/cpuset.cpus")));
            tighten_cpuset(limits, effective);
        }
    }
}

fn tighten_cpus(limits: &mut Limits, cpus: f64) {
    limits.cpus = Some(limits.cpus.map_or(cpus, |before| before.min(cpus)));
}

fn tighten_memory(limits: &mut Limits, bytes: u64) {
    if bytes < NO_LIMIT_BYTES {
        let size = ByteSize::bytes(bytes);
        limits.memory = Some(limits.memory.map_or(size, |before| before.min(size)));
    }
}

fn tighten_cpuset(limits: &mut Limits, set: Option<CpuSet>) {
    if let Some(set) = set.filter(|set| !set.is_empty()) {
        limits.cpuset = Some(limits.cpuset.as_ref().map_or(set.clone(), |before| before.intersection(&set)));
    }
}
