//! Packets of one queue, a batch at a time: what the packet loop asks.

use super::batch::{Block, STAGE};
use super::{Decision, DecisionTable, Step, Trace, hooks};
use crate::flow::{FlowKey, OutcomeId};

/// Below a whole stage, packets still wait for memory together in parts of so many.
const PART: usize = 8;
/// Steps of one packet that do not decide: three chains of FORWARD, and what its end is taken for (E-27).
const MOST_PASSED: usize = 4;

/// What a packet met without being decided by it: an earlier chain that let it through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The packet's place in its batch.
    pub packet: usize,
    /// As that of a [`Decision`].
    pub outcome: OutcomeId,
}

/// Notes what the packets of a batch passed, in their order.
#[derive(Debug)]
pub struct Passing {
    passed: Vec<Passed>,
    packet: usize,
    /// Decides, unless another step follows.
    last: Option<OutcomeId>,
}

impl Passing {
    /// For batches of so many packets: within them nothing is allocated.
    pub fn with_capacity(packets: usize) -> Self {
        Self { passed: Vec::with_capacity(packets * MOST_PASSED), packet: 0, last: None }
    }

    /// Of the batch that was decided last.
    pub fn passed(&self) -> &[Passed] {
        &self.passed
    }
}

impl Trace for Passing {
    const IS_SILENT: bool = true;

    #[inline]
    fn packet(&mut self, place: usize) {
        (self.packet, self.last) = (place, None);
    }

    #[inline]
    fn step(&mut self, step: Step) {
        if let Some(outcome) = self.last.replace(step.outcome) {
            self.passed.push(Passed { packet: self.packet, outcome });
        }
    }
}

impl DecisionTable {
    /// Answers packets of one hook and IP version, in order and as [`decide`](Self::decide) does. `decisions` and
    /// `passing` have what is there replaced; within their capacities nothing is allocated.
    pub fn decide_packets(&self, keys: &[FlowKey], decisions: &mut Vec<Decision>, passing: &mut Passing) {
        decisions.clear();
        passing.passed.clear();
        let (stages, rest) = keys.as_chunks::<STAGE>();
        for keys in stages {
            decisions.extend(self.decisions(&Block::of_keys(keys), decisions.len(), passing));
        }
        let (parts, rest) = rest.as_chunks::<PART>();
        for keys in parts {
            decisions.extend(self.decisions(&Block::of_keys(keys), decisions.len(), passing));
        }
        for key in rest {
            passing.packet(decisions.len());
            decisions.push(hooks::decide(self, key, None, passing));
        }
    }
}
