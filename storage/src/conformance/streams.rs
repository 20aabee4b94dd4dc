//! Durable streams, and the groups that read them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use quark_base::{Key, Timestamp};
use quark_runtime::store::{
    Delivered, Encoded, Group, NewItem, Position, ReadStart, Retention, Store, StoreError, StreamStore, names,
};

use super::{Fixture, NOW, PATIENCE, json, refused};

const NAMESPACE: &str = "orders/ä:{x}";
/// Longer than any case lasts: what was given does not come again.
const LONG: Duration = Duration::from_secs(3600);

struct Stream {
    store: Arc<dyn StreamStore>,
}

impl Stream {
    fn of(store: &Store) -> Self {
        Self { store: store.streams.clone().expect("a store that is tested for streams has them") }
    }

    /// Appends an item each text under one key, a millisecond apart.
    async fn append(&self, key: &str, texts: &[&str]) -> Vec<Position> {
        let item = |(age, text): (u64, &&str)| item(key, age, text);
        let items: Vec<_> = (0..).zip(texts).map(item).collect();
        let positions = self.store.append(NAMESPACE, &items).await.expect("items can be appended");
        assert_eq!(positions.len(), items.len(), "one position each item");
        positions
    }

    async fn open(&self, name: &str, start: ReadStart) -> Group {
        let group = Group { namespace: NAMESPACE.into(), name: name.into() };
        self.store.open_group(&group, start).await.expect("a group can be opened");
        group
    }

    /// What there is now, without waiting.
    async fn read(&self, group: &Group, limit: usize) -> Vec<Delivered> {
        self.read_visible(group, limit, LONG).await
    }

    async fn read_visible(&self, group: &Group, limit: usize, visibility: Duration) -> Vec<Delivered> {
        let items =
            self.store.read(group, limit, visibility, Duration::ZERO).await.expect("a group can be read");
        assert!(items.len() <= limit, "{} items of at most {limit}", items.len());
        items
    }

    /// All that the group has not been given. A store may give less at a time than there is, but not nothing.
    async fn read_all(&self, group: &Group) -> Vec<Delivered> {
        let mut all = Vec::new();
        loop {
            let items = self.read(group, 100).await;
            if items.is_empty() {
                return all;
            }
            all.extend(items);
        }
    }

    async fn acknowledge(&self, group: &Group, items: &[Delivered]) {
        let positions: Vec<_> = items.iter().map(|item| item.position).collect();
        self.store.acknowledge(group, &positions).await.expect("items can be acknowledged");
    }

    async fn seek(&self, group: &Group, to: ReadStart) {
        self.store.seek(group, to).await.expect("a group can be sent elsewhere");
    }

    async fn lag(&self, group: &Group) -> u64 {
        self.store.lag(group).await.expect("a group has a lag")
    }

    async fn trim(&self, keep: Retention) -> u64 {
        self.store.trim(NAMESPACE, keep).await.expect("a stream can be trimmed")
    }
}

fn item(key: &str, age: u64, text: &str) -> NewItem {
    NewItem { key: key.into(), time: Timestamp(NOW.0 + age), value: json(text) }
}

fn texts(items: &[Delivered]) -> Vec<String> {
    items.iter().map(|item| String::from_utf8_lossy(&item.value.bytes).into_owned()).collect()
}

/// Of one key, over several appends; positions grow.
pub async fn items_come_in_the_order_of_their_appends<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    let mut positions = stream.append("k", &["0", "1", "2"]).await;
    positions.extend(stream.append("k", &["3"]).await);
    positions.extend(stream.append("k", &["4", "5"]).await);
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    let items = stream.read_all(&group).await;
    assert_eq!(texts(&items), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(items.iter().map(|item| item.position).collect::<Vec<_>>(), positions);
    assert_eq!(stream.append("k", &[]).await, []);
}

