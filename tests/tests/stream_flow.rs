//! Flow control of streams: what each policy keeps, what it drops, and whom it makes wait.

use std::sync::Arc;

use quark::prelude::*;
use quark::streams::{Drops, Flow, SubscribeOptions, SubscriptionReport};
use quark_testkit::TestSilo;
use quark_tests::{Gate, builder, on_both_runtimes, soon, until};
use tokio::task::yield_now;

const NEWEST: Topic<u64> = Topic::new("flow/newest");

/// One method for each policy; each takes its items one after another into the same list.
#[derive(Actor)]
#[actor(name = "flow.sink")]
struct Sink {
    seen: Vec<u64>,
}

#[methods]
impl Sink {
    #[on_stream("flow/oldest", flow = "drop_oldest", buffer = 4)]
    async fn oldest(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream(NEWEST, flow = "drop_newest", buffer = 4)]
    async fn newest(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream("flow/wait", buffer = 4)]
    async fn waits(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream("flow/tenth", sample = "1 in 10")]
    async fn tenth(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream("flow/moments", sample = "100ms")]
    async fn moments(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream("flow/rate", rate = 10)]
    async fn rate(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream("flow/fresh", rate = 10, flow = "drop_newest")]
    async fn fresh(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream("flow/adaptive", flow = "drop_newest", buffer(min = 2, max = 8))]
    async fn adaptive(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream("flow/batch", batch = 3)]
    async fn batch(&mut self, items: Vec<u64>) {
        assert!(items.len() <= 3);
        self.seen.extend(items);
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }

    pub async fn seen(&self) -> Vec<u64> {
        self.seen.clone()
    }
}

fn stream(name: &str) -> StreamId {
    name.parse().unwrap()
}

fn report(grid: &Grid, namespace: &str) -> SubscriptionReport {
    let found: Vec<_> = grid.streams().into_iter().filter(|report| report.namespace == namespace).collect();
    let [report] = found.try_into().unwrap();
    report
}

/// Keeps the sink busy until the gate is opened.
async fn held(grid: &Grid) -> Arc<Gate> {
    let (started, gate) = (Gate::new(), Gate::new());
    grid.actor::<Sink>("a").hold(started.clone(), gate.clone()).tell().unwrap();
    started.passed().await;
    gate
}

async fn seen(grid: &Grid, count: usize) -> Vec<u64> {
    loop {
        let seen = grid.actor::<Sink>("a").seen().await.unwrap();
        if seen.len() >= count {
            return seen;
        }
        yield_now().await;
    }
}

#[test]
fn drop_oldest_keeps_the_newest_items_in_order_and_never_makes_the_publisher_wait() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Sink>().start().unwrap();
        let grid = silo.grid();
        let gate = held(&grid).await;
        for n in 0..100_u64 {
            grid.publish(&stream("flow/oldest/a"), n).await.unwrap();
        }
        let before = report(&grid, "flow/oldest");
        assert_eq!((before.buffer.used, before.buffer.capacity, before.lag()), (4, 4, 4));
        assert_eq!(before.dropped, Drops { oldest: 96, ..Drops::default() });
        gate.open();
        assert_eq!(seen(&grid, 4).await, [96, 97, 98, 99]);
        assert_eq!((report(&grid, "flow/oldest").delivered, report(&grid, "flow/oldest").lag()), (4, 0));
    });
}

#[test]
fn drop_newest_keeps_the_first_items() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Sink>().start().unwrap();
        let grid = silo.grid();
        let gate = held(&grid).await;
        for n in 0..100_u64 {
            grid.topic(&NEWEST).publish("a", n).await.unwrap();
        }
        gate.open();
        assert_eq!(seen(&grid, 4).await, [0, 1, 2, 3]);
        assert_eq!(report(&grid, "flow/newest").dropped, Drops { newest: 96, ..Drops::default() });
    });
}

