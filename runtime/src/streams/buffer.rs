//! The items that wait for one subscriber: a bounded queue that knows who gives way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Waiting;
use super::flow::{Bounds, Flow, Sampler, WhenFull};
use crate::error::Failure;

/// What a subscription has seen, over all its subscribers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) delivered: AtomicU64,
    pub(crate) dropped_oldest: AtomicU64,
    pub(crate) dropped_newest: AtomicU64,
    pub(crate) sampled_out: AtomicU64,
    pub(crate) above_rate: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) late: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, by: usize) {
    if by > 0 {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }
}

impl Counters {
    /// Notes what became of an item that was on its way into a mailbox.
    pub(crate) fn note_sent(&self, ended: Result<(), Failure>) -> Result<(), Failure> {
        count(if ended.is_ok() { &self.delivered } else { &self.refused }, 1);
        ended
    }

    /// Notes what became of several items, and how many were left. True if nobody will take these.
    pub(crate) fn note<T>(&self, offered: &OfferedAll<T>, left: usize) -> bool {
        count(&self.dropped_oldest, offered.oldest);
        count(&self.dropped_newest, offered.newest);
        count(&self.sampled_out, offered.sampled_out);
        if offered.closed {
            count(&self.lost, left);
        }
        offered.closed
    }
}

/// The items that wait for one subscriber.
pub(crate) struct Buffer<T> {
    flow: Flow,
    inner: Mutex<Inner<T>>,
    /// Told when there is room again, if a publisher waits.
    room: Notify,
    waiters: AtomicUsize,
}

struct Inner<T> {
    items: VecDeque<T>,
    sampler: Sampler,
    /// How many may wait.
    capacity: u32,
    /// That many did, since the last time it was looked at.
    reached: bool,
    /// Somebody is on the way to take items out, so a new one needs to call nobody.
    coming: bool,
    /// The slot that has it in its mailbox, once it has been sent there.
    coming_to: Option<usize>,
    /// The turn that takes items out now. There is one at a time, so that items keep their order.
    served_by: Option<usize>,
    /// Nobody will take items out any more.
    closed: bool,
    /// An item came since the last look.
    used: bool,
}

/// What became of an item.
pub(crate) enum Offered<T> {
    /// It waits. `attend` if whoever takes items out must be called.
    Taken { attend: bool },
    /// It waits, and this one gave way.
    Replaced { oldest: T, attend: bool },
    /// It gave way itself.
    DroppedNewest(T),
    /// It is none that the sample takes.
    SampledOut(T),
    /// There is no room; it is its publisher's to keep.
    Full(T),
    /// Nobody will take it.
    Closed(T),
}

/// What became of several items.
pub(crate) struct OfferedAll<T> {
    pub(crate) attend: bool,
    /// Those that gave way, to be dropped by the caller, out of the lock.
    pub(crate) dropped: Vec<T>,
    pub(crate) oldest: usize,
    pub(crate) newest: usize,
    pub(crate) sampled_out: usize,
    pub(crate) closed: bool,
}

impl<T> Buffer<T> {
    pub(crate) fn new(flow: Flow) -> Self {
        let capacity = match flow.bounds() {
            Bounds::Fixed(items) => items.get(),
            // A subscriber first shows that it is quick.
            Bounds::Adaptive(bounds) => bounds.min(),
        };
        let inner = Inner {
            items: VecDeque::new(),
            sampler: Sampler::default(),
            capacity,
            reached: false,
            coming: false,
            coming_to: None,
            served_by: None,
            closed: false,
            used: false,
        };
        Self { flow, inner: Mutex::new(inner), room: Notify::new(), waiters: AtomicUsize::new(0) }
    }

    pub(crate) fn offer(&self, item: T, now: impl Fn() -> Duration) -> Offered<T> {
        self.offer_to(&mut self.inner.lock(), item, true, &now)
    }

    /// The same for an item that the sample has taken before.
    fn offer_again(&self, item: T, now: impl Fn() -> Duration) -> Offered<T> {
        self.offer_to(&mut self.inner.lock(), item, false, &now)
    }

    fn offer_to(
        &self,
        inner: &mut Inner<T>,
        item: T,
        is_new: bool,
        now: &impl Fn() -> Duration,
    ) -> Offered<T> {
        if inner.closed {
            return Offered::Closed(item);
        }
        inner.used = true;
        if is_new
            && let Some(sample) = self.flow.sample()
            && !inner.sampler.takes(sample, now)
        {
            return Offered::SampledOut(item);
        }
        let mut oldest = None;
        if inner.items.len() >= inner.capacity as usize {
            inner.reached = true;
            match self.flow.when_full() {
                WhenFull::Wait => return Offered::Full(item),
                WhenFull::DropNewest => return Offered::DroppedNewest(item),
                WhenFull::DropOldest => oldest = inner.items.pop_front(),
            }
        }
        inner.items.push_back(item);
        let attend = !inner.coming && inner.served_by.is_none();
        inner.coming |= attend;
        match oldest {
            None => Offered::Taken { attend },
            Some(oldest) => Offered::Replaced { oldest, attend },
        }
    }

