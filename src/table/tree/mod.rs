//! The boundary tree: first match over wide lists of five-dimensional rules.
//!
//! A node parts its box at up to 15 boundaries of one dimension, quantiles of the edges of its rules; a search compares
//! all of them at once. A leaf is a short list of rules, eight of which are compared at once. Rules that reach so far
//! that they would be copied into many leaves get trees of their own; the first match of all trees wins.
//!
//! # Layout, version 1
//!
//! The image is an array of 64-byte lines of sixteen `u32`, position-independent: lines are counted from its start.
//!
//! ```text
//! line 0   [0] 0x4254_0001 (layout version)  [1] trees  [2], [3] squeeze of source port and second key
//!          [4] ranked: answers are ranks     [5] first line of the values of ranks
//! line 1.. a tree per 4 words: root reference, least answer in it, 0, 0
//! then     nodes, then leaves, then values of ranks
//!
//! node     line 0: 16 boundaries, ascending as i32 (value XOR 2^31); the first is the least i32
//!          line 1: 16 references; a key goes to the last child whose boundary is <= the key
//! leaf     blocks of 4 lines with 8 lanes, in order; unused lanes come last and answer NONE
//!          line 0: 8 source lows, 8 source spans; line 1: the same for the destination
//!          line 2: 8 port lows, 8 port spans, each source port + second key << 16
//!          line 3: 8 x (protocol low + span << 16), 8 answers
//! ```
//!
//! A reference is a node, `dimension << 28 | line`, or a leaf, `1 << 31 | (blocks - 1) << 26 | line / 4`; a count field
//! of 31 means: until a block whose last lane is unused. A rule holds a key if, in each dimension, key - low <= span,
//! in 32 bits (addresses) or 16 bits (the rest). A port value p is looked up as p - 1 if p >= squeeze: 65537 port
//! values fit 16 bits, as no rule tells the squeeze from the value below it. If there is no such value the squeeze is
//! `u32::MAX`, and the topmost nodes cut 65536 off.

mod assemble;
mod build;
mod cut;
mod image;
mod partition;
mod rules;
#[cfg(test)]
mod tests;
mod walk;

use assemble::Grown;
use image::{Line, Ref};
use partition::Partition;
use rules::Rules;
use walk::{Key, Scalar, Start};

/// Dimensions of a cuboid: source, destination (an IPv4 address, or an IPv6 interval rank), source port, second key,
/// protocol. Ports are 0 to 65535, and 65536 for a packet without readable ports; the second key is the destination
/// port, or type << 8 | code for ICMP, or 65536. A protocol is 0 to 255.
pub const DIMENSIONS: usize = 5;
/// The value of a point that no cuboid contains.
pub const NONE: u32 = u32::MAX;

const VERSION: u32 = 0x4254_0001;
const TREES_PER_LINE: usize = 4;

/// A box in five dimensions and what it means. Ends beyond a dimension's domain are cut to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuboid {
    /// Lowest values, inclusive.
    pub low: [u32; DIMENSIONS],
    /// Highest values, inclusive.
    pub high: [u32; DIMENSIONS],
    /// What [`Tree::find`] answers.
    pub value: u32,
}

/// What a tree may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the image.
    pub bytes: usize,
    /// Rules that a leaf should hold at most.
    pub leaf: usize,
}

impl Limits {
    /// The stated budget for a list: 160 bytes a rule and 64 KiB.
    pub const fn of(cuboids: usize) -> Self {
        Self { bytes: cuboids * 160 + (64 << 10), leaf: 16 }
    }
}

/// Not even plain lists fit the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cuboids} cuboids need at least {needed} bytes, {allowed} are allowed")]
pub struct TooLarge {
    /// How many were given.
    pub cuboids: usize,
    /// Bytes of the smallest image.
    pub needed: usize,
    /// [`Limits::bytes`].
    pub allowed: usize,
}

/// What a [`Tree`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Trees that each search may walk.
    pub trees: usize,
    /// Nodes in all.
    pub nodes: usize,
    /// Leaves that differ.
    pub leaves: usize,
    /// Blocks of eight rules in all leaves.
    pub blocks: usize,
    /// Nodes on the longest path.
    pub depth: usize,
}

/// The image and how to walk it.
#[derive(Clone, Debug)]
pub struct Tree {
    image: Vec<Line>,
    shape: Shape,
}

/// A tree over cuboids, of which the first that contains a point wins.
///
/// # Errors
/// If even plain lists of the cuboids need more than `limits.bytes`.
pub fn build(cuboids: &[Cuboid], limits: &Limits) -> Result<Tree, TooLarge> {
    let all = Rules::new(cuboids);
    let mut best: Option<Grown> = None;
    let mut needed = usize::MAX;
    for partition in Partition::ALL {
        let grown = Grown::new(&all, partition, limits);
        needed = needed.min(grown.bytes());
        let is_better = best.as_ref().is_none_or(|best| grown.crowded < best.crowded);
        if grown.bytes() <= limits.bytes && is_better {
            best = Some(grown);
        }
        if best.as_ref().is_some_and(|best| best.crowded == 0) {
            break;
        }
    }
    let too_large = TooLarge { cuboids: cuboids.len(), needed, allowed: limits.bytes };
    best.map(|grown| grown.assemble(&all)).ok_or(too_large)
}

impl Tree {
    /// The value of the first cuboid that contains the point, or [`NONE`].
    pub fn find(&self, point: &[u32; DIMENSIONS]) -> u32 {
        let header = &self.image[0].0;
        let key = Key::new(point, [header[2], header[3]]);
        let answer = walk::find::<Scalar>(&self.image, self.starts(), &key);
        self.value(answer)
    }

    /// [`find`](Self::find) for each point. Panics unless `values` is as long as `points`.
    pub fn find_batch(&self, points: &[[u32; DIMENSIONS]], values: &mut [u32]) {
        assert_eq!(points.len(), values.len(), "a value for each point");
        for (value, point) in values.iter_mut().zip(points) {
            *value = self.find(point);
        }
    }

    fn starts(&self) -> impl Iterator<Item = Start> {
        let count = self.image[0].0[1] as usize;
        (0..count).map(|index| {
            let words = &self.image[1 + index / TREES_PER_LINE].0[index % TREES_PER_LINE * 4..];
            Start { root: Ref(words[0]), least: words[1] }
        })
    }

    fn value(&self, answer: u32) -> u32 {
        let header = &self.image[0].0;
        if header[4] == 0 || answer == NONE {
            return answer;
        }
        self.image[header[5] as usize + answer as usize / 16].0[answer as usize % 16]
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> usize {
        self.image.len() * size_of::<Line>()
    }

    /// What it is made of.
    pub fn shape(&self) -> Shape {
        self.shape
    }
}
