//! Random packets: half of them aimed at what some rule asks for, all of them at the edges of what a program names.

use std::collections::BTreeSet;
use std::sync::Arc;

use labelgate::flow::{
    CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, Transport, address_number, protocol,
};
use labelgate::program::{AddressSet, Attachment, Endpoint, EndpointKind, PortMatch, Program, Rule, Side};
use labelgate::table::{DecisionTable, Stage};

use crate::choices::Choices;
use crate::programs::{INTERFACES, PORTS, PROTOCOLS, V4, V6};

/// What is worth asking about.
pub struct Aims<'p> {
    program: &'p Program,
    rules: Vec<&'p Rule>,
    addresses: [Vec<u128>; 2],
    ports: Vec<u16>,
    protocols: Vec<u8>,
}

/// A packet as numbers, before its protocol says which of them it shows.
struct Draft {
    family: Family,
    addresses: [u128; 2],
    protocol: u8,
    ports: [u16; 2],
}

impl<'p> Aims<'p> {
    /// First, last, and one beyond, of every set, range and named port.
    pub fn at(program: &'p Program) -> Self {
        let mut addresses = [V4.map(u128::from).to_vec(), V6.to_vec()];
        for set in &program.address_sets {
            for family in [Family::V4, Family::V6] {
                let ranges = ranges_of(set, family).into_iter();
                addresses[family as usize].extend(ranges.flat_map(|(first, last)| around(first, last)));
            }
        }
        let (mut ports, mut protocols) = (PORTS.to_vec(), PROTOCOLS.to_vec());
        for (family, address, protocol, port) in program.port_sets.iter().flat_map(|set| set.members()) {
            addresses[family as usize].extend(around(address, address));
            ports.push(port);
            protocols.push(protocol);
        }
        let rules: Vec<_> = program.rule_lists.iter().flat_map(|list| &list.rules).collect();
        for &(first, last) in rules.iter().flat_map(|rule| port_ranges(rule)) {
            ports.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
        }
        addresses[0].retain(|&address| address <= 0xffff_ffff);
        for list in &mut addresses {
            list.sort_unstable();
            list.dedup();
        }
        ports.sort_unstable();
        ports.dedup();
        Self { program, rules, addresses, ports, protocols }
    }

    /// An address that some set begins or ends with, or is next to, or any.
    pub fn address(&self, choices: &mut Choices, family: Family) -> u128 {
        if choices.chance(10) {
            return choices.wide() >> if family == Family::V4 { 96 } else { 0 };
        }
        choices.of(&self.addresses[family as usize])
    }

    /// The same for ports.
    pub fn port(&self, choices: &mut Choices) -> u16 {
        if choices.chance(10) { choices.port() } else { choices.of(&self.ports) }
    }

    /// A protocol that some rule may ask for, or any.
    pub fn protocol(&self, choices: &mut Choices) -> u8 {
        match choices.below(10) {
            0..=3 => protocol::TCP,
            9 => choices.byte(),
            _ => choices.of(&self.protocols),
        }
    }

    /// The bytes of a packet.
    pub fn tuple(&self, choices: &mut Choices) -> FiveTuple {
        let family = if choices.chance(50) { Family::V6 } else { Family::V4 };
        self.tuple_of(choices, family)
    }

    /// The bytes of a packet of this family.
    pub fn tuple_of(&self, choices: &mut Choices, family: Family) -> FiveTuple {
        let addresses = [self.address(choices, family), self.address(choices, family)];
        let ports = [self.port(choices), self.port(choices)];
        let mut draft = Draft { family, addresses, protocol: self.protocol(choices), ports };
        if !self.rules.is_empty() && choices.chance(60) {
            self.aim(choices, &mut draft);
        }
        let Draft { family, addresses: [source, destination], protocol, ports } = draft;
        let transport =
            if choices.chance(10) { Transport::Opaque } else { Transport::of(protocol, ports[0], ports[1]) };
        FiveTuple { family, source, destination, protocol, transport }
    }

    /// Gives the packet what a rule wants of it.
    fn aim(&self, choices: &mut Choices, draft: &mut Draft) {
        let rule = choices.of(&self.rules);
        draft.protocol = rule.protocol.unwrap_or(draft.protocol);
        if let Some(icmp) = rule.icmp.or(rule.not_icmp) {
            draft.ports[1] = u16::from_be_bytes([icmp.kind, icmp.code.unwrap_or(1)]);
            draft.protocol = rule.protocol.unwrap_or_else(|| choices.of(&[protocol::ICMP, protocol::ICMPV6]));
        }
        for (index, side) in [&rule.source, &rule.destination].into_iter().enumerate() {
            if let Some(address) = self.member(choices, side, draft.family) {
                draft.addresses[index] = address;
            }
            for ports in [&side.not_ports, &side.ports].into_iter().flatten() {
                self.aim_at_ports(choices, ports, index, draft);
            }
        }
    }

