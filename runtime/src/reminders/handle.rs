//! Setting, forgetting and listing one actor's reminders.

use std::sync::Arc;

use quark_base::{Clock, Entropy, Timestamp};

use super::bell::{Bell, Change};
use super::error::ReminderError;
use super::methods::ReminderSpec;
use super::point;
use super::schedule::{Plan, ReminderSchedule};
use crate::actor::{Actor, ToKey};
use crate::context::Cx;
use crate::grid::Grid;
use crate::services::Services;
use crate::store::{Address, ReminderRecord, ReminderStore};

/// The reminders of one actor, which need not be active. Given by [`Grid::reminders`].
///
/// What is done here is done when the store has answered. Dropping a future half-way leaves it unknown whether it was
/// done; doing it again is safe.
#[derive(Clone)]
pub struct Reminders(Result<Desk, ReminderError>);

/// Where an actor's reminders are kept, and what is known of its type.
#[derive(Clone)]
struct Desk {
    actor: Address,
    specs: &'static [ReminderSpec],
    store: Arc<dyn ReminderStore>,
    bell: Arc<Bell>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// A reminder that is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Reminder {
    /// Its name.
    pub name: String,
    /// When it ticks next.
    pub due: Timestamp,
    /// Its schedule.
    pub schedule: ReminderSchedule,
}

impl Reminders {
    pub(crate) fn new(
        services: &Services,
        actor: Address,
        specs: &'static [ReminderSpec],
        store_name: &'static str,
    ) -> Self {
        let Some(named) = services.stores.get(store_name) else {
            let actor_type = (&*actor.actor_type).into();
            return Self(Err(ReminderError::NoStore { actor_type, store: store_name }));
        };
        let (store, bell) = (named.store.reminders, named.reminders);
        let (clock, entropy) = (services.clock.clone(), services.entropy.clone());
        Self(Ok(Desk { actor, specs, store, bell, clock, entropy }))
    }

    pub(crate) const fn detached() -> Self {
        Self(Err(ReminderError::Detached))
    }

    /// Sets a reminder, in place of one of the same name. A tick that is on its way already still comes.
    ///
    /// # Errors
    /// [`ReminderError`]; [`ReminderError::UnknownName`] if the type has no `#[on_reminder]` for it.
    pub async fn set(&self, name: &str, schedule: ReminderSchedule) -> Result<(), ReminderError> {
        let desk = self.desk()?;
        desk.check_name(name)?;
        desk.put(name, &schedule).await
    }

    /// Sets a reminder unless it is set with this schedule already: where a program says at each start what it wants,
    /// ticks that are due are not put off, and a period goes on from where it began. True if it was set.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub async fn ensure(&self, name: &str, schedule: ReminderSchedule) -> Result<bool, ReminderError> {
        let desk = self.desk()?;
        desk.check_name(name)?;
        let there = desk.store.of_actor(&desk.actor).await?;
        desk.ensure(&there, name, &schedule).await
    }

    /// Sets those that the type declares with a schedule.
    pub(crate) async fn ensure_declared(&self) -> Result<(), ReminderError> {
        let desk = self.desk()?;
        let there = desk.store.of_actor(&desk.actor).await?;
        for spec in desk.specs {
            if let Some(declared) = &spec.schedule {
                desk.ensure(&there, spec.name, &declared.read()?).await?;
            }
        }
        Ok(())
    }

    /// Removes a reminder; false if it is not set. A tick that is on its way already still comes. One that the type
    /// declares with a schedule is set again at the actor's next activation.
    ///
    /// # Errors
    /// [`ReminderError`]. Any name may be forgotten, also one that the type does not have any more.
    pub async fn forget(&self, name: &str) -> Result<bool, ReminderError> {
        let desk = self.desk()?;
        let removed = desk.store.remove(&desk.actor, name).await?;
        desk.bell.ring(Change { id: (desk.actor.clone(), name.to_owned()), record: None });
        Ok(removed)
    }

    /// Those that are set, by name.
    ///
    /// # Errors
    /// [`ReminderError`]; [`ScheduleError::Unreadable`](super::ScheduleError::Unreadable) if another version has set one that this one cannot read.
    pub async fn list(&self) -> Result<Vec<Reminder>, ReminderError> {
        let desk = self.desk()?;
        let records = desk.store.of_actor(&desk.actor).await?;
        let read = |record: ReminderRecord| {
            let schedule = Plan::parse(&record.schedule)?.into();
            Ok(Reminder { name: record.name, due: record.due, schedule })
        };
        records.into_iter().map(read).collect()
    }

    fn desk(&self) -> Result<&Desk, ReminderError> {
        self.0.as_ref().map_err(Clone::clone)
    }
}

