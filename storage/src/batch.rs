//! Several commits in one transaction, decided in memory.
//!
//! A database is asked once for all that a batch expects ([`Questions`]), the decision is made here, and what is to be
//! written comes out as rows ([`Writes`]). So a commit whose expectation fails writes nothing and leaves the others
//! alone, without a savepoint, and a batch costs the same few statements whatever its size.
//!
//! The caller owes that nobody else changes what was asked until the rows are written: by the one write lock of
//! SQLite, by row locks on the actors in PostgreSQL.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use quark_base::Timestamp;
use quark_runtime::store::{Address, Commit, Conflict, ETag, Encoded, MessageId, OutboxMessage, StoreError};

use crate::fence::{self, Entry, Last};

/// What a batch of commits needs to know, each thing once. Answers stand at the same index.
pub(crate) struct Questions<'a> {
    /// Whose last commit?
    pub(crate) actors: Vec<&'a Address>,
    /// Which ETag has the state?
    pub(crate) slots: Vec<(&'a Address, &'a str)>,
    /// Where does the journal end?
    pub(crate) journals: Vec<(&'a Address, &'a str)>,
    /// Was the message received?
    pub(crate) inbox: Vec<(&'a Address, &'a MessageId)>,
    /// For each commit, where its questions stand.
    places: Vec<Places>,
}

/// Where one commit's questions stand.
struct Places {
    actor: usize,
    slots: Vec<usize>,
    journals: Vec<usize>,
    inbox: Vec<usize>,
}

/// What the database has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) actors: Vec<Option<Last>>,
    pub(crate) slots: Vec<Option<ETag>>,
    pub(crate) journals: Vec<u64>,
    pub(crate) inbox: Vec<bool>,
}

impl Answers {
    /// As if the database had nothing.
    pub(crate) fn none(questions: &Questions<'_>) -> Self {
        Self {
            actors: vec![None; questions.actors.len()],
            slots: vec![None; questions.slots.len()],
            journals: vec![0; questions.journals.len()],
            inbox: vec![false; questions.inbox.len()],
        }
    }
}

/// What is to be written: each row once, however many commits touched it.
#[derive(Default)]
pub(crate) struct Writes<'a> {
    /// Actors and their last commits.
    pub(crate) actors: Vec<ActorRow<'a>>,
    /// States with their new values.
    pub(crate) slots: Vec<SlotRow<'a>>,
    /// States that are there no more.
    pub(crate) cleared: Vec<(&'a Address, &'a str)>,
    /// Where journals end.
    pub(crate) journals: Vec<JournalRow<'a>>,
    /// New events, in order.
    pub(crate) events: Vec<EventRow<'a>>,
    /// New messages, in order.
    pub(crate) outbox: Vec<OutboxRow<'a>>,
    /// Messages that took effect.
    pub(crate) inbox: Vec<(&'a Address, &'a MessageId, Timestamp)>,
}

pub(crate) struct ActorRow<'a> {
    pub(crate) actor: &'a Address,
    pub(crate) last: Last,
    /// The last commit that the database has; `None` if it has nothing of the actor. SQLite, with one writer, does not
    /// care.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "nobody else needs it"))]
    pub(crate) before: Option<Last>,
}

pub(crate) struct SlotRow<'a> {
    pub(crate) actor: &'a Address,
    pub(crate) name: &'a str,
    pub(crate) etag: ETag,
    pub(crate) value: &'a Encoded,
    /// Whether the database has no such state yet. SQLite does not care.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "nobody else needs it"))]
    pub(crate) is_new: bool,
}

pub(crate) struct JournalRow<'a> {
    pub(crate) actor: &'a Address,
    pub(crate) journal: &'a str,
    pub(crate) last: u64,
    /// The newest snapshot and its place; `None` leaves the one that is there.
    pub(crate) snapshot: Option<(u64, &'a Encoded)>,
}

pub(crate) struct EventRow<'a> {
    pub(crate) actor: &'a Address,
    pub(crate) journal: &'a str,
    pub(crate) sequence: u64,
    pub(crate) time: Timestamp,
    pub(crate) value: &'a Encoded,
}

pub(crate) struct OutboxRow<'a> {
    pub(crate) from: &'a Address,
    pub(crate) commit: ETag,
    pub(crate) index: u32,
    pub(crate) time: Timestamp,
    pub(crate) message: &'a OutboxMessage,
}

/// Lists things, each once.
struct List<T> {
    items: Vec<T>,
    places: HashMap<T, usize>,
}

impl<T: Copy + Eq + Hash> List<T> {
    fn new() -> Self {
        Self { items: Vec::new(), places: HashMap::new() }
    }

    fn place(&mut self, item: T) -> usize {
        *self.places.entry(item).or_insert_with(|| {
            self.items.push(item);
            self.items.len() - 1
        })
    }
}

