//! Parents and children: what a failure does to whom, and what callers see of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use quark::prelude::*;
use quark::{
    ChildFailure, ChildState, ChildStatus, DeadCause, Directive, FailureCause, Outcome, Retry, SpawnError,
};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, until};

/// What happened to all workers of a test, and what the next ones are to do.
#[derive(Default)]
struct Stage {
    log: Mutex<Vec<String>>,
    /// Activations that fail from now on.
    failing: AtomicU32,
}

impl Stage {
    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn count(&self, what: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| *line == what).count()
    }
}

#[derive(Actor)]
#[actor(name = "tree.worker", factory, mailbox = 100, idle = "10m", dead_letters)]
struct Worker {
    stage: Arc<Stage>,
    state: Vec<u32>,
}

#[methods]
impl Worker {
    #[on_activate]
    async fn wake(&mut self, cx: &Cx) -> Result<()> {
        let fewer = |left: u32| left.checked_sub(1);
        if self.stage.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok() {
            self.stage.note(format!("{} failed", cx.key()));
            return Err(quark::Error::msg("no tools"));
        }
        self.stage.note(format!("{} up", cx.key()));
        Ok(())
    }

    #[on_deactivate]
    async fn sleep(&mut self, cx: &Cx, why: DeactivationReason) -> Result<()> {
        self.stage.note(format!("{} down: {why}", cx.key()));
        Ok(())
    }

    pub async fn add(&mut self, number: u32) -> Vec<u32> {
        self.state.push(number);
        self.state.clone()
    }

    /// Sends itself a number in a while.
    pub async fn add_later(&mut self, cx: &Cx, delay: Duration) {
        cx.after(delay, |me: &WorkerRef| me.add(99)).unwrap();
    }

    pub async fn breaks(&mut self) {
        panic!("broke");
    }

    pub async fn breaks_later(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
        panic!("broke");
    }
}

/// A boss of workers. There is one of every kind of supervision, and some can do more than hire.
macro_rules! boss {
    ($boss:ident, ($($setting:tt)*), { $($more:tt)* }) => {
        #[derive(Actor)]
        #[actor($($setting)*)]
        struct $boss;

        #[methods]
        impl $boss {
            pub async fn hire(&self, cx: &Cx, key: &'static str) -> Result<(), SpawnError> {
                cx.spawn::<Worker>(key).map(drop)
            }

            $($more)*
        }
    };
}

boss!(
    Boss,
    (name = "tree.boss", idle = "5m", supervise(max_restarts = 2, within = "1m", backoff = "1s..8s")),
    {
        pub async fn fire(&self, cx: &Cx, key: &'static str) -> bool {
            cx.stop_child::<Worker>(key)
        }

        pub async fn children(&self, cx: &Cx) -> Vec<ChildStatus> {
            cx.children()
        }

        pub async fn breaks(&self) {
            panic!("the boss broke");
        }
    }
);
boss!(Together, (name = "tree.together", supervise(strategy = "all_for_one", backoff = "1s..8s")), {});
boss!(InOrder, (name = "tree.in_order", supervise(strategy = "rest_for_one", backoff = "none")), {});
boss!(Lenient, (name = "tree.lenient", supervise(on_panic = "resume")), {});
boss!(Strict, (name = "tree.strict", supervise(on_panic = "stop", on_activation = "stop")), {});
boss!(Timid, (name = "tree.timid", supervise(on_panic = "escalate", orphans = "keep")), {});

struct Works {
    silo: Silo,
    clock: Arc<TestClock>,
    stage: Arc<Stage>,
}

impl Works {
    fn open() -> Self {
        let (clock, stage) = (TestClock::new(), Arc::new(Stage::default()));
        let theirs = stage.clone();
        let make = move |_: &Key| Ok(Worker { stage: theirs.clone(), state: Vec::new() });
        let silo = builder()
            .clock(clock.clone())
            .host_with(make)
            .host::<Boss>()
            .host::<Together>()
            .host::<InOrder>()
            .host::<Lenient>()
            .host::<Strict>()
            .host::<Timid>()
            .host::<Owner>()
            .host::<Judge>()
            .host::<Lone>()
            .start()
            .unwrap();
        Self { silo, clock, stage }
    }