    /// Offers items from the front until there is no room for one, which stays in `items`.
    pub(crate) fn offer_all(
        &self,
        items: &mut VecDeque<T>,
        is_new: bool,
        now: impl Fn() -> Duration,
    ) -> OfferedAll<T> {
        let (mut oldest, mut newest, mut sampled_out) = (0, 0, 0);
        let mut all =
            OfferedAll { attend: false, dropped: Vec::new(), oldest, newest, sampled_out, closed: false };
        let mut first_is_new = is_new;
        let mut inner = self.inner.lock();
        while let Some(item) = items.pop_front() {
            match self.offer_to(&mut inner, item, std::mem::replace(&mut first_is_new, true), &now) {
                Offered::Taken { attend } => all.attend |= attend,
                Offered::Replaced { oldest: gone, attend } => {
                    all.attend |= attend;
                    all.dropped.push(gone);
                    oldest += 1;
                }
                Offered::DroppedNewest(gone) => {
                    all.dropped.push(gone);
                    newest += 1;
                }
                Offered::SampledOut(gone) => {
                    all.dropped.push(gone);
                    sampled_out += 1;
                }
                Offered::Full(item) => {
                    items.push_front(item);
                    break;
                }
                Offered::Closed(item) => {
                    items.push_front(item);
                    all.closed = true;
                    break;
                }
            }
        }
        drop(inner);
        (all.oldest, all.newest, all.sampled_out) = (oldest, newest, sampled_out);
        all
    }

    /// Takes up to `most` items out, in their order.
    pub(crate) fn take(&self, most: usize, into: &mut VecDeque<T>) {
        self.take_out(most, into);
        self.tell_waiters();
    }

    /// The same for a turn that takes more soon or ends: publishers that wait are told once there is room for some items,
    /// and not for each few of them. Else the turn tells them.
    pub(crate) fn take_on(&self, most: usize, into: &mut VecDeque<T>) {
        if self.take_out(most, into) {
            self.tell_waiters();
        }
    }

    /// True if a quarter of the buffer or more is free.
    fn take_out(&self, most: usize, into: &mut VecDeque<T>) -> bool {
        let mut inner = self.inner.lock();
        let count = inner.items.len().min(most);
        if count == inner.items.len() && into.is_empty() {
            // What was taken before leaves its memory here for the next items.
            std::mem::swap(&mut inner.items, into);
        } else {
            into.extend(inner.items.drain(..count));
        }
        let capacity = inner.capacity as usize;
        inner.items.len() <= capacity - capacity / 4
    }

    /// Whether its size follows how fast it is drained.
    pub(crate) fn adapts(&self) -> bool {
        matches!(self.flow.bounds(), Bounds::Adaptive(_))
    }

    /// So many items were handled in this time.
    pub(crate) fn drained(&self, items: usize, took: Duration) {
        let Bounds::Adaptive(bounds) = self.flow.bounds() else { return };
        if items == 0 {
            return;
        }
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        let mut inner = self.inner.lock();
        let reached = std::mem::take(&mut inner.reached);
        let before = inner.capacity;
        inner.capacity = bounds.adapt(before, items, took, reached);
        let grew = inner.capacity > before;
        drop(inner);
        if grew {
            self.tell_waiters();
        }
    }

    /// Puts back, in their place, items that were taken and not handled. At a full buffer those that have waited longest
    /// give way if the flow says so; gives them back.
    pub(crate) fn put_back(&self, mut items: VecDeque<T>) -> VecDeque<T> {
        let mut gone = VecDeque::new();
        if items.is_empty() {
            return gone;
        }
        let mut inner = self.inner.lock();
        if self.flow.when_full() == WhenFull::DropOldest {
            let room = (inner.capacity as usize).saturating_sub(inner.items.len());
            gone.extend(items.drain(..items.len().saturating_sub(room)));
        }
        while let Some(item) = items.pop_back() {
            inner.items.push_front(item);
        }
        drop(inner);
        gone
    }

    /// Whoever took items out goes, unless there are more. True if there are: it stays.
    pub(crate) fn stays(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.coming = !inner.items.is_empty();
        inner.coming
    }

    /// A turn begins to take items out; `came` if it was on the way. False if another one does: then this one goes, and
    /// the other one sees to what is left.
    pub(crate) fn begin_serving(&self, turn: usize, came: bool) -> bool {
        let mut inner = self.inner.lock();
        if came {
            inner.coming = false;
            inner.coming_to = None;
        }
        let begins = inner.served_by.is_none();
        if begins {
            inner.served_by = Some(turn);
        }
        begins
    }

