//! IPv6 addresses in the image: which class an address has.

mod search;
mod spans;
#[cfg(test)]
mod tests;
mod wide;

use std::hint::select_unpredictable;

use super::image::{Builder, Image, WORDS};
use super::limits::Refused;
use super::ranges::Intervals;
pub use search::Search;
use spans::{Span, Spans};
use wide::Wide;

/// The upper half of an address is searched for, then the lower half has its place: hosts have few upper halves, and lower
/// ones that are near each other.
///
/// What an upper half leads to is a [`Span`]: the class of the lower half. Or the line of another search, by the lower half
/// without its last 8 bits, which leads to spans. The words of that line are those of [`Search`], in this order: buckets,
/// their count, spans, height, levels.
#[derive(Clone, Copy, Debug, Default)]
pub struct V6 {
    /// By upper half.
    pub upper: Search,
    /// What the search says of most addresses that nobody knows.
    wide: Wide,
}

/// Of a lower half, the bits that the second search does not look at.
const LAST: u32 = 8;
/// So many keys are written one by one.
const FEW: u64 = 64;

/// The upper half and the lower one.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Halves.
const fn halves(address: u128) -> (u64, u64) {
    ((address >> 64) as u64, address as u64)
}

/// The same of an address in network byte order.
#[inline]
fn halves_of(address: &[u8; 16]) -> (u64, u64) {
    let (halves, _) = address.as_chunks();
    (u64::from_be_bytes(halves[0]), u64::from_be_bytes(halves[1]))
}

/// What is said of a key: the class of all from here to the next key, or what lies in this one.
struct Piece<'i, P> {
    key: u64,
    /// Of what lies before the first interval.
    class: u32,
    inside: Intervals<'i, P>,
}