#[test]
fn with_wait_a_full_buffer_holds_the_publisher_back_and_nothing_is_lost() {
    on_both_runtimes(|| async {
        for all_at_once in [false, true] {
            let silo = builder().host::<Sink>().start().unwrap();
            let (grid, other) = (silo.grid(), silo.grid());
            let gate = held(&grid).await;
            let publisher = tokio::spawn(async move {
                let to = stream("flow/wait/a");
                if all_at_once {
                    grid.publish_all(&to, 0..50_u64).await.unwrap();
                } else {
                    for n in 0..50_u64 {
                        grid.publish(&to, n).await.unwrap();
                    }
                }
            });
            until(|| report(&other, "flow/wait").lag() == 4).await;
            for _ in 0..10 {
                yield_now().await;
            }
            assert!(!publisher.is_finished(), "the publisher waits");
            assert_eq!(report(&other, "flow/wait").buffer.used, 4, "and the bound holds");
            gate.open();
            publisher.await.unwrap();
            assert_eq!(seen(&other, 50).await, (0..50).collect::<Vec<_>>());
            assert_eq!(report(&other, "flow/wait").dropped.total(), 0);
        }
    });
}

#[test]
fn the_smallest_buffers_let_a_publisher_that_waits_on() {
    #[derive(Actor)]
    #[actor(name = "flow.small")]
    struct Small {
        seen: [Vec<u64>; 4],
    }

    #[methods]
    impl Small {
        #[on_stream("small/1", buffer = 1)]
        async fn one(&mut self, n: u64) {
            self.seen[0].push(n);
        }

        #[on_stream("small/2", buffer = 2)]
        async fn two(&mut self, n: u64) {
            yield_now().await;
            self.seen[1].push(n);
        }

        #[on_stream("small/3", buffer = 3)]
        async fn three(&mut self, n: u64) {
            self.seen[2].push(n);
        }

        #[on_stream("small/batch", buffer = 3, batch = 2)]
        async fn batch(&mut self, items: Vec<u64>) {
            self.seen[3].extend(items);
        }

        pub async fn seen(&self) -> [Vec<u64>; 4] {
            self.seen.clone()
        }
    }

    on_both_runtimes(|| async {
        let silo = builder().host::<Small>().start().unwrap();
        let (grid, small) = (silo.grid(), silo.grid().actor::<Small>("a"));
        for to in ["small/1/a", "small/2/a", "small/3/a", "small/batch/a"] {
            soon(grid.publish_all(&stream(to), 0..50_u64)).await.unwrap();
            for n in 50..100_u64 {
                soon(grid.publish(&stream(to), n)).await.unwrap();
            }
        }
        let all: [Vec<u64>; 4] = std::array::from_fn(|_| (0..100).collect());
        soon(async {
            while small.seen().await.unwrap() != all {
                yield_now().await;
            }
        })
        .await;
    });
}

#[tokio::test(flavor = "current_thread")]
async fn an_item_whose_circuit_opens_while_it_stands_in_line_is_counted_as_refused() {
    #[derive(Actor)]
    #[actor(
        name = "flow.guarded",
        rate_limit(per_second = 1, when_full = "queue"),
        breaker(failures = 1, open = "1m")
    )]
    struct Guarded;

    #[methods]
    impl Guarded {
        #[on_stream("guarded/direct")]
        async fn direct(&mut self, _n: u64) {
            panic!("as each does");
        }

        #[on_stream("guarded/buffered", buffer = 4)]
        async fn buffered(&mut self, _n: u64) {
            panic!("as each does");
        }
    }

    for namespace in ["guarded/direct", "guarded/buffered"] {
        let silo = TestSilo::builder().host::<Guarded>().start().unwrap();
        let (grid, to) = (silo.grid(), stream(&format!("{namespace}/a")));
        let other = silo.grid();
        let both = tokio::spawn(async move { other.publish_all(&to, 0..2_u64).await });
        silo.settle().await;
        assert!(!both.is_finished(), "the second stands in line");
        silo.advance(ms(1_000)).await;
        both.await.unwrap().unwrap_err();
        let report = report(&grid, namespace);
        assert_eq!((report.delivered, report.dropped), (1, Drops { refused: 1, ..Drops::default() }));
    }
}

/// Never comes to its second item until it is let.
#[derive(Actor)]
#[actor(name = "flow.slow", factory)]
struct Slow {
    gate: Arc<Gate>,
}

