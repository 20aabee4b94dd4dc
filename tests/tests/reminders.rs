//! Reminders: durable timers, on the time of day.

use std::sync::{Arc, Mutex};

use quark::base::{Clock, Timestamp};
use quark::prelude::*;
use quark::reminders::{Reminder, RingOwnership, point};
use quark::store::{Address, MessageId, ReminderRecord, RingRange, Store, StoreError};
use quark::{ReminderError, Retry, ScheduleError, SiloBuilder, storage};
use quark_testkit::{CommitFault, StoreFaults, TestSilo};
use quark_tests::Gate;

const START: Timestamp = Timestamp::VIRTUAL_ORIGIN;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds_after_start: u64) -> Timestamp {
    START.saturating_add(seconds(seconds_after_start))
}

/// A tick that an actor took: whose, which, when it was due and when it came in seconds, and how many were missed.
type Seen = (String, String, u64, u64, u32);

fn seen(key: &str, name: &str, due: u64, came: u64, missed: u32) -> Seen {
    (key.into(), name.into(), due, came, missed)
}

/// What the actors of a test write down, and what they do at their ticks.
#[derive(Clone, Default)]
struct Log(Arc<Logged>);

#[derive(Default)]
struct Logged {
    seen: Mutex<Vec<Seen>>,
    ids: Mutex<Vec<MessageId>>,
    /// Ticks that are to fail.
    failures: Mutex<u32>,
    /// Ticks of `slow` wait here.
    gate: Gate,
}

impl Log {
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.seen.lock().unwrap())
    }

    fn ids(&self) -> Vec<MessageId> {
        self.0.ids.lock().unwrap().clone()
    }

    fn note(&self, cx: &Cx, tick: &Tick, today: Timestamp) -> Result<()> {
        assert_eq!(cx.message_id(), Some(&tick.id));
        let since_start = |time: Timestamp| time.since(START).as_secs();
        let (due, came) = (since_start(tick.due), since_start(today));
        self.0.seen.lock().unwrap().push(seen(cx.key().as_str(), &tick.name, due, came, tick.missed));
        self.0.ids.lock().unwrap().push(tick.id.clone());
        let mut failures = self.0.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(std::io::Error::other("it does not feel like it").into());
        }
        Ok(())
    }
}

/// An actor that keeps no state.
#[derive(Actor)]
#[actor(name = "clerk", factory, idle = "3s")]
struct Clerk {
    log: Log,
    clock: Arc<dyn Clock>,
}

#[methods]
impl Clerk {
    pub async fn start(
        &mut self,
        cx: &Cx,
        name: String,
        schedule: ReminderSchedule,
    ) -> Result<(), ReminderError> {
        cx.remind(&name, schedule).await
    }

    pub async fn stop(&mut self, cx: &Cx, name: String) -> Result<bool, ReminderError> {
        cx.forget_reminder(&name).await
    }

    pub async fn all(&self, cx: &Cx) -> Result<Vec<Reminder>, ReminderError> {
        cx.reminders().await
    }

    #[on_reminder("report")]
    async fn report(&mut self, cx: &Cx, tick: Tick) -> Result<()> {
        self.log.note(cx, &tick, self.clock.timestamp())
    }

    #[on_reminder("slow")]
    async fn slow(&mut self, cx: &Cx, tick: Tick) -> Result<()> {
        self.log.note(cx, &tick, self.clock.timestamp())?;
        self.log.0.gate.passed().await;
        Ok(())
    }
}

/// A silo with clerks, over a store, from a time of day on.
fn silo_from(store: &Store, log: &Log, start: Timestamp) -> TestSilo {
    silo_with(store, log, start, |silo| silo)
}

