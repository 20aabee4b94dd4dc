//! Prewarming: activated ahead of the first message, under a budget, and let go when nobody comes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use quark::predictive::PrewarmBudget;
use quark::prelude::*;
use quark_tests::{Gate, TestClock, builder_on, on_both_runtimes, until};
use tokio::task::yield_now;

const TTL: Duration = Duration::from_secs(10);
const LEAD: Duration = ms(200);

/// What the test sees of its analyzers.
#[derive(Default)]
struct Seen {
    loads: AtomicU32,
    fails: AtomicU32,
    /// Loads wait for it, if there is one.
    gate: Mutex<Option<Arc<Gate>>>,
    left: Mutex<Vec<DeactivationReason>>,
}

impl Seen {
    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }

    fn left(&self) -> Vec<DeactivationReason> {
        self.left.lock().unwrap().clone()
    }
}

#[derive(Actor)]
#[actor(
    name = "prewarm.analyzer",
    factory,
    idle = "10m",
    gpu(vram = "4 GiB"),
    prewarm(stream = "sensors/motion", lead = "200ms", confidence = 0.8)
)]
struct Analyzer {
    seen: Arc<Seen>,
    calls: u32,
}

#[methods]
impl Analyzer {
    #[on_activate]
    async fn load(&mut self) -> Result<()> {
        let gate = self.seen.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.passed().await;
        }
        if self.seen.fails.load(Ordering::SeqCst) != 0 {
            return Err(quark::Error::msg("no model"));
        }
        self.seen.loads.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    #[on_deactivate]
    async fn leave(&mut self, why: DeactivationReason) -> Result<()> {
        self.seen.left.lock().unwrap().push(why);
        Ok(())
    }

    pub async fn call(&mut self) -> u32 {
        self.calls += 1;
        self.calls
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }
}

struct Set {
    silo: Silo,
    grid: Grid,
    clock: Arc<TestClock>,
    seen: Arc<Seen>,
}

fn set() -> Set {
    set_with(PrewarmBudget { max_bytes: ByteSize::gib(40), max_actors: 8, ttl: TTL }, true)
}

fn set_with(budget: PrewarmBudget, enabled: bool) -> Set {
    let (clock, seen) = (TestClock::new(), Arc::new(Seen::default()));
    let theirs = seen.clone();
    let make = move |_: &Key| Ok(Analyzer { seen: theirs.clone(), calls: 0 });
    let silo =
        builder_on("l4x4").clock(clock.clone()).prewarm_budget(budget).prewarm(enabled).host_with(make);
    let silo = silo.start().unwrap();
    Set { grid: silo.grid(), silo, clock, seen }
}

impl Set {
    async fn event(&self, key: &str) {
        let motion = StreamId::new("sensors/motion", key).unwrap();
        let published = self.grid.publish(&motion, ()).await.unwrap();
        assert_eq!(published.subscribers, 0, "only the predictors listen");
    }

    fn active(&self) -> usize {
        self.grid.census().types[0].active
    }

    fn granted(&self) -> ByteSize {
        self.silo.devices().usage().iter().map(|device| device.granted).sum()
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.silo.sweep_now();
    }

    /// Hits, misses, late ones and wasted ones so far.
    fn score(&self) -> (u64, u64, u64, u64) {
        let score = self.grid.prewarm_score();
        (score.hits, score.misses, score.late, score.wasted)
    }
}

#[test]
fn an_event_activates_its_keys_actor_before_the_first_message() {
    on_both_runtimes(|| async {
        let set = set();
        set.event("cam-7").await;
        until(|| set.active() == 1).await;
        assert_eq!((set.seen.loads(), set.granted()), (1, ByteSize::gib(4)));
        set.pass(LEAD);
        assert_eq!(set.grid.actor::<Analyzer>("cam-7").call().await.unwrap(), 1);
        assert_eq!(set.score(), (1, 0, 0, 0));
        assert_eq!(set.seen.loads(), 1, "the very same activation");
        // From here on it is an active actor like any other.
        set.pass(TTL * 2);
        assert_eq!(set.grid.actor::<Analyzer>("cam-7").call().await.unwrap(), 2);
        assert_eq!(set.score(), (1, 0, 0, 0));
    });
}

