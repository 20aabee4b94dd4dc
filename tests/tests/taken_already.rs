//! A message, a tick or an item that had taken effect before is delivered: it is not run again and again, and nobody
//! gives it up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use quark::prelude::*;
use quark::storage;
use quark::store::{Address, OutboxPlace, Store};
use quark::streams::{DurableStream, GroupReport};
use quark_testkit::{CommitFault, StoreFaults, TestSilo};
use quark_tests::Gate;

const PAYMENTS: Topic<i64> = Topic::new("taken/payments");

/// How often the books were written in, on all silos, and what the next time waits for before it commits.
#[derive(Default)]
struct Runs {
    count: AtomicU32,
    gate: Mutex<Option<Arc<Gate>>>,
}

impl Runs {
    fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }
}

/// Writes each message with its effect.
#[derive(Actor)]
#[actor(name = "taken.ledger", factory, dead_letters(max = 10))]
struct Ledger {
    runs: Arc<Runs>,
    #[state]
    total: State<i64>,
}

#[methods]
impl Ledger {
    #[durable]
    pub async fn credit(&mut self, cx: &Cx, amount: i64) -> Result<()> {
        self.take(cx, amount).await
    }

    #[on_reminder("interest")]
    async fn interest(&mut self, cx: &Cx, _tick: Tick) -> Result<()> {
        self.take(cx, 10).await
    }

    #[on_stream(PAYMENTS)]
    async fn payment(&mut self, cx: &Cx, amount: i64) -> Result<()> {
        self.take(cx, amount).await
    }

    async fn take(&mut self, cx: &Cx, amount: i64) -> Result<()> {
        self.runs.count.fetch_add(1, Ordering::SeqCst);
        let gate = self.runs.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.passed().await;
        }
        *self.total += amount;
        let mut transaction = cx.transaction();
        transaction.save(&self.total)?;
        Ok(transaction.commit().await?)
    }

    pub async fn pay_interest_in(&mut self, cx: &Cx, time: Duration) -> Result<()> {
        Ok(cx.remind("interest", ReminderSchedule::after(time)).await?)
    }

    pub async fn total(&self) -> i64 {
        *self.total
    }
}

#[derive(Actor)]
#[actor(name = "taken.customer")]
struct Customer {
    #[state]
    paid: State<i64>,
}

#[methods]
impl Customer {
    pub async fn pay(&mut self, cx: &Cx, amount: i64) -> Result<()> {
        *self.paid += amount;
        let mut transaction = cx.transaction();
        transaction.save(&self.paid)?.send(cx.grid().actor::<Ledger>("a").credit(amount))?;
        Ok(transaction.commit().await?)
    }
}

fn silo_over(store: &Store, runs: &Arc<Runs>, seed: u64) -> TestSilo {
    let (store, runs) = (store.clone(), runs.clone());
    let ledger = move |_: &Key| Ok(Ledger { runs: runs.clone(), total: State::default() });
    let silo = TestSilo::builder().host_with::<Ledger>(ledger).host::<Customer>().seed(seed);
    let configure = |silo: quark::SiloBuilder| {
        silo.store("default", store).durable_stream(&PAYMENTS, DurableStream::new().max_attempts(2))
    };
    silo.configure(configure).start().unwrap()
}

async fn total(silo: &TestSilo) -> i64 {
    silo.grid().actor::<Ledger>("a").total().await.unwrap()
}

fn group(silo: &TestSilo) -> GroupReport {
    let [group] = silo.grid().stream_admin("taken/payments").unwrap().groups().try_into().unwrap();
    group
}

/// The first delivery is given up as too late, and takes effect when the second one is on its way.
#[tokio::test]
async fn a_durable_message_that_took_effect_while_it_was_sent_again_leaves_its_outbox() {
    let (store, runs) = (storage::memory(), Arc::new(Runs::default()));
    let silo = silo_over(&store, &runs, 1);
    let gate = Gate::new();
    *runs.gate.lock().unwrap() = Some(gate.clone());
    silo.grid().actor::<Customer>("c").pay(10).await.unwrap();
    silo.advance(Duration::from_secs(31)).await;
    assert_eq!(runs.count(), 1, "the second one waits behind it");
    gate.open();
    silo.settle().await;
    assert_eq!(runs.count(), 2);
    assert_eq!(store.actors.outbox(&OutboxPlace::default(), 10).await.unwrap().messages, []);
    assert_eq!(total(&silo).await, 10);
}

/// Another silo has taken the tick, and has not come to say so.
#[tokio::test]
async fn a_reminder_that_took_effect_on_another_silo_is_moved_on() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let runs = Arc::new(Runs::default());
    let (first, second) = (silo_over(&store, &runs, 1), silo_over(&store, &runs, 2));
    first.grid().actor::<Ledger>("a").pay_interest_in(Duration::from_secs(5)).await.unwrap();
    // It sees the reminder before it is due, so it has no reason to look whether the tick has come already.
    second.advance(Duration::from_secs(4)).await;
    faults.next_advance(CommitFault::Held);
    first.advance(Duration::from_secs(5)).await;
    let ledger = Address::new("taken.ledger", "a");
    assert_eq!((runs.count(), store.reminders.of_actor(&ledger).await.unwrap().len()), (1, 1));
    second.advance(Duration::from_secs(1)).await;
    assert_eq!(runs.count(), 2);
    assert_eq!(store.reminders.of_actor(&ledger).await.unwrap(), []);
    assert_eq!(total(&second).await, 10);
    faults.release();
    first.settle().await;
    assert_eq!(runs.count(), 2);
}

/// The turn's commit is written, and neither its answer nor that of any further try comes.
#[tokio::test]
async fn an_item_of_a_durable_stream_that_took_effect_in_a_turn_that_did_not_hear_of_it_is_acknowledged() {
    let (store, faults) = StoreFaults::over(storage::memory());
    let runs = Arc::new(Runs::default());
    let silo = silo_over(&store, &runs, 1);
    faults.next(CommitFault::AnswerLost);
    faults.next(CommitFault::Held);
    silo.grid().topic(&PAYMENTS).publish("a", 10).await.unwrap();
    silo.settle().await;
    assert_eq!((runs.count(), group(&silo).in_flight), (1, 1));
    // The turn ends after five seconds, and the item comes again at once.
    silo.advance(Duration::from_secs(6)).await;
    assert_eq!(runs.count(), 2);
    let group = group(&silo);
    assert_eq!((group.acknowledged, group.failed_attempts, group.dead, group.in_flight), (1, 0, 0, 0));
    assert_eq!(total(&silo).await, 10);
    silo.advance(Duration::from_secs(120)).await;
    assert_eq!(runs.count(), 2);
}
