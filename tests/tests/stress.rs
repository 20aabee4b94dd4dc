//! Everything at once, from a seed: whatever happens in which order, turns keep their promises and every caller is
//! answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use quark::prelude::*;
use quark_tests::{builder, on_both_runtimes, soon};
use tokio::task::{JoinSet, yield_now};

const ACTORS: u64 = 6;
const CALLERS: u64 = 12;
const CALLS: u64 = 300;

/// What the turns of one key must never do, over all its activations.
#[derive(Default)]
struct Watch {
    /// -1 while an exclusive turn runs, else the number of shared ones.
    inside: AtomicI32,
    broken: AtomicU32,
    living: AtomicI32,
    ended: AtomicU64,
}

impl Watch {
    fn exclusive(&self) -> Inside<'_> {
        if self.inside.swap(-1, Ordering::SeqCst) != 0 {
            self.broken.fetch_add(1, Ordering::SeqCst);
        }
        Inside { watch: self, leave: 0 }
    }

    fn shared(&self) -> Inside<'_> {
        if self.inside.fetch_add(1, Ordering::SeqCst) < 0 {
            self.broken.fetch_add(1, Ordering::SeqCst);
        }
        Inside { watch: self, leave: 1 }
    }

    /// A turn that lends its actor is away meanwhile.
    fn away(&self) {
        self.inside.store(0, Ordering::SeqCst);
    }

    fn back(&self) {
        if self.inside.swap(-1, Ordering::SeqCst) != 0 {
            self.broken.fetch_add(1, Ordering::SeqCst);
        }
    }
}

struct Inside<'a> {
    watch: &'a Watch,
    /// 0: exclusive, so nobody is left; 1: one reader less.
    leave: i32,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        match self.leave {
            0 => self.watch.inside.store(0, Ordering::SeqCst),
            one => {
                self.watch.inside.fetch_sub(one, Ordering::SeqCst);
            }
        }
        self.watch.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Actor)]
#[actor(name = "stress.thing", factory, mailbox = 64)]
struct Thing {
    watch: Arc<Watch>,
    key: u64,
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.watch.living.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn pause(times: u64) {
    for _ in 0..times {
        yield_now().await;
    }
}

#[methods]
impl Thing {
    #[on_activate]
    async fn wake(&mut self) -> Result<()> {
        if self.watch.living.fetch_add(1, Ordering::SeqCst) != 0 {
            self.watch.broken.fetch_add(1, Ordering::SeqCst);
        }
        pause(self.key % 2).await;
        Ok(())
    }

    pub async fn own(&mut self, pauses: u64) -> u64 {
        let _inside = self.watch.exclusive();
        pause(pauses).await;
        self.key
    }

    pub async fn share(&self, pauses: u64) -> u64 {
        let _inside = self.watch.shared();
        pause(pauses).await;
        self.key
    }

    pub async fn panics(&mut self, pauses: u64) {
        let _inside = self.watch.exclusive();
        pause(pauses).await;
        panic!("as told");
    }

    pub async fn leaves(&mut self, cx: &Cx) {
        let _inside = self.watch.exclusive();
        cx.deactivate();
    }

    /// Calls a higher key only, so that no two chains wait for each other.
    pub async fn asks(&mut self, cx: &Cx, pauses: u64) -> bool {
        let _inside = self.watch.exclusive();
        pause(pauses).await;
        let next = cx.grid().actor::<Thing>(self.key + 1);
        self.key + 1 == ACTORS || answered(next.asks_on(pauses).await)
    }

    pub async fn asks_on(&mut self, cx: &Cx, pauses: u64) -> bool {
        let _inside = self.watch.exclusive();
        let next = cx.grid().actor::<Thing>(self.key + 1);
        self.key + 1 == ACTORS || answered(next.share(pauses).await.map(|_| true))
    }

