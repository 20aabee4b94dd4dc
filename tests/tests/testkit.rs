//! The test kit's own promises: time that a test owns, and what comes to rest when.

use std::sync::Arc;

use quark::prelude::*;
use quark::{Schedule, Timer};
use quark_testkit::TestSilo;
use quark_tests::{Gate, on_both_runtimes, soon};

#[derive(Actor)]
#[actor(idle = "10m")]
struct Worker {
    done: Vec<u64>,
    timer: Option<Timer>,
}

#[methods]
impl Worker {
    /// Works for so long.
    pub async fn work(&mut self, cx: &Cx, duration: Duration) -> Duration {
        cx.sleep(duration).await;
        self.note(cx);
        cx.now()
    }

    pub async fn tick_every(&mut self, cx: &Cx, period: Duration) -> Result<()> {
        self.timer = Some(cx.timer(Schedule::every(period), |me: &WorkerRef| me.tick())?);
        Ok(())
    }

    pub async fn tick(&mut self, cx: &Cx) {
        self.note(cx);
    }

    pub async fn done(&self) -> Vec<u64> {
        self.done.clone()
    }

    pub async fn wait(&mut self, gate: Arc<Gate>) {
        gate.passed().await;
    }
}

impl Worker {
    fn note(&mut self, cx: &Cx) {
        self.done.push(cx.now().as_secs());
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn silo() -> TestSilo {
    TestSilo::builder().host::<Worker>().start().unwrap()
}

#[test]
fn everything_that_falls_due_happens_at_its_own_time_and_in_order() {
    on_both_runtimes(|| async {
        let silo = silo();
        let worker = silo.grid().actor::<Worker>("one");
        worker.tick_every(SECOND).await.unwrap();
        silo.advance(5 * SECOND).await;
        assert_eq!(worker.done().await.unwrap(), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_test_task_goes_on_between_two_moments() {
    on_both_runtimes(|| async {
        let silo = silo();
        let worker = silo.grid().actor::<Worker>("one");
        // Each step is asked for by the test only once the one before has been answered.
        let steps = tokio::spawn(async move {
            for step in 1..=20_u32 {
                assert_eq!(worker.work(SECOND).await.unwrap(), step * SECOND);
            }
            worker.done().await.unwrap().len()
        });
        silo.advance(20 * SECOND).await;
        assert_eq!(soon(steps).await.unwrap(), 20);
    });
}

#[test]
fn a_timeout_passes_when_the_test_says_so() {
    on_both_runtimes(|| async {
        let silo = silo();
        let worker = silo.grid().actor::<Worker>("one");
        let call = tokio::spawn(async move { worker.work(60 * SECOND).timeout(30 * SECOND).await });
        silo.advance(29 * SECOND).await;
        assert!(!call.is_finished());
        silo.advance(SECOND).await;
        let late = soon(call).await.unwrap().unwrap_err();
        assert!(matches!(late, CallError::Timeout(_)), "{late}");
    });
}

#[test]
fn a_day_takes_no_time() {
    on_both_runtimes(|| async {
        let silo = silo();
        let worker = silo.grid().actor::<Worker>("one");
        worker.done().await.unwrap();
        silo.advance(10 * 60 * SECOND - ms(50)).await;
        assert_eq!(silo.grid().census().activations, 1);
        silo.advance(ms(50)).await;
        assert_eq!(silo.grid().census().activations, 0, "it was idle");
        // With somebody who wants to hear of every hour, and nobody of the minutes between.
        worker.tick_every(3_600 * SECOND).await.unwrap();
        silo.advance(24 * 3_600 * SECOND).await;
        assert_eq!(silo.now(), 24 * 3_600 * SECOND + 10 * 60 * SECOND);
    });
}

#[test]
fn a_turn_that_waits_for_the_test_is_at_rest() {
    on_both_runtimes(|| async {
        let (silo, gate) = (silo(), Gate::new());
        let worker = silo.grid().actor::<Worker>("one");
        worker.wait(gate.clone()).tell().unwrap();
        silo.advance(3_600 * SECOND).await;
        assert_eq!(silo.grid().census().activations, 1, "a running turn is not idle");
        gate.open();
        silo.settle().await;
        silo.advance(10 * 60 * SECOND).await;
        assert_eq!(silo.grid().census().activations, 0);
    });
}