fn silo_with(
    store: &Store,
    log: &Log,
    start: Timestamp,
    configure: impl FnOnce(SiloBuilder) -> SiloBuilder,
) -> TestSilo {
    let builder = TestSilo::builder().starting_at(start);
    let (clock, log): (Arc<dyn Clock>, _) = (builder.clock().clone(), log.clone());
    let make = move |_: &Key| Ok(Clerk { log: log.clone(), clock: clock.clone() });
    let configure = |silo: SiloBuilder| configure(silo.store("default", store.clone()));
    // Another seed for each start, as each silo has chance of its own.
    builder.host_with(make).configure(configure).seed(start.0).start().unwrap()
}

fn set_up() -> (Store, Log, TestSilo) {
    let (store, log) = (storage::memory(), Log::default());
    let silo = silo_from(&store, &log, START);
    (store, log, silo)
}

#[tokio::test]
async fn a_reminder_that_is_set_once_ticks_once_and_is_gone() {
    let (_store, log, silo) = set_up();
    let clerk = silo.grid().actor::<Clerk>("a");
    clerk.start("report".into(), ReminderSchedule::after(seconds(5))).await.unwrap();
    let set = clerk.all().await.unwrap();
    assert_eq!(
        set.iter().map(|reminder| (&*reminder.name, reminder.due)).collect::<Vec<_>>(),
        [("report", at(5))]
    );
    silo.advance(ms(4_999)).await;
    assert_eq!(log.take(), []);
    silo.advance(ms(1)).await;
    assert_eq!(log.take(), [seen("a", "report", 5, 5, 0)]);
    assert_eq!(clerk.all().await.unwrap(), []);
    silo.advance(seconds(20)).await;
    assert_eq!(log.take(), []);
}

#[tokio::test]
async fn a_periodic_reminder_keeps_to_its_grid_and_activates_its_actor() {
    let (_store, log, silo) = set_up();
    let schedule = ReminderSchedule::every(seconds(10)).starting_in(seconds(2));
    silo.grid().reminders::<Clerk>("a").set("report", schedule).await.unwrap();
    assert_eq!(silo.grid().census().activations, 0, "setting needs no activation");
    silo.advance(seconds(25)).await;
    let ticks: Vec<_> = [2, 12, 22].map(|due| seen("a", "report", due, due, 0)).into();
    assert_eq!(log.take(), ticks);
    silo.advance(seconds(6)).await;
    assert_eq!(silo.grid().census().activations, 0, "in between it was idle and left");
}

#[tokio::test]
async fn a_cron_line_ticks_by_the_time_of_day() {
    let (_store, log, silo) = set_up();
    let clerk = silo.grid().reminders::<Clerk>("a");
    clerk.set("report", ReminderSchedule::cron("*/2 * * * *").unwrap()).await.unwrap();
    silo.advance(seconds(250)).await;
    assert_eq!(log.take(), [seen("a", "report", 120, 120, 0), seen("a", "report", 240, 240, 0)]);
}

#[tokio::test]
async fn a_reminder_that_this_silo_sets_does_not_wait_for_a_look_at_the_store() {
    let (_store, log, silo) = set_up();
    silo.advance(ms(1_300)).await;
    let clerk = silo.grid().reminders::<Clerk>("a");
    clerk.set("report", ReminderSchedule::after(ms(200))).await.unwrap();
    silo.advance(ms(199)).await;
    assert_eq!(log.take(), []);
    silo.advance(ms(1)).await;
    assert_eq!(log.take().len(), 1);
}

#[tokio::test]
async fn what_another_silo_sets_is_found_by_a_look() {
    let (store, log, silo) = set_up();
    let other =
        silo_with(&store, &Log::default(), START, |silo| silo.ring_ownership(Arc::new(Part::default())));
    let reminders = other.grid().reminders::<Clerk>("a");
    reminders.set("report", ReminderSchedule::after(ms(1_500))).await.unwrap();
    silo.advance(ms(1_500)).await;
    assert_eq!(log.take(), [seen("a", "report", 1, 1, 0)]);
    // Read ahead, but forgotten by the other one before a look.
    reminders.set("report", ReminderSchedule::at(at(4))).await.unwrap();
    silo.advance(ms(1_000)).await;
    assert!(reminders.forget("report").await.unwrap());
    silo.advance(seconds(10)).await;
    assert_eq!(log.take(), []);
}

