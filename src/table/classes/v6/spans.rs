//! Runs of lower halves in the image: classes by place, as those of the last bytes of IPv4.

use std::hint::select_unpredictable;

use rustc_hash::FxHashMap;

use super::super::image::{Builder, Image};
use super::super::limits::Refused;
use super::super::ranges::Intervals;
use super::search::pair;

/// What addresses of one upper half are, where those that differ lie near each other.
///
/// Four words: the first bound (two words, the lower one first); shift | last << 6; the table. That has 16 bits for the
/// class of what is below the first bound, and then, for 0..=last, of what is from the first bound + (place << shift) on.
pub type Span = [u32; WORDS as usize];
/// Of a span.
pub const WORDS: u32 = 4;

/// Places of the largest table: every edit in it makes another one.
const MOST: u64 = 1 << 12;
/// Places that are never too many, and those that each bound allows besides.
const FREE: u64 = 256;
const OF_BOUND: u64 = 16;
/// Bits of the shift.
const SHIFT: u32 = 6;

/// The class of a lower half.
#[inline]
pub fn class(image: &Image, span: u32, low: u64) -> u32 {
    let [first, upper, form, table] = *image.chunk(span);
    let first = u64::from(first) | u64::from(upper) << 32;
    let last = u64::from(form >> SHIFT);
    #[allow(clippy::cast_possible_truncation)] // At most the last one.
    let place = (low.wrapping_sub(first) >> (form % (1 << SHIFT))).min(last) as u32 + 1;
    // Not a branch, as nobody knows where addresses lie.
    image.half(table, select_unpredictable(low < first, 0, place))
}

/// Spans that are written together; equal ones are one, and so are equal tables.
pub struct Spans<'a> {
    image: &'a mut Builder,
    tables: FxHashMap<Vec<u16>, u32>,
    known: FxHashMap<Span, u32>,
    written: Vec<Span>,
}

impl<'a> Spans<'a> {
    pub fn new(image: &'a mut Builder) -> Self {
        Self { image, tables: FxHashMap::default(), known: FxHashMap::default(), written: Vec::new() }
    }

    /// The number of the span that these intervals are, the first one of which begins at 0; none if they lie too far
    /// from each other.
    pub fn add(&mut self, intervals: Intervals<'_, u64>) -> Result<Option<u32>, Refused> {
        let Some((first, shift, last)) = form(intervals) else { return Ok(None) };
        let mut classes = vec![half(intervals[0].1); last as usize + 2];
        let place = |bound: u64| 1 + usize::try_from((bound - first) >> shift).expect("at most the last one");
        for (index, &(bound, class)) in intervals.iter().enumerate().skip(1) {
            let behind = intervals.get(index + 1).map_or(classes.len(), |&(next, _)| place(next));
            classes[place(bound)..behind].fill(half(class));
        }
        let table = self.table(classes)?;
        let [low, high] = pair(first);
        let span = [low, high, shift | last << SHIFT, table];
        let next = u32::try_from(self.written.len()).expect("the image has room for their tables");
        let number = *self.known.entry(span).or_insert(next);
        if number == next {
            self.written.push(span);
        }
        Ok(Some(number))
    }

    fn table(&mut self, classes: Vec<u16>) -> Result<u32, Refused> {
        if let Some(&known) = self.tables.get(&classes) {
            return Ok(known);
        }
        self.image.check(classes.len() / 2 + 1)?;
        let table = self.image.push_halves(&classes);
        self.tables.insert(classes, table);
        Ok(table)
    }

    /// What is written between the spans.
    pub fn image(&mut self) -> &mut Builder {
        self.image
    }

    /// Writes the spans: that of a number is at so many words for each one before it.
    pub fn write(self) -> Result<u32, Refused> {
        self.image.check(self.written.as_flattened().len())?;
        // No span in two lines.
        self.image.align();
        Ok(self.image.push(self.written.into_iter().flatten()))
    }
}

fn half(class: u32) -> u16 {
    u16::try_from(class).expect("16 bits tell more classes apart than a partition may have")
}

/// The first bound, the shift, and the last place.
fn form(intervals: Intervals<'_, u64>) -> Option<(u64, u32, u32)> {
    let bounds = &intervals[1..];
    let (Some(&(first, _)), Some(&(last, _))) = (bounds.first(), bounds.last()) else {
        return Some((0, 0, 0));
    };
    let shift = bounds.iter().fold(0, |all, (bound, _)| all | bound).trailing_zeros();
    let last = (last - first) >> shift;
    let most = MOST.min(FREE + OF_BOUND * bounds.len() as u64);
    let last = u32::try_from(last).ok().filter(|&last| u64::from(last) < most)?;
    Some((first, shift, last))
}
