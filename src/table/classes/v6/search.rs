//! 64-bit keys in the image: the span that a key leads to. Keys that have a span of their own are in a hash table, all
//! others in a tree behind it.

// Short ways are to have no calls, which would save registers.
#![allow(clippy::inline_always)]

use std::hint::select_unpredictable;

use super::super::image::{Builder, Image, WORDS};
use super::super::limits::Refused;
use super::spans::{self, NOTHING, Span};

/// Where a search begins.
///
/// A bucket is one line: two entries of a key of two words, the lower one first, the [`Span`] that it leads to, and two unused
/// words. Places are taken in order; a free one has the largest key, and a span of zeros. The hash of a key is
/// key * 0x9e3779b97f4a7c15, wrapping at 64 bits; its bucket is hash * buckets >> 64. It lies there or, where that is full,
/// in one of the next seven (the first bucket is next to the last one), or in the tree: whoever writes many keys with one
/// place into a policy makes no walk longer.
///
/// A node of the tree is one line, too: 8 bounds of two words. The last bound that is not above the key leads on: bound b
/// of node n to node 8 * n + b of the level below, on the lowest level to the span at that index. Nodes are filled up with
/// the largest key, which is always in the hash table, at the first place of its bucket. Keys that are there need not be
/// told apart in the tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// Of the hash table, as the number of a line.
    pub buckets: u32,
    /// How many buckets it has.
    pub bucket_count: u32,
    /// Of what the lowest bounds lead to.
    pub spans: u32,
    /// How many levels the tree has.
    pub height: u32,
    /// Of them; the lowest comes first.
    pub levels: [u32; MOST_LEVELS],
}

/// Nodes hold 8 bounds: 8^11 bounds are above any 32-bit count.
const MOST_LEVELS: usize = 11;
const FANOUT: usize = 8;
/// Keys of a bucket.
const OF_BUCKET: usize = 2;
/// How many buckets may be looked at.
const PROBES: u32 = 8;
/// Words of a line.
#[allow(clippy::cast_possible_truncation)] // 16.
const LINE: u32 = WORDS as u32;
/// Words of a span.
#[allow(clippy::cast_possible_truncation)] // 4.
const SPAN: u32 = spans::WORDS as u32;

type Line = [u32; WORDS];

