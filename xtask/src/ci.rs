//! `cargo xtask ci`: what a change must pass. The quick steps come first.

use std::path::Path;

use anyhow::bail;

use crate::{shell, test, tidy};

/// Packages that must not be in the build, and why.
const BANNED: [(&str, &str); 2] = [
    ("aws-lc-rs", "it needs cmake and a second rustls provider makes TLS panic at run time; use ring"),
    ("openssl-sys", "it needs the system's headers; use rustls with ring"),
];

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    shell::must(&mut shell::cargo(root, ["fmt", "--all", "--check"]))?;
    tidy::run(root)?;
    for (package, why) in BANNED {
        not_in_tree(root, package, why)?;
    }
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    shell::must(&mut shell::cargo(root, clippy))?;
    // The comparison's peers are no part of the workspace's default build.
    let peers =
        ["clippy", "-p", "quark-bench", "--all-targets", "--features", "peers", "--", "-D", "warnings"];
    shell::must(&mut shell::cargo(root, peers))?;
    let mut doc = shell::cargo(root, ["doc", "--workspace", "--no-deps"]);
    shell::must(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    if shell::succeeds(&mut shell::cargo(root, ["deny", "--version"])) {
        shell::must(&mut shell::cargo(root, ["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        eprintln!("!!! NOT RUN: cargo deny (licences, sources); get it with `cargo install cargo-deny`");
    }
    test::run(root)
}

/// Fails if anything in the workspace, on any target, depends on `package`.
fn not_in_tree(root: &Path, package: &str, why: &str) -> anyhow::Result<()> {
    let mut tree = shell::cargo(root, ["tree", "--workspace", "--target", "all", "-i", package]);
    eprintln!("$ {}", shell::shown(&tree));
    let output = shell::ask(&mut tree)?;
    let (found, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match verdict(output.status.success(), &found, &said) {
        Tree::Empty => Ok(()),
        Tree::Holds => bail!("{package} is in the build: {why}\n{}", found.trim_end()),
        Tree::Failed => bail!("`{}` failed: {}", shell::shown(&tree), said.trim()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Tree {
    Empty,
    Holds,
    Failed,
}

/// `cargo tree -i` fails for a package that is nowhere, which is what we hope for, and also for other reasons.
fn verdict(success: bool, stdout: &str, stderr: &str) -> Tree {
    match (success, stdout.trim().is_empty()) {
        (true, false) => Tree::Holds,
        (true, true) => Tree::Empty,
        (false, _) if stderr.contains("did not match any packages") => Tree::Empty,
        (false, _) => Tree::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_absent_package_passes() {
        let absent = "error: package ID specification `aws-lc-rs` did not match any packages";
        assert_eq!(verdict(false, "", absent), Tree::Empty);
        assert_eq!(verdict(true, "", "warning: nothing to print."), Tree::Empty);
        assert_eq!(verdict(true, "aws-lc-rs v1.0\n", ""), Tree::Holds);
        assert_eq!(verdict(false, "", "error: failed to parse lock file"), Tree::Failed);
    }
}
