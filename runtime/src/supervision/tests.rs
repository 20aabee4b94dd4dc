//! Families and registries without a silo.

use std::time::Duration;

use proptest::prelude::*;
use quark_base::{ActorId, Seeded};

use super::family::{Family, Plan, Verdict};
use super::registry::{Consequences, SpawnError, Supervision, Supervisor};
use crate::backoff::Backoff;
use crate::error::Panicked;

use super::{ChildFailure, ChildState, Directive, FailureCause, Orphans, Strategy, SuperviseSpec};

const SECOND: Duration = Duration::from_secs(1);

fn actor(key: &str) -> ActorId {
    ActorId { actor_type: "test", key: key.into() }
}

fn keys(actors: &[ActorId]) -> Vec<&str> {
    actors.iter().map(|actor| actor.key.as_str()).collect()
}

fn spec(strategy: Strategy) -> SuperviseSpec {
    SuperviseSpec {
        strategy,
        max_restarts: 2,
        within: 60 * SECOND,
        backoff: Backoff::new(SECOND, 8 * SECOND),
        ..SuperviseSpec::DEFAULT
    }
}

fn family(strategy: Strategy) -> Family {
    let mut family = Family::new(spec(strategy));
    for key in ["a", "b", "c"] {
        family.adopt(actor(key));
    }
    family
}

/// A turn of `key` panics; every wait is its longest.
fn fail(
    family: &mut Family,
    key: &str,
    directive: Directive,
    now: Duration,
) -> Option<(Verdict, Vec<ActorId>)> {
    let ruling = family.failed(&actor(key), directive, &"broke".into(), false, now, u64::MAX)?;
    Some((ruling.verdict, ruling.others))
}

#[test]
fn a_strategy_says_whom_a_failure_touches() {
    for (strategy, touched) in [
        (Strategy::OneForOne, &[][..]),
        (Strategy::AllForOne, &["a", "c"][..]),
        (Strategy::RestForOne, &["c"][..]),
    ] {
        for directive in [Directive::Restart, Directive::Stop] {
            let mut family = family(strategy);
            let (verdict, others) = fail(&mut family, "b", directive, SECOND).unwrap();
            assert_eq!((verdict, keys(&others)), (Verdict::End, touched.to_vec()), "{strategy:?}");
            for key in touched.iter().chain(&["b"]) {
                let plan = family.plan(&actor(key));
                match directive {
                    Directive::Restart => assert_eq!(plan, Plan::Restart { until: 2 * SECOND }),
                    _ => assert_eq!(plan, Plan::Stop { because: "broke".into() }),
                }
            }
        }
    }
}

#[test]
fn to_resume_touches_nobody() {
    let mut family = family(Strategy::AllForOne);
    assert_eq!(fail(&mut family, "b", Directive::Resume, SECOND), Some((Verdict::Resume, Vec::new())));
    assert!(family.status(SECOND).iter().all(|child| child.state == ChildState::Active));
}

#[test]
fn waits_grow_and_one_restart_too_many_escalates() {
    let mut family = family(Strategy::OneForOne);
    for until in [1, 2] {
        assert_eq!(fail(&mut family, "b", Directive::Restart, Duration::ZERO).unwrap().0, Verdict::End);
        assert_eq!(family.plan(&actor("b")), Plan::Restart { until: until * SECOND });
        family.settled(&actor("b"));
    }
    assert_eq!(fail(&mut family, "b", Directive::Restart, Duration::ZERO).unwrap().0, Verdict::Escalate);
    assert!(matches!(family.plan(&actor("b")), Plan::Stop { .. }));
    assert_eq!(family.plan(&actor("a")), Plan::None, "a neighbour's restarts are its own");
}

#[test]
fn restarts_are_forgotten_after_the_window() {
    let mut family = family(Strategy::OneForOne);
    for now in [0, 30, 61, 95, 130] {
        let ruled = fail(&mut family, "b", Directive::Restart, now * SECOND).unwrap();
        assert_eq!(ruled.0, Verdict::End, "at {now} s there were not two within a minute");
        family.settled(&actor("b"));
    }
    assert_eq!(family.restarts(&actor("b"), 130 * SECOND), 2);
}

