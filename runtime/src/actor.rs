//! What an actor type is to the runtime: its spec, its hooks, its methods. Written by the macros.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use quark_base::Key;
use quark_placement::GpuNeed;

use crate::actor_ref::ActorRef;
use crate::context::Cx;
use crate::dead_letters::DeadLetterSpec;
use crate::durable::DurableMethods;
use crate::error::Failure;
use crate::guards::Guards;
use crate::journal::JournalSpec;
use crate::reminders::{self, ReminderMethods, ReminderSpec};
use crate::state::{Kept, StateSpec};
use crate::streams::Subscriptions;
use crate::supervision::{ChildFailure, Directive, SuperviseSpec};
use crate::turn::TurnMode;
use crate::watchdog::TURN_LIMIT;
use crate::workers::Workers;

/// An actor type. `#[derive(Actor)]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an actor",
    label = "put `#[derive(Actor)]` on the struct and `#[methods]` on its impl block"
)]
pub trait Actor: Methods + Send + 'static {
    /// What the type declared about itself.
    const SPEC: ActorSpec;
    /// Its `#[state]` and `#[journal]` fields.
    const PARTS: &'static [PartSpec] = &[];

    /// Hands out those fields, to be loaded.
    fn kept(&mut self) -> Kept<'_> {
        Kept::default()
    }

    /// The typed reference that callers hold.
    type Ref: Reference<Actor = Self> + Clone + Send + Sync + From<ActorRef<Self>>;
}

/// A typed reference to an actor. `#[derive(Actor)]` implements it for the reference that it makes.
pub trait Reference {
    /// Whom it refers to.
    type Actor;
}

/// An actor type whose activations need nothing from outside. `#[derive(Actor)]` implements it unless the type
/// says `#[actor(factory)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no constructor of its own",
    label = "it says `#[actor(factory)]`: host it with `.host_with::<{Self}>(|key| …)`"
)]
pub trait Create: Actor {
    /// A fresh actor, before its state is loaded and `#[on_activate]` runs.
    fn create() -> Self;
}

/// The methods and hooks of an actor type. `#[methods]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no `#[methods]` block",
    label = "write `#[methods] impl {Self} {{ … }}`; it may be empty"
)]
pub trait Methods: Sized + Send + 'static {
    /// The type's interface, in the order of its block.
    const METHODS: &'static [MethodSpec];
    /// Whether there is an `#[on_activate]` method. Without one an activation needs no load lane.
    const ON_ACTIVATE: bool = false;
    /// Whether there is an `#[on_deactivate]` method.
    const ON_DEACTIVATE: bool = false;

    /// Runs the `#[on_activate]` method.
    fn on_activate<'a>(&'a mut self, _cx: &'a Cx) -> impl Future<Output = Result<(), HookError>> + Send + 'a {
        ready(Ok(()))
    }

    /// Runs the `#[on_deactivate]` method.
    fn on_deactivate<'a>(
        &'a mut self,
        _cx: &'a Cx,
        _why: DeactivationReason,
    ) -> impl Future<Output = Result<(), HookError>> + Send + 'a {
        ready(Ok(()))
    }

    /// Whether there is an `#[on_child_failure]` function.
    const ON_CHILD_FAILURE: bool = false;

    /// Runs the `#[on_child_failure]` function: what is to happen to a child that failed.
    fn on_child_failure(_failure: &ChildFailure) -> Directive {
        Directive::Restart
    }

    /// Names the `#[durable]` methods.
    fn durable(_methods: &mut DurableMethods<Self>)
    where
        Self: Actor,
    {
    }

    /// The type's reminders.
    const REMINDERS: &'static [ReminderSpec] = &[];

    /// Names the `#[on_reminder]` methods.
    fn reminders(_methods: &mut ReminderMethods<Self>)
    where
        Self: Actor,
    {
    }

    /// Names the `#[on_stream]` methods.
    fn subscribe(_subscriptions: &mut Subscriptions<Self>)
    where
        Self: Actor,
    {
    }
}

/// What a hook may fail with.
pub type HookError = Box<dyn Error + Send + Sync>;

