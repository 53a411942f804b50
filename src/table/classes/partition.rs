//! Values that lie in exactly the same sets are one class: the elementary intervals of all ranges, swept in order.

use rustc_hash::FxHashMap;

/// Classes of the values of one dimension.
#[derive(Debug)]
pub struct Partition<P> {
    /// First value and class of every interval, ascending; the first begins at the smallest value, neighbours differ.
    pub intervals: Vec<(P, u32)>,
    /// Class to the sets that hold it, ascending.
    pub sets_of: Vec<Vec<u32>>,
    /// Set to its classes, ascending.
    pub classes_of: Vec<Vec<u32>>,
}

/// A value of a dimension.
pub trait Value: Copy + Ord {
    /// The smallest one.
    const FIRST: Self;
    /// The next larger one, if there is one.
    fn next(self) -> Option<Self>;
    /// The next smaller one; the value is not the smallest.
    fn before(self) -> Self;
}

macro_rules! value {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            const FIRST: Self = 0;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn before(self) -> Self {
                self - 1
            }
        }
    )*};
}
value!(u32, u128);

/// The sets that hold the value that the sweep is at.
struct Active {
    members: Vec<u32>,
    /// Of each set: its place in `members`.
    place: Vec<u32>,
    /// Sum of the members' keys: equal sets have equal sums.
    sum: u128,
}

const ABSENT: u32 = u32::MAX;

impl Active {
    fn toggle(&mut self, set: u32) {
        self.sum ^= key(set);
        let place = std::mem::replace(&mut self.place[set as usize], ABSENT);
        if place == ABSENT {
            self.place[set as usize] = u32::try_from(self.members.len()).expect("sets have 32-bit numbers");
            self.members.push(set);
            return;
        }
        self.members.swap_remove(place as usize);
        if let Some(&moved) = self.members.get(place as usize) {
            self.place[moved as usize] = place;
        }
    }

    fn is(&self, sets: &[u32]) -> bool {
        sets.len() == self.members.len() && sets.iter().all(|&set| self.place[set as usize] != ABSENT)
    }
}

/// A number for the sum; which one does not matter for the answer, classes are compared member by member.
fn key(set: u32) -> u128 {
    let mix = |seed: u64| {
        let z = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let seed = (u64::from(set) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u128::from(mix(seed)) << 64 | u128::from(mix(!seed))
}

impl<P: Value> Partition<P> {
    /// Of all values, by the sets' ranges: each set's sorted and disjoint, ends inclusive.
    pub fn of<'a>(sets: impl ExactSizeIterator<Item = &'a [(P, P)]>) -> Self
    where
        P: 'a,
    {
        let count = sets.len();
        let mut edges: Vec<(P, u32)> = Vec::new();
        for (set, ranges) in (0..).zip(sets) {
            for &(first, last) in ranges {
                edges.push((first, set));
                edges.extend(last.next().map(|behind| (behind, set)));
            }
        }
        edges.sort_unstable();
        let mut active = Active { members: Vec::new(), place: vec![ABSENT; count], sum: 0 };
        let mut partition =
            Self { intervals: Vec::new(), sets_of: Vec::new(), classes_of: vec![Vec::new(); count] };
        let mut by_sum: FxHashMap<u128, Vec<u32>> = FxHashMap::default();
        let mut rest = &edges[..];
        let mut at = P::FIRST;
        loop {
            let here = rest.iter().take_while(|&&(edge, _)| edge == at).count();
            let (now, later) = rest.split_at(here);
            for &(_, set) in now {
                active.toggle(set);
            }
            rest = later;
            let class = partition.class(&active, &mut by_sum);
            if partition.intervals.last().is_none_or(|&(_, last)| last != class) {
                partition.intervals.push((at, class));
            }
            match rest.first() {
                Some(&(next, _)) => at = next,
                None => break,
            }
        }
        partition.sort();
        for (class, sets) in (0..).zip(&partition.sets_of) {
            for &set in sets {
                partition.classes_of[set as usize].push(class);
            }
        }
        partition
    }

    fn class(&mut self, active: &Active, by_sum: &mut FxHashMap<u128, Vec<u32>>) -> u32 {
        let candidates = by_sum.entry(active.sum).or_default();
        let known = candidates.iter().find(|&&class| active.is(&self.sets_of[class as usize]));
        if let Some(&class) = known {
            return class;
        }
        let class = u32::try_from(self.sets_of.len()).expect("classes have 32-bit numbers");
        candidates.push(class);
        let mut sets = active.members.clone();
        sets.sort_unstable();
        self.sets_of.push(sets);
        class
    }

    /// Numbers the classes by their sets, the large ones first: chains give neighbours the same local class, and equal
    /// runs of those are stored once.
    fn sort(&mut self) {
        let mut size = vec![0_u32; self.classes_of.len()];
        for &set in self.sets_of.iter().flatten() {
            size[set as usize] += 1;
        }
        let by_size = |sets: &Vec<u32>| {
            let mut keys: Vec<_> = sets.iter().map(|&set| (u32::MAX - size[set as usize], set)).collect();
            keys.sort_unstable();
            keys
        };
        let keys: Vec<_> = self.sets_of.iter().map(by_size).collect();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|&a, &b| keys[a].cmp(&keys[b]));
        let mut number = vec![0; order.len()];
        let mut sorted = Vec::with_capacity(order.len());
        for (new, &old) in (0..).zip(&order) {
            number[old] = new;
            sorted.push(std::mem::take(&mut self.sets_of[old]));
        }
        self.sets_of = sorted;
        for (_, class) in &mut self.intervals {
            *class = number[*class as usize];
        }
    }

    /// How many classes there are.
    pub fn count(&self) -> usize {
        self.sets_of.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class_at(partition: &Partition<u32>, value: u32) -> u32 {
        let after = partition.intervals.partition_point(|&(first, _)| first <= value);
        partition.intervals[after - 1].1
    }

    proptest! {
        /// Two values have one class exactly if they are in the same sets.
        #[test]
        fn classes_are_the_sets_that_hold_a_value(
            bounds in prop::collection::vec(prop::collection::btree_set(0..40_u32, 0..8), 0..6),
        ) {
            let sets: Vec<Vec<(u32, u32)>> = bounds.iter().map(|bounds| {
                let bounds: Vec<_> = bounds.iter().copied().collect();
                let pairs = bounds.chunks_exact(2).map(|pair| (pair[0], pair[1] - 1));
                pairs.filter(|(first, last)| first <= last).collect()
            }).collect();
            let partition = Partition::of(sets.iter().map(Vec::as_slice));
            for value in 0..50 {
                let holding: Vec<u32> = (0..).zip(&sets)
                    .filter(|(_, ranges)| ranges.iter().any(|&(a, b)| a <= value && value <= b))
                    .map(|(set, _)| set).collect();
                let class = class_at(&partition, value);
                prop_assert_eq!(&partition.sets_of[class as usize], &holding);
                for set in holding {
                    prop_assert!(partition.classes_of[set as usize].contains(&class));
                }
            }
        }
    }

    #[test]
    fn the_last_value_has_a_class_too() {
        let sets = [vec![(0, u32::MAX)], vec![(u32::MAX, u32::MAX)]];
        let partition = Partition::of(sets.iter().map(Vec::as_slice));
        assert_eq!(partition.intervals, [(0, 0), (u32::MAX, 1)]);
        assert_eq!(partition.sets_of, [vec![0], vec![0, 1]]);
    }
}
