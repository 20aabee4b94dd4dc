//! Durable streams from publication to acknowledgement, on each store that keeps streams: the same cases on all of them,
//! with silos and stores that end and come back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use quark::DeadCause;
use quark::prelude::*;
use quark::runtime::Backoff;
use quark::storage;
use quark::store::{ReadStart, Retention, Store};
use quark::streams::{DurableStream, GroupReport, StreamAdmin};
use quark_servers::Server;
use quark_tests::{Gate, builder, soon, until};
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Stored)]
struct Order {
    number: u64,
    /// How often it fails.
    fails: u32,
}

const ORDERS: Topic<Order> = Topic::new("stores/orders");
const CLERK: &str = "stores.clerk.take";
const AUDITOR: &str = "stores.auditor.audit";

type Held = (u64, Arc<Gate>, Arc<Gate>);

/// What the actors of all silos of a test have seen.
#[derive(Default)]
struct Book {
    taken: Mutex<Vec<(Key, u64)>>,
    audited: Mutex<Vec<u64>>,
    /// The ids of an order's deliveries.
    ids: Mutex<HashMap<u64, Vec<String>>>,
    /// An order that is held in its turn, the gate that it opens then, and the one that it waits for.
    held: Mutex<Option<Held>>,
}

impl Book {
    fn taken(&self) -> Vec<u64> {
        self.taken.lock().unwrap().iter().map(|(_, number)| *number).collect()
    }

    fn of(&self, key: &str) -> Vec<u64> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(of, _)| of.as_str() == key).map(|(_, number)| *number).collect()
    }

    fn ids(&self, number: u64) -> Vec<String> {
        self.ids.lock().unwrap().get(&number).cloned().unwrap_or_default()
    }
}

#[derive(Actor)]
#[actor(name = "stores.clerk", factory, dead_letters(max = 100))]
struct Clerk {
    book: Arc<Book>,
}

#[methods]
impl Clerk {
    #[on_stream(ORDERS)]
    async fn take(&mut self, cx: &Cx, order: Order) -> Result<(), String> {
        let id = cx.message_id().expect("an item has an id").to_string();
        self.book.ids.lock().unwrap().entry(order.number).or_default().push(id);
        let held = self.book.held.lock().unwrap().clone();
        if let Some((_, started, gate)) = held.filter(|(number, ..)| *number == order.number) {
            started.open();
            gate.passed().await;
        }
        if self.book.ids(order.number).len() <= order.fails as usize {
            return Err("not yet".to_owned());
        }
        self.book.taken.lock().unwrap().push((cx.key(), order.number));
        Ok(())
    }
}

#[derive(Actor)]
#[actor(name = "stores.auditor", factory)]
struct Auditor {
    book: Arc<Book>,
}

#[methods]
impl Auditor {
    #[on_stream(ORDERS, batch = 16)]
    async fn audit(&mut self, orders: Vec<Order>) {
        self.book.audited.lock().unwrap().extend(orders.iter().map(|order| order.number));
    }
}

/// A store that can be left and opened again.
trait Place {
    async fn set_up() -> Self;
    async fn open(&self) -> Store;
}

struct InMemory(Store);

impl Place for InMemory {
    async fn set_up() -> Self {
        Self(storage::memory())
    }

    async fn open(&self) -> Store {
        self.0.clone()
    }
}

struct InFile(tempfile::TempDir);

impl Place for InFile {
    async fn set_up() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Store {
        let url = format!("sqlite://{}/streams.db", self.0.path().display());
        storage::open(&url.parse().unwrap()).await.unwrap()
    }
}

/// Keys of a case's own, on whichever server there is.
struct OnRedis(Server, String);

