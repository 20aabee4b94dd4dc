//! Identical calls that are under way at the same time become one run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use quark::prelude::*;
use quark::{Outcome, RequestContext};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, soon, until};

/// What the runs of a test do, and how many there were.
#[derive(Default)]
struct Kitchen {
    runs: AtomicU32,
    /// A run waits for its gate, in the order the runs begin; without one it is over at once.
    gates: Mutex<VecDeque<Arc<Gate>>>,
    drops: AtomicU32,
}

impl Kitchen {
    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    /// The next run waits until the gate is opened.
    fn hold_next(&self) -> Arc<Gate> {
        let gate = Gate::new();
        self.gates.lock().unwrap().push_back(gate.clone());
        gate
    }
}

#[derive(Actor)]
#[actor(name = "coalesce.cook", factory)]
struct Cook {
    kitchen: Arc<Kitchen>,
}

/// Counts a run's end, whatever it is.
struct Ended(Arc<Kitchen>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::SeqCst);
    }
}

#[methods]
impl Cook {
    /// The run's number and the dish.
    #[coalesce]
    pub async fn cook(&self, dish: String) -> Result<(u32, String), String> {
        let run = self.kitchen.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let _ended = Ended(self.kitchen.clone());
        let gate = self.kitchen.gates.lock().unwrap().pop_front();
        if let Some(gate) = gate {
            gate.passed().await;
        }
        match dish.as_str() {
            "poison" => Err("no".to_owned()),
            "fire" => panic!("the kitchen burns"),
            _ => Ok((run, dish)),
        }
    }

    /// The same alone.
    #[coalesce]
    pub async fn roast(&mut self, dish: String, cx: &Cx) -> (u32, Option<String>) {
        let run = self.kitchen.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let gate = self.kitchen.gates.lock().unwrap().pop_front();
        if let Some(gate) = gate {
            gate.passed().await;
        }
        let _ = dish;
        (run, cx.correlation_id().map(str::to_owned))
    }

    /// Asks itself for the very same.
    #[coalesce]
    pub async fn ask_oneself(&mut self, cx: &Cx, depth: u32) -> u32 {
        let again = cx.grid().actor::<Cook>(cx.key()).ask_oneself(depth).await;
        assert!(matches!(again, Err(CallError::Deadlock(_))), "{again:?}");
        depth
    }
}

