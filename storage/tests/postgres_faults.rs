//! What a PostgreSQL store says and does when the server, the network or another silo is in its way.

mod postgres_support;

use postgres_support::Database;
use postgres_support::proxy::{Mode, Proxy};
use quark_base::{Fault as _, Outcome, Retry, Timestamp};
use quark_runtime::store::{
    Address, Append, Commit, Conflict, ETag, Encoded, Epoch, FeedPosition, Fence, HealthState, OutboxMessage,
    OutboxPlace, Store, StoreError, Wanted,
};
use quark_servers::local;
use quark_storage::{OpenError, StoreUrl};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinHandle;

/// The message that ends a transaction; not the one that begins one as `READ COMMITTED`.
const COMMIT: &str = "COMMIT\0";

/// The `sequence`th commit of an actor's first activation: an event.
fn event(key: &str, sequence: u64) -> Commit {
    let fence = Fence { seen: None, epoch: Epoch(1), sequence };
    let mut commit = Commit::new(Address::new("t", key), fence, Timestamp::VIRTUAL_ORIGIN);
    let value = Encoded { format: "json".into(), version: 1, bytes: b"{}".to_vec() };
    let (journal, expected) = ("j".into(), sequence - 1);
    commit.appends.push(Append { journal, expected, events: vec![value], snapshot: None });
    commit
}

/// An actor's first commit, with a message.
fn send(key: &str) -> Commit {
    let mut commit = event(key, 1);
    let body = Encoded { format: "json".into(), version: 1, bytes: b"[]".to_vec() };
    commit.outbox.push(OutboxMessage { to: Address::new("t", "to"), method: "m".into(), body });
    commit
}

async fn events(store: &Store, key: &str) -> usize {
    store.actors.events(&Address::new("t", key), "j", 0, 1000).await.expect("events can be read").len()
}

async fn open(url: &StoreUrl) -> Store {
    quark_storage::open(url).await.expect("a PostgreSQL can be opened")
}

/// Why it cannot be opened.
async fn refusal(url: &str) -> StoreError {
    match quark_storage::open(&url.parse().expect("an address")).await {
        Err(OpenError::Store(error)) => error,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A connection of the test's own, in the store's schema.
async fn connect(database: &Database) -> PgConnection {
    let mut connection = PgConnection::connect(database.server.address()).await.expect("a connection");
    let path = format!("SET search_path TO {}", database.schema());
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(path))).await.expect("a schema");
    connection
}