impl Place for OnRedis {
    async fn set_up() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = Server::redis().await.unwrap_or_else(|error| panic!("{error}"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Self(server, format!("streams-{}-{}-{number}", std::process::id(), now.as_nanos()))
    }

    async fn open(&self) -> Store {
        let url = format!("{}?prefix={}", self.0.address(), self.1);
        storage::open(&url.parse().unwrap()).await.unwrap()
    }
}

fn settings() -> DurableStream {
    DurableStream::new().backoff(Backoff::new(ms(1), ms(10))).max_attempts(3)
}

/// A silo with both groups of readers.
async fn silo_in(place: &impl Place, book: &Arc<Book>, settings: DurableStream) -> Silo {
    let (clerk, auditor) = (book.clone(), book.clone());
    let silo = builder().store("default", place.open().await).durable_stream(&ORDERS, settings);
    let silo = silo.host_with(move |_| Ok(Clerk { book: clerk.clone() }));
    silo.host_with(move |_| Ok(Auditor { book: auditor.clone() })).start().unwrap()
}

fn orders(numbers: impl IntoIterator<Item = u64>) -> impl Iterator<Item = Order> {
    numbers.into_iter().map(|number| Order { number, fails: 0 })
}

fn admin(silo: &Silo) -> StreamAdmin {
    silo.grid().stream_admin("stores/orders").unwrap()
}

fn group(silo: &Silo, name: &str) -> GroupReport {
    admin(silo).groups().into_iter().find(|group| group.name == name).unwrap()
}

async fn acknowledged(silo: &Silo, name: &str, count: u64) {
    until(|| group(silo, name).acknowledged >= count).await;
    assert_eq!(group(silo, name).acknowledged, count);
}

/// Each group gets each item, in the order of its key, and nothing is left.
async fn every_group_gets_every_item(place: impl Place) {
    let book = Arc::new(Book::default());
    let silo = silo_in(&place, &book, settings()).await;
    let publisher = silo.grid().topic(&ORDERS);
    for order in orders(0..30) {
        let published = publisher.publish(order.number % 3, order).await.unwrap();
        assert_eq!(published.subscribers, 2);
    }
    publisher.publish_all("many", orders(30..300)).await.unwrap();
    for name in [CLERK, AUDITOR] {
        acknowledged(&silo, name, 300).await;
        assert_eq!(admin(&silo).lag(name).await.unwrap(), 0);
        let group = group(&silo, name);
        assert_eq!((group.failed_attempts, group.dead, group.in_flight), (0, 0, 0));
    }
    for key in 0..3 {
        assert_eq!(book.of(&key.to_string()), (0..30).filter(|n| n % 3 == key).collect::<Vec<_>>());
    }
    assert_eq!(book.of("many"), (30..300).collect::<Vec<_>>());
    let mut audited = book.audited.lock().unwrap().clone();
    audited.sort_unstable();
    assert_eq!(audited, (0..300).collect::<Vec<_>>());
}

/// A turn that fails gets its item again, by one name; one that keeps failing leaves a letter, and the group goes on.
async fn what_fails_comes_again_and_is_given_up_at_last(place: impl Place) {
    let book = Arc::new(Book::default());
    let silo = silo_in(&place, &book, settings()).await;
    let publisher = silo.grid().topic(&ORDERS);
    let failing = [Order { number: 1, fails: 2 }, Order { number: 2, fails: u32::MAX }];
    publisher.publish_all("a", failing.into_iter().chain(orders([3]))).await.unwrap();
    acknowledged(&silo, CLERK, 3).await;
    assert_eq!(book.taken(), [1, 3]);
    for number in [1, 2] {
        let ids = book.ids(number);
        assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    let group = group(&silo, CLERK);
    assert_eq!((group.failed_attempts, group.dead), (5, 1));
    let [letter] = silo.grid().dead_letters::<Clerk>().inspect().try_into().unwrap();
    assert!(
        matches!(&letter.cause, DeadCause::GivenUp { stream, .. } if stream.to_string() == "stores/orders/a")
    );
    assert_eq!(admin(&silo).lag(CLERK).await.unwrap(), 0);
}

/// A group is sent back to where something went wrong, to the beginning, and to the end; the other one stays.
async fn a_group_is_rewound(place: impl Place) {
    let book = Arc::new(Book::default());
    let silo = silo_in(&place, &book, settings()).await;
    let publisher = silo.grid().topic(&ORDERS);
    let bad = Order { number: 2, fails: 3 };
    publisher.publish_all("a", orders(0..2).chain([bad]).chain(orders(3..5))).await.unwrap();
    acknowledged(&silo, CLERK, 5).await;
    assert_eq!(book.taken(), [0, 1, 3, 4]);
    let [letter] = silo.grid().dead_letters::<Clerk>().inspect().try_into().unwrap();
    let DeadCause::GivenUp { position, .. } = letter.cause else { panic!("{}", letter.cause) };
    soon(admin(&silo).seek(CLERK, ReadStart::At(position))).await.unwrap();
    acknowledged(&silo, CLERK, 8).await;
    assert_eq!(book.taken()[4..], [2, 3, 4], "its fourth try went well");
    soon(admin(&silo).seek(CLERK, ReadStart::Oldest)).await.unwrap();
    acknowledged(&silo, CLERK, 13).await;
    assert_eq!(book.taken()[7..], [0, 1, 2, 3, 4]);
    soon(admin(&silo).seek(CLERK, ReadStart::Newest)).await.unwrap();
    publisher.publish_all("a", orders([5])).await.unwrap();
    acknowledged(&silo, CLERK, 14).await;
    assert_eq!(book.taken()[12..], [5]);
    acknowledged(&silo, AUDITOR, 6).await;
}

/// What was trimmed is gone for everybody, and what was kept is there.
async fn what_is_trimmed_is_gone(place: impl Place) {
    let book = Arc::new(Book::default());
    let silo = silo_in(&place, &book, settings()).await;
    silo.grid().topic(&ORDERS).publish_all("a", orders(0..10)).await.unwrap();
    acknowledged(&silo, CLERK, 10).await;
    let dropped = admin(&silo).trim(Retention { items: Some(4), since: None }).await.unwrap();
    assert!((1..=6).contains(&dropped), "a store may keep some more where that is cheaper: {dropped}");
    soon(admin(&silo).seek(CLERK, ReadStart::Oldest)).await.unwrap();
    acknowledged(&silo, CLERK, 20 - dropped).await;
    assert_eq!(book.taken()[10..], (dropped..10).collect::<Vec<_>>());
    assert_eq!(admin(&silo).lag(CLERK).await.unwrap(), 0);
}

/// A silo ends with an item in its turn and others behind it; the next one, over the store opened anew, gets these and
/// no other, and what was published while nobody was there.
async fn a_silo_goes_on_where_the_last_one_ended(place: impl Place) {
    let book = Arc::new(Book::default());
    let quick = || settings().visibility(ms(100));
    let (started, never) = (Gate::new(), Gate::new());
    *book.held.lock().unwrap() = Some((5, started.clone(), never));
    let silo = silo_in(&place, &book, quick()).await;
    silo.grid().topic(&ORDERS).publish_all("a", orders(0..10)).await.unwrap();
    started.passed().await;
    acknowledged(&silo, CLERK, 5).await;
    acknowledged(&silo, AUDITOR, 10).await;
    drop(silo);
    *book.held.lock().unwrap() = None;
    let only_publishes = builder().store("default", place.open().await).durable_stream(&ORDERS, quick());
    let only_publishes = only_publishes.start().unwrap();
    only_publishes.grid().topic(&ORDERS).publish_all("b", orders(10..15)).await.unwrap();
    only_publishes.shutdown(Duration::ZERO).await;
    let next = silo_in(&place, &book, quick()).await;
    acknowledged(&next, CLERK, 10).await;
    acknowledged(&next, AUDITOR, 5).await;
    assert_eq!((book.of("a"), book.of("b")), ((0..10).collect(), (10..15).collect()));
    let tries: Vec<_> = (0..15).map(|number| book.ids(number).len()).collect();
    assert_eq!(
        tries,
        [1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "only the one that was in its turn came again"
    );
    assert_eq!(admin(&next).lag(CLERK).await.unwrap(), 0);
}

/// The silos that host a type share the items of its group.
async fn silos_share_a_group(place: impl Place) {
    let book = Arc::new(Book::default());
    let few = || settings().in_flight(4);
    let silos = [silo_in(&place, &book, few()).await, silo_in(&place, &book, few()).await];
    for order in orders(0..200) {
        let silo = &silos[order.number as usize % 2];
        silo.grid().topic(&ORDERS).publish(order.number, order).await.unwrap();
    }
    for name in [CLERK, AUDITOR] {
        until(|| silos.iter().map(|silo| group(silo, name).acknowledged).sum::<u64>() == 200).await;
    }
    soon(async {
        while admin(&silos[0]).lag(CLERK).await.unwrap() > 0 {
            yield_now().await;
        }
    })
    .await;
    let mut taken = book.taken();
    taken.sort_unstable();
    assert_eq!(taken, (0..200).collect::<Vec<_>>(), "each once");
}

/// A test of each case, each on a store of its own.
macro_rules! cases_on {
    ($store:ident, $place:ident) => {
        cases_on! {
            $store, $place:
            every_group_gets_every_item
            what_fails_comes_again_and_is_given_up_at_last
            a_group_is_rewound
            what_is_trimmed_is_gone
            a_silo_goes_on_where_the_last_one_ended
            silos_share_a_group
        }
    };
    ($store:ident, $place:ident: $($case:ident)*) => {
        mod $store {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    soon(super::$case($place::set_up().await)).await;
                }
            )*
        }
    };
}

cases_on!(memory, InMemory);
cases_on!(sqlite, InFile);
cases_on!(redis, OnRedis);
