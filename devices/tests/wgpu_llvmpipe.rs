//! The wgpu backend for real, on Mesa's software Vulkan driver: any Linux machine can run these.
#![cfg(feature = "wgpu")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use quark_base::ByteSize;
use quark_devices::context::wgpu::{PipelineError, WgpuContext};
use quark_devices::context::{AllocError, ContextError, SharedError};
use quark_devices::inventory::{Device, DeviceKind, Inventory, NoteKind, Source};
use quark_devices::lease::DeviceLease;
use quark_devices::ledger::OverLease;
use quark_devices::pool::{DevicePool, LeaseError, PoolOptions};
use quark_devices::probe;
use wgpu::{BufferDescriptor, BufferUsages, PollType};

const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&values)) {
        values[id.x] = values[id.x] * 2.0;
    }
}
";

/// A machine with GPUs, to have a device that this one lacks.
const TOPOLOGY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/laptop.toml");

const NO_ADAPTER: &str = "no software Vulkan adapter (llvmpipe) on this machine: run `cargo xtask setup` to install mesa-vulkan-drivers";

/// This machine's inventory with its software adapter.
fn machine() -> (Inventory, Device) {
    let inventory = probe::this_machine();
    let adapter = inventory.devices.iter().find(|device| device.kind == DeviceKind::SoftwareAdapter);
    let adapter = adapter.expect(NO_ADAPTER).clone();
    (inventory, adapter)
}

fn pool() -> (Arc<DevicePool>, Device) {
    let (inventory, adapter) = machine();
    (DevicePool::open(Arc::new(inventory), PoolOptions::new().software_adapters(true)), adapter)
}

fn lease(pool: &Arc<DevicePool>, device: &Device, bytes: ByteSize) -> DeviceLease {
    pool.lease(&device.id, bytes, "test", Duration::from_millis(5))
        .expect("the software adapter can be leased")
}

fn storage(size: u64) -> BufferDescriptor<'static> {
    BufferDescriptor { label: None, size, usage: BufferUsages::STORAGE, mapped_at_creation: false }
}

/// Runs `DOUBLE` on these values.
fn doubled(lease: &DeviceLease, context: &WgpuContext, values: &[f32]) -> Vec<f32> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let size = bytes.len() as u64;
    let buffer =
        lease.upload_buffer("values", &bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC).unwrap();
    let back = lease
        .create_buffer(&BufferDescriptor {
            label: Some("back"),
            size,
            usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
        .unwrap();
    let pipeline = context.compute_pipeline("double", DOUBLE, "double").unwrap();
    let group = context.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    });
    let mut encoder = context.device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(values.len().div_ceil(64) as u32, 1, 1);
    }
    encoder.copy_buffer_to_buffer(&buffer, 0, &back, 0, size);
    context.queue.submit([encoder.finish()]);
    back.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
    context.device.poll(PollType::wait_indefinitely()).unwrap();
    let view = back.get_mapped_range(..).unwrap();
    view.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn wgpu_probe_lists_llvmpipe_as_a_cpu() {
    let report = probe::wgpu::probe();
    let adapter = report.devices.iter().find(|device| device.kind == Some(DeviceKind::SoftwareAdapter));
    let adapter = adapter.expect(NO_ADAPTER);
    assert!(adapter.name.as_deref().unwrap().contains("llvmpipe"), "{adapter:?}");
    assert_eq!((adapter.source, adapter.pci), (Source::Wgpu, None));
    assert!(adapter.driver.as_deref().unwrap().contains("llvmpipe"), "{adapter:?}");
    assert!(adapter.vram.unwrap() > ByteSize::mib(64), "its heap is main memory: {adapter:?}");
    let limits = adapter.limits.unwrap();
    assert!(limits.max_buffer >= ByteSize::mib(256), "{limits:?}");
    assert!(limits.max_storage_binding >= ByteSize::mib(128), "{limits:?}");
    assert!(limits.max_workgroup_invocations >= 256 && limits.min_subgroup_size > 0, "{limits:?}");
    assert!(adapter.features.timestamps && adapter.features.subgroups, "{:?}", adapter.features);
}

