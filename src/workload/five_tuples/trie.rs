//! Addresses as walks down a binary trie.

use super::Random;

/// From this level on: the share of nodes with two children, and how unevenly they share what is below, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    pub from: u8,
    pub branch: u32,
    /// 0 for equal halves; 100 - skew is the ratio of the lighter child to the heavier one.
    pub skew: u32,
}

/// How the addresses of one side are spread.
#[derive(Clone, Copy, Debug)]
pub struct Trie {
    /// Levels at the top that branch evenly in a set of 10,000 rules, and how many more do with ten times as many.
    pub even: (f64, f64),
    /// Ascending; the first begins at 0.
    pub levels: &'static [Level],
}

const BITS: u8 = 32;
const EVEN: Level = Level { from: 0, branch: 100, skew: 5 };

impl Trie {
    /// A range of addresses for each of the prefix lengths, in a set of `rules` rules.
    pub fn addresses(&self, lengths: Vec<u8>, rules: usize, random: &mut Random) -> Vec<(u32, u32)> {
        let mut prefixes = vec![0; lengths.len()];
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        random.shuffle(&mut order);
        let mut open = vec![(0_u8, 0_u32, order)];
        while let Some((level, prefix, members)) = open.pop() {
            let mut deeper = Vec::with_capacity(members.len());
            for member in members {
                if lengths[member] == level {
                    prefixes[member] = prefix;
                } else {
                    deeper.push(member);
                }
            }
            if deeper.is_empty() {
                continue;
            }
            let bit = 1 << (BITS - 1 - level);
            let (heavy, light) =
                if random.percent(50) { (prefix, prefix | bit) } else { (prefix | bit, prefix) };
            let rest = self.level(level, rules).share_out(&mut deeper, random);
            open.push((level + 1, heavy, deeper));
            open.push((level + 1, light, rest));
        }
        let range =
            |(prefix, length): (u32, u8)| (prefix, prefix | u32::MAX.checked_shr(length.into()).unwrap_or(0));
        prefixes.into_iter().zip(lengths).map(range).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "only the magnitude of the count matters")]
    fn level(&self, level: u8, rules: usize) -> Level {
        let even = self.even.0 + self.even.1 * (rules as f64 / 10_000.0).log10();
        if f64::from(level) < even.round() {
            return EVEN;
        }
        *self.levels.iter().rfind(|known| known.from <= level).expect("the first begins at 0")
    }
}

impl Level {
    /// Takes the members of the lighter child out.
    fn share_out(self, members: &mut Vec<usize>, random: &mut Random) -> Vec<usize> {
        if members.len() < 2 || !random.percent(self.branch) {
            return Vec::new();
        }
        let ratio = 100 - self.skew as usize;
        let light = (members.len() * ratio).div_ceil(100 + ratio).max(1);
        members.split_off(members.len() - light)
    }
}
