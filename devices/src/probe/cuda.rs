//! What the CUDA driver knows: the NVIDIA GPUs that this process may compute on.
//!
//! cudarc panics where a library or a symbol of it is missing. So the library is looked for first, and every first
//! touch of it runs under `guard`. No context is opened: reading attributes needs none.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute};
use quark_base::ByteSize;

use super::ProbeReport;
use crate::inventory::{DeviceFeatures, DeviceKind, Note, PartialDevice, PciAddress, Source, Vendor};

/// Every GPU that the CUDA driver offers this process. Never panics, never fails: what is missing is a note.
pub fn probe() -> ProbeReport {
    let mut report = ProbeReport::default();
    if !driver_present() {
        report.notes.push(Note::missing(
            Source::Cuda,
            "libcuda.so.1 is not installed: no NVIDIA driver, or not in this container",
        ));
        return report;
    }
    match guard(devices) {
        Ok(Ok(Listed { devices, notes })) => {
            report.devices = devices;
            report.notes = notes;
        }
        Ok(Err(error)) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => {
            report.notes.push(Note::missing(Source::Cuda, "the CUDA driver offers this process no device"));
        }
        Ok(Err(error)) => {
            report
                .notes
                .push(Note::broken(Source::Cuda, format!("the CUDA driver does not start: {}", text(error))));
        }
        Err(panic) => {
            report.notes.push(Note::broken(Source::Cuda, format!("the CUDA driver cannot be used: {panic}")));
        }
    }
    report
}

/// Whether the driver's library can be loaded.
pub(crate) fn driver_present() -> bool {
    // SAFETY: loading a library runs its initialisers; these are the NVIDIA driver's own, from the system's library
    // path, which any program that uses the device runs too. Nothing of it is called here.
    guard(|| unsafe { sys::is_culib_present() }).unwrap_or(false)
}

/// Whether the run-time compiler's library can be loaded.
pub(crate) fn compiler_present() -> bool {
    // SAFETY: as in `driver_present`, for NVRTC.
    guard(|| unsafe { cudarc::nvrtc::sys::is_culib_present() }).unwrap_or(false)
}

/// Runs code of cudarc that may panic (a driver without some symbol), and gives the panic's text, on one line.
pub(crate) fn guard<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing is shared with the call but its own values, which are dropped with it.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("it panicked").lines().next().unwrap_or_default().to_owned()
    })
}

/// What the driver calls this error.
pub(crate) fn text(error: DriverError) -> String {
    let name = format!("{:?}", error.0);
    let said = guard(|| error.error_string().map(|text| text.to_string_lossy().into_owned()));
    match said {
        Ok(Ok(said)) => format!("{said} ({name})"),
        _ => name,
    }
}

struct Listed {
    devices: Vec<PartialDevice>,
    notes: Vec<Note>,
}

fn devices() -> Result<Listed, DriverError> {
    result::init()?;
    let version = driver_version();
    let mut listed = Listed { devices: Vec::new(), notes: Vec::new() };
    for ordinal in 0..result::device::get_count()? {
        match describe(ordinal) {
            Ok(mut device) => {
                device.driver.clone_from(&version);
                listed.devices.push(device);
            }
            Err(error) => {
                let text = format!("device {ordinal} does not answer: {}", text(error));
                listed.notes.push(Note::broken(Source::Cuda, text));
            }
        }
    }
    Ok(listed)
}

/// One device of the driver in the inventory's words.
pub(crate) fn describe(ordinal: i32) -> Result<PartialDevice, DriverError> {
    let gpu = result::device::get(ordinal)?;
    let mut device = PartialDevice::new(Source::Cuda);
    device.index = u32::try_from(ordinal).ok();
    device.vendor = Some(Vendor::Nvidia);
    device.name = result::device::get_name(gpu).ok();
    device.uuid = result::device::get_uuid(gpu).ok().map(|uuid| uuid_text(uuid.bytes.map(|byte| byte as u8)));
    // SAFETY: `gpu` comes from `device::get`.
    device.vram = unsafe { result::device::total_mem(gpu) }.ok().map(|bytes| ByteSize::bytes(bytes as u64));
    let read = |attribute| attribute_of(gpu, attribute);
    device.kind = Some(match read(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED) {
        Some(1) => DeviceKind::IntegratedGpu,
        _ => DeviceKind::Gpu,
    });
    device.pci = address(
        read(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID),
        read(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID),
        read(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID),
    );
    device.compute_capability = read(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        .zip(read(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
    device.compute_units = read(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    device.features =
        device.compute_capability.map(DeviceFeatures::of_compute_capability).unwrap_or_default();
    device.features.ecc = read(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_ECC_ENABLED) == Some(1);
    Ok(device)
}

fn attribute_of(gpu: CUdevice, attribute: CUdevice_attribute) -> Option<u32> {
    // SAFETY: `gpu` comes from `device::get`.
    let value = unsafe { result::device::get_attribute(gpu, attribute) };
    value.ok().and_then(|value| u32::try_from(value).ok())
}

/// The highest CUDA version of the driver, such as "CUDA 13.0".
fn driver_version() -> Option<String> {
    let mut version = 0;
    // SAFETY: the driver writes one integer through the pointer, which is valid for the length of the call.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().ok()?;
    // 1000 * major + 10 * minor (CUDA Driver API, "Version Management").
    Some(format!("CUDA {}.{}", version / 1000, version % 1000 / 10))
}

fn address(domain: Option<u32>, bus: Option<u32>, device: Option<u32>) -> Option<PciAddress> {
    let device = u8::try_from(device?).ok().filter(|slot| *slot < 32)?;
    Some(PciAddress::new(domain?, u8::try_from(bus?).ok()?, device, 0))
}

/// A UUID as NVML writes it, "GPU-" and five groups.
fn uuid_text(bytes: [u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_a_note_and_no_panic() {
        let report = probe();
        assert!(!report.devices.is_empty() || !report.notes.is_empty(), "no device and no word about it");
        assert!(report.notes.iter().all(|note| note.source == Source::Cuda && !note.text.contains('\n')));
    }

    #[test]
    fn a_panic_becomes_a_line() {
        assert_eq!(guard(|| panic!("no symbol\nand more")), Err::<(), _>("no symbol".to_owned()));
        assert_eq!(guard(|| 7), Ok(7));
    }

    #[test]
    fn uuids_are_written_as_nvml_writes_them() {
        let bytes = std::array::from_fn(|place| place as u8);
        assert_eq!(uuid_text(bytes), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(address(Some(1), Some(0xe1), Some(0)).map(|a| a.to_string()), Some("0001:e1:00.0".into()));
        assert_eq!(address(Some(0), Some(256), Some(0)), None);
        assert_eq!(address(None, Some(1), Some(0)), None);
    }
}
