//! Dumps of real machines, from hwloc's own tests (`dumps/README.md`).

mod common;

use quark_base::ByteSize;
use quark_devices::{
    inventory::{Inventory, NoteKind, Vendor},
    probe::{ProbeOptions, probe},
};

fn read(name: &str) -> Inventory {
    let tree = common::dump(name);
    probe(&ProbeOptions::default().root(tree.path())).unwrap()
}

/// Sockets, cores, threads, NUMA nodes.
fn shape(machine: &Inventory) -> [usize; 4] {
    let cpu = &machine.cpu;
    [cpu.sockets as usize, cpu.cores as usize, cpu.threads as usize, machine.numa.len()]
}

#[test]
fn every_dump_has_the_shape_of_its_machine() {
    for (name, expected) in [
        ("16amd64-8n2c-cpusets", [8, 15, 15, 8]),
        ("16em64t-4s2c2t-offlines", [4, 7, 12, 1]),
        ("2arm-2c", [1, 2, 2, 1]),
        ("32amd64-4s2n4c-cgroup2", [4, 32, 32, 8]),
        ("48amd64-4d2n6c-sparse", [4, 48, 48, 8]),
        ("4ia64-4s", [4, 4, 4, 1]),
        ("8ia64-2s2c2t", [2, 4, 8, 1]),
        ("fakememinitiators-1np2c+1npp+gi", [2, 8, 8, 11]),
        ("nvidiagpunumanodes", [2, 8, 32, 2]),
        ("offline-cpu0-node0", [2, 17, 17, 1]),
    ] {
        let machine = read(name);
        assert_eq!(shape(&machine), expected, "{name}: {:#?}", machine.notes);
    }
}

#[test]
fn node_numbers_keep_their_gaps() {
    let machine = read("48amd64-4d2n6c-sparse");
    assert_eq!(machine.numa.iter().map(|node| node.id).collect::<Vec<_>>(), [0, 1, 2, 33, 34, 45, 72, 73]);
    assert_eq!(machine.node(73).unwrap().cpus.to_string(), "42-47");
    assert_eq!(machine.node(73).unwrap().distances, [22, 16, 16, 22, 22, 16, 16, 10]);
}

#[test]
fn the_memory_of_gpus_is_not_the_hosts() {
    let machine = read("nvidiagpunumanodes");
    assert_eq!(machine.numa.iter().map(|node| node.id).collect::<Vec<_>>(), [0, 8]);
    assert!(machine.memory.total < ByteSize::gib(252), "{}", machine.memory.total);
    assert!(machine.notes.iter().all(|note| note.kind != NoteKind::Discrepancy), "{:#?}", machine.notes);
    assert_eq!(machine.gpus().count(), 6);
    assert!(machine.gpus().all(|gpu| gpu.vendor == Vendor::Nvidia));
}

#[test]
fn memory_only_nodes_hold_no_cpus() {
    let machine = read("fakememinitiators-1np2c+1npp+gi");
    let without: Vec<u32> =
        machine.numa.iter().filter(|node| node.cpus.is_empty()).map(|node| node.id).collect();
    assert_eq!(without, [4, 5, 6, 7, 8, 9, 10]);
}
