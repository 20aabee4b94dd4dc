//! Reminders and their due times.

use quark_base::Timestamp;
use quark_runtime::reminders::point;
use quark_runtime::store::{Address, Advance, DuePage, DuePlace, ReminderRecord, RingRange, Store, names};

use super::{Fixture, NOW, TYPE, actor, refused};

const NEVER: Timestamp = Timestamp(u64::MAX);

fn reminder(key: &str, name: &str, due: u64, ring: u64) -> ReminderRecord {
    ReminderRecord {
        actor: actor(key),
        name: name.into(),
        due: Timestamp(NOW.0 + due),
        schedule: format!("{{\"every\":\"{due}s\"}}"),
        ring,
        version: 1,
    }
}

fn step(reminder: &ReminderRecord, next: Option<u64>) -> Advance {
    Advance {
        actor: reminder.actor.clone(),
        name: reminder.name.clone(),
        version: reminder.version,
        next: next.map(|due| Timestamp(NOW.0 + due)),
        next_version: reminder.version + 1,
    }
}

async fn put(store: &Store, reminders: &[ReminderRecord]) {
    store.reminders.put(reminders).await.expect("reminders can be written");
}

async fn all(store: &Store) -> Vec<ReminderRecord> {
    page(store, RingRange::ALL, &DuePlace::START, NEVER, 1000).await.reminders
}

async fn page(store: &Store, range: RingRange, after: &DuePlace, until: Timestamp, limit: usize) -> DuePage {
    store.reminders.due(range, after, until, limit).await.expect("reminders can be read")
}

/// All of a range, page by page.
async fn in_pages(store: &Store, range: RingRange, limit: usize) -> Vec<ReminderRecord> {
    let (mut found, mut after) = (Vec::new(), DuePlace::START);
    loop {
        let page = page(store, range, &after, NEVER, limit).await;
        assert!(page.reminders.len() <= limit, "{} of {limit}", page.reminders.len());
        found.extend(page.reminders);
        match page.next {
            Some(next) => after = next,
            None => return found,
        }
    }
}

fn by_id(mut reminders: Vec<ReminderRecord>) -> Vec<ReminderRecord> {
    reminders.sort_by(|a, b| (&a.actor, &a.name).cmp(&(&b.actor, &b.name)));
    reminders
}

/// On points all over the ring.
fn anywhere(index: u64) -> u64 {
    index.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The keys of what is due in a range.
async fn due(store: &Store, range: RingRange, until: u64, limit: usize) -> Vec<String> {
    let until = Timestamp(NOW.0 + until);
    let due = page(store, range, &DuePlace::START, until, limit).await;
    due.reminders.iter().map(|reminder| reminder.actor.key.to_string()).collect()
}

/// All of it, with the greatest numbers.
pub async fn a_reminder_is_read_back<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut written = reminder("key/ä:{}🦀", "name/ä:{}🦀", 5, u64::MAX);
    written.version = u64::MAX;
    put(&store, std::slice::from_ref(&written)).await;
    assert_eq!(all(&store).await, [written.clone()]);
    assert_eq!(store.reminders.of_actor(&written.actor).await, Ok(vec![written]));
    put(&store, &[]).await;
}

/// One per actor and name.
pub async fn a_reminder_is_set_anew_in_place<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    put(&store, &[reminder("a", "r", 5, 1), reminder("a", "other", 6, 1)]).await;
    let anew = ReminderRecord { version: 2, ..reminder("a", "r", 50, 1) };
    put(&store, std::slice::from_ref(&anew)).await;
    assert_eq!(all(&store).await, [reminder("a", "other", 6, 1), anew]);
}

