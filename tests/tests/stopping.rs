//! What a silo that stops says to those who call it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use quark::prelude::*;
use quark_tests::{Gate, builder, on_both_runtimes, on_threads, soon};

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
