//! The boundary tree: first match over wide lists of five-dimensional rules.
//!
//! A node parts its box at up to 15 boundaries of one dimension, quantiles of the edges of its rules; a search compares
//! all of them at once. A leaf is a short list of rules, eight of which are compared at once. Rules that reach so far
//! that they would be copied into many leaves get trees of their own; the first match of all trees wins.
//!
//! # Layout, version 7
//!
//! The image is an array of 64-byte lines of sixteen `u32`, position-independent: lines are counted from its start.
//!
//! ```text
//! line 0   [0] 0x4254_0007 (layout version)  [1] trees  [2], [3] squeeze of source port and second key
//!          [4] ranked: answers are ranks     [5] first line of the values of ranks
//!          [6] trees that are always walked; the others only where those leave a lower answer possible
//!          [7] lines of a block: 4, or 3 if the addresses of all rules are nets, or 2 if also few of their services differ
//!          [8], [9] first lines of the kinds of source ports, and of what each kind is outside of; [10], [11] of second
//!          keys; [12], [13] of protocols, if blocks have 2 lines
//! line 1.. a tree per 4 words, that with the least answer first: root reference, least answer in it, steps that nearly all
//!          paths have, blocks (1 or 2) that nearly all leaves have
//! then     nodes from an even line on, then leaves, then values of ranks, then kinds: a byte for each value, and a line of bits
//!          for each kind, by services: 1 if its values are outside
//!
//! node     line 0: 16 boundaries, ascending as i32 (the value before a child's first one; of addresses XOR 2^31, as all
//!          addresses in the image); unused: i32::MAX
//!          line 1: 16 references; a key goes to the child whose number is the count of boundaries below the key
//! leaf     blocks with 8 lanes, in order; unused lanes come last and answer NONE
//!  2 lines line 0: 8 sources, 8 destinations
//!          line 1: 8 x (last bits of the destination + service << 6 + last bits of the source << 26), 8 answers
//!  3 lines line 0: 8 sources, 8 destinations
//!          line 1: 8 port lows, 8 port spans, each source port + second key << 16
//!          line 2: 8 x (last bits of the destination + protocol low << 8 + protocol span << 16 + last bits of the
//!          source << 24), 8 answers
//!  4 lines line 0: 8 source lows, 8 source spans; line 1: the same for the destination
//!          line 2: as line 1 of 3 lines
//!          line 3: 8 x (protocol low + span << 16), 8 answers
//! ```
//!
//! A reference is a node, `dimension << 28 | line`, or a leaf, `1 << 31 | (blocks - 1) << 26 | line`; a count field of 31
//! means: until a block whose last lane is unused. A rule holds a key if, in each dimension, key - low <= span, in as many
//! bits as low has; of nets, if addresses are equal but for their last bits; of services, if the bit of its service is 0 in the
//! lines of the kinds of all three values. A port value p is looked up as p - 1 if p >= squeeze:
//! 65537 port values fit 16 bits, as no rule tells the squeeze from the value below it. If there is no such value the squeeze
//! is `u32::MAX`, and the topmost nodes cut 65536 off.

mod assemble;
mod build;
mod cut;
mod forms;
mod image;
mod lanes;
mod partition;
mod rules;
mod services;
mod simd;
#[cfg(test)]
mod tests;
mod walk;

use std::io;

use assemble::Grown;
#[cfg(test)]
use image::Form;
use image::{Image, Line, MOST_LINES};
use partition::{Partition, Width};
use rules::Rules;
use walk::{Paths, Walked};

/// Dimensions of a cuboid: source, destination (an IPv4 address, or an IPv6 interval rank), source port, second key,
/// protocol. Ports are 0 to 65535, and 65536 for a packet without readable ports; the second key is the destination
/// port, or type << 8 | code for ICMP, or 65536. A protocol is 0 to 255.
pub const DIMENSIONS: usize = 5;
/// The value of a point that no cuboid contains.
pub const NONE: u32 = u32::MAX;

const VERSION: u32 = 0x4254_0007;
const TREES_PER_LINE: usize = 4;
/// The nodes of so many cuboids, in short leaves, are too many for the second cache: a longer leaf costs less than a
/// node.
const MANY: usize = 1 << 15;
/// Trees in which one rule of so many is in a leaf longer than wanted are good enough.
const UNCROWDED: usize = 128;

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

/// A point to be looked up soon: two numbers in one, the first in the lower half. Numbers that were written one by one and
/// are read as a vector must come to the cache first, and the processor would wait for that with all packets behind.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    addresses: u64,
    ports: u64,
    protocol: u32,
}

impl Packed {
    /// Of this point.
    #[inline]
    pub const fn of(&[source, destination, source_port, key, protocol]: &[u32; DIMENSIONS]) -> Self {
        Self { addresses: pair(source, destination), ports: pair(source_port, key), protocol }
    }
}

