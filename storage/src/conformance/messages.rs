//! Outboxes, and the inboxes that let a message take effect once.

use quark_base::Timestamp;
use quark_runtime::store::{Conflict, Encoded, OutboxId, OutboxMessage};

use super::{Activation, Fixture, NOW, SLOT, actor, commit, conflict, message_id, message_to, state};

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
    let pending = store.actors.outbox(1000).await.expect("an outbox");
    assert_eq!(pending.len(), 48);
    for activation in [&a, &b] {
        let of_one = pending.iter().filter(|message| message.id.from == activation.actor);
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
        let left = store.actors.outbox(10).await.expect("an outbox");
        assert_eq!(left.iter().map(|message| message.id.index).collect::<Vec<_>>(), [1]);
    }
    store.actors.relayed(&[]).await.expect("nothing to take out");
    store.actors.relayed(&[id(1)]).await.expect("the last message can be taken out");
    assert_eq!(store.actors.outbox(10).await, Ok(Vec::new()));
    // A commit that is sent again does not bring its messages back.
    commit(&store, &whole).await;
    assert_eq!(store.actors.outbox(10).await, Ok(Vec::new()));
}

/// At most so many, the oldest of each actor first.
pub async fn an_outbox_is_read_up_to_its_limit<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut whole = activation.next();
    whole.outbox = (0..20).map(|index| message_to("x", &index.to_string())).collect();
    commit(&store, &whole).await;
    let pending = store.actors.outbox(5).await.expect("an outbox");
    assert_eq!(pending.iter().map(|message| message.id.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let ids: Vec<_> = pending.into_iter().map(|message| message.id).collect();
    store.actors.relayed(&ids).await.expect("messages can be taken out");
    let pending = store.actors.outbox(5).await.expect("an outbox");
    assert_eq!(pending.iter().map(|message| message.id.index).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
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
    let pending = store.actors.outbox(10).await.expect("an outbox").remove(0);
    assert_eq!(pending.message, message);
    assert_eq!(pending.time, whole.time);
    assert_eq!(pending.id, OutboxId { from: activation.actor.clone(), commit: activation.etag(), index: 0 });
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
