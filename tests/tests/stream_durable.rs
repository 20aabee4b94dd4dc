//! Durable streams: what survives a failed turn, a panic and the end of a silo, and what is never given twice.

use std::sync::Arc;

use quark::base::Timestamp;
use quark::prelude::*;
use quark::runtime::Backoff;
use quark::storage::memory;
use quark::store::{Encoded, NewItem, ReadStart, Retention, Store};
use quark::streams::{DurableStream, GroupReport, StreamAdminError, SubscribeOptions};
use quark::{DeadCause, PublishError};
use quark_testkit::TestSilo;
use quark_tests::{Gate, builder, on_both_runtimes, soon, until};
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Stored)]
struct Order {
    number: u64,
    /// How often it fails.
    fails: u32,
}

const ORDERS: Topic<Order> = Topic::new("shop/orders");
const GROUP: &str = "durable.clerk.take";

type Held = (u64, Arc<Gate>, Arc<Gate>);

/// What the clerks of all silos of a test have seen.
#[derive(Default)]
struct Book {
    taken: std::sync::Mutex<Vec<(Key, u64)>>,
    tried: std::sync::Mutex<Vec<(u64, String)>>,
    /// An item that is held in its turn: its number, a gate that it opens then, and one that it waits for.
    held: std::sync::Mutex<Option<Held>>,
}

impl Book {
    fn taken(&self) -> Vec<u64> {
        self.taken.lock().unwrap().iter().map(|(_, number)| *number).collect()
    }

    fn of(&self, key: &str) -> Vec<u64> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(of, _)| of.as_str() == key).map(|(_, number)| *number).collect()
    }

    fn tries(&self, number: u64) -> usize {
        self.tried.lock().unwrap().iter().filter(|(tried, _)| *tried == number).count()
    }
}

#[derive(Actor)]
#[actor(name = "durable.clerk", factory, dead_letters(max = 100))]
struct Clerk {
    book: Arc<Book>,
}

#[methods]
impl Clerk {
    #[on_stream(ORDERS)]
    async fn take(&mut self, cx: &Cx, order: Order) -> Result<(), String> {
        let id = cx.message_id().expect("an item has an id").to_string();
        self.book.tried.lock().unwrap().push((order.number, id));
        let held = self.book.held.lock().unwrap().clone();
        if let Some((_, started, gate)) = held.filter(|(number, ..)| *number == order.number) {
            started.open();
            gate.passed().await;
        }
        let tries = self.book.tries(order.number);
        assert!(order.number != 13 || tries > 1, "thirteen");
        if tries <= order.fails as usize {
            return Err(format!("try {tries}"));
        }
        self.book.taken.lock().unwrap().push((cx.key(), order.number));
        Ok(())
    }
}

fn order(number: u64) -> Order {
    Order { number, fails: 0 }
}

fn settings() -> DurableStream {
    let backoff = Backoff::new(ms(100), Duration::from_secs(1));
    DurableStream::new().backoff(backoff).max_attempts(3).visibility(ms(50))
}

fn silo_on(store: &Store, book: &Arc<Book>) -> Silo {
    let book = book.clone();
    let silo = builder().store("default", store.clone()).durable_stream(&ORDERS, settings());
    silo.host_with(move |_| Ok(Clerk { book: book.clone() })).start().unwrap()
}

fn test_silo(store: &Store, book: &Arc<Book>) -> TestSilo {
    let (book, store) = (book.clone(), store.clone());
    let silo = TestSilo::builder().host_with(move |_| Ok(Clerk { book: book.clone() }));
    silo.configure(|silo| silo.store("default", store).durable_stream(&ORDERS, settings())).start().unwrap()
}

fn group(grid: &Grid) -> GroupReport {
    let [group] = grid.stream_admin("shop/orders").unwrap().groups().try_into().unwrap();
    group
}

