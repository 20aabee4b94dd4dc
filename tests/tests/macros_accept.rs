//! What the macros accept, whatever a user names things and wherever they put them.

#![allow(dead_code, reason = "some actors here only have to compile")]

use std::io;
use std::sync::Arc;

use quark::prelude::*;
use quark::{RequestContext, StreamId};
use quark_tests::{builder, on_both_runtimes};

/// A user's type named like the method that takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame(Vec<u8>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    at: u32,
}

type Outcome<T> = std::result::Result<T, String>;

#[derive(Clone, Debug, Actor)]
#[allow(clippy::duplicated_attributes, reason = "two rules may well have the same lead or confidence")]
#[actor(
    name = "accept.camera-1_b",
    idle = "1.5h",
    mailbox = 100,
    activation_limit = "90s",
    prewarm(stream = "accept/a", lead = "200ms", confidence = 0.8),
    prewarm(stream = "accept/b", lead = "1s", confidence = 1)
)]
struct Camera {
    frames: Vec<Frame>,
    #[init(7)]
    seven: u32,
    r#type: Option<String>,
}

#[methods]
impl Camera {
    /// An associated constant stays where it is.
    const LIMIT: usize = 3;

    pub async fn frame(&mut self, frame: Frame) -> usize {
        self.frames.push(frame);
        self.frames.len().min(Self::LIMIT)
    }

    pub async fn look(&self, look: Look) -> Look {
        look
    }

    // The context may stand anywhere among the parameters.
    pub async fn cx_first(&self, cx: &Cx, a: u32) -> (String, u32) {
        (cx.key().to_string(), a)
    }

    pub async fn cx_between(&self, a: u32, context: &quark::Cx, b: u32) -> (u32, String, u32) {
        (a, context.key().to_string(), b)
    }

    pub async fn cx_last(&mut self, a: u32, _cx: &Cx) -> u32 {
        a
    }

    // Patterns, keywords, and names that the expansion uses itself.
    pub async fn patterns(&self, (a, b): (u32, u32), Look { at }: Look, _: u32, mut last: u32) -> u32 {
        last += 1;
        a + b + at + last
    }

