//! Reading journals from outside their actors: events, states as they were, and projections.

use std::marker::PhantomData;

use quark_base::{ActorId, Fault, Key, Outcome, Retry, Timestamp};

use super::{Folded, PAGE, Recorded, decode, read_page};
use crate::actor::Actor;
use crate::state::{Part, StateCause, StateError, Stored};
use crate::store::{Address, FeedPosition, Store};

/// Reads the journals of one name of an actor type. It activates nobody.
pub struct JournalReader<A, S> {
    store: Store,
    journal: &'static str,
    types: PhantomData<fn() -> (A, S)>,
}

/// Why there is no such reader. Nothing was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// The type declares no journal of this name.
    #[error("{actor_type} has no journal named {journal:?}")]
    NoJournal {
        /// The actor type.
        actor_type: &'static str,
        /// The name.
        journal: String,
    },
    /// The silo has no store of the name that the journal declares.
    #[error("the silo has no store named {0:?}; add `.store({0:?}, …)` to its builder")]
    NoStore(&'static str),
}

impl Fault for ReaderError {
    fn outcome(&self) -> Outcome {
        Outcome::Rejected
    }

    fn retry(&self) -> Retry {
        Retry::Pointless
    }
}

/// How far a replay goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Through the event of this number.
    Sequence(u64),
    /// Through the last event that was committed at this time or before.
    Time(Timestamp),
    /// To the end.
    End,
}

impl<A: Actor, S: Folded> JournalReader<A, S> {
    pub(crate) fn new(store: Store, journal: &'static str) -> Self {
        Self { store, journal, types: PhantomData }
    }

    /// The events of one actor after sequence number `after`, in order, some thousand of them at most.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn events(
        &self,
        key: impl Into<Key>,
        after: u64,
    ) -> Result<Vec<Recorded<S::Event>>, StateError> {
        let actor = self.actor(key);
        let page = read_page(&self.store, &Address::from(&actor), self.journal, after).await;
        let record = |event: &crate::store::Event| {
            let decoded = decode::<S>(event).map_err(|cause| self.error(&actor, cause))?;
            Ok(Recorded { sequence: event.sequence, time: event.time, event: decoded })
        };
        page.map_err(|cause| self.error(&actor, cause))?.iter().map(record).collect()
    }

    /// The state as it was after a part of the events, and the number of the last of them.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn replay(&self, key: impl Into<Key>, until: Until) -> Result<(S, u64), StateError>
    where
        S: Default,
    {
        let actor = self.actor(key);
        let (mut state, mut last) = (S::default(), 0);
        loop {
            let page = self.events(actor.key.clone(), last).await?;
            let full = page.len() == PAGE;
            for recorded in page {
                let wanted = match until {
                    Until::Sequence(sequence) => recorded.sequence <= sequence,
                    Until::Time(time) => recorded.time <= time,
                    Until::End => true,
                };
                if !wanted {
                    return Ok((state, last));
                }
                state.apply(&recorded.event);
                last = recorded.sequence;
            }
            if !full {
                return Ok((state, last));
            }
        }
    }

    /// Begins to read the events of all actors of the type, for a projection.
    pub fn feed(&self, from: FeedPosition) -> Feed<S> {
        Feed {
            store: self.store.clone(),
            actor_type: A::SPEC.name,
            journal: self.journal,
            position: from,
            types: PhantomData,
        }
    }

    fn actor(&self, key: impl Into<Key>) -> ActorId {
        ActorId { actor_type: A::SPEC.name, key: key.into() }
    }

    fn error(&self, actor: &ActorId, cause: impl Into<StateCause>) -> StateError {
        StateError::new(actor.clone(), Part::Journal(self.journal), cause)
    }
}

/// The events of all actors of a type, page by page.
///
/// The events of one actor are in order. Keep [`position`](Self::position) together with what was made of the events: a
/// reader that begins again there sees each of the others at least once.
pub struct Feed<S> {
    store: Store,
    actor_type: &'static str,
    journal: &'static str,
    position: FeedPosition,
    types: PhantomData<fn() -> S>,
}

impl<S: Folded> Feed<S> {
    /// The next events with their actors' keys, at most `limit`; none if there are no further ones now. After an error
    /// the position is where it was.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn next(&mut self, limit: usize) -> Result<Vec<(Key, Recorded<S::Event>)>, StateError> {
        let error = |key: &Key, cause: StateCause| {
            let actor = ActorId { actor_type: self.actor_type, key: key.clone() };
            StateError::new(actor, Part::Journal(self.journal), cause)
        };
        let page = self.store.actors.feed(self.actor_type, self.journal, &self.position, limit).await;
        let page = page.map_err(|cause| error(&Key::from("*"), cause.into()))?;
        let mut events = Vec::with_capacity(page.events.len());
        for found in page.events {
            let key = found.actor.key;
            let event = S::Event::decode(&found.event.value).map_err(|cause| error(&key, cause.into()))?;
            events.push((key, Recorded { sequence: found.event.sequence, time: found.event.time, event }));
        }
        self.position = page.next;
        Ok(events)
    }

    /// Where the next page begins.
    pub fn position(&self) -> &FeedPosition {
        &self.position
    }
}
