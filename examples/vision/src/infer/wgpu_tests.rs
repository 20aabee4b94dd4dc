//! These run on llvmpipe, Mesa's software Vulkan device, and fail where it isn't installed.

use std::io::Write as _;
use std::time::Instant;

use super::*;
use crate::infer::check::random_patches;
use crate::infer::conformance;

/// The software device, so that the tests mean the same on every machine.
fn llvmpipe() -> (wgpu::Device, wgpu::Queue) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let instance = wgpu::Instance::new(descriptor);
        let adapters = instance.enumerate_adapters(wgpu::Backends::VULKAN).await;
        let adapter = adapters
            .into_iter()
            .find(|adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu)
            .expect("no software Vulkan device: run `cargo xtask setup`");
        adapter.request_device(&Default::default()).await.expect("llvmpipe gives a device")
    })
}

#[test]
fn wgpu_agrees_with_the_oracle() {
    let (device, queue) = llvmpipe();
    let pipeline = NetworkPipeline::build(&device).expect("the shader compiles");
    conformance::agrees_with_oracle(|weights| {
        Ok(Box::new(WgpuClassifier::new(&device, &queue, &pipeline, weights, 32)?))
    });
}

#[test]
fn wgpu_two_classifiers_share_a_pipeline() {
    let (device, queue) = llvmpipe();
    let pipeline = NetworkPipeline::build(&device).expect("the shader compiles");
    let patches = random_patches(5, 3);
    for seed in [8, 9] {
        let weights = conformance::random_weights(seed);
        let mut first = WgpuClassifier::new(&device, &queue, &pipeline, &weights, 1).expect("room");
        let mut second = WgpuClassifier::new(&device, &queue, &pipeline, &weights, 3).expect("room");
        assert_eq!(first.classify(&patches), second.classify(&patches));
    }
}

#[test]
fn wgpu_buffers_come_to_the_stated_size() {
    let (device, queue) = llvmpipe();
    let pipeline = NetworkPipeline::build(&device).expect("the shader compiles");
    let weights = conformance::random_weights(4);
    for (batch, counted) in [(0, 1), (1, 1), (32, 32), (MAX_BATCH, MAX_BATCH), (usize::MAX, MAX_BATCH)] {
        let mut bytes = 0;
        let built = WgpuClassifier::with_buffers(&device, &queue, &pipeline, &weights, batch, |descriptor| {
            bytes += descriptor.size;
            Ok::<_, InferenceError>(device.create_buffer(descriptor))
        });
        built.expect("room");
        assert_eq!(bytes, vram_needed(counted));
        assert_eq!(bytes, vram_needed(batch));
    }
}

#[test]
fn wgpu_refused_buffers_are_the_callers_error() {
    let (device, queue) = llvmpipe();
    let pipeline = NetworkPipeline::build(&device).expect("the shader compiles");
    let refusal = InferenceError::OutOfMemory { backend: Backend::Wgpu, bytes: 1 };
    let weights = conformance::random_weights(4);
    let built =
        WgpuClassifier::with_buffers(&device, &queue, &pipeline, &weights, 1, |_| Err(refusal.clone()));
    assert_eq!(built.map(|_| ()), Err(refusal));
}

#[test]
fn wgpu_device_errors_are_returned_and_do_not_panic() {
    let (device, queue) = llvmpipe();
    let pipeline = NetworkPipeline::build(&device).expect("the shader compiles");
    let weights = conformance::random_weights(4);
    // A buffer without the usage that the bind group needs.
    let built = WgpuClassifier::with_buffers(&device, &queue, &pipeline, &weights, 1, |descriptor| {
        let usage = wgpu::BufferUsages::COPY_DST;
        Ok::<_, InferenceError>(device.create_buffer(&wgpu::BufferDescriptor { usage, ..descriptor.clone() }))
    });
    let error = built.map(|_| ()).expect_err("the bind group is invalid");
    assert!(matches!(error, InferenceError::Device { backend: Backend::Wgpu, .. }), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

/// Prints a figure; it asserts none, since other work may share the machine.
#[test]
#[ignore = "a measurement: run it with --release --run-ignored all --no-capture"]
fn wgpu_measure_batch_times() {
    let (device, queue) = llvmpipe();
    let pipeline = NetworkPipeline::build(&device).expect("the shader compiles");
    let weights = Weights::trained().expect("the committed weights");
    let mut gpu = WgpuClassifier::new(&device, &queue, &pipeline, &weights, 32).expect("room");
    let mut cpu = crate::infer::cpu::CpuClassifier::new(weights);
    for count in [1, 8, 32] {
        let patches = random_patches(1, count);
        for classifier in [&mut gpu as &mut dyn Classifier, &mut cpu] {
            let mut times: Vec<_> = (0..200)
                .map(|_| {
                    let start = Instant::now();
                    classifier.classify(&patches).expect("runs");
                    start.elapsed()
                })
                .collect();
            times.sort();
            let backend = classifier.backend();
            writeln!(
                std::io::stderr(),
                "{backend} batch {count}: p50 {:?}, p99 {:?}",
                times[100],
                times[198]
            )
            .expect("stderr");
        }
    }
}

/// One device serves an actor's frames and another actor's load at the same time.
#[test]
fn wgpu_threads_share_a_device() {
    let (device, queue) = llvmpipe();
    let pipeline = NetworkPipeline::build(&device).expect("the shader compiles");
    let weights = Weights::trained().expect("the committed weights");
    let patches = random_patches(6, 4);
    let new = || WgpuClassifier::new(&device, &queue, &pipeline, &weights, 32).expect("room");
    let expected = new().classify(&patches).expect("runs");
    std::thread::scope(|scope| {
        for loads in [true, false, false] {
            let (new, patches, expected) = (&new, &patches, &expected);
            scope.spawn(move || {
                let mut classifier = new();
                for round in 0..1_000 {
                    if loads && round % 4 == 0 {
                        classifier = new();
                    }
                    assert_eq!(&classifier.classify(patches).expect("runs"), expected);
                }
            });
        }
    });
}
