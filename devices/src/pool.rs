//! The thread-safe shell around the ledger: one pool per silo, shared by everything that needs a device.
//!
//! The pool decides nothing itself: it asks the clock for `now`, takes the lock, calls the [`VramLedger`], and
//! wakes whoever waits for memory to come free. GPU contexts are opened on first use, one per device, and shared
//! by all leases of that device.
//!
//! Locks: the ledger's lock is held for the length of one ledger call and never while a driver is called.

mod options;
#[cfg(test)]
pub(crate) mod tests;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quark_base::{ByteSize, Clock, Fault, Outcome, Retry};

pub use self::options::{DEFAULT_RESERVE, DEFAULT_SOFTWARE_CAPACITY, PoolOptions};
use self::waiters::Waiters;
pub use self::waiters::{MAX_WAITERS, MemoryFreed};
use crate::context::Contexts;
use crate::inventory::{Device, DeviceId, DeviceKind, Inventory};
use crate::lease::DeviceLease;
use crate::ledger::{DeviceUsage, LeaseId, NoSuchLease, Shortfall, UnloadError, VramLedger};
use crate::sample::LiveSample;

/// The devices of one silo: who holds how much of them, and their opened contexts.
pub struct DevicePool {
    inventory: Arc<Inventory>,
    options: PoolOptions,
    clock: Arc<dyn Clock>,
    pub(crate) ledger: Mutex<VramLedger>,
    waiters: Arc<Mutex<Waiters>>,
    #[allow(dead_code, reason = "each backend reads its own part, if it is built in")]
    pub(crate) contexts: Contexts,
}

impl DevicePool {
    /// Opens the books for the devices of this inventory that can be leased. No driver is called yet.
    pub fn open(inventory: Arc<Inventory>, options: PoolOptions) -> Arc<Self> {
        let accounts = inventory.devices.iter().filter_map(|device| {
            let (capacity, reserve) = options.account(device).ok()?;
            Some((device.id.clone(), capacity, reserve))
        });
        let ledger = VramLedger::new(accounts);
        Arc::new(Self {
            clock: options.clock_or_monotonic(),
            ledger: Mutex::new(ledger),
            waiters: Arc::default(),
            contexts: Contexts::default(),
            inventory,
            options,
        })
    }

