//! A better numbering of classes: those that are in the same large sets become neighbours. Chains give neighbours the
//! same local class, and equal runs of those are stored once.

use std::ops::Range;

/// Classes in an order that is refined by one set after the other; sets that came earlier weigh more.
pub struct Order {
    /// Place to class.
    classes: Vec<u32>,
    /// Class to place.
    places: Vec<u32>,
    /// Class to group: the places of classes that no set has told apart.
    group_of: Vec<u32>,
    groups: Vec<Range<u32>>,
    /// Of each group: how many of its classes the set at hand has moved.
    moved: Vec<u32>,
}

impl Order {
    /// Of so many classes, as they are.
    pub fn new(count: u32) -> Self {
        let all: Vec<u32> = (0..count).collect();
        Self {
            classes: all.clone(),
            places: all,
            group_of: vec![0; count as usize],
            groups: std::iter::once(0..count).collect(),
            moved: vec![0],
        }
    }

    /// In each group these classes go to the front, or, if they are those outside of the set, to the back.
    pub fn refine(&mut self, classes: impl Iterator<Item = u32>, is_outside: bool) {
        let mut touched: Vec<u32> = Vec::new();
        for class in classes {
            let group = self.group_of[class as usize];
            let (places, moved) = (&self.groups[group as usize], &mut self.moved[group as usize]);
            let target = if is_outside { places.end - 1 - *moved } else { places.start + *moved };
            if *moved == 0 {
                touched.push(group);
            }
            *moved += 1;
            self.swap(class, target);
        }
        for group in touched {
            self.split(group, is_outside);
        }
    }

    fn swap(&mut self, class: u32, target: u32) {
        let place = self.places[class as usize];
        let other = self.classes[target as usize];
        self.classes.swap(place as usize, target as usize);
        (self.places[class as usize], self.places[other as usize]) = (target, place);
    }

    /// The classes of the group that have been moved get a group of their own, unless all have.
    fn split(&mut self, group: u32, is_outside: bool) {
        let moved = std::mem::take(&mut self.moved[group as usize]);
        let places = self.groups[group as usize].clone();
        if moved == places.end - places.start {
            return;
        }
        let (kept, split) = if is_outside {
            (places.start..places.end - moved, places.end - moved..places.end)
        } else {
            (places.start + moved..places.end, places.start..places.start + moved)
        };
        let made = u32::try_from(self.groups.len()).expect("no more groups than classes");
        for place in split.clone() {
            self.group_of[self.classes[place as usize] as usize] = made;
        }
        self.groups[group as usize] = kept;
        self.groups.push(split);
        self.moved.push(0);
    }

    /// Class to place.
    pub fn places(&self) -> &[u32] {
        &self.places
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Earlier sets weigh more, members come first, whichever half is given.
        #[test]
        fn classes_are_sorted_by_their_sets(
            members in prop::collection::vec(prop::collection::vec(any::<bool>(), 20), 0..8),
            halves in any::<[bool; 8]>(),
        ) {
            let mut order = Order::new(20);
            for (set, is_outside) in members.iter().zip(halves) {
                let half = (0..20_u32).filter(|&class| set[class as usize] != is_outside);
                order.refine(half, is_outside);
            }
            let signature = |class: u32| -> Vec<bool> {
                members.iter().map(|set| !set[class as usize]).collect()
            };
            let mut sorted: Vec<u32> = (0..20).collect();
            sorted.sort_by_key(|&class| order.places()[class as usize]);
            let signatures: Vec<_> = sorted.iter().map(|&class| signature(class)).collect();
            prop_assert!(signatures.is_sorted());
        }
    }
}
