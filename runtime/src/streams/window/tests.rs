//! Windows against the plainest thing that does the same: everything is kept, and looked through each time.

use proptest::prelude::*;

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

/// What happens to a window.
#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u64),
    Advance(u64),
    /// Take out what has closed.
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0_u64..60).prop_map(Step::Add),
        1 => (0_u64..60).prop_map(Step::Advance),
        2 => Just(Step::Take),
    ];
    prop::collection::vec(step, 0..60)
}

/// Runs the steps, then closes everything. Gives what came out and which items were late.
fn run(spec: WindowSpec, steps: &[Step]) -> (Vec<Closed<usize>>, Vec<usize>) {
    let (mut window, mut out, mut late) = (Window::new(spec), Vec::new(), Vec::new());
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Add(time) => match window.add(S(time), number) {
                Added::Taken => {}
                Added::Late(item) => late.push(item),
                Added::Full(_) => unreachable!("there is room for all"),
            },
            Step::Advance(time) => window.advance(S(time)),
            Step::Take => out.extend(std::iter::from_fn(|| window.closed())),
        }
    }
    window.advance(S(10_000));
    out.extend(std::iter::from_fn(|| window.closed()));
    assert_eq!(window.late(), late.len() as u64);
    assert!(window.is_empty());
    (out, late)
}

/// Each add, with its number and the watermark that it met; the watermark goes by items that `takes` says were taken.
fn arrivals(
    steps: &[Step],
    lateness: u64,
    mut takes: impl FnMut(usize, u64, u64) -> bool,
) -> Vec<(usize, u64, u64)> {
    let (mut latest, mut all) = (0_u64, Vec::new());
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Add(time) => {
                let watermark = latest.saturating_sub(lateness);
                if takes(number, time, watermark) {
                    latest = latest.max(time);
                    all.push((number, time, watermark));
                }
            }
            Step::Advance(time) => latest = latest.max(time),
            Step::Take => {}
        }
    }
    all
}

fn naive_by_time(length: u64, step: u64, lateness: u64, steps: &[Step]) -> (Vec<Closed<usize>>, Vec<usize>) {
    let mut late = Vec::new();
    let mut taken = arrivals(steps, lateness, |number, time, watermark| {
        let open = (0..=time).filter(|start| start % step == 0 && time < start + length);
        let is_late = open.map(|start| start + length).max().unwrap() <= watermark;
        if is_late {
            late.push(number);
        }
        !is_late
    });
    taken.sort_by_key(|(number, time, _)| (*time, *number));
    let windows = (0..200_u64).filter(|start| start % step == 0).filter_map(|start| {
        let end = start + length;
        let within =
            taken.iter().filter(|(_, time, watermark)| (start..end).contains(time) && *watermark < end);
        let items: Vec<usize> = within.map(|(number, ..)| *number).collect();
        (!items.is_empty()).then_some(Closed { start: S(start), end: S(end), items })
    });
    (windows.collect(), late)
}

fn naive_sessions(gap: u64, lateness: u64, steps: &[Step]) -> (Vec<Closed<usize>>, Vec<usize>) {
    /// The items of a session with their times.
    type Session = Vec<(u64, usize)>;
    let begin = |session: &Session| session.iter().map(|(time, _)| *time).min().unwrap();
    let end = move |session: &Session| session.iter().map(|(time, _)| time + gap).max().unwrap();
    let (mut open, mut out, mut late) = (Vec::<Session>::new(), Vec::new(), Vec::new());
    let mut latest = 0_u64;
    for (number, step) in steps.iter().chain([&Step::Advance(10_000)]).enumerate() {
        match *step {
            Step::Add(time) => {
                let touches = |session: &Session| time < end(session) && begin(session) < time + gap;
                let (touched, others): (Vec<_>, Vec<_>) = open.iter().cloned().partition(touches);
                let mut merged: Session = touched.concat();
                merged.push((time, number));
                if end(&merged) <= latest.saturating_sub(lateness) {
                    late.push(number);
                } else {
                    open = others;
                    open.push(merged);
                    latest = latest.max(time);
                }
            }
            Step::Advance(time) => latest = latest.max(time),
            Step::Take => {}
        }
        let watermark = latest.saturating_sub(lateness);
        let (mut closed, still): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|session| end(session) <= watermark);
        open = still;
        closed.sort_by_key(end);
        for mut session in closed {
            session.sort_unstable();
            let items = session.iter().map(|(_, number)| *number).collect();
            out.push(Closed { start: S(begin(&session)), end: S(end(&session)), items });
        }
    }
    (out, late)
}

