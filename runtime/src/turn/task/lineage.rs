//! Who waits for a turn: read off the stack while turns are polled on top of each other, written down when one of
//! them outlives that.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::{Header, Origin};
use crate::chain::{Ancestor, ChainLink, Visit, walk_links};

/// Writes down the turn at `turn` and those below it on the stack.
///
/// # Safety
/// `turn` is null, or being polled on this thread further down the stack.
pub(super) unsafe fn link_of(turn: *const Header) -> Option<Arc<ChainLink>> {
    let mut missing = Vec::new();
    let mut next = turn;
    let mut link = loop {
        if next.is_null() {
            break None;
        }
        // SAFETY: stack turns are alive, and so are their slots.
        let header = unsafe { &*next };
        if let Some(link) = header.link.get() {
            break Some(link.clone());
        }
        missing.push(header);
        // SAFETY: `origin` of a running turn belongs to the thread that runs it, which is this one.
        match unsafe { &*header.origin.get() } {
            Origin::None => break None,
            Origin::Stack(caller) => next = *caller,
            Origin::Link(link) => break Some(link.clone()),
        }
    };
    for header in missing.into_iter().rev() {
        let slot = header.slot().shared();
        let here = Arc::new(ChainLink {
            turn: ptr::from_ref(header).addr(),
            slot,
            exclusive: header.vtable.exclusive,
            caller: link,
            ended: AtomicBool::new(false),
            severed: AtomicBool::new(false),
        });
        // Only the thread that runs a turn writes it down, so the cell is still empty.
        let here = header.link.get_or_init(|| here).clone();
        // After the link is there to be found, so that a caller who leaves now is not missed by both: pairs with
        // the fence in `abandon`.
        fence(Ordering::SeqCst);
        here.severed.fetch_or(header.severed.load(Ordering::Acquire), Ordering::AcqRel);
        link = Some(here);
    }
    link
}

/// Visits the turn at `turn` and those who wait for it.
///
/// # Safety
/// As for [`link_of`].
pub(super) unsafe fn walk_stack(turn: *const Header, visit: Visit<'_>) {
    let mut next = turn;
    while !next.is_null() {
        // SAFETY: stack turns are alive, and so are their slots.
        let header = unsafe { &*next };
        let slot = header.slot();
        let place = ptr::from_ref(slot).cast::<()>().addr();
        let ancestor = Ancestor { turn: next.addr(), slot: place, exclusive: header.vtable.exclusive };
        if !visit(ancestor, slot) || header.severed.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: `origin` of a running turn belongs to this thread.
        match unsafe { &*header.origin.get() } {
            Origin::None => return,
            Origin::Stack(caller) => next = *caller,
            Origin::Link(link) => return walk_links(Some(link), visit),
        }
    }
}
