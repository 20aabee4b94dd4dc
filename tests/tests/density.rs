//! How much an idle actor costs, and how a silo sees to it that there are not too many.

use std::alloc::System;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use quark::ByteSize;
use quark::base::Clock as _;
use quark::prelude::*;
use quark::runtime::pressure::MemoryGauge;
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, until};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What an idle activation may cost besides its struct: slot, key, catalog entry, its place in the sweep's ring.
const OVERHEAD_MAX: f64 = 320.0;

/// A tick of the silo's coarse clock, and a little more.
const TICK: Duration = ms(60);

/// An actor as small as they come.
#[derive(Actor)]
#[actor(name = "density.small", idle = "1h")]
struct Small {
    count: u64,
}

#[methods]
impl Small {
    pub async fn add(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

fn active(silo: &Silo) -> usize {
    silo.grid().census().types.iter().map(|of_type| of_type.active).sum()
}

#[test]
fn an_idle_activation_costs_its_struct_and_at_most_320_bytes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let silo = builder().host::<Small>().start().unwrap();
        let grid = silo.grid();
        // What is there once, and what a thread keeps for its turns.
        for key in 0..100u64 {
            grid.actor::<Small>(key).add().await.unwrap();
        }
        let (region, mut actors) = (Region::new(ALLOCATOR), 0u64);
        // Before and after the catalog's table has doubled, since then it is half empty.
        for more in [15_000, 2_000, 14_000, 4_000] {
            for key in actors..actors + more {
                grid.actor::<Small>(100 + key).add().await.unwrap();
            }
            actors += more;
            let change = region.change();
            let bytes = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
            let each = bytes as f64 / actors as f64;
            let overhead = each - size_of::<Small>() as f64;
            assert!(overhead <= OVERHEAD_MAX, "{overhead:.0} bytes at {actors} actors");
            assert!(overhead >= 64.0, "{overhead:.0} bytes cannot be all: a slot alone is more");
        }
        assert_eq!(active(&silo), 100 + actors as usize);
    });
}

#[test]
fn actors_that_are_gone_leave_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        const ACTORS: u64 = 5_000;
        let clock = TestClock::new();
        let silo = builder().clock(clock.clone()).host::<Small>().start().unwrap();
        let grid = silo.grid();
        let mut after_first = 0;
        for round in 0..3 {
            for key in 0..ACTORS {
                grid.actor::<Small>(key).add().await.unwrap();
            }
            clock.move_to(clock.now() + Duration::from_secs(3_600));
            until(|| {
                clock.advance(TICK);
                active(&silo) == 0
            })
            .await;
            // Vacant slots go in the hand's next round.
            for _ in 0..100 {
                clock.move_to(clock.now() + TICK);
                silo.sweep_now();
            }
            let region = Region::new(ALLOCATOR);
            let held = region.initial();
            let held = held.bytes_allocated as i64 - held.bytes_deallocated as i64;
            if round == 0 {
                after_first = held;
            }
            // A table that has grown stays as large; a slot would be 150 bytes.
            let more = (held - after_first) as f64 / ACTORS as f64;
            assert!(more < 40.0, "{more:.0} bytes an actor are left after round {round}");
        }
    });
}

#[test]
fn one_sweep_looks_at_a_part_of_many_actors_and_the_next_ones_at_the_rest() {
    on_both_runtimes(|| async {
        const ACTORS: u64 = 20_000;
        let clock = TestClock::new();
        let silo = builder().clock(clock.clone()).host::<Small>().start().unwrap();
        let grid = silo.grid();
        for key in 0..ACTORS {
            grid.actor::<Small>(key).add().await.unwrap();
        }
        clock.move_to(clock.now() + Duration::from_secs(3_600));
        silo.sweep_now();
        until(|| active(&silo) < ACTORS as usize).await;
        assert!(active(&silo) >= ACTORS as usize / 2, "one tick's work is bounded");
        until(|| {
            clock.move_to(clock.now() + TICK);
            active(&silo) == 0
        })
        .await;
    });
}

/// An actor that tells when it leaves, and why.
#[derive(Actor)]
#[actor(name = "density.leaver", factory, idle = "1h")]
struct Leaver {
    left: Left,
}