#[methods]
impl Slow {
    #[on_stream("flow/*", flow = "drop_oldest", buffer = 2)]
    async fn item(&mut self, _n: u64) {
        self.gate.passed().await;
    }
}

#[test]
fn a_slow_subscriber_slows_no_other_one_unless_told_to() {
    on_both_runtimes(|| async {
        let gate = Gate::new();
        let slow = gate.clone();
        let silo = builder().host_with(move |_| Ok(Slow { gate: slow.clone() })).host::<Sink>();
        let silo = silo.start().unwrap();
        let grid = silo.grid();
        for n in 0..200_u64 {
            let published = grid.publish(&stream("flow/wait/a"), n).await.unwrap();
            assert_eq!(published.subscribers, 2, "the pattern reads it, too");
        }
        assert_eq!(seen(&grid, 200).await, (0..200).collect::<Vec<_>>());
        let slow = report(&grid, "flow/*");
        assert_eq!(slow.delivered + slow.dropped.oldest + slow.lag(), 200);
        assert!(slow.lag() <= 2 && slow.dropped.oldest >= 190, "{slow:?}");
        gate.open();
    });
}

#[test]
fn a_subscriber_that_waits_for_room_does_not_keep_the_item_from_one_that_has_some() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Sink>().start().unwrap();
        let grid = silo.grid();
        let full = SubscribeOptions::new().flow(Flow::wait().buffer(1)).name("full");
        let full = grid.subscribe(Topics::<u64>::matching("flow/**"), full).unwrap();
        grid.publish(&stream("flow/wait/a"), 1_u64).await.unwrap();
        let (other, to) = (silo.grid(), stream("flow/wait/a"));
        let publisher = tokio::spawn(async move { other.publish(&to, 2_u64).await.unwrap().subscribers });
        assert_eq!(seen(&grid, 2).await, [1, 2]);
        assert!(!publisher.is_finished(), "it waits for the subscription that is full");
        drop(full);
        assert_eq!(publisher.await.unwrap(), 2);
    });
}

#[test]
fn a_sample_takes_the_first_of_each_ten() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Sink>().start().unwrap();
        let grid = silo.grid();
        grid.publish_all(&stream("flow/tenth/a"), 0..35_u64).await.unwrap();
        for n in 35..50_u64 {
            grid.publish(&stream("flow/tenth/a"), n).await.unwrap();
        }
        assert_eq!(seen(&grid, 5).await, [0, 10, 20, 30, 40]);
        assert_eq!(report(&grid, "flow/tenth").dropped, Drops { sampled_out: 45, ..Drops::default() });
    });
}

#[tokio::test(flavor = "current_thread")]
async fn a_sample_by_time_takes_one_item_and_then_none_for_its_period() {
    let silo = TestSilo::builder().host::<Sink>().start().unwrap();
    let grid = silo.grid();
    for n in 0..40_u64 {
        grid.publish(&stream("flow/moments/a"), n).await.unwrap();
        silo.advance(ms(25)).await;
    }
    assert_eq!(seen(&grid, 10).await, (0..10).map(|n| n * 4).collect::<Vec<_>>());
}

#[tokio::test(flavor = "current_thread")]
async fn above_its_rate_a_subscription_that_waits_holds_the_publisher_back() {
    let silo = TestSilo::builder().host::<Sink>().start().unwrap();
    let (grid, other) = (silo.grid(), silo.grid());
    let publisher = tokio::spawn(async move {
        for n in 0..11_u64 {
            grid.publish(&stream("flow/rate/a"), n).await.unwrap();
        }
    });
    silo.advance(ms(499)).await;
    assert_eq!(seen(&other, 5).await, [0, 1, 2, 3, 4], "one at once, then one each tenth of a second");
    assert!(!publisher.is_finished());
    silo.advance(ms(501)).await;
    publisher.await.unwrap();
    assert_eq!(seen(&other, 11).await.len(), 11);
}

