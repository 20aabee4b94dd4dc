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

const ALL: [RingRange; 1] = [RingRange::ALL];

fn until(seconds: u64) -> Span {
    Span { from: Timestamp(0), until: later(seconds) }
}

/// A pass of one page through all that is due until a time. Says how many it brought.
fn look(held: &mut Held, records: &[ReminderRecord], seconds: u64, today: u64) -> usize {
    let pass = held.begin_pass(&ALL);
    held.begin_page();
    let brought = held.end_page(records.to_vec(), later(today), CLOCK);
    held.end_pass(pass, until(seconds));
    brought
}

fn fail(held: &mut Held, number: Number, again: Duration) {
    held.failed(number, NOW, CLOCK, |_| again);
}

impl Held {
    fn len(&self) -> usize {
        self.entries.len()
    }
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
    held.begin_page();
    held.taken(firing.number);
    let step = held.advance_of(firing.number).unwrap();
    assert_eq!((step.version, step.next, step.next_version), (1, Some(later(60)), 2));
    held.advanced(firing.number, true, later(1), CLOCK, later(3));
    assert_eq!(held.end_page(vec![record("a", 1, 1)], later(1), CLOCK), 0);
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
    held.advanced(firing.number, true, later(1), CLOCK, later(3));
    let again = held.next(later(2), CLOCK).unwrap();
    assert_eq!((again.record.due, again.record.version, again.is_first), (later(2), 8, true));
}

#[test]
fn one_that_another_silo_set_anew_during_its_tick_is_left_to_the_next_look() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1)], 5, 0);
    let firing = held.next(later(1), CLOCK).unwrap();
    held.set_next(firing.number, Some(later(2)));
    held.taken(firing.number);
    held.advanced(firing.number, false, later(1), CLOCK, later(3));
    assert_eq!(held.len(), 0);
    look(&mut held, &[record("a", 3, 50)], 5, 1);
    assert_eq!(due(&mut held, 3), ["a"]);
}

#[test]
fn what_this_silo_sets_or_removes_takes_effect_at_once() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1), record("b", 1, 1)], 5, 0);
    held.changed(id("a"), Some(record("a", 4, 2)), later(0), CLOCK);
    held.changed(id("b"), None, later(0), CLOCK);
    assert_eq!(due(&mut held, 3), Vec::<String>::new());
    assert_eq!(due(&mut held, 4), ["a"]);
    // A page that was asked for before the change does not bring back what it has.
    held.begin_page();
    held.changed(id("c"), None, later(4), CLOCK);
    assert_eq!(held.end_page(vec![record("c", 5, 1)], later(4), CLOCK), 0);
    assert!(due(&mut held, 6).is_empty());
}

#[test]
fn what_this_silo_changes_during_a_tick_holds_however_the_tick_ends() {
    for (set, taken, then) in [
        (None, false, &[] as &[&str]),
        (None, true, &[]),
        (Some(record("a", 4, 2)), false, &["a"]),
        (Some(record("a", 4, 2)), true, &["a"]),
    ] {
        let mut held = Held::default();
        look(&mut held, &[record("a", 1, 1)], 5, 0);
        let firing = held.next(later(1), CLOCK).unwrap();
        held.changed(id("a"), set, later(1), CLOCK);
        if taken {
            held.taken(firing.number);
            held.advanced(firing.number, false, later(1), CLOCK, later(3));
        } else {
            fail(&mut held, firing.number, CLOCK);
        }
        assert_eq!(due(&mut held, 3), Vec::<String>::new());
        assert_eq!(due(&mut held, 4), then);
    }
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
    held.begin_pass(&[RingRange { first: 3, last: 10 }]);
    assert_eq!(due(&mut held, 5), ["c"]);
    assert_eq!(held.len(), 2, "a and c are under way");
}

