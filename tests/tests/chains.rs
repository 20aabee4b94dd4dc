//! Call chains that come back: refused at once, shared, or lent to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quark::prelude::*;
use quark_tests::{Gate, builder, on_both_runtimes, until};
use tokio::task::yield_now;

/// One step of a call chain.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Call this node's exclusive method.
    Own(&'static str),
    /// Call its shared method.
    Share(&'static str),
    /// Call the exclusive method that lends its actor while it waits.
    Lend(&'static str),
    /// Call one that boxes its loan apart.
    LendBoxed(&'static str),
    /// Give the thread back first.
    Pause,
}

use Step::{Lend, LendBoxed, Own, Pause, Share};

/// How a chain ended: how many calls it made, or how the refused one was refused.
type Ended = Result<u32, Refused>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    chain: Vec<String>,
    text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Calls on along a path.
#[derive(Actor)]
#[actor(name = "node")]
struct Node {
    inside: AtomicU32,
}

async fn walk(cx: &Cx, path: Vec<Step>) -> Ended {
    let mut rest = path.into_iter();
    let mut next = rest.next();
    while let Some(Pause) = next {
        yield_now().await;
        next = rest.next();
    }
    let path = rest.collect();
    let node = |key| cx.grid().actor::<Node>(key);
    let called = match next {
        Some(Own(key)) => node(key).own(path).await,
        Some(Share(key)) => node(key).share(path).await,
        Some(Lend(key)) => node(key).lend(path).await,
        Some(LendBoxed(key)) => node(key).lend_boxed(path).await,
        Some(Pause) | None => return Ok(0),
    };
    match called {
        Ok(calls) => Ok(calls),
        Err(CallError::Actor(refused)) => Err(refused),
        Err(error) => match &error {
            CallError::Deadlock(chain) => {
                let chain = chain.0.iter().map(ToString::to_string).collect();
                Err(Refused { chain, text: error.to_string() })
            }
            other => panic!("{other}"),
        },
    }
}

#[methods]
impl Node {
    pub async fn own(&mut self, cx: &Cx, path: Vec<Step>) -> Result<u32, Refused> {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "an exclusive turn is alone");
        let ended = walk(cx, path).await;
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(ended? + 1)
    }

    pub async fn share(&self, cx: &Cx, path: Vec<Step>) -> Result<u32, Refused> {
        Ok(walk(cx, path).await? + 1)
    }

    pub async fn lend(&mut self, cx: &Cx, path: Vec<Step>) -> Result<u32, Refused> {
        Ok(cx.lend(self, walk(cx, path)).await? + 1)
    }

    pub async fn lend_boxed(&mut self, cx: &Cx, path: Vec<Step>) -> Result<u32, Refused> {
        Ok(Box::pin(cx.lend(self, walk(cx, path))).await? + 1)
    }
}

/// Starts a chain from outside, on a fresh silo.
async fn chain(path: &[Step]) -> Ended {
    let silo = builder().host::<Node>().host::<Outside>().start().unwrap();
    // Warm, so that each chain is about turns and not about activation.
    for key in ["a", "b", "c"] {
        silo.grid().actor::<Node>(key).own(Vec::new()).await.unwrap();
    }
    run(&silo, path).await
}

/// The same, on actors that are not active yet.
async fn cold_chain(path: &[Step]) -> Ended {
    let silo = builder().host::<Node>().host::<Outside>().start().unwrap();
    run(&silo, path).await
}

async fn run(silo: &Silo, path: &[Step]) -> Ended {
    match silo.grid().actor::<Outside>("outside").start(path.to_vec()).await {
        Ok(ended) => Ok(ended),
        Err(CallError::Actor(refused)) => Err(refused),
        Err(other) => panic!("{other}"),
    }
}

/// Begins chains; its turns are shared, so it is in nobody's way.
#[derive(Actor)]
#[actor(name = "outside")]
struct Outside;

#[methods]
impl Outside {
    pub async fn start(&self, cx: &Cx, path: Vec<Step>) -> Result<u32, Refused> {
        walk(cx, path).await
    }
}

/// The chain that a refused path must name.
fn names(keys: &[&str]) -> Vec<String> {
    let nodes = keys.iter().map(|key| format!("node/{key}"));
    std::iter::once("outside/outside".to_owned()).chain(nodes).collect()
}

/// Checks a path that must be refused, from every mixture of inline and handed-over turns.
async fn refused(path: &[Step], keys: &[&str]) {
    for variant in with_pauses(path) {
        let refused = chain(&variant).await.expect_err("it comes back to an actor that waits for it");
        assert_eq!(refused.chain, names(keys), "{variant:?}");
    }
}

/// Checks a path that must get through, likewise.
async fn gets_through(path: &[Step]) {
    for variant in with_pauses(path) {
        assert_eq!(chain(&variant).await, Ok(path.len() as u32), "{variant:?}");
        assert_eq!(cold_chain(&variant).await, Ok(path.len() as u32), "cold: {variant:?}");
    }
}

/// The path with a pause before every subset of its steps.
fn with_pauses(path: &[Step]) -> Vec<Vec<Step>> {
    let masks = 0..1_u32 << path.len();
    let variant = |mask: u32| {
        let step = |(at, &step): (usize, &Step)| {
            let pause = (mask >> at & 1 == 1).then_some(Pause);
            pause.into_iter().chain([step])
        };
        path.iter().enumerate().flat_map(step).collect()
    };
    masks.map(variant).collect()
}

#[test]
fn an_actor_that_calls_itself_is_refused_at_once() {
    on_both_runtimes(|| async {
        refused(&[Own("a"), Own("a")], &["a", "a"]).await;
        refused(&[Own("a"), Share("a")], &["a", "a"]).await;
    });
}

#[test]
fn a_chain_that_comes_back_over_others_is_refused_with_all_of_it() {
    on_both_runtimes(|| async {
        refused(&[Own("a"), Own("b"), Own("a")], &["a", "b", "a"]).await;
        refused(&[Own("a"), Share("b"), Own("c"), Own("a")], &["a", "b", "c", "a"]).await;
        refused(&[Own("a"), Own("b"), Own("c"), Own("b")], &["a", "b", "c", "b"]).await;
    });
}

#[test]
fn a_refusal_names_the_chain_and_what_to_do() {
    on_both_runtimes(|| async {
        let refused = chain(&[Own("a"), Own("b"), Own("a")]).await.unwrap_err();
        assert_eq!(
            refused.text,
            "deadlock: outside/outside -> node/a -> node/b -> node/a; let the waiting method lend itself \
             (`cx.lend`), or call it with tell"
        );
    });
}

#[test]
fn after_a_refusal_all_its_actors_take_calls_again() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Node>().host::<Outside>().start().unwrap();
        for _ in 0..3 {
            assert!(run(&silo, &[Own("a"), Pause, Own("b"), Own("a")]).await.is_err());
            assert_eq!(run(&silo, &[Own("a"), Own("b")]).await, Ok(2));
        }
    });
}

