//! The network as a CUDA kernel: one launch and one read-back a batch.
//!
//! The stream comes from outside, so that all users of a card share one context; the kernel is loaded apart
//! from the classifier, so that it is loaded once a device. `kernels/network.ptx` is shipped, so neither NVRTC
//! nor a CUDA toolkit is needed; a driver too old for it gets the source compiled, where NVRTC is present.
//!
//! Nothing here looks for a driver: whoever holds a [`CudaContext`] has found one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::{self, CompileOptions, Ptx};

use crate::infer::{
    Backend, CLASSES, Classifier, InferenceError, Logits, MAX_BATCH, PIXELS, Patch, one_line, padded,
    vram_needed,
};
use crate::model::Weights;

const SOURCE: &str = include_str!("../kernels/network.cu");
/// PTX 7.8 for compute capability 5.0: drivers from 520 on compile it for any card since Maxwell.
const SHIPPED_PTX: &str = include_str!("../kernels/network.ptx");
const ENTRY_POINT: &str = "network";

/// The kernel, loaded into one context. Cloning shares it.
#[derive(Debug, Clone)]
pub struct NetworkKernel {
    function: CudaFunction,
}

impl NetworkKernel {
    /// Loads the shipped PTX, or compiles the source where the driver refuses that.
    ///
    /// # Errors
    ///
    /// [`InferenceError::Build`] with what the driver and the compiler say.
    pub fn build(context: &Arc<CudaContext>) -> Result<Self, InferenceError> {
        Self::from_shipped_ptx(context).or_else(|shipped| {
            Self::from_source(context).map_err(|compiled| build_failed(format!("{shipped}; {compiled}")))
        })
    }

    /// Loads the shipped PTX; the driver compiles it for the card.
    ///
    /// # Errors
    ///
    /// [`InferenceError::Build`] where the driver refuses it.
    pub fn from_shipped_ptx(context: &Arc<CudaContext>) -> Result<Self, InferenceError> {
        Self::load(context, Ptx::from_src(SHIPPED_PTX))
    }

    /// Compiles the source with NVRTC for the card.
    ///
    /// # Errors
    ///
    /// [`InferenceError::Build`] where NVRTC is missing or newer than the driver.
    pub fn from_source(context: &Arc<CudaContext>) -> Result<Self, InferenceError> {
        // SAFETY: only loads the library, and runs its initialisers, to see whether it is there.
        if !unsafe { nvrtc::sys::is_culib_present() } {
            return Err(build_failed("libnvrtc is not installed"));
        }
        let options = CompileOptions { name: Some("network.cu".to_owned()), ..Default::default() };
        // An NVRTC that lacks a symbol makes cudarc panic.
        let ptx = catch_unwind(AssertUnwindSafe(|| nvrtc::compile_ptx_with_opts(SOURCE, options)))
            .map_err(|_| build_failed("libnvrtc lacks a function that cudarc needs"))?
            .map_err(build_failed)?;
        Self::load(context, ptx)
    }

    fn load(context: &Arc<CudaContext>, ptx: Ptx) -> Result<Self, InferenceError> {
        let module = context.load_module(ptx).map_err(build_failed)?;
        let function = module.load_function(ENTRY_POINT).map_err(build_failed)?;
        Ok(Self { function })
    }
}

/// Runs the network on an NVIDIA card.
#[derive(Debug)]
pub struct CudaClassifier {
    stream: Arc<CudaStream>,
    kernel: NetworkKernel,
    weights: CudaSlice<f32>,
    patches: CudaSlice<f32>,
    logits: CudaSlice<f32>,
    /// Patches that fit the buffers.
    capacity: usize,
}

impl CudaClassifier {
    /// Uploads the weights and reserves buffers for batches of `batch` patches (1 to [`MAX_BATCH`]): at most
    /// [`vram_needed`] bytes. `stream` and `kernel` belong to the same context. Returns once the weights lie on
    /// the card.
    ///
    /// # Errors
    ///
    /// [`InferenceError::OutOfMemory`] or [`InferenceError::Device`]; nothing is kept on the card then.
    pub fn new(
        stream: &Arc<CudaStream>,
        kernel: &NetworkKernel,
        weights: &Weights,
        batch: usize,
    ) -> Result<Self, InferenceError> {
        let capacity = batch.clamp(1, MAX_BATCH);
        let allocation_failed = |error| driver_failed(error, capacity);
        let weights = stream.clone_htod(&padded(weights)).map_err(allocation_failed)?;
        let patches = stream.alloc_zeros(capacity * PIXELS).map_err(allocation_failed)?;
        let logits = stream.alloc_zeros(capacity * CLASSES).map_err(allocation_failed)?;
        stream.synchronize().map_err(allocation_failed)?;
        Ok(Self { stream: Arc::clone(stream), kernel: kernel.clone(), weights, patches, logits, capacity })
    }

