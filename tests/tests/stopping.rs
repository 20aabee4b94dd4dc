//! What a silo that stops says to those who call it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use quark::prelude::*;
use quark_tests::{Gate, builder, on_both_runtimes, on_threads, soon, until};

/// Counts its lives in what the test handed in.
#[derive(Actor)]
#[actor(name = "stop.worker", factory)]
struct Worker {
    left: Arc<AtomicU32>,
    loads: Arc<Gate>,
    loading: Arc<Gate>,
}

#[methods]
impl Worker {
    #[on_activate]
    async fn load(&mut self, cx: &Cx) -> Result<()> {
        if cx.key().as_str() == "slow to load" {
            self.loading.open();
            self.loads.passed().await;
        }
        Ok(())
    }

    #[on_deactivate]
    async fn leave(&mut self, why: DeactivationReason) -> Result<()> {
        assert_eq!(why, DeactivationReason::Shutdown);
        self.left.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    pub async fn step(&mut self) {}

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) -> u32 {
        started.open();
        gate.passed().await;
        7
    }

    /// Keeps its thread until it is told otherwise.
    pub async fn keep_thread(&mut self, started: Arc<Gate>, release: Arc<AtomicBool>) {
        started.open();
        let begun = Instant::now();
        while !release.load(Ordering::SeqCst) && begun.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
    }
}

struct Set {
    silo: Silo,
    left: Arc<AtomicU32>,
    loads: Arc<Gate>,
    loading: Arc<Gate>,
}

fn set() -> Set {
    let (left, loads, loading) = (Arc::new(AtomicU32::new(0)), Gate::new(), Gate::new());
    let parts = (left.clone(), loads.clone(), loading.clone());
    let make =
        move |_: &Key| Ok(Worker { left: parts.0.clone(), loads: parts.1.clone(), loading: parts.2.clone() });
    Set { silo: builder().host_with(make).start().unwrap(), left, loads, loading }
}

#[test]
fn a_shutdown_lets_turns_end_and_deactivates_every_actor() {
    on_both_runtimes(|| async {
        let Set { silo, left, .. } = set();
        for n in 0..50_u64 {
            silo.grid().actor::<Worker>(n).step().await.unwrap();
        }
        let (started, gate) = (Gate::new(), Gate::new());
        let running = tokio::spawn({
            let (actor, started, gate) = (silo.grid().actor::<Worker>("busy"), started.clone(), gate.clone());
            async move { actor.hold(started, gate).await }
        });
        started.passed().await;
        let grid = silo.grid();
        let (shutdown, ()) = tokio::join!(silo.shutdown(Duration::from_secs(10)), async {
            // Already refused, while the turn is still under way.
            let refused = grid.actor::<Worker>("new").step().await.unwrap_err();
            assert!(matches!(refused, CallError::Draining(_)), "{refused}");
            gate.open();
        });
        assert!(shutdown.drained);
        assert_eq!(running.await.unwrap().unwrap(), 7);
        assert_eq!(left.load(Ordering::SeqCst), 51, "each on_deactivate ran, once");
    });
}

#[test]
fn what_still_runs_after_the_patience_is_stopped() {
    on_both_runtimes(|| async {
        let Set { silo, .. } = set();
        let (started, never) = (Gate::new(), Gate::new());
        let actor = silo.grid().actor::<Worker>("busy");
        let running = tokio::spawn({
            let (actor, started) = (actor.clone(), started.clone());
            async move { actor.hold(started, never).await }
        });
        started.passed().await;
        let queued = tokio::spawn({
            let actor = actor.clone();
            async move { actor.step().await }
        });
        while silo.grid().census().types[0].queued != 1 {
            tokio::task::yield_now().await;
        }
        assert!(!silo.shutdown(ms(20)).await.drained);
        let stopped = running.await.unwrap().unwrap_err();
        assert!(matches!(&stopped, CallError::Stopped(at) if at.method == "hold"), "{stopped}");
        let refused = queued.await.unwrap().unwrap_err();
        assert!(matches!(refused, CallError::Draining(_) | CallError::Stopped(_)), "it never ran: {refused}");
    });
}

#[test]
fn calls_after_the_shutdown_are_refused_by_old_and_new_references() {
    on_both_runtimes(|| async {
        let Set { silo, .. } = set();
        let grid = silo.grid();
        let old = grid.actor::<Worker>("one");
        old.step().await.unwrap();
        assert!(silo.shutdown(Duration::from_secs(10)).await.drained);
        for actor in [old, grid.actor::<Worker>("one"), grid.actor::<Worker>("two")] {
            let refused = actor.step().await.unwrap_err();
            assert!(matches!(refused, CallError::Draining(_)), "{refused}");
            assert!(actor.step().tell().is_err());
        }
    });
}

