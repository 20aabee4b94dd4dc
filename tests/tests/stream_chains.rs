//! Publishers that are their own subscribers, or called by them: what is handled meanwhile, and what is refused at once.

use std::future::{IntoFuture, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use quark::prelude::*;
use quark::streams::{Flow, SubscriptionReport};
use quark::{CallChain, Outcome, PublishError, Retry};
use quark_tests::{Gate, builder, on_both_runtimes, soon, until};
use tokio::task::yield_now;

const NUMBERS: Topic<u64> = Topic::new("self/numbers");
const DIRECT: Topic<u64> = Topic::new("self/direct");
const SHARED: Topic<u64> = Topic::new("self/shared");
const ECHOES: Topic<u64> = Topic::new("self/echoes");
const CHOSEN: Topic<u64> = Topic::new("self/chosen");
const CREW: Topic<u64> = Topic::new("self/crew");

type Refused = (u64, CallChain);

/// Publishes 0, 1, 2 and so on, up to `count`; gives where that ended, if it did not get so far.
async fn publish(grid: &Grid, topic: &Topic<u64>, count: u64) -> Option<Refused> {
    for n in 0..count {
        match grid.topic(topic).publish("a", n).await {
            Ok(_) => {}
            Err(PublishError::Deadlock { chain, .. }) => return Some((n, *chain)),
            Err(other) => panic!("{other}"),
        }
    }
    None
}

/// Reads what it publishes.
#[derive(Actor)]
#[actor(name = "self.talker", mailbox = 4)]
struct Talker {
    seen: Vec<u64>,
    shared: Mutex<Vec<u64>>,
}

#[methods]
impl Talker {
    #[on_stream(NUMBERS, buffer = 4)]
    async fn number(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream(DIRECT)]
    async fn direct(&mut self, n: u64) {
        self.seen.push(n);
    }

    #[on_stream(SHARED, buffer = 4)]
    async fn shared(&self, n: u64) {
        yield_now().await;
        self.shared.lock().unwrap().push(n);
    }

    /// Says everything that it hears a thousand times.
    #[on_stream(ECHOES, buffer = 4)]
    async fn echo(&self, cx: &Cx, n: u64) {
        if n == 1_000 {
            let refused = publish(&cx.grid(), &ECHOES, 100).await.map(|(n, _)| n);
            self.shared.lock().unwrap().extend(refused);
        }
    }

    pub async fn chosen(&mut self, n: u64) {
        self.seen.push(n);
    }

    pub async fn talk(&mut self, cx: &Cx, topic: Topic<u64>, count: u64) -> Option<Refused> {
        publish(&cx.grid(), &topic, count).await
    }

    pub async fn talk_at_once(&mut self, cx: &Cx, count: u64) -> Result<usize, PublishError> {
        Ok(cx.grid().topic(&NUMBERS).publish_all("a", 0..count).await?.subscribers)
    }

    pub async fn have_it_said(&mut self, cx: &Cx, topic: Topic<u64>, count: u64) -> Option<Refused> {
        cx.grid().actor::<Speaker>("s").say(topic, count).await.unwrap()
    }

    pub async fn talk_on_loan(&mut self, cx: &Cx, topic: Topic<u64>, count: u64) -> Option<Refused> {
        let grid = cx.grid();
        cx.lend(self, publish(&grid, &topic, count)).await
    }

    pub async fn have_it_said_on_loan(&mut self, cx: &Cx, count: u64) -> Option<Refused> {
        let speaker = cx.grid().actor::<Speaker>("s");
        cx.lend(self, speaker.say(NUMBERS, count)).await.unwrap()
    }

    pub async fn talk_beside_others(
        &self,
        cx: &Cx,
        topic: Topic<u64>,
        started: Arc<Gate>,
        gate: Arc<Gate>,
    ) -> Option<Refused> {
        started.open();
        gate.passed().await;
        publish(&cx.grid(), &topic, 100).await
    }

    pub async fn choose(&mut self, cx: &Cx) -> Option<Refused> {
        let flow = Flow::wait().buffer(4);
        cx.subscribe_with(&CHOSEN, "a", flow, |me: &TalkerRef, n| me.chosen(n)).unwrap();
        publish(&cx.grid(), &CHOSEN, 100).await
    }

    pub async fn seen(&mut self) -> Vec<u64> {
        self.seen.clone()
    }

    pub async fn shared_seen(&self) -> Vec<u64> {
        self.shared.lock().unwrap().clone()
    }
}

/// Says what it is told to.
#[derive(Actor)]
#[actor(name = "self.speaker")]
struct Speaker;

#[methods]
impl Speaker {
    pub async fn say(&mut self, cx: &Cx, topic: Topic<u64>, count: u64) -> Option<Refused> {
        publish(&cx.grid(), &topic, count).await
    }
}

fn silo() -> (Silo, Grid) {
    let silo = builder().host::<Talker>().host::<Speaker>().start().unwrap();
    let grid = silo.grid();
    (silo, grid)
}

async fn seen(talker: &TalkerRef, count: u64) {
    soon(async {
        while (talker.seen().await.unwrap().len() as u64) < count {
            yield_now().await;
        }
    })
    .await;
    assert_eq!(talker.seen().await.unwrap(), (0..count).collect::<Vec<_>>());
}

fn queued(grid: &Grid) -> u64 {
    grid.census().types.iter().find(|one| one.name == "self.talker").unwrap().queued
}

fn report(grid: &Grid, namespace: &str) -> SubscriptionReport {
    grid.streams().into_iter().find(|report| report.namespace == namespace).unwrap()
}

fn names(chain: &CallChain) -> String {
    chain.to_string()
}

#[test]
fn a_publisher_that_is_its_own_full_subscriber_is_refused_at_once_and_keeps_what_it_has_published() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        let (n, chain) = talker.talk(NUMBERS, 100).await.unwrap().unwrap();
        assert_eq!((n, names(&chain).as_str()), (4, "self.talker/a -> self.talker/a"));
        seen(&talker, 4).await;
        let report = report(&grid, "self/numbers");
        assert_eq!((report.delivered, report.dropped.refused, report.lag()), (4, 1, 0));
    });
}

