//! A family whose members break at random under many senders, from a seed: whatever happens in which order, no message
//! is lost, none runs twice, and nobody outside the family notices.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use quark::SpawnError;
use quark::prelude::*;
use quark_tests::{builder, on_both_runtimes, until};
use tokio::task::{JoinSet, yield_now};

/// How often each message was done.
type Done = Arc<Mutex<HashMap<u64, u32>>>;

#[derive(Actor)]
#[actor(name = "storm.worker", factory, mailbox = 100, dead_letters)]
struct Worker {
    done: Done,
    calls: u32,
}

#[methods]
impl Worker {
    /// Works, and breaks if it is told to.
    pub async fn work(&mut self, number: u64, breaks: bool, pauses: bool) {
        if pauses {
            yield_now().await;
        }
        *self.done.lock().unwrap().entry(number).or_default() += 1;
        assert!(!breaks, "broke");
    }

    pub async fn call(&mut self) -> u32 {
        self.calls += 1;
        self.calls
    }
}

/// Supervises a storm: restarts at once, more often than the storm can break it.
macro_rules! storm_boss {
    ($boss:ident, $name:literal, $strategy:literal) => {
        #[derive(Actor)]
        #[actor(name = $name, supervise(strategy = $strategy, backoff = "none", max_restarts = 1_000_000))]
        struct $boss;

        #[methods]
        impl $boss {
            pub async fn hire(&self, cx: &Cx, key: u64) -> Result<(), SpawnError> {
                cx.spawn::<Worker>(key).map(drop)
            }
        }
    };
}

storm_boss!(StormOne, "storm.one", "one_for_one");
storm_boss!(StormAll, "storm.all", "all_for_one");
storm_boss!(StormRest, "storm.rest", "rest_for_one");

const WORKERS: u64 = 6;
const SENDERS: u64 = 4;
const MESSAGES: u64 = 150;

/// Many senders, and workers that break at random. Every message ends in exactly one way, and nobody outside the
/// family notices.
async fn storm<B: quark::Actor>(seed: u64, hire: impl AsyncFn(&B::Ref, u64)) {
    let done = Done::default();
    let theirs = done.clone();
    let make = move |_: &Key| Ok(Worker { done: theirs.clone(), calls: 0 });
    let silo =
        builder().host_with(make).host::<StormOne>().host::<StormAll>().host::<StormRest>().start().unwrap();
    let boss = silo.grid().actor::<B>("boss");
    for key in 0..WORKERS {
        hire(&boss, key).await;
    }
    let outside = silo.grid().actor::<Worker>("outside");
    assert_eq!(outside.call().await.unwrap(), 1);
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let grid = silo.grid();
        senders.spawn(async move {
            let mut chance = fastrand::Rng::with_seed(seed * 1_000 + sender);
            let (mut answered, mut broken, mut told, mut refused) = (0_u64, 0_u64, HashSet::new(), 0_u64);
            for message in 0..MESSAGES {
                let number = sender * MESSAGES + message;
                let worker = grid.actor::<Worker>(chance.u64(..WORKERS));
                let (breaks, pauses) = (chance.u8(..8) == 0, chance.bool());
                if chance.bool() {
                    match worker.work(number, breaks, pauses).tell() {
                        Ok(()) => assert!(told.insert((number, breaks))),
                        Err(error) => {
                            assert!(matches!(error, CallError::Overloaded(_)), "{error}");
                            refused += 1;
                        }
                    }
                    continue;
                }
                match worker.work(number, breaks, pauses).await {
                    Ok(()) => answered += 1,
                    Err(CallError::Panicked(_)) => broken += 1,
                    Err(CallError::Overloaded(_)) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            (answered, broken, told, refused)
        });
    }
    let (mut heard, mut told, mut refused) = (0, HashSet::new(), 0);
    while let Some(ended) = senders.join_next().await {
        let (answered, broken, theirs, lost) = ended.unwrap();
        heard += answered + broken;
        refused += lost;
        told.extend(theirs);
    }
    assert_eq!(
        heard + refused + told.len() as u64,
        SENDERS * MESSAGES,
        "seed {seed}: everybody was answered"
    );
    // Every message that was taken ran once, and those that broke are dead letters.
    let ran = || done.lock().unwrap().len() as u64;
    until(|| ran() == heard + told.len() as u64).await;
    assert!(done.lock().unwrap().values().all(|&times| times == 1), "seed {seed}");
    let letters = silo.grid().dead_letters::<Worker>();
    let kept = || {
        let all = letters.inspect();
        all.into_iter().filter_map(|letter| letter.message).map(String::from).collect::<HashSet<_>>()
    };
    let broken: HashSet<u64> = told.iter().filter(|(_, breaks)| *breaks).map(|(number, _)| *number).collect();
    until(|| {
        broken.iter().all(|number| kept().iter().any(|text| text.contains(&format!("number: {number},"))))
    })
    .await;
    assert_eq!(kept().len(), broken.len(), "seed {seed}: no letter without a reason");
    let children = silo.grid().children::<B>("boss");
    assert_eq!(children.len() as u64, WORKERS, "seed {seed}");
    assert_eq!(outside.call().await.unwrap(), 2, "seed {seed}: a neighbour noticed nothing");
    assert!(silo.shutdown(Duration::from_secs(10)).await.drained);
}

#[test]
fn a_storm_of_panics_loses_no_message_and_touches_no_neighbour() {
    on_both_runtimes(|| async {
        for seed in 0..3 {
            storm::<StormOne>(seed, async |boss, key| boss.hire(key).await.unwrap()).await;
            storm::<StormAll>(seed, async |boss, key| boss.hire(key).await.unwrap()).await;
            storm::<StormRest>(seed, async |boss, key| boss.hire(key).await.unwrap()).await;
        }
    });
}
