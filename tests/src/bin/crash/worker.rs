//! The process that is killed.

use std::io::Write as _;

use quark::prelude::*;
use quark::storage::{self, StoreUrl};
use tokio::task::JoinSet;

use crate::Options;
use crate::actors::Account;

/// Tasks that call at the same time.
const CALLERS: u64 = 64;

/// A silo over the options' store.
pub(crate) async fn silo(options: &Options) -> Result<(Silo, quark::Store)> {
    let url: StoreUrl = options.store.parse()?;
    let store = storage::open(&url).await?;
    let silo = Silo::builder().host::<Account>().store("default", store.clone()).start()?;
    Ok((silo, store))
}

/// Works until it is killed. An error ends it, as nothing but the kill is to go wrong.
pub(crate) async fn work(options: &Options, seed: u64) -> Result<()> {
    let (silo, _store) = silo(options).await?;
    say("ready");
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(call(silo.grid(), fastrand::Rng::with_seed(seed ^ caller), options.clone()));
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn call(grid: Grid, mut chance: fastrand::Rng, options: Options) -> Result<()> {
    loop {
        let actor = chance.u64(..options.actors);
        let account = grid.actor::<Account>(options.key(actor));
        let (kind, number) = match chance.u8(..3) {
            0 => ("hit", account.hit().await?),
            1 => ("log", account.log().await?),
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