#[tokio::test(flavor = "current_thread")]
async fn above_its_rate_a_subscription_that_drops_skips_items() {
    let silo = TestSilo::builder().host::<Sink>().start().unwrap();
    let grid = silo.grid();
    for n in 0..100_u64 {
        grid.publish(&stream("flow/fresh/a"), n).await.unwrap();
        silo.advance(ms(10)).await;
    }
    assert_eq!(seen(&grid, 10).await, (0..10).map(|n| n * 10).collect::<Vec<_>>());
    assert_eq!(report(&grid, "flow/fresh").dropped, Drops { above_rate: 90, ..Drops::default() });
}

#[tokio::test(flavor = "current_thread")]
async fn an_adaptive_buffer_grows_with_a_quick_subscriber_up_to_its_upper_bound() {
    let silo = TestSilo::builder().host::<Sink>().start().unwrap();
    let grid = silo.grid();
    grid.publish(&stream("flow/adaptive/a"), 0_u64).await.unwrap();
    assert_eq!(report(&grid, "flow/adaptive").buffer.capacity, 2, "it first shows that it is quick");
    for _ in 0..100 {
        let gate = held(&grid).await;
        grid.publish_all(&stream("flow/adaptive/a"), 0..100_u64).await.unwrap();
        let buffer = report(&grid, "flow/adaptive").buffer;
        assert!(buffer.used == buffer.capacity && buffer.capacity <= 8, "{buffer:?}");
        gate.open();
        silo.settle().await;
    }
    assert_eq!(report(&grid, "flow/adaptive").buffer.capacity, 8);
}

#[test]
fn a_method_with_a_batch_gets_what_waits_together() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Sink>().start().unwrap();
        let grid = silo.grid();
        grid.publish(&stream("flow/batch/a"), 0_u64).await.unwrap();
        let gate = held(&grid).await;
        grid.publish_all(&stream("flow/batch/a"), 1..8_u64).await.unwrap();
        gate.open();
        assert_eq!(seen(&grid, 8).await, (0..8).collect::<Vec<_>>());
    });
}

/// Panics at some items, and counts how often it was made.
#[derive(Actor)]
#[actor(name = "flow.fragile", dead_letters(max = 100))]
struct Fragile {
    seen: Vec<u64>,
}

#[methods]
impl Fragile {
    #[on_stream("fragile/items", buffer = 100)]
    async fn item(&mut self, n: u64) -> Result<(), String> {
        assert!(n % 10 != 3, "three");
        if n % 10 == 7 {
            return Err("seven".to_owned());
        }
        self.seen.push(n);
        Ok(())
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }

    pub async fn seen(&self) -> Vec<u64> {
        self.seen.clone()
    }
}

#[test]
fn a_panic_takes_its_own_item_only_and_each_failure_leaves_a_letter() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Fragile>().start().unwrap();
        let grid = silo.grid();
        let (started, gate) = (Gate::new(), Gate::new());
        grid.actor::<Fragile>("a").hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        grid.publish_all(&stream("fragile/items/a"), 0..10_u64).await.unwrap();
        gate.open();
        until(|| report(&grid, "fragile/items").delivered == 10).await;
        let letters = loop {
            let letters = grid.dead_letters::<Fragile>().inspect();
            if letters.len() == 2 {
                break letters;
            }
            yield_now().await;
        };
        let seen = grid.actor::<Fragile>("a").seen().await.unwrap();
        assert_eq!(seen, [4, 5, 6, 8, 9], "the panic ended the activation, whose items went with it");
        let messages: Vec<_> = letters.iter().map(|letter| letter.message.as_deref().unwrap()).collect();
        assert!(messages[0].contains('3') && messages[1].contains('7'), "{messages:?}");
    });
}

/// Cannot be activated.
#[derive(Actor)]
#[actor(name = "flow.never", factory)]
struct Never;

#[methods]
impl Never {
    #[on_stream("never/items", buffer = 10)]
    async fn item(&mut self, _n: u64) {}
}

#[test]
fn items_for_an_actor_that_cannot_be_activated_are_counted_as_lost() {
    on_both_runtimes(|| async {
        let silo = builder().host_with::<Never>(|_| Err("no".into())).start().unwrap();
        let grid = silo.grid();
        for n in 0..5_u64 {
            grid.publish(&stream("never/items/a"), n).await.unwrap();
        }
        until(|| report(&grid, "never/items").dropped.lost == 5).await;
        until(|| grid.census().types[0].dead_letters == 5).await;
    });
}

