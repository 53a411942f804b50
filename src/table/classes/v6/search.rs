//! 64-bit keys in the image: the word that a key leads to. Keys that have a word of their own are in a hash table, all
//! others in a tree behind it.

use std::hint::select_unpredictable;

use super::super::image::{Builder, Image, WORDS};
use super::super::limits::Refused;

/// Where a search begins.
///
/// A bucket is one line: five keys of two words, the lower one first, then the words that they lead to, with all bits set
/// where a place is free; places are taken in order, and the last word is unused. The hash of a key is the upper half of
/// key * 0x9e3779b97f4a7c15, wrapping at 64 bits; its bucket is hash * buckets >> 32. It lies there or, where that is full,
/// in one of the next three (the first bucket is next to the last one), or in the tree: whoever writes many keys with one
/// place into a policy makes no walk longer.
///
/// A node of the tree is one line, too: 8 bounds of two words. The last bound that is not above the key leads on: bound b
/// of node n to node 8 * n + b of the level below, on the lowest level to the word at that index. Nodes are filled up with
/// the largest key, which is always in the hash table. Keys that are there need not be told apart in the tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// Of the hash table.
    pub buckets: u32,
    /// How many buckets it has.
    pub bucket_count: u32,
    /// Of what the lowest bounds lead to.
    pub words: u32,
    /// How many levels the tree has.
    pub height: u32,
    /// Of them; the lowest comes first.
    pub levels: [u32; MOST_LEVELS],
}

/// Nodes hold 8 bounds: 8^11 bounds are above any 32-bit count.
const MOST_LEVELS: usize = 11;
const FANOUT: usize = 8;
/// Keys of a bucket.
const OF_BUCKET: usize = 5;
/// Where in a bucket what they lead to is.
const LEADS: usize = 2 * OF_BUCKET;
/// How many buckets may be looked at.
const PROBES: u32 = 4;
/// In a bucket, the word of a place that is free.
const EMPTY: u32 = u32::MAX;
/// Words of a line.
#[allow(clippy::cast_possible_truncation)] // 16.
const LINE: u32 = WORDS as u32;

type Line = [u32; WORDS];

#[inline]
fn number([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[allow(clippy::cast_possible_truncation)] // The two words of it.
pub fn pair(key: u64) -> [u32; 2] {
    [key as u32, (key >> 32) as u32]
}

#[inline]
pub fn hash(key: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation)] // The upper half.
    let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
    hash
}

