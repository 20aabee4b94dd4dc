//! Exclusive and shared turns, their order, and callers that go away.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use quark::prelude::*;
use quark_tests::{Gate, builder, on_both_runtimes, on_threads, soon, until};
use tokio::sync::Barrier;
use tokio::task::{JoinSet, yield_now};

/// Notes what its turns do where a test can see it.
#[derive(Actor)]
#[actor(factory)]
struct Worker {
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    inside: AtomicU32,
    overlaps: AtomicU32,
    ran: AtomicU64,
}

impl Seen {
    fn enter(&self) {
        if self.inside.fetch_add(1, Ordering::SeqCst) != 0 {
            self.overlaps.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.ran.fetch_add(1, Ordering::SeqCst);
    }

    fn ran(&self) -> u64 {
        self.ran.load(Ordering::SeqCst)
    }
}

#[methods]
impl Worker {
    pub async fn step(&mut self, pauses: u32) {
        self.seen.enter();
        for _ in 0..pauses {
            yield_now().await;
        }
        self.seen.leave();
    }

    /// Holds its turn until the gate opens.
    pub async fn hold(&mut self, started: Arc<Gate>, until: Arc<Gate>) {
        self.seen.enter();
        started.open();
        until.passed().await;
        self.seen.leave();
    }

    pub async fn look(&self, together: Arc<Barrier>) {
        together.wait().await;
    }

