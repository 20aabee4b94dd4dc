//! What a lease can do with CUDA: its context, and device memory that is debited.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaSlice, DeviceRepr, ValidAsZeroBits};
use quark_base::ByteSize;

use super::{CudaContext, probe};
use crate::context::{AllocError, ContextError};
use crate::lease::{DeviceLease, Reservation};

impl DeviceLease {
    /// The device's CUDA context: opened by the first lease that asks (which blocks for some hundred
    /// milliseconds), shared by all. A lease keeps the context it got first, so once that is lost this stays an
    /// error; lease anew for a new context.
    pub fn cuda(&self) -> Result<Arc<CudaContext>, ContextError> {
        let own = &self.inner.contexts.cuda.0;
        let context = match own.get() {
            Some(context) => context,
            None => {
                let opened = self.inner.pool.contexts.cuda.get(self.device())?;
                own.get_or_init(|| opened)
            }
        };
        context.check()?;
        Ok(Arc::clone(context))
    }

    /// Device memory for `count` values, all zero, on the context's stream. Debited until it is dropped.
    pub fn alloc_zeros<T: DeviceRepr + ValidAsZeroBits>(
        &self,
        count: usize,
    ) -> Result<LeasedSlice<T>, AllocError> {
        self.allocate(count, |context| context.stream.alloc_zeros(count))
    }

    /// Device memory with a copy of these values, on the context's stream. Debited until it is dropped.
    pub fn alloc_copy<T: DeviceRepr>(&self, values: &[T]) -> Result<LeasedSlice<T>, AllocError> {
        self.allocate(values.len(), |context| context.stream.clone_htod(values))
    }

    fn allocate<T>(
        &self,
        count: usize,
        allocate: impl FnOnce(&CudaContext) -> Result<CudaSlice<T>, DriverError>,
    ) -> Result<LeasedSlice<T>, AllocError> {
        let context = self.cuda()?;
        let bytes = count.checked_mul(size_of::<T>()).and_then(|bytes| u64::try_from(bytes).ok());
        let asked = ByteSize::bytes(bytes.unwrap_or(u64::MAX));
        let reservation = self.reserve(asked)?;
        let device = || self.device().id.clone();
        match probe::guard(|| allocate(&context)) {
            Ok(Ok(slice)) => Ok(LeasedSlice { slice, reservation }),
            Ok(Err(error)) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(AllocError::OutOfMemory { device: device(), asked })
            }
            Ok(Err(error)) => {
                Err(AllocError::Refused { device: device(), asked, reason: probe::text(error) })
            }
            Err(panic) => Err(AllocError::Refused { device: device(), asked, reason: panic }),
        }
    }
}

/// CUDA device memory that is debited against its lease; dropping it frees the memory, in the stream's order, and
/// then gives the bytes back.
pub struct LeasedSlice<T> {
    // Declared first, so dropped first: the bytes go back only once the memory is freed.
    slice: CudaSlice<T>,
    reservation: Reservation,
}

impl<T> LeasedSlice<T> {
    /// The bytes it takes from its lease.
    pub fn debited(&self) -> ByteSize {
        self.reservation.bytes()
    }
}

impl<T> Deref for LeasedSlice<T> {
    type Target = CudaSlice<T>;

    fn deref(&self) -> &CudaSlice<T> {
        &self.slice
    }
}

impl<T> DerefMut for LeasedSlice<T> {
    fn deref_mut(&mut self) -> &mut CudaSlice<T> {
        &mut self.slice
    }
}

impl<T> fmt::Debug for LeasedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedSlice")
            .field("len", &self.slice.len())
            .field("reservation", &self.reservation)
            .finish()
    }
}