type Left = Arc<Mutex<Vec<String>>>;

#[methods]
impl Leaver {
    #[on_deactivate]
    async fn leave(&mut self, cx: &Cx, why: DeactivationReason) -> Result<()> {
        self.left.lock().unwrap().push(format!("{}: {why}", cx.key()));
        Ok(())
    }

    pub async fn call(&mut self) {}

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }
}

fn leavers(bound: impl FnOnce(quark::SiloBuilder) -> quark::SiloBuilder) -> (Silo, Left, Arc<TestClock>) {
    let (left, clock) = (Left::default(), TestClock::new());
    let theirs = left.clone();
    let make = move |_: &Key| Ok(Leaver { left: theirs.clone() });
    let silo = bound(builder().clock(clock.clone()).host_with(make)).start().unwrap();
    (silo, left, clock)
}

#[test]
fn above_the_bound_the_least_recently_used_leave_first() {
    on_both_runtimes(|| async {
        let (silo, left, clock) = leavers(|builder| builder.max_activations(3));
        for key in ["a", "b", "c", "d", "e"] {
            silo.grid().actor::<Leaver>(key).call().await.unwrap();
            // Not yet a look around: all five are made between two ticks.
            if key == "c" {
                clock.advance(TICK);
                silo.grid().actor::<Leaver>("a").call().await.unwrap();
            }
        }
        clock.advance(TICK);
        until(|| left.lock().unwrap().len() == 2).await;
        let mut gone = left.lock().unwrap().clone();
        gone.sort();
        assert_eq!(gone, ["b: pressure", "c: pressure"]);
        clock.advance(10 * TICK);
        assert_eq!((active(&silo), left.lock().unwrap().len()), (3, 2));
    });
}

#[test]
fn who_runs_a_turn_is_not_asked_to_leave() {
    on_both_runtimes(|| async {
        let (silo, left, clock) = leavers(|builder| builder.max_activations(1));
        let (started, gate) = (Gate::new(), Gate::new());
        let (actor, begun, theirs) = (silo.grid().actor::<Leaver>("busy"), started.clone(), gate.clone());
        let turn = tokio::spawn(async move { actor.hold(begun, theirs).await });
        started.passed().await;
        clock.advance(20 * TICK);
        silo.grid().actor::<Leaver>("idle").call().await.unwrap();
        clock.advance(TICK);
        until(|| !left.lock().unwrap().is_empty()).await;
        assert_eq!(*left.lock().unwrap(), ["idle: pressure"]);
        gate.open();
        turn.await.unwrap().unwrap();
    });
}

/// A gauge that a test sets.
#[derive(Default)]
struct Reading(AtomicU64);

impl MemoryGauge for Reading {
    fn used(&self) -> Option<ByteSize> {
        Some(ByteSize::bytes(self.0.load(Ordering::SeqCst)))
    }
}

#[test]
fn under_memory_pressure_a_share_of_the_idle_leaves_each_second_until_it_is_over() {
    on_both_runtimes(|| async {
        let reading = Arc::new(Reading::default());
        let gauge = reading.clone();
        let (silo, left, clock) = leavers(|builder| builder.max_memory_by(ByteSize::bytes(1_000), gauge));
        for key in 0..64u64 {
            silo.grid().actor::<Leaver>(key).call().await.unwrap();
        }
        clock.advance(Duration::from_secs(5));
        assert!(left.lock().unwrap().is_empty());
        reading.0.store(1_001, Ordering::SeqCst);
        clock.advance(Duration::from_secs(1));
        until(|| left.lock().unwrap().len() == 4).await;
        reading.0.store(1_000, Ordering::SeqCst);
        clock.advance(Duration::from_secs(5));
        assert_eq!(left.lock().unwrap().len(), 4, "a sixteenth left, and no more");
    });
}

#[test]
fn a_silo_may_bound_its_processs_memory() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let silo =
            builder().clock(clock.clone()).host::<Small>().max_memory(ByteSize::bytes(1)).start().unwrap();
        silo.grid().actor::<Small>("a").add().await.unwrap();
        until(|| {
            clock.advance(Duration::from_secs(1));
            active(&silo) == 0
        })
        .await;
    });
}