    /// One batch that fits the buffers, its scores written to `scores`: as many as there are patches.
    fn batch(&mut self, patches: &[Patch], scores: &mut [Logits]) -> Result<(), DriverError> {
        self.stream.memcpy_htod(bytemuck::cast_slice::<Patch, f32>(patches), &mut self.patches)?;
        let config = LaunchConfig {
            grid_dim: (patches.len() as u32, 1, 1),
            block_dim: (PIXELS as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = self.stream.launch_builder(&self.kernel.function);
        launch.arg(&self.weights).arg(&self.patches).arg(&mut self.logits);
        // SAFETY:
        // - the kernel takes three pointers to floats, in this order: weights, patches, logits;
        // - it reads PARAMETERS numbers of the weights, rounded up to four, which `padded` put there;
        // - block `i` reads patch `i` and writes the scores `i`, and the grid has as many blocks as there are
        //   patches, which are at most `capacity`: what both buffers were allocated for;
        // - it is built for 64 threads a block, as launched here, and needs no dynamic shared memory;
        // - it writes nothing but the logits, the one buffer that is borrowed mutably.
        unsafe { launch.launch(config) }?;
        let results = self.logits.slice(..scores.len() * CLASSES);
        self.stream.memcpy_dtoh(&results, bytemuck::cast_slice_mut::<Logits, f32>(scores))?;
        // The copy is asynchronous: the scores are there after this.
        self.stream.synchronize()
    }
}

impl Classifier for CudaClassifier {
    fn classify(&mut self, patches: &[Patch]) -> Result<Vec<Logits>, InferenceError> {
        let mut scores = vec![Logits { scores: [0.0; CLASSES] }; patches.len()];
        let capacity = self.capacity;
        for (patches, scores) in patches.chunks(capacity).zip(scores.chunks_mut(capacity)) {
            self.batch(patches, scores).map_err(|error| driver_failed(error, capacity))?;
        }
        Ok(scores)
    }

    fn backend(&self) -> Backend {
        Backend::Cuda
    }
}

fn driver_failed(error: DriverError, capacity: usize) -> InferenceError {
    if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return InferenceError::OutOfMemory { backend: Backend::Cuda, bytes: vram_needed(capacity) };
    }
    InferenceError::Device { backend: Backend::Cuda, reason: one_line(error) }
}

fn build_failed(error: impl std::fmt::Display) -> InferenceError {
    InferenceError::Build { backend: Backend::Cuda, reason: one_line(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::conformance;

    /// FNV-1a, as kernels/make_ptx.py computes it.
    fn fingerprint(text: &str) -> u64 {
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    #[test]
    fn shipped_ptx_belongs_to_the_source() {
        let stamp = format!("// network.cu {:016x}", fingerprint(SOURCE));
        assert_eq!(
            SHIPPED_PTX.lines().next(),
            Some(stamp.as_str()),
            "network.cu changed: run src/kernels/make_ptx.py"
        );
        assert!(SHIPPED_PTX.contains(".visible .entry network("));
        assert!(SHIPPED_PTX.contains(".version 7.8") && SHIPPED_PTX.contains(".target sm_50"));
    }

    #[test]
    fn a_device_error_is_one_line() {
        assert_eq!(
            build_failed("first\n   second").to_string(),
            "the network's cuda kernel can't be built (first second): use another device or --device cpu"
        );
    }

    #[test]
    #[ignore = "needs an NVIDIA card: run it there with --run-ignored all"]
    fn cuda_agrees_with_the_oracle() {
        let context = CudaContext::new(0).expect("the first card");
        let stream = context.new_stream().expect("a stream");
        let shipped = NetworkKernel::from_shipped_ptx(&context).expect("the driver takes the shipped PTX");
        conformance::agrees_with_oracle(|weights| {
            Ok(Box::new(CudaClassifier::new(&stream, &shipped, weights, 32)?))
        });
    }

    #[test]
    #[ignore = "needs an NVIDIA card and NVRTC: run it there with --run-ignored all"]
    fn cuda_compiled_source_agrees_with_the_oracle() {
        let context = CudaContext::new(0).expect("the first card");
        let stream = context.default_stream();
        let compiled = NetworkKernel::from_source(&context).expect("NVRTC compiles the source");
        conformance::agrees_with_oracle(|weights| {
            Ok(Box::new(CudaClassifier::new(&stream, &compiled, weights, 32)?))
        });
    }

    /// Only whoever holds a context can call the rest, so this is what a machine without a driver meets.
    #[test]
    fn types_cross_threads() {
        fn crosses<T: Send + 'static>() {}
        crosses::<CudaClassifier>();
        crosses::<NetworkKernel>();
    }
}