/// Key, time, format, version and bytes; the first delivery is attempt 1.
pub async fn items_keep_what_they_were_given<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g/ä:{}", ReadStart::Oldest).await;
    let long = "k".repeat(1024);
    let keys = ["", "/", "a:b", "{}", "ä🦀", &long];
    let values = [
        json("{\"a\":1}"),
        Encoded { format: "postcard".into(), version: u32::MAX, bytes: (0..=255).collect() },
        Encoded { format: "format-of-2031.x".into(), version: 0, bytes: Vec::new() },
    ];
    let mut written = Vec::new();
    for (key, time) in keys.iter().zip(0..) {
        for value in &values {
            written.push(NewItem {
                key: Key::from(*key),
                time: Timestamp(NOW.0 + time),
                value: value.clone(),
            });
        }
    }
    let positions = stream.store.append(NAMESPACE, &written).await.expect("items can be appended");
    let items = stream.read_all(&group).await;
    assert_eq!(items.len(), written.len());
    let read: HashMap<Position, Delivered> = items.into_iter().map(|item| (item.position, item)).collect();
    for (position, item) in positions.into_iter().zip(written) {
        let NewItem { key, time, value } = item;
        assert_eq!(read.get(&position), Some(&Delivered { position, key, time, value, attempts: 1 }));
    }
}

/// Many keys in one append, mixed.
pub async fn the_items_of_each_key_keep_their_order<F: Fixture>() {
    const KEYS: usize = 20;
    const ROUNDS: usize = 10;
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    let all: Vec<_> = (0..KEYS * ROUNDS)
        .map(|index| item(&(index % KEYS).to_string(), 0, &(index / KEYS).to_string()))
        .collect();
    for part in all.chunks(33) {
        stream.store.append(NAMESPACE, part).await.expect("items can be appended");
    }
    let mut of_key: HashMap<Key, Vec<String>> = HashMap::new();
    for item in stream.read_all(&group).await {
        of_key.entry(item.key.clone()).or_default().extend(texts(&[item]));
    }
    let expected: Vec<String> = (0..ROUNDS).map(|round| round.to_string()).collect();
    assert_eq!(of_key.len(), KEYS);
    for (key, seen) in of_key {
        assert_eq!(seen, expected, "of key {key}");
    }
}

/// In parts, without one twice.
pub async fn a_read_gives_up_to_its_limit_and_each_item_once<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    stream.append("k", &["0", "1", "2", "3", "4"]).await;
    assert_eq!(texts(&stream.read(&group, 2).await), ["0", "1"]);
    assert_eq!(texts(&stream.read(&group, 2).await), ["2", "3"]);
    assert_eq!(texts(&stream.read(&group, 2).await), ["4"]);
    assert!(stream.read(&group, 2).await.is_empty());
}

/// Each gets everything; what one acknowledges is not gone for the other.
pub async fn groups_read_independently<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let (one, other) =
        (stream.open("one", ReadStart::Oldest).await, stream.open("other", ReadStart::Oldest).await);
    stream.append("k", &["0", "1"]).await;
    let items = stream.read_all(&one).await;
    stream.acknowledge(&one, &items).await;
    assert_eq!(texts(&stream.read_all(&other).await), ["0", "1"]);
    let namesake = Group { namespace: "another".into(), name: "one".into() };
    stream.store.open_group(&namesake, ReadStart::Oldest).await.expect("a group can be opened");
    assert!(stream.read_all(&namesake).await.is_empty());
}

/// Not even when everything that was given is visible again at once.
pub async fn what_is_acknowledged_never_comes_again<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    stream.append("k", &["0", "1", "2", "3"]).await;
    let items = stream.read_all(&group).await;
    stream.acknowledge(&group, &[items[0].clone(), items[2].clone()]).await;
    let again = stream.read_visible(&group, 10, Duration::ZERO).await;
    assert_eq!(texts(&again), ["1", "3"]);
    stream.acknowledge(&group, &again).await;
    assert!(stream.read_visible(&group, 10, Duration::ZERO).await.is_empty());
    // Once more, and of what never was, is no error.
    stream.acknowledge(&group, &items).await;
    let never = Position { partition: items[0].position.partition, major: 1 << 40, minor: 7 };
    stream.store.acknowledge(&group, &[never]).await.expect("an unknown position is no error");
    stream.store.acknowledge(&group, &[]).await.expect("no positions are no error");
}