    fn worker(&self, key: &str) -> WorkerRef {
        self.silo.grid().actor::<Worker>(key)
    }

    /// Waits until a child of `boss` is where `wanted` says.
    async fn until_child<B: quark::Actor>(&self, key: &str, wanted: impl Fn(&ChildState) -> bool) {
        let grid = self.silo.grid();
        let there = |child: &ChildStatus| child.actor.key.as_str() == key && wanted(&child.state);
        until(|| grid.children::<B>("boss").iter().any(there)).await;
    }

    /// The boss of a kind, with workers a, b and c that have each done something.
    async fn staffed<B: quark::Actor>(&self, hire: impl AsyncFn(&'static str)) {
        for key in ["a", "b", "c"] {
            hire(key).await;
            assert_eq!(self.worker(key).add(1).await.unwrap(), [1]);
        }
        self.stage.log();
        assert_eq!(self.silo.grid().children::<B>("boss").len(), 3);
    }
}

macro_rules! staffed {
    ($works:ident, $boss:ty) => {{
        let boss = $works.silo.grid().actor::<$boss>("boss");
        $works.staffed::<$boss>(async |key| boss.hire(key).await.unwrap()).await;
        boss
    }};
}

#[test]
fn a_child_that_panics_is_made_afresh_after_its_backoff_with_its_queue_in_order() {
    on_both_runtimes(|| async {
        let works = Works::open();
        let boss = staffed!(works, Boss);
        let (started, gate) = (Gate::new(), Gate::new());
        let worker = works.worker("a");
        let breaks = tokio::spawn({
            let (worker, started, gate) = (worker.clone(), started.clone(), gate.clone());
            async move { worker.breaks_later(started, gate).await }
        });
        started.passed().await;
        for number in [10, 20, 30] {
            worker.add(number).tell().unwrap();
        }
        gate.open();
        assert!(matches!(breaks.await.unwrap(), Err(CallError::Panicked(_))));
        works.until_child::<Boss>("a", |state| matches!(state, ChildState::Restarting { .. })).await;
        let children = boss.children().await.unwrap();
        let ChildState::Restarting { since, until } = children[0].state else { panic!("{children:?}") };
        assert!(until > since && until <= since + Duration::from_secs(1) && children[0].restarts == 1);
        let last = tokio::spawn({
            let worker = worker.clone();
            async move { worker.add(40).await }
        });
        assert_eq!(works.worker("b").add(2).await.unwrap(), [1, 2], "its neighbour noticed nothing");
        assert_eq!(works.stage.count("a up"), 0, "its backoff is not over");
        works.clock.advance(Duration::from_secs(1));
        assert_eq!(last.await.unwrap().unwrap(), [10, 20, 30, 40]);
        assert_eq!(works.silo.grid().children::<Boss>("boss")[0].state, ChildState::Active);
    });
}

#[test]
fn a_restart_ends_the_timers_of_the_actor_that_broke() {
    on_both_runtimes(|| async {
        let works = Works::open();
        staffed!(works, InOrder);
        works.worker("c").add_later(Duration::from_secs(1)).await.unwrap();
        works.worker("b").add_later(Duration::from_secs(1)).await.unwrap();
        assert!(works.worker("c").breaks().await.is_err());
        assert_eq!(works.worker("c").add(2).await.unwrap(), [2]);
        works.clock.advance(Duration::from_secs(2));
        assert_eq!(works.worker("c").add(3).await.unwrap(), [2, 3]);
        assert_eq!(works.worker("b").add(3).await.unwrap(), [1, 99, 3]);
    });
}

#[test]
fn one_restart_too_many_ends_the_parent_and_its_children() {
    on_both_runtimes(|| async {
        let works = Works::open();
        staffed!(works, Boss);
        for _ in 0..2 {
            assert!(works.worker("a").breaks().await.is_err());
            works.until_child::<Boss>("a", |state| matches!(state, ChildState::Restarting { .. })).await;
            works.clock.advance(Duration::from_secs(8));
            works.until_child::<Boss>("a", |state| *state == ChildState::Active).await;
        }
        assert!(works.worker("a").breaks().await.is_err());
        until(|| works.silo.grid().census().activations == 0).await;
        assert!(works.silo.grid().children::<Boss>("boss").is_empty());
        assert_eq!(works.stage.count("b down: supervision"), 1, "its siblings leave in order");
        // They are nobody's now, and start afresh like any other.
        assert_eq!(works.worker("a").add(1).await.unwrap(), [1]);
    });
}

#[test]
fn all_for_one_restarts_all_and_those_that_did_not_break_say_goodbye() {
    on_both_runtimes(|| async {
        let works = Works::open();
        staffed!(works, Together);
        assert!(works.worker("b").breaks().await.is_err());
        until(|| works.stage.count("a down: supervision") + works.stage.count("c down: supervision") == 2)
            .await;
        let restarting = |child: &ChildStatus| matches!(child.state, ChildState::Restarting { .. });
        let children = works.silo.grid().children::<Together>("boss");
        assert!(children.iter().all(restarting), "{children:?}");
        assert_eq!(
            children.iter().map(|child| child.restarts).sum::<u32>(),
            1,
            "only the one that broke counts"
        );
        works.clock.advance(Duration::from_secs(1));
        for key in ["a", "b", "c"] {
            assert_eq!(works.worker(key).add(2).await.unwrap(), [2], "{key} is a fresh actor");
        }
        assert_eq!(works.stage.count("b down: supervision"), 0, "it may be torn");
    });
}

#[test]
fn rest_for_one_restarts_those_spawned_after() {
    on_both_runtimes(|| async {
        let works = Works::open();
        staffed!(works, InOrder);
        assert!(works.worker("b").breaks().await.is_err());
        until(|| works.stage.count("b up") + works.stage.count("c up") == 2).await;
        assert_eq!(works.worker("a").add(2).await.unwrap(), [1, 2]);
        assert_eq!(works.worker("b").add(2).await.unwrap(), [2]);
        assert_eq!(works.worker("c").add(2).await.unwrap(), [2]);
    });
}

#[test]
fn a_child_that_resumes_keeps_its_state_and_its_message_is_a_dead_letter() {
    on_both_runtimes(|| async {
        let works = Works::open();
        staffed!(works, Lenient);
        for _ in 0..20 {
            assert!(matches!(works.worker("a").breaks().await, Err(CallError::Panicked(_))));
        }
        assert_eq!(works.worker("a").add(2).await.unwrap(), [1, 2]);
        let letters = works.silo.grid().dead_letters::<Worker>();
        assert_eq!(letters.len(), 20);
        let letter = letters.inspect().remove(0);
        assert!(matches!(&letter.cause, DeadCause::Call(CallError::Panicked(_))), "{}", letter.cause);
        assert_eq!((letter.method, letter.message), ("breaks", None), "its caller was told");
    });
}

#[test]
fn a_stopped_child_refuses_what_waits_and_what_comes_until_it_is_spawned_again() {
    on_both_runtimes(|| async {
        let works = Works::open();
        let boss = staffed!(works, Strict);
        let (started, gate) = (Gate::new(), Gate::new());
        let worker = works.worker("a");
        worker.breaks_later(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        worker.add(7).tell().unwrap();
        let waits = tokio::spawn({
            let worker = worker.clone();
            async move { worker.add(2).await }
        });
        until(|| works.silo.grid().census().types.iter().map(|of| of.queued).sum::<u64>() == 2).await;
        gate.open();
        for refused in [waits.await.unwrap().unwrap_err(), worker.add(3).await.unwrap_err()] {
            let CallError::Halted(halted) = &refused else { panic!("{refused}") };
            assert_eq!(halted.by.as_ref().unwrap().to_string(), "tree.strict/boss");
            assert_eq!((refused.outcome(), refused.retry()), (Outcome::Rejected, Retry::Pointless));
            assert!(refused.to_string().contains("panicked in breaks_later: broke"), "{refused}");
        }
        works.until_child::<Strict>("a", |state| matches!(state, ChildState::Stopped { .. })).await;
        // Both one-way messages are there still: the one that broke, and the one that was refused.
        let letters = works.silo.grid().dead_letters::<Worker>();
        until(|| letters.len() == 2).await;
        let texts: Vec<_> = letters.inspect().into_iter().filter_map(|letter| letter.message).collect();
        assert_eq!(&*texts[1], "add { number: 7 }");
        boss.hire("a").await.unwrap();
        assert_eq!(worker.add(4).await.unwrap(), [4]);
        let refused = letters.inspect().into_iter().find(|letter| letter.method == "add").unwrap();
        letters.replay(refused.id).unwrap();
        assert_eq!(worker.add(5).await.unwrap(), [4, 7, 5]);
    });
}

#[test]
fn a_child_that_cannot_be_activated_is_tried_again_while_its_callers_wait() {
    on_both_runtimes(|| async {
        let works = Works::open();
        works.stage.failing.store(2, Ordering::SeqCst);
        let boss = works.silo.grid().actor::<Boss>("boss");
        boss.hire("a").await.unwrap();
        let waits = tokio::spawn({
            let worker = works.worker("a");
            async move { worker.add(1).await }
        });
        for failures in [1, 2] {
            until(|| works.silo.grid().children::<Boss>("boss")[0].restarts == failures).await;
            works.clock.advance(Duration::from_secs(2));
        }
        assert_eq!(waits.await.unwrap().unwrap(), [1]);
    });
}

#[test]
fn a_child_that_can_never_be_activated_tells_its_callers_why() {
    on_both_runtimes(|| async {
        let works = Works::open();
        works.stage.failing.store(u32::MAX, Ordering::SeqCst);
        works.silo.grid().actor::<Strict>("boss").hire("a").await.unwrap();
        works.until_child::<Strict>("a", |state| matches!(state, ChildState::Stopped { .. })).await;
        let refused = works.worker("a").add(1).await.unwrap_err();
        assert!(
            matches!(refused, CallError::Halted(_)) && refused.to_string().contains("no tools"),
            "{refused}"
        );
    });
}

#[test]
fn children_end_with_their_parent_unless_its_type_keeps_them() {
    on_both_runtimes(|| async {
        let works = Works::open();
        staffed!(works, Boss);
        works.silo.grid().deactivate::<Boss>("boss");
        until(|| works.silo.grid().census().activations == 0).await;
        assert_eq!(works.stage.count("a down: supervision"), 1);
        staffed!(works, Timid);
        works.silo.grid().deactivate::<Timid>("boss");
        until(|| works.silo.grid().census().activations == 3).await;
        assert_eq!(works.worker("a").add(2).await.unwrap(), [1, 2]);
        // Nobody's child now: a panic costs it only its state.
        assert!(works.worker("a").breaks().await.is_err());
        assert_eq!(works.worker("a").add(3).await.unwrap(), [3]);
    });
}

#[test]
fn a_panic_of_the_parent_ends_its_children() {
    on_both_runtimes(|| async {
        let works = Works::open();
        let boss = staffed!(works, Boss);
        assert!(boss.breaks().await.is_err());
        until(|| works.silo.grid().census().activations == 0).await;
        assert!(boss.children().await.unwrap().is_empty());
    });
}

#[test]
fn a_child_that_is_stopped_by_its_parent_is_nobodys() {
    on_both_runtimes(|| async {
        let works = Works::open();
        let boss = staffed!(works, Boss);
        assert!(boss.fire("b").await.unwrap() && !boss.fire("b").await.unwrap());
        until(|| works.stage.count("b down: supervision") == 1).await;
        let children = boss.children().await.unwrap();
        assert_eq!(children.iter().map(|child| child.actor.key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    });
}

#[test]
fn an_idle_child_stays_a_child_and_a_busy_one_keeps_its_parent() {
    on_both_runtimes(|| async {
        let works = Works::open();
        let boss = staffed!(works, Boss);
        works.clock.advance(Duration::from_secs(6 * 60));
        assert_eq!(boss.children().await.unwrap().len(), 3, "the boss, idle for longer, is still the same");
        works.clock.advance(Duration::from_secs(270));
        // The children have been idle for long enough by now, but the boss was called in between.
        works.until_child::<Boss>("a", |state| *state == ChildState::Idle).await;
        assert_eq!(works.worker("a").add(2).await.unwrap(), [2]);
        works.until_child::<Boss>("a", |state| *state == ChildState::Active).await;
    });
}

#[test]
fn nobody_has_two_parents_and_nobody_spawns_what_is_not_hosted() {
    on_both_runtimes(|| async {
        let works = Works::open();
        staffed!(works, Boss);
        let error = works.silo.grid().actor::<Strict>("other").hire("a").await.unwrap_err();
        assert!(
            matches!(&error, CallError::Actor(SpawnError::HasParent { parent, .. }) if parent.key.as_str() == "boss")
        );
        let silo = builder().host::<Boss>().start().unwrap();
        let error = silo.grid().actor::<Boss>("boss").hire("a").await.unwrap_err();
        assert!(matches!(&error, CallError::Actor(SpawnError::NotHosted(_))), "{error}");
    });
}

/// One of several behind a key, so nobody's child.
#[derive(Actor)]
#[actor(name = "tree.stateless", workers(max = 2))]
struct Stateless;

#[methods]
impl Stateless {
    pub async fn hire(&self, cx: &Cx) -> Result<(), SpawnError> {
        cx.spawn::<Boss>("boss").map(drop)
    }
}

#[test]
fn stateless_workers_are_nobodys_parents_or_children() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Boss>().host::<Stateless>().host::<Owner>().start().unwrap();
        let hired = silo.grid().actor::<Stateless>("any").hire().await;
        assert!(matches!(hired, Err(CallError::Actor(SpawnError::Stateless(_)))));
        let adopted = silo.grid().actor::<Owner>("owner").adopt_workers().await;
        assert!(matches!(adopted, Err(CallError::Actor(SpawnError::Stateless(_)))));
    });
}

/// Owns a timid boss, and restarts it.
#[derive(Actor)]
#[actor(name = "tree.owner", supervise(backoff = "none"))]
struct Owner;

#[methods]
impl Owner {
    pub async fn open(&self, cx: &Cx) -> Result<(), SpawnError> {
        cx.spawn::<Timid>("boss").map(drop)
    }