fn kitchen() -> (Silo, Arc<Kitchen>, Arc<TestClock>) {
    let (kitchen, clock) = (Arc::new(Kitchen::default()), TestClock::new());
    let theirs = kitchen.clone();
    let make = move |_: &Key| Ok(Cook { kitchen: theirs.clone() });
    (builder().clock(clock.clone()).host_with(make).start().unwrap(), kitchen, clock)
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn identical_calls_share_one_run_and_others_have_their_own() {
    on_both_runtimes(|| async {
        let (silo, kitchen, _) = kitchen();
        let (one, other) = (silo.grid().actor::<Cook>("one"), silo.grid().actor::<Cook>("other"));
        let gates: Vec<_> = (0..3).map(|_| kitchen.hold_next()).collect();
        let soup = || "soup".to_owned();
        let mut same: Vec<_> = (0..50).map(|_| one.cook(soup()).into_future()).collect();
        for call in &mut same {
            assert!(poll_once(call).is_pending());
        }
        let mut cake = one.cook("cake".to_owned()).into_future();
        let mut elsewhere = other.cook(soup()).into_future();
        assert!(poll_once(&mut cake).is_pending() && poll_once(&mut elsewhere).is_pending());
        assert_eq!(kitchen.runs(), 3);
        gates.iter().for_each(|gate| gate.open());
        for call in same {
            assert_eq!(soon(call).await.unwrap(), (1, soup()));
        }
        assert_eq!(soon(cake).await.unwrap(), (2, "cake".to_owned()));
        assert_eq!(soon(elsewhere).await.unwrap(), (3, soup()));
    });
}

#[test]
fn who_comes_after_the_answer_gets_a_run_of_its_own() {
    on_both_runtimes(|| async {
        let (silo, kitchen, _) = kitchen();
        let cook = silo.grid().actor::<Cook>("one");
        for run in 1..=3 {
            assert_eq!(cook.cook("soup".to_owned()).await.unwrap().0, run);
        }
        assert_eq!(kitchen.runs(), 3);
    });
}

#[test]
fn errors_and_panics_are_everybodys() {
    on_both_runtimes(|| async {
        for (dish, expected) in
            [("poison", "no"), ("fire", "coalesce.cook/one panicked in cook: the kitchen burns")]
        {
            let (silo, kitchen, _) = kitchen();
            let cook = silo.grid().actor::<Cook>("one");
            let gate = kitchen.hold_next();
            let mut calls: Vec<_> = (0..10).map(|_| cook.cook(dish.to_owned()).into_future()).collect();
            for call in &mut calls {
                assert!(poll_once(call).is_pending());
            }
            gate.open();
            for call in calls {
                assert_eq!(soon(call).await.unwrap_err().to_string(), expected);
            }
            assert_eq!(kitchen.runs(), 1);
            assert!(cook.cook("soup".to_owned()).await.is_ok());
        }
    });
}

#[test]
fn the_run_outlives_the_caller_who_began_it() {
    on_both_runtimes(|| async {
        let (silo, kitchen, _) = kitchen();
        let cook = silo.grid().actor::<Cook>("one");
        let gate = kitchen.hold_next();
        let mut leader = cook.cook("soup".to_owned()).into_future();
        let mut follower = cook.cook("soup".to_owned()).into_future();
        assert!(poll_once(&mut leader).is_pending() && poll_once(&mut follower).is_pending());
        drop(leader);
        gate.open();
        assert_eq!(soon(follower).await.unwrap().0, 1);
        assert_eq!(kitchen.runs(), 1);
    });
}

#[test]
fn a_run_that_has_not_begun_is_called_back_when_the_last_caller_goes() {
    on_both_runtimes(|| async {
        let (silo, kitchen, _) = kitchen();
        let cook = silo.grid().actor::<Cook>("one");
        let gate = kitchen.hold_next();
        let mut first = cook.roast("goose".to_owned()).into_future();
        assert!(poll_once(&mut first).is_pending());
        let mut waiting: Vec<_> = (0..3).map(|_| cook.roast("duck".to_owned()).into_future()).collect();
        for call in &mut waiting {
            assert!(poll_once(call).is_pending());
        }
        assert_eq!(silo.grid().census().types[0].queued, 1, "three callers, one message");
        drop(waiting);
        gate.open();
        assert_eq!(soon(first).await.unwrap().0, 1);
        assert_eq!(soon(cook.roast("duck".to_owned())).await.unwrap().0, 2, "the duck was never begun");
    });
}

#[test]
fn a_run_that_has_begun_ends_even_if_all_its_callers_go() {
    on_both_runtimes(|| async {
        let (silo, kitchen, _) = kitchen();
        let cook = silo.grid().actor::<Cook>("one");
        let gate = kitchen.hold_next();
        let mut calls: Vec<_> = (0..2).map(|_| cook.cook("soup".to_owned()).into_future()).collect();
        for call in &mut calls {
            assert!(poll_once(call).is_pending());
        }
        drop(calls);
        // Nobody waits for it, so nobody joins it.
        assert_eq!(cook.cook("soup".to_owned()).await.unwrap().0, 2);
        gate.open();
        until(|| kitchen.drops.load(Ordering::SeqCst) == 2).await;
    });
}

#[test]
fn each_caller_has_its_own_timeout_and_the_run_has_none() {
    on_both_runtimes(|| async {
        let (silo, kitchen, clock) = kitchen();
        let cook = silo.grid().actor::<Cook>("one");
        let gate = kitchen.hold_next();
        let mut hasty = cook.cook("soup".to_owned()).timeout(ms(10)).into_future();
        let mut patient = cook.cook("soup".to_owned()).into_future();
        assert!(poll_once(&mut hasty).is_pending() && poll_once(&mut patient).is_pending());
        clock.advance(ms(10));
        let late = soon(hasty).await.unwrap_err();
        assert!(matches!(late, CallError::Timeout(_)), "{late}");
        assert_eq!(late.outcome(), Outcome::Unknown);
        gate.open();
        assert_eq!(soon(patient).await.unwrap().0, 1);
        assert_eq!(kitchen.runs(), 1);
    });
}

#[test]
fn a_call_that_comes_back_to_its_own_actor_does_not_wait_for_itself() {
    on_both_runtimes(|| async {
        let (silo, ..) = kitchen();
        let cook = silo.grid().actor::<Cook>("one");
        assert_eq!(soon(cook.ask_oneself(7)).await.unwrap(), 7);
    });
}

#[test]
fn a_call_may_have_a_run_of_its_own_and_the_run_carries_its_beginners_context() {
    on_both_runtimes(|| async {
        let (silo, kitchen, _) = kitchen();
        let cook = silo.grid().actor::<Cook>("one");
        let context = RequestContext::new().correlation_id("order-1");
        let carried = cook.roast("goose".to_owned()).context(context).await.unwrap();
        assert_eq!(carried, (1, Some("order-1".to_owned())));

        let gates = [kitchen.hold_next(), kitchen.hold_next()];
        let mut shared = cook.cook("soup".to_owned()).into_future();
        assert!(poll_once(&mut shared).is_pending());
        let mut alone = cook.cook("soup".to_owned()).alone().into_future();
        assert!(poll_once(&mut alone).is_pending());
        gates.iter().for_each(|gate| gate.open());
        assert_eq!((soon(shared).await.unwrap().0, soon(alone).await.unwrap().0), (2, 3));
        cook.cook("cake".to_owned()).tell().unwrap();
        until(|| kitchen.runs() == 4).await;
    });
}

#[test]
fn many_tasks_get_one_answer_each_and_no_run_is_left_behind() {
    on_both_runtimes(|| async {
        let (silo, kitchen, _) = kitchen();
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..200u32 {
            let cook = silo.grid().actor::<Cook>("one");
            callers.spawn(async move {
                for round in 0..20 {
                    let dish = format!("dish {}", (caller + round) % 3);
                    if caller % 7 == 0 {
                        // Some go away at once.
                        let mut call = cook.cook(dish).into_future();
                        let _ = poll_once(&mut call);
                        continue;
                    }
                    assert_eq!(cook.cook(dish.clone()).await.unwrap().1, dish);
                    tokio::task::yield_now().await;
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        let begun = kitchen.runs();
        until(|| kitchen.drops.load(Ordering::SeqCst) == begun).await;
    });
}
