//! What an actor keeps beyond its activation: [`State`] and [`Journal`](crate::journal::Journal) fields, loaded before
//! `#[on_activate]` runs, and written when the actor says so.
//!
//! - [`codec`]: values as bytes, with versions
//! - `kept`: the fields of an actor, and how they are loaded
//! - `keeper`: an activation's fence, and the one way to commit
//! - `behind`: writing a little later
//! - [`transaction`]: several parts, messages and a receipt, at once
//! - [`error`]: what loading and saving can end in
//!
//! Memory may run ahead of the store: a method changes the value, then saves it, and a save may fail. What a caller was
//! answered after a successful save is stored. A turn on an activation that lost its actor to another one ends in
//! [`CallError::Superseded`](crate::CallError::Superseded), whatever its method returns, and the activation ends.

mod behind;
pub mod codec;
pub mod error;
pub(crate) mod keeper;
pub(crate) mod kept;
pub mod transaction;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use quark_base::ByteSize;

pub use codec::{DecodeError, EncodeError, Stored};
pub use error::{Part, StateCause, StateError};
pub use kept::Kept;
pub use transaction::Transaction;

use self::behind::Behind;
use self::keeper::Keeper;
use crate::store::{ETag, Encoded, Format, SlotWrite};

/// What a `#[state]` field declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// Its name within the actor.
    pub name: &'static str,
    /// The name of its store.
    pub store: &'static str,
    /// How it is written.
    pub format: Format,
    /// The largest it may become.
    pub max: ByteSize,
    /// How long after a save it may be written; what a crash can lose.
    pub write_behind: Option<Duration>,
}

impl StateSpec {
    /// The store of a part that names none.
    pub const STORE: &'static str = "default";
    /// The limit of a part that names none. A value is read at each activation and written whole at each save, so a
    /// larger one is mostly a mistake.
    pub const MAX: ByteSize = ByteSize::bytes(4 << 20);

    /// A field that declares nothing but its name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, store: Self::STORE, format: Format::Json, max: Self::MAX, write_behind: None }
    }
}

/// A value that is loaded when its actor is activated, and written when the actor saves it.
///
/// A field of an actor with `#[state]`. It reads and changes like the value itself; changes are in memory until
/// [`save`](Self::save). Before the first save it is what the field starts as.
pub struct State<T> {
    value: T,
    bound: Option<Box<Bound>>,
}

/// A state's part of a transaction: by whom it is written, what, and what of it may be waiting to be written.
pub(crate) type ToWrite<'a> = (&'a Arc<Keeper>, SlotWrite, Option<Arc<Behind>>);

/// Where a state is stored.
pub(super) struct Bound {
    pub(super) keeper: Arc<Keeper>,
    pub(super) spec: StateSpec,
    behind: Option<Arc<Behind>>,
}

impl<T: Stored> State<T> {
    /// A state that starts as `value` where the store has none.
    pub const fn new(value: T) -> Self {
        Self { value, bound: None }
    }

    /// Writes the value. With `write_behind`, hands it over to be written soon.
    ///
    /// Dropping the future half-way leaves it unknown whether the value was written; the activation then ends, and the
    /// next one loads what the store has.
    ///
    /// # Errors
    /// [`StateError`]. The value in memory stays as it is, whatever the error; what the store has is as the error says.
    pub async fn save(&mut self) -> Result<(), StateError> {
        let value = self.encoded()?;
        self.write(Some(value)).await
    }

    /// Writes the value now, also with `write_behind`.
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub async fn save_now(&mut self) -> Result<(), StateError> {
        let value = self.encoded()?;
        self.bound()?.commit(Some(value)).await
    }

    /// Takes the stored value in place of the one in memory; what was not saved is gone. What the store does not have
    /// leaves the value as it is.
    ///
    /// # Errors
    /// [`StateError`]; the value in memory stays as it is.
    pub async fn reload(&mut self) -> Result<(), StateError> {
        let bound = self.bound()?;
        if let Some(behind) = &bound.behind {
            behind.flush().await.map_err(|cause| bound.error(cause))?;
        }
        let found = bound.read().await.map_err(|cause| bound.error(cause))?;
        if let Some(value) = found {
            let value = T::decode(&value).map_err(|cause| bound.error(cause))?;
            self.value = value;
        }
        Ok(())
    }

