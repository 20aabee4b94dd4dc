//! Outboxes, and the inboxes that let a message take effect once.

use quark_base::Timestamp;
use quark_runtime::store::{Conflict, Encoded, OutboxId, OutboxMessage, OutboxPlace, Store};

use super::{
    Activation, Fixture, NOW, PATIENCE, SLOT, actor, commit, conflict, message_id, message_to, pending, state,
};

/// Those of one actor, in the order of its commits and within each of them.
pub async fn messages_wait_in_the_order_of_their_commits<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut a = Activation::load(&store, actor("a"), 1).await;
    let mut b = Activation::load(&store, actor("b"), 1).await;
    for round in 0..12 {
        for activation in [&mut a, &mut b] {
            let mut whole = activation.next();
            whole.outbox = vec![message_to("x", &format!("{round} first")), message_to("y", "second")];
            commit(&store, &whole).await;
        }
    }
    let found = pending(&store, 1000).await;
    assert_eq!(found.len(), 48);
    for activation in [&a, &b] {
        let of_one = found.iter().filter(|message| message.id.from == activation.actor);
        let seen: Vec<_> = of_one.map(|message| (message.id.commit.sequence, message.id.index)).collect();
        let expected: Vec<_> = (1..=12).flat_map(|commit| [(commit, 0), (commit, 1)]).collect();
        assert_eq!(seen, expected, "of {}", activation.actor);
    }
}

/// Gone, the others stay; once more is no error, nor is one that never was.
pub async fn a_relayed_message_is_gone<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut whole = activation.next();
    whole.outbox = vec![message_to("x", "0"), message_to("x", "1"), message_to("x", "2")];
    commit(&store, &whole).await;
    let id = |index| OutboxId { from: actor("a"), commit: activation.etag(), index };
    let never = OutboxId { from: actor("never"), ..id(0) };
    for _ in 0..2 {
        store.actors.relayed(&[id(0), never.clone(), id(2)]).await.expect("messages can be taken out");
        let left = pending(&store, 10).await;
        assert_eq!(left.iter().map(|message| message.id.index).collect::<Vec<_>>(), [1]);
    }
    store.actors.relayed(&[]).await.expect("nothing to take out");
    store.actors.relayed(&[id(1)]).await.expect("the last message can be taken out");
    assert_eq!(pending(&store, 10).await, []);
    // A commit that is sent again does not bring its messages back.
    commit(&store, &whole).await;
    assert_eq!(pending(&store, 10).await, []);
}

/// At most so many, the oldest of each actor first.
pub async fn an_outbox_is_read_up_to_its_limit<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut whole = activation.next();
    whole.outbox = (0..20).map(|index| message_to("x", &index.to_string())).collect();
    commit(&store, &whole).await;
    let found = pending(&store, 5).await;
    assert_eq!(found.iter().map(|message| message.id.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let ids: Vec<_> = found.into_iter().map(|message| message.id).collect();
    store.actors.relayed(&ids).await.expect("messages can be taken out");
    let found = pending(&store, 5).await;
    assert_eq!(found.iter().map(|message| message.id.index).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
}

/// Reads on from a place, page by page, until `count` messages were there. A store may show one beyond the beginning only
/// some time after its commit was answered.
async fn read_on(
    store: &Store,
    mut place: OutboxPlace,
    limit: usize,
    count: usize,
) -> (Vec<OutboxId>, OutboxPlace) {
    let mut found = Vec::new();
    let read = async {
        while found.len() < count {
            let page = store.actors.outbox(&place, limit).await.expect("an outbox");
            assert!(page.messages.len() <= limit);
            found.extend(page.messages.into_iter().map(|message| message.id));
            place = page.next;
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, read).await.is_ok(), "{} of {count} messages", found.len());
    (found, place)
}

/// Those that were relayed meanwhile make no difference, and those that came since are on a later page.
pub async fn an_outbox_is_read_in_pages<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activations = Vec::new();
    for key in 0..10 {
        activations.push(Activation::load(&store, actor(&key.to_string()), 1).await);
    }
    let mut written = Vec::new();
    for _ in 0..3 {
        for activation in &mut activations {
            let mut whole = activation.next();
            whole.outbox = vec![message_to("x", "first"), message_to("y", "second")];
            commit(&store, &whole).await;
            let id = |index| OutboxId { from: activation.actor.clone(), commit: whole.fence.etag(), index };
            written.extend([0, 1].map(id));
        }
    }
    written.sort();
    let mut end = OutboxPlace::default();
    for limit in [1, 7, 60, 100] {
        let (mut read, place) = read_on(&store, OutboxPlace::default(), limit, written.len()).await;
        for activation in &activations {
            assert!(read.iter().filter(|id| id.from == activation.actor).is_sorted());
        }
        read.sort();
        assert_eq!(read, written, "in pages of {limit}");
        end = place;
    }
    // After a page of which nothing is left.
    let first = store.actors.outbox(&OutboxPlace::default(), 20).await.expect("an outbox");
    assert!(!first.is_last);
    let ids: Vec<_> = first.messages.into_iter().map(|message| message.id).collect();
    store.actors.relayed(&ids).await.expect("messages can be taken out");
    assert_eq!(read_on(&store, first.next, 100, 40).await.0.len(), 40);
    // After the last one.
    let none = store.actors.outbox(&end, 10).await.expect("an outbox");
    assert_eq!((none.messages.len(), none.is_last), (0, true));
    let mut whole = activations[3].next();
    whole.outbox = vec![message_to("x", "late")];
    commit(&store, &whole).await;
    let (late, _) = read_on(&store, none.next, 10, 1).await;
    assert_eq!(late, [OutboxId { from: actor("3"), commit: whole.fence.etag(), index: 0 }]);
}

/// Receiver, method, arguments, id and time.
pub async fn a_message_keeps_what_it_was_given<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("from/ä:{}"), 5).await;
    let message = OutboxMessage {
        to: super::Address::new("some.type/x", "to/🦀#1"),
        method: "do_it".into(),
        body: Encoded { format: "postcard".into(), version: 3, bytes: vec![0, 255, 7] },
    };
    let mut whole = activation.next();
    whole.time = Timestamp(NOW.0 + 77);
    whole.outbox.push(message.clone());
    commit(&store, &whole).await;
    let found = pending(&store, 10).await.remove(0);
    assert_eq!(found.message, message);
    assert_eq!(found.time, whole.time);
    assert_eq!(found.id, OutboxId { from: activation.actor.clone(), commit: activation.etag(), index: 0 });
}

