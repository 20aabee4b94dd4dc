//! Circuit breaker, rate limit, adaptive mailbox, overflow policy: what each lets in, and what it tells the rest.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use quark::guards::{
    AdaptiveMailbox, Breaker, BreakerState, Guards, Overflow, RateLimit, WAITERS_MAX, WhenLimited,
};
use quark::prelude::*;
use quark::{DeadCause, DeadLetter, Outcome, Retry};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, until};
use tokio::task::unconstrained;

/// An actor that does as it is told, and notes what it did.
#[derive(Actor)]
#[actor(name = "guards.plain", factory, mailbox = 2)]
struct Plain {
    ran: Arc<Mutex<Vec<u32>>>,
}

#[methods]
impl Plain {
    pub async fn note(&mut self, number: u32) -> u32 {
        self.ran.lock().unwrap().push(number);
        number
    }

    pub async fn break_down(&mut self) {
        panic!("as it was told");
    }

    pub async fn refuse(&mut self) -> Result<u32, String> {
        Err("no".to_owned())
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }
}

type Ran = Arc<Mutex<Vec<u32>>>;

fn guarded(guards: Guards) -> (Silo, Ran, Arc<TestClock>) {
    let (ran, clock) = (Ran::default(), TestClock::new());
    let theirs = ran.clone();
    let silo = builder()
        .clock(clock.clone())
        .host_with(move |_: &Key| Ok(Plain { ran: theirs.clone() }))
        .guards::<Plain>(guards)
        .start()
        .unwrap();
    (silo, ran, clock)
}

fn census(silo: &Silo) -> quark::runtime::grid::TypeCensus {
    silo.grid().census().types.remove(0)
}

/// Holds the actor in a turn until the gate is opened.
async fn held(silo: &Silo) -> (Arc<Gate>, tokio::task::JoinHandle<()>) {
    let (started, gate) = (Gate::new(), Gate::new());
    let (actor, theirs, begun) = (silo.grid().actor::<Plain>("a"), gate.clone(), started.clone());
    let turn = tokio::spawn(async move { actor.hold(begun, theirs).await.unwrap() });
    started.passed().await;
    (gate, turn)
}

fn breaker() -> Guards {
    Guards::none().breaker(Breaker::after(2).within(ms(10_000)).open(ms(30_000)))
}

#[test]
fn a_breaker_opens_at_its_failures_refuses_everybody_and_closes_after_a_good_probe() {
    on_both_runtimes(|| async {
        let (silo, ran, clock) = guarded(breaker());
        let (one, other) = (silo.grid().actor::<Plain>("a"), silo.grid().actor::<Plain>("b"));
        assert!(matches!(one.break_down().await, Err(CallError::Panicked(_))));
        assert_eq!(census(&silo).breaker, Some(BreakerState::Closed));
        assert!(matches!(one.break_down().await, Err(CallError::Panicked(_))));

        let refused = other.note(1).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "guards.plain/b was not called: its type kept failing; retry after 30s"
        );
        assert_eq!((refused.outcome(), refused.retry()), (Outcome::Rejected, Retry::Safe));
        assert_eq!(refused.retry_after(), Some(ms(30_000)));
        assert!(matches!(other.note(1).tell(), Err(CallError::CircuitOpen(_))));

        clock.advance(ms(30_000));
        assert_eq!(other.note(2).await.unwrap(), 2, "the probe");
        assert_eq!(census(&silo).breaker, Some(BreakerState::Closed));
        assert_eq!(one.note(3).await.unwrap(), 3);
        assert_eq!(*ran.lock().unwrap(), [2, 3]);
    });
}

#[test]
fn a_failing_probe_opens_the_breaker_again_and_a_probe_that_is_given_up_is_replaced() {
    on_both_runtimes(|| async {
        let (silo, _, clock) = guarded(breaker());
        let actor = silo.grid().actor::<Plain>("a");
        for _ in 0..2 {
            actor.break_down().await.unwrap_err();
        }
        clock.advance(ms(30_000));
        assert!(matches!(actor.break_down().await, Err(CallError::Panicked(_))));
        assert!(matches!(actor.note(1).await, Err(CallError::CircuitOpen(_))));

        clock.advance(ms(30_000));
        let (gate, turn) = held(&silo).await;
        turn.abort();
        assert!(turn.await.unwrap_err().is_cancelled());
        assert!(matches!(actor.note(2).await, Err(CallError::CircuitOpen(_))), "one probe is out");
        gate.open();
        clock.advance(ms(30_000));
        assert_eq!(actor.note(3).await.unwrap(), 3);
        assert_eq!(census(&silo).breaker, Some(BreakerState::Closed));
    });
}

