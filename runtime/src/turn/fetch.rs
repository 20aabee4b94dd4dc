//! Asking the processor for memory before it is used.

#[cfg(target_arch = "x86_64")]
mod chosen {
    use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};

    #[inline(always)]
    pub(super) fn to_write(address: *const u8) {
        // SAFETY: it is a hint, which goes wrong for no address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) };
    }

    #[inline(always)]
    pub(super) fn to_read(address: *const u8) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod chosen {
    pub(super) fn to_write(_: *const u8) {}

    pub(super) fn to_read(_: *const u8) {}
}

/// Bytes that come together.
const LINE: usize = 64;

/// The first two lines at `place` will be written soon.
#[inline(always)]
pub(super) fn to_write<T>(place: *const T) {
    chosen::to_write(place.cast());
    chosen::to_write(place.cast::<u8>().wrapping_add(LINE));
}

/// The second line at `place` will be read soon.
#[inline(always)]
pub(super) fn second_line<T>(place: *const T) {
    chosen::to_read(place.cast::<u8>().wrapping_add(LINE));
}
