//! Live pressure: how busy the machine is right now.
//!
//! The host is read through sysinfo, devices through [`DeviceSource`]s: NVML where the feature `nvml` is built in
//! and the inventory has a device that NVML saw, the pool's ledger where it is given, and whatever a test or a
//! simulation brings. What nobody knows is `None`, never zero.

mod host;
mod ledger;
#[cfg(feature = "nvml")]
mod nvml;
#[cfg(not(feature = "nvml"))]
#[path = "sample/nvml_off.rs"]
mod nvml;
mod process;
mod render;

use std::sync::Arc;
use std::time::Duration;

use quark_base::{ByteSize, Clock, MonotonicClock};
use serde::{Deserialize, Serialize};

use self::host::HostSource;
pub use self::ledger::LedgerSource;
pub use self::process::ProcessMemory;
pub use self::render::render;
use crate::inventory::{Device, DeviceId, Inventory, Note};

/// How busy the machine is at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveSample {
    /// When it was taken, on the sampler's clock.
    pub at: Duration,
    /// The processors; `None` in the first samples, since a load is the difference of two readings.
    pub cpu: Option<CpuLoad>,
    /// Main memory; `None` where the system does not tell.
    pub memory: Option<MemoryLoad>,
    /// Every device of the inventory, in its order.
    pub devices: Vec<DeviceSample>,
}

/// How busy the processors are, as shares from 0 (idle) to 1 (all of the time).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuLoad {
    /// The mean of all CPUs.
    pub total: f32,
    /// Each online CPU, in the kernel's order.
    pub per_core: Vec<f32>,
}

/// Main memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLoad {
    /// What is in use and could not be had back at once.
    pub used: ByteSize,
    /// What could be had without swapping.
    pub available: ByteSize,
}

/// One device at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceSample {
    /// Which.
    pub device: DeviceId,
    /// The share of the last moments in which something ran on it, 0 to 1.
    pub utilisation: Option<f32>,
    /// What is used of its memory, by everybody, the driver's own part included.
    pub vram_used: Option<ByteSize>,
    /// Of the die, in degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Of the board, in watts.
    pub power_w: Option<f32>,
    /// In megahertz.
    pub clocks_mhz: Option<Clocks>,
    /// Memory errors since the driver was loaded.
    pub ecc_errors: Option<EccErrors>,
    /// Why it runs below its full clock; empty when nothing holds it back.
    pub throttle_reasons: Option<Vec<ThrottleReason>>,
}

impl DeviceSample {
    /// A device nobody knows anything about.
    pub fn unknown(device: DeviceId) -> Self {
        Self {
            device,
            utilisation: None,
            vram_used: None,
            temperature_c: None,
            power_w: None,
            clocks_mhz: None,
            ecc_errors: None,
            throttle_reasons: None,
        }
    }

    /// Takes from `other` what is unknown here.
    fn fill_from(&mut self, other: Self) {
        self.utilisation = self.utilisation.or(other.utilisation);
        self.vram_used = self.vram_used.or(other.vram_used);
        self.temperature_c = self.temperature_c.or(other.temperature_c);
        self.power_w = self.power_w.or(other.power_w);
        self.clocks_mhz = self.clocks_mhz.or(other.clocks_mhz);
        self.ecc_errors = self.ecc_errors.or(other.ecc_errors);
        self.throttle_reasons = self.throttle_reasons.take().or(other.throttle_reasons);
    }
}

/// A device's clocks, in megahertz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Of the multiprocessors.
    pub compute: Option<u32>,
    /// Of the memory.
    pub memory: Option<u32>,
}

/// Counts of memory errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EccErrors {
    /// Repaired: no harm done.
    pub corrected: u64,
    /// Not repaired: data was lost.
    pub uncorrected: u64,
}

/// What holds a device below its full clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleReason {
    /// It has nothing to do.
    Idle,
    /// Somebody set its clocks.
    ClocksSetting,
    /// Its power limit.
    PowerCap,
    /// The driver, since it is hot.
    SoftwareThermal,
    /// The hardware, since it is very hot.
    HardwareThermal,
    /// The hardware, since the power supply asked.
    PowerBrake,
    /// The hardware, for a reason it does not tell.
    HardwareSlowdown,
    /// Another GPU of its synchronised group.
    SyncBoost,
    /// Its display.
    Display,
}

impl ThrottleReason {
    /// A short name for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::ClocksSetting => "clocks set",
            Self::PowerCap => "power cap",
            Self::SoftwareThermal => "hot",
            Self::HardwareThermal => "very hot",
            Self::PowerBrake => "power brake",
            Self::HardwareSlowdown => "slowdown",
            Self::SyncBoost => "sync boost",
            Self::Display => "display",
        }
    }

    /// Whether it tells of trouble, rather than of having nothing to do or being told so.
    pub fn is_trouble(self) -> bool {
        !matches!(self, Self::Idle | Self::ClocksSetting | Self::Display)
    }
}

/// Something that can read devices: a library, a ledger, a simulation.
///
/// An implementation MUST answer only about devices it was given, MUST leave `None` what it does not know, and MUST
/// NOT panic or block for longer than a reading takes. Failing to read is not an error: it answers less.
pub trait DeviceSource: Send {
    /// What it can read of these devices now.
    fn sample(&mut self, devices: &[Device]) -> Vec<DeviceSample>;
}

/// Takes live samples of one machine.
pub struct Sampler {
    clock: Arc<dyn Clock>,
    devices: Vec<Device>,
    host: Option<HostSource>,
    sources: Vec<Box<dyn DeviceSource>>,
    notes: Vec<Note>,
}

impl Sampler {
    /// A sampler of this machine with every source that is built in and has something to read, on the machine's
    /// monotonic clock. What could not be had is in [`Sampler::notes`].
    ///
    /// The host is this machine also where the inventory is simulated.
    pub fn new(inventory: &Inventory) -> Self {
        Self::with_clock(inventory, Arc::new(MonotonicClock::new()))
    }

    /// As [`Sampler::new`], on a clock of the caller's.
    pub fn with_clock(inventory: &Inventory, clock: Arc<dyn Clock>) -> Self {
        let mut notes = Vec::new();
        let host = HostSource::open(clock.now()).map_err(|note| notes.push(note)).ok();
        let (sources, missing) = nvml::sources(inventory);
        notes.extend(missing);
        Self { clock, devices: inventory.devices.clone(), host, sources, notes }
    }

    /// Also asks `source`, for what the sources before it do not know.
    pub fn source(mut self, source: Box<dyn DeviceSource>) -> Self {
        self.sources.push(source);
        self
    }

    /// What cannot be sampled, and why.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Reads everything now. Takes a millisecond or so, more with several GPUs; not for a turn.
    pub fn sample(&mut self) -> LiveSample {
        let at = self.clock.now();
        let (cpu, memory) = match &mut self.host {
            Some(host) => host.sample(at),
            None => (None, None),
        };
        let mut devices: Vec<DeviceSample> =
            self.devices.iter().map(|device| DeviceSample::unknown(device.id.clone())).collect();
        for source in &mut self.sources {
            for answer in source.sample(&self.devices) {
                if let Some(known) = devices.iter_mut().find(|known| known.device == answer.device) {
                    known.fill_from(answer);
                }
            }
        }
        LiveSample { at, cpu, memory, devices }
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler")
            .field("devices", &self.devices.len())
            .field("sources", &self.sources.len())
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
