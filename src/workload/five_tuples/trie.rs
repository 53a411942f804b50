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
    /// Levels at the top that branch evenly in a set of 10,000 rules; one more with twice as many rules.
    pub even: Option<i32>,
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

    fn level(&self, level: u8, rules: usize) -> Level {
        let grown =
            (rules.max(1) * 100 / 10_000).max(1).ilog2().cast_signed() - 100_u32.ilog2().cast_signed();
        if self.even.is_some_and(|even| i32::from(level) < even + grown) {
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
