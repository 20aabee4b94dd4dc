//! The NVIDIA backends against libraries that stand in for NVIDIA's: C code with the same functions, on main
//! memory. They show that what the libraries say is taken over rightly and that nothing panics when they are
//! broken; what a GPU does with it, only a GPU can show.
//!
//! A library is looked for where the loader looked when the process began, so each test runs again as a process of
//! its own whose loader finds the stand-ins first.
#![cfg(all(feature = "cuda", feature = "nvml", target_os = "linux"))]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use quark_base::ByteSize;
use quark_devices::context::cuda::{ModuleError, ModuleSource};
use quark_devices::context::{AllocError, ContextError};
use quark_devices::inventory::{Device, DeviceKind, Inventory, NoteKind, Source};
use quark_devices::lease::DeviceLease;
use quark_devices::ledger::OverLease;
use quark_devices::pool::{DevicePool, PoolOptions};
use quark_devices::probe;
use quark_devices::sample::{Clocks, EccErrors, Sampler, ThrottleReason};

/// Set in the second process to the test that it runs.
const CHILD: &str = "QUARK_STAND_IN_CHILD";

/// A library to make: its file's name, and its C source.
type Library = (&'static str, &'static str);

const CUDA: Library = ("libcuda.so", include_str!("stand_in/cuda.c"));
const NVML: Library = ("libnvidia-ml.so.1", include_str!("stand_in/nvml.c"));
const NVRTC: Library = ("libnvrtc.so", include_str!("stand_in/nvrtc.c"));
/// A library without the functions it should have: every call of them fails.
const EMPTY: &str = "int nothing_of_use;";

