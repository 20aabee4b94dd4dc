//! A device opened through the CUDA driver: one context and one stream per device and pool, shared by all leases.

mod lease;
mod module;

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaModule, CudaStream};
use parking_lot::Mutex;

pub use self::lease::LeasedSlice;
pub use self::module::{MAX_MODULES, ModuleError, ModuleSource};
use super::cache::OnceCache;
use super::shared::Shared;
use super::{Backend, ContextError, SharedError};
use crate::inventory::{Device, DeviceId, PartialDevice};
use crate::probe::cuda as probe;

/// An opened device.
///
/// `stream` is a stream of its own, not the legacy default stream: other libraries' work does not serialise with
/// it, and cudarc orders what is used on further streams from the first allocation on.
pub struct CudaContext {
    /// The device's primary context, shared with every other CUDA user of this process.
    pub context: Arc<cudarc::driver::CudaContext>,
    /// The stream that leases allocate and launch on.
    pub stream: Arc<CudaStream>,
    id: DeviceId,
    capability: (i32, i32),
    modules: OnceCache<Arc<CudaModule>>,
    shared: Shared,
    lost: OnceLock<String>,
}

impl CudaContext {
    /// The compute capability, (major, minor).
    pub fn compute_capability(&self) -> (i32, i32) {
        self.capability
    }

    /// Binds the context to this thread, and fails once a kernel has faulted: CUDA tells that late, and the
    /// context, with all that was allocated in it, is unusable from then on.
    ///
    /// The driver gives every user of the process the same primary context, so a new one comes only after all
    /// holders of this one have let go.
    pub fn check(&self) -> Result<(), ContextError> {
        if self.lost.get().is_none() {
            match probe::guard(|| self.query()) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !is_fatal(error) => {
                    tracing::warn!(device = %self.id, error = %probe::text(error), "a CUDA call failed earlier");
                    return Ok(());
                }
                // Only the first reason is the cause; a racing thread saw the same one.
                Ok(Err(error)) => drop(self.lost.set(probe::text(error))),
                Err(panic) => drop(self.lost.set(panic)),
            }
        }
        let reason = self.lost.get().cloned().unwrap_or_default();
        Err(ContextError::Lost { device: self.id.clone(), backend: Backend::Cuda, reason })
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

    fn query(&self) -> Result<(), DriverError> {
        // What drops had nobody to tell, then the state of the stream.
        self.context.check_err()?;
        self.context.bind_to_thread()?;
        // SAFETY: the stream lives as long as `self`, and its context was just made current on this thread.
        match unsafe { sys::cuStreamQuery(self.stream.cu_stream()) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(()),
            state => state.result(),
        }
    }

    fn open(device: &Device) -> Result<Arc<Self>, ContextError> {
        let failed =
            |reason| ContextError::Failed { device: device.id.clone(), backend: Backend::Cuda, reason };
        if !probe::driver_present() {
            return Err(ContextError::NoLibrary {
                device: device.id.clone(),
                backend: Backend::Cuda,
                reason: "libcuda.so.1 is not installed".to_owned(),
            });
        }
        let ordinal = match probe::guard(|| ordinal(device)) {
            Ok(Ok(Some(ordinal))) => ordinal,
            Ok(Ok(None)) => {
                return Err(ContextError::NotSeen { device: device.id.clone(), backend: Backend::Cuda });
            }
            Ok(Err(error)) => return Err(failed(probe::text(error))),
            Err(panic) => return Err(failed(panic)),
        };
        let opened = probe::guard(|| {
            let context = cudarc::driver::CudaContext::new(ordinal)?;
            let stream = context.new_stream()?;
            let capability = context.compute_capability()?;
            Ok::<_, DriverError>((context, stream, capability))
        });
        let (context, stream, capability) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(failed(probe::text(error))),
            Err(panic) => return Err(failed(panic)),
        };
        let modules = OnceCache::new(MAX_MODULES);
        Ok(Arc::new(Self {
            context,
            stream,
            id: device.id.clone(),
            capability,
            modules,
            shared: Shared::default(),
            lost: OnceLock::new(),
        }))
    }
}

impl std::fmt::Debug for CudaContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaContext")
            .field("device", &self.id)
            .field("ordinal", &self.context.ordinal())
            .field("capability", &self.capability)
            .field("modules", &self.modules.len())
            .finish_non_exhaustive()
    }
}

