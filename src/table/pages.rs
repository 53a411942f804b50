//! Memory for tables: large ones in huge pages, where the kernel has them. A walk reads places far apart, and each page
//! of 4 KiB costs the processor a search for its address as long as the load itself.

use memmap2::{Advice, MmapMut, MmapOptions};

/// Of the smallest huge page of x86-64, and of aarch64 with pages of 4 KiB.
const HUGE: usize = 1 << 21;
/// Less than this is not worth a huge page: no more than half of one is wasted.
const WORTH: usize = HUGE / 2;

/// Zeroed memory, aligned to a page at least.
#[derive(Debug)]
pub struct Pages {
    map: MmapMut,
    /// Where it begins in the map.
    from: usize,
    bytes: usize,
}

impl Pages {
    /// So many bytes. Panics without memory, as any collection does.
    pub fn zeroed(bytes: usize) -> Self {
        let is_large = bytes >= WORTH;
        // Kernels before 6.7 do not begin large maps at huge pages by themselves.
        let length = if is_large { bytes.next_multiple_of(HUGE) + HUGE } else { bytes };
        let map = MmapOptions::new().len(length).map_anon().expect("memory for a table");
        let from = if is_large { map.as_ptr().align_offset(HUGE) } else { 0 };
        if is_large {
            // Advice alone: a kernel without huge pages says that it has none.
            let _ = map.advise_range(Advice::HugePage, from, length - HUGE);
        }
        Self { map, from, bytes }
    }

    /// Takes so many bytes instead, the first ones as they were; says whether there is room for that.
    pub fn resize(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.map.len() - self.from;
        if fits {
            self.bytes = bytes;
        }
        fits
    }

    /// Where it begins.
    #[inline]
    pub fn start(&self) -> *const u8 {
        self.map.as_ptr().wrapping_add(self.from)
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.from..][..self.bytes]
    }

    /// All of it, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.from..][..self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_whole_zeroed_and_aligned() {
        for bytes in [0, 1, 4095, 4096, WORTH - 1, WORTH, HUGE, HUGE + 1, 3 * HUGE - 1] {
            let mut pages = Pages::zeroed(bytes);
            assert_eq!(pages.bytes().len(), bytes);
            assert!(pages.bytes().iter().all(|&byte| byte == 0));
            pages.bytes_mut().fill(0xa5);
            assert!(pages.bytes().iter().all(|&byte| byte == 0xa5));
            assert_eq!(pages.start(), pages.bytes().as_ptr());
            let alignment = if bytes < WORTH { 4096 } else { HUGE };
            assert_eq!(pages.start().align_offset(alignment), 0, "{bytes} bytes");
            assert!(pages.resize(bytes / 2));
            assert_eq!(pages.bytes(), vec![0xa5; bytes / 2]);
            assert!(pages.resize(bytes) && !pages.resize(bytes + 2 * HUGE));
            assert_eq!(pages.bytes().len(), bytes);
        }
    }
}
