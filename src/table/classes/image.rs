//! The flat image: cache lines of words, offsets instead of pointers. It can be shared, mapped, and compared byte for
//! byte.

use super::limits::Refused;
use super::maps::Width;
use super::spare::{Changes, Home};
use crate::table::pages::Pages;

/// One cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line([u32; WORDS]);

pub const WORDS: usize = 16;
#[allow(clippy::cast_possible_truncation)] // 16.
const WORD_COUNT: u32 = WORDS as u32;

/// Words by offset; offsets behind the end are programming errors and panic.
#[derive(Debug)]
pub struct Image {
    pages: Pages,
    /// Lengths as lines, words and halves: as fields, for shifting at each load took as long as the loads.
    lines: usize,
    words: usize,
    halves: usize,
    home: Home,
}

impl Drop for Image {
    fn drop(&mut self) {
        self.home.give(|| std::mem::replace(&mut self.pages, Pages::zeroed(0)));
    }
}

#[allow(unsafe_code)]
impl Image {
    /// Of whole lines.
    fn of((pages, home): (Pages, Home)) -> Self {
        let words = pages.bytes().len() / size_of::<u32>();
        Self { pages, lines: words / WORDS, words, halves: 2 * words, home }
    }

    #[inline]
    fn lines(&self) -> &[Line] {
        // SAFETY: the pages are initialised, hold so many lines, begin at a page and never change; any bytes are a line.
        unsafe { std::slice::from_raw_parts(self.pages.start().cast(), self.lines) }
    }

    #[inline]
    fn words(&self) -> &[u32] {
        // SAFETY: as for lines, which are words without padding.
        unsafe { std::slice::from_raw_parts(self.pages.start().cast(), self.words) }
    }

    #[inline]
    fn halves(&self) -> &[u16] {
        // SAFETY: as for words; halves need less alignment.
        unsafe { std::slice::from_raw_parts(self.pages.start().cast(), self.halves) }
    }

    /// The word at this offset.
    #[inline]
    pub fn word(&self, offset: u32) -> u32 {
        found(self.words().get(offset as usize).copied())
    }

    /// The 16-bit value at an index counted from a word offset: the lower half of a word is the first one.
    #[inline]
    pub fn half(&self, offset: u32, index: u32) -> u32 {
        let index = if cfg!(target_endian = "little") { index } else { index ^ 1 };
        u32::from(found(self.halves().get(2 * offset as usize + index as usize).copied()))
    }

    /// The value of `1 << log` bits at an index counted from a word offset, of which `mask` has the bits: the lowest bits
    /// of a word come first.
    #[inline]
    pub fn bits(&self, offset: u32, index: u32, log: u32, mask: u32) -> u32 {
        let bit = index << (log % u32::BITS);
        self.word(offset + bit / u32::BITS) >> (bit % u32::BITS) & mask
    }

    /// A whole line; its offset is a multiple of [`WORDS`].
    #[inline]
    pub fn line(&self, offset: u32) -> &[u32; WORDS] {
        self.line_at(offset / WORD_COUNT)
    }

    /// A whole line, by its own number.
    #[inline]
    pub fn line_at(&self, index: u32) -> &[u32; WORDS] {
        &self.lines()[index as usize].0
    }

    /// So many words.
    #[inline]
    pub fn chunk<const N: usize>(&self, offset: u32) -> &[u32; N] {
        found(self.words().get(offset as usize..).and_then(|words| words.first_chunk()))
    }

    /// All of it, in the byte order of the machine.
    pub fn bytes(&self) -> &[u8] {
        self.pages.bytes()
    }
}

/// A panic that says no numbers, which would have to be at hand at every load.
#[inline]
fn found<T>(value: Option<T>) -> T {
    #[cold]
    #[inline(never)]
    fn outside() -> ! {
        panic!("an offset leads out of the image")
    }
    value.unwrap_or_else(|| outside())
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
    pub fn image(&mut self) -> Image {
        self.align();
        Image::of(self.changes.copy(&self.words))
    }

    /// Its size now.
    pub fn bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }
}