#[test]
fn a_shared_turn_is_re_entered_by_its_own_chain() {
    on_both_runtimes(|| async {
        gets_through(&[Share("a"), Share("a")]).await;
        gets_through(&[Share("a"), Own("b"), Share("a")]).await;
        gets_through(&[Share("a"), Share("b"), Share("a"), Share("b")]).await;
    });
}

#[test]
fn an_exclusive_call_into_a_chain_that_shares_is_refused() {
    on_both_runtimes(|| async {
        refused(&[Share("a"), Own("a")], &["a", "a"]).await;
        refused(&[Share("a"), Own("b"), Own("a")], &["a", "b", "a"]).await;
        refused(&[Share("a"), Own("b"), Lend("a")], &["a", "b", "a"]).await;
    });
}

#[test]
fn an_actor_that_lends_itself_is_called_back_by_its_chain() {
    on_both_runtimes(|| async {
        gets_through(&[Lend("a"), Own("a")]).await;
        gets_through(&[Lend("a"), Own("b"), Own("a")]).await;
        gets_through(&[Lend("a"), Own("b"), Share("a")]).await;
        gets_through(&[Lend("a"), Share("b"), Own("c"), Own("a")]).await;
    });
}

#[test]
fn a_turn_on_a_loan_may_lend_in_its_turn() {
    on_both_runtimes(|| async {
        gets_through(&[Lend("a"), Own("b"), Lend("a"), Own("c"), Own("a")]).await;
        gets_through(&[Lend("a"), Lend("b"), Lend("a"), Lend("b"), Own("a")]).await;
    });
}

#[test]
fn a_turn_on_a_loan_that_does_not_lend_is_not_called_back() {
    on_both_runtimes(|| async {
        refused(&[Lend("a"), Own("b"), Own("a"), Own("c"), Own("a")], &["a", "b", "a", "c", "a"]).await;
    });
}

