//! How each fault comes about; gives what its caller heard.

use super::*;

pub(super) async fn a_panic_in_a_turn(bed: &Bed) -> Option<Failure> {
    bed.subject().panics().await.unwrap_err().as_failure()
}

pub(super) async fn a_panic_after_a_wait(bed: &Bed) -> Option<Failure> {
    bed.subject().panics_later().await.unwrap_err().as_failure()
}

pub(super) async fn a_panic_beside_other_turns(bed: &Bed) -> Option<Failure> {
    let (subject, started, gate, end) = (bed.subject(), Gate::new(), Gate::new(), Gate::new());
    let beside = tokio::spawn({
        let (subject, started, end) = (subject.clone(), started.clone(), end.clone());
        async move { subject.waits(started, end).await }
    });
    started.passed().await;
    gate.open();
    let heard = subject.panics_when(gate).await.unwrap_err();
    end.open();
    assert_eq!(beside.await.unwrap().unwrap(), 0, "the turn beside it ended well");
    heard.as_failure()
}

pub(super) async fn a_panic_in_the_constructor(bed: &Bed) -> Option<Failure> {
    let subject = bed.subject();
    bed.script.breaks_constructor.store(true, Ordering::SeqCst);
    subject.call().await.unwrap_err().as_failure()
}

pub(super) async fn a_panic_in_on_activate(bed: &Bed) -> Option<Failure> {
    let subject = bed.subject();
    bed.script.breaks_on_activate.store(true, Ordering::SeqCst);
    subject.call().await.unwrap_err().as_failure()
}

pub(super) async fn a_panic_in_on_deactivate(bed: &Bed) -> Option<Failure> {
    let subject = bed.subject();
    subject.call().await.unwrap();
    bed.script.breaks_on_deactivate.store(true, Ordering::SeqCst);
    subject.deactivate();
    until(|| !bed.script.breaks_on_deactivate.load(Ordering::SeqCst)).await;
    subject.call().await.err()?.as_failure()
}

pub(super) async fn a_panic_in_a_timer(bed: &Bed) -> Option<Failure> {
    let subject = bed.subject();
    subject.sets_a_timer(Duration::from_secs(1)).await.unwrap();
    bed.clock.advance(Duration::from_secs(1));
    dead_letter(bed).await
}

pub(super) async fn a_panic_in_a_one_way_message(bed: &Bed) -> Option<Failure> {
    bed.subject().panics().tell().unwrap();
    dead_letter(bed).await
}

/// Why the one message is dead that nobody waited for.
async fn dead_letter(bed: &Bed) -> Option<Failure> {
    let letters = bed.silo.grid().dead_letters::<Subject>();
    until(|| letters.len() == 1).await;
    match letters.inspect().remove(0).cause {
        DeadCause::Call(failure) => Some(failure),
        other => panic!("{other}"),
    }
}

pub(super) async fn a_panic_in_the_drop_of_what_a_turn_holds(bed: &Bed) -> Option<Failure> {
    bed.subject().holds_a_bomb().await.unwrap_err().as_failure()
}

pub(super) async fn a_panic_in_the_drop_of_the_actor(bed: &Bed) -> Option<Failure> {
    let subject = bed.subject();
    subject.will_break_in_drop().await.unwrap();
    subject.deactivate();
    subject.call().await.err()?.as_failure()
}

pub(super) async fn a_panic_of_a_child_that_its_parent_stops(bed: &Bed) -> Option<Failure> {
    bed.subject().spawns("child").await.unwrap();
    let child = bed.silo.grid().actor::<Subject>("child");
    assert!(matches!(child.panics().await, Err(CallError::Panicked(_))));
    child.call().await.unwrap_err().as_failure()
}

pub(super) async fn a_caller_dropped_before_its_turn(bed: &Bed) -> Option<Failure> {
    let (subject, started, gate) = (bed.subject(), Gate::new(), Gate::new());
    subject.holds(started.clone(), gate.clone()).tell().unwrap();
    started.passed().await;
    let mut call = Box::pin(subject.awaits(0).into_future());
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(call);
    gate.open();
    subject.call().await.unwrap();
    assert_eq!(bed.script.ended.load(Ordering::SeqCst), 0, "it never ran");
    None
}

