//! Windows: items of a stream gathered by time or by number, as a field of the actor that reads them.
//!
//! A [`Window`] is plain state: it knows no clock and no stream. Its actor puts items in as they come, with their own
//! time, and takes out what closed:
//!
//! ```
//! use std::time::Duration;
//!
//! use quark_runtime::streams::window::{Added, Window, WindowSpec};
//!
//! let minute = Duration::from_secs(60);
//! let mut window = Window::new(WindowSpec::tumbling(minute).lateness(Duration::from_secs(5)));
//! for (second, value) in [(3, 'a'), (30, 'b'), (61, 'c')] {
//!     assert!(matches!(window.add(Duration::from_secs(second), value), Added::Taken));
//! }
//! assert!(window.closed().is_none(), "something from the first minute may come until its five seconds have passed");
//! window.add(Duration::from_secs(66), 'd');
//! let first = window.closed().unwrap();
//! assert_eq!((first.start, first.end, first.items), (Duration::ZERO, minute, vec!['a', 'b']));
//! assert!(matches!(window.add(Duration::from_secs(10), 'e'), Added::Late('e')));
//! assert_eq!(window.late(), 1);
//! ```
//!
//! An actor's method puts its items in with [`Cx::gather`](crate::Cx::gather), which tells the silo's reports of late ones.
//!
//! Windows by time go by the items' own times. The *watermark* is the latest of these, less the lateness that is allowed
//! ([`WindowSpec::lateness`]); or a later moment that the actor names with [`Window::advance`], such as its clock's when
//! nothing comes. A window closes when the watermark reaches its end. An item that belongs to no window that is still
//! open is *late*: it is counted, and handed back. An item that belongs to several sliding windows is late only if all of
//! them have closed.
//!
//! | kind     | by time                                              | by number                              |
//! |----------|------------------------------------------------------|----------------------------------------|
//! | tumbling | every `length` from the origin                       | every `n` items                        |
//! | sliding  | `length`, one begins every `step`                    | the last `n`, every `step` items       |
//! | session  | as long as no gap between two items is `gap` or more | none                                   |
//!
//! Ends are exclusive: an item of the moment at which a window ends belongs to the next one. Windows come out in the order
//! of their ends, then starts; their items in the order of their times, and those of one time in the order they came.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Items that a window keeps at most, where nothing else is said: what is more, is refused ([`Added::Full`]).
pub const ITEMS_MAX: usize = 100_000;

/// How items are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    kind: Kind,
    lateness: Duration,
    items_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Tumbling windows are sliding ones whose step is their length.
    Time {
        length: Duration,
        step: Duration,
    },
    Count {
        length: usize,
        step: usize,
    },
    Session {
        gap: Duration,
    },
}

/// Later times are taken for this one, half a million years from the origin: there must be room for a window behind it.
const TIME_MAX: Duration = Duration::from_secs(1 << 44);

/// A window's step is at least a nanosecond and its length at least its step; a count is at least one.
const NANO: Duration = Duration::from_nanos(1);

/// Windows that one item may belong to: more steps to a length than this are a running value rather than windows.
pub const OVERLAP_MAX: u32 = 1_000;

const fn longer(left: Duration, right: Duration) -> Duration {
    if left.as_nanos() < right.as_nanos() { right } else { left }
}

const fn more(left: usize, right: usize) -> usize {
    if left < right { right } else { left }
}

impl WindowSpec {
    const fn of(kind: Kind) -> Self {
        Self { kind, lateness: Duration::ZERO, items_max: ITEMS_MAX }
    }

    /// Windows of this length, one after another.
    pub const fn tumbling(length: Duration) -> Self {
        let length = longer(length, NANO);
        Self::of(Kind::Time { length, step: length })
    }

    /// Windows of this length, one of which begins every `step`. A step longer than the length is the length; one that is
    /// shorter than its thousandth ([`OVERLAP_MAX`]) is that.
    pub const fn sliding(length: Duration, step: Duration) -> Self {
        let length = longer(length, NANO);
        let least = Duration::from_nanos_u128(length.as_nanos().div_ceil(OVERLAP_MAX as u128));
        let step = longer(longer(step, least), NANO);
        let step = if step.as_nanos() > length.as_nanos() { length } else { step };
        Self::of(Kind::Time { length, step })
    }