/// One method of an actor type, as a message.
pub trait Method<A: Actor>: Send + 'static {
    /// Exclusive (`&mut self`) or shared (`&self`).
    type Mode: TurnMode<A>;
    /// What it answers.
    type Ok: Send + 'static;
    /// Its own error; [`Infallible`] if it returns no `Result`.
    type Error: Send + 'static;
    /// Which entry of [`Methods::METHODS`] it is.
    const INDEX: usize;
    /// Whether it sees to its own dead letter. Only the runtime's own messages do.
    #[doc(hidden)]
    const WATCHED: bool = false;
    /// Whether the actor's own timer sent it: it is then no use of the actor, and ends with the activation.
    const FROM_TIMER: bool = false;

    /// Runs it.
    fn run<'a>(
        self,
        actor: <Self::Mode as TurnMode<A>>::Borrow<'a>,
        cx: &'a Cx,
    ) -> impl Future<Output = Result<Self::Ok, Self::Error>> + Send + 'a;

    /// A copy to keep while it runs, for the dead letters; `None` if it cannot be copied, or is not to be.
    fn copy(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Writes what it is, for whoever inspects a dead letter.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }

    /// Writes what it failed with, likewise.
    fn describe_error(_error: &Self::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }

    /// It never ran, and nobody waits for it.
    #[doc(hidden)]
    fn lost(self, _failure: &Failure)
    where
        Self: Sized,
    {
    }
}

/// A message as its arguments: a tuple, in the order of the method's parameters; the context is none of them.
/// `#[methods]` implements it for the messages that it makes.
pub trait Message<Arguments> {
    /// Takes the message apart.
    fn into_arguments(self) -> Arguments;
}

/// A `Result` under whatever name; lets the macros take apart a return type that is an alias.
pub trait ResultLike {
    /// The success type.
    type Ok;
    /// The error type.
    type Error;
}

impl<T, E> ResultLike for Result<T, E> {
    type Ok = T;
    type Error = E;
}

pin_project! {
    /// The answer of a method that returns no `Result`.
    #[must_use = "it is a future"]
    #[derive(Debug)]
    pub struct Unfailing<F> {
        #[pin]
        method: F,
    }
}

impl<F> Unfailing<F> {
    /// What the method's future answers.
    #[inline(always)]
    pub fn new(method: F) -> Self {
        Self { method }
    }
}

impl<F: Future> Future for Unfailing<F> {
    type Output = Result<F::Output, Infallible>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().method.poll(cx).map(Ok)
    }
}

/// What is known of a method without running it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodSpec {
    /// Its wire name: the function's name.
    pub name: &'static str,
    /// Whether it takes `&mut self`.
    pub exclusive: bool,
}

/// What an actor type declared with `#[actor(…)]`, with defaults for the rest.
#[derive(Clone, Copy, Debug)]
pub struct ActorSpec {
    /// Its wire name.
    pub name: &'static str,
    /// Its Rust name, for messages to the programmer.
    pub rust_type: &'static str,
    /// How long an activation may go unused before it is deactivated.
    pub idle: Duration,
    /// Messages that may wait for one activation; the next one is `Overloaded`.
    pub mailbox: u32,
    /// How long an activation may take.
    pub activation_limit: Duration,
    /// From which age the watchdog names a turn.
    pub turn_limit: Duration,
    /// What device it needs.
    pub gpu: Option<GpuNeed>,
    /// When to activate it ahead of its first message.
    pub prewarm: &'static [PrewarmSpec],
    /// Whether messages that fail are kept, and how.
    pub dead_letters: Option<DeadLetterSpec>,
    /// How it supervises its children; [`SuperviseSpec::DEFAULT`] if it says nothing.
    pub supervise: Option<SuperviseSpec>,
    /// How the silo supervises it while it has no parent. By default it is made afresh at its next message.
    pub root: Option<SuperviseSpec>,
    /// How many actors a key may have, of a type of stateless workers; all others have one.
    pub workers: Option<Workers>,
    /// The store of its reminders.
    pub reminders: &'static str,
    /// What guards it, unless the silo's builder says otherwise.
    pub guards: Guards,
}

impl ActorSpec {
    /// Idle time of a type that names none: long enough that a user who comes back after a coffee finds their
    /// actors warm, short enough that a day's actors do not pile up. Orleans collects after 15 minutes.
    pub const IDLE: Duration = Duration::from_secs(15 * 60);
    /// Mailbox bound of a type that names none. A caller that waits behind 10,000 turns of 10 µs waits 100 ms;
    /// behind more it had better hear `Overloaded`.
    pub const MAILBOX: u32 = 10_000;
    /// Activation limit of a type that names none. Loading 80 GiB of weights at 2 GiB/s takes 40 s.
    pub const ACTIVATION_LIMIT: Duration = Duration::from_secs(60);

