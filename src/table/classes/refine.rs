//! A partition after some values have come into sets, or gone out of them: classes are split or renamed, never merged.

use rustc_hash::FxHashMap;

use super::partition::{Half, Partition, TooMany, Value, random_key};

/// A value from which on a set holds what it has not held, or the other way round, up to the next one of the set.
pub type Edge<P> = (P, u32);

/// What has become of classes.
#[derive(Debug)]
pub struct Refined<P> {
    /// Values that have another class now: first, last, class.
    pub moved: Vec<(P, P, u32)>,
    /// New classes, the first of which is `first_made`: the class that each was split from, and the sets in which the
    /// two differ.
    pub made: Vec<(u32, Vec<u32>)>,
    /// The number of the first new class.
    pub first_made: u32,
    /// Classes that are as they were, but for these sets.
    pub flipped: Vec<(u32, Vec<u32>)>,
}

/// Values of one class that the same sets have come to hold, or no longer hold.
struct Piece<P> {
    first: P,
    last: P,
    class: u32,
    /// Which sets, by the sum of their keys.
    by: u128,
    /// It is an interval of the partition.
    is_whole: bool,
}

/// So many intervals are put into the others one by one: that moves what is behind them, and copies nothing.
const FEW: usize = 16;

/// Adds the edges of ranges that a set has come to hold, or no longer holds.
pub fn edges<P: Value>(ranges: &[(P, P)], set: u32, edges: &mut Vec<Edge<P>>) {
    for &(first, last) in ranges {
        edges.push((first, set));
        edges.extend(last.next().map(|behind| (behind, set)));
    }
}

/// Adds the edges of what only one of two lists of ranges holds.
pub fn differing_edges<P: Value>(old: &[(P, P)], new: &[(P, P)], set: u32, found: &mut Vec<Edge<P>>) {
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same..], &new[same..]);
    let same = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    edges(&old[..old.len() - same], set, found);
    edges(&new[..new.len() - same], set, found);
}

impl<P: Value> Partition<P> {
    /// One more set, which holds nothing.
    pub fn add_set(&mut self) -> u32 {
        self.keys.push(random_key());
        self.halves.push(Half { is_outside: false, size: 0, runs: Vec::new() });
        u32::try_from(self.halves.len() - 1).expect("sets have 32-bit ids")
    }

    /// Whether the set holds the class.
    pub fn holds(&self, set: u32, class: u32) -> bool {
        let half = self.half(set);
        half.lists(class) != half.is_outside
    }

    /// Toggles sets at edges, in any order; two edges at one place cancel each other.
    pub fn refine(&mut self, mut edges: Vec<Edge<P>>, most: usize) -> Result<Refined<P>, TooMany> {
        edges.sort_unstable();
        let (pieces, toggled) = self.pieces(&edges);
        if self.sums.is_empty() {
            self.sums = self.sums();
        }
        let flips = self.flips(&pieces);
        let mut refined = Refined {
            moved: Vec::new(),
            made: Vec::new(),
            first_made: self.count,
            flipped: flips.iter().map(|&(class, by)| (class, toggled[&by].clone())).collect(),
        };
        let flipped: FxHashMap<u32, u128> = flips.into_iter().collect();
        for &Piece { first, last, class, by, .. } in &pieces {
            if flipped.contains_key(&class) {
                continue;
            }
            let (next, sum) = (self.count, self.sums[class as usize] ^ by);
            let class = *self.class_of.entry(sum).or_insert_with(|| {
                refined.made.push((class, toggled[&by].clone()));
                next
            });
            if class == next {
                if next as usize >= most {
                    return Err(TooMany);
                }
                self.count += 1;
                self.sums.push(sum);
            }
            refined.moved.push((first, last, class));
        }
        self.enter(&refined);
        self.overwrite(&refined.moved);
        Ok(refined)
    }