/// After its visibility, with its attempts; not before.
pub async fn what_is_not_acknowledged_comes_again_and_is_counted<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    stream.append("k", &["0", "1"]).await;
    for attempt in 1..=4 {
        let items = stream.read_visible(&group, 10, Duration::ZERO).await;
        assert_eq!(texts(&items), ["0", "1"], "attempt {attempt}");
        assert_eq!(items.iter().map(|item| item.attempts).collect::<Vec<_>>(), [attempt, attempt]);
        assert!(stream.read(&group, 10).await.is_empty(), "they are with somebody");
    }
    assert_eq!(stream.lag(&group).await, 2);
}

/// Opening is for whoever comes; where it begins is for the first.
pub async fn a_group_opened_again_goes_on_where_it_is<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    stream.append("k", &["0", "1", "2"]).await;
    stream.read(&group, 1).await;
    for start in [ReadStart::Oldest, ReadStart::Newest] {
        stream.open("g", start).await;
    }
    assert_eq!(texts(&stream.read_all(&group).await), ["1", "2"]);
    assert_eq!(stream.lag(&group).await, 3);
}

/// What was there before is not for it.
pub async fn a_group_may_begin_after_the_newest<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    stream.append("k", &["old"]).await;
    let group = stream.open("g", ReadStart::Newest).await;
    assert_eq!(stream.lag(&group).await, 0);
    stream.append("k", &["new"]).await;
    assert_eq!(texts(&stream.read_all(&group).await), ["new"]);
}

/// By the time of the items, not of the store.
pub async fn a_group_may_begin_at_a_time<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    stream.append("k", &["0", "1", "2", "3"]).await;
    let group = stream.open("g", ReadStart::Time(Timestamp(NOW.0 + 2))).await;
    assert_eq!(texts(&stream.read_all(&group).await), ["2", "3"]);
    let late = stream.open("late", ReadStart::Time(Timestamp(NOW.0 + 1000))).await;
    assert!(stream.read_all(&late).await.is_empty());
}

/// Also what it had acknowledged.
pub async fn a_group_is_sent_back_to_the_oldest<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    stream.append("k", &["0", "1", "2"]).await;
    let items = stream.read_all(&group).await;
    stream.acknowledge(&group, &items[..2]).await;
    stream.seek(&group, ReadStart::Oldest).await;
    assert_eq!(stream.lag(&group).await, 3);
    let again = stream.read_all(&group).await;
    assert_eq!(texts(&again), ["0", "1", "2"]);
    assert_eq!(again.iter().map(|item| item.attempts).collect::<Vec<_>>(), [1, 1, 1], "as if it were new");
}

/// What it was given is forgotten.
pub async fn a_group_is_sent_to_the_newest<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    stream.append("k", &["0", "1", "2"]).await;
    stream.read(&group, 1).await;
    stream.seek(&group, ReadStart::Newest).await;
    assert_eq!(stream.lag(&group).await, 0);
    assert!(stream.read_visible(&group, 10, Duration::ZERO).await.is_empty());
    stream.append("k", &["3"]).await;
    assert_eq!(texts(&stream.read_all(&group).await), ["3"]);
}

/// Back or forth.
pub async fn a_group_is_sent_to_a_time<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    stream.append("k", &["0", "1", "2", "3"]).await;
    for (time, expected) in [(3, &["3"][..]), (1, &["1", "2", "3"]), (4, &[])] {
        stream.seek(&group, ReadStart::Time(Timestamp(NOW.0 + time))).await;
        assert_eq!(texts(&stream.read_all(&group).await), expected, "from {time}");
    }
}

/// The item itself comes first.
pub async fn a_group_is_sent_to_an_item<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    let positions = stream.append("k", &["0", "1", "2", "3"]).await;
    let items = stream.read_all(&group).await;
    stream.acknowledge(&group, &items).await;
    for index in [1, 3, 0] {
        stream.seek(&group, ReadStart::At(positions[index])).await;
        assert_eq!(stream.lag(&group).await, 4 - index as u64);
        assert_eq!(texts(&stream.read_all(&group).await), ["0", "1", "2", "3"][index..], "from item {index}");
    }
}

/// What it was not given, and what it was given and still has.
pub async fn a_group_is_behind_by_what_it_has_not_acknowledged<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    assert_eq!(stream.lag(&group).await, 0);
    stream.append("k", &["0", "1", "2", "3", "4"]).await;
    assert_eq!(stream.lag(&group).await, 5);
    let items = stream.read(&group, 3).await;
    assert_eq!(stream.lag(&group).await, 5);
    stream.acknowledge(&group, &items[..2]).await;
    assert_eq!(stream.lag(&group).await, 3);
}