#[tokio::test]
async fn reminders_outlive_their_silo_and_late_ticks_come_once() {
    let (store, log, silo) = set_up();
    let report = ReminderSchedule::every(seconds(10));
    silo.grid().reminders::<Clerk>("a").set("report", report).await.unwrap();
    silo.grid().reminders::<Clerk>("b").set("report", ReminderSchedule::after(seconds(20))).await.unwrap();
    silo.grid().reminders::<Clerk>("c").set("report", ReminderSchedule::after(seconds(48))).await.unwrap();
    silo.shutdown().await;

    let silo = silo_from(&store, &log, at(45));
    silo.advance(seconds(20)).await;
    let expected = [
        seen("a", "report", 10, 45, 3),
        seen("b", "report", 20, 45, 0),
        seen("c", "report", 48, 48, 0),
        seen("a", "report", 50, 50, 0),
        seen("a", "report", 60, 60, 0),
    ];
    assert_eq!(log.take(), expected);
}

#[tokio::test]
async fn a_tick_that_failed_is_tried_again_with_the_same_id_and_the_grid_stands() {
    let (_store, log, silo) = set_up();
    *log.0.failures.lock().unwrap() = 4;
    let report = ReminderSchedule::every(seconds(10));
    silo.grid().reminders::<Clerk>("a").set("report", report).await.unwrap();
    silo.advance(seconds(21)).await;
    let took = log.take();
    assert_eq!(took.len(), 6, "{took:?}");
    assert!(took[..5].iter().all(|(_, _, due, came, missed)| (*due, *missed) == (10, 0) && *came < 20));
    assert_eq!(took[5], seen("a", "report", 20, 20, 0));
    let ids = log.ids();
    assert!(ids[..5].iter().all(|id| *id == ids[0]) && ids[5] != ids[0], "{ids:?}");
}

#[tokio::test]
async fn a_tick_that_fails_for_long_counts_what_it_keeps_from_coming() {
    let (_store, log, silo) = set_up();
    *log.0.failures.lock().unwrap() = 6;
    let report = ReminderSchedule::every(seconds(1));
    silo.grid().reminders::<Clerk>("a").set("report", report).await.unwrap();
    silo.advance(seconds(30)).await;
    let took = log.take();
    let (_, _, due, came, missed) = &took[6];
    assert_eq!(*due, 1, "{took:?}");
    assert!(*missed > 0 && u64::from(*missed) == came - due, "{took:?}");
    assert_eq!(took[7], seen("a", "report", came + 1, came + 1, 0));
    assert_eq!(took.last(), Some(&seen("a", "report", 30, 30, 0)));
}

#[tokio::test]
async fn a_reminder_that_is_set_anew_during_its_tick_stays_as_it_was_set() {
    let (_store, log, silo) = set_up();
    let reminders = silo.grid().reminders::<Clerk>("a");
    reminders.set("slow", ReminderSchedule::every(seconds(10))).await.unwrap();
    silo.advance(seconds(10)).await;
    assert_eq!(log.take(), [seen("a", "slow", 10, 10, 0)]);
    reminders.set("slow", ReminderSchedule::after(seconds(17))).await.unwrap();
    silo.advance(seconds(2)).await;
    log.0.gate.open();
    silo.advance(seconds(60)).await;
    assert_eq!(log.take(), [seen("a", "slow", 27, 27, 0)]);
}

#[tokio::test]
async fn a_reminder_that_is_set_anew_before_its_tick_does_not_tick_as_it_was() {
    let (_store, log, silo) = set_up();
    let clerk = silo.grid().actor::<Clerk>("a");
    clerk.start("report".into(), ReminderSchedule::after(seconds(2))).await.unwrap();
    silo.advance(ms(1_900)).await;
    clerk.start("report".into(), ReminderSchedule::after(ms(1_100))).await.unwrap();
    silo.advance(seconds(10)).await;
    assert_eq!(log.take(), [seen("a", "report", 3, 3, 0)]);
}

