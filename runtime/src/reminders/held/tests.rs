use super::*;

const NOW: Timestamp = Timestamp::VIRTUAL_ORIGIN;
const CLOCK: Duration = Duration::from_secs(100);

fn later(seconds: u64) -> Timestamp {
    NOW.saturating_add(Duration::from_secs(seconds))
}

fn record(key: &str, due: u64, version: u64) -> ReminderRecord {
    ReminderRecord {
        actor: Address::new("t", key),
        name: "r".into(),
        due: later(due),
        schedule: String::new(),
        ring: due,
        version,
    }
}

fn id(key: &str) -> Id {
    (Address::new("t", key), "r".into())
}

fn look(held: &mut Held, records: &[ReminderRecord], until: u64, now: u64) {
    held.begin_look();
    end_look(held, records, until, now);
}

fn end_look(held: &mut Held, records: &[ReminderRecord], until: u64, now: u64) {
    let seen = Seen {
        range: RingRange::ALL,
        records: records.to_vec(),
        complete_until: later(until),
        is_cut_off: false,
    };
    held.end_look(vec![seen], later(now));
}

/// The keys of all that is due, which are under way now.
fn due(held: &mut Held, now: u64) -> Vec<String> {
    let fired = std::iter::from_fn(|| held.next(later(now), CLOCK));
    fired.map(|firing| firing.record.actor.key.to_string()).collect()
}

#[test]
fn ticks_come_in_the_order_of_their_times_and_not_before() {
    let mut held = Held::default();
    look(&mut held, &[record("b", 3, 1), record("a", 1, 1), record("c", 2, 1)], 5, 0);
    assert_eq!(held.next_due(), Some(later(1)));
    assert!(due(&mut held, 0).is_empty());
    assert_eq!(due(&mut held, 2), ["a", "c"]);
    assert_eq!(held.next_due(), Some(later(3)));
}

#[test]
fn what_is_in_hand_is_not_taken_twice() {
    let mut held = Held::default();
    for _ in 0..3 {
        look(&mut held, &[record("a", 1, 1), record("b", 2, 1)], 5, 0);
    }
    assert_eq!(due(&mut held, 1), ["a"]);
    look(&mut held, &[record("a", 1, 1), record("b", 2, 1)], 5, 1);
    assert_eq!(due(&mut held, 5), ["b"], "the other one is under way");
    assert_eq!(held.len(), 2);
}

#[test]
fn one_that_moves_on_during_a_look_is_not_taken_for_what_the_look_saw() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1)], 5, 0);
    let firing = held.next(later(1), CLOCK).unwrap();
    assert!(firing.is_first);
    held.set_next(firing.number, Some(later(60)));
    held.begin_look();
    held.taken(firing.number);
    let step = held.advance_of(firing.number).unwrap();
    assert_eq!((step.version, step.next, step.next_version), (1, Some(later(60)), 2));
    held.advanced(firing.number, true, later(1), later(3));
    end_look(&mut held, &[record("a", 1, 1)], 5, 1);
    assert_eq!(held.len(), 0);
    look(&mut held, &[record("a", 60, 2)], 62, 59);
    assert_eq!(due(&mut held, 60), ["a"]);
}

#[test]
fn one_whose_next_moment_is_near_stays_in_hand() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 7)], 5, 0);
    let firing = held.next(later(1), CLOCK).unwrap();
    held.set_next(firing.number, Some(later(2)));
    held.taken(firing.number);
    held.advanced(firing.number, true, later(1), later(3));
    let again = held.next(later(2), CLOCK).unwrap();
    assert_eq!((again.record.due, again.record.version, again.is_first), (later(2), 8, true));
}

#[test]
fn one_that_was_set_anew_during_its_tick_is_left_to_the_next_look() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1)], 5, 0);
    let firing = held.next(later(1), CLOCK).unwrap();
    held.set_next(firing.number, Some(later(2)));
    held.changed(id("a"), Some(record("a", 3, 50)), later(1));
    held.taken(firing.number);
    held.advanced(firing.number, false, later(1), later(3));
    assert_eq!(held.len(), 0);
    look(&mut held, &[record("a", 3, 50)], 5, 1);
    assert_eq!(due(&mut held, 3), ["a"]);
}

#[test]
fn what_this_silo_sets_or_removes_takes_effect_at_once() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1), record("b", 1, 1)], 5, 0);
    held.changed(id("a"), Some(record("a", 4, 2)), later(0));
    held.changed(id("b"), None, later(0));
    assert_eq!(due(&mut held, 3), Vec::<String>::new());
    assert_eq!(due(&mut held, 4), ["a"]);
    // A look that began before the change does not bring back what it saw.
    held.begin_look();
    held.changed(id("c"), None, later(4));
    end_look(&mut held, &[record("c", 5, 1)], 6, 4);
    assert!(due(&mut held, 6).is_empty());
}

#[test]
fn what_another_silo_removed_or_set_anew_is_let_go_at_the_next_look() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 2, 1), record("b", 2, 1), record("c", 4, 1)], 5, 0);
    // Of `c` this look says nothing: its answer goes only up to three seconds.
    look(&mut held, &[record("b", 3, 9)], 3, 1);
    assert_eq!(held.len(), 2);
    assert_eq!(due(&mut held, 2), Vec::<String>::new());
    assert_eq!(due(&mut held, 4), ["b", "c"]);
}

#[test]
fn what_others_own_now_is_let_go_unless_it_is_under_way() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1), record("b", 2, 1), record("c", 3, 1)], 5, 0);
    assert_eq!(due(&mut held, 1), ["a"]);
    held.begin_look();
    let range = RingRange { first: 3, last: 10 };
    held.end_look(
        vec![Seen { range, records: vec![record("c", 3, 1)], complete_until: later(5), is_cut_off: false }],
        later(1),
    );
    assert_eq!(due(&mut held, 5), ["c"]);
    assert_eq!(held.len(), 2, "a and c are under way");
}

#[test]
fn a_tick_that_failed_is_tried_again_at_its_time_and_may_have_been_delivered_before() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1)], 5, 0);
    let firing = held.next(later(1), CLOCK).unwrap();
    let retry = CLOCK + Duration::from_secs(1);
    held.failed(firing.number, |tries| {
        assert_eq!(tries, 0);
        retry
    });
    assert!(held.next(later(1), CLOCK).is_none());
    assert_eq!(held.next_retry(), Some(retry));
    look(&mut held, &[record("a", 1, 1)], 5, 1);
    let again = held.next(later(1), retry).unwrap();
    assert!(!again.is_first);
    held.failed(again.number, |tries| {
        assert_eq!(tries, 1);
        retry
    });
}

#[test]
fn one_that_is_found_after_its_time_may_have_been_delivered_before() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1)], 5, 1);
    assert!(!held.next(later(1), CLOCK).unwrap().is_first);
}

#[test]
fn there_are_never_more_in_hand_than_the_bound() {
    let mut held = Held::default();
    let many: Vec<_> = (0..HELD_MAX + 10).map(|key| record(&key.to_string(), 1, 1)).collect();
    look(&mut held, &many, 5, 0);
    assert!(held.is_full());
    assert_eq!(held.len(), HELD_MAX);
    held.forget_waiting();
    assert_eq!(held.len(), 0);
    assert!(held.numbers.is_empty() && held.waiting.is_empty());
}
