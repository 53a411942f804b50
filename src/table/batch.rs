//! Many questions at one hook, by column: what scripts and benchmarks ask.

use std::array;
use std::hint::select_unpredictable;
use std::ops::Range;

use thiserror::Error;

use super::answer::{Answer, EndKind};
use super::block::{Block, Columns};
use super::lead::Lead;
use super::point::AddressBlock;
use super::prefetch::prefetch_all;
use super::stops::Before;
use super::{Decision, DecisionTable, Trace, hooks, short};
use crate::flow::{CtState, Direction, Family, FlowKey, Hook, InterfaceId};
use crate::program::ChainId;

/// Blocks from the one that is answered to the one whose columns are asked for. Those of many flows are in no near cache; the
/// processor follows such streams by itself, but not as far ahead as blocks are that wait for nothing else.
const AHEAD: usize = 2;

/// One value for every flow, or one value for each.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a, T> {
    /// The same for all.
    One(T),
    /// As many as there are flows.
    Each(&'a [T]),
}

impl<T: Copy> Column<'_, T> {
    /// Those of some flows. Panics beyond the column.
    fn rows(&self, rows: &Range<usize>) -> Self {
        match self {
            Self::One(value) => Self::One(*value),
            Self::Each(values) => Self::Each(&values[rows.clone()]),
        }
    }

    /// Those of `N` flows. Panics beyond the column: [`Flows::check`] has been asked before.
    #[inline]
    pub(super) fn block<const N: usize>(&self, from: usize) -> [T; N] {
        match self {
            Self::One(value) => [*value; N],
            Self::Each(values) => *values[from..].first_chunk().expect("as many values as flows"),
        }
    }

    /// The value of all, so many times; another one where each has its own.
    pub(super) fn repeated<const N: usize>(&self, other: T) -> [T; N] {
        match self {
            Self::One(value) => [*value; N],
            Self::Each(_) => [other; N],
        }
    }

    /// That of one flow. Panics beyond the column.
    fn at(&self, index: usize) -> T {
        match self {
            Self::One(value) => *value,
            Self::Each(values) => values[index],
        }
    }

    /// Whether it has a value for each of so many flows.
    pub(super) fn check(&self, column: &'static str, count: usize) -> Result<(), FlowsError> {
        self.fits(count).map_err(|found| FlowsError::Length { column, found, expected: count })
    }

    fn fits(&self, count: usize) -> Result<(), usize> {
        match self {
            Self::Each(values) if values.len() != count => Err(values.len()),
            _ => Ok(()),
        }
    }
}

impl<'a, T> Column<'a, T> {
    /// While those of `N` flows from one on are read, asks for those that are read soon; there need not be any.
    #[inline]
    pub(super) fn ask_ahead<const N: usize>(&self, from: usize) {
        if let Self::Each(values) = self {
            prefetch_all(values.as_ptr().wrapping_add(from + AHEAD * N), N);
        }
    }

    /// Those of `N` flows where they are: in the column, or [`repeated`](Self::repeated). Panics beyond the column.
    #[inline]
    pub(super) fn read<'b, const N: usize>(&self, repeated: &'b [T; N], from: usize) -> &'b [T; N]
    where
        'a: 'b,
    {
        match *self {
            Self::One(_) => repeated,
            Self::Each(values) => values[from..].first_chunk().expect("as many values as flows"),
        }
    }
}

/// Source and destination columns of one family.
#[derive(Clone, Copy, Debug)]
pub enum Addresses<'a> {
    /// IPv4 addresses as numbers.
    V4 {
        /// Sources.
        source: Column<'a, u32>,
        /// Destinations.
        destination: Column<'a, u32>,
    },
    /// IPv6 addresses in network byte order.
    V6 {
        /// Sources.
        source: Column<'a, [u8; 16]>,
        /// Destinations.
        destination: Column<'a, [u8; 16]>,
    },
}