    /// The parts of intervals between edges, with the sets that are toggled there.
    fn pieces(&self, edges: &[Edge<P>]) -> (Vec<Piece<P>>, FxHashMap<u128, Vec<u32>>) {
        let (mut pieces, mut toggled) = (Vec::new(), FxHashMap::default());
        let (mut active, mut by): (Vec<u32>, u128) = (Vec::new(), 0);
        let mut rest = edges;
        while let Some(&(at, _)) = rest.first() {
            let here = rest.iter().take_while(|&&(edge, _)| edge == at).count();
            for &(_, set) in &rest[..here] {
                by ^= self.keys[set as usize];
                match active.iter().position(|&other| other == set) {
                    Some(place) => drop(active.swap_remove(place)),
                    None => active.push(set),
                }
            }
            rest = &rest[here..];
            if !active.is_empty() {
                toggled.entry(by).or_insert_with(|| active.clone());
                self.cut(at, rest.first().map(|&(behind, _)| behind.before()), by, &mut pieces);
            }
        }
        (pieces, toggled)
    }

    /// What lies from the first value to the last one, or to the end of all.
    fn cut(&self, first: P, last: Option<P>, by: u128, pieces: &mut Vec<Piece<P>>) {
        let mut at = self.intervals.partition_point(|&(start, _)| start <= first) - 1;
        let mut from = first;
        loop {
            let (start, class) = self.intervals[at];
            let end = self.intervals.get(at + 1).map(|&(behind, _)| behind.before());
            let is_last = last.is_some_and(|last| end.is_none_or(|end| last <= end));
            let to = if is_last { last } else { end };
            let is_whole = start == from && to == end;
            // The largest value ends everything.
            let until = to.unwrap_or(P::LAST);
            pieces.push(Piece { first: from, last: until, class, by, is_whole });
            match end.and_then(Value::next) {
                Some(next) if !is_last => from = next,
                _ => return,
            }
            at += 1;
        }
    }

    fn sums(&self) -> Vec<u128> {
        let mut sums = vec![0; self.count as usize];
        for (&sum, &class) in &self.class_of {
            sums[class as usize] = sum;
        }
        sums
    }

    /// Classes all of whose values are toggled alike, and that no other class is like then: they stay, in other sets.
    fn flips(&mut self, pieces: &[Piece<P>]) -> Vec<(u32, u128)> {
        let mut whole: FxHashMap<u32, (u128, usize)> = FxHashMap::default();
        for piece in pieces.iter().filter(|piece| piece.is_whole) {
            let (by, count) = whole.entry(piece.class).or_insert((piece.by, 0));
            *count += usize::from(*by == piece.by);
        }
        whole.retain(|&class, &mut (by, _)| !self.class_of.contains_key(&(self.sums[class as usize] ^ by)));
        if whole.is_empty() {
            return Vec::new();
        }
        let mut left: FxHashMap<u32, usize> =
            whole.iter().map(|(&class, &(_, count))| (class, count)).collect();
        for (_, class) in &self.intervals {
            // More intervals than are toggled: never 0 again.
            if let Some(left) = left.get_mut(class) {
                *left = left.wrapping_sub(1);
            }
        }
        let mut flips: Vec<_> = whole
            .into_iter()
            .filter(|(class, _)| left[class] == 0)
            .map(|(class, (by, _))| (class, by))
            .collect();
        flips.sort_unstable();
        flips.retain(|&(class, by)| {
            let sum = self.sums[class as usize];
            let is_free = !self.class_of.contains_key(&(sum ^ by));
            if is_free {
                self.class_of.remove(&sum);
                self.class_of.insert(sum ^ by, class);
                self.sums[class as usize] = sum ^ by;
            }
            is_free
        });
        flips
    }