#[test]
fn timeouts_are_failures_and_a_methods_own_errors_only_if_asked() {
    on_both_runtimes(|| async {
        let (silo, _, clock) = guarded(breaker());
        let actor = silo.grid().actor::<Plain>("a");
        for _ in 0..5 {
            assert!(matches!(actor.refuse().await, Err(CallError::Actor(_))));
        }
        let (gate, turn) = held(&silo).await;
        for _ in 0..2 {
            let mut late = Box::pin(actor.note(1).timeout(ms(1)).into_future());
            assert!(poll_once(&mut late).is_none());
            clock.advance(ms(1));
            assert!(matches!(late.await, Err(CallError::Timeout(_))));
        }
        assert!(matches!(actor.note(1).await, Err(CallError::CircuitOpen(_))));
        gate.open();
        turn.await.unwrap();

        let counting = Guards::none().breaker(Breaker::after(2).errors());
        let (silo, ..) = guarded(counting);
        let actor = silo.grid().actor::<Plain>("a");
        for _ in 0..2 {
            assert!(matches!(actor.refuse().await, Err(CallError::Actor(_))));
        }
        assert!(matches!(actor.refuse().await, Err(CallError::CircuitOpen(_))));
    });
}

#[test]
fn one_way_messages_open_and_close_the_breaker_too() {
    on_both_runtimes(|| async {
        let (silo, _, clock) = guarded(breaker());
        let actor = silo.grid().actor::<Plain>("a");
        for _ in 0..2 {
            actor.break_down().tell().unwrap();
        }
        until(|| census(&silo).breaker == Some(BreakerState::Open)).await;
        clock.advance(ms(30_000));
        actor.note(1).tell().unwrap();
        until(|| census(&silo).breaker == Some(BreakerState::Closed)).await;
    });
}

/// An actor that cannot be made while its flag says so.
#[derive(Actor)]
#[actor(name = "guards.unborn", factory, breaker(failures = 2, open = "1m"))]
struct Unborn;

#[methods]
impl Unborn {
    pub async fn call(&self) {}
}

#[test]
fn failed_activations_open_a_declared_breaker_once_for_all_who_wait() {
    on_both_runtimes(|| async {
        let (tries, clock) = (Arc::new(AtomicU32::new(0)), TestClock::new());
        let theirs = tries.clone();
        let make = move |_: &Key| match theirs.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err("no database".into()),
            _ => Ok(Unborn),
        };
        let silo = builder().clock(clock.clone()).host_with(make).start().unwrap();
        let actor = silo.grid().actor::<Unborn>("a");
        for _ in 0..2 {
            assert!(matches!(actor.call().await, Err(CallError::Activation(_))));
        }
        assert!(matches!(actor.call().await, Err(CallError::CircuitOpen(_))));
        assert_eq!(tries.load(Ordering::SeqCst), 2, "nobody tried to make it again");
        clock.advance(ms(60_000));
        actor.call().await.unwrap();
    });
}

#[test]
fn a_rate_limit_refuses_what_is_above_it_and_says_when_to_come_again() {
    on_both_runtimes(|| async {
        let (silo, ran, clock) = guarded(Guards::none().rate_limit(RateLimit::per_second(10).burst(2)));
        let (one, other) = (silo.grid().actor::<Plain>("a"), silo.grid().actor::<Plain>("b"));
        one.note(1).await.unwrap();
        other.note(2).await.unwrap();
        let refused = one.note(3).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "guards.plain/a was not called: its rate limit is used up; retry after 100ms"
        );
        assert_eq!((refused.outcome(), refused.retry()), (Outcome::Rejected, Retry::Safe));
        assert!(matches!(other.note(3).tell(), Err(CallError::RateLimited(_))));
        clock.advance(refused.retry_after().unwrap());
        one.note(4).await.unwrap();
        assert_eq!(*ran.lock().unwrap(), [1, 2, 4]);
    });
}

#[test]
fn a_rate_limit_by_key_leaves_other_actors_alone() {
    on_both_runtimes(|| async {
        let (silo, ..) = guarded(Guards::none().rate_limit(RateLimit::per_second(1).by_key()));
        let (one, other) = (silo.grid().actor::<Plain>("a"), silo.grid().actor::<Plain>("b"));
        one.note(1).await.unwrap();
        assert!(matches!(one.note(2).await, Err(CallError::RateLimited(_))));
        other.note(3).await.unwrap();
    });
}

