//! Silos and callers without tokio around them.

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use quark::prelude::*;
use quark_tests::{Gate, builder, builder_on};
use tokio::task::yield_now;

#[derive(Actor)]
#[actor(name = "foreign.counter")]
struct Counter {
    count: u32,
}

#[methods]
impl Counter {
    pub async fn add(&mut self) -> u32 {
        self.count += 1;
        self.count
    }

    pub async fn add_later(&mut self) -> u32 {
        yield_now().await;
        self.count += 1;
        self.count
    }

    pub async fn hold(&mut self, gate: Arc<Gate>) {
        gate.passed().await;
    }

    /// Uses what tokio gives: a timer.
    pub async fn nap(&mut self) -> bool {
        tokio::time::timeout(ms(1), std::future::pending::<()>()).await.is_err()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: one future, one thread.
fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut context, mut future) = (Context::from_waker(&waker), pin!(future.into_future()));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_silo_started_without_tokio_serves_any_executor() {
    for machine in ["laptop", "dual-socket-cpu"] {
        let silo = builder_on(machine).host::<Counter>().start().unwrap();
        let counter = silo.grid().actor::<Counter>("one");
        assert_eq!(block_on(counter.add()).unwrap(), 1);
        assert_eq!(block_on(counter.add_later()).unwrap(), 2);
        assert!(block_on(counter.nap()).unwrap());
        counter.add().tell().unwrap();
        assert_eq!(block_on(counter.add()).unwrap(), 4);
    }
}

#[test]
fn a_timeout_needs_no_tokio_of_its_caller() {
    let silo = builder().host::<Counter>().start().unwrap();
    let (counter, gate) = (silo.grid().actor::<Counter>("one"), Gate::new());
    let late = block_on(counter.hold(gate.clone()).timeout(ms(10))).unwrap_err();
    assert!(matches!(&late, CallError::Timeout(late) if late.started), "{late}");
    let queued = block_on(counter.add().timeout(ms(10))).unwrap_err();
    assert!(matches!(&queued, CallError::Timeout(late) if !late.started), "{queued}");
    gate.open();
    assert_eq!(block_on(counter.add()).unwrap(), 1);
}

#[test]
fn a_silo_stops_without_tokio_around_it() {
    let silo = builder().host::<Counter>().start().unwrap();
    let (counter, gate) = (silo.grid().actor::<Counter>("one"), Gate::new());
    let running = thread::spawn({
        let (counter, gate) = (counter.clone(), gate.clone());
        move || block_on(counter.hold(gate))
    });
    while silo.grid().census().types[0].active == 0 {
        thread::yield_now();
    }
    drop(silo);
    let stopped = running.join().unwrap();
    assert!(stopped.is_err(), "{stopped:?}");
    assert!(block_on(counter.add()).is_err());
}
#[test]
fn a_shutdown_needs_no_tokio_of_its_caller() {
    let silo = builder().host::<Counter>().start().unwrap();
    let counter = silo.grid().actor::<Counter>("one");
    assert_eq!(block_on(counter.add()).unwrap(), 1);
    assert!(block_on(silo.shutdown(Duration::from_secs(5))).drained);
    assert!(block_on(counter.add()).is_err());
}
