//! What a SQLite store says and does when its file, its disk or another process is in its way.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use quark_base::{Fault as _, Outcome, Retry, Timestamp};
use quark_runtime::store::{
    Address, Commit, ETag, Encoded, Epoch, Fence, HealthState, SlotWrite, Store, StoreError, Wanted,
};
use quark_storage::OpenError;
use rusqlite::Connection;
use tempfile::TempDir;

/// An actor's first commit: one state of so many bytes.
fn state(key: &str, bytes: usize) -> Commit {
    let fence = Fence { seen: None, epoch: Epoch(1), sequence: 1 };
    let mut commit = Commit::new(Address::new("t", key), fence, Timestamp::VIRTUAL_ORIGIN);
    let value = Some(Encoded { format: "postcard".into(), version: 1, bytes: vec![7; bytes] });
    commit.slots.push(SlotWrite { name: "s".into(), expected: None, value });
    commit
}

/// How many bytes the actor's state has, if it has one.
async fn size(store: &Store, key: &str) -> Option<usize> {
    let wanted = Wanted { slots: vec!["s".into()], journals: Vec::new() };
    let loaded = store.actors.load(&Address::new("t", key), &wanted).await.expect("an actor can be loaded");
    loaded.slots[0].as_ref().map(|slot| slot.value.bytes.len())
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("store.db")
}

async fn try_open(file: &Path, settings: &str) -> Result<Store, StoreError> {
    let url = format!("sqlite://{}?{settings}", file.display());
    match quark_storage::open(&url.parse().expect("an address")).await {
        Ok(store) => Ok(store),
        Err(OpenError::Store(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

async fn open(file: &Path, settings: &str) -> Store {
    try_open(file, settings).await.expect("a file can be opened")
}

/// Drops the store and waits until its last connection has put everything into the one file.
async fn close(store: Store, file: &Path) {
    drop(store);
    let log = PathBuf::from(format!("{}-wal", file.display()));
    while log.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_store_that_is_read_only_says_so_and_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let writing = open(&file(&folder), "").await;
    writing.actors.commit(&state("a", 10)).await.unwrap();
    let reading = open(&file(&folder), "read_only=true").await;
    let error = reading.actors.commit(&state("b", 10)).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Safe));
    assert_eq!(reading.health.state(), HealthState::Up);
    assert_eq!(size(&reading, "a").await, Some(10));
    assert_eq!(size(&reading, "b").await, None);
}

#[tokio::test]
async fn a_full_store_says_so_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&file(&folder), "max_size=512KiB").await;
    let mut held = 0;
    let error = loop {
        match store.actors.commit(&state(&held.to_string(), 20_000)).await {
            Ok(()) => held += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Safe));
    assert!(held > 3, "{held} states of 20 kB were held in 512 KiB");
    assert_eq!(size(&store, &held.to_string()).await, None);
    for index in 0..held {
        assert_eq!(size(&store, &index.to_string()).await, Some(20_000), "state {index}");
    }
    close(store, &file(&folder)).await;
    let store = open(&file(&folder), "").await;
    store.actors.commit(&state(&held.to_string(), 20_000)).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_does_not_fit_takes_no_other_down_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&file(&folder), "max_size=1MiB").await;
    let tasks: Vec<_> = (0..50)
        .map(|index| {
            let store = store.clone();
            let bytes = if index % 10 == 5 { 2_000_000 } else { 100 };
            tokio::spawn(async move { (bytes, store.actors.commit(&state(&index.to_string(), bytes)).await) })
        })
        .collect();
    for task in tasks {
        match task.await.unwrap() {
            (100, Ok(())) | (2_000_000, Err(StoreError::Full { .. })) => (),
            (bytes, other) => panic!("{bytes}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_file_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder);
    let store = open(&file, "").await;
    for index in 0..50 {
        store.actors.commit(&state(&index.to_string(), 2000)).await.unwrap();
    }
    close(store, &file).await;
    let whole = std::fs::read(&file).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 20);
    for page in [pages / 3, pages / 2] {
        std::fs::write(&file, &whole).unwrap();
        let mut damaged = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        damaged.seek(SeekFrom::Start(page as u64 * 4096)).unwrap();
        damaged.write_all(&[0xa5; 4096]).unwrap();
        drop(damaged);
        let error = try_open(&file, "").await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "page {page}: {error:?}");
        assert_eq!(error.retry(), Retry::Pointless);
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(size(&open(&file, "").await, "7").await, Some(2000));
}

#[tokio::test]
async fn what_is_no_database_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let text = "This is a letter, and a long one, so that nobody takes it for an empty file.\n".repeat(100);
    std::fs::write(file(&folder), &text).unwrap();
    let error = try_open(&file(&folder), "").await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(file(&folder)).unwrap(), text, "it was left as it was");
}