#[test]
fn a_second_panic_beside_the_first_is_no_second_failure_but_a_failed_restart_is() {
    let mut family = family(Strategy::OneForOne);
    fail(&mut family, "b", Directive::Restart, SECOND).unwrap();
    assert_eq!(fail(&mut family, "b", Directive::Restart, SECOND), None);
    let again = family.failed(&actor("b"), Directive::Restart, &"broke".into(), true, SECOND, u64::MAX);
    assert_eq!(again.unwrap().verdict, Verdict::End);
    assert_eq!(family.restarts(&actor("b"), SECOND), 2);
}

#[test]
fn a_stopped_child_stays_so_until_it_is_spawned_again() {
    let mut family = family(Strategy::OneForOne);
    fail(&mut family, "b", Directive::Stop, SECOND).unwrap();
    family.settled(&actor("b"));
    assert!(matches!(family.plan(&actor("b")), Plan::Stop { .. }));
    family.adopt(actor("b"));
    assert_eq!(family.plan(&actor("b")), Plan::None);
    assert_eq!(family.actors().count(), 3);
}

proptest! {
    /// Whatever fails in whatever order: no child is restarted more often within the window than the limit allows,
    /// one-for-one touches nobody else, and who is stopped stays stopped.
    #[test]
    fn limits_hold(
        strategy in prop::sample::select(vec![Strategy::OneForOne, Strategy::AllForOne, Strategy::RestForOne]),
        steps in prop::collection::vec((0_usize..3, 0_u8..5, 0_u32..20, any::<bool>()), 0..200),
    ) {
        let mut family = family(strategy);
        let mut now = Duration::ZERO;
        let mut restarted: Vec<Vec<Duration>> = vec![Vec::new(); 3];
        let mut stopped = [false; 3];
        for (child, directive, pause, settles) in steps {
            now += pause * SECOND;
            let key = ["a", "b", "c"][child];
            let directive = match directive {
                0 => Directive::Resume,
                1 if pause > 15 => Directive::Stop,
                _ => Directive::Restart,
            };
            if let Some((verdict, others)) = fail(&mut family, key, directive, now) {
                prop_assert!(!stopped[child], "a stopped child does not fail");
                prop_assert!(strategy != Strategy::OneForOne || others.is_empty());
                let plan = family.plan(&actor(key));
                if let Plan::Restart { until } = plan {
                    prop_assert!(until >= now && until <= now + 8 * SECOND);
                    restarted[child].push(now);
                }
                prop_assert_eq!(verdict == Verdict::Resume, plan == Plan::None);
            }
            for (index, key) in ["a", "b", "c"].into_iter().enumerate() {
                stopped[index] |= matches!(family.plan(&actor(key)), Plan::Stop { .. });
                if settles {
                    family.settled(&actor(key));
                }
            }
        }
        for times in restarted {
            for window in times.windows(3) {
                prop_assert!(window[2] - window[0] >= 60 * SECOND, "three within a minute: {:?}", window);
            }
        }
    }
}

fn supervisor(spec: SuperviseSpec) -> Supervisor {
    Supervisor { spec, decide: None, root: None, stateless: None }
}

fn panicked() -> FailureCause {
    FailureCause::Panicked(Box::new(Panicked { actor: actor("x"), method: "m", message: "broke".into() }))
}

fn fails(all: &Supervision, key: &str) -> Option<Consequences> {
    all.failed(&actor(key), panicked(), None, false, Duration::ZERO, &Seeded::new(1))
}

/// A grandparent that restarts, a parent that escalates, two children.
fn dynasty() -> Supervision {
    let all = Supervision::default();
    let escalates = SuperviseSpec { on_panic: Directive::Escalate, ..spec(Strategy::OneForOne) };
    all.adopt(&actor("old"), supervisor(spec(Strategy::OneForOne)), &actor("mid")).unwrap();
    for child in ["one", "two"] {
        all.adopt(&actor("mid"), supervisor(escalates), &actor(child)).unwrap();
    }
    all
}