pub(super) async fn a_caller_dropped_at_each_await(bed: &Bed) -> Option<Failure> {
    const AWAITS: u32 = 5;
    let subject = bed.subject();
    // There already, so that the first poll can begin the turn.
    subject.call().await.unwrap();
    for polls in 1..=AWAITS {
        let mut call = Box::pin(subject.awaits(AWAITS).into_future());
        for _ in 0..polls {
            // On several threads the turn may have ended by now.
            if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                break;
            }
            yield_now().await;
        }
        drop(call);
        // It ran to its end before this one, or it never began.
        subject.call().await.unwrap();
        let script = &bed.script;
        assert_eq!(script.begun.load(Ordering::SeqCst), script.ended.load(Ordering::SeqCst));
    }
    assert!(bed.script.ended.load(Ordering::SeqCst) > 0);
    None
}

pub(super) async fn a_deactivation_that_races_calls(bed: &Bed) -> Option<Failure> {
    let subject = bed.subject();
    let mut afresh = 0;
    for _ in 0..100 {
        let closer = tokio::spawn({
            let subject = subject.clone();
            async move { subject.deactivate() }
        });
        for _ in 0..3 {
            afresh += u32::from(subject.call().await.unwrap() == 1);
        }
        closer.await.unwrap();
    }
    // Not each: one that is asked for while another is under way is met by that.
    assert!(afresh > 10, "{afresh} of a hundred rounds met a fresh actor");
    None
}

pub(super) async fn a_full_mailbox(bed: &Bed) -> Option<Failure> {
    let (subject, started, gate) = (bed.subject(), Gate::new(), Gate::new());
    subject.holds(started.clone(), gate.clone()).tell().unwrap();
    started.passed().await;
    for _ in 0..4 {
        subject.call().tell().unwrap();
    }
    let heard = subject.call().await.unwrap_err();
    gate.open();
    until(|| bed.queued() == 0).await;
    heard.as_failure()
}

pub(super) async fn a_deadline_that_passes_in_the_queue(bed: &Bed) -> Option<Failure> {
    let (subject, started, gate) = (bed.subject(), Gate::new(), Gate::new());
    subject.holds(started.clone(), gate.clone()).tell().unwrap();
    started.passed().await;
    let call = tokio::spawn({
        let subject = subject.clone();
        async move { subject.call().timeout(Duration::from_secs(1)).await }
    });
    until(|| bed.queued() == 1).await;
    bed.clock.advance(Duration::from_secs(1));
    let heard = call.await.unwrap().unwrap_err();
    gate.open();
    heard.as_failure()
}

pub(super) async fn a_turn_that_never_ends(bed: &Bed) -> Option<Failure> {
    let (subject, started, gate) = (bed.subject(), Gate::new(), Gate::new());
    let call = tokio::spawn({
        let (subject, started, gate) = (subject.clone(), started.clone(), gate.clone());
        async move { subject.holds(started, gate).timeout(Duration::from_secs(1)).await }
    });
    started.passed().await;
    // Its deadline was settled before the turn began.
    bed.clock.advance(Duration::from_secs(1));
    let heard = call.await.unwrap().unwrap_err();
    // It would never end by itself, and the watchdog says so.
    let grid = bed.silo.grid();
    let named = |stuck: &StuckTurn| stuck.actor.key.as_str() == "subject" && stuck.method == Some("holds");
    while !grid.stuck_turns().iter().any(named) {
        bed.clock.advance(Duration::from_millis(50));
        yield_now().await;
    }
    gate.open();
    heard.as_failure()
}

pub(super) async fn a_turn_that_never_ends_when_the_silo_stops(_: &Bed) -> Option<Failure> {
    let silo = builder().host_with(subjects()).start().unwrap();
    let (subject, started) = (silo.grid().actor::<Subject>("subject"), Gate::new());
    let call = tokio::spawn({
        let started = started.clone();
        async move { subject.holds(started, Gate::new()).await }
    });
    started.passed().await;
    assert!(!silo.shutdown(Duration::ZERO).await.drained);
    call.await.unwrap().unwrap_err().as_failure()
}

pub(super) async fn a_call_to_a_silo_that_stops(_: &Bed) -> Option<Failure> {
    let silo = builder().host_with(subjects()).start().unwrap();
    let subject = silo.grid().actor::<Subject>("subject");
    silo.shutdown(Duration::from_secs(1)).await;
    subject.call().await.unwrap_err().as_failure()
}

/// Makes subjects that do nothing special.
fn subjects() -> impl Fn(&Key) -> Result<Subject, quark::actor::HookError> + Send + Sync + 'static {
    |_| Ok(Subject { script: Arc::default(), calls: 0, breaks_in_drop: false })
}