/// One pool's CUDA contexts.
#[derive(Default)]
pub(crate) struct PoolContexts {
    /// One slot per device of the inventory, so at most as many as it has; each locked while it is opened.
    opened: Mutex<HashMap<DeviceId, Slot>>,
}

type Slot = Arc<Mutex<Option<Arc<CudaContext>>>>;

impl PoolContexts {
    /// The context of `device`, opened if it is not, and opened anew if it was lost.
    fn get(&self, device: &Device) -> Result<Arc<CudaContext>, ContextError> {
        if device.simulated {
            return Err(ContextError::Simulated { device: device.id.clone() });
        }
        let slot = Arc::clone(self.opened.lock().entry(device.id.clone()).or_default());
        let mut slot = slot.lock();
        if let Some(context) = slot.as_ref().filter(|context| context.check().is_ok()) {
            return Ok(Arc::clone(context));
        }
        let context = CudaContext::open(device)?;
        *slot = Some(Arc::clone(&context));
        Ok(context)
    }
}

/// The context a lease works in, once it has asked for one.
#[derive(Default)]
pub(crate) struct LeaseContext(OnceLock<Arc<CudaContext>>);

/// The driver's number of this device, looked up anew: `CUDA_VISIBLE_DEVICES` permutes the numbers.
fn ordinal(device: &Device) -> Result<Option<usize>, DriverError> {
    result::init()?;
    for ordinal in 0..result::device::get_count()? {
        // One device that does not answer must not hide the others.
        if probe::describe(ordinal).is_ok_and(|seen| is_same(device, &seen)) {
            return Ok(usize::try_from(ordinal).ok());
        }
    }
    Ok(None)
}

/// Whether the driver's device is the inventory's: by PCI address if both have one (a card that is split has
/// several ids and one address), else by unique id.
fn is_same(device: &Device, seen: &PartialDevice) -> bool {
    match (device.pci, seen.pci) {
        (Some(one), Some(other)) => one == other,
        _ => device.uuid.is_some() && device.uuid == seen.uuid,
    }
}

/// Errors after which the driver refuses all work in the context ("This leaves the process in an inconsistent
/// state", CUDA Driver API, CUresult), and those of a device that is gone.
fn is_fatal(error: DriverError) -> bool {
    matches!(
        error.0,
        CUresult::CUDA_ERROR_DEINITIALIZED
            | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUresult::CUDA_ERROR_INVALID_CONTEXT
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{DeviceFeatures, DeviceKind, PciAddress, Source, SourceIndices, Vendor};
    use quark_base::ByteSize;

    fn card(pci: Option<PciAddress>) -> Device {
        Device {
            id: DeviceId::new("GPU-not-there"),
            kind: DeviceKind::Gpu,
            name: "NVIDIA Test".into(),
            vendor: Vendor::Nvidia,
            uuid: Some("GPU-not-there".into()),
            pci,
            pci_ids: None,
            numa_node: None,
            vram: ByteSize::gib(1),
            compute_capability: None,
            compute_units: None,
            driver: None,
            features: DeviceFeatures::default(),
            limits: None,
            mig: None,
            indices: SourceIndices::default(),
            sources: vec![Source::Nvml],
            simulated: false,
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_a_typed_error() {
        let error =
            PoolContexts::default().get(&card(Some(PciAddress::new(0xffff, 0xff, 31, 7)))).unwrap_err();
        let expected = matches!(
            error,
            ContextError::NoLibrary { .. } | ContextError::NotSeen { .. } | ContextError::Failed { .. }
        );
        assert!(expected, "{error}");
    }

    #[test]
    fn addresses_decide_and_ids_stand_in() {
        let address = PciAddress::new(0, 0x3b, 0, 0);
        let mut seen = PartialDevice::new(Source::Cuda);
        seen.uuid = Some("GPU-not-there".into());
        assert!(is_same(&card(Some(address)), &seen));
        seen.pci = Some(PciAddress::new(0, 0x3c, 0, 0));
        assert!(!is_same(&card(Some(address)), &seen), "the address decides where both have one");
        assert!(is_same(&card(None), &seen));
    }
}