impl Addresses<'_> {
    /// IP version of all flows.
    pub const fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }

    /// Of one flow: the source for egress, the destination for ingress. Panics beyond the columns.
    pub(super) fn near(&self, direction: Direction, index: usize) -> u128 {
        let is_source = direction == Direction::Egress;
        match self {
            Self::V4 { source, destination } => {
                u128::from(if is_source { source.at(index) } else { destination.at(index) })
            }
            Self::V6 { source, destination } => {
                u128::from_be_bytes(if is_source { source.at(index) } else { destination.at(index) })
            }
        }
    }

    fn rows(&self, rows: &Range<usize>) -> Self {
        match self {
            Self::V4 { source, destination } => {
                Self::V4 { source: source.rows(rows), destination: destination.rows(rows) }
            }
            Self::V6 { source, destination } => {
                Self::V6 { source: source.rows(rows), destination: destination.rows(rows) }
            }
        }
    }
}

/// Questions at one hook; the fields are those of [`FlowKey`].
#[derive(Clone, Copy, Debug)]
pub struct Flows<'a> {
    /// Where all of them are seen.
    pub hook: Hook,
    /// Both addresses.
    pub addresses: Addresses<'a>,
    /// IP protocol numbers.
    pub protocol: Column<'a, u8>,
    /// Source ports; without meaning for protocols that have none.
    pub source_port: Column<'a, u16>,
    /// Destination ports; `type << 8 | code` for ICMP and `ICMPv6`.
    pub destination_port: Column<'a, u16>,
    /// In-interfaces ([`InterfaceId`] as a number).
    pub input: Column<'a, u32>,
    /// Out-interfaces.
    pub output: Column<'a, u32>,
    /// Conntrack states ([`CtState`] as a number).
    pub ct: Column<'a, u8>,
    /// Accept mark on arrival, not zero: set.
    pub accepted: Column<'a, u8>,
    /// DNATed in nat OUTPUT, not zero: yes.
    pub dnatted: Column<'a, u8>,
    /// A later fragment, whose ports cannot be read (M-19), not zero: yes.
    pub fragment: Column<'a, u8>,
}

/// Columns that do not fit.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FlowsError {
    /// A column has another length.
    #[error("{column}: found {found} values, expected {expected}, or one for all")]
    Length {
        /// Its name.
        column: &'static str,
        /// Its values.
        found: usize,
        /// The length of the answers.
        expected: usize,
    },
    /// No conntrack state has this number.
    #[error("ct: found {found} at index {index}, expected 0..{}", CtState::ALL.len() - 1)]
    CtState {
        /// The number.
        found: u8,
        /// Where.
        index: usize,
    },
}

impl<'a> Flows<'a> {
    /// New connections of one hook and interface pair, with nothing else known: the common case to start from.
    pub const fn new(hook: Hook, addresses: Addresses<'a>) -> Self {
        Self {
            hook,
            addresses,
            protocol: Column::One(0),
            source_port: Column::One(0),
            destination_port: Column::One(0),
            input: Column::One(InterfaceId::NONE.0),
            output: Column::One(InterfaceId::NONE.0),
            ct: Column::One(CtState::New as u8),
            accepted: Column::One(0),
            dnatted: Column::One(0),
            fragment: Column::One(0),
        }
    }

    /// Whether every column has `count` values or one, and every conntrack state exists.
    pub fn check(&self, count: usize) -> Result<(), FlowsError> {
        let (source, destination) = match &self.addresses {
            Addresses::V4 { source, destination } => (source.fits(count), destination.fits(count)),
            Addresses::V6 { source, destination } => (source.fits(count), destination.fits(count)),
        };
        let fits = [
            ("src", source),
            ("dst", destination),
            ("protocol", self.protocol.fits(count)),
            ("sport", self.source_port.fits(count)),
            ("dport", self.destination_port.fits(count)),
            ("in", self.input.fits(count)),
            ("out", self.output.fits(count)),
            ("ct", self.ct.fits(count)),
            ("accepted", self.accepted.fits(count)),
            ("dnatted", self.dnatted.fits(count)),
            ("fragment", self.fragment.fits(count)),
        ];
        for (column, fits) in fits {
            fits.map_err(|found| FlowsError::Length { column, found, expected: count })?;
        }
        let states = match &self.ct {
            Column::One(state) => std::slice::from_ref(state),
            Column::Each(states) => states,
        };
        match states.iter().position(|&state| usize::from(state) >= CtState::ALL.len()) {
            None => Ok(()),
            Some(index) => Err(FlowsError::CtState { found: states[index], index }),
        }
    }

