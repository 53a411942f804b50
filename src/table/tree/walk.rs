//! The walk of one image, for whatever compares boundaries and rules.
//!
//! Where a packet's path ends cannot be predicted, and a processor that has guessed wrong begins anew; so a walk takes
//! the steps that nearly all paths of its tree have, and a path that has come to its leaf stays there. Only longer
//! paths branch.
#![expect(clippy::inline_always, reason = "lanes become vector code only inside a caller compiled for them")]

use super::super::prefetch::prefetch;
use std::hint::select_unpredictable;

use super::image::{BLOCK_LINES, LANES, Line, MANY_BLOCKS, NODE_LINES, Ref, bias};
use super::{DIMENSIONS, NONE, TREES_PER_LINE};

/// A packet.
pub type Point = [u32; DIMENSIONS];

/// The walk of one packet, in registers: the lines, and what is in a [`Packed`](super::Packed).
pub type Find = fn(&[Line], u64, u64, u32) -> u32;

#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // Halves.
const fn parts(pair: u64) -> [u32; 2] {
    [pair as u32, (pair >> 32) as u32]
}

/// Packets that are walked together: the memory of all is waited for at the same time.
const GROUP: usize = 32;

/// An image of no more lines stays in the second cache: asking for its lines ahead costs more than it spares.
const NEAR_LINES: usize = (256 << 10) / size_of::<Line>();

/// How to walk an image, chosen for the processor.
#[derive(Clone, Copy, Debug)]
pub struct Paths {
    /// The answer to one point.
    pub find: Find,
    /// The answers to many, of which there are as many.
    pub find_batch: fn(&Walked<'_>, &[Point], &mut [u32]),
}

impl Paths {
    /// Walks in these lanes, always of so many trees.
    pub fn of<L: Lanes>(trees: usize) -> Self {
        let finds = [find::<L, 0>, find::<L, 1>, find::<L, 2>, find::<L, 3>, find::<L, 4>, find::<L, 5>];
        Self { find: finds[trees], find_batch: find_batch::<L> }
    }
}

/// An image, as walks see it.
#[derive(Clone, Copy, Debug)]
pub struct Walked<'a> {
    pub lines: &'a [Line],
}

impl Walked<'_> {
    #[inline(always)]
    fn squeezes(&self) -> [u32; 2] {
        [self.lines[0].0[2], self.lines[0].0[3]]
    }

    /// That with the least answer comes first: what it finds often settles the others.
    #[inline(always)]
    fn trees(&self) -> usize {
        self.lines[0].0[1] as usize
    }

    #[inline(always)]
    fn start(&self, tree: usize) -> Start {
        let words = &self.lines[1 + tree / TREES_PER_LINE].0[tree % TREES_PER_LINE * 4..];
        Start { root: Ref(words[0]), least: words[1], steps: words[2], blocks: words[3] }
    }
}

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
    const NOTHING: Self = Self { biased: [0; 8], source: 0, destination: 0, ports: 0, protocol: 0 };

    #[inline(always)]
    pub fn new([source, destination, first, second, protocol]: Point, squeezes: [u32; 2]) -> Self {
        let first = first - u32::from(first >= squeezes[0]);
        let second = second - u32::from(second >= squeezes[1]);
        let biased = [bias(source), bias(destination), bias(first), bias(second), bias(protocol), 0, 0, 0];
        Self { biased, source, destination, ports: first & 0xFFFF | second << 16, protocol }
    }
}

/// What can be done in many lanes at once.
pub trait Lanes {
    /// How many of the boundaries, biased and ascending, are below `key`, biased.
    fn below(boundaries: &Line, key: u32) -> usize;
    /// The lanes of the block whose rules hold the key, as bits.
    fn matches(block: &[Line; BLOCK_LINES], key: &Key) -> u32;
}

/// One tree of an image.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub root: Ref,
    /// The least answer that it holds.
    pub least: u32,
    /// Nodes on nearly all of its paths, or fewer.
    pub steps: u32,
    /// Blocks in nearly all of its leaves, or fewer: 1 or 2.
    pub blocks: u32,
}

#[inline(always)]
fn step<L: Lanes>(lines: &[Line], at: Ref, key: &Key) -> Ref {
    let node = &lines[at.line()..at.line() + NODE_LINES];
    // Which word of the second line is read is known only when the first one has come.
    prefetch(&raw const node[1]);
    Ref(node[1].0[L::below(&node[0], key.biased[at.dimension()]) & 15])
}

