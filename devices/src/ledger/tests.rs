use std::time::Duration;

use proptest::prelude::*;
use quark_base::{ByteSize, Fault, Retry};

use super::*;

const MIB: u64 = 1 << 20;

fn device(name: &str) -> DeviceId {
    DeviceId::new(name)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One device of 1000 MiB, nothing held back.
fn ledger() -> VramLedger {
    VramLedger::new([(device("gpu"), ByteSize::mib(1000), ByteSize::ZERO)])
}

fn grant(ledger: &mut VramLedger, mib: u64, reload_seconds: u64, now: u64) -> LeaseId {
    ledger.grant(&device("gpu"), ByteSize::mib(mib), "owner", at(reload_seconds), at(now)).unwrap()
}

fn evict(ledger: &mut VramLedger, lease: LeaseId) {
    ledger.begin_unload(lease).unwrap();
    ledger.finish_unload(lease).unwrap();
}

#[test]
fn a_device_is_never_promised_twice() {
    let mut ledger = ledger();
    grant(&mut ledger, 600, 1, 0);
    let refused = ledger.grant(&device("gpu"), ByteSize::mib(401), "late", at(1), at(1)).unwrap_err();
    assert_eq!(
        refused,
        Shortfall::NotFree {
            device: device("gpu"),
            asked: ByteSize::mib(401),
            free: ByteSize::mib(400),
            unloading: ByteSize::ZERO,
            evictable: ByteSize::mib(600),
        }
    );
    assert_eq!(refused.retry(), Retry::Safe);
    grant(&mut ledger, 400, 1, 1);
    assert_eq!(ledger.free(&device("gpu")), ByteSize::ZERO);
}

#[test]
fn what_can_never_fit_says_so() {
    let mut ledger = VramLedger::new([(device("gpu"), ByteSize::mib(1000), ByteSize::mib(100))]);
    let refused = ledger.grant(&device("gpu"), ByteSize::mib(901), "big", at(1), at(0)).unwrap_err();
    assert!(
        matches!(refused, Shortfall::LargerThanDevice { leasable, .. } if leasable == ByteSize::mib(900))
    );
    assert_eq!(refused.retry(), Retry::Pointless);
    let refused = ledger.grant(&device("nowhere"), ByteSize::ZERO, "lost", at(1), at(0)).unwrap_err();
    assert!(matches!(refused, Shortfall::UnknownDevice { .. }));
    assert!(ledger.grant(&device("gpu"), ByteSize::bytes(u64::MAX), "max", at(1), at(0)).is_err());
}

#[test]
fn allocations_stay_within_their_lease() {
    let mut ledger = ledger();
    let lease = grant(&mut ledger, 100, 1, 0);
    ledger.debit(lease, ByteSize::mib(70)).unwrap();
    let over = ledger.debit(lease, ByteSize::mib(31)).unwrap_err();
    assert!(matches!(over, OverLease::TooMuch { used, .. } if used == ByteSize::mib(70)));
    ledger.debit(lease, ByteSize::mib(30)).unwrap();
    assert_eq!(
        ledger.credit(lease, ByteSize::mib(101)),
        Err(CreditError::MoreThanUsed { lease, bytes: ByteSize::mib(101), used: ByteSize::mib(100) })
    );
    ledger.credit(lease, ByteSize::mib(100)).unwrap();
    assert_eq!(ledger.release(lease).unwrap().still_debited, ByteSize::ZERO);
    assert_eq!(ledger.debit(lease, ByteSize::ZERO), Err(OverLease::NoSuchLease { lease }));
}

#[test]
fn an_eviction_frees_nothing_before_it_is_done() {
    let mut ledger = ledger();
    let lease = grant(&mut ledger, 800, 1, 0);
    ledger.debit(lease, ByteSize::mib(10)).unwrap();
    ledger.begin_unload(lease).unwrap();
    assert_eq!(ledger.begin_unload(lease), Err(UnloadError::AlreadyUnloading { lease }));
    assert_eq!(ledger.debit(lease, ByteSize::ZERO), Err(OverLease::Unloading { lease }));
    assert_eq!(ledger.pin(lease), Err(PinError::Unloading { lease }));
    let refused = ledger.grant(&device("gpu"), ByteSize::mib(500), "next", at(1), at(1)).unwrap_err();
    assert!(matches!(refused, Shortfall::NotFree { unloading, .. } if unloading == ByteSize::mib(800)));
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(500), at(1)), vec![], "it is coming already");
    ledger.credit(lease, ByteSize::mib(10)).unwrap();
    ledger.finish_unload(lease).unwrap();
    grant(&mut ledger, 500, 1, 2);
}