    /// Windows that last as long as items come less than `gap` after each other.
    pub const fn session(gap: Duration) -> Self {
        Self::of(Kind::Session { gap: longer(gap, NANO) })
    }

    /// Windows of so many items, one after another, in the order they come.
    pub const fn every(items: usize) -> Self {
        let length = more(items, 1);
        Self::of(Kind::Count { length, step: length })
    }

    /// The last so many items, each time that `step` more have come. A step longer than the length is the length.
    pub const fn last(items: usize, step: usize) -> Self {
        let (length, step) = (more(items, 1), more(step, 1));
        Self::of(Kind::Count { length, step: if step > length { length } else { step } })
    }

    /// How much later than others an item may come and still be counted. None, unless it is said. Says nothing of windows
    /// by number.
    pub const fn lateness(mut self, lateness: Duration) -> Self {
        self.lateness = lateness;
        self
    }

    /// Keeps at most so many items, at least one, over all windows that are open or were not taken out.
    pub const fn items_max(mut self, items: usize) -> Self {
        self.items_max = more(items, 1);
        self
    }
}

/// Gathers items by a [`WindowSpec`].
#[derive(Clone, Debug)]
pub struct Window<T> {
    spec: WindowSpec,
    /// By time: the items that a window may still need, by their times and then by their arrival.
    items: BTreeMap<(Duration, u64), Item<T>>,
    /// By number: the last items.
    last: VecDeque<(Duration, T)>,
    /// How many items have come and were taken.
    arrived: u64,
    latest: Duration,
    advanced: Duration,
    /// By time: windows that end at or before this have come out, or had nothing in them.
    out_to: Duration,
    /// By number and sessions: windows that closed and were not taken out.
    ready: VecDeque<Closed<T>>,
    ready_items: usize,
    late: u64,
}

#[derive(Clone, Debug)]
struct Item<T> {
    value: T,
    /// The watermark when it came: it belongs to no window that had closed by then.
    watermark: Duration,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a late item is handed back"]
pub enum Added<T> {
    /// It is in all its windows that are open.
    Taken,
    /// All its windows have closed; it was counted.
    Late(T),
    /// There are as many items as there may be. Take closed windows out, advance the watermark, or allow for more.
    Full(T),
}

/// A window that closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed<T> {
    /// When it began: the first moment of it; of windows by number, the time of the earliest item.
    pub start: Duration,
    /// When it ended: the first moment behind it; of windows by number, the time of the latest item.
    pub end: Duration,
    /// What was in it.
    pub items: Vec<T>,
}

impl<T: Clone> Window<T> {
    /// An empty window.
    pub fn new(spec: WindowSpec) -> Self {
        Self {
            spec,
            items: BTreeMap::new(),
            last: VecDeque::new(),
            arrived: 0,
            latest: Duration::ZERO,
            advanced: Duration::ZERO,
            out_to: Duration::ZERO,
            ready: VecDeque::new(),
            ready_items: 0,
            late: 0,
        }
    }

    /// Puts an item of this time in. By time, that moves the watermark on.
    pub fn add(&mut self, time: Duration, item: T) -> Added<T> {
        if self.len() >= self.spec.items_max {
            return Added::Full(item);
        }
        let time = time.min(TIME_MAX);
        if let Kind::Count { length, step } = self.spec.kind {
            self.add_counted(length, step, time, item);
            return Added::Taken;
        }
        let watermark = self.watermark();
        if self.is_late(time, watermark) {
            self.late += 1;
            return Added::Late(item);
        }
        self.items.insert((time, self.arrived), Item { value: item, watermark });
        self.arrived += 1;
        self.latest = self.latest.max(time);
        self.close_sessions();
        Added::Taken
    }

