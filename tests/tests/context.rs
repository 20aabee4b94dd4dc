//! What travels with a call: deadlines, correlation, traces, metadata; and what a caller may conclude from errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quark::prelude::*;
use quark::runtime::error::Failure;
use quark::{Outcome, RequestContext, Retry, SiloBuilder, TraceParent};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, until};

/// Passes calls on to the actor with the next key.
#[derive(Actor)]
#[actor(name = "context.relay", factory)]
struct Relay {
    ran: Arc<AtomicU32>,
}

/// What an actor saw of its request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    correlation: Option<String>,
    trace: Option<String>,
    tenant: Option<String>,
    has_deadline: bool,
}

impl Seen {
    fn of(cx: &Cx) -> Self {
        Self {
            correlation: cx.correlation_id().map(str::to_owned),
            trace: cx.trace_parent().map(|parent| parent.to_string()),
            tenant: cx.metadata("tenant").map(str::to_owned),
            has_deadline: cx.deadline().is_some(),
        }
    }
}

#[methods]
impl Relay {
    /// What the actor so many hops further sees.
    pub async fn pass(&mut self, cx: &Cx, hops: u64) -> Seen {
        if hops == 0 {
            return Seen::of(cx);
        }
        cx.grid().actor::<Relay>(hops - 1).pass(hops - 1).await.unwrap()
    }

    /// The same, with a wait before each hop.
    pub async fn pass_later(&mut self, cx: &Cx, hops: u64) -> Seen {
        tokio::task::yield_now().await;
        if hops == 0 {
            return Seen::of(cx);
        }
        cx.grid().actor::<Relay>(hops - 1).pass_later(hops - 1).await.unwrap()
    }

    /// Sends the next actor a context of its own.
    pub async fn pass_as(&mut self, cx: &Cx, context: RequestContext) -> (Seen, Seen) {
        let other = cx.grid().actor::<Relay>("other");
        let theirs = other.pass(0).context(context).await.unwrap();
        (theirs, other.pass(0).await.unwrap())
    }

    /// Waits, then asks the next actor: what its deadline makes of that.
    pub async fn ask_after(&mut self, cx: &Cx, started: Arc<Gate>, gate: Arc<Gate>, told: Told) {
        started.open();
        gate.passed().await;
        let left = cx.time_left().unwrap();
        let asked = cx.grid().actor::<Relay>("next").step().await;
        *told.lock().unwrap() = Some((left, asked.map_err(|error| error.to_string())));
    }

    /// Tells the next actor, which then shows what it saw.
    pub async fn tell_on(&mut self, cx: &Cx, shown: Shown) {
        cx.grid().actor::<Relay>("next").show(shown).tell().unwrap();
    }

    pub async fn show(&mut self, cx: &Cx, shown: Shown) {
        *shown.lock().unwrap() = Some(Seen::of(cx));
    }

    /// What is left of the caller's time, and of that of an actor further on with a shorter or longer timeout.
    pub async fn times_left(&mut self, cx: &Cx) -> (Duration, Duration, Duration) {
        let own = cx.time_left().unwrap();
        let other = cx.grid().actor::<Relay>("other");
        let shorter = other.time_left().timeout(Duration::from_secs(10)).await.unwrap();
        let longer = other.time_left().timeout(Duration::from_secs(10_000)).await.unwrap();
        (own, shorter, longer)
    }

    pub async fn time_left(&mut self, cx: &Cx) -> Duration {
        cx.time_left().unwrap()
    }

    pub async fn step(&mut self) -> u32 {
        self.ran.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
        self.ran.fetch_add(1, Ordering::SeqCst);
    }
}

type Told = Arc<std::sync::Mutex<Option<(Duration, Result<u32, String>)>>>;
type Shown = Arc<std::sync::Mutex<Option<Seen>>>;

fn relays() -> (Silo, Arc<AtomicU32>) {
    relays_on(builder())
}

fn relays_on(builder: SiloBuilder) -> (Silo, Arc<AtomicU32>) {
    let ran = Arc::new(AtomicU32::new(0));
    let theirs = ran.clone();
    (builder.host_with(move |_| Ok(Relay { ran: theirs.clone() })).start().unwrap(), ran)
}

