use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::inventory::{Cpu, DeviceFeatures, Host, Memory, NumaNode, Source, SourceIndices, Vendor};
use crate::ledger::{OverLease, PinError};

/// A machine with these devices and nothing else worth telling.
pub(crate) fn inventory(devices: Vec<Device>) -> Inventory {
    Inventory {
        host: Host::default(),
        cpu: Cpu::default(),
        numa: vec![NumaNode::default()],
        memory: Memory::default(),
        devices,
        notes: Vec::new(),
        simulated: true,
    }
}

/// A GPU from a topology file.
pub(crate) fn simulated(id: &str, vram: ByteSize) -> Device {
    Device {
        id: DeviceId::new(id),
        kind: DeviceKind::Gpu,
        name: "Simulated GPU".into(),
        vendor: Vendor::Nvidia,
        uuid: None,
        pci: None,
        pci_ids: None,
        numa_node: Some(0),
        vram,
        compute_capability: None,
        compute_units: None,
        driver: None,
        features: DeviceFeatures::default(),
        limits: None,
        mig: None,
        indices: SourceIndices::default(),
        sources: vec![Source::Simulated],
        simulated: true,
    }
}

fn of_kind(id: &str, kind: DeviceKind) -> Device {
    Device { kind, ..simulated(id, ByteSize::gib(8)) }
}

/// A pool of one 8 GiB GPU, half a GiB of it held back.
fn pool() -> Arc<DevicePool> {
    DevicePool::open(Arc::new(inventory(vec![simulated("gpu", ByteSize::gib(8))])), PoolOptions::new())
}

fn lease(pool: &Arc<DevicePool>, bytes: ByteSize) -> Result<DeviceLease, LeaseError> {
    pool.lease(&DeviceId::new("gpu"), bytes, "test", Duration::from_secs(1))
}

fn free(pool: &DevicePool) -> ByteSize {
    pool.leasable(&DeviceId::new("gpu")).unwrap()
}

#[test]
fn a_lease_gives_back_when_it_is_dropped() {
    let pool = pool();
    assert_eq!(free(&pool), ByteSize::mib(7680));
    let held = lease(&pool, ByteSize::gib(7)).unwrap();
    assert!(held.is_simulated());
    assert_eq!((held.granted(), held.used()), (ByteSize::gib(7), ByteSize::ZERO));
    assert_eq!(held.device().id, DeviceId::new("gpu"));
    assert!(matches!(lease(&pool, ByteSize::gib(1)), Err(LeaseError::Shortfall(Shortfall::NotFree { .. }))));
    assert_eq!(pool.usage()[0].leases[0].owner, "test");
    drop(held);
    assert_eq!(free(&pool), ByteSize::mib(7680));
}

#[test]
fn memory_in_use_outlives_its_lease() {
    let pool = pool();
    let held = lease(&pool, ByteSize::gib(2)).unwrap();
    let reserved = held.reserve(ByteSize::gib(1)).unwrap();
    assert_eq!(held.used(), ByteSize::gib(1));
    assert!(matches!(held.reserve(ByteSize::mib(1025)), Err(OverLease::TooMuch { .. })));
    drop(held);
    assert_eq!(free(&pool), ByteSize::mib(5632), "the reservation still stands for memory");
    drop(reserved);
    assert_eq!(free(&pool), ByteSize::mib(7680));
}

#[test]
fn a_turn_keeps_its_lease_from_eviction() {
    let pool = pool();
    let held = lease(&pool, ByteSize::gib(7)).unwrap();
    let turn = held.pin().unwrap();
    assert!(pool.victims(&DeviceId::new("gpu"), ByteSize::gib(1)).is_empty());
    assert!(matches!(pool.begin_unload(held.id()), Err(UnloadError::Pinned { pins: 1, .. })));
    drop(turn);
    assert_eq!(pool.victims(&DeviceId::new("gpu"), ByteSize::gib(1)), vec![held.id()]);
    pool.begin_unload(held.id()).unwrap();
    assert!(matches!(held.pin(), Err(PinError::Unloading { .. })));
    assert!(matches!(lease(&pool, ByteSize::gib(1)), Err(LeaseError::Shortfall(Shortfall::NotFree { .. }))));
    drop(held);
    assert!(lease(&pool, ByteSize::gib(1)).is_ok());
}

#[test]
fn dear_content_stays_longer() {
    let pool = pool();
    let (first, second) = (lease(&pool, ByteSize::gib(3)).unwrap(), lease(&pool, ByteSize::gib(3)).unwrap());
    first.set_reload_cost(Duration::from_secs(60));
    assert_eq!(pool.victims(&DeviceId::new("gpu"), ByteSize::gib(2)), vec![second.id()]);
    second.set_reload_cost(Duration::from_secs(90));
    assert_eq!(pool.victims(&DeviceId::new("gpu"), ByteSize::gib(2)), vec![first.id()]);
}

