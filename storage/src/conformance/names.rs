//! Keys and names: all that are taken are kept apart, and what one store does not take, none does.

use futures_util::future::join;
use quark_runtime::store::{
    Address, Append, Encoded, Epoch, Fence, MessageId, OutboxMessage, SlotWrite, Wanted, names,
};

use super::{
    Activation, Fixture, JOURNAL, SLOT, TYPE, actor, append, commit, json, load, message_id, refused,
    state_named, write,
};

/// Keys, types and names with every character that some store's own syntax might trip over.
pub async fn odd_keys_and_names_are_kept_apart<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let long = "k".repeat(names::KEY_MAX - 1);
    let longer = format!("{long}k");
    let keys = [
        "", " ", "/", "//", "a/b", "a", "A", "b", ":", "a:b", "{}", "{a}", "{a", "a}", "%", "_", "*", "?",
        "[a]", "'", "\"", "\\", "\n", "\t", "ä", "a\u{308}", "🦀", "日本", "$1", "?1", "NULL", "#", ";",
        &long, &longer,
    ];
    let types = ["t", "t/a", "", "T", "{t}"];
    let addresses = || keys.iter().flat_map(|key| types.map(|of| Address::new(of, *key)));
    for (index, address) in addresses().enumerate() {
        let mut activation = Activation::load(&store, address.clone(), 1).await;
        let mut whole = activation.next();
        for name in ["", "a", "a:b", "ä/{x}"] {
            whole.slots.push(write(name, None, &format!("{index} {name}")));
            whole.appends.push(append(name, 0, &[&format!("event {index} {name}")]));
        }
        whole.inbox.push(message_id(&format!("{{{index}}}:/")));
        commit(&store, &whole).await;
    }
    for (index, address) in addresses().enumerate() {
        for name in ["", "a", "a:b", "ä/{x}"] {
            let text = state_named(&store, &address, name).await;
            assert_eq!(text, Some(format!("{index} {name}")), "state {name:?} of {address:?}");
            let events = store.actors.events(&address, name, 0, 10).await.expect("events");
            assert_eq!(events.len(), 1, "journal {name:?} of {address:?}");
            assert_eq!(events[0].value, json(&format!("event {index} {name}")));
        }
        let own = message_id(&format!("{{{index}}}:/"));
        let other = message_id(&format!("{{{}}}:/", index + 1));
        assert_eq!(store.actors.has_received(&address, &own).await, Ok(true), "{address:?}");
        assert_eq!(store.actors.has_received(&address, &other).await, Ok(false), "{address:?}");
    }
}

/// The longest names there may be are kept, all of them at once and of bytes that do not shrink.
pub async fn the_longest_names_are_kept<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let (key, name) = (noise(names::KEY_MAX), noise(names::NAME_MAX));
    let actor = Address::new(noise(names::ACTOR_TYPE_MAX), key.as_str());
    let mut activation = Activation::load(&store, actor.clone(), 1).await;
    let mut whole = activation.next();
    whole.slots.push(SlotWrite { name: name.clone().into(), expected: None, value: Some(json("1")) });
    let appends =
        Append { journal: name.clone().into(), expected: 0, events: vec![json("1")], snapshot: None };
    whole.appends.push(appends);
    whole.outbox.push(OutboxMessage { to: actor.clone(), method: name.clone().into(), body: json("1") });
    let message = message_id(&noise(MessageId::LENGTH_MAX));
    whole.inbox.push(message.clone());
    commit(&store, &whole).await;
    assert_eq!(store.actors.has_received(&actor, &message).await, Ok(true));
    assert_eq!(store.actors.events(&actor, &name, 0, 10).await.map(|events| events.len()), Ok(1));
}

/// A text of this many bytes that no compression makes shorter.
fn noise(bytes: usize) -> String {
    let mut state = 1u64;
    let letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap_or(0))
    };
    std::iter::repeat_with(letter).take(bytes).collect()
}

/// A name that some store does not take is refused by each, before anything is written; commits beside it go through.
pub async fn names_that_no_store_takes_are_refused<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let long = "n".repeat(names::NAME_MAX + 1);
    let addresses = [
        Address::new(TYPE, "a\0b"),
        Address::new(TYPE, "k".repeat(names::KEY_MAX + 1)),
        Address::new("t\0t", "a"),
        Address::new("t".repeat(names::ACTOR_TYPE_MAX + 1), "a"),
    ];
    let message = message_id("m");
    for address in &addresses {
        let nothing = Default::default();
        refused(address, store.actors.load(address, &nothing).await);
        refused(address, store.actors.events(address, JOURNAL, 0, 1).await);
        refused(address, store.actors.has_received(address, &message).await);
        let mut activation = Activation { actor: address.clone(), fence: FIRST };
        refused(address, store.actors.commit(&activation.next_state(SLOT, None, "1")).await);
        let mut message = Activation { actor: actor("sender"), fence: FIRST }.next();
        message.outbox.push(OutboxMessage { to: address.clone(), method: "m".into(), body: json("1") });
        refused(address, store.actors.commit(&message).await);
    }
    for name in ["a\0b", &long] {
        let name = || name.to_owned();
        let wanted = [
            Wanted { slots: vec![name().into()], journals: vec![] },
            Wanted { slots: vec![], journals: vec![name().into()] },
        ];
        for wanted in wanted {
            refused(&name(), store.actors.load(&actor("a"), &wanted).await);
        }
        refused(&name(), store.actors.events(&actor("a"), &name(), 0, 1).await);
        refused(&name(), store.actors.feed(TYPE, &name(), &Default::default(), 1).await);
        refused(&name(), store.actors.feed(&name(), JOURNAL, &Default::default(), 1).await);
        let empty = || Activation { actor: actor("a"), fence: FIRST }.next();
        let (mut state, mut journal, mut method, mut format) = (empty(), empty(), empty(), empty());
        state.slots.push(SlotWrite { name: name().into(), expected: None, value: Some(json("1")) });
        journal.appends.push(Append {
            journal: name().into(),
            expected: 0,
            events: vec![json("1")],
            snapshot: None,
        });
        method.outbox.push(OutboxMessage { to: actor("b"), method: name().into(), body: json("1") });
        let value = Encoded { format: name().into(), ..json("1") };
        format.slots.push(SlotWrite { name: SLOT.into(), expected: None, value: Some(value) });
        for bad in [state, journal, method, format] {
            // Both are on their way at once, so that a store may put them into one batch.
            let mut fine = Activation::load(&store, actor("fine"), 1).await;
            let fine = fine.next();
            let both = join(store.actors.commit(&bad), store.actors.commit(&fine));
            let (bad, fine) = both.await;
            refused(&name(), bad);
            assert_eq!(fine, Ok(()));
        }
    }
    assert_eq!(load(&store, &actor("a")).await.last, None, "nothing was written");
    assert_eq!(load(&store, &actor("sender")).await.last, None, "nothing was written");
}

/// The fence before an actor's first commit.
const FIRST: Fence = Fence { seen: None, epoch: Epoch(1), sequence: 0 };
