//! What NVIDIA's management library knows: every NVIDIA GPU of the machine, also those that CUDA may not use.
//!
//! The library comes with the driver (`libnvidia-ml.so.1`) and is loaded when asked. Everything but a GPU's handle
//! is optional: a field the driver does not support stays empty.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use quark_base::ByteSize;

use super::ProbeReport;
use crate::inventory::{
    DeviceFeatures, DeviceKind, Mig, MigInstance, Note, PartialDevice, PciAddress, Source, Vendor,
};

/// `NVML_AFFINITY_SCOPE_NODE` of nvml.h: the NUMA node, where SCOPE_SOCKET would be the socket.
const AFFINITY_SCOPE_NODE: u32 = 0;

/// Words of the node mask to ask for: 16 times 64 is 1,024 nodes, the kernel's bound (CONFIG_NODES_SHIFT 10).
const NODE_MASK_WORDS: usize = 16;

/// `NVML_DEVICE_MIG_ENABLE` of nvml.h.
const MIG_ENABLED: u32 = 1;

/// Every GPU that NVML sees. Never panics, never fails: what is missing is a note.
pub fn probe() -> ProbeReport {
    let mut report = ProbeReport::default();
    let nvml = match open() {
        Ok(nvml) => nvml,
        Err(note) => {
            report.notes.push(note);
            return report;
        }
    };
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => {
            report.notes.push(Note::broken(Source::Nvml, format!("the GPUs cannot be counted: {error}")));
            return report;
        }
    };
    let driver = nvml.sys_driver_version().ok().map(|version| format!("NVIDIA {version}"));
    for index in 0..count {
        match nvml.device_by_index(index) {
            Ok(gpu) => {
                let mut device = describe(&gpu, &mut report.notes);
                device.index = Some(index);
                device.driver.clone_from(&driver);
                report.devices.push(device);
            }
            Err(error) => {
                report
                    .notes
                    .push(Note::broken(Source::Nvml, format!("GPU {index} does not answer: {error}")));
            }
        }
    }
    report
}

/// Loads and starts the library, or says in one line why it cannot.
pub(crate) fn open() -> Result<Nvml, Note> {
    Nvml::init().map_err(|error| match error {
        NvmlError::LibloadingError(_) => Note::missing(
            Source::Nvml,
            "libnvidia-ml.so.1 is not installed: no NVIDIA driver, or not in this container",
        ),
        NvmlError::DriverNotLoaded => Note::missing(
            Source::Nvml,
            "the NVIDIA library is installed, but its kernel driver is not loaded",
        ),
        error => Note::broken(Source::Nvml, format!("NVML does not start: {error}")),
    })
}

fn describe(gpu: &Device<'_>, notes: &mut Vec<Note>) -> PartialDevice {
    let mut device = PartialDevice::new(Source::Nvml);
    device.kind = Some(DeviceKind::Gpu);
    device.vendor = Some(Vendor::Nvidia);
    device.name = gpu.name().ok();
    device.uuid = gpu.uuid().ok();
    device.compute_capability = gpu.cuda_compute_capability().ok().and_then(|capability| {
        Some((u32::try_from(capability.major).ok()?, u32::try_from(capability.minor).ok()?))
    });
    device.vram = gpu.memory_info().ok().map(|memory| ByteSize::bytes(memory.total));
    device.numa_node = numa_node(gpu);
    device.features =
        device.compute_capability.map(DeviceFeatures::of_compute_capability).unwrap_or_default();
    device.features.ecc = gpu.is_ecc_enabled().is_ok_and(|ecc| ecc.currently_enabled);
    device.mig = mig(gpu);
    let label = device.name.as_deref().unwrap_or("a GPU");
    match gpu.pci_info() {
        Ok(pci) => {
            device.pci = address(pci.domain, pci.bus, pci.device);
            device.pci_ids = Some(split_ids(pci.pci_device_id));
            if device.pci.is_none() {
                let text = format!("{label}: {:?} is no PCI address", pci.bus_id);
                notes.push(Note::broken(Source::Nvml, text));
            }
        }
        Err(error) => {
            notes.push(Note::broken(
                Source::Nvml,
                format!("{label}: its PCI address cannot be read: {error}"),
            ));
        }
    }
    device
}