/// The answer to a call that waits while time passes.
async fn while_passing<F: IntoFuture>(clock: &TestClock, by: Duration, call: F) -> F::Output {
    // The call is polled first, and so waits for its moment before time comes to it.
    tokio::join!(call.into_future(), async { clock.advance(by) }).0
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn request() -> RequestContext {
    let trace: TraceParent = TRACE.parse().unwrap();
    RequestContext::new().correlation_id("order-17").trace_parent(trace).metadata("tenant", "acme")
}

fn seen() -> Seen {
    Seen {
        correlation: Some("order-17".to_owned()),
        trace: Some(TRACE.to_owned()),
        tenant: Some("acme".to_owned()),
        has_deadline: false,
    }
}

#[test]
fn a_request_is_carried_over_every_hop() {
    on_both_runtimes(|| async {
        let (silo, _) = relays();
        for hops in [0, 1, 2, 50] {
            let relay = silo.grid().actor::<Relay>(hops);
            assert_eq!(relay.pass(hops).context(request()).await.unwrap(), seen());
            assert_eq!(relay.pass_later(hops).context(request()).await.unwrap(), seen());
            assert_eq!(relay.pass(hops).await.unwrap(), Seen::default(), "and it ends with its call");
        }
    });
}

#[test]
fn a_call_may_carry_a_context_of_its_own() {
    on_both_runtimes(|| async {
        let (silo, _) = relays();
        let relay = silo.grid().actor::<Relay>("one");
        let own = RequestContext::new().correlation_id("inner");
        let (theirs, after) = relay.pass_as(own).context(request()).await.unwrap();
        assert_eq!(theirs, Seen { correlation: Some("inner".to_owned()), ..Seen::default() });
        assert_eq!(after, seen(), "only that one call");
    });
}

#[test]
fn a_tell_carries_the_request_but_no_deadline() {
    on_both_runtimes(|| async {
        let (silo, _) = relays();
        let shown = Shown::default();
        let relay = silo.grid().actor::<Relay>("one");
        relay.tell_on(shown.clone()).context(request()).timeout(Duration::from_secs(60)).await.unwrap();
        until(|| shown.lock().unwrap().is_some()).await;
        assert_eq!(shown.lock().unwrap().take(), Some(seen()));
    });
}

#[test]
fn a_deadline_is_inherited_and_only_ever_shortened() {
    on_both_runtimes(|| async {
        let (silo, _) = relays();
        assert!(
            silo.grid()
                .actor::<Relay>(2_u64)
                .pass(2)
                .timeout(Duration::from_secs(60))
                .await
                .unwrap()
                .has_deadline
        );
        let relay = silo.grid().actor::<Relay>("one");
        let outer = Duration::from_secs(100);
        let (own, shorter, longer) = relay.times_left().timeout(outer).await.unwrap();
        assert!(own <= outer && own > Duration::ZERO, "{own:?}");
        assert!(shorter <= Duration::from_secs(10), "{shorter:?}");
        assert!(longer <= own, "a longer timeout does not prolong the caller's: {longer:?}");
        assert_eq!(relay.pass(0).await.unwrap(), Seen::default(), "and none is made up");
    });
}

#[test]
fn a_call_whose_deadline_has_passed_never_runs() {
    on_both_runtimes(|| async {
        let (silo, ran) = relays();
        let late = silo.grid().actor::<Relay>("one").step().timeout(Duration::ZERO).await.unwrap_err();
        assert!(matches!(&late, CallError::Timeout(late) if !late.started), "{late}");
        assert_eq!(late.to_string(), "context.relay/one did not answer step in time (it never ran)");
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_call_from_a_turn_whose_deadline_has_passed_never_runs() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, ran) = relays_on(builder().clock(clock.clone()));
        let (started, gate, told) = (Gate::new(), Gate::new(), Told::default());
        let relay = silo.grid().actor::<Relay>("one");
        let call = relay.ask_after(started.clone(), gate.clone(), told.clone()).timeout(ms(20));
        let late = while_passing(&clock, ms(20), call).await.unwrap_err();
        assert!(matches!(&late, CallError::Timeout(late) if late.started), "{late}");
        assert_eq!((late.outcome(), late.retry()), (Outcome::Unknown, Retry::IfIdempotent));
        // The turn runs on without its caller, with no time left.
        gate.open();
        until(|| told.lock().unwrap().is_some()).await;
        let (left, asked) = told.lock().unwrap().take().unwrap();
        assert_eq!(left, Duration::ZERO);
        assert_eq!(asked, Err("context.relay/next did not answer step in time (it never ran)".to_owned()));
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_timeout_of_a_queued_call_takes_it_back() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, ran) = relays_on(builder().clock(clock.clone()));
        let relay = silo.grid().actor::<Relay>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        relay.hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        let late = while_passing(&clock, ms(20), relay.step().timeout(ms(20))).await.unwrap_err();
        assert!(matches!(&late, CallError::Timeout(late) if !late.started), "{late}");
        assert_eq!((late.outcome(), late.retry()), (Outcome::Rejected, Retry::Safe));
        gate.open();
        assert_eq!(relay.step().await.unwrap(), 2, "the holder, and this one");
        assert_eq!(ran.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_timeout_of_a_running_call_leaves_it_running() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let (silo, ran) = relays_on(builder().clock(clock.clone()));
        let relay = silo.grid().actor::<Relay>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        let call = relay.hold(started, gate.clone()).timeout(ms(20));
        let late = while_passing(&clock, ms(20), call).await.unwrap_err();
        assert!(matches!(&late, CallError::Timeout(late) if late.started), "{late}");
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        gate.open();
        assert_eq!(relay.step().await.unwrap(), 2, "the turn ended before this one began");
    });
}

