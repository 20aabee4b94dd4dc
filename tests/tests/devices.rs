//! Actors on devices: leases, books, refusals, eviction, and the threads that turns run on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use quark::prelude::*;
use quark::{DeviceAbsent, Outcome, Retry};
use quark_tests::{Gate, TestClock, builder, builder_on, on_both_runtimes, on_threads, until};
use tokio::task::JoinSet;

/// Where a turn ran: its thread's name.
fn thread() -> String {
    std::thread::current().name().unwrap_or("(unnamed)").to_owned()
}

/// An actor that needs 7 GiB: three fit on one L4.
#[derive(Actor)]
#[actor(name = "devices.model", idle = "10m", gpu(vram = "7 GiB"))]
struct Model {
    loaded_on: String,
    calls: u32,
}

#[methods]
impl Model {
    #[on_activate]
    async fn load(&mut self, cx: &Cx) -> Result<()> {
        // A lease is granted before the actor's own code runs.
        assert_eq!(cx.device()?.granted(), ByteSize::gib(7));
        self.loaded_on = thread();
        Ok(())
    }

    pub async fn call(&mut self) -> u32 {
        self.calls += 1;
        self.calls
    }

    pub async fn device(&self, cx: &Cx) -> (String, ByteSize, bool) {
        let lease = cx.device().unwrap();
        (lease.device().id.to_string(), lease.granted(), lease.is_simulated())
    }

    /// The threads of its activation, of a turn, and of the same turn after it waited.
    pub async fn threads(&mut self) -> [String; 3] {
        let first = thread();
        tokio::task::yield_now().await;
        [self.loaded_on.clone(), first, thread()]
    }

    pub async fn hold(&mut self, started: Arc<Gate>, gate: Arc<Gate>) -> u32 {
        started.open();
        gate.passed().await;
        self.calls
    }

    pub async fn panics(&mut self) {
        panic!("on the device");
    }
}

fn granted(silo: &Silo) -> ByteSize {
    silo.devices().usage().iter().map(|device| device.granted).sum()
}

/// No device may ever promise more than it has.
fn check_books(silo: &Silo) {
    for device in silo.devices().usage() {
        let leasable = device.capacity.saturating_sub(device.reserve);
        assert!(device.granted <= leasable, "{}: {} granted of {leasable}", device.device, device.granted);
    }
}

#[test]
fn an_actor_gets_its_lease_before_it_is_activated_and_gives_it_back_as_it_leaves() {
    on_both_runtimes(|| async {
        let silo = builder_on("l4x4").host::<Model>().start().unwrap();
        let model = silo.grid().actor::<Model>("one");
        assert_eq!(granted(&silo), ByteSize::ZERO, "nobody has called yet");
        let (device, bytes, simulated) = model.device().await.unwrap();
        assert_eq!((bytes, simulated), (ByteSize::gib(7), true));
        let books = silo.devices().usage();
        let books = books.iter().find(|books| books.device.to_string() == device).unwrap();
        assert_eq!((books.granted, granted(&silo)), (ByteSize::gib(7), ByteSize::gib(7)));
        silo.grid().deactivate::<Model>("one");
        until(|| granted(&silo) == ByteSize::ZERO).await;
        assert_eq!(model.call().await.unwrap(), 1, "a fresh actor");
        assert_eq!(granted(&silo), ByteSize::gib(7));
    });
}

#[test]
fn a_panic_on_a_device_gives_its_lease_back_before_the_next_activation_takes_one() {
    on_both_runtimes(|| async {
        let silo = builder_on("l4x4").host::<Model>().start().unwrap();
        let model = silo.grid().actor::<Model>("one");
        for _ in 0..5 {
            assert!(matches!(model.panics().await, Err(CallError::Panicked(_))));
            assert_eq!(model.call().await.unwrap(), 1);
            assert_eq!(granted(&silo), ByteSize::gib(7));
        }
    });
}

#[test]
fn a_shutdown_gives_every_lease_back() {
    on_both_runtimes(|| async {
        let silo = builder_on("l4x4").host::<Model>().start().unwrap();
        for n in 0..6_u64 {
            silo.grid().actor::<Model>(n).call().await.unwrap();
        }
        let devices = silo.devices().clone();
        assert!(silo.shutdown(Duration::from_secs(10)).await.drained);
        assert!(devices.usage().iter().all(|device| device.granted.is_zero()));
    });
}

#[test]
fn leases_spread_over_equal_devices() {
    on_both_runtimes(|| async {
        let silo = builder_on("l4x4").host::<Model>().start().unwrap();
        let mut devices = BTreeSet::new();
        for n in 0..4_u64 {
            devices.insert(silo.grid().actor::<Model>(n).device().await.unwrap().0);
        }
        assert_eq!(devices.len(), 4);
    });
}