    /// Whether there is room for as many answers too.
    pub(super) fn check_answers(&self, verdicts: &[u8], outcomes: &[u32]) -> Result<(), FlowsError> {
        self.check(verdicts.len())?;
        Column::Each(outcomes).check("outcomes", verdicts.len())
    }

    /// Some of the questions. Panics beyond the columns.
    #[must_use]
    pub fn rows(&self, rows: &Range<usize>) -> Self {
        Self {
            hook: self.hook,
            addresses: self.addresses.rows(rows),
            protocol: self.protocol.rows(rows),
            source_port: self.source_port.rows(rows),
            destination_port: self.destination_port.rows(rows),
            input: self.input.rows(rows),
            output: self.output.rows(rows),
            ct: self.ct.rows(rows),
            accepted: self.accepted.rows(rows),
            dnatted: self.dnatted.rows(rows),
            fragment: self.fragment.rows(rows),
        }
    }

    /// While `N` flows from one on are answered, asks for those that are read soon, and for where their answers go: behind
    /// those of these. Not for marks, states and fragments, which are the same for all flows, mostly.
    #[inline]
    pub(super) fn ask_ahead<const N: usize>(&self, from: usize, verdicts: &[u8; N], outcomes: &[u32; N]) {
        match &self.addresses {
            Addresses::V4 { source, destination } => {
                source.ask_ahead::<N>(from);
                destination.ask_ahead::<N>(from);
            }
            Addresses::V6 { source, destination } => {
                source.ask_ahead::<N>(from);
                destination.ask_ahead::<N>(from);
            }
        }
        self.protocol.ask_ahead::<N>(from);
        self.source_port.ask_ahead::<N>(from);
        self.destination_port.ask_ahead::<N>(from);
        self.input.ask_ahead::<N>(from);
        self.output.ask_ahead::<N>(from);
        prefetch_all(verdicts.as_ptr().wrapping_add(AHEAD * N), N);
        prefetch_all(outcomes.as_ptr().wrapping_add(AHEAD * N), N);
    }

    /// One question of the batch.
    pub fn key(&self, index: usize) -> FlowKey {
        Columns::<1>::of(self).block_of(self, index).key(0)
    }
}

impl DecisionTable {
    /// Answers the flows: verdicts ([`Verdict`](crate::flow::Verdict) as a number) and outcome ids, one of each for
    /// every flow. Allocates nothing.
    pub fn decide_batch(
        &self,
        flows: &Flows<'_>,
        verdicts: &mut [u8],
        outcomes: &mut [u32],
    ) -> Result<(), FlowsError> {
        flows.check_answers(verdicts, outcomes)?;
        let mut from = 0;
        let (verdicts, last_verdicts) = verdicts.as_chunks_mut::<STAGE>();
        let (outcomes, last_outcomes) = outcomes.as_chunks_mut::<STAGE>();
        let columns = Columns::of(flows);
        for (verdicts, outcomes) in verdicts.iter_mut().zip(outcomes) {
            flows.ask_ahead(from, verdicts, outcomes);
            self.decide_block(&columns.block_of(flows, from), verdicts, outcomes);
            from += STAGE;
        }
        let columns = Columns::of(flows);
        for (verdict, outcome) in last_verdicts.iter_mut().zip(last_outcomes) {
            let block = columns.block_of(flows, from);
            self.decide_block(&block, array::from_mut(verdict), array::from_mut(outcome));
            from += 1;
        }
        Ok(())
    }