#[test]
fn a_one_way_message_fulfils_a_prewarm_too() {
    on_both_runtimes(|| async {
        let set = set();
        set.event("cam-7").await;
        until(|| set.active() == 1).await;
        set.grid.actor::<Analyzer>("cam-7").call().tell().unwrap();
        assert_eq!(set.score(), (1, 0, 0, 0));
    });
}

#[test]
fn a_call_during_the_load_waits_for_the_same_activation_and_is_late() {
    on_both_runtimes(|| async {
        let set = set();
        let gate = Gate::new();
        *set.seen.gate.lock().unwrap() = Some(gate.clone());
        set.event("cam-7").await;
        let call = tokio::spawn({
            let analyzer = set.grid.actor::<Analyzer>("cam-7");
            async move { analyzer.call().await }
        });
        until(|| set.grid.census().types[0].queued == 1).await;
        gate.open();
        assert_eq!(call.await.unwrap().unwrap(), 1);
        assert_eq!((set.score(), set.seen.loads()), ((0, 0, 1, 0), 1));
    });
}

#[test]
fn a_call_without_an_event_is_a_miss_once() {
    on_both_runtimes(|| async {
        let set = set();
        let analyzer = set.grid.actor::<Analyzer>("cam-7");
        assert_eq!(analyzer.call().await.unwrap(), 1);
        assert_eq!(analyzer.call().await.unwrap(), 2);
        assert_eq!(set.score(), (0, 1, 0, 0));
    });
}

#[test]
fn a_prewarmed_actor_that_nobody_calls_is_let_go_and_gives_its_lease_back() {
    on_both_runtimes(|| async {
        let set = set();
        set.event("cam-7").await;
        until(|| set.active() == 1).await;
        set.pass(LEAD + TTL - ms(100));
        yield_now().await;
        assert_eq!((set.active(), set.score()), (1, (0, 0, 0, 0)), "it may still be called");
        set.pass(ms(200));
        until(|| set.granted() == ByteSize::ZERO).await;
        assert_eq!(set.score(), (0, 0, 0, 1));
        assert_eq!(set.seen.left(), [DeactivationReason::PrewarmExpired]);
        assert_eq!(set.grid.actor::<Analyzer>("cam-7").call().await.unwrap(), 1);
        assert_eq!(set.score(), (0, 1, 0, 1), "and the next call is a miss");
    });
}

#[test]
fn a_prewarm_that_expires_during_its_load_is_let_go_after_it() {
    on_both_runtimes(|| async {
        let set = set();
        let gate = Gate::new();
        *set.seen.gate.lock().unwrap() = Some(gate.clone());
        set.event("cam-7").await;
        until(|| set.granted() == ByteSize::gib(4)).await;
        set.pass(LEAD + TTL + ms(100));
        assert_eq!(set.score(), (0, 0, 0, 1));
        gate.open();
        until(|| set.granted() == ByteSize::ZERO).await;
        assert_eq!(set.active(), 0);
    });
}

#[test]
fn an_event_for_an_actor_that_is_active_anyway_does_not_shorten_its_life() {
    on_both_runtimes(|| async {
        let set = set();
        let analyzer = set.grid.actor::<Analyzer>("cam-7");
        assert_eq!(analyzer.call().await.unwrap(), 1);
        set.event("cam-7").await;
        set.pass(LEAD + TTL + ms(100));
        for _ in 0..50 {
            yield_now().await;
        }
        assert_eq!(analyzer.call().await.unwrap(), 2, "it was not idle for its ten minutes");
        assert_eq!(set.seen.left(), []);
        assert_eq!(set.score(), (0, 1, 0, 0), "nothing was warmed, so nothing was hit or wasted");
    });
}

#[test]
fn events_in_a_row_warm_once_and_prolong_it() {
    on_both_runtimes(|| async {
        let set = set();
        for _ in 0..5 {
            set.event("cam-7").await;
            until(|| set.active() == 1).await;
            set.pass(TTL / 2);
        }
        assert_eq!((set.seen.loads(), set.score()), (1, (0, 0, 0, 0)));
        set.grid.actor::<Analyzer>("cam-7").call().await.unwrap();
        assert_eq!(set.score(), (1, 0, 0, 0));
    });
}

