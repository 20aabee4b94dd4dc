//! The macros that turn a plain struct and its `async fn` methods into an actor.
//!
//! What belongs here: syntax. Everything that runs is in `quark-runtime`; the expansion is what a person would
//! have written against it. Every misuse has an error that says what to write instead.
//!
//! - `attributes`: reading `#[actor(…)]`
//! - `derive`: `#[derive(Actor)]`, what the type declares about itself
//! - `methods`: `#[methods]`, its interface, hooks and subscriptions
//! - `stored`: `#[derive(Stored)]`, values that stores keep

mod attributes;
mod derive;
mod methods;
mod stored;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemImpl, parse_macro_input};

/// Makes a struct an actor type.
///
/// Its fields start as `Default::default()`, or as `#[init(expression)]` says. A type whose fields have no
/// default says `#[actor(factory)]` and is hosted with `host_with`.
///
/// ```text
/// #[actor(
///     name = "vision.analyzer",       // wire name; default: the type's name
///     idle = "10m",                   // deactivate when unused for this long; default 15m
///     mailbox = 1000,                 // messages that may wait; default 10000
///     activation_limit = "60s",       // how long an activation may take; default 60s
///     factory,                        // made by `host_with`, not from defaults
///     gpu(vram = "2 GiB", numa = "local", capability = "8.0", f16, bf16, software, optional),
///     prewarm(stream = "sensors/motion", lead = "200ms", confidence = 0.8),   // may be repeated
///     supervise(strategy = "one_for_one", on_panic = "restart", on_activation = "restart", max_restarts = 5,
///               within = "1m", backoff = "100ms..30s", orphans = "stop"),     // of its children
///     root(on_panic = "restart", max_restarts = 5, within = "1m", backoff = "100ms..30s"),    // of itself, alone
///     dead_letters(max = 1000, retries = 5, backoff = "100ms..30s", errors = true, asks),
///     workers(max = 8),               // stateless: up to so many actors behind one key, as the load asks for
///     reminders = "default",          // the store of its reminders
///     breaker(failures = 5, within = "10s", open = "30s", probes = 1, errors),   // refuse what keeps failing
///     rate_limit(per_second = 100, burst = 20, when_full = "queue", by = "key"), // "reject", "queue" or "drop"
///     mailbox(min = 100, max = 10_000, target = "50ms"),   // in place of `mailbox = …`: follows how fast it drains
///     overflow = "reject",            // at a full mailbox; or "wait", "drop_oldest", "drop_newest"
/// )]
/// ```
///
/// Fields that outlive the activation:
///
/// ```text
/// #[state] calibration: State<Calibration>,
/// #[state(name = "calibration", store = "default", format = "binary", max = "1 MiB", write_behind = "1s")]
/// #[journal(name = "ledger", store = "default", format = "json", max = "64 KiB", snapshot_every = 100)]
/// ledger: Journal<Account>,
/// ```
#[proc_macro_derive(Actor, attributes(actor, init, state, journal))]
pub fn derive_actor(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes a type that serde can write and read one that stores keep: states, events, snapshots, items of durable
/// streams.
///
/// ```text
/// #[derive(Default, Serialize, Deserialize, Stored)]
/// #[stored(version = 2, upgrades = CalibrationV1)]    // `impl From<CalibrationV1> for Calibration` turns it into this
/// struct Calibration { … }
/// ```
#[proc_macro_derive(Stored, attributes(stored))]
pub fn derive_stored(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    stored::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes the `pub async fn` methods of an impl block the actor's interface.
///
/// - `&mut self` methods take exclusive turns, `&self` methods shared ones.
/// - A parameter `cx: &Cx` gets the turn's context; all others travel with the call.
/// - `#[on_activate]` and `#[on_deactivate]` mark the hooks.
/// - `#[on_stream("namespace")]` marks a method that takes the items of a stream.
/// - `#[on_reminder("name")]` marks a method that takes the ticks of a reminder, `tick: Tick`. With `every = "1h"`, or
///   `cron = "0 8 * * *"` and perhaps `zone = "Europe/Berlin"`, each actor of the type has it from its first activation
///   on; without, it is set by `cx.remind`.
/// - `#[on_child_failure]` marks a function that decides what happens to a child that failed:
///   `fn decide(failure: &ChildFailure) -> Directive`.
/// - `#[no_dead_letters]` keeps a method's messages out of the dead letters of a type that keeps them.
/// - `#[coalesce]` on a method joins identical calls that are under way at the same time into one run; its arguments
///   are `Clone + Eq + Hash`, its answer and error `Clone + Send + Sync`.
/// - `#[durable]` marks a method whose messages a transaction can send: they are stored with the sender's state, and
///   delivered at least once. Its arguments are `Serialize + Deserialize`.
/// - Everything else is a private helper.
#[proc_macro_attribute]
pub fn methods(arguments: TokenStream, input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as ItemImpl);
    methods::expand(&arguments.into(), input).unwrap_or_else(|error| error.to_compile_error()).into()
}