#[test]
fn every_item_is_handled_in_the_order_of_its_key_and_acknowledged() {
    on_both_runtimes(|| async {
        let (store, book) = (memory(), Arc::new(Book::default()));
        let silo = silo_on(&store, &book);
        let grid = silo.grid();
        let orders = grid.topic(&ORDERS);
        for n in 0..100 {
            let published = orders.publish(n % 3, order(n)).await.unwrap();
            assert_eq!(published.subscribers, 1);
        }
        orders.publish_all("batch", (100..1_000).map(order)).await.unwrap();
        until(|| group(&grid).acknowledged == 1_000).await;
        for key in 0..3 {
            let expected: Vec<_> = (0..100).filter(|n| n % 3 == key).collect();
            assert_eq!(book.of(&key.to_string()), expected);
        }
        assert_eq!(book.of("batch"), (100..1_000).collect::<Vec<_>>());
        let admin = grid.stream_admin("shop/orders").unwrap();
        assert_eq!(admin.lag(GROUP).await.unwrap(), 0);
        let report = grid.streams().pop().unwrap();
        assert_eq!((report.delivered, report.groups[0].in_flight), (1_000, 0));
    });
}

#[test]
fn an_item_outlives_a_silo_that_nobody_reads_it_on() {
    on_both_runtimes(|| async {
        let (store, book) = (memory(), Arc::new(Book::default()));
        {
            let only_publishes = builder().store("default", store.clone());
            let only_publishes = only_publishes.durable_stream(&ORDERS, settings()).start().unwrap();
            for n in 0..10 {
                only_publishes.grid().topic(&ORDERS).publish("a", order(n)).await.unwrap();
            }
        }
        let silo = silo_on(&store, &book);
        until(|| group(&silo.grid()).acknowledged == 10).await;
        assert_eq!(book.taken(), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn what_a_silo_had_not_acknowledged_is_given_to_the_next_one_and_nothing_else() {
    on_both_runtimes(|| async {
        let (store, book) = (memory(), Arc::new(Book::default()));
        let (started, never) = (Gate::new(), Gate::new());
        *book.held.lock().unwrap() = Some((5, started.clone(), never));
        let silo = silo_on(&store, &book);
        let orders = silo.grid().topic(&ORDERS);
        orders.publish_all("a", (0..10).map(order)).await.unwrap();
        started.passed().await;
        until(|| group(&silo.grid()).acknowledged == 5).await;
        // Half-way: five are acknowledged, the sixth is in its turn, four wait behind it.
        drop(silo);
        *book.held.lock().unwrap() = None;
        let next = silo_on(&store, &book);
        until(|| group(&next.grid()).acknowledged == 5).await;
        assert_eq!(book.taken(), (0..10).collect::<Vec<_>>());
        assert_eq!(book.tries(5), 2, "the one that was in its turn");
        assert!((0..5).chain(6..10).all(|n| book.tries(n) == 1), "and no other");
        assert_eq!(next.grid().stream_admin("shop/orders").unwrap().lag(GROUP).await.unwrap(), 0);
    });
}

#[tokio::test(flavor = "current_thread")]
async fn a_turn_that_fails_gets_its_item_again_after_its_backoff_and_holds_back_only_its_key() {
    let (store, book) = (memory(), Arc::new(Book::default()));
    let silo = test_silo(&store, &book);
    let orders = silo.grid().topic(&ORDERS);
    orders.publish("a", Order { number: 1, fails: 2 }).await.unwrap();
    orders.publish("a", order(2)).await.unwrap();
    orders.publish("b", order(3)).await.unwrap();
    silo.settle().await;
    assert_eq!(book.taken(), [3], "the other key goes on");
    assert_eq!(book.tries(1), 1);
    silo.advance(ms(100)).await;
    assert_eq!((book.tries(1), book.taken().len()), (2, 1));
    silo.advance(ms(200)).await;
    assert_eq!(book.taken(), [3, 1, 2], "in the order of its key");
    let ids: Vec<_> = book.tried.lock().unwrap().iter().filter(|(n, _)| *n == 1).cloned().collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "one item, one id: {ids:?}");
    let group = group(&silo.grid());
    assert_eq!((group.acknowledged, group.failed_attempts, group.dead), (3, 2, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn a_panic_is_a_failure_like_any_other() {
    let (store, book) = (memory(), Arc::new(Book::default()));
    let silo = test_silo(&store, &book);
    silo.grid().topic(&ORDERS).publish("a", order(13)).await.unwrap();
    silo.advance(ms(200)).await;
    assert_eq!((book.tries(13), book.taken()), (2, vec![13]));
}

#[tokio::test(flavor = "current_thread")]
async fn an_item_that_keeps_failing_becomes_a_dead_letter_with_its_place() {
    let (store, book) = (memory(), Arc::new(Book::default()));
    let silo = test_silo(&store, &book);
    let grid = silo.grid();
    let orders = grid.topic(&ORDERS);
    orders.publish("a", Order { number: 7, fails: 99 }).await.unwrap();
    orders.publish("a", order(8)).await.unwrap();
    silo.advance(Duration::from_secs(2)).await;
    assert_eq!((book.tries(7), book.taken()), (3, vec![8]), "what comes behind it goes on");
    let [letter] = grid.dead_letters::<Clerk>().inspect().try_into().unwrap();
    assert_eq!((letter.actor.to_string().as_str(), letter.attempts), ("durable.clerk/a", 3));
    let DeadCause::GivenUp { stream, position, .. } = &letter.cause else { panic!("{}", letter.cause) };
    assert_eq!((stream.to_string(), position.major), ("shop/orders/a".to_owned(), 0));
    assert_eq!(
        letter.cause.to_string(),
        "item 0:0-0 of stream shop/orders/a was given up: it returned an error: \"try 3\""
    );
    assert!(letter.message.unwrap().contains("number: 7"));
    let group = group(&grid);
    assert_eq!((group.acknowledged, group.dead), (2, 1));
}

#[tokio::test(flavor = "current_thread")]
async fn an_item_that_cannot_be_read_becomes_a_dead_letter_at_once() {
    let (store, book) = (memory(), Arc::new(Book::default()));
    let silo = test_silo(&store, &book);
    let grid = silo.grid();
    let nonsense = |bytes: &[u8], version| NewItem {
        key: "a".into(),
        time: Timestamp(0),
        value: Encoded { format: "json".into(), version, bytes: bytes.to_vec() },
    };
    let streams = store.streams.as_ref().unwrap();
    let bad = [nonsense(b"{\"number\": \"one\"}", 1), nonsense(b"{}", 9)];
    streams.append("shop/orders", &bad).await.unwrap();
    grid.topic(&ORDERS).publish("a", order(1)).await.unwrap();
    silo.settle().await;
    assert_eq!(book.taken(), [1]);
    let letters = grid.dead_letters::<Clerk>().inspect();
    let causes: Vec<_> = letters.iter().map(|letter| letter.cause.to_string()).collect();
    assert!(causes[0].starts_with("item 0:0-0 of stream shop/orders/a cannot be read: "), "{causes:?}");
    assert!(causes[0].contains("Order") && causes[1].contains("version 9"), "{causes:?}");
    assert_eq!((group(&grid).acknowledged, group(&grid).dead), (3, 2));
}

#[tokio::test(flavor = "current_thread")]
async fn a_group_is_sent_back_and_forth() {
    let (store, book) = (memory(), Arc::new(Book::default()));
    let silo = test_silo(&store, &book);
    let grid = silo.grid();
    let orders = grid.topic(&ORDERS);
    orders.publish_all("a", (0..5).map(order)).await.unwrap();
    silo.settle().await;
    let admin = grid.stream_admin("shop/orders").unwrap();
    soon(admin.seek(GROUP, ReadStart::Oldest)).await.unwrap();
    silo.settle().await;
    assert_eq!(book.taken(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    let third = quark::store::Position { partition: 0, major: 3, minor: 0 };
    soon(admin.seek(GROUP, ReadStart::At(third))).await.unwrap();
    silo.settle().await;
    assert_eq!(book.taken()[10..], [3, 4]);
    soon(admin.seek(GROUP, ReadStart::Newest)).await.unwrap();
    orders.publish("a", order(5)).await.unwrap();
    silo.settle().await;
    assert_eq!(book.taken()[12..], [5]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_seek_does_not_wait_for_an_item_that_keeps_failing() {
    let (store, book) = (memory(), Arc::new(Book::default()));
    let silo = test_silo(&store, &book);
    let orders = silo.grid().topic(&ORDERS);
    orders.publish("a", Order { number: 1, fails: 99 }).await.unwrap();
    orders.publish("a", order(2)).await.unwrap();
    silo.settle().await;
    let admin = silo.grid().stream_admin("shop/orders").unwrap();
    let seek = tokio::spawn(async move { admin.seek(GROUP, ReadStart::Newest).await });
    silo.advance(ms(100)).await;
    soon(seek).await.unwrap().unwrap();
    silo.advance(Duration::from_secs(5)).await;
    assert_eq!((book.tries(1), book.taken().len()), (1, 0), "both are behind the group's place");
}

#[tokio::test(flavor = "current_thread")]
async fn old_items_are_trimmed_on_demand_and_by_the_streams_settings() {
    let (store, book) = (memory(), Arc::new(Book::default()));
    let keeps = store.clone();
    let silo = TestSilo::builder().configure(|silo| {
        silo.store("default", keeps).durable_stream(&ORDERS, settings().keep_for(Duration::from_secs(90)))
    });
    let silo = silo.start().unwrap();
    let orders = silo.grid().topic(&ORDERS);
    let admin = silo.grid().stream_admin("shop/orders").unwrap();
    orders.publish_all("a", (0..10).map(order)).await.unwrap();
    assert_eq!(admin.trim(Retention { items: Some(4), since: None }).await.unwrap(), 6);
    silo.advance(Duration::from_secs(80)).await;
    orders.publish("a", order(10)).await.unwrap();
    silo.advance(Duration::from_secs(60)).await;
    drop(silo);
    let silo = test_silo(&store, &book);
    silo.settle().await;
    assert_eq!(book.taken(), [10], "six went on demand, four by age");
}

#[test]
fn no_more_than_the_set_number_is_in_flight() {
    #[derive(Actor)]
    #[actor(name = "durable.idler", factory)]
    struct Idler {
        gate: Arc<Gate>,
    }

    #[methods]
    impl Idler {
        #[on_stream("shop/orders")]
        async fn wait(&mut self, _order: Order) {
            self.gate.passed().await;
        }
    }

    on_both_runtimes(|| async {
        let (store, gate) = (memory(), Gate::new());
        let own = gate.clone();
        let silo = builder().store("default", store).host_with(move |_| Ok(Idler { gate: own.clone() }));
        let silo = silo.durable_stream(&ORDERS, DurableStream::new().in_flight(8)).start().unwrap();
        let grid = silo.grid();
        for n in 0..100 {
            grid.topic(&ORDERS).publish(n, order(n)).await.unwrap();
        }
        until(|| group(&grid).in_flight == 8).await;
        for _ in 0..50 {
            yield_now().await;
        }
        assert_eq!((group(&grid).in_flight, group(&grid).acknowledged), (8, 0));
        until(|| grid.census().types[0].active == 8).await;
        gate.open();
        until(|| group(&grid).acknowledged == 100).await;
    });
}

#[test]
fn a_batch_is_handled_and_acknowledged_together() {
    #[derive(Actor)]
    #[actor(name = "durable.packer", factory)]
    struct Packer {
        packed: Arc<std::sync::Mutex<Vec<Vec<u64>>>>,
    }

    #[methods]
    impl Packer {
        #[on_stream(ORDERS, batch = 10)]
        async fn pack(&mut self, cx: &Cx, orders: Vec<Order>) {
            assert!(cx.message_id().is_none());
            self.packed.lock().unwrap().push(orders.iter().map(|order| order.number).collect());
        }
    }

    on_both_runtimes(|| async {
        let packed = Arc::<std::sync::Mutex<Vec<Vec<u64>>>>::default();
        let own = packed.clone();
        let silo = builder().store("default", memory()).durable_stream(&ORDERS, settings());
        let silo = silo.host_with(move |_| Ok(Packer { packed: own.clone() })).start().unwrap();
        let grid = silo.grid();
        grid.topic(&ORDERS).publish_all("a", (0..35).map(order)).await.unwrap();
        until(|| group(&grid).acknowledged == 35).await;
        let packed = packed.lock().unwrap().clone();
        assert!(packed.iter().all(|batch| batch.len() <= 10), "{packed:?}");
        assert_eq!(packed.concat(), (0..35).collect::<Vec<_>>());
    });
}

#[test]
fn programs_read_a_durable_stream_live() {
    on_both_runtimes(|| async {
        let (store, book) = (memory(), Arc::new(Book::default()));
        let silo = silo_on(&store, &book);
        let mut live = silo.grid().subscribe(ORDERS, SubscribeOptions::new()).unwrap();
        let published = silo.grid().topic(&ORDERS).publish("a", order(1)).await.unwrap();
        assert_eq!(published.subscribers, 2);
        assert_eq!(live.recv().await.unwrap().item, order(1));
        until(|| book.taken() == [1]).await;
    });
}

#[test]
fn what_cannot_be_durable_is_said_before_anything_starts() {
    #[derive(Actor)]
    #[actor(name = "durable.hasty")]
    struct Hasty;

    #[methods]
    impl Hasty {
        #[on_stream(ORDERS, flow = "drop_oldest")]
        async fn take(&mut self, _order: Order) {}
    }

    on_both_runtimes(|| async {
        let error = |silo: quark::SiloBuilder| silo.start().err().unwrap().to_string();
        assert_eq!(
            error(builder().durable_stream(&ORDERS, settings())),
            "durable stream shop/orders is kept in store \"default\", which the silo does not have; add \
             `.store(\"default\", …)`"
        );
        let with_store = || builder().store("default", memory());
        let dropping = error(with_store().host::<Hasty>().durable_stream(&ORDERS, settings()));
        assert!(
            dropping.starts_with("durable stream shop/orders keeps every item, but durable.hasty"),
            "{dropping}"
        );
        let twice = with_store().durable_stream(&ORDERS, settings()).durable_stream(&ORDERS, settings());
        assert!(error(twice).ends_with("is set twice; leave one of them out"));
        let wrong = Topic::<u64>::new("shop/orders");
        let other = with_store().host::<Hasty>().durable_stream(&wrong, settings());
        assert!(error(other).starts_with("durable stream shop/orders carries u64, but durable.hasty reads "));

        let silo = with_store().durable_stream(&ORDERS, settings()).start().unwrap();
        let unknown = silo.grid().stream_admin("shop/returns").unwrap_err();
        assert_eq!(unknown.to_string(), "namespace shop/returns is not durable here; these are: shop/orders");
        let nobody = silo.grid().stream_admin("shop/orders").unwrap().lag("nobody").await.unwrap_err();
        assert!(matches!(nobody, StreamAdminError::NoGroup { .. }), "{nobody}");
        let wrong = silo.grid().publish(&"shop/orders/a".parse().unwrap(), 1_u64).await.unwrap_err();
        assert!(matches!(wrong, PublishError::WrongItem { .. }), "{wrong}");
    });
}