    /// Comes back to itself over a higher key, on a loan.
    pub async fn lends(&mut self, cx: &Cx, pauses: u64) -> bool {
        let watch = self.watch.clone();
        let _inside = watch.exclusive();
        if self.key + 1 == ACTORS {
            return true;
        }
        let (next, own) = (cx.grid().actor::<Thing>(self.key + 1), self.key);
        watch.away();
        let came_back = cx.lend(self, next.calls_back(own, pauses)).await;
        watch.back();
        answered(came_back)
    }

    pub async fn calls_back(&mut self, cx: &Cx, key: u64, pauses: u64) -> bool {
        let _inside = self.watch.exclusive();
        pause(pauses).await;
        answered(cx.grid().actor::<Thing>(key).own(pauses).await.map(|_| true))
    }
}

/// Whether a call ended as it may: anything but a deadlock, since none of these calls can wait for itself.
fn answered(ended: Result<bool, CallError<std::convert::Infallible>>) -> bool {
    match ended {
        Ok(fine) => fine,
        Err(CallError::Deadlock(chain)) => panic!("no deadlock: {chain}"),
        Err(_) => true,
    }
}

/// One caller's day.
async fn call_around(grid: Grid, mut random: fastrand::Rng) {
    for _ in 0..CALLS {
        let thing = grid.actor::<Thing>(random.u64(..ACTORS));
        let pauses = random.u64(..3);
        let fine = match random.u32(..100) {
            0..25 => answered(thing.own(pauses).await.map(|_| true)),
            25..50 => answered(thing.share(pauses).await.map(|_| true)),
            50..60 => thing.own(pauses).tell().map(|()| true).or_else(overloaded).unwrap(),
            60..65 => thing.share(pauses).tell().map(|()| true).or_else(overloaded).unwrap(),
            65..75 => answered(thing.asks(pauses).await),
            75..85 => answered(thing.lends(pauses).await),
            85..88 => answered(thing.panics(pauses).await.map(|()| true)),
            88..91 => answered(thing.leaves().await.map(|()| true)),
            91..93 => {
                thing.deactivate();
                true
            }
            93..96 => {
                // Given up after the first poll.
                tokio::select! {
                    biased;
                    ended = thing.asks(pauses) => answered(ended),
                    () = std::future::ready(()) => true,
                }
            }
            _ => answered(thing.own(pauses).timeout(Duration::from_micros(50)).await.map(|_| true)),
        };
        assert!(fine, "an answer that means something else");
    }
}

fn overloaded(error: CallError<std::convert::Infallible>) -> Result<bool, String> {
    match error {
        CallError::Overloaded(_) => Ok(true),
        other => Err(other.to_string()),
    }
}

#[test]
fn whatever_happens_turns_keep_their_promises_and_every_caller_is_answered() {
    let seeds = fastrand::Rng::new();
    for seed in [1, 2, seeds.clone().u64(..)] {
        on_both_runtimes(|| async move {
            let watches: Vec<Arc<Watch>> = (0..ACTORS).map(|_| Arc::default()).collect();
            let theirs = watches.clone();
            let make = move |key: &Key| {
                let key: u64 = key.as_str().parse()?;
                Ok(Thing { watch: theirs[key as usize].clone(), key })
            };
            let silo = builder().host_with(make).start().unwrap();
            let mut callers = JoinSet::new();
            for caller in 0..CALLERS {
                let random = fastrand::Rng::with_seed(seed.wrapping_add(caller));
                callers.spawn(call_around(silo.grid(), random));
            }
            while let Some(caller) = callers.join_next().await {
                caller.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            assert!(soon(silo.shutdown(Duration::from_secs(10))).await.drained, "seed {seed}");
            for (key, watch) in watches.iter().enumerate() {
                let broken = watch.broken.load(Ordering::SeqCst);
                assert_eq!(broken, 0, "seed {seed}: turns of {key} met");
                assert_eq!(
                    watch.living.load(Ordering::SeqCst),
                    0,
                    "seed {seed}: {key} was not dropped once each"
                );
                assert!(watch.ended.load(Ordering::SeqCst) > 0, "seed {seed}: {key} did nothing");
            }
        });
    }
}
