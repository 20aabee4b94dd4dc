//! Waiting for what must happen, without sleeping.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::timeout;

/// After this long something hangs. Only a guard: nothing is measured by it, and a test that passes never sees it.
const HANG: Duration = Duration::from_secs(20);

/// Awaits what must come.
///
/// # Panics
/// When it does not come for so long that it hangs.
pub async fn soon<F: IntoFuture>(what: F) -> F::Output {
    timeout(HANG, what.into_future()).await.unwrap_or_else(|_| panic!("still waiting after {HANG:?}"))
}

/// Waits until `condition` holds, letting others run meanwhile.
///
/// # Panics
/// When it does not come to hold for so long that something hangs.
pub async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            yield_now().await;
        }
    })
    .await;
}

/// Runs `test` once on four threads and once on one.
///
/// # Panics
/// When it hangs.
pub fn on_both_runtimes<F: Future<Output = ()>>(test: impl Fn() -> F) {
    on_threads(&test);
    run(Builder::new_current_thread().enable_all().build(), test());
}

/// Runs `test` on four threads.
///
/// # Panics
/// When it hangs.
pub fn on_threads<F: Future<Output = ()>>(test: impl Fn() -> F) {
    run(Builder::new_multi_thread().worker_threads(4).enable_all().build(), test());
}

fn run(runtime: std::io::Result<Runtime>, test: impl Future<Output = ()>) {
    let runtime = runtime.unwrap_or_else(|error| panic!("tokio did not start: {error}"));
    runtime.block_on(soon(test));
    // A thread that a failed test left blocked must not hang the test as well.
    runtime.shutdown_background();
}

/// Something that is waited for until it is opened, by any number of tasks, before and after.
#[derive(Debug)]
pub struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Gate {
    /// A closed one.
    pub fn new() -> std::sync::Arc<Self> {
        std::sync::Arc::default()
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.0.close();
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        // A closed semaphore is the open gate: it answers everybody at once, with an error that says closed.
        let closed = self.0.acquire().await;
        assert!(closed.is_err(), "a gate has no permits");
    }
}