#[test]
fn prewarms_keep_to_their_budget_in_bytes() {
    on_both_runtimes(|| async {
        let set = set_with(PrewarmBudget { max_bytes: ByteSize::gib(9), max_actors: 8, ttl: TTL }, true);
        for key in ["a", "b", "c", "d"] {
            set.event(key).await;
        }
        until(|| set.active() == 2).await;
        assert_eq!(set.granted(), ByteSize::gib(8), "a third would be 12 of 9 GiB");
        // A fulfilled prewarm no longer counts.
        set.grid.actor::<Analyzer>("a").call().await.unwrap();
        set.event("c").await;
        until(|| set.active() == 3).await;
    });
}

#[test]
fn prewarms_keep_to_their_budget_in_actors() {
    on_both_runtimes(|| async {
        let set = set_with(PrewarmBudget { max_bytes: ByteSize::gib(40), max_actors: 2, ttl: TTL }, true);
        for key in ["a", "b", "c", "d"] {
            set.event(key).await;
        }
        until(|| set.active() == 2).await;
        // The rule holds for the two that were left alone, so it stays believed.
        set.grid.actor::<Analyzer>("c").call().await.unwrap();
        set.grid.actor::<Analyzer>("d").call().await.unwrap();
        assert_eq!((set.score(), set.seen.loads()), ((0, 2, 0, 0), 4));
        set.pass(LEAD + TTL + ms(100));
        until(|| set.seen.left().len() == 2).await;
        assert_eq!(set.seen.left(), [DeactivationReason::PrewarmExpired; 2]);
        assert_eq!(set.active(), 2);
        // And there is room again.
        set.event("later").await;
        until(|| set.active() == 3).await;
    });
}

#[test]
fn a_rule_that_does_not_hold_as_declared_is_no_longer_acted_on() {
    on_both_runtimes(|| async {
        let set = set();
        let mut warmed = 0;
        // 0.8 is declared, and no event is ever followed by a call.
        for n in 0..60 {
            set.event(&n.to_string()).await;
            let loads = set.seen.loads();
            set.pass(LEAD + TTL + ms(100));
            until(|| set.granted() == ByteSize::ZERO).await;
            if u64::from(loads) > warmed {
                warmed = u64::from(loads);
            }
        }
        let (hits, _, _, wasted) = set.score();
        assert_eq!(hits, 0);
        assert!((1..30).contains(&wasted), "it was believed at first, and not for long: {wasted}");
        let before = set.score();
        set.event("one more").await;
        set.pass(LEAD + TTL + ms(100));
        assert_eq!((set.score(), set.active()), (before, 0));
    });
}

#[test]
fn a_prewarm_whose_activation_fails_leaves_nothing_behind() {
    on_both_runtimes(|| async {
        let set = set();
        set.seen.fails.store(1, Ordering::SeqCst);
        set.event("cam-7").await;
        until(|| set.grid.prewarm_score().released == 1).await;
        until(|| set.granted() == ByteSize::ZERO && set.grid.census().activations == 0).await;
        set.seen.fails.store(0, Ordering::SeqCst);
        assert_eq!(set.grid.actor::<Analyzer>("cam-7").call().await.unwrap(), 1, "the call tries again");
        set.pass(LEAD + TTL + ms(100));
        assert_eq!(set.score(), (0, 1, 0, 0));
    });
}

#[test]
fn without_prewarming_events_activate_nobody() {
    on_both_runtimes(|| async {
        let budget = PrewarmBudget { max_bytes: ByteSize::gib(40), max_actors: 8, ttl: TTL };
        let set = set_with(budget, false);
        // Nobody reads the stream then, and saying so would make every publisher ask whether it is on.
        let motion = StreamId::new("sensors/motion", "cam-7").unwrap();
        let published = set.grid.publish(&motion, ()).await;
        assert!(published.is_ok(), "{}", published.unwrap_err());
        assert_eq!((set.active(), set.granted()), (0, ByteSize::ZERO));
        assert_eq!(set.grid.actor::<Analyzer>("cam-7").call().await.unwrap(), 1);
    });
}

#[test]
fn a_prewarmed_actor_in_a_long_turn_is_a_hit_and_stays() {
    on_both_runtimes(|| async {
        let set = set();
        set.event("cam-7").await;
        until(|| set.active() == 1).await;
        let (started, gate) = (Gate::new(), Gate::new());
        set.grid.actor::<Analyzer>("cam-7").hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        set.pass(LEAD + TTL + ms(100));
        gate.open();
        assert_eq!(set.grid.actor::<Analyzer>("cam-7").call().await.unwrap(), 1);
        assert_eq!((set.score(), set.seen.left()), ((1, 0, 0, 0), vec![]));
    });
}
