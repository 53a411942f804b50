//! Grows one tree: cuts a box where it divides its rules best, down to leaves of few rules.
//!
//! Never exponential: each box has an allowance of bytes that covers its rules as one leaf; it is cut only where the
//! allowance also covers the parts, and what is spare is shared out among them.

use rustc_hash::FxHashMap;

use super::NONE;
use super::cut::{Cut, Part, Spans};
use super::image::{Form, LANES, Line, MANY_BLOCKS, NODE_BYTES, NODE_LINES, Ref, node};
use super::rules::{Bounds, NO_PORT, PORTS, Rule, Rules};
use super::walk::Start;

/// No path is longer, whatever the rules; two more where a port dimension cannot be squeezed.
const MOST_STEPS: usize = 24;
/// Lists up to this length are searched for rules that others hide.
const SEARCHED_FOR_HIDDEN: usize = 48;
/// A walk takes no steps more for all packets where fewer than one part in so many of the rules need them.
const UNCOVERED_DEPTHS: usize = 10;
/// As for steps, for the second block of a leaf.
const UNCOVERED_LENGTHS: usize = 4;

/// Nodes and leaves as they grow; references count lines from the start of `nodes` and of `blocks`.
#[derive(Debug)]
pub struct Builder<'a> {
    all: &'a Rules,
    /// What a match of each rank answers.
    answers: &'a [u32],
    /// Longest list that is not cut any more.
    leaf: usize,
    /// Growing ends when more rules are [`crowded`](Self::crowded).
    patience: usize,
    pub nodes: Vec<[Line; NODE_LINES]>,
    pub blocks: Vec<Line>,
    leaves: FxHashMap<Box<[u32]>, Ref>,
    /// Rules in leaves that the allowance left longer than wanted.
    pub crowded: usize,
    /// Rules in leaves by the nodes before them, of the tree that grows.
    depths: [usize; MOST_STEPS + 3],
    /// Rules in leaves by their blocks, one, two, or more.
    lengths: [usize; 3],
    /// Nodes of the longest path.
    pub steps: usize,
    /// Room that is used again and again.
    spans: Spans,
}

impl<'a> Builder<'a> {
    pub fn new(all: &'a Rules, answers: &'a [u32], leaf: usize, patience: usize) -> Self {
        Self {
            all,
            answers,
            leaf,
            patience,
            nodes: Vec::new(),
            blocks: Vec::new(),
            leaves: FxHashMap::default(),
            crowded: 0,
            depths: [0; MOST_STEPS + 3],
            lengths: [0; 3],
            steps: 0,
            spans: Spans::default(),
        }
    }

    /// Bytes of all that has grown.
    pub fn bytes(&self) -> usize {
        self.nodes.len() * NODE_BYTES + self.blocks.len() * size_of::<Line>()
    }

    fn form(&self) -> Form {
        self.all.form
    }

    /// Leaves that differ.
    pub fn leaf_count(&self) -> usize {
        self.leaves.len()
    }

    /// A tree over the rules in `list`, ascending. It takes at most `allowance` bytes, or what one leaf takes (up
    /// to four, where port dimensions cannot be squeezed).
    pub fn tree(&mut self, list: Vec<u32>, allowance: usize) -> Option<Start> {
        let least = list.iter().map(|&rule| self.answers[self.all.list[rule as usize].rank as usize]).min();
        self.depths.fill(0);
        self.lengths.fill(0);
        let root = self.grow(list, &self.all.bounds, allowance, 0)?;
        let steps = covering(&self.depths, UNCOVERED_DEPTHS);
        let blocks = 1 + covering(&self.lengths, UNCOVERED_LENGTHS).min(1);
        Some(Start { root, least: least.unwrap_or(NONE), steps, blocks })
    }

    fn grow(&mut self, mut list: Vec<u32>, bounds: &Bounds, allowance: usize, depth: usize) -> Option<Ref> {
        self.steps = self.steps.max(depth);
        let marker = marker_cut(bounds);
        let is_forced = marker.is_some();
        if let Some(cut) = &marker {
            self.spans.fill(cut, &self.all.list, list.iter());
        }
        let cut = marker.or_else(|| self.chosen_cut(&mut list, bounds, depth));
        let Some(cut) = cut else { return Some(self.leaf(&list, depth)) };
        let (parts, order) = cut.divide(&list, bounds, &self.spans);
        let least =
            NODE_BYTES + parts.iter().map(|part| self.form().leaf_bytes(part.list.len())).sum::<usize>();
        if least > allowance && !is_forced {
            self.crowded += list.len();
            return (self.crowded <= self.patience).then(|| self.leaf(&list, depth));
        }
        drop(list);
        let index = self.nodes.len();
        self.nodes.push([Line([0; 16]); NODE_LINES]);
        let grown = self.children(parts, bounds, &cut, allowance.saturating_sub(least), depth + 1)?;
        let children: Vec<_> = order.into_iter().map(|part| grown[part]).collect();
        self.nodes[index] = node(cut.dimension, &cut.cuts, &children);
        Some(Ref::node(cut.dimension, index * NODE_LINES))
    }

