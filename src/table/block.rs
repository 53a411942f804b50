//! Some of many questions, by column: read where they are, or laid out from packets.

use std::array;

use super::batch::{Addresses, Flows};
use super::point::{AddressBlock, PointBlock};
use crate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport};

/// Columns of a block that nobody else has: of flows the values that are the same for all, repeated once for all blocks.
pub struct Columns<const N: usize> {
    addresses: AddressColumns<N>,
    protocol: [u8; N],
    source_port: [u16; N],
    destination_port: [u16; N],
    input: [u32; N],
    output: [u32; N],
    ct: [u8; N],
    accepted: [u8; N],
    dnatted: [u8; N],
    fragment: [u8; N],
}

enum AddressColumns<const N: usize> {
    V4 { source: [u32; N], destination: [u32; N] },
    V6 { source: [[u8; 16]; N], destination: [[u8; 16]; N] },
}

impl<const N: usize> Columns<N> {
    /// Where all flows have one value, that; elsewhere nothing that counts.
    pub fn of(flows: &Flows<'_>) -> Self {
        Self {
            addresses: match &flows.addresses {
                Addresses::V4 { source, destination } => {
                    AddressColumns::V4 { source: source.repeated(0), destination: destination.repeated(0) }
                }
                Addresses::V6 { source, destination } => AddressColumns::V6 {
                    source: source.repeated([0; 16]),
                    destination: destination.repeated([0; 16]),
                },
            },
            protocol: flows.protocol.repeated(0),
            source_port: flows.source_port.repeated(0),
            destination_port: flows.destination_port.repeated(0),
            input: flows.input.repeated(0),
            output: flows.output.repeated(0),
            ct: flows.ct.repeated(0),
            accepted: flows.accepted.repeated(0),
            dnatted: flows.dnatted.repeated(0),
            fragment: flows.fragment.repeated(0),
        }
    }

    /// Of packets of one hook and IP version.
    #[inline]
    pub fn of_keys(keys: &[FlowKey; N]) -> Self {
        let ports: [_; N] = array::from_fn(|index| match keys[index].tuple.transport {
            Transport::Opaque => (0, 0, 1),
            Transport::Ports { source, destination } => (source, destination, 0),
            Transport::Icmp { kind, code } => (0, u16::from_be_bytes([kind, code]), 0),
        });
        let addresses = match keys[0].tuple.family {
            Family::V4 => AddressColumns::V4 {
                source: array::from_fn(|index| low(keys[index].tuple.source)),
                destination: array::from_fn(|index| low(keys[index].tuple.destination)),
            },
            Family::V6 => AddressColumns::V6 {
                source: array::from_fn(|index| keys[index].tuple.source.to_be_bytes()),
                destination: array::from_fn(|index| keys[index].tuple.destination.to_be_bytes()),
            },
        };
        Self {
            addresses,
            protocol: array::from_fn(|index| keys[index].tuple.protocol),
            source_port: array::from_fn(|index| ports[index].0),
            destination_port: array::from_fn(|index| ports[index].1),
            input: array::from_fn(|index| keys[index].input.0),
            output: array::from_fn(|index| keys[index].output.0),
            ct: array::from_fn(|index| keys[index].ct as u8),
            accepted: array::from_fn(|index| keys[index].accepted.into()),
            dnatted: array::from_fn(|index| keys[index].dnatted.into()),
            fragment: array::from_fn(|index| {
                u8::from(ports[index].2 != 0 && has_service(&keys[index].tuple))
            }),
        }
    }

