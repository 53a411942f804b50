//! The flat image: cache lines of words, offsets instead of pointers. It can be shared, mapped, and compared byte for
//! byte.

use std::mem::ManuallyDrop;

use super::limits::Refused;
use super::maps::Width;
use super::spare::{Changes, Home};
use crate::table::pages::{BEYOND, Pages};
use crate::table::prefetch::prefetch;

/// Words of a cache line.
pub const WORDS: usize = 16;

/// Words by offset. No walk leaves the image: an offset behind its end is a programming error, which panics where
/// assertions are on. Elsewhere it leads to what nobody reads, mostly zeros.
#[derive(Debug)]
pub struct Image {
    pages: ManuallyDrop<Pages>,
    home: Home,
}

#[allow(unsafe_code)]
impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: once, and nobody has the image any more.
        self.home.give(unsafe { ManuallyDrop::take(&mut self.pages) });
    }
}

#[allow(unsafe_code)]
impl Image {
    fn of((pages, home): (Pages, Home)) -> Self {
        Self { pages: ManuallyDrop::new(pages), home }
    }

    #[inline]
    fn start(&self) -> *const u32 {
        self.pages.start().as_ptr().cast()
    }

    #[inline]
    fn assert_holds(&self, from: usize, bytes: usize) {
        debug_assert!(from + bytes <= self.bytes().len(), "an offset leads out of the image");
    }

    /// The word at this offset.
    #[inline]
    pub fn word(&self, offset: u32) -> u32 {
        let &[word] = self.chunk(offset);
        word
    }

    /// The 16-bit value at an index counted from a word offset: the lower half of a word is the first one.
    #[inline]
    pub fn half(&self, offset: u32, index: u32) -> u32 {
        let index = if cfg!(target_endian = "little") { index } else { index ^ 1 };
        // Images are too small for this to leave 32 bits, and whatever it is has to stay in them.
        let place = offset.wrapping_mul(2).wrapping_add(index) as usize;
        self.assert_holds(place * size_of::<u16>(), size_of::<u16>());
        // SAFETY: nearer than the word at such an offset; the pages begin at a page.
        u32::from(unsafe { *self.start().cast::<u16>().add(place) })
    }

    /// The byte at an index counted from a word offset: the lowest one of a word is the first one.
    #[inline]
    pub fn byte(&self, offset: u32, index: u32) -> u32 {
        let index = if cfg!(target_endian = "little") { index } else { index ^ 3 };
        // As of halves.
        let place = offset.wrapping_mul(4).wrapping_add(index) as usize;
        self.assert_holds(place, size_of::<u8>());
        // SAFETY: nearer than the word at such an offset; the pages begin at a page.
        u32::from(unsafe { *self.start().cast::<u8>().add(place) })
    }

    /// The value of `1 << log` bits at an index counted from a word offset, of which `mask` has the bits: the lowest bits
    /// of a word come first.
    #[inline]
    pub fn bits(&self, offset: u32, index: u32, log: u32, mask: u32) -> u32 {
        let bit = index << (log % u32::BITS);
        self.word(offset + bit / u32::BITS) >> (bit % u32::BITS) & mask
    }

    /// Asks for the line of a word, of any offset.
    #[inline]
    pub fn ask(&self, offset: u32) {
        prefetch(self.start().wrapping_add(offset as usize));
    }

    /// A whole line; its offset is a multiple of [`WORDS`].
    #[inline]
    pub fn line(&self, offset: u32) -> &[u32; WORDS] {
        self.chunk(offset)
    }

    /// So many words, no more than a line.
    #[inline]
    pub fn chunk<const N: usize>(&self, offset: u32) -> &[u32; N] {
        self.assert_holds(offset as usize * size_of::<u32>(), size_of::<[u32; N]>());
        self.chunk_anywhere(offset)
    }

    /// The same, of an offset that may lead out of the image: who asks knows whether what is there counts.
    #[inline]
    pub fn chunk_anywhere<const N: usize>(&self, offset: u32) -> &[u32; N] {
        const { assert!(size_of::<[u32; N]>() <= BEYOND) };
        // SAFETY: the pages have initialised memory at every 32-bit offset of words, and so many bytes on; they begin at a
        // page, and do not change as long as they are here.
        unsafe { &*self.start().add(offset as usize).cast() }
    }

