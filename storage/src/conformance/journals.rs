//! Journals of events, and the feeds made of them.

use std::collections::{HashMap, HashSet};

use quark_base::Timestamp;
use quark_runtime::store::{Append, Conflict, FeedEvent, FeedPosition, Snapshot, Store};

use super::{
    Activation, Fixture, JOURNAL, NOW, PATIENCE, TYPE, actor, append, commit, conflict, json, load,
    load_named,
};

/// Numbers, times and values.
pub async fn events_are_numbered_from_one_and_read_in_order<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut first = activation.next();
    first.appends.push(append(JOURNAL, 0, &["one", "two"]));
    commit(&store, &first).await;
    let mut second = activation.next();
    second.time = Timestamp(NOW.0 + 5);
    second.appends.push(append(JOURNAL, 2, &["three"]));
    commit(&store, &second).await;
    let events = store.actors.events(&actor("a"), JOURNAL, 0, 10).await.expect("events");
    let seen: Vec<_> =
        events.iter().map(|event| (event.sequence, event.time.0 - NOW.0, &event.value)).collect();
    assert_eq!(seen, [(1, 0, &json("one")), (2, 0, &json("two")), (3, 5, &json("three"))]);
    assert_eq!(load(&store, &actor("a")).await.journals[0].last, 3);
}

/// An append that expects another end than the journal's is a conflict that names the end.
pub async fn an_append_needs_the_last_sequence_number<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &activation.next_event(0, "one")).await;
    for wrong in [0, 2, 1_000_000] {
        let expected = Conflict::Journal { actor: actor("a"), journal: JOURNAL.into(), last: 1 };
        assert_eq!(conflict(&store, &activation.next_event(wrong, "no")).await, expected, "after {wrong}");
    }
    let mut unknown = activation.next();
    unknown.appends.push(append("unknown", 1, &["no"]));
    assert!(matches!(conflict(&store, &unknown).await, Conflict::Journal { last: 0, .. }));
    commit(&store, &activation.next_event(1, "two")).await;
    assert_eq!(store.actors.events(&actor("a"), JOURNAL, 0, 10).await.expect("events").len(), 2);
}

/// Page after page, and an empty one after the last event.
pub async fn events_are_read_in_pages<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let texts: Vec<String> = (1..=10).map(|number| number.to_string()).collect();
    let mut whole = activation.next();
    whole.appends.push(append(JOURNAL, 0, &texts.iter().map(String::as_str).collect::<Vec<_>>()));
    commit(&store, &whole).await;
    let mut pages = Vec::new();
    let mut after = 0;
    loop {
        let page = store.actors.events(&actor("a"), JOURNAL, after, 4).await.expect("events");
        let Some(last) = page.last() else { break };
        after = last.sequence;
        pages.push(page.iter().map(|event| event.sequence).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]);
    assert_eq!(store.actors.events(&actor("a"), "none", 0, 10).await, Ok(Vec::new()));
    assert_eq!(store.actors.events(&actor("none"), JOURNAL, 0, 10).await, Ok(Vec::new()));
}

/// There is one snapshot, the newest; the events before it stay.
pub async fn a_snapshot_is_replaced<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    for (round, text) in (0..).zip(["first", "second"]) {
        let mut whole = activation.next_event(round, "event");
        whole.appends[0].snapshot = Some(json(text));
        commit(&store, &whole).await;
        let head = load(&store, &actor("a")).await.journals.remove(0);
        assert_eq!(head.last, round + 1);
        assert_eq!(head.snapshot, Some(Snapshot { sequence: round + 1, value: json(text) }));
    }
    commit(&store, &activation.next_event(2, "event")).await;
    let head = load(&store, &actor("a")).await.journals.remove(0);
    assert_eq!((head.last, head.snapshot.map(|snapshot| snapshot.sequence)), (3, Some(2)));
    assert_eq!(store.actors.events(&actor("a"), JOURNAL, 0, 10).await.expect("events").len(), 3);
}

/// A snapshot of what is there already.
pub async fn a_snapshot_may_come_without_events<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    commit(&store, &activation.next_event(0, "event")).await;
    let mut whole = activation.next();
    let (journal, snapshot) = (JOURNAL.into(), Some(json("folded")));
    whole.appends.push(Append { journal, expected: 1, events: Vec::new(), snapshot });
    commit(&store, &whole).await;
    let head = load(&store, &actor("a")).await.journals.remove(0);
    assert_eq!((head.last, head.snapshot), (1, Some(Snapshot { sequence: 1, value: json("folded") })));
}

/// Two journals of one actor, in one commit, each with its own numbers.
pub async fn journals_of_an_actor_are_apart<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut whole = activation.next();
    whole.appends = vec![append("x", 0, &["x1", "x2"]), append("y", 0, &["y1"])];
    commit(&store, &whole).await;
    let mut one = activation.next();
    one.appends = vec![append("y", 1, &["y2"])];
    commit(&store, &one).await;
    let heads = load_named(&store, &actor("a"), &[], &["y", "none", "x"]).await.journals;
    assert_eq!(heads.iter().map(|head| head.last).collect::<Vec<_>>(), [2, 0, 2]);
    let events = store.actors.events(&actor("a"), "y", 0, 10).await.expect("events");
    assert_eq!(events.iter().map(|event| &event.value).collect::<Vec<_>>(), [&json("y1"), &json("y2")]);
}

