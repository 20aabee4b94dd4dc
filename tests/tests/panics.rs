//! A panic ends one turn: its caller hears of it, nobody else does, and the actor starts afresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quark::prelude::*;
use quark::{ActivationCause, Retry};
use quark_tests::{Gate, builder, on_both_runtimes, until};
use tokio::task::yield_now;

#[derive(Actor)]
#[actor(name = "panics.fragile")]
struct Fragile {
    ran: u32,
    breaks_in_drop: bool,
}

#[methods]
impl Fragile {
    pub async fn step(&mut self) -> u32 {
        self.ran += 1;
        self.ran
    }

    pub async fn ran(&self) -> u32 {
        self.ran
    }

    pub async fn panics(&mut self) -> u32 {
        panic!("at once")
    }

    pub async fn panics_later(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
        panic!("later")
    }

    pub async fn panics_shared(&self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
        std::panic::panic_any("shared".to_owned());
    }

    pub async fn waits_shared(&self, started: Arc<Gate>, gate: Arc<Gate>) -> u32 {
        started.open();
        gate.passed().await;
        self.ran
    }

    pub async fn drops_badly(&mut self) {
        let _bomb = Bomb;
        yield_now().await;
    }

    pub async fn break_in_drop(&mut self) {
        self.breaks_in_drop = true;
    }

    /// An answer that breaks when nobody takes it.
    pub async fn answers_badly(&mut self) -> Bomb {
        self.ran += 1;
        Bomb
    }

    pub async fn answers_badly_later(&mut self, started: Arc<Gate>, gate: Arc<Gate>) -> Bomb {
        started.open();
        gate.passed().await;
        self.ran += 1;
        Bomb
    }

    pub async fn takes_badly(&mut self, bomb: Bomb) {
        std::mem::forget(bomb);
        self.ran += 1;
    }

    pub async fn odd_payload(&mut self) {
        std::panic::panic_any(17_u8);
    }
}

#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.breaks_in_drop, "the actor broke in its drop");
    }
}

fn fragile() -> (Silo, Grid) {
    let silo = builder().host::<Fragile>().start().unwrap();
    let grid = silo.grid();
    (silo, grid)
}

#[test]
fn a_panic_in_an_exclusive_turn_is_its_callers_alone_and_the_actor_starts_afresh() {
    on_both_runtimes(|| async {
        let (_silo, grid) = fragile();
        let (broken, whole) = (grid.actor::<Fragile>("broken"), grid.actor::<Fragile>("whole"));
        assert_eq!((broken.step().await.unwrap(), whole.step().await.unwrap()), (1, 1));
        let error = broken.panics().await.unwrap_err();
        assert_eq!(error.to_string(), "panics.fragile/broken panicked in panics: at once");
        assert!(matches!(error, CallError::Panicked(_)));
        assert_eq!(error.retry(), Retry::IfIdempotent);
        assert_eq!(whole.step().await.unwrap(), 2, "its neighbour noticed nothing");
        assert_eq!(broken.step().await.unwrap(), 1, "a fresh actor");
    });
}

#[test]
fn messages_that_wait_behind_a_panic_run_on_the_fresh_actor() {
    on_both_runtimes(|| async {
        let (_silo, grid) = fragile();
        let actor = grid.actor::<Fragile>("one");
        actor.step().await.unwrap();
        let (started, gate) = (Gate::new(), Gate::new());
        let breaks = tokio::spawn({
            let (actor, started, gate) = (actor.clone(), started.clone(), gate.clone());
            async move { actor.panics_later(started, gate).await }
        });
        started.passed().await;
        actor.step().tell().unwrap();
        actor.step().tell().unwrap();
        let last = tokio::spawn({
            let actor = actor.clone();
            async move { actor.step().await }
        });
        gate.open();
        let error = breaks.await.unwrap().unwrap_err();
        assert!(matches!(&error, CallError::Panicked(broke) if &*broke.message == "later"), "{error}");
        let last = last.await.unwrap().unwrap();
        assert!((1..=3).contains(&last), "it ran on the fresh actor: {last}");
        until_ran(&actor, 3).await;
    });
}

async fn until_ran(actor: &FragileRef, times: u32) {
    while actor.ran().await.unwrap() != times {
        yield_now().await;
    }
}

