//! Stateless workers: as many actors behind one key as the load asks for.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use quark::prelude::*;
use quark_tests::{Gate, TestClock, builder, builder_on, on_both_runtimes, soon, until};
use tokio::task::JoinSet;

/// What all workers of a test share.
#[derive(Default)]
struct Shop {
    made: AtomicU32,
    left: Mutex<Vec<u32>>,
}

/// A worker that knows its number.
#[derive(Actor)]
#[actor(name = "workers.hand", factory, workers(max = 3), idle = "1m", mailbox = 100)]
struct Hand {
    shop: Arc<Shop>,
    number: u32,
    calls: u32,
}

#[methods]
impl Hand {
    /// The worker's number and how often it was called.
    pub async fn work(&mut self) -> (u32, u32) {
        self.calls += 1;
        (self.number, self.calls)
    }

    pub async fn hold(&mut self, gate: Arc<Gate>) -> u32 {
        self.calls += 1;
        gate.passed().await;
        self.number
    }

    pub async fn look(&self) -> u32 {
        self.number
    }

    /// Asks its own pool.
    pub async fn ask_another(&mut self, cx: &Cx, depth: u32) -> Vec<u32> {
        let mut numbers = vec![self.number];
        if depth > 0 {
            let others = cx.grid().actor::<Hand>(cx.key()).ask_another(depth - 1).await;
            numbers.extend(others.unwrap_or_default());
        }
        numbers
    }

    pub async fn break_down(&mut self) {
        panic!("as it was told");
    }

    #[on_deactivate]
    async fn leave(&mut self) -> Result<()> {
        self.shop.left.lock().unwrap().push(self.number);
        Ok(())
    }
}

fn shop_on(builder: quark::SiloBuilder) -> (Silo, Arc<Shop>, Arc<TestClock>) {
    let (shop, clock) = (Arc::new(Shop::default()), TestClock::new());
    let theirs = shop.clone();
    let make = move |_: &Key| {
        let number = theirs.made.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Hand { shop: theirs.clone(), number, calls: 0 })
    };
    (builder.clock(clock.clone()).host_with(make).start().unwrap(), shop, clock)
}

