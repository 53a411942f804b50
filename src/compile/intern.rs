//! Equal values become one, numbered in the order of their first use.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Values with their ids.
pub struct Interner<T> {
    ids: FxHashMap<T, usize>,
    values: Vec<T>,
}

impl<T: Clone + Eq + Hash> Interner<T> {
    pub fn new() -> Self {
        Self { ids: FxHashMap::default(), values: Vec::new() }
    }

    /// The index of the value.
    pub fn index(&mut self, value: T) -> usize {
        if let Some(&index) = self.ids.get(&value) {
            return index;
        }
        let index = self.values.len();
        self.values.push(value.clone());
        self.ids.insert(value, index);
        index
    }

    pub fn into_values(self) -> Vec<T> {
        self.values
    }
}
