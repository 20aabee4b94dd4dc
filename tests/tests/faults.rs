//! The fault table: what can go wrong, and what whoever asked for it hears.
//!
//! Each row is a test. It sets its fault off on a silo whose neighbours are called all the while, checks what the
//! caller is told (which error, whether anything ran, whether to retry), that the neighbours go on as if nothing had
//! happened, that the actor itself takes calls again, and that the silo still shuts down in good order. More about each
//! fault is in the file of its topic: `panics`, `chains`, `lending`, `stopping`, `supervision`.

#[path = "faults/how.rs"]
mod how;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Waker};

use quark::prelude::*;
use quark::runtime::error::Failure;
use quark::{DeadCause, Outcome, Retry, StuckTurn};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, until};
use tokio::task::{JoinHandle, yield_now};

/// `fault => the caller's error: outcome, retry;`, or `fault => nothing;` where nobody is to notice.
macro_rules! fault_table {
    ($($fault:ident => $error:ident $(: $outcome:ident, $retry:ident)?;)*) => {$(
        #[test]
        fn $fault() {
            on_both_runtimes(|| async {
                let bed = Bed::new();
                bed.neighbours_are_at_work().await;
                let heard = how::$fault(&bed).await;
                fault_table!(@heard heard, $error $(, $outcome, $retry)?);
                bed.goes_on_unharmed().await;
            });
        }
    )*};
    (@heard $heard:ident, nothing) => {
        assert!($heard.is_none(), "{}", $heard.unwrap());
    };
    (@heard $heard:ident, $error:ident, $outcome:ident, $retry:ident) => {
        let heard = $heard.unwrap();
        assert!(matches!(heard, CallError::$error(..)), "{heard}");
        assert_eq!((heard.outcome(), heard.retry()), (Outcome::$outcome, Retry::$retry), "{heard}");
    };
}

fault_table! {
    a_panic_in_a_turn                              => Panicked: Failed, IfIdempotent;
    a_panic_after_a_wait                           => Panicked: Failed, IfIdempotent;
    a_panic_beside_other_turns                     => Panicked: Failed, IfIdempotent;
    a_panic_in_the_constructor                     => Activation: Rejected, Safe;
    a_panic_in_on_activate                         => Activation: Rejected, Safe;
    a_panic_in_on_deactivate                       => nothing;
    a_panic_in_a_timer                             => Panicked: Failed, IfIdempotent;
    a_panic_in_a_one_way_message                   => Panicked: Failed, IfIdempotent;
    a_panic_in_the_drop_of_what_a_turn_holds       => Panicked: Failed, IfIdempotent;
    a_panic_in_the_drop_of_the_actor               => nothing;
    a_panic_of_a_child_that_its_parent_stops       => Halted: Rejected, Pointless;
    a_caller_dropped_before_its_turn               => nothing;
    a_caller_dropped_at_each_await                 => nothing;
    a_deactivation_that_races_calls                => nothing;
    a_full_mailbox                                 => Overloaded: Rejected, Safe;
    a_deadline_that_passes_in_the_queue            => Timeout: Rejected, Safe;
    a_turn_that_never_ends                         => Timeout: Unknown, IfIdempotent;
    a_turn_that_never_ends_when_the_silo_stops     => Stopped: Unknown, IfIdempotent;
    a_call_to_a_silo_that_stops                    => Draining: Rejected, Safe;
    a_type_that_is_not_hosted                      => NotHosted: Rejected, Pointless;
    a_deadlock_of_an_actor_with_itself             => Deadlock: Rejected, Pointless;
    a_deadlock_of_two                              => Deadlock: Rejected, Pointless;
    a_deadlock_of_three                            => Deadlock: Rejected, Pointless;
    an_on_activate_that_calls_its_own_actor        => Deadlock: Rejected, Pointless;
    an_on_activate_that_is_called_back             => Deadlock: Rejected, Pointless;
    an_on_deactivate_that_calls_its_own_actor      => Deadlock: Rejected, Pointless;
    a_lent_actor_called_back                       => nothing;
    a_lent_actor_called_by_a_stranger              => nothing;
    a_loan_cancelled_while_it_lasts                => nothing;
    a_recursion_of_10_000_actors                   => nothing;
    a_recursion_of_10_000_turns_of_one_actor       => nothing;
}

