//! SQLite and PostgreSQL beside the plainest way to write as much: each write a statement that is its own commit.

use std::path::Path;
use std::time::{Duration, Instant};

use quark_servers::{Server, local};
use quark_storage::{StoreUrl, open};
use rusqlite::{Connection, params};
use sqlx::Executor as _;
use sqlx::postgres::PgPoolOptions;

use crate::{Kind, Options, measure};

/// The connections that the PostgreSQL store uses by default, so that the plain way gets as many.
const CONNECTIONS: u32 = 12;

pub(crate) async fn sqlite(options: &Options) {
    let folder = tempfile::tempdir().expect("a folder");
    println!("{} writers, states of {} bytes, WAL, synchronous=FULL", options.writers, options.bytes);
    let plain = plain_sqlite(&folder.path().join("plain.db"), options).expect("commits");
    println!("one commit per write, one connection: {plain:.0}/s");
    let url: StoreUrl =
        format!("sqlite://{}", folder.path().join("store.db").display()).parse().expect("a file");
    let store = open(&url).await.expect("a store");
    let rate = measure(&store, options, Kind::Update).await;
    println!("the store: {:.1} times as many", rate / plain);
}

/// Writes a second, each one a commit, from one connection with its statement prepared.
fn plain_sqlite(file: &Path, options: &Options) -> rusqlite::Result<f64> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    let table = "CREATE TABLE plain (actor TEXT PRIMARY KEY, etag INTEGER NOT NULL, value BLOB NOT NULL)";
    connection.execute_batch(table)?;
    let mut upsert = connection.prepare(
        "INSERT INTO plain VALUES (?1, 1, ?2) ON CONFLICT DO UPDATE SET etag = etag + 1, value = ?2",
    )?;
    let value = vec![b'x'; options.bytes];
    let (begun, mut writes) = (Instant::now(), 0u64);
    while begun.elapsed() < Duration::from_secs(options.seconds) {
        upsert.execute(params![format!("update-{}", writes % options.writers as u64), value])?;
        writes += 1;
    }
    Ok(writes as f64 / begun.elapsed().as_secs_f64())
}

pub(crate) async fn postgres(options: &Options) {
    // A server of its own that waits for the disk; those that tests share do not.
    let server = local::postgres(&["fsync=on", "full_page_writes=on"]).expect("a server");
    println!("{} writers, states of {} bytes", options.writers, options.bytes);
    let mut plain = Vec::new();
    for connections in [1, CONNECTIONS] {
        let rate = plain_postgres(&server, options, connections).await;
        println!("one statement per commit, {connections} connections: {rate:.0}/s");
        plain.push(rate);
    }
    let url: StoreUrl = server.address().parse().expect("an address");
    let store = open(&url).await.expect("a store");
    let rate = measure(&store, options, Kind::Update).await;
    println!("the store: {:.1} and {:.1} times as many", rate / plain[0], rate / plain[1]);
}

async fn plain_postgres(server: &Server, options: &Options, connections: u32) -> f64 {
    let pool = PgPoolOptions::new().max_connections(connections);
    let pool =
        pool.acquire_timeout(Duration::from_secs(60)).connect(server.address()).await.expect("a server");
    pool.execute("DROP TABLE IF EXISTS plain").await.expect("a statement");
    let table = "CREATE TABLE plain (actor TEXT PRIMARY KEY, etag BIGINT NOT NULL, value BYTEA NOT NULL)";
    pool.execute(table).await.expect("a table");
    let (begun, limit) = (Instant::now(), Duration::from_secs(options.seconds));
    let writers: Vec<_> = (0..options.writers)
        .map(|writer| {
            let (pool, value) = (pool.clone(), vec![b'x'; options.bytes]);
            tokio::spawn(async move {
                let mut writes = 0u64;
                while begun.elapsed() < limit {
                    let upsert = "INSERT INTO plain VALUES ($1, 1, $2) \
                                  ON CONFLICT (actor) DO UPDATE SET etag = plain.etag + 1, value = $2";
                    let write = sqlx::query(upsert).bind(format!("update-{writer}")).bind(&value);
                    write.execute(&pool).await.expect("a commit");
                    writes += 1;
                }
                writes
            })
        })
        .collect();
    let mut writes = 0;
    for writer in writers {
        writes += writer.await.expect("no writer fails");
    }
    let rate = writes as f64 / begun.elapsed().as_secs_f64();
    pool.execute("DROP TABLE plain").await.expect("a statement");
    pool.close().await;
    rate
}