/// Runs `work` in a process that finds these libraries.
fn with_libraries(test: &str, libraries: &[Library], work: impl FnOnce()) {
    if std::env::var(CHILD).is_ok_and(|child| child == test) {
        return work();
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in libraries {
        compile(folder.path(), name, source);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn compile(folder: &Path, name: &str, source: &str) {
    let file = folder.join(name).with_extension("c");
    std::fs::write(&file, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(folder.join(name))
        .arg(&file)
        .output()
        .expect("a C compiler (cc) is needed to build the stand-in libraries: install gcc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}

/// The stand-in GPU in this machine's inventory.
fn machine() -> (Inventory, Device) {
    let inventory = probe::this_machine();
    let gpus: Vec<Device> =
        inventory.devices.iter().filter(|gpu| gpu.seen_by(Source::Cuda)).cloned().collect();
    assert_eq!(gpus.len(), 1, "{inventory:#?}");
    (inventory, gpus.into_iter().next().unwrap())
}

fn lease(bytes: ByteSize) -> DeviceLease {
    let (inventory, gpu) = machine();
    let pool = DevicePool::open(Arc::new(inventory), PoolOptions::new());
    pool.lease(&gpu.id, bytes, "test", Duration::from_secs(1)).unwrap()
}

#[test]
fn two_libraries_see_one_device() {
    with_libraries("two_libraries_see_one_device", &[CUDA, NVML], || {
        let (inventory, gpu) = machine();
        assert_eq!(
            gpu.sources.iter().filter(|source| matches!(source, Source::Nvml | Source::Cuda)).count(),
            2
        );
        assert_eq!(gpu.id.as_str(), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(gpu.pci.unwrap().to_string(), "0000:3b:00.0");
        assert_eq!((gpu.kind, gpu.vram), (DeviceKind::Gpu, ByteSize::gib(16)));
        assert_eq!((gpu.compute_capability, gpu.compute_units), (Some((9, 0)), Some(132)));
        assert_eq!((gpu.numa_node, gpu.pci_ids), (Some(0), Some((0x10de, 0x2330))));
        assert!(gpu.features.bf16 && gpu.features.ecc);
        let mig = gpu.mig.unwrap();
        assert_eq!((mig.enabled, mig.max_instances), (false, 7));
        assert_eq!((gpu.indices.nvml, gpu.indices.cuda), (Some(0), Some(0)));
        for source in [Source::Nvml, Source::Cuda] {
            let broken = |note: &&_| matches!(note, quark_devices::inventory::Note { source: from, kind: NoteKind::Broken, .. } if *from == source);
            assert_eq!(
                inventory.notes.iter().filter(broken).count(),
                1,
                "the lost GPU: {:?}",
                inventory.notes
            );
        }
    });
}

#[test]
fn libraries_without_their_functions_are_notes() {
    let empty = [("libcuda.so", EMPTY), ("libnvidia-ml.so.1", EMPTY), ("libnvrtc.so", EMPTY)];
    with_libraries("libraries_without_their_functions_are_notes", &empty, || {
        for report in [probe::cuda::probe(), probe::nvml::probe()] {
            assert!(report.devices.is_empty(), "{report:?}");
            assert_eq!(report.notes.len(), 1, "{report:?}");
            assert_eq!(report.notes[0].kind, NoteKind::Broken, "{report:?}");
            assert!(!report.notes[0].text.contains('\n'), "{report:?}");
        }
    });
}

#[test]
fn cuda_memory_is_debited_and_credited() {
    with_libraries("cuda_memory_is_debited_and_credited", &[CUDA, NVML], || {
        let held = lease(ByteSize::gib(4));
        let zeros = held.alloc_zeros::<f32>(1 << 18).unwrap();
        assert_eq!(
            (zeros.len(), zeros.debited(), held.used()),
            (1 << 18, ByteSize::mib(1), ByteSize::mib(1))
        );
        let copy = held.alloc_copy(&[1.5f32, 2.5]).unwrap();
        let context = held.cuda().unwrap();
        assert_eq!(context.compute_capability(), (9, 0));
        assert_eq!(context.stream.clone_dtoh(&*copy).unwrap(), vec![1.5, 2.5]);
        assert!(context.stream.clone_dtoh(&*zeros).unwrap().iter().all(|value| *value == 0.0));
        assert_eq!(held.used(), ByteSize::bytes((1 << 20) + 8));
        drop((zeros, copy));
        assert_eq!(held.used(), ByteSize::ZERO);

        let error = held.alloc_zeros::<u8>(5 << 30).unwrap_err();
        assert!(matches!(error, AllocError::OverLease(OverLease::TooMuch { .. })), "{error}");
        let error = held.alloc_zeros::<u8>(2 << 30).unwrap_err();
        assert!(matches!(error, AllocError::OutOfMemory { .. }), "{error}");
        let error = held.alloc_zeros::<u64>(usize::MAX).unwrap_err();
        assert!(matches!(error, AllocError::OverLease(_)), "{error}");
        assert_eq!(held.used(), ByteSize::ZERO, "what failed is not debited");
    });
}

#[test]
fn modules_come_from_shipped_ptx_without_a_compiler() {
    with_libraries("modules_come_from_shipped_ptx_without_a_compiler", &[CUDA, NVML], || {
        let context = lease(ByteSize::gib(1)).cuda().unwrap();
        let source = ModuleSource { cuda_c: Some("kernel"), ptx: Some(".version 7.0\n") };
        let first = context.module("twice", source).unwrap();
        assert!(Arc::ptr_eq(&first, &context.module("twice", source).unwrap()), "loaded once");
        context.function("twice", source, "twice").unwrap();
        let error = context.function("twice", source, "absent").unwrap_err();
        assert!(matches!(error, ModuleError::NoFunction { .. }), "{error}");
        let error = context.function("twice", source, "nul\0inside").unwrap_err();
        assert!(matches!(error, ModuleError::NoFunction { .. }), "{error}");

        let refused = |key: &str, cuda_c, ptx| context.module(key, ModuleSource { cuda_c, ptx }).unwrap_err();
        assert!(matches!(refused("twice", None, Some(".version 8")), ModuleError::KeyReused { .. }));
        assert!(matches!(refused("source only", Some("kernel"), None), ModuleError::NoCompiler { .. }));
        assert!(matches!(refused("nothing", None, None), ModuleError::NoSource { .. }));
        assert!(matches!(refused("nul", None, Some(".version\0")), ModuleError::NoSource { .. }));
        assert!(matches!(refused("no ptx", None, Some("text")), ModuleError::Load { .. }));
        assert_eq!(context.module_count(), 1, "nothing bad is kept");
    });
}

#[test]
fn ptx_too_new_for_the_driver_falls_back_to_the_shipped() {
    with_libraries("ptx_too_new_for_the_driver_falls_back_to_the_shipped", &[CUDA, NVML, NVRTC], || {
        let context = lease(ByteSize::gib(1)).cuda().unwrap();
        let shipped = Some(".version 7.0\n");
        context.module("both", ModuleSource { cuda_c: Some("kernel"), ptx: shipped }).unwrap();
        let error =
            context.module("source only", ModuleSource { cuda_c: Some("kernel"), ptx: None }).unwrap_err();
        assert!(matches!(error, ModuleError::Load { .. }), "{error}");
        let error =
            context.module("wrong", ModuleSource { cuda_c: Some("wrong"), ptx: shipped }).unwrap_err();
        assert!(
            matches!(&error, ModuleError::Compile { message, .. } if message.contains("this is wrong")),
            "{error}"
        );
    });
}

#[test]
fn a_kernel_fault_loses_the_context() {
    with_libraries("a_kernel_fault_loses_the_context", &[CUDA, NVML], || {
        let held = lease(ByteSize::gib(1));
        let context = held.cuda().unwrap();
        let source = ModuleSource { cuda_c: None, ptx: Some(".version 7.0\n") };
        // The stand-in faults when it is asked for a kernel of this name.
        context.function("twice", source, "fault").unwrap_err();
        let error = held.cuda().unwrap_err();
        assert!(matches!(&error, ContextError::Lost { .. }), "{error}");
        let error = held.alloc_zeros::<u8>(16).unwrap_err();
        assert!(matches!(error, AllocError::Context(ContextError::Lost { .. })), "{error}");
        assert_eq!(held.used(), ByteSize::ZERO);
    });
}

#[test]
fn nvml_readings_reach_the_sample_and_the_ledger() {
    with_libraries("nvml_readings_reach_the_sample_and_the_ledger", &[CUDA, NVML], || {
        let (inventory, gpu) = machine();
        let inventory = Arc::new(inventory);
        let mut sampler = Sampler::new(&inventory);
        let sample = sampler.sample();
        let reading = sample.devices.iter().find(|reading| reading.device == gpu.id).unwrap();
        assert_eq!(reading.utilisation, Some(0.37));
        assert_eq!(reading.vram_used, Some(ByteSize::mib(1280)), "used and reserved");
        assert_eq!((reading.temperature_c, reading.power_w), (Some(61.0), Some(312.5)));
        assert_eq!(reading.clocks_mhz, Some(Clocks { compute: Some(1980), memory: None }));
        assert_eq!(reading.ecc_errors, Some(EccErrors { corrected: 3, uncorrected: 0 }));
        assert_eq!(reading.throttle_reasons, Some(vec![ThrottleReason::PowerCap]));
        let pool = DevicePool::open(Arc::clone(&inventory), PoolOptions::new());
        pool.reconcile_with(&sample);
        assert_eq!(pool.leasable(&gpu.id), Ok(ByteSize::mib(16 * 1024 - 1280)));
    });
}