    /// All of it, in the byte order of the machine.
    pub fn bytes(&self) -> &[u8] {
        self.pages.bytes()
    }
}

/// An image that grows up to a limit.
#[derive(Debug)]
pub struct Builder {
    words: Vec<u32>,
    most: usize,
    changes: Changes,
}

impl Builder {
    /// For an image of at most so many bytes.
    pub fn new(most: usize) -> Self {
        Self { words: Vec::new(), most: most.min(super::limits::MOST_BYTES), changes: Changes::default() }
    }

    /// Whether so many more words fit, with those that [`align`](Self::align) adds.
    pub fn check(&self, words: usize) -> Result<(), Refused> {
        let aligned = self.words.len().next_multiple_of(WORDS);
        let found = (aligned + words).next_multiple_of(WORDS) * size_of::<u32>();
        super::limits::within(found, self.most, |found, most| Refused::Bytes { found, most })?;
        Ok(())
    }

    /// Where the next word goes, after room to begin a line.
    pub fn align(&mut self) -> u32 {
        let before = self.words.len();
        self.words.resize(before.next_multiple_of(WORDS), 0);
        self.grown(before);
        self.offset()
    }

    /// Where the next word goes.
    pub fn offset(&self) -> u32 {
        u32::try_from(self.words.len()).expect("images are smaller than 4 GiB")
    }

    /// Forgets all words from this offset on.
    pub fn truncate(&mut self, offset: u32) {
        self.words.truncate(offset as usize);
        self.changes.truncate(offset as usize);
    }

    /// Appends; returns the offset of the first word.
    pub fn push(&mut self, words: impl IntoIterator<Item = u32>) -> u32 {
        let offset = self.offset();
        self.words.extend(words);
        self.grown(offset as usize);
        offset
    }

    /// All words from this one on are new.
    fn grown(&mut self, from: usize) {
        self.changes.note(from, self.words.len());
    }

    /// Appends 16-bit values, two to a word.
    pub fn push_halves(&mut self, halves: &[u16]) -> u32 {
        self.push(
            halves
                .chunks(2)
                .map(|pair| u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 16),
        )
    }

    /// Replaces words.
    pub fn set(&mut self, offset: u32, words: &[u32]) {
        let at = offset as usize;
        let old = &mut self.words[at..][..words.len()];
        if old != words {
            old.copy_from_slice(words);
            self.changes.note(at, at + words.len());
        }
    }

    /// The word at this offset.
    pub fn word(&self, offset: u32) -> u32 {
        self.words[offset as usize]
    }

    /// The words from this offset on.
    pub fn words<const N: usize>(&self, offset: u32) -> [u32; N] {
        *self.words[offset as usize..].first_chunk().expect("inside of the image")
    }

    /// Replaces the 16-bit value at an index counted from a word offset.
    pub fn set_half(&mut self, offset: u32, index: u32, half: u32) {
        let (at, shift) = (offset + index / 2, 16 * (index % 2));
        self.set(at, &[self.word(at) & !(0xffff << shift) | half << shift]);
    }

    /// The value of so many bits at an index counted from a word offset.
    pub fn bits(&self, offset: u32, index: u32, width: Width) -> u32 {
        let bit = index << width.log;
        self.word(offset + bit / u32::BITS) >> (bit % u32::BITS) & width.mask()
    }

    /// Replaces such a value.
    pub fn set_bits(&mut self, offset: u32, index: u32, width: Width, value: u32) {
        let bit = index << width.log;
        let (at, shift) = (offset + bit / u32::BITS, bit % u32::BITS);
        self.set(at, &[self.word(at) & !(width.mask() << shift) | value << shift]);
    }

    /// Repeats words that are there.
    pub fn copy(&mut self, offset: u32, count: usize) -> u32 {
        let to = self.offset();
        self.words.extend_from_within(offset as usize..offset as usize + count);
        self.grown(to as usize);
        to
    }

    /// Words that are changed where they stand.
    pub fn words_mut(&mut self, offset: u32, count: usize) -> &mut [u32] {
        self.changes.note(offset as usize, offset as usize + count);
        &mut self.words[offset as usize..][..count]
    }

    /// The image as it is now.
    pub fn image(&mut self) -> Result<Image, Refused> {
        self.align();
        Ok(Image::of(self.changes.copy(&self.words).map_err(|error| Refused::memory(&error))?))
    }

    /// Its size now.
    pub fn bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }
}
