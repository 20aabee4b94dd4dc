//! Lending: an exclusive turn that waits lets calls of its own chain run on its actor meanwhile.
//!
//! Three rules keep the borrow sound, whatever the waiting method does:
//! - A lent turn begins only while the lender is not being polled, and the lender is not polled while a lent turn
//!   is under way.
//! - What is lent is the turn's own actor, in a turn of its own: address and type are compared.
//! - The [`Lend`] future lies in the memory of the turn's own future, so that it cannot be forgotten while the
//!   method goes on: pinned memory is not given up without a drop, and its drop ends the loan. A `Lend` that was
//!   boxed apart lends nothing; a chain that comes back then ends in `Deadlock`.

use std::collections::VecDeque;
use std::future::Future;
use std::marker::{PhantomData, PhantomPinned};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::context::Cx;
use crate::turn::TaskRef;
use crate::turn::cell::ActorAddress;
use crate::turn::sync::Ordering;

/// Chain calls that may wait for one loan; the next one ends in `Deadlock`.
const LENT_QUEUE_MAX: usize = 1_024;

/// The loans of one actor: a turn that runs on a loan may lend in its turn. Under the mailbox lock.
#[derive(Default)]
pub(crate) struct Lends {
    frames: Vec<Frame>,
}

struct Frame {
    lender: TaskRef,
    /// The lender's last poll has ended, so its loan may be used.
    parked: bool,
    /// The lender was woken while its loan was in use.
    woken: bool,
    /// Turns that use the loan now: one, or several shared ones of one chain.
    active: u32,
    /// Those turns share the actor.
    shared: bool,
    /// The lender's own borrow, from which theirs are made.
    actor: ActorAddress,
    queue: VecDeque<TaskRef>,
}

impl Frame {
    fn begins(&mut self, turn: &TaskRef) {
        self.active = 1;
        self.shared = !turn.is_exclusive();
    }
}

impl Lends {
    pub(crate) fn open(&mut self, lender: &TaskRef, actor: ActorAddress) {
        let lender = lender.clone();
        let queue = VecDeque::new();
        self.frames.push(Frame {
            lender,
            parked: false,
            woken: false,
            active: 0,
            shared: false,
            actor,
            queue,
        });
    }

    /// What the turns that use the innermost loan in use borrow from.
    pub(crate) fn actor_in_use(&self) -> Option<ActorAddress> {
        self.frames.iter().rev().find(|frame| frame.active > 0).map(|frame| frame.actor)
    }

    /// Ends the lender's last loan and gives back who still waits for it.
    pub(crate) fn close(&mut self, lender: usize) -> VecDeque<TaskRef> {
        let last = self.frames.iter().rposition(|frame| frame.lender.identity() == lender);
        last.map_or_else(VecDeque::new, |last| self.frames.remove(last).queue)
    }

    /// Takes a call of `lender`'s chain in. `Some(true)`: it begins at once; `Some(false)`: it waits.
    pub(crate) fn admit(&mut self, lender: usize, turn: &TaskRef) -> Option<bool> {
        let frame = self.frames.iter_mut().rev().find(|frame| frame.lender.identity() == lender)?;
        if frame.parked && frame.active == 0 && !frame.woken {
            frame.begins(turn);
            return Some(true);
        }
        (frame.queue.len() < LENT_QUEUE_MAX).then(|| frame.queue.push_back(turn.clone()))?;
        Some(false)
    }

    /// Lets a shared call join a shared turn of its own chain, which uses the innermost loan in use.
    pub(crate) fn joins(&mut self) -> bool {
        match self.frames.iter_mut().rev().find(|frame| frame.active > 0) {
            // Not beside an exclusive one: the chain's own turn has ended meanwhile, and another one runs.
            Some(frame) if frame.shared => {
                frame.active += 1;
                true
            }
            _ => false,
        }
    }

    /// The lender's poll has ended; gives the first call that waits for the loan.
    pub(crate) fn park(&mut self, lender: &TaskRef) -> Option<TaskRef> {
        let frame =
            self.frames.iter_mut().rev().find(|frame| frame.lender.identity() == lender.identity())?;
        frame.parked = true;
        let next = frame.queue.pop_front()?;
        frame.begins(&next);
        Some(next)
    }

    /// Whether the lender may be polled now. If not, the end of the turn that uses its loan will schedule it.
    pub(crate) fn may_run(&mut self, lender: &TaskRef) -> bool {
        for frame in self.frames.iter_mut().filter(|frame| frame.lender.identity() == lender.identity()) {
            if frame.active > 0 {
                frame.woken = true;
                return false;
            }
            frame.parked = false;
        }
        true
    }

    /// A turn that used the innermost loan has ended. Gives who is next: the lender (true) or a waiting call.
    pub(crate) fn turn_over(&mut self) -> Option<(TaskRef, bool)> {
        let frame = self.frames.iter_mut().rev().find(|frame| frame.active > 0)?;
        frame.active -= 1;
        if frame.active > 0 {
            return None;
        }
        if std::mem::take(&mut frame.woken) {
            return Some((frame.lender.clone(), true));
        }
        let next = frame.queue.pop_front()?;
        frame.begins(&next);
        Some((next, false))
    }
}

pin_project! {
    /// The future of [`Cx::lend`]. Dropping it before it is ready takes the actor back; calls of the chain that
    /// still wait for it end in `Deadlock`.
    #[must_use = "a loan lasts as long as it is awaited"]
    pub struct Lend<'a, F> {
        cx: &'a Cx,
        actor: ActorAddress,
        state: State,
        #[pin]
        future: F,
        borrow: PhantomData<&'a mut ()>,
        // What was polled must not be forgotten: the third rule.
        #[pin]
        pinned: PhantomPinned,
    }

    impl<F> PinnedDrop for Lend<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            take_back(this.cx, this.state);
        }
    }
}

enum State {
    New,
    Open(TaskRef),
    /// What was asked to be lent cannot be.
    Refused,
}

impl<'a, F> Lend<'a, F> {
    pub(crate) fn new<A: 'static>(cx: &'a Cx, actor: &'a mut A, future: F) -> Self {
        let actor = ActorAddress::of(ptr::from_mut(actor));
        Self { cx, actor, state: State::New, future, borrow: PhantomData, pinned: PhantomPinned }
    }
}

impl<F: Future> Future for Lend<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let address = ptr::from_ref::<Self>(&*self).addr();
        let this = self.project();
        if let State::New = this.state {
            *this.state = match open(this.cx, *this.actor, address) {
                Some(lender) => State::Open(lender),
                None => {
                    tracing::warn!(
                        "cx.lend lends nothing: await it in the method itself, with its own `self`"
                    );
                    State::Refused
                }
            };
        }
        let polled = this.future.poll(context);
        if polled.is_ready() {
            take_back(this.cx, this.state);
        }
        polled
    }
}

fn open(cx: &Cx, actor: ActorAddress, address: usize) -> Option<TaskRef> {
    let lender = TaskRef::current(cx.turn())?;
    let lent = lender.is_exclusive() && lender.holds_address(address) && cx.slot()?.open_lend(&lender, actor);
    lent.then(|| {
        lender.lends().fetch_add(1, Ordering::Relaxed);
        lender
    })
}

fn take_back(cx: &Cx, state: &mut State) {
    if let State::Open(lender) = std::mem::replace(state, State::Refused) {
        lender.lends().fetch_sub(1, Ordering::Relaxed);
        if let Some(slot) = cx.slot() {
            slot.close_lend(&lender);
        }
    }
}
