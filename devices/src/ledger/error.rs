//! Why the ledger refuses, one enum per operation. A refusal leaves the books as they were.

use quark_base::{ByteSize, Fault, Outcome, Retry};

use super::LeaseId;
use crate::inventory::DeviceId;

/// Why a lease is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortfall {
    /// The ledger keeps no account for this device. Retrying is pointless.
    #[error("{device}: the ledger has no such device")]
    UnknownDevice {
        /// What was asked for.
        device: DeviceId,
    },
    /// More than the device could ever lease. Retrying is pointless.
    #[error("{device}: {asked} asked for, but the device has only {leasable} to lease")]
    LargerThanDevice {
        /// The device.
        device: DeviceId,
        /// The bytes asked for.
        asked: ByteSize,
        /// Its capacity less its reserve.
        leasable: ByteSize,
    },
    /// Not now: others hold it. A retry can help once `unloading` is done or victims are unloaded.
    #[error(
        "{device}: {asked} asked for, {free} free ({unloading} more while unloading, {evictable} held by leases \
         that could be evicted)"
    )]
    NotFree {
        /// The device.
        device: DeviceId,
        /// The bytes asked for.
        asked: ByteSize,
        /// The bytes a lease could take now.
        free: ByteSize,
        /// The bytes that become free without doing anything.
        unloading: ByteSize,
        /// The bytes of leases that no turn runs on.
        evictable: ByteSize,
    },
    /// The device carries as many leases as the ledger keeps. A retry can help once one ends.
    #[error("{device}: {limit} leases already, the most that one device may carry")]
    TooManyLeases {
        /// The device.
        device: DeviceId,
        /// [`super::MAX_LEASES_PER_DEVICE`].
        limit: usize,
    },
}

impl Fault for Shortfall {
    fn outcome(&self) -> Outcome {
        Outcome::Rejected
    }

    fn retry(&self) -> Retry {
        match self {
            Shortfall::UnknownDevice { .. } | Shortfall::LargerThanDevice { .. } => Retry::Pointless,
            Shortfall::NotFree { .. } | Shortfall::TooManyLeases { .. } => Retry::Safe,
        }
    }
}

/// Why an allocation inside a lease is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverLease {
    /// The lease has ended.
    #[error("{lease} has ended")]
    NoSuchLease {
        /// The lease.
        lease: LeaseId,
    },
    /// The lease is being evicted: free what it holds.
    #[error("{lease} is being unloaded and takes no more allocations")]
    Unloading {
        /// The lease.
        lease: LeaseId,
    },
    /// The allocation does not fit into what is left: free some, or ask for a larger lease.
    #[error("{lease} was granted {granted} and uses {used}: {asked} more do not fit")]
    TooMuch {
        /// The lease.
        lease: LeaseId,
        /// The bytes asked for.
        asked: ByteSize,
        /// The whole lease.
        granted: ByteSize,
        /// The part already in use.
        used: ByteSize,
    },
}

impl Fault for OverLease {
    fn outcome(&self) -> Outcome {
        Outcome::Rejected
    }

    fn retry(&self) -> Retry {
        match self {
            OverLease::NoSuchLease { .. } | OverLease::Unloading { .. } => Retry::Pointless,
            OverLease::TooMuch { .. } => Retry::Safe,
        }
    }
}

/// Why a credit is refused. Either is a bookkeeping mistake of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreditError {
    /// The lease has ended.
    #[error("{lease} has ended")]
    NoSuchLease {
        /// The lease.
        lease: LeaseId,
    },
    /// More would come back than went out.
    #[error("{lease} uses {used}: {bytes} cannot come back")]
    MoreThanUsed {
        /// The lease.
        lease: LeaseId,
        /// The bytes offered back.
        bytes: ByteSize,
        /// The bytes in use.
        used: ByteSize,
    },
}

/// Why a turn may not run on a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The lease has ended.
    #[error("{lease} has ended")]
    NoSuchLease {
        /// The lease.
        lease: LeaseId,
    },
    /// The lease is being evicted.
    #[error("{lease} is being unloaded")]
    Unloading {
        /// The lease.
        lease: LeaseId,
    },
    /// Four thousand million turns at once: pins are leaked.
    #[error("{lease} cannot carry more pins")]
    TooManyPins {
        /// The lease.
        lease: LeaseId,
    },
}

/// Why an unpin is refused. Either is a bookkeeping mistake of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpinError {
    /// The lease has ended.
    #[error("{lease} has ended")]
    NoSuchLease {
        /// The lease.
        lease: LeaseId,
    },
    /// No pin is left to take off.
    #[error("{lease} is not pinned")]
    NotPinned {
        /// The lease.
        lease: LeaseId,
    },
}

/// Why an eviction cannot begin or end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnloadError {
    /// The lease has ended: its memory is free already.
    #[error("{lease} has ended")]
    NoSuchLease {
        /// The lease.
        lease: LeaseId,
    },
    /// A turn runs on it. A retry can help once the turn is over.
    #[error("{lease} carries {pins} running turns")]
    Pinned {
        /// The lease.
        lease: LeaseId,
        /// How many turns.
        pins: u32,
    },
    /// Somebody evicts it already.
    #[error("{lease} is being unloaded already")]
    AlreadyUnloading {
        /// The lease.
        lease: LeaseId,
    },
    /// Its eviction has not begun.
    #[error("{lease} is not being unloaded")]
    NotUnloading {
        /// The lease.
        lease: LeaseId,
    },
}

/// The lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{lease} has ended")]
pub struct NoSuchLease {
    /// The lease.
    pub lease: LeaseId,
}
