//! `quark inventory` as a user runs it.

use serde_json::Value;
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn quark(args: &[&str]) -> Output {
    // As in a container: Mesa complains on stderr then, which must not reach the user.
    Command::new(env!("CARGO_BIN_EXE_quark")).args(args).env_remove("XDG_RUNTIME_DIR").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../devices/topologies").join(name)
}

/// One line on stderr that starts with "error: ", nothing on stdout, exit code 1.
fn assert_one_line_error(output: &Output, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
    assert_eq!(text(&output.stdout), "");
    for part in parts {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
}

#[test]
fn this_machine_as_a_table_and_as_json() {
    let table = quark(&["inventory"]);
    assert!(table.status.success());
    assert_eq!(text(&table.stderr), "");
    for part in ["host", "cpu", "memory", "numa", "gpus"] {
        assert!(text(&table.stdout).contains(part), "{part}");
    }
    let value = json(&quark(&["inventory", "--json"]));
    assert_eq!(value["simulated"], false);
    assert!(value["cpu"]["threads"].as_u64().unwrap() >= 1);
    assert!(!value["numa"].as_array().unwrap().is_empty());
}

#[test]
fn a_topology_is_shown_and_named_as_simulated() {
    let file = shipped("h100x8.toml");
    let table = text(&quark(&["inventory", "--topology", file.to_str().unwrap()]).stdout);
    assert!(table.contains("h100x8 (simulated)") && table.contains("8 × NVIDIA H100"), "{table}");
    let value = json(&quark(&["inventory", "--json", "--topology", file.to_str().unwrap()]));
    assert_eq!(value["simulated"], true);
    assert_eq!(value["devices"].as_array().unwrap().len(), 8);
    assert!(value["devices"].as_array().unwrap().iter().all(|device| device["simulated"] == true));
}

#[test]
fn a_bad_topology_is_one_line_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    fs::write(&file, "name = \"x\"\n[cpu]\nvendor = \n").unwrap();
    let path = file.to_str().unwrap();
    assert_one_line_error(&quark(&["inventory", "--topology", path]), &["bad.toml:3: "]);
    assert_one_line_error(
        &quark(&["inventory", "--topology", "/no/such.toml"]),
        &["/no/such.toml", "devices/topologies/"],
    );
}

#[test]
fn a_bad_root_says_what_a_root_is() {
    let empty = tempfile::tempdir().unwrap();
    assert_one_line_error(&quark(&["inventory", "--root", empty.path().to_str().unwrap()]), &["tar xzf"]);
    assert_one_line_error(
        &quark(&["inventory", "--root", "/no/such/dir"]),
        &["/no/such/dir", "sys/ and proc/"],
    );
}

#[test]
fn a_capture_reads_back_as_the_same_machine() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("machine.tar.gz");
    let captured = json(&quark(&["inventory", "--json", "--capture", archive.to_str().unwrap()]));
    let tree = folder.path().join("tree");
    tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&archive).unwrap())).unpack(&tree).unwrap();
    let again = json(&quark(&["inventory", "--json", "--root", tree.to_str().unwrap()]));
    assert_eq!(again, captured);
}

#[test]
fn a_capture_that_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("no/such/folder.tar.gz");
    assert_one_line_error(
        &quark(&["inventory", "--capture", archive.to_str().unwrap()]),
        &["cannot write the capture"],
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn watch_gives_one_json_object_a_line() {
    let output = quark(&["inventory", "--watch", "--json", "--interval", "100ms", "--samples", "2"]);
    assert!(output.status.success(), "{output:?}");
    let lines = text(&output.stdout);
    let samples: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(samples.len(), 2);
    assert!(samples.iter().all(|sample| sample.get("devices").is_some()));
    let table = quark(&["inventory", "--watch", "--interval", "100ms", "--samples", "1"]);
    assert!(text(&table.stdout).contains("CPU"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &["frobnicate"][..],
        &["inventory", "--frobnicate"],
        &["inventory", "--interval", "1s"],
        &["inventory", "--watch", "--interval", "soon"],
        &["inventory", "--watch", "--interval", "1ms"],
        &["inventory", "--watch", "--interval", "1000000h"],
        &["inventory", "--watch", "--samples", "0"],
        &["inventory", "--topology", "a", "--root", "b"],
        &[],
    ] {
        let output = quark(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains("help"), "{args:?}: {output:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quark"))
        .args(["inventory", "--watch", "--json", "--interval", "100ms", "--samples", "50"])
        .env_remove("XDG_RUNTIME_DIR")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0u8; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    // The pipe is closed here; the next sample finds nobody.
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}
