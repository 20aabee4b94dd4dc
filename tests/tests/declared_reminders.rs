//! Reminders that a type declares: `#[on_reminder("name", every = …)]` and `cron = …`.

use quark::base::Timestamp;
use quark::prelude::*;
use quark::store::{Store, StoreError};
use quark::{SiloBuilder, storage};
use quark_testkit::{StoreFaults, TestSilo};
use quark_tests::soon;

const START: Timestamp = Timestamp::VIRTUAL_ORIGIN;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An actor that says itself when it is reminded.
#[derive(Actor)]
#[actor(name = "watchman", idle = "5s")]
struct Watchman {
    rounds: u32,
}

#[methods]
impl Watchman {
    pub async fn rounds(&self) -> u32 {
        self.rounds
    }

    #[on_reminder("round", every = "1h")]
    async fn round(&mut self, _tick: Tick) {
        self.rounds += 1;
    }

    #[on_reminder("dawn", cron = "0 6 * * *", zone = "Europe/Berlin")]
    async fn dawn(&mut self, _tick: Tick) {}
}

fn watchmen(store: &Store, start: Timestamp) -> TestSilo {
    let configure = |silo: SiloBuilder| silo.store("default", store.clone());
    TestSilo::builder().starting_at(start).host::<Watchman>().configure(configure).start().unwrap()
}

#[tokio::test]
async fn a_declared_reminder_is_there_from_the_first_activation_on_and_is_not_put_off_by_later_ones() {
    let store = storage::memory();
    let silo = watchmen(&store, START);
    let reminders = silo.grid().reminders::<Watchman>("a");
    assert_eq!(reminders.list().await.unwrap(), []);
    let watchman = silo.grid().actor::<Watchman>("a");
    assert_eq!(watchman.rounds().await.unwrap(), 0);
    let due = async || {
        let list = silo.grid().reminders::<Watchman>("a").list().await.unwrap();
        list.into_iter()
            .map(|reminder| (reminder.name, reminder.due.since(START).as_secs()))
            .collect::<Vec<_>>()
    };
    // Six in the morning is five in UTC, in winter.
    assert_eq!(due().await, [("dawn".into(), 5 * 3_600), ("round".into(), 3_600)]);
    silo.advance(seconds(30)).await;
    assert_eq!(silo.grid().census().activations, 0);
    assert_eq!(watchman.rounds().await.unwrap(), 0);
    assert_eq!(due().await, [("dawn".into(), 5 * 3_600), ("round".into(), 3_600)]);
    // What was forgotten is declared all the same.
    assert!(reminders.forget("round").await.unwrap());
    silo.advance(seconds(30)).await;
    assert_eq!(watchman.rounds().await.unwrap(), 0);
    assert_eq!(due().await, [("dawn".into(), 5 * 3_600), ("round".into(), 3_660)]);
    drop(silo);
    let silo = watchmen(&store, START.saturating_add(seconds(3_660)));
    silo.settle().await;
    assert_eq!(silo.grid().actor::<Watchman>("a").rounds().await.unwrap(), 1);
}

#[tokio::test]
async fn a_store_that_cannot_take_declared_reminders_fails_the_activation_and_the_next_call_tries_again() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = watchmen(&store, START);
    let away = StoreError::Unavailable { store: "db".into(), cause: "connection refused".into() };
    faults.reminders(Some(away));
    let watchman = silo.grid().actor::<Watchman>("a");
    let error = watchman.rounds().await.unwrap_err();
    assert!(error.to_string().contains("its reminders could not be set: store db is unavailable"), "{error}");
    faults.reminders(None);
    assert_eq!(soon(async { watchman.rounds().await }).await.unwrap(), 0);
}

#[tokio::test]
async fn a_declared_cron_line_that_cannot_be_read_keeps_the_silo_from_starting() {
    #[derive(Actor)]
    #[actor(name = "dreamer")]
    struct Dreamer;

    #[methods]
    impl Dreamer {
        #[on_reminder("nap", cron = "0 25 * * *")]
        async fn sleep(&mut self, _tick: Tick) {}
    }

    let configure = |silo: SiloBuilder| silo.store("default", storage::memory());
    let refused = TestSilo::builder().host::<Dreamer>().configure(configure).start().map(drop).unwrap_err();
    let text = refused.to_string();
    let expected = "#[on_reminder(\"nap\")] on sleep of dreamer: cron = \"0 25 * * *\": ";
    assert!(text.starts_with(expected), "{text}");
}
