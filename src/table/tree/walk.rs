//! The walk of one image, for whatever compares boundaries and rules.
//!
//! Where a packet's path ends cannot be predicted, and a processor that has guessed wrong begins anew; so a walk takes
//! the steps that nearly all paths of its tree have, and a path that has come to its leaf stays there. Only longer
//! paths branch.
#![expect(clippy::inline_always, reason = "lanes become vector code only inside a caller compiled for them")]

use super::super::prefetch::prefetch;
use std::hint::select_unpredictable;

use super::forms::{Asked, Block};
use super::image::{LANES, Line, MANY_BLOCKS, NODE_LINES, Ref, bias};
use super::lanes::Lanes;
use super::{DIMENSIONS, NONE, Packed, TREES_PER_LINE, pair};

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

/// Blocks of a leaf that are searched whatever those before them answer: those of leaves that are as long as wanted.
const FEW_BLOCKS: u32 = 4;

/// How to walk an image, chosen for the processor.
#[derive(Clone, Copy, Debug)]
pub struct Paths {
    /// The answer to one point.
    pub find: Find,
    /// The answers to many, of which there are as many.
    pub find_batch: fn(&Walked<'_>, &[Point], &mut [u32]),
}

impl Paths {
    /// Walks in these lanes, over blocks of this form, always of so many trees.
    pub fn of<L: Lanes, B: Block>(trees: usize) -> Self {
        let finds = [
            find::<L, B, 0>,
            find::<L, B, 1>,
            find::<L, B, 2>,
            find::<L, B, 3>,
            find::<L, B, 4>,
            find::<L, B, 5>,
        ];
        Self { find: finds[trees], find_batch: find_batch::<L, B> }
    }
}

/// An image, as walks see it.
#[derive(Clone, Copy, Debug)]
pub struct Walked<'a> {
    lines: &'a [Line],
}

type Node = [Line; NODE_LINES];

impl<'a> Walked<'a> {
    /// Of all lines of an image.
    #[inline(always)]
    pub fn new(lines: &'a [Line]) -> Self {
        Self { lines }
    }

    /// The services, as bits, in which a value of a dimension of services is not.
    #[inline(always)]
    pub fn outside(&self, dimension: usize, value: u32) -> &'a Line {
        let [map, lines] = [8, 9].map(|word| self.lines[0].0[word + 2 * dimension] as usize);
        let kinds: &[u8] = bytemuck::cast_slice(self.lines);
        &self.lines[lines + usize::from(kinds[map * size_of::<Line>() + value as usize])]
    }

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

    #[inline(always)]
    fn node(&self, at: Ref) -> &'a Node {
        self.lines_at(at.place(), NODE_LINES).try_into().expect("as many lines")
    }

    /// A block of a leaf, by its number.
    #[inline(always)]
    fn block<B: Block>(&self, leaf: Ref, number: u32) -> &'a B {
        B::of(self.lines_at(leaf.place() + number as usize * B::LINES, B::LINES))
    }

    #[inline(always)]
    fn lines_at(&self, first: usize, count: usize) -> &'a [Line] {
        &self.lines[first..first + count]
    }

    /// Asks for the first lines of a node or leaf.
    #[inline(always)]
    fn ask_for(&self, at: Ref, count: usize) {
        self.ask_at(at.place(), count);
    }

    /// Asks for a block of a leaf, by its number.
    #[inline(always)]
    fn ask_for_block<B: Block>(&self, leaf: Ref, number: u32) {
        self.ask_at(leaf.place() + number as usize * B::LINES, B::LINES);
    }

    #[inline(always)]
    fn ask_at(&self, first: usize, count: usize) {
        let first = self.lines.as_ptr().wrapping_add(first);
        (0..count).for_each(|line| prefetch(first.wrapping_add(line)));
    }
}

/// A point in the terms of the image: its dimensions as boundaries are compared with, then ports and protocol as blocks have them.
/// Two numbers in one, as in a [`Packed`](super::Packed), so that one packet's are put together without vectors.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Key([u64; 4]);

