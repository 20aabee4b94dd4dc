//! `cargo xtask gpu-check`: one binary to carry to a machine with an NVIDIA GPU, and a home for what it says.
//!
//! The binary is the release build of `quark`; its subcommand `gpu-check` runs the inventory, the CUDA and wgpu
//! tests, the demo and the cold and warm figures. Where a driver is present it runs here; a binary that was
//! carried elsewhere writes to a file, which `--store` takes in.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{host, shell};

/// Reports of one day and device that are kept apart.
const MAX_REPORTS_A_DAY: u32 = 99;

/// Bytes of a device's name that go into a file name.
const MAX_SLUG_BYTES: usize = 48;

#[derive(Args, Debug, Default)]
pub(crate) struct GpuCheckArgs {
    /// Run it here even if no NVIDIA driver was found
    #[arg(long, conflicts_with_all = ["no_run", "store"])]
    run: bool,
    /// Only build, even if an NVIDIA driver is here
    #[arg(long)]
    no_run: bool,
    /// Build nothing, and store this output of `quark gpu-check` from another machine
    #[arg(long, value_name = "FILE", requires = "device")]
    store: Option<PathBuf>,
    /// The name of the device that `--store` is about, such as "NVIDIA H200"
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

pub(crate) fn run(root: &Path, args: &GpuCheckArgs) -> anyhow::Result<()> {
    if let (Some(file), Some(device)) = (&args.store, &args.device) {
        let output =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        if output.trim().is_empty() {
            bail!(
                "{} is empty; write it with `./quark gpu-check > {0}` on the other machine",
                file.display()
            );
        }
        return store(root, device, &output);
    }
    let binary = build(root)?;
    let shown = binary.strip_prefix(root).unwrap_or(&binary).display().to_string();
    if args.no_run || !(args.run || host::has_nvidia_driver()) {
        println!(
            "{shown} is ready: copy it to a machine with an NVIDIA GPU, run `./quark gpu-check > gpu-check.txt` \
             there, and store the result with `cargo xtask gpu-check --store gpu-check.txt --device \"NVIDIA …\"`"
        );
        return Ok(());
    }
    let device = device_name(&binary)?;
    let output = run_and_show(Command::new(&binary).arg("gpu-check").current_dir(root))?;
    store(root, &device, &output)
}

fn build(root: &Path) -> anyhow::Result<PathBuf> {
    shell::must(&mut shell::cargo(root, ["build", "--release", "-p", "quark-cli", "--bin", "quark"]))?;
    let target = shell::target_dir(root)?;
    let folder = target.join("gpu-check");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (from, to) = (target.join("release/quark"), folder.join("quark"));
    std::fs::copy(&from, &to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(to)
}

/// The first GPU's name, as the binary's own inventory tells it.
fn device_name(binary: &Path) -> anyhow::Result<String> {
    let output = shell::ask(Command::new(binary).args(["inventory", "--json"]))?;
    if !output.status.success() {
        bail!("`quark inventory --json` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let inventory =
        serde_json::from_slice(&output.stdout).context("`quark inventory --json` gave no JSON")?;
    Ok(first_gpu(&inventory).unwrap_or("no GPU").to_owned())
}

fn first_gpu(inventory: &serde_json::Value) -> Option<&str> {
    let devices = inventory["devices"].as_array()?;
    let gpu =
        devices.iter().find(|device| device["kind"].as_str().is_some_and(|kind| kind.ends_with("gpu")))?;
    gpu["name"].as_str()
}

/// Runs the command, shows each line as it comes, and hands back all of them.
fn run_and_show(command: &mut Command) -> anyhow::Result<String> {
    let line = shell::shown(command);
    eprintln!("$ {line}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    let mut output = String::new();
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).lines() {
            let text = text.with_context(|| format!("reading what `{line}` says"))?;
            println!("{text}");
            output.push_str(&text);
            output.push('\n');
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{line}` failed ({status}); nothing was stored");
    }
    Ok(output)
}

fn store(root: &Path, device: &str, output: &str) -> anyhow::Result<()> {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let folder = root.join("docs/measurements");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = free_name(&folder, &date, device)?;
    std::fs::write(&path, report(&date, device, output))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("stored in {}", path.strip_prefix(root).unwrap_or(&path).display());
    Ok(())
}

fn report(date: &str, device: &str, output: &str) -> String {
    // A fence longer than any in the output keeps the output whole.
    let longest =
        output.lines().map(|line| line.chars().take_while(|c| *c == '`').count()).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let output = output.trim_end();
    format!("# {device}, {date}\n\nWhat `quark gpu-check` said there.\n\n{fence}text\n{output}\n{fence}\n")
}

fn free_name(folder: &Path, date: &str, device: &str) -> anyhow::Result<PathBuf> {
    let stem = format!("{date}-{}", slug(device));
    let names = std::iter::once(format!("{stem}.md"))
        .chain((2..=MAX_REPORTS_A_DAY).map(|n| format!("{stem}-{n}.md")));
    let free = names.map(|name| folder.join(name)).find(|path| !path.exists());
    free.with_context(|| format!("{} has {MAX_REPORTS_A_DAY} reports of {stem} already", folder.display()))
}

/// A name fit for a file: "NVIDIA H100 80GB HBM3" becomes "nvidia-h100-80gb-hbm3".
fn slug(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug = words.collect::<Vec<_>>().join("-");
    slug.truncate(MAX_SLUG_BYTES);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "device".into() } else { slug.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names() {
        assert_eq!(slug("NVIDIA H100 80GB HBM3"), "nvidia-h100-80gb-hbm3");
        assert_eq!(slug("../../etc"), "etc");
        assert_eq!(slug("…"), "device");
        assert!(slug(&"long ".repeat(90)).len() <= MAX_SLUG_BYTES);
    }

    #[test]
    fn a_second_report_of_a_day_does_not_overwrite_the_first() {
        let root = tempfile::tempdir().unwrap();
        store(root.path(), "NVIDIA L4", "one").unwrap();
        store(root.path(), "NVIDIA L4", "two").unwrap();
        let mut texts: Vec<String> = std::fs::read_dir(root.path().join("docs/measurements"))
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        texts.sort();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].starts_with("# NVIDIA L4, 20") && texts[0].contains("\none\n"));
        assert!(texts[1].contains("\ntwo\n"));
    }

    #[test]
    fn a_fence_in_the_output_stays_inside() {
        let text = report("2026-01-02", "x", "```json\n{}\n```\n");
        assert!(text.contains("\n````text\n```json\n{}\n```\n````\n"), "{text}");
    }

    #[test]
    fn the_first_gpu_of_an_inventory_names_the_report() {
        let inventory = serde_json::json!({"devices": [
            {"kind": "software_adapter", "name": "llvmpipe"}, {"kind": "gpu", "name": "NVIDIA L4"}]});
        assert_eq!(first_gpu(&inventory), Some("NVIDIA L4"));
        assert_eq!(first_gpu(&serde_json::json!({})), None);
    }

    #[test]
    fn an_empty_output_is_not_stored() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("out.txt");
        std::fs::write(&file, "\n").unwrap();
        let args = GpuCheckArgs { store: Some(file), device: Some("x".into()), ..GpuCheckArgs::default() };
        assert!(run(root.path(), &args).is_err());
        assert!(!root.path().join("docs").exists());
    }

    #[test]
    fn a_failing_check_is_an_error() {
        let ok = run_and_show(Command::new("sh").args(["-c", "echo fine"])).unwrap();
        assert_eq!(ok, "fine\n");
        assert!(run_and_show(Command::new("sh").args(["-c", "echo broken; exit 3"])).is_err());
    }
}