#[test]
fn one_way_messages_above_a_dropping_rate_limit_are_counted_and_lost() {
    on_both_runtimes(|| async {
        let limit = RateLimit::per_second(1).when_full(WhenLimited::Drop);
        let (silo, ran, _) = guarded(Guards::none().rate_limit(limit));
        let actor = silo.grid().actor::<Plain>("a");
        for number in 0..5 {
            actor.note(number).tell().unwrap();
        }
        assert!(matches!(actor.note(5).await, Err(CallError::RateLimited(_))), "somebody waits for this one");
        until(|| ran.lock().unwrap().len() == 1).await;
        assert_eq!(census(&silo).dropped, 4);
        let letters = silo.grid().dead_letters::<Plain>().inspect();
        let limited =
            |letter: &DeadLetter| matches!(letter.cause, DeadCause::Call(CallError::RateLimited(_)));
        assert_eq!(letters.iter().filter(|letter| limited(letter)).count(), 4);
    });
}

#[test]
fn calls_wait_their_turn_in_a_queueing_rate_limit_in_the_order_they_came() {
    on_both_runtimes(|| async {
        let limit = RateLimit::per_second(1_000).burst(1).when_full(WhenLimited::Queue);
        let (silo, ran, clock) = guarded(Guards::none().rate_limit(limit));
        let actor = silo.grid().actor::<Plain>("a");
        actor.note(0).await.unwrap();
        let mut callers: Vec<_> = (1..=3).map(|number| Box::pin(actor.note(number).into_future())).collect();
        for caller in &mut callers {
            assert!(poll_once(caller).is_none(), "the clock stands still");
        }
        actor.note(4).tell().unwrap();
        // One that gives up leaves the line.
        let mut late = Box::pin(actor.note(9).timeout(ms(1)).into_future());
        assert!(poll_once(&mut late).is_none());
        drop(late);
        until(|| {
            clock.advance(ms(1));
            for caller in &mut callers {
                poll_once(caller);
            }
            ran.lock().unwrap().len() == 5
        })
        .await;
        assert_eq!(*ran.lock().unwrap(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_full_mailbox_rejects_unless_told_otherwise() {
    on_both_runtimes(|| async {
        let (silo, ran, _) = guarded(Guards::none());
        let (gate, turn) = held(&silo).await;
        let actor = silo.grid().actor::<Plain>("a");
        actor.note(1).tell().unwrap();
        actor.note(2).tell().unwrap();
        let full = actor.note(3).tell().unwrap_err();
        assert!(matches!(&full, CallError::Overloaded(details) if details.capacity == 2), "{full}");
        gate.open();
        turn.await.unwrap();
        until(|| ran.lock().unwrap().len() == 2).await;
        assert_eq!(census(&silo).dropped, 0);
    });
}

#[test]
fn the_oldest_message_gives_way_and_its_caller_hears_of_it() {
    on_both_runtimes(|| async {
        let (silo, ran, _) = guarded(Guards::none().overflow(Overflow::DropOldest));
        let (gate, turn) = held(&silo).await;
        let actor = silo.grid().actor::<Plain>("a");
        let mut oldest = Box::pin(actor.note(1).into_future());
        assert!(poll_once(&mut oldest).is_none());
        for number in 2..=4 {
            actor.note(number).tell().unwrap();
        }
        let gave_way = oldest.await.unwrap_err();
        assert_eq!(
            gave_way.to_string(),
            "guards.plain/a dropped a message, since its mailbox was full (drop_oldest); retry later"
        );
        assert_eq!((gave_way.outcome(), gave_way.retry()), (Outcome::Rejected, Retry::Safe));
        gate.open();
        turn.await.unwrap();
        until(|| ran.lock().unwrap().len() == 2).await;
        assert_eq!(*ran.lock().unwrap(), [3, 4]);
        assert_eq!(census(&silo).dropped, 2);
        let letters = silo.grid().dead_letters::<Plain>().inspect();
        assert_eq!(letters.len(), 1, "its caller heard of the first one; the tell is a dead letter");
        assert!(matches!(&letters[0].cause, DeadCause::Call(CallError::Dropped(_))), "{:?}", letters[0]);
    });
}

#[test]
fn the_newest_message_gives_way_and_a_tell_never_knows() {
    on_both_runtimes(|| async {
        let (silo, ran, _) = guarded(Guards::none().overflow(Overflow::DropNewest));
        let (gate, turn) = held(&silo).await;
        let actor = silo.grid().actor::<Plain>("a");
        for number in 1..=3 {
            actor.note(number).tell().unwrap();
        }
        assert!(matches!(actor.note(4).await, Err(CallError::Dropped(_))));
        gate.open();
        turn.await.unwrap();
        until(|| ran.lock().unwrap().len() == 2).await;
        assert_eq!(*ran.lock().unwrap(), [1, 2]);
        assert_eq!(census(&silo).dropped, 2);
    });
}

#[test]
fn callers_wait_behind_a_full_mailbox_in_order_and_up_to_a_bound() {
    on_both_runtimes(|| async {
        let (silo, ran, _) = guarded(Guards::none().overflow(Overflow::Wait));
        let (gate, turn) = held(&silo).await;
        let actor = silo.grid().actor::<Plain>("a");
        let most = 2 + WAITERS_MAX;
        let ask = |number| Box::pin(unconstrained(actor.note(number).into_future()));
        let mut calls: Vec<_> = (0..most).map(ask).collect();
        for call in &mut calls {
            assert!(poll_once(call).is_none());
        }
        assert!(matches!(ask(most).await, Err(CallError::Overloaded(_))));
        assert!(matches!(actor.note(most).tell(), Err(CallError::Overloaded(_))), "it has nobody to wait");
        gate.open();
        turn.await.unwrap();
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), number as u32);
        }
        assert_eq!(*ran.lock().unwrap(), (0..most).collect::<Vec<_>>());
    });
}

#[test]
fn an_adaptive_mailbox_starts_at_its_lower_bound_and_grows_with_a_quick_actor() {
    on_both_runtimes(|| async {
        let bounds = AdaptiveMailbox::between(100, 400);
        let (silo, ran, _) = guarded(Guards::none().mailbox(bounds));
        let actor = silo.grid().actor::<Plain>("a");
        let mut before = 0;
        // The clock stands still, so everything is drained at once; each round leaves room for more.
        for capacity in [100, 164, 228] {
            let (gate, turn) = held(&silo).await;
            let mut told = 0;
            let full = loop {
                match actor.note(told).tell() {
                    Ok(()) => told += 1,
                    Err(full) => break full,
                }
            };
            assert!(matches!(&full, CallError::Overloaded(details) if details.capacity == told), "{full}");
            assert!(told >= capacity, "{told} after it had room for {before}");
            before = told;
            gate.open();
            turn.await.unwrap();
            until(|| ran.lock().unwrap().len() == told as usize).await;
            ran.lock().unwrap().clear();
        }
        assert!(before <= 400);
    });
}

/// Declares everything at once, as a user would.
#[derive(Actor)]
#[actor(
    name = "guards.declared",
    breaker(failures = 5, within = "10s", open = "30s", probes = 1, errors),
    rate_limit(per_second = 100, burst = 20, when_full = "queue", by = "key"),
    mailbox(min = 100, max = 10_000, target = "50ms"),
    overflow = "wait"
)]
struct Declared {
    calls: u32,
}

#[methods]
impl Declared {
    pub async fn call(&mut self) -> u32 {
        self.calls += 1;
        self.calls
    }
}

#[test]
fn guards_are_declared_with_the_type() {
    use quark::Actor as _;
    let declared = Guards::none()
        .breaker(Breaker::after(5).within(ms(10_000)).open(ms(30_000)).probes(1).errors())
        .rate_limit(RateLimit::per_second(100).burst(20).when_full(WhenLimited::Queue).by_key())
        .mailbox(AdaptiveMailbox::between(100, 10_000).target(ms(50)))
        .overflow(Overflow::Wait);
    assert_eq!(Declared::SPEC.guards, declared);
    on_both_runtimes(|| async {
        let silo = builder().host::<Declared>().start().unwrap();
        assert_eq!(silo.grid().actor::<Declared>("a").call().await.unwrap(), 1);
    });
}

#[test]
fn guards_of_a_type_that_is_not_hosted_are_a_mistake() {
    let error = builder().guards::<Declared>(Guards::none()).start().err().unwrap();
    assert!(error.to_string().contains("add `.host::<Declared>()`"), "{error}");
}

/// One poll of a future with nobody to wake.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut cx) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