#[tokio::test]
async fn a_forgotten_reminder_does_not_tick() {
    let (_store, log, silo) = set_up();
    let clerk = silo.grid().actor::<Clerk>("a");
    clerk.start("report".into(), ReminderSchedule::every(seconds(2))).await.unwrap();
    silo.advance(ms(3_900)).await;
    assert!(clerk.stop("report".into()).await.unwrap());
    assert!(!clerk.stop("report".into()).await.unwrap());
    assert!(!clerk.stop("of an older version".into()).await.unwrap());
    silo.advance(seconds(10)).await;
    assert_eq!(log.take(), [seen("a", "report", 2, 2, 0)]);
}

#[tokio::test]
async fn a_tick_that_ends_with_its_silo_comes_again_at_the_next_one() {
    let (store, log, silo) = set_up();
    silo.grid().reminders::<Clerk>("a").set("slow", ReminderSchedule::after(seconds(5))).await.unwrap();
    silo.advance(seconds(5)).await;
    assert_eq!(log.take(), [seen("a", "slow", 5, 5, 0)]);
    drop(silo);
    log.0.gate.open();
    let silo = silo_from(&store, &log, at(7));
    silo.advance(seconds(5)).await;
    assert_eq!(log.take(), [seen("a", "slow", 5, 7, 0)]);
    assert_eq!(log.ids()[0], log.ids()[1]);
}

#[tokio::test]
async fn a_slow_actor_does_not_hold_up_the_ticks_of_others_and_ticks_once_at_a_time() {
    let (_store, log, silo) = set_up();
    for key in ["a", "b"] {
        let name = if key == "a" { "slow" } else { "report" };
        silo.grid().reminders::<Clerk>(key).set(name, ReminderSchedule::every(seconds(1))).await.unwrap();
    }
    silo.advance(seconds(3)).await;
    log.0.gate.open();
    silo.advance(seconds(1)).await;
    let took = log.take();
    let of = |key: &str| took.iter().filter(|seen| seen.0 == key).cloned().collect::<Vec<_>>();
    let every: Vec<_> = (1..=4).map(|due| seen("b", "report", due, due, 0)).collect();
    assert_eq!(of("b"), every);
    let slow = [seen("a", "slow", 1, 1, 0), seen("a", "slow", 2, 3, 1), seen("a", "slow", 4, 4, 0)];
    assert_eq!(of("a"), slow);
}

#[tokio::test]
async fn reminders_that_fail_by_the_ten_thousand_do_not_make_others_late() {
    let (store, log, silo) = set_up();
    // More than a service has in hand, of actors that nobody hosts.
    for part in 0..20 {
        let lost = (0..4_000).map(|key| {
            let actor = Address::new("lost", format!("{part}.{key}"));
            let (ring, due) = (point(&actor), at(1));
            let schedule = format!("{{\"once\":{}}}", due.0);
            ReminderRecord { actor, name: "report".into(), due, schedule, ring, version: 1 }
        });
        store.reminders.put(&lost.collect::<Vec<_>>()).await.unwrap();
    }
    for (key, due) in [("a", 5), ("b", 20), ("c", 40)] {
        let report = ReminderSchedule::after(seconds(due));
        silo.grid().reminders::<Clerk>(key).set("report", report).await.unwrap();
    }
    silo.advance(seconds(45)).await;
    let in_time = [("a", 5), ("b", 20), ("c", 40)].map(|(key, due)| seen(key, "report", due, due, 0));
    assert_eq!(log.take(), in_time);
}

