//! Readings of NVIDIA GPUs through NVML.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::{Device as Gpu, Nvml};
use quark_base::ByteSize;

use super::{Clocks, DeviceSample, DeviceSource, EccErrors, ThrottleReason};
use crate::inventory::{Device, Inventory, Note, Source};
use crate::probe::nvml as probe;

/// NVML, if the inventory has a device that it saw; a note if it should answer and does not.
pub(super) fn sources(inventory: &Inventory) -> (Vec<Box<dyn DeviceSource>>, Vec<Note>) {
    if !inventory.devices.iter().any(is_readable) {
        return (Vec::new(), Vec::new());
    }
    match probe::open() {
        Ok(nvml) => (vec![Box::new(NvmlSource(nvml))], Vec::new()),
        Err(note) => (Vec::new(), vec![note]),
    }
}

struct NvmlSource(Nvml);

impl DeviceSource for NvmlSource {
    fn sample(&mut self, devices: &[Device]) -> Vec<DeviceSample> {
        devices
            .iter()
            .filter(|device| is_readable(device))
            .filter_map(|device| Some(read(device, &self.find(device)?)))
            .collect()
    }
}

impl NvmlSource {
    /// The GPU by what does not change while it is in its slot; its index does when another falls off the bus.
    fn find(&self, device: &Device) -> Option<Gpu<'_>> {
        let by_address = device.pci.and_then(|address| self.0.device_by_pci_bus_id(address.to_string()).ok());
        by_address.or_else(|| self.0.device_by_uuid(device.uuid.as_deref()?).ok())
    }
}

fn is_readable(device: &Device) -> bool {
    !device.simulated && device.seen_by(Source::Nvml)
}

/// Each reading for itself: what this card does not support stays unknown.
fn read(device: &Device, gpu: &Gpu<'_>) -> DeviceSample {
    DeviceSample {
        device: device.id.clone(),
        utilisation: gpu.utilization_rates().ok().map(|rates| rates.gpu.min(100) as f32 / 100.0),
        // NVML counts what the driver keeps for itself apart; neither can be had by a lease.
        vram_used: gpu
            .memory_info()
            .ok()
            .map(|memory| ByteSize::bytes(memory.used.saturating_add(memory.reserved))),
        temperature_c: gpu.temperature(TemperatureSensor::Gpu).ok().map(|degrees| degrees as f32),
        power_w: gpu.power_usage().ok().map(|milliwatts| milliwatts as f32 / 1000.0),
        clocks_mhz: clocks(gpu),
        ecc_errors: ecc_errors(gpu),
        throttle_reasons: gpu.current_throttle_reasons().ok().map(reasons),
    }
}

fn clocks(gpu: &Gpu<'_>) -> Option<Clocks> {
    let clocks =
        Clocks { compute: gpu.clock_info(Clock::SM).ok(), memory: gpu.clock_info(Clock::Memory).ok() };
    (clocks != Clocks::default()).then_some(clocks)
}

fn ecc_errors(gpu: &Gpu<'_>) -> Option<EccErrors> {
    Some(EccErrors {
        corrected: gpu.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile).ok()?,
        uncorrected: gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok()?,
    })
}

fn reasons(bits: ThrottleReasons) -> Vec<ThrottleReason> {
    [
        (ThrottleReasons::GPU_IDLE, ThrottleReason::Idle),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, ThrottleReason::ClocksSetting),
        (ThrottleReasons::SW_POWER_CAP, ThrottleReason::PowerCap),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, ThrottleReason::SoftwareThermal),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, ThrottleReason::HardwareThermal),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, ThrottleReason::PowerBrake),
        (ThrottleReasons::HW_SLOWDOWN, ThrottleReason::HardwareSlowdown),
        (ThrottleReasons::SYNC_BOOST, ThrottleReason::SyncBoost),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, ThrottleReason::Display),
    ]
    .into_iter()
    .filter_map(|(bit, reason)| bits.contains(bit).then_some(reason))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_become_reasons() {
        let bits = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        assert_eq!(reasons(bits), vec![ThrottleReason::PowerCap, ThrottleReason::HardwareThermal]);
        assert_eq!(reasons(ThrottleReasons::NONE), vec![]);
    }
}
