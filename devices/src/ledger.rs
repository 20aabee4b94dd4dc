//! The VRAM ledger: who may use how much of which device.
//!
//! Pure bookkeeping: no clock, no lock, no device. Time comes in as `now`, what the driver says comes in through
//! [`VramLedger::reconcile`], and everything it decides can be read back with [`VramLedger::snapshot`].
//!
//! Per device, in bytes:
//!
//! ```text
//! capacity = held back + granted + free
//!            |           |          `- what a new lease may take
//!            |           `- sum of the leases, used by their owners or not
//!            `- the larger of `reserve` (fixed) and `foreign` (what others, and the driver, were seen to use)
//! ```
//!
//! `granted <= capacity - reserve` holds always: the ledger never promises more than the device has. `free` can
//! only be pushed below zero from outside (another process takes memory that is already promised); that shows as
//! [`DeviceUsage::overcommitted`], and [`VramLedger::victims`] then names leases to give up even for zero bytes.
//!
//! A lease is *active*, then perhaps *unloading* ([`VramLedger::begin_unload`]): its bytes still count until
//! [`VramLedger::finish_unload`], because the device memory is not free before its owner has let go of it.

mod error;
mod greedy_dual;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::BTreeMap;
use std::time::Duration;

use quark_base::ByteSize;

pub use self::error::{CreditError, NoSuchLease, OverLease, PinError, Shortfall, UnloadError, UnpinError};
use self::greedy_dual::Candidate;
pub use self::usage::{DeviceUsage, LeaseUsage, Released};
use crate::inventory::DeviceId;

/// Leases that one device may carry at once. A GPU of 192 GiB cut into 64 Ki leases would give 3 MiB each, less
/// than a context needs; more than this is a caller that leaks. At the bound [`Shortfall::TooManyLeases`].
pub const MAX_LEASES_PER_DEVICE: usize = 65_536;

/// Longest owner name that is kept, in bytes; the rest is cut off.
pub const MAX_OWNER_BYTES: usize = 256;

/// The name of one lease, never used twice by one ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(u64);

impl LeaseId {
    /// The lease's number, for logs and tables.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for LeaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lease {}", self.0)
    }
}

/// Grants VRAM in bytes per device, never above the device.
#[derive(Clone, Debug)]
pub struct VramLedger {
    accounts: Vec<Account>,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: u64,
}

/// One device's side of the books.
#[derive(Clone, Debug)]
struct Account {
    device: DeviceId,
    capacity: u64,
    reserve: u64,
    /// Sum of `granted` over the device's leases.
    granted: u64,
    /// Sum of `debited` over the device's leases.
    debited: u64,
    /// Bytes that the last reading showed beyond `debited`.
    foreign: u64,
    read_at: Option<Duration>,
    lease_count: usize,
    /// GreedyDual's `L`: the credit of the last lease that was evicted.
    inflation: f64,
}

#[derive(Clone, Debug)]
struct Lease {
    account: usize,
    owner: String,
    granted: u64,
    debited: u64,
    reload_cost: Duration,
    last_used: Duration,
    /// GreedyDual's `H`, refreshed at every use.
    credit: f64,
    pins: u32,
    unloading: bool,
}

impl VramLedger {
    /// Books for these devices, each with its capacity and the part of it that is never leased (contexts, modules
    /// and the driver's own needs). A device named twice keeps its first entry; a reserve above the capacity
    /// leaves nothing to lease.
    pub fn new(devices: impl IntoIterator<Item = (DeviceId, ByteSize, ByteSize)>) -> Self {
        let mut accounts: Vec<Account> = Vec::new();
        for (device, capacity, reserve) in devices {
            if accounts.iter().any(|account| account.device == device) {
                continue;
            }
            accounts.push(Account {
                device,
                capacity: capacity.as_u64(),
                reserve: reserve.as_u64().min(capacity.as_u64()),
                granted: 0,
                debited: 0,
                foreign: 0,
                read_at: None,
                lease_count: 0,
                inflation: 0.0,
            });
        }
        Self { accounts, leases: BTreeMap::new(), next_lease: 1 }
    }

