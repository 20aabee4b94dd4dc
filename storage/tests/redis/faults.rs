//! What becomes of a store when its server, or the way to it, fails.

use std::sync::Arc;
use std::time::Duration;

use super::proxy::{Mode, Proxy};
use super::server::{Server, free_port, tell, until};
use super::{open_url, refused};
use quark_base::{Fault as _, Outcome, Timestamp};
use quark_runtime::store::{
    Address, Append, Commit, ETag, Encoded, Epoch, Fence, Group, HealthState, NewItem, OutboxMessage,
    OutboxPlace, ReadStart, SlotWrite, Store, StoreError, Wanted,
};

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(30);

fn json(text: &str) -> Encoded {
    Encoded { format: "json".into(), version: 1, bytes: text.as_bytes().to_vec() }
}

/// One activation of an actor, which writes one state again and again.
pub(crate) struct Writer {
    pub actor: Address,
    fence: Fence,
    expected: Option<ETag>,
}

impl Writer {
    pub(crate) fn new(key: &str) -> Self {
        let fence = Fence { seen: None, epoch: Epoch(7), sequence: 1 };
        Self { actor: Address::new("t", key), fence, expected: None }
    }

    /// The next commit; the same one until it is [`done`](Self::done).
    pub(crate) fn next(&self, text: &str) -> Commit {
        let mut commit = Commit::new(self.actor.clone(), self.fence, Timestamp(1));
        let (expected, value) = (self.expected, Some(json(text)));
        commit.slots.push(SlotWrite { name: "s".into(), expected, value });
        commit
    }

    pub(crate) fn done(&mut self) {
        self.expected = Some(self.fence.etag());
        self.fence.sequence += 1;
    }

    pub(crate) async fn write(&mut self, store: &Store, text: &str) -> Result<(), StoreError> {
        let commit = self.next(text);
        let result = tokio::time::timeout(PATIENCE, store.actors.commit(&commit)).await;
        result.expect("a commit ends in bounded time")?;
        self.done();
        Ok(())
    }

    /// Writes, again and again, until it is in.
    pub(crate) async fn write_until_in(&mut self, store: &Store, text: &str) {
        let commit = self.next(text);
        let write = || async { store.actors.commit(&commit).await.is_ok() };
        until("a commit is in", write).await;
        self.done();
    }

    pub(crate) async fn read(&self, store: &Store) -> Option<String> {
        let wanted = Wanted { slots: vec!["s".into()], journals: Vec::new() };
        let loaded = store.actors.load(&self.actor, &wanted).await.expect("a row");
        loaded.slots[0].as_ref().map(|slot| String::from_utf8(slot.value.bytes.clone()).expect("text"))
    }
}

async fn until_up(store: &Store) {
    until("the store is up", || async { store.health.state() == HealthState::Up }).await;
}