const fn pair(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

/// What a tree may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the image.
    pub bytes: usize,
    /// Rules that a leaf should hold at most.
    pub leaf: usize,
    /// From so many rules on, as the image has them, blocks say nets where they can: fewer bytes, a few more instructions. Trees
    /// then grow to three quarters of [`bytes`](Self::bytes).
    pub nets: usize,
    /// As [`nets`](Self::nets), blocks also say services by their numbers, if there are few and there is room for what tells them
    /// apart, 129 to 177 KiB. Trees then grow to half of what is left.
    pub services: usize,
}

impl Limits {
    /// The stated budget for a list: 160 bytes a rule and 64 KiB.
    pub const fn of(cuboids: usize) -> Self {
        Self {
            bytes: cuboids * 160 + (64 << 10),
            leaf: if cuboids < MANY { 16 } else { 28 },
            nets: 1 << 12,
            services: MANY,
        }
    }
}

/// Why there is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not even plain lists fit the budget.
    #[error("{cuboids} cuboids need at least {needed} bytes, {allowed} are allowed")]
    TooLarge {
        /// How many were given.
        cuboids: usize,
        /// Bytes of the smallest image.
        needed: usize,
        /// [`Limits::bytes`].
        allowed: usize,
    },
    /// No memory: the number of the system's error.
    #[error("no memory: {}", io::Error::from_raw_os_error(*.0))]
    Memory(i32),
}

impl Error {
    fn memory(error: &io::Error) -> Self {
        Self::Memory(error.raw_os_error().unwrap_or(libc::ENOMEM))
    }
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
#[derive(Debug)]
pub struct Tree {
    image: Image,
    /// The first line of the values of ranks, if answers are ranks.
    ranked: Option<u32>,
    shape: Shape,
    paths: Paths,
}

/// A tree over cuboids, of which the first that contains a point wins.
///
/// # Errors
/// If even plain lists of the cuboids need more than `limits.bytes`, or without memory.
pub fn build(cuboids: &[Cuboid], limits: &Limits) -> Result<Tree, Error> {
    let limits = &Limits { bytes: limits.bytes.min(MOST_LINES * size_of::<Line>()), ..*limits };
    let all = Rules::new(cuboids, limits);
    let widths = Width::of(&all.list);
    let grow = |partition: Partition, patience| Grown::new(&all, partition.divide(&widths), limits, patience);
    // Fewer trees are faster, if the budget does not leave leaves long.
    let patience = all.list.len() / UNCROWDED;
    let fitting = |grown: &Grown| grown.bytes() <= limits.bytes;
    let soon = Partition::ALL.into_iter().find_map(|partition| grow(partition, patience).filter(fitting));
    if let Some(grown) = soon {
        return grown.assemble(&all);
    }
    if all.services.is_some() {
        // What tells services apart is as large for a short list as for a long one.
        return build(cuboids, &Limits { services: usize::MAX, ..*limits });
    }
    let grown: Vec<_> =
        Partition::ALL.into_iter().filter_map(|partition| grow(partition, usize::MAX)).collect();
    let needed = grown.iter().map(Grown::bytes).min().unwrap_or_default();
    let least_crowded = grown.into_iter().filter(fitting).min_by_key(|grown| grown.crowded);
    let too_large = Error::TooLarge { cuboids: cuboids.len(), needed, allowed: limits.bytes };
    least_crowded.ok_or(too_large)?.assemble(&all)
}

impl Tree {
    /// The value of the first cuboid that contains the point, or [`NONE`].
    #[inline]
    pub fn find(&self, point: &[u32; DIMENSIONS]) -> u32 {
        self.find_packed(Packed::of(point))
    }

    /// As [`find`](Self::find).
    #[inline]
    pub fn find_packed(&self, Packed { addresses, ports, protocol }: Packed) -> u32 {
        self.value((self.paths.find)(&self.image, addresses, ports, protocol))
    }

    /// [`find`](Self::find) for each point. Panics unless `values` is as long as `points`.
    pub fn find_batch(&self, points: &[[u32; DIMENSIONS]], values: &mut [u32]) {
        assert_eq!(points.len(), values.len(), "a value for each point");
        (self.paths.find_batch)(&Walked::new(&self.image), points, values);
        if self.ranked.is_some() {
            for value in values {
                *value = self.value(*value);
            }
        }
    }

    #[inline]
    fn value(&self, answer: u32) -> u32 {
        match self.ranked {
            Some(first) if answer != NONE => {
                self.image[first as usize + answer as usize / 16].0[answer as usize % 16]
            }
            _ => answer,
        }
    }

    /// Every way in which this processor can walk the tree, the fastest first.
    #[cfg(test)]
    fn all_paths(&self) -> Vec<Paths> {
        simd::all_paths(self.form(), self.image[0].0[6] as usize)
    }

    #[cfg(test)]
    fn form(&self) -> Form {
        let forms = [Form::Services, Form::Nets, Form::Ranges];
        forms.into_iter().find(|form| form.lines() == self.image[0].0[7] as usize).expect("one of them")
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.image)
    }

    /// What it is made of.
    pub fn shape(&self) -> Shape {
        self.shape
    }
}
