//! The actor on a real silo: on the processor, and on llvmpipe.

use std::sync::Arc;

use quark::devices::inventory::{DeviceKind, Inventory};
use quark::devices::pool::PoolOptions;
use quark::devices::probe::{ProbeOptions, probe};
use quark::{ByteSize, CallError, StreamId};

use super::*;
use crate::infer::vram_needed;
use crate::random::Random;
use crate::scene::Conveyor;

/// Frames that a test sends; the channel holds them all.
const FRAMES_SENT: u64 = 5;

fn processor_only() -> Arc<Inventory> {
    Arc::new(Inventory::default())
}

fn llvmpipe() -> Arc<Inventory> {
    let mut inventory = probe(&ProbeOptions::default()).expect("this machine can be looked at");
    inventory.devices.retain(|device| device.kind == DeviceKind::SoftwareAdapter);
    assert!(!inventory.devices.is_empty(), "no software Vulkan device: run `cargo xtask setup`");
    Arc::new(inventory)
}

fn silo(inventory: Arc<Inventory>, pool: PoolOptions, options: AnalyzerOptions) -> Silo {
    Silo::builder()
        .inventory(inventory)
        .devices(pool)
        .prewarm(false)
        .host::<MotionLog>()
        .host_with(VisionAnalyzer::with(options))
        .start()
        .expect("a silo")
}

async fn sees_what_is_shown(silo: &Silo, results: &mut mpsc::Receiver<Sighting>, expected: Backend) {
    let digits = Digits::load().expect("data");
    let belt = Conveyor::new(digits.held_out(), 5);
    let frames = StreamId::new(FRAMES, "cam-1").expect("a stream");
    let clock = MonotonicClock::new();
    let mut shown = 0;
    for number in 0..FRAMES_SENT {
        let scene = belt.scene(1, number * 60);
        shown += scene.truth.len();
        let frame = scene.frame.captured_at(clock.now());
        silo.grid().publish(&frames, frame).await.expect("an analyzer reads it");
    }
    let mut seen = 0;
    for number in 0..FRAMES_SENT {
        let sighting = results.recv().await.expect("the analyzer answers");
        assert_eq!((sighting.camera, sighting.number), (1, number * 60));
        assert!(sighting.latency.is_some());
        let analysis = sighting.result.expect("the network runs");
        assert_eq!(analysis.backend, expected);
        seen += analysis.digits.len();
    }
    assert!(shown > 10 && seen.abs_diff(shown) <= shown / 5, "{seen} seen of {shown}");
    let analyzer = silo.grid().actor::<VisionAnalyzer>("cam-1");
    assert!(analyzer.accuracy().await.expect("the network runs") >= 0.95);
}

