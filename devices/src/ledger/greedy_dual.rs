//! GreedyDual-Size: which leases to give up.
//!
//! A lease's credit is `L + cost / size`, set when it is granted and at every use; the lowest credit goes first
//! and `L` rises to it. So a lease that frees much and loads fast goes before one that frees little and loads
//! slowly, and one that is never used again is overtaken by `L` sooner or later, however dear it was.

use std::cmp::Ordering;
use std::time::Duration;

use super::LeaseId;

/// Sizes are counted in MiB so that credits stay within a few decimal digits of one.
const CREDIT_UNIT_BYTES: f64 = (1u64 << 20) as f64;

/// A lease that may go.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) lease: LeaseId,
    pub(super) bytes: u64,
    pub(super) credit: f64,
    pub(super) idle: Duration,
}

impl Candidate {
    /// The order in which leases go: low credit, then long idle, then old.
    fn order(&self, other: &Self) -> Ordering {
        self.credit
            .total_cmp(&other.credit)
            .then_with(|| other.idle.cmp(&self.idle))
            .then_with(|| self.lease.cmp(&other.lease))
    }
}

/// The credit of a lease that is used now: seconds to reload per MiB freed, above the device's inflation.
pub(super) fn credit(inflation: f64, bytes: u64, reload_cost: Duration) -> f64 {
    inflation + reload_cost.as_secs_f64() / (bytes.max(1) as f64 / CREDIT_UNIT_BYTES)
}

/// The cheapest of `candidates` that together free `missing` bytes, in the order they should go; none when they
/// cannot.
pub(super) fn choose(mut candidates: Vec<Candidate>, missing: u64) -> Vec<LeaseId> {
    if missing == 0 {
        return Vec::new();
    }
    candidates.sort_by(Candidate::order);
    let mut freed = 0u64;
    let mut chosen = Vec::new();
    for candidate in candidates {
        if freed >= missing {
            break;
        }
        freed = freed.saturating_add(candidate.bytes);
        chosen.push(candidate);
    }
    if freed < missing {
        return Vec::new();
    }
    // A large lease taken last may have made smaller ones before it needless; the dearest of those stay first.
    let mut kept = Vec::with_capacity(chosen.len());
    for candidate in chosen.into_iter().rev() {
        if freed - candidate.bytes >= missing {
            freed -= candidate.bytes;
        } else {
            kept.push(candidate.lease);
        }
    }
    kept.reverse();
    kept
}