    /// The machine this pool stands on.
    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.inventory
    }

    /// A device of the inventory, whether it can be leased or not.
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.inventory.device(id)
    }

    /// Leases `bytes` of a device to `owner`, or says why not; nothing is evicted by asking. `reload_cost` is how
    /// long the content takes to load again. The lease ends when the returned value and all that was allocated
    /// through it are dropped.
    pub fn lease(
        self: &Arc<Self>,
        device: &DeviceId,
        bytes: ByteSize,
        owner: &str,
        reload_cost: Duration,
    ) -> Result<DeviceLease, LeaseError> {
        let (index, entry) = self.find(device)?;
        self.options.account(entry)?;
        let now = self.clock.now();
        let id = self.ledger.lock().grant(device, bytes, owner, reload_cost, now)?;
        Ok(DeviceLease::new(Arc::clone(self), id, index, bytes))
    }

    /// What a new lease of this device could take now, or why it can have none whatever its size.
    pub fn leasable(&self, device: &DeviceId) -> Result<ByteSize, LeaseError> {
        let (_, entry) = self.find(device)?;
        self.options.account(entry)?;
        Ok(self.ledger.lock().free(device))
    }

    /// The books of every leasable device, in the inventory's order.
    pub fn usage(&self) -> Vec<DeviceUsage> {
        self.ledger.lock().snapshot()
    }

    /// The leases whose owners should unload so that `bytes` fit on `device`; see [`VramLedger::victims`].
    pub fn victims(&self, device: &DeviceId, bytes: ByteSize) -> Vec<LeaseId> {
        let now = self.clock.now();
        self.ledger.lock().victims(device, bytes, now)
    }

    /// Starts to evict a lease: it takes no more allocations. Its bytes come free when its owner drops it and what
    /// it allocated, and not before; [`DevicePool::memory_freed`] tells when.
    pub fn begin_unload(&self, lease: LeaseId) -> Result<(), UnloadError> {
        self.ledger.lock().begin_unload(lease)
    }

    /// Notes that a lease was used now.
    pub fn touch(&self, lease: LeaseId) -> Result<(), NoSuchLease> {
        let now = self.clock.now();
        self.ledger.lock().touch(lease, now)
    }

    /// Corrects what a lease's content takes to load again, once that was measured.
    pub fn set_reload_cost(&self, lease: LeaseId, reload_cost: Duration) -> Result<(), NoSuchLease> {
        let now = self.clock.now();
        self.ledger.lock().set_reload_cost(lease, reload_cost, now)
    }

    /// Takes in what the driver says is really used on a device, by everybody; false if it is not leasable.
    pub fn reconcile(&self, device: &DeviceId, really_used: ByteSize) -> bool {
        let now = self.clock.now();
        let known = self.ledger.lock().reconcile(device, really_used, now);
        // Others may have given memory back, so whoever waits should ask again.
        Waiters::wake_all(&self.waiters);
        known
    }

    /// Takes in the memory readings of a live sample.
    pub fn reconcile_with(&self, sample: &LiveSample) {
        for device in &sample.devices {
            if let Some(used) = device.vram_used {
                self.reconcile(&device.device, used);
            }
        }
    }

    /// Completes once memory has come free, on any device, after this call: a lease ended or a reading came in.
    /// Ask for it before [`DevicePool::lease`], so that nothing is missed between the two. It may also complete
    /// for no reason; ask again. Dropping it cancels nothing.
    pub fn memory_freed(&self) -> MemoryFreed {
        Waiters::wait(&self.waiters)
    }

    /// Ends a lease; called when the last of its holders is dropped.
    pub(crate) fn release(&self, lease: LeaseId) {
        let released = self.ledger.lock().release(lease);
        match released {
            Ok(released) if !released.still_debited.is_zero() => {
                tracing::error!(%lease, bytes = %released.still_debited, "a lease ended before its allocations");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "a lease was released twice"),
        }
        Waiters::wake_all(&self.waiters);
    }

    fn find(&self, id: &DeviceId) -> Result<(usize, &Device), LeaseError> {
        let found = self.inventory.devices.iter().enumerate().find(|(_, device)| &device.id == id);
        found.ok_or_else(|| LeaseError::UnknownDevice { device: id.clone() })
    }
}

impl std::fmt::Debug for DevicePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevicePool").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

/// Why a device gives no lease. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The inventory has no such device. Retrying is pointless.
    #[error("{device}: no such device in the inventory")]
    UnknownDevice {
        /// The device.
        device: DeviceId,
    },
    /// A CPU that plays GPU, and the pool was not told to lease those. Retrying is pointless.
    #[error("{device}: {name} is a software adapter, and software adapters are not allowed here")]
    SoftwareAdapter {
        /// The device.
        device: DeviceId,
        /// Its name.
        name: String,
    },
    /// Nothing computes on a device of this kind. Retrying is pointless.
    #[error("{device}: nothing can be leased from a device of the kind \"{kind}\"")]
    NotForComputing {
        /// The device.
        device: DeviceId,
        /// Its kind.
        kind: DeviceKind,
    },
    /// No library tells how much memory the device has. Retrying is pointless; setting its capacity helps.
    #[error("{device}: nothing tells how much memory {name} has; set its capacity in the pool's options")]
    UnknownMemory {
        /// The device.
        device: DeviceId,
        /// Its name.
        name: String,
    },
    /// The ledger refuses.
    #[error(transparent)]
    Shortfall(#[from] Shortfall),
}

impl Fault for LeaseError {
    fn outcome(&self) -> Outcome {
        Outcome::Rejected
    }

    fn retry(&self) -> Retry {
        match self {
            LeaseError::Shortfall(shortfall) => shortfall.retry(),
            _ => Retry::Pointless,
        }
    }
}
