use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use quark_base::{MonotonicClock, VirtualClock};

use super::sleep::Elapsed;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn new() -> (Arc<Self>, Waker) {
        let woken = Arc::new(Self::default());
        (woken.clone(), woken.into())
    }

    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn on_virtual_time() -> (Arc<VirtualClock>, Arc<Timers>) {
    let clock = VirtualClock::new();
    let timers = Timers::new(clock.clone());
    assert_eq!(clock.attend(Arc::downgrade(&timers) as Weak<dyn Waiter>), Passage::Jumps);
    (clock, timers)
}

fn poll(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
    Pin::new(sleep).poll(&mut Context::from_waker(waker))
}

#[test]
fn a_sleep_is_woken_once_at_its_moment() {
    let (clock, timers) = on_virtual_time();
    let (woken, waker) = Woken::new();
    let mut sleep = timers.sleep_until(SECOND);
    assert!(poll(&mut sleep, &waker).is_pending());
    clock.advance(SECOND - Duration::from_millis(1));
    assert_eq!((woken.times(), poll(&mut sleep, &waker)), (0, Poll::Pending));
    clock.advance(Duration::from_millis(1));
    assert_eq!((woken.times(), poll(&mut sleep, &waker)), (1, Poll::Ready(())));
    assert!(poll(&mut timers.sleep_until(SECOND), &waker).is_ready(), "its moment has passed");
}

#[test]
fn a_sleep_wakes_whoever_polled_it_last() {
    let (clock, timers) = on_virtual_time();
    let ((first, first_waker), (last, last_waker)) = (Woken::new(), Woken::new());
    let mut sleep = timers.sleep_until(SECOND);
    assert!(poll(&mut sleep, &first_waker).is_pending());
    assert!(poll(&mut sleep, &last_waker).is_pending());
    clock.advance(SECOND);
    assert_eq!((first.times(), last.times()), (0, 1));
}

#[test]
fn a_dropped_sleep_leaves_the_wheel() {
    let (_clock, timers) = on_virtual_time();
    let (_, waker) = Woken::new();
    let mut sleep = timers.sleep_until(SECOND);
    assert!(poll(&mut sleep, &waker).is_pending());
    assert!(timers.next_due().is_some());
    drop(sleep);
    assert_eq!(timers.next_due(), None);
}

#[test]
fn more_than_one_visit_can_take_happens_all_the_same() {
    let (clock, timers) = on_virtual_time();
    let (woken, waker) = Woken::new();
    let mut sleeps: Vec<_> = (0..3 * STEPS_PER_VISIT).map(|_| timers.sleep_until(SECOND)).collect();
    for sleep in &mut sleeps {
        assert!(poll(sleep, &waker).is_pending());
    }
    clock.advance(SECOND);
    assert_eq!(woken.times(), sleeps.len());
    assert_eq!(timers.next_due(), None);
}

#[test]
fn a_panicking_waker_harms_nobody_else() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker's own");
        }
    }
    let (clock, timers) = on_virtual_time();
    let (woken, waker) = Woken::new();
    let (mut bad, mut good) = (timers.sleep_until(SECOND), timers.sleep_until(SECOND));
    assert!(poll(&mut bad, &Arc::new(Bad).into()).is_pending());
    assert!(poll(&mut good, &waker).is_pending());
    clock.advance(SECOND);
    assert_eq!(woken.times(), 1);
}

#[test]
fn a_closed_wheel_wakes_everybody_and_pretends_nothing() {
    let (clock, timers) = on_virtual_time();
    let (woken, waker) = Woken::new();
    let mut sleep = timers.sleep_until(SECOND);
    assert!(poll(&mut sleep, &waker).is_pending());
    timers.close();
    assert_eq!((woken.times(), poll(&mut sleep, &waker)), (1, Poll::Pending));
    clock.advance(SECOND);
    assert!(poll(&mut sleep, &waker).is_ready());
}

#[test]
fn on_real_time_the_driver_wakes_sleepers_and_is_woken_for_earlier_ones() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let timers = Timers::new(Arc::new(MonotonicClock::new()));
    timers.begin(runtime.handle());
    runtime.block_on(async {
        let far = timers.timeout(Duration::from_secs(3_600), std::future::pending::<()>());
        let near = timers.timeout(Duration::from_millis(5), std::future::pending::<()>());
        let answered = timers.timeout(Duration::MAX, async { 7 });
        assert_eq!(answered.await, Ok(7));
        let first = tokio::select! { first = far => ("far", first), first = near => ("near", first) };
        assert_eq!(first, ("near", Err(Elapsed)));
    });
    timers.close();
}