async fn execute(connection: &mut PgConnection, statement: &'static str) {
    connection.execute(sqlx::raw_sql(statement)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// The database behind a proxy, and the store's address through it.
async fn behind_proxy() -> (Database, Proxy, StoreUrl) {
    let database = Database::new().await;
    let proxy = Proxy::before(database.port()).await;
    let url = database.url_at(proxy.port(), "&timeout_ms=2000");
    (database, proxy, url)
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = refusal(&format!("postgres://quark:s3cret@127.0.0.1:{free}/postgres")).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Safe));
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_not_shown() {
    let database = Database::new().await;
    let port = database.port();
    let error = refusal(&format!("postgres://quark:s3cret@127.0.0.1:{port}/postgres")).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    let right = local::POSTGRES_PASSWORD;
    let error = refusal(&format!("postgres://quark:{right}@127.0.0.1:{port}/no_such_database")).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("no_such_database"), "{error}");
    assert!(!format!("{error} {error:?}").contains(right), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_by_one_who_wants_it() {
    let database = Database::new().await;
    let (right, port) = (local::POSTGRES_PASSWORD, database.port());
    let error = refusal(&format!("postgres://quark:{right}@127.0.0.1:{port}/postgres?sslmode=require")).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn silos_may_open_a_new_store_at_once() {
    let database = Database::new().await;
    let urls: Vec<_> = (0..8).map(|_| database.url("")).collect();
    let tasks: Vec<_> =
        urls.into_iter().map(|url| tokio::spawn(async move { quark_storage::open(&url).await })).collect();
    for (index, task) in tasks.into_iter().enumerate() {
        let store = task.await.unwrap().expect("each silo opens it");
        store.actors.commit(&event(&index.to_string(), 1)).await.expect("each silo uses it");
    }
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let database = Database::new().await;
    drop(open(&database.url("")).await);
    let newer = "INSERT INTO quark_migrations SELECT 99, 'later', installed_on, success, checksum, execution_time \
                 FROM quark_migrations";
    execute(&mut connect(&database).await, newer).await;
    let error = quark_storage::open(&database.url("")).await.unwrap_err();
    assert!(matches!(error, OpenError::Store(StoreError::Unexpected { .. })), "{error:?}");
    assert!(error.to_string().contains("another version"), "{error}");
}

#[tokio::test]
async fn a_connection_cut_after_the_commit_was_sent_leaves_it_unknown_and_it_may_be_sent_again() {
    let (_database, proxy, url) = behind_proxy().await;
    let store = open(&url).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    proxy.set(Mode::CutAfter(COMMIT));
    let second = event("a", 2);
    let error = store.actors.commit(&second).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(matches!(store.health.state(), HealthState::Down(_)));
    proxy.set(Mode::Pass);
    // It was done, and is done once.
    assert_eq!(events(&store, "a").await, 2);
    store.actors.commit(&second).await.unwrap();
    assert_eq!(events(&store, "a").await, 2);
    assert_eq!(store.health.state(), HealthState::Up);
    store.actors.commit(&event("a", 3)).await.unwrap();
}

#[tokio::test]
async fn a_connection_cut_before_the_server_has_the_commit_leaves_nothing_written() {
    let (_database, proxy, url) = behind_proxy().await;
    let store = open(&url).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    for moment in ["BEGIN", COMMIT] {
        proxy.set(Mode::CutBefore(moment));
        let cut = store.actors.commit(&event("a", 2)).await.unwrap_err();
        // Whether a `COMMIT` that was cut off arrived is not ours to know.
        match moment {
            COMMIT => assert!(matches!(cut, StoreError::Unknown { .. }), "{cut:?}"),
            _ => assert!(matches!(cut, StoreError::Unavailable { .. }), "at {moment}: {cut:?}"),
        }
        proxy.set(Mode::Pass);
        assert_eq!(events(&store, "a").await, 1, "cut at {moment}");
    }
    store.actors.commit(&event("a", 2)).await.unwrap();
    assert_eq!(events(&store, "a").await, 2);
}

#[tokio::test]
async fn a_network_that_stalls_ends_in_an_error_and_not_in_a_wait() {
    let (_database, proxy, url) = behind_proxy().await;
    let store = open(&url).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    proxy.set(Mode::Stall);
    let error = store.actors.commit(&event("a", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let (actor, wanted) = (Address::new("t", "a"), Wanted::default());
    let error = store.actors.load(&actor, &wanted).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    proxy.set(Mode::Pass);
    recovers(&store, &event("a", 2)).await;
    assert_eq!(events(&store, "a").await, 2);
}

/// Sends a commit until it is in. What is unavailable may be tried again as often as one likes.
async fn recovers(store: &Store, commit: &Commit) {
    loop {
        match store.actors.commit(commit).await {
            Ok(()) => return,
            Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. }) => {
                tokio::task::yield_now().await
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_network_that_refuses_for_a_while_is_waited_out() {
    let (database, proxy, url) = behind_proxy().await;
    let store = open(&url).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    proxy.set(Mode::Refuse);
    terminate_all(&database).await;
    let error = store.actors.commit(&event("a", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(matches!(store.health.state(), HealthState::Down(_)));
    proxy.set(Mode::Pass);
    recovers(&store, &event("a", 2)).await;
    assert_eq!(store.health.state(), HealthState::Up);
}

/// Ends all connections of the store, whose sessions carry the schema as their name.
async fn terminate_all(database: &Database) {
    let mut connection = connect(database).await;
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE pid <> pg_backend_pid() AND application_name = current_schema()";
    let ended: i64 =
        sqlx::query_scalar(terminate).fetch_one(&mut connection).await.expect("backends can be ended");
    assert!(ended > 0, "the store had connections");
}

#[tokio::test]
async fn a_server_that_starts_again_is_found_again() {
    let server = local::postgres(&["fsync=on"]).unwrap_or_else(|error| panic!("{error}"));
    let mut database = Database::on(server);
    let store = open(&database.url("")).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    let process = database.server.process().expect("a server of the test's own");
    process.kill();
    let error = store.actors.commit(&event("a", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(matches!(store.health.state(), HealthState::Down(_)));
    process.start().unwrap();
    recovers(&store, &event("a", 2)).await;
    assert_eq!(events(&store, "a").await, 2);
    assert_eq!(store.health.state(), HealthState::Up);
}

#[tokio::test]
async fn a_server_that_is_read_only_says_so_and_still_reads() {
    let server = local::postgres(&[]).unwrap_or_else(|error| panic!("{error}"));
    let database = Database::on(server);
    let store = open(&database.url("")).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    let mut connection = connect(&database).await;
    execute(&mut connection, "ALTER ROLE quark SET default_transaction_read_only = on").await;
    terminate_all(&database).await;
    let error = store.actors.commit(&event("a", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Safe));
    let put = store.reminders.remove(&Address::new("t", "a"), "r").await.unwrap_err();
    assert!(matches!(put, StoreError::ReadOnly { .. }), "{put:?}");
    assert_eq!(events(&store, "a").await, 1);
    execute(&mut connection, "SET default_transaction_read_only = off").await;
    execute(&mut connection, "ALTER ROLE quark SET default_transaction_read_only = off").await;
    terminate_all(&database).await;
    store.actors.commit(&event("a", 2)).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_cannot_be_written_takes_no_other_down_with_it() {
    let database = Database::new().await;
    // One task writes, so that all go into few batches.
    let store = open(&database.url("&pool=2&timeout_ms=5000")).await;
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                RAISE EXCEPTION 'as if it were so' USING ERRCODE = substr(NEW.actor_key, 6); END $$; \
                CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON quark_actor FOR EACH ROW \
                WHEN (NEW.actor_key LIKE 'fail %') EXECUTE FUNCTION fail()";
    execute(&mut connect(&database).await, fail).await;
    let tasks: Vec<_> = (0..100)
        .map(|index| {
            let store = store.clone();
            let key = match index % 10 {
                3 => "fail 53100".to_owned(),
                7 => "fail 53200".to_owned(),
                _ => index.to_string(),
            };
            tokio::spawn(async move { (key.clone(), store.actors.commit(&event(&key, 1)).await) })
        })
        .collect();
    for task in tasks {
        match task.await.unwrap() {
            (key, Err(StoreError::Full { .. })) if key.starts_with("fail") => (),
            (key, Ok(())) if !key.starts_with("fail") => assert_eq!(events(&store, &key).await, 1),
            (key, other) => panic!("{key}: {other:?}"),
        }
    }
    for (code, is_it) in [
        ("XX001", (|error| matches!(error, StoreError::Corrupt { .. })) as fn(&StoreError) -> bool),
        ("42501", |error| matches!(error, StoreError::Denied { .. })),
        ("55P03", |error| matches!(error, StoreError::Unavailable { .. })),
        ("57P01", |error| matches!(error, StoreError::Unavailable { .. })),
        ("22021", |error| matches!(error, StoreError::Unexpected { .. })),
    ] {
        let error = store.actors.commit(&event(&format!("fail {code}"), 1)).await.unwrap_err();
        assert!(is_it(&error), "{code}: {error:?}");
    }
    store.actors.commit(&event("fine", 1)).await.unwrap();
}

#[tokio::test]
async fn reads_that_get_no_answer_leave_the_pool_its_connections() {
    let database = Database::new().await;
    let proxy = Proxy::before(database.port()).await;
    // A connection for the writer, and one for those who read.
    let store = open(&database.url_at(proxy.port(), "&pool=2&timeout_ms=500")).await;
    let start = OutboxPlace::default();
    for is_dropped in [false, true] {
        for _ in 0..3 {
            proxy.set(Mode::StallAt("quark_outbox"));
            let reading = store.actors.outbox(&start, 1);
            if is_dropped {
                tokio::select! {
                    answer = reading => panic!("a network that stalls has no answer: {answer:?}"),
                    () = proxy.stalled() => (),
                }
            } else {
                let error = reading.await.unwrap_err();
                assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
                proxy.stalled().await;
            }
            proxy.set(Mode::Pass);
            assert_eq!(events(&store, "a").await, 0);
        }
    }
    store.actors.commit(&event("a", 1)).await.unwrap();
}

/// A hundred commits at once, the tenth of them for the actor `locked`.
fn hundred(store: &Store, sequence: u64) -> Vec<(String, JoinHandle<Result<(), StoreError>>)> {
    let commit = |index: u32| {
        let key = if index == 9 { "locked".to_owned() } else { index.to_string() };
        let (store, commit) = (store.clone(), event(&key, sequence));
        (key, tokio::spawn(async move { store.actors.commit(&commit).await }))
    };
    (0..100).map(commit).collect()
}

#[tokio::test]
async fn a_silo_that_remembers_what_another_one_has_changed_since_finds_out() {
    let database = Database::new().await;
    let (ours, other) = (open(&database.url("")).await, open(&database.url("")).await);
    for sequence in 1..=2 {
        ours.actors.commit(&event("a", sequence)).await.unwrap();
        ours.actors.commit(&event("b", sequence)).await.unwrap();
    }
    let seen = Some(ETag { epoch: Epoch(1), sequence: 2 });
    let mut later = event("a", 3);
    later.fence = Fence { seen, epoch: Epoch(2), sequence: 1 };
    other.actors.commit(&later).await.unwrap();
    let error = ours.actors.commit(&event("a", 3)).await.unwrap_err();
    let fenced = |conflict: &Conflict| matches!(conflict, Conflict::Fence { stored: Epoch(2), .. });
    assert!(matches!(&error, StoreError::Conflict(conflict) if fenced(conflict)), "{error:?}");
    execute(&mut connect(&database).await, "DELETE FROM quark_actor WHERE actor_key = 'b'").await;
    let error = ours.actors.commit(&event("b", 3)).await.unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error:?}");
    assert_eq!((events(&ours, "a").await, events(&ours, "b").await), (3, 2));
}

#[tokio::test]
async fn a_row_that_somebody_locks_keeps_back_its_own_actor_only() {
    let database = Database::new().await;
    // One task writes, so that all go into few batches. It waits for a lock for longer than this test lasts.
    let store = open(&database.url("&pool=2&timeout_ms=100000")).await;
    let lock_row = "BEGIN; SELECT * FROM quark_actor WHERE actor_key = 'locked' FOR UPDATE";
    let make_row = "BEGIN; INSERT INTO quark_actor VALUES ('t', 'locked', 9, 9)";
    for (sequence, lock) in [(1, make_row), (2, lock_row)] {
        let mut other = connect(&database).await;
        execute(&mut other, lock).await;
        let mut locked = None;
        for (key, commit) in hundred(&store, sequence) {
            if key == "locked" {
                locked = Some(commit);
            } else {
                commit.await.unwrap().unwrap_or_else(|error| panic!("{key}: {error}"));
            }
        }
        execute(&mut other, "ROLLBACK").await;
        locked.unwrap().await.unwrap().expect("it goes through when the lock is gone");
        assert_eq!(events(&store, "locked").await, usize::try_from(sequence).unwrap());
    }
}

#[tokio::test]
async fn a_row_that_somebody_keeps_locked_fails_its_own_actor_only() {
    let database = Database::new().await;
    let store = open(&database.url("&pool=2&timeout_ms=2000")).await;
    store.actors.commit(&event("locked", 1)).await.unwrap();
    let mut other = connect(&database).await;
    execute(&mut other, "BEGIN; SELECT * FROM quark_actor FOR UPDATE").await;
    let mut of_locked = None;
    for (key, commit) in hundred(&store, 1) {
        match commit.await.unwrap() {
            // Its first commit, sent again, waits like any other.
            Err(error) if key == "locked" => of_locked = Some(error),
            other => other.unwrap_or_else(|error| panic!("{key}: {error}")),
        }
    }
    let error = of_locked.expect("the lock is kept");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Safe));
    execute(&mut other, "ROLLBACK").await;
    store.actors.commit(&event("locked", 2)).await.unwrap();
}

#[tokio::test]
async fn actors_that_another_silo_keeps_half_made_keep_back_no_others() {
    let database = Database::new().await;
    // One task writes, so that all go into few batches.
    let store = open(&database.url("&pool=2&timeout_ms=10000")).await;
    let mut other = connect(&database).await;
    let make = "BEGIN; INSERT INTO quark_actor SELECT 't', 'made ' || i, 9, 9 FROM generate_series(1, 3) i";
    execute(&mut other, make).await;
    let commit = |key: String| {
        let (store, commit) = (store.clone(), event(&key, 1));
        tokio::spawn(async move { store.actors.commit(&commit).await })
    };
    let half_made: Vec<_> = (1..=3).map(|index| commit(format!("made {index}"))).collect();
    let innocent: Vec<_> = (0..10).map(|index| commit(index.to_string())).collect();
    for commit in innocent {
        commit.await.unwrap().expect("nobody else has this actor");
    }
    // Also what comes once they are held.
    commit("late".into()).await.unwrap().expect("nobody else has this actor");
    assert!(half_made.iter().all(|commit| !commit.is_finished()), "they wait for the other silo");
    execute(&mut other, "ROLLBACK").await;
    for commit in half_made {
        commit.await.unwrap().expect("it goes through when the other silo gives up");
    }
}

#[tokio::test]
async fn a_table_that_somebody_locks_ends_in_errors_and_is_used_again() {
    let database = Database::new().await;
    let store = open(&database.url("&pool=2&timeout_ms=1000")).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    let mut other = connect(&database).await;
    execute(&mut other, "BEGIN; LOCK TABLE quark_event IN SHARE MODE").await;
    for (key, commit) in hundred(&store, 1) {
        let error = commit.await.unwrap().expect_err(&key);
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
    execute(&mut other, "ROLLBACK").await;
    for (key, commit) in hundred(&store, 1) {
        commit.await.unwrap().unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

#[tokio::test]
async fn a_lock_that_somebody_keeps_ends_in_an_error() {
    let database = Database::new().await;
    let store = open(&database.url("&timeout_ms=500")).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    let mut other = connect(&database).await;
    execute(&mut other, "BEGIN; SELECT * FROM quark_actor FOR UPDATE").await;
    let error = store.actors.commit(&event("a", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    execute(&mut other, "ROLLBACK").await;
    store.actors.commit(&event("a", 2)).await.unwrap();
}

#[tokio::test]
async fn a_feed_shows_nothing_behind_which_an_older_transaction_may_still_commit() {
    let database = Database::new().await;
    let store = open(&database.url("")).await;
    let mut older = connect(&database).await;
    execute(&mut older, "BEGIN; SELECT pg_current_xact_id()").await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    let page = store.actors.feed("t", "j", &FeedPosition::default(), 10).await.unwrap();
    assert!(page.events.is_empty());
    execute(&mut older, "COMMIT").await;
    // Others that share the server may hold it up for a moment too.
    let mut position = page.next;
    loop {
        let page = store.actors.feed("t", "j", &position, 10).await.unwrap();
        position = page.next;
        if !page.events.is_empty() {
            assert_eq!(page.events.len(), 1);
            return;
        }
    }
}

#[tokio::test]
async fn a_place_in_the_outbox_passes_no_message_that_an_older_transaction_may_still_commit() {
    let database = Database::new().await;
    let store = open(&database.url("")).await;
    store.actors.commit(&send("a")).await.unwrap();
    let mut older = connect(&database).await;
    execute(&mut older, "BEGIN; SELECT pg_current_xact_id()").await;
    store.actors.commit(&send("b")).await.unwrap();
    // All that can be seen is there from the beginning, since that is read again.
    let page = store.actors.outbox(&OutboxPlace::default(), 1).await.unwrap();
    assert_eq!(page.messages[0].id.from, Address::new("t", "a"));
    assert_eq!(store.actors.outbox(&OutboxPlace::default(), 10).await.unwrap().messages.len(), 2);
    assert!(store.actors.outbox(&page.next, 10).await.unwrap().messages.is_empty());
    execute(&mut older, "COMMIT").await;
    // Others that share the server may hold it up for a moment too.
    while store.actors.outbox(&page.next, 10).await.unwrap().messages.is_empty() {}
}

/// Makes a message as another silo does, within the transaction that is open.
async fn send_within(connection: &mut PgConnection, key: &str) {
    let insert = "INSERT INTO quark_outbox (era, actor_type, actor_key, epoch, sequence, message_index, time, to_type, \
                  to_key, method, format, version, value_text) \
                  SELECT max(began), 't', $1, 1, 1, 0, 0, 't', 'to', 'm', 'json', 1, '[]' FROM quark_era";
    sqlx::query(insert).bind(key).execute(connection).await.expect("a message");
}

/// Whose messages come after a place, up to that of `last`.
async fn senders(store: &Store, mut place: OutboxPlace, last: &str) -> Vec<String> {
    let mut found = Vec::new();
    while found.last().is_none_or(|key| key != last) {
        let page = store.actors.outbox(&place, 10).await.unwrap();
        found.extend(page.messages.iter().map(|message| message.id.from.key.to_string()));
        place = page.next;
    }
    found
}

#[tokio::test]
async fn a_place_in_the_outbox_passes_no_message_of_a_younger_transaction_with_a_smaller_number() {
    let database = Database::new().await;
    let store = open(&database.url("")).await;
    let start = store.actors.outbox(&OutboxPlace::default(), 10).await.unwrap().next;
    let (mut older, mut younger) = (connect(&database).await, connect(&database).await);
    execute(&mut older, "BEGIN; SELECT pg_current_xact_id()").await;
    execute(&mut younger, "BEGIN; SELECT pg_current_xact_id()").await;
    send_within(&mut younger, "younger").await;
    send_within(&mut older, "older").await;
    execute(&mut older, "COMMIT").await;
    let mut page = store.actors.outbox(&start, 10).await.unwrap();
    // Others that share the server may hold it up for a moment.
    while page.messages.is_empty() {
        page = store.actors.outbox(&page.next, 10).await.unwrap();
    }
    assert_eq!(page.messages[0].id.from, Address::new("t", "older"));
    execute(&mut younger, "COMMIT").await;
    store.actors.commit(&send("last")).await.unwrap();
    assert_eq!(senders(&store, page.next, "last").await, ["younger", "last"]);
}

#[tokio::test]
async fn what_is_first_shown_early_is_not_shown_again_and_passes_no_message_of_an_older_transaction() {
    let database = Database::new().await;
    let store = open(&database.url("")).await;
    let mut older = connect(&database).await;
    execute(&mut older, "BEGIN").await;
    send_within(&mut older, "older").await;
    store.actors.commit(&send("early")).await.unwrap();
    let page = store.actors.outbox(&OutboxPlace::default(), 10).await.unwrap();
    assert_eq!(page.messages[0].id.from, Address::new("t", "early"));
    execute(&mut older, "COMMIT").await;
    store.actors.commit(&send("last")).await.unwrap();
    assert_eq!(senders(&store, page.next, "last").await, ["older", "last"]);
}

#[tokio::test]
async fn an_event_never_gets_an_older_transaction_than_the_one_before_it() {
    let database = Database::new().await;
    let store = open(&database.url("")).await;
    store.actors.commit(&event("a", 1)).await.unwrap();
    let mut other = connect(&database).await;
    // As if a younger transaction had appended while ours, which is older, waited for another actor's lock.
    execute(&mut other, "UPDATE quark_journal SET txid = pg_current_xact_id()::text::bigint + 2").await;
    store.actors.commit(&event("a", 2)).await.unwrap();
    let in_order = "SELECT (SELECT txid FROM quark_event WHERE sequence = 2) >= pg_current_xact_id()::text::bigint - 10 \
                    AND (SELECT txid FROM quark_event WHERE sequence = 2) = (SELECT txid FROM quark_journal)";
    let in_order: bool = sqlx::query_scalar(in_order).fetch_one(&mut other).await.unwrap();
    assert!(in_order);
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_before_it_is_sent() {
    let database = Database::new().await;
    let store = open(&database.url("")).await;
    let mut large = event("a", 1);
    large.appends[0].events[0].bytes = vec![b' '; (64 << 20) + 1];
    let error = store.actors.commit(&large).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
}