    /// Removes the value from the store and gives the one in memory its default.
    ///
    /// # Errors
    /// As for [`save`](Self::save); the value in memory is then as it was.
    pub async fn clear(&mut self) -> Result<(), StateError>
    where
        T: Default,
    {
        self.bound()?.commit(None).await?;
        self.value = T::default();
        Ok(())
    }

    /// Which commit wrote what the store has, as far as this activation knows; `None` before the first save.
    pub fn etag(&self) -> Option<ETag> {
        let bound = self.bound.as_ref()?;
        bound.keeper.etag(bound.spec.name)
    }

    fn encoded(&self) -> Result<Encoded, StateError> {
        let bound = self.bound()?;
        let value = self.value.encode(bound.spec.format).map_err(|cause| bound.error(cause))?;
        bound.check_size(&value)?;
        Ok(value)
    }

    async fn write(&self, value: Option<Encoded>) -> Result<(), StateError> {
        let bound = self.bound()?;
        match (&bound.behind, value) {
            (Some(behind), Some(value)) => behind.put(value).map_err(|cause| bound.error(cause)),
            (_, value) => bound.commit(value).await,
        }
    }

    /// The write for a transaction.
    pub(crate) fn to_write(&self) -> Result<ToWrite<'_>, StateError> {
        let value = self.encoded()?;
        let bound = self.bound()?;
        Ok((&bound.keeper, bound.slot_write(Some(value)), bound.behind.clone()))
    }

    pub(crate) fn bind(
        &mut self,
        keeper: &Arc<Keeper>,
        spec: StateSpec,
        stored: Option<&Encoded>,
    ) -> Result<(), StateError> {
        let behind = spec.write_behind.map(|delay| Behind::new(keeper.clone(), spec, delay));
        let bound = Bound { keeper: keeper.clone(), spec, behind };
        if let Some(stored) = stored {
            self.value = T::decode(stored).map_err(|cause| bound.error(cause))?;
        }
        self.bound = Some(Box::new(bound));
        Ok(())
    }

    fn bound(&self) -> Result<&Bound, StateError> {
        self.bound.as_deref().ok_or_else(|| StateError::new(detached(), Part::Whole, StateCause::Detached))
    }
}

impl<T> State<T> {
    /// What is still to be written of it.
    pub(super) fn behind(&self) -> Option<Arc<Behind>> {
        self.bound.as_ref()?.behind.clone()
    }
}

/// The name of an actor that no silo made.
pub(crate) fn detached() -> quark_base::ActorId {
    quark_base::ActorId { actor_type: "detached", key: "".into() }
}

impl Bound {
    fn error(&self, cause: impl Into<StateCause>) -> StateError {
        StateError::new(self.keeper.actor.clone(), Part::State(self.spec.name), cause)
    }

    fn check_size(&self, value: &Encoded) -> Result<(), StateError> {
        let size = ByteSize::bytes(value.bytes.len() as u64);
        if size <= self.spec.max {
            return Ok(());
        }
        Err(self.error(StateCause::TooLarge { size, limit: self.spec.max }))
    }

    fn slot_write(&self, value: Option<Encoded>) -> SlotWrite {
        let name = self.spec.name;
        // The keeper knows what is expected once the commit's turn has come.
        SlotWrite { name: name.into(), expected: None, value }
    }

    async fn commit(&self, value: Option<Encoded>) -> Result<(), StateError> {
        let mut taken = None;
        let committed = self.keeper.commit(|commit| {
            commit.slots.push(self.slot_write(value));
            taken = self.behind.as_ref().map(|behind| behind.take());
        });
        committed.await.map_err(|cause| {
            if let (Some(behind), Some(taken)) = (&self.behind, taken) {
                behind.put_back(taken);
            }
            self.error(cause)
        })
    }

    async fn read(&self) -> Result<Option<Encoded>, StateCause> {
        if self.keeper.is_lost() {
            return Err(StateCause::Superseded);
        }
        let wanted = crate::store::Wanted { slots: vec![self.spec.name.into()], journals: Vec::new() };
        let loaded = self.keeper.store.actors.load(self.keeper.address(), &wanted).await?;
        let record = loaded.slots.into_iter().next().flatten();
        self.keeper.set_etag(self.spec.name, record.as_ref().map(|record| record.etag));
        Ok(record.map(|record| record.value))
    }
}

impl<T: Default> Default for State<T> {
    fn default() -> Self {
        Self { value: T::default(), bound: None }
    }
}

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for State<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
