//! Publishing to streams: who gets what, in which order, and what is refused.

use std::sync::Arc;

use quark::guards::{Guards, RateLimit};
use quark::prelude::*;
use quark::{Outcome, PublishError, Retry};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, until};
use tokio::task::{JoinSet, yield_now};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame(u64);

/// Takes frames, one after another.
#[derive(Actor)]
#[actor(name = "streams.viewer", mailbox = 4)]
struct Viewer {
    seen: Vec<u64>,
}

#[methods]
impl Viewer {
    #[on_stream("cameras/frames")]
    async fn frame(&mut self, frame: Frame) {
        self.seen.push(frame.0);
    }

    #[on_stream("cameras/slow")]
    async fn slow(&mut self, frame: Frame) {
        yield_now().await;
        self.seen.push(frame.0);
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }

    pub async fn seen(&self) -> Vec<u64> {
        self.seen.clone()
    }
}

/// Takes the same frames, in shared turns.
#[derive(Actor)]
#[actor(name = "streams.counter", mailbox = 2)]
struct Counter {
    seen: std::sync::Mutex<Vec<u64>>,
}

#[methods]
impl Counter {
    #[on_stream("cameras/frames")]
    async fn frame(&self, frame: Frame) -> Result<(), String> {
        self.seen.lock().unwrap().push(frame.0);
        Err("nobody hears of it".to_owned())
    }

    #[on_stream("cameras/shared")]
    async fn shared(&self, frame: Frame) {
        yield_now().await;
        self.seen.lock().unwrap().push(frame.0);
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }

    pub async fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn stream(name: &str) -> StreamId {
    name.parse().unwrap()
}

/// Asks a viewer until it has seen so many.
async fn seen(viewer: &ViewerRef, count: usize) -> Vec<u64> {
    loop {
        match viewer.seen().await {
            Ok(seen) if seen.len() >= count => return seen,
            Ok(_) | Err(CallError::Overloaded(_)) => yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

async fn counted(counter: &CounterRef, count: usize) {
    loop {
        match counter.seen().await {
            Ok(seen) if seen == count => return,
            Ok(_) | Err(CallError::Overloaded(_)) => yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn items_reach_the_actor_of_the_streams_key_in_order() {
    const ITEMS: u64 = 500;
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let grid = silo.grid();
        for namespace in ["cameras/frames", "cameras/slow"] {
            let keys = [1, 2].map(|camera| format!("{namespace}-{camera}").replace('/', "-"));
            for n in 0..ITEMS {
                for key in &keys {
                    let to = StreamId::new(namespace, key).unwrap();
                    assert_eq!(grid.publish(&to, Frame(n)).await.unwrap().subscribers, 1);
                }
            }
            for key in &keys {
                let seen = seen(&grid.actor::<Viewer>(key), ITEMS as usize).await;
                assert_eq!(seen, (0..ITEMS).collect::<Vec<_>>());
            }
        }
    });
}

#[test]
fn every_type_that_reads_a_namespace_gets_each_item() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().host::<Counter>().start().unwrap();
        let grid = silo.grid();
        for n in 0..100 {
            let published = grid.publish(&stream("cameras/frames/a"), Frame(n)).await.unwrap();
            assert_eq!(published.subscribers, 2);
        }
        assert_eq!(seen(&grid.actor::<Viewer>("a"), 100).await, (0..100).collect::<Vec<_>>());
        counted(&grid.actor::<Counter>("a"), 100).await;
    });
}

#[test]
fn an_item_that_nobody_reads_is_refused_with_what_is_read() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let error = silo.grid().publish(&stream("cameras/sound/a"), 1_u32).await.unwrap_err();
        assert!(matches!(error, PublishError::NobodyReads { .. }));
        assert_eq!(
            error.to_string(),
            "nobody reads stream cameras/sound/a; host an actor with #[on_stream(\"cameras/sound\")] \
             (these are read: cameras/frames, cameras/slow)"
        );
        assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Pointless));
    });
}

#[test]
fn an_item_of_another_type_is_refused_with_both_types() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let error = silo.grid().publish(&stream("cameras/frames/a"), 1_u32).await.unwrap_err();
        assert!(matches!(error, PublishError::WrongItem { .. }));
        let text = error.to_string();
        assert!(
            text.starts_with("stream cameras/frames/a carries ") && text.ends_with("Frame, not u32"),
            "{text}"
        );
        assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Pointless));
    });
}

