//! All that some rules ask of packets of one family, each thing once.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use super::State;
use super::addresses::AddressClasses;
use super::services::ServiceClasses;
use super::settled::{End, Settled};
use crate::flow::{Direction, Family};
use crate::program::{AddressSet, Net, PortMatch, Rule, Side};

/// Of rules that exist for the family: the others match nothing.
pub struct Criteria<'a> {
    family: Family,
    sources: FxHashSet<&'a AddressSet>,
    destinations: FxHashSet<&'a AddressSet>,
    /// Remote sides of failsafe ports: (where, net).
    remotes: FxHashSet<(End, Net)>,
    pub(super) services: Asked,
}

/// With the protocol of the rule; inclusive.
type PortRanges = (Option<u8>, End, Vec<(u16, u16)>);

/// What is asked beside addresses.
#[derive(Default)]
pub struct Asked {
    pub protocols: BTreeSet<u8>,
    /// ICMP `type << 8 | code`, inclusive.
    pub types: BTreeSet<(u16, u16)>,
    pub ranges: FxHashSet<PortRanges>,
    pub named: FxHashSet<(End, u8, u16)>,
    /// Whether ports can be read at all: only negated criteria ask that (M-19).
    pub ports_visible: bool,
    /// Likewise types.
    pub types_visible: bool,
}

impl<'a> Criteria<'a> {
    pub fn new(family: Family) -> Self {
        let services = Asked::default();
        let (sources, destinations, remotes) = Default::default();
        Self { family, sources, destinations, remotes, services }
    }

    pub fn add(&mut self, state: &'a State, rule: &'a Rule) {
        if !rule.families[self.family as usize] {
            return;
        }
        self.services.protocols.extend([rule.protocol, rule.not_protocol].into_iter().flatten());
        for icmp in [rule.icmp, rule.not_icmp].into_iter().flatten() {
            let kind = u16::from(icmp.kind) << 8;
            let span =
                icmp.code.map_or((kind, kind | 255), |code| (kind | u16::from(code), kind | u16::from(code)));
            self.services.types.insert(span);
        }
        self.services.types_visible |= rule.not_icmp.is_some();
        for (end, side) in [(End::Source, &rule.source), (End::Destination, &rule.destination)] {
            self.add_sets(state, end, side);
            for ports in [&side.ports, &side.not_ports].into_iter().flatten() {
                self.add_ports(state, rule.protocol, end, ports);
            }
            self.services.ports_visible |=
                side.not_ports.as_ref().is_some_and(|ports| !ports.ranges.is_empty());
        }
    }

    fn add_sets(&mut self, state: &'a State, end: End, side: &Side) {
        let sets = &state.program().address_sets;
        let asked = side.in_sets.iter().chain(&side.not_in_sets).map(|id| sets[id.index()].as_ref());
        self.sets(end).extend(asked);
    }

    fn add_ports(&mut self, state: &'a State, protocol: Option<u8>, end: End, ports: &PortMatch) {
        if !ports.ranges.is_empty() {
            self.services.ranges.insert((protocol, end, ports.ranges.clone()));
        }
        for (protocol, port, addresses) in ports.named.iter().flat_map(|id| state.members(id.index())) {
            self.services.named.insert((end, *protocol, *port));
            self.sets(end).insert(addresses);
        }
    }

    /// Of a settled rule: its remote side is the source of what comes in, the destination of what goes out.
    pub fn add_settled(&mut self, one: Settled, direction: Direction) {
        if one.remote.is_some_and(|net| net.family != self.family) {
            return;
        }
        self.services.protocols.insert(one.protocol);
        if let Some((end, port)) = one.port {
            self.services.ranges.insert((Some(one.protocol), end, vec![(port, port)]));
        }
        let remote = if direction == Direction::Ingress { End::Source } else { End::Destination };
        self.remotes.extend(one.remote.map(|net| (remote, net)));
    }

    fn sets(&mut self, end: End) -> &mut FxHashSet<&'a AddressSet> {
        match end {
            End::Source => &mut self.sources,
            End::Destination => &mut self.destinations,
        }
    }

    /// Of sources, of destinations, and of services.
    pub fn classes(&self) -> (AddressClasses, AddressClasses, ServiceClasses) {
        let side = |end, sets: &FxHashSet<&AddressSet>| {
            let nets = self.remotes.iter().filter(|remote| remote.0 == end);
            let nets: Vec<_> = nets.map(|(_, net)| set_of(net)).collect();
            AddressClasses::of(self.family, &sets.iter().copied().chain(&nets).collect::<Vec<_>>())
        };
        let (sources, destinations) =
            (side(End::Source, &self.sources), side(End::Destination, &self.destinations));
        (sources, destinations, ServiceClasses::of(&self.services, self.family))
    }
}

fn set_of(net: &Net) -> AddressSet {
    AddressSet::default().with(net.family, net.first, net.last).expect("an empty set holds none of them")
}
