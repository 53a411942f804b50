//! The addresses of one family, cut into classes that lie in the same sets.

use rustc_hash::FxHashMap;

use crate::flow::Family;
use crate::program::AddressSet;

/// Sets of addresses are given as edges: where membership changes, going up from address 0.
#[derive(Debug)]
pub struct AddressClasses {
    /// First address of every interval, sorted; the first one is 0.
    starts: Vec<u128>,
    /// The class of each interval; classes are numbered in order of their first address.
    of_interval: Vec<usize>,
    /// The smallest address of each class.
    firsts: Vec<u128>,
}

impl AddressClasses {
    /// The coarsest classes on which membership in each of the sets is constant.
    pub fn of(family: Family, sets: &[&AddressSet]) -> Self {
        let mut edges: Vec<(u128, usize)> = Vec::new();
        for (set, found) in sets.iter().enumerate() {
            edges.extend(edges_of(family, found).map(|edge| (edge, set)));
        }
        #[allow(clippy::stable_sort_primitive)] // Of runs that are sorted: it merges them.
        edges.sort();
        let mut found = Self { starts: Vec::new(), of_interval: Vec::new(), firsts: Vec::new() };
        let mut numbers = FxHashMap::<Vec<u64>, usize>::default();
        let mut inside = vec![0_u64; sets.len().div_ceil(64)];
        let (mut at, mut start) = (0, 0);
        loop {
            while let Some(&(_, set)) = edges.get(at).filter(|edge| edge.0 == start) {
                inside[set / 64] ^= 1 << (set % 64);
                at += 1;
            }
            let number = numbers.get(&inside).copied().unwrap_or_else(|| {
                numbers.insert(inside.clone(), numbers.len());
                found.firsts.push(start);
                numbers.len() - 1
            });
            found.starts.push(start);
            found.of_interval.push(number);
            match edges.get(at) {
                Some(edge) => start = edge.0,
                None => return found,
            }
        }
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // There is one at least.
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// The smallest address of a class.
    pub fn first(&self, class: usize) -> u128 {
        self.firsts[class]
    }

    /// The classes that ranges with inclusive ends have addresses of, ascending.
    pub fn classes_of(&self, ranges: impl Iterator<Item = (u128, u128)>) -> Vec<usize> {
        let behind = |address: u128| self.starts.partition_point(|&start| start <= address);
        let mut found: Vec<_> = ranges
            .flat_map(|(first, last)| &self.of_interval[behind(first) - 1..behind(last)])
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The addresses of some classes, as edges.
    pub fn edges(&self, classes: impl Iterator<Item = usize>) -> Vec<u128> {
        let mut chosen = vec![false; self.len()];
        classes.for_each(|class| chosen[class] = true);
        let mut is_in = false;
        let changes = self.of_interval.iter().zip(&self.starts).filter(|&(&class, _)| {
            let differs = chosen[class] != is_in;
            is_in = chosen[class];
            differs
        });
        changes.map(|(_, &start)| start).collect()
    }
}

fn edges_of(family: Family, set: &AddressSet) -> impl Iterator<Item = u128> {
    let (v4, v6) = match family {
        Family::V4 => (set.v4.as_slice(), [].as_slice()),
        Family::V6 => ([].as_slice(), set.v6.as_slice()),
    };
    let v4 = v4.iter().flat_map(|&(first, last)| [Some(first), last.checked_add(1)]);
    let v6 = v6.iter().flat_map(|&(first, last)| [Some(first), last.checked_add(1)]);
    v4.flatten().map(u128::from).chain(v6.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_touch_both_ends_of_the_space() {
        let high = AddressSet { v4: vec![(0xffff_ff00, u32::MAX)].into(), v6: vec![(1 << 127, u128::MAX)] };
        let low = AddressSet { v4: vec![(0, 9)].into(), v6: vec![(0, 0)] };
        for (family, half) in [(Family::V4, 0xffff_ff00), (Family::V6, 1 << 127)] {
            let classes = AddressClasses::of(family, &[&high, &low]);
            assert_eq!(classes.len(), 3);
            assert_eq!(classes.edges(std::iter::once(2)), [half]);
            assert_eq!(classes.edges([0, 2].into_iter())[2], half);
            assert_eq!(classes.edges(0..3), [0]);
            let last = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
            assert_eq!(classes.classes_of(std::iter::once((half, last))), [2]);
        }
    }

    #[test]
    fn more_sets_than_bits_in_a_word_and_places_apart_in_one_class() {
        let sets: Vec<_> =
            (0..130).map(|at| AddressSet { v4: vec![(at * 10, at * 10 + 4)].into(), v6: vec![] }).collect();
        let classes = AddressClasses::of(Family::V4, &sets.iter().collect::<Vec<_>>());
        assert_eq!(classes.len(), 131);
        assert_eq!(classes.edges(std::iter::once(1)).len(), 259); // Between all, and up to the end of the space.
        assert_eq!(classes.first(130), 1290);
    }
}