#[test]
fn what_waits_when_an_actor_is_deactivated_begins_its_next_activation() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Sink>().start().unwrap();
        let grid = silo.grid();
        let gate = held(&grid).await;
        grid.publish_all(&stream("flow/oldest/a"), 0..4_u64).await.unwrap();
        grid.deactivate::<Sink>("a");
        gate.open();
        assert_eq!(seen(&grid, 4).await, [0, 1, 2, 3]);
    });
}

/// Is quick, but for items that have a gate.
#[derive(Actor)]
#[actor(name = "flow.quick")]
struct Quick {
    seen: u64,
}

#[methods]
impl Quick {
    #[on_stream("quick/items", buffer = 1_000)]
    async fn item(&mut self, gate: Option<Arc<Gate>>) {
        self.wait(gate).await;
    }

    #[on_stream("quick/few", buffer = 8)]
    async fn few(&mut self, gate: Option<Arc<Gate>>) {
        self.wait(gate).await;
    }

    async fn wait(&mut self, gate: Option<Arc<Gate>>) {
        if let Some(gate) = gate {
            gate.passed().await;
        }
        self.seen += 1;
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }

    pub async fn seen(&mut self) -> u64 {
        self.seen
    }
}

#[test]
fn a_call_waits_for_no_more_items_than_one_turn_takes() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Quick>().start().unwrap();
        let grid = silo.grid();
        let (started, gate) = (Gate::new(), Gate::new());
        let quick = grid.actor::<Quick>("a");
        quick.hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        grid.publish_all(&stream("quick/items/a"), vec![None::<Arc<Gate>>; 1_000]).await.unwrap();
        let asks = tokio::spawn(async move { quick.seen().await.unwrap() });
        until(|| grid.census().types[0].queued == 2).await;
        gate.open();
        assert_eq!(asks.await.unwrap(), 64);
        until(|| report(&grid, "quick/items").delivered == 1_000).await;
    });
}

#[test]
fn a_publisher_gets_the_room_that_an_item_has_left_whose_method_waits() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Quick>().start().unwrap();
        let (grid, other) = (silo.grid(), silo.grid());
        let (started, gate, slow) = (Gate::new(), Gate::new(), Gate::new());
        grid.actor::<Quick>("a").hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        let publisher = tokio::spawn({
            let items: Vec<_> = [Some(slow.clone())].into_iter().chain(vec![None; 8]).collect();
            async move { other.publish_all(&stream("quick/few/a"), items).await.unwrap() }
        });
        until(|| report(&grid, "quick/few").lag() == 8).await;
        assert!(!publisher.is_finished());
        gate.open();
        publisher.await.unwrap();
        assert_eq!(report(&grid, "quick/few").lag(), 8, "the first item is in its turn");
        slow.open();
        until(|| report(&grid, "quick/few").delivered == 9).await;
    });
}

#[test]
fn calls_get_their_turn_between_the_items_of_a_method_that_waits() {
    #[derive(Actor)]
    #[actor(name = "flow.polite")]
    struct Polite {
        seen: u64,
    }

    #[methods]
    impl Polite {
        #[on_stream("polite/items", buffer = 100)]
        async fn item(&mut self, gate: Arc<Gate>) {
            gate.passed().await;
            self.seen += 1;
        }

        pub async fn seen(&mut self) -> u64 {
            self.seen
        }
    }

    on_both_runtimes(|| async {
        let silo = builder().host::<Polite>().start().unwrap();
        let grid = silo.grid();
        let (first, second) = (Gate::new(), Gate::new());
        grid.publish_all(&stream("polite/items/a"), [first.clone(), second.clone()]).await.unwrap();
        until(|| report(&grid, "polite/items").delivered == 1).await;
        let polite = grid.actor::<Polite>("a");
        let asks = tokio::spawn(async move { polite.seen().await.unwrap() });
        until(|| grid.census().types[0].queued == 1).await;
        first.open();
        assert_eq!(asks.await.unwrap(), 1, "not behind the second item, which never ends");
        second.open();
    });
}
