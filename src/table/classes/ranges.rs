//! Intervals in the image: which class a value has. Bounded loads, no search longer than the tree is high.

use rustc_hash::FxHashMap;

use super::image::{Builder, Image};

/// IPv4 addresses: 65536 roots by the upper half lead to tables of 256 by the third byte, those to tables of 256 classes
/// by the last. Equal tables are one. Every address takes the same three loads: a shorter way for some would have to be
/// guessed, and a wrong guess costs more than a load.
#[derive(Clone, Copy, Debug)]
pub struct V4 {
    root: u32,
}

/// The classes of 16-bit tables have to fit.
pub const MOST_CLASSES: usize = 1 << 16;

type Intervals<'a, P> = &'a [(P, u32)];

/// The intervals that cover `[first, last]`, the first one clipped.
fn covering<P: Ord + Copy>(intervals: Intervals<'_, P>, first: P, last: P) -> Intervals<'_, P> {
    let from = intervals.partition_point(|&(start, _)| start <= first) - 1;
    let to = intervals.partition_point(|&(start, _)| start <= last);
    &intervals[from..to]
}

/// Classes of 2^n neighbouring values, one for each.
fn spread(intervals: Intervals<'_, u32>, first: u32, bits: u32) -> Vec<u16> {
    let last = first + ((1 << bits) - 1);
    let mut classes = vec![0; 1 << bits];
    for &(start, class) in covering(intervals, first, last) {
        let class = u16::try_from(class).expect("checked against MOST_CLASSES");
        classes[(start.max(first) - first) as usize..].fill(class);
    }
    classes
}

impl V4 {
    /// Writes the tables.
    pub fn build(image: &mut Builder, intervals: Intervals<'_, u32>) -> Self {
        image.align();
        let mut tables = Tables::new(image);
        let mut rest = intervals;
        let mut uniform: FxHashMap<u32, u32> = FxHashMap::default();
        let roots: Vec<u32> = (0..1_u32 << 16)
            .map(|upper| {
                let (first, last) = (upper << 16, upper << 16 | 0xffff);
                // Walked in step with the roots: a search for each would cost more than the table.
                while rest.get(1).is_some_and(|&(start, _)| start <= first) {
                    rest = &rest[1..];
                }
                if rest.get(1).is_none_or(|&(start, _)| start > last) {
                    *uniform.entry(rest[0].1).or_insert_with(|| tables.middle(rest, first))
                } else {
                    tables.middle(rest, first)
                }
            })
            .collect();
        Self { root: image.push(roots) }
    }

    /// Asks for the first word that [`Self::class`] reads.
    #[inline]
    pub fn prefetch(self, image: &Image, address: u32) {
        image.prefetch(self.root + (address >> 16));
    }

    /// Asks for the second one.
    #[inline]
    pub fn prefetch_next(self, image: &Image, address: u32) {
        image.prefetch(image.word(self.root + (address >> 16)) + (address >> 8 & 0xff));
    }

    /// The class of an address.
    #[inline]
    pub fn class(self, image: &Image, address: u32) -> u32 {
        let middle = image.word(self.root + (address >> 16));
        let classes = image.word(middle + (address >> 8 & 0xff));
        image.half(classes, address & 0xff)
    }
}

/// Tables in the image; equal ones are one.
struct Tables<'a> {
    image: &'a mut Builder,
    halves: FxHashMap<Vec<u16>, u32>,
    words: FxHashMap<Vec<u32>, u32>,
}

impl<'a> Tables<'a> {
    fn new(image: &'a mut Builder) -> Self {
        Self { image, halves: FxHashMap::default(), words: FxHashMap::default() }
    }

    fn middle(&mut self, intervals: Intervals<'_, u32>, first: u32) -> u32 {
        let classes = |third: u32| spread(intervals, first | third << 8, 8);
        let entries = (0..256).map(|third| self.halves(classes(third))).collect();
        let image = &mut *self.image;
        *self.words.entry(entries).or_insert_with_key(|entries| image.push(entries.iter().copied()))
    }

    fn halves(&mut self, classes: Vec<u16>) -> u32 {
        let image = &mut *self.image;
        *self.halves.entry(classes).or_insert_with_key(|classes| image.push_halves(classes))
    }
}

/// IPv6 addresses: a hash table of the intervals of one address in front of a tree of all others.
#[derive(Clone, Copy, Debug)]
pub struct V6 {
    slots: u32,
    mask: u32,
    levels: [u32; MOST_LEVELS],
    height: usize,
    classes: u32,
}

/// Nodes hold 8 bounds: 8^11 bounds are above any 32-bit count.
const MOST_LEVELS: usize = 11;
const FANOUT: usize = 8;
/// A slot: four words of address, its class, the rest unused.
const SLOT: u32 = 8;
/// A slot's class where there is no address.
const EMPTY: u32 = u32::MAX;

fn words(value: u128) -> [u32; 4] {
    #[allow(clippy::cast_possible_truncation)] // The four words of it.
    std::array::from_fn(|word| (value >> (32 * word)) as u32)
}

