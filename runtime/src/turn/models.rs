//! Models of the turn engine: every interleaving of a few threads that call one actor, under loom.
//!
//! They run the real slot, word, mailbox, blocks, loans and executor, on loom's atomics and locks. What they watch is
//! the actor itself: its state is a loom cell, so that two turns which overlap, or a turn that does not see what the
//! one before it wrote, end the model; and every message and answer is counted, so that none is lost or dropped twice.
//!
//! `cargo xtask loom` builds and runs them. One thread of each model is a caller and the executor's worker in turn. The
//! exploration is bounded by involuntary switches: with two of them nearly all known races show (Musuvathi and Qadeer,
//! PLDI 2007), and a third thread costs as much as two more switches. `cargo xtask loom --preemptions 3` goes further.

mod stage;

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::task::Poll;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;
use tokio::runtime::Builder as TokioBuilder;

use self::stage::{Add, Door, LendItself, Read, Register, Shareable, Stage, Wait, Watch};
use crate::actor::DeactivationReason;
use crate::turn::block::with_local;
use crate::turn::lock::SpinLock;
use crate::turn::{AnySlot, Slot};

/// Involuntary switches between two threads, between two whose every step has many outcomes, and between three.
const TWO: usize = 2;
const ONE: usize = 1;
const THREE: usize = 1;

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    // Never driven: it is only what `Handle::current` names.
    let tokio = TokioBuilder::new_current_thread().build().unwrap();
    let _entered = tokio.enter();
    let mut builder = Builder::new();
    // `LOOM_MAX_PREEMPTIONS` explores further.
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 50_000;
    builder.check(move || {
        let model = &model;
        model();
    });
}

#[test]
fn exclusive_asks_of_two_threads_never_overlap() {
    explore(TWO, || {
        let stage = Stage::new();
        let other = stage.ask(Add(stage.counted()));
        let here = stage.ask_here(Add(stage.counted()));
        let there = stage.join(other);
        assert_eq!(here + there, 3);
        stage.end();
    });
}

#[test]
fn a_read_sees_all_or_nothing_of_a_write() {
    explore(TWO, || {
        let stage = Stage::new();
        let other = stage.ask(Read(stage.counted()));
        let written = stage.ask_here(Add(stage.counted()));
        let read = stage.join(other);
        assert!(written == 1 && read <= 1);
        stage.end();
    });
}

#[test]
fn reads_of_two_threads_share_the_actor() {
    explore(TWO, || {
        let stage = Stage::new();
        let other = stage.ask(Read(stage.counted()));
        assert_eq!(stage.ask_here(Read(stage.counted())), 0);
        assert_eq!(stage.join(other), 0);
        stage.end();
    });
}

#[test]
fn every_one_way_message_runs_once() {
    explore(TWO, || {
        let stage = Stage::new();
        let (actor, message) = (stage.actor(), Add(stage.counted()));
        let other = stage.run(move || actor.call(message).tell().unwrap());
        stage.actor().call(Add(stage.counted())).tell().unwrap();
        stage.join(other);
        // Behind both of them, in the mailbox or after it.
        assert_eq!(stage.ask_here(Add(stage.counted())), 3);
        stage.end();
    });
}

#[test]
fn a_turn_that_waits_is_handed_over_and_woken() {
    explore(TWO, || {
        let stage = Stage::new();
        let door = Arc::<Door>::default();
        let opener = door.clone();
        let other = stage.run(move || opener.open());
        assert_eq!(stage.ask_here(Wait(stage.counted(), door)), 2);
        stage.join(other);
        stage.end();
    });
}

#[test]
fn a_call_behind_a_turn_that_waits_runs_after_it() {
    explore(TWO, || {
        let stage = Stage::new();
        let door = Arc::<Door>::default();
        let waits = stage.ask(Wait(stage.counted(), door.clone()));
        door.open();
        let added = stage.ask_here(Add(stage.counted()));
        let waited = stage.join(waits);
        assert!((added, waited) == (1, 3) || (added, waited) == (3, 2), "{added} {waited}");
        stage.end();
    });
}