#[test]
fn a_tick_that_failed_is_tried_again_at_its_time_and_may_have_been_delivered_before() {
    let mut held = Held::default();
    look(&mut held, &[record("a", 1, 1)], 5, 0);
    let firing = held.next(later(1), CLOCK).unwrap();
    let retry = CLOCK + Duration::from_secs(1);
    held.failed(firing.number, NOW, CLOCK, |tries| {
        assert_eq!(tries, 0);
        retry
    });
    assert!(held.next(later(1), CLOCK).is_none());
    assert_eq!(held.next_retry(), Some(retry));
    look(&mut held, &[record("a", 1, 1)], 5, 1);
    let again = held.next(later(1), retry).unwrap();
    assert!(!again.is_first);
    held.failed(again.number, NOW, CLOCK, |tries| {
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

const FEW: Bounds = Bounds { held: 100, retrying: 10, aside: 30 };

fn many(count: usize, due: u64) -> Vec<ReminderRecord> {
    (0..count).map(|key| record(&key.to_string(), due, 1)).collect()
}

#[test]
fn there_are_never_more_in_hand_than_the_bound() {
    let mut held = Held::new(FEW);
    assert_eq!(look(&mut held, &many(110, 1), 5, 0), 100);
    assert!(held.is_full());
    assert_eq!(held.len(), 100);
    held.forget_waiting();
    assert_eq!(held.len(), 0);
    assert!(held.numbers.is_empty() && held.waiting.is_empty());
}

#[test]
fn of_those_in_time_and_the_others_each_has_its_turn() {
    let mut held = Held::default();
    look(&mut held, &[record("in time 5", 5, 1), record("in time 6", 6, 1), record("fails", 4, 1)], 9, 0);
    let fails = held.next(later(4), CLOCK).unwrap();
    fail(&mut held, fails.number, CLOCK);
    look(&mut held, &[record("late 1", 1, 1), record("late 2", 2, 1)], 3, 4);
    // The last one that was under way had come in time.
    assert_eq!(due(&mut held, 9), ["fails", "in time 5", "late 1", "in time 6", "late 2"]);
}

/// Makes all fail that are due.
fn fail_all(held: &mut Held, today: u64, now: Duration, again: Duration) -> usize {
    let fired: Vec<_> = std::iter::from_fn(|| held.next(later(today), now)).collect();
    fired.iter().for_each(|firing| fail(held, firing.number, again));
    fired.len()
}

#[test]
fn those_that_fail_leave_room_for_others_and_are_tried_again_at_their_time() {
    let mut held = Held::new(FEW);
    let again = CLOCK + Duration::from_secs(60);
    look(&mut held, &many(40, 1), 5, 0);
    assert_eq!(fail_all(&mut held, 1, CLOCK, again), 40);
    assert_eq!((held.len(), held.aside.len()), (10, 30));
    // They are in the store still, and wait.
    assert_eq!(look(&mut held, &many(40, 1), 5, 2), 0);
    assert!(held.next(later(2), CLOCK).is_none());
    assert!(held.has_room_for_late(100));
    // One of those put aside has been set anew, which is another tick.
    let anew: Vec<_> = (0..40).map(|key| record(&key.to_string(), 1, 2)).collect();
    let put_aside =
        |record: &&ReminderRecord| !held.numbers.contains_key(&(record.actor.clone(), record.name.clone()));
    let one = anew.iter().find(put_aside).unwrap().clone();
    held.begin_page();
    assert_eq!(held.end_page(vec![one.clone()], later(2), CLOCK), 1);
    assert_eq!(held.next(later(2), CLOCK).unwrap().record.version, 2);
    // When the time has come, a page brings the others again.
    held.begin_page();
    assert_eq!(held.end_page(many(40, 1), later(61), again), 29);
    let fired: Vec<_> = std::iter::from_fn(|| held.next(later(61), again)).collect();
    assert_eq!(fired.len(), 39);
    assert!(fired.iter().all(|firing| !firing.is_first));
    held.failed(fired[38].number, NOW, CLOCK, |tries| {
        assert_eq!(tries, 1, "it is known how often it has failed");
        again
    });
}

#[test]
fn what_is_put_aside_is_forgotten_once_a_pass_does_not_see_it() {
    let mut held = Held::new(FEW);
    look(&mut held, &many(40, 1), 5, 0);
    let again = CLOCK + Duration::from_secs(60);
    fail_all(&mut held, 1, CLOCK, again);
    look(&mut held, &many(40, 1), 5, 2);
    assert_eq!((held.len(), held.aside.len()), (10, 30));
    // A pass through what is due soon says nothing of it.
    let pass = held.begin_pass(&ALL);
    held.end_pass(pass, Span { from: later(2), until: later(5) });
    assert_eq!((held.len(), held.aside.len()), (10, 30));
    look(&mut held, &[], 5, 2);
    assert_eq!((held.len(), held.aside.len()), (0, 0));
}

#[test]
fn more_than_can_be_remembered_are_tried_again_whenever_they_are_found() {
    let mut held = Held::new(FEW);
    look(&mut held, &many(60, 1), 5, 0);
    fail_all(&mut held, 1, CLOCK, CLOCK + Duration::from_secs(60));
    assert_eq!((held.len(), held.aside.len()), (10, 30));
    assert_eq!(look(&mut held, &many(60, 1), 5, 2), 20);
}