/// As [`step`], but a leaf stays; without a branch. What is read there as a node is any number, and not used.
#[inline(always)]
fn step_or_stay<L: Lanes>(lines: &[Line], at: Ref, key: &Key) -> Ref {
    select_unpredictable(at.is_leaf(), at, step::<L>(lines, at, key))
}

#[inline(always)]
fn block_at(lines: &[Line], line: usize) -> &[Line; BLOCK_LINES] {
    lines[line..].first_chunk().expect("a leaf ends inside the image")
}

/// The answer of the first rule of a block that holds the key; without a branch.
#[inline(always)]
fn search_block<L: Lanes>(block: &[Line; BLOCK_LINES], key: &Key) -> u32 {
    let matches = L::matches(block, key);
    let answer = block[BLOCK_LINES - 1].0[LANES + (matches.trailing_zeros() as usize & (LANES - 1))];
    answer | u32::from(matches == 0).wrapping_neg()
}

/// Whether a leaf ends with its block number `index`, counted from 0.
#[inline(always)]
fn is_last(block: &[Line; BLOCK_LINES], leaf: Ref, index: usize) -> bool {
    let is_counted = leaf.blocks() != MANY_BLOCKS;
    let is_open = block[BLOCK_LINES - 1].0[2 * LANES - 1] == NONE;
    is_open | is_counted & (index + 1 >= leaf.blocks())
}

/// The answer of the first rule of a leaf, from its block number `from` on, that holds the key.
#[inline(always)]
fn search_on<L: Lanes>(lines: &[Line], leaf: Ref, from: usize, key: &Key) -> u32 {
    for index in from.. {
        let block = block_at(lines, leaf.line() + index * BLOCK_LINES);
        let answer = search_block::<L>(block, key);
        if answer != NONE || is_last(block, leaf, index) {
            return answer;
        }
    }
    NONE
}

/// The answer of the first rule of a leaf that holds the key.
#[inline(always)]
fn search_leaf<L: Lanes>(lines: &[Line], leaf: Ref, blocks: u32, key: &Key) -> u32 {
    let answer = search_first::<L>(lines, leaf, blocks, key);
    let blocks = blocks as usize;
    if leaf.blocks() > blocks && answer == NONE {
        return search_on::<L>(lines, leaf, blocks, key);
    }
    answer
}

/// As [`search_leaf`], of one block or two; without a branch on what they hold.
#[inline(always)]
fn search_first<L: Lanes>(lines: &[Line], leaf: Ref, blocks: u32, key: &Key) -> u32 {
    let first = leaf.line();
    let answer = search_block::<L>(block_at(lines, first), key);
    if blocks < 2 {
        return answer;
    }
    let second = first + usize::from(leaf.blocks() > 1) * BLOCK_LINES;
    let next = search_block::<L>(block_at(lines, second), key);
    select_unpredictable(answer == NONE, next, answer)
}

/// The least answer of all trees that holds the point. Answers ascend with the order of rules if there are several.
///
/// The first `TREES` trees are walked side by side, so that they wait for memory at the same time.
#[inline(always)]
pub fn find<L: Lanes, const TREES: usize>(lines: &[Line], addresses: u64, ports: u64, protocol: u32) -> u32 {
    let image = Walked { lines };
    let ([source, destination], [first, second]) = (parts(addresses), parts(ports));
    let key = Key::new([source, destination, first, second, protocol], image.squeezes());
    let starts: [Start; TREES] = std::array::from_fn(|tree| image.start(tree));
    let mut at = starts.map(|start| start.root);
    for level in 0..starts.iter().map(|start| start.steps).max().unwrap_or_default() {
        for tree in 0..TREES {
            if level < starts[tree].steps {
                at[tree] = step_or_stay::<L>(lines, at[tree], &key);
            }
        }
    }
    let mut best = NONE;
    for tree in 0..TREES {
        best = best.min(find_from::<L>(lines, at[tree], starts[tree].blocks, &key));
    }
    for tree in TREES..image.trees() {
        let start = image.start(tree);
        if best <= start.least {
            break;
        }
        best = best.min(find_from::<L>(lines, start.root, start.blocks, &key));
    }
    best
}

/// The answer of one tree, from a node or leaf on.
#[inline(always)]
fn find_from<L: Lanes>(lines: &[Line], at: Ref, blocks: u32, key: &Key) -> u32 {
    search_leaf::<L>(lines, leaf_from::<L>(lines, at, key), blocks, key)
}

