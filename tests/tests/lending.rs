//! Who may use an actor while it is lent, in what order, and what happens when the loan ends early.

use std::sync::{Arc, Mutex};

use quark::prelude::*;
use quark_tests::{Gate, builder, on_both_runtimes};

type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, what: &str) {
    log.lock().unwrap().push(what.to_owned());
}

fn noted(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

/// Lends itself while it asks a [`Helper`], which calls it back.
#[derive(Actor)]
#[actor(name = "lender")]
struct Lender {
    visits: u32,
    inside: u32,
}

#[methods]
impl Lender {
    /// Asks the helper to call back so many times, one after another.
    pub async fn lend_for(&mut self, cx: &Cx, times: u32) -> u32 {
        let helper = cx.grid().actor::<Helper>("h");
        cx.lend(self, helper.call_back(times)).await.unwrap();
        self.visits
    }

    /// Asks three helpers at once.
    pub async fn lend_to_many(&mut self, cx: &Cx) -> u32 {
        let helpers = ["h1", "h2", "h3"].map(|key| cx.grid().actor::<Helper>(key));
        let [first, second, third] = &helpers;
        let all = async { tokio::join!(first.call_back(5), second.call_back(5), third.call_back(5)) };
        let (first, second, third) = cx.lend(self, all).await;
        first.unwrap();
        second.unwrap();
        third.unwrap();
        self.visits
    }

    /// Lends, one loan after another.
    pub async fn lend_again_and_again(&mut self, cx: &Cx) -> u32 {
        for times in 1..=3 {
            let helper = cx.grid().actor::<Helper>("h");
            cx.lend(self, helper.call_back(times)).await.unwrap();
            self.visits += 100;
        }
        self.visits
    }

    /// Lends until the gate opens.
    pub async fn lend_until(&mut self, cx: &Cx, log: Log, lent: Arc<Gate>, gate: Arc<Gate>) {
        note(&log, "lends");
        let helper = cx.grid().actor::<Helper>("h");
        let waits = async {
            helper.call_back(1).await.unwrap();
            lent.open();
            gate.passed().await;
        };
        cx.lend(self, waits).await;
        note(&log, "has itself back");
    }

    /// Gives up its loan when told to.
    pub async fn lend_unless(
        &mut self,
        cx: &Cx,
        lent: Arc<Gate>,
        resume: Arc<Gate>,
        cancel: Arc<Gate>,
    ) -> u32 {
        let helper = cx.grid().actor::<Helper>("h");
        tokio::select! {
            called = cx.lend(self, helper.call_back_after(lent, resume)) => {
                panic!("nobody lets the helper end: {called:?}");
            }
            () = cancel.passed() => {}
        }
        // The loan is over, so the method has its actor back.
        self.visits += 1;
        self.visits
    }

    pub async fn visit(&mut self) -> u32 {
        assert_eq!(self.inside, 0, "turns on a loan run one after another");
        self.inside += 1;
        tokio::task::yield_now().await;
        self.inside -= 1;
        self.visits += 1;
        self.visits
    }

    pub async fn break_down(&mut self) {
        panic!("on the loan");
    }

    pub async fn lend_to_a_panic(&mut self, cx: &Cx) -> bool {
        let helper = cx.grid().actor::<Helper>("h");
        let broke = cx.lend(self, helper.break_caller()).await.unwrap();
        self.visits += 1;
        broke
    }

    pub async fn note(&mut self, log: Log, what: String) {
        note(&log, &what);
    }

    pub async fn visits(&self) -> u32 {
        self.visits
    }

    /// Two calls of the chain want the loan; the loan ends under the second.
    pub async fn lend_and_leave(&mut self, cx: &Cx, inside: Arc<Gate>, leave: Arc<Gate>, log: Log) {
        let helper = cx.grid().actor::<Helper>("h");
        let first = cx.grid().actor::<Helper>("h1");
        tokio::select! {
            biased;
            () = leave.passed() => {}
            _ = cx.lend(self, async {
                tokio::join!(
                    first.stay(inside.clone(), leave.clone()),
                    helper.visit_after(inside.clone(), log.clone()),
                )
            }) => {}
        }
        note(&log, "left");
    }

    pub async fn stay(&mut self, inside: Arc<Gate>, leave: Arc<Gate>) {
        inside.open();
        leave.passed().await;
    }
}

#[derive(Actor)]
#[actor(name = "helper")]
struct Helper;

#[methods]
impl Helper {
    pub async fn call_back(&mut self, cx: &Cx, times: u32) {
        for _ in 0..times {
            cx.grid().actor::<Lender>("l").visit().await.unwrap();
        }
    }

    pub async fn call_back_after(&mut self, cx: &Cx, lent: Arc<Gate>, resume: Arc<Gate>) -> u32 {
        lent.open();
        resume.passed().await;
        cx.grid().actor::<Lender>("l").visit().await.unwrap()
    }

    pub async fn break_caller(&mut self, cx: &Cx) -> bool {
        let broke = cx.grid().actor::<Lender>("l").break_down().await;
        matches!(broke, Err(CallError::Panicked(broke)) if broke.method == "break_down")
    }

    pub async fn stay(&mut self, cx: &Cx, inside: Arc<Gate>, leave: Arc<Gate>) {
        cx.grid().actor::<Lender>("l").stay(inside, leave).await.unwrap();
    }

    pub async fn visit_after(&mut self, cx: &Cx, inside: Arc<Gate>, log: Log) {
        inside.passed().await;
        note(&log, "asks");
        match cx.grid().actor::<Lender>("l").visit().await {
            Err(CallError::Deadlock(chain)) => note(&log, &chain.to_string()),
            other => note(&log, &format!("{other:?}")),
        }
    }
}

fn lender() -> (Silo, LenderRef) {
    let silo = builder().host::<Lender>().host::<Helper>().start().unwrap();
    let lender = silo.grid().actor::<Lender>("l");
    (silo, lender)
}

#[test]
fn a_chain_may_use_a_loan_many_times() {
    on_both_runtimes(|| async {
        let (_silo, lender) = lender();
        assert_eq!(lender.lend_for(10).await.unwrap(), 10);
        assert_eq!(lender.lend_for(3).await.unwrap(), 13);
    });
}

#[test]
fn calls_of_the_chain_that_want_a_loan_at_once_get_it_one_after_another() {
    on_both_runtimes(|| async {
        let (_silo, lender) = lender();
        assert_eq!(lender.lend_to_many().await.unwrap(), 15);
    });
}

#[test]
fn a_method_may_lend_its_actor_again_and_again() {
    on_both_runtimes(|| async {
        let (_silo, lender) = lender();
        assert_eq!(lender.lend_again_and_again().await.unwrap(), 1 + 2 + 3 + 300);
    });
}

#[test]
fn a_stranger_waits_while_an_actor_is_lent() {
    on_both_runtimes(|| async {
        let (_silo, lender) = lender();
        let (log, lent, gate) = (Log::default(), Gate::new(), Gate::new());
        let lends = tokio::spawn({
            let (lender, log, lent, gate) = (lender.clone(), log.clone(), lent.clone(), gate.clone());
            async move { lender.lend_until(log, lent, gate).await }
        });
        lent.passed().await;
        // Told before the gate opens, so it is in the mailbox when the lender goes on.
        lender.note(log.clone(), "a stranger".to_owned()).tell().unwrap();
        tokio::task::yield_now().await;
        note(&log, "the gate opens");
        gate.open();
        lends.await.unwrap().unwrap();
        lender.visit().await.unwrap();
        assert_eq!(noted(&log), ["lends", "the gate opens", "has itself back", "a stranger"]);
    });
}

#[test]
fn a_lent_actor_is_not_deactivated_before_its_turn_ends() {
    on_both_runtimes(|| async {
        let (silo, lender) = lender();
        let (log, lent, gate) = (Log::default(), Gate::new(), Gate::new());
        let lends = tokio::spawn({
            let (lender, log, lent, gate) = (lender.clone(), log.clone(), lent.clone(), gate.clone());
            async move { lender.lend_until(log, lent, gate).await }
        });
        lent.passed().await;
        silo.grid().deactivate::<Lender>("l");
        tokio::task::yield_now().await;
        gate.open();
        lends.await.unwrap().unwrap();
        assert_eq!(lender.visits().await.unwrap(), 0, "a fresh actor");
    });
}

#[test]
fn a_loan_that_is_given_up_gives_the_actor_back_to_its_method() {
    on_both_runtimes(|| async {
        let (_silo, lender) = lender();
        let (lent, resume, cancel) = (Gate::new(), Gate::new(), Gate::new());
        let call = tokio::spawn({
            let (lender, lent, resume, cancel) =
                (lender.clone(), lent.clone(), resume.clone(), cancel.clone());
            async move { lender.lend_unless(lent, resume, cancel).await }
        });
        lent.passed().await;
        cancel.open();
        assert_eq!(call.await.unwrap().unwrap(), 1);
        // The helper runs on without a caller, and calls an actor that no longer waits for it.
        resume.open();
        while lender.visits().await.unwrap() != 2 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn who_still_waits_for_a_loan_as_it_ends_is_told_of_the_deadlock() {
    on_both_runtimes(|| async {
        let (_silo, lender) = lender();
        let (inside, leave, log) = (Gate::new(), Gate::new(), Log::default());
        let call = tokio::spawn({
            let (lender, inside, leave, log) = (lender.clone(), inside.clone(), leave.clone(), log.clone());
            async move { lender.lend_and_leave(inside, leave, log).await }
        });
        while !noted(&log).contains(&"asks".to_owned()) {
            tokio::task::yield_now().await;
        }
        // Its call stands in the loan's queue once the helper's turn has given its thread back.
        tokio::task::yield_now().await;
        leave.open();
        call.await.unwrap().unwrap();
        while noted(&log).len() < 3 {
            tokio::task::yield_now().await;
        }
        let log = noted(&log);
        assert!(
            log.contains(&"lender/l -> helper/h -> lender/l".to_owned()) || log.contains(&"Ok(1)".to_owned()),
            "it was refused with the loan, or came when the lender no longer waited for it: {log:?}"
        );
    });
}

#[test]
fn a_panic_on_a_loan_is_its_callers_and_the_lender_goes_on_to_its_end() {
    on_both_runtimes(|| async {
        let (_silo, lender) = lender();
        lender.visit().await.unwrap();
        assert!(lender.lend_to_a_panic().await.unwrap());
        assert_eq!(
            lender.visits().await.unwrap(),
            0,
            "the actor may be torn, so the next call gets a fresh one"
        );
    });
}

/// A loan must not be moved or forgotten once it has begun, or its method could use the actor beside those it is
/// lent to. Compiles only while `Lend` is not `Unpin`.
#[test]
fn a_loan_stays_where_it_was_begun() {
    trait OnlyOneUnlessUnpin<Which> {
        fn is_pinned() -> bool {
            true
        }
    }
    impl<T> OnlyOneUnlessUnpin<()> for T {}
    impl<T: Unpin> OnlyOneUnlessUnpin<u8> for T {}
    type Loan = quark::runtime::turn::Lend<'static, std::future::Pending<()>>;
    assert!(<Loan as OnlyOneUnlessUnpin<_>>::is_pinned());
}
