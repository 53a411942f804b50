//! The walk of one image, for whatever compares boundaries and rules.
#![expect(clippy::inline_always, reason = "lanes become vector code only inside a caller compiled for them")]

use super::image::{BLOCK_LINES, LANES, Line, MANY_BLOCKS, NODE_LINES, Ref, bias};
use super::{DIMENSIONS, NONE};

/// A point in the terms of the image.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Each dimension as boundaries are compared with.
    pub biased: [u32; 8],
    pub source: u32,
    pub destination: u32,
    /// Source port, and the second key in the high half.
    pub ports: u32,
    pub protocol: u32,
}

impl Key {
    #[inline(always)]
    pub fn new(point: &[u32; DIMENSIONS], squeezes: [u32; 2]) -> Self {
        let [source, destination, first, second, protocol] = *point;
        let first = first - u32::from(first >= squeezes[0]);
        let second = second - u32::from(second >= squeezes[1]);
        let biased = [bias(source), bias(destination), bias(first), bias(second), bias(protocol), 0, 0, 0];
        Self { biased, source, destination, ports: first & 0xFFFF | second << 16, protocol }
    }
}

/// What can be done in many lanes at once.
pub trait Lanes {
    /// How many of the boundaries, biased and ascending, are at most `key`, biased.
    fn count(boundaries: &Line, key: u32) -> usize;
    /// The lanes of the block whose rules hold the key, as bits.
    fn matches(block: &[Line; BLOCK_LINES], key: &Key) -> u32;
}

/// One tree of an image: where it starts and the least answer that it holds.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub root: Ref,
    pub least: u32,
}

#[inline(always)]
pub fn step<L: Lanes>(lines: &[Line], at: Ref, key: &Key) -> Ref {
    let node = &lines[at.line()..at.line() + NODE_LINES];
    let child = L::count(&node[0], key.biased[at.dimension()]) - 1;
    Ref(node[1].0[child & 15])
}

/// The answer of the first rule of a leaf that holds the key.
#[inline(always)]
pub fn search_leaf<L: Lanes>(lines: &[Line], leaf: Ref, key: &Key) -> u32 {
    let blocks = lines[leaf.line()..].as_chunks::<BLOCK_LINES>().0;
    let mut left = if leaf.blocks() == MANY_BLOCKS { usize::MAX } else { leaf.blocks() };
    for block in blocks {
        let answers = &block[BLOCK_LINES - 1].0[LANES..];
        let matches = L::matches(block, key);
        if matches != 0 {
            return answers[matches.trailing_zeros() as usize & (LANES - 1)];
        }
        left -= 1;
        if left == 0 || answers[LANES - 1] == NONE {
            break;
        }
    }
    NONE
}

/// The least answer of all trees that holds the key. Answers ascend with the order of rules if there are several.
#[inline(always)]
pub fn find<L: Lanes>(lines: &[Line], starts: impl Iterator<Item = Start>, key: &Key) -> u32 {
    let mut best = NONE;
    for start in starts {
        if start.least > best {
            break;
        }
        let mut at = start.root;
        while !at.is_leaf() {
            at = step::<L>(lines, at, key);
        }
        best = best.min(search_leaf::<L>(lines, at, key));
    }
    best
}

/// Portable lanes: plain loops over arrays that compilers turn into vectors.
#[derive(Debug)]
pub struct Scalar;

impl Lanes for Scalar {
    #[inline(always)]
    fn count(boundaries: &Line, key: u32) -> usize {
        boundaries
            .0
            .iter()
            .map(|&boundary| u32::from(boundary.cast_signed() <= key.cast_signed()))
            .sum::<u32>() as usize
    }

    #[inline(always)]
    fn matches(block: &[Line; BLOCK_LINES], key: &Key) -> u32 {
        let [source, destination, ports, rest] = block.map(|line| line.0);
        let mut matches = 0;
        for lane in 0..LANES {
            let inside = |line: &[u32; 16], value: u32| value.wrapping_sub(line[lane]) <= line[LANES + lane];
            let half = |shift: u32| {
                let low = ports[lane] >> shift;
                let span = ports[LANES + lane] >> shift & 0xFFFF;
                (key.ports >> shift).wrapping_sub(low) & 0xFFFF <= span
            };
            let protocol = key.protocol.wrapping_sub(rest[lane]) & 0xFFFF <= rest[lane] >> 16;
            let all = inside(&source, key.source)
                & inside(&destination, key.destination)
                & half(0)
                & half(16)
                & protocol;
            matches |= u32::from(all) << lane;
        }
        matches
    }
}