#[test]
fn dropping_a_silo_answers_the_callers_of_turns_and_of_messages_that_wait() {
    on_both_runtimes(|| async {
        let Set { silo, .. } = set();
        let (started, never) = (Gate::new(), Gate::new());
        let actor = silo.grid().actor::<Worker>("busy");
        let running = tokio::spawn({
            let (actor, started) = (actor.clone(), started.clone());
            async move { actor.hold(started, never).await }
        });
        started.passed().await;
        let queued = tokio::spawn({
            let actor = actor.clone();
            async move { actor.step().await }
        });
        while silo.grid().census().types[0].queued != 1 {
            tokio::task::yield_now().await;
        }
        drop(silo);
        assert!(matches!(running.await.unwrap(), Err(CallError::Stopped(_))));
        assert!(queued.await.unwrap().is_err());
        assert!(soon(actor.step()).await.is_err(), "and so is one that comes later");
    });
}

#[test]
fn dropping_a_silo_answers_the_callers_of_an_activation_under_way() {
    on_both_runtimes(|| async {
        let Set { silo, loading, loads, .. } = set();
        let caller = tokio::spawn({
            let actor = silo.grid().actor::<Worker>("slow to load");
            async move { actor.step().await }
        });
        loading.passed().await;
        drop(silo);
        loads.open();
        let refused = caller.await.unwrap().unwrap_err();
        assert!(matches!(refused, CallError::Draining(_) | CallError::Stopped(_)), "{refused}");
    });
}

#[test]
fn a_shutdown_whose_patience_ends_in_an_activation_answers_its_callers() {
    on_both_runtimes(|| async {
        let Set { silo, loading, loads, .. } = set();
        let caller = tokio::spawn({
            let actor = silo.grid().actor::<Worker>("slow to load");
            async move { actor.step().await }
        });
        loading.passed().await;
        assert!(!silo.shutdown(ms(10)).await.drained);
        loads.open();
        let refused = caller.await.unwrap().unwrap_err();
        assert!(matches!(refused, CallError::Draining(_) | CallError::Stopped(_)), "{refused}");
    });
}

#[test]
fn dropping_a_silo_under_a_turn_on_its_callers_thread_answers_those_behind_it() {
    on_threads(|| async {
        let Set { silo, .. } = set();
        let actor = silo.grid().actor::<Worker>("busy");
        actor.step().await.unwrap();
        let (started, release) = (Gate::new(), Arc::new(AtomicBool::new(false)));
        let running = tokio::spawn({
            let (actor, started, release) = (actor.clone(), started.clone(), release.clone());
            async move { actor.keep_thread(started, release).await }
        });
        started.passed().await;
        let queued = tokio::spawn({
            let actor = actor.clone();
            async move { actor.step().await }
        });
        while silo.grid().census().types[0].queued != 1 {
            tokio::task::yield_now().await;
        }
        drop(silo);
        // Time for the silo's workers to see that it is over, before the turn gives its actor back.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        release.store(true, Ordering::SeqCst);
        running.await.unwrap().unwrap();
        assert!(queued.await.unwrap().is_err());
    });
}

#[test]
fn two_silos_in_one_process_share_nothing() {
    #[derive(Actor)]
    struct Counter {
        count: u32,
    }

    #[methods]
    impl Counter {
        pub async fn add(&mut self) -> u32 {
            self.count += 1;
            self.count
        }
    }

    on_both_runtimes(|| async {
        let silos = [(); 2].map(|()| builder().host::<Counter>().start().unwrap());
        assert_ne!(silos[0].id(), silos[1].id());
        let [first, second] = silos;
        let (one, other) = (first.grid().actor::<Counter>("a"), second.grid().actor::<Counter>("a"));
        assert_eq!(one.add().await.unwrap(), 1);
        assert_eq!(one.add().await.unwrap(), 2);
        assert_eq!(other.add().await.unwrap(), 1);
        assert!(first.shutdown(Duration::from_secs(10)).await.drained);
        assert!(one.add().await.is_err());
        assert_eq!(other.add().await.unwrap(), 2, "the other one runs on");
        assert_eq!(second.grid().census().activations, 1);
    });
}

#[test]
fn a_grid_handle_does_not_keep_a_silo_running() {
    on_both_runtimes(|| async {
        let Set { silo, left, .. } = set();
        let grid = silo.grid();
        grid.actor::<Worker>("one").step().await.unwrap();
        drop(silo);
        assert!(soon(grid.actor::<Worker>("one").step()).await.is_err());
        // Its actors were deactivated on the way out, or dropped; none takes another turn.
        assert!(left.load(Ordering::SeqCst) <= 1);
    });
}

#[test]
fn a_silo_that_is_gone_leaves_nothing_behind() {
    on_both_runtimes(|| async {
        let Set { silo, .. } = set();
        for n in 0..100_u64 {
            silo.grid().actor::<Worker>(n).step().await.unwrap();
        }
        let (grid, actor) = (silo.grid(), silo.grid().actor::<Worker>("kept"));
        actor.step().await.unwrap();
        // Everything that actors share holds the pool of devices.
        let devices = Arc::downgrade(silo.devices());
        drop(silo);
        assert!(soon(actor.step()).await.is_err());
        drop((grid, actor));
        until(|| devices.strong_count() == 0).await;
    });
}