    pub async fn adopt_workers(&self, cx: &Cx) -> Result<(), SpawnError> {
        cx.spawn::<Stateless>("any").map(drop)
    }
}

#[test]
fn a_failure_escalates_to_the_grandparent_which_restarts_the_parent() {
    on_both_runtimes(|| async {
        let works = Works::open();
        let owner = works.silo.grid().actor::<Owner>("owner");
        owner.open().await.unwrap();
        let boss = staffed!(works, Timid);
        assert!(works.worker("a").breaks().await.is_err());
        until(|| works.silo.grid().children::<Timid>("boss").is_empty()).await;
        let owned = || works.silo.grid().children::<Owner>("owner");
        until(|| owned().iter().all(|child| child.state == ChildState::Active)).await;
        assert_eq!(owned()[0].restarts, 1);
        // A fresh boss, who hires anew.
        boss.hire("a").await.unwrap();
        assert_eq!(works.silo.grid().children::<Timid>("boss").len(), 1);
        assert_eq!(works.worker("a").add(9).await.unwrap(), [9]);
    });
}

/// Decides in code.
#[derive(Actor)]
#[actor(name = "tree.judge")]
struct Judge;

#[methods]
impl Judge {
    #[on_child_failure]
    fn judge(failure: &ChildFailure) -> Directive {
        match &failure.cause {
            FailureCause::Panicked(_) if failure.child.key.as_str() == "favourite" => Directive::Resume,
            FailureCause::Panicked(_) => Directive::Stop,
            _ => Directive::Escalate,
        }
    }

