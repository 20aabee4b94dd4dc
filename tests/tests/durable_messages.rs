//! Messages that are written with their sender's state, and take effect in their receiver's exactly once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use quark::prelude::*;
use quark::store::{Address, MessageId, OutboxPlace, Store, StoreError};
use quark::{StateCause, storage};
use quark_testkit::{CommitFault, StoreFaults, TestSilo};

#[derive(Actor)]
#[actor(name = "bank.sender")]
struct Sender {
    #[state]
    balance: State<i64>,
    #[state]
    sent: State<u32>,
}

#[methods]
impl Sender {
    pub async fn fund(&mut self, amount: i64) -> Result<(), StateError> {
        *self.balance += amount;
        self.balance.save().await
    }

    /// Takes the money here and promises it there, in one step.
    pub async fn transfer(&mut self, cx: &Cx, to: String, amount: i64) -> Result<(), StateError> {
        *self.balance -= amount;
        *self.sent += 1;
        let receiver = cx.grid().actor::<Receiver>(&to);
        let mut transaction = cx.transaction();
        transaction.save(&self.balance)?.save(&self.sent)?.send(receiver.credit(amount))?;
        let committed = transaction.commit().await;
        if committed.is_err() {
            *self.balance += amount;
            *self.sent -= 1;
        }
        committed
    }

    pub async fn promise_to_nobody(&mut self, cx: &Cx) -> Result<(), StateError> {
        let mut transaction = cx.transaction();
        transaction.send(cx.grid().actor::<Lost>("x").credit(1))?;
        transaction.commit().await
    }

    pub async fn send_into_the_dark(&mut self, cx: &Cx, to: String) -> Result<(), StateError> {
        let mut transaction = cx.transaction();
        transaction.send(cx.grid().actor::<Receiver>(&to).linger())?;
        transaction.commit().await
    }

    /// What a client asked for by a name of its own.
    pub async fn fund_once(&mut self, cx: &Cx, payment: String, amount: i64) -> Result<i64, StateError> {
        *self.balance += amount;
        let mut transaction = cx.transaction();
        transaction.save(&self.balance)?.receive(MessageId::new(payment).unwrap());
        transaction.commit().await?;
        Ok(*self.balance)
    }

    pub async fn balance(&self) -> (i64, u32) {
        (*self.balance, *self.sent)
    }
}

/// How often deliveries began, and how many of the next ones to receiver `a` fail after their effect.
#[derive(Default)]
struct Trouble {
    deliveries: AtomicU32,
    /// The amounts of all deliveries.
    taken: Mutex<Vec<i64>>,
    fails: AtomicU32,
}

#[derive(Actor)]
#[actor(name = "bank.receiver", factory)]
struct Receiver {
    trouble: Arc<Trouble>,
    #[state]
    balance: State<i64>,
}

#[methods]
impl Receiver {
    #[durable]
    pub async fn credit(&mut self, cx: &Cx, amount: i64) -> Result<()> {
        self.trouble.deliveries.fetch_add(1, Ordering::SeqCst);
        self.trouble.taken.lock().unwrap().push(amount);
        *self.balance += amount;
        let mut transaction = cx.transaction();
        transaction.save(&self.balance)?;
        transaction.commit().await?;
        let take = |left: u32| left.checked_sub(1);
        if cx.key().as_str() == "a"
            && self.trouble.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
        {
            quark::Result::Err(quark::Error::msg("after the effect"))?;
        }
        Ok(())
    }

    /// Takes a message and does not come back.
    #[durable]
    pub async fn linger(&mut self) {
        std::future::pending::<()>().await;
    }

    pub async fn balance(&self) -> i64 {
        *self.balance
    }

    pub async fn message(&self, cx: &Cx) -> Option<String> {
        cx.message_id().map(ToString::to_string)
    }
}

/// A type that no silo of these tests hosts.
#[derive(Actor)]
#[actor(name = "bank.lost")]
struct Lost;

#[methods]
impl Lost {
    #[durable]
    pub async fn credit(&mut self, _amount: i64) {}
}

fn silo_over(store: Store, trouble: &Arc<Trouble>, seed: u64) -> TestSilo {
    let trouble = trouble.clone();
    let factory = move |_: &Key| Ok(Receiver { trouble: trouble.clone(), balance: State::default() });
    let configure = |silo: quark::SiloBuilder| silo.store("default", store);
    let silo = TestSilo::builder().host::<Sender>().host_with::<Receiver>(factory).configure(configure);
    silo.seed(seed).start().unwrap()
}

async fn received(silo: &TestSilo, key: &str) -> i64 {
    silo.grid().actor::<Receiver>(key).balance().await.unwrap()
}