/// The node whose memory is near the GPU. Not `nvmlDeviceGetNumaNodeId`, which names the node that the GPU's own
/// memory forms (Grace Hopper).
fn numa_node(gpu: &Device<'_>) -> Option<u32> {
    lowest_bit(&gpu.memory_affinity(NODE_MASK_WORDS, AFFINITY_SCOPE_NODE).ok()?)
}

/// The lowest number in a mask of words; `None` for an empty one, and for one that names more than one node, which
/// says nothing.
fn lowest_bit(mask: &[std::ffi::c_ulong]) -> Option<u32> {
    let set: u32 = mask.iter().map(|word| word.count_ones()).sum();
    if set != 1 {
        return None;
    }
    let (place, word) = mask.iter().enumerate().find(|(_, word)| **word != 0)?;
    let place = u32::try_from(place).ok()?;
    Some(place * std::ffi::c_ulong::BITS + word.trailing_zeros())
}

/// NVML's halves of an address; it gives no function, which is 0 for GPUs.
fn address(domain: u32, bus: u32, device: u32) -> Option<PciAddress> {
    Some(PciAddress::new(
        domain,
        u8::try_from(bus).ok()?,
        u8::try_from(device).ok().filter(|slot| *slot < 32)?,
        0,
    ))
}

/// NVML's `pciDeviceId`: the device id in the upper half, the vendor's in the lower.
fn split_ids(ids: u32) -> (u16, u16) {
    ((ids & 0xffff) as u16, (ids >> 16) as u16)
}

/// The card's split, on cards that can.
fn mig(gpu: &Device<'_>) -> Option<Mig> {
    let mode = gpu.mig_mode().ok()?;
    let max_instances = gpu.mig_device_count().unwrap_or(0);
    let enabled = mode.current == MIG_ENABLED;
    let instances = if enabled {
        (0..max_instances).filter_map(|index| instance(gpu, index)).collect()
    } else {
        Vec::new()
    };
    Some(Mig { enabled, max_instances, instances })
}

/// One part of a split card; places between parts are empty.
fn instance(gpu: &Device<'_>, index: u32) -> Option<MigInstance> {
    let part = gpu.mig_device_by_index(index).ok()?;
    let name = part.name().unwrap_or_default();
    Some(MigInstance {
        uuid: part.uuid().ok()?,
        profile: profile(&name).to_owned(),
        memory: ByteSize::bytes(part.memory_info().map_or(0, |memory| memory.total)),
    })
}

/// The profile at the end of a part's name, "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
fn profile(name: &str) -> &str {
    name.rsplit_once(" MIG ").map_or("", |(_, profile)| profile.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_a_note_and_no_panic() {
        let report = probe();
        assert!(!report.devices.is_empty() || !report.notes.is_empty(), "no device and no word about it");
        assert!(report.notes.iter().all(|note| note.source == Source::Nvml && !note.text.contains('\n')));
    }

    #[test]
    fn masks_name_one_node() {
        assert_eq!(lowest_bit(&[0b100, 0]), Some(2));
        assert_eq!(lowest_bit(&[0, 1]), Some(std::ffi::c_ulong::BITS));
        assert_eq!(lowest_bit(&[0, 0]), None);
        assert_eq!(lowest_bit(&[0b11]), None);
    }

    #[test]
    fn ids_addresses_and_profiles_are_taken_apart() {
        assert_eq!(split_ids(0x2330_10de), (0x10de, 0x2330));
        assert_eq!(address(0, 0x3b, 0).map(|address| address.to_string()), Some("0000:3b:00.0".into()));
        assert_eq!(address(0, 0x1ff, 0), None);
        assert_eq!(profile("NVIDIA H100 80GB HBM3 MIG 1g.10gb"), "1g.10gb");
        assert_eq!(profile("NVIDIA H100"), "");
    }
}
