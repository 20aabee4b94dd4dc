//! Event sourcing: an actor's state as the fold of its events.
//!
//! A [`Journal`] field of an actor holds the folded state in memory. To change it the actor appends events: they are
//! written atomically, with the sequence number that the journal is expected to have, and only then applied. At
//! activation the newest snapshot is loaded and the events after it are applied. A snapshot is a shortcut and no more:
//! one that cannot be read is left aside, and all events are replayed.
//!
//! Events of older versions are upgraded as they are read; see [`Stored`].

pub mod reader;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use quark_base::{ByteSize, Timestamp};

use crate::state::keeper::Keeper;
use crate::state::{Part, StateCause, StateError, StateSpec, Stored, detached};
use crate::store::{Append, Encoded, Event, Format, JournalHead, Store, StoreError};

/// Events that one read of a store brings.
pub(crate) const PAGE: usize = 1_024;

/// A state that is the fold of its events, and can be stored as a snapshot.
pub trait Folded: Stored {
    /// What happens to it.
    type Event: Stored;

    /// Takes in an event. It has happened, so this cannot refuse it; and it runs again at each replay, so it does
    /// nothing but change the state.
    fn apply(&mut self, event: &Self::Event);
}

/// What a `#[journal]` field declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSpec {
    /// Its name within the actor.
    pub name: &'static str,
    /// The name of its store.
    pub store: &'static str,
    /// How events and snapshots are written.
    pub format: Format,
    /// The largest that an event or a snapshot may become.
    pub max: ByteSize,
    /// After how many events a snapshot is written; zero for never.
    pub snapshot_every: u32,
}

impl JournalSpec {
    /// Events between snapshots of a journal that names no number. A hundred events are read and applied in about the
    /// time that a snapshot of their state takes.
    pub const SNAPSHOT_EVERY: u32 = 100;

    /// A field that declares nothing but its name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            store: StateSpec::STORE,
            format: Format::Json,
            max: StateSpec::MAX,
            snapshot_every: Self::SNAPSHOT_EVERY,
        }
    }
}

/// A state that changes by events which are stored. A field of an actor with `#[journal]`.
pub struct Journal<S> {
    state: S,
    /// The sequence number of the last event that was applied.
    last: u64,
    /// The same of the newest snapshot.
    snapshot: u64,
    bound: Option<Box<Bound>>,
}

struct Bound {
    keeper: Arc<Keeper>,
    spec: JournalSpec,
}

impl<S: Folded> Journal<S> {
    /// A journal whose state starts as `state`, before any event.
    pub const fn new(state: S) -> Self {
        Self { state, last: 0, snapshot: 0, bound: None }
    }

    /// How many events there were: the sequence number of the last one.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Appends one event and applies it. Gives its sequence number.
    ///
    /// # Errors
    /// As for [`append_all`](Self::append_all).
    pub async fn append(&mut self, event: S::Event) -> Result<u64, StateError> {
        self.append_all(vec![event]).await
    }

    /// Appends events, all or none of them, and applies them. Gives the last one's sequence number.
    ///
    /// Dropping the future half-way leaves it unknown whether they were written; the activation then ends.
    ///
    /// # Errors
    /// [`StateError`]; nothing was applied. Whether they were written is as the error says.
    pub async fn append_all(&mut self, events: Vec<S::Event>) -> Result<u64, StateError> {
        if events.is_empty() {
            return Ok(self.last);
        }
        let append = self.encode(&events)?;
        let has_snapshot = append.snapshot.is_some();
        let bound = self.bound()?;
        let fill = |commit: &mut crate::store::Commit| commit.appends.push(append);
        bound.keeper.commit(fill).await.map_err(|cause| bound.error(cause))?;
        self.applied(&events, has_snapshot);
        Ok(self.last)
    }

    /// The same, if the last event's sequence number is `expected`: for callers who decided by what they read earlier.
    ///
    /// # Errors
    /// As for [`append_all`](Self::append_all), and [`Conflict::Journal`](crate::store::Conflict::Journal) if there are
    /// other events; the activation goes on then.
    pub async fn append_after(&mut self, expected: u64, events: Vec<S::Event>) -> Result<u64, StateError> {
        if self.last != expected {
            let bound = self.bound()?;
            let conflict = crate::store::Conflict::Journal {
                actor: bound.keeper.address().clone(),
                journal: bound.spec.name.into(),
                last: self.last,
            };
            return Err(bound.error(StoreError::Conflict(Box::new(conflict))));
        }
        self.append_all(events).await
    }

    /// Writes a snapshot now.
    ///
    /// # Errors
    /// [`StateError`]; the journal is as it was.
    pub async fn write_snapshot(&mut self) -> Result<(), StateError> {
        let bound = self.bound()?;
        let value = self.state.encode(bound.spec.format).map_err(|cause| bound.error(cause))?;
        bound.check_size(&value)?;
        let append = Append {
            journal: bound.spec.name.into(),
            expected: self.last,
            events: Vec::new(),
            snapshot: Some(value),
        };
        let fill = |commit: &mut crate::store::Commit| commit.appends.push(append);
        bound.keeper.commit(fill).await.map_err(|cause| bound.error(cause))?;
        self.snapshot = self.last;
        Ok(())
    }

