//! What a pool's own leases use: the reading of last resort, for devices that no library can read (software
//! adapters, simulated devices, other vendors' GPUs).

use std::sync::Arc;

use super::{DeviceSample, DeviceSource};
use crate::inventory::Device;
use crate::pool::DevicePool;

/// Answers with what the pool's leases have allocated. It knows nothing of other processes, so it belongs behind a
/// source that does.
#[derive(Debug)]
pub struct LedgerSource(Arc<DevicePool>);

impl LedgerSource {
    /// Reads this pool.
    pub fn new(pool: Arc<DevicePool>) -> Self {
        Self(pool)
    }
}

impl DeviceSource for LedgerSource {
    fn sample(&mut self, devices: &[Device]) -> Vec<DeviceSample> {
        let known =
            self.0.usage().into_iter().filter(|usage| devices.iter().any(|device| device.id == usage.device));
        known
            .map(|usage| DeviceSample {
                vram_used: Some(usage.debited),
                ..DeviceSample::unknown(usage.device)
            })
            .collect()
    }
}
