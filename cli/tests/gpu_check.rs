//! `quark gpu-check` as a user runs it, with llvmpipe in the GPU's place.

use std::process::{Command, Output};

fn quark(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quark")).args(args).env_remove("XDG_RUNTIME_DIR").output().unwrap()
}

fn has_gpu() -> bool {
    let output = quark(&["inventory", "--json"]);
    let inventory: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut devices = inventory["devices"].as_array().unwrap().iter();
    devices.any(|device| device["kind"].as_str().unwrap().ends_with("gpu"))
}

#[test]
fn wgpu_llvmpipe_passes_every_check_but_that_of_figures() {
    let output = quark(&["gpu-check", "--software", "--no-demo"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    for part in ["## Inventory", "llvmpipe", "ok: 200 random inputs", "0 B left", "4 of 4 checks passed."] {
        assert!(report.contains(part), "{part} is missing in {report}");
    }
    assert!(!report.contains("FAILED"), "{report}");
}

#[test]
fn a_machine_without_a_gpu_is_told_so_in_one_line() {
    let output = quark(&["gpu-check", "--no-demo"]);
    let message = String::from_utf8(output.stderr).unwrap();
    if has_gpu() {
        assert!(String::from_utf8(output.stdout).unwrap().contains("## Network and ledger"));
        return;
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.starts_with("error: this machine has no GPU") && message.lines().count() == 1,
        "{message}"
    );
    assert!(output.stdout.is_empty());
}
