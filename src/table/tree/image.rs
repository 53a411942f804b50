//! The flat image: its lines, references and blocks, and how they are written. The layout is told in the module's
//! own documentation.

use std::io;
use std::ops::Deref;

use bytemuck::{Pod, Zeroable};

use super::rules::{ADDRESSES, NO_PORT, PORTS, Rule};
use super::{DIMENSIONS, NONE};
use crate::table::pages::{Pages, WORTH};

/// Children of a node.
pub const FAN_OUT: usize = 16;
/// Rules of a block.
pub const LANES: usize = 8;
/// Lines of a node.
pub const NODE_LINES: usize = 2;
/// Bytes of a node.
pub const NODE_BYTES: usize = NODE_LINES * size_of::<Line>();
/// A block count that a reference cannot hold: the leaf goes on until a block whose last lane is unused.
pub const MANY_BLOCKS: u32 = 32;

/// An image has no more lines: a reference has 26 bits for its place. 4 GiB.
pub const MOST_LINES: usize = 1 << 26;

/// One cache line of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line(pub [u32; 16]);

impl Line {
    /// Bits of a line.
    pub const BITS: usize = 8 * size_of::<Self>();
}

/// A block of a leaf that says nets and the numbers of services.
pub type Services = [Line; 2];
/// A block of a leaf that says nets.
pub type Nets = [Line; 3];
/// A block of a leaf that says ranges.
pub type Ranges = [Line; 4];

/// How the blocks of an image say which packets rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As nets, with ports and protocol as the number of a service. Half of the bytes of ranges.
    Services,
    /// Nets: as many of the first bits as count. Three quarters of the bytes.
    Nets,
    /// Any first and last one.
    Ranges,
}

impl Form {
    /// Lines of a block.
    pub const fn lines(self) -> usize {
        match self {
            Self::Services => size_of::<Services>() / size_of::<Line>(),
            Self::Nets => size_of::<Nets>() / size_of::<Line>(),
            Self::Ranges => size_of::<Ranges>() / size_of::<Line>(),
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        self.lines() * size_of::<Line>()
    }

    /// Bytes of a leaf of so many rules.
    pub fn leaf_bytes(self, rules: usize) -> usize {
        rules.div_ceil(LANES).max(1) * self.bytes()
    }

    /// Writes a block of at most eight rules, each with what a match answers, behind others.
    pub fn push<'a>(self, blocks: &mut Vec<Line>, rules: impl Iterator<Item = (&'a Rule, u32)>) {
        let first = blocks.len();
        blocks.resize(first + self.lines(), Line([0; 16]));
        let lines = &mut blocks[first..];
        let last = lines.len() - 1;
        lines[last].0[LANES..].fill(NONE);
        for (lane, (rule, answer)) in rules.enumerate() {
            let low: [u32; DIMENSIONS] =
                std::array::from_fn(|d| if is_marker(rule, d) { 0 } else { rule.low[d] });
            let span: [u32; DIMENSIONS] =
                std::array::from_fn(|d| if is_marker(rule, d) { NO_PORT - 1 } else { rule.high[d] - low[d] });
            if self != Self::Services {
                let ports = &mut lines[last - 1].0;
                ports[lane] = low[2] | low[3] << 16;
                ports[LANES + lane] = span[2] | span[3] << 16;
            }
            let [source, destination] = ADDRESSES.map(|d| span[d].count_ones());
            match self {
                Self::Services | Self::Nets => {
                    lines[0].0[lane] = bias(low[0]);
                    lines[0].0[LANES + lane] = bias(low[1]);
                    lines[last].0[lane] = if self == Self::Nets {
                        destination | low[4] << 8 | span[4] << 16 | source << 24
                    } else {
                        destination | u32::from(rule.service) << 6 | source << 26
                    };
                }
                Self::Ranges => {
                    for dimension in ADDRESSES {
                        lines[dimension].0[lane] = bias(low[dimension]);
                        lines[dimension].0[LANES + lane] = span[dimension];
                    }
                    lines[last].0[lane] = low[4] | span[4] << 16;
                }
            }
            lines[last].0[LANES + lane] = answer;
        }
    }
}

