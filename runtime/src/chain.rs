//! Call chains: which turns wait for which, so that a call that can only deadlock is refused at once.
//!
//! While calls run inline, the chain is the stack: each turn knows the turn below it, and nothing is allocated.
//! When a turn outlives the poll it began in, its ancestors are written down as [`ChainLink`]s, which any thread
//! may read at any later time.

use std::sync::Arc;

use quark_base::ActorId;

use crate::error::CallChain;
use crate::turn::sync::{AtomicBool, Ordering};

/// One waiting turn, and whom it waits for it in turn.
pub(crate) struct ChainLink {
    /// The turn's identity: unique among living turns, and never compared with one that has ended.
    pub(crate) turn: usize,
    /// The slot the turn runs on. The link keeps it alive, so that no other slot gets its address.
    pub(crate) slot: Arc<dyn crate::turn::AnySlot>,
    pub(crate) exclusive: bool,
    pub(crate) caller: Option<Arc<ChainLink>>,
    /// The turn has ended.
    pub(crate) ended: AtomicBool,
    /// The turn's caller has stopped waiting for it.
    pub(crate) severed: AtomicBool,
}

impl ChainLink {
    /// The first link of a chain that begins in a hook of the actor at `slot`, which nothing else may use meanwhile.
    pub(crate) fn of_hook(slot: Arc<dyn crate::turn::AnySlot>) -> Arc<Self> {
        let (ended, severed) = (AtomicBool::new(false), AtomicBool::new(false));
        // No turn has this identity, so nothing of it can be lent.
        Arc::new(Self { turn: 0, slot, exclusive: true, caller: None, ended, severed })
    }

    fn waits(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }
}

impl Drop for ChainLink {
    /// Unlinks step by step: a chain may be ten thousand turns deep, and a recursive drop would end the stack.
    fn drop(&mut self) {
        let mut next = self.caller.take();
        while let Some(mut link) = next.and_then(Arc::into_inner) {
            next = link.caller.take();
        }
    }
}

/// A turn of the chain, as a walk sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ancestor {
    pub(crate) turn: usize,
    pub(crate) slot: usize,
    pub(crate) exclusive: bool,
}

/// What a walk over a chain calls for each ancestor, innermost first, until it returns false.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Ancestor, &dyn crate::turn::AnySlot) -> bool;

/// Visits `link` and those who wait for it.
pub(crate) fn walk_links(mut link: Option<&Arc<ChainLink>>, visit: Visit<'_>) {
    while let Some(here) = link {
        let slot = Arc::as_ptr(&here.slot).cast::<()>().addr();
        let ancestor = Ancestor { turn: here.turn, slot, exclusive: here.exclusive };
        // Who called a turn that has ended waits for nothing through it any more.
        if !here.waits() || !visit(ancestor, &*here.slot) {
            return;
        }
        link = if here.severed.load(Ordering::Acquire) { None } else { here.caller.as_ref() };
    }
}

/// The chain as a user reads it: outermost first, ending in `called`.
pub(crate) fn describe(mut innermost_first: Vec<ActorId>, called: ActorId) -> Box<CallChain> {
    innermost_first.reverse();
    innermost_first.push(called);
    Box::new(CallChain(innermost_first))
}