    /// A type that declares nothing but its name.
    pub const fn new(name: &'static str, rust_type: &'static str) -> Self {
        Self {
            name,
            rust_type,
            idle: Self::IDLE,
            mailbox: Self::MAILBOX,
            activation_limit: Self::ACTIVATION_LIMIT,
            turn_limit: TURN_LIMIT,
            gpu: None,
            prewarm: &[],
            dead_letters: None,
            supervise: None,
            root: None,
            workers: None,
            reminders: reminders::DEFAULT_STORE,
            guards: Guards::none(),
        }
    }
}

/// One stored field of an actor type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartSpec {
    /// A `#[state]` field.
    State(StateSpec),
    /// A `#[journal]` field.
    Journal(JournalSpec),
}

impl PartSpec {
    /// The name of its store.
    pub const fn store(&self) -> &'static str {
        match self {
            Self::State(spec) => spec.store,
            Self::Journal(spec) => spec.store,
        }
    }
}

/// One `prewarm(…)` of a type: an event on `stream` with key K announces that actor K is needed within `lead`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrewarmSpec {
    /// The stream namespace to watch.
    pub stream: &'static str,
    /// How long after the event the first message is expected.
    pub lead: Duration,
    /// The share of events that must really be followed by a message; below it the rule is no longer acted on.
    pub confidence: f64,
}

/// Why an activation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeactivationReason {
    /// Nobody called it for its type's idle time.
    Idle,
    /// It was asked for, by the actor or from outside.
    Requested,
    /// A turn panicked; its hooks do not run, since its state may be torn.
    Panicked,
    /// It was warmed ahead of a message that did not come.
    PrewarmExpired,
    /// Its supervisor ends it: a sibling or a child failed, or its parent ended.
    Supervision,
    /// Its device's memory is needed by another actor.
    Evicted,
    /// Another activation of it has committed, or it is not known what this one last wrote.
    Superseded,
    /// The silo has more actors or uses more memory than it may, and this one was not called for longest.
    Pressure,
    /// The silo is shutting down.
    Shutdown,
}

impl fmt::Display for DeactivationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Requested => "requested",
            Self::Panicked => "panicked",
            Self::PrewarmExpired => "prewarm expired",
            Self::Supervision => "supervision",
            Self::Evicted => "evicted",
            Self::Superseded => "superseded",
            Self::Pressure => "pressure",
            Self::Shutdown => "shutdown",
        })
    }
}

/// What can name an actor: text, or an integer that is written in decimal.
pub trait ToKey {
    /// Calls `use_key` with the key's text.
    fn with_key<R>(&self, use_key: impl FnOnce(&str) -> R) -> R;
}

impl ToKey for str {
    fn with_key<R>(&self, use_key: impl FnOnce(&str) -> R) -> R {
        use_key(self)
    }
}

impl ToKey for String {
    fn with_key<R>(&self, use_key: impl FnOnce(&str) -> R) -> R {
        use_key(self)
    }
}

impl ToKey for Key {
    fn with_key<R>(&self, use_key: impl FnOnce(&str) -> R) -> R {
        use_key(self.as_str())
    }
}

impl<K: ToKey + ?Sized> ToKey for &K {
    fn with_key<R>(&self, use_key: impl FnOnce(&str) -> R) -> R {
        (**self).with_key(use_key)
    }
}

/// The text of an integer key, on the stack.
fn with_decimal<R>(magnitude: u64, negative: bool, use_key: impl FnOnce(&str) -> R) -> R {
    const LONGEST: usize = "-9223372036854775808".len();
    let mut text = [0u8; LONGEST];
    let (mut rest, mut first) = (magnitude, LONGEST);
    loop {
        first -= 1;
        text[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if negative {
        first -= 1;
        text[first] = b'-';
    }
    use_key(str::from_utf8(&text[first..]).unwrap_or_default())
}

macro_rules! integer_keys {
    ($($signed:ty, $unsigned:ty);*) => {$(
        impl ToKey for $unsigned {
            fn with_key<R>(&self, use_key: impl FnOnce(&str) -> R) -> R {
                with_decimal(*self as u64, false, use_key)
            }
        }

        impl ToKey for $signed {
            fn with_key<R>(&self, use_key: impl FnOnce(&str) -> R) -> R {
                with_decimal(self.unsigned_abs() as u64, *self < 0, use_key)
            }
        }
    )*};
}

integer_keys!(i8, u8; i16, u16; i32, u32; i64, u64; isize, usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_key_is_its_decimal_text() {
        for number in [0, 7, 10, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(number.with_key(str::to_owned), number.to_string());
        }
        for number in [0, 7, -7, i64::MIN, i64::MAX] {
            assert_eq!(number.with_key(str::to_owned), number.to_string());
        }
    }
}
