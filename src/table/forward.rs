//! What new packets in filter FORWARD meet on each side of an interface, where that is one chain: all that most of them need
//! to know, in one cache line of each of their interfaces.

use std::hint::select_unpredictable;

use super::Stage;
use super::classes::{Address, Asked, Classes, OwnCells, OwnCellsBuilder, Ready};
use super::engines::Engines;
use super::lead::{Chains, Lead, MORE, NONE};
use super::stops::{Before, Stop, Stops};
use crate::flow::{Direction, InterfaceId, address_number};
use crate::program::{ChainId, Program};

/// By interface.
#[derive(Debug)]
pub struct Forward {
    /// Their chains are those of packets of IPv6 as well, but for what is ready.
    v4: Vec<Sides<u32>>,
    /// None where no chain can be ready for packets of IPv6.
    v6: Vec<Sides<u128>>,
    /// Cells that chains have for addresses of endpoints, all sides together.
    own_cells: OwnCells,
}

/// The chains that packets meet; those that meet one have it twice.
pub struct Pairs<const N: usize> {
    pub first: [ChainId; N],
    pub last: [ChainId; N],
    /// It is two, which may be the same.
    pub is_pair: [bool; N],
    /// One of them is [a workload's](Lead::is_from_workload).
    pub from_workloads: bool,
}

// Each side is in one cache line.
const _: () = assert!(size_of::<Side<u32>>() == 32 && size_of::<Side<u128>>() == 64);

/// Packets from an interface, and packets to it.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Sides<A> {
    from: Side<A>,
    to: Side<A>,
}

/// The only chain there, or none, or more.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Side<A> {
    chains: Chains,
    /// If the chain [is ready](Lead::of_ready).
    ready: Ready<A>,
}

impl Forward {
    /// Of all interfaces, by what their packets meet.
    pub fn of(engines: &Engines, stops: &[Stops]) -> Self {
        let mut cells = OwnCellsBuilder::default();
        let v4 = stops.iter().map(|stops| Sides::of(engines, stops, &mut cells)).collect();
        let has_v6 = engines.classes().is_some_and(Classes::tells_v6_apart);
        let of_v6 = if has_v6 { stops } else { &[] };
        let v6 = of_v6.iter().map(|stops| Sides::of(engines, stops, &mut cells)).collect();
        Self { v4, v6, own_cells: cells.build() }
    }

    /// The only chain that decides a new packet which carries no mark; none where there are others, or more than that
    /// decides.
    #[inline]
    pub fn lone(&self, input: InterfaceId, output: InterfaceId) -> Option<Lead> {
        Lead::of(self.chains(input.0, output.0)?)
    }

    /// Both sides as one.
    #[inline]
    pub fn chains(&self, input: u32, output: u32) -> Option<Chains> {
        let (from, to) = sides(&self.v4, input, output)?;
        Some(both(from, to))
    }

    /// The two chains that a new packet meets in turn, if both of its interfaces have one alone.
    #[inline]
    pub fn pair(&self, input: InterfaceId, output: InterfaceId) -> Option<[Lead; 2]> {
        let (from, to) = sides(&self.v4, input.0, output.0)?;
        Some([Lead::of(from.chains)?, Lead::of(to.chains)?])
    }

    /// The same of many packets, each of which meets one chain or two; none where one of them meets others.
    #[inline]
    pub fn pair_block<const N: usize>(&self, inputs: &[u32; N], outputs: &[u32; N]) -> Option<Pairs<N>> {
        let nothing = [ChainId::from_number(0); N];
        let mut pairs = Pairs { first: nothing, last: nothing, is_pair: [false; N], from_workloads: false };
        for index in 0..N {
            let (from, to) = sides(&self.v4, inputs[index], outputs[index])?;
            let (from, to) = (from.chains, to.chains);
            let first = Lead::of(select_unpredictable(from == NONE, to, from))?;
            let last = Lead::of(select_unpredictable(to == NONE, from, to))?;
            (pairs.first[index], pairs.last[index]) = (first.chain(), last.chain());
            pairs.is_pair[index] = from != NONE && to != NONE;
            pairs.from_workloads |= first.is_from_workload();
        }
        Some(pairs)
    }