#[inline(always)]
pub fn number([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[allow(clippy::cast_possible_truncation)] // The two words of it.
pub fn pair(key: u64) -> [u32; 2] {
    [key as u32, (key >> 32) as u32]
}

#[inline(always)]
pub fn hash(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where a key lies, if there is room.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // Below the count.
fn first_bucket(key: u64, count: u32) -> u32 {
    ((u128::from(hash(key)) * u128::from(count)) >> 64) as u32
}

/// The buckets in which a key may lie, the first one first.
#[inline]
fn near(key: u64, count: u32) -> impl Iterator<Item = u32> {
    let mut bucket = first_bucket(key, count);
    (0..PROBES).map(move |_| {
        let this = bucket;
        bucket = if this + 1 == count { 0 } else { this + 1 };
        this
    })
}

/// A key, and what it leads to.
type Entry = [u32; WORDS / OF_BUCKET];

/// The entries of a bucket.
#[inline(always)]
fn entries(line: &Line) -> &[Entry; OF_BUCKET] {
    line.as_chunks().0.try_into().expect("as many as there is room for")
}

fn entry_of(key: u64, span: Span) -> Entry {
    let ([low, high], [base, upper, form, table]) = (pair(key), span);
    [low, high, base, upper, form, table, 0, 0]
}

#[inline(always)]
fn key_of([low, high, ..]: &Entry) -> u64 {
    number([*low, *high])
}

#[inline(always)]
fn span_of(entry: &Entry) -> &Span {
    entry[2..][..spans::WORDS].try_into().expect("behind the key")
}

/// Whether the key is in a bucket, and what it leads to then. Without branches: which of the two it is cannot be predicted.
#[inline(always)]
fn look(line: &Line, key: u64) -> (bool, &Span) {
    let [first, second] = entries(line);
    let entry = select_unpredictable(key_of(first) == key, first, second);
    (key_of(entry) == key, span_of(entry))
}

#[inline]
fn found(line: &Line, key: u64) -> Option<&Span> {
    let (is_found, span) = look(line, key);
    is_found.then_some(span)
}

/// Places are taken in order.
#[inline]
fn is_full(line: &Line) -> bool {
    *span_of(&entries(line)[OF_BUCKET - 1]) != NOTHING
}

/// Whether there is room for the key in a bucket, or it is there already.
fn put(line: &mut Line, key: u64, span: Span) -> bool {
    let (entries, _) = line.as_chunks_mut();
    let fitting = entries.iter_mut().find(|entry| *span_of(entry) == NOTHING || key_of(entry) == key);
    if let Some(entry) = fitting {
        *entry = entry_of(key, span);
        return true;
    }
    false
}

/// In a level, the index of the last bound that is not above the key, among those under one bound of the level above.
#[inline]
fn place(image: &Image, level: u32, above: u32, key: u64) -> u32 {
    let (bounds, _) = image.line(level + above * LINE).as_chunks::<2>();
    // The first one is not above it; padding is above every key that comes here.
    let reached = bounds[1..].iter().map(|&bound| u32::from(number(bound) <= key)).sum::<u32>();
    above * 8 + reached
}

impl Search {
    /// Writes the tables for keys and the spans that they and all up to the next one lead to, ascending from 0 on.
    pub fn build(image: &mut Builder, leads: &[(u64, Span)]) -> Result<Self, Refused> {
        let is_single = |index: usize| {
            let (first, _) = leads[index];
            let next = leads.get(index + 1).map(|&(next, _)| next);
            index > 0 && (first == u64::MAX || next == first.checked_add(1))
        };
        let singles = (0..leads.len()).filter(|&index| is_single(index)).count();
        let mut buckets = Buckets::new(image, singles + 1)?;
        // The largest key is always in the table: the tree is padded with it.
        buckets.put(u64::MAX, leads[leads.len() - 1].1);
        let mut bounds: Vec<(u64, Span)> = Vec::new();
        for (index, &(key, span)) in leads.iter().enumerate() {
            // A key in the hash table needs no bound of its own: what is around it goes on.
            let is_put = is_single(index) && buckets.put(key, span);
            if !is_put && bounds.last().is_none_or(|&(_, last)| last != span) {
                bounds.push((key, span));
            }
        }
        let (bucket_count, buckets) = (buckets.count(), buckets.write(image));
        // Each level is an eighth of the one below, rounded up to whole nodes.
        image.check(
            spans::WORDS * bounds.len() + 2 * (bounds.len() + bounds.len() / 7) + 2 * WORDS * MOST_LEVELS,
        )?;
        let (spans, levels, height) = Self::tree(image, &bounds);
        Ok(Self { buckets, bucket_count, spans, height, levels })
    }

    fn tree(image: &mut Builder, bounds: &[(u64, Span)]) -> (u32, [u32; MOST_LEVELS], u32) {
        let leads = image.push(bounds.iter().flat_map(|&(_, span)| span));
        let (mut levels, mut height) = ([0; MOST_LEVELS], 0);
        let mut level: Vec<u64> = bounds.iter().map(|&(first, _)| first).collect();
        loop {
            let above: Vec<u64> = level.iter().copied().step_by(FANOUT).collect();
            let is_root = level.len() <= FANOUT;
            level.resize(level.len().next_multiple_of(FANOUT), u64::MAX);
            image.align();
            levels[height as usize] = image.push(level.iter().flat_map(|&bound| pair(bound)));
            height += 1;
            if is_root {
                return (leads, levels, height);
            }
            level = above;
        }
    }

    /// As a line of the image.
    pub fn line(&self) -> Line {
        let mut line = [0; WORDS];
        line[..4].copy_from_slice(&[self.buckets, self.bucket_count, self.spans, self.height]);
        line[4..][..MOST_LEVELS].copy_from_slice(&self.levels);
        line
    }

    /// The search that a line says.
    #[inline]
    pub fn of(line: &Line) -> Self {
        let mut levels = [0; MOST_LEVELS];
        levels.copy_from_slice(&line[4..][..MOST_LEVELS]);
        Self { buckets: line[0], bucket_count: line[1], spans: line[2], height: line[3], levels }
    }

    /// Lets a key lead elsewhere, if there is room for it near its place; in which of its buckets it is then.
    pub fn put(&self, image: &mut Builder, key: u64, span: Span) -> Option<usize> {
        near(key, self.bucket_count).position(|bucket| {
            let at = (self.buckets + bucket) * LINE;
            let mut line = image.words(at);
            let is_put = put(&mut line, key, span);
            if is_put {
                image.set(at, &line);
            }
            is_put
        })
    }

    /// What a key leads to that is in the hash table.
    pub fn exact(&self, image: &Builder, key: u64) -> Option<Span> {
        near(key, self.bucket_count)
            .find_map(|bucket| found(&image.words((self.buckets + bucket) * LINE), key).copied())
    }

    /// Whether a key is in its first bucket, and what it leads to then.
    #[inline(always)]
    pub fn look<'a>(&self, image: &'a Image, key: u64) -> (bool, &'a Span) {
        look(image.line((self.buckets + first_bucket(key, self.bucket_count)) * LINE), key)
    }

    /// What a key leads to that is in its first bucket.
    #[inline(always)]
    pub fn near<'a>(&self, image: &'a Image, key: u64) -> Option<&'a Span> {
        let (is_found, span) = self.look(image, key);
        is_found.then_some(span)
    }

    /// What a key leads to.
    pub fn span<'a>(&self, image: &'a Image, key: u64) -> &'a Span {
        for bucket in near(key, self.bucket_count) {
            let line = image.line((self.buckets + bucket) * LINE);
            if let Some(span) = found(line, key) {
                return span;
            }
            if !is_full(line) {
                break;
            }
        }
        let levels = self.levels[..self.height as usize].iter().rev();
        let index = levels.fold(0, |index, &level| place(image, level, index, key));
        image.chunk(self.spans + SPAN * index)
    }
}

/// The hash table of keys: five buckets for four of them.
struct Buckets(Vec<Line>);

impl Buckets {
    fn new(image: &Builder, keys: usize) -> Result<Self, Refused> {
        let count = keys + keys / 4;
        image.check(count * WORDS)?;
        let free = entry_of(u64::MAX, NOTHING);
        let empty = [free; OF_BUCKET].as_flattened().try_into().expect("a line");
        Ok(Self(vec![empty; count]))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("the image has room for it")
    }

    /// Whether there is room for the key near its place.
    fn put(&mut self, key: u64, span: Span) -> bool {
        near(key, self.count()).any(|bucket| put(&mut self.0[bucket as usize], key, span))
    }

    fn write(self, image: &mut Builder) -> u32 {
        image.align();
        image.push(self.0.into_iter().flatten()) / LINE
    }
}
