//! The actors that work until they are killed.

use std::collections::BTreeSet;

use quark::prelude::*;
use quark::{ReminderSchedule, Tick};
use serde::{Deserialize, Serialize};

/// What accounts publish for themselves: a number each.
pub(crate) const ITEMS: Topic<u64> = Topic::new("crash/items");

/// How soon a reminder is due. Many are set before a kill and due after it.
const REMINDED_IN: Duration = Duration::from_millis(200);

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) hits: u64,
    pub(crate) events: u64,
    pub(crate) misplaced: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) ticked: u64,
    pub(crate) seen: BTreeSet<u64>,
    /// Ticks and items that took effect a second time.
    pub(crate) doubled: u64,
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
    /// The reminders that it asked for, by number, and the last that came.
    #[state]
    armed: State<u64>,
    #[state]
    ticked: State<u64>,
    #[state]
    last_due: State<u64>,
    #[state]
    published: State<u64>,
    #[state]
    seen: State<BTreeSet<u64>>,
    #[state]
    doubled: State<u64>,
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

    /// Asks to be reminded, or asks again for the reminder that has not come.
    pub async fn remind(&mut self, cx: &Cx) -> Result<u64> {
        if *self.armed == *self.ticked {
            *self.armed += 1;
            self.armed.save().await?;
        }
        cx.remind("tick", ReminderSchedule::after(REMINDED_IN)).await?;
        Ok(*self.armed)
    }

    #[on_reminder("tick")]
    async fn tick(&mut self, cx: &Cx, tick: Tick) -> Result<()> {
        *self.doubled += u64::from(*self.last_due == tick.due.0);
        (*self.last_due, *self.ticked) = (tick.due.0, *self.armed);
        let mut transaction = cx.transaction();
        transaction.save(&self.doubled)?.save(&self.last_due)?.save(&self.ticked)?;
        transaction.commit().await?;
        Ok(())
    }

    /// Publishes a number that it has not published before; a kill may leave one out.
    pub async fn publish(&mut self, cx: &Cx) -> Result<u64> {
        *self.published += 1;
        self.published.save().await?;
        cx.grid().topic(&ITEMS).publish(cx.key(), *self.published).await?;
        Ok(*self.published)
    }

    #[on_stream(ITEMS)]
    async fn item(&mut self, cx: &Cx, number: u64) -> Result<()> {
        *self.doubled += u64::from(!self.seen.insert(number));
        let mut transaction = cx.transaction();
        transaction.save(&self.doubled)?.save(&self.seen)?;
        transaction.commit().await?;
        Ok(())
    }

    pub async fn totals(&self) -> Totals {
        Totals {
            hits: *self.hits,
            events: self.log.last(),
            misplaced: self.log.misplaced + (self.log.last() - self.log.events),
            sent: *self.sent,
            received: *self.received,
            ticked: *self.ticked,
            seen: self.seen.clone(),
            doubled: *self.doubled,
        }
    }
}
