//! Kills a process that writes to a store, again and again, and looks for what it had been told was written.
//!
//! `crash --store sqlite --kills N [--seed S] [--actors N]` starts itself as a worker: a silo with some hundred actors that
//! change states, append events, send messages, set reminders and publish to a durable stream as fast as they can, and
//! prints a line for each that was acknowledged. After a random time it is killed with SIGKILL. A silo in this process
//! then reads the store: every acknowledged write must be there, and nothing may have taken effect twice.

mod actors;
mod check;
mod place;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use quark::Result;
use quark::base::Timestamp;

/// The shortest and the longest that a worker lives once it works.
const LIFE_MS: std::ops::Range<u64> = 50..1_200;

/// How long a worker may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Kills a process that writes to a store, and looks for what it had been told was written.
#[derive(Clone, Debug, Parser)]
#[command(name = "crash")]
pub(crate) struct Options {
    /// sqlite, postgres or redis, of which one is started; or the address of one that runs.
    #[arg(long)]
    pub(crate) store: String,
    /// How often the worker is killed.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// What the times of the kills and the order of the work come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many actors there are.
    #[arg(long, default_value_t = 300)]
    pub(crate) actors: u64,
    /// What the actors' keys begin with, so that one server serves several runs. By default the time.
    #[arg(long, default_value_t = Timestamp::of_system().0)]
    run: u64,
    /// Work until killed. What this program starts itself with.
    #[arg(long, hide = true)]
    worker: bool,
}

impl Options {
    /// The key of an actor.
    pub(crate) fn key(&self, actor: u64) -> String {
        format!("{}-{actor}", self.run)
    }

    /// Whom an actor sends to.
    pub(crate) fn receiver(&self, actor: u64) -> u64 {
        (actor + 1) % self.actors
    }
}

/// What workers said was acknowledged.
#[derive(Default)]
pub(crate) struct Acknowledged {
    /// The greatest number for each kind of work and actor.
    pub(crate) latest: HashMap<(String, u64), u64>,
    /// The actors and numbers of what was published, as a number may be left out.
    pub(crate) published: BTreeSet<(u64, u64)>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if options.worker {
        return worker::work(&options, options.seed).await;
    }
    let place = place::find(&options.store).await?;
    let options = Options { store: place.address().to_owned(), ..options };
    let mut chance = fastrand::Rng::with_seed(options.seed);
    let mut acknowledged = Acknowledged::default();
    let begun = Instant::now();
    for kill in 1..=options.kills {
        let life = Duration::from_millis(chance.u64(LIFE_MS));
        let seed = chance.u64(..);
        let before = total(&acknowledged);
        let (worker_options, mut known) = (options.clone(), std::mem::take(&mut acknowledged));
        // One in four may die while it still takes in what the one before it left.
        let from = if kill % 4 == 3 { Sign::Ready } else { Sign::Acknowledged };
        acknowledged = tokio::task::spawn_blocking(move || {
            live_and_die(&worker_options, seed, from, life, &mut known).map(|()| known)
        })
        .await??;
        // Every other time the next worker finds what this one left, without a check that would tidy up before it.
        if kill % 2 == 0 || kill == options.kills {
            let found = check::check(&options, seed, &acknowledged).await?;
            say(&format!(
                "kill {kill}: after {life:?}, {} acknowledged, all there: {found}",
                total(&acknowledged) - before
            ));
        }
    }
    say(&format!(
        "{} kills, {} actors, {} acknowledged writes, none lost, none twice; {:.1?}",
        options.kills,
        options.actors,
        total(&acknowledged),
        begun.elapsed()
    ));
    Ok(())
}

fn total(acknowledged: &Acknowledged) -> u64 {
    acknowledged.latest.values().sum()
}

#[expect(clippy::print_stdout, reason = "its report")]
fn say(text: &str) {
    println!("{text}");
}

/// What a worker says of itself, in this order.
#[derive(Clone, Copy, PartialEq)]
enum Sign {
    /// Its silo has started.
    Ready,
    /// Its first work was acknowledged.
    Acknowledged,
}

/// Lets a worker work for `life` from a sign of it on, kills it, and takes in what it said until then.
fn live_and_die(
    options: &Options,
    seed: u64,
    from: Sign,
    life: Duration,
    acknowledged: &mut Acknowledged,
) -> Result<()> {
    let mut worker = Command::new(std::env::current_exe()?)
        .args(["--worker", "--store", &options.store, "--actors", &options.actors.to_string()])
        .args(["--seed", &seed.to_string(), "--run", &options.run.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = worker.stdout.take().ok_or_else(|| quark::Error::msg("the worker has no output"))?;
    let (sign, signs) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || read(BufReader::new(lines), &sign));
    let mut started = signs.recv_timeout(START_LIMIT);
    while started.is_ok_and(|sign| sign != from) {
        started = signs.recv_timeout(START_LIMIT);
    }
    if started.is_ok() {
        std::thread::sleep(life);
    }
    kill(&mut worker)?;
    let said =
        reader.join().map_err(|_| quark::Error::msg("the reader of the worker's output panicked"))??;
    started.map_err(|_| quark::Error::msg("a worker did not start; its errors are above"))?;
    for (what, number) in said {
        if what.0 == "publish" {
            acknowledged.published.insert((what.1, number));
        }
        let known = acknowledged.latest.entry(what).or_default();
        *known = number.max(*known);
    }
    Ok(())
}

/// `Child::kill` sends SIGKILL.
fn kill(worker: &mut Child) -> Result<()> {
    if let Some(status) = worker.try_wait()? {
        return Err(quark::Error::msg(format!(
            "the worker ended by itself ({status}); its errors are above"
        )));
    }
    worker.kill()?;
    worker.wait()?;
    Ok(())
}

type Said = Vec<((String, u64), u64)>;

/// Reads `kind actor number` lines; the last one may be torn.
fn read(lines: impl BufRead, sign: &std::sync::mpsc::Sender<Sign>) -> Result<Said> {
    let mut said = Said::new();
    for line in lines.lines() {
        let line = line?;
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("ready"), ..) => {
                // Nobody listens any more if the worker was given up.
                let _ = sign.send(Sign::Ready);
            }
            (Some(kind), Some(actor), Some(number), Some("ok")) => {
                if said.is_empty() {
                    let _ = sign.send(Sign::Acknowledged);
                }
                said.push(((kind.to_owned(), actor.parse()?), number.parse()?));
            }
            _ => {}
        }
    }
    Ok(said)
}
