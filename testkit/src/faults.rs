//! Faults: what goes wrong with the actors of a type, and when, as a test wants it.
//!
//! ```
//! use quark::prelude::*;
//! use quark_testkit::{Faults, TestSilo};
//!
//! #[derive(Actor)]
//! struct Counter {
//!     count: u64,
//! }
//!
//! #[methods]
//! impl Counter {
//!     pub async fn add(&mut self, amount: u64) -> u64 {
//!         self.count += amount;
//!         self.count
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let faults = Faults::<Counter>::new();
//! faults.panic_at(CounterRef::add, 2, "the disk is on fire");
//!
//! let silo = TestSilo::builder().host::<Counter>().faults(&faults).start()?;
//! let counter = silo.grid().actor::<Counter>("visits");
//! assert_eq!(counter.add(1).await?, 1);
//! assert!(matches!(counter.add(1).await, Err(CallError::Panicked(_))));
//! assert_eq!(counter.add(1).await?, 1, "a fresh actor");
//! # Ok(())
//! # }
//! ```

use std::any::Any;
use std::collections::HashMap;
use std::future::ready;
use std::marker::PhantomData;
use std::ops::{RangeFrom, RangeFull, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quark::actor::{Actor, HookError, Message, Method};
use quark::runtime::intercept::{AnyMessage, Intercepted, Interceptor, Reply};
use quark::{ActorId, CallError, Key};

use crate::method::MethodPath;

/// What goes wrong with the actors of type `A`. Calls are counted by method over all actors of the type, from one.
///
/// A timer's own ticks are not counted and not touched. Faults may be added while the silo runs; clones share them. Of
/// several that concern one call, the first counts.
pub struct Faults<A> {
    plan: Arc<Plan>,
    actor: PhantomData<fn(A)>,
}

/// Which calls: `3`, `2..=4`, `5..` or `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    first: u64,
    last: u64,
}

impl From<u64> for Which {
    fn from(number: u64) -> Self {
        Self { first: number, last: number }
    }
}

impl From<RangeInclusive<u64>> for Which {
    fn from(range: RangeInclusive<u64>) -> Self {
        Self { first: *range.start(), last: *range.end() }
    }
}

impl From<RangeFrom<u64>> for Which {
    fn from(range: RangeFrom<u64>) -> Self {
        Self { first: range.start, last: u64::MAX }
    }
}

impl From<RangeFull> for Which {
    fn from(_: RangeFull) -> Self {
        Self { first: 0, last: u64::MAX }
    }
}

impl Which {
    fn has(self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

#[derive(Default)]
pub(crate) struct Plan {
    calls: Mutex<HashMap<usize, Calls>>,
    activations: AtomicU64,
    failing: Mutex<Vec<(Which, String)>>,
}

/// What is planned for one method.
#[derive(Default)]
struct Calls {
    so_far: u64,
    faults: Vec<(Which, Fault)>,
}

#[derive(Clone)]
enum Fault {
    Panic(String),
    Delay(Duration),
    /// Makes a `Reply` of the method's types.
    Error(Arc<dyn Fn() -> Box<dyn Any + Send> + Send + Sync>),
}

impl<A: Actor> Faults<A> {
    /// No faults yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those calls of `method` make their actor panic instead of running, in a turn that takes the message's place.
    pub fn panic_at<M, T, K>(
        &self,
        _method: impl MethodPath<A, M, T, K>,
        calls: impl Into<Which>,
        message: impl Into<String>,
    ) where
        M: Method<A> + Message<T>,
        T: Send + 'static,
    {
        self.plan.add(M::INDEX, calls.into(), Fault::Panic(message.into()));
    }

    /// Before those calls of `method` their actor is busy for so long, on the silo's clock.
    pub fn delay_at<M, T, K>(
        &self,
        _method: impl MethodPath<A, M, T, K>,
        calls: impl Into<Which>,
        delay: Duration,
    ) where
        M: Method<A> + Message<T>,
        T: Send + 'static,
    {
        self.plan.add(M::INDEX, calls.into(), Fault::Delay(delay));
    }

    /// Those calls of `method` end in `error` and do not run.
    pub fn error_at<M, T, K>(
        &self,
        _method: impl MethodPath<A, M, T, K>,
        calls: impl Into<Which>,
        error: impl Fn() -> M::Error + Send + Sync + 'static,
    ) where
        M: Method<A> + Message<T>,
        T: Send + 'static,
    {
        let reply = move || -> Box<dyn Any + Send> {
            let reply: Reply<M::Ok, M::Error> = Box::pin(ready(Err(CallError::Actor(error()))));
            Box::new(reply)
        };
        self.plan.add(M::INDEX, calls.into(), Fault::Error(Arc::new(reply)));
    }

    /// Those activations of the type's actors fail with `why`.
    pub fn fail_activation_at(&self, activations: impl Into<Which>, why: impl Into<String>) {
        lock(&self.plan.failing).push((activations.into(), why.into()));
    }

    /// How many calls of `method` there have been.
    pub fn calls<M, T, K>(&self, _method: impl MethodPath<A, M, T, K>) -> u64
    where
        M: Method<A> + Message<T>,
        T: Send + 'static,
    {
        lock(&self.plan.calls).get(&M::INDEX).map_or(0, |calls| calls.so_far)
    }

    /// How often an actor of the type has been made, or was to be.
    pub fn activations(&self) -> u64 {
        self.plan.activations.load(Ordering::SeqCst)
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.clone()
    }
}

impl<A> Default for Faults<A> {
    fn default() -> Self {
        Self { plan: Arc::default(), actor: PhantomData }
    }
}

impl<A> Clone for Faults<A> {
    fn clone(&self) -> Self {
        Self { plan: self.plan.clone(), actor: PhantomData }
    }
}

impl Plan {
    fn add(&self, method: usize, which: Which, fault: Fault) {
        lock(&self.calls).entry(method).or_default().faults.push((which, fault));
    }
}

impl Interceptor for Plan {
    fn call(&self, _actor: &ActorId, method: usize, message: AnyMessage) -> Intercepted {
        let fault = {
            let mut all = lock(&self.calls);
            let calls = all.entry(method).or_default();
            calls.so_far += 1;
            let number = calls.so_far;
            calls.faults.iter().find(|(which, _)| which.has(number)).map(|(_, fault)| fault.clone())
        };
        match fault {
            None => Intercepted::Passes(message),
            Some(Fault::Panic(why)) => Intercepted::Panics(why),
            Some(Fault::Delay(delay)) => Intercepted::Later(message, delay),
            Some(Fault::Error(reply)) => Intercepted::Answered(reply()),
        }
    }

    fn activate(&self, _key: &Key) -> Result<(), HookError> {
        let number = self.activations.fetch_add(1, Ordering::SeqCst) + 1;
        let failing = lock(&self.failing);
        let why = failing.iter().find(|(which, _)| which.has(number)).map(|(_, why)| why.clone());
        why.map_or(Ok(()), |why| Err(why.into()))
    }
}

/// A panic elsewhere leaves the values whole: each change to them is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
