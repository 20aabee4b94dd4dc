//! How actors come to life and leave it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use quark::base::{Clock, Waiter};
use quark::prelude::*;
use quark::{ActivationCause, Outcome, Retry};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, until};
use tokio::task::JoinSet;

/// What happened to all activations of a test, and what the next ones are to do.
#[derive(Default)]
struct Stage {
    log: Mutex<Vec<String>>,
    activations: AtomicU32,
    /// How the next activations go; when empty, they succeed.
    script: Mutex<VecDeque<Scene>>,
}

enum Scene {
    Fails(&'static str),
    Panics,
    Waits { started: Arc<Gate>, gate: Arc<Gate> },
}

impl Stage {
    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn activations(&self) -> u32 {
        self.activations.load(Ordering::SeqCst)
    }

    fn next(&self, scene: Scene) {
        self.script.lock().unwrap().push_back(scene);
    }
}

/// An actor with both hooks.
#[derive(Actor)]
#[actor(name = "life.staged", factory, idle = "10m", activation_limit = "100ms")]
struct Staged {
    stage: Arc<Stage>,
    number: u32,
    calls: u32,
}

#[methods]
impl Staged {
    #[on_activate]
    async fn wake(&mut self, cx: &Cx) -> Result<()> {
        self.number = self.stage.activations.fetch_add(1, Ordering::SeqCst) + 1;
        let scene = self.stage.script.lock().unwrap().pop_front();
        match scene {
            None => {}
            Some(Scene::Fails(why)) => return Err(quark::Error::msg(format!("{why} at {}", cx.key()))),
            Some(Scene::Panics) => panic!("broke in its hook"),
            Some(Scene::Waits { started, gate }) => {
                started.open();
                gate.passed().await;
            }
        }
        Ok(())
    }

    #[on_deactivate]
    async fn sleep(&mut self, cx: &Cx, why: DeactivationReason) -> Result<()> {
        self.stage.note(format!("{} {} after {} calls: {why}", cx.key(), self.number, self.calls));
        Ok(())
    }

    /// Which activation it is, and how often that was called.
    pub async fn call(&mut self) -> (u32, u32) {
        self.calls += 1;
        (self.number, self.calls)
    }

    pub async fn leave(&mut self, cx: &Cx) -> u32 {
        self.calls += 1;
        cx.deactivate();
        self.number
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        self.calls += 1;
        started.open();
        gate.passed().await;
    }
}

fn staged() -> (Silo, Arc<Stage>) {
    staged_on(builder())
}

fn staged_on(builder: quark::SiloBuilder) -> (Silo, Arc<Stage>) {
    let stage = Arc::new(Stage::default());
    let theirs = stage.clone();
    let make = move |_: &Key| Ok(Staged { stage: theirs.clone(), number: 0, calls: 0 });
    (builder.host_with(make).start().unwrap(), stage)
}

#[test]
fn a_hundred_first_calls_make_one_activation() {
    on_both_runtimes(|| async {
        let (silo, stage) = staged();
        let (started, gate) = (Gate::new(), Gate::new());
        stage.next(Scene::Waits { started: started.clone(), gate: gate.clone() });
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let actor = silo.grid().actor::<Staged>("one");
            calls.spawn(async move { actor.call().await.unwrap() });
        }
        started.passed().await;
        gate.open();
        let mut turns = Vec::new();
        while let Some(called) = calls.join_next().await {
            let (activation, turn) = called.unwrap();
            assert_eq!(activation, 1);
            turns.push(turn);
        }
        turns.sort_unstable();
        assert_eq!(turns, (1..=100).collect::<Vec<_>>());
        assert_eq!(stage.activations(), 1);
    });
}

