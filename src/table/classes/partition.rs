//! Values that lie in exactly the same sets are one class: the elementary intervals of all ranges, swept in order.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use rustc_hash::FxHashMap;

use super::order::Order;

/// Classes of the values of one dimension.
#[derive(Debug)]
pub struct Partition<P> {
    /// First value and class of every interval, ascending; the first begins at the smallest value, neighbours differ.
    pub intervals: Vec<(P, u32)>,
    /// Of each set.
    pub(super) halves: Vec<Half>,
    pub(super) count: u32,
    /// What tells classes apart: see [`Sweep`].
    pub(super) keys: Vec<u128>,
    pub(super) class_of: FxHashMap<u128, u32>,
    /// Class to what leads to it there; empty until somebody asks.
    pub(super) sums: Vec<u128>,
}

/// The classes in a set, or, where those are fewer, the classes outside of it.
#[derive(Debug)]
pub struct Half {
    /// They are those outside of the set.
    pub is_outside: bool,
    /// How many.
    pub size: usize,
    /// Ascending.
    pub runs: Vec<Range<u32>>,
}

/// Classes of all halves; in about a second so many are sorted.
const MOST_SORTED: usize = 1 << 26;

impl Half {
    /// Whether it names the class.
    pub(super) fn lists(&self, class: u32) -> bool {
        let behind = self.runs.partition_point(|run| run.end <= class);
        self.runs.get(behind).is_some_and(|run| run.start <= class)
    }

    /// Names one more class, which is above all others.
    pub(super) fn push(&mut self, class: u32) {
        self.size += 1;
        match self.runs.last_mut() {
            Some(run) if run.end == class => run.end += 1,
            _ => self.runs.push(class..class + 1),
        }
    }

    /// Names the class if it did not, and the other way round.
    pub(super) fn toggle(&mut self, class: u32) {
        let at = self.runs.partition_point(|run| run.end <= class);
        if let Some(run) = self.runs.get(at).filter(|run| run.start <= class).cloned() {
            self.size -= 1;
            let left = [run.start..class, class + 1..run.end];
            self.runs.splice(at..=at, left.into_iter().filter(|run| !run.is_empty()));
            return;
        }
        self.size += 1;
        let joins_before = at > 0 && self.runs[at - 1].end == class;
        let joins_behind = self.runs.get(at).is_some_and(|run| run.start == class + 1);
        match (joins_before, joins_behind) {
            (true, true) => self.runs[at - 1].end = self.runs.remove(at).end,
            (true, false) => self.runs[at - 1].end += 1,
            (false, true) => self.runs[at].start -= 1,
            (false, false) => self.runs.insert(at, class..class + 1),
        }
    }

    /// The same classes by other numbers.
    fn rename(&mut self, names: &[u32]) {
        let mut classes: Vec<u32> =
            self.runs.iter().cloned().flatten().map(|class| names[class as usize]).collect();
        classes.sort_unstable();
        self.runs.clear();
        for class in classes {
            match self.runs.last_mut() {
                Some(run) if run.end == class => run.end += 1,
                _ => self.runs.push(class..class + 1),
            }
        }
        self.runs.shrink_to_fit();
    }

    fn of(runs: Vec<Range<u32>>, count: u32) -> Self {
        let size: u32 = runs.iter().map(|run| run.end - run.start).sum();
        if size <= count / 2 {
            return Self { is_outside: false, size: size as usize, runs };
        }
        let ends = std::iter::once(0).chain(runs.iter().map(|run| run.end));
        let starts = runs.iter().map(|run| run.start).chain([count]);
        let gaps = ends.zip(starts).map(|(end, start)| end..start).filter(|gap| !gap.is_empty());
        Self { is_outside: true, size: (count - size) as usize, runs: gaps.collect() }
    }
}

/// A value of a dimension.
pub trait Value: Copy + Ord {
    /// The smallest one.
    const FIRST: Self;
    /// The largest one.
    const LAST: Self;
    /// The next larger one, if there is one.
    fn next(self) -> Option<Self>;
    /// The next smaller one; the value is not the smallest.
    fn before(self) -> Self;
}

macro_rules! value {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            const FIRST: Self = 0;
            const LAST: Self = Self::MAX;
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

/// More classes than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Known to nobody.
pub(super) fn random_key() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(0));
    half() << 64 | half()
}