#[test]
fn the_error_says_what_was_delivered_and_what_to_do() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        let error = talker.talk_at_once(100).await.unwrap_err();
        let CallError::Actor(error) = error else { panic!("{error}") };
        assert_eq!((error.outcome(), error.retry()), (Outcome::Unknown, Retry::Pointless));
        assert!(
            error.to_string().starts_with(
                "stream self/numbers/a: self.talker has no room, and makes none while it waits for its own publication: \
                 self.talker/a -> self.talker/a; "
            ),
            "{error}"
        );
        seen(&talker, 4).await;
    });
}

#[test]
fn a_publisher_that_its_full_subscriber_waits_for_is_refused_with_the_whole_chain() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        let (n, chain) = talker.have_it_said(NUMBERS, 100).await.unwrap().unwrap();
        assert_eq!((n, names(&chain).as_str()), (4, "self.talker/a -> self.speaker/s -> self.talker/a"));
        seen(&talker, 4).await;
        assert_eq!(
            grid.actor::<Speaker>("s").say(NUMBERS, 100).await.unwrap(),
            None,
            "which nobody waits for now"
        );
    });
}

#[test]
fn a_publisher_that_keeps_its_subscriber_from_a_full_mailbox_is_refused_also_on_a_loan() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        for on_loan in [false, true] {
            let talk =
                if on_loan { talker.talk_on_loan(DIRECT, 100).await } else { talker.talk(DIRECT, 100).await };
            let (n, chain) = talk.unwrap().unwrap();
            assert_eq!((n, names(&chain).as_str()), (4, "self.talker/a -> self.talker/a"));
            until(|| queued(&grid) == 0).await;
        }
        let (_, chain) = talker.have_it_said(DIRECT, 100).await.unwrap().unwrap();
        assert_eq!(chain.0.len(), 3);
        until(|| queued(&grid) == 0).await;
        assert_eq!(talker.seen().await.unwrap(), [0, 1, 2, 3].repeat(3));
        let report = report(&grid, "self/direct");
        assert_eq!((report.delivered, report.dropped.total(), report.dropped.refused), (12, 3, 3));
    });
}

