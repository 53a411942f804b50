//! Intervals in the image: which class a value has. Bounded loads, no search longer than the tree is high.

use rustc_hash::FxHashMap;

use super::image::{Builder, Image};
use super::limits::Refused;
use crate::table::point::{OPAQUE, PointBlock};

/// IPv4 addresses: 65536 roots by the upper half lead to tables of 256 by the third byte, those to tables of 256 classes
/// by the last. Equal tables are one. Every address takes the same three loads: a shorter way for some would have to be
/// guessed, and a wrong guess costs more than a load.
#[derive(Clone, Copy, Debug, Default)]
pub struct V4 {
    /// Of the roots.
    pub root: u32,
}

pub type Intervals<'a, P> = &'a [(P, u32)];

/// The intervals that cover `[first, last]`, the first one clipped.
fn covering<P: Ord + Copy>(intervals: Intervals<'_, P>, first: P, last: P) -> Intervals<'_, P> {
    let from = intervals.partition_point(|&(start, _)| start <= first) - 1;
    let to = intervals.partition_point(|&(start, _)| start <= last);
    &intervals[from..to]
}

/// Classes of the 256 values from `first` on, by the intervals that cover them.
fn spread(covering: Intervals<'_, u32>, first: u32) -> Vec<u16> {
    let mut classes = vec![0; 256];
    for &(start, class) in covering {
        let class = u16::try_from(class).expect("16 bits tell more classes apart than a partition may have");
        classes[(start.max(first) - first) as usize..].fill(class);
    }
    classes
}

/// Roots.
const ROOTS: u32 = 1 << 16;

impl V4 {
    /// Writes the tables.
    pub fn build(image: &mut Builder, intervals: Intervals<'_, u32>) -> Result<Self, Refused> {
        let mut tables = Tables::new(image);
        let mut rest = intervals;
        let mut roots = Vec::with_capacity(ROOTS as usize);
        for first in (0..ROOTS).map(|upper| upper << 16) {
            // Walked in step with the roots: a search for each would cost more than the table.
            while rest.get(1).is_some_and(|&(start, _)| start <= first) {
                rest = &rest[1..];
            }
            let inside = rest[1..].iter().take_while(|&&(start, _)| start <= first | 0xffff).count();
            roots.push(tables.middle(&rest[..=inside], first)?);
        }
        image.check(roots.len())?;
        image.align();
        Ok(Self { root: image.push(roots) })
    }

    /// Classes of addresses.
    #[inline]
    pub fn classes<const N: usize>(self, image: &Image, addresses: &[u32; N]) -> [u32; N] {
        let mut classes = [0; N];
        for (class, &address) in classes.iter_mut().zip(addresses) {
            *class = self.class(image, address);
        }
        classes
    }

    /// The same, and those of `others` in their place, where tables are in no near cache: each step asks for what the next
    /// one reads.
    #[allow(clippy::inline_always)] // As the steps are.
    #[inline(always)]
    pub fn far_classes<const N: usize>(
        self,
        image: &Image,
        addresses: &[u32; N],
        others: &mut [u32],
    ) -> [u32; N] {
        let (mut classes, mut places, mut other_places) = (*addresses, [0; N], [0; N]);
        self.ask_middles(image, addresses, &mut places);
        self.ask_middles(image, others, &mut other_places);
        Self::ask_lasts(image, addresses, &mut places);
        Self::ask_lasts(image, others, &mut other_places);
        Self::lasts(image, &mut classes, &places);
        Self::lasts(image, others, &other_places);
        classes
    }

    #[allow(clippy::inline_always)] // Where there are as many as a block has, that is known.
    #[inline(always)]
    fn ask_middles(self, image: &Image, addresses: &[u32], places: &mut [u32]) {
        for (place, &address) in places.iter_mut().zip(addresses) {
            *place = image.word(self.root + (address >> 16)) + (address >> 8 & 0xff);
            image.ask(*place);
        }
    }

    #[allow(clippy::inline_always)] // As above.
    #[inline(always)]
    fn ask_lasts(image: &Image, addresses: &[u32], places: &mut [u32]) {
        for (place, &address) in places.iter_mut().zip(addresses) {
            *place = image.word(*place);
            image.ask(*place + (address & 0xff) / 2);
        }
    }

    #[allow(clippy::inline_always)] // As above.
    #[inline(always)]
    fn lasts(image: &Image, addresses: &mut [u32], places: &[u32]) {
        for (address, &place) in addresses.iter_mut().zip(places) {
            *address = image.half(place, *address & 0xff);
        }
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
    /// Class to the tables of 256 values and of 256 such tables that have no other.
    uniform: FxHashMap<u32, (u32, Option<u32>)>,
}

impl<'a> Tables<'a> {
    fn new(image: &'a mut Builder) -> Self {
        let (halves, words) = (FxHashMap::default(), FxHashMap::default());
        Self { image, halves, words, uniform: FxHashMap::default() }
    }

    /// The table of the 65536 addresses from `first` on, in which these intervals lie.
    fn middle(&mut self, intervals: Intervals<'_, u32>, first: u32) -> Result<u32, Refused> {
        if let &[(_, class)] = intervals
            && let Some(&(_, Some(known))) = self.uniform.get(&class)
        {
            return Ok(known);
        }
        let thirds = (0..256).map(|third| first | third << 8);
        let entries = thirds.map(|first| self.block(intervals, first)).collect::<Result<_, _>>()?;
        let middle = self.words(entries)?;
        if let &[(_, class)] = intervals {
            self.uniform.entry(class).and_modify(|known| known.1 = Some(middle));
        }
        Ok(middle)
    }

    /// The table of the 256 values from `first` on.
    fn block(&mut self, intervals: Intervals<'_, u32>, first: u32) -> Result<u32, Refused> {
        let covering = covering(intervals, first, first | 0xff);
        let &[(_, class)] = covering else {
            return self.halves(spread(covering, first));
        };
        if let Some(&(known, _)) = self.uniform.get(&class) {
            return Ok(known);
        }
        let block = self.halves(spread(covering, first))?;
        self.uniform.insert(class, (block, None));
        Ok(block)
    }

    fn words(&mut self, words: Vec<u32>) -> Result<u32, Refused> {
        if let Some(&known) = self.words.get(&words) {
            return Ok(known);
        }
        self.image.check(words.len())?;
        let offset = self.image.push(words.iter().copied());
        self.words.insert(words, offset);
        Ok(offset)
    }

    fn halves(&mut self, halves: Vec<u16>) -> Result<u32, Refused> {
        if let Some(&known) = self.halves.get(&halves) {
            return Ok(known);
        }
        self.image.check(halves.len() / 2)?;
        let offset = self.image.push_halves(&halves);
        self.halves.insert(halves, offset);
        Ok(offset)
    }
}

/// Protocol and key to class: 257 tables of 256 classes for each protocol, equal ones are one. The same, with one
/// protocol, for source ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys {
    /// Of a directory of 257 words for each protocol: offsets of tables of 256 classes.
    pub protocols: u32,
}

/// Keys of a protocol: 0..=65536, rounded up.
const KEYS: u32 = 1 << 17;

impl Keys {
    /// Tables of 256 keys that a protocol has.
    pub const DIRECTORY: u32 = 257;

    /// The groups that numbers from the first to the last are of, each with the first and the last one of its keys.
    pub fn of_groups(first: u32, last: u32) -> impl Iterator<Item = (u32, u32, u32)> {
        (first / KEYS..=last / KEYS).filter_map(move |group| {
            let of = |number: u32| number.saturating_sub(group * KEYS).min(OPAQUE);
            let begins = first <= Self::number(group, OPAQUE);
            begins.then(|| (group, of(first), of(last)))
        })
    }

    /// The number that a key has among those of all groups of protocols.
    pub const fn number(group: u32, key: u32) -> u32 {
        group * KEYS + key
    }

    /// Writes the tables; `groups` says which keys a protocol has ([`Self::number`]).
    pub fn build(image: &mut Builder, groups: &[u8], intervals: Intervals<'_, u32>) -> Result<Self, Refused> {
        let mut tables = Tables::new(image);
        let count = groups.iter().max().map_or(0, |&group| u32::from(group) + 1);
        let mut directories = Vec::new();
        for group in 0..count {
            let mut directory = Vec::with_capacity(Self::DIRECTORY as usize);
            for upper in 0..Self::DIRECTORY {
                directory.push(tables.block(intervals, Self::number(group, upper << 8))?);
            }
            directories.push(tables.words(directory)?);
        }
        image.check(groups.len())?;
        Ok(Self { protocols: image.push(groups.iter().map(|&group| directories[usize::from(group)])) })
    }

    /// The class of a key of this protocol.
    #[inline]
    pub fn class(self, image: &Image, protocol: u8, key: u32) -> u32 {
        let directory = image.word(self.protocols + u32::from(protocol));
        image.half(image.word(directory + (key >> 8)), key & 0xff)
    }

    /// Classes of services, where tables are in no near cache.
    #[inline]
    pub fn far_classes<const N: usize>(self, image: &Image, points: &PointBlock<'_, N>) -> [u32; N] {
        let (mut classes, mut places) = ([0; N], [0; N]);
        for index in 0..N {
            classes[index] = points.service(index);
            let directory = image.word(self.protocols + u32::from(points.protocol[index]));
            places[index] = image.word(directory + (classes[index] >> 8));
            image.ask(places[index] + (classes[index] & 0xff) / 2);
        }
        for index in 0..N {
            classes[index] = image.half(places[index], classes[index] & 0xff);
        }
        classes
    }

    /// Classes of many keys.
    #[inline]
    pub fn classes<const N: usize>(
        self,
        image: &Image,
        protocols: &[u8; N],
        key: impl Fn(usize) -> u32,
    ) -> [u32; N] {
        let mut classes = [0; N];
        for index in 0..N {
            classes[index] = self.class(image, protocols[index], key(index));
        }
        classes
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    /// Intervals as partitions have them: from the smallest value on, no two neighbours alike.
    pub fn intervals<P: Copy + Ord + Default>(bounds: impl IntoIterator<Item = (P, u32)>) -> Vec<(P, u32)> {
        let mut intervals = vec![(P::default(), 7)];
        for (first, class) in bounds {
            if first > P::default() && intervals[intervals.len() - 1].1 != class {
                intervals.push((first, class));
            }
        }
        intervals
    }

    pub fn searched<P: Copy + Ord>(intervals: &[(P, u32)], value: P) -> u32 {
        intervals[intervals.partition_point(|&(first, _)| first <= value) - 1].1
    }

    pub fn no_limit() -> Builder {
        let mut image = Builder::new(usize::MAX);
        image.push([0; 5]);
        image
    }

    /// Every bound, what lies beside it, and the ends.
    pub fn asked(bounds: &[(u128, u32)], most: u128) -> Vec<u128> {
        let beside = |&(at, _): &(u128, u32)| [at.saturating_sub(1), at, at.saturating_add(1).min(most)];
        bounds.iter().flat_map(beside).chain([0, most]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn v4_finds_every_interval(
            bounds in btree_map(prop_oneof![0..600_u32, 0xffff_fd00..=u32::MAX, any::<u32>()], 0..4_u32, 0..120),
        ) {
            let intervals = intervals(bounds);
            let mut image = no_limit();
            let v4 = V4::build(&mut image, &intervals).expect("no limit");
            let image = image.image().expect("memory");
            let wide: Vec<_> = intervals.iter().map(|&(first, class)| (first.into(), class)).collect();
            for address in asked(&wide, u32::MAX.into()) {
                let address = u32::try_from(address).expect("an IPv4 address");
                prop_assert_eq!(v4.class(&image, address), searched(&intervals, address));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let bounds = intervals((1..100).map(|number| (number << 9, number % 2)));
        let mut image = Builder::new(262_000);
        assert!(matches!(V4::build(&mut image, &bounds), Err(Refused::Bytes { most: 262_000, .. })));
    }
}
