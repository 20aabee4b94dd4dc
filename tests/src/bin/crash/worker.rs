//! The process that is killed.

use std::io::Write as _;

use quark::prelude::*;
use quark::storage::{self, StoreUrl};
use quark::streams::DurableStream;
use tokio::task::JoinSet;

use crate::Options;
use crate::actors::{Account, ITEMS};

/// Tasks that call at the same time.
const CALLERS: u64 = 64;

/// A silo over the options' store.
pub(crate) async fn silo(options: &Options) -> Result<(Silo, quark::Store)> {
    let url: StoreUrl = options.store.parse()?;
    let store = storage::open(&url).await?;
    let silo = Silo::builder().host::<Account>().store("default", store.clone());
    // An item that was given to a silo which was killed is given again soon; each kill counts as an attempt, and none of
    // them is the item's fault.
    let items = DurableStream::new().visibility(Duration::from_secs(3)).max_attempts(u32::MAX);
    let silo = if store.streams.is_some() { silo.durable_stream(&ITEMS, items) } else { silo };
    Ok((silo.start()?, store))
}

/// Works until it is killed. An error ends it, as nothing but the kill is to go wrong.
pub(crate) async fn work(options: &Options, seed: u64) -> Result<()> {
    let (silo, store) = silo(options).await?;
    let kinds = if store.streams.is_some() { 5 } else { 4 };
    say("ready");
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(call(silo.grid(), fastrand::Rng::with_seed(seed ^ caller), options.clone(), kinds));
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn call(grid: Grid, mut chance: fastrand::Rng, options: Options, kinds: u8) -> Result<()> {
    loop {
        let actor = chance.u64(..options.actors);
        let account = grid.actor::<Account>(options.key(actor));
        let (kind, number) = match chance.u8(..kinds) {
            0 => ("hit", account.hit().await?),
            1 => ("log", account.log().await?),
            2 => ("remind", account.remind().await?),
            4 => ("publish", account.publish().await?),
            _ => ("send", account.send(options.key(options.receiver(actor))).await?),
        };
        say(&format!("{kind} {actor} {number} ok"));
    }
}

/// One line, in one write: whatever the parent reads of it was acknowledged.
fn say(line: &str) {
    // The parent has gone if it cannot be written, and then nobody needs it.
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