    pub async fn hire(&self, cx: &Cx, key: &'static str) -> Result<(), SpawnError> {
        cx.spawn::<Worker>(key).map(drop)
    }
}

#[test]
fn a_parent_may_decide_in_code() {
    on_both_runtimes(|| async {
        let works = Works::open();
        let judge = works.silo.grid().actor::<Judge>("judge");
        for key in ["favourite", "other"] {
            judge.hire(key).await.unwrap();
            works.worker(key).add(1).await.unwrap();
            assert!(works.worker(key).breaks().await.is_err());
        }
        assert_eq!(works.worker("favourite").add(2).await.unwrap(), [1, 2]);
        assert!(matches!(works.worker("other").add(2).await, Err(CallError::Halted(_))));
    });
}

/// Has no parent, and a rule of its own for that.
#[derive(Actor)]
#[actor(name = "tree.lone", dead_letters(asks), root(max_restarts = 1, within = "1m", backoff = "1s..1s"))]
struct Lone {
    state: u32,
}

#[methods]
impl Lone {
    pub async fn step(&mut self) -> u32 {
        self.state += 1;
        self.state
    }

    pub async fn breaks(&mut self, why: String) {
        panic!("{why}");
    }
}

#[test]
fn an_actor_without_parent_is_restarted_by_its_silo_as_its_type_says() {
    on_both_runtimes(|| async {
        let works = Works::open();
        let lone = works.silo.grid().actor::<Lone>("lone");
        lone.step().await.unwrap();
        assert!(lone.breaks("first".to_owned()).await.is_err());
        let waits = tokio::spawn({
            let lone = lone.clone();
            async move { lone.step().await }
        });
        let queued = || works.silo.grid().census().types.iter().map(|of| of.queued).sum::<u64>();
        until(|| queued() == 1).await;
        works.clock.advance(Duration::from_secs(1));
        assert_eq!(waits.await.unwrap().unwrap(), 1);
        // A second time within the window it is deactivated, and the next call finds a fresh one.
        assert!(lone.breaks("second".to_owned()).await.is_err());
        until(|| works.silo.grid().census().activations == 0).await;
        assert_eq!(lone.step().await.unwrap(), 1);
        let letters = works.silo.grid().dead_letters::<Lone>().inspect();
        let texts: Vec<_> = letters.iter().filter_map(|letter| letter.message.as_deref()).collect();
        assert_eq!(texts, ["breaks { why: \"first\" }", "breaks { why: \"second\" }"]);
    });
}

#[test]
fn a_shutdown_does_not_wait_for_a_backoff() {
    on_both_runtimes(|| async {
        let works = Works::open();
        staffed!(works, Boss);
        assert!(works.worker("a").breaks().await.is_err());
        works.until_child::<Boss>("a", |state| matches!(state, ChildState::Restarting { .. })).await;
        let waits = tokio::spawn({
            let worker = works.worker("a");
            async move { worker.add(1).await }
        });
        let queued = || works.silo.grid().census().types.iter().map(|of| of.queued).sum::<u64>();
        until(|| queued() == 1).await;
        // The clock stands still meanwhile.
        assert!(works.silo.shutdown(Duration::from_secs(5)).await.drained);
        assert!(matches!(waits.await.unwrap(), Err(CallError::Draining(_))));
    });
}