pub(super) async fn a_type_that_is_not_hosted(bed: &Bed) -> Option<Failure> {
    bed.silo.grid().actor::<Unknown>("subject").call().await.unwrap_err().as_failure()
}

async fn visit(bed: &Bed, path: &[&str]) -> Option<Failure> {
    bed.subject().visit(path.iter().map(ToString::to_string).collect()).await.unwrap()
}

pub(super) async fn a_deadlock_of_an_actor_with_itself(bed: &Bed) -> Option<Failure> {
    visit(bed, &["subject"]).await
}

pub(super) async fn a_deadlock_of_two(bed: &Bed) -> Option<Failure> {
    visit(bed, &["second", "subject"]).await
}

pub(super) async fn a_deadlock_of_three(bed: &Bed) -> Option<Failure> {
    visit(bed, &["second", "third", "subject"]).await
}

/// What the subject's `#[on_activate]` hears when it calls `called`.
async fn on_activate_calls(bed: &Bed, called: &'static str) -> Option<Failure> {
    let subject = bed.subject();
    *bed.script.on_activate_calls.lock().unwrap() = Some(called);
    subject.call().await.unwrap();
    bed.script.heard.lock().unwrap().take()
}

pub(super) async fn an_on_activate_that_calls_its_own_actor(bed: &Bed) -> Option<Failure> {
    on_activate_calls(bed, "subject").await
}

pub(super) async fn an_on_activate_that_is_called_back(bed: &Bed) -> Option<Failure> {
    bed.silo.grid().actor::<Subject>("second").call().await.unwrap();
    on_activate_calls(bed, "second").await
}

pub(super) async fn an_on_deactivate_that_calls_its_own_actor(bed: &Bed) -> Option<Failure> {
    let subject = bed.subject();
    subject.call().await.unwrap();
    *bed.script.on_deactivate_calls.lock().unwrap() = Some("subject");
    subject.deactivate();
    until(|| bed.script.heard.lock().unwrap().is_some()).await;
    bed.script.heard.lock().unwrap().take()
}

pub(super) async fn a_lent_actor_called_back(bed: &Bed) -> Option<Failure> {
    let (lent, gate) = (Gate::new(), Gate::new());
    gate.open();
    assert_eq!(bed.subject().lends("second", lent, gate).await.unwrap(), 1);
    None
}

pub(super) async fn a_lent_actor_called_by_a_stranger(bed: &Bed) -> Option<Failure> {
    let (subject, lent, gate) = (bed.subject(), Gate::new(), Gate::new());
    let lender = tokio::spawn({
        let (subject, lent, gate) = (subject.clone(), lent.clone(), gate.clone());
        async move { subject.lends("second", lent, gate).await }
    });
    lent.passed().await;
    let stranger = tokio::spawn({
        let subject = subject.clone();
        async move { subject.call().await }
    });
    until(|| bed.queued() == 1).await;
    gate.open();
    assert_eq!(lender.await.unwrap().unwrap(), 1, "the lender went on first");
    assert_eq!(stranger.await.unwrap().unwrap(), 2, "the stranger waited");
    None
}

pub(super) async fn a_loan_cancelled_while_it_lasts(bed: &Bed) -> Option<Failure> {
    let (subject, lent, resume, cancel) = (bed.subject(), Gate::new(), Gate::new(), Gate::new());
    let lender = tokio::spawn({
        let (subject, lent) = (subject.clone(), lent.clone());
        let (resume, cancel) = (resume.clone(), cancel.clone());
        async move { subject.gives_up(lent, resume, cancel).await }
    });
    lent.passed().await;
    cancel.open();
    assert_eq!(lender.await.unwrap().unwrap(), 1, "the lender has itself back");
    // Who was called on the loan goes on without a caller, and is a stranger now.
    resume.open();
    until(|| bed.script.ended.load(Ordering::SeqCst) == 1).await;
    assert_eq!(subject.call().await.unwrap(), 3);
    None
}

pub(super) async fn a_recursion_of_10_000_actors(bed: &Bed) -> Option<Failure> {
    let top = bed.silo.grid().actor::<Subject>(10_000);
    assert_eq!(top.descends(10_000).await.unwrap(), 10_000);
    None
}

pub(super) async fn a_recursion_of_10_000_turns_of_one_actor(bed: &Bed) -> Option<Failure> {
    assert_eq!(bed.subject().re_enters(10_000).await.unwrap(), 10_000);
    None
}
