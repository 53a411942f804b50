//! Packets of one queue, a batch at a time: what the packet loop asks.

use super::batch::{Block, STAGE};
use super::{Decision, DecisionTable};
use crate::flow::FlowKey;

/// Below a whole stage, packets still wait for memory together in parts of so many.
const PART: usize = 8;

impl DecisionTable {
    /// Answers packets of one hook and IP version, in order and as [`decide`](Self::decide) does. `decisions` has
    /// what is there replaced; within its capacity nothing is allocated.
    pub fn decide_packets(&self, keys: &[FlowKey], decisions: &mut Vec<Decision>) {
        decisions.clear();
        let (stages, rest) = keys.as_chunks::<STAGE>();
        for keys in stages {
            decisions.extend(self.decisions(&Block::of_keys(keys)));
        }
        let (parts, rest) = rest.as_chunks::<PART>();
        for keys in parts {
            decisions.extend(self.decisions(&Block::of_keys(keys)));
        }
        decisions.extend(rest.iter().map(|key| self.decide(key)));
    }
}
