//! Turns that do not end are named, and nothing else is.

use std::sync::{Arc, Condvar, Mutex};

use quark::prelude::*;
use quark::{StuckState, StuckTurn};
use quark_testkit::TestSilo;
use quark_tests::{Gate, on_both_runtimes, on_threads, soon, until};

#[derive(Actor)]
#[actor(name = "dog.slow", turn_limit = "10s")]
struct Slow {
    calls: u32,
}

#[methods]
impl Slow {
    pub async fn wait(&mut self, gate: Arc<Gate>) {
        self.calls += 1;
        gate.passed().await;
    }

    pub async fn wait_shared(&self, gate: Arc<Gate>) {
        gate.passed().await;
    }

    /// Keeps its thread.
    pub async fn block(&mut self, door: Arc<Door>) {
        self.calls += 1;
        door.pass();
    }

    pub async fn quick(&mut self) -> u32 {
        self.calls += 1;
        self.calls
    }

    pub async fn tick_every(&mut self, cx: &Cx, period: Duration) -> Result<()> {
        cx.every(period, |me: &SlowRef| me.quick())?;
        Ok(())
    }
}

/// What a thread waits at until it is opened.
#[derive(Default)]
struct Door {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Door {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        while !state.1 {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn somebody_waits(&self) -> bool {
        self.state.lock().unwrap().0
    }
}

/// Opens its door in the end, also that of a test that failed.
struct Opened(Arc<Door>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().1 = true;
        self.0.changed.notify_all();
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn silo() -> TestSilo {
    TestSilo::builder().host::<Slow>().start().unwrap()
}

fn named(stuck: &[StuckTurn]) -> Vec<(String, Option<&'static str>, StuckState)> {
    stuck.iter().map(|turn| (turn.actor.to_string(), turn.method, turn.state)).collect()
}

#[test]
fn a_turn_that_waits_for_longer_than_its_types_limit_is_named() {
    on_both_runtimes(|| async {
        let (silo, gate) = (silo(), Gate::new());
        silo.grid().actor::<Slow>("one").wait(gate.clone()).tell().unwrap();
        silo.grid().actor::<Slow>("two").wait_shared(gate.clone()).tell().unwrap();
        silo.advance(9 * SECOND).await;
        assert_eq!(silo.grid().stuck_turns(), []);
        silo.grid().actor::<Slow>("three").wait(gate.clone()).tell().unwrap();
        silo.advance(2 * SECOND).await;
        let mut stuck = silo.grid().stuck_turns();
        stuck.sort_by_key(|turn| turn.actor.to_string());
        assert_eq!(
            named(&stuck),
            [
                ("dog.slow/one".to_owned(), Some("wait"), StuckState::Waits),
                ("dog.slow/two".to_owned(), Some("wait_shared"), StuckState::Waits),
            ]
        );
        assert!(stuck.iter().all(|turn| turn.age >= 10 * SECOND && turn.age <= 11 * SECOND), "{stuck:?}");
        gate.open();
        silo.settle().await;
        assert_eq!(silo.grid().stuck_turns(), []);
    });
}

/// Moves time without waiting for rest, which a blocked thread never finds, so that the watchdog has two looks.
fn pass_limit(silo: &TestSilo) {
    silo.clock().advance(11 * SECOND);
    silo.clock().advance(SECOND);
}

#[test]
fn a_poll_that_does_not_return_is_named_whoever_polls() {
    on_threads(|| async {
        let silo = silo();
        for told in [false, true] {
            let door = Arc::new(Door::default());
            let opened = Opened(door.clone());
            let actor = silo.grid().actor::<Slow>(if told { "told" } else { "asked" });
            let theirs = door.clone();
            let call = tokio::spawn(async move {
                if told { actor.block(theirs).tell().unwrap() } else { actor.block(theirs).await.unwrap() }
            });
            until(|| door.somebody_waits()).await;
            // A worker has been seen to be there before it can be said for how long.
            silo.clock().advance(SECOND);
            assert_eq!(silo.grid().stuck_turns(), []);
            pass_limit(&silo);
            let name = if told { "dog.slow/told" } else { "dog.slow/asked" };
            assert_eq!(
                named(&silo.grid().stuck_turns()),
                [(name.to_owned(), None, StuckState::Polls)],
                "told: {told}"
            );
            // Neighbours go on.
            soon(silo.grid().actor::<Slow>("neighbour").quick()).await.unwrap();
            drop(opened);
            soon(call).await.unwrap();
            silo.advance(SECOND).await;
            assert_eq!(silo.grid().stuck_turns(), []);
        }
    });
}

#[test]
fn an_idle_actor_that_only_its_timer_calls_is_not_stuck() {
    on_both_runtimes(|| async {
        let silo = silo();
        silo.grid().actor::<Slow>("one").tick_every(SECOND).await.unwrap();
        for _ in 0..20 {
            silo.advance(3 * SECOND).await;
            assert_eq!(silo.grid().stuck_turns(), []);
        }
    });
}
