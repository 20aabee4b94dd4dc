//! A moment that is waited for and does not come: arming and disarming on a silo's wheel, beside tokio's own timer.
//!
//! Both sides do the same in one turn of one actor, so on one thread and interleaved: make a sleep, poll it once, which
//! puts it into the timer, and drop it, which takes it out. With nothing else armed, and with as many others as a busy
//! silo's calls have deadlines.

use std::hint::black_box;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use quark::prelude::*;
use std::future::{Future, poll_fn};

/// Sleeps that are armed and disarmed in one measurement.
const ROUND: u32 = 20_000;

/// Measurements, of which the median counts.
const ROUNDS: usize = 15;

/// Far enough that none of them fires.
const FAR: Duration = Duration::from_secs(600);

#[derive(Actor)]
struct Sleeper {}

#[methods]
impl Sleeper {
    /// Nanoseconds for one sleep, on the silo's wheel and on tokio's timer, beside so many others on each.
    pub async fn measure(&mut self, cx: &Cx, others: usize) -> (f64, f64) {
        let mut on_wheel: Vec<_> = (0..others).map(|n| Box::pin(cx.sleep(FAR + spread(n)))).collect();
        let mut on_tokio: Vec<_> =
            (0..others).map(|n| Box::pin(tokio::time::sleep(FAR + spread(n)))).collect();
        for other in &mut on_wheel {
            arm(other.as_mut()).await;
        }
        for other in &mut on_tokio {
            arm(other.as_mut()).await;
        }
        let (mut wheel, mut tokio) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            wheel.push(round(|n| cx.sleep(FAR + spread(n))).await);
            tokio.push(round(|n| tokio::time::sleep(FAR + spread(n))).await);
        }
        (median(wheel), median(tokio))
    }
}

/// Deadlines of calls differ.
fn spread(number: usize) -> Duration {
    Duration::from_micros(number as u64 % 1_000 * 37)
}

async fn arm<F: Future<Output = ()>>(mut sleep: std::pin::Pin<&mut F>) {
    poll_fn(|cx| {
        let _ = black_box(sleep.as_mut().poll(cx));
        Poll::Ready(())
    })
    .await;
}

async fn round<F: Future<Output = ()>>(make: impl Fn(usize) -> F) -> f64 {
    let begun = Instant::now();
    for number in 0..ROUND {
        let sleep = pin!(make(number as usize));
        // Neither side may run out of tokio's budget, which would leave it unarmed.
        tokio::task::coop::unconstrained(arm(sleep)).await;
    }
    begun.elapsed().as_nanos() as f64 / f64::from(ROUND)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]
fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let silo = Silo::builder().host::<Sleeper>().start()?;
        let sleeper = silo.grid().actor::<Sleeper>("one");
        for others in [0, 1_000, 100_000] {
            let (wheel, tokio) = sleeper.measure(others).await?;
            let ratio = tokio / wheel;
            println!(
                "beside {others:>7} others: wheel {wheel:6.1} ns, tokio {tokio:6.1} ns, ratio {ratio:.2}"
            );
        }
        Ok(())
    })
}
