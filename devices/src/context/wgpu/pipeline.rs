//! Compute pipelines: compiled once per device and shared.

use std::sync::Arc;

use ::wgpu::{ComputePipeline, ComputePipelineDescriptor, ShaderModuleDescriptor, ShaderSource};
use quark_base::{Fault, Outcome, Retry};

use super::WgpuContext;
use crate::context::ContextError;
use crate::context::cache::CacheError;

/// Pipelines that one device keeps. A large network has tens of distinct kernels; beyond the bound the one used
/// longest ago is forgotten and would be compiled again.
pub const MAX_PIPELINES: usize = 512;

/// Why there is no pipeline. Nothing was kept under the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// The WGSL is wrong. Retrying is pointless.
    #[error("the shader {key:?} is no valid WGSL: {message}")]
    Shader {
        /// The pipeline's key.
        key: String,
        /// The compiler's message with the place in the source.
        message: String,
    },
    /// The shader is valid and makes no pipeline on this device: no such entry point, or above its limits.
    /// Retrying is pointless.
    #[error("the shader {key:?} makes no pipeline on this device: {message}")]
    Pipeline {
        /// The pipeline's key.
        key: String,
        /// What wgpu or the driver says.
        message: String,
    },
    /// The device has no memory left for it. A retry can help.
    #[error("out of device memory while compiling the shader {key:?}")]
    OutOfMemory {
        /// The pipeline's key.
        key: String,
    },
    /// The key stands for another source on this device already. Retrying is pointless.
    #[error("the pipeline key {key:?} is in use for another shader or entry point")]
    KeyReused {
        /// The pipeline's key.
        key: String,
    },
    /// The device is lost.
    #[error(transparent)]
    Context(#[from] ContextError),
}

impl Fault for PipelineError {
    fn outcome(&self) -> Outcome {
        match self {
            PipelineError::Context(error) => error.outcome(),
            PipelineError::KeyReused { .. } => Outcome::Rejected,
            _ => Outcome::Failed,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            PipelineError::Context(error) => error.retry(),
            PipelineError::OutOfMemory { .. } => Retry::Safe,
            _ => Retry::Pointless,
        }
    }
}

impl WgpuContext {
    /// The compute pipeline of this WGSL and entry point, with the layout that the shader implies. Compiled by the
    /// first caller of `key`, while the others wait; shared from then on. One key stands for one source.
    ///
    /// Compiling takes milliseconds to seconds and blocks the thread.
    pub fn compute_pipeline(
        &self,
        key: &str,
        wgsl: &str,
        entry: &str,
    ) -> Result<Arc<ComputePipeline>, PipelineError> {
        self.check()?;
        let made = self.pipelines.get_or_make(key, &[wgsl, entry], || self.compile(key, wgsl, entry));
        made.map_err(|error| match error {
            CacheError::KeyReused => PipelineError::KeyReused { key: key.to_owned() },
            CacheError::Make(error) => error,
        })
    }

    /// How many compute pipelines are kept.
    pub fn pipeline_count(&self) -> usize {
        self.pipelines.len()
    }

    fn compile(&self, key: &str, wgsl: &str, entry: &str) -> Result<Arc<ComputePipeline>, PipelineError> {
        let module = self.scoped(|| {
            let source = ShaderSource::Wgsl(wgsl.into());
            self.device.create_shader_module(ShaderModuleDescriptor { label: Some(key), source })
        });
        let module = module.map_err(|error| match error {
            ::wgpu::Error::OutOfMemory { .. } => PipelineError::OutOfMemory { key: key.to_owned() },
            error => PipelineError::Shader { key: key.to_owned(), message: error.to_string() },
        })?;
        let pipeline = self.scoped(|| {
            self.device.create_compute_pipeline(&ComputePipelineDescriptor {
                label: Some(key),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: Default::default(),
                cache: None,
            })
        });
        // A device that was lost meanwhile makes invalid pipelines without an error.
        self.check()?;
        match pipeline {
            Ok(pipeline) => Ok(Arc::new(pipeline)),
            Err(::wgpu::Error::OutOfMemory { .. }) => Err(PipelineError::OutOfMemory { key: key.to_owned() }),
            Err(error) => Err(PipelineError::Pipeline { key: key.to_owned(), message: error.to_string() }),
        }
    }
}
