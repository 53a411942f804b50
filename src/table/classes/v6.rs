//! IPv6 addresses in the image: which class an address has.

use super::image::{Builder, Image};
use super::limits::Refused;
use super::ranges::Intervals;

/// IPv6 addresses: a hash table of the intervals of one address in front of a tree of all others.
///
/// A bucket is one line: three addresses of four words, the lowest word first, then their classes; the last word is
/// unused. The hash of an address is (low half ^ high half * 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd, wrapping at 64
/// bits, the upper 32 bits of that; its bucket is hash * buckets >> 32. It lies there or, where that is full, in one of
/// the next three, or in the tree: whoever writes many addresses with one place into a policy makes no walk longer.
///
/// A node of the tree is 8 bounds of four words; the child is that of the last bound that is not above the address.
#[derive(Clone, Copy, Debug, Default)]
pub struct V6 {
    /// Of the hash table.
    pub buckets: u32,
    /// How many buckets it has.
    pub bucket_count: u32,
    /// Of the levels of the tree; the lowest comes first.
    pub levels: [u32; MOST_LEVELS],
    /// How many levels there are.
    pub height: u32,
    /// Of the classes of the lowest bounds.
    pub classes: u32,
}

/// Nodes hold 8 bounds: 8^11 bounds are above any 32-bit count.
const MOST_LEVELS: usize = 11;
const FANOUT: usize = 8;
/// Words of a node.
const NODE: usize = 4 * FANOUT;
/// Words of a bucket.
const BUCKET: u32 = 16;
/// Addresses of a bucket.
const OF_BUCKET: usize = 3;
/// Where in a bucket their classes are.
const CLASSES: usize = 4 * OF_BUCKET;
/// How many buckets may be looked at.
pub const PROBES: u32 = 4;
/// A class where there is no address.
const EMPTY: u32 = u32::MAX;

fn words(value: u128) -> [u32; 4] {
    #[allow(clippy::cast_possible_truncation)] // The four words of it.
    std::array::from_fn(|word| (value >> (32 * word)) as u32)
}

#[inline]
fn number(&[a, b, c, d]: &[u32; 4]) -> u128 {
    let half = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    u128::from(half(a, b)) | u128::from(half(c, d)) << 64
}