/// By what of a value is the key, and what is the rest.
fn pieces<P: Copy>(intervals: Intervals<'_, P>, split: impl Fn(P) -> (u64, u64)) -> Vec<Piece<'_, P>> {
    let (mut pieces, mut before) = (Vec::new(), intervals[0].1);
    let mut rest = intervals;
    while let Some(&(first, class)) = rest.first() {
        let (key, low) = split(first);
        let (inside, later) = rest.split_at(rest.iter().take_while(|&&(at, _)| split(at).0 == key).count());
        if low == 0 && inside.len() == 1 {
            pieces.push(Piece { key, class, inside: &[] });
            (before, rest) = (class, later);
            continue;
        }
        pieces.push(Piece { key, class: before, inside });
        (before, rest) = (inside[inside.len() - 1].1, later);
        if let Some(next) = key.checked_add(1)
            && later.first().is_none_or(|&(at, _)| split(at).0 != next)
        {
            pieces.push(Piece { key: next, class: before, inside: &[] });
        }
    }
    pieces
}

/// With an interval from 0 on.
fn from_zero<P: Copy>(class: u32, inside: Intervals<'_, P>, low: impl Fn(P) -> u64) -> Vec<(u64, u32)> {
    let lows = inside.iter().map(|&(at, class)| (low(at), class));
    let before = inside.first().is_none_or(|&(at, _)| low(at) > 0).then_some((0, class));
    before.into_iter().chain(lows).collect()
}

/// Keys and the spans that they and all up to the next one lead to, ascending from 0 on, of all values that a search
/// tells apart; `from` gives the least lower half that has a key.
fn leads<P: Copy>(
    image: &mut Builder,
    intervals: Intervals<'_, P>,
    split: impl Fn(P) -> (u64, u64),
    low: impl Fn(P) -> u64,
    from: impl Fn(u64) -> u64,
) -> Result<Vec<(u64, Span)>, Refused> {
    let mut spans = Spans::new(image);
    let lead = |Piece { key, class, inside }| {
        Ok((key, lead(&mut spans, from(key), &from_zero(class, inside, &low))?))
    };
    pieces(intervals, split).into_iter().map(lead).collect()
}

/// Leads to a search among lower halves.
fn lower_search(image: &mut Builder, intervals: Intervals<'_, u64>) -> Result<Span, Refused> {
    let split = |low| (low >> LAST, low & ((1 << LAST) - 1));
    let leads = leads(image, intervals, split, |low| low, |key| key << LAST)?;
    let search = Search::build(image, &leads)?;
    image.check(WORDS)?;
    image.align();
    Ok(spans::deeper(image.push(search.line())))
}

/// Leads to the classes of the lower halves of one upper half, of which those from a value on are asked for.
fn lead(spans: &mut Spans<'_>, from: u64, intervals: Intervals<'_, u64>) -> Result<Span, Refused> {
    match spans.add(from, intervals)? {
        Some(span) => Ok(span),
        None => lower_search(spans.image(), intervals),
    }
}

/// The intervals from one value to another, the first one from there on.
fn clipped(intervals: Intervals<'_, u128>, first: u128, last: u128) -> Vec<(u64, u32)> {
    let from = intervals.partition_point(|&(start, _)| start <= first) - 1;
    let to = intervals.partition_point(|&(start, _)| start <= last);
    from_zero(intervals[from].1, &intervals[from + 1..to], |at| halves(at).1)
}

impl V6 {
    /// Whether there are tables: where all addresses are one class there are none.
    pub const fn is_built(&self) -> bool {
        self.upper.height > 0
    }

    /// Writes the tables.
    pub fn build(image: &mut Builder, intervals: Intervals<'_, u128>) -> Result<Self, Refused> {
        let leads = leads(image, intervals, halves, |address| halves(address).1, |_| 0)?;
        Ok(Self { upper: Search::build(image, &leads)?, wide: Wide::of(&leads) })
    }

    /// Brings the tables up to date with intervals that differ between these addresses; says whether there was room.
    pub fn renew(
        &mut self,
        image: &mut Builder,
        intervals: Intervals<'_, u128>,
        moved: &[(u128, u128, u32)],
    ) -> Result<bool, Refused> {
        // Before anything is written in vain.
        if moved.iter().any(|&(first, last, _)| halves(last).0 - halves(first).0 >= FEW) {
            return Ok(false);
        }
        // A net over many hosts moves all of them, and what lies between: each half and each block is written once.
        let (mut done, mut done_block) = (None, None);
        for &(first, last, _) in moved {
            for key in halves(first).0..=halves(last).0 {
                if done == Some(key) {
                    continue;
                }
                let all = (u128::from(key) << 64, u128::from(key) << 64 | u128::from(u64::MAX));
                let within = (first.max(all.0), last.min(all.1));
                if self.renew_lower(image, intervals, within, &mut done_block)? {
                    continue;
                }
                let span = lead(&mut Spans::new(image), 0, &clipped(intervals, all.0, all.1))?;
                let Some(bucket) = self.upper.put(image, key, span) else { return Ok(false) };
                if bucket > 0 {
                    // It would be taken for one that nobody knows.
                    self.wide.cut(key);
                }
                done = Some(key);
            }
        }
        Ok(true)
    }

    /// The same, where these addresses of one upper half lead to another search; `done` is the block that was written last.
    fn renew_lower(
        &self,
        image: &mut Builder,
        intervals: Intervals<'_, u128>,
        (first, last): (u128, u128),
        done: &mut Option<u128>,
    ) -> Result<bool, Refused> {
        let Some(line) = self.upper.exact(image, halves(first).0).as_ref().and_then(spans::line) else {
            return Ok(false);
        };
        let search = Search::of(&image.words(line));
        let (from, to) = (first >> LAST, last >> LAST);
        if to - from >= u128::from(FEW) {
            return Ok(false);
        }
        for key in from..=to {
            if *done == Some(key) {
                continue;
            }
            let block = clipped(intervals, key << LAST, key << LAST | ((1 << LAST) - 1));
            let from = halves(key << LAST).1;
            let span = lead(&mut Spans::new(image), from, &block)?;
            if search.put(image, from >> LAST, span).is_none() {
                return Ok(false);
            }
            *done = Some(key);
        }
        Ok(true)
    }

    /// The class of an address.
    #[allow(clippy::inline_always)] // Its few callers have forms of their own for IPv6.
    #[inline(always)]
    pub fn class(&self, image: &Image, address: u128) -> u32 {
        self.near(image, address).unwrap_or_else(|| self.class_elsewhere(image, address))
    }

    /// The class of an address that is found where it is looked for first, as those of known networks are, and of those that
    /// are [`Wide`]: without a call, so that nobody saves registers for one.
    #[allow(clippy::inline_always)] // As above.
    #[inline(always)]
    pub fn near(&self, image: &Image, address: u128) -> Option<u32> {
        let (upper, lower) = halves(address);
        let span = self.look(image, upper);
        // The same for all hosts of a cluster, mostly.
        let span = match spans::line(span) {
            None => span,
            Some(0) => return None,
            Some(line) => Search::of(image.line(line)).near(image, lower >> LAST)?,
        };
        Some(spans::class(image, span, lower))
    }

    /// What an upper half leads to, if that is known from its first bucket, or without it; elsewhere [`UNKNOWN`](spans::UNKNOWN).
    /// Without branches: which halves are known cannot be predicted.
    #[allow(clippy::inline_always)] // As above.
    #[inline(always)]
    fn look<'a>(&'a self, image: &'a Image, upper: u64) -> &'a Span {
        let elsewhere = select_unpredictable(self.wide.holds(upper), &self.wide.span, &spans::UNKNOWN);
        let (is_found, span) = self.upper.look(image, upper);
        select_unpredictable(is_found, span, elsewhere)
    }

    /// The class of any address, for those that are not [near](Self::near).
    #[inline(never)]
    pub fn class_elsewhere(&self, image: &Image, address: u128) -> u32 {
        let (upper, lower) = halves(address);
        let span = self.upper.span(image, upper);
        let span = match spans::line(span) {
            Some(line) => Search::of(image.line(line)).span(image, lower >> LAST),
            None => span,
        };
        spans::class(image, span, lower)
    }

    /// Classes of addresses in network byte order.
    pub fn classes<const N: usize>(&self, image: &Image, addresses: &[&[u8; 16]; N]) -> [u32; N] {
        let mut classes = [0; N];
        let (mut others, mut count) = ([0_u8; N], 0);
        const { assert!(N <= 256) };
        // Without branches: which addresses are found at once cannot be predicted.
        for index in 0..N {
            let (upper, lower) = halves_of(addresses[index]);
            let span = self.look(image, upper);
            classes[index] = spans::class(image, span, lower);
            #[allow(clippy::cast_possible_truncation)] // Below N.
            let place = index as u8;
            others[count] = place;
            count += usize::from(spans::line(span).is_some());
        }
        for &index in &others[..count] {
            let index = usize::from(index);
            classes[index] = self.class_elsewhere(image, u128::from_be_bytes(*addresses[index]));
        }
        classes
    }
}
