//! The store on a cluster of three masters, while it is whole, while slots move, and when a master ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use futures_util::future::BoxFuture;
use quark_runtime::store::{HealthState, Store};
use quark_storage::conformance::{Fixture, actors, journals, messages, names, reminders, run, streams};

use super::faults::Writer;
use super::open_url;
use super::server::{Server, free_port, until};

/// How long a node of the cluster waits for another one before it takes it for gone.
const NODE_TIMEOUT_MS: &str = "1000";

struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Three masters with a third of the slots each, and so many replicas of the first one.
    async fn start(replicas: usize) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..3 + replicas {
            let bus = free_port().to_string();
            let settings = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                NODE_TIMEOUT_MS,
                "--cluster-port",
                &bus,
            ];
            nodes.push((Server::start(&settings), bus));
        }
        for (range, (node, _)) in [("0", "5461"), ("5462", "10922"), ("10923", "16383")].iter().zip(&nodes) {
            node.tell(&["CLUSTER", "ADDSLOTSRANGE", range.0, range.1]).await.unwrap();
        }
        for (node, bus) in &nodes[1..] {
            let port = node.port.to_string();
            nodes[0].0.tell(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await.unwrap();
        }
        let cluster = Self { nodes: nodes.into_iter().map(|(node, _)| node).collect() };
        cluster.until_all_agree().await;
        let master = cluster.id(0).await;
        for replica in &cluster.nodes[3..] {
            replica.tell(&["CLUSTER", "REPLICATE", &master]).await.unwrap();
            let linked = || async {
                let info = info(replica, &["INFO", "replication"]).await;
                info.contains("master_link_status:up")
            };
            until("the replica follows", linked).await;
        }
        cluster
    }

    async fn until_all_agree(&self) {
        for node in &self.nodes {
            let known = format!("cluster_known_nodes:{}", self.nodes.len());
            let agrees = || async {
                let info = info(node, &["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok") && info.contains(&known)
            };
            until("the cluster is whole", agrees).await;
        }
    }

    async fn id(&self, node: usize) -> String {
        info(&self.nodes[node], &["CLUSTER", "MYID"]).await
    }

    fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port, self.nodes[1].port)
    }
}

async fn info(server: &Server, command: &[&str]) -> String {
    redis::from_redis_value(server.tell(command).await.unwrap_or_default()).unwrap_or_default()
}

/// One cluster for all the cases of this process; each has keys of its own.
static SHARED: LazyLock<tokio::sync::Mutex<Option<Arc<Cluster>>>> = LazyLock::new(Default::default);

struct OnCluster {
    url: String,
}

