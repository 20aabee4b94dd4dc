//! What actors keep beyond their activations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quark::prelude::*;
use quark::store::{Address, Conflict, Store, StoreError, Wanted};
use quark::{ActivationCause, Outcome, Retry, StartError, StateCause, storage};
use quark_testkit::{CommitFault, StoreFaults, TestSilo};
use quark_tests::soon;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Stored)]
struct Settings {
    name: String,
    level: u32,
}

/// An actor with two states in one store and one in another.
#[derive(Actor)]
#[actor(name = "state.keeper")]
struct Keeper {
    #[state]
    settings: State<Settings>,
    #[state(name = "hits", format = "binary")]
    count: State<u64>,
    #[state(store = "archive", max = "64 B")]
    notes: State<Vec<String>>,
}

#[methods]
impl Keeper {
    pub async fn rename(&mut self, name: String) -> Result<(), StateError> {
        self.settings.name = name;
        self.settings.save().await
    }

    pub async fn settings(&self) -> Settings {
        self.settings.clone()
    }

    pub async fn hit(&mut self) -> Result<u64, StateError> {
        *self.count += 1;
        self.count.save().await?;
        Ok(*self.count)
    }

    pub async fn hits(&self) -> u64 {
        *self.count
    }

    pub async fn etag(&self) -> Option<String> {
        self.count.etag().map(|etag| etag.to_string())
    }

    /// Changes the count in memory only, then takes the stored one back.
    pub async fn wander(&mut self) -> Result<u64, StateError> {
        *self.count = 1_000;
        self.count.reload().await?;
        Ok(*self.count)
    }

    pub async fn forget(&mut self) -> Result<u64, StateError> {
        self.count.clear().await?;
        Ok(*self.count)
    }

    pub async fn note(&mut self, text: String) -> Result<(), StateError> {
        self.notes.push(text);
        let saved = self.notes.save().await;
        if saved.is_err() {
            self.notes.pop();
        }
        saved
    }

    /// Saves, and says that all is well whatever comes of it.
    pub async fn hit_anyhow(&mut self) -> u64 {
        *self.count += 1;
        self.count.save().await.ok();
        *self.count
    }
}

fn silo_over(store: Store, archive: Store) -> TestSilo {
    silo_with_seed(store, archive, 1)
}

fn silo_with_seed(store: Store, archive: Store, seed: u64) -> TestSilo {
    let configure = |silo: quark::SiloBuilder| silo.store("default", store).store("archive", archive);
    TestSilo::builder().host::<Keeper>().configure(configure).seed(seed).start().unwrap()
}

fn keeper(silo: &TestSilo) -> KeeperRef {
    silo.grid().actor::<Keeper>("a")
}

/// Lets the actor go, so that the next call finds a new activation.
async fn restart(silo: &TestSilo) {
    silo.grid().deactivate::<Keeper>("a");
    silo.settle().await;
    assert_eq!(silo.grid().census().activations, 0);
}

/// What a store has of one state, as text.
async fn stored(
    store: &Store,
    actor_type: &'static str,
    state: &'static str,
) -> Option<(String, u32, Vec<u8>)> {
    let wanted = Wanted { slots: vec![state.into()], journals: Vec::new() };
    let loaded = store.actors.load(&Address::new(actor_type, "a"), &wanted).await.unwrap();
    let record = loaded.slots.into_iter().next().unwrap()?;
    Some((record.value.format.into_owned(), record.value.version, record.value.bytes))
}