#[test]
fn two_types_that_disagree_about_a_stream_do_not_start() {
    #[derive(Actor)]
    #[actor(name = "streams.misled")]
    struct Misled;

    #[methods]
    impl Misled {
        #[on_stream("cameras/frames")]
        async fn frame(&mut self, frame: String) {
            drop(frame);
        }
    }

    let error = builder().host::<Viewer>().host::<Misled>().start().err().unwrap().to_string();
    assert!(error.starts_with("stream cameras/frames carries "), "{error}");
    assert!(error.contains("Frame to streams.viewer and alloc::string::String to streams.misled"), "{error}");
    assert!(error.ends_with("give one of them another namespace") && !error.contains('\n'), "{error}");
}

/// Publishes more than a busy subscriber's mailbox holds; nothing may be lost, and nothing may wait for ever.
async fn publish_against_a_full_mailbox(
    silo: &Silo,
    namespace: &str,
    items: u64,
) -> tokio::task::JoinHandle<()> {
    let (grid, to) = (silo.grid(), StreamId::new(namespace, "a").unwrap());
    let queued = || silo.grid().census().types.iter().map(|count| count.queued).sum::<u64>();
    let publisher = tokio::spawn(async move {
        for n in 0..items {
            grid.publish(&to, Frame(n)).await.unwrap();
        }
    });
    let full = if namespace == "cameras/shared" { 2 } else { 4 };
    until(|| queued() == full).await;
    for _ in 0..10 {
        yield_now().await;
    }
    assert!(!publisher.is_finished(), "the publisher waits");
    assert_eq!(queued(), full, "and the bound holds");
    publisher
}

#[test]
fn a_full_mailbox_makes_the_publisher_wait_and_nothing_is_lost() {
    on_both_runtimes(|| async {
        for namespace in ["cameras/frames", "cameras/slow"] {
            for items in [5, 6, 200] {
                let silo = builder().host::<Viewer>().start().unwrap();
                let viewer = silo.grid().actor::<Viewer>("a");
                let (started, gate) = (Gate::new(), Gate::new());
                viewer.hold(started.clone(), gate.clone()).tell().unwrap();
                started.passed().await;
                let publisher = publish_against_a_full_mailbox(&silo, namespace, items).await;
                gate.open();
                publisher.await.unwrap();
                assert_eq!(seen(&viewer, items as usize).await, (0..items).collect::<Vec<_>>());
            }
        }
    });
}

#[test]
fn a_full_mailbox_of_shared_turns_makes_the_publisher_wait_likewise() {
    on_both_runtimes(|| async {
        for items in [3, 4, 200] {
            let silo = builder().host::<Counter>().start().unwrap();
            let counter = silo.grid().actor::<Counter>("a");
            let (started, gate) = (Gate::new(), Gate::new());
            counter.hold(started.clone(), gate.clone()).tell().unwrap();
            started.passed().await;
            let publisher = publish_against_a_full_mailbox(&silo, "cameras/shared", items).await;
            gate.open();
            publisher.await.unwrap();
            counted(&counter, items as usize).await;
        }
    });
}

#[test]
fn a_publisher_that_waits_goes_on_when_its_subscriber_is_deactivated() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let viewer = silo.grid().actor::<Viewer>("a");
        let (started, gate) = (Gate::new(), Gate::new());
        viewer.hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        let publisher = publish_against_a_full_mailbox(&silo, "cameras/frames", 10).await;
        silo.grid().deactivate::<Viewer>("a");
        gate.open();
        publisher.await.unwrap();
        let seen = seen(&viewer, 10).await;
        assert_eq!(seen, (0..10).collect::<Vec<_>>(), "the next activation took them all");
    });
}