proptest! {
    #[test]
    fn windows_by_time_hold_what_came_before_they_closed(
        length in 1_u64..20, step in 1_u64..20, lateness in 0_u64..15, steps in steps(),
    ) {
        let spec = WindowSpec::sliding(S(length), S(step)).lateness(S(lateness));
        prop_assert_eq!(run(spec, &steps), naive_by_time(length, step.min(length), lateness, &steps));
    }

    #[test]
    fn tumbling_windows_hold_each_item_once(length in 1_u64..20, lateness in 0_u64..15, steps in steps()) {
        let (out, late) = run(WindowSpec::tumbling(S(length)).lateness(S(lateness)), &steps);
        let mut all: Vec<usize> = out.into_iter().flat_map(|closed| closed.items).chain(late).collect();
        all.sort_unstable();
        let added = steps.iter().enumerate().filter(|(_, step)| matches!(step, Step::Add(_)));
        prop_assert_eq!(all, added.map(|(number, _)| number).collect::<Vec<_>>());
    }

    #[test]
    fn sessions_end_where_nothing_came_for_their_gap(
        gap in 1_u64..12, lateness in 0_u64..15, steps in steps(),
    ) {
        let spec = WindowSpec::session(S(gap)).lateness(S(lateness));
        prop_assert_eq!(run(spec, &steps), naive_sessions(gap, lateness, &steps));
    }

    #[test]
    fn windows_by_number_hold_the_last_items(length in 1_usize..12, step in 1_usize..12, count in 0_usize..60) {
        let mut window = Window::new(WindowSpec::last(length, step));
        for item in 0..count {
            prop_assert_eq!(window.add(S(item as u64), item), Added::Taken);
        }
        let out: Vec<Vec<usize>> = std::iter::from_fn(|| window.closed()).map(|closed| closed.items).collect();
        let step = step.min(length);
        let expected: Vec<Vec<usize>> =
            (0..).map(|n| n * step).take_while(|start| start + length <= count)
                .map(|start| (start..start + length).collect()).collect();
        prop_assert_eq!(out, expected);
    }
}

#[test]
fn an_item_of_the_moment_at_which_a_window_ends_belongs_to_the_next() {
    let mut window = Window::new(WindowSpec::tumbling(S(10)));
    for time in [0, 9, 10] {
        assert_eq!(window.add(S(time), time), Added::Taken);
    }
    let first = window.closed().unwrap();
    assert_eq!((first.start, first.end, first.items), (S(0), S(10), vec![0, 9]));
    assert_eq!(window.closed(), None);
    assert_eq!(window.add(S(9), 9), Added::Late(9), "with no lateness allowed");
}

#[test]
fn a_window_of_an_actor_that_hears_nothing_closes_when_time_goes_on() {
    let mut window = Window::new(WindowSpec::session(S(5)));
    assert_eq!(window.add(S(1), 'a'), Added::Taken);
    window.advance(S(5));
    assert_eq!(window.closed(), None);
    window.advance(S(6));
    assert_eq!(window.closed().unwrap().items, ['a']);
    window.advance(S(2));
    assert_eq!(window.add(S(0), 'b'), Added::Late('b'), "time does not go back");
}

#[test]
fn a_full_window_refuses_and_forgets_nothing() {
    for spec in [WindowSpec::tumbling(S(10)), WindowSpec::session(S(10)), WindowSpec::every(10)] {
        let mut window = Window::new(spec.items_max(3));
        for item in 0..3 {
            assert_eq!(window.add(S(0), item), Added::Taken);
        }
        assert_eq!(window.add(S(0), 3), Added::Full(3), "{spec:?}");
        assert_eq!((window.len(), window.late()), (3, 0));
    }
}

#[test]
fn odd_settings_are_the_nearest_that_make_sense() {
    assert_eq!(WindowSpec::tumbling(Duration::ZERO), WindowSpec::tumbling(NANO));
    assert_eq!(WindowSpec::sliding(S(10), S(20)), WindowSpec::tumbling(S(10)));
    assert_eq!(WindowSpec::sliding(S(10), Duration::ZERO), WindowSpec::sliding(S(10), S(10) / OVERLAP_MAX));
    assert_eq!(WindowSpec::last(0, 0), WindowSpec::every(1));
    assert_eq!(WindowSpec::last(3, 9), WindowSpec::every(3));
}

#[test]
fn the_end_of_time_is_no_trouble() {
    let mut window = Window::new(WindowSpec::sliding(S(10), S(3)));
    assert_eq!(window.add(Duration::MAX, 1), Added::Taken);
    window.advance(Duration::MAX);
    while window.closed().is_some() {}
}