impl Fixture for OnCluster {
    async fn set_up() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut shared = SHARED.lock().await;
        let cluster = match &*shared {
            Some(cluster) => cluster.clone(),
            None => shared.insert(Arc::new(Cluster::start(0).await)).clone(),
        };
        Self { url: format!("{}?prefix=case-{}", cluster.url(), NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    async fn open(&self) -> Store {
        open_url(&self.url).await
    }
}

macro_rules! cases {
    ($($part:ident::$case:ident)*) => {
        [$(Box::pin($part::$case::<OnCluster>()) as BoxFuture<'static, ()>),*]
    };
}

#[test]
fn a_cluster_keeps_the_promises() {
    run(async {
        let cases = cases![
            actors::several_states_are_written_at_once
            actors::a_wrong_etag_is_a_conflict_and_writes_nothing
            actors::the_fence_holds_across_states_and_journals
            actors::a_commit_sent_again_is_answered_and_not_repeated
            actors::a_failed_expectation_leaves_nothing_behind
            actors::commits_survive_a_new_connection
            actors::acknowledged_commits_of_many_tasks_are_all_there
            actors::of_many_rivals_exactly_one_commits
            journals::events_are_read_in_pages
            journals::a_snapshot_is_replaced
            journals::a_feed_is_read_in_pages
            journals::a_feed_goes_on_where_it_was_left
            journals::a_feed_keeps_the_order_of_each_journal
            journals::a_feed_skips_nothing_under_concurrent_commits
            messages::messages_wait_in_the_order_of_their_commits
            messages::a_relayed_message_is_gone
            messages::an_outbox_is_read_up_to_its_limit
            messages::old_receipts_are_forgotten_and_new_ones_kept
            names::odd_keys_and_names_are_kept_apart
            reminders::a_reminder_is_set_anew_in_place
            reminders::reminders_of_an_actor_come_by_name
            reminders::due_reminders_come_soonest_first_up_to_the_limit
            reminders::a_range_may_wrap_around
            reminders::rivals_advance_a_reminder_once
            streams::the_items_of_each_key_keep_their_order
            streams::what_is_not_acknowledged_comes_again_and_is_counted
            streams::a_group_is_sent_to_an_item
            streams::a_waiting_read_sees_an_append
            streams::readers_of_a_group_share_its_items
            streams::an_item_that_is_trimmed_is_not_waited_for
        ];
        for case in cases {
            case.await;
        }
        // The servers end with it; a static would keep them.
        SHARED.lock().await.take();
    });
}

/// The slot of an actor of [`Writer`], by the key of its row on the node that has it.
async fn row_of(cluster: &Cluster, writer: &Writer) -> (usize, String) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let pattern = format!("*:a:{}", writer.actor);
        let rows: Vec<String> =
            redis::from_redis_value(node.tell(&["KEYS", &pattern]).await.unwrap()).unwrap();
        if let Some(row) = rows.into_iter().next() {
            return (index, row);
        }
    }
    panic!("no node has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_may_move_while_it_is_written() {
    let cluster = Cluster::start(0).await;
    let store = open_url(&cluster.url()).await;
    let mut writer = Writer::new("a");
    writer.write(&store, "1").await.unwrap();
    let (from, row) = row_of(&cluster, &writer).await;
    let to = (from + 1) % 3;
    let slot: u16 =
        redis::from_redis_value(cluster.nodes[from].tell(&["CLUSTER", "KEYSLOT", &row]).await.unwrap())
            .unwrap();
    let slot = slot.to_string();
    let (from_id, to_id) = (cluster.id(from).await, cluster.id(to).await);
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    target.tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await.unwrap();
    source.tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await.unwrap();
    let port = target.port.to_string();
    let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS", &row];
    source.tell(&migrate).await.unwrap();
    // Now the old node sends us to the new one out of turn: ASK.
    writer.write(&store, "2").await.unwrap();
    assert_eq!(writer.read(&store).await.as_deref(), Some("2"));
    for node in [target, source] {
        node.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await.unwrap();
    }
    // And now for good: MOVED.
    writer.write(&store, "3").await.unwrap();
    assert_eq!(writer.read(&store).await.as_deref(), Some("3"));
    assert_eq!(row_of(&cluster, &writer).await.0, to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_ends_is_replaced_by_its_replica() {
    let mut cluster = Cluster::start(1).await;
    let store = open_url(&cluster.url()).await;
    // Enough that some are on each node.
    let mut writers: Vec<_> = (0..60).map(|index| Writer::new(&index.to_string())).collect();
    for writer in &mut writers {
        writer.write(&store, "1").await.unwrap();
    }
    let on_first: i64 = redis::from_redis_value(cluster.nodes[0].tell(&["DBSIZE"]).await.unwrap()).unwrap();
    assert!(on_first > 0);
    let replica = &cluster.nodes[3];
    let has_all = || async {
        let size = replica.tell(&["DBSIZE"]).await.ok();
        size.and_then(|size| redis::from_redis_value::<i64>(size).ok()) == Some(on_first)
    };
    until("the replica has what its master has", has_all).await;
    cluster.nodes[0].kill();
    for writer in &mut writers {
        writer.write_until_in(&store, "2").await;
        assert_eq!(writer.read(&store).await.as_deref(), Some("2"));
    }
    until("the store is up", || async { store.health.state() == HealthState::Up }).await;
}