    /// As [`Self::lone`], of a chain that is ready for packets of IPv4.
    #[inline]
    pub fn ready_v4(&self, input: u32, output: u32) -> Option<(Lead, &Ready<u32>)> {
        ready(&self.v4, input, output)
    }

    /// The same of IPv6.
    #[inline]
    pub fn ready_v6(&self, input: u32, output: u32) -> Option<(Lead, &Ready<u128>)> {
        ready(&self.v6, input, output)
    }

    /// Such a chain, to be asked.
    #[inline]
    pub fn asked<'f, A>(&'f self, lead: Lead, ready: &'f Ready<A>) -> Asked<'f, A> {
        Asked { ready, own_cells: &self.own_cells, is_by_destination: lead.is_by_destination() }
    }
}

#[inline]
fn ready<A>(all: &[Sides<A>], input: u32, output: u32) -> Option<(Lead, &Ready<A>)> {
    let (from, to) = sides(all, input, output)?;
    let lead = Lead::of_ready(both(from, to))?;
    Some((lead, select_unpredictable(from.chains == NONE, &to.ready, &from.ready)))
}

/// The chains of both as those of one place: the only one of them, if there is no other.
#[inline]
const fn both<A>(from: &Side<A>, to: &Side<A>) -> Chains {
    from.chains.wrapping_add(to.chains)
}

/// Of packets from one interface, and of packets to another.
#[inline]
fn sides<A>(all: &[Sides<A>], input: u32, output: u32) -> Option<(&Side<A>, &Side<A>)> {
    Some((&all.get(input as usize)?.from, &all.get(output as usize)?.to))
}

impl<A: Address> Sides<A> {
    fn of(engines: &Engines, stops: &Stops, cells: &mut OwnCellsBuilder) -> Self {
        Self {
            from: Side::of(engines, [stops.from_hep, stops.egress], Direction::Egress, cells),
            to: Side::of(engines, [stops.ingress, stops.to_hep], Direction::Ingress, cells),
        }
    }
}

impl<A: Address> Side<A> {
    /// `direction` is that of a workload's chain.
    fn of(
        engines: &Engines,
        stops: [Option<Stop>; 2],
        direction: Direction,
        cells: &mut OwnCellsBuilder,
    ) -> Self {
        let (stop, is_from_workload) = match stops {
            [None, None] => return Self::default(),
            [Some(stop), None] | [None, Some(stop)] => match stop.before {
                Before::Conntrack => (stop, false),
                Before::Encapsulation => (stop, true),
                _ => return Self::unready(MORE),
            },
            [Some(_), Some(_)] => return Self::unready(MORE),
        };
        let Some(lead) = Lead::to(engines, stop.chain, is_from_workload) else {
            return Self::unready(MORE);
        };
        let own = own_address::<A>(engines.program(), &stop);
        let ready = engines.classes().and_then(|classes| classes.ready(stop.chain, direction, own, cells));
        match ready {
            Some((ready, is_by_destination)) => {
                Self { chains: lead.made_ready(is_by_destination).chains(), ready }
            }
            None => Self::unready(lead.chains()),
        }
    }

    fn unready(chains: Chains) -> Self {
        Self { chains, ..Self::default() }
    }
}

/// The address that a workload has, or the first of several. Packets through an interface of the host have any.
fn own_address<A: Address>(program: &Program, stop: &Stop) -> Option<u128> {
    if !matches!(stop.stage, Stage::WorkloadIngress | Stage::WorkloadEgress) {
        return None;
    }
    let addresses = program.endpoint(stop.endpoint).addresses.iter();
    addresses
        .copied()
        .map(address_number)
        .find_map(|(family, number)| (family == A::FAMILY).then_some(number))
}
