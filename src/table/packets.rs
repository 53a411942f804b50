//! Packets of one queue, a batch at a time: what the packet loop asks.

use std::array;

use super::batch::{Block, STAGE};
use super::engines::{Packet, Seen};
use super::{DecisionTable, hooks};
use crate::flow::{FlowKey, Hook, OutcomeId, Verdict};

/// Below a whole stage, packets still wait for memory together in parts of so many.
const PART: usize = 8;

/// What a hook answers to one packet of a batch: those fields of [`Decision`](super::Decision) that a verdict needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchDecision {
    /// The hook's answer.
    pub verdict: Verdict,
    /// Accept mark after our last rule of this hook (E-48).
    pub accepted: bool,
    /// Leads to tier, policy and rule ([`DecisionTable::meaning`]).
    pub outcome: OutcomeId,
}

impl DecisionTable {
    /// Answers packets of one hook and IP version, in order and as [`decide`](Self::decide) does. `decisions` has
    /// what is there replaced; within its capacity nothing is allocated.
    pub fn decide_packets(&self, keys: &[FlowKey], decisions: &mut Vec<BatchDecision>) {
        decisions.clear();
        let (stages, rest) = keys.as_chunks::<STAGE>();
        for keys in stages {
            decisions.extend(self.decide_part(keys));
        }
        let (parts, rest) = rest.as_chunks::<PART>();
        for keys in parts {
            decisions.extend(self.decide_part(keys));
        }
        for key in rest {
            decisions.extend(self.decide_part(array::from_ref(key)));
        }
    }

    fn decide_part<const N: usize>(&self, keys: &[FlowKey; N]) -> [BatchDecision; N] {
        if N == 1 {
            return keys.each_ref().map(|key| self.decide_one(key, Seen::NOTHING));
        }
        let block = Block::of_keys(keys);
        let (mut verdicts, mut outcomes) = ([0; N], [0; N]);
        if self.lone_block(&block, &mut verdicts, &mut outcomes).is_some() {
            let is_forward = keys[0].hook == Hook::FilterForward;
            return array::from_fn(|index| {
                let verdict = Verdict::ALL[usize::from(verdicts[index])];
                // As in `hooks::evaluate`: an allow sets the mark in FORWARD, and none has it on arrival.
                let accepted = is_forward && verdict == Verdict::Allow;
                BatchDecision { verdict, accepted, outcome: OutcomeId::from_number(outcomes[index]) }
            });
        }
        let tree = self.tree_block(&block);
        array::from_fn(|index| {
            let seen =
                tree.as_ref().map_or(Seen::NOTHING, |(chain, answers)| Seen::of_tree(*chain, answers[index]));
            self.decide_one(&keys[index], seen)
        })
    }

    #[inline]
    fn decide_one(&self, key: &FlowKey, seen: Seen) -> BatchDecision {
        let decision = hooks::evaluate(self, key, &Packet::of(&key.tuple), seen, &mut ());
        BatchDecision { verdict: decision.verdict, accepted: decision.accepted, outcome: decision.outcome }
    }
}