#[test]
fn a_publisher_that_waits_hears_of_the_silos_end() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let viewer = silo.grid().actor::<Viewer>("a");
        let (started, never) = (Gate::new(), Gate::new());
        viewer.hold(started.clone(), never).tell().unwrap();
        started.passed().await;
        let (grid, to) = (silo.grid(), stream("cameras/frames/a"));
        let publisher = tokio::spawn(async move {
            for n in 0.. {
                if let Err(error) = grid.publish(&to, Frame(n)).await {
                    return error;
                }
            }
            unreachable!("the stream does not end")
        });
        until(|| silo.grid().census().types[0].queued == 4).await;
        silo.shutdown(Duration::ZERO).await;
        let error = publisher.await.unwrap();
        assert!(
            matches!(error, PublishError::NotDelivered { .. } | PublishError::NobodyReads { .. }),
            "{error}"
        );
        assert!(!error.to_string().contains('\n'));
    });
}

#[test]
fn a_refusal_is_reported_once_the_others_have_the_item() {
    on_both_runtimes(|| async {
        for viewer_first in [true, false] {
            let limit = Guards::none().rate_limit(RateLimit::per_second(1));
            let silo = builder().clock(TestClock::new()).guards::<Counter>(limit);
            let silo = if viewer_first {
                silo.host::<Viewer>().host::<Counter>()
            } else {
                silo.host::<Counter>().host::<Viewer>()
            };
            let silo = silo.start().unwrap();
            let (grid, to) = (silo.grid(), stream("cameras/frames/a"));
            // The limit is used up.
            grid.actor::<Counter>("a").seen().await.unwrap();

            let error = grid.publish(&to, Frame(0)).await.unwrap_err();
            assert!(error.to_string().starts_with("streams.counter did not take"), "{error}");
            let viewer = grid.actor::<Viewer>("a");
            assert_eq!(seen(&viewer, 1).await, [0], "it was not kept from the viewer");

            let (started, gate) = (Gate::new(), Gate::new());
            viewer.hold(started.clone(), gate.clone()).tell().unwrap();
            started.passed().await;
            for n in 1..=4 {
                grid.publish(&stream("cameras/slow/a"), Frame(n)).await.unwrap();
            }
            let publisher = tokio::spawn(async move { grid.publish(&to, Frame(5)).await.unwrap_err() });
            for _ in 0..10 {
                yield_now().await;
            }
            assert!(!publisher.is_finished(), "the publisher waits for the viewer's mailbox");
            gate.open();
            let error = publisher.await.unwrap();
            assert!(error.to_string().starts_with("streams.counter did not take"), "{error}");
            assert_eq!(error.outcome(), Outcome::Unknown);
            assert_eq!(seen(&viewer, 6).await, (0..=5).collect::<Vec<_>>());
        }
    });
}

#[test]
fn many_publishers_to_one_full_mailbox_all_get_through() {
    const PUBLISHERS: u64 = 8;
    const EACH: u64 = 100;
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let mut publishers = JoinSet::new();
        for publisher in 0..PUBLISHERS {
            let grid = silo.grid();
            publishers.spawn(async move {
                for n in 0..EACH {
                    grid.publish(&stream("cameras/slow/a"), Frame(publisher * EACH + n)).await.unwrap();
                }
            });
        }
        while let Some(done) = publishers.join_next().await {
            done.unwrap();
        }
        let seen = seen(&silo.grid().actor::<Viewer>("a"), (PUBLISHERS * EACH) as usize).await;
        for publisher in 0..PUBLISHERS {
            let own: Vec<u64> = seen.iter().copied().filter(|n| n / EACH == publisher).collect();
            assert_eq!(own, (publisher * EACH..(publisher + 1) * EACH).collect::<Vec<_>>(), "in its order");
        }
    });
}

/// Publishes from its turns.
#[derive(Actor)]
#[actor(name = "streams.camera")]
struct Camera;

#[methods]
impl Camera {
    pub async fn shoot(&mut self, cx: &Cx, frames: u64) -> Result<()> {
        for n in 0..frames {
            cx.grid().publish(&StreamId::new("cameras/frames", cx.key().as_str())?, Frame(n)).await?;
        }
        Ok(())
    }
}

#[test]
fn an_actor_publishes_like_anybody_else() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Camera>().host::<Viewer>().start().unwrap();
        silo.grid().actor::<Camera>("a").shoot(50).await.unwrap();
        assert_eq!(seen(&silo.grid().actor::<Viewer>("a"), 50).await, (0..50).collect::<Vec<_>>());
    });
}
