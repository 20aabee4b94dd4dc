//! Redis beside its own tool.

use std::process::Command;

use crate::{Kind, Options, measure};

/// The script of a commit that writes one state.
const SCRIPT: &str = include_str!("../../src/redis/scripts/commit_slot.lua");

pub(crate) async fn redis(options: &Options) {
    // What is rewritten behind our back would be measured as well, in whichever turn it falls.
    let settings = ["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"];
    let mut server = quark_servers::local::redis(&settings).unwrap_or_else(|error| panic!("{error}"));
    let url = server.address().parse().expect("an address");
    let store = quark_storage::open(&url).await.unwrap_or_else(|error| panic!("{error}"));
    let port = server.process().expect("a process of ours").port();
    println!("{} writers, states of {} bytes, appendfsync everysec", options.writers, options.bytes);
    let (mut updates, mut firsts, mut tool, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds.max(1) {
        ask(port, &["FLUSHALL"]);
        updates.push(measure(&store, options, Kind::Update).await);
        let first = measure(&store, options, Kind::First).await;
        let bare = redis_benchmark(port, options);
        println!("First, by redis-benchmark -P 16: {bare:.0}/s");
        firsts.push(first);
        tool.push(bare);
        ratios.push(first / bare);
    }
    println!(
        "middle of {} rounds: {:.0} updates/s; {:.0} first commits/s, by redis-benchmark {:.0}/s, ratio {:.2}",
        ratios.len(),
        middle(updates),
        middle(firsts),
        middle(tool),
        middle(ratios)
    );
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Sends one command with Redis' own tool, and gives what it says.
fn ask(port: u16, command: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(command).output();
    let output = output.expect("redis-cli; install it: apt-get install redis-tools");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Calls of the same script a second by Redis' own tool, 50 connections with 16 calls on their way each.
///
/// Each is the first commit of another actor: of an update, the tool can say neither which number comes next nor which
/// ETag, and the script would refuse it.
fn redis_benchmark(port: u16, options: &Options) -> f64 {
    let hash = ask(port, &["SCRIPT", "LOAD", SCRIPT]);
    let port = port.to_string();
    let value = format!("1-1 1 4 json{}", "x".repeat(options.bytes));
    let output = Command::new("redis-benchmark")
        .args(["-p", &port, "-P", "16", "-n", "500000", "-r", "1000000000", "--csv"])
        .args([
            "EVALSHA",
            &hash,
            "1",
            "{quark:0}:a:bench/tool-__rand_int__",
            "0",
            "1",
            "1",
            "s:state",
            "",
            &value,
        ])
        .output()
        .expect("redis-benchmark; install it: apt-get install redis-tools");
    let text = String::from_utf8_lossy(&output.stdout);
    // "test","rps",… and below it the command and its rate.
    let last = text.lines().last().unwrap_or_default();
    let rate = last.rsplit('"').map(str::trim).filter_map(|part| part.parse::<f64>().ok()).next_back();
    rate.unwrap_or_else(|| panic!("redis-benchmark said: {text}"))
}
