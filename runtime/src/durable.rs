//! Messages that outlive their sender: outboxes, and what becomes of them.
//!
//! A message that a [`Transaction`](crate::state::Transaction) sends is written with the sender's state. The relay reads
//! it from the store, runs the receiver's method, and takes it out of the outbox once the method has answered. A silo
//! that ends in between finds the message again: so it is delivered at least once, and a receiver that writes with a
//! transaction of its own takes it exactly once.
//!
//! A method that returns an error, or cannot be run, gets the message again, less and less often, until it answers:
//! nothing that was sent is ever given up. So a durable method answers `Ok` where its "no" is final.

mod relay;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::future::BoxFuture;

pub(crate) use relay::Relay;

use crate::actor::{Actor, Method};
use crate::error::CallError;
use crate::host::Hosted;
use crate::state::codec;
use crate::state::{DecodeError, EncodeError};
use crate::store::{Encoded, Format, MessageId};
use crate::turn::block::panic_message;

/// A message that can be stored. `#[methods]` implements it for methods with `#[durable]`.
pub trait DurableMessage<A: Actor>: Method<A> + Sized {
    /// The method's name.
    const NAME: &'static str;

    /// Writes the arguments.
    ///
    /// # Errors
    /// [`EncodeError`].
    fn encode(&self) -> Result<Encoded, EncodeError>;

    /// Reads them.
    ///
    /// # Errors
    /// [`DecodeError`].
    fn decode(stored: &Encoded) -> Result<Self, DecodeError>;
}

/// What can be an argument of a durable method.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel with a durable message",
    label = "an argument of a #[durable] method is `Serialize + Deserialize`: derive them"
)]
pub trait Storable: serde::Serialize + serde::de::DeserializeOwned {}

impl<T: serde::Serialize + serde::de::DeserializeOwned> Storable for T {}

/// Writes a message. What `#[durable]` expands to.
///
/// # Errors
/// [`EncodeError`].
pub fn encode<M: serde::Serialize>(message: &M) -> Result<Encoded, EncodeError> {
    codec::write(message, 1, Format::Json)
}

/// Reads a message. What `#[durable]` expands to.
///
/// # Errors
/// [`DecodeError`].
pub fn decode<M: serde::de::DeserializeOwned>(stored: &Encoded) -> Result<M, DecodeError> {
    codec::read(stored)
}

/// The durable methods of one actor type, collected from its `#[methods]`.
pub struct DurableMethods<A: Actor> {
    by_name: HashMap<&'static str, Box<dyn Deliver<A>>>,
}

/// Why a durable message was not taken. It stays in its outbox, and is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error(
        "{actor_type} has no durable method {method}; put #[durable] on it, or host a version that has it"
    )]
    NoMethod { actor_type: &'static str, method: Box<str> },
    #[error(
        "{actor_type} has no #[on_reminder({name:?})]; write it, forget the reminder, or host a version that has it"
    )]
    NoReminder { actor_type: &'static str, name: Box<str> },
    #[error("this silo hosts no actors of type {actor_type}")]
    NotHosted { actor_type: Box<str> },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("it was not answered within {0:?}")]
    TooLate(Duration),
    #[error("{0}")]
    Failed(Box<str>),
}

impl DeliveryError {
    /// The receiver did not take it.
    pub(crate) fn of<E>(error: &CallError<E>) -> Self {
        let failure = error.as_failure().map(|failure| failure.to_string());
        Self::Failed(failure.unwrap_or_else(|| "the method returned an error".into()).into())
    }
}

/// A delivery under way.
pub(crate) type Delivery = BoxFuture<'static, Result<(), DeliveryError>>;

/// Runs one method of a type for a stored message.
trait Deliver<A: Actor>: Send + Sync {
    fn deliver(&self, to: crate::actor_ref::ActorRef<A>, body: &Encoded, id: MessageId) -> Delivery;
}

struct Of<M>(PhantomData<fn() -> M>);

impl<A: Actor> Default for DurableMethods<A> {
    fn default() -> Self {
        Self { by_name: HashMap::new() }
    }
}

impl<A: Actor> DurableMethods<A> {
    /// Adds a method. Written by `#[methods]`.
    pub fn on<M: DurableMessage<A>>(&mut self) {
        self.by_name.insert(M::NAME, Box::new(Of::<M>(PhantomData)));
    }

    /// Delivers a stored message to the actor of `key`.
    pub(crate) fn deliver(
        &self,
        hosted: &Hosted<A>,
        key: &str,
        method: &str,
        body: &Encoded,
        id: MessageId,
    ) -> Delivery {
        match self.by_name.get(method) {
            Some(found) => found.deliver(hosted.reference(key), body, id),
            None => {
                let error = DeliveryError::NoMethod { actor_type: A::SPEC.name, method: method.into() };
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }
}

impl<A: Actor, M: DurableMessage<A>> Deliver<A> for Of<M> {
    fn deliver(&self, to: crate::actor_ref::ActorRef<A>, body: &Encoded, id: MessageId) -> Delivery {
        // Reading a message runs code of the user's types.
        let decoded = catch_unwind(AssertUnwindSafe(|| M::decode(body)));
        let decoded = decoded.map_err(|payload| DeliveryError::Failed(panic_message(payload)));
        let message = match decoded.and_then(|decoded| decoded.map_err(DeliveryError::from)) {
            Ok(message) => message,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        Box::pin(async move {
            match to.call(message).with_message_id(id).await {
                Ok(_) => Ok(()),
                Err(error) if error.is_taken_already() => Ok(()),
                Err(error) => Err(DeliveryError::of(&error)),
            }
        })
    }
}
