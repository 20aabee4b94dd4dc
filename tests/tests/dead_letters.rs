//! Messages that fail and nobody waits for: what is kept of them, and how they come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quark::prelude::*;
use quark::{DeadCause, DeadLetter, ReplayError, Replayed};
use quark_tests::{Gate, TestClock, builder, on_both_runtimes, until};

/// How finely the silo looks at its clock.
const TICK: Duration = Duration::from_millis(50);

/// Fails until told otherwise. Its letters are kept and sent again.
#[derive(Actor)]
#[actor(
    name = "letters.mailer",
    factory,
    mailbox = 2,
    dead_letters(max = 3, retries = 2, backoff = "1s..10s")
)]
struct Mailer {
    post: Arc<Post>,
}

#[derive(Default)]
struct Post {
    /// Deliveries that fail from now on.
    failing: AtomicU32,
    delivered: std::sync::Mutex<Vec<String>>,
}

impl Post {
    fn fail(&self, times: u32) {
        self.failing.store(times, Ordering::SeqCst);
    }

    fn fails(&self) -> bool {
        let fewer = |left: u32| left.checked_sub(1);
        self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok()
    }

    fn delivered(&self) -> Vec<String> {
        self.delivered.lock().unwrap().clone()
    }
}

/// What cannot be kept, since there can be only one.
#[derive(Debug)]
struct Parcel(&'static str);

#[methods]
impl Mailer {
    pub async fn send(&mut self, cx: &Cx, to: String) -> Result<(), &'static str> {
        if self.post.fails() {
            return Err("no stamps");
        }
        self.post.delivered.lock().unwrap().push(format!("{} {to}", cx.key()));
        Ok(())
    }

    pub async fn throw(&mut self, to: String) {
        assert!(!self.post.fails(), "{to} was thrown");
        self.post.delivered.lock().unwrap().push(to);
    }

    #[no_dead_letters]
    pub async fn hand_over(&mut self, parcel: Parcel) {
        panic!("dropped {}", parcel.0);
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }
}

struct Office {
    silo: Silo,
    clock: Arc<TestClock>,
    post: Arc<Post>,
}

impl Office {
    fn open() -> Self {
        let (clock, post) = (TestClock::new(), Arc::new(Post::default()));
        let theirs = post.clone();
        let make = move |_: &Key| Ok(Mailer { post: theirs.clone() });
        let silo = builder().clock(clock.clone()).host_with(make).start().unwrap();
        Self { silo, clock, post }
    }

    fn mailer(&self, key: &str) -> MailerRef {
        self.silo.grid().actor::<Mailer>(key)
    }

    fn letters(&self) -> quark::DeadLetters<Mailer> {
        self.silo.grid().dead_letters::<Mailer>()
    }

    /// Waits until there are so many letters, and gives them.
    async fn letters_of(&self, count: usize) -> Vec<DeadLetter> {
        until(|| self.letters().len() == count).await;
        self.letters().inspect()
    }
}

#[test]
fn a_tell_whose_method_returns_an_error_is_kept_with_its_message() {
    on_both_runtimes(|| async {
        let office = Office::open();
        office.post.fail(1);
        office.clock.advance(Duration::from_secs(7));
        office.mailer("a").send("bob".to_owned()).tell().unwrap();
        let letter = office.letters_of(1).await.remove(0);
        assert_eq!(letter.actor.to_string(), "letters.mailer/a");
        assert_eq!((letter.method, letter.attempts), ("send", 1));
        assert_eq!(letter.message.as_deref(), Some("send { to: \"bob\" }"));
        assert!(matches!(&letter.cause, DeadCause::Returned(error) if &**error == "\"no stamps\""));
        assert_eq!((letter.first_at, letter.last_at), (Duration::from_secs(7), Duration::from_secs(7)));
    });
}