impl Key {
    /// Of a packet that does not count.
    pub const NOTHING: Self = Self([0; 4]);

    #[inline(always)]
    fn new(addresses: u64, ports: u64, protocol: u32, squeezes: [u32; 2]) -> Self {
        debug_assert!(protocol <= 255, "a protocol is a byte");
        let [first, second] = parts(ports);
        let first = first - u32::from(first >= squeezes[0]);
        let second = second - u32::from(second >= squeezes[1]);
        let both = first & 0xFFFF | second << 16;
        let pairs = [
            addresses ^ pair(bias(0), bias(0)),
            pair(first, second),
            pair(protocol, both),
            u64::from(protocol << 8),
        ];
        Self(pairs.map(u64::to_le))
    }

    #[inline(always)]
    fn of(point: &Point, squeezes: [u32; 2]) -> Self {
        let Packed { addresses, ports, protocol } = Packed::of(point);
        Self::new(addresses, ports, protocol, squeezes)
    }

    /// As boundaries are compared with.
    #[inline(always)]
    fn coordinate(&self, dimension: usize) -> u32 {
        u32::from_le(bytemuck::cast_ref::<_, [u32; 8]>(&self.0)[dimension])
    }

    #[inline(always)]
    pub fn source(&self) -> u32 {
        self.coordinate(0)
    }

    #[inline(always)]
    pub fn destination(&self) -> u32 {
        self.coordinate(1)
    }

    /// Source port, and the second key in the high half.
    #[inline(always)]
    pub fn ports(&self) -> u32 {
        self.coordinate(DIMENSIONS)
    }

    #[inline(always)]
    pub fn protocol(&self) -> u32 {
        self.coordinate(4)
    }

