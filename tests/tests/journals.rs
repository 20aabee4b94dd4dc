//! Event sourcing: states that are the fold of their events.

use quark::journal::reader::{ReaderError, Until};
use quark::prelude::*;
use quark::store::{Address, Commit, Encoded, Epoch, FeedPosition, Fence, Store, StoreError, Wanted};
use quark::{Retry, StateCause, storage};
use quark_testkit::{CommitFault, StoreFaults, TestSilo};
use serde::{Deserialize, Serialize};

/// What happened to an account, as today's program writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Stored)]
#[stored(version = 2, upgrades = EventV1)]
enum Event {
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
}

/// What its first version wrote: whole euros.
#[derive(Serialize, Deserialize, Stored)]
enum EventV1 {
    Deposited { euros: i64 },
}

impl From<EventV1> for Event {
    fn from(old: EventV1) -> Self {
        let EventV1::Deposited { euros } = old;
        Self::Deposited { cents: euros * 100 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Stored)]
struct Balance {
    cents: i64,
    moves: u32,
}

impl Folded for Balance {
    type Event = Event;

    fn apply(&mut self, event: &Event) {
        self.moves += 1;
        match event {
            Event::Deposited { cents } => self.cents += cents,
            Event::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

#[derive(Actor)]
#[actor(name = "journal.account")]
struct Account {
    #[journal(snapshot_every = 10, max = "1 KiB")]
    ledger: Journal<Balance>,
}

#[methods]
impl Account {
    pub async fn deposit(&mut self, cents: i64) -> Result<u64, StateError> {
        self.ledger.append(Event::Deposited { cents }).await
    }

    /// Takes the money out in two steps, or not at all.
    pub async fn withdraw_twice(&mut self, cents: i64) -> Result<u64, StateError> {
        self.ledger.append_all(vec![Event::Withdrawn { cents }, Event::Withdrawn { cents }]).await
    }

    pub async fn deposit_after(&mut self, expected: u64, cents: i64) -> Result<u64, StateError> {
        self.ledger.append_after(expected, vec![Event::Deposited { cents }]).await
    }

    pub async fn balance(&self) -> (i64, u64) {
        (self.ledger.cents, self.ledger.last())
    }
}

fn silo_over(store: Store, seed: u64) -> TestSilo {
    let configure = |silo: quark::SiloBuilder| silo.store("default", store);
    TestSilo::builder().host::<Account>().configure(configure).seed(seed).start().unwrap()
}

fn account(silo: &TestSilo, key: &str) -> AccountRef {
    silo.grid().actor::<Account>(key)
}

async fn restart(silo: &TestSilo, key: &str) {
    silo.grid().deactivate::<Account>(key);
    silo.settle().await;
}

#[tokio::test]
async fn a_state_is_the_fold_of_its_events_also_in_the_next_activation() {
    let silo = silo_over(storage::memory(), 1);
    let actor = account(&silo, "a");
    assert_eq!(actor.balance().await.unwrap(), (0, 0));
    assert_eq!(actor.deposit(500).await.unwrap(), 1);
    assert_eq!(actor.withdraw_twice(100).await.unwrap(), 3);
    assert_eq!(actor.balance().await.unwrap(), (300, 3));
    restart(&silo, "a").await;
    assert_eq!(actor.balance().await.unwrap(), (300, 3));
}

#[tokio::test]
async fn a_snapshot_is_written_every_n_events_and_spares_the_next_activation_the_events_before_it() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(store.clone(), 1);
    let actor = account(&silo, "a");
    for _ in 0..25 {
        actor.deposit(1).await.unwrap();
    }
    assert_eq!(faults.commits(), 25, "a snapshot goes with its event");
    let wanted = Wanted { slots: Vec::new(), journals: vec!["ledger".into()] };
    let head =
        store.actors.load(&Address::new("journal.account", "a"), &wanted).await.unwrap().journals.remove(0);
    let snapshot = head.snapshot.unwrap();
    assert_eq!((head.last, snapshot.sequence), (25, 20));
    assert_eq!(snapshot.value.bytes, br#"{"cents":20,"moves":20}"#);
    restart(&silo, "a").await;
    assert_eq!(actor.balance().await.unwrap(), (25, 25));
}

#[tokio::test]
async fn an_append_with_another_expectation_is_refused_and_the_activation_goes_on() {
    let silo = silo_over(storage::memory(), 1);
    let actor = account(&silo, "a");
    actor.deposit(1).await.unwrap();
    let error = actor.deposit_after(0, 5).await.unwrap_err();
    let CallError::Actor(error) = error else { panic!("{error}") };
    assert!(error.to_string().contains("journal ledger of journal.account/a ends at event 1"), "{error}");
    assert_eq!(error.retry(), Retry::Safe);
    assert_eq!(actor.deposit_after(1, 5).await.unwrap(), 2);
}

#[tokio::test]
async fn two_activations_cannot_both_append() {
    let store = storage::memory();
    let (first, second) = (silo_over(store.clone(), 1), silo_over(store, 2));
    account(&first, "a").balance().await.unwrap();
    account(&second, "a").balance().await.unwrap();
    account(&second, "a").deposit(1).await.unwrap();
    let lost = account(&first, "a").deposit(10).await.unwrap_err();
    assert!(matches!(lost, CallError::Superseded(_)), "{lost}");
    assert_eq!(account(&first, "a").balance().await.unwrap(), (1, 1));
}

#[tokio::test]
async fn an_append_that_fails_is_not_applied() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(store, 1);
    let actor = account(&silo, "a");
    faults.next(CommitFault::Refused(StoreError::Full { store: "db".into(), cause: "no space left".into() }));
    let error = actor.withdraw_twice(1).await.unwrap_err();
    assert!(matches!(&error, CallError::Actor(error) if error.retry() == Retry::Safe), "{error}");
    assert_eq!(actor.balance().await.unwrap(), (0, 0));
    faults.next(CommitFault::AnswerLost);
    let caller = tokio::spawn({
        let actor = actor.clone();
        async move { actor.withdraw_twice(1).await }
    });
    silo.settle().await;
    silo.advance(Duration::from_secs(1)).await;
    assert_eq!(caller.await.unwrap().unwrap(), 2, "its answer was lost, and it was written once");
    assert_eq!(actor.balance().await.unwrap(), (-2, 2));
}

/// An actor whose state outgrows what a snapshot may be, while its events stay small.
#[derive(Actor)]
#[actor(name = "journal.growing")]
struct Growing {
    #[journal(snapshot_every = 2, max = "40 B")]
    words: Journal<Words>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, Stored)]
struct Words(Vec<String>);

impl Folded for Words {
    type Event = String;