#[test]
fn a_panic_in_a_shared_turn_leaves_the_others_beside_it_alone() {
    on_both_runtimes(|| async {
        let (_silo, grid) = fragile();
        let actor = grid.actor::<Fragile>("one");
        actor.step().await.unwrap();
        let (beside, breaks, end) = (Gate::new(), Gate::new(), Gate::new());
        let waits = tokio::spawn({
            let (actor, started, gate) = (actor.clone(), beside.clone(), end.clone());
            async move { actor.waits_shared(started, gate).await }
        });
        beside.passed().await;
        breaks.open();
        let error = actor.panics_shared(Gate::new(), breaks).await.unwrap_err();
        assert!(matches!(&error, CallError::Panicked(broke) if &*broke.message == "shared"), "{error}");
        end.open();
        assert_eq!(waits.await.unwrap().unwrap(), 1, "the other turn ended as if nothing had happened");
        assert_eq!(actor.step().await.unwrap(), 1, "a fresh actor");
    });
}

#[test]
fn a_panic_in_the_drop_of_what_a_turn_held_is_a_panic_of_the_turn() {
    on_both_runtimes(|| async {
        let (_silo, grid) = fragile();
        let actor = grid.actor::<Fragile>("one");
        actor.step().await.unwrap();
        let error = actor.drops_badly().await.unwrap_err();
        assert!(matches!(&error, CallError::Panicked(broke) if &*broke.message == "in drop"), "{error}");
        assert_eq!(actor.step().await.unwrap(), 1, "a fresh actor");
    });
}

#[test]
fn a_panic_in_the_drop_of_a_turn_that_is_stopped_is_contained() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Stuck>().start().unwrap();
        let (stuck, started) = (silo.grid().actor::<Stuck>("one"), Gate::new());
        let call = tokio::spawn({
            let (stuck, started) = (stuck.clone(), started.clone());
            async move { stuck.never(started).await }
        });
        started.passed().await;
        assert!(!silo.shutdown(Duration::ZERO).await.drained);
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Stopped(_)), "{error}");
    });
}

#[derive(Actor)]
struct Stuck;

#[methods]
impl Stuck {
    pub async fn never(&mut self, started: Arc<Gate>) {
        let _bomb = Bomb;
        started.open();
        Gate::new().passed().await;
    }
}

#[test]
fn a_panic_in_the_drop_of_an_actor_harms_nobody() {
    on_both_runtimes(|| async {
        let (silo, grid) = fragile();
        let actor = grid.actor::<Fragile>("one");
        actor.break_in_drop().await.unwrap();
        grid.deactivate::<Fragile>("one");
        assert_eq!(actor.step().await.unwrap(), 1, "a fresh actor");
        assert_eq!(grid.actor::<Fragile>("two").step().await.unwrap(), 1);
        assert!(silo.shutdown(Duration::from_secs(5)).await.drained);
    });
}

#[test]
fn a_panic_with_an_odd_payload_is_a_panic_like_any_other() {
    on_both_runtimes(|| async {
        let (_silo, grid) = fragile();
        let error = grid.actor::<Fragile>("one").odd_payload().await.unwrap_err();
        assert!(matches!(&error, CallError::Panicked(broke) if broke.method == "odd_payload"), "{error}");
    });
}

#[test]
fn a_one_way_message_that_panics_costs_the_actor_only_its_state() {
    on_both_runtimes(|| async {
        let (_silo, grid) = fragile();
        let actor = grid.actor::<Fragile>("one");
        actor.step().await.unwrap();
        actor.panics().tell().unwrap();
        assert_eq!(actor.step().await.unwrap(), 1, "a fresh actor");
    });
}

#[test]
fn an_answer_whose_drop_panics_harms_nobody() {
    on_both_runtimes(|| async {
        let (silo, grid) = fragile();
        // More of them than there are threads to lose.
        for n in 0..32_u32 {
            let actor = grid.actor::<Fragile>(n);
            actor.answers_badly().tell().unwrap();
            actor.step().tell().unwrap();
            let (started, gate) = (Gate::new(), Gate::new());
            let abandoned = tokio::spawn({
                let (actor, started, gate) = (actor.clone(), started.clone(), gate.clone());
                async move { actor.answers_badly_later(started, gate).await.map(std::mem::forget) }
            });
            started.passed().await;
            abandoned.abort();
            assert!(abandoned.await.is_err());
            gate.open();
            until_ran(&actor, 3).await;
        }
        assert!(silo.shutdown(Duration::from_secs(10)).await.drained);
    });
}

