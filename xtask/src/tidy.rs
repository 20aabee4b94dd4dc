//! `cargo xtask tidy`: what must hold in the sources beyond what the compiler checks.
//!
//! | rule        | what                                                              | module        |
//! |-------------|-------------------------------------------------------------------|---------------|
//! | `direction` | a package depends only on those below it                          | [`direction`] |
//! | `size`      | no source file over 1,000 lines; over 600 is a warning            | [`text`]      |
//! | `home`      | no absolute path into somebody's home                             | [`text`]      |
//! | `pure`      | no clock, no tokio, no statics in the deciding code               | [`tokens`]    |
//! | `print`     | no `println!` in libraries                                        | [`tokens`]    |
//! | `leftover`  | no `todo!`, `unimplemented!`, `dbg!`                              | [`tokens`]    |
//! | `cfg`       | no `cfg` inside a function's body                                 | [`tokens`]    |
//! | `static`    | no `static mut` anywhere                                          | [`tokens`]    |
//! | `unsafe`    | `unsafe` only in the files that `xtask/unsafe-files.txt` lists    | [`tokens`]    |
//!
//! The token rules look at the lexed source, so comments and strings never match, and they follow brackets, so
//! `#[cfg(test)]` code can be told apart. They may miss what a macro makes; they don't accuse what is right.

mod direction;
mod text;
mod tokens;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    /// The file, from the root.
    file: String,
    /// The line, from 1; 0 for the file as a whole.
    line: usize,
    /// The rule's name.
    rule: &'static str,
    /// What is wrong and what to do.
    text: String,
}

impl Violation {
    fn new(file: &str, line: usize, rule: &'static str, text: impl Into<String>) -> Self {
        Self { file: file.into(), line, rule, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, text } = self;
        match line {
            0 => write!(f, "{file}: {rule}: {text}"),
            _ => write!(f, "{file}:{line}: {rule}: {text}"),
        }
    }
}

/// What a check found.
#[derive(Debug, Default)]
struct Findings {
    violations: Vec<Violation>,
    warnings: Vec<Violation>,
}

/// Folders that hold no source of ours.
const SKIPPED_FOLDERS: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// The files in which `unsafe` may stand.
const UNSAFE_LIST: &str = "xtask/unsafe-files.txt";

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let Findings { mut violations, mut warnings } = check(root)?;
    violations.sort();
    warnings.sort();
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    for violation in &violations {
        eprintln!("error: {violation}");
    }
    if !violations.is_empty() {
        bail!("tidy found {} violations", violations.len());
    }
    eprintln!("tidy: all is well ({} warnings)", warnings.len());
    Ok(())
}

fn check(root: &Path) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    findings.violations.extend(direction::check(root)?);
    let list = std::fs::read_to_string(root.join(UNSAFE_LIST)).unwrap_or_default();
    let unsafe_files = tokens::UnsafeList::parse(&list);
    let mut with_unsafe = BTreeSet::new();
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    for file in files {
        let Ok(source) = std::fs::read_to_string(root.join(&file)) else {
            continue; // Not text: data, an image, an archive.
        };
        text::check(&file, &source, &mut findings);
        if file.ends_with(".rs") {
            let place = tokens::Place::of(root, &file);
            let has_unsafe = tokens::check(&file, &source, place, &unsafe_files, &mut findings.violations);
            if has_unsafe {
                with_unsafe.insert(file);
            }
        }
    }
    for (line, file) in unsafe_files.stale(&with_unsafe) {
        let text = format!("{file} has no `unsafe` (any more): take it off the list");
        findings.violations.push(Violation::new(UNSAFE_LIST, line, "unsafe", text));
    }
    Ok(findings)
}

/// All files below `folder`, from the root, with `/`, in a fixed order. Folders that begin with a dot are left out.
fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A link could lead out of the tree, or around in it.
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if !name.starts_with('.') && !SKIPPED_FOLDERS.contains(&name.as_ref()) {
                walk(root, &path, files)?;
            }
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_tree_is_checked_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("Cargo.toml", "[workspace]\nmembers = [\"base\"]\n");
        write(
            "base/Cargo.toml",
            "[package]\nname = \"quark-base\"\n[dependencies]\nquark-grid.workspace = true\n",
        );
        write("base/src/lib.rs", "fn now() { std::time::Instant::now(); }\nfn f() { unsafe { g() } }\n");
        write("xtask/unsafe-files.txt", "base/src/gone.rs  # was there once\n");
        write("target/debug/lib.rs", "static mut X: u8 = 0;");
        write(".git/lib.rs", "static mut X: u8 = 0;");
        let mut found: Vec<String> = check(root.path())
            .unwrap()
            .violations
            .iter()
            .map(|v| format!("{}:{}:{}", v.file, v.line, v.rule))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "base/Cargo.toml:0:direction",
                "base/src/lib.rs:1:pure",
                "base/src/lib.rs:2:unsafe",
                "xtask/unsafe-files.txt:1:unsafe"
            ]
        );
    }
}
