//! Borrowing: what a turn gets of its actor, and a context of its slot.

use std::any::TypeId;
use std::cell::UnsafeCell;
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Weak};
use std::thread;

use crate::actor::Actor;
use crate::context::Detached;
use crate::grid::Hosts;
use crate::services::Services;
use crate::turn::{AnySlot, Slot};

/// Exclusive or shared: what a method's `self` says about its turn.
///
/// # Safety
/// `EXCLUSIVE` must be true unless any number of `Borrow`s of one actor may be used at once, on many threads.
#[diagnostic::on_unimplemented(
    message = "`{A}` has a `&self` method, whose turns run in parallel, but it is not `Sync`",
    label = "make its fields `Sync`, or let the method take `&mut self`"
)]
pub unsafe trait TurnMode<A>: Send + 'static {
    /// Whether the turn runs alone.
    const EXCLUSIVE: bool;
    /// What the method gets of the actor.
    type Borrow<'a>: Send
    where
        A: 'a;

    /// Borrows the actor.
    ///
    /// # Safety
    /// `actor` is valid for `'a`, and the caller holds a turn of this mode on it for as long.
    unsafe fn borrow<'a>(actor: *mut A) -> Self::Borrow<'a>
    where
        A: 'a;
}

/// The mode of `&mut self` methods.
#[derive(Debug)]
pub enum Exclusive {}

/// The mode of `&self` methods.
#[derive(Debug)]
pub enum Shared {}

// SAFETY: it is exclusive.
unsafe impl<A: Send> TurnMode<A> for Exclusive {
    const EXCLUSIVE: bool = true;
    type Borrow<'a>
        = &'a mut A
    where
        A: 'a;

    #[inline]
    unsafe fn borrow<'a>(actor: *mut A) -> &'a mut A
    where
        A: 'a,
    {
        // SAFETY: the caller holds the exclusive turn for `'a`.
        unsafe { &mut *actor }
    }
}

// SAFETY: `A: Sync` makes shared borrows good for many threads at once.
unsafe impl<A: Sync> TurnMode<A> for Shared {
    const EXCLUSIVE: bool = false;
    type Borrow<'a>
        = &'a A
    where
        A: 'a;

    #[inline]
    unsafe fn borrow<'a>(actor: *mut A) -> &'a A
    where
        A: 'a,
    {
        // SAFETY: the caller holds a shared turn for `'a`, so nobody borrows exclusively.
        unsafe { &*actor }
    }
}

/// The memory of a slot for its actor. The word says whether there is one and who may touch it.
pub(super) struct ActorCell<A>(UnsafeCell<MaybeUninit<A>>);

// SAFETY: the actor is borrowed exclusively by one turn at a time (`A: Send`), or shared by turns whose mode
// demands `A: Sync`.
unsafe impl<A: Send> Sync for ActorCell<A> {}

// The compiler would find the same by itself, but through all that a silo consists of, down to the shader compiler of
// its GPUs: past its recursion limit, in the crates of users.
const fn is_shared<T: Send + Sync>() {}
const _: () = {
    is_shared::<Services>();
    is_shared::<Weak<Hosts>>();
};
// SAFETY: a slot consists of its cell (see above), atomics, a locked mailbox, its key, and its host: actor-type-neutral
// parts that are checked above, and a factory that is `Send + Sync`.
unsafe impl<A: Actor> Send for Slot<A> {}
// SAFETY: as above.
unsafe impl<A: Actor> Sync for Slot<A> {}

/// Sole possession of a slot's actor, handed out by the slot's word to who makes or unmakes it. It is kept together
/// with that slot, and used on no other.
pub(crate) struct Sole {
    filled: bool,
}

impl Sole {
    /// For the word alone, as it hands its slot out: with an actor inside, or without.
    pub(super) fn hand_out(filled: bool) -> Self {
        Self { filled }
    }
}

impl<A> ActorCell<A> {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// Where the actor is. Only the holder of a turn may look.
    #[inline]
    pub(super) fn pointer(&self) -> *mut A {
        self.0.get().cast()
    }

    /// Puts an actor in. There is none.
    #[inline]
    pub(super) fn fill(&self, sole: &mut Sole, actor: A) {
        debug_assert!(!sole.filled, "an actor is made once in an activation");
        // SAFETY: `sole` gives the cell to this thread. An actor that should be in there would be leaked.
        unsafe { (*self.0.get()).write(actor) };
        sole.filled = true;
    }

    /// The actor, if it is in.
    pub(super) fn get<'a>(&'a self, sole: &'a mut Sole) -> Option<&'a mut A> {
        // SAFETY: `sole` gives the cell to this borrow, and knows whether the actor is there.
        sole.filled.then(|| unsafe { (*self.0.get()).assume_init_mut() })
    }

    /// Drops the actor, if it is in. The cell is empty afterwards even if that panics, which the result says.
    pub(super) fn empty(&self, sole: &mut Sole) -> thread::Result<()> {
        if !mem::take(&mut sole.filled) {
            return Ok(());
        }
        // SAFETY: as in `get`; it is marked gone already, so that it is dropped once.
        catch_unwind(AssertUnwindSafe(|| unsafe { (*self.0.get()).assume_init_drop() }))
    }
}

/// Where an actor is, and of what type.
#[derive(Clone, Copy)]
pub(crate) struct ActorAddress {
    pointer: *mut (),
    actor_type: TypeId,
}

// SAFETY: it is only an address until `pointer` is used, whose user answers for that.
unsafe impl Send for ActorAddress {}
// SAFETY: as above.
unsafe impl Sync for ActorAddress {}

impl ActorAddress {
    pub(crate) fn of<A: 'static>(actor: *mut A) -> Self {
        Self { pointer: actor.cast(), actor_type: TypeId::of::<A>() }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        ptr::addr_eq(self.pointer, other.pointer) && self.actor_type == other.actor_type
    }

    pub(crate) fn pointer(&self) -> *mut () {
        self.pointer
    }
}

/// A context's way to its slot. Two words, since every message has one.
pub(crate) enum ScopeRef {
    /// The turn's own slot, which outlives the context.
    Turn(ptr::NonNull<dyn AnySlot>),
    /// A context of no turn.
    Apart(Box<Apart>),
}

/// What a context of no turn has.
pub(crate) enum Apart {
    /// A hook's slot, which the context keeps alive.
    Slot(Arc<dyn AnySlot>),
    /// A context made in a test.
    Detached(Detached),
}

const _: () = assert!(size_of::<ScopeRef>() == 2 * size_of::<usize>());

// SAFETY: it only ever gives out `&dyn AnySlot`, which is `Send + Sync`.
unsafe impl Send for ScopeRef {}
// SAFETY: as above.
unsafe impl Sync for ScopeRef {}

impl ScopeRef {
    /// # Safety
    /// `slot` must outlive the value, and be in the `Arc` that the pointer was made from.
    #[inline(always)]
    pub(crate) unsafe fn turn(slot: ptr::NonNull<dyn AnySlot>) -> Self {
        Self::Turn(slot)
    }

    #[inline]
    pub(crate) fn resolve(&self) -> Result<&dyn AnySlot, &Detached> {
        match self {
            // SAFETY: promised to `ScopeRef::turn`.
            Self::Turn(slot) => Ok(unsafe { slot.as_ref() }),
            Self::Apart(apart) => match &**apart {
                Apart::Slot(slot) => Ok(&**slot),
                Apart::Detached(detached) => Err(detached),
            },
        }
    }
}