/// A reader that waits is told.
pub async fn a_waiting_read_sees_an_append<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let stream = Stream::of(&store);
    let group = stream.open("g", ReadStart::Oldest).await;
    let reader = {
        let (store, group) = (stream.store.clone(), group.clone());
        tokio::spawn(async move { store.read(&group, 10, LONG, PATIENCE).await })
    };
    // Whether the reader waits already makes no difference to what it must see.
    tokio::task::yield_now().await;
    let other = Stream::of(&fixture.open().await);
    other.append("k", &["0"]).await;
    let items = reader.await.expect("no task fails").expect("a group can be read");
    assert_eq!(texts(&items), ["0"]);
}

/// And is no error.
pub async fn a_read_of_nothing_ends_after_its_wait<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    let read = stream.store.read(&group, 10, LONG, Duration::from_millis(5));
    let items =
        tokio::time::timeout(PATIENCE, read).await.expect("a read ends").expect("a group can be read");
    assert!(items.is_empty());
}

/// A store may keep somewhat more than asked.
pub async fn trimming_by_number_keeps_the_newest<F: Fixture>() {
    const ITEMS: u64 = 1000;
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let numbers: Vec<String> = (0..ITEMS).map(|number| number.to_string()).collect();
    stream.append("k", &numbers.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(stream.trim(Retention::default()).await, 0);
    let dropped = stream.trim(Retention { items: Some(10), since: None }).await;
    assert!((ITEMS / 2..=ITEMS - 10).contains(&dropped), "{dropped} were dropped");
    let group = stream.open("g", ReadStart::Oldest).await;
    assert_eq!(stream.lag(&group).await, ITEMS - dropped);
    let left = texts(&stream.read_all(&group).await);
    assert_eq!(left, numbers[usize::try_from(dropped).expect("small")..]);
    stream.append("k", &["after"]).await;
    assert_eq!(texts(&stream.read_all(&group).await), ["after"]);
}

/// By the time of the items.
pub async fn trimming_by_time_keeps_what_is_younger<F: Fixture>() {
    const ITEMS: u64 = 1000;
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let numbers: Vec<String> = (0..ITEMS).map(|number| number.to_string()).collect();
    stream.append("k", &numbers.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(stream.trim(Retention { items: None, since: Some(NOW) }).await, 0);
    let since = Some(Timestamp(NOW.0 + 990));
    let dropped = stream.trim(Retention { items: None, since }).await;
    assert!((ITEMS / 2..=990).contains(&dropped), "{dropped} were dropped");
    let group = stream.open("g", ReadStart::Oldest).await;
    let left = texts(&stream.read_all(&group).await);
    assert_eq!(left, numbers[usize::try_from(dropped).expect("small")..]);
}

/// A group that was given an item which is gone goes on without it.
pub async fn an_item_that_is_trimmed_is_not_waited_for<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    let numbers: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    stream.append("k", &numbers.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(texts(&stream.read(&group, 2).await), ["0", "1"]);
    let dropped = stream.trim(Retention { items: Some(10), since: None }).await;
    let again = stream.read_visible(&group, 2000, Duration::ZERO).await;
    assert_eq!(texts(&again), numbers[usize::try_from(dropped).expect("small")..]);
    stream.acknowledge(&group, &again).await;
    assert_eq!(stream.lag(&group).await, 0);
}

/// It is an error, so that nobody waits for a group that does not exist.
pub async fn a_group_that_was_never_opened_reads_nothing<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    stream.append("k", &["0"]).await;
    let group = Group { namespace: NAMESPACE.into(), name: "never".into() };
    let read = stream.store.read(&group, 1, LONG, Duration::ZERO).await;
    assert!(matches!(read, Err(StoreError::Unexpected { .. })), "{read:?}");
    let lag = stream.store.lag(&group).await;
    assert!(matches!(lag, Err(StoreError::Unexpected { .. })), "{lag:?}");
    let seek = stream.store.seek(&group, ReadStart::Oldest).await;
    assert!(matches!(seek, Err(StoreError::Unexpected { .. })), "{seek:?}");
}

/// Items, groups and what is given and not acknowledged.
pub async fn streams_survive_a_new_connection<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let stream = Stream::of(&store);
    let group = stream.open("g", ReadStart::Oldest).await;
    stream.append("k", &["0", "1", "2"]).await;
    let items = stream.read(&group, 2).await;
    stream.acknowledge(&group, &items[..1]).await;
    let again = Stream::of(&fixture.open().await);
    drop((store, stream));
    assert_eq!(again.lag(&group).await, 2);
    assert_eq!(texts(&again.read(&group, 10).await), ["2"]);
    let items = again.read_visible(&group, 10, Duration::ZERO).await;
    assert_eq!(texts(&items), ["1", "2"]);
    assert_eq!(items[0].attempts, 2);
}

