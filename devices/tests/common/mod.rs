//! Small captured trees, made by hand: what the kernel would show on machines that are rare.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{collections::BTreeSet, fs, path::Path};
use tempfile::TempDir;

const CPU: &str = "sys/devices/system/cpu";
const NODE: &str = "sys/devices/system/node";

/// One online CPU: number, socket, core within the socket.
pub(crate) type Place = (u32, i32, u32);

/// A tree that grows by calls.
pub(crate) struct Tree(TempDir);

impl Tree {
    /// A machine with these online CPUs, an x86 cpuinfo and 64 GiB.
    pub(crate) fn new(cpus: &[Place]) -> Self {
        let tree = Self::bare();
        tree.file(
            "proc/meminfo",
            "MemTotal:       67108864 kB\nMemAvailable:   60000000 kB\nSwapTotal:      0 kB\n",
        );
        let cpuinfo: String = cpus
            .iter()
            .map(|(id, ..)| {
                format!("processor\t: {id}\nvendor_id\t: GenuineIntel\nmodel name\t: Test CPU\nflags\t\t: lm sse4_2 avx2\n\n")
            })
            .collect();
        tree.file("proc/cpuinfo", &cpuinfo);
        let ids: BTreeSet<u32> = cpus.iter().map(|cpu| cpu.0).collect();
        tree.file(&format!("{CPU}/online"), list(&ids));
        tree.file(&format!("{CPU}/present"), list(&ids));
        tree.file(&format!("{CPU}/possible"), list(&ids));
        for &(id, socket, core) in cpus {
            let same =
                |test: &dyn Fn(&Place) -> bool| mask(&cpus.iter().filter(|c| test(c)).map(|c| c.0).collect());
            let folder = format!("{CPU}/cpu{id}");
            let core_mask = same(&|other| (other.1, other.2) == (socket, core));
            let socket_mask = same(&|other| other.1 == socket);
            tree.file(&format!("{folder}/topology/physical_package_id"), socket.to_string());
            tree.file(&format!("{folder}/topology/core_id"), core.to_string());
            for name in ["core_cpus", "thread_siblings"] {
                tree.file(&format!("{folder}/topology/{name}"), &core_mask);
            }
            for name in ["package_cpus", "core_siblings"] {
                tree.file(&format!("{folder}/topology/{name}"), &socket_mask);
            }
            tree.cache(id, 0, (1, "Data", "32K"), &core_mask);
            tree.cache(id, 1, (1, "Instruction", "32K"), &core_mask);
            tree.cache(id, 2, (2, "Unified", "1024K"), &core_mask);
            tree.cache(id, 3, (3, "Unified", "16384K"), &socket_mask);
        }
        tree
    }

    /// A tree with nothing in it.
    pub(crate) fn bare() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.path().join("sys")).unwrap();
        fs::create_dir_all(tree.path().join("proc")).unwrap();
        tree
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let place = self.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let mut bytes = content.as_ref().to_vec();
        bytes.push(b'\n');
        fs::write(place, bytes).unwrap();
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        let place = self.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, place).unwrap();
        self
    }

    fn cache(&self, cpu: u32, index: u32, (level, kind, size): (u32, &str, &str), shared: &str) {
        let folder = format!("{CPU}/cpu{cpu}/cache/index{index}");
        self.file(&format!("{folder}/level"), level.to_string());
        self.file(&format!("{folder}/type"), kind);
        self.file(&format!("{folder}/size"), size);
        self.file(&format!("{folder}/coherency_line_size"), "64");
        self.file(&format!("{folder}/shared_cpu_map"), shared);
    }

    /// Nodes: number, CPUs, memory in MiB, distances in order of the nodes.
    pub(crate) fn nodes(&self, nodes: &[(u32, &[u32], u64, &[u32])]) -> &Self {
        self.file(&format!("{NODE}/online"), list(&nodes.iter().map(|node| node.0).collect()));
        for (id, cpus, mib, distances) in nodes {
            let folder = format!("{NODE}/node{id}");
            let set: BTreeSet<u32> = cpus.iter().copied().collect();
            self.file(&format!("{folder}/cpumap"), mask(&set));
            self.file(&format!("{folder}/cpulist"), list(&set));
            let kib = mib * 1024;
            self.file(
                &format!("{folder}/meminfo"),
                format!("Node {id} MemTotal:       {kib} kB\nNode {id} MemFree:        {kib} kB"),
            );
            let row: Vec<String> = distances.iter().map(u32::to_string).collect();
            self.file(&format!("{folder}/distance"), row.join(" "));
        }
        self
    }

    /// A display controller.
    pub(crate) fn pci(&self, address: &str, class: &str, vendor: &str, device: &str, node: i32) -> &Self {
        let folder = format!("sys/bus/pci/devices/{address}");
        self.file(&format!("{folder}/class"), class);
        self.file(&format!("{folder}/vendor"), vendor);
        self.file(&format!("{folder}/device"), device);
        self.file(&format!("{folder}/numa_node"), node.to_string())
    }
}

