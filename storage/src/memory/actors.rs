//! Actors' states, journals and messages in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use quark_base::Timestamp;
use quark_runtime::store::{
    ActorStore, Address, Commit, Conflict, Event, FeedEvent, FeedPage, FeedPosition, JournalHead, Loaded,
    MessageId, NameOf, OutboxId, OutboxPage, OutboxPlace, PendingMessage, SlotRecord, Snapshot, StoreError,
    StoreFuture, Wanted,
};

use crate::fence::{self, Entry, Last};

type Name = Cow<'static, str>;

#[derive(Default)]
pub(super) struct Actors(Mutex<State>);

#[derive(Default)]
struct State {
    actors: HashMap<Address, Actor>,
    /// The events of all actors by actor type and journal, in the order of their commits.
    feeds: HashMap<(Name, Name), Vec<FeedEvent>>,
    /// Messages by the order of their commits.
    outbox: BTreeMap<u64, PendingMessage>,
    outbox_order: HashMap<OutboxId, u64>,
    outbox_next: u64,
}

#[derive(Default)]
struct Actor {
    last: Option<Last>,
    slots: HashMap<Name, SlotRecord>,
    journals: HashMap<Name, Journal>,
    inbox: HashMap<MessageId, Timestamp>,
}

#[derive(Default)]
struct Journal {
    events: Vec<Event>,
    snapshot: Option<Snapshot>,
}

impl Journal {
    fn last(&self) -> u64 {
        self.events.len() as u64
    }
}

impl Actor {
    /// Whether the store is as the commit expects it.
    fn check(&self, commit: &Commit) -> Result<(), Conflict> {
        let actor = &commit.actor;
        for slot in &commit.slots {
            if self.slots.get(&slot.name).map(|record| record.etag) != slot.expected {
                return Err(Conflict::Slot { actor: actor.clone(), name: slot.name.as_ref().into() });
            }
        }
        for append in &commit.appends {
            let last = self.journals.get(&append.journal).map_or(0, Journal::last);
            if last != append.expected {
                let journal = append.journal.as_ref().into();
                return Err(Conflict::Journal { actor: actor.clone(), journal, last });
            }
        }
        for message in &commit.inbox {
            if self.inbox.contains_key(message) {
                return Err(Conflict::Inbox { actor: actor.clone(), message: message.clone() });
            }
        }
        Ok(())
    }
}