fn shop() -> (Silo, Arc<Shop>, Arc<TestClock>) {
    shop_on(builder())
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn one_caller_after_another_needs_one_worker() {
    on_both_runtimes(|| async {
        let (silo, shop, _) = shop();
        let hand = silo.grid().actor::<Hand>("a");
        for call in 1..=100 {
            assert_eq!(hand.work().await.unwrap(), (1, call));
        }
        assert_eq!(shop.made.load(Ordering::SeqCst), 1);
        assert_eq!(format!("{hand:?}"), "HandRef(workers.hand/a)");
    });
}

#[test]
fn the_pool_grows_while_all_are_busy_up_to_its_bound_and_then_calls_wait() {
    on_both_runtimes(|| async {
        let (silo, shop, _) = shop();
        let hand = silo.grid().actor::<Hand>("a");
        let gate = Gate::new();
        let mut holds: Vec<_> = (0..3).map(|_| hand.hold(gate.clone()).into_future()).collect();
        for hold in &mut holds {
            assert!(poll_once(hold).is_pending());
        }
        assert_eq!(shop.made.load(Ordering::SeqCst), 3, "each on a worker of its own");
        let mut waiting: Vec<_> = (0..6).map(|_| hand.work().into_future()).collect();
        for call in &mut waiting {
            assert!(poll_once(call).is_pending());
        }
        // On several threads the workers may not have come to their first calls yet.
        until(|| silo.grid().census().types[0].queued == 6).await;
        gate.open();
        let mut numbers = HashSet::new();
        for call in waiting {
            numbers.insert(soon(call).await.unwrap().0);
        }
        assert_eq!(numbers.len(), 3, "they waited at all three");
        assert_eq!(shop.made.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_worker_that_is_free_is_taken_while_others_are_busy() {
    on_both_runtimes(|| async {
        let (silo, _, _) = shop();
        let hand = silo.grid().actor::<Hand>("a");
        let gate = Gate::new();
        let mut hold = hand.hold(gate.clone()).into_future();
        assert!(poll_once(&mut hold).is_pending());
        for call in 1..=10 {
            assert_eq!(hand.work().await.unwrap(), (2, call), "the second one, and no third");
            assert_eq!(hand.look().await.unwrap(), 2);
        }
        gate.open();
        assert_eq!(soon(hold).await.unwrap(), 1);
    });
}

#[test]
fn workers_that_are_not_needed_go_and_the_pool_with_the_last_one() {
    on_both_runtimes(|| async {
        let (silo, shop, clock) = shop();
        let hand = silo.grid().actor::<Hand>("a");
        let gate = Gate::new();
        let mut holds: Vec<_> = (0..3).map(|_| hand.hold(gate.clone()).into_future()).collect();
        for hold in &mut holds {
            assert!(poll_once(hold).is_pending());
        }
        gate.open();
        for hold in holds {
            soon(hold).await.unwrap();
        }
        // The first one goes on working, the others are idle.
        clock.advance(ms(40_000));
        hand.work().await.unwrap();
        clock.advance(ms(25_000));
        until(|| shop.left.lock().unwrap().len() == 2).await;
        let mut left = shop.left.lock().unwrap().clone();
        left.sort_unstable();
        assert_eq!(left, [2, 3]);
        clock.advance(ms(60_000));
        until(|| silo.grid().census().activations == 0).await;
        assert_eq!(hand.work().await.unwrap(), (4, 1), "it grows again from nothing");
        drop(hand);
        clock.advance(ms(60_000));
        until(|| silo.grid().census().activations == 0).await;
        for _ in 0..4 {
            clock.advance(ms(60));
        }
        assert_eq!(silo.grid().actor::<Hand>("a").work().await.unwrap(), (5, 1));
    });
}

#[test]
fn one_way_messages_are_spread_over_the_pool() {
    on_both_runtimes(|| async {
        let (silo, shop, _) = shop();
        let hand = silo.grid().actor::<Hand>("a");
        let gate = Gate::new();
        for _ in 0..3 {
            hand.hold(gate.clone()).tell().unwrap();
        }
        until(|| shop.made.load(Ordering::SeqCst) == 3).await;
        gate.open();
        until(|| silo.grid().census().types[0].queued == 0).await;
    });
}

#[test]
fn a_worker_may_ask_its_own_pool_for_as_long_as_there_is_another() {
    on_both_runtimes(|| async {
        let (silo, _, _) = shop();
        let hand = silo.grid().actor::<Hand>("a");
        assert_eq!(soon(hand.ask_another(2)).await.unwrap(), [1, 2, 3]);
        let beyond = soon(hand.ask_another(5)).await.unwrap();
        assert_eq!(beyond, [1, 2, 3], "the fourth would wait for one of its own chain, and is refused");
    });
}

#[test]
fn a_panic_costs_its_own_worker_only() {
    on_both_runtimes(|| async {
        let (silo, shop, _) = shop();
        let hand = silo.grid().actor::<Hand>("a");
        let gate = Gate::new();
        let mut hold = hand.hold(gate.clone()).into_future();
        assert!(poll_once(&mut hold).is_pending());
        assert!(matches!(hand.break_down().await, Err(CallError::Panicked(_))));
        gate.open();
        assert_eq!(soon(hold).await.unwrap(), 1);
        soon(hand.work()).await.unwrap();
        assert!(shop.left.lock().unwrap().is_empty());
    });
}

#[test]
fn keys_have_pools_of_their_own_and_leave_together() {
    on_both_runtimes(|| async {
        let (silo, shop, _) = shop();
        let (one, other) = (silo.grid().actor::<Hand>("a"), silo.grid().actor::<Hand>("b"));
        let gate = Gate::new();
        let mut holds: Vec<_> = (0..2).map(|_| one.hold(gate.clone()).into_future()).collect();
        for hold in &mut holds {
            assert!(poll_once(hold).is_pending());
        }
        assert_eq!(other.work().await.unwrap(), (3, 1));
        gate.open();
        for hold in holds {
            soon(hold).await.unwrap();
        }
        silo.grid().deactivate::<Hand>("a");
        until(|| shop.left.lock().unwrap().len() == 2).await;
        let mut left = shop.left.lock().unwrap().clone();
        left.sort_unstable();
        assert_eq!(left, [1, 2]);
    });
}

#[test]
fn a_burst_from_many_tasks_is_answered_by_no_more_workers_than_declared() {
    on_both_runtimes(|| async {
        let (silo, shop, _) = shop();
        let mut callers = JoinSet::new();
        for _ in 0..64 {
            let hand = silo.grid().actor::<Hand>("a");
            callers.spawn(async move {
                let open = Gate::new();
                open.open();
                for _ in 0..20 {
                    hand.hold(open.clone()).await.unwrap();
                    hand.work().await.unwrap();
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        assert!(shop.made.load(Ordering::SeqCst) <= 3);
        silo.shutdown(ms(5_000)).await;
        assert_eq!(shop.left.lock().unwrap().len() as u32, shop.made.load(Ordering::SeqCst));
    });
}

#[test]
fn on_a_machine_with_two_nodes_each_executor_has_its_own_pool() {
    on_both_runtimes(|| async {
        let (silo, shop, _) = shop_on(builder_on("dual-socket-cpu"));
        let hand = silo.grid().actor::<Hand>("a");
        let gate = Gate::new();
        let mut holds: Vec<_> = (0..6).map(|_| hand.hold(gate.clone()).into_future()).collect();
        for hold in &mut holds {
            assert!(poll_once(hold).is_pending());
        }
        until(|| shop.made.load(Ordering::SeqCst) == 6).await;
        gate.open();
        for hold in holds {
            soon(hold).await.unwrap();
        }
    });
}

/// Workers whose identical calls are joined.
#[derive(Actor)]
#[actor(name = "workers.renderer", factory, workers(max = 4))]
struct Renderer {
    renders: Arc<AtomicU32>,
}

#[methods]
impl Renderer {
    #[coalesce]
    pub async fn render(&mut self, page: u32, gate: ByAddress) -> u32 {
        self.renders.fetch_add(1, Ordering::SeqCst);
        gate.0.passed().await;
        page
    }
}

/// A gate that is equal to itself.
#[derive(Clone)]
struct ByAddress(Arc<Gate>);

impl PartialEq for ByAddress {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ByAddress {}

impl std::hash::Hash for ByAddress {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

#[test]
fn identical_calls_to_a_pool_keep_one_worker_busy() {
    on_both_runtimes(|| async {
        let renders = Arc::new(AtomicU32::new(0));
        let theirs = renders.clone();
        let silo =
            builder().host_with(move |_: &Key| Ok(Renderer { renders: theirs.clone() })).start().unwrap();
        let renderer = silo.grid().actor::<Renderer>("site");
        let gate = ByAddress(Gate::new());
        let mut calls: Vec<_> =
            (0..40).map(|call| renderer.render(call % 2, gate.clone()).into_future()).collect();
        for call in &mut calls {
            assert!(poll_once(call).is_pending());
        }
        assert_eq!(renders.load(Ordering::SeqCst), 2, "two pages, two workers");
        gate.0.open();
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(soon(call).await.unwrap(), number as u32 % 2);
        }
        assert_eq!(silo.grid().census().activations, 2);
    });
}
