//! The `#[on_reminder]` methods of an actor type.

use std::collections::HashMap;
use std::time::Duration;

use super::Tick;
use super::error::ScheduleError;
use super::schedule::ReminderSchedule;
use crate::actor::{Actor, Method};
use crate::actor_ref::ActorRef;
use crate::durable::{Delivery, DeliveryError};

/// One reminder of an actor type. Written by `#[methods]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReminderSpec {
    /// Its name.
    pub name: &'static str,
    /// The method that takes its ticks.
    pub method: &'static str,
    /// The schedule that each actor of the type is given; none if programs set it.
    pub schedule: Option<DeclaredSchedule>,
}

/// A schedule in an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredSchedule {
    /// `every = "1h"`
    Every(Duration),
    /// `cron = "0 8 * * *"`, and `zone = "Europe/Berlin"` if it is there.
    Cron {
        /// The cron line.
        line: &'static str,
        /// The time zone.
        zone: Option<&'static str>,
    },
}

impl DeclaredSchedule {
    /// The schedule that it declares.
    ///
    /// # Errors
    /// [`ScheduleError`]; a silo that hosts the type does not start.
    pub fn read(&self) -> Result<ReminderSchedule, ScheduleError> {
        match self {
            Self::Every(period) => Ok(ReminderSchedule::every(*period)),
            Self::Cron { line, zone: None } => ReminderSchedule::cron(line),
            Self::Cron { line, zone: Some(zone) } => ReminderSchedule::cron(line)?.in_zone(zone),
        }
    }
}

/// Whether one of a type's reminders is set by its declaration.
pub(crate) const fn any_declared(specs: &[ReminderSpec]) -> bool {
    let mut index = 0;
    while index < specs.len() {
        if specs[index].schedule.is_some() {
            return true;
        }
        index += 1;
    }
    false
}

/// The `#[on_reminder]` methods of one actor type, collected from its `#[methods]`.
pub struct ReminderMethods<A: Actor> {
    by_name: HashMap<&'static str, Box<dyn Remind<A>>>,
}

/// Runs one method of a type for a tick.
trait Remind<A: Actor>: Send + Sync {
    fn remind(&self, actor: ActorRef<A>, tick: Tick) -> Delivery;
}

struct Of<M>(fn(Tick) -> M);

impl<A: Actor> Default for ReminderMethods<A> {
    fn default() -> Self {
        Self { by_name: HashMap::new() }
    }
}

impl<A: Actor> ReminderMethods<A> {
    /// Adds a method. Written by `#[methods]`.
    pub fn on<M: Method<A>>(&mut self, name: &'static str, message: fn(Tick) -> M) {
        self.by_name.insert(name, Box::new(Of(message)));
    }

    /// Delivers a tick.
    pub(crate) fn deliver(&self, actor: ActorRef<A>, tick: Tick) -> Delivery {
        match self.by_name.get(&*tick.name) {
            Some(found) => found.remind(actor, tick),
            None => {
                let error =
                    DeliveryError::NoReminder { actor_type: A::SPEC.name, name: (&*tick.name).into() };
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }
}

impl<A: Actor, M: Method<A>> Remind<A> for Of<M> {
    fn remind(&self, actor: ActorRef<A>, tick: Tick) -> Delivery {
        let id = tick.id.clone();
        let message = (self.0)(tick);
        Box::pin(async move {
            match actor.call(message).with_message_id(id).await {
                Ok(_) => Ok(()),
                Err(error) if error.is_taken_already() => Ok(()),
                Err(error) => Err(DeliveryError::of(&error)),
            }
        })
    }
}