/// Reads the feed from `after` on, page by page, until it has `count` events or more. A store may show an event only
/// when transactions that began before its commit have ended, also foreign ones.
async fn read_feed(
    store: &Store,
    journal: &str,
    after: &mut FeedPosition,
    limit: usize,
    count: usize,
) -> Vec<FeedEvent> {
    let mut all = Vec::new();
    let read = async {
        loop {
            let page = store.actors.feed(TYPE, journal, after, limit).await.expect("a feed");
            assert!(page.events.len() <= limit, "{} events in a page of {limit}", page.events.len());
            *after = page.next;
            if page.events.is_empty() && all.len() >= count {
                return;
            }
            all.extend(page.events);
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, read).await.is_ok();
    assert!(in_time, "only {} of {count} events came", all.len());
    all
}

/// All actors of the type and that journal, and no others.
pub async fn a_feed_has_the_events_of_all_actors_of_its_type<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    for (of, key) in [(TYPE, "a"), (TYPE, "b"), ("other", "a")] {
        let mut activation = Activation::load(&store, super::Address::new(of, key), 1).await;
        let mut whole = activation.next_event(0, &format!("{of} {key}"));
        whole.appends.push(append("another journal", 0, &["no"]));
        commit(&store, &whole).await;
    }
    let feed = read_feed(&store, JOURNAL, &mut FeedPosition::default(), 100, 2).await;
    let mut seen: Vec<_> =
        feed.iter().map(|event| (event.actor.clone(), event.event.value.clone())).collect();
    seen.sort_by_key(|(address, _)| address.clone());
    let expected = ["a", "b"].map(|key| (actor(key), json(&format!("{TYPE} {key}"))));
    assert_eq!(seen, expected);
    assert_eq!((feed[0].event.sequence, feed[0].event.time), (1, NOW));
    assert!(read_feed(&store, "none", &mut FeedPosition::default(), 100, 0).await.is_empty());
}

/// No page is longer than asked for, and together they have each event once.
pub async fn a_feed_is_read_in_pages<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    for key in 0..10 {
        let mut activation = Activation::load(&store, actor(&format!("{key}")), 1).await;
        let mut whole = activation.next();
        whole.appends.push(append(JOURNAL, 0, &["1", "2", "3"]));
        commit(&store, &whole).await;
    }
    for limit in [1, 2, 7, 1000] {
        let feed = read_feed(&store, JOURNAL, &mut FeedPosition::default(), limit, 30).await;
        let distinct: HashSet<_> =
            feed.iter().map(|event| (event.actor.clone(), event.event.sequence)).collect();
        assert_eq!((feed.len(), distinct.len()), (30, 30), "in pages of {limit}");
    }
}

/// A position that was kept, also by another connection, shows what came later and nothing else.
pub async fn a_feed_goes_on_where_it_was_left<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activation = Activation::load(&store, actor("a"), 1).await;
    let mut position = FeedPosition::default();
    assert!(read_feed(&store, JOURNAL, &mut position, 10, 0).await.is_empty());
    for round in 0..5 {
        commit(&store, &activation.next_event(round, &round.to_string())).await;
        let other = fixture.open().await;
        let news = read_feed(&other, JOURNAL, &mut position, 10, 1).await;
        assert_eq!(news.iter().map(|event| event.event.sequence).collect::<Vec<_>>(), [round + 1]);
        assert!(read_feed(&store, JOURNAL, &mut position, 10, 0).await.is_empty());
    }
    let mut whole = Vec::new();
    let mut begin = FeedPosition::default();
    whole.extend(read_feed(&store, JOURNAL, &mut begin, 2, 5).await);
    assert_eq!(whole.iter().map(|event| event.event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

/// An event comes after those before it in its journal, and each reading has the same order.
pub async fn a_feed_keeps_the_order_of_each_journal<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut activations = Vec::new();
    for key in ["a", "b", "c"] {
        activations.push(Activation::load(&store, actor(key), 1).await);
    }
    for round in 0..6 {
        for activation in &mut activations {
            let mut whole = activation.next();
            whole.appends.push(append(JOURNAL, round * 2, &["x", "y"]));
            commit(&store, &whole).await;
        }
    }
    let first = read_feed(&store, JOURNAL, &mut FeedPosition::default(), 5, 36).await;
    assert_in_order(&first);
    assert_eq!(first.len(), 36);
    let second = read_feed(&store, JOURNAL, &mut FeedPosition::default(), 11, 36).await;
    assert_eq!(first, second);
}

/// While 16 tasks commit, a reader follows: at the end it has seen every event, each once, and in order.
pub async fn a_feed_skips_nothing_under_concurrent_commits<F: Fixture>() {
    const TASKS: usize = 16;
    const ROUNDS: usize = 25;
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut activation = Activation::load(&store, actor(&format!("busy {task}")), 1).await;
                for round in 0..ROUNDS as u64 {
                    commit(&store, &activation.next_event(round, "event")).await;
                }
            })
        })
        .collect();
    let mut position = FeedPosition::default();
    let mut seen = Vec::new();
    while tasks.iter().any(|task| !task.is_finished()) {
        seen.extend(read_feed(&store, JOURNAL, &mut position, 10, 0).await);
    }
    let left = (TASKS * ROUNDS).saturating_sub(seen.len());
    seen.extend(read_feed(&store, JOURNAL, &mut position, 10, left).await);
    for task in tasks {
        task.await.expect("no task fails");
    }
    assert_eq!(seen.len(), TASKS * ROUNDS);
    assert_in_order(&seen);
}

/// Each journal's events are numbered without a gap.
fn assert_in_order(feed: &[FeedEvent]) {
    let mut last = HashMap::new();
    for event in feed {
        let last = last.entry(&event.actor).or_insert(0);
        assert_eq!(event.event.sequence, *last + 1, "after event {last} of {}", event.actor);
        *last += 1;
    }
}
