//! CUDA modules: compiled by NVRTC where it is installed, else from PTX that the caller ships.

use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaFunction, CudaModule};
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts, sys};
use quark_base::{Fault, Outcome, Retry};

use super::{CudaContext, probe};
use crate::context::ContextError;
use crate::context::cache::CacheError;

/// Modules that one device keeps; beyond the bound the one used longest ago is forgotten, and unloaded once
/// nobody holds it.
pub const MAX_MODULES: usize = 256;

/// What a module is made from. Either may be missing, not both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModuleSource<'a> {
    /// CUDA C++ for NVRTC. Kernels are declared `extern "C"`, so that their names stay.
    pub cuda_c: Option<&'a str>,
    /// PTX for machines without NVRTC, and for drivers that are older than it. Ship a low version: a driver loads
    /// PTX up to its own version, for devices at and above the PTX's target.
    pub ptx: Option<&'a str>,
}

/// Why there is no module or function. Nothing was kept under the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// There is CUDA C++ only, and no NVRTC to compile it. Retrying is pointless.
    #[error("the module {key:?} needs NVRTC (libnvrtc.so), which is not installed, or shipped PTX")]
    NoCompiler {
        /// The module's key.
        key: String,
    },
    /// The source is empty, or has a NUL inside. Retrying is pointless.
    #[error("the module {key:?} has no usable source: {reason}")]
    NoSource {
        /// The module's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The CUDA C++ is wrong. Retrying is pointless.
    #[error("the module {key:?} does not compile: {message}")]
    Compile {
        /// The module's key.
        key: String,
        /// NVRTC's log.
        message: String,
    },
    /// The driver does not take the module. A retry can help where memory was short.
    #[error("the module {key:?} cannot be loaded: {message}")]
    Load {
        /// The module's key.
        key: String,
        /// What the driver says.
        message: String,
    },
    /// The module has no such kernel. Retrying is pointless.
    #[error("the module {key:?} has no kernel {name:?}: {message}")]
    NoFunction {
        /// The module's key.
        key: String,
        /// The kernel's name.
        name: String,
        /// What the driver says.
        message: String,
    },
    /// The key stands for another source on this device already. Retrying is pointless.
    #[error("the module key {key:?} is in use for another source")]
    KeyReused {
        /// The module's key.
        key: String,
    },
    /// The context is lost.
    #[error(transparent)]
    Context(#[from] ContextError),
}

impl Fault for ModuleError {
    fn outcome(&self) -> Outcome {
        match self {
            ModuleError::Context(error) => error.outcome(),
            ModuleError::KeyReused { .. } | ModuleError::NoSource { .. } => Outcome::Rejected,
            _ => Outcome::Failed,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            ModuleError::Context(error) => error.retry(),
            ModuleError::Load { .. } => Retry::Safe,
            _ => Retry::Pointless,
        }
    }
}

impl CudaContext {
    /// The module of this source. Compiled and loaded by the first caller of `key`, while the others wait; shared
    /// from then on. One key stands for one source.
    ///
    /// Where NVRTC is installed it compiles `cuda_c`; without it, or when the driver is too old for what it makes,
    /// `ptx` is loaded. Compiling blocks the thread, up to seconds.
    pub fn module(&self, key: &str, source: ModuleSource<'_>) -> Result<Arc<CudaModule>, ModuleError> {
        self.check()?;
        let text = [source.cuda_c.unwrap_or_default(), source.ptx.unwrap_or_default()];
        let made = self.modules.get_or_make(key, &text, || self.make(key, source));
        made.map_err(|error| match error {
            CacheError::KeyReused => ModuleError::KeyReused { key: key.to_owned() },
            CacheError::Make(error) => error,
        })
    }

    /// A kernel of the module of this source.
    pub fn function(
        &self,
        key: &str,
        source: ModuleSource<'_>,
        name: &str,
    ) -> Result<CudaFunction, ModuleError> {
        let module = self.module(key, source)?;
        let missing =
            |message| ModuleError::NoFunction { key: key.to_owned(), name: name.to_owned(), message };
        // cudarc panics on a NUL inside a name.
        if name.contains('\0') {
            return Err(missing("the name has a NUL inside".to_owned()));
        }
        // Looking a kernel up needs the context on this thread, which cudarc leaves to its caller here.
        self.check()?;
        match probe::guard(|| module.load_function(name)) {
            Ok(Ok(function)) => Ok(function),
            Ok(Err(error)) => Err(missing(probe::text(error))),
            Err(panic) => Err(missing(panic)),
        }
    }

    /// How many modules are kept.
    pub fn module_count(&self) -> usize {
        self.modules.len()
    }

    fn make(&self, key: &str, source: ModuleSource<'_>) -> Result<Arc<CudaModule>, ModuleError> {
        let key = || key.to_owned();
        for text in [source.cuda_c, source.ptx].into_iter().flatten() {
            // cudarc panics on a NUL inside a source.
            if text.contains('\0') {
                return Err(ModuleError::NoSource { key: key(), reason: "it has a NUL inside".to_owned() });
            }
        }
        let compiler = source.cuda_c.filter(|_| probe::compiler_present());
        match (compiler, source.ptx) {
            (Some(cuda_c), shipped) => {
                let ptx =
                    self.compile(cuda_c).map_err(|message| ModuleError::Compile { key: key(), message })?;
                match (self.load(ptx), shipped) {
                    (Ok(module), _) => Ok(module),
                    (Err(error), Some(shipped)) if error.too_new => self
                        .load(Ptx::from_src(shipped))
                        .map_err(|error| ModuleError::Load { key: key(), message: error.message }),
                    (Err(error), _) => Err(ModuleError::Load { key: key(), message: error.message }),
                }
            }
            (None, Some(shipped)) => self
                .load(Ptx::from_src(shipped))
                .map_err(|error| ModuleError::Load { key: key(), message: error.message }),
            (None, None) if source.cuda_c.is_some() => Err(ModuleError::NoCompiler { key: key() }),
            (None, None) => {
                Err(ModuleError::NoSource { key: key(), reason: "neither CUDA C++ nor PTX".to_owned() })
            }
        }
    }

    /// Compiles for this device's own architecture; a compiler older than the device gets its default instead,
    /// which newer devices run too.
    fn compile(&self, cuda_c: &str) -> Result<Ptx, String> {
        let (major, minor) = self.capability;
        let own = CompileOptions {
            options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
            ..CompileOptions::default()
        };
        match probe::guard(|| compile_ptx_with_opts(cuda_c, own)) {
            Ok(Err(error)) if is_unknown_architecture(&error) => {
                compiled(probe::guard(|| compile_ptx_with_opts(cuda_c, CompileOptions::default())))
            }
            outcome => compiled(outcome),
        }
    }

    fn load(&self, ptx: Ptx) -> Result<Arc<CudaModule>, LoadError> {
        match probe::guard(|| self.context.load_module(ptx)) {
            Ok(Ok(module)) => Ok(module),
            Ok(Err(error)) => Err(LoadError {
                too_new: error.0 == CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
                message: probe::text(error),
            }),
            Err(panic) => Err(LoadError { too_new: false, message: panic }),
        }
    }
}

/// Why the driver did not take a module.
struct LoadError {
    /// It is PTX of a later version than the driver knows.
    too_new: bool,
    message: String,
}

fn is_unknown_architecture(error: &CompileError) -> bool {
    let CompileError::CompileError { nvrtc, .. } = error else { return false };
    nvrtc.0 == sys::nvrtcResult::NVRTC_ERROR_INVALID_OPTION
}

fn compiled(outcome: Result<Result<Ptx, CompileError>, String>) -> Result<Ptx, String> {
    match outcome {
        Ok(Ok(ptx)) => Ok(ptx),
        Ok(Err(CompileError::CompileError { log, .. })) => Err(log.to_string_lossy().trim().to_owned()),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Err(panic) => Err(panic),
    }
}
