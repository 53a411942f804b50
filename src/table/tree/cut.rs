//! Where to cut a box.

use super::DIMENSIONS;
use super::image::FAN_OUT;
use super::rules::{Bounds, Rule};

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

impl Cut {
    /// The cut that leaves the least work below it; `None` where no cut divides the rules.
    pub fn best(rules: &[Rule], list: &[u32], bounds: &Bounds) -> Option<Self> {
        let mut best: Option<(f64, Self)> = None;
        for dimension in 0..DIMENSIONS {
            let cuts = quantiles(rules, list, bounds, dimension);
            if cuts.is_empty() {
                continue;
            }
            let cut = Self { dimension, cuts };
            let Some(cost) = cut.cost(rules, list) else { continue };
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, cut));
            }
        }
        best.map(|(_, cut)| cut)
    }

    /// First and last child that a rule reaches into.
    fn children(&self, rule: &Rule) -> (usize, usize) {
        let child = |value| self.cuts.partition_point(|&cut| cut <= value);
        (child(rule.low[self.dimension]), child(rule.high[self.dimension]))
    }

    /// Rules of each child.
    fn sizes(&self, rules: &[Rule], list: &[u32]) -> Vec<usize> {
        let mut begin = [0_usize; FAN_OUT];
        let mut end = [0_usize; FAN_OUT];
        for &index in list {
            let (from, to) = self.children(&rules[index as usize]);
            begin[from] += 1;
            end[to] += 1;
        }
        let mut inside = 0;
        let sizes = (0..=self.cuts.len()).map(|child| {
            inside += begin[child];
            let size = inside;
            inside -= end[child];
            size
        });
        sizes.collect()
    }

    /// Estimated work below this cut; `None` where a child keeps all rules and the others save too little.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn cost(&self, rules: &[Rule], list: &[u32]) -> Option<f64> {
        let work = |rules: f64| rules * (1.0 + (rules + 1.0).log2());
        let sizes = self.sizes(rules, list);
        let largest = *sizes.iter().max()?;
        let sum: f64 = sizes.iter().map(|&size| work(size as f64)).sum::<f64>() + 0.5 * work(largest as f64);
        let whole = work(list.len() as f64) * sizes.len() as f64;
        (largest < list.len() || sum <= 1.2 * whole).then_some(sum)
    }

    /// The parts, and of each child the part that it is.
    pub fn divide(&self, rules: &[Rule], list: &[u32], bounds: &Bounds) -> (Vec<Part>, Vec<usize>) {
        let mut lists: Vec<_> = self.sizes(rules, list).into_iter().map(Vec::with_capacity).collect();
        for &index in list {
            let (from, to) = self.children(&rules[index as usize]);
            lists[from..=to].iter_mut().for_each(|child| child.push(index));
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

/// At most 15 values that part the edges of the rules evenly; all edges where there are no more.
fn quantiles(rules: &[Rule], list: &[u32], bounds: &Bounds, dimension: usize) -> Vec<u32> {
    let mut edges = Vec::new();
    for rule in list.iter().map(|&rule| &rules[rule as usize]) {
        if rule.low[dimension] > bounds.low[dimension] {
            edges.push(rule.low[dimension]);
        }
        if rule.high[dimension] < bounds.high[dimension] {
            edges.push(rule.high[dimension] + 1);
        }
    }
    edges.sort_unstable();
    let mut distinct = edges.clone();
    distinct.dedup();
    if distinct.len() < FAN_OUT {
        return distinct;
    }
    let mut cuts: Vec<_> = (1..FAN_OUT).map(|part| edges[part * edges.len() / FAN_OUT]).collect();
    cuts.dedup();
    cuts
}
