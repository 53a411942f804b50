//! Memory for tables. Large ones are in huge pages, where the kernel has them: a walk reads places far apart, and each page of
//! 4 KiB costs the processor a search for its address as long as the load itself.
//!
//! Some walks read without asking how long a table is: there is memory behind every offset of 32 bits, as runtimes of
//! WebAssembly have it. What is behind the room for the table is address space alone, all zeros.

use std::io;
use std::ptr::{self, NonNull};
use std::slice;

use bytemuck::AnyBitPattern;

/// Of the smallest huge page of x86-64, and of aarch64 with pages of 4 KiB.
const HUGE: usize = 1 << 21;
/// Less than this is not worth a huge page: no more than half of one is wasted.
pub const WORTH: usize = HUGE / 2;
/// Where an offset of 32 bits in words leads, and this many bytes on.
const REACH: usize = (1 << u32::BITS) * size_of::<u32>() + BEYOND;
/// How much may be read from such an offset on.
pub const BEYOND: usize = 64;
/// The smallest page of any processor.
const PAGE: usize = 1 << 12;

/// Zeroed memory; it begins at a page.
#[derive(Debug)]
pub struct Pages {
    /// Of all of the address space.
    map: NonNull<u8>,
    span: usize,
    start: NonNull<u8>,
    bytes: usize,
    room: usize,
}

// SAFETY: the memory is this value's alone, and is written through `&mut` only.
#[allow(unsafe_code)]
unsafe impl Send for Pages {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Pages {}

#[allow(unsafe_code)]
impl Pages {
    /// Whether there could be any now: asked before a table is built, not after.
    pub fn check() -> io::Result<()> {
        Self::zeroed(0).map(|_| ())
    }

    /// So many bytes, and zeros as far as 32-bit offsets of words lead. Fails without memory, or without 16 GiB of address
    /// space: under `ulimit -v`, or where thousands of tables have taken it.
    pub fn zeroed(bytes: usize) -> io::Result<Self> {
        if bytes > REACH - HUGE {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Self::mapped(bytes, REACH)
    }

    /// So many bytes, with nothing behind them. Fails without memory.
    pub fn alone(bytes: usize) -> io::Result<Self> {
        Self::mapped(bytes, 0)
    }

    /// So many bytes, of at least so much address space.
    fn mapped(bytes: usize, reach: usize) -> io::Result<Self> {
        let is_large = bytes >= WORTH;
        let room = if is_large { bytes.next_multiple_of(HUGE) } else { bytes };
        // With room to begin at a huge page.
        let span = room.max(reach).max(PAGE) + if is_large { HUGE } else { 0 };
        // SAFETY: asks for new memory. It is not to be written, so that nobody has to account for it.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(ptr::null_mut(), span, libc::PROT_READ, flags, -1, 0)
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).expect("a map is nowhere else");
        let from = if is_large { map.as_ptr().align_offset(HUGE) } else { 0 };
        // SAFETY: no more than a huge page on in the map.
        let start = unsafe { map.add(from) };
        let pages = Self { map, span, start, bytes, room };
        pages.open()?;
        Ok(pages)
    }

    /// Lets what there is room for be written.
    fn open(&self) -> io::Result<()> {
        if self.room == 0 {
            return Ok(()); // To the kernel this is as good as done; to the user mode of QEMU 7.2 it is an error.
        }
        let start = self.start.as_ptr().cast();
        // SAFETY: the map has space for the room, and a huge page more where the room begins at one.
        if unsafe { libc::mprotect(start, self.room, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if self.room >= HUGE {
            // SAFETY: as above. Advice alone: a kernel without huge pages says that it has none.
            unsafe { libc::madvise(start, self.room, libc::MADV_HUGEPAGE) };
        }
        Ok(())
    }

    /// Takes so many bytes instead, the first ones as they were; says whether there is room for that.
    pub fn resize(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.room;
        if fits {
            self.bytes = bytes;
        }
        fits
    }

    /// Where it begins: if [`zeroed`](Self::zeroed), there is initialised memory at every 32-bit offset of words from here, and
    /// [`BEYOND`] bytes on.
    #[inline]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// All of it.
    pub const fn bytes(&self) -> &[u8] {
        // SAFETY: there is room for as many, which the kernel has initialised.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// All of it, but for what is too short for one more.
    #[inline]
    pub const fn items<T: AnyBitPattern>(&self) -> &[T] {
        const { assert!(align_of::<T>() <= PAGE) };
        // SAFETY: as above; it begins at a page, and whatever it holds is one of `T`.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    /// All of it, to be written.
    pub const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and what there is room for may be written.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

#[allow(unsafe_code)]
impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the map is this value's alone. A failure would mean that it is none.
        let unmapped = unsafe { libc::munmap(self.map.as_ptr().cast(), self.span) };
        debug_assert_eq!(unmapped, 0, "a map of this size");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_whole_zeroed_and_aligned() {
        let sizes = [0, 1, 4095, 4096, WORTH - 1, WORTH, HUGE, HUGE + 1, 3 * HUGE - 1];
        for (bytes, zeroed) in sizes.into_iter().flat_map(|bytes| [(bytes, true), (bytes, false)]) {
            let mut pages = if zeroed { Pages::zeroed(bytes) } else { Pages::alone(bytes) }.expect("memory");
            assert_eq!(pages.bytes().len(), bytes);
            assert_eq!(pages.items::<u64>(), vec![0; bytes / 8]);
            assert!(pages.bytes().iter().all(|&byte| byte == 0));
            pages.bytes_mut().fill(0xa5);
            assert!(pages.bytes().iter().all(|&byte| byte == 0xa5));
            assert_eq!(pages.start().as_ptr().cast_const(), pages.bytes().as_ptr());
            let alignment = if bytes < WORTH { 4096 } else { HUGE };
            assert_eq!(pages.start().align_offset(alignment), 0, "{bytes} bytes");
            assert!(pages.resize(bytes / 2));
            assert_eq!(pages.bytes(), vec![0xa5; bytes / 2]);
            assert!(pages.resize(bytes) && !pages.resize(bytes + 2 * HUGE));
            assert_eq!(pages.bytes().len(), bytes);
        }
    }

    #[test]
    #[allow(unsafe_code)]
    fn whatever_32_bits_lead_to_can_be_read() {
        for bytes in [0, 4096, WORTH, HUGE + 1] {
            let mut pages = Pages::zeroed(bytes).expect("memory");
            pages.bytes_mut().fill(0xff);
            for offset in
                [pages.room.next_multiple_of(1 << 16) / 4, 1 << 24, 1 << 30, 1 << 31, u32::MAX as usize]
            {
                // SAFETY: what is tested.
                let words =
                    unsafe { pages.start().cast::<u32>().add(offset).cast::<[u32; BEYOND / 4]>().read() };
                assert_eq!(words, [0; BEYOND / 4], "{bytes} bytes, word {offset}");
            }
        }
    }

    #[test]
    fn more_than_offsets_lead_to_is_refused() {
        assert_eq!(Pages::zeroed(REACH + 1).expect_err("too much").raw_os_error(), Some(libc::ENOMEM));
    }
}