#[tokio::test]
async fn an_outage_of_the_store_makes_ticks_late_and_not_many() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let log = Log::default();
    let silo = silo_from(&store, &log, START);
    silo.grid().reminders::<Clerk>("a").set("report", ReminderSchedule::every(seconds(5))).await.unwrap();
    silo.advance(ms(4_500)).await;
    let away = StoreError::Unavailable { store: "db".into(), cause: "connection refused".into() };
    faults.reminders(Some(away.clone()));
    let refused =
        silo.grid().reminders::<Clerk>("b").set("report", ReminderSchedule::every(seconds(5))).await;
    let refused = refused.unwrap_err();
    assert_eq!((&refused, refused.retry()), (&ReminderError::Store(away), Retry::Safe));
    silo.advance(seconds(60)).await;
    assert_eq!(log.take(), [seen("a", "report", 5, 5, 0)], "it was read ahead, and is not known to be noted");
    faults.reminders(None);
    silo.advance(seconds(16)).await;
    let took = log.take();
    let (_, _, due, came, missed) = took[0];
    assert_eq!(due, 10);
    assert!((64..=73).contains(&came) && u64::from(missed) == (came - 10) / 5, "{took:?}");
    assert!(took.len() <= 4, "{took:?}");
    assert!(took[1..].iter().all(|(_, _, due, came, missed)| due == came && *missed == 0), "{took:?}");
}

#[tokio::test]
async fn a_tick_whose_note_got_lost_is_not_ticked_again_by_a_silo_that_lives() {
    for fault in [CommitFault::AnswerLost, CommitFault::RequestLost] {
        let (store, faults) = StoreFaults::over(storage::memory());
        let log = Log::default();
        let silo = silo_from(&store, &log, START);
        silo.grid().reminders::<Clerk>("a").set("report", ReminderSchedule::every(seconds(5))).await.unwrap();
        faults.next_advance(fault);
        silo.advance(seconds(10)).await;
        assert_eq!(log.take(), [seen("a", "report", 5, 5, 0), seen("a", "report", 10, 10, 0)]);
    }
}

#[tokio::test]
async fn a_clock_that_is_set_forward_makes_one_late_tick_and_one_that_is_set_back_makes_none() {
    let (_store, log, silo) = set_up();
    silo.grid().reminders::<Clerk>("a").set("report", ReminderSchedule::every(seconds(10))).await.unwrap();
    silo.advance(seconds(11)).await;
    assert_eq!(log.take(), [seen("a", "report", 10, 10, 0)]);
    silo.clock().set_timestamp(at(55));
    silo.advance(seconds(1)).await;
    let took = log.take();
    assert!(matches!(took.as_slice(), [(_, _, 20, 55..=56, 3)]), "{took:?}");
    silo.clock().set_timestamp(at(5));
    silo.advance(seconds(50)).await;
    assert_eq!(log.take(), [], "it is 55 again");
    silo.advance(seconds(5)).await;
    assert_eq!(log.take(), [seen("a", "report", 60, 60, 0)]);
}

#[tokio::test]
async fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
    let (_store, _log, silo) = set_up();
    let clerk = silo.grid().actor::<Clerk>("a");
    let refused = clerk.start("raport".into(), ReminderSchedule::after(seconds(1))).await.unwrap_err();
    let CallError::Actor(refused) = refused else { panic!("{refused}") };
    assert_eq!(
        refused.to_string(),
        "clerk has no #[on_reminder(\"raport\")]; its reminders are report, slow"
    );
    assert_eq!(refused.retry(), Retry::Pointless);
    let outside = silo.grid().reminders::<Clerk>("a");
    assert_eq!(outside.set("raport", ReminderSchedule::after(seconds(1))).await, Err(refused.clone()));
    assert_eq!(outside.ensure("raport", ReminderSchedule::after(seconds(1))).await, Err(refused));
}