#[test]
fn a_lent_actor_handles_its_items_while_their_publisher_waits_for_room() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        assert_eq!(soon(talker.talk_on_loan(NUMBERS, 500)).await.unwrap(), None);
        seen(&talker, 500).await;
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        assert_eq!(soon(talker.have_it_said_on_loan(500)).await.unwrap(), None);
        seen(&talker, 500).await;
    });
}

#[test]
fn an_actor_in_a_shared_turn_handles_its_items_in_order_past_an_exclusive_call_that_waits() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        let (started, gate) = (Gate::new(), Gate::new());
        let talks = tokio::spawn({
            let (talker, started, gate) = (talker.clone(), started.clone(), gate.clone());
            async move { talker.talk_beside_others(SHARED, started, gate).await.unwrap() }
        });
        started.passed().await;
        let waits = tokio::spawn({
            let talker = talker.clone();
            async move { talker.seen().await.unwrap() }
        });
        until(|| queued(&grid) == 1).await;
        gate.open();
        assert_eq!(soon(talks).await.unwrap(), None);
        soon(waits).await.unwrap();
        soon(async {
            while talker.shared_seen().await.unwrap().len() < 100 {
                yield_now().await;
            }
        })
        .await;
        assert_eq!(talker.shared_seen().await.unwrap(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn an_exclusive_method_does_not_take_what_a_shared_turn_of_its_actor_publishes() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        let open = Gate::new();
        open.open();
        for topic in [NUMBERS, DIRECT] {
            let refused = soon(talker.talk_beside_others(topic, Gate::new(), open.clone())).await.unwrap();
            let (n, chain) = refused.unwrap();
            assert_eq!((n, names(&chain).as_str()), (4, "self.talker/a -> self.talker/a"));
        }
    });
}

#[test]
fn a_method_that_handles_an_item_takes_no_other_one_of_its_buffer_meanwhile() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        grid.topic(&ECHOES).publish("a", 1_000).await.unwrap();
        soon(async {
            while talker.shared_seen().await.unwrap().is_empty() {
                yield_now().await;
            }
        })
        .await;
        assert_eq!(talker.shared_seen().await.unwrap(), [4]);
    });
}

#[test]
fn a_subscription_that_the_publisher_has_made_itself_is_no_exception() {
    on_both_runtimes(|| async {
        let (_silo, grid) = silo();
        let talker = grid.actor::<Talker>("a");
        let (n, chain) = soon(talker.choose()).await.unwrap().unwrap();
        assert_eq!((n, names(&chain).as_str()), (4, "self.talker/a -> self.talker/a"));
        seen(&talker, 4).await;
    });
}

/// Says what it heard on its way in.
#[derive(Actor)]
#[actor(name = "self.early")]
struct Early {
    refused: Option<Refused>,
    seen: u64,
}

#[methods]
impl Early {
    #[on_activate]
    async fn talk(&mut self, cx: &Cx) -> Result<()> {
        self.refused = publish(&cx.grid(), &NUMBERS, 100).await;
        Ok(())
    }

    #[on_stream(NUMBERS, buffer = 4)]
    async fn number(&mut self, _n: u64) {
        self.seen += 1;
    }

    pub async fn refused(&mut self) -> Option<Refused> {
        self.refused.clone()
    }

    pub async fn count(&mut self) -> u64 {
        self.seen
    }
}

#[test]
fn a_hook_that_fills_its_own_actors_buffer_is_refused() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Early>().start().unwrap();
        let early = silo.grid().actor::<Early>("a");
        let (n, chain) = soon(early.refused()).await.unwrap().unwrap();
        assert_eq!((n, names(&chain).as_str()), (4, "self.early/a -> self.early/a"));
        soon(async {
            while early.count().await.unwrap() < 4 {
                yield_now().await;
            }
        })
        .await;
    });
}