    /// New and changed classes in the halves of sets.
    fn enter(&mut self, refined: &Refined<P>) {
        if refined.made.is_empty() && refined.flipped.is_empty() {
            return;
        }
        let mut differing: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
        for (index, (_, sets)) in refined.made.iter().enumerate() {
            for &set in sets {
                differing.entry(set).or_default().push(index);
            }
        }
        let mut children: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
        for (index, &(parent, _)) in refined.made.iter().enumerate() {
            children.entry(parent).or_default().push(index);
        }
        let mut is_listed = vec![false; refined.made.len()];
        for (set, half) in (0..).zip(&mut self.halves) {
            for (parent, children) in &children {
                if half.lists(*parent) {
                    for &index in children {
                        is_listed[index] = true;
                    }
                }
            }
            for &index in differing.get(&set).into_iter().flatten() {
                is_listed[index] ^= true;
            }
            for (class, is_listed) in (refined.first_made..).zip(&mut is_listed) {
                if std::mem::take(is_listed) {
                    half.push(class);
                }
            }
        }
        for (class, sets) in &refined.flipped {
            for &set in sets {
                self.halves[set as usize].toggle(*class);
            }
        }
    }

    /// The intervals with other classes here and there; what is moved is in order, and each in one interval.
    fn overwrite(&mut self, moved: &[(P, P, u32)]) {
        if moved.len() <= FEW {
            for &(first, last, class) in moved {
                self.put(first, last, class);
            }
            return;
        }
        let mut written = Written::of(std::mem::take(&mut self.intervals), 2 * moved.len());
        for &(first, last, class) in moved {
            written.copy(Some(first));
            written.push(first, class);
            written.from = last.next();
        }
        written.copy(None);
        self.intervals = written.new;
    }

    /// Another class for values of one interval.
    fn put(&mut self, first: P, last: P, class: u32) {
        let at = self.intervals.partition_point(|&(start, _)| start <= first) - 1;
        let (start, old) = self.intervals[at];
        let next = self.intervals.get(at + 1).copied();
        let mut pieces = Vec::with_capacity(3);
        if start < first {
            pieces.push((start, old));
        }
        pieces.push((first, class));
        let mut behind = at + 1;
        match (last.next(), next) {
            // The interval ends with these values: the next one goes on, if it has their class.
            (end, next) if end == next.map(|(start, _)| start) => {
                behind += usize::from(next.is_some_and(|(_, next)| next == class));
            }
            (Some(end), _) => pieces.push((end, old)),
            (None, _) => unreachable!("nothing is above the largest value"),
        }
        if at > 0 && start == first && self.intervals[at - 1].1 == class {
            pieces.remove(0);
        }
        self.intervals.splice(at..behind, pieces);
    }
}

/// Intervals that are copied and changed.
struct Written<P> {
    old: Vec<(P, u32)>,
    new: Vec<(P, u32)>,
    /// Every value below is written; `None`: every value is.
    from: Option<P>,
    /// An old interval at or before the one that `from` is in.
    at: usize,
}

impl<P: Value> Written<P> {
    fn of(old: Vec<(P, u32)>, more: usize) -> Self {
        let new = Vec::with_capacity(old.len() + more);
        Self { old, new, from: Some(P::FIRST), at: 0 }
    }

    fn push(&mut self, first: P, class: u32) {
        if self.new.last().is_none_or(|&(_, last)| last != class) {
            self.new.push((first, class));
        }
    }

