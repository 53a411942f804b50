//! Where to cut a box.

use std::sync::LazyLock;

use super::DIMENSIONS;
use super::image::{FAN_OUT, LANES};
use super::rules::{Bounds, Rule};

/// Rules of a list that stand for all.
const SAMPLE: usize = 4096;
/// What a copy of a rule costs, in halvings of a rule's list.
const COPY: f64 = 0.2;
/// A cut must leave no more than this part of the work.
const WORTHWHILE: f64 = 0.98;

/// Values at which the next child begins, ascending, in one dimension.
#[derive(Debug)]
pub struct Cut {
    pub dimension: usize,
    pub cuts: Vec<u32>,
}

/// Rules of one or several children that have the same ones, and the hull of these children.
#[derive(Debug)]
pub struct Part {
    pub list: Vec<u32>,
    pub low: u32,
    pub high: u32,
}

/// First and last child that each rule of a list reaches into.
#[derive(Debug, Default)]
pub struct Spans {
    of_rules: Vec<(u8, u8)>,
    begin: [usize; FAN_OUT],
    end: [usize; FAN_OUT],
}

impl Cut {
    /// The cut that leaves the least work below it, and its spans; `None` where no cut divides the rules.
    pub fn best(rules: &[Rule], list: &[u32], bounds: &Bounds, spans: &mut Spans) -> Option<Self> {
        let stride = list.len().div_ceil(SAMPLE);
        let sample = || list.iter().step_by(stride);
        let most = work(list.len()) * count(sample().len()) * WORTHWHILE;
        let mut best: Option<(f64, Self)> = None;
        for dimension in 0..DIMENSIONS {
            let cuts = quantiles(sample().map(|&rule| &rules[rule as usize]), bounds, dimension);
            if cuts.is_empty() {
                continue;
            }
            let cut = Self { dimension, cuts };
            spans.fill(&cut, rules, sample());
            let [work, copies] = spans.cost(cut.cuts.len() + 1, stride);
            let cost = work + COPY * copies;
            if work < most && best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, cut));
            }
        }
        let (_, mut cut) = best?;
        spans.fill(&cut, rules, list.iter());
        spans.merge(&mut cut.cuts);
        Some(cut)
    }

    /// The parts, and of each child the part that it is; with the spans of this cut.
    pub fn divide(&self, list: &[u32], bounds: &Bounds, spans: &Spans) -> (Vec<Part>, Vec<usize>) {
        let mut lists: Vec<_> = spans.sizes().take(self.cuts.len() + 1).map(Vec::with_capacity).collect();
        for (&index, &(from, to)) in list.iter().zip(&spans.of_rules) {
            lists[usize::from(from)..=usize::from(to)].iter_mut().for_each(|child| child.push(index));
        }
        let mut parts: Vec<Part> = Vec::with_capacity(lists.len());
        let mut order = Vec::with_capacity(lists.len());
        for (child, list) in lists.into_iter().enumerate() {
            let low = if child == 0 { bounds.low[self.dimension] } else { self.cuts[child - 1] };
            let high = self.cuts.get(child).map_or(bounds.high[self.dimension], |next| next - 1);
            if let Some(same) = parts.iter().position(|part| part.list == list) {
                parts[same].high = high;
                order.push(same);
            } else {
                order.push(parts.len());
                parts.push(Part { list, low, high });
            }
        }
        (parts, order)
    }
}