    /// Promises `bytes` of `device` to `owner`. `reload_cost` is how long its content takes to load again: what
    /// an eviction would cost. A lease of zero bytes is allowed and is never a victim.
    pub fn grant(
        &mut self,
        device: &DeviceId,
        bytes: ByteSize,
        owner: &str,
        reload_cost: Duration,
        now: Duration,
    ) -> Result<LeaseId, Shortfall> {
        let index =
            self.account_index(device).ok_or_else(|| Shortfall::UnknownDevice { device: device.clone() })?;
        let account = &self.accounts[index];
        if bytes.as_u64() > account.leasable() {
            return Err(Shortfall::LargerThanDevice {
                device: device.clone(),
                asked: bytes,
                leasable: ByteSize::bytes(account.leasable()),
            });
        }
        if account.lease_count >= MAX_LEASES_PER_DEVICE {
            return Err(Shortfall::TooManyLeases { device: device.clone(), limit: MAX_LEASES_PER_DEVICE });
        }
        if bytes.as_u64() > account.free() {
            return Err(Shortfall::NotFree {
                device: device.clone(),
                asked: bytes,
                free: ByteSize::bytes(account.free()),
                unloading: ByteSize::bytes(self.sum_granted(index, |lease| lease.unloading)),
                evictable: ByteSize::bytes(self.sum_granted(index, Lease::is_evictable)),
            });
        }
        let account = &mut self.accounts[index];
        account.granted += bytes.as_u64();
        account.lease_count += 1;
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let credit = greedy_dual::credit(account.inflation, bytes.as_u64(), reload_cost);
        self.leases.insert(
            id,
            Lease {
                account: index,
                owner: cut_owner(owner),
                granted: bytes.as_u64(),
                debited: 0,
                reload_cost,
                last_used: now,
                credit,
                pins: 0,
                unloading: false,
            },
        );
        Ok(id)
    }

    /// Takes `bytes` out of what the lease may still allocate.
    pub fn debit(&mut self, lease: LeaseId, bytes: ByteSize) -> Result<(), OverLease> {
        let entry = self.leases.get_mut(&lease).ok_or(OverLease::NoSuchLease { lease })?;
        if entry.unloading {
            return Err(OverLease::Unloading { lease });
        }
        let left = entry.granted - entry.debited;
        if bytes.as_u64() > left {
            return Err(OverLease::TooMuch {
                lease,
                asked: bytes,
                granted: ByteSize::bytes(entry.granted),
                used: ByteSize::bytes(entry.debited),
            });
        }
        entry.debited += bytes.as_u64();
        self.accounts[entry.account].debited += bytes.as_u64();
        Ok(())
    }

    /// Gives `bytes` that were debited back to the lease. Works while it unloads: that is how it unloads.
    pub fn credit(&mut self, lease: LeaseId, bytes: ByteSize) -> Result<(), CreditError> {
        let entry = self.leases.get_mut(&lease).ok_or(CreditError::NoSuchLease { lease })?;
        if bytes.as_u64() > entry.debited {
            return Err(CreditError::MoreThanUsed { lease, bytes, used: ByteSize::bytes(entry.debited) });
        }
        entry.debited -= bytes.as_u64();
        self.accounts[entry.account].debited -= bytes.as_u64();
        Ok(())
    }

    /// Notes that the lease was used at `now`, which makes it a later victim.
    pub fn touch(&mut self, lease: LeaseId, now: Duration) -> Result<(), NoSuchLease> {
        let entry = self.leases.get_mut(&lease).ok_or(NoSuchLease { lease })?;
        entry.last_used = entry.last_used.max(now);
        let inflation = self.accounts[entry.account].inflation;
        entry.credit = greedy_dual::credit(inflation, entry.granted, entry.reload_cost);
        Ok(())
    }