#[test]
fn a_tell_that_panics_is_kept_and_runs_again_on_the_fresh_actor() {
    on_both_runtimes(|| async {
        let office = Office::open();
        office.post.fail(1);
        office.mailer("a").throw("bob".to_owned()).tell().unwrap();
        let letter = office.letters_of(1).await.remove(0);
        let DeadCause::Call(CallError::Panicked(panicked)) = &letter.cause else {
            panic!("{}", letter.cause)
        };
        assert_eq!((panicked.method, &*panicked.message), ("throw", "bob was thrown"));
        office.letters().replay(letter.id).unwrap();
        until(|| office.post.delivered() == ["bob"]).await;
        assert!(office.letters().is_empty());
        assert!(matches!(office.letters().replay(letter.id), Err(ReplayError::Unknown(_))));
    });
}

#[test]
fn an_ask_is_told_and_leaves_no_letter() {
    on_both_runtimes(|| async {
        let office = Office::open();
        office.post.fail(2);
        let error = office.mailer("a").send("bob".to_owned()).await.unwrap_err();
        assert!(matches!(error, CallError::Actor("no stamps")));
        let error = office.mailer("a").throw("bob".to_owned()).await.unwrap_err();
        assert!(matches!(error, CallError::Panicked(_)));
        office.mailer("a").send("eve".to_owned()).await.unwrap();
        assert!(office.letters().is_empty());
    });
}

#[test]
fn a_letter_is_sent_again_with_growing_waits_and_stays_after_its_last_try() {
    on_both_runtimes(|| async {
        let office = Office::open();
        office.post.fail(9);
        office.mailer("a").send("bob".to_owned()).tell().unwrap();
        let first = office.letters_of(1).await.remove(0);
        let waits = first.retry_at.unwrap();
        assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&waits), "{waits:?}");
        office.clock.move_to(waits - TICK);
        assert_eq!(office.letters().inspect()[0].attempts, 1, "not yet due");
        for attempts in [2, 3] {
            let due = office.letters().inspect()[0].retry_at.unwrap();
            office.clock.move_to(due + TICK);
            until(|| office.letters().inspect().first().is_some_and(|letter| letter.attempts == attempts))
                .await;
        }
        let last = office.letters().inspect().remove(0);
        assert_eq!((last.id, last.retry_at, last.first_at), (first.id, None, first.first_at));
        office.clock.advance(Duration::from_secs(100));
        assert_eq!(office.letters().inspect()[0].attempts, 3);
        // By hand it goes on.
        office.post.fail(0);
        office.letters().replay(last.id).unwrap();
        until(|| office.post.delivered() == ["a bob"]).await;
    });
}

#[test]
fn the_oldest_letter_goes_when_the_queue_is_full() {
    on_both_runtimes(|| async {
        let office = Office::open();
        office.post.fail(5);
        for n in 0..5 {
            office.mailer("a").send(n.to_string()).tell().unwrap();
            until(|| office.silo.grid().census().types[0].queued == 0).await;
        }
        until(|| office.letters().overflowed() == 2).await;
        let texts: Vec<_> =
            office.letters().inspect().into_iter().filter_map(|letter| letter.message).collect();
        assert_eq!(texts.len(), 3);
        assert!(texts[2].contains('4'), "{texts:?}");
    });
}

#[test]
fn letters_are_replayed_and_purged_by_actor() {
    on_both_runtimes(|| async {
        let office = Office::open();
        office.post.fail(3);
        for key in ["a", "b", "c"] {
            office.mailer(key).send(key.to_owned()).tell().unwrap();
        }
        office.letters_of(3).await;
        assert_eq!(office.letters().replay_actor("a"), Replayed { sent: 1, refused: 0 });
        until(|| office.post.delivered() == ["a a"]).await;
        assert_eq!((office.letters().purge_actor("b"), office.letters().len()), (1, 1));
        assert_eq!(office.letters().inspect_actor("c").len(), 1);
        assert_eq!(office.letters().replay_all(), Replayed { sent: 1, refused: 0 });
        until(|| office.post.delivered().len() == 2).await;
        assert_eq!(office.letters().purge(), 0);
    });
}