async fn outbox(store: &Store) -> usize {
    store.actors.outbox(&OutboxPlace::default(), 100).await.unwrap().messages.len()
}

#[tokio::test]
async fn a_message_is_written_with_the_state_and_delivered_after_it() {
    let (store, trouble) = (storage::memory(), Arc::default());
    let silo = silo_over(store.clone(), &trouble, 1);
    let sender = silo.grid().actor::<Sender>("s");
    sender.fund(100).await.unwrap();
    for (to, amount) in [("a", 10), ("b", 20), ("a", 30)] {
        sender.transfer(to.into(), amount).await.unwrap();
    }
    silo.settle().await;
    assert_eq!(sender.balance().await.unwrap(), (40, 3));
    assert_eq!((received(&silo, "a").await, received(&silo, "b").await), (40, 20));
    assert_eq!(outbox(&store).await, 0);
    assert_eq!(trouble.deliveries.load(Ordering::SeqCst), 3);
    let asked = silo.grid().actor::<Receiver>("a").message().await.unwrap();
    assert_eq!(asked, None, "only durable messages have an id");
}

#[tokio::test]
async fn a_transaction_that_is_refused_writes_and_sends_nothing() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let trouble = Arc::default();
    let silo = silo_over(store.clone(), &trouble, 1);
    let sender = silo.grid().actor::<Sender>("s");
    sender.fund(100).await.unwrap();
    faults.next(CommitFault::Refused(StoreError::Full { store: "db".into(), cause: "no space left".into() }));
    sender.transfer("a".into(), 10).await.unwrap_err();
    silo.settle().await;
    assert_eq!((sender.balance().await.unwrap(), received(&silo, "a").await), ((100, 0), 0));
    assert_eq!(outbox(&store).await, 0);
}

#[tokio::test]
async fn a_message_is_delivered_again_until_it_is_taken_and_takes_effect_once() {
    let (store, trouble) = (storage::memory(), Arc::new(Trouble::default()));
    let silo = silo_over(store.clone(), &trouble, 1);
    let sender = silo.grid().actor::<Sender>("s");
    trouble.fails.store(1, Ordering::SeqCst);
    sender.transfer("a".into(), 10).await.unwrap();
    silo.settle().await;
    assert_eq!((outbox(&store).await, received(&silo, "a").await), (1, 10), "it failed after its effect");
    silo.advance(Duration::from_secs(5)).await;
    assert_eq!((outbox(&store).await, received(&silo, "a").await), (0, 10));
    assert_eq!(trouble.deliveries.load(Ordering::SeqCst), 1, "the inbox spares it the second run");
}