#[derive(Actor)]
#[actor(name = "devices.huge", gpu(vram = "400 GiB"))]
struct Huge;

#[methods]
impl Huge {
    pub async fn call(&mut self) {}
}

#[test]
fn a_requirement_larger_than_any_device_is_refused_in_one_line_with_what_each_lacks() {
    on_both_runtimes(|| async {
        let silo = builder_on("h100x8").host::<Huge>().start().unwrap();
        let error = silo.grid().actor::<Huge>("one").call().await.unwrap_err();
        assert!(matches!(error, CallError::NoDevice(_)), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("no device fits gpu(vram = 400 GiB): "), "{text}");
        assert!(
            text.contains("each of 8 NVIDIA H100 80GB HBM3 (simulated) has 79.1") && !text.contains('\n'),
            "{text}"
        );
        assert_eq!((error.outcome(), error.retry()), (Outcome::Rejected, Retry::Pointless));
        assert_eq!(granted(&silo), ByteSize::ZERO);
    });
}

#[test]
fn a_machine_without_a_gpu_says_so() {
    on_both_runtimes(|| async {
        let silo = builder_on("dual-socket-cpu").host::<Model>().start().unwrap();
        let error = silo.grid().actor::<Model>("one").call().await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("no device fits gpu(vram = 7 GiB): this machine has no GPU;"), "{text}");
        assert_eq!(error.retry(), Retry::Pointless);
    });
}

#[test]
fn an_integrated_gpu_of_unknown_memory_does_not_stand_in_the_way_of_a_real_one() {
    on_both_runtimes(|| async {
        let silo = builder_on("laptop").host::<Model>().start().unwrap();
        let (device, ..) = silo.grid().actor::<Model>("one").device().await.unwrap();
        let name =
            &silo.inventory().devices.iter().find(|known| known.id.to_string() == device).unwrap().name;
        assert!(name.contains("RTX 4060"), "{name}");
    });
}

/// Runs on the CPU where no device fits.
#[derive(Actor)]
#[actor(name = "devices.either", gpu(vram = "10 GiB", optional))]
struct Either {
    on_gpu: bool,
}

#[methods]
impl Either {
    #[on_activate]
    async fn load(&mut self, cx: &Cx) -> Result<()> {
        self.on_gpu = cx.device().is_ok();
        Ok(())
    }

    pub async fn place(&self, cx: &Cx) -> (bool, Option<String>) {
        let why = match cx.device() {
            Ok(_) => None,
            Err(why @ DeviceAbsent::NoneFits(_)) => Some(why.to_string()),
            Err(other) => panic!("{other}"),
        };
        (self.on_gpu, why)
    }
}

#[test]
fn an_optional_device_is_taken_where_there_is_one_and_done_without_elsewhere() {
    on_both_runtimes(|| async {
        let with = builder_on("l4x4").host::<Either>().start().unwrap();
        assert_eq!(with.grid().actor::<Either>("one").place().await.unwrap(), (true, None));
        let without = builder_on("dual-socket-cpu").host::<Either>().start().unwrap();
        let (on_gpu, why) = without.grid().actor::<Either>("one").place().await.unwrap();
        assert!(!on_gpu && why.unwrap().contains("this machine has no GPU"));
    });
}

#[derive(Actor)]
#[actor(name = "devices.plain")]
struct Plain {
    threads: BTreeSet<String>,
}

#[methods]
impl Plain {
    pub async fn call(&mut self) -> BTreeSet<String> {
        self.threads.insert(thread());
        tokio::task::yield_now().await;
        self.threads.insert(thread());
        self.threads.clone()
    }

    pub async fn device(&self, cx: &Cx) -> String {
        cx.device().unwrap_err().to_string()
    }
}

#[test]
fn an_actor_that_declares_no_device_is_told_how_to() {
    on_both_runtimes(|| async {
        let silo = builder_on("l4x4").host::<Plain>().start().unwrap();
        let text = silo.grid().actor::<Plain>("one").device().await.unwrap();
        assert_eq!(text, "devices.plain declares no device; add gpu(vram = …) to its #[actor(…)]");
    });
}

#[test]
fn more_actors_than_memory_take_turns_on_it_by_eviction() {
    // Twelve fit on four L4s.
    const ACTORS: u64 = 30;
    on_both_runtimes(|| async {
        let silo = builder_on("l4x4").host::<Model>().start().unwrap();
        for round in 1..=2 {
            for n in 0..ACTORS {
                let calls = silo.grid().actor::<Model>(n).call().await;
                assert!(calls.unwrap_or_else(|error| panic!("{round}/{n}: {error}")) <= round);
                check_books(&silo);
            }
        }
        assert_eq!(granted(&silo), ByteSize::gib(7 * 12), "the devices are full");
    });
}