#[test]
fn a_failed_activation_is_the_same_error_for_all_who_wait_and_the_next_call_tries_again() {
    on_both_runtimes(|| async {
        let (silo, stage) = staged();
        let first = silo.grid().actor::<Staged>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        // One activation that others wait for, then fails.
        stage.next(Scene::Fails("no model"));
        let failed = first.call().await.unwrap_err();
        let CallError::Activation(cause) = &failed else { panic!("{failed}") };
        assert_eq!(failed.to_string(), "life.staged/one could not be activated: no model at one");
        assert_eq!((failed.outcome(), failed.retry()), (Outcome::Rejected, Retry::Safe));
        assert!(matches!(cause.cause, ActivationCause::Failed(_)));

        stage.next(Scene::Waits { started: started.clone(), gate: gate.clone() });
        assert_eq!(
            tokio::join!(first.call(), async {
                started.passed().await;
                gate.open()
            })
            .0
            .unwrap(),
            (2, 1)
        );
    });
}

#[test]
fn all_who_wait_for_a_failing_activation_share_one_error() {
    on_both_runtimes(|| async {
        let (silo, stage) = staged();
        stage.next(Scene::Fails("no model"));
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let actor = silo.grid().actor::<Staged>("one");
            calls.spawn(async move { actor.call().await });
        }
        let mut errors = Vec::new();
        while let Some(called) = calls.join_next().await {
            match called.unwrap() {
                Err(CallError::Activation(error)) => errors.push(error),
                // It came after the failure was told, so it tried again.
                Ok((activation, _)) => assert_eq!(activation, 2),
                Err(other) => panic!("{other}"),
            }
        }
        assert!(!errors.is_empty());
        assert!(errors.iter().all(|error| Arc::ptr_eq(error, &errors[0])), "one error for all");
    });
}

#[test]
fn a_panic_in_the_activation_hook_is_an_activation_error() {
    on_both_runtimes(|| async {
        let (silo, stage) = staged();
        stage.next(Scene::Panics);
        let actor = silo.grid().actor::<Staged>("one");
        let error = actor.call().await.unwrap_err();
        assert_eq!(error.to_string(), "life.staged/one could not be activated: panicked: broke in its hook");
        assert_eq!(actor.call().await.unwrap(), (2, 1));
    });
}

#[test]
fn an_activation_that_takes_longer_than_its_limit_is_dropped() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, stage) = staged_on(builder().clock(clock.clone()));
        let started = Gate::new();
        stage.next(Scene::Waits { started: started.clone(), gate: Gate::new() });
        let actor = silo.grid().actor::<Staged>("one");
        let called = async { actor.call().await.unwrap_err() };
        let limit_passes = async {
            started.passed().await;
            // The hook has begun; its limit is armed when its first poll has ended.
            until(|| clock.next_due().is_some()).await;
            clock.advance(ms(100));
        };
        let (error, ()) = tokio::join!(called, limit_passes);
        let CallError::Activation(failed) = &error else { panic!("{error}") };
        assert!(matches!(failed.cause, ActivationCause::TimedOut(limit) if limit == ms(100)), "{error}");
        assert!(error.to_string().contains("activation_limit"), "it says what to raise: {error}");
        assert_eq!(actor.call().await.unwrap(), (2, 1));
    });
}

#[test]
fn an_actor_may_ask_for_its_own_deactivation() {
    on_both_runtimes(|| async {
        let (silo, stage) = staged();
        let actor = silo.grid().actor::<Staged>("one");
        assert_eq!(actor.call().await.unwrap(), (1, 1));
        assert_eq!(actor.leave().await.unwrap(), 1);
        assert_eq!(actor.call().await.unwrap(), (2, 1), "a fresh actor");
        assert_eq!(stage.log(), ["one 1 after 2 calls: requested"]);
    });
}

#[test]
fn anybody_may_ask_for_an_actors_deactivation() {
    on_both_runtimes(|| async {
        let (silo, stage) = staged();
        let actor = silo.grid().actor::<Staged>("one");
        actor.call().await.unwrap();
        silo.grid().deactivate::<Staged>("one");
        assert_eq!(actor.call().await.unwrap(), (2, 1));
        actor.deactivate();
        assert_eq!(actor.call().await.unwrap(), (3, 1));
        assert_eq!(stage.log(), ["one 1 after 1 calls: requested", "one 2 after 1 calls: requested"]);
    });
}

