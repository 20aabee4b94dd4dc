//! Doubles: a stand-in for the actors of a type, whose answers a test scripts and whose calls it reads.
//!
//! ```
//! use quark::prelude::*;
//! use quark_testkit::{Double, TestSilo};
//!
//! #[derive(Actor)]
//! struct Bank {}
//!
//! #[methods]
//! impl Bank {
//!     pub async fn balance(&self, account: String) -> Result<u64, String> {
//!         unimplemented!("asks a real bank about {account}")
//!     }
//! }
//!
//! #[derive(Actor)]
//! struct Shop {}
//!
//! #[methods]
//! impl Shop {
//!     pub async fn may_buy(&mut self, cx: &Cx, price: u64) -> bool {
//!         cx.grid().actor::<Bank>("main").balance("anna".to_owned()).await.is_ok_and(|balance| balance >= price)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let bank = Double::<Bank>::new();
//! bank.on(BankRef::balance, |(account,)| if account == "anna" { Ok(10) } else { Err("unknown".to_owned()) });
//!
//! let silo = TestSilo::builder().host::<Shop>().double(&bank).start()?;
//! assert!(!silo.grid().actor::<Shop>("corner").may_buy(11).await?);
//!
//! let calls = bank.take_calls(BankRef::balance);
//! assert_eq!((calls[0].actor.key.as_str(), calls[0].arguments.0.as_str()), ("main", "anna"));
//! # Ok(())
//! # }
//! ```

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, pending};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quark::actor::{Actor, Message, Method};
use quark::runtime::intercept::{AnyMessage, Intercepted, Interceptor, Reply};
use quark::{ActorId, CallError};

use crate::method::MethodPath;

/// Calls of one method that a double keeps for the test to read; the oldest go first.
pub const RECORDED_MAX: usize = 10_000;

/// A stand-in for all actors of type `A` on a silo. No actor of the type is made.
///
/// It answers on the caller's thread, any number of calls at once: a double has no mailbox, no turns and no life of its
/// own. A call of a method that the script does not know ends in [`CallError::Panicked`], which says so. The script may
/// change while the silo runs; clones share it.
pub struct Double<A> {
    script: Arc<Script>,
    actor: PhantomData<fn(A)>,
}

/// A call that a double has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard<T> {
    /// Who was called.
    pub actor: ActorId,
    /// With what.
    pub arguments: T,
}

/// What a double does, by method.
#[derive(Default)]
pub(crate) struct Script(Mutex<HashMap<usize, Part>>);

struct Part {
    answer: Answer,
    heard: VecDeque<AnyMessage>,
}

/// Makes an answer of a message, and of the message what is recorded.
type Answer = Arc<dyn Fn(&ActorId, AnyMessage) -> (Box<dyn Any + Send>, AnyMessage) + Send + Sync>;

impl<A: Actor> Double<A> {
    /// A double that knows no method yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers calls of `method` with what `answer` says of their arguments. A panic of its own is the caller's.
    pub fn on<M, T, K>(
        &self,
        method: impl MethodPath<A, M, T, K>,
        answer: impl Fn(&T) -> Result<M::Ok, M::Error> + Send + Sync + 'static,
    ) where
        M: Method<A> + Message<T>,
        T: Send + 'static,
    {
        self.on_async(method, move |arguments| {
            let answer = answer(arguments).map_err(CallError::Actor);
            async move { answer }
        });
    }

    /// Answers calls of `method` with whatever may become of a call, in its own time.
    pub fn on_async<M, T, K, F>(
        &self,
        _method: impl MethodPath<A, M, T, K>,
        answer: impl Fn(&T) -> F + Send + Sync + 'static,
    ) where
        M: Method<A> + Message<T>,
        T: Send + 'static,
        F: Future<Output = Result<M::Ok, CallError<M::Error>>> + Send + 'static,
    {
        let answer: Answer = Arc::new(move |actor, message| {
            let Ok(message) = message.downcast::<M>() else { unreachable!("a method has one message type") };
            let arguments = message.into_arguments();
            let reply: Reply<M::Ok, M::Error> = Box::pin(answer(&arguments));
            (Box::new(reply), Box::new(Heard { actor: actor.clone(), arguments }))
        });
        let mut parts = self.script.parts();
        match parts.get_mut(&M::INDEX) {
            Some(part) => part.answer = answer,
            None => drop(parts.insert(M::INDEX, Part { answer, heard: VecDeque::new() })),
        }
    }

    /// Never answers calls of `method`: only a timeout ends them.
    pub fn never<M, T, K>(&self, method: impl MethodPath<A, M, T, K>)
    where
        M: Method<A> + Message<T>,
        T: Send + 'static,
    {
        self.on_async(method, |_| pending());
    }

    /// The calls of `method` since the last time this was asked, first come first. At most [`RECORDED_MAX`].
    pub fn take_calls<M, T, K>(&self, _method: impl MethodPath<A, M, T, K>) -> Vec<Heard<T>>
    where
        M: Method<A> + Message<T>,
        T: Send + 'static,
    {
        let mut parts = self.script.parts();
        let heard = parts.get_mut(&M::INDEX).map(|part| std::mem::take(&mut part.heard));
        drop(parts);
        let heard = heard.into_iter().flatten().map(|heard| heard.downcast::<Heard<T>>());
        heard.filter_map(|heard| heard.ok().map(|heard| *heard)).collect()
    }

    pub(crate) fn script(&self) -> Arc<Script> {
        self.script.clone()
    }
}

impl<A> Default for Double<A> {
    fn default() -> Self {
        Self { script: Arc::default(), actor: PhantomData }
    }
}

impl<A> Clone for Double<A> {
    fn clone(&self) -> Self {
        Self { script: self.script.clone(), actor: PhantomData }
    }
}

impl Script {
    fn parts(&self) -> MutexGuard<'_, HashMap<usize, Part>> {
        // A panic elsewhere leaves the map whole: each change to it is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interceptor for Script {
    fn call(&self, actor: &ActorId, method: usize, message: AnyMessage) -> Intercepted {
        let Some(answer) = self.parts().get(&method).map(|part| part.answer.clone()) else {
            return Intercepted::Unanswered;
        };
        // Out of the lock: an answer may ask the double again.
        let (reply, heard) = answer(actor, message);
        if let Some(part) = self.parts().get_mut(&method) {
            if part.heard.len() == RECORDED_MAX {
                part.heard.pop_front();
            }
            part.heard.push_back(heard);
        }
        Intercepted::Answered(reply)
    }
}