#[test]
fn a_running_turn_is_never_evicted() {
    let mut ledger = ledger();
    let (busy, idle) = (grant(&mut ledger, 500, 0, 0), grant(&mut ledger, 500, 99, 0));
    ledger.pin(busy).unwrap();
    ledger.pin(busy).unwrap();
    ledger.unpin(busy).unwrap();
    assert_eq!(ledger.begin_unload(busy), Err(UnloadError::Pinned { lease: busy, pins: 1 }));
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(500), at(9)), vec![idle]);
    assert_eq!(
        ledger.victims(&device("gpu"), ByteSize::mib(501), at(9)),
        vec![],
        "all that may go is too little"
    );
    ledger.unpin(busy).unwrap();
    assert_eq!(ledger.unpin(busy), Err(UnpinError::NotPinned { lease: busy }));
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(501), at(9)).len(), 2);
}

#[test]
fn cheap_large_and_forgotten_leases_go_first() {
    let mut ledger = ledger();
    let slow = grant(&mut ledger, 200, 40, 0);
    let fast = grant(&mut ledger, 200, 2, 0);
    let large = grant(&mut ledger, 400, 2, 0);
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(300), at(1)), vec![large]);
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(800), at(1)), vec![large, fast]);
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(1000), at(1)), vec![large, fast, slow]);
}

#[test]
fn a_measured_reload_cost_counts_from_then_on() {
    let mut ledger = ledger();
    let (first, second) = (grant(&mut ledger, 500, 0, 0), grant(&mut ledger, 500, 0, 1));
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(1), at(2)), vec![first]);
    ledger.set_reload_cost(first, at(30), at(2)).unwrap();
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(1), at(2)), vec![second]);
    ledger.release(first).unwrap();
    assert_eq!(ledger.set_reload_cost(first, at(1), at(3)), Err(NoSuchLease { lease: first }));
}

#[test]
fn among_equals_the_longest_idle_goes() {
    let mut ledger = ledger();
    let (first, second) = (grant(&mut ledger, 500, 3, 0), grant(&mut ledger, 500, 3, 1));
    ledger.touch(first, at(5)).unwrap();
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(1), at(6)), vec![second]);
}

#[test]
fn a_dear_lease_that_nobody_uses_is_overtaken() {
    let mut ledger = ledger();
    let dear = grant(&mut ledger, 500, 10, 0);
    // Each round a cheap lease comes, is used and evicted: inflation rises by its cost each time.
    let mut rounds = 0;
    for round in 1..100 {
        let cheap = grant(&mut ledger, 500, 3, round);
        let victim = ledger.victims(&device("gpu"), ByteSize::mib(500), at(round))[0];
        if victim == dear {
            rounds = round;
            break;
        }
        assert_eq!(victim, cheap);
        evict(&mut ledger, victim);
    }
    assert_eq!(rounds, 4, "inflation 3, 6, 9, then 9 + 3 passes 10");
}

#[test]
fn a_large_last_victim_spares_the_small_ones() {
    let mut ledger = ledger();
    let small = grant(&mut ledger, 100, 0, 0);
    let large = grant(&mut ledger, 900, 90, 0);
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(850), at(1)), vec![large]);
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::mib(950), at(1)), vec![small, large]);
}