#[test]
fn an_argument_whose_drop_panics_harms_only_who_sent_it() {
    on_both_runtimes(|| async {
        let (silo, grid) = fragile();
        let actor = grid.actor::<Fragile>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        let holder = tokio::spawn({
            let (actor, started, gate) = (actor.clone(), started.clone(), gate.clone());
            async move { actor.answers_badly_later(started, gate).await.map(std::mem::forget) }
        });
        started.passed().await;
        // Given up while it waits: its argument is dropped by whoever finds it in the mailbox.
        let queued = tokio::spawn({
            let actor = actor.clone();
            async move { actor.takes_badly(Bomb).await }
        });
        until(|| grid.census().types[0].queued == 1).await;
        queued.abort();
        assert!(queued.await.is_err());
        gate.open();
        holder.await.unwrap().unwrap();
        until_ran(&actor, 1).await;
        assert_eq!(actor.step().await.unwrap(), 2);
        assert!(silo.shutdown(Duration::from_secs(10)).await.drained);
    });
}

#[derive(Debug, Actor)]
#[actor(name = "panics.unborn", factory)]
struct Unborn;

#[methods]
impl Unborn {
    pub async fn step(&mut self) -> u32 {
        1
    }
}

#[test]
fn a_panic_in_the_constructor_is_an_activation_error_and_the_next_call_tries_again() {
    on_both_runtimes(|| async {
        let tries = Arc::new(AtomicU32::new(0));
        let silo = builder()
            .host_with({
                let tries = tries.clone();
                move |_| {
                    assert_ne!(tries.fetch_add(1, Ordering::SeqCst), 0, "not yet");
                    Ok(Unborn)
                }
            })
            .start()
            .unwrap();
        let actor = silo.grid().actor::<Unborn>("one");
        let error = actor.step().await.unwrap_err();
        let CallError::Activation(failed) = &error else { panic!("{error}") };
        assert!(
            matches!(&failed.cause, ActivationCause::Panicked(text) if text.contains("not yet")),
            "{error}"
        );
        assert_eq!(actor.step().await.unwrap(), 1);
        assert_eq!(tries.load(Ordering::SeqCst), 2);
        until(|| silo.grid().census().activations == 1).await;
    });
}

/// Leaves and breaks in one turn.
#[derive(Actor)]
#[actor(name = "panics.leaver", factory)]
struct Leaver {
    said_goodbye: Arc<AtomicU32>,
}

#[methods]
impl Leaver {
    #[on_deactivate]
    async fn goodbye(&mut self) -> Result<()> {
        self.said_goodbye.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    pub async fn leaves_and_breaks(&mut self, cx: &Cx) {
        cx.deactivate();
        panic!("torn");
    }

    pub async fn leaves(&mut self, cx: &Cx) {
        cx.deactivate();
    }
}

#[test]
fn no_hook_runs_on_an_actor_that_a_panic_may_have_torn() {
    on_both_runtimes(|| async {
        let said_goodbye = Arc::new(AtomicU32::new(0));
        let theirs = said_goodbye.clone();
        let make = move |_: &Key| Ok(Leaver { said_goodbye: theirs.clone() });
        let silo = builder().host_with(make).start().unwrap();
        let leaver = silo.grid().actor::<Leaver>("one");
        leaver.leaves().await.unwrap();
        until(|| said_goodbye.load(Ordering::SeqCst) == 1).await;
        assert!(matches!(leaver.leaves_and_breaks().await, Err(CallError::Panicked(_))));
        leaver.leaves().await.unwrap();
        assert!(silo.shutdown(Duration::from_secs(10)).await.drained);
        assert_eq!(said_goodbye.load(Ordering::SeqCst), 2, "the torn one said nothing");
    });
}

#[derive(Actor)]
struct Caller;

#[methods]
impl Caller {
    pub async fn calls_a_panic(&mut self, cx: &Cx) -> bool {
        matches!(cx.grid().actor::<Fragile>("one").panics().await, Err(CallError::Panicked(_)))
    }
}

#[test]
fn an_actor_that_calls_one_that_panics_goes_on() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Fragile>().host::<Caller>().start().unwrap();
        let caller = silo.grid().actor::<Caller>("one");
        assert!(caller.calls_a_panic().await.unwrap());
        assert!(caller.calls_a_panic().await.unwrap());
    });
}