    fn add_counted(&mut self, length: usize, step: usize, time: Duration, item: T) {
        self.last.push_back((time, item));
        if self.last.len() < length {
            return;
        }
        let times = self.last.iter().map(|(time, _)| *time);
        let (start, end) = (times.clone().min().unwrap_or_default(), times.max().unwrap_or_default());
        let items = self.last.iter().map(|(_, item)| item.clone()).collect();
        self.last.drain(..step);
        self.set_ready(Closed { start, end, items });
    }

    /// Whether every window that an item of this time belongs to has closed.
    fn is_late(&self, time: Duration, watermark: Duration) -> bool {
        let end = match self.spec.kind {
            Kind::Time { length, step } => last_start(time, step).saturating_add(length),
            Kind::Session { gap } => self.session_end(time, gap),
            Kind::Count { .. } => return false,
        };
        end <= watermark
    }

    /// Nothing earlier than `moment` comes any more, but for what the lateness allows: the watermark is at least there.
    pub fn advance(&mut self, moment: Duration) {
        self.advanced = self.advanced.max(moment.min(TIME_MAX));
        self.close_sessions();
    }

    /// What ends before it has closed.
    fn watermark(&self) -> Duration {
        self.latest.max(self.advanced).saturating_sub(self.spec.lateness)
    }

    /// Takes out the next window that has closed; call it until there is none. Windows without items do not come out.
    pub fn closed(&mut self) -> Option<Closed<T>> {
        if let Kind::Time { length, step } = self.spec.kind {
            return self.closed_by_time(length, step);
        }
        let closed = self.ready.pop_front()?;
        self.ready_items -= closed.items.len();
        Some(closed)
    }

    fn closed_by_time(&mut self, length: Duration, step: Duration) -> Option<Closed<T>> {
        loop {
            let first = self.items.keys().next()?.0;
            // What ends before the first item has nothing in it.
            let start = next_start(first.max(self.out_to), length, step);
            let end = start.saturating_add(length);
            if end > self.watermark() {
                return None;
            }
            self.out_to = end;
            let within = self.items.range((start, 0)..(end, 0)).filter(|(_, item)| item.watermark < end);
            let items: Vec<T> = within.map(|(_, item)| item.value.clone()).collect();
            // The windows after this one begin a step later.
            self.items = self.items.split_off(&(start.saturating_add(step), 0));
            if !items.is_empty() {
                return Some(Closed { start, end, items });
            }
        }
    }

    /// When the session of an item of this time would end.
    fn session_end(&self, time: Duration, gap: Duration) -> Duration {
        let mut end = time.saturating_add(gap);
        for (later, _) in self.items.range((time, 0)..).map(|(place, _)| place) {
            if *later >= end {
                break;
            }
            end = later.saturating_add(gap);
        }
        end
    }

    fn close_sessions(&mut self) {
        let Kind::Session { gap } = self.spec.kind else { return };
        while let Some(start) = self.items.keys().next().map(|(time, _)| *time) {
            let end = self.session_end(start, gap);
            if end > self.watermark() {
                return;
            }
            let rest = self.items.split_off(&(end, 0));
            let items = std::mem::replace(&mut self.items, rest);
            let items = items.into_values().map(|item| item.value).collect();
            self.set_ready(Closed { start, end, items });
        }
    }

    fn set_ready(&mut self, closed: Closed<T>) {
        self.ready_items += closed.items.len();
        self.ready.push_back(closed);
    }

    /// Items that came when all their windows had closed.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Items that it holds.
    pub fn len(&self) -> usize {
        self.items.len() + self.last.len() + self.ready_items
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos_u128(nanos)
}

/// The start of the last window that holds `time`.
fn last_start(time: Duration, step: Duration) -> Duration {
    nanos(time.as_nanos() / step.as_nanos() * step.as_nanos())
}

/// The start of the first window that ends after `moment`.
fn next_start(moment: Duration, length: Duration, step: Duration) -> Duration {
    let (moment, length, step) = (moment.as_nanos(), length.as_nanos(), step.as_nanos());
    match moment.checked_sub(length) {
        None => Duration::ZERO,
        Some(before) => nanos((before / step + 1) * step),
    }
}

#[cfg(test)]
mod tests;