/// In a level, the index of the last bound that is not above the address, among those under one bound of the level above.
#[inline]
fn place(image: &Image, level: u32, above: u32, address: u128) -> u32 {
    let (bounds, _) = image.chunk::<NODE>(level + above * 32).as_chunks::<4>();
    // The first bound is 0; padding is above every address that comes here.
    let mut place = 0;
    for step in [4, 2, 1] {
        let is_reached = number(&bounds[(place + step) % FANOUT]) <= address;
        place += if is_reached { step } else { 0 };
    }
    #[allow(clippy::cast_possible_truncation)] // Below 8.
    let place = place as u32;
    above * 8 + place
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // Folds 128 bits into 32.
fn hash(address: u128) -> u32 {
    let folded = (address as u64) ^ ((address >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (folded.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32) as u32
}

impl V6 {
    /// Writes the tables.
    pub fn build(image: &mut Builder, intervals: Intervals<'_, u128>) -> Result<Self, Refused> {
        let is_single = |index: usize| {
            let (first, _) = intervals[index];
            let next = intervals.get(index + 1).map(|&(next, _)| next);
            index > 0 && (first == u128::MAX || next == first.checked_add(1))
        };
        let singles: Vec<usize> = (0..intervals.len()).filter(|&index| is_single(index)).collect();
        let mut buckets = Buckets::new(image, singles.len() + 1)?;
        // The largest address is always in the table: the tree is padded with it.
        buckets.put(u128::MAX, intervals[intervals.len() - 1].1);
        let mut bounds: Vec<(u128, u32)> = Vec::new();
        let mut singles = singles.into_iter().peekable();
        for (index, &(first, class)) in intervals.iter().enumerate() {
            // An address in the hash table needs no bound of its own: what is around it goes on.
            let is_put = singles.next_if_eq(&index).is_some() && buckets.put(first, class);
            if !is_put && bounds.last().is_none_or(|&(_, last)| last != class) {
                bounds.push((first, class));
            }
        }
        let (bucket_count, buckets) = (buckets.count(), buckets.write(image));
        // Each level is an eighth of the one below, rounded up to whole nodes.
        image.check(bounds.len() + 4 * (bounds.len() + bounds.len() / 7) + 64 * MOST_LEVELS)?;
        let (levels, height, classes) = Self::tree(image, &bounds);
        Ok(Self { buckets, bucket_count, levels, height, classes })
    }

    fn tree(image: &mut Builder, bounds: &[(u128, u32)]) -> ([u32; MOST_LEVELS], u32, u32) {
        let classes = image.push(bounds.iter().map(|&(_, class)| class));
        let (mut levels, mut height) = ([0; MOST_LEVELS], 0);
        let mut level: Vec<u128> = bounds.iter().map(|&(first, _)| first).collect();
        loop {
            let above: Vec<u128> = level.iter().copied().step_by(FANOUT).collect();
            let is_root = level.len() <= FANOUT;
            level.resize(level.len().next_multiple_of(FANOUT), u128::MAX);
            image.align();
            levels[height as usize] = image.push(level.iter().flat_map(|&bound| words(bound)));
            height += 1;
            if is_root {
                return (levels, height, classes);
            }
            level = above;
        }
    }

    /// Gives an address another class, if there is room for it near its place.
    pub fn put(&self, image: &mut Builder, address: u128, class: u32) -> bool {
        for bucket in near(address, self.bucket_count) {
            let bucket = self.buckets + bucket * BUCKET;
            let mut line = image.words(bucket);
            if put(&mut line, address, class) {
                image.set(bucket, &line);
                return true;
            }
        }
        false
    }

    /// The class of an address.
    #[inline]
    pub fn class(&self, image: &Image, address: u128) -> u32 {
        let line = image.line(self.first_bucket(address));
        let class = class_in(line, address);
        if class == EMPTY { self.class_elsewhere(image, address, is_full(line)) } else { class }
    }

    /// The class of an address that is not in its first bucket.
    #[inline(never)]
    fn class_elsewhere(&self, image: &Image, address: u128, is_full: bool) -> u32 {
        let exact = if is_full { self.exact(image, address) } else { None };
        exact.unwrap_or_else(|| self.between(image, address))
    }

    /// Where the bucket is that an address lies in, if there is room.
    #[inline]
    fn first_bucket(&self, address: u128) -> u32 {
        self.buckets + first_bucket(address, self.bucket_count) * BUCKET
    }

    /// Classes of addresses, load by load.
    pub fn classes<const N: usize>(&self, image: &Image, addresses: &[u128; N]) -> [u32; N] {
        let mut first = [0; N];
        for (bucket, &address) in first.iter_mut().zip(addresses) {
            *bucket = self.first_bucket(address);
            image.prefetch(*bucket);
        }
        let mut classes = [0; N];
        let (mut others, mut count) = ([0; N], 0);
        // Without branches: which addresses have a place of their own cannot be predicted.
        for index in 0..N {
            classes[index] = class_in(image.line(first[index]), addresses[index]);
            others[count] = index;
            count += usize::from(classes[index] == EMPTY);
        }
        let mut left = 0;
        for place in 0..count {
            let index = others[place];
            let is_elsewhere = is_full(image.line(first[index]));
            if is_elsewhere && let Some(class) = self.exact(image, addresses[index]) {
                classes[index] = class;
            } else {
                others[left] = index;
                left += 1;
            }
        }
        let others = &others[..left];
        let mut places = [0; N];
        for &level in self.levels[..self.height as usize].iter().rev() {
            for &index in others {
                places[index] = place(image, level, places[index], addresses[index]);
            }
        }
        for &index in others {
            classes[index] = image.word(self.classes + places[index]);
        }
        classes
    }

    /// The class of an address that is in the hash table.
    #[inline]
    fn exact(&self, image: &Image, address: u128) -> Option<u32> {
        for bucket in near(address, self.bucket_count) {
            let line = image.line(self.buckets + bucket * BUCKET);
            let class = class_in(line, address);
            if class != EMPTY {
                return Some(class);
            }
            if !is_full(line) {
                break;
            }
        }
        None
    }

    /// By the last bound that is not above the address.
    fn between(&self, image: &Image, address: u128) -> u32 {
        let levels = self.levels[..self.height as usize].iter().rev();
        let index = levels.fold(0, |index, &level| place(image, level, index, address));
        image.word(self.classes + index)
    }
}

/// Where an address lies, if there is room.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Below the count.
fn first_bucket(address: u128, count: u32) -> u32 {
    ((u64::from(hash(address)) * u64::from(count)) >> 32) as u32
}

/// The buckets in which an address may lie, the first one first.
#[inline]
fn near(address: u128, count: u32) -> impl Iterator<Item = u32> {
    let mut bucket = first_bucket(address, count);
    (0..PROBES).map(move |_| {
        let this = bucket;
        bucket = if this + 1 == count { 0 } else { this + 1 };
        this
    })
}

/// The class of an address, or [`EMPTY`]. Without branches: which of the three it is cannot be predicted.
#[inline]
fn class_in(line: &[u32; BUCKET as usize], address: u128) -> u32 {
    let (addresses, _) = line.as_chunks::<4>();
    let mut class = EMPTY;
    // The first place last: empty ones behind it hold the smallest address, too.
    for place in (0..OF_BUCKET).rev() {
        class = if number(&addresses[place]) == address { line[CLASSES + place] } else { class };
    }
    class
}

/// Places are taken in order.
#[inline]
fn is_full(line: &[u32; BUCKET as usize]) -> bool {
    line[CLASSES + OF_BUCKET - 1] != EMPTY
}

/// Whether there is room for the address in a bucket, or it is there already.
fn put(line: &mut [u32; BUCKET as usize], address: u128, class: u32) -> bool {
    for place in 0..OF_BUCKET {
        let (known, _) = line.as_chunks_mut::<4>();
        if known[OF_BUCKET][place] == EMPTY || number(&known[place]) == address {
            known[place] = words(address);
            line[CLASSES + place] = class;
            return true;
        }
    }
    false
}

/// The hash table of single addresses: four buckets for seven of them. Fewer would make it larger than the second cache
/// of most processors, more would send too many to a second bucket.
struct Buckets(Vec<[u32; BUCKET as usize]>);

impl Buckets {
    fn new(image: &Builder, addresses: usize) -> Result<Self, Refused> {
        let count = addresses * 4 / 7 + 1;
        image.check(count * BUCKET as usize)?;
        let mut empty = [0; BUCKET as usize];
        empty[CLASSES..][..OF_BUCKET].fill(EMPTY);
        Ok(Self(vec![empty; count]))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("the image has room for it")
    }

    /// Whether there is room for the address near its place.
    fn put(&mut self, address: u128, class: u32) -> bool {
        near(address, self.count()).any(|bucket| put(&mut self.0[bucket as usize], address, class))
    }

    fn write(self, image: &mut Builder) -> u32 {
        image.align();
        image.push(self.0.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::super::ranges::tests::{asked, intervals, no_limit, searched};
    use super::*;

    fn check_v6(intervals: &[(u128, u32)]) {
        let mut image = no_limit();
        let v6 = V6::build(&mut image, intervals).expect("no limit");
        let image = image.image();
        for address in asked(intervals, u128::MAX) {
            assert_eq!(v6.class(&image, address), searched(intervals, address), "{address:x}");
        }
    }

    /// Few enough that neighbours meet, at the bottom, in the middle and at the top.
    fn wide() -> impl Strategy<Value = u128> {
        (0..3_usize, 0..60_u128).prop_map(|(place, offset)| match place {
            0 => offset,
            1 => (0xfd00 << 112) + offset,
            _ => u128::MAX - offset,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn v6_finds_every_interval(bounds in btree_map(wide(), 0..4_u32, 0..120)) {
            check_v6(&intervals(bounds));
        }
    }

    /// So many bounds that the tree has several levels.
    #[test]
    fn a_tree_of_many_bounds() {
        for count in [7, 8, 9, 63, 64, 65, 511, 512, 513, 5000] {
            let bounds = (1..=count).map(|number| (u128::from(number) << 90, number % 3));
            check_v6(&intervals(bounds));
        }
    }

    #[test]
    fn the_smallest_address_is_found_beside_empty_places() {
        let mut image = no_limit();
        let v6 = V6::build(&mut image, &[(0, 7)]).expect("no limit");
        assert!(v6.put(&mut image, 0, 3));
        let image = image.image();
        assert_eq!(v6.class(&image, 0), 3);
        assert_eq!(v6.classes(&image, &[0; 8]), [3; 8]);
    }

    /// Far more than [`PROBES`] addresses with one place.
    #[test]
    fn addresses_with_one_place_go_to_the_tree() {
        let one_place =
            |high: u64| u128::from(high) << 64 | u128::from(high.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x99);
        assert_eq!(hash(one_place(1)), hash(one_place(500)));
        let bounds = (1..=500).flat_map(|high| [(one_place(high), 1), (one_place(high) + 1, 7)]);
        check_v6(&intervals(bounds));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let bounds = intervals((1..100_u32).map(|number| (u128::from(number) << 9, number % 2)));
        let mut image = Builder::new(3000);
        assert!(matches!(V6::build(&mut image, &bounds), Err(Refused::Bytes { most: 3000, .. })));
    }
}