    fn decide_block<const N: usize>(
        &self,
        block: &Block<'_, N>,
        verdicts: &mut [u8; N],
        outcomes: &mut [u32; N],
    ) {
        let mut answers = [Answer::from_word(0); N];
        if N > 1
            && let Some(decisions) = self.short_block(block, 0, &mut (), &mut answers)
        {
            let verdict_of = decisions.map(|decision| decision.verdict as u8);
            for index in 0..N {
                verdicts[index] = verdict_of[answers[index].kind()];
                outcomes[index] = answers[index].outcome().number();
            }
            return;
        }
        for (index, decision) in self.other_decisions(block, 0, &mut ()).into_iter().enumerate() {
            (verdicts[index], outcomes[index]) = (decision.verdict as u8, decision.outcome.number());
        }
    }

    /// What [`Self::decide`] says of each; `from` is the place of the first in its batch.
    #[inline]
    pub(super) fn decisions<const N: usize, T: Trace>(
        &self,
        block: &Block<'_, N>,
        from: usize,
        trace: &mut T,
    ) -> [Decision; N] {
        let mut answers = [Answer::from_word(0); N];
        if N > 1
            && let Some(decisions) = self.short_block(block, from, trace, &mut answers)
        {
            return answers.map(|answer| Decision { outcome: answer.outcome(), ..decisions[answer.kind()] });
        }
        self.other_decisions(block, from, trace)
    }

    /// The same where one of them meets more than one chain, or has a mark or a state.
    #[inline]
    fn other_decisions<const N: usize, T: Trace>(
        &self,
        block: &Block<'_, N>,
        from: usize,
        trace: &mut T,
    ) -> [Decision; N] {
        let tree = if N > 1 { self.tree_block(block, from, trace) } else { None };
        array::from_fn(|index| {
            let tree = tree.as_ref().map(|(chain, answers)| (*chain, answers[index]));
            trace.packet(from + index);
            short::decide(self, &block.key(index), tree, trace)
        })
    }

    /// If each packet meets one chain, or in FORWARD two: writes what the chains that decide answer, and gives the decisions
    /// that this means, by [`Answer::kind`]. If there are none, what was written does not count. Loads that depend on each
    /// other wait for memory, those of many packets wait at the same time.
    #[inline]
    fn short_block<const N: usize, T: Trace>(
        &self,
        block: &Block<'_, N>,
        from: usize,
        trace: &mut T,
        answers: &mut [Answer; N],
    ) -> Option<[Decision; 4]> {
        if !block.is_plain() {
            return None;
        }
        if block.hook == Hook::FilterForward && self.ready_block(block, answers).is_some() {
            return self.stops.lone_block_decisions(block.hook, answers);
        }
        let Some((chains, from_workloads)) = self.stops.lone_block(block.hook, block.input, block.output)
        else {
            return self.pair_block(block, from, trace, answers);
        };
        let before = Before::at(block.hook);
        if self.failsafes.may_settle(before, [block.source_port, block.destination_port])
            && (0..N).any(|index| short::is_settled(self, before, &block.key(index).tuple))
            || from_workloads && self.has_encapsulated(block)
        {
            return None;
        }
        trace.forget_ahead();
        let passed = &mut |place, rule| trace.rule_ahead(from + place, rule);
        *answers = self.engines.find_block(&chains, &block.points()?, passed)?;
        let decisions = self.stops.lone_block_decisions(block.hook, answers)?;
        trace.all_come_true();
        Some(decisions)
    }

    /// The same where packets in FORWARD meet one chain that is ready for their interface.
    #[inline]
    fn ready_block<const N: usize>(&self, block: &Block<'_, N>, answers: &mut [Answer; N]) -> Option<()> {
        let (forward, classes, points) = (self.stops.forward(), self.engines.classes()?, block.points()?);
        // Their bits together: one instruction for each.
        let mut leads = 0;
        match block.addresses {
            AddressBlock::V4 { source, destination } => {
                let asked = |index| {
                    let (lead, ready) = forward.ready_v4(block.input[index], block.output[index])?;
                    leads |= lead.chains();
                    Some(forward.asked(lead, ready))
                };
                classes.find_ready_v4_block(asked, &points, [source, destination], answers)?;
            }
            AddressBlock::V6 { source, destination } => {
                let asked = |index| {
                    let (lead, ready) = forward.ready_v6(block.input[index], block.output[index])?;
                    leads |= lead.chains();
                    Some(forward.asked(lead, ready))
                };
                classes.find_ready_v6_block(asked, &points, [source, destination], answers)?;
            }
        }
        // Asked behind the answers, which do not count then.
        (!Lead::any_is_from_workload(leads) || !self.has_encapsulated(block)).then_some(())
    }