#[test]
fn a_call_given_up_runs_to_its_end_or_not_at_all() {
    explore(TWO, || {
        let stage = Stage::new();
        let other = stage.ask(Add(stage.counted()));
        let (actor, message) = (stage.actor(), Add(stage.counted()));
        let answered = {
            // Polled once and dropped: in the mailbox, or done.
            let mut call = Box::pin(actor.call(message).into_future());
            stage.serve_until(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready()))
        };
        let there = stage.join(other);
        let last = stage.ask_here(Add(stage.counted()));
        assert!(if answered { last == 3 } else { last == 2 || last == 3 }, "{answered} {there} {last}");
        drop(actor);
        stage.end();
    });
}

#[test]
fn a_deactivation_never_takes_the_actor_from_under_a_turn() {
    explore(TWO, || {
        let stage = Stage::new();
        assert_eq!(stage.ask_here(Add(stage.counted())), 1);
        let other = stage.ask(Add(stage.counted()));
        stage.slot.request_deactivation(DeactivationReason::Requested);
        let added = stage.join(other);
        assert!(added == 2 || added == 1, "on the old actor or a fresh one: {added}");
        stage.end();
    });
}

#[test]
fn a_loan_is_used_by_its_chain_alone() {
    explore(TWO, || {
        let stage = Stage::new();
        let door = Arc::<Door>::default();
        let own = stage.actor();
        let lends = stage.ask(LendItself(stage.counted(), door.clone(), own, stage.counted()));
        door.open();
        let stranger = stage.ask_here(Add(stage.counted()));
        let lender = stage.join(lends);
        assert!((stranger, lender) == (1, 4) || (stranger, lender) == (4, 3), "{stranger} {lender}");
        stage.end();
    });
}

#[test]
fn three_callers_get_their_turns_one_after_another() {
    explore(THREE, || {
        let stage = Stage::new();
        let one = stage.ask(Add(stage.counted()));
        let other = stage.ask(Add(stage.counted()));
        let here = stage.ask_here(Add(stage.counted()));
        assert_eq!(here + stage.join(one) + stage.join(other), 6);
        stage.end();
    });
}

#[test]
fn a_waiting_write_is_not_lost_among_reads() {
    explore(THREE, || {
        let stage = Stage::new();
        let one = stage.ask(Read(stage.counted()));
        let other = stage.ask(Read(stage.counted()));
        assert_eq!(stage.ask_here(Add(stage.counted())), 1);
        assert!(stage.join(one) <= 1 && stage.join(other) <= 1);
        stage.end();
    });
}

#[test]
fn a_tell_and_an_ask_survive_a_deactivation() {
    explore(THREE, || {
        let stage = Stage::new();
        let (actor, message) = (stage.actor(), Add(stage.counted()));
        let told = stage.run(move || actor.call(message).tell().unwrap());
        let asked = stage.ask(Add(stage.counted()));
        stage.slot.request_deactivation(DeactivationReason::Requested);
        stage.join(told);
        let added = stage.join(asked);
        assert!(added == 1 || added == 2, "{added}");
        stage.end();
    });
}

#[test]
fn a_read_in_a_lane_and_a_write_exclude_each_other() {
    explore(ONE, || {
        let stage = Stage::spread();
        let other = stage.ask(Read(stage.counted()));
        assert_eq!(stage.ask_here(Add(stage.counted())), 1);
        assert!(stage.join(other) <= 1);
        stage.end();
    });
}

#[test]
fn a_turn_that_waits_leaves_its_lane_and_still_keeps_writers_out() {
    explore(ONE, || {
        let stage = Stage::spread();
        let door = Arc::<Door>::default();
        let watches = stage.ask(Watch(stage.counted(), door.clone()));
        let adds = {
            stage.actor().call(Add(stage.counted())).tell().unwrap();
            door.open();
            stage.ask_here(Add(stage.counted()))
        };
        let seen = stage.join(watches);
        assert!(adds == 2 && (seen == 0 || seen == 1 || seen == 2), "{adds} {seen}");
        stage.end();
    });
}