const OUTSIDE: u32 = u32::MAX;

/// The sweep, between two values.
struct Sweep {
    /// Each set's share of `sum`.
    keys: Vec<u128>,
    /// Of the sets that hold the value; equal sums are taken for equal sets. The keys are random and known to nobody,
    /// so that two of n classes meet with a probability of n^2 / 2^129, whoever wrote the policies.
    sum: u128,
    class_of: FxHashMap<u128, u32>,
    /// Of each set: how many classes there were when the sweep came into it.
    since: Vec<u32>,
    /// Of each set, the classes in it. Every class that the sweep meets first while it is in a set belongs to the
    /// set: a run. So a set of nearly everything takes no more room than one of nearly nothing.
    runs: Vec<Vec<Range<u32>>>,
    count: u32,
}

impl Sweep {
    fn new(sets: usize) -> Self {
        let (low, high) = (RandomState::new(), RandomState::new());
        let key = |set: usize| u128::from(low.hash_one(set)) << 64 | u128::from(high.hash_one(set));
        Self {
            keys: (0..sets).map(key).collect(),
            sum: 0,
            class_of: FxHashMap::default(),
            since: vec![OUTSIDE; sets],
            runs: vec![Vec::new(); sets],
            count: 0,
        }
    }

    /// Goes into the set, or out of it.
    fn toggle(&mut self, set: u32) {
        let set = set as usize;
        self.sum ^= self.keys[set];
        let since = std::mem::replace(&mut self.since[set], OUTSIDE);
        if since == OUTSIDE {
            self.since[set] = self.count;
        } else if since < self.count {
            self.runs[set].push(since..self.count);
        }
    }

    /// The class of values here.
    fn class(&mut self, most: usize) -> Result<u32, TooMany> {
        let next = self.count;
        let class = *self.class_of.entry(self.sum).or_insert(next);
        if class == next {
            if next as usize >= most {
                return Err(TooMany);
            }
            self.count += 1;
        }
        Ok(class)
    }

    fn halves(mut self) -> Vec<Half> {
        for (since, runs) in self.since.into_iter().zip(&mut self.runs) {
            // A set that holds the last value.
            if since < self.count {
                runs.push(since..self.count);
            }
        }
        self.runs.into_iter().map(|runs| Half::of(runs, self.count)).collect()
    }
}