    /// It ends. True if there are more items and nobody is on the way: somebody must be called.
    pub(crate) fn end_serving(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.served_by = None;
        let attend = !inner.items.is_empty() && !inner.coming;
        inner.coming |= attend;
        drop(inner);
        // A publisher may have to see to the next turn itself; it can tell once it knows where that is sent.
        if !attend {
            self.tell_waiters();
        }
        attend
    }

    /// Whoever is on the way is sent to this slot now.
    pub(crate) fn comes_to(&self, slot: usize) {
        self.inner.lock().coming_to = Some(slot);
        self.tell_waiters();
    }

    /// The slot that whoever is on the way has been sent to.
    pub(crate) fn coming_to(&self) -> Option<usize> {
        self.inner.lock().coming_to
    }

    /// The turn that takes items out now.
    pub(crate) fn served_by(&self) -> Option<usize> {
        self.inner.lock().served_by
    }

    /// Takes everything out; whoever was on the way no longer is.
    pub(crate) fn take_all(&self) -> VecDeque<T> {
        let mut inner = self.inner.lock();
        inner.coming = false;
        inner.coming_to = None;
        let all = std::mem::take(&mut inner.items);
        drop(inner);
        self.tell_waiters();
        all
    }

    /// Takes nothing in from now on. Gives what waits.
    pub(crate) fn close(&self) -> VecDeque<T> {
        self.inner.lock().closed = true;
        self.take_all()
    }

    /// Takes nothing in from now on; what waits may be taken out.
    pub(crate) fn end(&self) {
        self.inner.lock().closed = true;
        self.tell_waiters();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().items.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// Items that wait, and how many may.
    pub(crate) fn fill(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.items.len(), inner.capacity as usize)
    }

    /// Whether nothing has come since it was last asked, nothing waits and nobody is on the way.
    pub(crate) fn rests(&self, now: Duration) -> bool {
        let mut inner = self.inner.lock();
        let used = std::mem::take(&mut inner.used);
        let unattended = !inner.coming && inner.served_by.is_none();
        !used && inner.items.is_empty() && unattended && !inner.sampler.holds(now)
    }

    /// Whether publishers wait for room, or have been told of some and did not come to take it yet.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiters.load(Ordering::Acquire) != 0
    }

    /// Tells publishers that wait to try again.
    pub(crate) fn tell_waiters(&self) {
        if self.has_waiters() {
            self.room.notify_waiters();
        }
    }

    /// Waits until `try_again` gets its way, which a full buffer prevents. `hurry` may give something to wait for that
    /// makes room, or say why there will be none.
    async fn wait_for_room<R>(
        &self,
        hurry: impl Fn() -> Result<Option<Waiting>, Failure>,
        mut try_again: impl FnMut() -> Option<R>,
    ) -> Result<R, Failure> {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.waiters.fetch_add(1, Ordering::AcqRel);
        let _waiting = Counted(&self.waiters);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Some(result) = try_again() {
                return Ok(result);
            }
            match hurry()? {
                Some(hurried) => hurried.await?,
                None => room.await,
            }
        }
    }

    /// Offers an item that found no room, until it does. None once the buffer is closed; else whether whoever takes
    /// items out must be called.
    ///
    /// # Errors
    /// What `hurry` says; the item is gone.
    pub(crate) async fn offer_until_taken(
        &self,
        item: T,
        now: impl Fn() -> Duration,
        hurry: impl Fn() -> Result<Option<Waiting>, Failure>,
    ) -> Result<Option<bool>, Failure> {
        let mut item = Some(item);
        self.wait_for_room(hurry, || match self.offer_again(item.take()?, &now) {
            Offered::Taken { attend } | Offered::Replaced { attend, .. } => Some(Some(attend)),
            Offered::Full(back) => {
                item = Some(back);
                None
            }
            Offered::Closed(_) | Offered::DroppedNewest(_) | Offered::SampledOut(_) => Some(None),
        })
        .await
    }

    /// Offers several items, the first of which found no room, until some of them are taken.
    ///
    /// # Errors
    /// What `hurry` says; the items are still there.
    pub(crate) async fn offer_more(
        &self,
        items: &mut VecDeque<T>,
        now: impl Fn() -> Duration,
        hurry: impl Fn() -> Result<Option<Waiting>, Failure>,
    ) -> Result<OfferedAll<T>, Failure> {
        let left = items.len();
        self.wait_for_room(hurry, || {
            let offered = self.offer_all(items, false, &now);
            (offered.closed || items.len() < left).then_some(offered)
        })
        .await
    }
}
