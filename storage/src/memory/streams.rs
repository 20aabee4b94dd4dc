//! Durable streams, as durable as memory is.
//!
//! A namespace has one partition: there is one lock anyway. Visibility and waiting are in tokio's time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use quark_base::Timestamp;
use quark_runtime::store::{
    Delivered, Group, NameOf, NewItem, Position, ReadStart, Retention, StoreError, StoreFuture, StreamStore,
};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The longest that a read waits, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(super) struct Streams {
    state: Mutex<State>,
    /// Told at each change that may give a waiting reader something.
    changed: Notify,
}

#[derive(Default)]
struct State {
    logs: HashMap<String, Log>,
    groups: HashMap<Group, Progress>,
}

#[derive(Default)]
struct Log {
    items: VecDeque<NewItem>,
    /// The place of the first of `items`.
    begin: u64,
}

impl Log {
    fn end(&self) -> u64 {
        self.begin + self.items.len() as u64
    }

    fn item(&self, place: u64) -> Option<&NewItem> {
        self.items.get(usize::try_from(place.checked_sub(self.begin)?).ok()?)
    }

    fn place(&self, start: ReadStart) -> u64 {
        match start {
            ReadStart::Oldest => self.begin,
            ReadStart::Newest => self.end(),
            ReadStart::Time(time) => {
                let first = self.items.iter().position(|item| item.time >= time);
                first.map_or(self.end(), |index| self.begin + index as u64)
            }
            ReadStart::At(position) => position.major.clamp(self.begin, self.end()),
        }
    }

    fn drop_before(&mut self, place: u64) -> u64 {
        let count = place.clamp(self.begin, self.end()) - self.begin;
        self.items.drain(..usize::try_from(count).unwrap_or(usize::MAX));
        self.begin += count;
        count
    }
}

/// Where a group stands.
#[derive(Default)]
struct Progress {
    /// The first place that it was not given.
    next: u64,
    /// What it was given and has not acknowledged.
    pending: BTreeMap<u64, Given>,
}

struct Given {
    at: Instant,
    attempts: u32,
}

impl State {
    fn append(&mut self, namespace: &str, items: &[NewItem]) -> Vec<Position> {
        let log = self.logs.entry(namespace.to_owned()).or_default();
        let place = |item: &NewItem| {
            let place = log.end();
            log.items.push_back(item.clone());
            position(place)
        };
        items.iter().map(place).collect()
    }

    fn open_group(&mut self, group: &Group, start: ReadStart) {
        let log = self.logs.entry(group.namespace.clone()).or_default();
        let progress = || Progress { next: log.place(start), pending: BTreeMap::new() };
        self.groups.entry(group.clone()).or_insert_with(progress);
    }

    /// The group and its log; what was trimmed is not pending any more.
    fn group(&mut self, group: &Group) -> Result<(&mut Progress, &Log), StoreError> {
        let unopened = || crate::unopened("memory://", group);
        let progress = self.groups.get_mut(group).ok_or_else(unopened)?;
        let log = self.logs.entry(group.namespace.clone()).or_default();
        progress.pending = progress.pending.split_off(&log.begin);
        progress.next = progress.next.max(log.begin);
        Ok((progress, log))
    }

    /// What the group gets now; or, if that is nothing, when something that it was given becomes visible again.
    fn read(
        &mut self,
        group: &Group,
        limit: usize,
        visibility: Duration,
        now: Instant,
    ) -> Result<(Vec<Delivered>, Option<Instant>), StoreError> {
        let (progress, log) = self.group(group)?;
        let visible = |given: &Given| given.at.checked_add(visibility);
        let mut places: Vec<u64> = progress
            .pending
            .iter()
            .filter(|(_, given)| visible(given).is_some_and(|time| time <= now))
            .map(|(place, _)| *place)
            .take(limit)
            .collect();
        let new_end = log.end().min(progress.next + (limit - places.len()) as u64);
        places.extend(progress.next..new_end);
        progress.next = new_end;
        let next_visible = progress.pending.values().filter_map(visible).min();
        let mut give = |place: u64| {
            let item = log.item(place)?;
            let given = progress.pending.entry(place).or_insert(Given { at: now, attempts: 0 });
            *given = Given { at: now, attempts: given.attempts + 1 };
            Some(Delivered {
                position: position(place),
                key: item.key.clone(),
                time: item.time,
                value: item.value.clone(),
                attempts: given.attempts,
            })
        };
        Ok((places.into_iter().filter_map(&mut give).collect(), next_visible))
    }

