//! A PostgreSQL's tables go on where they are restored, and readers of feeds with them.

mod postgres_support;

use std::process::{Command, Stdio};

use postgres_support::Database;
use quark_base::Timestamp;
use quark_runtime::store::{Address, Append, Commit, Encoded, Epoch, FeedPosition, Fence, Store};
use quark_servers::{Server, local};
use sqlx::{Connection as _, Executor as _, PgConnection};

async fn append(store: &Store, key: &str, sequence: u64) {
    let fence = Fence { seen: None, epoch: Epoch(1), sequence };
    let mut commit = Commit::new(Address::new("t", key), fence, Timestamp::VIRTUAL_ORIGIN);
    let value = Encoded { format: "json".into(), version: 1, bytes: b"{}".to_vec() };
    let (journal, expected) = ("j".into(), sequence - 1);
    commit.appends.push(Append { journal, expected, events: vec![value], snapshot: None });
    store.actors.commit(&commit).await.unwrap_or_else(|error| panic!("event {sequence} of {key}: {error}"));
}

/// Reads this many events from a place on, page by page, and where the next one begins.
async fn read(store: &Store, mut position: FeedPosition, count: usize) -> (Vec<String>, FeedPosition) {
    let mut events = Vec::new();
    while events.len() < count {
        // Others that share the server may hold a feed up for a moment.
        let page = store.actors.feed("t", "j", &position, 2.min(count - events.len())).await.unwrap();
        events.extend(page.events.iter().map(|event| format!("{}{}", event.actor.key, event.event.sequence)));
        position = page.next;
    }
    (events, position)
}

async fn is_at_end(store: &Store, position: &FeedPosition) -> bool {
    store.actors.feed("t", "j", position, 10).await.unwrap().events.is_empty()
}

/// Copies a database as an administrator would: `pg_dump` there, `psql` here.
fn dump_and_restore(from: &Server, to: &Server) {
    let programs = local::postgres_programs().expect("PostgreSQL's programs");
    let mut dump = Command::new(programs.join("pg_dump"))
        .args(["--no-owner", "--dbname", from.address()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump");
    let mut restore = Command::new(programs.join("psql"));
    restore.args(["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", to.address()]);
    restore.stdin(dump.stdout.take().expect("a pipe")).stdout(Stdio::null());
    assert!(restore.status().expect("psql").success());
    assert!(dump.wait().expect("pg_dump ends").success());
}

async fn eras(database: &Database) -> i64 {
    let mut connection = PgConnection::connect(database.server.address()).await.unwrap();
    let count = format!("SELECT count(*) FROM {}.quark_era", database.schema());
    sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_restored_database_goes_on_and_its_feeds_skip_nothing() {
    let mut database = Database::on(local::postgres(&[]).unwrap_or_else(|error| panic!("{error}")));
    // The old server has counted further than the new one will for long.
    let count_on = "DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    let mut connection = PgConnection::connect(database.server.address()).await.unwrap();
    connection.execute(sqlx::raw_sql(count_on)).await.unwrap();
    drop(connection);
    let store = quark_storage::open(&database.url("")).await.unwrap();
    for sequence in 1..=3 {
        append(&store, "a", sequence).await;
        append(&store, "b", sequence).await;
    }
    let (events, half_way) = read(&store, FeedPosition::default(), 3).await;
    assert_eq!(events, ["a1", "b1", "a2"]);
    let (_, end) = read(&store, half_way.clone(), 3).await;
    drop(store);
    drop(quark_storage::open(&database.url("")).await.unwrap());
    assert_eq!(eras(&database).await, 1, "the same server is in the same era");

    // Twice, as the second restore is of a database that has eras already.
    for (round, sequence) in [(1, 4), (2, 5)] {
        let next = local::postgres(&[]).unwrap_or_else(|error| panic!("{error}"));
        dump_and_restore(&database.server, &next);
        database.server = next;
        let store = quark_storage::open(&database.url("")).await.unwrap();
        // What was there, and a journal that was not.
        append(&store, "a", sequence).await;
        append(&store, &format!("new{round}-"), 1).await;
        append(&store, "b", sequence).await;
        assert_eq!(eras(&database).await, 1 + round);
    }
    let store = quark_storage::open(&database.url("")).await.unwrap();
    let since = ["a4", "new1-1", "b4", "a5", "new2-1", "b5"];
    let (events, last) = read(&store, half_way, 9).await;
    assert_eq!(events[..3], ["b2", "a3", "b3"]);
    assert_eq!(events[3..], since);
    assert!(is_at_end(&store, &last).await);
    assert_eq!(read(&store, end, 6).await.0, since);
    assert_eq!(read(&store, FeedPosition::default(), 12).await.0[6..], since);
}

#[tokio::test]
async fn a_connection_that_outlives_its_servers_promotion_writes_in_a_new_era() {
    let database = Database::new().await;
    let store = quark_storage::open(&database.url("")).await.unwrap();
    // It leaves the pool a connection.
    assert!(is_at_end(&store, &FeedPosition::default()).await);
    // As if the server had been a standby until now, in the timeline of the server that it followed.
    let mut connection = PgConnection::connect(database.server.address()).await.unwrap();
    let before = format!("UPDATE {}.quark_era SET timeline = '00000000'", database.schema());
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(before))).await.unwrap();
    append(&store, "a", 1).await;
    assert_eq!(eras(&database).await, 2);
    let is_new = "SELECT era = (SELECT max(began) FROM SCHEMA.quark_era) FROM SCHEMA.quark_event";
    let is_new = sqlx::AssertSqlSafe(is_new.replace("SCHEMA", database.schema()));
    let is_new: bool = sqlx::query_scalar(is_new).fetch_one(&mut connection).await.unwrap();
    assert!(is_new, "the event is in the era in which it was written");
}