    fn apply(&mut self, event: &String) {
        self.0.push(event.clone());
    }
}

#[methods]
impl Growing {
    pub async fn say(&mut self, word: String) -> Result<u64, StateError> {
        self.words.append(word).await
    }

    /// The same by a transaction.
    pub async fn say_at_once(&mut self, cx: &Cx, word: String) -> Result<u64, StateError> {
        let mut transaction = cx.transaction();
        transaction.append(&mut self.words, vec![word])?;
        transaction.commit().await?;
        Ok(self.words.last())
    }

    pub async fn words(&self) -> usize {
        self.words.0.len()
    }
}

/// Where the newest snapshot of `journal.growing/a` stands.
async fn snapshot_at(store: &Store) -> Option<u64> {
    let wanted = Wanted { slots: Vec::new(), journals: vec!["words".into()] };
    let head =
        store.actors.load(&Address::new("journal.growing", "a"), &wanted).await.unwrap().journals.remove(0);
    head.snapshot.map(|snapshot| snapshot.sequence)
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_is_nobodys_error() {
    let store = storage::memory();
    let configure = |silo: quark::SiloBuilder| silo.store("default", store.clone());
    let silo = TestSilo::builder().host::<Growing>().configure(configure).start().unwrap();
    let actor = silo.grid().actor::<Growing>("a");
    for number in 1..=10 {
        assert_eq!(actor.say("0123456789".into()).await.unwrap(), number);
    }
    assert_eq!(snapshot_at(&store).await, Some(2), "after that it is larger than 40 bytes");
    silo.grid().deactivate::<Growing>("a");
    silo.settle().await;
    assert_eq!(actor.words().await.unwrap(), 10);
}

#[tokio::test]
async fn transactions_write_snapshots_too() {
    let store = storage::memory();
    let configure = |silo: quark::SiloBuilder| silo.store("default", store.clone());
    let silo = TestSilo::builder().host::<Growing>().configure(configure).start().unwrap();
    let actor = silo.grid().actor::<Growing>("a");
    for number in 1..=5 {
        assert_eq!(actor.say_at_once("x".into()).await.unwrap(), number);
    }
    assert_eq!(snapshot_at(&store).await, Some(4));
    silo.grid().deactivate::<Growing>("a");
    silo.settle().await;
    assert_eq!(actor.words().await.unwrap(), 5);
}

#[tokio::test]
async fn the_past_can_be_read_and_replayed_to_any_point() {
    let silo = silo_over(storage::memory(), 1);
    let actor = account(&silo, "a");
    let mut times = Vec::new();
    for cents in [1, 20, 300] {
        actor.deposit(cents).await.unwrap();
        times.push(quark::base::Clock::timestamp(&**silo.clock()));
        silo.advance(Duration::from_secs(60)).await;
    }
    restart(&silo, "a").await;
    let reader = silo.grid().journals::<Account, Balance>("ledger").unwrap();
    let events = reader.events("a", 1).await.unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!((events[0].sequence, events[0].time), (2, times[1]));
    assert_eq!(events[0].event, Event::Deposited { cents: 20 });
    for (until, cents, last) in [
        (Until::Sequence(0), 0, 0),
        (Until::Sequence(2), 21, 2),
        (Until::Time(times[0]), 1, 1),
        (Until::Time(times[2]), 321, 3),
        (Until::End, 321, 3),
    ] {
        let (state, at) = reader.replay("a", until).await.unwrap();
        assert_eq!((state.cents, at), (cents, last), "{until:?}");
    }
    assert_eq!(silo.grid().census().activations, 0, "reading activates nobody");
    let missing = silo.grid().journals::<Account, Balance>("book").map(drop).unwrap_err();
    assert!(matches!(&missing, ReaderError::NoJournal { journal, .. } if journal == "book"), "{missing}");
}

#[tokio::test]
async fn a_projection_sees_the_events_of_all_actors_and_goes_on_where_it_was() {
    let silo = silo_over(storage::memory(), 1);
    let reader = silo.grid().journals::<Account, Balance>("ledger").unwrap();
    let mut total = std::collections::BTreeMap::<String, (i64, u64)>::new();
    let mut position = FeedPosition::default();
    for round in 1..=3 {
        for key in ["a", "b", "c"] {
            account(&silo, key).deposit(round).await.unwrap();
        }
        // A reader of its own each time, as after a restart.
        let mut feed = reader.feed(position.clone());
        loop {
            let page = feed.next(2).await.unwrap();
            if page.is_empty() {
                break;
            }
            for (key, recorded) in page {
                let (cents, last) = total.entry(key.to_string()).or_default();
                assert_eq!(recorded.sequence, *last + 1, "each actor's events in order, none twice");
                let Event::Deposited { cents: more } = recorded.event else { panic!("nobody withdrew") };
                (*cents, *last) = (*cents + more, recorded.sequence);
            }
            position = feed.position().clone();
        }
    }
    assert_eq!(total.into_values().collect::<Vec<_>>(), [(6, 3); 3]);
}

/// A store with these events, and a snapshot after the first of them.
async fn store_with(events: Vec<Encoded>, snapshot: Option<Encoded>) -> Store {
    use quark::store::Append;
    let store = storage::memory();
    let fence = |sequence| Fence { seen: None, epoch: Epoch(1), sequence };
    let mut events = events.into_iter();
    let first: Vec<Encoded> = events.by_ref().take(1).collect();
    for (sequence, (expected, events, snapshot)) in
        [(0, first, snapshot), (1, events.collect(), None)].into_iter().enumerate()
    {
        let fence = fence(sequence as u64 + 1);
        let mut commit = Commit::new(Address::new("journal.account", "a"), fence, Default::default());
        commit.appends.push(Append { journal: "ledger".into(), expected, events, snapshot });
        store.actors.commit(&commit).await.unwrap();
    }
    store
}

fn json(version: u32, text: &str) -> Encoded {
    Encoded { format: "json".into(), version, bytes: text.into() }
}

#[tokio::test]
async fn old_events_are_upgraded_as_they_are_read() {
    let events = vec![json(1, r#"{"Deposited":{"euros":3}}"#), json(2, r#"{"Withdrawn":{"cents":50}}"#)];
    let silo = silo_over(store_with(events, None).await, 1);
    assert_eq!(account(&silo, "a").balance().await.unwrap(), (250, 2));
    assert_eq!(account(&silo, "a").deposit(1).await.unwrap(), 3);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_left_aside_and_all_events_are_replayed() {
    let events = vec![json(2, r#"{"Deposited":{"cents":3}}"#), json(2, r#"{"Deposited":{"cents":4}}"#)];
    for bad in [json(9, "{}"), json(1, "no json"), Encoded { format: "yaml".into(), ..json(1, "") }] {
        let silo = silo_over(store_with(events.clone(), Some(bad)).await, 1);
        assert_eq!(account(&silo, "a").balance().await.unwrap(), (7, 2));
    }
    let good = json(1, r#"{"cents":1000,"moves":1}"#);
    let silo = silo_over(store_with(events, Some(good)).await, 1);
    assert_eq!(account(&silo, "a").balance().await.unwrap(), (1_004, 2), "else the snapshot counts");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_names_the_actor_and_the_journal() {
    let events = vec![json(2, r#"{"Deposited":{"cents":3}}"#), json(7, r#"{"Seized":{}}"#)];
    let silo = silo_over(store_with(events, None).await, 1);
    let error = account(&silo, "a").balance().await.unwrap_err().to_string();
    assert!(error.contains("journal ledger of journal.account/a: version 7 of journals::Event"), "{error}");
}

#[tokio::test]
async fn a_long_journal_is_read_page_by_page() {
    let event = json(2, r#"{"Deposited":{"cents":1}}"#);
    let silo = silo_over(store_with(vec![event; 5_000], None).await, 1);
    assert_eq!(account(&silo, "a").balance().await.unwrap(), (5_000, 5_000));
    let reader = silo.grid().journals::<Account, Balance>("ledger").unwrap();
    assert_eq!(reader.replay("a", Until::Sequence(3_000)).await.unwrap().1, 3_000);
}

#[tokio::test]
async fn an_event_above_the_limit_is_refused() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize, Stored)]
    struct Log(Vec<String>);

    impl Folded for Log {
        type Event = String;

        fn apply(&mut self, event: &String) {
            self.0.push(event.clone());
        }
    }

    #[derive(Actor)]
    struct Logged {
        #[journal(max = "16 B", snapshot_every = 0)]
        log: Journal<Log>,
    }

    #[methods]
    impl Logged {
        pub async fn log(&mut self, text: String) -> Result<u64, StateError> {
            self.log.append(text).await
        }
    }

    let configure = |silo: quark::SiloBuilder| silo.store("default", storage::memory());
    let silo = TestSilo::builder().host::<Logged>().configure(configure).start().unwrap();
    let actor = silo.grid().actor::<Logged>("a");
    let error = actor.log("x".repeat(20)).await.unwrap_err();
    let CallError::Actor(error) = error else { panic!("{error}") };
    assert!(matches!(*error.cause, StateCause::TooLarge { .. }), "{error}");
    assert_eq!(actor.log("short".into()).await.unwrap(), 1);
}