/// The leaf that a path comes to, from a node or leaf on.
#[inline(always)]
fn leaf_from<L: Lanes>(lines: &[Line], mut at: Ref, key: &Key) -> Ref {
    while !at.is_leaf() {
        at = step::<L>(lines, at, key);
    }
    at
}

/// [`find`] for each point.
#[inline(always)]
pub fn find_batch<L: Lanes>(image: &Walked<'_>, points: &[Point], answers: &mut [u32]) {
    let squeezes = image.squeezes();
    for (points, answers) in points.chunks(GROUP).zip(answers.chunks_mut(GROUP)) {
        let mut keys = [Key::NOTHING; GROUP];
        for (key, point) in keys.iter_mut().zip(points) {
            *key = Key::new(*point, squeezes);
        }
        answers.fill(NONE);
        for tree in 0..image.trees() {
            find_group::<L>(image.lines, &image.start(tree), &keys, answers);
        }
    }
}

/// Which packets of a group still walk.
struct Live {
    list: [u8; GROUP],
    count: usize,
}

impl Live {
    /// All packets whose answer a tree can better.
    #[inline(always)]
    fn of(answers: &[u32], least: u32) -> Self {
        let mut live = Self { list: [0; GROUP], count: 0 };
        for (index, &answer) in (0_u8..).zip(answers) {
            live.list[live.count & (GROUP - 1)] = index;
            live.count += usize::from(answer > least);
        }
        live
    }

    /// Their places, ascending.
    #[inline(always)]
    fn places(&self) -> impl Iterator<Item = usize> {
        self.list[..self.count.min(GROUP)].iter().map(|&index| usize::from(index) & (GROUP - 1))
    }

    /// Goes on with those of which `goes_on` says so; without a branch.
    #[inline(always)]
    fn advance(&mut self, mut goes_on: impl FnMut(usize) -> bool) {
        let mut kept = 0;
        for at in 0..self.count.min(GROUP) {
            let index = self.list[at];
            let stays = goes_on(usize::from(index) & (GROUP - 1));
            self.list[kept & (GROUP - 1)] = index;
            kept += usize::from(stays);
        }
        self.count = kept;
    }
}

/// One tree for a group of packets, level by level.
#[inline(always)]
fn find_group<L: Lanes>(lines: &[Line], start: &Start, keys: &[Key; GROUP], answers: &mut [u32]) {
    let is_far = lines.len() > NEAR_LINES;
    let mut at = [start.root; GROUP];
    let mut live = Live::of(answers, start.least);
    for _ in 0..start.steps {
        for index in live.places() {
            let next = step_or_stay::<L>(lines, at[index], &keys[index]);
            at[index] = next;
            if is_far {
                ask_for::<NODE_LINES>(lines, next.line());
            }
        }
    }
    if is_far {
        for index in live.places() {
            ask_for::<{ BLOCK_LINES - NODE_LINES }>(lines, at[index].line() + NODE_LINES);
            if start.blocks > 1 {
                ask_for::<BLOCK_LINES>(lines, at[index].line() + BLOCK_LINES);
            }
        }
    }
    let blocks = start.blocks as usize;
    live.advance(|index| {
        let leaf = leaf_from::<L>(lines, at[index], &keys[index]);
        at[index] = leaf;
        let found = search_first::<L>(lines, leaf, start.blocks, &keys[index]);
        answers[index] = answers[index].min(found);
        (found == NONE) & (leaf.blocks() > blocks)
    });
    for block_index in blocks.. {
        if live.count == 0 {
            break;
        }
        live.advance(|index| {
            let leaf = at[index];
            let block = block_at(lines, leaf.line() + block_index * BLOCK_LINES);
            let found = search_block::<L>(block, &keys[index]);
            answers[index] = answers[index].min(found);
            (found == NONE) & !is_last(block, leaf, block_index)
        });
    }
}

/// Asks for so many lines.
#[inline(always)]
fn ask_for<const COUNT: usize>(lines: &[Line], from: usize) {
    if let Some(lines) = lines.get(from..).and_then(<[Line]>::first_chunk::<COUNT>) {
        let _: [(); COUNT] = lines.each_ref().map(|line| prefetch(line));
    }
}

/// Portable lanes: plain loops over arrays that compilers turn into vectors.
#[derive(Debug)]
pub struct Scalar;

impl Lanes for Scalar {
    #[inline(always)]
    fn below(boundaries: &Line, key: u32) -> usize {
        boundaries
            .0
            .iter()
            .map(|&boundary| u32::from(boundary.cast_signed() < key.cast_signed()))
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