    fn acknowledge(&mut self, group: &Group, positions: &[Position]) {
        if let Some(progress) = self.groups.get_mut(group) {
            for position in positions {
                progress.pending.remove(&position.major);
            }
        }
    }

    fn seek(&mut self, group: &Group, to: ReadStart) -> Result<(), StoreError> {
        let (progress, log) = self.group(group)?;
        *progress = Progress { next: log.place(to), pending: BTreeMap::new() };
        Ok(())
    }

    fn lag(&mut self, group: &Group) -> Result<u64, StoreError> {
        let (progress, log) = self.group(group)?;
        Ok(progress.pending.len() as u64 + (log.end() - progress.next))
    }

    fn trim(&mut self, namespace: &str, keep: Retention) -> u64 {
        let Some(log) = self.logs.get_mut(namespace) else { return 0 };
        let by_count = keep.items.map_or(0, |items| log.end().saturating_sub(items));
        let by_time = keep.since.map_or(0, |since: Timestamp| log.place(ReadStart::Time(since)));
        log.drop_before(by_count.max(by_time))
    }
}

fn position(place: u64) -> Position {
    Position { partition: 0, major: place, minor: 0 }
}

impl Streams {
    async fn read(
        &self,
        group: &Group,
        limit: usize,
        visibility: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivered>, StoreError> {
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        loop {
            // Made before looking, so that nothing which happens meanwhile is missed.
            let changed = self.changed.notified();
            let now = Instant::now();
            let (items, next_visible) = self.state.lock().read(group, limit, visibility, now)?;
            if !items.is_empty() || now >= deadline {
                return Ok(items);
            }
            let until = next_visible.map_or(deadline, |time| time.min(deadline));
            // Whether it is time or a change, it is time to look again.
            let _ = tokio::time::timeout_at(until, changed).await;
        }
    }
}

impl StreamStore for Streams {
    fn append<'a>(&'a self, namespace: &'a str, items: &'a [NewItem]) -> StoreFuture<'a, Vec<Position>> {
        async move {
            NameOf::Namespace.check(namespace)?;
            items.iter().try_for_each(NewItem::check_names)?;
            let positions = self.state.lock().append(namespace, items);
            self.changed.notify_waiters();
            Ok(positions)
        }
        .boxed()
    }

    fn open_group<'a>(&'a self, group: &'a Group, start: ReadStart) -> StoreFuture<'a, ()> {
        async move {
            group.check_names()?;
            self.state.lock().open_group(group, start);
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        group: &'a Group,
        limit: usize,
        visibility: Duration,
        wait: Duration,
    ) -> StoreFuture<'a, Vec<Delivered>> {
        Streams::read(self, group, limit, visibility, wait).boxed()
    }

    fn acknowledge<'a>(&'a self, group: &'a Group, positions: &'a [Position]) -> StoreFuture<'a, ()> {
        async move {
            self.state.lock().acknowledge(group, positions);
            Ok(())
        }
        .boxed()
    }

    fn seek<'a>(&'a self, group: &'a Group, to: ReadStart) -> StoreFuture<'a, ()> {
        async move {
            self.state.lock().seek(group, to)?;
            self.changed.notify_waiters();
            Ok(())
        }
        .boxed()
    }

    fn lag<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, u64> {
        async move { self.state.lock().lag(group) }.boxed()
    }

    fn trim<'a>(&'a self, namespace: &'a str, keep: Retention) -> StoreFuture<'a, u64> {
        async move { Ok(self.state.lock().trim(namespace, keep)) }.boxed()
    }
}
