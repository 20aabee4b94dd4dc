//! What a pool may be told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use quark_base::{ByteSize, Clock, MonotonicClock};

use super::LeaseError;
use crate::inventory::{Device, DeviceId, DeviceKind};

/// Memory of a GPU that is never leased unless told otherwise. A CUDA primary context with its modules and the
/// libraries' workspaces takes 300 to 500 MiB on current data-centre cards.
pub const DEFAULT_RESERVE: ByteSize = ByteSize::mib(512);

/// Small devices hold back at most this part of themselves: a sixteenth of 8 GiB is [`DEFAULT_RESERVE`].
const RESERVE_SHARE_MAX: u64 = 16;

/// What is leased of a software adapter unless told otherwise. Its memory is main memory, and lavapipe takes no
/// buffer above 2 GiB - 1.
pub const DEFAULT_SOFTWARE_CAPACITY: ByteSize = ByteSize::gib(2);

/// How a [`super::DevicePool`] treats its devices.
#[derive(Clone)]
pub struct PoolOptions {
    software_adapters: bool,
    software_capacity: ByteSize,
    reserve: ByteSize,
    capacities: BTreeMap<DeviceId, ByteSize>,
    clock: Option<Arc<dyn Clock>>,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            software_adapters: false,
            software_capacity: DEFAULT_SOFTWARE_CAPACITY,
            reserve: DEFAULT_RESERVE,
            capacities: BTreeMap::new(),
            clock: None,
        }
    }
}

impl PoolOptions {
    /// The defaults: GPUs only, [`DEFAULT_RESERVE`] held back on each, the machine's monotonic clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether CPUs that play GPU (llvmpipe) can be leased. They cannot unless this says so.
    pub fn software_adapters(mut self, allowed: bool) -> Self {
        self.software_adapters = allowed;
        self
    }

    /// How much of main memory a software adapter may lease out.
    pub fn software_capacity(mut self, capacity: ByteSize) -> Self {
        self.software_capacity = capacity;
        self
    }

    /// What is never leased of each GPU, for contexts, modules and the driver; at most a sixteenth of the device.
    /// Software adapters hold nothing back.
    pub fn reserve(mut self, reserve: ByteSize) -> Self {
        self.reserve = reserve;
        self
    }

    /// Leases at most this much of one device, and says how much it has when no library does.
    pub fn capacity(mut self, device: DeviceId, capacity: ByteSize) -> Self {
        self.capacities.insert(device, capacity);
        self
    }

    /// The clock that recency is measured on.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    pub(super) fn clock_or_monotonic(&self) -> Arc<dyn Clock> {
        self.clock.clone().unwrap_or_else(|| Arc::new(MonotonicClock::new()))
    }

    /// The device's capacity and reserve in the ledger, or why it has no account.
    pub(super) fn account(&self, device: &Device) -> Result<(ByteSize, ByteSize), LeaseError> {
        let told = self.capacities.get(&device.id).copied();
        match device.kind {
            DeviceKind::SoftwareAdapter if self.software_adapters => {
                let capacity = told.unwrap_or(self.software_capacity);
                // Its heap is a part of main memory; without one, the limit is all there is to go by.
                let heap = if device.vram.is_zero() { capacity } else { device.vram };
                Ok((capacity.min(heap), ByteSize::ZERO))
            }
            DeviceKind::SoftwareAdapter => {
                Err(LeaseError::SoftwareAdapter { device: device.id.clone(), name: device.name.clone() })
            }
            kind if kind.is_gpu() => {
                let seen = (!device.vram.is_zero()).then_some(device.vram);
                let capacity = match (seen, told) {
                    (Some(seen), Some(told)) => seen.min(told),
                    (Some(one), None) | (None, Some(one)) => one,
                    (None, None) => {
                        return Err(LeaseError::UnknownMemory {
                            device: device.id.clone(),
                            name: device.name.clone(),
                        });
                    }
                };
                let share = ByteSize::bytes(capacity.as_u64() / RESERVE_SHARE_MAX);
                Ok((capacity, self.reserve.min(share)))
            }
            kind => Err(LeaseError::NotForComputing { device: device.id.clone(), kind }),
        }
    }
}

impl fmt::Debug for PoolOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolOptions")
            .field("software_adapters", &self.software_adapters)
            .field("software_capacity", &self.software_capacity)
            .field("reserve", &self.reserve)
            .field("capacities", &self.capacities)
            .finish_non_exhaustive()
    }
}