/// Where a key lies, if there is room.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Below the count.
fn first_bucket(key: u64, count: u32) -> u32 {
    ((u64::from(hash(key)) * u64::from(count)) >> 32) as u32
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

/// What the key leads to, or [`EMPTY`]. Without branches: which of the five it is cannot be predicted.
#[inline]
fn found(line: &Line, key: u64) -> u32 {
    let (keys, _) = line.as_chunks::<2>();
    let mut word = EMPTY;
    // The first place last: free ones behind it hold the smallest key, too.
    for place in (0..OF_BUCKET).rev() {
        word = select_unpredictable(number(keys[place]) == key, line[LEADS + place], word);
    }
    word
}

/// Places are taken in order.
#[inline]
fn is_full(line: &Line) -> bool {
    line[LEADS + OF_BUCKET - 1] != EMPTY
}

/// Whether there is room for the key in a bucket, or it is there already.
fn put(line: &mut Line, key: u64, word: u32) -> bool {
    for place in 0..OF_BUCKET {
        let at = 2 * place;
        if line[LEADS + place] == EMPTY || number([line[at], line[at + 1]]) == key {
            line[at..at + 2].copy_from_slice(&pair(key));
            line[LEADS + place] = word;
            return true;
        }
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
    /// Writes the tables for keys and the words that they and all up to the next one lead to, ascending from 0 on.
    pub fn build(image: &mut Builder, leads: &[(u64, u32)]) -> Result<Self, Refused> {
        let is_single = |index: usize| {
            let (first, _) = leads[index];
            let next = leads.get(index + 1).map(|&(next, _)| next);
            index > 0 && (first == u64::MAX || next == first.checked_add(1))
        };
        let singles = (0..leads.len()).filter(|&index| is_single(index)).count();
        let mut buckets = Buckets::new(image, singles + 1)?;
        // The largest key is always in the table: the tree is padded with it.
        buckets.put(u64::MAX, leads[leads.len() - 1].1);
        let mut bounds: Vec<(u64, u32)> = Vec::new();
        for (index, &(key, word)) in leads.iter().enumerate() {
            // A key in the hash table needs no bound of its own: what is around it goes on.
            let is_put = is_single(index) && buckets.put(key, word);
            if !is_put && bounds.last().is_none_or(|&(_, last)| last != word) {
                bounds.push((key, word));
            }
        }
        let (bucket_count, buckets) = (buckets.count(), buckets.write(image));
        // Each level is an eighth of the one below, rounded up to whole nodes.
        image.check(bounds.len() + 2 * (bounds.len() + bounds.len() / 7) + 2 * WORDS * MOST_LEVELS)?;
        let (words, levels, height) = Self::tree(image, &bounds);
        Ok(Self { buckets, bucket_count, words, height, levels })
    }

    fn tree(image: &mut Builder, bounds: &[(u64, u32)]) -> (u32, [u32; MOST_LEVELS], u32) {
        let leads = image.push(bounds.iter().map(|&(_, word)| word));
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
        line[..4].copy_from_slice(&[self.buckets, self.bucket_count, self.words, self.height]);
        line[4..][..MOST_LEVELS].copy_from_slice(&self.levels);
        line
    }

    /// The search that a line says.
    #[inline]
    pub fn of(line: &Line) -> Self {
        let mut levels = [0; MOST_LEVELS];
        levels.copy_from_slice(&line[4..][..MOST_LEVELS]);
        Self { buckets: line[0], bucket_count: line[1], words: line[2], height: line[3], levels }
    }

    /// Lets a key lead elsewhere, if there is room for it near its place.
    pub fn put(&self, image: &mut Builder, key: u64, word: u32) -> bool {
        near(key, self.bucket_count).any(|bucket| {
            let at = self.buckets + bucket * LINE;
            let mut line = image.words(at);
            let is_put = put(&mut line, key, word);
            if is_put {
                image.set(at, &line);
            }
            is_put
        })
    }

    /// What a key leads to that is in the hash table.
    pub fn exact(&self, image: &Builder, key: u64) -> Option<u32> {
        let lines = near(key, self.bucket_count).map(|bucket| image.words(self.buckets + bucket * LINE));
        lines.map(|line| found(&line, key)).find(|&word| word != EMPTY)
    }

    /// What a key leads to.
    #[inline]
    pub fn word(&self, image: &Image, key: u64) -> u32 {
        let line = image.line(self.bucket(key));
        let word = found(line, key);
        if word == EMPTY { self.word_elsewhere(image, key, is_full(line)) } else { word }
    }

    /// What a key leads to that is not in its first bucket.
    #[inline(never)]
    fn word_elsewhere(&self, image: &Image, key: u64, is_full: bool) -> u32 {
        let exact = if is_full { self.word_near(image, key) } else { None };
        exact.unwrap_or_else(|| {
            let levels = self.levels[..self.height as usize].iter().rev();
            let index = levels.fold(0, |index, &level| place(image, level, index, key));
            image.word(self.words + index)
        })
    }

    /// Where the bucket is that a key lies in, if there is room.
    #[inline]
    fn bucket(&self, key: u64) -> u32 {
        self.buckets + first_bucket(key, self.bucket_count) * LINE
    }

    /// What a key leads to that is in the hash table.
    #[inline]
    fn word_near(&self, image: &Image, key: u64) -> Option<u32> {
        for bucket in near(key, self.bucket_count) {
            let line = image.line(self.buckets + bucket * LINE);
            let word = found(line, key);
            if word != EMPTY {
                return Some(word);
            }
            if !is_full(line) {
                break;
            }
        }
        None
    }

    /// What keys lead to, load by load.
    #[inline]
    pub fn words<const N: usize>(&self, image: &Image, keys: &[u64; N]) -> [u32; N] {
        let mut words = [0; N];
        let (mut others, mut count) = ([0_u8; N], 0);
        const { assert!(N <= 256) };
        // Without branches: which keys have a word of their own cannot be predicted.
        for index in 0..N {
            words[index] = found(image.line(self.bucket(keys[index])), keys[index]);
            #[allow(clippy::cast_possible_truncation)] // Below N.
            let place = index as u8;
            others[count] = place;
            count += usize::from(words[index] == EMPTY);
        }
        self.words_elsewhere(image, keys, &mut words, &mut others[..count]);
        words
    }

    /// Those of keys that are not in their first buckets.
    fn words_elsewhere<const N: usize>(
        &self,
        image: &Image,
        keys: &[u64; N],
        words: &mut [u32; N],
        others: &mut [u8],
    ) {
        let mut left = 0;
        for place in 0..others.len() {
            let index = usize::from(others[place]);
            let is_elsewhere = is_full(image.line(self.bucket(keys[index])));
            if is_elsewhere && let Some(word) = self.word_near(image, keys[index]) {
                words[index] = word;
            } else {
                others[left] = others[place];
                left += 1;
            }
        }
        let others = &others[..left];
        let mut places = [0; N];
        for &level in self.levels[..self.height as usize].iter().rev() {
            for &index in others {
                let index = usize::from(index);
                places[index] = place(image, level, places[index], keys[index]);
            }
        }
        for &index in others {
            let index = usize::from(index);
            words[index] = image.word(self.words + places[index]);
        }
    }
}

/// The hash table of keys: two buckets for five of them.
struct Buckets(Vec<Line>);

impl Buckets {
    fn new(image: &Builder, keys: usize) -> Result<Self, Refused> {
        let count = keys * 2 / OF_BUCKET + 1;
        image.check(count * WORDS)?;
        let mut empty = [0; WORDS];
        empty[LEADS..][..OF_BUCKET].fill(EMPTY);
        Ok(Self(vec![empty; count]))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("the image has room for it")
    }

    /// Whether there is room for the key near its place.
    fn put(&mut self, key: u64, word: u32) -> bool {
        near(key, self.count()).any(|bucket| put(&mut self.0[bucket as usize], key, word))
    }

    fn write(self, image: &mut Builder) -> u32 {
        image.align();
        image.push(self.0.into_iter().flatten())
    }
}