impl<'a> Questions<'a> {
    /// What these commits need to know.
    pub(crate) fn of(commits: impl IntoIterator<Item = &'a Commit>) -> Self {
        let (mut actors, mut slots) = (List::new(), List::new());
        let (mut journals, mut inbox) = (List::new(), List::new());
        let places = commits
            .into_iter()
            .map(|commit| {
                let actor = &commit.actor;
                Places {
                    actor: actors.place(actor),
                    slots: commit.slots.iter().map(|slot| slots.place((actor, slot.name.as_ref()))).collect(),
                    journals: commit
                        .appends
                        .iter()
                        .map(|append| journals.place((actor, append.journal.as_ref())))
                        .collect(),
                    inbox: commit.inbox.iter().map(|message| inbox.place((actor, message))).collect(),
                }
            })
            .collect();
        Self {
            actors: actors.items,
            slots: slots.items,
            journals: journals.items,
            inbox: inbox.items,
            places,
        }
    }

    /// Decides the same commits in their order, each after those before it. The answers become those that hold once
    /// what comes out is written.
    pub(crate) fn decide(
        &self,
        commits: impl IntoIterator<Item = &'a Commit>,
        answers: &mut Answers,
        store: &Arc<str>,
    ) -> (Vec<Result<(), StoreError>>, Writes<'a>) {
        let before = (answers.actors.clone(), answers.slots.clone());
        let mut touched = Touched {
            actors: vec![false; self.actors.len()],
            slots: vec![None; self.slots.len()],
            journals: vec![None; self.journals.len()],
            writes: Writes::default(),
        };
        let results = commits
            .into_iter()
            .zip(&self.places)
            .map(|(commit, places)| {
                match fence::enter(commit, answers.actors[places.actor], store)? {
                    Entry::Again => return Ok(()),
                    Entry::GoOn => answers.check(commit, places)?,
                }
                touched.write(commit, places, answers);
                Ok(())
            })
            .collect();
        let mut writes = touched.writes;
        for (index, actor) in self.actors.iter().enumerate().filter(|(index, _)| touched.actors[*index]) {
            if let Some(last) = answers.actors[index] {
                writes.actors.push(ActorRow { actor, last, before: before.0[index] });
            }
        }
        for (((actor, name), touched), before) in self.slots.iter().zip(touched.slots).zip(before.1) {
            match touched {
                Some(Some((etag, value))) => {
                    writes.slots.push(SlotRow { actor, name, etag, value, is_new: before.is_none() });
                }
                Some(None) => writes.cleared.push((actor, name)),
                None => (),
            }
        }
        for (index, (actor, journal)) in self.journals.iter().enumerate() {
            if let Some(snapshot) = touched.journals[index] {
                let last = answers.journals[index];
                writes.journals.push(JournalRow { actor, journal, last, snapshot });
            }
        }
        (results, writes)
    }
}

impl Answers {
    fn check(&self, commit: &Commit, places: &Places) -> Result<(), Conflict> {
        let actor = &commit.actor;
        for (slot, place) in commit.slots.iter().zip(&places.slots) {
            if self.slots[*place] != slot.expected {
                return Err(Conflict::Slot { actor: actor.clone(), name: slot.name.as_ref().into() });
            }
        }
        for (append, place) in commit.appends.iter().zip(&places.journals) {
            let last = self.journals[*place];
            if last != append.expected {
                let journal = append.journal.as_ref().into();
                return Err(Conflict::Journal { actor: actor.clone(), journal, last });
            }
        }
        for (message, place) in commit.inbox.iter().zip(&places.inbox) {
            if self.inbox[*place] {
                return Err(Conflict::Inbox { actor: actor.clone(), message: message.clone() });
            }
        }
        Ok(())
    }
}

/// What the commits of a batch have changed so far.
struct Touched<'a> {
    actors: Vec<bool>,
    /// The last write of each state; `Some(None)` cleared it.
    slots: Vec<Option<Option<(ETag, &'a Encoded)>>>,
    /// Of each journal that was appended to, the last snapshot.
    journals: Vec<Option<Option<(u64, &'a Encoded)>>>,
    writes: Writes<'a>,
}

impl<'a> Touched<'a> {
    fn write(&mut self, commit: &'a Commit, places: &Places, answers: &mut Answers) {
        let (actor, time, etag) = (&commit.actor, commit.time, commit.fence.etag());
        answers.actors[places.actor] = Some(etag.into());
        self.actors[places.actor] = true;
        for (slot, place) in commit.slots.iter().zip(&places.slots) {
            answers.slots[*place] = slot.value.as_ref().map(|_| etag);
            self.slots[*place] = Some(slot.value.as_ref().map(|value| (etag, value)));
        }
        for (append, place) in commit.appends.iter().zip(&places.journals) {
            let journal = append.journal.as_ref();
            for (sequence, value) in (append.expected + 1..).zip(&append.events) {
                self.writes.events.push(EventRow { actor, journal, sequence, time, value });
            }
            let last = append.expected + append.events.len() as u64;
            answers.journals[*place] = last;
            let snapshot = append.snapshot.as_ref().map(|value| (last, value));
            let before = self.journals[*place].flatten();
            self.journals[*place] = Some(snapshot.or(before));
        }
        for (index, message) in (0..).zip(&commit.outbox) {
            self.writes.outbox.push(OutboxRow { from: actor, commit: etag, index, time, message });
        }
        for (message, place) in commit.inbox.iter().zip(&places.inbox) {
            answers.inbox[*place] = true;
            self.writes.inbox.push((actor, message, time));
        }
    }
}

#[cfg(all(test, feature = "sqlite", feature = "postgres"))]
mod tests;
