//! The way to an actor type's dead letters.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::letter::{DeadLetter, LetterId};
use super::queue::Outgoing;
use super::watch::{Stored, deliver};
use crate::actor::{Actor, ToKey};
use crate::error::Failure;
use crate::grid::Grid;
use crate::host::Hosted;

/// The dead letters of actor type `A` on one silo.
///
/// ```ignore
/// let letters = grid.dead_letters::<Mailer>();
/// for letter in letters.inspect() {
///     println!("{} {}: {}", letter.actor, letter.method, letter.cause);
/// }
/// letters.replay_actor("customer-7");
/// ```
pub struct DeadLetters<A: Actor> {
    grid: Grid,
    actor: PhantomData<fn() -> A>,
}

impl<A: Actor> DeadLetters<A> {
    pub(crate) fn new(grid: Grid) -> Self {
        Self { grid, actor: PhantomData }
    }

    fn hosted(&self) -> Option<&Hosted<A>> {
        self.grid.hosted::<A>()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hosted().map_or(0, |hosted| hosted.host().dead_letters.lock().len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many had to go since the silo started because the queue was full.
    pub fn overflowed(&self) -> u64 {
        self.hosted().map_or(0, |hosted| hosted.host().dead_letters.lock().overflowed())
    }

    /// All of them, those that failed last at the end.
    pub fn inspect(&self) -> Vec<DeadLetter> {
        self.described(None)
    }

    /// Those of one actor.
    pub fn inspect_actor(&self, key: impl ToKey) -> Vec<DeadLetter> {
        key.with_key(|key| self.described(Some(key)))
    }

    fn described(&self, key: Option<&str>) -> Vec<DeadLetter> {
        self.hosted().map_or_else(Vec::new, |hosted| {
            let letters = hosted.host().dead_letters.lock();
            letters.describe(A::SPEC.name, key, |message| message.text())
        })
    }

    /// Sends one again: the same message to the same method, one-way. It leaves the letters, and comes back with
    /// one attempt more if it fails again.
    ///
    /// # Errors
    /// [`ReplayError`]; the letter is where it was, or back.
    pub fn replay(&self, id: LetterId) -> Result<(), ReplayError> {
        let Some(hosted) = self.hosted() else { return Err(ReplayError::Unknown(id)) };
        let taken = hosted.host().dead_letters.lock().take(id);
        let letter = taken.ok_or(ReplayError::Unknown(id))?.ok_or(ReplayError::NotKept(id))?;
        send(hosted, letter).map_err(ReplayError::Refused)
    }

    /// Sends all letters of one actor again, in the order they failed.
    pub fn replay_actor(&self, key: impl ToKey) -> Replayed {
        key.with_key(|key| self.replay_of(Some(key)))
    }

    /// Sends all letters again, in the order they failed.
    pub fn replay_all(&self) -> Replayed {
        self.replay_of(None)
    }

    fn replay_of(&self, key: Option<&str>) -> Replayed {
        let mut replayed = Replayed::default();
        let Some(hosted) = self.hosted() else { return replayed };
        // Taken out first, so that what fails at once is not sent for ever.
        let letters = hosted.host().dead_letters.lock().take_of(key);
        for letter in letters {
            match send(hosted, letter) {
                Ok(()) => replayed.sent += 1,
                Err(_) => replayed.refused += 1,
            }
        }
        replayed
    }

    /// Drops one. False if it is not there.
    pub fn remove(&self, id: LetterId) -> bool {
        self.purge_those(|letter, _| letter == id) > 0
    }

    /// Drops all letters of one actor; gives how many.
    pub fn purge_actor(&self, key: impl ToKey) -> usize {
        key.with_key(|key| self.purge_those(|_, of| of == key))
    }

    /// Drops all; gives how many.
    pub fn purge(&self) -> usize {
        self.purge_those(|_, _| true)
    }

    fn purge_those(&self, wanted: impl Fn(LetterId, &str) -> bool) -> usize {
        let Some(hosted) = self.hosted() else { return 0 };
        let gone = hosted.host().dead_letters.lock().purge(|id, key| wanted(id, key.as_str()));
        let count = gone.len();
        gone.into_iter().flatten().for_each(drop_message);
        count
    }
}

impl<A: Actor> Clone for DeadLetters<A> {
    fn clone(&self) -> Self {
        Self::new(self.grid.clone())
    }
}

impl<A: Actor> fmt::Debug for DeadLetters<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("of", &A::SPEC.name).field("len", &self.len()).finish()
    }
}

/// What a replay of several letters came to. Letters whose message was not kept stay, and are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// In their actors' mailboxes.
    pub sent: usize,
    /// Refused, by a full mailbox or a silo that is draining, and back among the letters.
    pub refused: usize,
}

/// Why a letter was not sent again.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// There is no such letter: it was replayed, removed, or had to go for newer ones.
    #[error("there is no dead letter {0}; it may be under way again, or have gone for a newer one")]
    Unknown(LetterId),
    /// Its message was not kept.
    #[error(
        "dead letter {0} holds no message; give the type #[actor(dead_letters(…))], and the method no \
         #[no_dead_letters]"
    )]
    NotKept(LetterId),
    /// Its actor did not take it; it is back among the letters, with one attempt more.
    #[error("the letter was refused: {0}")]
    Refused(#[source] Failure),
}

fn send<A: Actor>(hosted: &Hosted<A>, letter: Outgoing<Box<dyn Stored<A>>>) -> Result<(), Failure> {
    deliver(&hosted.slot(letter.key.as_str()), letter.message, letter.past)
}

/// Sends again what is due.
pub(crate) fn retry_due<A: Actor>(hosted: &Hosted<A>) {
    let host = hosted.host();
    let now = host.services.clock.now();
    let due = host.dead_letters.lock().take_due(now, super::RETRIES_PER_TICK);
    for letter in due {
        // Refused, it is back among the letters, with its next try's time.
        if let Err(refused) = send(hosted, letter) {
            tracing::debug!(%refused, "a dead letter was not taken");
        }
    }
}

/// Drops a user's message, whose drop may panic.
pub(super) fn drop_message<M>(message: M) {
    if catch_unwind(AssertUnwindSafe(|| drop(message))).is_err() {
        tracing::error!("dropping a dead letter's message panicked");
    }
}
