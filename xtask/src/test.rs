//! `cargo xtask test`: all tests, with what they need.
//!
//! The order puts the large run last, so that its summary closes the output: documentation tests, the models of the
//! turn engine, the tests of the feature `hwloc` where its libraries are, then everything else.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use quark_servers::{Server, StartError};

use crate::{host, images, proofs, setup, shell};

/// Tests with this in their name need a Vulkan driver.
const WGPU_MARK: &str = "wgpu_";
/// Tests with this in their name need a container engine, and the images of `cargo xtask images`.
const CONTAINER_MARK: &str = "container_";

/// What runs the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    /// cargo-nextest: each test in a process of its own, with time limits.
    Nextest,
    /// What every Rust has.
    Cargo,
}

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    setup::install_if_possible();
    let vulkan = host::has_vulkan();
    let hwloc = host::has_hwloc_headers();
    if !vulkan && is_ci(std::env::var("CI").ok().as_deref()) {
        bail!("no Vulkan driver is here, and CI must test the wgpu path; get one with: {}", setup::advice());
    }
    let needs = [
        (WGPU_MARK, vulkan, "a Vulkan driver", setup::advice()),
        (CONTAINER_MARK, images::make_if_possible(), "a container engine", "start Docker".into()),
    ];
    let missing: Vec<_> =
        needs.iter().filter(|(_, is_there, ..)| !is_there).map(|(mark, ..)| *mark).collect();
    let runner = runner(root);
    let runtime_dir = runtime_dir(root)?;
    let servers = servers();
    let with_env = |mut command: Command| {
        if let Some(folder) = &runtime_dir {
            command.env("XDG_RUNTIME_DIR", folder);
        }
        command.envs(servers.iter().map(|(variable, server)| (*variable, server.address())));
        command
    };

    shell::must(&mut with_env(shell::cargo(root, ["test", "--workspace", "--doc"])))?;
    proofs::loom(root, None)?;
    if hwloc {
        let scope = ["-p", "quark-devices", "--features", "hwloc"];
        shell::must(&mut with_env(main_run(root, runner, &scope, &missing)))?;
    }
    for (mark, _, what, advice) in needs.iter().filter(|(_, is_there, ..)| !is_there) {
        let names = marked_tests(root, runner, mark)?;
        eprintln!("\n!!! NOT RUN, for want of {what}: {} tests", names.len());
        for name in &names {
            eprintln!("!!!   {name}");
        }
        eprintln!("!!! To run them: {advice}");
    }
    if !hwloc {
        eprintln!("\n!!! NOT RUN, for want of libhwloc-dev, libudev-dev and pkg-config: the feature `hwloc`");
        eprintln!("!!! To run its tests: {}\n", setup::advice());
    }
    shell::must(&mut with_env(main_run(root, runner, &["--workspace"], &missing)))
}

/// The servers that tests share, by the variable that names each to them; those that the environment names already are
/// left to it. Without one, each test that needs it fails and says what to install.
fn servers() -> Vec<(&'static str, Server)> {
    type Start = fn(&[&str]) -> Result<Server, StartError>;
    let start: [(&str, Start); 2] = [
        (quark_servers::POSTGRES_VARIABLE, quark_servers::local::postgres),
        (quark_servers::REDIS_VARIABLE, quark_servers::local::redis),
    ];
    let mut servers = Vec::new();
    for (variable, start) in start.into_iter().filter(|(variable, _)| std::env::var_os(variable).is_none()) {
        match start(&[]) {
            Ok(server) => servers.push((variable, server)),
            Err(error) => eprintln!("xtask: {error}"),
        }
    }
    servers
}