    fn aim_at_ports(&self, choices: &mut Choices, ports: &PortMatch, side: usize, draft: &mut Draft) {
        let named = ports.named.iter().flat_map(|set| self.program.port_sets[set.index()].members());
        let named: Vec<_> = named.filter(|&(family, ..)| family == draft.family).collect();
        if !named.is_empty() && (ports.ranges.is_empty() || choices.chance(60)) {
            let (_, address, protocol, port) = choices.of(&named);
            (draft.addresses[side], draft.protocol, draft.ports[side]) = (address, protocol, port);
        } else if !ports.ranges.is_empty() {
            let (first, last) = choices.of(&ports.ranges);
            draft.ports[side] = choices.of(&[first, last]);
        }
    }

    /// A border of the first set that must hold the address.
    fn member(&self, choices: &mut Choices, side: &Side, family: Family) -> Option<u128> {
        let set = &self.program.address_sets[side.in_sets.first()?.index()];
        let ranges = ranges_of(set, family);
        if ranges.is_empty() {
            return None;
        }
        let (first, last) = choices.of(&ranges);
        Some(choices.of(&[first, last]))
    }

    /// A question about a packet.
    pub fn key(&self, choices: &mut Choices, table: &DecisionTable) -> FlowKey {
        let (input, output) = (interface(choices, table), interface(choices, table));
        // FORWARD asks most chains.
        let hook = choices.maybe(75, |choices| choices.of(&Hook::ALL)).unwrap_or(Hook::FilterForward);
        let mut tuple = self.tuple(choices);
        // As packets of workloads have them, mostly.
        if let Some(own) = own_address(table, input, tuple.family).filter(|_| choices.chance(60)) {
            tuple.source = own;
        }
        if let Some(own) = own_address(table, output, tuple.family).filter(|_| choices.chance(60)) {
            tuple.destination = own;
        }
        FlowKey {
            tuple,
            hook,
            input,
            output,
            accepted: choices.chance(10),
            // Of known connections no chain is asked, except in raw.
            ct: choices.maybe(10, |choices| choices.of(&CtState::ALL)).unwrap_or(CtState::New),
            dnatted: choices.chance(40),
        }
    }
}

/// One that somebody governs, one that nobody does, or none.
pub fn interface(choices: &mut Choices, table: &DecisionTable) -> InterfaceId {
    match choices.of(&INTERFACES) {
        "" => InterfaceId::NONE,
        name => table.interface(name),
    }
}

/// The first address of this family that the workload behind an interface has.
pub fn own_address(table: &DecisionTable, interface: InterfaceId, family: Family) -> Option<u128> {
    let is_its = |endpoint: &&Arc<Endpoint>| match &endpoint.attachment {
        Attachment::Name(name) => {
            endpoint.kind == EndpointKind::Workload && table.interface(name) == interface
        }
        _ => false,
    };
    let addresses = &table.program().endpoints.iter().find(is_its)?.addresses;
    let numbers = addresses.iter().map(|&address| address_number(address));
    numbers.filter(|&(of, _)| of == family).map(|(_, number)| number).next()
}

/// Pairs of interfaces whose packets meet one chain of each at most in FORWARD, by what traces tell; `most` in all.
pub fn short_pairs(table: &DecisionTable, most: usize) -> Vec<(InterfaceId, InterfaceId)> {
    let ids = || INTERFACES.into_iter().filter(|name| !name.is_empty()).map(|name| table.interface(name));
    let is_short = |&(input, output): &(InterfaceId, InterfaceId)| {
        let transport = Transport::of(protocol::TCP, 1, 1);
        let tuple =
            FiveTuple { family: Family::V4, source: 1, destination: 1, protocol: protocol::TCP, transport };
        let (hook, ct) = (Hook::FilterForward, CtState::New);
        let (_, steps) =
            table.trace(&FlowKey { tuple, hook, input, output, accepted: false, ct, dnatted: false });
        let stages: BTreeSet<_> = steps.iter().map(|step| step.stage.name()).collect();
        let count = |side: [Stage; 2]| side.into_iter().filter(|stage| stages.contains(stage.name())).count();
        let (from, to) =
            (count([Stage::FromHep, Stage::WorkloadEgress]), count([Stage::WorkloadIngress, Stage::ToHep]));
        from.max(to) == 1 && from + to == stages.len() && stages.len() <= most
    };
    ids().flat_map(|input| ids().map(move |output| (input, output))).filter(is_short).collect()
}

fn around(first: u128, last: u128) -> [u128; 4] {
    [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
}

fn ranges_of(set: &AddressSet, family: Family) -> Vec<(u128, u128)> {
    match family {
        Family::V4 => set.v4.iter().map(|&(first, last)| (first.into(), last.into())).collect(),
        Family::V6 => set.v6.clone(),
    }
}

fn port_ranges(rule: &Rule) -> impl Iterator<Item = &(u16, u16)> {
    let sides = [&rule.source, &rule.destination].into_iter();
    sides.flat_map(|side| [&side.ports, &side.not_ports]).flatten().flat_map(|ports| &ports.ranges)
}
