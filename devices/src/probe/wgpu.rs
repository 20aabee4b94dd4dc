//! What Vulkan, through wgpu, knows about the devices: API features and limits of any vendor's GPU, and the
//! software adapters.
//!
//! Without a Vulkan loader or driver there are no adapters, which is a note.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use ::wgpu::{Adapter, Backends, DeviceType, Features, Instance, InstanceDescriptor, InstanceFlags};
use quark_base::ByteSize;

use super::ProbeReport;
use crate::inventory::{DeviceFeatures, DeviceKind, DeviceLimits, Note, PartialDevice, Source, Vendor};

/// Vulkan's flag for a heap that is the device's own memory (VkMemoryHeapFlagBits, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT).
const HEAP_DEVICE_LOCAL: u32 = 1;

/// Every Vulkan adapter of this machine. Never panics, never fails: what is missing is a note.
pub fn probe() -> ProbeReport {
    let mut report = ProbeReport::default();
    let adapters = adapters(&instance());
    if adapters.is_empty() {
        report.notes.push(Note::missing(
            Source::Wgpu,
            "no Vulkan device: no loader (libvulkan.so.1) or no driver for it is installed",
        ));
    }
    for (index, adapter) in adapters.iter().enumerate() {
        let (device, note) = describe(adapter, index);
        report.devices.push(device);
        report.notes.extend(note);
    }
    report
}

/// A Vulkan instance of its own. Debug layers stay off in every build, so that what a machine shows does not depend
/// on how this program was compiled; indirect dispatches stay checked, since they would read past buffers.
pub(crate) fn instance() -> Instance {
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::VULKAN;
    descriptor.flags = InstanceFlags::VALIDATION_INDIRECT_CALL;
    Instance::new(descriptor)
}

/// The instance's adapters, in the order that gives them their index.
pub(crate) fn adapters(instance: &Instance) -> Vec<Adapter> {
    block_on(instance.enumerate_adapters(Backends::VULKAN))
}

/// One adapter in the inventory's words, and what about it makes no sense.
pub(crate) fn describe(adapter: &Adapter, index: usize) -> (PartialDevice, Option<Note>) {
    let info = adapter.get_info();
    let mut device = PartialDevice::new(Source::Wgpu);
    device.kind = Some(kind(info.device_type));
    device.name = Some(info.name.clone());
    device.vendor = Some(Vendor::from_id(info.vendor));
    device.index = u32::try_from(index).ok();
    device.driver = driver(&info.driver, &info.driver_info);
    device.features = features(adapter.features());
    device.limits = Some(limits(adapter));
    device.vram = device_memory(adapter);
    if info.device_type != DeviceType::Cpu {
        // Vulkan's vendor ids above 16 bits are Khronos's own and no PCI ids.
        device.pci_ids = u16::try_from(info.vendor).ok().zip(u16::try_from(info.device).ok());
    }
    let address = info.device_pci_bus_id.trim();
    let note = match address.parse() {
        Ok(address) => {
            device.pci = Some(address);
            None
        }
        Err(_) if address.is_empty() => None,
        Err(error) => Some(Note::broken(Source::Wgpu, format!("{}: {error}", info.name))),
    };
    (device, note)
}

/// Runs a future to its end on this thread. wgpu's own are ready at once on native platforms.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn kind(device_type: DeviceType) -> DeviceKind {
    match device_type {
        DeviceType::DiscreteGpu => DeviceKind::Gpu,
        DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu,
        DeviceType::VirtualGpu => DeviceKind::VirtualGpu,
        DeviceType::Cpu => DeviceKind::SoftwareAdapter,
        DeviceType::Other => DeviceKind::Other,
    }
}

fn driver(name: &str, version: &str) -> Option<String> {
    let text = [name.trim(), version.trim()].join(" ");
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn features(features: Features) -> DeviceFeatures {
    DeviceFeatures {
        f16: features.contains(Features::SHADER_F16),
        // Neither WGSL nor Vulkan 1.3 has brain floats to compute with.
        bf16: false,
        f64: features.contains(Features::SHADER_F64),
        timestamps: features.contains(Features::TIMESTAMP_QUERY),
        subgroups: features.contains(Features::SUBGROUP),
        // Vulkan does not tell.
        ecc: false,
    }
}

fn limits(adapter: &Adapter) -> DeviceLimits {
    let (limits, info) = (adapter.limits(), adapter.get_info());
    DeviceLimits {
        max_buffer: ByteSize::bytes(limits.max_buffer_size),
        max_storage_binding: ByteSize::bytes(limits.max_storage_buffer_binding_size),
        max_workgroup_storage: ByteSize::bytes(u64::from(limits.max_compute_workgroup_storage_size)),
        max_workgroup_size: [
            limits.max_compute_workgroup_size_x,
            limits.max_compute_workgroup_size_y,
            limits.max_compute_workgroup_size_z,
        ],
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        min_subgroup_size: info.subgroup_min_size,
        max_subgroup_size: info.subgroup_max_size,
    }
}

/// The sum of the device-local heaps, which wgpu itself does not tell.
fn device_memory(adapter: &Adapter) -> Option<ByteSize> {
    // SAFETY:
    // - the guard only lends wgpu-hal's adapter, and nothing of it is destroyed here;
    // - `adapter` keeps the instance and the physical device alive for the length of this function;
    // - vkGetPhysicalDeviceMemoryProperties takes any physical device of its instance, which this one is, and
    //   has no other precondition (Vulkan 1.3, "Device Memory").
    let memory = unsafe {
        let adapter = adapter.as_hal::<::wgpu::hal::api::Vulkan>()?;
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize);
    let local = heaps.filter(|heap| heap.flags.as_raw() & HEAP_DEVICE_LOCAL != 0);
    let bytes = local.fold(0u64, |sum, heap| sum.saturating_add(heap.size));
    (bytes > 0).then_some(ByteSize::bytes(bytes))
}
