//! An actor's own timers: messages to itself at their time, on the silo's clock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use quark::prelude::*;
use quark::{Fault, Retry, Schedule, SiloBuilder, Timer, TimerError};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, soon, until};

/// What the actors of a test noted.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    timer: Mutex<Option<Timer>>,
    activations: AtomicU32,
}

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.lines.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn timer(&self) -> Timer {
        self.timer.lock().unwrap().clone().unwrap()
    }
}

#[derive(Actor)]
#[actor(name = "timers.rhythm", factory, idle = "10s", mailbox = 2)]
struct Rhythm {
    log: Arc<Log>,
    ticks: u32,
}

#[methods]
impl Rhythm {
    #[on_activate]
    async fn wake(&mut self) -> Result<()> {
        self.log.activations.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    #[on_deactivate]
    async fn rest(&mut self, cx: &Cx, why: DeactivationReason) -> Result<()> {
        self.log.note(format!("{why} at {}", cx.now().as_millis()));
        Ok(())
    }

    pub async fn touch(&mut self) {}

    pub async fn once(&mut self, cx: &Cx, delay: Duration, word: String) -> Result<(), TimerError> {
        let timer = cx.after(delay, |me: &RhythmRef| me.say(word))?;
        *self.log.timer.lock().unwrap() = Some(timer);
        Ok(())
    }

    pub async fn begin(&mut self, cx: &Cx, schedule: Schedule) -> Result<(), TimerError> {
        let timer = cx.timer(schedule, |me: &RhythmRef| me.tick())?;
        *self.log.timer.lock().unwrap() = Some(timer);
        Ok(())
    }

    pub async fn begin_held(&mut self, cx: &Cx, period: Duration, gate: Arc<Gate>) -> Result<(), TimerError> {
        let timer = cx.every(period, move |me: &RhythmRef| me.hold(gate.clone()))?;
        *self.log.timer.lock().unwrap() = Some(timer);
        Ok(())
    }

    pub async fn begin_breaking(&mut self, cx: &Cx, period: Duration) -> Result<(), TimerError> {
        cx.every(period, |me: &RhythmRef| me.breaks()).map(drop)
    }

    pub async fn begin_foreign(&mut self, cx: &Cx) -> Result<(), TimerError> {
        cx.every(ms(10), |other: &StrangerRef| other.hear()).map(drop)
    }

    pub async fn begin_unmakeable(&mut self, cx: &Cx, makeable: bool) -> Result<(), TimerError> {
        let timer = cx.every(ms(10), move |me: &RhythmRef| {
            assert!(makeable, "cannot make it");
            me.tick()
        })?;
        *self.log.timer.lock().unwrap() = Some(timer);
        Ok(())
    }

    pub async fn say(&mut self, cx: &Cx, word: String) {
        self.log.note(format!("{word} at {}", cx.now().as_millis()));
    }

    pub async fn tick(&mut self, cx: &Cx) {
        self.ticks += 1;
        self.log.note(format!("tick {} at {}", self.ticks, cx.now().as_millis()));
    }

    pub async fn hold(&mut self, gate: Arc<Gate>) {
        self.log.note("held");
        gate.passed().await;
    }

    pub async fn breaks(&mut self) {
        self.log.note("breaks");
        panic!("broke in a timer's turn");
    }
}

#[derive(Actor)]
struct Stranger;

#[methods]
impl Stranger {
    pub async fn hear(&mut self) {}
}

struct Scene {
    silo: Silo,
    clock: Arc<TestClock>,
    log: Arc<Log>,
    rhythm: RhythmRef,
}

impl Scene {
    fn new() -> Self {
        Self::on(builder())
    }

    fn on(builder: SiloBuilder) -> Self {
        let (clock, log) = (TestClock::new(), Arc::new(Log::default()));
        let theirs = log.clone();
        let make = move |_: &Key| Ok(Rhythm { log: theirs.clone(), ticks: 0 });
        let silo = builder.clock(clock.clone()).host_with(make).host::<Stranger>().start().unwrap();
        let rhythm = silo.grid().actor::<Rhythm>("one");
        Self { silo, clock, log, rhythm }
    }

