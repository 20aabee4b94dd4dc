//! Odd machines, each as the small tree its kernel would show: nothing may panic, fail or be made up.

mod common;

use common::Tree;
use quark_base::ByteSize;
use quark_devices::{
    inventory::{CoreKindName, CpuVendor, DeviceKind, Inventory, IsaFeature, NoteKind, Source, Vendor},
    probe::{ProbeOptions, probe},
};

fn read(tree: &Tree) -> Inventory {
    probe(&ProbeOptions::default().root(tree.path())).unwrap()
}

fn has_note(inventory: &Inventory, kind: NoteKind, part: &str) -> bool {
    inventory.notes.iter().any(|note| note.kind == kind && note.text.contains(part))
}

#[test]
fn an_ordinary_server_needs_no_note() {
    let machine = read(&common::two_sockets());
    assert_eq!((machine.cpu.sockets, machine.cpu.cores, machine.cpu.threads), (2, 4, 8));
    assert_eq!(machine.cpu.vendor, CpuVendor::Intel);
    assert!(machine.cpu.has(IsaFeature::Avx2) && !machine.cpu.has(IsaFeature::Avx512F));
    let caches: Vec<_> =
        machine.cpu.caches.iter().map(|cache| (cache.label(), cache.count, cache.shared_by)).collect();
    let expected = [("L1d", 4, 2), ("L1i", 4, 2), ("L2", 4, 2), ("L3", 2, 4)];
    assert_eq!(caches, expected.map(|(name, count, shared)| (name.to_owned(), count, shared)));
    assert_eq!(machine.numa[1].cpus.to_string(), "2-3,6-7");
    assert_eq!(machine.numa[1].distances, [21, 10]);
    assert_eq!(machine.cpu.logical[6].node, Some(1));
    assert_eq!((machine.memory.total, machine.memory.numa_total), (ByteSize::gib(64), ByteSize::gib(64)));
    assert!(!machine.simulated);
    assert_eq!(machine.notes, []);
}

#[test]
fn nodes_without_memory_or_without_cpus() {
    let machine = read(&common::uneven_nodes());
    let nodes: Vec<_> = machine.numa.iter().map(|node| (node.id, node.cpus.len(), node.memory)).collect();
    assert_eq!(nodes, [(0, 2, ByteSize::gib(48)), (1, 2, ByteSize::ZERO), (2, 0, ByteSize::gib(16))]);
    assert_eq!(machine.cpu.logical[3].node, Some(1));
    assert_eq!(machine.notes, []);
    let text = quark_devices::render::table(&machine);
    assert!(text.contains("none"), "{text}");
}

#[test]
fn numbers_with_gaps() {
    let machine = read(&common::sparse());
    assert_eq!((machine.cpu.sockets, machine.cpu.cores, machine.cpu.threads), (2, 4, 4));
    assert_eq!(machine.cpu.online.to_string(), "0,8,64,72");
    assert_eq!(machine.numa.iter().map(|node| node.id).collect::<Vec<_>>(), [0, 8]);
    assert_eq!(machine.node(8).unwrap().cpus.to_string(), "64,72");
    assert_eq!(machine.node(1), None);
    assert_eq!(
        machine.cpu.logical.last().map(|cpu| (cpu.id, cpu.socket, cpu.core, cpu.node)),
        Some((72, 16, 3, Some(8)))
    );
    assert_eq!(machine.notes, []);
}

#[test]
fn offline_cpus_are_named_and_not_counted() {
    let machine = read(&common::offline());
    assert_eq!((machine.cpu.cores, machine.cpu.threads), (2, 2));
    assert_eq!(
        (machine.cpu.online.to_string(), machine.cpu.offline.to_string()),
        ("0-1".into(), "2-3".into())
    );
    assert_eq!(machine.cpu.logical.len(), 2);
    assert_eq!(machine.notes, []);
}