#[test]
fn a_failure_escalates_to_whoever_can_mend_it() {
    let all = dynasty();
    let consequences = fails(&all, "one").unwrap();
    assert_eq!(consequences.verdict, Verdict::Escalate);
    assert_eq!(keys(&consequences.close), ["mid"]);
    assert!(consequences.unmended.is_none());
    assert!(matches!(all.plan(&actor("mid")), Plan::Restart { .. }));
    // When the parent goes, its children go with it, and its own place in the family stays.
    assert_eq!(keys(&all.ended(&actor("mid"), true)), ["one", "two"]);
    assert_eq!(all.plan(&actor("one")), Plan::None);
    assert!(all.has_parent(&actor("mid")) && !all.has_parent(&actor("one")));
}

#[test]
fn a_failure_that_nobody_can_mend_says_so() {
    let all = Supervision::default();
    let escalates = SuperviseSpec { on_panic: Directive::Escalate, ..spec(Strategy::OneForOne) };
    all.adopt(&actor("top"), supervisor(escalates), &actor("child")).unwrap();
    let consequences = fails(&all, "child").unwrap();
    assert_eq!(keys(&consequences.close), ["top"]);
    let unmended = consequences.unmended.unwrap().to_string();
    assert!(unmended.contains("test/top") && unmended.contains("broke"), "{unmended}");
}

#[test]
fn an_actor_without_parent_and_rule_is_nobodys_business() {
    let all = Supervision::default();
    assert!(fails(&all, "a").is_none() && !all.is_used());
    // Its own type's rule holds, for as long as its activation lasts.
    let root = Some(spec(Strategy::OneForOne));
    let ruled = all.failed(&actor("a"), panicked(), root, false, Duration::ZERO, &Seeded::new(1)).unwrap();
    assert_eq!((ruled.verdict, all.is_used()), (Verdict::End, true));
    assert!(matches!(all.plan(&actor("a")), Plan::Restart { .. }));
    all.ended(&actor("a"), false);
    assert!(!all.is_used());
}

#[test]
fn nobody_has_two_parents_or_is_above_itself() {
    let all = dynasty();
    let calm = supervisor(SuperviseSpec::DEFAULT);
    assert!(matches!(all.adopt(&actor("x"), calm, &actor("one")), Err(SpawnError::HasParent { .. })));
    for above in ["mid", "old", "two"] {
        let adopted = all.adopt(&actor("two"), calm, &actor(above));
        let refused = matches!(adopted, Err(SpawnError::Cycle { .. } | SpawnError::HasParent { .. }));
        assert!(refused, "{above}: {adopted:?}");
    }
    assert!(all.disown(&actor("mid"), &actor("one")) && !all.disown(&actor("mid"), &actor("one")));
    all.adopt(&actor("x"), calm, &actor("one")).unwrap();
}

#[test]
fn orphans_are_kept_where_the_type_says_so() {
    let all = Supervision::default();
    let keeps = SuperviseSpec { orphans: Orphans::Keep, ..SuperviseSpec::DEFAULT };
    all.adopt(&actor("top"), supervisor(keeps), &actor("child")).unwrap();
    assert!(all.ended(&actor("top"), false).is_empty());
    assert!(!all.is_used());
}

#[test]
fn a_decision_in_code_holds_and_its_panic_falls_back_to_the_declaration() {
    fn decide(failure: &ChildFailure) -> Directive {
        assert!(failure.child.key.as_str() != "odd", "undecided");
        Directive::Resume
    }
    let all = Supervision::default();
    let mut decides = supervisor(spec(Strategy::OneForOne));
    decides.decide = Some(decide);
    for child in ["even", "odd"] {
        all.adopt(&actor("top"), decides, &actor(child)).unwrap();
    }
    assert_eq!(fails(&all, "even").unwrap().verdict, Verdict::Resume);
    assert_eq!(fails(&all, "odd").unwrap().verdict, Verdict::End);
}
