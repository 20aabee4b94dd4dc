use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ALL: usize = usize::MAX;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn expired(wheel: &mut Wheel<u32>, now: Duration) -> Vec<u32> {
    let mut steps = ALL;
    std::iter::from_fn(|| wheel.expire(now, &mut steps)).collect()
}

#[test]
fn nothing_is_early_and_nothing_later_than_the_resolution() {
    let mut wheel = Wheel::new(Duration::ZERO);
    wheel.insert(Duration::from_micros(1_500), 7);
    assert_eq!(expired(&mut wheel, Duration::from_micros(1_999)), [0_u32; 0]);
    assert_eq!(expired(&mut wheel, ms(2)), [7]);
}

#[test]
fn values_come_out_in_the_order_of_their_moments_however_far_apart() {
    let mut wheel = Wheel::new(ms(5));
    let moments = [5, 6, 64, 65, 4_096, 70_000, 300_000, 1 << 24, 1 << 40, 1 << 59];
    for (number, &moment) in moments.iter().enumerate().rev() {
        wheel.insert(ms(moment), number as u32);
    }
    assert_eq!(expired(&mut wheel, ms(1 << 60)), (0..moments.len() as u32).collect::<Vec<_>>());
    assert_eq!((wheel.len(), wheel.next_look()), (0, None));
}

#[test]
fn a_moment_that_never_comes_is_held() {
    let mut wheel = Wheel::new(ms(5));
    let key = wheel.insert(Duration::MAX, 1);
    assert_eq!(expired(&mut wheel, Duration::from_secs(1 << 40)), [0_u32; 0]);
    assert_eq!(wheel.cancel(key), Some(1));
}

#[test]
fn a_key_names_its_own_value_only() {
    let mut wheel = Wheel::new(Duration::ZERO);
    let first = wheel.insert(ms(10), 1);
    assert_eq!(wheel.cancel(first), Some(1));
    let second = wheel.insert(ms(10), 2);
    assert_eq!((wheel.cancel(first), wheel.get_mut(first)), (None, None), "its place is taken by another");
    assert_eq!(wheel.get_mut(second), Some(&mut 2));
    assert_eq!(expired(&mut wheel, ms(10)), [2]);
    assert_eq!(wheel.cancel(second), None);
}

#[test]
fn the_work_of_one_look_is_bounded_and_the_rest_is_not_lost() {
    let mut wheel = Wheel::new(Duration::ZERO);
    for number in 0..100 {
        wheel.insert(ms(1_000), number);
    }
    let mut seen = Vec::new();
    for _ in 0..40 {
        let mut steps = 5;
        while let Some(number) = wheel.expire(ms(1_000), &mut steps) {
            seen.push(number);
        }
        assert!(wheel.next_look().is_none_or(|at| at <= ms(1_000)) || seen.is_empty());
    }
    // Each moved down once and came out once.
    assert_eq!(seen.len(), 100);
}

#[test]
fn an_empty_wheel_gives_a_burst_of_memory_back() {
    let mut wheel = Wheel::new(Duration::ZERO);
    for number in 0..10 * KEPT_ENTRIES as u32 {
        wheel.insert(ms(1), number);
    }
    expired(&mut wheel, ms(1));
    assert!(wheel.entries.capacity() <= KEPT_ENTRIES);
    wheel.insert(ms(2), 1);
    assert_eq!(expired(&mut wheel, ms(2)), [1]);
}

/// What a test does to a wheel.
#[derive(Clone, Debug)]
enum Act {
    /// Inserts, so many microseconds from now.
    Insert(u64),
    /// Cancels the value that was inserted as the n-th.
    Cancel(usize),
    /// Moves on by so many microseconds, in looks of so many steps.
    Advance(u64, usize),
}

fn act() -> impl Strategy<Value = Act> {
    // Exponents, so that every level is reached.
    let micros = (0_u32..45, any::<u64>()).prop_map(|(bits, random)| random % (1 << bits));
    prop_oneof![
        4 => micros.clone().prop_map(Act::Insert),
        2 => any::<prop::sample::Index>().prop_map(|index| Act::Cancel(index.index(64))),
        3 => (micros, 1_usize..20).prop_map(|(by, steps)| Act::Advance(by, steps)),
    ]
}

proptest! {
    /// Against a sorted set of what is due when.
    #[test]
    fn it_does_what_a_sorted_set_does(acts in vec(act(), 1..200)) {
        let mut now = Duration::from_micros(123_456);
        let mut wheel = Wheel::new(now);
        let (mut keys, mut oracle) = (Vec::new(), BTreeSet::new());
        for act in acts {
            match act {
                Act::Insert(micros) => {
                    let (at, number) = (now + Duration::from_micros(micros), keys.len() as u32);
                    keys.push((wheel.insert(at, number), at));
                    oracle.insert((due_ticks(at), number));
                }
                Act::Cancel(number) => {
                    let Some(&(key, at)) = keys.get(number) else { continue };
                    let was_in = oracle.remove(&(due_ticks(at), number as u32));
                    prop_assert_eq!(wheel.cancel(key), was_in.then_some(number as u32));
                }
                Act::Advance(micros, budget) => {
                    now += Duration::from_micros(micros);
                    let mut last = 0;
                    loop {
                        let mut steps = budget;
                        while let Some(number) = wheel.expire(now, &mut steps) {
                            let due = due_ticks(keys[number as usize].1);
                            prop_assert!(due >= last && due <= passed_ticks(now), "in order and not early");
                            last = due;
                            prop_assert!(oracle.remove(&(due, number)), "each comes out once");
                            // A budget that just sufficed says nothing about what is left.
                        }
                        if steps > 0 {
                            break;
                        }
                    }
                    prop_assert!(oracle.first().is_none_or(|&(due, _)| due > passed_ticks(now)), "none is left behind");
                }
            }
            prop_assert_eq!(wheel.len(), oracle.len());
            let first = oracle.first().map(|&(due, _)| moment(due));
            let look = wheel.next_look();
            prop_assert_eq!(look.is_some(), first.is_some());
            prop_assert!(look.is_none() || look <= first, "a look too late would miss it");
        }
    }
}