#[test]
fn an_actor_spreads_while_it_is_written_to() {
    explore(TWO, || {
        let stage = Stage::new();
        assert_eq!(stage.ask_here(Read(stage.counted())), 0);
        let slot = stage.slot.clone();
        let spreads = stage.run(move || {
            if slot.word.try_shared() {
                slot.spread();
                if slot.word.release_shared() {
                    slot.schedule();
                }
            }
        });
        assert_eq!(stage.ask_here(Add(stage.counted())), 1);
        stage.join(spreads);
        assert_eq!(stage.ask_here(Add(stage.counted())), 2);
        stage.end();
    });
}

#[test]
fn turns_in_two_lanes_and_an_exclusive_one_exclude_each_other() {
    // Without messages: what a lane is for is small enough to be explored with three threads in full.
    fn read(slot: &Arc<Slot<Register>>, value: &UnsafeCell<usize>) {
        with_local(|local| {
            if let Some(hold) = slot.acquire_shared(local) {
                // SAFETY: loom checks that nobody writes meanwhile.
                value.with(|value| assert!(unsafe { *value } <= 1));
                slot.release(hold, local);
            }
        });
    }
    explore(TWO, || {
        let stage = Stage::spread();
        let value = Arc::new(Shareable(UnsafeCell::new(0)));
        let readers = [(); 2].map(|()| {
            let (slot, value) = (stage.slot.clone(), value.clone());
            stage.run(move || read(&slot, &value.0))
        });
        let lock = stage.slot.mailbox();
        let taken = stage.slot.gather(&lock) && stage.slot.word.take_exclusive();
        drop(lock);
        if taken {
            // SAFETY: as above.
            value.0.with_mut(|value| unsafe { *value += 1 });
            assert!(!stage.slot.word.release_exclusive());
        }
        for reader in readers {
            stage.join(reader);
        }
        stage.end();
    });
}

#[test]
fn a_deactivation_waits_for_a_turn_in_a_lane() {
    explore(ONE, || {
        let stage = Stage::spread();
        let other = stage.ask(Read(stage.counted()));
        stage.slot.request_deactivation(DeactivationReason::Requested);
        assert_eq!(stage.join(other), 0);
        stage.end();
    });
}

#[test]
fn an_actor_that_nobody_wants_alone_any_more_is_shared_inline_again() {
    explore(ONE, || {
        let stage = Stage::spread();
        with_local(|local| {
            let hold = stage.slot.acquire_shared(local).expect("nobody waits");
            assert!(!stage.slot.gather(&stage.slot.mailbox()), "a turn is in its lane");
            stage.slot.release(hold, local);
        });
        assert!(stage.slot.word.snapshot().is_gathering());
        assert_eq!(stage.ask_here(Read(stage.counted())), 0);
        assert!(!stage.slot.word.snapshot().is_spread());
        stage.end();
    });
}

#[test]
fn a_one_way_message_that_waits_is_handed_over_and_those_behind_it_kept() {
    explore(TWO, || {
        let stage = Stage::new();
        let door = Arc::<Door>::default();
        let opener = door.clone();
        let other = stage.run(move || opener.open());
        stage.actor().call(Wait(stage.counted(), door)).tell().unwrap();
        stage.actor().call(Add(stage.counted())).tell().unwrap();
        assert_eq!(stage.ask_here(Add(stage.counted())), 4);
        stage.join(other);
        stage.end();
    });
}

#[test]
fn what_is_locked_is_one_threads_at_a_time() {
    explore(TWO, || {
        let lock = Arc::new(SpinLock::new(Shareable(UnsafeCell::new(0))));
        let add = |lock: &SpinLock<Shareable>| {
            let value = lock.lock();
            // SAFETY: loom has just checked that nobody else is in here.
            value.0.with_mut(|value| unsafe { *value += 1 });
        };
        let others = lock.clone();
        let other = thread::spawn(move || add(&others));
        add(&lock);
        other.join().unwrap();
        // SAFETY: as above.
        assert_eq!(lock.lock().0.with(|value| unsafe { *value }), 2);
    });
}