    /// Meets another turn of its kind without ever giving its thread back.
    pub async fn look_at_once(&self, met: Arc<AtomicU32>) -> bool {
        met.fetch_add(1, Ordering::SeqCst);
        spin_until(|| met.load(Ordering::SeqCst) == 2)
    }
}

fn worker() -> (Silo, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let theirs = seen.clone();
    let silo = builder().host_with(move |_| Ok(Worker { seen: theirs.clone() })).start().unwrap();
    (silo, seen)
}

/// Blocks the thread until `condition` holds; false if it does not for so long that something hangs.
fn spin_until(condition: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn exclusive_turns_never_overlap() {
    const TASKS: u64 = 16;
    const CALLS: u64 = 200;
    on_both_runtimes(|| async {
        let (silo, seen) = worker();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let actor = silo.grid().actor::<Worker>("one");
            tasks.spawn(async move {
                for call in 0..CALLS {
                    // Inline turns, turns that are handed over, and messages, all mixed.
                    match (task + call) % 4 {
                        0 => actor.step(0).await.unwrap(),
                        1 => actor.step(1).tell().unwrap(),
                        _ => actor.step(2).await.unwrap(),
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        until(|| seen.ran() == TASKS * CALLS).await;
        assert_eq!(seen.overlaps.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn shared_turns_run_together() {
    on_both_runtimes(|| async {
        let (silo, _) = worker();
        let (first, second) = (silo.grid().actor::<Worker>("one"), silo.grid().actor::<Worker>("one"));
        let together = Arc::new(Barrier::new(2));
        let other = tokio::spawn({
            let together = together.clone();
            async move { first.look(together).await }
        });
        second.look(together).await.unwrap();
        other.await.unwrap().unwrap();
    });
}

#[test]
fn shared_turns_run_in_parallel_on_many_threads() {
    on_threads(|| async {
        let (silo, _) = worker();
        let met = Arc::new(AtomicU32::new(0));
        let turns = [(); 2].map(|()| {
            let (actor, met) = (silo.grid().actor::<Worker>("one"), met.clone());
            tokio::spawn(async move { actor.look_at_once(met).await.unwrap() })
        });
        for turn in turns {
            assert!(turn.await.unwrap(), "the other turn did not run beside it");
        }
    });
}

#[test]
fn an_exclusive_turn_waits_for_all_shared_ones_and_later_shared_ones_wait_for_it() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Journal>().start().unwrap();
        let journal = silo.grid().actor::<Journal>("one");
        let (gate, started) = (Gate::new(), Gate::new());
        let reader = tokio::spawn({
            let (journal, gate, started) = (journal.clone(), gate.clone(), started.clone());
            async move { journal.read_until(started, gate).await.unwrap() }
        });
        started.passed().await;
        let mut writer = Box::pin(async { journal.append(7).await });
        assert!(poll_once(&mut writer).await.is_none(), "a reader holds the actor");
        let mut late = Box::pin(async { journal.entries().await });
        assert!(poll_once(&mut late).await.is_none(), "a writer waits already");
        gate.open();
        writer.await.unwrap();
        assert_eq!(late.await.unwrap(), [7], "the later reader sees what the writer wrote");
        assert_eq!(reader.await.unwrap(), 0, "the earlier one did not");
    });
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// Writes down what it is told, in order.
#[derive(Actor)]
#[actor(name = "turns.journal", mailbox = 20000)]
struct Journal {
    entries: Vec<u64>,
}

#[methods]
impl Journal {
    pub async fn append(&mut self, entry: u64) {
        self.entries.push(entry);
    }

    pub async fn append_later(&mut self, entry: u64) {
        yield_now().await;
        self.entries.push(entry);
    }

    pub async fn entries(&self) -> Vec<u64> {
        self.entries.clone()
    }

    pub async fn read_until(&self, started: Arc<Gate>, gate: Arc<Gate>) -> usize {
        started.open();
        gate.passed().await;
        self.entries.len()
    }
}

#[test]
fn tells_of_one_sender_arrive_in_order() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 1_000;
    on_both_runtimes(|| async {
        let silo = builder().host::<Journal>().start().unwrap();
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let journal = silo.grid().actor::<Journal>("one");
            senders.spawn(async move {
                for n in 0..EACH {
                    let entry = sender * EACH + n;
                    if n % 3 == 0 {
                        journal.append_later(entry).tell()
                    } else {
                        journal.append(entry).tell()
                    }
                    .unwrap();
                    if n % 100 == 0 {
                        yield_now().await;
                    }
                }
                // An ask does not overtake the tells before it.
                let entries = journal.entries().await.unwrap();
                let own = entries.into_iter().filter(|entry| entry / EACH == sender).collect::<Vec<_>>();
                assert_eq!(own, (sender * EACH..(sender + 1) * EACH).collect::<Vec<_>>());
            });
        }
        while let Some(done) = senders.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn a_method_that_awaits_goes_on_when_its_caller_is_dropped() {
    on_both_runtimes(|| async {
        let (silo, seen) = worker();
        let actor = silo.grid().actor::<Worker>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        let mut call = Box::pin(async { actor.hold(started.clone(), gate.clone()).await });
        assert!(poll_once(&mut call).await.is_none());
        started.passed().await;
        drop(call);
        gate.open();
        until(|| seen.ran() == 1).await;
    });
}

#[test]
fn a_queued_ask_whose_caller_is_dropped_before_it_begins_never_runs() {
    on_both_runtimes(|| async {
        let (silo, seen) = worker();
        let actor = silo.grid().actor::<Worker>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        actor.hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        let mut queued = Box::pin(async { actor.step(0).await });
        assert!(poll_once(&mut queued).await.is_none());
        drop(queued);
        gate.open();
        // A later message ends after the dropped one would have.
        actor.step(0).await.unwrap();
        assert_eq!(seen.ran(), 2, "the holder and the last one");
    });
}

#[derive(Actor)]
#[actor(name = "turns.small", mailbox = 2)]
struct Small {
    ran: u32,
}

#[methods]
impl Small {
    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
        self.ran += 1;
    }

    pub async fn step(&mut self) -> u32 {
        self.ran += 1;
        self.ran
    }
}

#[test]
fn a_full_mailbox_rejects_and_nothing_of_it_runs() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Small>().start().unwrap();
        let small = silo.grid().actor::<Small>("one");
        let (started, gate) = (Gate::new(), Gate::new());
        small.hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        small.step().tell().unwrap();
        small.step().tell().unwrap();
        let told = small.step().tell().unwrap_err();
        assert!(matches!(&told, CallError::Overloaded(full) if full.capacity == 2), "{told}");
        let asked = small.step().await.unwrap_err();
        assert!(matches!(&asked, CallError::Overloaded(full) if full.actor.key.as_str() == "one"), "{asked}");
        assert!(asked.to_string().contains("turns.small/one is overloaded: 2 messages wait"), "{asked}");
        gate.open();
        // The holder's end makes room in its own time.
        let after = loop {
            match small.step().await {
                Ok(ran) => break ran,
                Err(CallError::Overloaded(_)) => yield_now().await,
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(after, 4, "the holder, two messages, and this one");
    });
}

#[test]
fn a_fan_out_to_many_actors_reaches_each_of_them_once() {
    const ACTORS: u64 = 2_000;
    on_both_runtimes(|| async {
        let silo = builder().host::<Journal>().start().unwrap();
        let mut calls = JoinSet::new();
        for n in 0..ACTORS {
            let journal = silo.grid().actor::<Journal>(n);
            calls.spawn(async move {
                if n % 2 == 0 { journal.append(n).await } else { journal.append_later(n).await }.unwrap();
                (n, journal.entries().await.unwrap())
            });
        }
        while let Some(called) = calls.join_next().await {
            let (n, entries) = called.unwrap();
            assert_eq!(entries, [n]);
        }
        assert_eq!(silo.grid().census().activations, ACTORS as usize);
    });
}

/// Calls the actor below it, down to number zero.
#[derive(Actor)]
struct Stair;

#[methods]
impl Stair {
    pub async fn descend(&mut self, cx: &Cx, floor: u64) -> u64 {
        match floor {
            0 => 0,
            floor => 1 + cx.grid().actor::<Stair>(floor - 1).descend(floor - 1).await.unwrap(),
        }
    }

    pub async fn descend_shared(&self, cx: &Cx, floor: u64) -> u64 {
        match floor {
            0 => 0,
            floor => {
                yield_now().await;
                1 + cx.grid().actor::<Stair>(floor - 1).descend_shared(floor - 1).await.unwrap()
            }
        }
    }
}

#[test]
fn calls_nest_deeper_than_the_stack_allows_for() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Stair>().start().unwrap();
        for depth in [1, 31, 32, 33, 65, 2_000] {
            let top = silo.grid().actor::<Stair>(depth);
            assert_eq!(top.descend(depth).await.unwrap(), depth);
            assert_eq!(top.descend_shared(depth).await.unwrap(), depth);
        }
    });
}

/// Blocks its thread as long as it is told to.
#[derive(Actor)]
#[actor(name = "turns.slow")]
struct Slow;

#[methods]
impl Slow {
    pub async fn crunch(&mut self, begun: Arc<AtomicBool>, done: Arc<AtomicBool>) -> bool {
        begun.store(true, Ordering::SeqCst);
        spin_until(|| done.load(Ordering::SeqCst))
    }
}

#[test]
fn a_slow_method_leaves_its_callers_thread_so_that_a_timeout_means_something() {
    on_threads(|| async {
        let silo = builder().host::<Slow>().start().unwrap();
        let slow = silo.grid().actor::<Slow>("one");
        let flag = || Arc::new(AtomicBool::new(false));
        // The first call shows that the method is slow: it blocks for a millisecond.
        let (begun, brief, release) = (flag(), flag(), flag());
        let other = std::thread::spawn({
            let (begun, brief) = (begun.clone(), brief.clone());
            move || {
                spin_until(|| begun.load(Ordering::SeqCst));
                let since = Instant::now();
                spin_until(|| since.elapsed() > Duration::from_millis(1));
                brief.store(true, Ordering::SeqCst);
            }
        });
        assert!(slow.crunch(begun, brief).await.unwrap());
        other.join().unwrap();

        let late = slow.crunch(flag(), release.clone()).timeout(ms(20)).await;
        assert!(matches!(&late, Err(CallError::Timeout(late)) if late.started), "{late:?}");
        // And a fan-out is one: two actors crunch beside each other while this thread waits for neither.
        let other = silo.grid().actor::<Slow>("two");
        let both = tokio::select! {
            biased;
            _ = other.crunch(flag(), release.clone()) => "crunched on this thread",
            () = std::future::ready(()) => "went on",
        };
        assert_eq!(both, "went on");
        release.store(true, Ordering::SeqCst);
        assert!(soon(slow.crunch(flag(), release)).await.unwrap());
    });
}

#[test]
fn calls_on_one_actor_from_outside_tokio_threads_of_the_silo_are_turns_too() {
    on_threads(|| async {
        let (silo, seen) = worker();
        let grid = silo.grid();
        let log = Arc::new(Mutex::new(Vec::new()));
        // A runtime of its own, on which nothing of the silo runs: all its calls go through the mailbox.
        let outside = std::thread::spawn({
            let log = log.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for n in 0..100 {
                        grid.actor::<Worker>("one").step(n % 2).await.unwrap();
                        log.lock().unwrap().push(n);
                    }
                });
            }
        });
        for n in 0..100 {
            silo.grid().actor::<Worker>("one").step(n % 2).await.unwrap();
        }
        until(|| seen.ran() == 200).await;
        outside.join().unwrap();
        assert_eq!(*log.lock().unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(seen.overlaps.load(Ordering::SeqCst), 0);
    });
}