fn list(ids: &BTreeSet<u32>) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The kernel's masks: groups of eight hexadecimal digits, highest first.
fn mask(ids: &BTreeSet<u32>) -> String {
    let groups = ids.last().map_or(1, |last| last / 32 + 1);
    let group = |at: u32| ids.iter().filter(|id| *id / 32 == at).fold(0u32, |bits, id| bits | 1 << (id % 32));
    (0..groups).rev().map(|at| format!("{:08x}", group(at))).collect::<Vec<_>>().join(",")
}

/// Two sockets of two cores with two threads each, a node a socket.
pub(crate) fn two_sockets() -> Tree {
    let tree =
        Tree::new(&[(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1), (4, 0, 0), (5, 0, 1), (6, 1, 0), (7, 1, 1)]);
    tree.nodes(&[(0, &[0, 1, 4, 5], 32_768, &[10, 21]), (1, &[2, 3, 6, 7], 32_768, &[21, 10])]);
    tree
}

/// A node without memory, a node without CPUs (CXL), and one with both.
pub(crate) fn uneven_nodes() -> Tree {
    let tree = Tree::new(&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)]);
    tree.nodes(&[
        (0, &[0, 1], 49_152, &[10, 12, 20]),
        (1, &[2, 3], 0, &[12, 10, 20]),
        (2, &[], 16_384, &[20, 20, 10]),
    ]);
    tree
}

/// Numbers with gaps: POWER numbers its nodes 0, 8, 252; hotplug leaves gaps in CPUs and sockets.
pub(crate) fn sparse() -> Tree {
    let tree = Tree::new(&[(0, 0, 0), (8, 0, 8), (64, 16, 0), (72, 16, 8)]);
    tree.nodes(&[(0, &[0, 8], 32_768, &[10, 40]), (8, &[64, 72], 32_768, &[40, 10])]);
    tree
}

/// CPUs 2 and 3 of four are switched off; their directories stay, as the kernel leaves them.
pub(crate) fn offline() -> Tree {
    let tree = Tree::new(&[(0, 0, 0), (1, 0, 1)]);
    tree.file(&format!("{CPU}/present"), "0-3");
    tree.file(&format!("{CPU}/possible"), "0-3");
    tree.file(&format!("{CPU}/offline"), "2-3");
    tree.file(&format!("{CPU}/cpu1/online"), "1");
    for id in [2, 3] {
        tree.file(&format!("{CPU}/cpu{id}/online"), "0");
    }
    // The kernel keeps an offline CPU out of the node's map.
    tree.nodes(&[(0, &[0, 1], 65_536, &[10])]);
    tree
}

/// Two performance cores with two threads, two efficiency cores.
pub(crate) fn hybrid() -> Tree {
    let tree = Tree::new(&[(0, 0, 0), (1, 0, 0), (2, 0, 4), (3, 0, 4), (4, 0, 8), (5, 0, 9)]);
    tree.nodes(&[(0, &[0, 1, 2, 3, 4, 5], 65_536, &[10])]);
    tree.file("sys/devices/cpu_core/cpus", "0-3");
    tree.file("sys/devices/cpu_atom/cpus", "4-5");
    for (id, khz) in [(0, 5_000_000), (2, 5_000_000), (4, 3_700_000), (5, 3_700_000)] {
        tree.file(&format!("{CPU}/cpu{id}/cpufreq/cpuinfo_max_freq"), khz.to_string());
    }
    tree
}

/// A kernel without NUMA.
pub(crate) fn no_numa() -> Tree {
    Tree::new(&[(0, 0, 0), (1, 0, 1), (2, 0, 0), (3, 0, 1)])
}

/// The unpacked dump of a real machine, `dumps/NAME.tar.gz`.
pub(crate) fn dump(name: &str) -> TempDir {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/dumps/{name}.tar.gz"));
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(archive).unwrap()))
        .unpack(folder.path())
        .unwrap();
    folder
}

/// The names of all dumps.
pub(crate) fn dumps() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(".tar.gz")?.to_owned())).collect()
}