/// It is where it was put last, whether or not that is where its actor stands.
pub async fn a_reminder_may_move_on_the_ring<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let home = point(&actor("a"));
    for (version, ring) in (1..).zip([home, home ^ 1 << 63, home ^ 1 << 62, home]) {
        let moved = ReminderRecord { version: 10 * version, ..reminder("a", "r", version, ring) };
        put(&store, std::slice::from_ref(&moved)).await;
        assert_eq!(all(&store).await, std::slice::from_ref(&moved));
        let here = RingRange { first: ring, last: ring };
        assert_eq!(due(&store, here, 1000, 10).await, ["a"]);
        assert_eq!(store.reminders.advance(&[step(&moved, Some(500))]).await, Ok(vec![true]));
        assert_eq!(due(&store, here, 499, 10).await, Vec::<String>::new());
        assert_eq!(due(&store, here, 500, 10).await, ["a"]);
    }
    assert_eq!(store.reminders.remove(&actor("a"), "r").await, Ok(true));
    assert_eq!(all(&store).await, []);
}

/// True once, false after.
pub async fn a_removed_reminder_is_gone<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    put(&store, &[reminder("a", "r", 5, 1), reminder("a", "s", 6, 1), reminder("b", "r", 7, 1)]).await;
    assert_eq!(store.reminders.remove(&actor("a"), "r").await, Ok(true));
    assert_eq!(store.reminders.remove(&actor("a"), "r").await, Ok(false));
    assert_eq!(store.reminders.remove(&actor("never"), "r").await, Ok(false));
    assert_eq!(all(&store).await, [reminder("a", "s", 6, 1), reminder("b", "r", 7, 1)]);
    assert_eq!(store.reminders.of_actor(&actor("a")).await, Ok(vec![reminder("a", "s", 6, 1)]));
}

/// Those of the actor, and of no other.
pub async fn reminders_of_an_actor_come_by_name<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    put(&store, &[reminder("a", "z", 1, 1), reminder("b", "x", 2, 1), reminder("a", "", 3, 1)]).await;
    let of_one = store.reminders.of_actor(&actor("a")).await;
    assert_eq!(of_one, Ok(vec![reminder("a", "", 3, 1), reminder("a", "z", 1, 1)]));
    assert_eq!(store.reminders.of_actor(&actor("c")).await, Ok(Vec::new()));
}

/// Due at the time or before.
pub async fn due_reminders_come_soonest_first_up_to_the_limit<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    // The order is not that of the points.
    let reminders: Vec<_> = [50, 10, 40, 20, 30]
        .iter()
        .map(|time| reminder(&time.to_string(), "r", *time, anywhere(*time)))
        .collect();
    put(&store, &reminders).await;
    assert_eq!(due(&store, RingRange::ALL, 30, 10).await, ["10", "20", "30"]);
    assert_eq!(due(&store, RingRange::ALL, 29, 10).await, ["10", "20"]);
    assert_eq!(due(&store, RingRange::ALL, 1000, 2).await, ["10", "20"]);
    assert!(due(&store, RingRange::ALL, 9, 10).await.is_empty());
}

/// Also of those that have one time, one point of the ring, or both.
pub async fn pages_leave_nothing_out_and_give_nothing_twice<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let mut reminders = Vec::new();
    for index in 0..40 {
        let (key, point) = (index.to_string(), anywhere(index));
        reminders.push(reminder(&key, "same time", 10, point));
        reminders.push(reminder(&key, "own time", index, point));
        reminders.push(reminder(&key, "same all/ä:{}🦀", 10, 7));
        reminders.push(reminder(&key, "", 10, 7));
    }
    put(&store, &reminders).await;
    let wrapped = RingRange { first: 3 << 62, last: 1 << 62 };
    for range in [RingRange::ALL, wrapped, RingRange { first: 1 << 62, last: 3 << 62 }] {
        let expected: Vec<_> =
            reminders.iter().filter(|reminder| range.contains(reminder.ring)).cloned().collect();
        let at_once = page(&store, range, &DuePlace::START, NEVER, 1000).await.reminders;
        assert!(at_once.is_sorted_by_key(|reminder| reminder.due));
        assert_eq!(by_id(at_once.clone()), by_id(expected));
        for limit in [1, 2, 7, 160] {
            assert_eq!(in_pages(&store, range, limit).await, at_once, "in pages of {limit}");
        }
    }
}

/// More than one place of a store holds, all due at once.
pub async fn many_of_one_time_are_read_in_pages<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let reminders: Vec<_> =
        (0..3000).map(|index| reminder(&index.to_string(), "r", 5, anywhere(index))).collect();
    put(&store, &reminders).await;
    for limit in [100, 1100] {
        assert_eq!(by_id(in_pages(&store, RingRange::ALL, limit).await), by_id(reminders.clone()));
    }
}

