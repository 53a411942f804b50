//! A small seeded generator. Whole numbers only, so that no rounding of a floating point library changes a workload.

/// `SplitMix64`: equal seeds give equal sequences on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The next 128 bits.
    pub const fn wide(&mut self) -> u128 {
        ((self.bits() as u128) << 64) | self.bits() as u128
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.bits() as u128 * bound as u128) >> 64) as u64
    }

    /// An index of a slice of this length, which is not 0.
    #[expect(clippy::cast_possible_truncation, reason = "the result is below a usize")]
    pub const fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number from `low` to `high`, both inclusive.
    #[expect(clippy::cast_possible_truncation, reason = "the result is at most a u32")]
    pub const fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below((high - low) as u64 + 1) as u32
    }

    /// A number from `low` to `high`, both inclusive.
    pub const fn between_wide(&mut self, low: u128, high: u128) -> u128 {
        match (high - low).checked_add(1) {
            None => self.wide(),
            Some(count) => low + self.wide() % count,
        }
    }

    /// True in `percent` of 100 cases.
    pub const fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent as u64
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of the values; all are as likely. Panics if there are none.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.index(values.len())]
    }

    /// An index below `length`, which is not 0, with small ones as likely as the many above them: each of 0, 1..=2,
    /// 3..=6 and so on has the same share.
    pub const fn skewed(&mut self, length: usize) -> usize {
        let doublings = usize::BITS - length.leading_zeros();
        loop {
            let first = (1_usize << self.below(doublings as u64)) - 1;
            let index = first + self.index(first + 1);
            if index < length {
                return index;
            }
        }
    }

    /// One of `choices`, by weight. Panics if no weight is above 0.
    pub fn weighted<'a, T>(&mut self, choices: &'a [T], weight: impl Fn(&T) -> u32) -> &'a T {
        let total: u64 = choices.iter().map(|choice| u64::from(weight(choice))).sum();
        let mut left = self.below(total);
        for choice in choices {
            let weight = u64::from(weight(choice));
            if left < weight {
                return choice;
            }
            left -= weight;
        }
        unreachable!("the number drawn is below the sum of the weights")
    }

    /// Puts the items in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.index(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the reference implementation for seed 1234567.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        let first = [(); 3].map(|()| random.bits());
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_stay_in_their_bounds_and_reach_them() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 5];
        for _ in 0..1000 {
            seen[random.index(5)] += 1;
            assert!(matches!(random.between_wide(3, 4), 3 | 4));
            assert!(matches!(random.between(3, 4), 3 | 4));
        }
        assert!(seen.iter().all(|&count| count > 100), "{seen:?}");
        assert_eq!(random.between_wide(7, 7), 7);
        assert_ne!(random.between_wide(0, u128::MAX), random.between_wide(0, u128::MAX));
    }

    /// 0, 1..=2, 3..=6 and 7..=14 have a quarter each.
    #[test]
    fn every_doubling_has_the_same_share() {
        let mut random = Random::new(1);
        let mut doublings = [0_u32; 4];
        for _ in 0..4000 {
            doublings[(random.skewed(15) + 1).ilog2() as usize] += 1;
        }
        assert!(doublings.iter().all(|count| (900..1100).contains(count)), "{doublings:?}");
        assert_eq!(random.skewed(1), 0);
    }
}
