//! `/proc/cpuinfo`: who makes the CPU and what it can do.

use super::root::Root;
use crate::inventory::{CpuVendor, IsaFeature};
use std::collections::BTreeSet;

/// What the file says about all CPUs together.
#[derive(Debug, Default)]
pub(super) struct CpuInfo {
    pub vendor: CpuVendor,
    pub model: String,
    /// Extensions every listed CPU has.
    pub features: BTreeSet<IsaFeature>,
    /// The CPU runs under a hypervisor (x86 only).
    pub hypervisor: bool,
    /// The instruction set the file's form gives away; empty when it doesn't.
    pub architecture: &'static str,
    /// Each CPU with its socket and core, where the file says them.
    pub cpus: Vec<InfoCpu>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct InfoCpu {
    pub id: u32,
    pub socket: Option<u32>,
    pub core: Option<u32>,
}

pub(super) fn read(root: &Root) -> CpuInfo {
    root.text("/proc/cpuinfo").map(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> CpuInfo {
    let mut info = CpuInfo::default();
    let mut features: Option<BTreeSet<IsaFeature>> = None;
    let (mut implementer, mut part) = (None, None);
    // On x86 all CPUs of a machine usually share one long line: parse it once.
    let mut last_flags = "";
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        match key {
            "processor" => {
                if let Ok(id) = value.parse() {
                    info.cpus.push(InfoCpu { id, ..InfoCpu::default() });
                }
            }
            "physical id" => set(&mut info.cpus, |cpu| cpu.socket = value.parse().ok()),
            "core id" => set(&mut info.cpus, |cpu| cpu.core = value.parse().ok()),
            "vendor_id" if info.vendor == CpuVendor::Unknown => info.vendor = CpuVendor::from_cpuid(value),
            "model name" | "cpu model" | "Processor" if info.model.is_empty() => {
                info.model = value.to_owned()
            }
            // POWER: "cpu : POWER9, altivec supported".
            "cpu" if value.starts_with("POWER") && info.model.is_empty() => {
                info.model = value.split(',').next().unwrap_or(value).to_owned();
                info.vendor = CpuVendor::Other("IBM".into());
                info.architecture = "ppc64";
            }
            "CPU implementer" => implementer = implementer.or(hex(value)),
            // The last is a big core on big.LITTLE machines, which is what people call the machine by.
            "CPU part" => part = hex(value).or(part),
            "CPU architecture" if info.architecture.is_empty() => {
                info.architecture =
                    if value.starts_with('8') || value == "AArch64" { "aarch64" } else { "arm" };
            }
            "flags" | "Features" if value != last_flags => {
                last_flags = value;
                let arm = key == "Features";
                let found: BTreeSet<IsaFeature> = value
                    .split_ascii_whitespace()
                    .filter_map(if arm { IsaFeature::from_arm_flag } else { IsaFeature::from_x86_flag })
                    .collect();
                features = Some(match features {
                    None => found,
                    Some(before) => before.intersection(&found).copied().collect(),
                });
                if !arm {
                    let mut words = value.split_ascii_whitespace();
                    info.hypervisor |= words.clone().any(|flag| flag == "hypervisor");
                    info.architecture = if words.any(|flag| flag == "lm") { "x86_64" } else { "x86" };
                }
            }
            _ => {}
        }
    }
    info.features = features.unwrap_or_default();
    if let Some(code) = implementer {
        info.vendor = CpuVendor::from_arm_implementer(code);
        if info.model.is_empty() {
            info.model = part.and_then(|part| arm_core_name(code, part)).unwrap_or_default().to_owned();
        }
    }
    info
}

fn set(cpus: &mut [InfoCpu], change: impl FnOnce(&mut InfoCpu)) {
    if let Some(cpu) = cpus.last_mut() {
        change(cpu);
    }
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Names of the cores met in servers, boards and phones (MIDR_EL1.PartNum, from Arm's reference manuals).
fn arm_core_name(implementer: u32, part: u32) -> Option<&'static str> {
    Some(match (implementer, part) {
        (0x41, 0xd03) => "Cortex-A53",
        (0x41, 0xd05) => "Cortex-A55",
        (0x41, 0xd08) => "Cortex-A72",
        (0x41, 0xd0b) => "Cortex-A76",
        (0x41, 0xd0c) => "Neoverse-N1",
        (0x41, 0xd40) => "Neoverse-V1",
        (0x41, 0xd41) => "Cortex-A78",
        (0x41, 0xd42) => "Cortex-A78AE",
        (0x41, 0xd44) => "Cortex-X1",
        (0x41, 0xd49) => "Neoverse-N2",
        (0x41, 0xd4f) => "Neoverse-V2",
        (0x41, 0xd84) => "Neoverse-V3",
        (0x41, 0xd8e) => "Neoverse-N3",
        (0xc0, 0xac3) => "Ampere-1",
        (0xc0, 0xac4) => "Ampere-1A",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_cpus_have_counts() {
        let info = parse(
            "processor : 0\nvendor_id : GenuineIntel\nmodel name : X\nflags : lm sse4_2 avx2 avx512f hypervisor\n\n\
             processor : 1\nflags : lm sse4_2 avx2\n",
        );
        assert_eq!(info.features.iter().copied().collect::<Vec<_>>(), [IsaFeature::Sse42, IsaFeature::Avx2]);
        assert_eq!((info.vendor, info.architecture, info.hypervisor), (CpuVendor::Intel, "x86_64", true));
        assert_eq!(info.cpus.len(), 2);
    }

    #[test]
    fn an_arm_server_is_known_by_its_part() {
        let info = parse(
            "processor\t: 0\nFeatures\t: fp asimd crc32 atomics sve bf16\nCPU implementer\t: 0x41\n\
             CPU architecture: 8\nCPU part\t: 0xd40\n",
        );
        assert_eq!(
            (info.vendor, info.model.as_str(), info.architecture),
            (CpuVendor::Arm, "Neoverse-V1", "aarch64")
        );
        assert!(info.features.contains(&IsaFeature::Sve) && info.features.contains(&IsaFeature::Neon));
    }

    #[test]
    fn damage_is_no_panic() {
        for text in
            ["", ":", "processor :", "core id : 3", "flags", "CPU part : 0x", "processor: 99999999999"]
        {
            assert!(parse(text).features.is_empty(), "{text}");
        }
    }
}
