//! Who reads what: patterns, topics, and subscriptions that are made while the silo runs.

use futures_util::StreamExt;
use quark::prelude::*;
use quark::streams::{ActorSubscription, Flow, Incoming, SubscribeError, SubscribeOptions};
use quark::{Outcome, PublishError};
use quark_tests::{builder, on_both_runtimes, soon, until};
use tokio::task::yield_now;

const FRAMES: Topic<String> = Topic::new("cameras/frames");
const SOUNDS: Topic<String> = Topic::new("cameras/sounds");
const ALL: Topics<String> = Topics::matching("cameras/**");

/// Reads by pattern.
#[derive(Actor)]
#[actor(name = "topics.recorder")]
struct Recorder {
    seen: Vec<String>,
}

#[methods]
impl Recorder {
    #[on_stream(ALL)]
    async fn take(&mut self, what: String) {
        self.seen.push(what);
    }

    #[on_stream("rooms/*/light")]
    async fn light(&mut self, on: bool) {
        self.seen.push(on.to_string());
    }

    pub async fn seen(&self) -> Vec<String> {
        self.seen.clone()
    }
}

/// Subscribes when it is told to.
#[derive(Actor)]
#[actor(name = "topics.viewer")]
struct Viewer {
    seen: Vec<String>,
    subscription: Option<ActorSubscription>,
}

#[methods]
impl Viewer {
    pub async fn look_at(&mut self, cx: &Cx, camera: String) -> Result<()> {
        let flow = Flow::wait().buffer(8);
        let made = cx.subscribe_with(&FRAMES, camera, flow, |me: &ViewerRef, frame| me.frame(frame))?;
        self.subscription = Some(made);
        Ok(())
    }

    pub async fn look_away(&mut self) -> bool {
        let ended = self.subscription.take();
        ended.is_some_and(|subscription| {
            subscription.end();
            !subscription.is_active()
        })
    }

    pub async fn frame(&mut self, frame: String) {
        self.seen.push(frame);
    }

    pub async fn seen(&self) -> Vec<String> {
        self.seen.clone()
    }
}

#[test]
fn a_pattern_reads_every_namespace_that_it_matches() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Recorder>().start().unwrap();
        let grid = silo.grid();
        grid.topic(&FRAMES).publish("a", "frame".to_owned()).await.unwrap();
        grid.topic(&SOUNDS).publish("a", "sound".to_owned()).await.unwrap();
        grid.publish(&"rooms/kitchen/light/a".parse().unwrap(), true).await.unwrap();
        let recorder = grid.actor::<Recorder>("a");
        while recorder.seen().await.unwrap().len() < 3 {
            yield_now().await;
        }
        assert_eq!(recorder.seen().await.unwrap(), ["frame", "sound", "true"]);
        for unread in ["rooms/light/a", "rooms/a/b/light/a", "cameras/a"] {
            let error = grid.publish(&unread.parse().unwrap(), true).await.unwrap_err();
            assert!(matches!(error, PublishError::NobodyReads { .. }), "{unread}: {error}");
            assert!(error.to_string().ends_with("(these are read: cameras/**, rooms/*/light)"), "{error}");
        }
    });
}

#[test]
fn patterns_that_overlap_and_disagree_about_the_item_do_not_start() {
    #[derive(Actor)]
    #[actor(name = "topics.misled")]
    struct Misled;

    #[methods]
    impl Misled {
        #[on_stream("*/frames")]
        async fn frame(&mut self, frame: u64) {
            let _ = frame;
        }
    }

    let error = builder().host::<Recorder>().host::<Misled>().start().err().unwrap().to_string();
    assert_eq!(
        error,
        "stream */frames carries alloc::string::String to topics.recorder (which reads cameras/**) and u64 to \
         topics.misled; give one of them another namespace"
    );
}

#[test]
fn a_key_that_no_stream_can_have_is_refused() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Recorder>().start().unwrap();
        for key in ["", "a/b"] {
            let error = silo.grid().topic(&FRAMES).publish(key, String::new()).await.unwrap_err();
            assert!(matches!(error, PublishError::BadKey(_)), "{error}");
            assert_eq!(error.outcome(), Outcome::Rejected);
        }
    });
}

