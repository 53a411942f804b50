//! Many questions at one hook, by column: what scripts and benchmarks ask.

use std::ops::Range;

use thiserror::Error;

use super::engines::{Packet, Seen};
use super::{DecisionTable, hooks};
use crate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport};

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

    /// The value of a flow. Panics beyond the column: [`Flows::check`] has been asked before.
    #[inline]
    pub fn at(&self, index: usize) -> T {
        match self {
            Self::One(value) => *value,
            Self::Each(values) => values[index],
        }
    }

    fn fits(&self, count: usize) -> Result<(), usize> {
        match self {
            Self::Each(values) if values.len() != count => Err(values.len()),
            _ => Ok(()),
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

    /// Source and destination of a flow.
    #[inline]
    pub fn at(&self, index: usize) -> (u128, u128) {
        match self {
            Self::V4 { source, destination } => {
                (u128::from(source.at(index)), u128::from(destination.at(index)))
            }
            Self::V6 { source, destination } => {
                (u128::from_be_bytes(source.at(index)), u128::from_be_bytes(destination.at(index)))
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

    /// One question of the batch.
    #[inline]
    pub fn key(&self, index: usize) -> FlowKey {
        let (source, destination) = self.addresses.at(index);
        let protocol = self.protocol.at(index);
        let transport = if self.fragment.at(index) == 0 {
            Transport::of(protocol, self.source_port.at(index), self.destination_port.at(index))
        } else {
            Transport::Opaque
        };
        FlowKey {
            tuple: FiveTuple { family: self.addresses.family(), source, destination, protocol, transport },
            hook: self.hook,
            input: InterfaceId(self.input.at(index)),
            output: InterfaceId(self.output.at(index)),
            accepted: self.accepted.at(index) != 0,
            ct: CtState::ALL[usize::from(self.ct.at(index))],
            dnatted: self.dnatted.at(index) != 0,
        }
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
        flows.check(verdicts.len())?;
        if outcomes.len() != verdicts.len() {
            let (found, expected) = (outcomes.len(), verdicts.len());
            return Err(FlowsError::Length { column: "outcomes", found, expected });
        }
        let mut from = 0;
        for (verdicts, outcomes) in verdicts.chunks_mut(STAGE).zip(outcomes.chunks_mut(STAGE)) {
            self.decide_stage(flows, from, verdicts, outcomes);
            from += STAGE;
        }
        Ok(())
    }

    /// Loads that depend on each other wait for memory; those of many packets wait at the same time.
    fn decide_stage(&self, flows: &Flows<'_>, from: usize, verdicts: &mut [u8], outcomes: &mut [u32]) {
        let engines = &self.engines;
        let mut keys = [FlowKey::NOTHING; STAGE];
        let keys = &mut keys[..verdicts.len()];
        for (index, key) in (from..).zip(keys.iter_mut()) {
            *key = flows.key(index);
            engines.prefetch(&Packet::of(&key.tuple));
        }
        for key in &*keys {
            engines.prefetch_next(&Packet::of(&key.tuple));
        }
        let mut seen = [Seen::NOTHING; STAGE];
        for (key, seen) in keys.iter().zip(&mut seen) {
            *seen = engines.look_up(&Packet::of(&key.tuple));
        }
        for ((key, seen), (verdict, outcome)) in keys.iter().zip(seen).zip(verdicts.iter_mut().zip(outcomes))
        {
            let decision = hooks::evaluate(self, key, &Packet::of(&key.tuple), seen, &mut ());
            *verdict = decision.verdict as u8;
            *outcome = decision.outcome.number();
        }
    }
}

/// Packets whose memory is waited for together.
const STAGE: usize = 32;