impl State {
    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let address = &commit.actor;
        let stored = self.actors.get(address).and_then(|actor| actor.last);
        match fence::enter(commit, stored, &"memory://".into())? {
            Entry::GoOn => (),
            Entry::Again => return Ok(()),
        }
        if let Some(actor) = self.actors.get(address) {
            actor.check(commit)?;
        } else {
            Actor::default().check(commit)?;
        }
        self.write(commit);
        Ok(())
    }

    fn write(&mut self, commit: &Commit) {
        let actor = self.actors.entry(commit.actor.clone()).or_default();
        let etag = commit.fence.etag();
        actor.last = Some(Last { epoch: etag.epoch, sequence: etag.sequence });
        for slot in &commit.slots {
            match &slot.value {
                Some(value) => {
                    actor.slots.insert(slot.name.clone(), SlotRecord { etag, value: value.clone() });
                }
                None => {
                    actor.slots.remove(&slot.name);
                }
            }
        }
        for append in &commit.appends {
            let journal = actor.journals.entry(append.journal.clone()).or_default();
            let feed_name = (commit.actor.actor_type.clone(), append.journal.clone());
            let feed = self.feeds.entry(feed_name).or_default();
            for value in &append.events {
                let sequence = journal.last() + 1;
                let event = Event { sequence, time: commit.time, value: value.clone() };
                feed.push(FeedEvent { actor: commit.actor.clone(), event: event.clone() });
                journal.events.push(event);
            }
            if let Some(value) = &append.snapshot {
                journal.snapshot = Some(Snapshot { sequence: journal.last(), value: value.clone() });
            }
        }
        actor.inbox.extend(commit.inbox.iter().map(|message| (message.clone(), commit.time)));
        for (index, message) in (0..).zip(&commit.outbox) {
            let id = OutboxId { from: commit.actor.clone(), commit: etag, index };
            let pending = PendingMessage { id: id.clone(), message: message.clone(), time: commit.time };
            self.outbox.insert(self.outbox_next, pending);
            self.outbox_order.insert(id, self.outbox_next);
            self.outbox_next += 1;
        }
    }

    fn load(&self, actor: &Address, wanted: &Wanted) -> Loaded {
        let actor = self.actors.get(actor);
        let slot = |name| actor.and_then(|actor| actor.slots.get(name).cloned());
        let journal = |name| match actor.and_then(|actor| actor.journals.get(name)) {
            Some(journal) => JournalHead { last: journal.last(), snapshot: journal.snapshot.clone() },
            None => JournalHead::default(),
        };
        Loaded {
            last: actor.and_then(|actor| actor.last).map(Last::etag),
            slots: wanted.slots.iter().map(slot).collect(),
            journals: wanted.journals.iter().map(journal).collect(),
        }
    }

    fn events(&self, actor: &Address, journal: &str, after: u64, limit: usize) -> Vec<Event> {
        let journal = self.actors.get(actor).and_then(|actor| actor.journals.get(journal));
        let Some(journal) = journal else { return Vec::new() };
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        journal.events.iter().skip(after).take(limit).cloned().collect()
    }

    fn feed(
        &self,
        actor_type: &str,
        journal: &str,
        after: &FeedPosition,
        limit: usize,
    ) -> Result<FeedPage, StoreError> {
        let begin: usize = if after.0.is_empty() {
            0
        } else {
            after.0.parse().map_err(|_| crate::unknown_position("memory://", after))?
        };
        let name = (Cow::Owned(actor_type.to_owned()), Cow::Owned(journal.to_owned()));
        let feed = self.feeds.get(&name).map_or(&[][..], Vec::as_slice);
        let events: Vec<FeedEvent> = feed.iter().skip(begin).take(limit).cloned().collect();
        let next = FeedPosition((begin + events.len()).to_string());
        Ok(FeedPage { events, next })
    }

    /// A place is the number of the first message after it.
    fn outbox(&self, after: &OutboxPlace, limit: usize) -> OutboxPage {
        let begin = after.0.first().copied().unwrap_or(0);
        let mut waiting = self.outbox.range(begin..);
        let (orders, messages): (Vec<u64>, _) =
            waiting.by_ref().take(limit).map(|(order, message)| (*order, message.clone())).unzip();
        let next = OutboxPlace([orders.last().map_or(begin, |last| last + 1)].into());
        OutboxPage { messages, next, is_last: waiting.next().is_none() }
    }

    fn relayed(&mut self, messages: &[OutboxId]) {
        for message in messages {
            if let Some(order) = self.outbox_order.remove(message) {
                self.outbox.remove(&order);
            }
        }
    }

    fn forget_received(&mut self, time: Timestamp) -> u64 {
        let mut forgotten = 0;
        for actor in self.actors.values_mut() {
            let before = actor.inbox.len();
            actor.inbox.retain(|_, received| *received >= time);
            forgotten += before - actor.inbox.len();
        }
        forgotten as u64
    }
}

impl ActorStore for Actors {
    fn load<'a>(&'a self, actor: &'a Address, wanted: &'a Wanted) -> StoreFuture<'a, Loaded> {
        async move {
            actor.check_names()?;
            wanted.check_names()?;
            Ok(self.0.lock().load(actor, wanted))
        }
        .boxed()
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> StoreFuture<'a, ()> {
        async move {
            commit.check_names()?;
            self.0.lock().commit(commit)
        }
        .boxed()
    }

    fn events<'a>(
        &'a self,
        actor: &'a Address,
        journal: &'a str,
        after: u64,
        limit: usize,
    ) -> StoreFuture<'a, Vec<Event>> {
        async move {
            actor.check_names()?;
            NameOf::Journal.check(journal)?;
            Ok(self.0.lock().events(actor, journal, after, limit))
        }
        .boxed()
    }

    fn feed<'a>(
        &'a self,
        actor_type: &'a str,
        journal: &'a str,
        after: &'a FeedPosition,
        limit: usize,
    ) -> StoreFuture<'a, FeedPage> {
        async move {
            NameOf::ActorType.check(actor_type)?;
            NameOf::Journal.check(journal)?;
            self.0.lock().feed(actor_type, journal, after, limit)
        }
        .boxed()
    }

    fn outbox<'a>(&'a self, after: &'a OutboxPlace, limit: usize) -> StoreFuture<'a, OutboxPage> {
        async move { Ok(self.0.lock().outbox(after, limit)) }.boxed()
    }

    fn relayed<'a>(&'a self, messages: &'a [OutboxId]) -> StoreFuture<'a, ()> {
        async move {
            self.0.lock().relayed(messages);
            Ok(())
        }
        .boxed()
    }

    fn has_received<'a>(&'a self, actor: &'a Address, message: &'a MessageId) -> StoreFuture<'a, bool> {
        async move {
            actor.check_names()?;
            Ok(self.0.lock().actors.get(actor).is_some_and(|actor| actor.inbox.contains_key(message)))
        }
        .boxed()
    }

    fn forget_received(&self, time: Timestamp) -> StoreFuture<'_, u64> {
        async move { Ok(self.0.lock().forget_received(time)) }.boxed()
    }
}