#[tokio::test]
async fn a_schedule_that_is_none_is_refused_by_name() {
    let (_store, _log, silo) = set_up();
    let wrong = ReminderSchedule::cron("0 25 * * *").unwrap_err();
    assert!(wrong.to_string().starts_with("cron = \"0 25 * * *\": "), "{wrong}");
    let wrong = ReminderSchedule::cron("0 8 * * *").unwrap().in_zone("Berlin").unwrap_err();
    assert!(wrong.to_string().starts_with("zone = \"Berlin\": "), "{wrong}");
    let reminders = silo.grid().reminders::<Clerk>("a");
    let often = reminders.set("report", ReminderSchedule::every(ms(10))).await.unwrap_err();
    assert_eq!(often, ScheduleError::TooOften { period: ms(10) }.into());
    let never = reminders.set("report", ReminderSchedule::cron("0 0 30 2 *").unwrap()).await.unwrap_err();
    assert_eq!(never.to_string(), "cron \"0 0 30 2 *\" in UTC never comes");
    assert_eq!(reminders.list().await.unwrap(), []);
}

#[tokio::test]
async fn an_actor_that_no_silo_made_has_no_reminders() {
    let cx = Cx::detached("clerk", "a");
    let refused = cx.remind("report", ReminderSchedule::after(seconds(1))).await;
    assert_eq!(refused, Err(ReminderError::Detached));
}

#[tokio::test]
async fn a_reminder_that_is_ensured_keeps_its_grid_and_its_due_ticks() {
    let (store, log, silo) = set_up();
    let every = || ReminderSchedule::every(seconds(10));
    let reminders = silo.grid().reminders::<Clerk>("a");
    assert!(reminders.ensure("report", every()).await.unwrap());
    silo.advance(seconds(7)).await;
    assert!(!reminders.ensure("report", every()).await.unwrap());
    assert!(reminders.ensure("slow", every()).await.unwrap());
    assert!(reminders.ensure("slow", ReminderSchedule::every(seconds(90))).await.unwrap());
    let due: Vec<_> = reminders.list().await.unwrap().into_iter().map(|reminder| reminder.due).collect();
    assert_eq!(due, [at(10), at(97)]);
    drop(silo);
    let silo = silo_from(&store, &log, at(25));
    assert!(!silo.grid().reminders::<Clerk>("a").ensure("report", every()).await.unwrap());
    silo.advance(seconds(1)).await;
    assert_eq!(log.take(), [seen("a", "report", 10, 25, 1)]);
}

/// Owns what it is told to.
#[derive(Clone, Default)]
struct Part(Arc<Mutex<Vec<RingRange>>>);

impl RingOwnership for Part {
    fn owned(&self) -> Vec<RingRange> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn silos_that_share_a_store_deliver_the_parts_of_the_ring_that_they_own() {
    let store = storage::memory();
    let (logs, parts): ([Log; 2], [Part; 2]) = Default::default();
    let half = u64::MAX / 2;
    let halves = [RingRange { first: 0, last: half }, RingRange { first: half + 1, last: u64::MAX }];
    let own = |ranges: [Vec<RingRange>; 2]| {
        parts.iter().zip(ranges).for_each(|(part, ranges)| *part.0.lock().unwrap() = ranges);
    };
    own(halves.map(|half| vec![half]));
    let silos = [0, 1].map(|silo| {
        let part = Arc::new(parts[silo].clone());
        silo_with(&store, &logs[silo], START, |silo| silo.ring_ownership(part))
    });
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    for key in &keys {
        let every = ReminderSchedule::every(seconds(10));
        // Whoever sets it.
        silos[0].grid().reminders::<Clerk>(key).set("report", every).await.unwrap();
    }
    let advance = async |by: u64| {
        for _ in 0..by {
            for silo in &silos {
                silo.advance(seconds(1)).await;
            }
        }
    };
    let took = || {
        [0, 1].map(|silo| {
            let mut keys: Vec<String> = logs[silo].take().into_iter().map(|(key, ..)| key).collect();
            keys.sort();
            keys
        })
    };
    let in_half = |half: usize| {
        let point = |key: &String| point(&Address::new("clerk", key.as_str()));
        let mut keys: Vec<String> =
            keys.iter().filter(|key| halves[half].contains(point(key))).cloned().collect();
        keys.sort();
        keys
    };
    assert!(!in_half(0).is_empty() && !in_half(1).is_empty());
    advance(12).await;
    assert_eq!(took(), [in_half(0), in_half(1)]);
    own([vec![halves[1]], vec![halves[0]]]);
    advance(10).await;
    assert_eq!(took(), [in_half(1), in_half(0)]);
    own([Vec::new(), vec![RingRange::ALL]]);
    advance(10).await;
    let all = {
        let mut keys = keys.clone();
        keys.sort();
        keys
    };
    assert_eq!(took(), [Vec::new(), all]);
}

/// An actor whose ticks are written with its state.
#[derive(Actor)]
#[actor(name = "ledger", reminders = "ticks")]
struct Ledger {
    #[state]
    ticks: State<u64>,
}

#[methods]
impl Ledger {
    pub async fn ticks(&self) -> u64 {
        *self.ticks
    }