#[test]
fn a_crowd_that_retries_what_is_safe_to_retry_gets_through() {
    const ACTORS: u64 = 30;
    on_threads(|| async {
        let silo = builder_on("l4x4").host::<Model>().start().unwrap();
        let mut calls = JoinSet::new();
        for n in 0..ACTORS {
            let model = silo.grid().actor::<Model>(n);
            calls.spawn(async move {
                loop {
                    match model.call().await {
                        Ok(_) => break,
                        Err(error) if error.retry() == Retry::Safe => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        while let Some(called) = calls.join_next().await {
            called.unwrap();
            check_books(&silo);
        }
    });
}

/// Fills the four L4s with twelve models and gives who sits on the first one's device.
async fn fill(silo: &Silo) -> Vec<(u64, String)> {
    let mut places = Vec::new();
    for n in 0..12_u64 {
        places.push((n, silo.grid().actor::<Model>(n).device().await.unwrap().0));
    }
    assert_eq!(granted(silo), ByteSize::gib(7 * 12));
    places
}

#[test]
fn a_busy_actor_is_not_evicted() {
    on_both_runtimes(|| async {
        let silo = builder_on("l4x4").host::<Model>().start().unwrap();
        fill(&silo).await;
        let gate = Gate::new();
        let mut holds = JoinSet::new();
        for n in 0..12_u64 {
            let (model, started) = (silo.grid().actor::<Model>(n), Gate::new());
            assert_eq!(model.call().await.unwrap(), 1);
            holds.spawn({
                let (started, gate) = (started.clone(), gate.clone());
                async move { model.hold(started, gate).await.unwrap() }
            });
            started.passed().await;
        }
        let refused = silo.grid().actor::<Model>("late").call().await.unwrap_err();
        assert!(matches!(refused, CallError::NoDevice(_)), "{refused}");
        assert_eq!((refused.outcome(), refused.retry()), (Outcome::Rejected, Retry::Safe), "{refused}");
        gate.open();
        while let Some(held) = holds.join_next().await {
            assert_eq!(held.unwrap(), 1, "its state is as it was");
        }
        // With the turns over there is room.
        assert_eq!(silo.grid().actor::<Model>("late").call().await.unwrap(), 1);
        check_books(&silo);
    });
}

#[test]
fn a_busy_actor_does_not_keep_idle_ones_from_being_evicted() {
    on_both_runtimes(|| async {
        let clock = TestClock::new();
        let silo = builder_on("l4x4").clock(clock.clone()).host::<Model>().start().unwrap();
        fill(&silo).await;
        // All but the last actor run: whoever is least recently used, only one can be evicted.
        let gate = Gate::new();
        let mut holds = JoinSet::new();
        for n in 0..11_u64 {
            let (model, started) = (silo.grid().actor::<Model>(n), Gate::new());
            holds.spawn({
                let (started, gate) = (started.clone(), gate.clone());
                async move { model.hold(started, gate).await.unwrap() }
            });
            started.passed().await;
        }
        let late = silo.grid().actor::<Model>("late").call().await;
        assert_eq!(late.unwrap_or_else(|error| panic!("{error}")), 1);
        assert_eq!(silo.grid().census().types[0].active, 12);
        gate.open();
        while let Some(held) = holds.join_next().await {
            assert_eq!(held.unwrap(), 0, "it was not evicted");
        }
    });
}

/// Counts its evictions.
#[derive(Actor)]
#[actor(name = "devices.counted", factory, gpu(vram = "20 GiB"))]
struct Counted {
    evicted: Arc<AtomicU32>,
}

#[methods]
impl Counted {
    #[on_deactivate]
    async fn leave(&mut self, why: DeactivationReason) -> Result<()> {
        self.evicted.fetch_add(u32::from(why == DeactivationReason::Evicted), Ordering::SeqCst);
        Ok(())
    }

    pub async fn call(&mut self) {}
}

#[test]
fn an_evicted_actor_hears_why() {
    on_both_runtimes(|| async {
        let evicted = Arc::new(AtomicU32::new(0));
        let theirs = evicted.clone();
        let make = move |_: &Key| Ok(Counted { evicted: theirs.clone() });
        let silo = builder_on("l4x4").host_with(make).start().unwrap();
        for n in 0..6_u64 {
            silo.grid().actor::<Counted>(n).call().await.unwrap();
        }
        assert_eq!(evicted.load(Ordering::SeqCst), 2, "four fit");
    });
}

/// Loads while the gate is shut, counting who loads onto the same device meanwhile.
#[derive(Actor)]
#[actor(name = "devices.loading", factory, gpu(vram = "1 GiB"))]
struct Loading {
    loads: Arc<Mutex<BTreeMap<String, u32>>>,
    gate: Arc<Gate>,
}

#[methods]
impl Loading {
    #[on_activate]
    async fn load(&mut self, cx: &Cx) -> Result<()> {
        let device = cx.device()?.device().id.to_string();
        *self.loads.lock().unwrap().entry(device).or_default() += 1;
        self.gate.passed().await;
        Ok(())
    }

    pub async fn call(&mut self) {}
}

#[test]
fn loads_onto_one_device_are_bounded_and_stall_no_turns() {
    const ACTORS: u64 = 40;
    on_both_runtimes(|| async {
        let (loads, gate) = (Arc::new(Mutex::new(BTreeMap::new())), Gate::new());
        let theirs = (loads.clone(), gate.clone());
        let make = move |_: &Key| Ok(Loading { loads: theirs.0.clone(), gate: theirs.1.clone() });
        let silo = builder_on("l4x4").host_with(make).host::<Plain>().start().unwrap();
        let mut calls = JoinSet::new();
        for n in 0..ACTORS {
            let loading = silo.grid().actor::<Loading>(n);
            calls.spawn(async move { loading.call().await.unwrap() });
        }
        until(|| granted(&silo) == ByteSize::gib(ACTORS)).await;
        until(|| loads.lock().unwrap().values().sum::<u32>() == 8).await;
        silo.grid().actor::<Plain>("one").call().await.unwrap();
        assert_eq!(
            loads.lock().unwrap().values().copied().collect::<Vec<_>>(),
            [2; 4],
            "two onto each device"
        );
        gate.open();
        while let Some(called) = calls.join_next().await {
            called.unwrap();
        }
        assert_eq!(loads.lock().unwrap().values().sum::<u32>(), ACTORS as u32);
    });
}

#[test]
fn an_actor_of_a_machine_with_two_nodes_stays_on_one_of_them() {
    on_both_runtimes(|| async {
        let silo = builder_on("dual-socket-cpu").host::<Plain>().start().unwrap();
        let mut nodes = BTreeSet::new();
        for n in 0..40_u64 {
            let plain = silo.grid().actor::<Plain>(n);
            let mut threads = BTreeSet::new();
            for _ in 0..5 {
                threads.extend(plain.call().await.unwrap());
            }
            assert_eq!(threads.len(), 1, "{threads:?}");
            nodes.extend(threads);
        }
        assert_eq!(nodes, BTreeSet::from(["quark-node-0".to_owned(), "quark-node-1".to_owned()]));
    });
}

#[test]
fn turns_of_an_actor_on_a_device_run_on_its_devices_thread_and_loads_elsewhere() {
    on_both_runtimes(|| async {
        let silo = builder_on("h100x8").host::<Model>().start().unwrap();
        for n in 0..8_u64 {
            let threads = silo.grid().actor::<Model>(n).threads().await.unwrap();
            assert_eq!(threads, ["quark-load", "quark-gpu", "quark-gpu"]);
        }
    });
}

#[test]
fn on_a_machine_with_one_node_turns_run_on_the_callers_runtime() {
    on_both_runtimes(|| async {
        let silo = builder().host::<Plain>().start().unwrap();
        let threads = silo.grid().actor::<Plain>("one").call().await.unwrap();
        assert!(threads.iter().all(|thread| !thread.starts_with("quark-")), "{threads:?}");
    });
}

/// Breaks on its device, and is restarted by its silo.
#[derive(Actor)]
#[actor(name = "devices.unsteady", gpu(vram = "7 GiB"), root(backoff = "none"))]
struct Unsteady;

#[methods]
impl Unsteady {
    pub async fn lease(&self, cx: &Cx) -> String {
        format!("{:?}", cx.device().unwrap().id())
    }

    pub async fn breaks(&self) {
        panic!("on the device");
    }
}

#[test]
fn a_restart_keeps_the_device_lease() {
    on_both_runtimes(|| async {
        let silo = builder_on("l4x4").host::<Unsteady>().start().unwrap();
        let actor = silo.grid().actor::<Unsteady>("one");
        let lease = actor.lease().await.unwrap();
        assert!(actor.breaks().await.is_err());
        assert_eq!(actor.lease().await.unwrap(), lease);
        silo.grid().deactivate::<Unsteady>("one");
        until(|| silo.grid().census().activations == 0).await;
        assert_ne!(actor.lease().await.unwrap(), lease, "another activation leases anew");
    });
}
