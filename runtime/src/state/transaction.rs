//! Several parts of an actor, messages to others, and a receipt for the message that asked for it, written at once.

use std::sync::Arc;

use super::behind::Behind;
use super::keeper::Keeper;
use super::{Part, State, StateCause, StateError, Stored, detached};
use crate::actor::Actor;
use crate::call::Call;
use crate::context::Cx;
use crate::durable::DurableMessage;
use crate::journal::{Folded, Journal};
use crate::store::{Append, Conflict, MessageId, OutboxMessage, SlotWrite, StoreError};

/// What a turn writes in one step: all of it, or nothing. Made by [`Cx::transaction`].
///
/// Nothing is written before [`commit`](Self::commit). If the turn runs for a durable message, the commit also notes
/// that message's id, and fails if a commit of the actor has it already: so its effect on the actor's state happens
/// exactly once, however often the message is delivered.
#[must_use = "a transaction writes nothing before it is committed"]
pub struct Transaction<'a> {
    keeper: Option<Arc<Keeper>>,
    slots: Vec<SlotWrite>,
    appends: Vec<Append>,
    outbox: Vec<OutboxMessage>,
    inbox: Vec<MessageId>,
    /// What waits to be written later of the states in it, which are newer here.
    behind: Vec<Arc<Behind>>,
    then: Vec<Box<dyn FnOnce() + Send + 'a>>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(cx: &Cx) -> Self {
        let keeper = cx.slot().and_then(|slot| slot.keepers().into_iter().next());
        Self {
            keeper,
            slots: Vec::new(),
            appends: Vec::new(),
            outbox: Vec::new(),
            inbox: cx.message_id().cloned().into_iter().collect(),
            behind: Vec::new(),
            then: Vec::new(),
        }
    }

    /// Writes the value that the state has now.
    ///
    /// # Errors
    /// [`StateError`] if it cannot be written as bytes, is too large, or is in another store than the parts before it.
    pub fn save<T: Stored>(&mut self, state: &State<T>) -> Result<&mut Self, StateError> {
        let (keeper, write, behind) = state.to_write()?;
        self.in_store_of(keeper)?;
        self.slots.retain(|other| other.name != write.name);
        self.slots.push(write);
        self.behind.extend(behind);
        Ok(self)
    }

    /// Appends events, which are applied once they are committed.
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub fn append<S: Folded>(
        &mut self,
        journal: &'a mut Journal<S>,
        events: Vec<S::Event>,
    ) -> Result<&mut Self, StateError> {
        self.in_store_of(journal.keeper()?)?;
        let append = journal.encode(&events)?;
        let has_snapshot = append.snapshot.is_some();
        self.appends.push(append);
        self.then.push(Box::new(move || journal.applied(&events, has_snapshot)));
        Ok(self)
    }

    /// Sends a message when this is committed: at least once, also if the silo ends right after the commit. The method
    /// carries `#[durable]`.
    ///
    /// # Errors
    /// [`StateError`] if its arguments cannot be written as bytes.
    pub fn send<B: Actor, M: DurableMessage<B>>(
        &mut self,
        call: Call<'_, B, M>,
    ) -> Result<&mut Self, StateError> {
        let (to, message) = call.into_parts();
        let to = to.ok_or_else(|| self.error(StateCause::NotHosted(B::SPEC.name)))?;
        let body = message.encode().map_err(|cause| self.error(cause))?;
        self.outbox.push(OutboxMessage { to, method: M::NAME.into(), body });
        Ok(self)
    }

    /// Notes that a message took effect, besides the durable message that the turn runs for: one with an id of a
    /// client's, for example.
    pub fn receive(&mut self, message: MessageId) -> &mut Self {
        if !self.inbox.contains(&message) {
            self.inbox.push(message);
        }
        self
    }

    /// Writes it all.
    ///
    /// Dropping the future half-way leaves it unknown whether it is written; the activation then ends.
    ///
    /// # Errors
    /// [`StateError`]; [`StateCause::Duplicate`] if one of the messages took effect before. The activation then ends,
    /// since what it has in memory is not what is stored.
    pub async fn commit(self) -> Result<(), StateError> {
        let Some(keeper) = self.keeper else {
            return Err(StateError::new(detached(), Part::Transaction, StateCause::Detached));
        };
        let sends = !self.outbox.is_empty();
        let (slots, appends, outbox, inbox) = (self.slots, self.appends, self.outbox, self.inbox);
        let (behind, mut taken) = (self.behind, Vec::new());
        let committed = keeper.commit(|commit| {
            (commit.slots, commit.appends, commit.outbox, commit.inbox) = (slots, appends, outbox, inbox);
            taken.extend(behind.iter().map(|behind| behind.take()));
        });
        match committed.await {
            Ok(_) => {
                self.then.into_iter().for_each(|apply| apply());
                if sends {
                    keeper.notify_outbox();
                }
                Ok(())
            }
            Err(cause) => {
                for (behind, taken) in behind.iter().zip(taken) {
                    behind.put_back(taken);
                }
                let duplicate = matches!(&cause, StateCause::Store(StoreError::Conflict(conflict))
                    if matches!(**conflict, Conflict::Inbox { .. }));
                let cause = if duplicate { StateCause::Duplicate } else { cause };
                Err(StateError::new(keeper.actor.clone(), Part::Transaction, cause))
            }
        }
    }

    fn in_store_of(&mut self, keeper: &Arc<Keeper>) -> Result<(), StateError> {
        let written = !self.slots.is_empty() || !self.appends.is_empty();
        match &self.keeper {
            Some(own) if written && !Arc::ptr_eq(own, keeper) => {
                Err(self.error(StateCause::SeveralStores(own.store_name, keeper.store_name)))
            }
            _ => {
                self.keeper = Some(keeper.clone());
                Ok(())
            }
        }
    }

    fn error(&self, cause: impl Into<StateCause>) -> StateError {
        let actor = self.keeper.as_ref().map_or_else(detached, |keeper| keeper.actor.clone());
        StateError::new(actor, Part::Transaction, cause)
    }
}
