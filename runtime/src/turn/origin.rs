//! Whom a turn waits for: its chain on the stack, and as it is written down.

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;

use crate::chain::{Ancestor, ChainLink, Visit, walk_links};
use crate::turn::sync::{AtomicBool, Ordering, fence};
use crate::turn::task::Header;

/// Where a turn's chain goes on: one word, since every message has it.
pub(super) struct Origin {
    /// Null, a header on the stack, or, with its lowest bit set, a link that is counted here.
    place: *const (),
    counted: PhantomData<Arc<ChainLink>>,
}

/// What an origin says.
pub(super) enum Place {
    /// Nobody waits for the turn, or nobody that is an actor.
    Nowhere,
    /// The turn on whose stack this one is being polled for the first time.
    Stack(*const Header),
    /// Written down.
    Link(Arc<ChainLink>),
}

const LINK: usize = 1;
const _: () = assert!(align_of::<Header>() > LINK && align_of::<ChainLink>() > LINK);

impl Origin {
    pub(super) const NONE: Self = Self::stack(ptr::null());

    /// The turn that is being polled at `turn`, if there is one.
    #[inline(always)]
    pub(super) const fn stack(turn: *const Header) -> Self {
        Self { place: turn.cast(), counted: PhantomData }
    }

    pub(super) fn link(link: Option<Arc<ChainLink>>) -> Self {
        let Some(link) = link else { return Self::NONE };
        let place = Arc::into_raw(link).cast::<()>().map_addr(|address| address | LINK);
        Self { place, counted: PhantomData }
    }

    #[inline(always)]
    pub(super) fn is_none(&self) -> bool {
        self.place.is_null()
    }

    pub(super) fn place(&self) -> Place {
        match self.counted() {
            Some(link) => {
                // SAFETY: it came from `into_raw`, and its count is this origin's; the clone gets one of its own.
                unsafe {
                    Arc::increment_strong_count(link);
                    Place::Link(Arc::from_raw(link))
                }
            }
            None if self.is_none() => Place::Nowhere,
            None => Place::Stack(self.place.cast()),
        }
    }

    #[inline(always)]
    fn counted(&self) -> Option<*const ChainLink> {
        let is_link = self.place.addr() & LINK != 0;
        is_link.then(|| self.place.map_addr(|address| address & !LINK).cast())
    }
}

impl Drop for Origin {
    #[inline]
    fn drop(&mut self) {
        if let Some(link) = self.counted() {
            // SAFETY: it came from `into_raw`, and its count is this origin's.
            drop(unsafe { Arc::from_raw(link) });
        }
    }
}

/// A turn as a link of its callees' chains, once it is written down. It changes once.
pub(super) struct OwnLink(AtomicPtr<ChainLink>);

impl OwnLink {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline(always)]
    pub(super) fn get(&self) -> Option<&ChainLink> {
        // SAFETY: null, or a link that is counted here for as long as `self` is there.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    fn counted(&self) -> Option<Arc<ChainLink>> {
        let link = ptr::from_ref(self.get()?);
        // SAFETY: it came from `into_raw`, and its count is this cell's; the clone gets one of its own.
        unsafe {
            Arc::increment_strong_count(link);
            Some(Arc::from_raw(link))
        }
    }

    /// For the thread that runs the turn, which writes it down once.
    fn set(&self, link: Arc<ChainLink>) {
        let past = self.0.swap(Arc::into_raw(link).cast_mut(), Ordering::AcqRel);
        // Should there be one nevertheless, it stays: somebody may look at it.
        debug_assert!(past.is_null(), "a turn is written down once");
    }
}

impl Drop for OwnLink {
    #[inline]
    fn drop(&mut self) {
        let link = *self.0.get_mut();
        if !link.is_null() {
            // SAFETY: it came from `into_raw`, and its count is this cell's.
            drop(unsafe { Arc::from_raw(link) });
        }
    }
}

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
        if let Some(link) = header.link.counted() {
            break Some(link);
        }
        missing.push(header);
        // SAFETY: `origin` of a running turn belongs to the thread that runs it, which is this one.
        match unsafe { &*header.origin.get() }.place() {
            Place::Nowhere => break None,
            Place::Stack(caller) => next = caller,
            Place::Link(link) => break Some(link),
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
        header.link.set(here.clone());
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
        match unsafe { &*header.origin.get() }.place() {
            Place::Nowhere => return,
            Place::Stack(caller) => next = caller,
            Place::Link(link) => return walk_links(Some(&link), visit),
        }
    }
}