    /// The write for these events, with a snapshot if one is due after them.
    pub(crate) fn encode(&self, events: &[S::Event]) -> Result<Append, StateError> {
        let bound = self.bound()?;
        let encode = |event: &S::Event| {
            let value = event.encode(bound.spec.format).map_err(|cause| bound.error(cause))?;
            bound.check_size(&value).map(|()| value)
        };
        let encoded = events.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let snapshot = self.snapshot_after(bound, events);
        Ok(Append { journal: bound.spec.name.into(), expected: self.last, events: encoded, snapshot })
    }

    /// The state after these events, if a snapshot is due then. In the events' own commit, so that it costs no other
    /// one; what prevents it costs the next activation some events to replay, and nobody anything else.
    fn snapshot_after(&self, bound: &Bound, events: &[S::Event]) -> Option<Encoded> {
        let every = u64::from(bound.spec.snapshot_every);
        if every == 0 || self.last + events.len() as u64 - self.snapshot < every {
            return None;
        }
        let skipped = |error: &dyn fmt::Display| {
            let actor = &bound.keeper.actor;
            tracing::warn!(%actor, journal = bound.spec.name, %error, "a snapshot was not written");
        };
        // What is stored can be read back, so this is a copy that asks nothing more of the type.
        let copy = self.state.encode(Format::Binary).map_err(|error| skipped(&error)).ok()?;
        let mut state = S::decode(&copy).map_err(|error| skipped(&error)).ok()?;
        events.iter().for_each(|event| state.apply(event));
        let value = state.encode(bound.spec.format).map_err(|error| skipped(&error)).ok()?;
        bound.check_size(&value).map_err(|error| skipped(&error)).ok()?;
        Some(value)
    }

    pub(crate) fn keeper(&self) -> Result<&Arc<Keeper>, StateError> {
        Ok(&self.bound()?.keeper)
    }

    /// Takes in events that are stored, with a snapshot after them or without.
    pub(crate) fn applied(&mut self, events: &[S::Event], has_snapshot: bool) {
        for event in events {
            self.state.apply(event);
            self.last += 1;
        }
        if has_snapshot {
            self.snapshot = self.last;
        }
    }

    pub(crate) async fn bind(
        &mut self,
        keeper: &Arc<Keeper>,
        spec: JournalSpec,
        head: JournalHead,
    ) -> Result<(), StateError> {
        let bound = Bound { keeper: keeper.clone(), spec };
        if let Some(snapshot) = &head.snapshot {
            match S::decode(&snapshot.value) {
                Ok(state) => {
                    (self.state, self.last, self.snapshot) = (state, snapshot.sequence, snapshot.sequence)
                }
                Err(error) => {
                    let actor = &keeper.actor;
                    tracing::warn!(%actor, journal = spec.name, %error, "replaying all events, for want of a snapshot");
                }
            }
        }
        while self.last < head.last {
            let page = read_page(&keeper.store, keeper.address(), spec.name, self.last).await;
            let page = page.map_err(|cause| bound.error(cause))?;
            if page.is_empty() {
                break;
            }
            for event in page.iter().take_while(|event| event.sequence <= head.last) {
                let decoded = decode::<S>(event).map_err(|cause| bound.error(cause))?;
                self.applied(&[decoded], false);
            }
        }
        if self.last != head.last {
            let cause = format!("events after {} of {} are missing", self.last, head.last);
            let store = keeper.store.name.clone();
            return Err(bound.error(StoreError::Corrupt { store, cause: cause.into() }));
        }
        self.bound = Some(Box::new(bound));
        Ok(())
    }

    fn bound(&self) -> Result<&Bound, StateError> {
        self.bound.as_deref().ok_or_else(|| StateError::new(detached(), Part::Whole, StateCause::Detached))
    }
}

impl Bound {
    fn error(&self, cause: impl Into<StateCause>) -> StateError {
        StateError::new(self.keeper.actor.clone(), Part::Journal(self.spec.name), cause)
    }

    fn check_size(&self, value: &Encoded) -> Result<(), StateError> {
        let size = ByteSize::bytes(value.bytes.len() as u64);
        if size <= self.spec.max {
            return Ok(());
        }
        Err(self.error(StateCause::TooLarge { size, limit: self.spec.max }))
    }
}

/// The events after `after`, and a check that none is missing among them.
pub(crate) async fn read_page(
    store: &Store,
    actor: &crate::store::Address,
    journal: &str,
    after: u64,
) -> Result<Vec<Event>, StoreError> {
    let page = store.actors.events(actor, journal, after, PAGE).await?;
    let in_order = page.iter().zip(after + 1..).all(|(event, sequence)| event.sequence == sequence);
    if !in_order {
        let cause = format!("journal {journal} of {actor} has gaps after event {after}");
        return Err(StoreError::Corrupt { store: store.name.clone(), cause: cause.into() });
    }
    Ok(page)
}

pub(crate) fn decode<S: Folded>(event: &Event) -> Result<S::Event, StateCause> {
    S::Event::decode(&event.value).map_err(StateCause::from)
}

/// One event with what its store knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded<E> {
    /// Its number within its journal, from 1.
    pub sequence: u64,
    /// When it was committed.
    pub time: Timestamp,
    /// The event.
    pub event: E,
}

impl<S: Default> Default for Journal<S> {
    fn default() -> Self {
        Self { state: S::default(), last: 0, snapshot: 0, bound: None }
    }
}

impl<S> Deref for Journal<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

impl<S: fmt::Debug> fmt::Debug for Journal<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("state", &self.state)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
