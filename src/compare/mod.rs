//! Which packets two states of policy decide differently at one place.
//!
//! ```text
//! rules of both chains --criteria--> what is asked of addresses, and of services
//!   addresses, services: classes that all of it answers constantly; one packet of each cell is asked about
//!     both tables' answers --boxes--> disjoint products of classes in which the verdicts go from one to another
//! ```
//!
//! Nothing is sampled: whatever the rules decide is decided by one packet of each cell (own class, peer class, service class).

mod addresses;
mod boxes;
mod criteria;
mod packets;
mod services;
mod settled;

use std::sync::{Arc, OnceLock};

use crate::flow::{Direction, EndpointId, Family, Hook, address_number};
use crate::program::{AddressSet, Endpoint, Program, RuleListId};
use crate::program::{ChainEnd, ChainId, PortSet, Rule};
use crate::table::DecisionTable;

pub use addresses::AddressClasses;
use criteria::Criteria;
pub use services::{Piece, Sample, ServiceClasses};
use settled::settled;

/// Cells that are asked about at a time: bounds memory, not completeness.
const MOST_CELLS: usize = 1 << 21;

/// What judges at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The policy of a workload.
    Workload,
    /// Normal policy of a host endpoint.
    Normal,
    /// Forward policy of one.
    Forward,
    /// Untracked policy of one.
    Untracked,
    /// preDNAT policy of one.
    Prednat,
}

/// A place at which both states are asked.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// What judges.
    pub kind: Kind,
    /// Seen from the endpoint.
    pub direction: Direction,
    /// Host endpoints: where, and the interface that is governed.
    pub at: Option<(Hook, &'a str)>,
    /// Workloads: who is asked in either state.
    pub workloads: [Option<EndpointId>; 2],
    /// The rules that decide, in either state.
    pub chains: [Option<ChainId>; 2],
}

/// A table, and what its port sets hold by protocol and port.
struct State {
    table: Arc<DecisionTable>,
    ports: Vec<OnceLock<Vec<(u8, u16, AddressSet)>>>,
}

/// Two states of policy.
pub struct TablePair {
    states: [State; 2],
}

/// Packets whose verdicts change alike.
#[derive(Debug)]
pub struct Change {
    /// Whose, by place in the members asked about: those whose own addresses lie in the same classes.
    pub members: Arc<Vec<usize>>,
    /// Verdicts then and now.
    pub verdicts: [u8; 2],
    /// Own addresses; `None`: all that the members may have.
    pub own: Option<Vec<u128>>,
    /// Addresses of the other side, as edges.
    pub peers: Vec<u128>,
    /// Classes of services.
    pub services: Vec<usize>,
    /// One of the cells.
    pub cell: Cell,
}

/// One cell of a partition, and what decides it.
#[derive(Debug)]
pub struct Cell {
    /// What it is a cell of.
    pub partition: Arc<Partition>,
    /// Class of the endpoints' own side.
    pub own: usize,
    /// Class of the other side.
    pub peer: usize,
    /// Class of services.
    pub service: usize,
    /// In either state, by id; without meaning where nobody is.
    pub outcomes: [u32; 2],
}

/// The packets of one family that the rules of a place cannot tell apart.
#[derive(Debug)]
pub struct Partition {
    /// IP version.
    pub family: Family,
    /// Of the endpoints' own side.
    pub own: AddressClasses,
    /// Of the other side.
    pub peers: AddressClasses,
    /// Protocols, ports, types.
    pub services: ServiceClasses,
}

impl State {
    fn new(table: Arc<DecisionTable>) -> Self {
        let ports = table.program().port_sets.iter().map(|_| OnceLock::new()).collect();
        Self { table, ports }
    }

    fn program(&self) -> &Program {
        self.table.program()
    }

    /// The rules of a chain, in order; profiles last.
    fn rules(&self, chain: ChainId) -> impl Iterator<Item = &Rule> {
        let program = self.program();
        let chain = program.chain(chain);
        let profiles: &[RuleListId] =
            if let ChainEnd::Profiles(profiles) = &chain.end { profiles } else { &[] };
        let lists = chain.tiers.iter().flat_map(|tier| &tier.policies).chain(profiles);
        lists.flat_map(|list| &program.rule_lists[list.index()].rules)
    }

    /// (protocol, port, the addresses that have it) of a port set.
    fn members(&self, set: usize) -> &[(u8, u16, AddressSet)] {
        self.ports[set].get_or_init(|| by_port(&self.program().port_sets[set]))
    }
}

