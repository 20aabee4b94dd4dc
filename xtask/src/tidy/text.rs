//! Rules that look at a file's plain text: its length, and paths into somebody's home.

use super::{Findings, Violation};

/// Lines from which a source file should be looked at for a seam.
const WARN_LINES: usize = 600;
/// Lines above which a source file fails.
const MAX_LINES: usize = 1_000;

/// What counts as source for the size rule.
const SOURCES: [&str; 5] = [".rs", ".py", ".wgsl", ".cu", ".sh"];

/// What is looked through for home paths.
const TEXTS: [&str; 12] =
    [".rs", ".py", ".wgsl", ".cu", ".sh", ".toml", ".md", ".yml", ".yaml", ".json", ".txt", ".ptx"];

/// Folders that hold the homes of people. Written in two parts, so that this file passes its own rule.
const HOMES: [&str; 3] = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];

pub(super) fn check(file: &str, source: &str, findings: &mut Findings) {
    if SOURCES.iter().any(|extension| file.ends_with(extension)) {
        let lines = source.lines().count();
        if lines > MAX_LINES {
            let text = format!("{lines} lines, more than {MAX_LINES}: split it");
            findings.violations.push(Violation::new(file, 0, "size", text));
        } else if lines > WARN_LINES {
            let text = format!("{lines} lines, more than {WARN_LINES}: look for the seam");
            findings.warnings.push(Violation::new(file, 0, "size", text));
        }
    }
    if TEXTS.iter().any(|extension| file.ends_with(extension)) {
        for (number, line) in (1..).zip(source.lines()) {
            if let Some(path) = home_path(line) {
                let text = format!("an absolute path into a home ({path}…) works on one machine only");
                findings.violations.push(Violation::new(file, number, "home", text));
            }
        }
    }
}

/// The first path into a home on this line: one that begins there, and isn't part of a longer path or a URL.
fn home_path(line: &str) -> Option<&'static str> {
    HOMES.into_iter().find(|home| {
        line.match_indices(home).any(|(at, _)| {
            let begins = line[..at]
                .chars()
                .next_back()
                .is_none_or(|c| !c.is_alphanumeric() && !"/._-~})>*".contains(c));
            let goes_on =
                line[at + home.len()..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '.');
            begins && goes_on
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, source: &str) -> (Vec<&'static str>, usize) {
        let mut findings = Findings::default();
        check(file, source, &mut findings);
        (findings.violations.iter().map(|violation| violation.rule).collect(), findings.warnings.len())
    }

    #[test]
    fn long_files_warn_and_then_fail() {
        assert_eq!(found("a.rs", &"\n".repeat(600)), (vec![], 0));
        assert_eq!(found("a.rs", &"\n".repeat(601)), (vec![], 1));
        assert_eq!(found("a.rs", &"\n".repeat(1_000)), (vec![], 1));
        assert_eq!(found("a.rs", &"\n".repeat(1_001)), (vec!["size"], 0));
        assert_eq!(found("data.csv", &"\n".repeat(5_000)), (vec![], 0));
    }

    #[test]
    fn a_path_into_a_home_is_found_with_its_line() {
        for home in HOMES {
            let mut findings = Findings::default();
            check("a.md", &format!("fine\nsee `{home}ada/notes`\n"), &mut findings);
            assert_eq!((findings.violations.len(), findings.violations[0].line), (1, 2));
        }
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        for text in
            ["https://example.org/home/page", "{base}/home/x", "/home/$USER", "/home", "chroot/root/x"]
        {
            assert_eq!(found("a.md", text), (vec![], 0), "{text}");
        }
    }
}
