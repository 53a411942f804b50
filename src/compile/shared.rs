//! Values that programs share: equal ones are found by a number that is computed once.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use crate::program::{AddressSet, PortSet};

/// A value with the sum of its parts. Comparing two that are one costs nothing, whatever their size.
#[derive(Debug)]
pub struct Shared<T> {
    sum: u64,
    value: Arc<T>,
}

/// What tells values apart: a sum over their parts, so that it can follow a change without reading all of them.
pub trait Sum {
    fn sum(&self) -> u64;
}

/// The share of a part.
pub fn part<T: Hash>(part: &T) -> u64 {
    FxBuildHasher.hash_one(part)
}

fn sum<T: Hash>(parts: &[T]) -> u64 {
    parts.iter().map(part).fold(0, u64::wrapping_add)
}

impl Sum for AddressSet {
    fn sum(&self) -> u64 {
        sum(&self.v4).wrapping_add(sum(&self.v6))
    }
}

impl Sum for PortSet {
    fn sum(&self) -> u64 {
        sum(&self.v4).wrapping_add(sum(&self.v6))
    }
}

impl<T: Sum> Shared<T> {
    pub fn new(value: T) -> Self {
        Self { sum: value.sum(), value: Arc::new(value) }
    }
}

impl<T> Shared<T> {
    /// A value that has come of this one by a change of so much in the sum.
    pub fn after(&self, value: T, change: u64) -> Self {
        Self { sum: self.sum.wrapping_add(change), value: Arc::new(value) }
    }

    pub fn get(&self) -> &T {
        &self.value
    }

    /// Equal values have the same.
    pub fn hash(&self) -> u64 {
        self.sum
    }

    pub fn value(&self) -> &Arc<T> {
        &self.value
    }

    pub fn into_value(self) -> Arc<T> {
        self.value
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { sum: self.sum, value: Arc::clone(&self.value) }
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value) || self.sum == other.sum && self.value == other.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.sum);
    }
}