fn by_port(set: &PortSet) -> Vec<(u8, u16, AddressSet)> {
    let mut members: Vec<_> =
        set.members().map(|(family, address, protocol, port)| (protocol, port, family, address)).collect();
    members.sort_unstable();
    let groups = members.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1));
    groups
        .map(|group| {
            let mut addresses = AddressSet::default();
            for &(_, _, family, address) in group {
                addresses.push(family, address);
            }
            (group[0].0, group[0].1, addresses)
        })
        .collect()
}

impl TablePair {
    /// The old one and the new one.
    pub fn new(old: Arc<DecisionTable>, new: Arc<DecisionTable>) -> Self {
        Self { states: [State::new(old), State::new(new)] }
    }

    /// Every change at a place, disjoint for each of the members: endpoints in either state, who share the rules.
    /// Members are none where packets may have any own address, as at interfaces; then they are member 0.
    pub fn changes(&self, place: &Place<'_>, members: &[[Option<EndpointId>; 2]]) -> Vec<Change> {
        let nets = self.nets(place.direction, members);
        [Family::V4, Family::V6].into_iter().flat_map(|family| self.of_family(place, &nets, family)).collect()
    }

    fn of_family(&self, place: &Place<'_>, nets: &[Vec<Span>], family: Family) -> Vec<Change> {
        if !nets.iter().any(|nets| has_family(nets, family)) {
            return Vec::new();
        }
        let partition = Arc::new(self.partition(place, family));
        let mut found = Vec::new();
        for (own, members) in by_own_classes(nets, &partition.own, family) {
            let members = Arc::new(members);
            let width = own.len() * partition.services.len();
            let peers: Vec<usize> = (0..partition.peers.len()).collect();
            for peers in peers.chunks((MOST_CELLS / width.max(1)).max(1)) {
                let answers = packets::ask(&self.states, place, &partition, &own, peers);
                found.extend(boxes::changes(&partition, &members, (&own, peers), &answers));
            }
        }
        found
    }

    fn partition(&self, place: &Place<'_>, family: Family) -> Partition {
        let mut criteria = Criteria::new(family);
        for (state, chain) in self.states.iter().zip(place.chains) {
            for one in settled(&state.program().settings, place.kind, place.direction) {
                criteria.add_settled(one, place.direction);
            }
            for rule in chain.into_iter().flat_map(|chain| state.rules(chain)) {
                criteria.add(state, rule);
            }
        }
        let (sources, destinations, services) = criteria.classes();
        let (own, peers) = match place.direction {
            Direction::Ingress => (destinations, sources),
            Direction::Egress => (sources, destinations),
        };
        Partition { family, own, peers, services }
    }

    /// Of each member the nets of its own addresses in either state.
    fn nets(&self, direction: Direction, members: &[[Option<EndpointId>; 2]]) -> Vec<Vec<Span>> {
        if members.is_empty() {
            return vec![Vec::new()];
        }
        let of = |state: &State, id: EndpointId| own_nets(state.program().endpoint(id), direction);
        let nets = |both: &[Option<EndpointId>; 2]| {
            let sides = self.states.iter().zip(both);
            sides.filter_map(|(state, id)| Some(of(state, (*id)?))).flatten().collect()
        };
        members.iter().map(nets).collect()
    }
}

/// Addresses of a family, from the first to the last.
type Span = (Family, u128, u128);

fn own_nets(endpoint: &Endpoint, direction: Direction) -> Vec<Span> {
    match direction {
        Direction::Ingress => {
            let numbers = endpoint.addresses.iter().map(|&address| address_number(address));
            numbers.map(|(family, number)| (family, number, number)).collect()
        }
        Direction::Egress => endpoint.sources.iter().map(|net| (net.family, net.first, net.last)).collect(),
    }
}

/// Whether packets of this family can be its own; without nets any can.
fn has_family(nets: &[Span], family: Family) -> bool {
    nets.is_empty() || nets.iter().any(|net| net.0 == family)
}

/// Members by the classes that their own addresses lie in; nobody who has no address of the family.
fn by_own_classes(nets: &[Vec<Span>], own: &AddressClasses, family: Family) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut groups = indexmap::IndexMap::<Vec<usize>, Vec<usize>>::new();
    for (member, nets) in nets.iter().enumerate().filter(|(_, nets)| has_family(nets, family)) {
        let classes = if nets.is_empty() || own.len() == 1 {
            (0..own.len()).collect()
        } else {
            own.classes_of(nets.iter().filter(|net| net.0 == family).map(|&(_, first, last)| (first, last)))
        };
        groups.entry(classes).or_default().push(member);
    }
    groups.into_iter().collect()
}
