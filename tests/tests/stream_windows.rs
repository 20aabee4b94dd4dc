//! Windows of actors: what they gather, and where late items are told of.

use quark::prelude::*;
use quark::storage::memory;
use quark::streams::window::{Added, Window, WindowSpec};
use quark::streams::{DurableStream, SubscriptionReport};
use quark_testkit::TestSilo;

const DIRECT: Topic<u64> = Topic::new("windows/direct");
const BUFFERED: Topic<u64> = Topic::new("windows/buffered");
const DURABLE: Topic<u64> = Topic::new("windows/durable");
const CHOSEN: Topic<u64> = Topic::new("windows/chosen");

/// Adds numbers up, each taken for the second at which it came up.
#[derive(Actor)]
#[actor(name = "windows.meter", factory)]
struct Meter {
    window: Window<u64>,
    sums: Vec<u64>,
    handed_back: Vec<u64>,
}

#[methods]
impl Meter {
    #[on_stream(DIRECT)]
    pub async fn direct(&mut self, cx: &Cx, second: u64) {
        self.gather(cx, second);
    }

    #[on_stream(BUFFERED, buffer = 100)]
    async fn buffered(&mut self, cx: &Cx, second: u64) {
        self.gather(cx, second);
    }

    #[on_stream(DURABLE)]
    async fn durable(&mut self, cx: &Cx, second: u64) {
        self.gather(cx, second);
    }

    pub async fn chosen(&mut self, cx: &Cx, second: u64) {
        self.gather(cx, second);
    }

    pub async fn choose(&mut self, cx: &Cx, keys: Vec<String>) {
        for key in keys {
            cx.subscribe(&CHOSEN, key, |me: &MeterRef, second| me.chosen(second)).unwrap();
        }
    }

    pub async fn seen(&self) -> (Vec<u64>, Vec<u64>, u64) {
        (self.sums.clone(), self.handed_back.clone(), self.window.late())
    }

    fn gather(&mut self, cx: &Cx, second: u64) {
        if let Added::Late(second) = cx.gather(&mut self.window, Duration::from_secs(second), second) {
            self.handed_back.push(second);
        }
        self.sums.extend(
            std::iter::from_fn(|| self.window.closed()).map(|closed| closed.items.iter().sum::<u64>()),
        );
    }
}

fn meter() -> Meter {
    let window = Window::new(WindowSpec::tumbling(Duration::from_secs(10)));
    Meter { window, sums: Vec::new(), handed_back: Vec::new() }
}

fn silo() -> TestSilo {
    let silo = TestSilo::builder().host_with(|_| Ok(meter()));
    silo.configure(|silo| silo.store("default", memory()).durable_stream(&DURABLE, DurableStream::new()))
        .start()
        .unwrap()
}

/// Two of these come when their window has closed.
const SECONDS: [u64; 6] = [1, 12, 3, 9, 15, 20];

#[tokio::test(flavor = "current_thread")]
async fn late_items_are_counted_by_the_window_and_in_the_report_of_their_subscription() {
    for topic in [DIRECT, BUFFERED, DURABLE] {
        let silo = silo();
        let grid = silo.grid();
        for second in SECONDS {
            grid.topic(&topic).publish("a", second).await.unwrap();
            silo.settle().await;
        }
        let seen = grid.actor::<Meter>("a").seen().await.unwrap();
        assert_eq!(seen, (vec![1, 27], vec![3, 9], 2), "{topic:?}");
        for report in grid.streams() {
            let expected = if report.namespace == topic.namespace() { 2 } else { 0 };
            assert_eq!(report.late, expected, "{report:?}");
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn late_items_of_a_subscription_that_an_actor_has_made_are_counted_by_that_one() {
    let silo = silo();
    let grid = silo.grid();
    grid.actor::<Meter>("m").choose(vec!["a".into(), "b".into()]).await.unwrap();
    for (key, second) in [("a", 1), ("b", 12), ("b", 5), ("b", 30), ("a", 3), ("a", 4)] {
        grid.topic(&CHOSEN).publish(key, second).await.unwrap();
        silo.settle().await;
    }
    let chosen = |report: &SubscriptionReport| report.namespace == CHOSEN.namespace();
    let mut late: Vec<_> =
        grid.streams().into_iter().filter(chosen).map(|report| (report.late, report.delivered)).collect();
    late.sort_unstable();
    assert_eq!(late, [(1, 3), (2, 3)]);
}

#[tokio::test(flavor = "current_thread")]
async fn in_a_turn_that_runs_for_no_subscription_the_window_counts_alone() {
    let silo = silo();
    let grid = silo.grid();
    for second in [12, 3] {
        grid.actor::<Meter>("a").chosen(second).await.unwrap();
    }
    assert_eq!(grid.actor::<Meter>("a").seen().await.unwrap().2, 1);
    assert!(grid.streams().iter().all(|report| report.late == 0));
    let (mut meter, cx) = (meter(), Cx::detached("windows.meter", "a"));
    meter.gather(&cx, 12);
    meter.gather(&cx, 3);
    assert_eq!(meter.window.late(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn an_item_that_a_caller_hands_to_a_subscriptions_method_is_told_of_with_the_subscription() {
    let silo = silo();
    let grid = silo.grid();
    for second in [12, 3] {
        grid.actor::<Meter>("a").direct(second).await.unwrap();
    }
    for report in grid.streams() {
        let expected = u64::from(report.namespace == DIRECT.namespace());
        assert_eq!((report.late, report.delivered), (expected, 0), "{report:?}");
    }
}