    /// Corrects what the lease's content takes to load again, once that was measured, and counts as a use at `now`.
    pub fn set_reload_cost(
        &mut self,
        lease: LeaseId,
        reload_cost: Duration,
        now: Duration,
    ) -> Result<(), NoSuchLease> {
        self.leases.get_mut(&lease).ok_or(NoSuchLease { lease })?.reload_cost = reload_cost;
        self.touch(lease, now)
    }

    /// Marks that a turn runs on this lease: it is no victim until as many [`VramLedger::unpin`] followed.
    pub fn pin(&mut self, lease: LeaseId) -> Result<(), PinError> {
        let entry = self.leases.get_mut(&lease).ok_or(PinError::NoSuchLease { lease })?;
        if entry.unloading {
            return Err(PinError::Unloading { lease });
        }
        entry.pins = entry.pins.checked_add(1).ok_or(PinError::TooManyPins { lease })?;
        Ok(())
    }

    /// Ends one [`VramLedger::pin`].
    pub fn unpin(&mut self, lease: LeaseId) -> Result<(), UnpinError> {
        let entry = self.leases.get_mut(&lease).ok_or(UnpinError::NoSuchLease { lease })?;
        entry.pins = entry.pins.checked_sub(1).ok_or(UnpinError::NotPinned { lease })?;
        Ok(())
    }

    /// Starts to evict a lease: it takes no more debits and pins, and its bytes stay taken until
    /// [`VramLedger::finish_unload`] or [`VramLedger::release`]. Refused while a turn runs on it.
    pub fn begin_unload(&mut self, lease: LeaseId) -> Result<(), UnloadError> {
        let entry = self.leases.get_mut(&lease).ok_or(UnloadError::NoSuchLease { lease })?;
        if entry.pins > 0 {
            return Err(UnloadError::Pinned { lease, pins: entry.pins });
        }
        if entry.unloading {
            return Err(UnloadError::AlreadyUnloading { lease });
        }
        entry.unloading = true;
        let account = &mut self.accounts[entry.account];
        account.inflation = account.inflation.max(entry.credit);
        Ok(())
    }

    /// Ends an eviction: the owner has freed its memory, and the bytes may be granted again.
    pub fn finish_unload(&mut self, lease: LeaseId) -> Result<Released, UnloadError> {
        match self.leases.get(&lease) {
            None => Err(UnloadError::NoSuchLease { lease }),
            Some(entry) if !entry.unloading => Err(UnloadError::NotUnloading { lease }),
            Some(_) => self.release(lease).map_err(|_| UnloadError::NoSuchLease { lease }),
        }
    }

    /// Ends a lease whatever state it is in, and says what it still had debited (nothing, if its owner freed
    /// everything first).
    pub fn release(&mut self, lease: LeaseId) -> Result<Released, NoSuchLease> {
        let entry = self.leases.remove(&lease).ok_or(NoSuchLease { lease })?;
        let account = &mut self.accounts[entry.account];
        account.granted -= entry.granted;
        account.debited -= entry.debited;
        account.lease_count -= 1;
        Ok(Released {
            device: account.device.clone(),
            granted: ByteSize::bytes(entry.granted),
            still_debited: ByteSize::bytes(entry.debited),
        })
    }

    /// Takes in what the driver says is really used on `device`, all processes together. What is beyond this
    /// ledger's own debits belongs to others (or to the driver) and shrinks what is free. Readings older than the
    /// last are ignored; a device without an account answers false.
    ///
    /// A reading that crosses with an allocation is off by that allocation until the next reading.
    pub fn reconcile(&mut self, device: &DeviceId, really_used: ByteSize, now: Duration) -> bool {
        let Some(index) = self.account_index(device) else { return false };
        let account = &mut self.accounts[index];
        if account.read_at.is_none_or(|read_at| read_at <= now) {
            account.foreign = really_used.as_u64().saturating_sub(account.debited).min(account.capacity);
            account.read_at = Some(now);
        }
        true
    }

