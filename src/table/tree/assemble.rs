//! From rules to an image: one way of grouping them into trees, and the trees laid out behind a header.

use super::build::Builder;
use super::image::{Form, Image, Line, NODE_BYTES, NODE_LINES, Ref};
use super::rules::Rules;
use super::services::Services;
use super::simd;
use super::walk::Start;
use super::{Error, Limits, Shape, TREES_PER_LINE, Tree, VERSION};

const WORDS: usize = 16;
/// No more than one rule in so many may need other trees than those that are always walked.
const UNSETTLED: usize = 8;

/// All trees of a partition, not yet laid out.
pub struct Grown {
    nodes: Vec<[Line; NODE_LINES]>,
    blocks: Vec<Line>,
    form: Form,
    /// Lines of what tells services apart.
    services: usize,
    starts: Vec<Start>,
    /// See [`first_trees`].
    first: usize,
    is_ranked: bool,
    values: usize,
    leaves: usize,
    steps: usize,
    /// Rules in leaves that the budget left longer than wanted.
    pub crowded: usize,
}

impl Grown {
    /// Grows a tree of each group. They keep to the budget if plain lists do. `None` as soon as more rules than
    /// `patience` are in leaves that the budget left longer than wanted.
    pub fn new(all: &Rules, groups: Vec<Vec<u32>>, limits: &Limits, patience: usize) -> Option<Self> {
        let is_ranked = all.must_rank(groups.len());
        let ranks: Vec<u32> = (0..).take(all.values.len()).collect();
        let answers = if is_ranked { &ranks } else { &all.values };
        let lists: usize = groups.iter().map(|group| all.form.leaf_bytes(group.len())).sum();
        let services = all.services.as_ref().map_or(0, Services::lines);
        let around = overhead(groups.len(), if is_ranked { all.values.len() } else { 0 }, services);
        // Shorter blocks are for less memory, not for more copies of rules.
        let allowed = limits.bytes.saturating_sub(around) / Form::Ranges.lines() * all.form.lines();
        let mut spare = allowed.saturating_sub(lists);
        let mut rules_left = all.list.len();
        let mut builder = Builder::new(all, answers, limits.leaf, patience);
        let mut starts = Vec::new();
        for group in groups {
            let own = all.form.leaf_bytes(group.len());
            let extra = spare / rules_left * group.len();
            rules_left -= group.len();
            let before = builder.bytes();
            let start = builder.tree(group, own + extra)?;
            spare = (spare + own).saturating_sub(builder.bytes() - before);
            starts.push(start);
        }
        starts.sort_by_key(|start| start.least);
        Some(Self {
            first: first_trees(all, answers, &starts),
            starts,
            is_ranked,
            values: all.values.len(),
            leaves: builder.leaf_count(),
            steps: builder.steps,
            crowded: builder.crowded,
            nodes: builder.nodes,
            blocks: builder.blocks,
            form: all.form,
            services,
        })
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> usize {
        overhead(self.starts.len(), if self.is_ranked { self.values } else { 0 }, self.services)
            + self.nodes.len() * NODE_BYTES
            + self.blocks.len() * size_of::<Line>()
    }

    /// The image.
    #[expect(clippy::cast_possible_truncation, reason = "the image has at most 2^26 lines")]
    pub fn assemble(self, all: &Rules) -> Result<Tree, Error> {
        let head = (1 + self.starts.len().div_ceil(TREES_PER_LINE)).next_multiple_of(NODE_LINES);
        let first_block = head + self.nodes.len() * NODE_LINES;
        let first_value = first_block + self.blocks.len();
        let moved = |at: Ref| Ref(at.0 + if at.is_leaf() { first_block } else { head } as u32);
        let values = if self.is_ranked { all.values.len().div_ceil(WORDS) } else { 0 };
        let first_service = first_value + values;
        let mut whole =
            Image::zeroed(first_service + self.services).map_err(|error| Error::memory(&error))?;
        let image = whole.lines_mut();
        let squeezes = all.squeezes.map(|squeeze| squeeze.from);
        let trees = self.starts.len() as u32;
        image[0].0[..8].copy_from_slice(&[
            VERSION,
            trees,
            squeezes[0],
            squeezes[1],
            self.is_ranked.into(),
            first_value as u32,
            self.first as u32,
            self.form.lines() as u32,
        ]);
        for (index, start) in self.starts.iter().enumerate() {
            let words = &mut image[1 + index / TREES_PER_LINE].0[index % TREES_PER_LINE * 4..];
            words[..4].copy_from_slice(&[moved(start.root).0, start.least, start.steps, start.blocks]);
        }
        for (lines, node) in image[head..].chunks_exact_mut(NODE_LINES).zip(&self.nodes) {
            lines.copy_from_slice(&[node[0], Line(node[1].0.map(|child| moved(Ref(child)).0))]);
        }
        image[first_block..first_value].copy_from_slice(&self.blocks);
        if self.is_ranked {
            let words: &mut [u32] = bytemuck::cast_slice_mut(&mut image[first_value..]);
            words[..all.values.len()].copy_from_slice(&all.values);
        }
        let mut next = first_service;
        for (index, kinds) in all.services.iter().flat_map(|services| &services.0).enumerate() {
            image[0].0[8 + 2 * index] = next as u32;
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut image[next..]);
            bytes[..kinds.of.len()].copy_from_slice(&kinds.of);
            next += kinds.of.len().div_ceil(size_of::<Line>());
            image[0].0[9 + 2 * index] = next as u32;
            image[next..][..kinds.outside.len()].copy_from_slice(&kinds.outside);
            next += kinds.outside.len();
        }
        let shape = Shape {
            trees: self.starts.len(),
            nodes: self.nodes.len(),
            leaves: self.leaves,
            blocks: self.blocks.len() / self.form.lines(),
            depth: self.steps,
        };
        let ranked = self.is_ranked.then_some(first_value as u32);
        Ok(Tree { image: whole, ranked, shape, paths: simd::paths(self.form, self.first) })
    }
}

/// Bytes of an image beside nodes and blocks.
fn overhead(trees: usize, values: usize, services: usize) -> usize {
    let head = (1 + trees.div_ceil(TREES_PER_LINE)).next_multiple_of(NODE_LINES);
    let lines = head + values.div_ceil(WORDS) + services;
    lines * size_of::<Line>()
}

/// How many of the trees, that with the least answer first, settle what most rules answer: the others are walked only
/// where those leave a lower answer possible.
fn first_trees(all: &Rules, answers: &[u32], starts: &[Start]) -> usize {
    let is_settled = |next: &Start| {
        let later = all.list.iter().filter(|rule| answers[rule.rank as usize] >= next.least).count();
        later * UNSETTLED <= all.list.len()
    };
    (1..starts.len()).find(|&trees| is_settled(&starts[trees])).unwrap_or(starts.len())
}
