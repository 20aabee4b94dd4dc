//! The servers also come in containers, where an engine runs (`cargo xtask images` makes their images).

use quark_base::Timestamp;
use quark_runtime::store::{Address, Commit, Epoch, Fence};
use quark_servers::{Server, StartError};

/// Keeps a commit in the container's store and finds it there.
async fn holds_a_store(server: Result<Option<Server>, StartError>) {
    let server = server.unwrap_or_else(|error| panic!("{error}"));
    let server = server.expect("this test needs an image: start Docker, then `cargo xtask images`");
    let store = quark_storage::open(&server.address().parse().unwrap()).await.unwrap();
    let fence = Fence { seen: None, epoch: Epoch(1), sequence: 1 };
    let commit = Commit::new(Address::new("t", "a"), fence, Timestamp::VIRTUAL_ORIGIN);
    store.actors.commit(&commit).await.unwrap();
    let loaded = store.actors.load(&commit.actor, &Default::default()).await.unwrap();
    assert_eq!(loaded.last.map(|last| last.epoch), Some(Epoch(1)));
}

#[tokio::test]
async fn container_of_postgres_holds_a_store() {
    holds_a_store(Server::postgres_container().await).await;
}

#[tokio::test]
async fn container_of_redis_holds_a_store() {
    holds_a_store(Server::redis_container().await).await;
}