#[tokio::test]
async fn frames_are_analysed_on_the_processor_where_there_is_no_device() {
    let (sender, mut results) = mpsc::channel(FRAMES_SENT as usize);
    let options = AnalyzerOptions::default().sightings(sender);
    let silo = silo(processor_only(), PoolOptions::new(), options);
    sees_what_is_shown(&silo, &mut results, Backend::Cpu).await;
    silo.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn wgpu_frames_are_analysed_on_the_leased_device_and_its_memory_is_debited() {
    let (sender, mut results) = mpsc::channel(FRAMES_SENT as usize);
    let options = AnalyzerOptions::default().api(Api::Wgpu).device_required(true).sightings(sender);
    let silo = silo(llvmpipe(), PoolOptions::new().software_adapters(true), options);
    sees_what_is_shown(&silo, &mut results, Backend::Wgpu).await;

    let declared = VisionAnalyzer::SPEC.gpu.expect("it declares a device").vram;
    let usage = &silo.devices().usage()[0];
    assert_eq!(usage.granted, declared);
    assert_eq!(usage.debited, ByteSize::bytes(vram_needed(MAX_DETECTIONS)));
    assert_eq!(usage.leases[0].owner, "vision.analyzer/cam-1");
    assert!(!usage.leases[0].reload_cost.is_zero());

    let freed = silo.devices().memory_freed();
    silo.grid().deactivate::<VisionAnalyzer>("cam-1");
    freed.await;
    let usage = &silo.devices().usage()[0];
    assert_eq!((usage.granted, usage.debited), (ByteSize::ZERO, ByteSize::ZERO));
    silo.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn wgpu_a_need_larger_than_any_device_names_both() {
    let inventory = llvmpipe();
    let pool = PoolOptions::new()
        .software_adapters(true)
        .capacity(inventory.devices[0].id.clone(), ByteSize::mib(1));
    let silo = silo(inventory, pool, AnalyzerOptions::default().device_required(true));
    let refused = silo.grid().actor::<VisionAnalyzer>("cam-1").place().await;
    let text = refused.expect_err("1 MiB is too little").to_string();
    assert!(text.contains("gpu(vram = 4 MiB") && text.contains("has 1 MiB to lease in all"), "{text}");
    assert_eq!(text.lines().count(), 1);
    silo.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn wgpu_a_device_that_the_silo_does_not_lease_is_passed_over() {
    let silo = silo(llvmpipe(), PoolOptions::new(), AnalyzerOptions::default());
    let place = silo.grid().actor::<VisionAnalyzer>("cam-1").place().await;
    assert_eq!(place.expect("the processor will do"), (Backend::Cpu, None));
    silo.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_damaged_model_is_an_error_to_every_caller_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("damaged.safetensors");
    let mut bytes = crate::model::TRAINED.to_vec();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&file, bytes).expect("a file");
    let silo = silo(processor_only(), PoolOptions::new(), AnalyzerOptions::default().model(&file));
    let analyzer = silo.grid().actor::<VisionAnalyzer>("cam-1");
    for _ in 0..2 {
        let error = analyzer.accuracy().await.expect_err("half a file is no model");
        assert!(matches!(error, CallError::Activation(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("damaged.safetensors") && text.lines().count() == 1, "{text}");
    }
    assert!(silo.shutdown(Duration::from_secs(5)).await.drained);
}

#[test]
fn the_committed_need_covers_the_networks_memory() {
    let need = VisionAnalyzer::SPEC.gpu.expect("it declares a device");
    assert!(need.vram.as_u64() >= vram_needed(MAX_DETECTIONS));
    assert!(need.optional && need.allow_software);
}

#[tokio::test]
async fn a_method_called_without_a_silo_says_so() {
    let make = VisionAnalyzer::with(AnalyzerOptions::default());
    let mut analyzer = make(&Key::from("cam-1")).expect("it needs nothing");
    assert!(matches!(analyzer.accuracy().await, Err(VisionError::NotLoaded)));
    analyzer.load(&Cx::detached("vision.analyzer", "cam-1")).await.expect("the processor does");
    let noise = Random::new(3).next_u64();
    let blank = Frame::new(1, noise, 32, 32, vec![0; 32 * 32]).expect("a frame");
    assert!(analyzer.analyze(blank).await.expect("it runs").digits.is_empty());
}

#[tokio::test]
async fn motion_is_logged_by_sensor() {
    let silo = silo(processor_only(), PoolOptions::new(), AnalyzerOptions::default());
    let stream = StreamId::new(MOTION, "cam-2").expect("a stream");
    let published = silo.grid().publish(&stream, Motion { camera: 2, at: Duration::ZERO }).await;
    assert_eq!(published.expect("the log reads it").subscribers, 1);
    // Behind the event in the same mailbox.
    assert_eq!(silo.grid().actor::<MotionLog>("cam-2").events().await.expect("the log"), 1);
    assert_eq!(silo.grid().actor::<MotionLog>("cam-3").events().await.expect("the log"), 0);
    silo.shutdown(Duration::from_secs(5)).await;
}
