//! The same work on Quark and on other actor frameworks, side by side in one process run.
//!
//! Every framework gets a typed reply, an actor whose panic ends only its own task, and a bounded mailbox where it
//! has one (ractor has none). The rounds are interleaved, and the figures are medians over rounds: the machine's
//! drift hits all alike. A ratio above 1 says that Quark is better than the best peer.

mod frameworks;
mod works;

use clap::Parser;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use works::Work;

/// Compares Quark with other actor frameworks.
#[derive(Debug, Parser)]
struct Args {
    /// Prints an array of objects for machines
    #[arg(long)]
    json: bool,
    /// Rounds that each figure is the median of
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Only the work of this name
    #[arg(long)]
    only: Option<String>,
}

/// Counts what is allocated, for the memory of idle actors.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it hands every request to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the callee's demand.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated now.
pub(crate) fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// One row of the comparison.
#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    unit: &'static str,
    quark: f64,
    peers: BTreeMap<&'static str, f64>,
    ratio_to_best_peer: f64,
}

fn main() {
    let args = Args::parse();
    let chosen = |work: &&Work| args.only.as_deref().is_none_or(|name| work.name() == name);
    let rows: Vec<Row> = Work::ALL.iter().filter(chosen).map(|&work| row(work, args.rounds.max(1))).collect();
    #[expect(clippy::print_stdout, reason = "the comparison is what this program prints")]
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).expect("rows are plain values"));
    } else {
        println!("{}", table(&rows));
    }
}

fn row(work: Work, rounds: usize) -> Row {
    let mut figures: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (name, figure) in frameworks::measure(work) {
            figures.entry(name).or_default().push(figure);
        }
    }
    let mut peers: BTreeMap<_, _> =
        figures.into_iter().map(|(name, figures)| (name, median(figures))).collect();
    let quark = peers.remove("quark").unwrap_or(f64::NAN);
    // Every figure is a cost: less is better.
    let best = peers.values().copied().fold(f64::INFINITY, f64::min);
    Row { work: work.name(), unit: work.unit(), quark, peers, ratio_to_best_peer: best / quark }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let names: Vec<&str> = rows.first().map(|row| row.peers.keys().copied().collect()).unwrap_or_default();
    let heads =
        ["work", "unit", "quark"].into_iter().chain(names.iter().copied()).chain(["best peer / quark"]);
    table.set_header(heads);
    for row in rows {
        let number = |figure: f64| Cell::new(format!("{figure:.1}")).set_alignment(CellAlignment::Right);
        let mut cells = vec![Cell::new(row.work), Cell::new(row.unit), number(row.quark)];
        cells.extend(names.iter().map(|name| number(row.peers[name])));
        cells.push(number(row.ratio_to_best_peer));
        table.add_row(cells);
    }
    table
}
