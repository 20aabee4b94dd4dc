//! Opened devices: a GPU context per device, shared by all leases of it, with what was compiled for it.
//!
//! - `wgpu` (feature `wgpu`): device, queue and compute pipelines on any Vulkan device
//! - `cuda` (feature `cuda`): context, stream and modules on NVIDIA devices
//! - `cache`, `shared`: compiled or built once, shared, bounded
//!
//! Which backends exist is settled here, once: without a feature its module is replaced by one with nothing in it,
//! and a lease has no such method.

#[cfg(any(feature = "wgpu", feature = "cuda", test))]
mod cache;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "context/cuda_off.rs"]
mod cuda;
#[cfg(any(feature = "wgpu", feature = "cuda", test))]
mod shared;
#[cfg(feature = "wgpu")]
pub mod wgpu;
#[cfg(not(feature = "wgpu"))]
#[path = "context/wgpu_off.rs"]
mod wgpu;

use std::fmt;

use quark_base::{ByteSize, Fault, Outcome, Retry};

use crate::inventory::DeviceId;
use crate::ledger::OverLease;

/// The contexts one pool has opened.
#[derive(Default)]
#[allow(dead_code, reason = "each backend reads its own part, if it is built in")]
pub(crate) struct Contexts {
    pub(crate) wgpu: wgpu::PoolContexts,
    pub(crate) cuda: cuda::PoolContexts,
}

/// The contexts one lease works in.
#[derive(Default)]
#[allow(dead_code, reason = "each backend reads its own part, if it is built in")]
pub(crate) struct LeaseContexts {
    pub(crate) wgpu: wgpu::LeaseContext,
    pub(crate) cuda: cuda::LeaseContext,
}

/// A library that opens devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Vulkan through wgpu.
    Wgpu,
    /// The CUDA driver.
    Cuda,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Wgpu => "wgpu",
            Backend::Cuda => "CUDA",
        })
    }
}

/// Why a device has no context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// The device comes from a topology file. Retrying is pointless.
    #[error("{device} is simulated: it can be leased, but nothing can run on it")]
    Simulated {
        /// The device.
        device: DeviceId,
    },
    /// The backend's library is not on this machine. Retrying is pointless.
    #[error("{device}: {backend} is not available: {reason}")]
    NoLibrary {
        /// The device.
        device: DeviceId,
        /// The backend.
        backend: Backend,
        /// What is missing.
        reason: String,
    },
    /// The backend sees no device that is this one: another vendor's, or it is gone. Retrying is pointless.
    #[error("{device}: {backend} has no such device")]
    NotSeen {
        /// The device.
        device: DeviceId,
        /// The backend.
        backend: Backend,
    },
    /// The backend tried and could not open it. A retry can help (out of memory, driver restarting).
    #[error("{device}: {backend} could not open it: {reason}")]
    Failed {
        /// The device.
        device: DeviceId,
        /// The backend.
        backend: Backend,
        /// What the driver says.
        reason: String,
    },
    /// The context this lease works in is lost, and what was allocated in it too. A new lease gets a new context.
    #[error("{device}: the {backend} context was lost: {reason}")]
    Lost {
        /// The device.
        device: DeviceId,
        /// The backend.
        backend: Backend,
        /// What the driver says.
        reason: String,
    },
}

impl Fault for ContextError {
    fn outcome(&self) -> Outcome {
        match self {
            ContextError::Lost { .. } => Outcome::Unknown,
            ContextError::Failed { .. } => Outcome::Failed,
            _ => Outcome::Rejected,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            ContextError::Failed { .. } | ContextError::Lost { .. } => Retry::Safe,
            _ => Retry::Pointless,
        }
    }
}

/// Things of any type that one device keeps for its leases; at the bound the one used longest ago is forgotten.
pub const MAX_SHARED: usize = 256;

/// Why there is no shared thing. Nothing was kept under the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharedError<E> {
    /// The key stands for a thing of another type on this device already. Retrying is pointless.
    #[error("the key {key:?} is in use for something of another type on this device")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The context is lost.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// It could not be made; the next caller tries again.
    #[error("{0}")]
    Make(E),
}

/// Why nothing was allocated through a lease. The lease is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// It does not fit into the lease, or the lease is being unloaded.
    #[error(transparent)]
    OverLease(#[from] OverLease),
    /// There is no context to allocate in.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The device has less than the ledger thought: somebody outside uses it. A retry can help once the ledger is
    /// reconciled.
    #[error("{device}: out of memory while allocating {asked}")]
    OutOfMemory {
        /// The device.
        device: DeviceId,
        /// The bytes asked for.
        asked: ByteSize,
    },
    /// The driver refuses the request. Retrying is pointless.
    #[error("{device}: {asked} could not be allocated: {reason}")]
    Refused {
        /// The device.
        device: DeviceId,
        /// The bytes asked for.
        asked: ByteSize,
        /// What the driver says.
        reason: String,
    },
}

impl Fault for AllocError {
    fn outcome(&self) -> Outcome {
        match self {
            AllocError::OverLease(error) => error.outcome(),
            AllocError::Context(error) => error.outcome(),
            AllocError::OutOfMemory { .. } | AllocError::Refused { .. } => Outcome::Failed,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            AllocError::OverLease(error) => error.retry(),
            AllocError::Context(error) => error.retry(),
            AllocError::OutOfMemory { .. } => Retry::Safe,
            AllocError::Refused { .. } => Retry::Pointless,
        }
    }
}