/// It was moved on, or removed.
pub async fn a_page_goes_on_after_one_that_is_gone<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let reminders: Vec<_> =
        (0..10).map(|index| reminder(&index.to_string(), "r", index / 5, anywhere(index))).collect();
    put(&store, &reminders).await;
    let order = all(&store).await;
    let mut after = DuePlace::START;
    for (index, expected) in order.iter().enumerate() {
        let page = page(&store, RingRange::ALL, &after, Timestamp(NOW.0 + 5), 1).await;
        assert_eq!(page.reminders, std::slice::from_ref(expected));
        after = page.next.expect("there is more");
        let next = (index % 2 == 0).then_some(100);
        assert_eq!(store.reminders.advance(&[step(expected, next)]).await, Ok(vec![true]));
    }
    let rest = page(&store, RingRange::ALL, &after, Timestamp(NOW.0 + 5), 1).await;
    assert_eq!(rest, DuePage { reminders: Vec::new(), next: None });
}

/// With those of that time.
pub async fn a_page_may_begin_at_a_time<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let reminders: Vec<_> =
        (0..9).map(|index| reminder(&index.to_string(), "r", index / 3, anywhere(index))).collect();
    put(&store, &reminders).await;
    let order = all(&store).await;
    for time in 0..4 {
        let from = DuePlace::before(Timestamp(NOW.0 + time));
        let found = page(&store, RingRange::ALL, &from, NEVER, 100).await;
        assert_eq!(found, DuePage { reminders: order[3 * time as usize..].to_vec(), next: None });
    }
}

/// Points at the very ends, and just outside.
pub async fn a_range_has_both_of_its_ends<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let points = [0, 1, 99, 100, 200, 201, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX];
    let reminders: Vec<_> =
        (0..).zip(points).map(|(due, ring)| reminder(&ring.to_string(), "r", due, ring)).collect();
    put(&store, &reminders).await;
    let keys = |points: &[u64]| points.iter().map(u64::to_string).collect::<Vec<_>>();
    let in_range = async |first, last| due(&store, RingRange { first, last }, 1000, 100).await;
    assert_eq!(in_range(100, 200).await, keys(&[100, 200]));
    assert_eq!(in_range(0, 0).await, keys(&[0]));
    assert_eq!(in_range(u64::MAX, u64::MAX).await, keys(&[u64::MAX]));
    assert_eq!(in_range((1 << 63) - 1, 1 << 63).await, keys(&[(1 << 63) - 1, 1 << 63]));
    assert_eq!(in_range(0, u64::MAX).await, keys(&points));
    assert!(in_range(2, 98).await.is_empty());
}

/// From the end of the ring over its beginning.
pub async fn a_range_may_wrap_around<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let points = [u64::MAX, 0, 10, 11, 1 << 63, u64::MAX - 10, u64::MAX - 11];
    let reminders: Vec<_> =
        (0..).zip(points).map(|(due, ring)| reminder(&ring.to_string(), "r", due, ring)).collect();
    put(&store, &reminders).await;
    let wrapped = RingRange { first: u64::MAX - 10, last: 10 };
    let expected = [u64::MAX, 0, 10, u64::MAX - 10].map(|point| point.to_string());
    assert_eq!(due(&store, wrapped, 1000, 100).await, expected);
    assert_eq!(due(&store, wrapped, 1000, 2).await, expected[..2]);
    assert_eq!(store.reminders.next_due(RingRange { first: 11, last: 9 }).await, Ok(Some(NOW)));
}

/// Of a range, whether or not it has come.
pub async fn the_soonest_due_time_is_known<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    assert_eq!(store.reminders.next_due(RingRange::ALL).await, Ok(None));
    put(&store, &[reminder("a", "r", 50, 10), reminder("b", "r", 20, 90)]).await;
    let next = async |first, last| store.reminders.next_due(RingRange { first, last }).await;
    assert_eq!(next(0, u64::MAX).await, Ok(Some(Timestamp(NOW.0 + 20))));
    assert_eq!(next(0, 50).await, Ok(Some(Timestamp(NOW.0 + 50))));
    assert_eq!(next(51, 60).await, Ok(None));
    assert_eq!(next(80, 5).await, Ok(Some(Timestamp(NOW.0 + 20))));
}

