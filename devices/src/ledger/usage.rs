//! What the ledger tells: plain values for tables, telemetry and tests.

use std::time::Duration;

use quark_base::ByteSize;
use serde::{Deserialize, Serialize};

use crate::inventory::DeviceId;

/// One device's books at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceUsage {
    /// Whose books.
    pub device: DeviceId,
    /// What the device has.
    pub capacity: ByteSize,
    /// The part that is never leased.
    pub reserve: ByteSize,
    /// The sum of all leases.
    pub granted: ByteSize,
    /// The part of `granted` that the lease holders have allocated.
    pub debited: ByteSize,
    /// What others and the driver used at the last reading; zero before the first.
    pub foreign: ByteSize,
    /// What a new lease could take.
    pub free: ByteSize,
    /// By how much promises and foreign use together pass the device; above zero only when somebody outside took
    /// memory that was promised already.
    pub overcommitted: ByteSize,
    /// When the last reading was taken, on the clock that gave it; `None` before the first.
    pub read_at: Option<Duration>,
    /// The leases, oldest first.
    pub leases: Vec<LeaseUsage>,
}

/// One lease at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseUsage {
    /// The lease's number.
    pub lease: u64,
    /// Who holds it.
    pub owner: String,
    /// What it may allocate in all.
    pub granted: ByteSize,
    /// What it has allocated.
    pub debited: ByteSize,
    /// How long its content takes to load again.
    pub reload_cost: Duration,
    /// When it was last used, on the ledger's clock.
    pub last_used: Duration,
    /// Turns that run on it now.
    pub pins: u32,
    /// True from the start of its eviction until its memory is free.
    pub unloading: bool,
}

/// What a lease gave back when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// The device that has more free now.
    pub device: DeviceId,
    /// What may be granted again.
    pub granted: ByteSize,
    /// What its holder had not freed: above zero is a leak, and will come back as `foreign`.
    pub still_debited: ByteSize,
}