#[inline]
fn number(line: &[u32], at: usize) -> u128 {
    let word = |index: usize| u128::from(line[at + index]) << (32 * index);
    word(0) | word(1) | word(2) | word(3)
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // Folds 128 bits into 32.
fn hash(address: u128) -> u32 {
    let folded = (address as u64) ^ ((address >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (folded.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32) as u32
}

impl V6 {
    /// Writes the tables.
    pub fn build(image: &mut Builder, intervals: Intervals<'_, u128>) -> Self {
        let mut singles = Vec::new();
        let mut bounds: Vec<(u128, u32)> = Vec::new();
        for (index, &(first, class)) in intervals.iter().enumerate() {
            let next = intervals.get(index + 1).map(|&(next, _)| next);
            // An address that the hash table answers needs no bound of its own: what is around it goes on. Nor does the
            // largest address, which is always in the table: the tree is padded with it.
            let is_single = index > 0 && (first == u128::MAX || next == first.checked_add(1));
            if is_single {
                singles.push((first, class));
            } else if bounds.last().is_none_or(|&(_, last)| last != class) {
                bounds.push((first, class));
            }
        }
        if let Some(&(_, class)) = intervals.last()
            && singles.last().is_none_or(|&(address, _)| address != u128::MAX)
        {
            singles.push((u128::MAX, class));
        }
        let (slots, mask) = Self::hash_table(image, &singles);
        let (levels, height, classes) = Self::tree(image, &bounds);
        Self { slots, mask, levels, height, classes }
    }

    fn hash_table(image: &mut Builder, singles: &[(u128, u32)]) -> (u32, u32) {
        let count = (singles.len() * 2).next_power_of_two().max(2);
        let mask = u32::try_from(count - 1).expect("budgets keep the table small");
        let mut table = vec![(0_u128, EMPTY); count];
        for &(address, class) in singles {
            let mut slot = hash(address) & mask;
            while table[slot as usize].1 != EMPTY {
                slot = (slot + 1) & mask;
            }
            table[slot as usize] = (address, class);
        }
        image.align();
        let words = table.iter().flat_map(|&(address, class)| {
            let [a, b, c, d] = words(address);
            [a, b, c, d, class, 0, 0, 0]
        });
        (image.push(words), mask)
    }

    fn tree(image: &mut Builder, bounds: &[(u128, u32)]) -> ([u32; MOST_LEVELS], usize, u32) {
        let classes = image.push(bounds.iter().map(|&(_, class)| class));
        let (mut levels, mut height) = ([0; MOST_LEVELS], 0);
        let mut level: Vec<u128> = bounds.iter().map(|&(first, _)| first).collect();
        loop {
            let above: Vec<u128> = level.iter().copied().step_by(FANOUT).collect();
            let is_root = level.len() <= FANOUT;
            level.resize(level.len().next_multiple_of(FANOUT), u128::MAX);
            image.align();
            levels[height] = image.push(level.iter().flat_map(|&bound| words(bound)));
            height += 1;
            if is_root {
                return (levels, height, classes);
            }
            level = above;
        }
    }

    /// Asks for the slot that [`Self::class`] looks at first.
    #[inline]
    pub fn prefetch(&self, image: &Image, address: u128) {
        image.prefetch(self.slots + (hash(address) & self.mask) * SLOT);
    }

    /// The class of an address.
    #[inline]
    pub fn class(&self, image: &Image, address: u128) -> u32 {
        let mut slot = hash(address) & self.mask;
        loop {
            let offset = self.slots + slot * SLOT;
            let (line, at) = (image.line(offset), (offset % 16) as usize);
            let class = line[at + 4];
            if class == EMPTY {
                return self.between(image, address);
            }
            if number(line, at) == address {
                return class;
            }
            slot = (slot + 1) & self.mask;
        }
    }

    /// By the last bound that is not above the address.
    fn between(&self, image: &Image, address: u128) -> u32 {
        let mut index = 0;
        for &level in self.levels[..self.height].iter().rev() {
            let node = level + index * 32;
            let (low, high) = (image.line(node), image.line(node + 16));
            let below = (0..4).filter(|&bound| number(low, 4 * bound) <= address).count()
                + (0..4).filter(|&bound| number(high, 4 * bound) <= address).count();
            // The first bound is 0; padding is above every address that comes here.
            #[allow(clippy::cast_possible_truncation)] // At most 8.
            {
                index = index * 8 + below.max(1) as u32 - 1;
            }
        }
        image.word(self.classes + index)
    }
}

/// Protocol and key to class: 257 tables of 256 classes for each protocol, equal ones are one. The same, with one
/// protocol, for source ports.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    protocols: u32,
}

/// Keys of a protocol: 0..=65536, rounded up.
const KEYS: u32 = 1 << 17;

impl Keys {
    /// The number that a key has among those of all groups of protocols.
    pub const fn number(group: u32, key: u32) -> u32 {
        group * KEYS + key
    }

    /// Writes the tables; `groups` says which keys a protocol has ([`Self::number`]).
    pub fn build(image: &mut Builder, groups: &[u8], intervals: Intervals<'_, u32>) -> Self {
        let mut tables = Tables::new(image);
        let count = groups.iter().max().map_or(0, |&group| u32::from(group) + 1);
        let directories: Vec<u32> = (0..count)
            .map(|group| {
                let directory: Vec<u32> = (0..257)
                    .map(|upper| tables.halves(spread(intervals, Self::number(group, upper << 8), 8)))
                    .collect();
                tables.image.push(directory)
            })
            .collect();
        Self { protocols: image.push(groups.iter().map(|&group| directories[usize::from(group)])) }
    }

    /// The class of a key of this protocol.
    #[inline]
    pub fn class(self, image: &Image, protocol: u8, key: u32) -> u32 {
        let directory = image.word(self.protocols + u32::from(protocol));
        image.half(image.word(directory + (key >> 8)), key & 0xff)
    }
}