#[tokio::test]
async fn an_effect_that_could_not_be_written_is_no_effect_and_the_message_comes_again() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let trouble = Arc::new(Trouble::default());
    let silo = silo_over(store.clone(), &trouble, 1);
    let sender = silo.grid().actor::<Sender>("s");
    sender.fund(10).await.unwrap();
    // The sender's commit goes through; the receiver's first one does not.
    faults.next(CommitFault::Held);
    faults.next(CommitFault::Refused(StoreError::ReadOnly { store: "db".into(), cause: "standby".into() }));
    let caller = tokio::spawn({
        let sender = sender.clone();
        async move { sender.transfer("a".into(), 10).await }
    });
    silo.settle().await;
    faults.release();
    caller.await.unwrap().unwrap();
    silo.settle().await;
    assert_eq!(outbox(&store).await, 1);
    // Its memory ran ahead, as its method left it.
    silo.grid().deactivate::<Receiver>("a");
    silo.advance(Duration::from_secs(5)).await;
    assert_eq!((outbox(&store).await, received(&silo, "a").await), (0, 10));
    assert_eq!(trouble.deliveries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn messages_that_a_silo_left_behind_are_delivered_by_the_next_one() {
    let (store, trouble) = (storage::memory(), Arc::new(Trouble::default()));
    let first = silo_over(store.clone(), &trouble, 1);
    let sender = first.grid().actor::<Sender>("s");
    trouble.fails.store(u32::MAX, Ordering::SeqCst);
    sender.transfer("a".into(), 10).await.unwrap();
    sender.transfer("a".into(), 5).await.unwrap();
    first.settle().await;
    drop((sender, first));
    assert_eq!(outbox(&store).await, 2);
    trouble.fails.store(0, Ordering::SeqCst);
    let second = silo_over(store.clone(), &trouble, 2);
    second.settle().await;
    second.advance(Duration::from_secs(2)).await;
    assert_eq!((outbox(&store).await, received(&second, "a").await), (0, 15));
}

#[tokio::test]
async fn messages_of_one_line_keep_their_order_and_do_not_hold_back_others() {
    let (store, trouble) = (storage::memory(), Arc::new(Trouble::default()));
    let silo = silo_over(store.clone(), &trouble, 1);
    let sender = silo.grid().actor::<Sender>("s");
    let error = sender.promise_to_nobody().await.unwrap_err();
    assert!(
        matches!(&error, CallError::Actor(error) if *error.cause == StateCause::NotHosted("bank.lost")),
        "{error}"
    );
    trouble.fails.store(1, Ordering::SeqCst);
    sender.transfer("a".into(), 1).await.unwrap();
    sender.transfer("a".into(), 2).await.unwrap();
    sender.transfer("b".into(), 3).await.unwrap();
    silo.settle().await;
    assert_eq!((received(&silo, "a").await, received(&silo, "b").await), (1, 3));
    silo.advance(Duration::from_secs(5)).await;
    assert_eq!((received(&silo, "a").await, outbox(&store).await), (3, 0));
}

#[tokio::test]
async fn a_receiver_that_does_not_come_back_holds_nobody_else_up() {
    let (store, trouble) = (storage::memory(), Arc::new(Trouble::default()));
    let silo = silo_over(store.clone(), &trouble, 1);
    let sender = silo.grid().actor::<Sender>("s");
    sender.send_into_the_dark("stuck".into()).await.unwrap();
    silo.settle().await;
    for round in 1..=3 {
        sender.transfer("a".into(), 1).await.unwrap();
        silo.settle().await;
        assert_eq!((received(&silo, "a").await, outbox(&store).await), (round, 1));
    }
    silo.advance(Duration::from_secs(120)).await;
    assert_eq!(outbox(&store).await, 1, "it is tried again, and nobody gives it up");
}

/// Leaves messages in the outboxes of so many actors that are no more, each a thousand to a receiver that nobody hosts.
async fn leave_messages_to_nobody(store: &Store, senders: u32) {
    use quark::store::{Commit, Encoded, Epoch, Fence, OutboxMessage};
    let body = Encoded { format: "json".into(), version: 1, bytes: b"[1]".to_vec() };
    for from in 0..senders {
        let fence = Fence { seen: None, epoch: Epoch(1), sequence: 1 };
        let from = Address::new("bank.sender", format!("old {from}"));
        let mut commit = Commit::new(from, fence, Default::default());
        let to = Address::new("bank.nowhere", "x");
        let message = OutboxMessage { to, method: "credit".into(), body: body.clone() };
        commit.outbox = vec![message; 1_000];
        store.actors.commit(&commit).await.unwrap();
    }
}

#[tokio::test]
async fn any_number_of_messages_that_nobody_takes_leave_room_for_others() {
    let store = storage::memory();
    leave_messages_to_nobody(&store, 70).await;
    let silo = silo_over(store.clone(), &Arc::default(), 1);
    let sender = silo.grid().actor::<Sender>("s");
    sender.transfer("a".into(), 7).await.unwrap();
    silo.advance(Duration::from_secs(30)).await;
    assert_eq!(received(&silo, "a").await, 7);
    // From then on what is new is seen at once.
    for round in 1..=3 {
        sender.transfer("b".into(), 1).await.unwrap();
        silo.advance(Duration::from_secs(1)).await;
        assert_eq!(received(&silo, "b").await, round);
    }
}

#[tokio::test]
async fn any_number_of_messages_to_one_that_does_not_come_back_leave_room_for_others() {
    let (store, trouble) = (storage::memory(), Arc::new(Trouble::default()));
    let silo = silo_over(store.clone(), &trouble, 1);
    let sender = silo.grid().actor::<Sender>("s");
    for _ in 0..3_000 {
        sender.send_into_the_dark("stuck".into()).await.unwrap();
    }
    for round in 1..=3 {
        sender.transfer("a".into(), 1).await.unwrap();
        silo.advance(Duration::from_secs(15)).await;
        assert_eq!(received(&silo, "a").await, round);
    }
}

#[tokio::test]
async fn messages_of_one_line_keep_their_order_behind_many_that_nobody_takes() {
    let (store, trouble) = (storage::memory(), Arc::new(Trouble::default()));
    leave_messages_to_nobody(&store, 3).await;
    let silo = silo_over(store.clone(), &trouble, 1);
    silo.advance(Duration::from_secs(30)).await;
    let sender = silo.grid().actor::<Sender>("s");
    trouble.fails.store(2, Ordering::SeqCst);
    for amount in 1..=200 {
        sender.transfer("a".into(), amount).await.unwrap();
        if amount % 50 == 0 {
            silo.advance(ms(20)).await;
        }
    }
    silo.advance(Duration::from_secs(60)).await;
    assert_eq!(received(&silo, "a").await, (1..=200).sum::<i64>());
    let taken = trouble.taken.lock().unwrap().clone();
    assert!(taken.is_sorted(), "{taken:?}");
}

#[tokio::test]
async fn a_message_that_another_silo_took_is_forgotten_here() {
    let (store, trouble) = (storage::memory(), Arc::new(Trouble::default()));
    let silo = silo_over(store.clone(), &trouble, 1);
    trouble.fails.store(1, Ordering::SeqCst);
    silo.grid().actor::<Sender>("s").transfer("a".into(), 1).await.unwrap();
    silo.settle().await;
    let left = store.actors.outbox(&OutboxPlace::default(), 10).await.unwrap().messages;
    let ids: Vec<_> = left.into_iter().map(|message| message.id).collect();
    store.actors.relayed(&ids).await.unwrap();
    // Were it still waited for, this would never come to rest.
    silo.advance(Duration::from_secs(60)).await;
    assert_eq!(trouble.deliveries.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_message_with_a_name_of_a_clients_takes_effect_once() {
    let silo = silo_over(storage::memory(), &Arc::default(), 1);
    let sender = silo.grid().actor::<Sender>("s");
    assert_eq!(sender.fund_once("payment-1".into(), 10).await.unwrap(), 10);
    assert_eq!(sender.fund_once("payment-2".into(), 5).await.unwrap(), 15);
    let error = sender.fund_once("payment-1".into(), 10).await.unwrap_err();
    // Its memory has the money twice, so it ends.
    assert!(matches!(&error, CallError::Superseded(details) if details.is_written == Some(true)), "{error}");
    assert_eq!(error.retry(), quark::Retry::Pointless);
    assert_eq!(sender.balance().await.unwrap().0, 15);
}

#[tokio::test]
async fn an_inbox_forgets_what_is_a_week_old() {
    let store = storage::memory();
    let silo = silo_over(store.clone(), &Arc::default(), 1);
    let sender = silo.grid().actor::<Sender>("s");
    sender.fund_once("payment-1".into(), 10).await.unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let (address, payment) = (Address::new("bank.sender", "s"), MessageId::new("payment-1").unwrap());
    // In one leap: nobody wants to see each minute of a week.
    let leap = async |days: u32| {
        silo.clock().move_to(silo.now() + days * day);
        silo.settle().await;
    };
    leap(6).await;
    assert!(store.actors.has_received(&address, &payment).await.unwrap());
    leap(2).await;
    assert!(!store.actors.has_received(&address, &payment).await.unwrap());
}

#[tokio::test]
async fn a_message_that_nobody_understands_stays_in_its_outbox() {
    use quark::store::{Commit, Encoded, Epoch, Fence, OutboxMessage};
    let store = storage::memory();
    let fence = Fence { seen: None, epoch: Epoch(1), sequence: 1 };
    let mut commit = Commit::new(Address::new("bank.sender", "old"), fence, Default::default());
    let message = |actor_type: &'static str, method: &'static str, body: &str| OutboxMessage {
        to: Address::new(actor_type, "a"),
        method: method.into(),
        body: Encoded { format: "json".into(), version: 1, bytes: body.into() },
    };
    commit.outbox = vec![
        message("bank.nowhere", "credit", "[1]"),
        message("bank.receiver", "credit", "[\"ten\"]"),
        message("bank.receiver", "balance", "[]"),
    ];
    store.actors.commit(&commit).await.unwrap();
    let silo = silo_over(store.clone(), &Arc::default(), 1);
    silo.settle().await;
    silo.advance(Duration::from_secs(10)).await;
    assert_eq!(outbox(&store).await, 3);
    let sender = silo.grid().actor::<Sender>("s");
    sender.transfer("a".into(), 7).await.unwrap();
    silo.settle().await;
    assert_eq!(received(&silo, "a").await, 7, "the others are not in its way");
}

#[tokio::test]
async fn a_transaction_writes_to_one_store() {
    #[derive(Actor)]
    #[actor(name = "bank.torn")]
    struct Torn {
        #[state]
        here: State<u32>,
        #[state(store = "other")]
        there: State<u32>,
    }

    #[methods]
    impl Torn {
        pub async fn both(&mut self, cx: &Cx) -> Result<(), StateError> {
            let mut transaction = cx.transaction();
            transaction.save(&self.here)?.save(&self.there)?;
            transaction.commit().await
        }
    }

    let configure =
        |silo: quark::SiloBuilder| silo.store("default", storage::memory()).store("other", storage::memory());
    let silo = TestSilo::builder().host::<Torn>().configure(configure).start().unwrap();
    let error = silo.grid().actor::<Torn>("a").both().await.unwrap_err();
    let CallError::Actor(error) = error else { panic!("{error}") };
    assert_eq!(*error.cause, StateCause::SeveralStores("default", "other"));
}
