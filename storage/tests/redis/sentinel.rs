//! The store on a server that sentinels watch.

use quark_runtime::store::{HealthState, StoreError};

use super::faults::Writer;
use super::server::{Sentinel, Server, until};
use super::{open_url, refused};

async fn replication(server: &Server) -> String {
    let info = server.tell(&["INFO", "replication"]).await.unwrap_or_default();
    redis::from_redis_value(info).unwrap_or_default()
}

async fn start_sentinel(master: u16) -> Sentinel {
    let config = format!(
        "sentinel monitor chief 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds chief 500\n\
         sentinel failover-timeout chief 2000\n"
    );
    Sentinel::start(&config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let mut master = Server::start(&[]);
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {port}")]);
    until("the replica follows", || async { replication(&replica).await.contains("master_link_status:up") })
        .await;
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        sentinels.push(start_sentinel(master.port).await);
    }
    for sentinel in &sentinels {
        let sees_all = || async {
            let info = sentinel.tell(&["INFO", "sentinel"]).await.unwrap_or_default();
            let info: String = redis::from_redis_value(info).unwrap_or_default();
            info.contains("slaves=1,sentinels=3")
        };
        until("the sentinels know each other", sees_all).await;
    }
    let ports: Vec<_> = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
    let url = format!("redis+sentinel://{}/chief", ports.join(","));
    let store = open_url(&url).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    until("the replica has it", || async { row_is_there(&replica).await }).await;
    master.kill();
    writer.write_until_in(&store, "2").await;
    assert_eq!(writer.read(&store).await.as_deref(), Some("2"));
    assert!(replication(&replica).await.contains("role:master"));
    until("the store is up", || async { store.health.state() == HealthState::Up }).await;
    // One of the sentinels may be gone as well, once the others have heard of the new master.
    for sentinel in &sentinels {
        let knows = || async {
            let answer = sentinel.tell(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "chief"]).await;
            let answer = redis::from_redis_value::<(String, u16)>(answer.unwrap_or_default());
            answer.is_ok_and(|(_, port)| port == replica.port)
        };
        until("the sentinel knows the new master", knows).await;
    }
    sentinels[0].kill();
    let again = open_url(&url).await;
    writer.write(&again, "3").await.unwrap();
}

async fn row_is_there(server: &Server) -> bool {
    let keys = server.tell(&["KEYS", "*:a:t/a"]).await.unwrap_or_default();
    redis::from_redis_value::<Vec<String>>(keys).is_ok_and(|keys| keys.len() == 1)
}

#[tokio::test]
async fn a_master_that_no_sentinel_knows_is_unavailable() {
    let master = Server::start(&[]);
    let sentinel = start_sentinel(master.port).await;
    let url = format!("redis+sentinel://127.0.0.1:{}/unknown", sentinel.port);
    let error = refused(&url).await;
    assert!(
        matches!(&error, StoreError::Unavailable { cause, .. } if cause.contains("unknown")),
        "{error:?}"
    );
}