/// The lines of an image.
#[derive(Debug)]
pub enum Image {
    /// Few: most chains have trees of some rules, and a page each would be more than they need.
    Small(Vec<Line>),
    /// In huge pages.
    Large(Pages),
}

impl Image {
    /// So many lines, all zeros. Fails without memory.
    pub fn zeroed(lines: usize) -> io::Result<Self> {
        let bytes = lines * size_of::<Line>();
        if bytes >= WORTH {
            return Ok(Self::Large(Pages::alone(bytes)?));
        }
        let mut small = Vec::new();
        small.try_reserve_exact(lines).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        small.resize(lines, Line([0; 16]));
        Ok(Self::Small(small))
    }

    /// All of them, to be written.
    pub fn lines_mut(&mut self) -> &mut [Line] {
        match self {
            Self::Small(lines) => lines,
            Self::Large(pages) => bytemuck::cast_slice_mut(pages.bytes_mut()),
        }
    }
}

impl Deref for Image {
    type Target = [Line];

    #[inline]
    fn deref(&self) -> &[Line] {
        match self {
            Self::Small(lines) => lines,
            Self::Large(pages) => pages.items(),
        }
    }
}

/// Leads to a node (dimension, first line) or a leaf (count of blocks, first line).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ref(pub u32);

impl Ref {
    const LEAF: u32 = 1 << 31;
    const DIMENSION_SHIFT: u32 = 28;
    const PLACE_BITS: u32 = 26;

    /// The node at a line; its boundaries cut `dimension`.
    pub fn node(dimension: usize, place: usize) -> Self {
        debug_assert!(dimension < DIMENSIONS && place < 1 << Self::PLACE_BITS);
        #[expect(clippy::cast_possible_truncation, reason = "an image has at most 2^26 lines")]
        Self((dimension as u32) << Self::DIMENSION_SHIFT | place as u32)
    }

    /// The leaf of `count` blocks from a line on.
    pub fn leaf(count: usize, place: usize) -> Self {
        debug_assert!(count >= 1 && place < 1 << Self::PLACE_BITS);
        #[expect(clippy::cast_possible_truncation, reason = "an image has at most 2^26 lines")]
        Self(Self::LEAF | (count.min(MANY_BLOCKS as usize) as u32 - 1) << Self::PLACE_BITS | place as u32)
    }

    pub const fn is_leaf(self) -> bool {
        self.0 & Self::LEAF != 0
    }

    /// Of a node: the dimension that its boundaries cut. Of a leaf: anything below 8.
    pub const fn dimension(self) -> usize {
        (self.0 >> Self::DIMENSION_SHIFT & 7) as usize
    }

    /// The line where the node or leaf begins.
    pub const fn place(self) -> usize {
        (self.0 & ((1 << Self::PLACE_BITS) - 1)) as usize
    }

    /// Blocks of a leaf; [`MANY_BLOCKS`] stands for that many or more.
    pub const fn blocks(self) -> u32 {
        (self.0 >> Self::PLACE_BITS & 31) + 1
    }
}

/// Turns the order of `u32` into the order of `i32`: vector units compare signed numbers. All else than addresses is
/// below 2^31.
pub const fn bias(value: u32) -> u32 {
    value ^ 1 << 31
}

/// The lines of a node. `cuts` are the lowest values of all children but the first, ascending.
pub fn node(dimension: usize, cuts: &[u32], children: &[Ref]) -> [Line; NODE_LINES] {
    debug_assert!(children.len() == cuts.len() + 1 && children.len() <= FAN_OUT);
    let last = children[children.len() - 1];
    let mut lines = [Line([bias(u32::MAX); FAN_OUT]), Line([last.0; FAN_OUT])];
    for (slot, &cut) in lines[0].0.iter_mut().zip(cuts) {
        *slot = if ADDRESSES.contains(&dimension) { bias(cut - 1) } else { cut - 1 };
    }
    for (slot, child) in lines[1].0.iter_mut().zip(children) {
        *slot = child.0;
    }
    lines
}

/// A rule for packets without a port, in a dimension that could not be squeezed: a cut has set them apart, and all
/// that 16 bits can hold is let through.
fn is_marker(rule: &Rule, dimension: usize) -> bool {
    PORTS.contains(&dimension) && rule.low[dimension] == NO_PORT
}
