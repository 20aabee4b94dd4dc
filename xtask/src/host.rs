//! What the machine we run on has, asked without loading anything.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// Where Vulkan's loader looks for drivers (its documentation, "Driver Discovery on Linux"), without the
/// per-user folders, which hold overrides rather than drivers.
const VULKAN_DRIVER_FOLDERS: [&str; 4] = [
    "/usr/share/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/etc/vulkan/icd.d",
    "/usr/local/etc/vulkan/icd.d",
];

/// Whether Vulkan can work here: the loader is installed and some driver is registered with it.
pub(crate) fn has_vulkan() -> bool {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].into_iter().filter_map(std::env::var_os);
    let mut named = named.flat_map(|list| std::env::split_paths(&list).collect::<Vec<_>>());
    let driver =
        named.any(|file| file.exists()) || VULKAN_DRIVER_FOLDERS.iter().any(|folder| has_json(folder));
    driver && has_library("libvulkan.so.1")
}

/// Whether an NVIDIA driver is here: its user-mode library, and the kernel side it talks to.
pub(crate) fn has_nvidia_driver() -> bool {
    let kernel = ["/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"];
    kernel.iter().any(|file| Path::new(file).exists()) && has_library("libcuda.so.1")
}

/// Whether the feature `hwloc` of `quark-devices` can be built.
pub(crate) fn has_hwloc_headers() -> bool {
    let mut ask = Command::new("pkg-config");
    shell::succeeds(ask.args(["--exists", "hwloc >= 2.8", "libudev"]))
}

/// Whether the dynamic linker would find this library.
fn has_library(name: &str) -> bool {
    let cached = ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"].into_iter().any(|program| {
        shell::ask(Command::new(program).arg("-p"))
            .is_ok_and(|output| lists_library(&String::from_utf8_lossy(&output.stdout), name))
    });
    let listed = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    // WSL and some containers put the driver where no cache lists it.
    let usual = ["/usr/lib", "/usr/lib64", "/usr/local/nvidia/lib64", "/usr/lib/wsl/lib"].map(PathBuf::from);
    cached || std::env::split_paths(&listed).chain(usual).any(|folder| folder.join(name).exists())
}

/// Whether `ldconfig -p` output has this library.
fn lists_library(cache: &str, name: &str) -> bool {
    cache.lines().any(|line| line.split_whitespace().next() == Some(name))
}

fn has_json(folder: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
}

/// Whether this process is root, by the second (effective) number of `Uid:` in `/proc/self/status`.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_uid(&status) == Some(0))
}

fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Whether this is Debian, Ubuntu or a child of theirs, with apt-get.
pub(crate) fn is_debian() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    is_debian_release(&release) && Path::new("/usr/bin/apt-get").exists()
}

fn is_debian_release(os_release: &str) -> bool {
    let values =
        os_release.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    values
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .any(|id| id == "debian" || id == "ubuntu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_uid_is_the_second_number() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn debian_and_its_children_are_known() {
        assert!(is_debian_release("NAME=x\nID=debian\n"));
        assert!(is_debian_release("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_release("ID=fedora\nVARIANT_ID=debian\n"));
    }

    #[test]
    fn a_library_counts_by_its_whole_name() {
        let cache = "12 libs found\n\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/libcuda.so.1\n";
        assert!(lists_library(cache, "libcuda.so.1"));
        assert!(!lists_library(cache, "libcuda.so"));
    }
}
