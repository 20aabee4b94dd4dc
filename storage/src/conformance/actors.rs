//! States, and who may write them.

use futures_util::FutureExt as _;
use quark_runtime::store::{Append, Commit, Conflict, ETag, Encoded, Epoch, SlotWrite, StoreError};

use super::{
    Activation, Fixture, JOURNAL, SLOT, actor, append, commit, conflict, json, load, load_named, message_id,
    message_to, pending, state, state_named, write,
};

/// What the first commit wrote is there, with its ETag and its epoch.
pub async fn a_first_commit_is_read_back<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 7).await;
    commit(&store, &activation.next_state(SLOT, None, "{\"count\":1}")).await;
    let loaded = load(&store, &actor("a")).await;
    assert_eq!(loaded.last.map(|last| last.epoch), Some(Epoch(7)));
    let record = loaded.slots[0].as_ref().expect("the state is there");
    assert_eq!(record.etag, activation.etag());
    assert_eq!(record.value, json("{\"count\":1}"));
}

/// Nothing is known of an actor that never committed.
pub async fn an_actor_that_never_wrote_is_empty<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let loaded = load(&store, &actor("nobody")).await;
    assert_eq!(loaded.last, None);
    assert_eq!(loaded.slots, [None]);
    assert_eq!((loaded.journals[0].last, &loaded.journals[0].snapshot), (0, &None));
}

/// Answers stand in the order of the questions, with the gaps where nothing is.
pub async fn states_are_read_in_the_order_they_are_asked_for<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut first = activation.next();
    first.slots = vec![write("x", None, "1"), write("y", None, "2"), write("z", None, "3")];
    commit(&store, &first).await;
    let loaded = load_named(&store, &actor("a"), &["z", "none", "x"], &[]).await;
    let texts: Vec<_> =
        loaded.slots.iter().map(|slot| slot.as_ref().map(|slot| slot.value.bytes.as_slice())).collect();
    assert_eq!(texts, [Some(&b"3"[..]), None, Some(&b"1"[..])]);
}

/// One commit writes several states; those that it does not name stay.
pub async fn several_states_are_written_at_once<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut first = activation.next();
    first.slots = vec![write("x", None, "1"), write("y", None, "2"), write("z", None, "3")];
    commit(&store, &first).await;
    let written = activation.etag();
    let mut second = activation.next();
    second.slots = vec![write("x", Some(written), "10"), write("z", Some(written), "30")];
    commit(&store, &second).await;
    for (name, text) in [("x", "10"), ("y", "2"), ("z", "30")] {
        assert_eq!(state_named(&store, &actor("a"), name).await.as_deref(), Some(text), "state {name}");
    }
}

/// A cleared state is `None`, its actor's epoch stays, and the next write expects nothing.
pub async fn a_cleared_state_is_gone_and_may_be_written_again<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &activation.next_state(SLOT, None, "1")).await;
    let expected = Some(activation.etag());
    let mut clear = activation.next();
    clear.slots.push(SlotWrite { name: SLOT.into(), expected, value: None });
    commit(&store, &clear).await;
    assert_eq!(state(&store, &actor("a")).await, None);
    assert_eq!(load(&store, &actor("a")).await.last.map(|last| last.epoch), Some(Epoch(1)));
    commit(&store, &activation.next_state(SLOT, None, "3")).await;
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("3"));
}

/// Each write names the ETag of the one before.
pub async fn a_state_takes_its_next_value_by_its_etag<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut expected = None;
    for round in 1..=10 {
        commit(&store, &activation.next_state(SLOT, expected, &round.to_string())).await;
        expected = Some(activation.etag());
    }
    let loaded = load(&store, &actor("a")).await;
    assert_eq!(loaded.slots[0].as_ref().map(|slot| slot.etag), expected);
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("10"));
}

/// A state that was written since is not overwritten.
pub async fn a_wrong_etag_is_a_conflict_and_writes_nothing<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &activation.next_state(SLOT, None, "1")).await;
    let old = activation.etag();
    commit(&store, &activation.next_state(SLOT, Some(old), "2")).await;
    let stale = activation.next_state(SLOT, Some(old), "3");
    let expected = Conflict::Slot { actor: actor("a"), name: SLOT.into() };
    assert_eq!(conflict(&store, &stale).await, expected);
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("2"));
    // Nor does a state that was cleared take a value for its old ETag.
    let missing = activation.next_state("other", Some(old), "3");
    assert!(matches!(conflict(&store, &missing).await, Conflict::Slot { .. }));
    assert_eq!(state_named(&store, &actor("a"), "other").await, None);
}

