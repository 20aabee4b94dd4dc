//! What was acknowledged outlives SIGKILL.
//!
//! The `crash` program does the work; `cargo xtask crash-test` runs it longer, and against servers.

use std::process::Command;

#[test]
fn a_killed_process_has_lost_nothing_that_it_acknowledged_and_done_nothing_twice() {
    let mut crash = Command::new(env!("CARGO_BIN_EXE_crash"));
    let output = crash.args(["--store", "sqlite", "--kills", "6", "--actors", "50"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("6 kills, 50 actors") && said.contains("none lost, none twice"), "{said}");
}