#[test]
fn a_replay_that_a_full_mailbox_refuses_is_back_among_the_letters() {
    on_both_runtimes(|| async {
        let office = Office::open();
        office.post.fail(1);
        let mailer = office.mailer("a");
        mailer.send("bob".to_owned()).tell().unwrap();
        let letter = office.letters_of(1).await.remove(0);
        let (started, gate) = (Gate::new(), Gate::new());
        mailer.hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        mailer.send("x".to_owned()).tell().unwrap();
        mailer.send("y".to_owned()).tell().unwrap();
        assert!(matches!(
            office.letters().replay(letter.id),
            Err(ReplayError::Refused(CallError::Overloaded(_)))
        ));
        let back = office.letters().inspect().remove(0);
        assert_eq!((back.id, back.attempts), (letter.id, 2));
        assert_eq!(back.message.as_deref(), Some("send { to: \"bob\" }"));
        gate.open();
        until(|| office.post.delivered().len() == 2).await;
    });
}

#[test]
fn a_method_that_opts_out_leaves_a_letter_without_its_message() {
    on_both_runtimes(|| async {
        let office = Office::open();
        office.mailer("a").hand_over(Parcel("vase")).tell().unwrap();
        let letter = office.letters_of(1).await.remove(0);
        assert_eq!((letter.method, &letter.message), ("hand_over", &None));
        assert!(letter.cause.to_string().ends_with("dropped vase"), "{}", letter.cause);
        assert!(matches!(office.letters().replay(letter.id), Err(ReplayError::NotKept(_))));
        assert_eq!(office.letters().replay_all(), Replayed::default());
        assert!(office.letters().remove(letter.id) && office.letters().is_empty());
    });
}

/// Declares nothing, and cannot be activated for a while.
#[derive(Actor)]
#[actor(name = "letters.unborn", factory)]
struct Unborn;

#[methods]
impl Unborn {
    pub async fn poke(&mut self, parcel: Parcel) {
        assert_eq!(parcel.0, "vase");
    }
}

#[test]
fn a_type_that_declares_nothing_still_says_what_failed() {
    on_both_runtimes(|| async {
        let make = |_: &Key| Err::<Unborn, _>("not yet".into());
        let silo = builder().host_with(make).start().unwrap();
        silo.grid().actor::<Unborn>("a").poke(Parcel("vase")).tell().unwrap();
        let letters = silo.grid().dead_letters::<Unborn>();
        until(|| letters.len() == 1).await;
        let letter = letters.inspect().remove(0);
        assert!(matches!(&letter.cause, DeadCause::Call(CallError::Activation(_))), "{}", letter.cause);
        assert_eq!((letter.method, letter.message), ("poke", None));
    });
}

/// Keeps its letters, and cannot be activated for a while.
#[derive(Actor)]
#[actor(name = "letters.late", factory, dead_letters(asks))]
struct Late {
    heard: Arc<AtomicU32>,
}

#[methods]
impl Late {
    pub async fn poke(&mut self, parcel: String) -> usize {
        self.heard.fetch_add(1, Ordering::SeqCst);
        parcel.len()
    }

    pub async fn panics(&self, parcel: String) {
        panic!("{parcel}");
    }

    pub async fn never(&self, started: Arc<Gate>) {
        started.open();
        Gate::new().passed().await;
    }
}

#[test]
fn a_message_that_never_began_is_moved_into_its_letter_whole() {
    on_both_runtimes(|| async {
        let (ready, heard) = (Gate::new(), Arc::new(AtomicU32::new(0)));
        let make = {
            let (ready, heard) = (ready.clone(), heard.clone());
            move |_: &Key| match ready.is_open() {
                true => Ok(Late { heard: heard.clone() }),
                false => Err("not yet".into()),
            }
        };
        let silo = builder().host_with(make).start().unwrap();
        let (late, letters) = (silo.grid().actor::<Late>("a"), silo.grid().dead_letters::<Late>());
        late.poke("vase".to_owned()).tell().unwrap();
        until(|| letters.len() == 1).await;
        assert_eq!(letters.inspect()[0].message.as_deref(), Some("poke { parcel: \"vase\" }"));
        ready.open();
        letters.replay_all();
        until(|| heard.load(Ordering::SeqCst) == 1).await;
        assert!(letters.is_empty());
    });
}