#[test]
fn what_cannot_be_leased_says_why() {
    let unknown = DeviceId::new("nowhere");
    let mut devices = vec![
        of_kind("software", DeviceKind::SoftwareAdapter),
        of_kind("console", DeviceKind::Display),
        simulated("dark", ByteSize::ZERO),
    ];
    devices[0].vram = ByteSize::gib(64);
    devices.push(Device { vram: ByteSize::gib(1), ..of_kind("small", DeviceKind::SoftwareAdapter) });
    let inventory = Arc::new(inventory(devices));
    let pool = DevicePool::open(Arc::clone(&inventory), PoolOptions::new());
    let refused =
        |id: &str| pool.lease(&DeviceId::new(id), ByteSize::mib(1), "test", Duration::ZERO).unwrap_err();
    assert!(matches!(refused("software"), LeaseError::SoftwareAdapter { .. }));
    assert!(matches!(refused("console"), LeaseError::NotForComputing { .. }));
    assert!(matches!(refused("dark"), LeaseError::UnknownMemory { .. }));
    assert_eq!(pool.leasable(&unknown), Err(LeaseError::UnknownDevice { device: unknown }));
    assert!(pool.usage().is_empty());

    let options =
        PoolOptions::new().software_adapters(true).capacity(DeviceId::new("dark"), ByteSize::gib(16));
    let pool = DevicePool::open(inventory, options);
    assert_eq!(pool.leasable(&DeviceId::new("software")), Ok(DEFAULT_SOFTWARE_CAPACITY));
    assert_eq!(pool.leasable(&DeviceId::new("small")), Ok(ByteSize::gib(1)));
    assert_eq!(pool.leasable(&DeviceId::new("dark")), Ok(ByteSize::mib(15 * 1024 + 512)));
}

#[test]
fn small_devices_hold_back_a_sixteenth() {
    let devices = vec![simulated("gpu", ByteSize::gib(1))];
    let pool = DevicePool::open(Arc::new(inventory(devices)), PoolOptions::new());
    assert_eq!(free(&pool), ByteSize::mib(960));
}

#[test]
fn readings_reach_the_ledger() {
    let pool = pool();
    let sample = LiveSample {
        devices: vec![crate::sample::DeviceSample {
            vram_used: Some(ByteSize::gib(6)),
            ..crate::sample::DeviceSample::unknown(DeviceId::new("gpu"))
        }],
        ..LiveSample::default()
    };
    pool.reconcile_with(&sample);
    assert_eq!(free(&pool), ByteSize::gib(2));
    assert!(!pool.reconcile(&DeviceId::new("nowhere"), ByteSize::ZERO));
}

/// Counts how often it was woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_release_wakes_who_waits_for_memory() {
    let pool = pool();
    let held = lease(&pool, ByteSize::gib(7)).unwrap();
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(Arc::clone(&counter));
    let mut context = Context::from_waker(&waker);
    let mut freed = pin!(pool.memory_freed());
    assert_eq!(freed.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(freed.as_mut().poll(&mut context), Poll::Pending);
    let missed = pool.memory_freed();
    drop(held);
    assert_eq!(counter.0.load(Ordering::SeqCst), 1, "one waiter is woken once");
    assert_eq!(freed.as_mut().poll(&mut context), Poll::Ready(()));
    assert_eq!(pin!(missed).poll(&mut context), Poll::Ready(()), "asked for before the release");
    assert_eq!(pin!(pool.memory_freed()).poll(&mut context), Poll::Pending, "asked for after it");
}

#[test]
fn waiting_is_bounded_and_forgets_who_left() {
    let pool = pool();
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting: Vec<_> = (0..MAX_WAITERS).map(|_| Box::pin(pool.memory_freed())).collect();
    for waiter in &mut waiting {
        assert_eq!(waiter.as_mut().poll(&mut context), Poll::Pending);
    }
    assert_eq!(pin!(pool.memory_freed()).poll(&mut context), Poll::Ready(()), "one too many asks again");
    waiting.pop();
    assert_eq!(pin!(pool.memory_freed()).poll(&mut context), Poll::Pending);
}

#[test]
fn many_threads_never_lease_more_than_there_is() {
    let pool = pool();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let held = lease(&pool, ByteSize::gib(3));
                    let usage = &pool.usage()[0];
                    assert!(usage.granted.as_u64() + usage.reserve.as_u64() <= usage.capacity.as_u64());
                    drop(held);
                }
            });
        }
    });
    assert_eq!(free(&pool), ByteSize::mib(7680));
}
