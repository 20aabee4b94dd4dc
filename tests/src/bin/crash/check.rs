//! What must be there after a kill.

use std::fmt;
use std::time::{Duration, Instant};

use quark::prelude::*;
use quark::store::OutboxPlace;

use crate::actors::{Account, Totals};
use crate::{Acknowledged, Options, worker};

/// How long messages may take to arrive.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);

/// How long the checking silo gets to end.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Default)]
pub(crate) struct Found {
    hits: u64,
    events: u64,
    messages: u64,
    reminders: u64,
    items: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hits, events, messages, reminders, items } = self;
        write!(
            f,
            "{hits} hits, {events} events, {messages} messages, {reminders} reminders, {items} stream items"
        )
    }
}

/// Reads the store through a silo of its own.
pub(crate) async fn check(options: &Options, seed: u64, acknowledged: &Acknowledged) -> Result<Found> {
    let (silo, store) = worker::silo(options).await?;
    let begun = Instant::now();
    while !store.actors.outbox(&OutboxPlace::default(), 1).await?.messages.is_empty() {
        if begun.elapsed() > DELIVERY_LIMIT {
            return Err(wrong(seed, "messages were still in their outboxes after a minute"));
        }
        tokio::time::sleep(ms(5)).await;
    }
    let mut all = totals(options, &silo).await?;
    while let Some(missing) = missing(&all, acknowledged) {
        if begun.elapsed() > DELIVERY_LIMIT {
            return Err(wrong(seed, &format!("{missing} had not come after a minute")));
        }
        tokio::time::sleep(ms(20)).await;
        all = totals(options, &silo).await?;
    }
    let mut found = Found::default();
    for (key, totals) in (0..).zip(&all) {
        let Totals { hits, events, misplaced, sent, received, ticked, ref seen, doubled } = *totals;
        for (kind, stored) in [("hit", hits), ("log", events), ("send", sent)] {
            let said = acknowledged.latest.get(&(kind.to_owned(), key)).copied().unwrap_or_default();
            if stored < said {
                return Err(wrong(
                    seed,
                    &format!("account {key} said {kind} {said}, and the store has {stored}"),
                ));
            }
        }
        if doubled != 0 {
            return Err(wrong(seed, &format!("account {key} took {doubled} ticks or items a second time")));
        }
        if misplaced != 0 {
            return Err(wrong(seed, &format!("account {key} has {misplaced} events out of place")));
        }
        let sender = (key + options.actors - 1) % options.actors;
        let promised = all[sender as usize].sent;
        if received != promised {
            return Err(wrong(
                seed,
                &format!("account {sender} sent {promised}, and {key} received {received}"),
            ));
        }
        found.hits += hits;
        found.events += events;
        found.messages += received;
        found.reminders += ticked;
        found.items += seen.len() as u64;
    }
    silo.shutdown(SHUTDOWN_PATIENCE).await;
    Ok(found)
}

async fn totals(options: &Options, silo: &Silo) -> Result<Vec<Totals>> {
    let mut all = Vec::new();
    for actor in 0..options.actors {
        all.push(silo.grid().actor::<Account>(options.key(actor)).totals().await?);
    }
    Ok(all)
}

/// A reminder or an item that was acknowledged and has not come.
fn missing(all: &[Totals], acknowledged: &Acknowledged) -> Option<String> {
    let reminders = acknowledged.latest.iter().filter(|((kind, _), _)| kind == "remind");
    let mut late = reminders.filter(|((_, key), number)| all[*key as usize].ticked < **number);
    let mut lost =
        acknowledged.published.iter().filter(|(key, number)| !all[*key as usize].seen.contains(number));
    let late = late.next().map(|((_, key), number)| format!("reminder {number} of account {key}"));
    late.or_else(|| lost.next().map(|(key, number)| format!("item {number} of account {key}")))
}

fn wrong(seed: u64, what: &str) -> quark::Error {
    quark::Error::msg(format!("{what} (the worker's seed was {seed})"))
}