#[test]
fn hybrid_cores_have_two_kinds() {
    let machine = read(&common::hybrid());
    assert_eq!((machine.cpu.cores, machine.cpu.threads), (4, 6));
    let kinds: Vec<_> =
        machine.cpu.core_kinds.iter().map(|kind| (kind.name, kind.cpus.to_string(), kind.max_mhz)).collect();
    assert_eq!(
        kinds,
        [
            (CoreKindName::Performance, "0-3".to_owned(), Some(5000)),
            (CoreKindName::Efficiency, "4-5".to_owned(), Some(3700))
        ]
    );
}

#[test]
fn big_little_cores_are_told_apart_by_capacity() {
    let tree = Tree::new(&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)]);
    let core = |id: u32, part: &str| {
        format!(
            "processor\t: {id}\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\n\n"
        )
    };
    tree.file("proc/cpuinfo", core(0, "0xd05") + &core(1, "0xd05") + &core(2, "0xd0b") + &core(3, "0xd0b"));
    for (id, capacity) in [(0, "446"), (1, "446"), (2, "1024"), (3, "1024")] {
        tree.file(&format!("sys/devices/system/cpu/cpu{id}/cpu_capacity"), capacity);
    }
    let machine = read(&tree);
    assert_eq!((machine.cpu.architecture.as_str(), machine.cpu.vendor.clone()), ("aarch64", CpuVendor::Arm));
    let kinds: Vec<_> = machine.cpu.core_kinds.iter().map(|kind| kind.cpus.to_string()).collect();
    assert_eq!(kinds, ["2-3", "0-1"]);
    assert!(machine.cpu.has(IsaFeature::Neon));
}

#[test]
fn cgroup_v2_limits_are_the_tightest_of_all_levels() {
    let tree = common::two_sockets();
    let group = "sys/fs/cgroup";
    tree.file("proc/self/cgroup", "0::/kubepods/pod1/box");
    tree.file(&format!("{group}/cgroup.controllers"), "cpu memory cpuset");
    tree.file(&format!("{group}/kubepods/cpu.max"), "max 100000");
    tree.file(&format!("{group}/kubepods/memory.max"), (8u64 << 30).to_string());
    tree.file(&format!("{group}/kubepods/pod1/cpu.max"), "150000 100000");
    tree.file(&format!("{group}/kubepods/pod1/memory.max"), "max");
    tree.file(&format!("{group}/kubepods/pod1/box/cpu.max"), "400000 100000");
    tree.file(&format!("{group}/kubepods/pod1/box/cpuset.cpus.effective"), "2-3");
    let machine = read(&tree);
    assert_eq!(machine.cpu.quota, Some(1.5));
    assert_eq!((machine.cpu.allowed.to_string(), machine.cpu.usable()), ("2-3".into(), 2));
    assert_eq!((machine.memory.limit, machine.memory.usable()), (Some(ByteSize::gib(8)), ByteSize::gib(8)));
    assert_eq!(machine.memory.total, ByteSize::gib(64));
    assert!(has_note(&machine, NoteKind::Limit, "8 GiB"));
}

#[test]
fn cgroup_v1_limits_and_its_word_for_no_limit() {
    let tree = common::two_sockets();
    let group = "sys/fs/cgroup";
    tree.file(
        "proc/self/cgroup",
        "4:cpuset:/docker/x\n3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n1:name=systemd:/",
    );
    tree.file(&format!("{group}/cpu,cpuacct/docker/x/cpu.cfs_quota_us"), "50000");
    tree.file(&format!("{group}/cpu,cpuacct/docker/x/cpu.cfs_period_us"), "100000");
    tree.file(&format!("{group}/cpu,cpuacct/cpu.cfs_quota_us"), "-1");
    tree.file(&format!("{group}/memory/docker/x/memory.limit_in_bytes"), (1u64 << 30).to_string());
    tree.file(&format!("{group}/memory/memory.limit_in_bytes"), "9223372036854771712");
    tree.file(&format!("{group}/cpuset/docker/x/cpuset.cpus"), "0-1,4-5");
    let machine = read(&tree);
    assert_eq!((machine.cpu.quota, machine.cpu.usable()), (Some(0.5), 1));
    assert_eq!(machine.cpu.allowed.to_string(), "0-1,4-5");
    assert_eq!(machine.memory.limit, Some(ByteSize::gib(1)));
}