/// Expecting nothing is an expectation too.
pub async fn a_state_that_is_there_is_a_conflict_for_one_who_expects_none<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &activation.next_state(SLOT, None, "1")).await;
    let again = activation.next_state(SLOT, None, "2");
    assert!(matches!(conflict(&store, &again).await, Conflict::Slot { .. }));
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("1"));
}

/// Of two activations that loaded the same past, whoever commits first goes on; the other's epoch does not matter.
pub async fn the_first_commit_of_two_activations_wins<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut winner = Activation::load(&store, actor("a"), 1).await;
    let mut loser = Activation::load(&store, actor("a"), 2).await;
    commit(&store, &winner.next_state(SLOT, None, "winner")).await;
    let kept_out = conflict(&store, &loser.next_state("another", None, "loser")).await;
    assert_eq!(kept_out, Conflict::Fence { actor: actor("a"), stored: Epoch(1) });
    let expected = Some(winner.etag());
    commit(&store, &winner.next_state(SLOT, expected, "winner again")).await;
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("winner again"));
    assert_eq!(state_named(&store, &actor("a"), "another").await, None);
}

/// Once a later activation has committed, the earlier one cannot, also with the right ETag.
pub async fn a_later_activation_shuts_the_earlier_one_out<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut earlier = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &earlier.next_state(SLOT, None, "1")).await;
    let mut later = Activation::load(&store, actor("a"), 1).await;
    assert_eq!(later.fence.seen.map(|seen| seen.epoch), Some(Epoch(1)));
    let expected = Some(earlier.etag());
    commit(&store, &later.next_state(SLOT, expected, "2")).await;
    let expected = Some(later.etag());
    let kept_out = conflict(&store, &earlier.next_state(SLOT, expected, "3")).await;
    assert_eq!(kept_out, Conflict::Fence { actor: actor("a"), stored: Epoch(2) });
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("2"));
}

/// An activation decides by what it loaded, so its first commit goes in only if nothing was committed since, also by an
/// activation that had committed before.
pub async fn a_commit_of_an_earlier_activation_keeps_a_later_one_out<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut earlier = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &earlier.next_state(SLOT, None, "1")).await;
    let mut later = Activation::load(&store, actor("a"), 1).await;
    let expected = Some(earlier.etag());
    commit(&store, &earlier.next_state(SLOT, expected, "2")).await;
    // Another state, so that no ETag is in the way.
    let kept_out = conflict(&store, &later.next_state("another", None, "from a stale 1")).await;
    assert!(matches!(kept_out, Conflict::Fence { .. }));
    assert_eq!(state_named(&store, &actor("a"), "another").await, None);
}

/// The fence is the actor's: it does not matter that two activations touch different things.
pub async fn the_fence_holds_across_states_and_journals<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut winner = Activation::load(&store, actor("a"), 1).await;
    let mut of_journal = Activation::load(&store, actor("a"), 2).await;
    let mut of_outbox = Activation::load(&store, actor("a"), 3).await;
    commit(&store, &winner.next_state(SLOT, None, "1")).await;
    let event = of_journal.next_event(0, "event");
    assert!(matches!(conflict(&store, &event).await, Conflict::Fence { .. }));
    let mut message = of_outbox.next();
    message.outbox.push(message_to("b", "hello"));
    message.inbox.push(message_id("m"));
    assert!(matches!(conflict(&store, &message).await, Conflict::Fence { .. }));
    assert_eq!(load(&store, &actor("a")).await.journals[0].last, 0);
    assert_eq!(pending(&store, 10).await, []);
    assert_eq!(store.actors.has_received(&actor("a"), &message_id("m")).await, Ok(false));
}

/// To read needs no claim.
pub async fn an_activation_that_wrote_nothing_does_not_bar_another<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let _reader = Activation::load(&store, actor("a"), 9).await;
    let mut writer = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &writer.next_state(SLOT, None, "1")).await;
    assert_eq!(load(&store, &actor("a")).await.last.map(|last| last.epoch), Some(Epoch(1)));
}