    /// Writes the old classes of the values before this one, or of all that are left.
    fn copy(&mut self, until: Option<P>) {
        let Some(from) = self.from.filter(|&from| until.is_none_or(|until| from < until)) else { return };
        let rest = &self.old[self.at..];
        let at = self.at + rest.partition_point(|&(start, _)| start <= from) - 1;
        let end = until
            .map_or(self.old.len(), |until| at + self.old[at..].partition_point(|&(start, _)| start < until));
        self.push(from, self.old[at].1);
        if let Some(&(start, class)) = self.old[at..end].get(1) {
            self.push(start, class);
            self.new.extend_from_slice(&self.old[at + 2..end]);
        }
        (self.at, self.from) = (end - 1, until);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    type Set = Vec<(u32, u32)>;

    /// Sorted and disjoint, near both ends of all values.
    fn set() -> impl Strategy<Value = Set> {
        btree_set(0..40_u32, 0..8).prop_map(|bounds| {
            let bounds: Vec<_> =
                bounds.into_iter().map(|b| if b < 20 { b } else { u32::MAX - 39 + b }).collect();
            let pairs = bounds.chunks_exact(2).map(|pair| (pair[0], pair[1] - 1));
            let last = (bounds.len() % 2 == 1).then(|| (bounds[bounds.len() - 1], u32::MAX));
            pairs.filter(|(first, last)| first <= last).chain(last).collect()
        })
    }

    fn class_at(partition: &Partition<u32>, value: u32) -> u32 {
        let after = partition.intervals.partition_point(|&(first, _)| first <= value);
        partition.intervals[after - 1].1
    }

    fn holds(ranges: &Set, value: u32) -> bool {
        ranges.iter().any(|&(first, last)| first <= value && value <= last)
    }

    proptest! {
        /// Each class is in its sets, neighbours differ, and what is said of classes is so.
        #[test]
        fn classes_stay_those_of_the_sets(
            first in vec(set(), 0..5),
            steps in vec(vec((0..8_usize, set()), 0..4), 1..8),
        ) {
            let mut sets = first;
            let mut partition = Partition::of(sets.iter().map(Vec::as_slice), usize::MAX).expect("no limit");
            let values: Vec<u32> = (0..22).chain(u32::MAX - 21..=u32::MAX).collect();
            for step in steps {
                let mut found = Vec::new();
                let before: Vec<u32> = values.iter().map(|&value| class_at(&partition, value)).collect();
                for (place, new) in step {
                    if place < sets.len() {
                        let set = u32::try_from(place).expect("few sets");
                        differing_edges(&sets[place], &new, set, &mut found);
                        sets[place] = new;
                    } else {
                        let set = partition.add_set();
                        prop_assert_eq!(set as usize, sets.len());
                        edges(&new, set, &mut found);
                        sets.push(new);
                    }
                }
                let refined = partition.refine(found, usize::MAX).expect("no limit");
                prop_assert!(partition.intervals.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 != two[1].1));
                for (&value, before) in values.iter().zip(before) {
                    let class = class_at(&partition, value);
                    for (set, ranges) in (0..).zip(&sets) {
                        prop_assert_eq!(partition.holds(set, class), holds(ranges, value), "{} {}", value, set);
                    }
                    let moved = refined.moved.iter().find(|(first, last, _)| *first <= value && value <= *last);
                    prop_assert_eq!(class, moved.map_or(before, |moved| moved.2));
                }
                for (set, half) in (0..).zip(&partition.halves) {
                    let listed = half.runs.iter().cloned().flatten().count();
                    prop_assert_eq!(half.size, listed);
                    let classes = 0..partition.count;
                    let held = classes.filter(|&class| partition.holds(set, class) != half.is_outside);
                    prop_assert_eq!(held.collect::<Vec<_>>(), half.runs.iter().cloned().flatten().collect::<Vec<_>>());
                }
            }
        }
    }

    /// A set of whole classes splits none.
    #[test]
    fn classes_that_lie_in_a_new_set_stay() {
        let sets = [vec![(5, 9), (20, 29)], vec![(40, 49_u32)]];
        let mut partition = Partition::of(sets.iter().map(Vec::as_slice), 3).expect("three classes");
        let set = partition.add_set();
        let mut found = Vec::new();
        edges(&[(5, 9), (20, 29)], set, &mut found);
        let refined = partition.refine(found, 3).expect("no more classes");
        assert_eq!((refined.moved, refined.made), (vec![], vec![]));
        assert_eq!(refined.flipped, [(class_at(&partition, 7), vec![set])]);
        let mut found = Vec::new();
        let half = partition.add_set();
        edges(&[(20, 24)], half, &mut found);
        assert!(partition.refine(found, 3).is_err(), "a fourth class");
    }
}
