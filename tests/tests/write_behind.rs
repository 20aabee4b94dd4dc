//! States that are written a little later than they are saved.

use quark::prelude::*;
use quark::store::{Address, Store, StoreError, Wanted};
use quark::{StateCause, storage};
use quark_testkit::{CommitFault, StoreFaults, TestSilo};

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