/// A commit whose answer got lost is sent again: it is `Ok`, and everything in it is there once.
pub async fn a_commit_sent_again_is_answered_and_not_repeated<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    for round in 0..2_u64 {
        let mut whole = activation.next();
        whole.slots.push(write(if round == 0 { "x" } else { "y" }, None, "1"));
        whole.appends.push(append(JOURNAL, round, &["event"]));
        whole.outbox.push(message_to("b", "hello"));
        whole.inbox.push(message_id(&format!("m{round}")));
        for _ in 0..3 {
            commit(&store, &whole).await;
        }
    }
    assert_eq!(load(&store, &actor("a")).await.journals[0].last, 2);
    assert_eq!(store.actors.events(&actor("a"), JOURNAL, 0, 10).await.expect("events").len(), 2);
    assert_eq!(pending(&store, 10).await.len(), 2);
}

/// A commit from before the last one is not applied late.
pub async fn a_commit_that_was_overtaken_is_kept_out<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let first = activation.next_state(SLOT, None, "1");
    commit(&store, &first).await;
    let expected = Some(activation.etag());
    commit(&store, &activation.next_state(SLOT, expected, "2")).await;
    assert!(matches!(conflict(&store, &first).await, Conflict::Fence { .. }));
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("2"));
}

/// After a conflict the next commit may carry the same number.
pub async fn a_rejected_commit_does_not_use_its_number_up<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &activation.next_state(SLOT, None, "1")).await;
    let written = activation.etag();
    let rejected = activation.next_state(SLOT, None, "2");
    assert!(matches!(conflict(&store, &rejected).await, Conflict::Slot { .. }));
    let mut again = Commit::new(rejected.actor.clone(), rejected.fence, rejected.time);
    again.slots.push(write(SLOT, Some(written), "3"));
    commit(&store, &again).await;
    assert_eq!(state(&store, &actor("a")).await.as_deref(), Some("3"));
}

/// One who has committed and finds nothing at all is told so, instead of beginning anew unknowingly.
pub async fn a_store_without_the_actor_says_that_it_is_lost<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut of_another_store = Activation::load(&store, actor("a"), 2).await;
    of_another_store.fence.seen = Some(ETag { epoch: Epoch(1), sequence: 1 });
    let lost = store.actors.commit(&of_another_store.next_state(SLOT, None, "1")).await;
    assert!(matches!(lost, Err(StoreError::Lost { .. })), "{lost:?}");
    let mut second = Activation::load(&store, actor("a"), 1).await;
    second.fence.sequence = 1;
    let lost = store.actors.commit(&second.next_state(SLOT, None, "1")).await;
    assert!(matches!(lost, Err(StoreError::Lost { .. })), "{lost:?}");
    assert_eq!(load(&store, &actor("a")).await.last, None);
}

/// The last expectation fails: of states, events, snapshots, messages and receipts nothing is there.
pub async fn a_failed_expectation_leaves_nothing_behind<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut first = activation.next();
    first.inbox.push(message_id("known"));
    commit(&store, &first).await;
    let mut doomed = activation.next();
    doomed.slots = vec![write("x", None, "1"), write("y", None, "2")];
    doomed.appends = vec![append(JOURNAL, 0, &["one", "two"])];
    doomed.appends[0].snapshot = Some(json("folded"));
    doomed.outbox = vec![message_to("b", "hello"), message_to("c", "hello")];
    doomed.inbox = vec![message_id("new"), message_id("known")];
    let expected = Conflict::Inbox { actor: actor("a"), message: message_id("known") };
    assert_eq!(conflict(&store, &doomed).await, expected);
    let loaded = load_named(&store, &actor("a"), &["x", "y"], &[JOURNAL]).await;
    assert_eq!(loaded.slots, [None, None]);
    assert_eq!((loaded.journals[0].last, &loaded.journals[0].snapshot), (0, &None));
    assert_eq!(store.actors.events(&actor("a"), JOURNAL, 0, 10).await, Ok(Vec::new()));
    assert_eq!(pending(&store, 10).await, []);
    assert_eq!(store.actors.has_received(&actor("a"), &message_id("new")).await, Ok(false));
    // And the number is free for a commit that keeps to what is there.
    let mut good = Commit::new(doomed.actor.clone(), doomed.fence, doomed.time);
    good.slots = doomed.slots.clone();
    good.inbox = vec![message_id("new")];
    commit(&store, &good).await;
    assert_eq!(store.actors.has_received(&actor("a"), &message_id("new")).await, Ok(true));
}