    #[on_reminder("close")]
    async fn close(&mut self, cx: &Cx, _tick: Tick) -> Result<(), StateError> {
        *self.ticks += 1;
        let mut transaction = cx.transaction();
        transaction.save(&self.ticks)?;
        transaction.commit().await
    }
}

fn ledgers(state: &Store, ticks: &Store, start: Timestamp) -> TestSilo {
    let configure = |silo: SiloBuilder| silo.store("default", state.clone()).store("ticks", ticks.clone());
    let builder = TestSilo::builder().starting_at(start).host::<Ledger>().configure(configure);
    builder.seed(start.0).start().unwrap()
}

#[tokio::test]
async fn a_tick_that_is_written_with_a_transaction_takes_effect_exactly_once() {
    let state = storage::memory();
    let (ticks, faults) = StoreFaults::over(storage::memory());
    let silo = ledgers(&state, &ticks, START);
    silo.grid().reminders::<Ledger>("a").set("close", ReminderSchedule::every(seconds(10))).await.unwrap();
    // The tick of second 10 is taken, and its silo ends before that is noted.
    faults.next_advance(CommitFault::Held);
    silo.advance(seconds(11)).await;
    assert_eq!(silo.grid().actor::<Ledger>("a").ticks().await.unwrap(), 1);
    drop(silo);
    let silo = ledgers(&state, &ticks, at(12));
    silo.advance(seconds(3)).await;
    assert_eq!(silo.grid().actor::<Ledger>("a").ticks().await.unwrap(), 1);
    let reminders = silo.grid().reminders::<Ledger>("a").list().await.unwrap();
    assert_eq!(reminders[0].due, at(20));
    silo.advance(seconds(6)).await;
    assert_eq!(silo.grid().actor::<Ledger>("a").ticks().await.unwrap(), 2);
}

#[tokio::test]
async fn a_tick_that_took_effect_though_its_turn_failed_is_not_tried_for_ever() {
    let (state, faults) = StoreFaults::over(storage::memory());
    let ticks = storage::memory();
    let silo = ledgers(&state, &ticks, START);
    let ledger = silo.grid().actor::<Ledger>("a");
    assert_eq!(ledger.ticks().await.unwrap(), 0);
    silo.grid().reminders::<Ledger>("a").set("close", ReminderSchedule::after(seconds(5))).await.unwrap();
    faults.next(CommitFault::AnswerLost);
    for _ in 0..1_000 {
        faults.next(CommitFault::RequestLost);
    }
    // The first try ends without knowing that it was written; those after it ask.
    silo.advance(seconds(60)).await;
    assert_eq!(ledger.ticks().await.unwrap(), 1);
    assert_eq!(silo.grid().reminders::<Ledger>("a").list().await.unwrap(), []);
}

#[tokio::test]
async fn a_silo_without_the_store_of_a_types_reminders_does_not_start() {
    let configure = |silo: SiloBuilder| silo.store("default", storage::memory());
    let refused = TestSilo::builder().host::<Ledger>().configure(configure).start().map(drop).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the reminders of ledger are kept in a store named \"ticks\", and the silo has only default; add \
         `.store(\"ticks\", …)`"
    );
}