async fn until_down(store: &Store) {
    until("the store is down", || async { store.health.state() != HealthState::Up }).await;
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let error = refused(&format!("redis://127.0.0.1:{}", free_port())).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Rejected);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_an_error_in_bounded_time() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let store = open_url(&format!("{}?timeout_ms=1000", proxy.url())).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    proxy.set(Mode::Stall);
    // What was sent may have arrived.
    let error = writer.write(&store, "2").await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
    until_down(&store).await;
    let error = writer.write(&store, "2").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    proxy.set(Mode::Pass);
    writer.write_until_in(&store, "2").await;
    until_up(&store).await;
    assert_eq!(writer.read(&store).await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_read_without_an_answer_is_unavailable() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let store = open_url(&proxy.url()).await;
    let writer = Writer::new("a");
    proxy.set(Mode::LoseAnswerTo(b"HMGET"));
    let error = store.actors.load(&writer.actor, &Wanted::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_commit_whose_answer_got_lost_is_unknown_and_takes_effect_once() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let store = open_url(&proxy.url()).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    let mut commit = writer.next("2");
    let events = vec![json("one"), json("two")];
    commit.appends.push(Append { journal: "j".into(), expected: 0, events, snapshot: None });
    let to = Address::new("t", "b");
    commit.outbox.push(OutboxMessage { to, method: "m".into(), body: json("hello") });
    proxy.set(Mode::LoseAnswerTo(b"EVALSHA"));
    let error = store.actors.commit(&commit).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(proxy.mode(), Mode::Pass, "the answer was cut off");
    let again = || async { store.actors.commit(&commit).await.is_ok() };
    until("the commit is answered", again).await;
    let events = store.actors.events(&writer.actor, "j", 0, 10).await.unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(store.actors.outbox(&OutboxPlace::default(), 10).await.unwrap().messages.len(), 1);
    writer.done();
    writer.write(&store, "3").await.unwrap();
}

#[tokio::test]
async fn a_server_that_was_killed_comes_back_with_what_it_acknowledged() {
    let mut server = Server::start(&["--appendfsync", "always"]);
    let store = open_url(&server.url()).await;
    let mut writers: Vec<_> = (0..20).map(|index| Writer::new(&index.to_string())).collect();
    for writer in &mut writers {
        writer.write(&store, "1").await.unwrap();
    }
    server.kill();
    until_down(&store).await;
    let error = writers[0].write(&store, "2").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    server.restart();
    for writer in &mut writers {
        writer.write_until_in(&store, "2").await;
        assert_eq!(writer.read(&store).await.as_deref(), Some("2"));
    }
    until_up(&store).await;
}

#[tokio::test]
async fn a_server_that_lost_everything_is_told_from_one_that_is_new() {
    let server = Server::start(&[]);
    let store = open_url(&server.url()).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    server.tell(&["FLUSHALL"]).await.unwrap();
    let error = writer.write(&store, "2").await.unwrap_err();
    let StoreError::Lost { actor, .. } = &error else { panic!("{error:?}") };
    assert_eq!(**actor, writer.actor);
    assert_eq!(writer.read(&store).await, None, "nothing was written");
    Writer::new("b").write(&store, "1").await.unwrap();
}

#[tokio::test]
async fn a_server_without_memory_is_full_and_still_lets_things_go() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let store = open_url(&server.url()).await;
    let mut writer = Writer::new("a");
    let mut commit = writer.next("1");
    let to = Address::new("t", "b");
    commit.outbox.push(OutboxMessage { to, method: "m".into(), body: json("hello") });
    store.actors.commit(&commit).await.unwrap();
    writer.done();
    server.tell(&["CONFIG", "SET", "maxmemory", "1mb"]).await.unwrap();
    let error = writer.write(&store, &"x".repeat(1 << 20)).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(writer.read(&store).await.as_deref(), Some("1"), "it can be read");
    let ids: Vec<_> = store
        .actors
        .outbox(&OutboxPlace::default(), 10)
        .await
        .unwrap()
        .messages
        .into_iter()
        .map(|message| message.id)
        .collect();
    store.actors.relayed(&ids).await.unwrap();
    assert_eq!(store.actors.outbox(&OutboxPlace::default(), 10).await.unwrap().messages.len(), 0);
    server.tell(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    writer.write(&store, "2").await.unwrap();
}

#[tokio::test]
async fn a_replica_is_read_only() {
    let server = Server::start(&[]);
    let store = open_url(&server.url()).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    // Of a master that is not there, so that it keeps what it has.
    server.tell(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await.unwrap();
    let error = writer.write(&store, "2").await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert_eq!(writer.read(&store).await.as_deref(), Some("1"));
    server.tell(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    writer.write(&store, "2").await.unwrap();
}

#[tokio::test]
async fn a_server_that_misses_its_replicas_is_read_only() {
    let server = Server::start(&["--min-replicas-to-write", "1"]);
    let store = open_url(&server.url()).await;
    let mut writer = Writer::new("a");
    let error = writer.write(&store, "1").await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    server.tell(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await.unwrap();
    writer.write(&store, "1").await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_persist_is_read_only() {
    let mut server = Server::start(&["--appendonly", "no", "--save", "3600 1"]);
    let store = open_url(&server.url()).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    server.remove_folder();
    let failed = || async {
        // It refuses to begin while the last one is still at work.
        let _ = server.tell(&["BGSAVE"]).await;
        let info: String =
            redis::from_redis_value(server.tell(&["INFO", "persistence"]).await.unwrap()).unwrap();
        info.contains("rdb_last_bgsave_status:err")
    };
    until("a snapshot failed", failed).await;
    let error = writer.write(&store, "2").await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert_eq!(writer.read(&store).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_not_shown() {
    let server = Server::start(&["--requirepass", "s3cret"]);
    for url in ["redis://:hidden@127.0.0.1", "redis://someone:hidden@127.0.0.1", "redis://127.0.0.1"] {
        let error = refused(&format!("{url}:{}", server.port)).await;
        assert!(matches!(error, StoreError::Denied { .. }), "{url}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("hidden"), "{error:?}");
    }
    let store = open_url(&format!("redis://:s3cret@127.0.0.1:{}", server.port)).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    // Changed while the store is open.
    let url = format!("redis://:s3cret@127.0.0.1:{}", server.port);
    tell(&url, &["CONFIG", "SET", "requirepass", "other"]).await.unwrap();
    let url = format!("redis://:other@127.0.0.1:{}", server.port);
    tell(&url, &["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    let denied = || async {
        let error = store.actors.load(&writer.actor, &Wanted::default()).await;
        matches!(error, Err(StoreError::Denied { .. }))
    };
    until("the store is refused", denied).await;
    let HealthState::Down(why) = store.health.state() else { panic!("it is up") };
    assert!(!why.contains("s3cret") && !store.name.contains("s3cret"), "{why}");
    tell(&url, &["CONFIG", "SET", "requirepass", "s3cret"]).await.unwrap();
    writer.write_until_in(&store, "2").await;
}

#[tokio::test]
async fn a_user_without_rights_is_denied() {
    let server = Server::start(&[]);
    server.tell(&["ACL", "SETUSER", "reader", "on", ">word", "~*", "+@all", "-hmget"]).await.unwrap();
    let store = open_url(&format!("redis://reader:word@127.0.0.1:{}", server.port)).await;
    let error = store.actors.load(&Address::new("t", "a"), &Wanted::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_forgot_its_scripts_gets_them_again() {
    let server = Server::start(&[]);
    let store = open_url(&server.url()).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    server.tell(&["SCRIPT", "FLUSH"]).await.unwrap();
    writer.write(&store, "2").await.unwrap();
    assert_eq!(writer.read(&store).await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused() {
    let server = Server::start(&[]);
    let store = open_url(&server.url()).await;
    let mut writer = Writer::new("a");
    let error = writer.write(&store, &"x".repeat((16 << 20) + 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
    writer.write(&store, &"x".repeat(16 << 20)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_row_is_corrupt() {
    let server = Server::start(&[]);
    let store = open_url(&server.url()).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    let rows: Vec<String> =
        redis::from_redis_value(server.tell(&["KEYS", "*:a:t/a"]).await.unwrap()).unwrap();
    server.tell(&["HSET", &rows[0], "s:s", "nonsense"]).await.unwrap();
    let wanted = Wanted { slots: vec!["s".into()], journals: Vec::new() };
    let error = store.actors.load(&writer.actor, &wanted).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    server.tell(&["SET", &rows[0], "no hash at all"]).await.unwrap();
    let error = store.actors.load(&writer.actor, &wanted).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn what_waits_for_a_silent_server_is_bounded() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let store = Arc::new(open_url(&format!("{}?timeout_ms=1000", proxy.url())).await);
    proxy.set(Mode::Stall);
    let tasks: Vec<_> = (0..5000)
        .map(|index| {
            let store = store.clone();
            tokio::spawn(async move { Writer::new(&index.to_string()).write(&store, "1").await })
        })
        .collect();
    let (mut unknown, mut unavailable) = (0, 0);
    for task in tasks {
        match task.await.expect("each commit ends") {
            Err(StoreError::Unknown { .. }) => unknown += 1,
            Err(StoreError::Unavailable { .. }) => unavailable += 1,
            other => panic!("nothing can be in: {other:?}"),
        }
    }
    // Of each lane one batch was sent.
    assert!((1..=512).contains(&unknown), "{unknown} were sent");
    assert_eq!(unknown + unavailable, 5000);
}

#[tokio::test]
async fn a_waiting_read_of_a_stream_survives_its_server() {
    let mut server = Server::start(&["--appendfsync", "always"]);
    let store = open_url(&server.url()).await;
    let streams = store.streams.clone().expect("streams");
    let group = Group { namespace: "n".into(), name: "g".into() };
    streams.open_group(&group, ReadStart::Oldest).await.unwrap();
    let reader = {
        let (streams, group) = (streams.clone(), group.clone());
        tokio::spawn(async move {
            loop {
                match streams.read(&group, 10, PATIENCE, Duration::from_secs(1)).await {
                    Ok(items) if items.is_empty() => (),
                    Ok(items) => return items,
                    Err(StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    };
    server.kill();
    until_down(&store).await;
    server.restart();
    until_up(&store).await;
    let item = NewItem { key: "k".into(), time: Timestamp(1), value: json("1") };
    streams.append("n", &[item]).await.unwrap();
    let items = tokio::time::timeout(PATIENCE, reader).await.expect("the reader ends").unwrap();
    assert_eq!(items.len(), 1);
}
