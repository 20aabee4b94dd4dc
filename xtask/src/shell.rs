//! Running other programs, and saying so.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

/// A cargo command in the workspace. Uses the cargo that runs us, so that a `+toolchain` carries over.
pub(crate) fn cargo<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(root: &Path, args: I) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root).args(args);
    command
}

/// Shows the command, runs it with our terminal, and fails if it does.
pub(crate) fn must(command: &mut Command) -> anyhow::Result<()> {
    let line = shown(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs the command in silence and hands back what it said.
pub(crate) fn ask(command: &mut Command) -> anyhow::Result<Output> {
    let line = shown(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))
}

/// Whether the command starts and succeeds; what it says is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let mut line = name.into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        let plain =
            !arg.is_empty() && arg.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c));
        line.push(' ');
        if plain {
            line.push_str(&arg);
        } else {
            line.push_str(&format!("'{}'", arg.replace('\'', "'\\''")));
        }
    }
    line
}

/// The folder that cargo builds into.
pub(crate) fn target_dir(root: &Path) -> anyhow::Result<PathBuf> {
    let output = ask(&mut cargo(root, ["metadata", "--no-deps", "--offline", "--format-version", "1"]))?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading cargo's metadata")?;
    Ok(metadata["target_directory"].as_str().context("cargo names no target directory")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("/opt/bin/cargo");
        command.args(["nextest", "run", "-E", "not test(/wgpu_/)"]);
        assert_eq!(shown(&command), "cargo nextest run -E 'not test(/wgpu_/)'");
    }

    #[test]
    fn a_failing_or_missing_program_is_an_error_that_names_it() {
        assert!(!succeeds(&mut Command::new("false")));
        let missing = must(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(format!("{missing:#}").contains("no-such-program-here"));
    }
}