/// The write of a message that was received is refused with all that is in it.
pub async fn a_message_takes_effect_once<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    assert_eq!(store.actors.has_received(&actor("a"), &message_id("m")).await, Ok(false));
    let mut first = activation.next_state(SLOT, None, "1");
    first.inbox.push(message_id("m"));
    commit(&store, &first).await;
    assert_eq!(store.actors.has_received(&actor("a"), &message_id("m")).await, Ok(true));
    let mut second = activation.next_state(SLOT, Some(activation.etag()), "2");
    second.slots[0].expected = Some(first.fence.etag());
    second.inbox = vec![message_id("n"), message_id("m")];
    let expected = Conflict::Inbox { actor: actor("a"), message: message_id("m") };
    assert_eq!(conflict(&store, &second).await, expected);
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("1"));
    assert_eq!(store.actors.has_received(&actor("a"), &message_id("n")).await, Ok(false));
    // Also a later activation knows it.
    let mut later = Activation::load(&store, actor("a"), 1).await;
    let mut third = later.next();
    third.inbox.push(message_id("m"));
    assert_eq!(conflict(&store, &third).await, expected);
}

/// One id may go to several actors.
pub async fn a_message_is_received_by_each_actor_for_itself<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let long = message_id(&"m".repeat(quark_runtime::store::MessageId::LENGTH_MAX));
    for key in ["a", "b"] {
        let mut activation = Activation::load(&store, actor(key), 1).await;
        let mut whole = activation.next();
        whole.inbox = vec![message_id("m"), long.clone()];
        commit(&store, &whole).await;
        assert_eq!(store.actors.has_received(&actor(key), &long).await, Ok(true));
    }
    assert_eq!(store.actors.has_received(&actor("c"), &message_id("m")).await, Ok(false));
}

/// What came before the given time is forgotten and may come again.
pub async fn old_receipts_are_forgotten_and_new_ones_kept<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    for key in ["a", "b"] {
        let mut activation = Activation::load(&store, actor(key), 1).await;
        for (name, age) in [("old", 0), ("young", 10)] {
            let mut whole = activation.next();
            whole.time = Timestamp(NOW.0 + age);
            whole.inbox.push(message_id(name));
            commit(&store, &whole).await;
        }
    }
    let limit = Timestamp(NOW.0 + 10);
    let mut forgotten = 0;
    loop {
        match store.actors.forget_received(limit).await.expect("receipts can be forgotten") {
            0 => break,
            count => forgotten += count,
        }
    }
    assert_eq!(forgotten, 2);
    for key in ["a", "b"] {
        assert_eq!(store.actors.has_received(&actor(key), &message_id("old")).await, Ok(false));
        assert_eq!(store.actors.has_received(&actor(key), &message_id("young")).await, Ok(true));
    }
    let mut later = Activation::load(&store, actor("a"), 1).await;
    let mut again = later.next();
    again.inbox.push(message_id("old"));
    commit(&store, &again).await;
}