#[test]
fn an_answer_in_time_is_not_touched_by_its_timeout() {
    on_both_runtimes(|| async {
        let (silo, _) = relays();
        let relay = silo.grid().actor::<Relay>("one");
        assert_eq!(relay.step().timeout(Duration::from_secs(3_600)).await.unwrap(), 1);
        assert_eq!(relay.step().timeout(Duration::MAX).await.unwrap(), 2);
    });
}

#[derive(Actor)]
#[actor(name = "context.errors", mailbox = 1)]
struct Errors;

#[derive(Debug, PartialEq, Eq)]
struct TooDark;

impl std::fmt::Display for TooDark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too dark")
    }
}

#[methods]
impl Errors {
    pub async fn fails(&mut self) -> Result<u32, TooDark> {
        Err(TooDark)
    }

    pub async fn fails_later(&self) -> Result<u32, TooDark> {
        tokio::task::yield_now().await;
        Err(TooDark)
    }

    pub async fn panics(&mut self) {
        panic!("broken");
    }

    pub async fn asks_itself(&mut self, cx: &Cx) -> Failure {
        cx.grid().actor::<Errors>(cx.key()).panics().await.unwrap_err()
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }
}

#[test]
fn a_methods_own_error_comes_back_as_it_is() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Errors>().start().unwrap();
        let errors = silo.grid().actor::<Errors>("one");
        for error in [errors.fails().await.unwrap_err(), errors.fails_later().await.unwrap_err()] {
            assert_eq!(error.to_string(), "too dark");
            assert_eq!((error.outcome(), error.retry()), (Outcome::Failed, Retry::Pointless));
            assert!(matches!(error, CallError::Actor(TooDark)));
        }
    });
}

#[test]
fn each_failure_says_what_happened_and_whether_to_retry() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Errors>().start().unwrap();
        let errors = silo.grid().actor::<Errors>("one");
        let told = |error: &Failure| (error.outcome(), error.retry());

        let panicked = errors.panics().await.unwrap_err();
        assert_eq!(told(&panicked), (Outcome::Failed, Retry::IfIdempotent));
        let deadlock = errors.asks_itself().await.unwrap();
        assert!(matches!(deadlock, CallError::Deadlock(_)), "{deadlock}");
        assert_eq!(told(&deadlock), (Outcome::Rejected, Retry::Pointless));
        let not_hosted = builder().start().unwrap().grid().actor::<Errors>("one").panics().await.unwrap_err();
        assert_eq!(told(&not_hosted), (Outcome::Rejected, Retry::Pointless));

        let (started, gate) = (Gate::new(), Gate::new());
        let running = tokio::spawn({
            let (errors, started, gate) = (errors.clone(), started.clone(), gate.clone());
            async move { errors.hold(started, gate).await }
        });
        started.passed().await;
        errors.panics().tell().unwrap();
        let overloaded = errors.panics().await.unwrap_err();
        assert!(matches!(overloaded, CallError::Overloaded(_)), "{overloaded}");
        assert_eq!(told(&overloaded), (Outcome::Rejected, Retry::Safe));

        silo.shutdown(Duration::ZERO).await;
        let stopped = running.await.unwrap().unwrap_err();
        assert!(matches!(stopped, CallError::Stopped(_)), "{stopped}");
        assert_eq!(told(&stopped), (Outcome::Unknown, Retry::IfIdempotent));
        let draining = errors.panics().await.unwrap_err();
        assert!(matches!(draining, CallError::Draining(_)), "{draining}");
        assert_eq!(told(&draining), (Outcome::Rejected, Retry::Safe));
    });
}

#[test]
fn a_method_can_be_called_with_a_context_of_a_test() {
    on_both_runtimes(|| async {
        let mut relay = Relay { ran: Arc::default() };
        let cx = Cx::detached("context.relay", "one").with_request(request());
        assert_eq!(relay.pass(&cx, 0).await, seen());
        let nobody = cx.grid().actor::<Relay>("one").step().await.unwrap_err();
        assert!(matches!(nobody, CallError::NotHosted(_)), "its grid hosts nothing: {nobody}");
    });
}
