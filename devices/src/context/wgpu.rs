//! A device opened through wgpu: one per device and pool, shared by all its leases.

mod lease;
mod pipeline;

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use ::wgpu::{
    Adapter, AdapterInfo, DeviceDescriptor, DeviceLostReason, ErrorFilter, Features, Instance, Limits,
};
use parking_lot::Mutex;

pub use self::lease::LeasedBuffer;
pub use self::pipeline::{MAX_PIPELINES, PipelineError};
use super::cache::OnceCache;
use super::shared::Shared;
use super::{Backend, ContextError, SharedError};
use crate::inventory::{Device, DeviceId, PartialDevice};
use crate::probe::wgpu as probe;

/// What a shader may use where the device has it. Asked for without being needed: kernels choose at run time.
const WANTED_FEATURES: Features =
    Features::SHADER_F16.union(Features::SUBGROUP).union(Features::TIMESTAMP_QUERY);

/// An opened device.
///
/// Errors that no scope catches are logged and kept for [`WgpuContext::take_error`]; wgpu alone would panic.
pub struct WgpuContext {
    /// The device.
    pub device: ::wgpu::Device,
    /// Its queue.
    pub queue: ::wgpu::Queue,
    /// What the driver says about the adapter.
    pub info: AdapterInfo,
    /// What the device may be asked for: all that the adapter has.
    pub limits: Limits,
    id: DeviceId,
    pipelines: OnceCache<Arc<::wgpu::ComputePipeline>>,
    shared: Shared,
    health: Arc<Health>,
}

/// What callbacks of the driver leave behind.
#[derive(Debug, Default)]
struct Health {
    lost: OnceLock<String>,
    uncaught: Mutex<Option<String>>,
}

impl WgpuContext {
    /// The features that the device was opened with: those of f16, subgroups and timestamps that it has.
    pub fn features(&self) -> Features {
        self.device.features()
    }

    /// Fails once the device is lost; nothing allocated on it can be used then.
    pub fn check(&self) -> Result<(), ContextError> {
        match self.health.lost.get() {
            None => Ok(()),
            Some(reason) => Err(ContextError::Lost {
                device: self.id.clone(),
                backend: Backend::Wgpu,
                reason: reason.clone(),
            }),
        }
    }