/// Fence, states, journals, inbox; within each, the order of the commit.
pub async fn expectations_fail_in_order<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut first = activation.next();
    first.slots = vec![write("x", None, "1"), write("y", None, "1")];
    first.appends = vec![append("j", 0, &["1"]), append("k", 0, &["1"])];
    first.inbox = vec![message_id("m"), message_id("n")];
    commit(&store, &first).await;
    let mut wrong = activation.next();
    wrong.slots = vec![write("fine", None, "2"), write("y", None, "2"), write("x", None, "2")];
    wrong.appends = vec![append("fine", 0, &["1"]), append("k", 0, &["1"]), append("j", 5, &["1"])];
    wrong.inbox = vec![message_id("fine"), message_id("n"), message_id("m")];
    assert_eq!(conflict(&store, &wrong).await, Conflict::Slot { actor: actor("a"), name: "y".into() });
    wrong.slots.truncate(1);
    let expected = Conflict::Journal { actor: actor("a"), journal: "k".into(), last: 1 };
    assert_eq!(conflict(&store, &wrong).await, expected);
    wrong.appends.truncate(1);
    let expected = Conflict::Inbox { actor: actor("a"), message: message_id("n") };
    assert_eq!(conflict(&store, &wrong).await, expected);
    wrong.inbox.truncate(1);
    commit(&store, &wrong).await;
}

/// Text, any bytes, and nothing at all.
pub async fn values_come_back_byte_by_byte<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let every_byte: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let values = [
        json("{\"ä\": [1, 2.5, null, \"\\u0000\\n\", \"🦀\"]}"),
        Encoded { format: "postcard".into(), version: u32::MAX, bytes: every_byte.clone() },
        Encoded { format: "postcard".into(), version: 0, bytes: Vec::new() },
        // Not what JSON should be, and yet what was given.
        Encoded { format: "json".into(), version: 1, bytes: every_byte },
        Encoded { format: "json".into(), version: 1, bytes: b"nul \0 inside".to_vec() },
    ];
    for (index, value) in values.into_iter().enumerate() {
        let address = actor(&format!("value {index}"));
        let mut activation = Activation::load(&store, address.clone(), 1).await;
        let mut all = activation.next();
        all.slots.push(SlotWrite { name: SLOT.into(), expected: None, value: Some(value.clone()) });
        let (journal, snapshot) = (JOURNAL.into(), Some(value.clone()));
        all.appends.push(Append { journal, expected: 0, events: vec![value.clone()], snapshot });
        commit(&store, &all).await;
        let loaded = load(&store, &address).await;
        assert_eq!(loaded.slots[0].as_ref().map(|slot| &slot.value), Some(&value), "state {index}");
        let snapshot = loaded.journals[0].snapshot.as_ref().map(|snapshot| &snapshot.value);
        assert_eq!(snapshot, Some(&value), "snapshot {index}");
        let events = store.actors.events(&address, JOURNAL, 0, 10).await.expect("events");
        assert_eq!(events[0].value, value, "event {index}");
    }
}

/// What another version of the runtime wrote is not for a store to judge.
pub async fn unknown_formats_are_kept<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let value = Encoded { format: "format-of-2031.x".into(), version: 9, bytes: vec![1, 0, 255] };
    let mut whole = activation.next();
    whole.slots.push(SlotWrite { name: SLOT.into(), expected: None, value: Some(value.clone()) });
    commit(&store, &whole).await;
    let loaded = load(&store, &actor("a")).await;
    assert_eq!(loaded.slots[0].as_ref().map(|slot| &slot.value), Some(&value));
}

/// A megabyte, as text and as bytes.
pub async fn large_values_are_kept<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let text = json(&format!("\"{}\"", "x".repeat(1 << 20)));
    let bytes: Vec<u8> =
        (0..1_u32 << 20).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let bytes = Encoded { format: "postcard".into(), version: 1, bytes };
    let mut whole = activation.next();
    whole.slots = vec![
        SlotWrite { name: "text".into(), expected: None, value: Some(text.clone()) },
        SlotWrite { name: "bytes".into(), expected: None, value: Some(bytes.clone()) },
    ];
    commit(&store, &whole).await;
    let loaded = load_named(&store, &actor("a"), &["text", "bytes"], &[]).await;
    let values: Vec<_> = loaded.slots.into_iter().flatten().map(|slot| slot.value).collect();
    // Not compared by `assert_eq`, which would print two megabytes.
    assert!(values == [text, bytes], "large values came back changed");
}