    /// In the second byte.
    #[inline(always)]
    pub fn protocol_above(&self) -> u32 {
        self.coordinate(DIMENSIONS + 1)
    }
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
fn step<L: Lanes>(image: &Walked<'_>, at: Ref, key: &Key) -> Ref {
    let [boundaries, children] = image.node(at);
    Ref(children.0[L::below(boundaries, key.coordinate(at.dimension())) & 15])
}

/// As [`step`], but a leaf stays; without a branch. What is read there as a node is any number, and not used.
#[inline(always)]
fn step_or_stay<L: Lanes>(image: &Walked<'_>, at: Ref, key: &Key) -> Ref {
    select_unpredictable(at.is_leaf(), at, step::<L>(image, at, key))
}

/// What the first of these lanes of a block answers; [`NONE`] if there are none. Of bits beyond the block's lanes, what they
/// would be in it. Without a branch.
#[inline(always)]
fn answer<B: Block>(block: &B, matches: u32) -> u32 {
    let answer = block.last().0[LANES + (matches.trailing_zeros() as usize & (LANES - 1))];
    answer | u32::from(matches == 0).wrapping_neg()
}

/// Whether a leaf ends with its block number `index`, counted from 0.
#[inline(always)]
fn is_last<B: Block>(block: &B, leaf: Ref, index: u32) -> bool {
    let is_counted = leaf.blocks() != MANY_BLOCKS;
    let is_open = block.last().0[2 * LANES - 1] == NONE;
    is_open | is_counted & (index + 1 >= leaf.blocks())
}

/// The answer of the first rule of a block that holds the key, and whether the leaf ends with the block.
#[inline(always)]
fn search_block<L: Lanes, B: Block>(
    image: &Walked<'_>,
    leaf: Ref,
    index: u32,
    key: &Asked<B>,
) -> (u32, bool) {
    let block: &B = image.block(leaf, index);
    (answer(block, key.matches::<L>(block)), is_last(block, leaf, index))
}

/// The answer of the first rule of a leaf, from its block number `from` on, that holds the key.
#[inline(always)]
fn search_on<L: Lanes, B: Block>(image: &Walked<'_>, leaf: Ref, from: u32, key: &Asked<B>) -> u32 {
    for index in from.. {
        let (answer, is_last) = search_block::<L, B>(image, leaf, index, key);
        if answer != NONE || is_last {
            return answer;
        }
    }
    NONE
}

/// The answer of the first rule of a leaf that holds the key.
#[inline(always)]
fn search_leaf<L: Lanes, B: Block>(image: &Walked<'_>, leaf: Ref, blocks: u32, key: &Asked<B>) -> u32 {
    let answer = search_first::<L, B>(image, leaf, blocks, key);
    // How many blocks a leaf has is known before any of them has come, what they answer is not: no branch on that.
    if leaf.blocks() > blocks { search_rest::<L, B>(image, leaf, blocks, key, answer) } else { answer }
}

/// As [`search_leaf`], from block number `from` on, if those before gave `answer`.
#[inline(always)]
fn search_rest<L: Lanes, B: Block>(
    image: &Walked<'_>,
    leaf: Ref,
    from: u32,
    key: &Asked<B>,
    mut answer: u32,
) -> u32 {
    for index in from..leaf.blocks().min(FEW_BLOCKS) {
        let (next, _) = search_block::<L, B>(image, leaf, index, key);
        answer = select_unpredictable(answer == NONE, next, answer);
    }
    if leaf.blocks() > FEW_BLOCKS && answer == NONE {
        return search_on::<L, B>(image, leaf, FEW_BLOCKS, key);
    }
    answer
}

/// As [`search_leaf`], of one block or two; without a branch on what they hold.
#[inline(always)]
fn search_first<L: Lanes, B: Block>(image: &Walked<'_>, leaf: Ref, blocks: u32, key: &Asked<B>) -> u32 {
    let first: &B = image.block(leaf, 0);
    let in_first = key.matches::<L>(first);
    if blocks < 2 {
        return answer(first, in_first);
    }
    // The same one again where there is no second.
    let second: &B = image.block(leaf, u32::from(leaf.blocks() > 1));
    let matches = in_first | key.matches::<L>(second) << LANES;
    let block = select_unpredictable(in_first == 0, second, first);
    answer(block, matches)
}

/// The least answer of all trees that holds the point. Answers ascend with the order of rules if there are several.
///
/// The first `TREES` trees are walked side by side, so that they wait for memory at the same time.
#[inline(always)]
pub fn find<L: Lanes, B: Block, const TREES: usize>(
    lines: &[Line],
    addresses: u64,
    ports: u64,
    protocol: u32,
) -> u32 {
    let image = &Walked::new(lines);
    let key = Asked::<B>::new(image, Key::new(addresses, ports, protocol, image.squeezes()));
    let starts: [Start; TREES] = std::array::from_fn(|tree| image.start(tree));
    let mut at = starts.map(|start| start.root);
    for level in 0..starts.iter().map(|start| start.steps).max().unwrap_or_default() {
        for tree in 0..TREES {
            if level < starts[tree].steps {
                // Which word of the second line is read is known only when the first one has come.
                prefetch(&raw const image.node(at[tree])[1]);
                at[tree] = step_or_stay::<L>(image, at[tree], &key.key);
            }
        }
    }
    let mut best = NONE;
    for tree in 0..TREES {
        best = best.min(find_from::<L, B>(image, at[tree], starts[tree].blocks, &key));
    }
    for tree in TREES..image.trees() {
        let start = image.start(tree);
        if best <= start.least {
            break;
        }
        best = best.min(find_from::<L, B>(image, start.root, start.blocks, &key));
    }
    best
}

/// The answer of one tree, from a node or leaf on.
#[inline(always)]
fn find_from<L: Lanes, B: Block>(image: &Walked<'_>, at: Ref, blocks: u32, key: &Asked<B>) -> u32 {
    search_leaf::<L, B>(image, leaf_from::<L>(image, at, &key.key), blocks, key)
}

/// The leaf that a path comes to, from a node or leaf on.
#[inline(always)]
fn leaf_from<L: Lanes>(image: &Walked<'_>, mut at: Ref, key: &Key) -> Ref {
    while !at.is_leaf() {
        at = step::<L>(image, at, key);
    }
    at
}

/// [`find`] for each point.
#[inline(always)]
pub fn find_batch<L: Lanes, B: Block>(image: &Walked<'_>, points: &[Point], answers: &mut [u32]) {
    if image.trees() == 0 {
        return answers.fill(NONE);
    }
    let squeezes = image.squeezes();
    let mut keys = [Asked::<B>::NOTHING; GROUP];
    for (points, answers) in points.chunks(GROUP).zip(answers.chunks_mut(GROUP)) {
        for (key, point) in keys.iter_mut().zip(points) {
            *key = Asked::new(image, Key::of(point, squeezes));
        }
        let mut best = find_group::<L, B>(image, &image.start(0), &keys[..points.len()]);
        for tree in 1..image.trees() {
            let start = image.start(tree);
            let mut live = [Asked::<B>::NOTHING; GROUP];
            let (mut places, mut count) = ([0; GROUP], 0);
            for place in 0..points.len() {
                live[count] = keys[place];
                places[count] = place;
                count += usize::from(best[place] > start.least);
            }
            let found = find_group::<L, B>(image, &start, &live[..count]);
            for (&place, answer) in places[..count].iter().zip(found) {
                best[place] = best[place].min(answer);
            }
        }
        answers.copy_from_slice(&best[..answers.len()]);
    }
}

/// One tree for a group of packets, level by level.
#[inline(always)]
fn find_group<L: Lanes, B: Block>(image: &Walked<'_>, start: &Start, keys: &[Asked<B>]) -> [u32; GROUP] {
    if image.lines.len() > NEAR_LINES {
        find_group_in::<L, B, true>(image, start, keys)
    } else {
        find_group_in::<L, B, false>(image, start, keys)
    }
}

/// As [`find_group`]; an image that is `FAR` is asked for ahead.
#[inline(always)]
fn find_group_in<L: Lanes, B: Block, const FAR: bool>(
    image: &Walked<'_>,
    start: &Start,
    keys: &[Asked<B>],
) -> [u32; GROUP] {
    let blocks = start.blocks;
    let mut at = [start.root; GROUP];
    for left in (0..start.steps).rev() {
        for (at, key) in at.iter_mut().zip(keys) {
            *at = step_or_stay::<L>(image, *at, &key.key);
            match (left, blocks) {
                _ if !FAR => {}
                (0, 1) => image.ask_for(*at, B::LINES),
                (0, _) => image.ask_for(*at, 2 * B::LINES),
                _ => image.ask_for(*at, NODE_LINES),
            }
        }
    }
    // Beyond the packets there is nothing to go on for.
    let mut answers = [0; GROUP];
    for ((at, key), answer) in at.iter_mut().zip(keys).zip(&mut answers) {
        if !at.is_leaf() {
            *at = leaf_from::<L>(image, *at, &key.key);
        }
        *answer = search_first::<L, B>(image, *at, start.blocks, key);
    }
    let mut left = unanswered(&at, &answers, blocks);
    for index in blocks.. {
        if left == 0 {
            break;
        }
        if FAR {
            Places(left).for_each(|place| image.ask_for_block::<B>(at[place], index));
        }
        for place in Places(std::mem::take(&mut left)) {
            let (answer, is_last) = search_block::<L, B>(image, at[place], index, &keys[place]);
            answers[place] = answer;
            left |= u32::from(answer == NONE && !is_last) << place;
        }
    }
    answers
}

/// The packets, as bits, that have no answer yet in leaves of more blocks than have been searched.
#[inline(always)]
fn unanswered(leaves: &[Ref; GROUP], answers: &[u32; GROUP], searched: u32) -> u32 {
    let goes_on = |place: usize| (answers[place] == NONE) & (leaves[place].blocks() > searched);
    (0..GROUP).fold(0, |bits, place| bits | u32::from(goes_on(place)) << place)
}

/// Places of a group, each of which is a bit.
struct Places(u32);

impl Iterator for Places {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let place = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (place < GROUP).then_some(place)
    }
}