#[test]
fn what_others_use_shrinks_what_is_free() {
    let mut ledger = VramLedger::new([(device("gpu"), ByteSize::mib(1000), ByteSize::mib(100))]);
    let lease = grant(&mut ledger, 400, 1, 0);
    ledger.debit(lease, ByteSize::mib(300)).unwrap();
    assert!(ledger.reconcile(&device("gpu"), ByteSize::mib(380), at(1)));
    assert_eq!(ledger.free(&device("gpu")), ByteSize::mib(500), "80 MiB of driver use are in the reserve");
    ledger.reconcile(&device("gpu"), ByteSize::mib(700), at(2));
    assert_eq!(ledger.free(&device("gpu")), ByteSize::mib(200));
    ledger.reconcile(&device("gpu"), ByteSize::mib(300), at(1));
    assert_eq!(ledger.free(&device("gpu")), ByteSize::mib(200), "an older reading says nothing new");
    ledger.reconcile(&device("gpu"), ByteSize::mib(1000), at(3));
    let usage = &ledger.snapshot()[0];
    assert_eq!((usage.free, usage.foreign), (ByteSize::ZERO, ByteSize::mib(700)));
    assert_eq!(usage.overcommitted, ByteSize::mib(100));
    assert_eq!(ledger.victims(&device("gpu"), ByteSize::ZERO, at(4)), vec![lease]);
    assert!(!ledger.reconcile(&device("nowhere"), ByteSize::ZERO, at(5)));
}

#[test]
fn owners_are_cut_at_a_character() {
    let mut ledger = ledger();
    let name = "é".repeat(MAX_OWNER_BYTES);
    let lease = ledger.grant(&device("gpu"), ByteSize::ZERO, &name, at(0), at(0)).unwrap();
    assert_eq!(ledger.lease(lease).unwrap().owner.len(), MAX_OWNER_BYTES);
}