#[test]
fn an_idle_actor_is_deactivated_after_its_types_idle_time_and_not_before() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, stage) = staged_on(builder().clock(clock.clone()));
        let (idle, busy) = (silo.grid().actor::<Staged>("idle"), silo.grid().actor::<Staged>("busy"));
        idle.call().await.unwrap();
        busy.call().await.unwrap();
        clock.advance(Duration::from_secs(9 * 60));
        silo.sweep_now();
        assert_eq!(busy.call().await.unwrap(), (2, 2), "neither was idle for long enough");
        clock.advance(Duration::from_secs(2 * 60));
        silo.sweep_now();
        until(|| stage.log() == ["idle 1 after 1 calls: idle"]).await;
        assert_eq!(busy.call().await.unwrap(), (2, 3));
        assert_eq!(idle.call().await.unwrap(), (3, 1));
    });
}

#[test]
fn a_running_turn_is_never_idle() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, stage) = staged_on(builder().clock(clock.clone()));
        let actor = silo.grid().actor::<Staged>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        actor.hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        clock.advance(Duration::from_secs(3_600));
        silo.sweep_now();
        gate.open();
        assert_eq!(actor.call().await.unwrap(), (1, 2));
        assert!(stage.log().is_empty());
    });
}

#[test]
fn the_idle_time_is_counted_from_the_end_of_a_turn_that_waited() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, stage) = staged_on(builder().clock(clock.clone()));
        let actor = silo.grid().actor::<Staged>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        let (one, theirs) = (actor.clone(), (started.clone(), gate.clone()));
        let held = tokio::spawn(async move { one.hold(theirs.0, theirs.1).await });
        started.passed().await;
        clock.advance(Duration::from_secs(3_600));
        silo.sweep_now();
        gate.open();
        held.await.unwrap().unwrap();
        clock.advance(Duration::from_secs(9 * 60));
        silo.sweep_now();
        assert_eq!(actor.call().await.unwrap(), (1, 2), "it was in use nine minutes ago");
        assert!(stage.log().is_empty());
    });
}

#[test]
fn an_actor_that_nobody_refers_to_is_forgotten_and_made_again() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, stage) = staged_on(builder().clock(clock.clone()));
        for round in 1..=3 {
            assert_eq!(silo.grid().actor::<Staged>("one").call().await.unwrap(), (round, 1));
            clock.advance(Duration::from_secs(3_600));
            silo.sweep_now();
            until(|| silo.grid().census().activations == 0).await;
            clock.advance(Duration::from_secs(1));
            silo.sweep_now();
        }
        assert_eq!(stage.activations(), 3);
    });
}

/// Counts how often a clock moves.
#[derive(Default)]
struct Moves(AtomicUsize);

impl Waiter for Moves {
    fn next_due(&self) -> Option<Duration> {
        None
    }

    fn time_moved(&self, _now: Duration) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_hour_passes_in_a_few_moves_while_an_actor_is_leaving() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let moves = Arc::new(Moves::default());
        let counted: Weak<dyn Waiter> = Arc::<Moves>::downgrade(&moves);
        clock.attend(counted);
        let (silo, _) = staged_on(builder().clock(clock.clone()));
        silo.grid().actor::<Staged>("one").call().await.unwrap();
        // On one thread nobody runs the deactivation before this returns.
        clock.advance(Duration::from_secs(3_600));
        let moves = moves.0.load(Ordering::SeqCst);
        assert!(moves < 10, "the clock stopped {moves} times");
    });
}

#[test]
fn asking_an_inactive_actor_to_leave_says_nothing_about_its_next_life() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, stage) = staged_on(builder().clock(clock.clone()));
        silo.grid().deactivate::<Staged>("one");
        let actor = silo.grid().actor::<Staged>("one");
        actor.call().await.unwrap();
        clock.advance(Duration::from_secs(3_600));
        silo.sweep_now();
        until(|| !stage.log().is_empty()).await;
        assert_eq!(stage.log(), ["one 1 after 1 calls: idle"]);
    });
}

