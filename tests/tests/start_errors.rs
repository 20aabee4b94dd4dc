//! A silo that cannot start: what it had begun is ended, wherever it was started. Alone in its process, as it takes the
//! process's file descriptors away.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use quark::{Silo, StartError};

const TWO_NODES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../devices/topologies/dual-socket-cpu.toml");

#[tokio::test]
async fn a_silo_that_gets_no_further_threads_ends_those_it_has_and_says_so() {
    let silo = Silo::builder().topology(TWO_NODES).start().unwrap();
    let inventory = silo.inventory().clone();
    silo.shutdown(Duration::from_secs(10)).await;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Each runtime of a silo's own takes a few descriptors; with one more each time, it fails at each of them.
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let mut refused = 0;
    for spare in 0.. {
        setrlimit(Resource::RLIMIT_NOFILE, open + spare, hard).unwrap();
        let started = Silo::builder().inventory(inventory.clone()).start();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        match started {
            Ok(_) => break,
            Err(StartError::Runtime(quark::runtime::StartError::Threads(_))) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 3, "it was refused {refused} times");
}
