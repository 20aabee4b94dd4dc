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

#[tokio::test]
async fn a_conflict_names_what_was_in_the_way() {
    let conflict = Conflict::Slot { actor: Address::new("t", "a"), name: "count".into() };
    let error = StoreError::Conflict(Box::new(conflict));
    assert_eq!(error.to_string(), "state count of t/a was written by somebody else since it was read");
}