    /// The leases to unload so that `bytes` more fit on `device`, cheapest first by GreedyDual, counting what is
    /// unloading already as free soon. Empty when nothing need go, and also when even all that may go would not
    /// be enough: an eviction that helps nobody is none. Pinned leases are never among them.
    ///
    /// The order is GreedyDual-Size (P. Cao, S. Irani, "Cost-Aware WWW Proxy Caching Algorithms", USITS 1997,
    /// after N. Young, "The k-server dual and loose competitiveness for paging", Algorithmica 11, 1994); among
    /// equal credits the one idle longest at `now` goes first.
    pub fn victims(&self, device: &DeviceId, bytes: ByteSize, now: Duration) -> Vec<LeaseId> {
        let Some(index) = self.account_index(device) else { return Vec::new() };
        let account = &self.accounts[index];
        let coming = self.sum_granted(index, |lease| lease.unloading);
        let wanted =
            account.held_back().saturating_add(account.granted - coming).saturating_add(bytes.as_u64());
        let missing = wanted.saturating_sub(account.capacity);
        let candidates = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.account == index && lease.is_evictable())
            .map(|(id, lease)| Candidate {
                lease: *id,
                bytes: lease.granted,
                credit: lease.credit,
                idle: now.saturating_sub(lease.last_used),
            })
            .collect();
        greedy_dual::choose(candidates, missing)
    }

    /// What a new lease on `device` could take now; nothing for a device without an account.
    pub fn free(&self, device: &DeviceId) -> ByteSize {
        ByteSize::bytes(self.account_index(device).map_or(0, |index| self.accounts[index].free()))
    }

    /// What a lease has been granted and has debited, while it lives.
    pub fn lease(&self, lease: LeaseId) -> Option<LeaseUsage> {
        self.leases.get(&lease).map(|entry| entry.usage(lease))
    }

    /// Every device's books, in the order given to [`VramLedger::new`], with its leases by age.
    pub fn snapshot(&self) -> Vec<DeviceUsage> {
        let mut usages: Vec<DeviceUsage> = self.accounts.iter().map(Account::usage).collect();
        for (id, lease) in &self.leases {
            usages[lease.account].leases.push(lease.usage(*id));
        }
        usages
    }

    fn account_index(&self, device: &DeviceId) -> Option<usize> {
        self.accounts.iter().position(|account| account.device == *device)
    }

    fn sum_granted(&self, account: usize, counts: impl Fn(&Lease) -> bool) -> u64 {
        let leases = self.leases.values().filter(|lease| lease.account == account && counts(lease));
        leases.map(|lease| lease.granted).sum()
    }
}

impl Account {
    fn leasable(&self) -> u64 {
        self.capacity - self.reserve
    }

    fn held_back(&self) -> u64 {
        self.reserve.max(self.foreign)
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.held_back()).saturating_sub(self.granted)
    }

    fn usage(&self) -> DeviceUsage {
        let promised = self.held_back().saturating_add(self.granted);
        DeviceUsage {
            device: self.device.clone(),
            capacity: ByteSize::bytes(self.capacity),
            reserve: ByteSize::bytes(self.reserve),
            granted: ByteSize::bytes(self.granted),
            debited: ByteSize::bytes(self.debited),
            foreign: ByteSize::bytes(self.foreign),
            free: ByteSize::bytes(self.free()),
            overcommitted: ByteSize::bytes(promised.saturating_sub(self.capacity)),
            read_at: self.read_at,
            leases: Vec::new(),
        }
    }
}

impl Lease {
    fn is_evictable(&self) -> bool {
        self.pins == 0 && !self.unloading && self.granted > 0
    }

    fn usage(&self, lease: LeaseId) -> LeaseUsage {
        LeaseUsage {
            lease: lease.as_u64(),
            owner: self.owner.clone(),
            granted: ByteSize::bytes(self.granted),
            debited: ByteSize::bytes(self.debited),
            reload_cost: self.reload_cost,
            last_used: self.last_used,
            pins: self.pins,
            unloading: self.unloading,
        }
    }
}

fn cut_owner(owner: &str) -> String {
    let end = owner.floor_char_boundary(MAX_OWNER_BYTES);
    owner[..end].to_owned()
}