    /// All of them, as packets of a hook.
    pub fn block(&self, hook: Hook) -> Block<'_, N> {
        Block {
            hook,
            addresses: self.addresses.block(),
            protocol: &self.protocol,
            source_port: &self.source_port,
            destination_port: &self.destination_port,
            input: &self.input,
            output: &self.output,
            ct: &self.ct,
            accepted: &self.accepted,
            dnatted: &self.dnatted,
            fragment: &self.fragment,
        }
    }

    /// `N` of the flows that these columns are of, from one on.
    #[inline]
    pub fn block_of<'b>(&'b self, flows: &Flows<'b>, from: usize) -> Block<'b, N> {
        let addresses = match (&self.addresses, &flows.addresses) {
            (
                AddressColumns::V4 { source, destination },
                Addresses::V4 { source: sources, destination: destinations },
            ) => {
                let (source, destination) =
                    (sources.read(source, from), destinations.read(destination, from));
                AddressBlock::V4 { source, destination }
            }
            (
                AddressColumns::V6 { source, destination },
                Addresses::V6 { source: sources, destination: destinations },
            ) => {
                let (source, destination) =
                    (sources.read(source, from), destinations.read(destination, from));
                AddressBlock::V6 { source, destination }
            }
            (own, _) => own.block(),
        };
        Block {
            hook: flows.hook,
            addresses,
            protocol: flows.protocol.read(&self.protocol, from),
            source_port: flows.source_port.read(&self.source_port, from),
            destination_port: flows.destination_port.read(&self.destination_port, from),
            input: flows.input.read(&self.input, from),
            output: flows.output.read(&self.output, from),
            ct: flows.ct.read(&self.ct, from),
            accepted: flows.accepted.read(&self.accepted, from),
            dnatted: flows.dnatted.read(&self.dnatted, from),
            fragment: flows.fragment.read(&self.fragment, from),
        }
    }
}

impl<const N: usize> AddressColumns<N> {
    fn block(&self) -> AddressBlock<'_, N> {
        match self {
            Self::V4 { source, destination } => AddressBlock::V4 { source, destination },
            Self::V6 { source, destination } => AddressBlock::V6 { source, destination },
        }
    }
}

/// Whether the protocol has something that tells services apart.
#[inline]
fn has_service(tuple: &FiveTuple) -> bool {
    Transport::of(tuple.protocol, 0, 0) != Transport::Opaque
}

/// Some questions, by column, read where they are.
#[derive(Clone, Copy)]
pub struct Block<'a, const N: usize> {
    pub hook: Hook,
    pub addresses: AddressBlock<'a, N>,
    pub protocol: &'a [u8; N],
    pub source_port: &'a [u16; N],
    pub destination_port: &'a [u16; N],
    pub input: &'a [u32; N],
    pub output: &'a [u32; N],
    pub ct: &'a [u8; N],
    pub accepted: &'a [u8; N],
    pub dnatted: &'a [u8; N],
    pub fragment: &'a [u8; N],
}

impl<'a, const N: usize> Block<'a, N> {
    #[inline]
    fn transport(&self, index: usize) -> Transport {
        if self.fragment[index] == 0 {
            Transport::of(self.protocol[index], self.source_port[index], self.destination_port[index])
        } else {
            Transport::Opaque
        }
    }

    #[inline]
    pub fn state(&self, index: usize) -> CtState {
        CtState::ALL[usize::from(self.ct[index])]
    }

    /// Whether none carries a mark or is DNATed, and conntrack has nothing to say of any.
    #[inline]
    pub fn is_plain(&self) -> bool {
        // Without branches, to be done for many at once.
        let marks = self.accepted.iter().chain(self.dnatted).fold(0, |marks, mark| marks | mark);
        #[allow(clippy::needless_bitwise_bool)] // Without a branch the columns are compared many at a time.
        let is_new = |&state: &u8| (state == CtState::New as u8) | (state == CtState::Untracked as u8);
        marks == 0 && self.ct.iter().fold(true, |all, state| all & is_new(state))
    }

    /// What engines are asked; none if one is a later fragment.
    #[inline]
    pub fn points(&self) -> Option<PointBlock<'a, N>> {
        let Self { addresses, protocol, source_port, destination_port, .. } = *self;
        let is_whole = self.fragment.iter().fold(0, |any, fragment| any | fragment) == 0;
        is_whole.then_some(PointBlock { addresses, protocol, source_port, destination_port })
    }

    #[inline]
    pub fn key(&self, index: usize) -> FlowKey {
        let (family, source, destination) = self.addresses.at(index);
        let (protocol, transport) = (self.protocol[index], self.transport(index));
        FlowKey {
            tuple: FiveTuple { family, source, destination, protocol, transport },
            hook: self.hook,
            input: InterfaceId(self.input[index]),
            output: InterfaceId(self.output[index]),
            accepted: self.accepted[index] != 0,
            ct: self.state(index),
            dnatted: self.dnatted[index] != 0,
        }
    }
}

/// An IPv4 address.
#[allow(clippy::cast_possible_truncation)] // Below 2^32 by construction.
const fn low(number: u128) -> u32 {
    number as u32
}