/// One call on a ledger; leases are named by their place among those granted so far.
#[derive(Clone, Debug)]
enum Step {
    Grant { device: usize, mib: u64, reload_ms: u64 },
    Debit { lease: usize, mib: u64 },
    Credit { lease: usize, mib: u64 },
    Touch { lease: usize },
    Pin { lease: usize },
    Unpin { lease: usize },
    BeginUnload { lease: usize },
    FinishUnload { lease: usize },
    Release { lease: usize },
    Reconcile { device: usize, mib: u64 },
    Evict { device: usize, mib: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (device, lease, mib) = (0..3usize, 0..24usize, 0..700u64);
    prop_oneof![
        4 => (device.clone(), mib.clone(), 0..9000u64)
            .prop_map(|(device, mib, reload_ms)| Step::Grant { device, mib, reload_ms }),
        4 => (lease.clone(), mib.clone()).prop_map(|(lease, mib)| Step::Debit { lease, mib }),
        2 => (lease.clone(), mib.clone()).prop_map(|(lease, mib)| Step::Credit { lease, mib }),
        1 => lease.clone().prop_map(|lease| Step::Touch { lease }),
        2 => lease.clone().prop_map(|lease| Step::Pin { lease }),
        1 => lease.clone().prop_map(|lease| Step::Unpin { lease }),
        1 => lease.clone().prop_map(|lease| Step::BeginUnload { lease }),
        1 => lease.clone().prop_map(|lease| Step::FinishUnload { lease }),
        1 => lease.prop_map(|lease| Step::Release { lease }),
        1 => (device.clone(), mib.clone()).prop_map(|(device, mib)| Step::Reconcile { device, mib }),
        2 => (device, mib).prop_map(|(device, mib)| Step::Evict { device, mib }),
    ]
}

fn devices() -> [(DeviceId, ByteSize, ByteSize); 3] {
    [
        (device("a"), ByteSize::mib(1000), ByteSize::ZERO),
        (device("b"), ByteSize::mib(640), ByteSize::mib(64)),
        (device("c"), ByteSize::ZERO, ByteSize::mib(8)),
    ]
}

fn check(ledger: &VramLedger) -> Result<(), TestCaseError> {
    for usage in ledger.snapshot() {
        let capacity = usage.capacity.as_u64();
        let reserve = usage.reserve.as_u64();
        let granted: u64 = usage.leases.iter().map(|lease| lease.granted.as_u64()).sum();
        let debited: u64 = usage.leases.iter().map(|lease| lease.debited.as_u64()).sum();
        prop_assert_eq!(granted, usage.granted.as_u64());
        prop_assert_eq!(debited, usage.debited.as_u64());
        prop_assert!(granted + reserve <= capacity, "{:?} promised above the device", usage);
        prop_assert!(usage.leases.iter().all(|lease| lease.debited <= lease.granted));
        prop_assert!(usage.leases.iter().all(|lease| lease.pins == 0 || !lease.unloading));
        let held = usage.foreign.as_u64().max(reserve);
        prop_assert_eq!(usage.free.as_u64(), capacity.saturating_sub(held).saturating_sub(granted));
    }
    Ok(())
}

proptest! {
    #[test]
    fn books_balance_in_any_order_of_calls(steps in prop::collection::vec(step(), 1..160)) {
        let mut ledger = VramLedger::new(devices());
        let names = devices().map(|(device, ..)| device);
        let mut leases: Vec<LeaseId> = Vec::new();
        for (second, step) in steps.into_iter().enumerate() {
            let now = at(second as u64);
            let named = |place: usize| leases.get(place).copied().unwrap_or(LeaseId(u64::MAX));
            // Refusals are part of the game: whatever is refused must leave the books in balance.
            match step {
                Step::Grant { device, mib, reload_ms } => {
                    let free = ledger.free(&names[device]);
                    let reload = Duration::from_millis(reload_ms);
                    let answer = ledger.grant(&names[device], ByteSize::mib(mib), "p", reload, now);
                    prop_assert_eq!(answer.is_ok(), ByteSize::mib(mib) <= free);
                    leases.extend(answer.ok());
                }
                Step::Debit { lease, mib } => drop(ledger.debit(named(lease), ByteSize::mib(mib))),
                Step::Credit { lease, mib } => drop(ledger.credit(named(lease), ByteSize::mib(mib))),
                Step::Touch { lease } => drop(ledger.touch(named(lease), now)),
                Step::Pin { lease } => drop(ledger.pin(named(lease))),
                Step::Unpin { lease } => drop(ledger.unpin(named(lease))),
                Step::BeginUnload { lease } => drop(ledger.begin_unload(named(lease))),
                Step::FinishUnload { lease } => drop(ledger.finish_unload(named(lease))),
                Step::Release { lease } => drop(ledger.release(named(lease))),
                Step::Reconcile { device, mib } => {
                    ledger.reconcile(&names[device], ByteSize::mib(mib), now);
                }
                Step::Evict { device, mib } => {
                    let victims = ledger.victims(&names[device], ByteSize::mib(mib), now);
                    for victim in &victims {
                        let usage = ledger.lease(*victim).unwrap();
                        prop_assert_eq!((usage.pins, usage.unloading), (0, false));
                    }
                    let had_victims = !victims.is_empty();
                    for victim in victims {
                        evict(&mut ledger, victim);
                    }
                    let unloading: u64 = ledger.snapshot()[device]
                        .leases
                        .iter()
                        .filter(|lease| lease.unloading)
                        .map(|lease| lease.granted.as_u64())
                        .sum();
                    let free = ledger.free(&names[device]).as_u64();
                    prop_assert!(!had_victims || free + unloading >= mib * MIB, "the victims were not enough");
                }
            }
            check(&ledger)?;
        }
        for lease in leases {
            // Most have ended by now.
            drop(ledger.release(lease));
        }
        for usage in ledger.snapshot() {
            prop_assert_eq!((usage.granted, usage.debited), (ByteSize::ZERO, ByteSize::ZERO));
            prop_assert!(usage.leases.is_empty());
        }
    }
}