#[test]
fn an_item_that_panics_is_no_failure_of_the_publisher_that_waited_for_its_room() {
    #[derive(Actor)]
    #[actor(name = "self.fragile")]
    struct Fragile;

    #[methods]
    impl Fragile {
        #[on_stream("self/fragile", buffer = 1)]
        async fn item(&self, n: u64) {
            assert_ne!(n, 0, "the first");
        }

        pub async fn talk(&self, cx: &Cx) -> Result<(), PublishError> {
            for n in 0..10_u64 {
                cx.grid().publish(&"self/fragile/a".parse().unwrap(), n).await?;
            }
            Ok(())
        }
    }

    on_both_runtimes(|| async {
        let silo = builder().host::<Fragile>().start().unwrap();
        soon(silo.grid().actor::<Fragile>("a").talk()).await.unwrap();
    });
}

/// One of two workers; notes which of them has handled what.
#[derive(Actor)]
#[actor(name = "self.hand", factory, workers(max = 2))]
struct Hand {
    number: u32,
    handled: Arc<Mutex<Vec<(u32, u64)>>>,
}

#[methods]
impl Hand {
    #[on_stream(CREW, buffer = 2)]
    async fn item(&mut self, n: u64) {
        self.handled.lock().unwrap().push((self.number, n));
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }

    pub async fn pass(&mut self) {}

    /// Leaves `calls` in the mailboxes and publishes three items; lets the other worker go if the third has to wait.
    /// Gives this worker's number, and the item that was refused.
    pub async fn talk(&mut self, cx: &Cx, calls: u32, other: Arc<Gate>) -> (u32, Option<u64>) {
        let grid = cx.grid();
        for _ in 0..calls {
            grid.actor::<Hand>("a").pass().tell().unwrap();
        }
        for n in 0..3 {
            let topic = grid.topic(&CREW);
            let mut publication = pin!(topic.publish("a", n).into_future());
            let published = match poll_fn(|cx| Poll::Ready(publication.as_mut().poll(cx))).await {
                Poll::Ready(published) => published,
                Poll::Pending => {
                    other.open();
                    publication.await
                }
            };
            match published {
                Ok(_) => {}
                Err(PublishError::Deadlock { .. }) => return (self.number, Some(n)),
                Err(error) => panic!("{error}"),
            }
        }
        (self.number, None)
    }
}

#[test]
fn a_worker_is_refused_only_where_it_is_itself_the_one_that_would_take_its_items() {
    on_both_runtimes(|| async {
        let mut waited = 0;
        // Calls that wait elsewhere decide which worker gets the items.
        for calls in 0..8 {
            let (made, handled) = (AtomicU32::new(0), Arc::<Mutex<Vec<_>>>::default());
            let theirs = handled.clone();
            let hand = move |_: &Key| {
                Ok(Hand { number: made.fetch_add(1, Ordering::Relaxed), handled: theirs.clone() })
            };
            let silo = builder().host_with(hand).start().unwrap();
            let (started, gate) = (Gate::new(), Gate::new());
            silo.grid().actor::<Hand>("a").hold(started.clone(), gate.clone()).tell().unwrap();
            started.passed().await;
            let hand = silo.grid().actor::<Hand>("a");
            let (number, refused) = soon(hand.talk(calls, gate.clone())).await.unwrap();
            waited += u32::from(refused.is_none());
            let count = refused.unwrap_or(3);
            // The other worker is still held if an item was refused.
            until(|| handled.lock().unwrap().len() as u64 == count).await;
            let handled = handled.lock().unwrap().clone();
            assert!(handled.iter().map(|(_, n)| *n).eq(0..count), "{handled:?}");
            if refused.is_some() {
                assert!(handled.iter().all(|(by, _)| *by == number), "{number}: {handled:?}");
            }
            gate.open();
        }
        assert!((1..8).contains(&waited), "{waited}: the items went to each worker at times");
    });
}