/// Eight readers, over connections of their own: each item goes to one of them.
pub async fn readers_of_a_group_share_its_items<F: Fixture>() {
    let fixture = F::set_up().await;
    let stream = Stream::of(&fixture.open().await);
    let group = stream.open("g", ReadStart::Oldest).await;
    for key in 0..20 {
        stream.append(&key.to_string(), &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
    }
    let mut readers = Vec::new();
    for _ in 0..8 {
        let (stream, group) = (Stream::of(&fixture.open().await), group.clone());
        readers.push(tokio::spawn(async move {
            let mut all = Vec::new();
            loop {
                let items = stream.read(&group, 7).await;
                if items.is_empty() {
                    return all;
                }
                stream.acknowledge(&group, &items).await;
                all.extend(items);
            }
        }));
    }
    let mut positions = Vec::new();
    for reader in readers {
        positions.extend(reader.await.expect("no task fails").into_iter().map(|item| item.position));
    }
    // A reader may have left while another still held what it was about to give up; nothing is lost by that.
    positions.extend(stream.read_all(&group).await.into_iter().map(|item| item.position));
    let distinct: HashSet<_> = positions.iter().collect();
    assert_eq!((positions.len(), distinct.len()), (200, 200));
}

/// 16 tasks append at once, while a reader follows.
pub async fn concurrent_appends_are_all_there<F: Fixture>() {
    const TASKS: usize = 16;
    const ROUNDS: usize = 20;
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let stream = Stream::of(&store);
    let group = stream.open("g", ReadStart::Oldest).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let stream = Stream::of(&store);
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    stream.append(&task.to_string(), &[&round.to_string()]).await;
                }
            })
        })
        .collect();
    let mut of_key: HashMap<Key, Vec<String>> = HashMap::new();
    let mut count = 0;
    while count < TASKS * ROUNDS {
        let items = stream.store.read(&group, 50, LONG, PATIENCE).await.expect("a group can be read");
        assert!(!items.is_empty(), "only {count} items came");
        stream.acknowledge(&group, &items).await;
        count += items.len();
        for item in items {
            of_key.entry(item.key.clone()).or_default().extend(texts(&[item]));
        }
    }
    for task in tasks {
        task.await.expect("no task fails");
    }
    let expected: Vec<String> = (0..ROUNDS).map(|round| round.to_string()).collect();
    for (key, seen) in of_key {
        assert_eq!(seen, expected, "of key {key}");
    }
    assert_eq!(stream.lag(&group).await, 0);
}

/// A name that some store does not take is refused by each, before anything is written.
pub async fn names_that_no_store_takes_are_refused<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let stream = Stream::of(&store);
    let group = stream.open("g", ReadStart::Oldest).await;
    let fine = item("k", 0, "1");
    for text in ["a\0b".to_owned(), "n".repeat(names::KEY_MAX + 1)] {
        let bad = NewItem { key: text.as_str().into(), ..fine.clone() };
        refused(&bad, stream.store.append(NAMESPACE, &[fine.clone(), bad.clone()]).await);
        refused(&text, stream.store.append(&text, std::slice::from_ref(&fine)).await);
        for group in [
            Group { namespace: text.clone(), ..group.clone() },
            Group { name: text.clone(), ..group.clone() },
        ] {
            refused(&group, stream.store.open_group(&group, ReadStart::Oldest).await);
        }
    }
    assert!(stream.read(&group, 10).await.is_empty(), "nothing was written");
}