#[tokio::test]
async fn a_file_that_must_be_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let error = try_open(&file(&folder), "create=false").await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(!file(&folder).exists());
    let error = try_open(&folder.path().join("no/such/folder/store.db"), "").await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&file(&folder), "").await);
    let other = Connection::open(file(&folder)).unwrap();
    other.execute("INSERT INTO quark_migrations VALUES (99)", []).unwrap();
    other.close().unwrap();
    let error = try_open(&file(&folder), "").await.unwrap_err();
    assert!(matches!(error, StoreError::Unexpected { .. }), "{error:?}");
    assert!(error.to_string().contains("another version"), "{error}");
}

#[tokio::test]
async fn a_file_may_have_tables_of_others_and_their_version() {
    let folder = tempfile::tempdir().unwrap();
    let other = Connection::open(file(&folder)).unwrap();
    other.execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 7").unwrap();
    for key in ["a", "b"] {
        let store = open(&file(&folder), "").await;
        store.actors.commit(&state(key, 10)).await.unwrap();
    }
    let version: i64 = other.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!((version, other.table_exists(None, "theirs").unwrap()), (7, true));
}

#[tokio::test]
async fn what_another_process_wrote_is_seen_by_the_next_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (open(&file(&folder), "").await, open(&file(&folder), "").await);
    ours.actors.commit(&state("a", 10)).await.unwrap();
    let mut later = state("a", 20);
    later.fence = Fence { seen: Some(later.fence.etag()), epoch: Epoch(2), sequence: 1 };
    later.slots[0].expected = later.fence.seen;
    theirs.actors.commit(&later).await.unwrap();
    let mut next = state("a", 30);
    next.fence.sequence = 2;
    next.slots[0].expected = Some(ETag { epoch: Epoch(1), sequence: 1 });
    let error = ours.actors.commit(&next).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    assert_eq!(size(&ours, "a").await, Some(20));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&file(&folder), "").await;
    let other = Connection::open(file(&folder)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The first batch waits for the file; what comes after it waits for that.
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.actors.commit(&state("a", 10)).await }
    });
    tokio::task::yield_now().await;
    let given_up = state("b", 10);
    let mut given_up = store.actors.commit(&given_up);
    assert!(futures_util::poll!(&mut given_up).is_pending());
    drop(given_up);
    other.execute_batch("ROLLBACK").unwrap();
    first.await.unwrap().unwrap();
    store.actors.commit(&state("c", 10)).await.unwrap();
    assert_eq!((size(&store, "a").await, size(&store, "c").await), (Some(10), Some(10)));
    assert_eq!(size(&store, "b").await, None);
}

#[tokio::test]
async fn another_process_that_keeps_the_file_ends_in_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&file(&folder), "").await;
    let other = Connection::open(file(&folder)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.actors.commit(&state("a", 10)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(matches!(store.health.state(), HealthState::Down(_)));
    assert_eq!(size(&store, "a").await, None, "whoever reads does not wait");
    other.execute_batch("ROLLBACK").unwrap();
    store.actors.commit(&state("a", 10)).await.unwrap();
    assert_eq!(store.health.state(), HealthState::Up);
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_before_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&file(&folder), "").await;
    let error = store.actors.commit(&state("a", (64 << 20) + 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
    assert_eq!(size(&store, "a").await, None);
}

#[tokio::test]
async fn json_is_text_in_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&file(&folder), "").await;
    let mut commit = state("a", 0);
    let value = Encoded { format: "json".into(), version: 1, bytes: br#"{"count":7}"#.to_vec() };
    commit.slots[0].value = Some(value);
    store.actors.commit(&commit).await.unwrap();
    let other = Connection::open(file(&folder)).unwrap();
    let count: i64 =
        other.query_row("SELECT value ->> 'count' FROM quark_state", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 7);
}