#[test]
fn a_program_reads_a_topic_until_it_drops_its_subscription() {
    on_both_runtimes(|| async {
        let silo = builder().start().unwrap();
        let grid = silo.grid();
        let frames = grid.topic(&FRAMES);
        assert!(matches!(
            frames.publish("a", String::new()).await.unwrap_err(),
            PublishError::NobodyReads { .. }
        ));
        let mut all = grid.subscribe(ALL, SubscribeOptions::new().name("all")).unwrap();
        let mut only_b = grid.subscribe(FRAMES, SubscribeOptions::new().key("b")).unwrap();
        assert_eq!(all.try_recv(), None);
        assert_eq!(frames.publish("a", "1".to_owned()).await.unwrap().subscribers, 1);
        assert_eq!(frames.publish("b", "2".to_owned()).await.unwrap().subscribers, 2);
        assert_eq!(grid.topic(&SOUNDS).publish("b", "3".to_owned()).await.unwrap().subscribers, 1);

        let mut some = Vec::new();
        assert_eq!(all.recv_many(&mut some, 2).await, 2);
        let third = all.next().await.unwrap();
        let read = some.iter().chain([&third]);
        let read: Vec<_> =
            read.map(|Incoming { stream, item }| (stream.to_string(), item.as_str())).collect();
        let expected = [("cameras/frames/a", "1"), ("cameras/frames/b", "2"), ("cameras/sounds/b", "3")];
        assert_eq!(read, expected.map(|(stream, item)| (stream.to_owned(), item)));
        assert_eq!(only_b.recv().await.unwrap().item, "2");
        assert_eq!(only_b.try_recv(), None);

        drop((all, only_b));
        assert!(grid.streams().is_empty());
        let error = frames.publish("b", String::new()).await.unwrap_err();
        assert!(matches!(error, PublishError::NobodyReads { .. }), "{error}");
    });
}

#[test]
fn a_program_that_waits_for_an_item_gets_it_when_it_comes() {
    on_both_runtimes(|| async {
        let silo = builder().start().unwrap();
        let grid = silo.grid();
        let mut frames = grid.subscribe(FRAMES, SubscribeOptions::new()).unwrap();
        let reader = tokio::spawn(async move {
            let mut read = 0;
            while let Some(incoming) = frames.recv().await {
                assert_eq!(incoming.item, read.to_string());
                read += 1;
            }
            read
        });
        for n in 0..5_000 {
            grid.topic(&FRAMES).publish("a", n.to_string()).await.unwrap();
        }
        silo.shutdown(Duration::ZERO).await;
        assert_eq!(reader.await.unwrap(), 5_000, "the silo's end comes after everything that waited");
    });
}

#[test]
fn a_subscription_to_another_item_type_is_refused() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Recorder>().start().unwrap();
        let wrong = Topic::<u64>::new("cameras/frames");
        let error = silo.grid().subscribe(wrong, SubscribeOptions::new()).unwrap_err();
        let SubscribeError::Conflict(conflict) = &error else { panic!("{error}") };
        assert_eq!((conflict.namespace, conflict.first_namespace), ("cameras/frames", "cameras/**"));
        assert!(
            error
                .to_string()
                .ends_with("u64 to subscription cameras/frames; give one of them another namespace")
        );
    });
}

#[test]
fn an_actor_subscribes_to_a_stream_of_another_key_and_unsubscribes() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let grid = silo.grid();
        let viewer = grid.actor::<Viewer>("anna");
        viewer.look_at("cam-1".to_owned()).await.unwrap();
        let frames = grid.topic(&FRAMES);
        for n in 0..100 {
            let published = frames.publish("cam-1", n.to_string()).await.unwrap();
            assert_eq!(published.subscribers, 1);
        }
        while viewer.seen().await.unwrap().len() < 100 {
            yield_now().await;
        }
        assert_eq!(viewer.seen().await.unwrap(), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(frames.publish("cam-2", String::new()).await.is_err(), "it reads one key");
        assert!(viewer.look_away().await.unwrap());
        assert!(frames.publish("cam-1", String::new()).await.is_err());
    });
}

#[test]
fn an_actors_subscription_ends_with_its_activation() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let grid = silo.grid();
        grid.actor::<Viewer>("anna").look_at("cam-1".to_owned()).await.unwrap();
        assert_eq!(grid.streams().len(), 1);
        grid.deactivate::<Viewer>("anna");
        soon(until(|| grid.streams().is_empty())).await;
        let error = grid.topic(&FRAMES).publish("cam-1", String::new()).await.unwrap_err();
        assert!(matches!(error, PublishError::NobodyReads { .. }), "{error}");
    });
}

#[test]
fn many_actors_may_subscribe_to_one_stream() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Viewer>().start().unwrap();
        let grid = silo.grid();
        for n in 0..50 {
            grid.actor::<Viewer>(n).look_at("cam-1".to_owned()).await.unwrap();
        }
        let published = grid.topic(&FRAMES).publish("cam-1", "frame".to_owned()).await.unwrap();
        assert_eq!(published.subscribers, 50);
        for n in 0..50 {
            while grid.actor::<Viewer>(n).seen().await.unwrap().is_empty() {
                yield_now().await;
            }
        }
    });
}