#[tokio::test]
async fn what_was_saved_is_there_at_the_next_activation_and_what_was_not_is_not() {
    let (store, archive) = (storage::memory(), storage::memory());
    let silo = silo_over(store.clone(), archive.clone());
    let actor = keeper(&silo);
    assert_eq!(actor.settings().await.unwrap(), Settings::default());
    assert_eq!(actor.etag().await.unwrap(), None);
    actor.rename("north".into()).await.unwrap();
    assert_eq!(actor.hit().await.unwrap(), 1);
    let first = actor.etag().await.unwrap();
    assert_eq!(actor.hit().await.unwrap(), 2);
    assert!(first.is_some() && actor.etag().await.unwrap() != first);
    actor.note("kept apart".into()).await.unwrap();

    restart(&silo).await;
    assert_eq!(actor.hits().await.unwrap(), 2);
    assert_eq!(actor.settings().await.unwrap().name, "north");
    assert_eq!(actor.wander().await.unwrap(), 2);
    assert_eq!(actor.forget().await.unwrap(), 0);
    restart(&silo).await;
    assert_eq!(actor.hits().await.unwrap(), 0);
    assert_eq!(actor.settings().await.unwrap().name, "north", "each state is cleared by itself");

    let text = stored(&store, "state.keeper", "settings").await.unwrap();
    assert_eq!(text, ("json".into(), 1, br#"{"name":"north","level":0}"#.to_vec()));
    assert_eq!(stored(&store, "state.keeper", "notes").await, None);
    assert!(stored(&archive, "state.keeper", "notes").await.is_some());
}

#[tokio::test]
async fn a_second_silo_over_the_same_store_goes_on_where_the_first_one_ended() {
    let (store, archive) = (storage::memory(), storage::memory());
    let first = silo_over(store.clone(), archive.clone());
    keeper(&first).hit().await.unwrap();
    drop(first);
    let second = silo_with_seed(store, archive, 2);
    assert_eq!(keeper(&second).hit().await.unwrap(), 2);
}

#[tokio::test]
async fn of_two_activations_of_one_actor_only_one_commits_and_the_other_ones_caller_is_told_to_retry() {
    let (store, archive) = (storage::memory(), storage::memory());
    let first = silo_with_seed(store.clone(), archive.clone(), 1);
    let second = silo_with_seed(store, archive, 2);
    // Both are active, and both have loaded nothing.
    assert_eq!(keeper(&first).hits().await.unwrap(), 0);
    assert_eq!(keeper(&second).hits().await.unwrap(), 0);
    assert_eq!(keeper(&second).hit().await.unwrap(), 1);
    // Also by way of another state, and although the method says that all is well.
    let lost = keeper(&first).rename("late".into()).await.unwrap_err();
    assert!(matches!(&lost, CallError::Superseded(details) if details.method == "rename"), "{lost}");
    assert_eq!((lost.outcome(), lost.retry()), (Outcome::Failed, Retry::IfIdempotent));
    // The retry finds an activation that has loaded what the winner wrote.
    assert_eq!(keeper(&first).hit().await.unwrap(), 2);
    let lost = keeper(&second).hit_anyhow().await.unwrap_err();
    assert!(matches!(lost, CallError::Superseded(_)), "{lost}");
    assert_eq!(keeper(&second).hit().await.unwrap(), 3);
}

#[tokio::test]
async fn two_activations_that_race_lose_no_acknowledged_hit() {
    let (store, archive) = (storage::memory(), storage::memory());
    let silos: Vec<_> =
        (1..=2).map(|seed| Arc::new(silo_with_seed(store.clone(), archive.clone(), seed))).collect();
    let acknowledged = Arc::new(AtomicU32::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for silo in &silos {
        for _ in 0..4 {
            let (silo, acknowledged) = (silo.clone(), acknowledged.clone());
            callers.spawn(async move {
                for _ in 0..50 {
                    match keeper(&silo).hit().await {
                        Ok(_) => {
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => assert!(matches!(error, CallError::Superseded(_)), "{error}"),
                    }
                }
            });
        }
    }
    soon(callers.join_all()).await;
    restart(&silos[0]).await;
    assert_eq!(keeper(&silos[0]).hits().await.unwrap(), u64::from(acknowledged.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn an_outage_is_a_typed_error_and_the_value_can_be_saved_when_it_is_over() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(store, storage::memory());
    let actor = keeper(&silo);
    actor.hit().await.unwrap();
    let outages = [
        StoreError::Unavailable { store: "db".into(), cause: "connection refused".into() },
        StoreError::ReadOnly { store: "db".into(), cause: "standby".into() },
        StoreError::Full { store: "db".into(), cause: "no space left".into() },
    ];
    for (number, outage) in outages.into_iter().enumerate() {
        faults.next(CommitFault::Refused(outage.clone()));
        let error = actor.hit().await.unwrap_err();
        let CallError::Actor(error) = error else { panic!("{error}") };
        assert_eq!(*error.cause, StateCause::Store(outage));
        assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Safe));
        assert!(error.to_string().starts_with("state hits of state.keeper/a: "), "{error}");
        // Memory is ahead of the store by one hit for each outage; the next save brings it up to date.
        assert_eq!(actor.hit().await.unwrap(), 3 + 2 * number as u64);
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_sent_again_and_takes_effect_once() {
    for fault in [CommitFault::AnswerLost, CommitFault::RequestLost] {
        let (store, faults) = StoreFaults::over(storage::memory());
        let silo = silo_over(store, storage::memory());
        let actor = keeper(&silo);
        actor.hit().await.unwrap();
        faults.next(fault.clone());
        faults
            .next(CommitFault::Refused(StoreError::Unavailable { store: "db".into(), cause: "away".into() }));
        faults.next(fault);
        let caller = tokio::spawn({
            let actor = actor.clone();
            async move { actor.hit().await }
        });
        silo.settle().await;
        silo.advance(Duration::from_secs(1)).await;
        assert_eq!(soon(caller).await.unwrap().unwrap(), 2);
        assert_eq!(faults.commits(), 5);
        assert_eq!(actor.hit().await.unwrap(), 3);
    }
}

#[tokio::test]
async fn an_activation_that_cannot_learn_what_it_wrote_ends_and_the_next_one_loads_it() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(store, storage::memory());
    let actor = keeper(&silo);
    actor.hit().await.unwrap();
    faults.next(CommitFault::AnswerLost);
    for _ in 0..1_000 {
        faults.next(CommitFault::RequestLost);
    }
    let caller = tokio::spawn({
        let actor = actor.clone();
        async move { actor.hit().await }
    });
    silo.settle().await;
    silo.advance(Duration::from_secs(10)).await;
    let error = soon(caller).await.unwrap().unwrap_err();
    assert!(matches!(&error, CallError::Superseded(details) if details.is_written.is_none()), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown, "it may be saved, and here it is");
    assert!(faults.commits() < 50, "sending again has a bound and a backoff: {}", faults.commits());
    assert_eq!(actor.hits().await.unwrap(), 2, "it was written, though its answer was lost");
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_says_nothing_of_what_was_sent_first() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(store, storage::memory());
    let actor = keeper(&silo);
    actor.hit().await.unwrap();
    // Written and unanswered; then the server is a standby, then it is back.
    faults.next(CommitFault::AnswerLost);
    faults.next(CommitFault::Refused(StoreError::ReadOnly { store: "db".into(), cause: "standby".into() }));
    let caller = tokio::spawn({
        let actor = actor.clone();
        async move { actor.hit().await }
    });
    silo.settle().await;
    silo.advance(Duration::from_secs(1)).await;
    assert_eq!(soon(caller).await.unwrap().unwrap(), 2);
    assert_eq!(actor.hit().await.unwrap(), 3);
    // The same, and it stays a standby: unknown, not refused.
    faults.next(CommitFault::AnswerLost);
    for _ in 0..1_000 {
        faults
            .next(CommitFault::Refused(StoreError::ReadOnly { store: "db".into(), cause: "standby".into() }));
    }
    let caller = tokio::spawn({
        let actor = actor.clone();
        async move { actor.hit().await }
    });
    silo.settle().await;
    silo.advance(Duration::from_secs(10)).await;
    assert_eq!(soon(caller).await.unwrap().unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(actor.hits().await.unwrap(), 4);
}

#[tokio::test]
async fn a_store_that_never_answers_is_given_up_after_five_seconds() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(store, storage::memory());
    let actor = keeper(&silo);
    actor.hit().await.unwrap();
    for _ in 0..1_000 {
        faults.next(CommitFault::Held);
    }
    let caller = tokio::spawn({
        let actor = actor.clone();
        async move { actor.hit().await }
    });
    silo.settle().await;
    silo.advance(ms(4_900)).await;
    assert!(!caller.is_finished());
    silo.advance(ms(200)).await;
    assert_eq!(soon(caller).await.unwrap().unwrap_err().outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn two_names_of_one_store_are_one_store() {
    let store = storage::memory();
    let silo = silo_over(store.clone(), store);
    let actor = keeper(&silo);
    for round in 1..=3 {
        assert_eq!(actor.hit().await.unwrap(), round);
        actor.note("x".into()).await.unwrap();
    }
    restart(&silo).await;
    assert_eq!(actor.hits().await.unwrap(), 3);
}

#[tokio::test]
async fn a_save_that_is_given_up_half_way_ends_the_activation() {
    #[derive(Actor)]
    #[actor(name = "state.hasty")]
    struct Hasty {
        #[state]
        count: State<u64>,
    }

    #[methods]
    impl Hasty {
        pub async fn hit(&mut self, cx: &Cx) -> u64 {
            *self.count += 1;
            let clock = cx.sleep(ms(10));
            tokio::select! {
                saved = self.count.save() => saved.unwrap(),
                () = clock => {}
            }
            *self.count
        }
    }

    let (store, faults) = StoreFaults::over(storage::memory());
    let silo =
        TestSilo::builder().host::<Hasty>().configure(|silo| silo.store("default", store)).start().unwrap();
    let actor = silo.grid().actor::<Hasty>("a");
    assert_eq!(actor.hit().await.unwrap(), 1);
    faults.next(CommitFault::Held);
    let caller = tokio::spawn({
        let actor = actor.clone();
        async move { actor.hit().await }
    });
    silo.settle().await;
    silo.advance(ms(20)).await;
    assert!(matches!(soon(caller).await.unwrap(), Err(CallError::Superseded(_))));
    assert_eq!(actor.hit().await.unwrap(), 2, "it was not written, so the next activation counts on from 1");
}

#[tokio::test]
async fn a_value_above_its_limit_is_refused_by_name_and_the_store_is_not_asked() {
    let (archive, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(storage::memory(), archive);
    let actor = keeper(&silo);
    let error = actor.note("x".repeat(100)).await.unwrap_err();
    let CallError::Actor(error) = error else { panic!("{error}") };
    assert!(matches!(*error.cause, StateCause::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("state notes of state.keeper/a: 104 B"), "{error}");
    assert_eq!(faults.commits(), 0);
    actor.note("short".into()).await.unwrap();
}

#[tokio::test]
async fn a_silo_without_a_store_that_its_actors_name_does_not_start() {
    let refused = TestSilo::builder().host::<Keeper>().start().map(drop).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "state settings is kept in a store named \"default\", and the silo has none; add `.store(\"default\", …)`"
    );
    let configure = |silo: quark::SiloBuilder| silo.store("default", storage::memory());
    let refused = TestSilo::builder().host::<Keeper>().configure(configure).start().map(drop).unwrap_err();
    assert!(matches!(refused, StartError::Runtime(_)));
    assert!(refused.to_string().contains("named \"archive\", and the silo has only default"), "{refused}");
}

#[tokio::test]
async fn a_silo_tells_how_its_stores_are() {
    use quark::store::HealthState;
    let silo = silo_over(storage::memory(), storage::memory());
    let stores = silo.grid().stores();
    let names: Vec<_> = stores.iter().map(|store| (store.name.as_str(), &*store.place)).collect();
    assert_eq!(names, [("archive", "memory://"), ("default", "memory://")]);
    assert!(stores.iter().all(|store| store.health == HealthState::Up));
}

#[tokio::test]
async fn an_actor_that_no_silo_made_says_so_instead_of_saving() {
    let mut state = State::new(7u64);
    let error = state.save().await.unwrap_err();
    assert_eq!(*error.cause, StateCause::Detached);
    assert_eq!(*state, 7);
}

#[tokio::test]
async fn a_store_that_cannot_be_read_fails_the_activation_and_the_next_call_tries_again() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(store, storage::memory());
    let away = StoreError::Unavailable { store: "db".into(), cause: "connection refused".into() };
    faults.loads(Some(away.clone()));
    let error = keeper(&silo).hits().await.unwrap_err();
    let CallError::Activation(failed) = &error else { panic!("{error}") };
    assert!(
        matches!(&failed.cause, ActivationCause::State(cause) if *cause.cause == StateCause::Store(away))
    );
    assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Safe));
    faults.loads(None);
    assert_eq!(keeper(&silo).hits().await.unwrap(), 0);
}

#[tokio::test]
async fn a_store_that_has_lost_everything_is_told_from_one_that_never_had_it() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let silo = silo_over(store, storage::memory());
    let actor = keeper(&silo);
    actor.hit().await.unwrap();
    let lost = StoreError::Lost { store: "db".into(), actor: Box::new(Address::new("state.keeper", "a")) };
    faults.next(CommitFault::Refused(lost));
    let error = actor.hit().await.unwrap_err();
    assert!(
        matches!(error, CallError::Superseded(_)),
        "its memory is not what is stored, so it ends: {error}"
    );
    assert_eq!(actor.hits().await.unwrap(), 1);
}

/// The versions that a type went through.
mod versions {
    use super::*;

    #[derive(Serialize, Deserialize, Stored)]
    pub(super) struct LimitV1 {
        pub(super) max: u32,
    }

    #[derive(Serialize, Deserialize, Stored)]
    #[stored(version = 2, upgrades = LimitV1)]
    pub(super) struct LimitV2 {
        pub(super) max_bytes: u64,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Stored)]
    #[stored(version = 4, upgrades = LimitV2)]
    pub(super) struct Limit {
        pub(super) max_bytes: u64,
        pub(super) soft: bool,
    }

    impl From<LimitV1> for LimitV2 {
        fn from(old: LimitV1) -> Self {
            Self { max_bytes: u64::from(old.max) * 1_024 }
        }
    }

    impl From<LimitV2> for Limit {
        fn from(old: LimitV2) -> Self {
            Self { max_bytes: old.max_bytes, soft: true }
        }
    }
}

#[derive(Actor)]
#[actor(name = "state.limited")]
struct Limited {
    #[state]
    limit: State<versions::Limit>,
}

#[methods]
impl Limited {
    pub async fn limit(&self) -> versions::Limit {
        self.limit.clone()
    }
}

/// A type whose upgrade panics.
#[derive(Clone, Default, Serialize, Deserialize, Stored)]
#[stored(version = 5, upgrades = versions::LimitV1)]
struct Fragile {}

impl From<versions::LimitV1> for Fragile {
    fn from(_: versions::LimitV1) -> Self {
        panic!("nobody thought of this one")
    }
}

/// It reads what [`Limited`] wrote.
#[derive(Actor)]
#[actor(name = "state.limited")]
struct Broken {
    #[state(name = "limit")]
    _limit: State<Fragile>,
}

#[methods]
impl Broken {
    pub async fn ping(&self) {}
}

#[tokio::test]
async fn a_panic_in_an_upgrade_fails_the_activation() {
    let store = store_with("json", 1, br#"{"max":4}"#).await;
    let silo =
        TestSilo::builder().host::<Broken>().configure(|silo| silo.store("default", store)).start().unwrap();
    let error = silo.grid().actor::<Broken>("a").ping().await.unwrap_err();
    assert!(
        matches!(&error, CallError::Activation(failed) if matches!(failed.cause, ActivationCause::Panicked(_)))
    );
    assert!(error.to_string().contains("nobody thought of this one"), "{error}");
}

/// A store with these bytes as the state of `state.limited/a`.
async fn store_with(format: &'static str, version: u32, bytes: &[u8]) -> Store {
    use quark::store::{Commit, Encoded, Epoch, Fence, SlotWrite};
    let store = storage::memory();
    let fence = Fence { seen: None, epoch: Epoch(1), sequence: 1 };
    let mut commit = Commit::new(Address::new("state.limited", "a"), fence, Default::default());
    let value = Some(Encoded { format: format.into(), version, bytes: bytes.to_vec() });
    commit.slots.push(SlotWrite { name: "limit".into(), expected: None, value });
    store.actors.commit(&commit).await.unwrap();
    store
}

async fn limit_from(store: Store) -> Result<versions::Limit, String> {
    let silo =
        TestSilo::builder().host::<Limited>().configure(|silo| silo.store("default", store)).start().unwrap();
    silo.grid().actor::<Limited>("a").limit().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_older_versions_wrote_is_upgraded_step_by_step() {
    let upgraded = versions::Limit { max_bytes: 4_096, soft: true };
    for (format, version, bytes) in [
        ("json", 1, &br#"{"max":4}"#[..]),
        ("postcard", 1, &[4]),
        ("json", 2, br#"{"max_bytes":4096}"#),
        ("postcard", 2, &[0x80, 0x20]),
        ("json", 4, br#"{"max_bytes":4096,"soft":true}"#),
    ] {
        let store = store_with(format, version, bytes).await;
        assert_eq!(limit_from(store).await.as_ref(), Ok(&upgraded), "{format} {version}");
    }
}

#[tokio::test]
async fn stored_bytes_that_make_no_sense_name_the_actor_and_the_state_and_stay_as_they_are() {
    for (format, version, bytes, said) in [
        ("json", 5, &b"{}"[..], "version 5 of state::versions::Limit is not known here (newest: 4)"),
        ("json", 3, b"{}", "version 3 of state::versions::LimitV2 is not known here (newest: 2)"),
        ("yaml", 4, b"{}", "format \"yaml\" is not known here; known are json and postcard"),
        ("json", 4, b"{\"max_bytes\":", "are no state::versions::Limit (version 4)"),
        ("postcard", 4, b"", "0 B of postcard are no state::versions::Limit"),
    ] {
        let store = store_with(format, version, bytes).await;
        let error = limit_from(store.clone()).await.unwrap_err();
        assert!(error.contains("state limit of state.limited/a: ") && error.contains(said), "{error}");
        let kept = stored(&store, "state.limited", "limit").await.unwrap();
        assert_eq!(kept, (format.to_owned(), version, bytes.to_vec()));
    }
}

/// An actor whose saves are written together, at most a second later.
#[derive(Actor)]
#[actor(name = "state.lazy")]
struct Lazy {
    #[state(write_behind = "1s")]
    count: State<u64>,
}

#[methods]
impl Lazy {
    pub async fn hit(&mut self) -> Result<u64, StateError> {
        *self.count += 1;
        self.count.save().await?;
        Ok(*self.count)
    }

    pub async fn hit_now(&mut self) -> Result<u64, StateError> {
        *self.count += 1;
        self.count.save_now().await?;
        Ok(*self.count)
    }

    pub async fn hit_with_a_transaction(&mut self, cx: &Cx) -> Result<u64, StateError> {
        *self.count += 1;
        let mut transaction = cx.transaction();
        transaction.save(&self.count)?;
        transaction.commit().await?;
        Ok(*self.count)
    }

    pub async fn torn(&mut self) {
        *self.count = 77;
        panic!("torn");
    }
}

fn lazy_silo() -> (TestSilo, LazyRef, Store, StoreFaults) {
    let (store, faults) = StoreFaults::over(storage::memory());
    let configure = |silo: quark::SiloBuilder| silo.store("default", store.clone());
    let silo = TestSilo::builder().host::<Lazy>().configure(configure).start().unwrap();
    let actor = silo.grid().actor::<Lazy>("a");
    (silo, actor, store, faults)
}

async fn lazily_stored(store: &Store) -> Option<u64> {
    let (_, _, bytes) = stored(store, "state.lazy", "count").await?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn saves_behind_are_written_together_within_their_delay() {
    let (silo, actor, store, faults) = lazy_silo();
    for _ in 0..100 {
        actor.hit().await.unwrap();
    }
    assert_eq!(lazily_stored(&store).await, None);
    silo.advance(ms(999)).await;
    assert_eq!(lazily_stored(&store).await, None);
    silo.advance(ms(1)).await;
    assert_eq!((lazily_stored(&store).await, faults.commits()), (Some(100), 1));
    assert_eq!(actor.hit_now().await.unwrap(), 101);
    assert_eq!((lazily_stored(&store).await, faults.commits()), (Some(101), 2));
}

#[tokio::test]
async fn an_older_value_never_follows_a_newer_one() {
    let (silo, actor, store, faults) = lazy_silo();
    actor.hit().await.unwrap();
    assert_eq!(actor.hit_with_a_transaction().await.unwrap(), 2);
    silo.advance(Duration::from_secs(5)).await;
    assert_eq!(lazily_stored(&store).await, Some(2));
    actor.hit().await.unwrap();
    assert_eq!(actor.hit_now().await.unwrap(), 4);
    silo.advance(Duration::from_secs(5)).await;
    assert_eq!(lazily_stored(&store).await, Some(4));
    // A transaction that is refused leaves what waited to be written.
    actor.hit().await.unwrap();
    faults.next(CommitFault::Refused(StoreError::Full { store: "db".into(), cause: "no space left".into() }));
    actor.hit_with_a_transaction().await.unwrap_err();
    silo.advance(Duration::from_secs(5)).await;
    assert_eq!(lazily_stored(&store).await, Some(5));
}

#[tokio::test]
async fn a_last_save_outlives_a_short_outage() {
    let (silo, actor, store, faults) = lazy_silo();
    actor.hit().await.unwrap();
    for _ in 0..3 {
        faults
            .next(CommitFault::Refused(StoreError::Unavailable { store: "db".into(), cause: "away".into() }));
    }
    silo.grid().deactivate::<Lazy>("a");
    silo.settle().await;
    assert_eq!(lazily_stored(&store).await, None);
    silo.advance(Duration::from_secs(2)).await;
    assert_eq!(lazily_stored(&store).await, Some(1));
}

#[tokio::test]
async fn what_waits_is_written_before_an_activation_ends_also_by_a_panic() {
    let (silo, actor, store, _) = lazy_silo();
    actor.hit().await.unwrap();
    silo.grid().deactivate::<Lazy>("a");
    silo.settle().await;
    assert_eq!(lazily_stored(&store).await, Some(1));
    assert_eq!(actor.hit().await.unwrap(), 2);
    assert!(matches!(actor.torn().await, Err(CallError::Panicked(_))));
    silo.settle().await;
    assert_eq!(lazily_stored(&store).await, Some(2), "what was saved is stored, what was torn is not");
    assert_eq!(actor.hit().await.unwrap(), 3);
}

#[tokio::test]
async fn a_write_behind_that_fails_is_tried_again_and_the_next_save_hears_of_it() {
    let (silo, actor, store, faults) = lazy_silo();
    let away = StoreError::Unavailable { store: "db".into(), cause: "connection refused".into() };
    faults.next(CommitFault::Refused(away.clone()));
    actor.hit().await.unwrap();
    silo.advance(Duration::from_secs(1)).await;
    let error = actor.hit().await.unwrap_err();
    assert!(matches!(&error, CallError::Actor(error) if *error.cause == StateCause::Store(away)), "{error}");
    silo.advance(Duration::from_secs(2)).await;
    assert_eq!(lazily_stored(&store).await, Some(2), "it was taken all the same");
}

#[tokio::test]
async fn a_conflict_names_what_was_in_the_way() {
    let conflict = Conflict::Slot { actor: Address::new("t", "a"), name: "count".into() };
    let error = StoreError::Conflict(Box::new(conflict));
    assert_eq!(error.to_string(), "state count of t/a was written by somebody else since it was read");
}
