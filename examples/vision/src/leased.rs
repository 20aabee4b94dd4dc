//! The network on an actor's share of a device: compiled once per device, its memory debited from the lease.

use quark::devices::context::wgpu::LeasedBuffer;
use quark::devices::context::{AllocError, ContextError, SharedError};
use quark::devices::inventory::Source;
use quark::devices::lease::{DeviceLease, Reservation};
use quark::placement::Api;
use quark::{ByteSize, Fault, Outcome, Retry};

use crate::infer::cuda::{CudaClassifier, NetworkKernel};
use crate::infer::wgpu::{NetworkPipeline, WgpuClassifier};
use crate::infer::{Backend, Classifier, InferenceError, Logits, Patch, vram_needed};
use crate::model::Weights;

/// Under this key a device keeps the compiled network for all its leases.
const SHARED_KEY: &str = "vision.network";

/// Builds the network on the device of `lease`, for batches of `batch` patches: on a CUDA device as a CUDA
/// kernel, else as a compute shader, or as `api` says. Takes [`vram_needed`] bytes of the lease until the result
/// is dropped. Blocks; the first call for a device compiles.
///
/// # Errors
/// [`PlaceError`]; nothing is kept of the lease then.
pub fn place(
    lease: &DeviceLease,
    api: Api,
    weights: &Weights,
    batch: usize,
) -> Result<Box<dyn Classifier>, PlaceError> {
    let cuda = match api {
        Api::Cuda => true,
        Api::Wgpu => false,
        Api::Any => lease.device().seen_by(Source::Cuda),
    };
    if cuda { on_cuda(lease, weights, batch) } else { on_wgpu(lease, weights, batch) }
}

fn on_wgpu(lease: &DeviceLease, weights: &Weights, batch: usize) -> Result<Box<dyn Classifier>, PlaceError> {
    let context = lease.wgpu()?;
    let pipeline = context.shared(SHARED_KEY, |context| NetworkPipeline::build(&context.device))?;
    let mut memory: Vec<LeasedBuffer> = Vec::new();
    let create = |descriptor: &wgpu::BufferDescriptor<'_>| {
        let buffer = lease.create_buffer(descriptor)?;
        let shared = wgpu::Buffer::clone(&buffer);
        memory.push(buffer);
        Ok::<_, PlaceError>(shared)
    };
    let (device, queue) = (&context.device, &context.queue);
    let classifier = WgpuClassifier::with_buffers(device, queue, &pipeline, weights, batch, create)?;
    Ok(Box::new(Leased { classifier, _memory: memory }))
}

fn on_cuda(lease: &DeviceLease, weights: &Weights, batch: usize) -> Result<Box<dyn Classifier>, PlaceError> {
    let context = lease.cuda()?;
    let kernel = context.shared(SHARED_KEY, |context| NetworkKernel::build(&context.context))?;
    let memory: Reservation =
        lease.reserve(ByteSize::bytes(vram_needed(batch))).map_err(AllocError::OverLease)?;
    let classifier = CudaClassifier::new(&context.stream, &kernel, weights, batch)?;
    Ok(Box::new(Leased { classifier, _memory: memory }))
}

/// A classifier and what it holds of a lease. The classifier is declared, and so dropped, first: the bytes go
/// back only once it no longer uses them.
struct Leased<C, M> {
    classifier: C,
    _memory: M,
}

impl<C: Classifier, M: Send> Classifier for Leased<C, M> {
    fn classify(&mut self, patches: &[Patch]) -> Result<Vec<Logits>, InferenceError> {
        self.classifier.classify(patches)
    }

    fn backend(&self) -> Backend {
        self.classifier.backend()
    }
}

/// Why the network could not be built on a device. Nothing was kept of the lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The device has no context.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// Its memory could not be had.
    #[error(transparent)]
    Memory(#[from] AllocError),
    /// The kernel could not be built, or the weights not uploaded.
    #[error(transparent)]
    Network(#[from] InferenceError),
    /// Something else lies under the network's key. A retry can't help.
    #[error("the key {key:?} is taken on this device: two versions of this program share it")]
    KeyReused {
        /// The key.
        key: String,
    },
}

impl From<SharedError<InferenceError>> for PlaceError {
    fn from(error: SharedError<InferenceError>) -> Self {
        match error {
            SharedError::KeyReused { key } => Self::KeyReused { key },
            SharedError::Context(error) => Self::Context(error),
            SharedError::Make(error) => Self::Network(error),
        }
    }
}

impl Fault for PlaceError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Context(error) => error.outcome(),
            Self::Memory(error) => error.outcome(),
            Self::Network(_) => Outcome::Failed,
            Self::KeyReused { .. } => Outcome::Rejected,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Context(error) => error.retry(),
            Self::Memory(error) => error.retry(),
            Self::Network(InferenceError::Build { .. }) | Self::KeyReused { .. } => Retry::Pointless,
            Self::Network(_) => Retry::Safe,
        }
    }
}