#[test]
fn a_container_that_sees_the_hosts_cgroup_path_uses_the_mount() {
    let tree = common::two_sockets();
    tree.file("proc/self/cgroup", "2:memory:/docker/not-visible-here\n0::/../../outside");
    tree.file("sys/fs/cgroup/memory/memory.limit_in_bytes", (2u64 << 30).to_string());
    tree.file("sys/fs/cgroup/unified/cgroup.controllers", "");
    assert_eq!(read(&tree).memory.limit, Some(ByteSize::gib(2)));
}

#[test]
fn affinity_narrows_what_may_be_used() {
    let tree = common::two_sockets();
    tree.file("proc/self/status", "Name:\tquark\nCpus_allowed_list:\t0,4\n");
    let machine = read(&tree);
    assert_eq!(
        (machine.cpu.allowed.to_string(), machine.cpu.usable(), machine.cpu.threads),
        ("0,4".into(), 2, 8)
    );
}

#[test]
fn no_numa_directory_is_one_node_with_everything() {
    let machine = read(&common::no_numa());
    assert_eq!(machine.numa.len(), 1);
    assert_eq!((machine.numa[0].id, machine.numa[0].cpus.to_string()), (0, "0-3".into()));
    assert_eq!(machine.numa[0].memory, ByteSize::gib(64));
    assert!(has_note(&machine, NoteKind::Missing, "one node"));
}

#[test]
fn nodes_that_are_a_gpus_memory_are_no_host_memory() {
    let tree = Tree::new(&[(0, 0, 0), (8, 1, 0)]);
    tree.nodes(&[
        (0, &[0], 32_768, &[10, 40, 80]),
        (8, &[8], 32_768, &[40, 10, 80]),
        (255, &[], 16_384, &[80, 80, 10]),
    ]);
    tree.file("proc/driver/nvidia/gpus/0004:04:00.0/numa_status", "Node:      255\nStatus:    online");
    let machine = read(&tree);
    let nodes: Vec<_> = machine.numa.iter().map(|node| (node.id, node.distances.clone())).collect();
    assert_eq!(nodes, [(0, vec![10, 40]), (8, vec![40, 10])]);
    assert_eq!(machine.memory.numa_total, ByteSize::gib(64));
    assert!(has_note(&machine, NoteKind::Limit, "255"));
}

#[test]
fn a_cpu_that_two_nodes_claim_counts_once() {
    let tree = Tree::new(&[(0, 0, 0), (1, 0, 1), (2, 0, 2)]);
    tree.nodes(&[(0, &[0, 1, 2], 32_768, &[10, 20]), (1, &[2], 32_768, &[20, 10])]);
    let machine = read(&tree);
    let cpus: Vec<_> = machine.numa.iter().map(|node| node.cpus.to_string()).collect();
    assert_eq!(cpus, ["0-1", "2"]);
    assert_eq!(machine.cpu.logical[2].node, Some(1));
    assert!(has_note(&machine, NoteKind::Broken, "CPUs 2 are on several"));
}