    /// The cut to make, unless the list, after what is hidden has been dropped, is to be a leaf.
    fn chosen_cut(&mut self, list: &mut Vec<u32>, bounds: &Bounds, depth: usize) -> Option<Cut> {
        self.drop_hidden(list, bounds);
        let is_leaf = list.len() <= self.leaf || depth >= MOST_STEPS;
        if is_leaf { None } else { Cut::best(&self.all.list, list, bounds, &mut self.spans) }
    }

    /// Grows the parts of a cut; what one leaves of the spare bytes is for the next.
    fn children(
        &mut self,
        parts: Vec<Part>,
        bounds: &Bounds,
        cut: &Cut,
        mut spare: usize,
        depth: usize,
    ) -> Option<Vec<Ref>> {
        let weight = |part: &Part| if part.list.len() <= self.leaf { 0 } else { part.list.len() };
        let mut weight_left: usize = parts.iter().map(weight).sum();
        let mut children = Vec::with_capacity(parts.len());
        for part in parts {
            let weight = if part.list.len() <= self.leaf { 0 } else { part.list.len() };
            let own = self.form().leaf_bytes(part.list.len());
            let extra = if weight == 0 { 0 } else { share(spare, weight, weight_left) };
            weight_left -= weight;
            let mut inner = *bounds;
            inner.low[cut.dimension] = part.low;
            inner.high[cut.dimension] = part.high;
            let before = self.bytes();
            children.push(self.grow(part.list, &inner, own + extra, depth)?);
            spare = (spare + own).saturating_sub(self.bytes() - before);
        }
        Some(children)
    }

    /// Leaves out rules that can win nowhere in these bounds.
    fn drop_hidden(&self, list: &mut Vec<u32>, bounds: &Bounds) {
        let rules = &self.all.list;
        if let Some(last) = list.iter().position(|&rule| bounds.is_inside(&rules[rule as usize])) {
            list.truncate(last + 1);
        }
        if list.len() > SEARCHED_FOR_HIDDEN {
            return;
        }
        let mut kept: Vec<u32> = Vec::with_capacity(list.len());
        for &rule in list.iter() {
            let inner = &rules[rule as usize];
            if !kept.iter().any(|&outer| bounds.hides(&rules[outer as usize], inner)) {
                kept.push(rule);
            }
        }
        *list = kept;
    }

    /// The leaf with these rules; equal ones are one.
    fn leaf(&mut self, list: &[u32], depth: usize) -> Ref {
        self.depths[depth] += list.len();
        self.lengths[(list.len().max(1) - 1).min(2 * LANES) / LANES] += list.len();
        if let Some(&leaf) = self.leaves.get(list) {
            return leaf;
        }
        let first = self.blocks.len();
        let lane = |&rule: &u32| {
            let rule: &Rule = &self.all.list[rule as usize];
            (rule, self.answers[rule.rank as usize])
        };
        let form = self.form();
        for lanes in list.chunks(LANES) {
            form.push(&mut self.blocks, lanes.iter().map(lane));
        }
        let mut count = list.len().div_ceil(LANES);
        if count == 0 || count >= MANY_BLOCKS as usize && list.len().is_multiple_of(LANES) {
            form.push(&mut self.blocks, std::iter::empty());
            count += 1;
        }
        let leaf = Ref::leaf(count, first);
        self.leaves.insert(list.into(), leaf);
        leaf
    }
}

/// Packets without a port are set apart first in a port dimension that could not be squeezed.
fn marker_cut(bounds: &Bounds) -> Option<Cut> {
    let reaches = |&dimension: &usize| bounds.low[dimension] < NO_PORT && bounds.high[dimension] == NO_PORT;
    PORTS.into_iter().find(reaches).map(|dimension| Cut { dimension, cuts: vec![NO_PORT] })
}

/// The part of `spare` that goes with a weight.
fn share(spare: usize, weight: usize, total: usize) -> usize {
    let part = spare as u128 * weight as u128 / total as u128;
    usize::try_from(part).expect("a part is no more than the whole")
}

/// The first index up to which there is nearly all, but for one part in `uncovered`; the last one otherwise.
fn covering(counts: &[usize], uncovered: usize) -> u32 {
    let all: usize = counts.iter().sum();
    let mut left = all;
    let mut covers = |&count: &usize| {
        left -= count;
        left * uncovered <= all
    };
    let index = counts.iter().position(&mut covers).unwrap_or_default();
    u32::try_from(index).expect("few counts")
}
