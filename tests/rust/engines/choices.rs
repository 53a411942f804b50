//! Where random things come from: a list of numbers that proptest makes and shrinks, or a seed.
//!
//! Zero is always the simplest choice, and all choices behind the end of a list are zero: a shorter list of smaller
//! numbers makes a simpler program.

use std::fmt;

use proptest::prelude::*;

/// Numbers to choose by.
#[derive(Clone)]
pub enum Choices {
    /// These, then zeros.
    Listed(std::vec::IntoIter<u16>),
    /// As many as are wanted.
    Seeded(u64),
}

/// A failure is shown as the program and the packet that the choices made.
impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(numbers) => write!(f, "{} choices", numbers.len()),
            Self::Seeded(state) => write!(f, "state {state}"),
        }
    }
}

/// For proptest.
pub fn choices() -> impl Strategy<Value = Choices> {
    prop::collection::vec(any::<u16>(), 0..1500).prop_map(|numbers| Choices::Listed(numbers.into_iter()))
}

impl Choices {
    fn number(&mut self) -> u16 {
        match self {
            Self::Listed(numbers) => numbers.next().unwrap_or(0),
            // Sebastiano Vigna's `SplitMix64`.
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let bits = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((bits ^ bits >> 31) >> 48) as u16
            }
        }
    }

    /// Below `end`, which is at most 65536.
    pub fn below(&mut self, end: usize) -> usize {
        (usize::from(self.number()) * end) >> 16
    }

    /// True so many times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    /// One of these; the first is the simplest.
    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A value, or none.
    pub fn maybe<T>(&mut self, percent: usize, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(percent).then(|| value(self))
    }

    /// Up to `most` values.
    pub fn list<T>(&mut self, most: usize, mut value: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| value(self)).collect()
    }

    /// Any of 128 bits.
    pub fn wide(&mut self) -> u128 {
        (0..8).fold(0, |wide, _| wide << 16 | u128::from(self.number()))
    }

    /// Any port.
    pub fn port(&mut self) -> u16 {
        self.number()
    }

    /// Any IPv4 address.
    pub fn address(&mut self) -> u32 {
        u32::from(self.number()) << 16 | u32::from(self.number())
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.number().to_be_bytes()[0]
    }
}