#[test]
fn a_silo_that_is_shut_down_leaves_nothing_behind() {
    on_both_runtimes(|| async {
        let Set { silo, .. } = set();
        for n in 0..100_u64 {
            silo.grid().actor::<Worker>(n).step().await.unwrap();
        }
        let devices = Arc::downgrade(silo.devices());
        assert!(silo.shutdown(Duration::from_secs(10)).await.drained);
        until(|| devices.strong_count() == 0).await;
    });
}

#[test]
fn every_caller_is_answered_when_a_silo_is_dropped_under_load() {
    const CALLERS: u64 = 16;
    on_both_runtimes(|| async {
        for _ in 0..20 {
            let Set { silo, .. } = set();
            let mut callers = tokio::task::JoinSet::new();
            for caller in 0..CALLERS {
                let grid = silo.grid();
                callers.spawn(async move {
                    for n in 0.. {
                        let (started, open) = (Gate::new(), Gate::new());
                        open.open();
                        let actor = grid.actor::<Worker>((caller + n) % 5);
                        // Until the silo is gone.
                        if actor.hold(started, open).await.is_err() || actor.step().await.is_err() {
                            return;
                        }
                        if n % 8 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                });
            }
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            drop(silo);
            while let Some(caller) = callers.join_next().await {
                caller.unwrap();
            }
        }
    });
}

#[test]
fn callers_elsewhere_are_answered_when_a_silo_ends_after_the_runtime_that_drove_it() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (driver, callers) = (runtime(), runtime());
    let Set { silo, .. } = driver.block_on(async { set() });
    let actor = silo.grid().actor::<Worker>("one");
    let (started, never) = (Gate::new(), Gate::new());
    let running = callers.spawn({
        let (actor, started) = (actor.clone(), started.clone());
        async move { actor.hold(started, never).await }
    });
    callers.block_on(soon(started.passed()));
    let queued = callers.spawn({
        let actor = actor.clone();
        async move { actor.step().await }
    });
    callers.block_on(until(|| silo.grid().census().types[0].queued == 1));
    drop(driver);
    drop(silo);
    callers.block_on(soon(async {
        assert!(running.await.unwrap().is_err());
        assert!(queued.await.unwrap().is_err());
        assert!(actor.step().await.is_err());
    }));
}

#[test]
fn callers_elsewhere_are_answered_when_the_runtime_that_drives_the_actors_ends() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (driver, callers) = (runtime(), runtime());
    let Set { silo, .. } = driver.block_on(async { set() });
    let actor = silo.grid().actor::<Worker>("one");
    let (started, never) = (Gate::new(), Gate::new());
    let running = callers.spawn({
        let (actor, started) = (actor.clone(), started.clone());
        async move { actor.hold(started, never).await }
    });
    callers.block_on(soon(started.passed()));
    let queued = callers.spawn({
        let actor = actor.clone();
        async move { actor.step().await }
    });
    callers.block_on(until(|| silo.grid().census().types[0].queued == 1));
    drop(driver);
    callers.block_on(soon(async {
        assert!(running.await.unwrap().is_err());
        assert!(queued.await.unwrap().is_err());
        for _ in 0..3 {
            assert!(actor.step().await.is_err());
            assert!(silo.grid().actor::<Worker>("two").step().await.is_err());
        }
    }));
}

/// Holds its own silo.
#[derive(Actor)]
#[actor(name = "stop.owner")]
struct Owner;

#[methods]
impl Owner {
    pub async fn end(&mut self, silo: Silo) {
        drop(silo);
    }

    pub async fn end_later(&mut self, silo: Silo) {
        tokio::task::yield_now().await;
        drop(silo);
    }

    pub async fn shut_down(&mut self, silo: Silo) -> bool {
        silo.shutdown(ms(10)).await.drained
    }
}

#[test]
fn an_actor_may_end_its_own_silo() {
    on_both_runtimes(|| async {
        let owner = || {
            let silo = builder().host::<Owner>().start().unwrap();
            (silo.grid().actor::<Owner>("one"), silo)
        };
        let (actor, silo) = owner();
        let ended = actor.end(silo).await;
        assert!(matches!(ended, Ok(()) | Err(CallError::Stopped(_))), "{ended:?}");
        let (actor, silo) = owner();
        let ended = actor.end_later(silo).await;
        assert!(matches!(ended, Ok(()) | Err(CallError::Stopped(_))), "{ended:?}");
        // A shutdown waits for its own turn, so its patience ends, and so does the turn.
        let (actor, silo) = owner();
        let ended = actor.shut_down(silo).await;
        assert!(matches!(ended, Ok(false) | Err(CallError::Stopped(_))), "{ended:?}");
    });
}