impl<P: Value> Partition<P> {
    /// Of all values, by the sets' ranges: each set's sorted and disjoint, ends inclusive.
    pub fn of<'a>(sets: impl ExactSizeIterator<Item = &'a [(P, P)]>, most: usize) -> Result<Self, TooMany>
    where
        P: 'a,
    {
        let mut sweep = Sweep::new(sets.len());
        let mut edges: Vec<(P, u32)> = Vec::new();
        for (set, ranges) in (0..).zip(sets) {
            for &(first, last) in ranges {
                edges.push((first, set));
                edges.extend(last.next().map(|behind| (behind, set)));
            }
        }
        edges.sort_unstable();
        let mut intervals: Vec<(P, u32)> = Vec::new();
        let mut rest = &edges[..];
        let mut at = P::FIRST;
        loop {
            let here = rest.iter().take_while(|&&(edge, _)| edge == at).count();
            let (now, later) = rest.split_at(here);
            for &(_, set) in now {
                sweep.toggle(set);
            }
            rest = later;
            let class = sweep.class(most)?;
            if intervals.last().is_none_or(|&(_, last)| last != class) {
                intervals.push((at, class));
            }
            match rest.first() {
                Some(&(next, _)) => at = next,
                None => break,
            }
        }
        let (keys, class_of) = (std::mem::take(&mut sweep.keys), std::mem::take(&mut sweep.class_of));
        Ok(Self { intervals, count: sweep.count, halves: sweep.halves(), keys, class_of, sums: Vec::new() })
    }

    /// Gives classes that are in the same sets numbers side by side, if that does not take too long. `uses` says of
    /// each set how many chains name it: a set that many chains name, and that would be scattered over many places,
    /// comes early and so is scattered over few.
    pub fn sort(&mut self, uses: &[usize]) {
        if self.halves.iter().map(|half| half.size).sum::<usize>() > MOST_SORTED {
            return;
        }
        let mut by_weight: Vec<_> = self.halves.iter().zip(uses).collect();
        by_weight.sort_by_key(|(half, uses)| std::cmp::Reverse(half.size.saturating_mul(**uses)));
        let mut order = Order::new(self.count);
        for (half, _) in by_weight {
            order.refine(half.runs.iter().cloned().flatten(), half.is_outside);
        }
        let places = order.places();
        for half in &mut self.halves {
            half.rename(places);
        }
        let classes = self.intervals.iter_mut().map(|(_, class)| class);
        for class in classes.chain(self.class_of.values_mut()) {
            *class = places[*class as usize];
        }
    }

    /// How many classes there are.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// How many sets there are.
    pub fn set_count(&self) -> usize {
        self.halves.len()
    }

    /// The smaller part of all classes that the set cuts them into.
    pub fn half(&self, set: u32) -> &Half {
        &self.halves[set as usize]
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

    fn holds(partition: &Partition<u32>, set: u32, class: u32) -> bool {
        let half = partition.half(set);
        half.runs.iter().any(|run| run.contains(&class)) != half.is_outside
    }

    proptest! {
        /// Two values have one class exactly if they are in the same sets.
        #[test]
        fn classes_are_the_sets_that_hold_a_value(
            bounds in prop::collection::vec(prop::collection::btree_set(0..40_u32, 0..8), 0..6),
            uses in prop::collection::vec(0..4_usize, 6),
        ) {
            let sets: Vec<Vec<(u32, u32)>> = bounds.iter().map(|bounds| {
                let bounds: Vec<_> = bounds.iter().copied().collect();
                let pairs = bounds.chunks_exact(2).map(|pair| (pair[0], pair[1] - 1));
                pairs.filter(|(first, last)| first <= last).collect()
            }).collect();
            let mut partition =
                Partition::of(sets.iter().map(Vec::as_slice), usize::MAX).expect("no limit");
            partition.sort(&uses);
            let mut known: Vec<Option<Vec<bool>>> = vec![None; partition.count()];
            for value in 0..50 {
                let class = class_at(&partition, value);
                let holding: Vec<bool> = sets.iter()
                    .map(|ranges| ranges.iter().any(|&(a, b)| a <= value && value <= b)).collect();
                for (set, &held) in (0..).zip(&holding) {
                    prop_assert_eq!(holds(&partition, set, class), held);
                    prop_assert!(partition.half(set).size * 2 <= partition.count());
                }
                let class = class as usize;
                if let Some(same) = &known[class] {
                    prop_assert_eq!(same, &holding);
                } else {
                    prop_assert!(!known.contains(&Some(holding.clone())));
                    known[class] = Some(holding);
                }
            }
            prop_assert!(known.iter().all(Option::is_some));
        }
    }

    #[test]
    fn the_last_value_has_a_class_too() {
        let sets = [vec![(0, u32::MAX)], vec![(u32::MAX, u32::MAX)]];
        let partition = Partition::of(sets.iter().map(Vec::as_slice), 2).expect("two classes");
        assert_eq!(partition.intervals, [(0, 0), (u32::MAX, 1)]);
        let member = |class| [0, 1].map(|set| holds(&partition, set, class));
        assert_eq!([member(0), member(1)], [[true, false], [true, true]]);
    }

    #[test]
    fn classes_of_a_set_that_many_chains_name_are_neighbours() {
        let sets = [vec![(0, 3)], vec![(2, 5_u32)]];
        let classes = |uses: [usize; 2]| {
            let mut partition = Partition::of(sets.iter().map(Vec::as_slice), 4).expect("four classes");
            partition.sort(&uses);
            [0, 2, 4, 6].map(|value| class_at(&partition, value))
        };
        // In the first set, in both, in the second one, in none.
        assert_eq!(classes([5, 1]), [1, 0, 2, 3]);
        assert_eq!(classes([1, 5]), [2, 0, 1, 3]);
    }

    #[test]
    fn too_many_classes_are_refused() {
        let sets = [vec![(1, 1_u32)], vec![(2, 2)]];
        let partition = |most| Partition::of(sets.iter().map(Vec::as_slice), most);
        assert_eq!(partition(3).map(|partition| partition.count()), Ok(3));
        assert_eq!(partition(2).map(|partition| partition.count()), Err(TooMany));
    }
}