    pub async fn r#move(&mut self, r#type: String) -> Option<String> {
        self.r#type.replace(r#type)
    }

    pub async fn names(&self, actor: u32, cx: u32, message: u32, target: u32) -> u32 {
        actor + cx + message + target
    }

    // Results under any path, and what only looks like one.
    pub async fn own_error(&self, fine: bool) -> Result<u32, Broken> {
        if fine { Ok(1) } else { Err(Broken) }
    }

    pub async fn any_error(&self) -> Result<u32> {
        Err(quark::Error::msg("any"))
    }

    pub async fn io_error(&self) -> io::Result<u32> {
        Err(io::Error::other("disk"))
    }

    pub async fn full_path(&self) -> ::std::result::Result<u32, Broken> {
        Err(Broken)
    }

    /// An alias of another name is a value like any other.
    pub async fn other_alias(&self) -> Outcome<u32> {
        Err("as a value".to_owned())
    }

    // `Self` is the actor, wherever it stands.
    pub async fn snapshot(&self) -> Self {
        self.clone()
    }

    pub async fn merge(&mut self, others: Vec<Self>) -> Result<Option<Self>, (Self, Broken)> {
        self.seven += others.iter().map(|other| other.seven).sum::<u32>();
        Ok(others.into_iter().next())
    }

    pub async fn nothing(&self) {}

    pub async fn explicit_unit(&self) -> () {}

    #[must_use]
    #[allow(clippy::needless_pass_by_value)]
    pub async fn with_attributes(&self, text: String) -> usize {
        text.len()
    }

    // Helpers of every kind.
    async fn private_helper(&self) -> usize {
        self.frames.len()
    }

    pub fn not_async(&self) -> usize {
        self.frames.len()
    }

    pub(crate) async fn generic_helper<T: Into<u64> + Send>(&self, value: T) -> u64 {
        value.into()
    }

    fn associated(text: &str) -> &str {
        text
    }

    pub async fn uses_helpers(&self) -> (usize, u64) {
        let _ = Self::associated("");
        (self.private_helper().await + self.not_async(), self.generic_helper(3_u32).await)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Broken;

#[derive(Actor)]
struct Unit;

#[methods]
impl Unit {
    pub async fn ping(&self, text: &'static str) -> &'static str {
        text
    }
}

#[derive(Actor)]
struct Tuple(u32, #[init("start".to_owned())] String);

#[methods]
impl Tuple {
    pub async fn parts(&self) -> (u32, String) {
        (self.0, self.1.clone())
    }
}

#[derive(Actor)]
struct Empty;

#[methods]
impl Empty {}

/// Not `Sync`, which is fine as long as all its turns are exclusive.
#[derive(Actor)]
struct Alone {
    cell: std::cell::Cell<u32>,
}

#[methods]
impl Alone {
    pub async fn add(&mut self) -> u32 {
        self.cell.set(self.cell.get() + 1);
        self.cell.get()
    }
}

mod nested {
    //! An actor in a module, with a private stream handler and hooks, none of which is part of its interface.

    use quark::prelude::*;

    #[derive(Actor)]
    #[actor(name = "accept.listener")]
    pub(super) struct Listener {
        pub(super) heard: Vec<u32>,
        woken: bool,
    }

    #[methods]
    impl Listener {
        #[on_activate]
        async fn wake(&mut self) -> Result<(), std::io::Error> {
            self.woken = true;
            Ok(())
        }

        #[on_deactivate]
        async fn rest(&mut self, _cx: &Cx) -> Result<()> {
            Ok(())
        }

        #[on_stream("accept/numbers")]
        async fn number(&mut self, _cx: &Cx, number: u32) {
            self.heard.push(number);
        }

        #[on_stream("accept/words")]
        pub async fn word(&mut self, word: String) -> Result<()> {
            self.heard.push(u32::try_from(word.len())?);
            Ok(())
        }

        pub async fn heard(&self) -> (bool, Vec<u32>) {
            (self.woken, self.heard.clone())
        }
    }
}

#[test]
fn every_kind_of_parameter_and_answer_gets_through() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Camera>().start().unwrap();
        let camera = silo.grid().actor::<Camera>("c");
        assert_eq!(camera.frame(Frame(vec![1])).await.unwrap(), 1);
        assert_eq!(camera.look(Look { at: 4 }).await.unwrap(), Look { at: 4 });
        assert_eq!(camera.cx_first(1).await.unwrap(), ("c".to_owned(), 1));
        assert_eq!(camera.cx_between(1, 2).await.unwrap(), (1, "c".to_owned(), 2));
        assert_eq!(camera.cx_last(3).await.unwrap(), 3);
        assert_eq!(camera.patterns((1, 2), Look { at: 3 }, 4, 5).await.unwrap(), 12);
        assert_eq!(camera.r#move("b".to_owned()).await.unwrap(), None);
        assert_eq!(camera.r#move("c".to_owned()).await.unwrap(), Some("b".to_owned()));
        assert_eq!(camera.names(1, 2, 3, 4).await.unwrap(), 10);
        assert_eq!(camera.own_error(true).await.unwrap(), 1);
        assert!(matches!(camera.own_error(false).await, Err(CallError::Actor(Broken))));
        assert!(
            matches!(camera.any_error().await, Err(CallError::Actor(error)) if error.to_string() == "any")
        );
        assert!(
            matches!(camera.io_error().await, Err(CallError::Actor(error)) if error.to_string() == "disk")
        );
        assert!(matches!(camera.full_path().await, Err(CallError::Actor(Broken))));
        assert_eq!(camera.other_alias().await.unwrap(), Err("as a value".to_owned()));
        let copy = camera.snapshot().await.unwrap();
        assert_eq!(copy.seven, 7);
        assert_eq!(camera.merge(vec![copy.clone(), copy]).await.unwrap().map(|first| first.seven), Some(7));
        assert_eq!(camera.snapshot().await.unwrap().seven, 21);
        camera.nothing().await.unwrap();
        camera.explicit_unit().await.unwrap();
        assert_eq!(camera.with_attributes("four".to_owned()).await.unwrap(), 4);
        assert_eq!(camera.uses_helpers().await.unwrap(), (2, 3));
    });
}

#[test]
fn structs_of_every_shape_are_actors() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Unit>().host::<Tuple>().host::<Empty>().host::<Alone>().start().unwrap();
        let grid = silo.grid();
        assert_eq!(grid.actor::<Unit>("u").ping("pong").await.unwrap(), "pong");
        assert_eq!(grid.actor::<Tuple>("t").parts().await.unwrap(), (0, "start".to_owned()));
        assert_eq!(grid.actor::<Alone>("a").add().await.unwrap(), 1);
        // Keys of every kind name the same actor.
        let key: Key = "7".into();
        assert_eq!(grid.actor::<Alone>(7).add().await.unwrap(), 1);
        assert_eq!(grid.actor::<Alone>(7_u64).add().await.unwrap(), 2);
        assert_eq!(grid.actor::<Alone>("7").add().await.unwrap(), 3);
        assert_eq!(grid.actor::<Alone>("7".to_owned()).add().await.unwrap(), 4);
        assert_eq!(grid.actor::<Alone>(key).add().await.unwrap(), 5);
        assert_eq!(format!("{:?}", grid.actor::<Empty>("e")), "EmptyRef(Empty/e)");
    });
}

#[test]
fn hooks_and_private_handlers_work_from_a_module() {
    on_both_runtimes(|| async {
        let silo = builder().host::<nested::Listener>().start().unwrap();
        let listener = silo.grid().actor::<nested::Listener>("l");
        let numbers = StreamId::new("accept/numbers", "l").unwrap();
        silo.grid().publish(&numbers, 7_u32).await.unwrap();
        silo.grid().publish(&"accept/words/l".parse().unwrap(), "four".to_owned()).await.unwrap();
        listener.word("three".to_owned()).await.unwrap();
        assert_eq!(listener.heard().await.unwrap(), (true, vec![7, 4, 5]));
    });
}

#[test]
fn a_reference_and_its_calls_can_be_shared_between_tasks() {
    fn send_and_sync<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn send<T: Send>(value: T) -> T {
        value
    }
    on_both_runtimes(|| async {
        let silo = Arc::new(builder().host::<Camera>().start().unwrap());
        let camera = silo.grid().actor::<Camera>("c");
        send_and_sync(&camera);
        send_and_sync(&silo.grid());
        let call = send(camera.nothing().timeout(ms(5_000)).context(RequestContext::new()));
        send(call.into_future()).await.unwrap();
    });
}
