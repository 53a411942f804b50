//! Values that programs share: equal ones are found by a hash that is computed once.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

/// A value with its hash. Comparing two that are one costs nothing, whatever their size.
#[derive(Debug)]
pub struct Shared<T> {
    hash: u64,
    value: Arc<T>,
}

/// That of [`Shared`].
pub fn hash_of<T: Hash>(value: &T) -> u64 {
    FxBuildHasher.hash_one(value)
}

impl<T: Hash> Shared<T> {
    pub fn new(value: T) -> Self {
        Self { hash: hash_of(&value), value: Arc::new(value) }
    }
}

impl<T> Shared<T> {
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Equal values have the same.
    pub fn hash(&self) -> u64 {
        self.hash
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
        Self { hash: self.hash, value: Arc::clone(&self.value) }
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value) || self.hash == other.hash && self.value == other.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