#[test]
fn asks_that_break_are_kept_where_the_type_wants_it_and_sent_again_by_hand_only() {
    on_both_runtimes(|| async {
        let make = |_: &Key| Ok(Late { heard: Arc::default() });
        let silo = builder().host_with(make).start().unwrap();
        let (late, letters) = (silo.grid().actor::<Late>("a"), silo.grid().dead_letters::<Late>());
        assert_eq!(late.poke("vase".to_owned()).await.unwrap(), 4);
        assert!(matches!(late.panics("oops".to_owned()).await, Err(CallError::Panicked(_))));
        until(|| letters.len() == 1).await;
        let letter = letters.inspect().remove(0);
        assert_eq!((letter.message.as_deref(), letter.retry_at), (Some("panics { parcel: \"oops\" }"), None));
        letters.purge();
        let started = Gate::new();
        let call = tokio::spawn({
            let (late, started) = (late.clone(), started.clone());
            async move { late.never(started).await }
        });
        started.passed().await;
        silo.shutdown(Duration::ZERO).await;
        assert!(matches!(call.await.unwrap(), Err(CallError::Stopped(_))));
        assert!(matches!(&letters.inspect()[0].cause, DeadCause::Call(CallError::Stopped(_))));
    });
}

#[test]
fn letters_of_a_type_that_is_not_hosted_are_none() {
    on_both_runtimes(|| async {
        let silo = builder().start().unwrap();
        let letters = silo.grid().dead_letters::<Mailer>();
        assert!(letters.is_empty() && letters.inspect().is_empty() && letters.purge() == 0);
        assert_eq!(letters.replay_all(), Replayed::default());
    });
}

/// Reads a stream, with room for one message.
#[derive(Actor)]
#[actor(name = "letters.reader", factory, mailbox = 1, overflow = "drop_oldest", dead_letters)]
struct Reader {
    post: Arc<Post>,
}

#[methods]
impl Reader {
    #[on_stream("letters/news")]
    async fn read(&mut self, news: String) -> Result<(), &'static str> {
        match self.post.fails() {
            true => Err("illegible"),
            false => {
                self.post.delivered.lock().unwrap().push(news);
                Ok(())
            }
        }
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) {
        started.open();
        gate.passed().await;
    }
}

fn reader() -> (Silo, Arc<Post>) {
    let post = Arc::new(Post::default());
    let theirs = post.clone();
    let make = move |_: &Key| Ok(Reader { post: theirs.clone() });
    (builder().host_with(make).start().unwrap(), post)
}

#[test]
fn a_streams_item_that_fails_is_a_letter_and_is_read_again() {
    on_both_runtimes(|| async {
        let (silo, post) = reader();
        post.fail(1);
        let stream = StreamId::new("letters/news", "today").unwrap();
        silo.grid().publish(&stream, "flood".to_owned()).await.unwrap();
        let letters = silo.grid().dead_letters::<Reader>();
        until(|| letters.len() == 1).await;
        assert_eq!(silo.grid().census().types[0].dead_letters, 1);
        assert_eq!(letters.inspect()[0].message.as_deref(), Some("read { news: \"flood\" }"));
        assert_eq!(letters.replay_actor("today").sent, 1);
        until(|| post.delivered() == ["flood"]).await;
    });
}

#[test]
fn a_message_that_gave_way_at_a_full_mailbox_is_a_letter() {
    on_both_runtimes(|| async {
        let (silo, post) = reader();
        let (started, gate) = (Gate::new(), Gate::new());
        silo.grid().actor::<Reader>("today").hold(started.clone(), gate.clone()).tell().unwrap();
        started.passed().await;
        let stream = StreamId::new("letters/news", "today").unwrap();
        for news in ["old", "new"] {
            silo.grid().publish(&stream, news.to_owned()).await.unwrap();
        }
        let letters = silo.grid().dead_letters::<Reader>();
        until(|| letters.len() == 1).await;
        let letter = letters.inspect().remove(0);
        assert!(matches!(&letter.cause, DeadCause::Call(CallError::Dropped(_))), "{}", letter.cause);
        gate.open();
        until(|| post.delivered() == ["new"]).await;
        letters.replay(letter.id).unwrap();
        until(|| post.delivered() == ["new", "old"]).await;
    });
}