/// One that was set anew stays as it was set.
pub async fn an_advance_moves_the_version_that_was_seen<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let (a, b, never) = (reminder("a", "r", 5, 1), reminder("b", "r", 6, 1), reminder("never", "r", 7, 1));
    let anew = ReminderRecord { version: 7, ..b.clone() };
    put(&store, &[a.clone(), anew.clone()]).await;
    let moves = [step(&b, Some(100)), step(&a, Some(90)), step(&never, Some(80))];
    assert_eq!(store.reminders.advance(&moves).await, Ok(vec![false, true, false]));
    let moved = ReminderRecord { due: Timestamp(NOW.0 + 90), version: 2, ..a };
    assert_eq!(all(&store).await, [anew, moved]);
    assert_eq!(store.reminders.advance(&moves).await, Ok(vec![false, false, false]));
    assert_eq!(store.reminders.advance(&[]).await, Ok(Vec::new()));
}

/// The last tick of a reminder takes it away.
pub async fn an_advance_without_a_next_time_removes<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let (a, b) = (reminder("a", "r", 5, 1), reminder("b", "r", 6, 1));
    put(&store, &[a.clone(), ReminderRecord { version: 2, ..b.clone() }]).await;
    assert_eq!(store.reminders.advance(&[step(&a, None), step(&b, None)]).await, Ok(vec![true, false]));
    assert_eq!(all(&store).await, [ReminderRecord { version: 2, ..b }]);
    assert_eq!(store.reminders.next_due(RingRange::ALL).await, Ok(Some(Timestamp(NOW.0 + 6))));
}

/// For whoever connects next.
pub async fn reminders_survive_a_new_connection<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    put(&store, &[reminder("a", "r", 5, 1)]).await;
    let again = fixture.open().await;
    drop(store);
    assert_eq!(all(&again).await, [reminder("a", "r", 5, 1)]);
}

/// Several silos that see the same version: one of them moves it.
pub async fn rivals_advance_a_reminder_once<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let reminders: Vec<_> = (0..10).map(|index| reminder(&index.to_string(), "r", index, index)).collect();
    put(&store, &reminders).await;
    let tasks: Vec<_> = (0..8)
        .map(|rival| {
            let store = store.clone();
            let moves: Vec<_> = reminders.iter().map(|reminder| step(reminder, Some(100 + rival))).collect();
            tokio::spawn(async move { store.reminders.advance(&moves).await })
        })
        .collect();
    let mut applied = vec![0; reminders.len()];
    for task in tasks {
        let answers = task.await.expect("no task fails").expect("reminders can be advanced");
        for (count, answer) in applied.iter_mut().zip(answers) {
            *count += u32::from(answer);
        }
    }
    assert_eq!(applied, vec![1; reminders.len()]);
}

/// A name that some store does not take is refused by each, before anything is written.
pub async fn names_that_no_store_takes_are_refused<F: Fixture>() {
    let fixture = F::set_up().await;
    let store = fixture.open().await;
    let fine = reminder("a", "fine", 1, 0);
    let long = "n".repeat(names::KEY_MAX + 1);
    for text in ["a\0b", &long] {
        let address = Address::new(TYPE, text);
        let of_name = ReminderRecord { name: text.into(), ..fine.clone() };
        let of_actor = ReminderRecord { actor: address.clone(), ..fine.clone() };
        for bad in [of_name, of_actor] {
            refused(&bad, store.reminders.put(&[fine.clone(), bad.clone()]).await);
            refused(&bad, store.reminders.remove(&bad.actor, &bad.name).await);
        }
        refused(&text, store.reminders.of_actor(&address).await);
    }
    let bad = ReminderRecord { schedule: "\0".into(), ..fine.clone() };
    refused(&bad, store.reminders.put(&[fine, bad.clone()]).await);
    assert_eq!(all(&store).await, [], "nothing was written");
}
