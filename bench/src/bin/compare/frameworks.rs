//! The frameworks, each as its own documentation uses it.

mod actix;
mod kameo;
mod quark;
mod ractor;
mod xtra;

use std::future::Future;

use tokio::runtime::Builder;

use crate::works::Work;

/// Messages that a bounded mailbox holds, in every framework that has one.
const MAILBOX: usize = 1_024;

/// The figure of each framework for one round of `work`.
pub(crate) fn measure(work: Work) -> [(&'static str, f64); 5] {
    [
        ("quark", quark::measure(work)),
        ("kameo", kameo::measure(work)),
        ("ractor", ractor::measure(work)),
        ("xtra", xtra::measure(work)),
        ("actix", actix::measure(work)),
    ]
}

/// Runs the work as a task on a fresh tokio runtime with as many threads as it asks for.
fn on_tokio<Fut>(work: Work, run: Fut) -> f64
where
    Fut: Future<Output = f64> + Send + 'static,
{
    let runtime = Builder::new_multi_thread()
        .worker_threads(work.threads())
        .enable_all()
        .build()
        .expect("a runtime with one or two threads");
    runtime.block_on(async { tokio::spawn(run).await.expect("no work panics") })
}
