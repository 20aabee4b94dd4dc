//! What a silo's subscriptions have done, for reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::buffer::Counters;
use super::error::Reader;
use super::flow::Flow;

/// What a registered subscription tells of itself.
pub(crate) trait Reported: Send + Sync {
    fn counters(&self) -> &Counters;
    fn fill(&self) -> BufferFill;
    /// Throws away what is no longer needed.
    fn sweep(&self, _now: Duration) {}
    /// The silo has stopped.
    fn end(&self) {}
}

/// One subscription, as it was when somebody looked.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionReport {
    /// The namespace or pattern.
    pub namespace: &'static str,
    /// Who reads it.
    pub reader: Reader,
    /// How its items flow.
    pub flow: Flow,
    /// Items handed over: to a method's turn, into an actor's mailbox where the subscription has no buffer, or to the
    /// program.
    pub delivered: u64,
    /// Items that were not, by cause.
    pub dropped: Drops,
    /// Items that were late for a window ([`Cx::gather`](crate::Cx::gather)): of those handed over, and of those that callers
    /// handed to the `#[on_stream]` method themselves.
    pub late: u64,
    /// The buffers of all its subscribers together.
    pub buffer: BufferFill,
    /// What it reads of durable streams.
    pub groups: Vec<GroupReport>,
}

/// A group of readers of a durable stream, as this silo knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The namespace.
    pub namespace: String,
    /// The group: `actor type.method`.
    pub name: String,
    /// Items that this silo holds and has not acknowledged.
    pub in_flight: u64,
    /// Items that it has acknowledged.
    pub acknowledged: u64,
    /// Turns that did not succeed.
    pub failed_attempts: u64,
    /// Items that the store gave again.
    pub redelivered: u64,
    /// Items that became dead letters.
    pub dead: u64,
    /// Items that the group has still to acknowledge on all silos, when the store was last asked.
    pub lag: u64,
}

impl SubscriptionReport {
    /// Items that were published and are still to be handed over.
    pub fn lag(&self) -> u64 {
        self.buffer.used + self.groups.iter().map(|group| group.lag).sum::<u64>()
    }
}

/// Items that were not handed over, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// They had waited longest at a full buffer.
    pub oldest: u64,
    /// They were new at a full buffer.
    pub newest: u64,
    /// The sample did not take them.
    pub sampled_out: u64,
    /// They came above the subscription's rate, or above that of the actor's type.
    pub above_rate: u64,
    /// The actor's type refused them (circuit breaker, mailbox policy, silo draining), or their publisher would have
    /// waited for itself.
    pub refused: u64,
    /// They waited for an actor that could not be activated, a silo that stopped, or a subscription that ended.
    pub lost: u64,
}

impl Drops {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.oldest + self.newest + self.sampled_out + self.above_rate + self.refused + self.lost
    }
}

/// How full buffers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferFill {
    /// Buffers; one for each subscriber that has had items lately.
    pub buffers: usize,
    /// Items that wait in them.
    pub used: u64,
    /// Items that may.
    pub capacity: u64,
    /// The most that wait in one of them.
    pub fullest: u64,
}

impl BufferFill {
    pub(crate) fn add(&mut self, used: usize, capacity: usize) {
        self.buffers += 1;
        self.used += used as u64;
        self.capacity += capacity as u64;
        self.fullest = self.fullest.max(used as u64);
    }
}

impl Counters {
    pub(crate) fn drops(&self) -> Drops {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Drops {
            oldest: read(&self.dropped_oldest),
            newest: read(&self.dropped_newest),
            sampled_out: read(&self.sampled_out),
            above_rate: read(&self.above_rate),
            refused: read(&self.refused),
            lost: read(&self.lost),
        }
    }
}
