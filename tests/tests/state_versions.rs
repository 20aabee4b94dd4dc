//! States that other versions of the program wrote.

use quark::prelude::*;
use quark::store::{Address, Store, Wanted};
use quark::{ActivationCause, storage};
use quark_testkit::TestSilo;
use serde::{Deserialize, Serialize};

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
        ("json", 5, &b"{}"[..], "version 5 of state_versions::versions::Limit is not known here (newest: 4)"),
        ("json", 3, b"{}", "version 3 of state_versions::versions::LimitV2 is not known here (newest: 2)"),
        ("yaml", 4, b"{}", "format \"yaml\" is not known here; known are json and postcard"),
        ("json", 4, b"{\"max_bytes\":", "are no state_versions::versions::Limit (version 4)"),
        ("postcard", 4, b"", "0 B of postcard are no state_versions::versions::Limit"),
    ] {
        let store = store_with(format, version, bytes).await;
        let error = limit_from(store.clone()).await.unwrap_err();
        assert!(error.contains("state limit of state.limited/a: ") && error.contains(said), "{error}");
        let kept = stored(&store, "state.limited", "limit").await.unwrap();
        assert_eq!(kept, (format.to_owned(), version, bytes.to_vec()));
    }
}
