//! Packets of one queue, a batch at a time: what the packet loop asks.

use std::array;

use super::batch::{Block, STAGE};
use super::{Decision, DecisionTable, hooks};
use crate::flow::{FlowKey, Hook, OutcomeId, Verdict};

/// Below a whole stage, packets still wait for memory together in parts of so many.
const PART: usize = 8;

impl DecisionTable {
    /// Answers packets of one hook and IP version, in order and as [`decide`](Self::decide) does. `decisions` has
    /// what is there replaced; within its capacity nothing is allocated.
    pub fn decide_packets(&self, keys: &[FlowKey], decisions: &mut Vec<Decision>) {
        decisions.clear();
        let (stages, rest) = keys.as_chunks::<STAGE>();
        for keys in stages {
            decisions.extend(self.decide_part(keys));
        }
        let (parts, rest) = rest.as_chunks::<PART>();
        for keys in parts {
            decisions.extend(self.decide_part(keys));
        }
        decisions.extend(rest.iter().map(|key| self.decide(key)));
    }

    fn decide_part<const N: usize>(&self, keys: &[FlowKey; N]) -> [Decision; N] {
        let block = Block::of_keys(keys);
        let (mut verdicts, mut outcomes) = ([0; N], [0; N]);
        if self.lone_block(&block, &mut verdicts, &mut outcomes).is_some() {
            let is_forward = keys[0].hook == Hook::FilterForward;
            return array::from_fn(|index| {
                let verdict = Verdict::ALL[usize::from(verdicts[index])];
                // No failsafe settled it; none has the mark on arrival, and an allow sets it in FORWARD.
                let accepted = is_forward && verdict == Verdict::Allow;
                Decision {
                    verdict,
                    failsafe: false,
                    accepted,
                    outcome: OutcomeId::from_number(outcomes[index]),
                }
            });
        }
        let tree = self.tree_block(&block);
        array::from_fn(|index| {
            let tree = tree.as_ref().map(|(chain, answers)| (*chain, answers[index]));
            hooks::decide(self, &keys[index], tree)
        })
    }
}
