//! Display controllers and accelerators by sysfs, so that a GPU without its libraries is at least known, with
//! its NUMA node, and what the NVIDIA kernel driver tells in `/proc` without its library.

use super::root::Root;
use crate::inventory::{DeviceKind, Note, PartialDevice, PciAddress, Source, Vendor};
use quark_base::ByteSize;

const DEVICES: &str = "/sys/bus/pci/devices";
const NVIDIA: &str = "/proc/driver/nvidia";

/// PCI base class of display controllers (PCI Code and ID Assignment, 1.4: base class 03h).
const DISPLAY: u32 = 0x03;
/// PCI base class of processing accelerators (base class 12h): AMD's Instinct MI300 and others.
const ACCELERATOR: u32 = 0x12;

pub(super) fn probe(root: &Root) -> Vec<PartialDevice> {
    let mut found: Vec<PartialDevice> =
        root.names(DEVICES).iter().filter_map(|name| device(root, name)).collect();
    found.extend(nvidia(root));
    found
}

fn device(root: &Root, name: &str) -> Option<PartialDevice> {
    let folder = format!("{DEVICES}/{name}");
    let class = hex(root, &format!("{folder}/class"))?;
    let base = class >> 16;
    if base != DISPLAY && base != ACCELERATOR {
        return None;
    }
    let Ok(address) = name.parse::<PciAddress>() else {
        root.note(Note::broken(Source::Sysfs, format!("{folder}: the name is no PCI address")));
        return None;
    };
    let mut device = PartialDevice::new(Source::Sysfs);
    let config = || config_ids(root, &folder);
    let vendor = hex(root, &format!("{folder}/vendor")).or_else(|| config().map(|(vendor, _)| vendor.into()));
    let product = hex(root, &format!("{folder}/device"))
        .and_then(|id| u16::try_from(id).ok())
        .or_else(|| config().map(|(_, product)| product));
    device.pci = Some(address);
    device.vendor = vendor.map(Vendor::from_id);
    device.pci_ids = vendor.and_then(|id| u16::try_from(id).ok()).zip(product);
    // -1 is "unknown", which one-node machines and virtual machines say.
    device.numa_node =
        root.value::<i64>(&format!("{folder}/numa_node")).and_then(|node| u32::try_from(node).ok());
    device.driver = root.link_name(&format!("{folder}/driver"));
    device.vram = root.value(&format!("{folder}/mem_info_vram_total")).map(ByteSize::bytes);
    device.name = root.word(&format!("{folder}/product_name"));
    device.kind = kind(base, address, &device);
    Some(device)
}

/// What sysfs alone can tell; a graphics library that knows better overrides it.
fn kind(base: u32, address: PciAddress, device: &PartialDevice) -> Option<DeviceKind> {
    Some(match device.vendor.as_ref()? {
        Vendor::Nvidia | Vendor::Amd => DeviceKind::Gpu,
        // Intel's processor graphics has sat at 00:02.0 since 2004; anything else is a card.
        Vendor::Intel if address == PciAddress::new(0, 0, 2, 0) => DeviceKind::IntegratedGpu,
        Vendor::Intel if base == DISPLAY => DeviceKind::Gpu,
        _ if base == DISPLAY => DeviceKind::Display,
        _ => DeviceKind::Other,
    })
}

/// The NVIDIA kernel driver's own view: name and UUID of each card, without NVML.
fn nvidia(root: &Root) -> Vec<PartialDevice> {
    let names = root.names(&format!("{NVIDIA}/gpus"));
    if names.is_empty() {
        return Vec::new();
    }
    // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue …", in the open module's line
    // "… Open Kernel Module for x86_64  580.65.06  Release Build …": the version is the first dotted number.
    let driver = root.text(&format!("{NVIDIA}/version")).and_then(|text| {
        let first = text.lines().next()?;
        let is_version =
            |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        first.split_ascii_whitespace().find(is_version).map(|version| format!("nvidia {version}"))
    });
    names
        .iter()
        .filter_map(|name| {
            // The folder's name alone tells that there is a card.
            let text = root.text(&format!("{NVIDIA}/gpus/{name}/information")).unwrap_or_default();
            let field = |key: &str| {
                text.lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(found, _)| found.trim() == key)
                    .map(|(_, value)| value.trim().to_owned())
            };
            let mut device = PartialDevice::new(Source::Procfs);
            device.pci = name.parse().ok().or_else(|| field("Bus Location")?.parse().ok());
            // Before the card's first use the driver writes question marks.
            device.uuid = field("GPU UUID").filter(|uuid| uuid.starts_with("GPU-") && !uuid.contains('?'));
            device.name = field("Model").filter(|name| !name.is_empty() && name != "Unknown");
            device.kind = Some(DeviceKind::Gpu);
            device.vendor = Some(Vendor::Nvidia);
            device.driver = driver.clone();
            (device.pci.is_some() || device.uuid.is_some()).then_some(device)
        })
        .collect()
}

/// Vendor and device from the configuration space (PCI Local Bus 3.0, 6.1: the first two words, little-endian),
/// which is all that hwloc's older dumps hold.
fn config_ids(root: &Root, folder: &str) -> Option<(u16, u16)> {
    let bytes = root.raw(&format!("{folder}/config"))?;
    let word = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    // All ones is how the bus answers for a card that is gone.
    Some((word(0)?, word(2)?)).filter(|(vendor, _)| *vendor != 0xffff)
}

/// "0x030200".
fn hex(root: &Root, path: &str) -> Option<u32> {
    let text = root.text(path)?;
    let value = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    if value.is_none() {
        root.garbage(path, &text);
    }
    value
}