    /// The same where packets in FORWARD meet two chains, one for each interface (E-38).
    #[inline(never)]
    fn pair_block<const N: usize, T: Trace>(
        &self,
        block: &Block<'_, N>,
        from: usize,
        trace: &mut T,
        answers: &mut [Answer; N],
    ) -> Option<[Decision; 4]> {
        if block.hook != Hook::FilterForward {
            return None;
        }
        let pairs = self.stops.forward().pair_block(block.input, block.output)?;
        if pairs.from_workloads && self.has_encapsulated(block) {
            return None;
        }
        let points = block.points()?;
        let first = self.engines.find_classes_block(&pairs.first, &points)?;
        *answers = self.engines.find_classes_block(&pairs.last, &points)?;
        for index in 0..N {
            // Not a branch: which one denies cannot be predicted.
            let is_denied = first[index].end() == EndKind::Deny;
            answers[index] = select_unpredictable(is_denied, first[index], answers[index]);
        }
        let decisions = self.stops.lone_block_decisions(block.hook, answers)?;
        for (index, (first, is_pair)) in first.iter().zip(pairs.is_pair).enumerate() {
            if is_pair && first.end() != EndKind::Deny {
                trace.packet(from + index);
                trace.let_through(first.outcome());
            }
        }
        Some(decisions)
    }

    /// Whether one of the packets is settled where a workload has sent it (E-20.5).
    fn has_encapsulated<const N: usize>(&self, block: &Block<'_, N>) -> bool {
        let settings = &self.program().settings;
        let services = block.protocol.iter().zip(block.destination_port);
        services
            .fold(false, |any, (&number, &port)| any | hooks::is_encapsulation(settings, number, port.into()))
    }

    /// The answers of a chain in `tree` that the packets are likely to meet: a wrong guess costs time alone.
    fn tree_block<const N: usize, T: Trace>(
        &self,
        block: &Block<'_, N>,
        from: usize,
        trace: &mut T,
    ) -> Option<(ChainId, [Answer; N])> {
        let guess = |index: usize| {
            let is_asked = block.accepted[index] == 0 && hooks::is_new(block.state(index));
            let (input, output) = (InterfaceId(block.input[index]), InterfaceId(block.output[index]));
            let (side, to) = (self.stops.at(input), self.stops.at(output));
            let stop = match block.hook {
                Hook::RawPrerouting => side.untracked_in,
                Hook::RawOutput => to.untracked_out,
                Hook::ManglePrerouting => side.prednat,
                Hook::FilterInput => side.normal_in.or(side.egress),
                Hook::FilterForward => side.from_hep.or(side.egress).or(to.ingress).or(to.to_hep),
                Hook::FilterOutput | Hook::ManglePostrouting => to.normal_out,
            };
            // Where nobody governs there is no chain.
            stop.filter(|stop| is_asked && stop.before != Before::Nobody).map(|stop| stop.chain)
        };
        let chain = guess(0).filter(|&chain| self.engines.is_in_tree(chain, block.addresses.family()))?;
        if guess(N - 1) != Some(chain) {
            return None;
        }
        let points = block.points()?;
        trace.forget_ahead();
        let passed = &mut |place, rule| trace.rule_ahead(from + place, rule);
        Some((chain, self.engines.find_tree_block(chain, &points, passed)?))
    }
}

/// Packets whose memory is waited for together.
pub(super) const STAGE: usize = 32;