    /// Moves on, and waits until what was noted is this.
    async fn after(&self, by: Duration, lines: &[&str]) {
        self.clock.advance(by);
        until(|| self.log.lines() == lines).await;
    }
}

#[test]
fn a_timer_that_ticks_once_sends_its_message_at_its_time() {
    on_both_runtimes(|| async {
        let scene = Scene::new();
        scene.rhythm.once(ms(500), "hello".to_owned()).await.unwrap();
        let timer = scene.log.timer();
        assert_eq!((timer.is_active(), timer.next_due()), (true, Some(ms(500))));
        scene.clock.advance(ms(499));
        scene.rhythm.touch().await.unwrap();
        assert!(scene.log.lines().is_empty());
        scene.after(ms(1), &["hello at 500"]).await;
        assert_eq!((timer.is_active(), timer.ticks(), timer.missed()), (false, 1, 0));
        scene.clock.advance(Duration::from_secs(5));
        scene.rhythm.touch().await.unwrap();
        assert_eq!(scene.log.lines().len(), 1);
    });
}

#[test]
fn a_timer_without_a_delay_sends_at_once() {
    on_both_runtimes(|| async {
        let scene = Scene::new();
        scene.rhythm.once(Duration::ZERO, "now".to_owned()).await.unwrap();
        scene.after(Duration::ZERO, &["now at 0"]).await;
    });
}

#[test]
fn a_periodic_timer_keeps_to_its_schedule() {
    on_both_runtimes(|| async {
        let scene = Scene::new();
        scene.rhythm.begin(Schedule::every(ms(100)).starting_in(ms(30))).await.unwrap();
        scene.after(ms(30), &["tick 1 at 30"]).await;
        scene.after(ms(100), &["tick 1 at 30", "tick 2 at 130"]).await;
        assert_eq!(scene.log.timer().next_due(), Some(ms(230)));
        scene.log.timer().cancel();
        scene.clock.advance(Duration::from_secs(1));
        scene.rhythm.touch().await.unwrap();
        assert_eq!(scene.log.lines().len(), 2);
        assert!(!scene.log.timer().is_active());
    });
}

#[test]
fn ticks_do_not_pile_up_behind_one_that_has_not_ended() {
    on_both_runtimes(|| async {
        let (scene, gate) = (Scene::new(), Gate::new());
        scene.rhythm.begin_held(ms(100), gate.clone()).await.unwrap();
        scene.after(ms(100), &["held"]).await;
        scene.clock.advance(ms(350));
        let timer = scene.log.timer();
        assert_eq!((timer.ticks(), timer.missed(), timer.next_due()), (1, 3, Some(ms(500))));
        gate.open();
        soon(scene.rhythm.touch()).await.unwrap();
        scene.after(ms(50), &["held", "held"]).await;
    });
}

#[test]
fn a_full_mailbox_costs_a_periodic_timer_a_tick_and_one_that_ticks_once_only_time() {
    on_both_runtimes(|| async {
        let (scene, gate) = (Scene::new(), Gate::new());
        scene.rhythm.begin(Schedule::every(ms(100))).await.unwrap();
        let periodic = scene.log.timer();
        scene.rhythm.once(ms(100), "late".to_owned()).await.unwrap();
        let once = scene.log.timer();
        scene.rhythm.hold(gate.clone()).tell().unwrap();
        until(|| scene.log.lines() == ["held"]).await;
        for _ in 0..2 {
            scene.rhythm.touch().tell().unwrap();
        }
        scene.clock.advance(ms(100));
        assert_eq!((periodic.ticks(), periodic.missed()), (0, 1));
        assert_eq!((once.is_active(), once.ticks()), (true, 0), "it is tried again");
        gate.open();
        until(|| scene.silo.grid().census().types.iter().all(|rhythm| rhythm.queued == 0)).await;
        scene.after(ms(10), &["held", "late at 110"]).await;
    });
}

#[test]
fn timers_end_with_their_activation_and_their_waiting_ticks_too() {
    on_both_runtimes(|| async {
        let (scene, gate) = (Scene::new(), Gate::new());
        scene.rhythm.begin(Schedule::every(ms(100))).await.unwrap();
        let timer = scene.log.timer();
        scene.rhythm.hold(gate.clone()).tell().unwrap();
        until(|| scene.log.lines() == ["held"]).await;
        scene.clock.advance(ms(100));
        assert_eq!(timer.ticks(), 1, "it waits behind the turn that runs");
        scene.silo.grid().deactivate::<Rhythm>("one");
        gate.open();
        until(|| scene.silo.grid().census().activations == 0).await;
        assert_eq!(scene.log.lines(), ["held", "requested at 100"]);
        scene.clock.advance(Duration::from_secs(1));
        assert!(!timer.is_active());
        assert_eq!(scene.silo.grid().census().activations, 0, "no tick has woken it");
        assert_eq!(scene.log.activations.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_panic_in_a_timers_turn_ends_the_activation_and_its_timers() {
    on_both_runtimes(|| async {
        let scene = Scene::new();
        scene.rhythm.begin(Schedule::every(ms(150))).await.unwrap();
        let other = scene.log.timer();
        scene.rhythm.begin_breaking(ms(100)).await.unwrap();
        scene.after(ms(100), &["breaks"]).await;
        until(|| !other.is_active()).await;
        scene.clock.advance(Duration::from_secs(1));
        soon(scene.rhythm.touch()).await.unwrap();
        assert_eq!(scene.log.lines(), ["breaks"], "a torn actor's hook does not run, nor do its timers");
        assert_eq!(scene.log.activations.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_message_that_cannot_be_made_ends_its_timer_only() {
    on_both_runtimes(|| async {
        let scene = Scene::new();
        scene.rhythm.begin_unmakeable(false).await.unwrap();
        let timer = scene.log.timer();
        scene.clock.advance(ms(10));
        assert!(!timer.is_active());
        scene.rhythm.begin_unmakeable(true).await.unwrap();
        scene.after(ms(10), &["tick 1 at 20"]).await;
        assert_eq!(scene.log.activations.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn timers_do_not_keep_an_actor_from_idle_deactivation_unless_asked_to() {
    on_both_runtimes(|| async {
        let scene = Scene::new();
        scene.rhythm.begin(Schedule::every(Duration::from_secs(4))).await.unwrap();
        let second = Duration::from_secs(1);
        scene.after(4 * second, &["tick 1 at 4000"]).await;
        scene.after(4 * second, &["tick 1 at 4000", "tick 2 at 8000"]).await;
        scene.clock.advance(2 * second);
        until(|| scene.log.lines().last().is_some_and(|line| line == "idle at 10000")).await;

        let kept = Scene::new();
        kept.rhythm.begin(Schedule::every(60 * second).keeping_active()).await.unwrap();
        kept.after(60 * second, &["tick 1 at 60000"]).await;
        kept.log.timer().cancel();
        kept.clock.advance(20 * second);
        until(|| kept.log.lines().last().is_some_and(|line| line.starts_with("idle"))).await;
    });
}

#[test]
fn an_activation_has_a_bounded_number_of_timers() {
    on_both_runtimes(|| async {
        let scene = Scene::new();
        for _ in 0..quark::runtime::timers::TIMERS_MAX {
            scene.rhythm.begin(Schedule::every(ms(100))).await.unwrap();
        }
        let error = scene.rhythm.begin(Schedule::every(ms(100))).await.unwrap_err();
        let CallError::Actor(error) = error else { panic!("{error}") };
        assert!(matches!(error, TimerError::TooMany { .. }), "{error}");
        assert_eq!(error.retry(), Retry::Safe);
        scene.log.timer().cancel();
        scene.rhythm.begin(Schedule::every(ms(100))).await.unwrap();
    });
}

#[test]
fn a_timer_that_makes_no_sense_is_refused_with_the_reason() {
    on_both_runtimes(|| async {
        let scene = Scene::new();
        let none = scene.rhythm.begin(Schedule::every(Duration::ZERO)).await.unwrap_err();
        assert_eq!(none.to_string(), "a timer's period must not be zero");
        let foreign = scene.rhythm.begin_foreign().await.unwrap_err();
        assert!(
            foreign.to_string().starts_with("timers.rhythm/one cannot start a timer for a "),
            "{foreign}"
        );
    });
}

#[test]
fn without_a_silo_a_timer_is_started_and_never_ticks() {
    on_both_runtimes(|| async {
        let log = Arc::new(Log::default());
        let mut rhythm = Rhythm { log: log.clone(), ticks: 0 };
        rhythm.begin(&Cx::detached("timers.rhythm", "one"), Schedule::every(ms(1))).await.unwrap();
        assert!(!log.timer().is_active());
    });
}
