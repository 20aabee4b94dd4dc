//! Which package may depend on which: DESIGN.md's house, as a table.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Violation;

const BELOW_RUNTIME: &[&str] = &["quark-base", "quark-devices", "quark-placement", "quark-predictive"];
const BESIDE_EACH_OTHER: &[&str] =
    &["quark-base", "quark-devices", "quark-placement", "quark-predictive", "quark-runtime"];
/// The real servers that the stores are tested with stand on nothing.
const STORES: &[&str] =
    &["quark-base", "quark-devices", "quark-placement", "quark-predictive", "quark-runtime", "quark-servers"];
const BELOW_GRID: &[&str] = &[
    "quark-base",
    "quark-devices",
    "quark-placement",
    "quark-predictive",
    "quark-runtime",
    "quark-net",
    "quark-storage",
    "quark-profiling",
    "quark-macros",
];

/// Each package, its folder, and the packages of this workspace that it may name, in any dependency table.
const HOUSE: &[(&str, &str, &[&str])] = &[
    ("quark-base", "base", &[]),
    ("quark-devices", "devices", &["quark-base"]),
    ("quark-placement", "placement", &["quark-base", "quark-devices"]),
    ("quark-predictive", "predictive", &["quark-base", "quark-devices"]),
    ("quark-runtime", "runtime", BELOW_RUNTIME),
    ("quark-net", "net", BESIDE_EACH_OTHER),
    ("quark-storage", "storage", STORES),
    ("quark-servers", "servers", &[]),
    ("quark-profiling", "profiling", BESIDE_EACH_OTHER),
    ("quark-macros", "macros", &[]),
    ("quark-grid", "grid", BELOW_GRID),
    ("quark-testkit", "testkit", &["quark-grid"]),
    ("quark-vision", "examples/vision", &["quark-grid", "quark-testkit"]),
    ("quark-hello", "examples/hello", &["quark-grid", "quark-testkit"]),
    ("quark-cli", "cli", &["quark-grid", "quark-vision", "quark-hello"]),
    ("quark-bench", "bench", &["quark-grid", "quark-testkit", "quark-storage", "quark-servers"]),
    (
        "quark-tests",
        "tests",
        &["quark-grid", "quark-testkit", "quark-vision", "quark-hello", "quark-servers"],
    ),
    ("quark-fuzz", "fuzz", &["quark-grid", "quark-testkit"]),
    ("xtask", "xtask", &["quark-servers"]),
];

/// Packages of deciding code, which runs on no runtime. Their sources are checked for more by the rule `pure`.
const PURE: [&str; 3] = ["quark-base", "quark-placement", "quark-predictive"];

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<Violation>> {
    let workspace = read(&root.join("Cargo.toml"))?;
    let members = workspace.get("workspace").and_then(|workspace| workspace.get("members"));
    let members = members.and_then(toml::Value::as_array).context("Cargo.toml lists no workspace members")?;
    let mut violations = Vec::new();
    for member in members.iter().filter_map(toml::Value::as_str) {
        let file = format!("{member}/Cargo.toml");
        violations.extend(check_manifest(member, &file, &read(&root.join(&file))?));
    }
    Ok(violations)
}

fn read(path: &PathBuf) -> anyhow::Result<toml::Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{} is no TOML", path.display()))?;
    Ok(toml::Value::Table(table))
}

fn check_manifest(folder: &str, file: &str, manifest: &toml::Value) -> Vec<Violation> {
    let wrong = |text: String| Violation::new(file, 0, "direction", text);
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    let Some(name) = name else { return vec![wrong("names no package".into())] };
    let Some((_, home, allowed)) = HOUSE.iter().find(|(package, _, _)| *package == name) else {
        return vec![wrong(format!(
            "{name} has no place in the table of xtask/src/tidy/direction.rs: give it one"
        ))];
    };
    let mut violations = Vec::new();
    if folder != *home {
        violations.push(wrong(format!("{name} belongs into the folder {home}")));
    }
    for dependency in dependencies(manifest) {
        if PURE.contains(&name) && dependency == "tokio" {
            violations
                .push(wrong(format!("{name} must not depend on tokio: deciding code is plain functions")));
        }
        if HOUSE.iter().any(|(package, _, _)| *package == dependency)
            && !allowed.contains(&dependency.as_str())
        {
            violations
                .push(wrong(format!("{name} must not depend on {dependency}: dependencies point downwards")));
        }
    }
    violations
}

/// The packages that a manifest depends on, under any name, for any target, as any kind of dependency.
fn dependencies(manifest: &toml::Value) -> Vec<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let scopes = std::iter::once(manifest).chain(targets.into_iter().flat_map(|targets| targets.values()));
    let mut found = Vec::new();
    for scope in scopes {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (alias, value) in scope.get(kind).and_then(toml::Value::as_table).into_iter().flatten() {
                let renamed = value.get("package").and_then(toml::Value::as_str);
                found.push(renamed.unwrap_or(alias).to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(folder: &str, manifest: &str) -> Vec<String> {
        let manifest = toml::Value::Table(manifest.parse().unwrap());
        check_manifest(folder, "Cargo.toml", &manifest).into_iter().map(|violation| violation.text).collect()
    }

    #[test]
    fn downwards_is_fine() {
        let manifest = "[package]\nname = \"quark-runtime\"\n[dependencies]\nquark-base.workspace = true\ntokio = \"1\"\n";
        assert!(violations("runtime", manifest).is_empty());
    }

    #[test]
    fn upwards_and_sideways_are_not() {
        let up = "[package]\nname = \"quark-devices\"\n[dependencies]\nquark-runtime.workspace = true\n";
        assert_eq!(violations("devices", up).len(), 1);
        let sideways = "[package]\nname = \"quark-net\"\n[dependencies]\nquark-storage.workspace = true\n";
        assert_eq!(violations("net", sideways).len(), 1);
    }

    #[test]
    fn pure_packages_have_no_runtime_even_for_tests() {
        let manifest = "[package]\nname = \"quark-placement\"\n[dev-dependencies]\ntokio.workspace = true\n";
        assert_eq!(violations("placement", manifest).len(), 1);
    }

    #[test]
    fn another_name_another_target_or_another_kind_hides_nothing() {
        let manifest = "[package]\nname = \"quark-base\"\n[target.'cfg(unix)'.dependencies]\ng = { package = \
                        \"quark-grid\", path = \"../grid\" }\n[dev-dependencies]\nquark-devices.workspace = true\n";
        let found = violations("base", manifest);
        assert!(found.iter().any(|text| text.contains("quark-grid")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("quark-devices")), "{found:?}");
    }

    #[test]
    fn an_unknown_or_misplaced_package_is_named() {
        assert!(violations("x", "[package]\nname = \"quark-x\"\n")[0].contains("give it one"));
        assert!(violations("x", "[package]\nname = \"quark-base\"\n")[0].contains("folder base"));
    }

    #[test]
    fn the_table_itself_has_no_cycle() {
        // Repeatedly take away what depends on nothing that is left.
        let mut left: Vec<_> = HOUSE.to_vec();
        while !left.is_empty() {
            let names: Vec<&str> = left.iter().map(|(name, _, _)| *name).collect();
            let before = left.len();
            left.retain(|(_, _, allowed)| allowed.iter().any(|below| names.contains(below)));
            assert!(left.len() < before, "a cycle among {names:?}");
        }
    }
}