/// What was acknowledged is there for whoever connects next.
pub async fn commits_survive_a_new_connection<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut whole = activation.next_event(0, "event");
    whole.slots.push(write(SLOT, None, "1"));
    whole.outbox.push(message_to("b", "hello"));
    whole.inbox.push(message_id("m"));
    commit(&store, &whole).await;
    let again = fixture.open().await;
    drop(store);
    assert_eq!(state(&again, &actor("a")).await.as_deref(), Some("1"));
    assert_eq!(load(&again, &actor("a")).await.journals[0].last, 1);
    assert_eq!(pending(&again, 10).await.len(), 1);
    assert_eq!(again.actors.has_received(&actor("a"), &message_id("m")).await, Ok(true));
    // The activation goes on over the new connection.
    let expected = Some(activation.etag());
    commit(&again, &activation.next_state(SLOT, expected, "2")).await;
}

/// 64 tasks commit to 16 actors: each actor ends at the sum of what was acknowledged for it.
pub async fn acknowledged_commits_of_many_tasks_are_all_there<F: Fixture>() {
    const ACTORS: usize = 16;
    const TASKS: usize = 64;
    const ROUNDS: u64 = 8;
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activations = Vec::new();
    for index in 0..ACTORS {
        let activation = Activation::load(&store, actor(&format!("busy {index}")), 1).await;
        activations.push(std::sync::Arc::new(tokio::sync::Mutex::new((activation, 0_u64))));
    }
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, activation) = (store.clone(), activations[task % ACTORS].clone());
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    // One turn at a time, as the runtime has it.
                    let mut turn = activation.lock().await;
                    let (activation, count) = &mut *turn;
                    let expected = (*count > 0).then(|| activation.etag());
                    let mut whole = activation.next_state(SLOT, expected, &(*count + 1).to_string());
                    whole.appends.push(append(JOURNAL, *count, &["event"]));
                    commit(&store, &whole).await;
                    *count += 1;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task fails");
    }
    let each = ROUNDS * (TASKS / ACTORS) as u64;
    for index in 0..ACTORS {
        let address = actor(&format!("busy {index}"));
        assert_eq!(state(&store, &address).await, Some(each.to_string()));
        let events = store.actors.events(&address, JOURNAL, 0, 1000).await.expect("events");
        let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, (1..=each).collect::<Vec<_>>());
    }
}

/// 32 activations that loaded the same past commit at once.
pub async fn of_many_rivals_exactly_one_commits<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    for round in 0..4 {
        let mut attempts = Vec::new();
        for rival in 1..=32 {
            let mut rival = Activation::load(&store, actor("a"), rival).await;
            let name = ["x", "y", "z"][round % 3];
            let expected = load_named(&store, &actor("a"), &[name], &[]).await.slots.remove(0);
            attempts.push(rival.next_state(name, expected.map(|slot| slot.etag), "mine"));
        }
        let tasks = attempts.into_iter().map(|attempt| {
            let store = store.clone();
            tokio::spawn(async move { store.actors.commit(&attempt).await })
        });
        let tasks: Vec<_> = tasks.collect();
        let mut winners = 0;
        for task in tasks {
            match task.await.expect("no task fails") {
                Ok(()) => winners += 1,
                Err(StoreError::Conflict(_)) => (),
                Err(other) => panic!("expected a conflict, got {other:?}"),
            }
        }
        assert_eq!(winners, 1, "in round {round}");
    }
}

/// A caller may go away at any moment; the next one finds the store as it should be.
pub async fn a_dropped_commit_leaves_the_store_usable<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    for index in 0..20 {
        let address = actor(&format!("dropped {index}"));
        let mut activation = Activation::load(&store, address.clone(), 1).await;
        let mut whole = activation.next_state(SLOT, None, "1");
        whole.appends.push(append(JOURNAL, 0, &["event"]));
        {
            let mut running = store.actors.commit(&whole);
            // Polled a few times, so that it is dropped at another point each time.
            for _ in 0..index {
                if (&mut running).now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Sent again, it is in once, whether or not it was before.
        commit(&store, &whole).await;
        assert_eq!(state(&store, &address).await.as_deref(), Some("1"));
        assert_eq!(load(&store, &address).await.journals[0].last, 1);
    }
}
