//! The actors that work until they are killed.

use quark::prelude::*;
use serde::{Deserialize, Serialize};

/// Events that name their own place, so that a gap or a double shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Stored)]
pub(crate) struct Log {
    pub(crate) events: u64,
    /// Events that were not the next one.
    pub(crate) misplaced: u64,
}

impl Folded for Log {
    type Event = u64;

    fn apply(&mut self, event: &u64) {
        self.events += 1;
        self.misplaced += u64::from(*event != self.events);
    }
}

/// What an account has, for the check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) hits: u64,
    pub(crate) events: u64,
    pub(crate) misplaced: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// It leaves soon when nobody calls it, so that activations come and go all the time.
#[derive(Actor)]
#[actor(name = "crash.account", idle = "200ms")]
pub(crate) struct Account {
    #[state]
    hits: State<u64>,
    #[state(format = "binary")]
    sent: State<u64>,
    #[state]
    received: State<u64>,
    #[journal(snapshot_every = 7)]
    log: Journal<Log>,
}

#[methods]
impl Account {
    pub async fn hit(&mut self) -> Result<u64, StateError> {
        *self.hits += 1;
        self.hits.save().await?;
        Ok(*self.hits)
    }

    pub async fn log(&mut self) -> Result<u64, StateError> {
        let next = self.log.last() + 1;
        self.log.append(next).await
    }

    /// Promises the account `to` one unit, in one step with the note that it did.
    pub async fn send(&mut self, cx: &Cx, to: String) -> Result<u64, StateError> {
        *self.sent += 1;
        let receiver = cx.grid().actor::<Account>(to);
        let mut transaction = cx.transaction();
        transaction.save(&self.sent)?.send(receiver.receive())?;
        transaction.commit().await?;
        Ok(*self.sent)
    }

    #[durable]
    pub async fn receive(&mut self, cx: &Cx) -> Result<(), StateError> {
        *self.received += 1;
        let mut transaction = cx.transaction();
        transaction.save(&self.received)?;
        transaction.commit().await
    }

    pub async fn totals(&self) -> Totals {
        Totals {
            hits: *self.hits,
            events: self.log.last(),
            misplaced: self.log.misplaced + (self.log.last() - self.log.events),
            sent: *self.sent,
            received: *self.received,
        }
    }
}
