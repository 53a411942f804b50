//! Runs of lower halves in the image: classes by place, as those of the last bytes of IPv4.

use rustc_hash::FxHashMap;

use super::super::image::{Builder, Image};
use super::super::limits::Refused;
use super::super::ranges::Intervals;
use super::search::{number, pair};

/// What addresses of one upper half are, where those that differ lie near each other.
///
/// The base (two words, the lower one first); shift | last << 6; the table. That has 16 bits, for 0..=last, for the class of
/// what is from base + (place << shift) on. What is below the base is far above it in 64 bits, and so has the last place.
///
/// Of what leads to another search, all are 0 but shift and table: no span has a shift of 63 and one place. A table at 0 is
/// none.
pub type Span = [u32; WORDS];
/// Of a span.
pub const WORDS: usize = 4;

/// Leads to no search, but looks like what does: for keys of which it is not known yet what they lead to.
pub static UNKNOWN: Span = deeper(0);

/// What a place in the image has that leads nowhere. Whoever takes it for a span reads the header.
pub const NOTHING: Span = [0; WORDS];

/// Places of the largest table: every edit in it makes another one.
const MOST: u64 = 1 << 12;
/// Places that are never too many, and those that each bound allows besides.
const FREE: u64 = 256;
const OF_BOUND: u64 = 16;
/// Bits of the shift.
const SHIFT: u32 = 6;
/// The shift of what leads to another search.
const DEEPER: u32 = 63;

/// What leads to the search that a line says.
pub const fn deeper(line: u32) -> Span {
    [0, 0, DEEPER, line]
}

/// The line of the search that this leads to, if it is no span; 0 of what is [`UNKNOWN`].
#[inline]
pub fn line(&[_, _, form, table]: &Span) -> Option<u32> {
    (form == DEEPER).then_some(table)
}

/// The class of a lower half.
#[inline]
pub fn class(image: &Image, &[base, upper, form, table]: &Span, low: u64) -> u32 {
    let behind = low.wrapping_sub(number([base, upper])) >> (form % (1 << SHIFT));
    #[allow(clippy::cast_possible_truncation)] // At most the last one.
    let place = behind.min(u64::from(form >> SHIFT)) as u32;
    image.half(table, place)
}

/// Makes spans; equal tables are one.
pub struct Spans<'a> {
    image: &'a mut Builder,
    tables: FxHashMap<Vec<u16>, u32>,
}

impl<'a> Spans<'a> {
    pub fn new(image: &'a mut Builder) -> Self {
        Self { image, tables: FxHashMap::default() }
    }

    /// The span that these intervals are, the first one of which begins at 0, of which those from a value on are asked for;
    /// none if they lie too far from each other.
    pub fn add(&mut self, from: u64, intervals: Intervals<'_, u64>) -> Result<Option<Span>, Refused> {
        let Some(Form { base, shift, last }) = Form::of(from, intervals) else { return Ok(None) };
        let mut classes = vec![half(intervals[0].1); last as usize + 1];
        let place = |bound: u64| usize::try_from((bound - base) >> shift).expect("at most the last one");
        for (index, &(bound, class)) in intervals.iter().enumerate().skip(1) {
            let behind = intervals.get(index + 1).map_or(classes.len(), |&(next, _)| place(next));
            classes[place(bound)..behind].fill(half(class));
        }
        let [low, high] = pair(base);
        Ok(Some([low, high, shift | last << SHIFT, self.table(classes)?]))
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

    /// What is written between the tables.
    pub fn image(&mut self) -> &mut Builder {
        self.image
    }
}

fn half(class: u32) -> u16 {
    u16::try_from(class).expect("16 bits tell more classes apart than a partition may have")
}

/// A span without its table.
struct Form {
    base: u64,
    shift: u32,
    last: u32,
}

impl Form {
    fn of(from: u64, intervals: Intervals<'_, u64>) -> Option<Self> {
        let (before, bounds) = intervals.split_first()?;
        let (Some(&(first, _)), Some(&(last, behind))) = (bounds.first(), bounds.last()) else {
            return Some(Self { base: 0, shift: 0, last: 0 });
        };
        let most = MOST.min(FREE + OF_BOUND * bounds.len() as u64);
        let form = |base: u64| {
            let differing = bounds.iter().fold(0, |all, (bound, _)| all | (bound - base));
            let shift = differing.trailing_zeros().min(DEEPER - 1);
            let last = u32::try_from((last - base) >> shift).ok()?;
            (u64::from(last) < most).then_some(Self { base, shift, last })
        };
        // What is before the first bound has the last place.
        let short = if before.1 == behind { form(first) } else { None };
        short.or_else(|| form(from))
    }
}