/// What the next activations and deactivations of subjects are to do, and what they heard.
#[derive(Default)]
struct Script {
    breaks_constructor: AtomicBool,
    breaks_on_activate: AtomicBool,
    breaks_on_deactivate: AtomicBool,
    /// Whom a hook calls: its own actor, or one that calls it back.
    on_activate_calls: std::sync::Mutex<Option<&'static str>>,
    on_deactivate_calls: std::sync::Mutex<Option<&'static str>>,
    heard: std::sync::Mutex<Option<Failure>>,
    /// Turns that began, and that ran to their end.
    begun: AtomicU32,
    ended: AtomicU32,
}

/// The actor that everything happens to.
#[derive(Actor)]
#[actor(name = "faults.subject", factory, mailbox = 4, turn_limit = "1s", supervise(on_panic = "stop"))]
struct Subject {
    script: Arc<Script>,
    calls: u32,
    breaks_in_drop: bool,
}

impl Drop for Subject {
    fn drop(&mut self) {
        assert!(!self.breaks_in_drop, "in drop");
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

#[methods]
impl Subject {
    #[on_activate]
    async fn wake(&mut self, cx: &Cx) -> Result<()> {
        assert!(!self.script.breaks_on_activate.swap(false, Ordering::SeqCst), "in on_activate");
        let called = self.script.on_activate_calls.lock().unwrap().take();
        if let Some(called) = called {
            self.call_back(cx, called).await;
        }
        Ok(())
    }

    #[on_deactivate]
    async fn sleep(&mut self, cx: &Cx) -> Result<()> {
        assert!(!self.script.breaks_on_deactivate.swap(false, Ordering::SeqCst), "in on_deactivate");
        let called = self.script.on_deactivate_calls.lock().unwrap().take();
        if let Some(called) = called {
            self.call_back(cx, called).await;
        }
        Ok(())
    }

    /// From a hook: calls `called`, and through it itself.
    async fn call_back(&mut self, cx: &Cx, called: &str) {
        let path = vec![cx.key().to_string()];
        let heard = match cx.key().as_str() == called {
            true => {
                cx.grid().actor::<Subject>(called).call().await.err().and_then(|error| error.as_failure())
            }
            false => cx.grid().actor::<Subject>(called).visit(path).await.unwrap(),
        };
        *self.script.heard.lock().unwrap() = heard;
    }

    pub async fn call(&mut self) -> u32 {
        self.calls += 1;
        self.calls
    }

    pub async fn panics(&mut self) {
        panic!("at once");
    }

    pub async fn panics_later(&mut self) {
        yield_now().await;
        panic!("later");
    }

    pub async fn panics_when(&self, gate: Arc<Gate>) {
        gate.passed().await;
        panic!("beside others");
    }

    pub async fn waits(&self, started: Arc<Gate>, gate: Arc<Gate>) -> u32 {
        started.open();
        gate.passed().await;
        self.calls
    }

    pub async fn holds(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }

    pub async fn holds_a_bomb(&mut self) {
        let _bomb = Bomb;
        yield_now().await;
    }

    pub async fn will_break_in_drop(&mut self) {
        self.breaks_in_drop = true;
    }

    pub async fn sets_a_timer(&self, cx: &Cx, delay: Duration) {
        cx.after(delay, |me: &SubjectRef| me.panics()).unwrap();
    }

    pub async fn spawns(&self, cx: &Cx, key: &'static str) {
        cx.spawn::<Subject>(key).unwrap();
    }

    /// Waits at `awaits` places.
    pub async fn awaits(&mut self, awaits: u32) {
        self.script.begun.fetch_add(1, Ordering::SeqCst);
        for _ in 0..awaits {
            yield_now().await;
        }
        self.script.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Calls the actors of `path` one through the other; gives the failure of the innermost call.
    pub async fn visit(&mut self, cx: &Cx, path: Vec<String>) -> Option<Failure> {
        let (next, rest) = path.split_first()?;
        match cx.grid().actor::<Subject>(next.as_str()).visit(rest.to_vec()).await {
            Ok(heard) => heard,
            Err(error) => error.as_failure(),
        }
    }

    /// Lends itself while `other` calls it back.
    pub async fn lends(&mut self, cx: &Cx, other: &'static str, lent: Arc<Gate>, gate: Arc<Gate>) -> u32 {
        let other = cx.grid().actor::<Subject>(other);
        let key = cx.key().to_string();
        let waits = async {
            lent.open();
            gate.passed().await;
            other.visit(vec![key]).await.unwrap()
        };
        assert!(cx.lend(self, waits).await.is_none());
        self.calls += 1;
        self.calls
    }

    /// Lends itself while `second` is about to call it back, and gives the loan up when told to.
    pub async fn gives_up(&mut self, cx: &Cx, lent: Arc<Gate>, resume: Arc<Gate>, cancel: Arc<Gate>) -> u32 {
        let second = cx.grid().actor::<Subject>("second");
        tokio::select! {
            _ = cx.lend(self, second.calls_when(cx.key(), lent, resume)) => unreachable!("nobody resumes it"),
            () = cancel.passed() => {}
        }
        self.calls += 1;
        self.calls
    }

    pub async fn calls_when(&mut self, cx: &Cx, key: Key, ready: Arc<Gate>, resume: Arc<Gate>) {
        ready.open();
        resume.passed().await;
        cx.grid().actor::<Subject>(key).call().await.unwrap();
        self.script.ended.fetch_add(1, Ordering::SeqCst);
    }

    pub async fn descends(&mut self, cx: &Cx, depth: u32) -> u32 {
        match depth {
            0 => 0,
            _ => cx.grid().actor::<Subject>(depth - 1).descends(depth - 1).await.unwrap() + 1,
        }
    }

    pub async fn re_enters(&self, cx: &Cx, depth: u32) -> u32 {
        match depth {
            0 => 0,
            _ => cx.grid().actor::<Subject>(cx.key()).re_enters(depth - 1).await.unwrap() + 1,
        }
    }
}

/// Nobody hosts it.
#[derive(Actor)]
#[actor(name = "faults.unknown")]
struct Unknown;

#[methods]
impl Unknown {
    pub async fn call(&mut self) {}
}

/// A silo with a subject, and neighbours that are called all the time.
struct Bed {
    silo: Silo,
    clock: Arc<TestClock>,
    script: Arc<Script>,
    leave: Arc<AtomicBool>,
    neighbours: Vec<JoinHandle<u32>>,
}

impl Bed {
    fn new() -> Self {
        let (clock, script, leave) =
            (TestClock::new(), Arc::<Script>::default(), Arc::<AtomicBool>::default());
        let theirs = script.clone();
        let make = move |_: &Key| {
            assert!(!theirs.breaks_constructor.swap(false, Ordering::SeqCst), "in the constructor");
            Ok(Subject { script: theirs.clone(), calls: 0, breaks_in_drop: false })
        };
        let silo = builder().clock(clock.clone()).host_with(make).start().unwrap();
        // They are there before anything is scripted.
        let neighbours = ["left", "right"].map(|key| {
            let (grid, leave) = (silo.grid(), leave.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !leave.load(Ordering::SeqCst) {
                    match grid.actor::<Subject>(key).call().await {
                        Ok(count) => assert_eq!(count, calls + 1, "{key} was made afresh"),
                        Err(CallError::Draining(_)) => break,
                        Err(error) => panic!("{key}: {error}"),
                    }
                    calls += 1;
                    yield_now().await;
                }
                calls
            })
        });
        Self { silo, clock, script, leave, neighbours: neighbours.into() }
    }

    async fn neighbours_are_at_work(&self) {
        until(|| self.silo.grid().census().types[0].active == 2).await;
    }

    fn subject(&self) -> SubjectRef {
        self.silo.grid().actor::<Subject>("subject")
    }

    fn queued(&self) -> u64 {
        self.silo.grid().census().types[0].queued
    }

    async fn goes_on_unharmed(self) {
        let subject = self.silo.grid().actor::<Subject>("subject");
        let calls = subject.call().await.unwrap();
        assert_eq!(subject.call().await.unwrap(), calls + 1, "it takes calls again");
        self.leave.store(true, Ordering::SeqCst);
        for neighbour in self.neighbours {
            assert!(neighbour.await.unwrap() > 0);
        }
        assert!(self.silo.shutdown(Duration::from_secs(10)).await.drained);
    }
}
