//! What a lease can do with wgpu: its context, and buffers that are debited.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ::wgpu::{Buffer, BufferDescriptor, BufferUsages, COPY_BUFFER_ALIGNMENT};
use quark_base::ByteSize;

use super::WgpuContext;
use crate::context::{AllocError, ContextError};
use crate::lease::{DeviceLease, Reservation};

impl DeviceLease {
    /// The device's wgpu context: opened by the first lease that asks (which blocks for tens of milliseconds),
    /// shared by all. A lease keeps the context it got first, so once that is lost this stays an error; lease
    /// anew for a new context.
    pub fn wgpu(&self) -> Result<Arc<WgpuContext>, ContextError> {
        let own = &self.inner.contexts.wgpu.0;
        let context = match own.get() {
            Some(context) => context,
            None => {
                let opened = self.inner.pool.contexts.wgpu.get(self.device())?;
                own.get_or_init(|| opened)
            }
        };
        context.check()?;
        Ok(Arc::clone(context))
    }

    /// A buffer of this lease. Its size, rounded up to wgpu's four bytes, is debited until it is dropped.
    pub fn create_buffer(&self, descriptor: &BufferDescriptor<'_>) -> Result<LeasedBuffer, AllocError> {
        let context = self.wgpu()?;
        let asked = ByteSize::bytes(
            descriptor.size.checked_next_multiple_of(COPY_BUFFER_ALIGNMENT).unwrap_or(u64::MAX),
        );
        let reservation = self.reserve(asked)?;
        let limit = context.limits.max_buffer_size;
        if descriptor.size > limit {
            let limit = ByteSize::bytes(limit);
            let reason = format!("the device's largest buffer is {limit}");
            return Err(AllocError::Refused { device: self.device().id.clone(), asked, reason });
        }
        let created = context.scoped(|| context.device.create_buffer(descriptor));
        // A device that was lost meanwhile makes invalid buffers without an error.
        context.check()?;
        let device = self.device().id.clone();
        let buffer = created.map_err(|error| match error {
            ::wgpu::Error::OutOfMemory { .. } => AllocError::OutOfMemory { device, asked },
            error => AllocError::Refused { device, asked, reason: error.to_string() },
        })?;
        Ok(LeasedBuffer { buffer, reservation })
    }

    /// A buffer of this lease with these contents, padded with zeros to a multiple of four bytes.
    pub fn upload_buffer(
        &self,
        label: &str,
        contents: &[u8],
        usage: BufferUsages,
    ) -> Result<LeasedBuffer, AllocError> {
        let length = contents.len() as u64;
        let size = length.checked_next_multiple_of(COPY_BUFFER_ALIGNMENT).unwrap_or(u64::MAX);
        let mapped_at_creation = !contents.is_empty();
        let buffer =
            self.create_buffer(&BufferDescriptor { label: Some(label), size, usage, mapped_at_creation })?;
        if mapped_at_creation {
            // Views are multiples of four bytes; the padding is zero, as all of a new buffer.
            let mut view = buffer.get_mapped_range_mut(..).map_err(|error| AllocError::Refused {
                device: self.device().id.clone(),
                asked: buffer.debited(),
                reason: error.to_string(),
            })?;
            view.slice(..contents.len()).copy_from_slice(contents);
            drop(view);
            buffer.unmap();
        }
        Ok(buffer)
    }
}

/// A wgpu buffer that is debited against its lease.
///
/// Dropping it destroys the buffer, even if a bind group still names it (using that bind group is then a
/// validation error): the ledger may promise its bytes to others from then on. Work that was submitted before
/// finishes first.
pub struct LeasedBuffer {
    buffer: Buffer,
    reservation: Reservation,
}

impl LeasedBuffer {
    /// The bytes it takes from its lease.
    pub fn debited(&self) -> ByteSize {
        self.reservation.bytes()
    }
}

impl Deref for LeasedBuffer {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.buffer
    }
}

impl Drop for LeasedBuffer {
    fn drop(&mut self) {
        self.buffer.destroy();
    }
}

impl fmt::Debug for LeasedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBuffer")
            .field("size", &self.buffer.size())
            .field("reservation", &self.reservation)
            .finish()
    }
}