/// CI systems set `CI=true`; some write 1.
fn is_ci(value: Option<&str>) -> bool {
    value.is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

fn runner(root: &Path) -> Runner {
    let found = shell::succeeds(&mut shell::cargo(root, ["nextest", "--version"]));
    if found { Runner::Nextest } else { Runner::Cargo }
}

fn main_run(root: &Path, runner: Runner, scope: &[&str], missing: &[&str]) -> Command {
    let mut command = match runner {
        Runner::Nextest => shell::cargo(root, ["nextest", "run"]),
        // Not the documentation tests: they have run.
        Runner::Cargo => shell::cargo(root, ["test", "--no-fail-fast", "--lib", "--bins", "--tests"]),
    };
    command.args(scope);
    if !missing.is_empty() {
        match runner {
            Runner::Nextest => {
                let marks: Vec<String> = missing.iter().map(|mark| format!("not test({mark})")).collect();
                command.args(["-E", &marks.join(" and ")]);
            }
            Runner::Cargo => {
                command.arg("--").args(missing.iter().flat_map(|mark| ["--skip", mark]));
            }
        }
    }
    command
}

/// The tests with this mark, by name.
fn marked_tests(root: &Path, runner: Runner, mark: &str) -> anyhow::Result<Vec<String>> {
    let mut list = match runner {
        Runner::Nextest => {
            let filter = format!("test({mark})");
            shell::cargo(root, ["nextest", "list", "--workspace", "--message-format", "json", "-E", &filter])
        }
        Runner::Cargo => {
            shell::cargo(root, ["test", "--workspace", "--lib", "--bins", "--tests", "--", "--list", mark])
        }
    };
    let output = shell::ask(&mut list)?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shell::shown(&list), String::from_utf8_lossy(&output.stderr).trim());
    }
    match runner {
        Runner::Nextest => names_in_nextest_json(&output.stdout),
        Runner::Cargo => Ok(names_in_libtest_list(&String::from_utf8_lossy(&output.stdout))),
    }
}

/// Matching tests of `nextest list --message-format json`, as "binary test".
fn names_in_nextest_json(json: &[u8]) -> anyhow::Result<Vec<String>> {
    let list: serde_json::Value = serde_json::from_slice(json).context("nextest's list is no JSON")?;
    let suites = list["rust-suites"].as_object().context("nextest's list has no rust-suites")?;
    let mut names = Vec::new();
    for (binary, suite) in suites {
        for (test, case) in suite["testcases"].as_object().into_iter().flatten() {
            if case["filter-match"]["status"] == "matches" {
                names.push(format!("{binary} {test}"));
            }
        }
    }
    names.sort();
    Ok(names)
}

fn names_in_libtest_list(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// A folder for `XDG_RUNTIME_DIR` if nobody set one: Mesa complains on stderr without it. It must belong to the
/// user alone (XDG base directory specification).
fn runtime_dir(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    if std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| !folder.is_empty()) {
        return Ok(None);
    }
    let folder = shell::target_dir(root)?.join("xdg-runtime");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(Some(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runner_leaves_out_the_tests_whose_need_is_missing() {
        let line = |runner, missing: &[&str]| {
            shell::shown(&main_run(Path::new("."), runner, &["--workspace"], missing))
        };
        assert!(line(Runner::Nextest, &[WGPU_MARK]).ends_with("-E 'not test(wgpu_)'"));
        assert!(line(Runner::Nextest, &["a", "b"]).ends_with("-E 'not test(a) and not test(b)'"));
        assert!(line(Runner::Cargo, &[WGPU_MARK]).ends_with("-- --skip wgpu_"));
        assert!(line(Runner::Nextest, &[]).ends_with("run --workspace"));
    }

    #[test]
    fn both_lists_are_read() {
        let json = br#"{"rust-suites": {"quark-devices": {"testcases": {
            "probe::wgpu_lists": {"ignored": false, "filter-match": {"status": "matches"}},
            "probe::other": {"ignored": false, "filter-match": {"status": "mismatch", "reason": "expression"}}}}}}"#;
        assert_eq!(names_in_nextest_json(json).unwrap(), ["quark-devices probe::wgpu_lists"]);
        assert!(names_in_nextest_json(b"{}").is_err());
        let text = "probe::wgpu_lists: test\n\n1 test, 0 benchmarks\n";
        assert_eq!(names_in_libtest_list(text), ["probe::wgpu_lists"]);
    }

    #[test]
    fn ci_is_what_says_so() {
        assert!(is_ci(Some("true")) && is_ci(Some("1")));
        assert!(!is_ci(Some("false")) && !is_ci(Some("")) && !is_ci(None));
    }
}
