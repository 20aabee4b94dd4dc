//! A capture, unpacked and read again, is the same machine.

mod common;

use common::Tree;
use flate2::read::GzDecoder;
use quark_devices::{
    capture::{CaptureError, capture, capture_tree},
    inventory::Inventory,
    probe::{ProbeOptions, probe},
};
use std::{fs::File, path::Path};

fn unpack(archive: &Path, into: &Path) {
    tar::Archive::new(GzDecoder::new(File::open(archive).unwrap())).unpack(into).unwrap();
}

fn read(dir: &Path) -> Inventory {
    probe(&ProbeOptions::default().root(dir)).unwrap()
}

#[test]
fn this_machine_survives_the_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("this.tar.gz");
    let captured = capture(&archive).unwrap();
    assert!(captured.files > 5, "{captured:?}");
    let tree = folder.path().join("tree");
    unpack(&archive, &tree);
    assert_eq!(read(&tree), captured.inventory);
}

#[test]
fn odd_trees_survive_the_round_trip_too() {
    let limited = common::two_sockets();
    limited.file("proc/self/cgroup", "0::/a/b/c");
    limited.file("sys/fs/cgroup/cgroup.controllers", "cpu");
    limited.file("sys/fs/cgroup/a/cpu.max", "50000 100000");
    // The innermost group has no file that is read: its directory alone says where to start climbing.
    limited.file("sys/fs/cgroup/a/b/c/cgroup.procs", "1");
    limited.pci("0000:3b:00.0", "0x030200", "0x10de", "0x2330", 1);
    limited.link("sys/bus/pci/devices/0000:3b:00.0/driver", "../../../../bus/pci/drivers/nvidia");
    let no_list = common::sparse();
    std::fs::remove_file(no_list.path().join("sys/devices/system/cpu/online")).unwrap();
    let trees = [
        common::two_sockets(),
        common::uneven_nodes(),
        common::offline(),
        common::hybrid(),
        common::no_numa(),
        Tree::bare(),
        limited,
        no_list,
    ];
    for tree in trees {
        let folder = tempfile::tempdir().unwrap();
        let (archive, again) = (folder.path().join("a.tar.gz"), folder.path().join("tree"));
        let captured = capture_tree(tree.path(), &archive).unwrap();
        unpack(&archive, &again);
        // A tree of nothing gives an empty archive, in which no folder stands.
        std::fs::create_dir_all(again.join("sys")).unwrap();
        assert_eq!(captured.inventory, read(tree.path()));
        assert_eq!(read(&again), captured.inventory);
    }
}

#[test]
fn equal_machines_give_equal_archives() {
    let tree = common::hybrid();
    let folder = tempfile::tempdir().unwrap();
    let archives = ["one", "two"].map(|name| folder.path().join(name));
    for archive in &archives {
        capture_tree(tree.path(), archive).unwrap();
    }
    assert_eq!(std::fs::read(&archives[0]).unwrap(), std::fs::read(&archives[1]).unwrap());
}

#[test]
fn a_place_that_cannot_be_written_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("no-such-folder/a.tar.gz");
    assert!(matches!(capture(&archive), Err(CaptureError::Write { .. })));
    // The target is a folder: the rename fails after the writing, and nothing half-done stays.
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(matches!(capture(&taken), Err(CaptureError::Write { .. })));
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["taken"]);
}