#[test]
fn sockets_that_the_kernel_does_not_number_are_told_apart_by_their_cpus() {
    let tree = Tree::new(&[(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]);
    for id in 0..4 {
        tree.file(&format!("sys/devices/system/cpu/cpu{id}/topology/physical_package_id"), "-1");
    }
    let machine = read(&tree);
    assert_eq!((machine.cpu.sockets, machine.cpu.cores), (2, 4));
    assert_eq!(machine.cpu.logical.iter().map(|cpu| cpu.socket).collect::<Vec<_>>(), [0, 0, 1, 1]);
}

#[test]
fn nodes_that_claim_less_than_the_machine_has_are_noted() {
    let tree = Tree::new(&[(0, 0, 0)]);
    tree.nodes(&[(0, &[0], 8_700, &[10])]);
    let machine = read(&tree);
    assert_eq!((machine.memory.total, machine.memory.numa_total), (ByteSize::gib(64), ByteSize::mib(8_700)));
    assert!(has_note(&machine, NoteKind::Discrepancy, "NUMA nodes claim"));
}

#[test]
fn an_empty_tree_is_a_machine_of_which_nothing_is_known() {
    let machine = read(&Tree::bare());
    assert_eq!((machine.cpu.threads, machine.numa.len(), machine.devices.len()), (1, 1, 0));
    assert_eq!(machine.memory.total, ByteSize::ZERO);
    assert_eq!(machine.host.name, "");
    // Nothing of the machine that runs this test may show.
    assert_eq!((machine.cpu.architecture.as_str(), machine.cpu.model.as_str()), ("", ""));
    assert!(has_note(&machine, NoteKind::Broken, "one is assumed"));
}

#[test]
fn without_sysfs_cpuinfo_stands_in() {
    let tree = Tree::bare();
    let cpu = |id: u32, socket: u32, core: u32| {
        format!("processor : {id}\nphysical id : {socket}\ncore id : {core}\nflags : lm\n\n")
    };
    tree.file("proc/cpuinfo", cpu(0, 0, 0) + &cpu(1, 0, 0) + &cpu(2, 1, 0) + &cpu(3, 1, 0));
    let machine = read(&tree);
    assert_eq!((machine.cpu.sockets, machine.cpu.cores, machine.cpu.threads), (2, 2, 4));
}

#[test]
fn garbage_is_noted_and_never_believed() {
    let tree = common::two_sockets();
    tree.file("sys/devices/system/cpu/online", "0-4294967295");
    tree.file("sys/devices/system/cpu/cpu0/topology/physical_package_id", "many");
    tree.file("sys/devices/system/cpu/cpu0/topology/core_cpus", "not,a,mask!");
    tree.file("sys/devices/system/cpu/cpu1/cache/index0/size", "huge");
    tree.file("sys/devices/system/cpu/cpu1/cache/index1/type", "Quantum");
    tree.file("sys/devices/system/cpu/cpu1/cache/index2/level", "-2");
    tree.file("sys/devices/system/node/node0/distance", "ten twenty");
    tree.file("sys/devices/system/node/node1/distance", "10 21 99");
    tree.file("sys/devices/system/node/node1/cpumap", b"\xff\xfe\x00\x01");
    tree.file("sys/fs/cgroup/cgroup.controllers", "cpu");
    tree.file("sys/fs/cgroup/cpu.max", "lots of it");
    tree.file("proc/meminfo", "MemTotal: plenty kB\n");
    tree.pci("0000:zz:00.0", "0x030000", "0x10de", "0x2330", 0);
    tree.pci("0000:3b:00.0", "0x030200", "ten-de", "0x2330", 0);
    let machine = read(&tree);
    assert_eq!(machine.cpu.threads, 8, "the directories still say which CPUs there are");
    assert!(machine.numa.iter().all(|node| node.distances.is_empty()));
    for part in [
        "cpu/online",
        "physical_package_id",
        "core_cpus",
        "index0/size",
        "index1/type",
        "index2/level",
        "node0/distance",
        "3 distances for 2 nodes",
        "node1/cpumap",
        "cpu.max",
        "MemTotal",
        "zz:00.0",
        "3b:00.0/vendor",
    ] {
        assert!(has_note(&machine, NoteKind::Broken, part), "{part} in {:#?}", machine.notes);
    }
    assert!(quark_devices::render::table(&machine).contains("Notes"));
}

#[test]
fn a_directory_where_a_file_should_be_is_noted() {
    let tree = common::two_sockets();
    std::fs::remove_file(tree.path().join("proc/cpuinfo")).unwrap();
    std::fs::create_dir(tree.path().join("proc/cpuinfo")).unwrap();
    let machine = read(&tree);
    assert_eq!(machine.cpu.threads, 8);
    assert!(
        machine.notes.iter().any(|note| note.source == Source::Procfs && note.text.contains("/proc/cpuinfo"))
    );
}

#[test]
fn gpus_without_their_libraries_are_known_with_their_node() {
    let tree = common::two_sockets();
    tree.pci("0000:3b:00.0", "0x030200", "0x10de", "0x2330", 0);
    tree.pci("0000:af:00.0", "0x038000", "0x1002", "0x740c", 1);
    tree.file("sys/bus/pci/devices/0000:af:00.0/mem_info_vram_total", (64u64 << 30).to_string());
    tree.pci("0000:00:02.0", "0x030000", "0x8086", "0xa7a0", -1);
    tree.pci("0000:02:00.0", "0x030000", "0x1a03", "0x2000", 0);
    tree.pci("0000:01:00.0", "0x020000", "0x8086", "0x1521", 0);
    tree.link("sys/bus/pci/devices/0000:3b:00.0/driver", "../../../../bus/pci/drivers/nvidia");
    tree.file(
        "proc/driver/nvidia/gpus/0000:3b:00.0/information",
        "Model: \t\t NVIDIA H100 PCIe\nIRQ:   \t\t 52\nGPU UUID: \t GPU-0a1b\nBus Location: \t 0000:3b:00.0\n",
    );
    tree.file(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
    );
    let machine = read(&tree);
    let seen: Vec<_> = machine.devices.iter().map(|d| (d.kind, d.vendor.clone(), d.numa_node)).collect();
    assert_eq!(
        seen,
        [
            (DeviceKind::Gpu, Vendor::Nvidia, Some(0)),
            (DeviceKind::Gpu, Vendor::Amd, Some(1)),
            (DeviceKind::IntegratedGpu, Vendor::Intel, None),
            (DeviceKind::Display, Vendor::Other("ASPEED".into()), Some(0)),
        ]
    );
    assert_eq!(machine.gpus().count(), 3);
    let card = &machine.devices[0];
    assert_eq!((card.name.as_str(), card.id.as_str()), ("NVIDIA H100 PCIe", "GPU-0a1b"));
    assert_eq!(card.driver.as_deref(), Some("nvidia 580.65.06"));
    assert_eq!(card.sources, [Source::Sysfs, Source::Procfs]);
    assert_eq!(machine.devices[1].vram, ByteSize::gib(64));
    assert_eq!(machine.devices[1].id.as_str(), "0000:af:00.0");
}

/// The files of a tree, relative to it.
fn files_of(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![tree.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(tree.path()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort_unstable();
    found
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 48, failure_persistence: None, ..Default::default() })]

    /// Whatever stands in a tree's files, there is an inventory with a CPU and a node, and a table of it.
    #[test]
    fn no_damage_to_a_tree_stops_the_probes(
        damage in proptest::collection::vec((0usize..1000, ".{0,30}|[0-9,-]{0,12}|-?[0-9]{1,25}"), 1..12),
        gone in 0usize..1000,
    ) {
        let tree = common::hybrid();
        tree.pci("0000:3b:00.0", "0x030200", "0x10de", "0x2330", 0);
        tree.file("proc/self/cgroup", "0::/a");
        tree.file("sys/fs/cgroup/cgroup.controllers", "cpu");
        tree.file("sys/fs/cgroup/a/cpu.max", "50000 100000");
        let files = files_of(&tree);
        for (at, content) in &damage {
            tree.file(&files[at % files.len()], content);
        }
        std::fs::remove_file(tree.path().join(&files[gone % files.len()])).unwrap();
        let machine = read(&tree);
        proptest::prop_assert!(machine.cpu.threads >= 1 && machine.cpu.cores >= 1 && machine.cpu.sockets >= 1);
        proptest::prop_assert!(machine.cpu.usable() >= 1 && !machine.numa.is_empty());
        proptest::prop_assert_eq!(machine.cpu.logical.len(), machine.cpu.online.len());
        proptest::prop_assert!(quark_devices::render::table(&machine).ends_with('\n'));
        let json = serde_json::to_string(&machine).unwrap();
        proptest::prop_assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), machine);
    }
}