/// Runs `work` in a process of its own with these variables: the Vulkan loader reads them when it is loaded.
fn in_process(test: &str, variables: &[(&str, &Path)], work: impl FnOnce()) {
    const CHILD: &str = "QUARK_WGPU_CHILD";
    if std::env::var(CHILD).is_ok_and(|child| child == test) {
        return work();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

fn nothing_but_a_note() {
    let report = probe::wgpu::probe();
    assert!(report.devices.is_empty(), "{report:?}");
    assert!(matches!(report.notes.as_slice(), [note] if note.kind == NoteKind::Missing), "{report:?}");
}

#[test]
fn wgpu_no_driver_is_a_note() {
    let nowhere = Path::new("/nonexistent/driver.json");
    let variables = [("VK_DRIVER_FILES", nowhere), ("VK_ICD_FILENAMES", nowhere)];
    in_process("wgpu_no_driver_is_a_note", &variables, nothing_but_a_note);
}

#[test]
fn wgpu_a_broken_loader_is_a_note() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libvulkan.so.1", "libvulkan.so"] {
        std::fs::write(folder.path().join(name), "no library").unwrap();
    }
    in_process("wgpu_a_broken_loader_is_a_note", &[("LD_LIBRARY_PATH", folder.path())], nothing_but_a_note);
}

#[test]
fn wgpu_a_device_that_is_gone_is_a_typed_error() {
    let nowhere = Path::new("/nonexistent/driver.json");
    let variables = [("VK_DRIVER_FILES", nowhere), ("VK_ICD_FILENAMES", nowhere)];
    in_process("wgpu_a_device_that_is_gone_is_a_typed_error", &variables, || {
        let mut inventory = probe::this_machine();
        inventory.devices =
            vec![quark_devices::probe::simulated::load(Path::new(TOPOLOGY)).unwrap().devices[0].clone()];
        inventory.devices[0].simulated = false;
        let device = inventory.devices[0].clone();
        let pool = DevicePool::open(Arc::new(inventory), PoolOptions::new());
        let error = lease(&pool, &device, ByteSize::mib(1)).wgpu().unwrap_err();
        assert!(matches!(error, ContextError::NoLibrary { .. }), "{error}");
    });
}

#[test]
fn wgpu_software_adapters_are_leased_only_when_allowed() {
    let (inventory, adapter) = machine();
    let pool = DevicePool::open(Arc::new(inventory), PoolOptions::new());
    let refused = pool.lease(&adapter.id, ByteSize::mib(1), "test", Duration::ZERO).unwrap_err();
    assert!(matches!(refused, LeaseError::SoftwareAdapter { .. }), "{refused}");
}

#[test]
fn wgpu_kernels_run_and_pipelines_are_shared() {
    let (pool, adapter) = pool();
    let (first, second) =
        (lease(&pool, &adapter, ByteSize::mib(8)), lease(&pool, &adapter, ByteSize::mib(8)));
    let context = first.wgpu().unwrap();
    assert!(Arc::ptr_eq(&context, &second.wgpu().unwrap()), "one context per device");
    assert_eq!(context.info.name, adapter.name);
    let values: Vec<f32> = (0..1000).map(|place| place as f32 / 7.0).collect();
    let expected: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
    assert_eq!(doubled(&first, &context, &values), expected);
    assert_eq!(doubled(&second, &context, &values), expected);
    assert_eq!(context.pipeline_count(), 1);
    assert_eq!((first.used(), second.used()), (ByteSize::ZERO, ByteSize::ZERO), "buffers gave back");
    assert_eq!(context.take_error(), None);
}