impl Desk {
    fn check_name(&self, name: &str) -> Result<(), ReminderError> {
        if self.specs.iter().any(|spec| spec.name == name) {
            return Ok(());
        }
        let known = self.specs.iter().map(|spec| spec.name).collect();
        Err(ReminderError::UnknownName {
            actor_type: (&*self.actor.actor_type).into(),
            name: name.into(),
            known,
        })
    }

    async fn ensure(
        &self,
        there: &[ReminderRecord],
        name: &str,
        schedule: &ReminderSchedule,
    ) -> Result<bool, ReminderError> {
        let is_set = there.iter().filter(|record| record.name == name).any(|record| {
            // One that cannot be read is none that this version set.
            Plan::parse(&record.schedule).is_ok_and(|plan| schedule.is_of(&plan))
        });
        if !is_set {
            self.put(name, schedule).await?;
        }
        Ok(!is_set)
    }

    async fn put(&self, name: &str, schedule: &ReminderSchedule) -> Result<(), ReminderError> {
        let now = self.clock.timestamp();
        let (plan, due) = schedule.begin(now)?;
        let record = ReminderRecord {
            actor: self.actor.clone(),
            name: name.to_owned(),
            due,
            schedule: plan.text()?,
            ring: point(&self.actor),
            // No other setting of it is likely to have one as near as its ticks will come.
            version: self.entropy.next_u64(),
        };
        let put = self.store.put(std::slice::from_ref(&record)).await;
        // Also if it is not known whether it was written: the next look tells.
        self.bell.ring(Change {
            id: (self.actor.clone(), name.to_owned()),
            record: put.is_ok().then_some(record),
        });
        Ok(put?)
    }
}

impl std::fmt::Debug for Reminders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(desk) => write!(f, "reminders of {}", desk.actor),
            Err(error) => write!(f, "no reminders: {error}"),
        }
    }
}

impl Grid {
    /// The reminders of the actor of type `A` with this key, which is not activated by it.
    pub fn reminders<A: Actor>(&self, key: impl ToKey) -> Reminders {
        let Some(services) = self.services() else { return Reminders::detached() };
        let actor = key.with_key(|key| Address::new(A::SPEC.name, key));
        Reminders::new(services, actor, A::REMINDERS, A::SPEC.reminders)
    }
}

impl Cx {
    /// Sets a reminder of the running actor, in place of one of the same name: a durable timer, which outlives the
    /// activation and the silo. Its ticks go to the method with `#[on_reminder]` of that name.
    ///
    /// # Errors
    /// [`ReminderError`]; [`ReminderError::UnknownName`] if the type has no method for it.
    pub async fn remind(&self, name: &str, schedule: ReminderSchedule) -> Result<(), ReminderError> {
        self.own_reminders().set(name, schedule).await
    }

    /// The same, unless the reminder is set with this schedule already. True if it was set. The right one for
    /// `#[on_activate]`: see [`Reminders::ensure`].
    ///
    /// # Errors
    /// As for [`remind`](Self::remind).
    pub async fn ensure_reminder(
        &self,
        name: &str,
        schedule: ReminderSchedule,
    ) -> Result<bool, ReminderError> {
        self.own_reminders().ensure(name, schedule).await
    }

    /// Removes a reminder of the running actor; false if it is not set. A tick that is in the mailbox already still
    /// comes.
    ///
    /// # Errors
    /// [`ReminderError`].
    pub async fn forget_reminder(&self, name: &str) -> Result<bool, ReminderError> {
        self.own_reminders().forget(name).await
    }

    /// The reminders of the running actor, by name.
    ///
    /// # Errors
    /// [`ReminderError`].
    pub async fn reminders(&self) -> Result<Vec<Reminder>, ReminderError> {
        self.own_reminders().list().await
    }

    fn own_reminders(&self) -> Reminders {
        let actor = self.actor();
        let grid = self.grid();
        let reminders = || Some(grid.services()?).zip(grid.host_named(actor.actor_type));
        match reminders() {
            Some((services, host)) => {
                let (specs, store) = host.reminders();
                Reminders::new(services, Address::from(&actor), specs, store)
            }
            None => Reminders::detached(),
        }
    }
}