#[test]
fn a_shared_turn_on_a_loan_is_re_entered_by_its_own_chain() {
    on_both_runtimes(|| async {
        gets_through(&[Lend("a"), Own("b"), Share("a"), Own("c"), Share("a")]).await;
        refused(&[Lend("a"), Own("b"), Share("a"), Own("c"), Own("a")], &["a", "b", "a", "c", "a"]).await;
    });
}

#[test]
fn a_loan_that_is_boxed_apart_lends_nothing() {
    on_both_runtimes(|| async {
        refused(&[LendBoxed("a"), Own("b"), Own("a")], &["a", "b", "a"]).await;
    });
}

/// Sends itself messages.
#[derive(Actor)]
#[actor(name = "echo")]
struct Echo {
    heard: u32,
}

#[methods]
impl Echo {
    pub async fn say(&mut self, cx: &Cx, times: u32) {
        self.heard += 1;
        if times > 0 {
            // To itself, round a cycle of two.
            let other = if cx.key().as_str() == "a" { "b" } else { "a" };
            cx.grid().actor::<Echo>(other).say(times - 1).tell().unwrap();
            cx.grid().actor::<Echo>(cx.key()).note().tell().unwrap();
        }
    }

    pub async fn note(&mut self) {
        self.heard += 1;
    }

    pub async fn heard(&self) -> u32 {
        self.heard
    }
}

#[test]
fn a_tell_round_a_cycle_is_no_deadlock() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Echo>().start().unwrap();
        let (a, b) = (silo.grid().actor::<Echo>("a"), silo.grid().actor::<Echo>("b"));
        a.say(10).await.unwrap();
        // Eleven times said, and ten times noted.
        while a.heard().await.unwrap() + b.heard().await.unwrap() != 21 {
            yield_now().await;
        }
    });
}

#[test]
fn two_chains_that_do_not_wait_for_each_other_are_not_taken_for_one() {
    on_both_runtimes(|| async {
        let silo = Arc::new(builder().host::<Node>().host::<Outside>().start().unwrap());
        let chains = [Own("a"), Own("b"), Own("c")].map(|first| {
            let silo = silo.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    assert_eq!(run(&silo, &[first, Pause]).await, Ok(1));
                }
            })
        });
        for chain in chains {
            chain.await.unwrap();
        }
    });
}

/// Takes calls whose askers hand them on.
#[derive(Actor)]
#[actor(name = "relay")]
struct Relay {
    steps: u32,
}

#[methods]
impl Relay {
    /// Asks `z`, which answers at once, and then waits for something else.
    pub async fn first(
        &mut self,
        cx: &Cx,
        came: Arc<Gate>,
        go: Arc<Gate>,
        answered: Arc<Gate>,
        end: Arc<Gate>,
    ) -> Result<(), String> {
        cx.grid().actor::<Relay>("z").hands_on(came, go).await.map_err(|error| error.to_string())?;
        answered.open();
        end.passed().await;
        Ok(())
    }

    /// Begins a call, and lets somebody outside its turn wait for the answer.
    pub async fn hands_on(&mut self, cx: &Cx, came: Arc<Gate>, go: Arc<Gate>) {
        let w = cx.grid().actor::<Relay>("w");
        let mut call = Box::pin(async move { w.comes_back(came, go).await });
        tokio::select! {
            biased;
            early = &mut call => panic!("nobody let it end: {early:?}"),
            () = std::future::ready(()) => {}
        }
        tokio::spawn(call);
    }

    pub async fn comes_back(&mut self, cx: &Cx, came: Arc<Gate>, go: Arc<Gate>) {
        go.passed().await;
        cx.grid().actor::<Relay>("x").step().await.unwrap();
        came.open();
    }

    pub async fn step(&mut self) -> u32 {
        self.steps += 1;
        self.steps
    }
}

#[test]
fn a_chain_ends_at_a_turn_that_has_ended() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Relay>().start().unwrap();
        let (came, go, answered, end) = (Gate::new(), Gate::new(), Gate::new(), Gate::new());
        let x = silo.grid().actor::<Relay>("x");
        let first = tokio::spawn({
            let (x, came, go) = (x.clone(), came.clone(), go.clone());
            let (answered, end) = (answered.clone(), end.clone());
            async move { x.first(came, go, answered, end).await }
        });
        // `z` has answered `x`, and `w` runs on without it: `x` waits for none of them any more.
        answered.passed().await;
        go.open();
        until(|| silo.grid().census().types[0].queued == 1).await;
        end.open();
        first.await.unwrap().unwrap();
        came.passed().await;
    });
}
