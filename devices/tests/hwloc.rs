//! The sysfs probe held against hwloc, on this machine and on captured trees.
//!
//! hwloc takes a captured tree only through its environment, so each tree is read by a process of its own:
//! this test binary, started again with `HWLOC_FSROOT` set and told to run [`child`].
#![cfg(feature = "hwloc")]

mod common;

use common::Tree;
use quark_devices::{
    inventory::{Inventory, Source},
    probe::{
        ProbeOptions,
        hwloc::{View, view},
        probe,
    },
};
use std::{path::Path, process::Command};

const ANSWER: &str = "QUARK_TEST_HWLOC_ANSWER";

#[test]
#[ignore = "the other tests start it, with its environment set"]
fn child() {
    let answer = std::env::var_os(ANSWER).expect("started by the other tests");
    std::fs::write(answer, serde_json::to_string(&view().unwrap()).unwrap()).unwrap();
}

fn hwloc_of(tree: &Path) -> View {
    let folder = tempfile::tempdir().unwrap();
    let answer = folder.path().join("answer.json");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(ANSWER, &answer)
        .env("HWLOC_FSROOT", tree)
        .env("HWLOC_THISSYSTEM", "0")
        .env("HWLOC_COMPONENTS", "linux,stop")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(&std::fs::read_to_string(answer).unwrap()).unwrap()
}

fn compare(what: &str, ours: &Inventory, theirs: &View) {
    assert_eq!(ours.cpu.sockets, theirs.sockets, "{what}: sockets");
    assert_eq!(ours.cpu.cores, theirs.cores, "{what}: cores");
    assert_eq!(ours.cpu.logical, theirs.logical, "{what}: places");
    assert_eq!(ours.cpu.caches, theirs.caches, "{what}: caches");
    let nodes: Vec<_> = ours
        .numa
        .iter()
        .map(|node| {
            // hwloc keeps no matrix for a single node.
            let distances = if ours.numa.len() > 1 { node.distances.clone() } else { Vec::new() };
            (node.id, node.cpus.clone(), node.memory, distances)
        })
        .collect();
    let theirs: Vec<_> = theirs
        .numa
        .iter()
        .map(|node| (node.id, node.cpus.clone(), node.memory, node.distances.clone()))
        .collect();
    assert_eq!(nodes, theirs, "{what}: NUMA nodes");
}

/// How often a machine may change while it is read; some hypervisors move memory in and out every few seconds.
const MAX_TRIES: usize = 20;

/// Reads the live machine by sysfs and by `other`, at a moment in which the nodes' memory stands still.
fn at_rest<T>(other: impl Fn() -> T) -> (Inventory, T) {
    let sysfs = || probe(&ProbeOptions::default().libraries(false)).unwrap();
    let memory = |machine: &Inventory| machine.numa.iter().map(|node| node.memory).collect::<Vec<_>>();
    for _ in 0..MAX_TRIES {
        let (before, answer, after) = (sysfs(), other(), sysfs());
        if memory(&before) == memory(&after) {
            return (after, answer);
        }
    }
    panic!("this machine's memory changed {MAX_TRIES} times while it was read");
}

#[test]
fn sysfs_and_hwloc_agree_about_this_machine() {
    let (ours, theirs) = at_rest(|| view().unwrap());
    compare("this machine", &ours, &theirs);
}

#[test]
fn sysfs_and_hwloc_agree_about_captured_trees() {
    type Make = fn() -> Tree;
    let trees: [(&str, Make); 6] = [
        ("two sockets", common::two_sockets),
        ("uneven nodes", common::uneven_nodes),
        ("sparse numbers", common::sparse),
        ("offline CPUs", common::offline),
        ("hybrid cores", common::hybrid),
        ("no NUMA", common::no_numa),
    ];
    for (what, make) in trees {
        let tree = make();
        let ours = probe(&ProbeOptions::default().root(tree.path())).unwrap();
        compare(what, &ours, &hwloc_of(tree.path()));
    }
}

#[test]
fn sysfs_and_hwloc_agree_about_dumps_of_real_machines() {
    let names = common::dumps();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let tree = common::dump(&name);
        let ours = probe(&ProbeOptions::default().root(tree.path())).unwrap();
        compare(&name, &ours, &hwloc_of(tree.path()));
    }
}

/// What hwloc reads otherwise than we do, and why that is right so.
const KNOWN_TO_DIFFER: [(&str, &str); 6] = [
    ("40intel64-4n10c+pci-conflicts", "hwloc drops the socket that an (invented) PCI locality cuts through"),
    (
        "64amd64-4s2n4ca2co",
        "the kernel calls the two halves of a Bulldozer module threads; hwloc knows the family",
    ),
    ("64intel64-fakeKNL-A2A-cache", "Knights Landing's memory-side cache is told by a file of hwloc's own"),
    ("64intel64-fakeKNL-SNC4-hybrid", "hwloc drops Knights Landing's distances"),
    ("8em64t-2s2ca2c-buggynuma", "eight nodes claim all CPUs: hwloc drops seven, we keep their memory"),
    ("fakeheterocpunuma", "(invented) nodes overlap: hwloc drops two, we keep their memory"),
];

/// Not part of the ordinary run: hwloc's source holds some 50 dumps. Unpack each file of its
/// `tests/hwloc/linux/` into a folder of its own, and name the folder above them.
#[test]
#[ignore = "needs hwloc's source: HWLOC_DUMPS=DIR cargo nextest run -p quark-devices --features hwloc --run-ignored all"]
fn sysfs_and_hwloc_agree_about_all_of_hwlocs_dumps() {
    let Some(folder) = std::env::var_os("HWLOC_DUMPS") else {
        panic!("set HWLOC_DUMPS to the folder of the unpacked dumps");
    };
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let place = entry.unwrap().path();
        let tree = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
        let what = place.file_name().unwrap().to_string_lossy().into_owned();
        let ours = probe(&ProbeOptions::default().root(&tree)).unwrap();
        let theirs = hwloc_of(&tree);
        let agree = std::panic::catch_unwind(|| compare(&what, &ours, &theirs)).is_ok();
        if agree == KNOWN_TO_DIFFER.iter().any(|(name, _)| *name == what) {
            wrong.push(what);
        }
    }
    assert!(wrong.is_empty(), "these differ, or are known to differ and don't: {wrong:?}");
}

#[test]
fn hwloc_reads_our_own_capture() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("a.tar.gz");
    let captured = quark_devices::capture::capture(&archive).unwrap();
    let tree = folder.path().join("tree");
    let file = std::fs::File::open(&archive).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(&tree).unwrap();
    compare("the capture", &captured.inventory, &hwloc_of(&tree));
}

#[test]
fn with_the_feature_hwloc_leads_and_nothing_is_lost() {
    let (sysfs, (hwloc, whole)) = at_rest(|| (view().unwrap(), probe(&ProbeOptions::default()).unwrap()));
    assert_eq!(whole.cpu.logical, hwloc.logical);
    assert_eq!(whole.cpu.caches, hwloc.caches);
    assert_eq!(whole.numa.len(), hwloc.numa.len());
    // The two agree here (see above), so nothing is to be said.
    assert!(whole.notes.iter().all(|note| note.source != Source::Hwloc), "{:#?}", whole.notes);
    assert_eq!(whole.numa[0].distances, sysfs.numa[0].distances);
}