#[test]
fn messages_that_wait_when_an_actor_leaves_reach_the_next_one() {
    on_both_runtimes(|| async {
        let (silo, stage) = staged();
        let actor = silo.grid().actor::<Staged>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        actor.hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        silo.grid().deactivate::<Staged>("one");
        let mut calls = JoinSet::new();
        for _ in 0..10 {
            let actor = actor.clone();
            calls.spawn(async move { actor.call().await.unwrap() });
        }
        until(|| silo.grid().census().types.iter().map(|life| life.queued).sum::<u64>() == 10).await;
        gate.open();
        while let Some(called) = calls.join_next().await {
            assert_eq!(called.unwrap().0, 2, "the next activation");
        }
        assert_eq!(stage.log(), ["one 1 after 1 calls: requested"]);
    });
}

#[test]
fn a_hook_that_asks_its_own_actor_ends_in_an_error_and_not_in_a_hang() {
    on_both_runtimes(|| async {
        let silo = builder().host::<SelfAsking>().start().unwrap();
        let error = silo.grid().actor::<SelfAsking>("one").call().await.unwrap_err();
        assert!(matches!(error, CallError::Activation(_)), "{error}");
    });
}

#[derive(Actor)]
#[actor(activation_limit = "200ms")]
struct SelfAsking;

#[methods]
impl SelfAsking {
    #[on_activate]
    async fn wake(&mut self, cx: &Cx) -> Result<()> {
        cx.grid().actor::<SelfAsking>(cx.key()).call().await?;
        Ok(())
    }

    pub async fn call(&mut self) {}
}

#[derive(Actor)]
#[actor(name = "life.init")]
struct Prepared {
    #[init(vec![1, 2, 3])]
    numbers: Vec<u32>,
    #[init("ready".to_owned())]
    text: String,
    plain: u64,
}

#[methods]
impl Prepared {
    pub async fn look(&self) -> (Vec<u32>, String, u64) {
        (self.numbers.clone(), self.text.clone(), self.plain)
    }
}

#[test]
fn fields_start_as_their_init_or_default_says() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Prepared>().start().unwrap();
        let looked = silo.grid().actor::<Prepared>(7_u64).look().await.unwrap();
        assert_eq!(looked, (vec![1, 2, 3], "ready".to_owned(), 0));
    });
}

#[derive(Actor)]
#[actor(name = "life.made", factory)]
struct Made {
    from: String,
}

#[methods]
impl Made {
    pub async fn from(&self) -> String {
        self.from.clone()
    }
}

#[test]
fn a_factory_makes_each_actor_from_its_key_and_may_refuse() {
    on_both_runtimes(|| async {
        let make = |key: &Key| match key.as_str() {
            "bad" => Err("no such camera".into()),
            good => Ok(Made { from: format!("made for {good}") }),
        };
        let silo = builder().host_with(make).start().unwrap();
        assert_eq!(silo.grid().actor::<Made>("cam-7").from().await.unwrap(), "made for cam-7");
        let error = silo.grid().actor::<Made>("bad").from().await.unwrap_err();
        assert_eq!(error.to_string(), "life.made/bad could not be activated: no such camera");
    });
}

#[test]
fn an_actor_type_that_no_silo_hosts_is_told_so_with_what_to_add() {
    on_both_runtimes(|| async {
        let silo = builder().start().unwrap();
        let actor = silo.grid().actor::<Prepared>("one");
        let text = "no silo hosts actors of type life.init; add `.host::<Prepared>()` to the silo's builder";
        let error = actor.look().await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.retry()), (text, Retry::Pointless));
        assert_eq!(actor.look().tell().unwrap_err().to_string(), text);
    });
}

#[test]
fn two_types_of_one_name_do_not_start() {
    #[derive(Actor)]
    #[actor(name = "life.init")]
    struct Other;

    #[methods]
    impl Other {}

    let error = builder().host::<Prepared>().host::<Other>().start().err().unwrap();
    let text = "Prepared and Other are both named \"life.init\"; give one another #[actor(name = …)]";
    assert_eq!(error.to_string(), text);
}