    /// What `make` builds for this device, built by the first caller of `key` while the others wait, and shared
    /// from then on: for more than one pipeline or module, such as all that one network needs. `make` must not ask
    /// for the same key. At [`super::MAX_SHARED`] the thing used longest ago is forgotten.
    pub fn shared<T: Any + Send + Sync, E>(
        &self,
        key: &str,
        make: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<Arc<T>, SharedError<E>> {
        self.check()?;
        self.shared.get_or_make(key, || make(self))
    }

    /// The last error that no error scope caught, once.
    pub fn take_error(&self) -> Option<String> {
        self.health.uncaught.lock().take()
    }

    /// Opens `device` on `adapter`.
    fn open(device: &Device, adapter: &Adapter) -> Result<Arc<Self>, ContextError> {
        let info = adapter.get_info();
        let opened = probe::block_on(adapter.request_device(&DeviceDescriptor {
            label: Some(device.id.as_str()),
            required_features: adapter.features() & WANTED_FEATURES,
            required_limits: adapter.limits(),
            // Smaller blocks: what wgpu allocates beyond its buffers is memory that no lease accounts for.
            memory_hints: ::wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        }));
        let (opened, queue) = opened.map_err(|error| ContextError::Failed {
            device: device.id.clone(),
            backend: Backend::Wgpu,
            reason: error.to_string(),
        })?;
        let health = Arc::new(Health::default());
        let (on_lost, on_error) = (Arc::clone(&health), Arc::clone(&health));
        let name = device.id.clone();
        opened.set_device_lost_callback(move |reason, message| {
            let text = lost_reason(reason, &message);
            match reason {
                // Somebody asked for it, or the last holder let go.
                DeviceLostReason::Destroyed => tracing::debug!(device = %name, "the wgpu device is closed"),
                _ => tracing::error!(device = %name, reason = %text, "wgpu lost the device"),
            }
            // Only the first reason is the cause; later calls repeat it.
            let _ = on_lost.lost.set(text);
        });
        let name = device.id.clone();
        opened.on_uncaptured_error(Arc::new(move |error: ::wgpu::Error| {
            let text = error.to_string();
            tracing::error!(device = %name, error = %text, "wgpu reports an error that nobody asked for");
            *on_error.uncaught.lock() = Some(text);
        }));
        let limits = opened.limits();
        Ok(Arc::new(Self {
            device: opened,
            queue,
            info,
            limits,
            id: device.id.clone(),
            pipelines: OnceCache::new(MAX_PIPELINES),
            shared: Shared::default(),
            health,
        }))
    }

    /// Runs `work` and gives the first error it caused, whatever its kind.
    fn scoped<T>(&self, work: impl FnOnce() -> T) -> Result<T, ::wgpu::Error> {
        let validation = self.device.push_error_scope(ErrorFilter::Validation);
        let memory = self.device.push_error_scope(ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(ErrorFilter::Internal);
        let output = work();
        // Scopes are a stack: the last one pushed is popped first.
        let internal = probe::block_on(internal.pop());
        let memory = probe::block_on(memory.pop());
        let validation = probe::block_on(validation.pop());
        match memory.or(internal).or(validation) {
            None => Ok(output),
            Some(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for WgpuContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WgpuContext")
            .field("device", &self.id)
            .field("adapter", &self.info.name)
            .field("pipelines", &self.pipelines.len())
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// One pool's wgpu instance and opened devices.
#[derive(Default)]
pub(crate) struct PoolContexts {
    instance: OnceLock<Instance>,
    /// One slot per device of the inventory, so at most as many as it has; each locked while it is opened.
    opened: Mutex<HashMap<DeviceId, Slot>>,
}

type Slot = Arc<Mutex<Option<Arc<WgpuContext>>>>;

impl PoolContexts {
    /// The context of `device`, opened if it is not, and opened anew if it was lost.
    fn get(&self, device: &Device) -> Result<Arc<WgpuContext>, ContextError> {
        if device.simulated {
            return Err(ContextError::Simulated { device: device.id.clone() });
        }
        let slot = Arc::clone(self.opened.lock().entry(device.id.clone()).or_default());
        let mut slot = slot.lock();
        if let Some(context) = slot.as_ref().filter(|context| context.check().is_ok()) {
            return Ok(Arc::clone(context));
        }
        let adapter = self.adapter(device)?;
        let context = WgpuContext::open(device, &adapter)?;
        *slot = Some(Arc::clone(&context));
        Ok(context)
    }

    /// The adapter that is the inventory's `device`.
    fn adapter(&self, device: &Device) -> Result<Adapter, ContextError> {
        let mut adapters = probe::adapters(self.instance.get_or_init(probe::instance));
        if adapters.is_empty() {
            return Err(ContextError::NoLibrary {
                device: device.id.clone(),
                backend: Backend::Wgpu,
                reason: "no Vulkan driver is installed".to_owned(),
            });
        }
        let described: Vec<PartialDevice> =
            adapters.iter().enumerate().map(|(index, adapter)| probe::describe(adapter, index).0).collect();
        match position(device, &described) {
            Some(place) => Ok(adapters.swap_remove(place)),
            None => Err(ContextError::NotSeen { device: device.id.clone(), backend: Backend::Wgpu }),
        }
    }
}

/// The context a lease works in, once it has asked for one.
#[derive(Default)]
pub(crate) struct LeaseContext(OnceLock<Arc<WgpuContext>>);

/// Which of wgpu's adapters is this device: the one at its PCI address; or, for devices without one, the one with
/// its name, the index deciding between equals.
fn position(device: &Device, adapters: &[PartialDevice]) -> Option<usize> {
    if device.pci.is_some() {
        return adapters.iter().position(|adapter| adapter.pci == device.pci);
    }
    let same: Vec<usize> = (0..adapters.len())
        .filter(|place| {
            let adapter = &adapters[*place];
            let names_agree = adapter.name.as_deref() == Some(device.name.as_str());
            adapter.pci.is_none() && names_agree && adapter.kind == Some(device.kind)
        })
        .collect();
    match same.as_slice() {
        [only] => Some(*only),
        several => several.iter().copied().find(|place| u32::try_from(*place).ok() == device.indices.wgpu),
    }
}

fn lost_reason(reason: DeviceLostReason, message: &str) -> String {
    match reason {
        DeviceLostReason::Destroyed => "it was destroyed".to_owned(),
        _ if message.is_empty() => "the driver gives no reason".to_owned(),
        _ => message.to_owned(),
    }
}
