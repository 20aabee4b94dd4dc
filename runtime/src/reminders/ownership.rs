//! Which part of the hash ring's reminders a silo delivers.

use crate::store::{Address, RingRange};

/// Tells a silo which parts of the ring are its own.
///
/// An implementation MUST answer at once and from what it knows. The silos of a grid SHOULD own each point between them;
/// while two of them believe to own one, its ticks may be delivered by both, with the same [`Tick::id`](super::Tick::id).
/// A service asks at each of its looks, so a change takes effect within [`LOOK_EVERY`](super::LOOK_EVERY).
pub trait RingOwnership: Send + Sync + 'static {
    /// The parts that are this silo's now. They do not overlap.
    fn owned(&self) -> Vec<RingRange>;
}

/// All of the ring: of a silo that is alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct WholeRing;

impl RingOwnership for WholeRing {
    fn owned(&self) -> Vec<RingRange> {
        vec![RingRange::ALL]
    }
}

/// Where an actor's reminders stand on the ring.
pub fn point(actor: &Address) -> u64 {
    quark_placement::hash::hash(actor.to_string().as_bytes())
}