#[test]
fn wgpu_many_threads_compile_one_pipeline() {
    let (pool, adapter) = pool();
    let held = lease(&pool, &adapter, ByteSize::mib(1));
    let pipelines: Vec<_> = thread::scope(|scope| {
        let compile = || held.wgpu().unwrap().compute_pipeline("double", DOUBLE, "double").unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(compile)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(pipelines.iter().all(|pipeline| Arc::ptr_eq(pipeline, &pipelines[0])));
}

#[test]
fn wgpu_a_set_of_pipelines_is_built_once_per_device() {
    let (pool, adapter) = pool();
    let (first, second) = (lease(&pool, &adapter, ByteSize::ZERO), lease(&pool, &adapter, ByteSize::ZERO));
    let build = |held: &DeviceLease| {
        held.wgpu().unwrap().shared("network", |context| {
            Ok::<_, PipelineError>([context.compute_pipeline("double", DOUBLE, "double")?])
        })
    };
    assert!(Arc::ptr_eq(&build(&first).unwrap(), &build(&second).unwrap()));
    let context = first.wgpu().unwrap();
    let error = context.shared("network", |_| Ok::<_, PipelineError>(())).unwrap_err();
    assert!(matches!(error, SharedError::KeyReused { .. }), "{error}");
    let error = context
        .shared("broken", |context| context.compute_pipeline("broken", "fn broken( {", "broken"))
        .unwrap_err();
    assert!(matches!(error, SharedError::Make(PipelineError::Shader { .. })), "{error}");
}

#[test]
fn wgpu_bad_shaders_are_typed_errors() {
    let (pool, adapter) = pool();
    let context = lease(&pool, &adapter, ByteSize::ZERO).wgpu().unwrap();
    let error = context.compute_pipeline("bad", "fn broken( {", "broken").unwrap_err();
    assert!(matches!(&error, PipelineError::Shader { key, message } if key == "bad" && !message.is_empty()));
    let error =
        context.compute_pipeline("typed", "@compute @workgroup_size(1) fn f() { let x: u32 = 1.5; }", "f");
    assert!(matches!(error.unwrap_err(), PipelineError::Shader { .. }));
    let error = context.compute_pipeline("lost", DOUBLE, "no_such_entry").unwrap_err();
    assert!(matches!(&error, PipelineError::Pipeline { .. }), "{error}");
    let huge = DOUBLE.replace("64", "1000000");
    let error = context.compute_pipeline("huge", &huge, "double").unwrap_err();
    assert!(matches!(&error, PipelineError::Pipeline { .. } | PipelineError::Shader { .. }), "{error}");
    assert_eq!(context.pipeline_count(), 0, "nothing bad is kept");
    context.compute_pipeline("bad", DOUBLE, "double").expect("a key that failed is free again");
    let error = context.compute_pipeline("bad", &huge, "double").unwrap_err();
    assert_eq!(error, PipelineError::KeyReused { key: "bad".into() });
    assert_eq!(context.take_error(), None, "no error escaped its scope");
}

#[test]
fn wgpu_buffers_are_debited_and_credited() {
    let (pool, adapter) = pool();
    let held = lease(&pool, &adapter, ByteSize::mib(2));
    let buffer = held.create_buffer(&storage(1 << 20)).unwrap();
    assert_eq!((buffer.size(), buffer.debited(), held.used()), (1 << 20, ByteSize::mib(1), ByteSize::mib(1)));
    let error = held.create_buffer(&storage((1 << 20) + 4)).unwrap_err();
    assert!(matches!(error, AllocError::OverLease(OverLease::TooMuch { .. })), "{error}");
    drop(buffer);
    assert_eq!(held.used(), ByteSize::ZERO);

    let odd = held.upload_buffer("odd", &[1, 2, 3, 4, 5], BufferUsages::STORAGE).unwrap();
    assert_eq!((odd.size(), odd.debited()), (8, ByteSize::bytes(8)));
    let empty = held.upload_buffer("empty", &[], BufferUsages::STORAGE).unwrap();
    assert_eq!(empty.debited(), ByteSize::ZERO);

    let usage = BufferUsages::MAP_READ | BufferUsages::STORAGE;
    let error = held.create_buffer(&BufferDescriptor { usage, ..storage(16) }).unwrap_err();
    assert!(matches!(error, AllocError::Refused { .. }), "{error}");
    assert_eq!(held.used(), ByteSize::bytes(8), "what was refused is not debited");

    drop(held);
    let usage = &pool.usage().into_iter().find(|usage| usage.device == adapter.id).unwrap();
    assert_eq!(
        (usage.granted, usage.debited),
        (ByteSize::mib(2), ByteSize::bytes(8)),
        "a buffer keeps its lease"
    );
    drop((odd, empty));
    let usage = &pool.usage().into_iter().find(|usage| usage.device == adapter.id).unwrap();
    assert_eq!((usage.granted, usage.debited), (ByteSize::ZERO, ByteSize::ZERO));
}

#[test]
fn wgpu_a_buffer_above_the_device_limit_is_refused() {
    let (inventory, adapter) = machine();
    let options = PoolOptions::new().software_adapters(true).software_capacity(ByteSize::gib(1 << 20));
    let pool = DevicePool::open(Arc::new(inventory), options);
    let all = pool.leasable(&adapter.id).unwrap();
    assert_eq!(all, adapter.vram, "the heap bounds what can be leased");
    let held = lease(&pool, &adapter, all);
    let limit = held.wgpu().unwrap().limits.max_buffer_size;
    let error = held.create_buffer(&storage(limit + 1)).unwrap_err();
    assert!(matches!(error, AllocError::Refused { .. } | AllocError::OverLease(_)), "{error}");
    let error = held.create_buffer(&storage(u64::MAX)).unwrap_err();
    assert!(matches!(error, AllocError::OverLease(_)), "{error}");
    assert_eq!(held.used(), ByteSize::ZERO);
}

#[test]
fn wgpu_errors_that_nobody_caught_do_not_panic() {
    let (pool, adapter) = pool();
    let context = lease(&pool, &adapter, ByteSize::ZERO).wgpu().unwrap();
    let usage = BufferUsages::MAP_READ | BufferUsages::STORAGE;
    drop(context.device.create_buffer(&BufferDescriptor { usage, ..storage(16) }));
    assert!(context.take_error().is_some());
    assert_eq!(context.take_error(), None, "told once");
}

#[test]
fn wgpu_a_lost_device_is_a_typed_error_and_a_new_lease_recovers() {
    let (pool, adapter) = pool();
    let held = lease(&pool, &adapter, ByteSize::mib(1));
    let context = held.wgpu().unwrap();
    context.device.destroy();
    // The callback comes with the next poll, which has nothing left to wait for.
    drop(context.device.poll(PollType::Poll));
    assert!(matches!(held.wgpu(), Err(ContextError::Lost { .. })));
    let error = held.create_buffer(&storage(16)).unwrap_err();
    assert!(matches!(error, AllocError::Context(ContextError::Lost { .. })), "{error}");
    let error = context.compute_pipeline("double", DOUBLE, "double").unwrap_err();
    assert!(matches!(error, PipelineError::Context(ContextError::Lost { .. })), "{error}");
    let anew = lease(&pool, &adapter, ByteSize::mib(1));
    let fresh = anew.wgpu().unwrap();
    assert_eq!(doubled(&anew, &fresh, &[1.5, 2.5]), vec![3.0, 5.0]);
}

#[test]
fn wgpu_simulated_and_absent_devices_have_no_context() {
    let (mut inventory, adapter) = machine();
    let mut simulated = adapter.clone();
    simulated.id = quark_devices::inventory::DeviceId::new("simulated");
    simulated.simulated = true;
    let mut absent = adapter.clone();
    absent.id = quark_devices::inventory::DeviceId::new("absent");
    absent.name = "Unplugged".into();
    inventory.devices.extend([simulated.clone(), absent.clone()]);
    let pool = DevicePool::open(Arc::new(inventory), PoolOptions::new().software_adapters(true));
    let held = lease(&pool, &simulated, ByteSize::mib(1));
    assert_eq!(held.wgpu().unwrap_err(), ContextError::Simulated { device: simulated.id.clone() });
    assert!(matches!(
        held.create_buffer(&storage(16)),
        Err(AllocError::Context(ContextError::Simulated { .. }))
    ));
    let held = lease(&pool, &absent, ByteSize::mib(1));
    assert!(matches!(held.wgpu().unwrap_err(), ContextError::NotSeen { .. }));
}