impl Spans {
    /// Those of a cut.
    pub fn fill<'a>(&mut self, cut: &Cut, rules: &[Rule], list: impl Iterator<Item = &'a u32>) {
        let mut before = [u32::MAX; FAN_OUT];
        for (before, &cut) in before.iter_mut().zip(&cut.cuts) {
            *before = cut - 1;
        }
        // Counted, not searched: a search would branch.
        let child = |value: u32| before.iter().map(|&before| u8::from(before < value)).sum::<u8>();
        (self.begin, self.end) = ([0; FAN_OUT], [0; FAN_OUT]);
        self.of_rules.clear();
        for &index in list {
            let rule = &rules[index as usize];
            let span = (child(rule.low[cut.dimension]), child(rule.high[cut.dimension]));
            self.begin[usize::from(span.0) & (FAN_OUT - 1)] += 1;
            self.end[usize::from(span.1) & (FAN_OUT - 1)] += 1;
            self.of_rules.push(span);
        }
    }

    /// Leaves out the cuts between children that fit into one block together: fewer and fuller leaves.
    fn merge(&mut self, cuts: &mut Vec<u32>) {
        let (begin, end) = (std::mem::take(&mut self.begin), std::mem::take(&mut self.end));
        let mut merged = [0_u8; FAN_OUT];
        let (mut last, mut size) = (0, begin[0]);
        (self.begin[0], self.end[0]) = (begin[0], end[0]);
        for child in 1..=cuts.len() {
            if size + begin[child] <= LANES {
                size += begin[child];
            } else {
                cuts[last] = cuts[child - 1];
                size = size - self.end[last] + begin[child];
                last += 1;
            }
            self.begin[last] += begin[child];
            self.end[last] += end[child];
            merged[child] = u8::try_from(last).expect("few children");
        }
        cuts.truncate(last);
        for (from, to) in &mut self.of_rules {
            (*from, *to) = (merged[usize::from(*from)], merged[usize::from(*to)]);
        }
    }

    /// Rules of each child.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        let mut inside = 0;
        self.begin.iter().zip(self.end).map(move |(begin, end)| {
            inside += begin;
            let size = inside;
            inside -= end;
            size
        })
    }

    /// Estimated work below a cut, for each rule that of its children on average; and copies of rules. Each rule stands
    /// for `stride` rules.
    fn cost(&self, children: usize, stride: usize) -> [f64; 2] {
        let mut before = [0.0; FAN_OUT + 1];
        for (child, size) in self.sizes().take(children).enumerate() {
            before[child + 1] = before[child] + work(size * stride);
        }
        let mut cost = [0.0; 2];
        for &(from, to) in &self.of_rules {
            let children = f64::from(to - from + 1);
            cost[0] += (before[usize::from(to) + 1] - before[usize::from(from)]) / children;
            cost[1] += children - 1.0;
        }
        cost
    }
}

/// What it takes to find a rule in a list of so many: its blocks are few, or it is halved again and again.
fn work(rules: usize) -> f64 {
    /// Of short lists, which most are.
    static SHORT: LazyLock<Vec<f64>> = LazyLock::new(|| (0..1 << 10).map(logarithm).collect());

    fn logarithm(rules: usize) -> f64 {
        1.0 + (count(rules) + 1.0).log2()
    }

    SHORT.get(rules).copied().unwrap_or_else(|| logarithm(rules))
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn count(rules: usize) -> f64 {
    rules as f64
}

/// At most 15 values that part the edges of the rules evenly; all edges where there are no more.
fn quantiles<'a>(rules: impl Iterator<Item = &'a Rule>, bounds: &Bounds, dimension: usize) -> Vec<u32> {
    let mut edges = Vec::with_capacity(2 * SAMPLE);
    for rule in rules {
        if rule.low[dimension] > bounds.low[dimension] {
            edges.push(rule.low[dimension]);
        }
        if rule.high[dimension] < bounds.high[dimension] {
            edges.push(rule.high[dimension] + 1);
        }
    }
    edges.sort_unstable();
    let mut distinct: Vec<u32> = Vec::with_capacity(FAN_OUT);
    for &edge in &edges {
        if distinct.last() != Some(&edge) {
            distinct.push(edge);
            if distinct.len() == FAN_OUT {
                break;
            }
        }
    }
    if distinct.len() < FAN_OUT {
        return distinct;
    }
    let mut cuts: Vec<_> = (1..FAN_OUT).map(|part| edges[part * edges.len() / FAN_OUT]).collect();
    cuts.dedup();
    cuts
}
