//! A lease: one owner's share of one device, and what it has allocated of it.
//!
//! [`DeviceLease`], [`Reservation`], [`TurnPin`] and the typed allocations of the GPU backends all hold the same
//! lease alive. The ledger gets the bytes back when the last of them is dropped, so memory that is still in use
//! is never promised to somebody else.
//!
//! With the feature `wgpu` a lease also has `wgpu()`, `create_buffer()` and `upload_buffer()`; with the feature
//! `cuda` it has `cuda()`, `alloc_zeros()` and `alloc_copy()`. Those methods stand in [`crate::context`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quark_base::ByteSize;

use crate::context::LeaseContexts;
use crate::inventory::Device;
use crate::ledger::{LeaseId, OverLease, PinError};
use crate::pool::DevicePool;

/// A promise of so many bytes of one device. Dropping it, and all that was allocated through it, ends it.
pub struct DeviceLease {
    pub(crate) inner: Arc<LeaseInner>,
}

/// What a lease and its allocations share.
pub(crate) struct LeaseInner {
    pub(crate) pool: Arc<DevicePool>,
    id: LeaseId,
    /// Place of the device in the inventory, which never changes.
    device: usize,
    granted: ByteSize,
    /// The contexts this lease works in, fixed at first use: buffers of two contexts do not mix.
    #[allow(dead_code, reason = "each backend reads its own part, if it is built in")]
    pub(crate) contexts: LeaseContexts,
}

impl DeviceLease {
    pub(crate) fn new(pool: Arc<DevicePool>, id: LeaseId, device: usize, granted: ByteSize) -> Self {
        Self { inner: Arc::new(LeaseInner { pool, id, device, granted, contexts: LeaseContexts::default() }) }
    }

    /// The lease's number.
    pub fn id(&self) -> LeaseId {
        self.inner.id
    }

    /// The device.
    pub fn device(&self) -> &Device {
        self.inner.device()
    }

    /// The pool it belongs to.
    pub fn pool(&self) -> &Arc<DevicePool> {
        &self.inner.pool
    }

    /// What may be allocated in all.
    pub fn granted(&self) -> ByteSize {
        self.inner.granted
    }

    /// What is allocated now.
    pub fn used(&self) -> ByteSize {
        self.inner.pool.ledger.lock().lease(self.inner.id).map_or(ByteSize::ZERO, |usage| usage.debited)
    }

    /// True on a device from a topology file: it can be leased and accounted, and nothing can run on it.
    pub fn is_simulated(&self) -> bool {
        self.device().simulated
    }

    /// Takes `bytes` out of the lease until the returned value is dropped: for memory that is allocated by other
    /// means than this lease's own methods.
    pub fn reserve(&self, bytes: ByteSize) -> Result<Reservation, OverLease> {
        self.inner.pool.ledger.lock().debit(self.inner.id, bytes)?;
        Ok(Reservation { lease: Arc::clone(&self.inner), bytes })
    }

    /// Notes a use: the lease becomes a later victim.
    pub fn touch(&self) {
        if let Err(error) = self.inner.pool.touch(self.inner.id) {
            tracing::error!(%error, "a living lease is not in the ledger");
        }
    }

    /// Tells what the content takes to load again, once that was measured: dear content is a later victim.
    pub fn set_reload_cost(&self, reload_cost: Duration) {
        if let Err(error) = self.inner.pool.set_reload_cost(self.inner.id, reload_cost) {
            tracing::error!(%error, "a living lease is not in the ledger");
        }
    }

    /// Keeps the lease from being evicted while a turn runs on it, until the returned value is dropped; its end
    /// counts as a use. Refused once the lease is being unloaded.
    pub fn pin(&self) -> Result<TurnPin, PinError> {
        self.inner.pool.ledger.lock().pin(self.inner.id)?;
        Ok(TurnPin { lease: Arc::clone(&self.inner) })
    }
}

impl fmt::Debug for DeviceLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceLease")
            .field("id", &self.inner.id)
            .field("device", &self.device().id)
            .field("granted", &self.inner.granted)
            .field("used", &self.used())
            .finish()
    }
}

impl LeaseInner {
    pub(crate) fn device(&self) -> &Device {
        &self.pool.inventory().devices[self.device]
    }
}

impl Drop for LeaseInner {
    fn drop(&mut self) {
        self.pool.release(self.id);
    }
}

/// Bytes taken out of a lease; they go back when this is dropped.
#[must_use = "dropping it gives the bytes back"]
pub struct Reservation {
    lease: Arc<LeaseInner>,
    bytes: ByteSize,
}

impl Reservation {
    /// How many.
    pub fn bytes(&self) -> ByteSize {
        self.bytes
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("lease", &self.lease.id).field("bytes", &self.bytes).finish()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let credited = self.lease.pool.ledger.lock().credit(self.lease.id, self.bytes);
        if let Err(error) = credited {
            tracing::error!(%error, "a reservation could not be given back");
        }
    }
}

/// A running turn on a lease, which is no victim meanwhile.
#[must_use = "dropping it ends the pin"]
pub struct TurnPin {
    lease: Arc<LeaseInner>,
}

impl fmt::Debug for TurnPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnPin").field("lease", &self.lease.id).finish()
    }
}

impl Drop for TurnPin {
    fn drop(&mut self) {
        let unpinned = self.lease.pool.ledger.lock().unpin(self.lease.id);
        if let Err(error) = unpinned {
            tracing::error!(%error, "a pin could not be taken off");
        }
        // The lease lives, or the line above has said so already.
        let _ = self.lease.pool.touch(self.lease.id);
    }
}
