//! Places and words whose users follow a rule that the compiler can't see. Each is safe to use where its owner hands
//! out the proof, or keeps the count:
//!
//! | what          | who may use it                                                  | known by                      |
//! |---------------|-----------------------------------------------------------------|-------------------------------|
//! | [`ActorCell`] | who holds a turn of its slot, by [`TurnMode`]; its maker        | the slot's word; [`Sole`]     |
//! | [`ScopeRef`]  | a turn's context, while the turn keeps or borrows its slot      | the turn's state (`task.rs`)  |
//! | [`Guarded`]   | who holds its lock                                              | [`Held`]                      |
//! | [`Origin`]    | the thread that has the turn (`task.rs`)                        | its count, if it is a link    |
//! | [`OwnLink`]   | everybody; written by the thread that runs the turn, once       | its count                     |

use std::any::TypeId;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, Weak};
use std::thread;

use crate::actor::Actor;
use crate::chain::ChainLink;
use crate::context::Detached;
use crate::grid::Hosts;
use crate::services::Services;
use crate::turn::sync::Ordering;
use crate::turn::task::Header;
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

    /// The same borrow for a shorter time.
    fn reborrow<'s, 'a: 's>(borrow: &'s mut Self::Borrow<'a>) -> Self::Borrow<'s>
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

    #[inline]
    fn reborrow<'s, 'a: 's>(borrow: &'s mut &'a mut A) -> &'s mut A
    where
        A: 'a,
    {
        borrow
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

    #[inline]
    fn reborrow<'s, 'a: 's>(borrow: &'s mut &'a A) -> &'s A
    where
        A: 'a,
    {
        borrow
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

/// A value behind a lock of the turn engine's own, which answers with a [`Held`] for each look at it.
#[derive(Debug)]
pub(super) struct Guarded<T>(UnsafeCell<T>);

// SAFETY: the value is used by one thread at a time, and goes from one to the next with the lock.
unsafe impl<T: Send> Sync for Guarded<T> {}

/// That a lock is held, handed out by it to who has taken it. It is kept together with that lock, and used for no
/// other's value.
#[derive(Debug)]
pub(super) struct Held(());

impl Held {
    /// For the lock alone, as it is taken.
    #[inline(always)]
    pub(super) fn hand_out() -> Self {
        Self(())
    }
}

impl<T> Guarded<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(super) fn get<'a>(&'a self, _: &'a Held) -> &'a T {
        // SAFETY: the lock is held for as long as this borrow of `Held`, of which there is one at a time.
        unsafe { &*self.0.get() }
    }

    #[inline(always)]
    pub(super) fn get_mut<'a>(&'a self, _: &'a mut Held) -> &'a mut T {
        // SAFETY: as above; `Held` is borrowed mutably.
        unsafe { &mut *self.0.get() }
    }

    /// The value of a lock that nobody else can reach.
    pub(super) fn alone(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

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

    pub(super) fn counted(&self) -> Option<Arc<ChainLink>> {
        let link = ptr::from_ref(self.get()?);
        // SAFETY: it came from `into_raw`, and its count is this cell's; the clone gets one of its own.
        unsafe {
            Arc::increment_strong_count(link);
            Some(Arc::from_raw(link))
        }
    }

    /// For the thread that runs the turn, which writes it down once.
    pub(super) fn set(&self, link: Arc<ChainLink>) {
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

/// Asking the processor for memory before it is used.
pub(super) mod fetch {
    #[cfg(target_arch = "x86_64")]
    mod chosen {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};

        #[inline(always)]
        pub(super) fn to_write(address: *const u8) {
            // SAFETY: it is a hint, which goes wrong for no address.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) };
        }

        #[inline(always)]
        pub(super) fn to_read(address: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    mod chosen {
        pub(super) fn to_write(_: *const u8) {}

        pub(super) fn to_read(_: *const u8) {}
    }

    /// Bytes that come together.
    const LINE: usize = 64;

    /// The first two lines at `place` will be written soon.
    #[inline(always)]
    pub(in crate::turn) fn to_write<T>(place: *const T) {
        chosen::to_write(place.cast());
        chosen::to_write(place.cast::<u8>().wrapping_add(LINE));
    }

    /// The second line at `place` will be read soon.
    #[inline(always)]
    pub(in crate::turn) fn second_line<T>(place: *const T) {
        chosen::to_read(place.cast::<u8>().wrapping_add(LINE));
    }
}
