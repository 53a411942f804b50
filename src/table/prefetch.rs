//! Tells the processor what will be read soon. A hint: it changes no answer and reads nothing.

/// Asks for the cache line of a value, wherever that is.
#[inline]
#[allow(unsafe_code)]
pub fn prefetch<T>(value: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64; a prefetch cannot fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(value.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::asm;
        // SAFETY: a prefetch cannot fault, whatever the address, and changes nothing that a program sees.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) value, options(nostack, nomem, preserves_flags)) };
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = value;
}

/// Asks for the cache lines of so many values from one on, wherever they are; where these begin within a line, not for the
/// last one: whoever goes on asks for that.
#[inline]
pub fn prefetch_all<T>(first: *const T, count: usize) {
    for at in (0..count * size_of::<T>()).step_by(LINE) {
        prefetch(first.cast::<u8>().wrapping_add(at));
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;
