//! Packets of one queue, a batch at a time: what the packet loop asks.

use super::batch::STAGE;
use super::block::Columns;
use super::{Decision, DecisionTable, Step, Trace, short};
use crate::flow::{FlowKey, OutcomeId};

/// Below a whole stage, packets still wait for memory together in parts of so many.
const PART: usize = 8;
/// Steps of one packet that do not decide: three chains of FORWARD, and what its end is taken for (E-27).
const MOST_PASSED: usize = 4;

/// What a packet met without being decided by it: a chain that let it through, or a Pass or Log rule that the outcome of
/// its chain does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The packet's place in its batch.
    pub packet: usize,
    /// As that of a [`Decision`].
    pub outcome: OutcomeId,
    /// The step that it belongs to, counted from 0: chains, and what settles a packet beside them.
    pub step: usize,
}

/// Notes what the packets of a batch passed.
#[derive(Debug)]
pub struct Passing {
    passed: Vec<Passed>,
    packet: usize,
    steps: usize,
    /// Decides, unless another step follows.
    last: Option<OutcomeId>,
    /// Rules that packets pass if they meet the chain that was asked ahead.
    ahead: Vec<(usize, OutcomeId)>,
}

impl Passing {
    /// For batches of so many packets: within them nothing is allocated, unless packets pass more Pass and Log rules of
    /// `tree` and `linear` than any before.
    pub fn with_capacity(packets: usize) -> Self {
        let (passed, ahead) = (Vec::with_capacity(packets * MOST_PASSED), Vec::with_capacity(packets));
        Self { passed, packet: 0, steps: 0, last: None, ahead }
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
        (self.packet, self.steps, self.last) = (place, 0, None);
    }

    #[inline]
    fn step(&mut self, step: Step) {
        if let Some(outcome) = self.last.replace(step.outcome) {
            self.passed.push(Passed { packet: self.packet, outcome, step: self.steps - 1 });
        }
        self.steps += 1;
    }

    #[inline]
    fn let_through(&mut self, outcome: OutcomeId) {
        self.passed.push(Passed { packet: self.packet, outcome, step: 0 });
    }

    fn rule(&mut self, rule: OutcomeId) {
        self.passed.push(Passed { packet: self.packet, outcome: rule, step: self.steps });
    }

    fn rule_ahead(&mut self, place: usize, rule: OutcomeId) {
        self.ahead.push((place, rule));
    }

    fn come_true(&mut self) {
        let (packet, step) = (self.packet, self.steps);
        let own = self.ahead.iter().filter(|(place, _)| *place == packet);
        self.passed.extend(own.map(|&(_, outcome)| Passed { packet, outcome, step }));
    }

    fn all_come_true(&mut self) {
        let passed = |&(packet, outcome): &(usize, OutcomeId)| Passed { packet, outcome, step: 0 };
        self.passed.extend(self.ahead.iter().map(passed));
    }

    #[inline]
    fn forget_ahead(&mut self) {
        self.ahead.clear();
    }

    #[inline]
    fn anew(&mut self) {
        while self.passed.last().is_some_and(|last| last.packet == self.packet) {
            self.passed.pop();
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
            decisions.extend(self.decisions(
                &Columns::of_keys(keys).block(keys[0].hook),
                decisions.len(),
                passing,
            ));
        }
        let (parts, rest) = rest.as_chunks::<PART>();
        for keys in parts {
            decisions.extend(self.decisions(
                &Columns::of_keys(keys).block(keys[0].hook),
                decisions.len(),
                passing,
            ));
        }
        for key in rest {
            passing.packet(decisions.len());
            decisions.push(short::decide(self, key, None, passing));
        }
    }
}
