//! The packets that the rules of a chain can match, in few services: kernel rules lead past the queue what no rule
//! asks for.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::flow::{Family, protocol};
use crate::program::{Chain, PortMatch, Program, Rule};

/// Inclusive ranges.
type Ports = Vec<(u16, u16)>;

/// Packets of one protocol; with ports, those that have one of them on this side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// IP protocol number.
    pub protocol: u8,
    /// Whose ports.
    pub side: Option<PortSide>,
    /// Sorted, apart; none without a side.
    pub ports: Ports,
}

/// A side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortSide {
    /// Its source.
    Source,
    /// Its destination.
    Destination,
}

/// What one match of iptables holds (`XT_MULTI_PORTS`): a range takes two places.
const MOST_PORTS: usize = 15;
/// Each packet is compared with all of them before it goes past the queue.
const MOST_SERVICES: usize = 8;
const WITH_PORTS: [u8; 4] = [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::UDPLITE];
/// What is no protocol to `iptables -p`: all of them, and extension headers.
const NEVER_MATCHED: [u8; 5] = [0, 43, 44, 51, 60];

/// The services that rules of policies can match, where the end of a tier decides nothing (E-22): whatever these say
/// nothing of meets no rule. `None`: it may be any packet, or these are too many.
pub fn services(program: &Program, chain: &Chain, family: Family) -> Option<Vec<Service>> {
    let mut found: BTreeMap<(u8, Option<PortSide>), Ports> = BTreeMap::new();
    let lists = chain.tiers.iter().flat_map(|tier| &tier.policies);
    let rules = lists.flat_map(|list| &program.rule_lists[list.index()].rules);
    for rule in rules.filter(|rule| rule.families[family as usize]) {
        let protocol = rule.protocol.filter(|protocol| !NEVER_MATCHED.contains(protocol))?;
        let (side, ports) = ports(program, rule, protocol, family).unzip();
        found.entry((protocol, side)).or_default().extend(ports.into_iter().flatten());
    }
    let mut services: Vec<Service> = Vec::new();
    for ((protocol, side), ports) in found {
        let ports = merged(ports);
        if side.is_some() && ports.is_empty() {
            continue; // A name that nobody has.
        }
        if services.last().is_some_and(|last| last.protocol == protocol && last.side.is_none()) {
            continue; // All of the protocol stands before its sides.
        }
        if places(&ports) > MOST_PORTS {
            services.retain(|service| service.protocol != protocol);
            services.push(Service { protocol, side: None, ports: Vec::new() });
        } else {
            services.push(Service { protocol, side, ports });
        }
    }
    (services.len() <= MOST_SERVICES).then_some(services)
}

/// The ports of the side that has fewer of them.
fn ports(program: &Program, rule: &Rule, protocol: u8, family: Family) -> Option<(PortSide, Ports)> {
    let sides = [(PortSide::Destination, &rule.destination), (PortSide::Source, &rule.source)];
    sides
        .into_iter()
        .filter(|_| WITH_PORTS.contains(&protocol))
        .filter_map(|(side, criteria)| {
            Some((side, numbers(program, criteria.ports.as_deref()?, protocol, family)))
        })
        .min_by_key(|(_, ports)| places(ports))
}

/// A name stands for its ports at whatever address.
fn numbers(program: &Program, ports: &PortMatch, protocol: u8, family: Family) -> Ports {
    let named = ports.named.iter().flat_map(|set| program.port_sets[set.index()].members());
    let named = named.filter(|&(of, _, by, _)| (of, by) == (family, protocol)).map(|(.., port)| (port, port));
    merged(ports.ranges.iter().copied().chain(named).collect())
}

fn merged(mut ranges: Ports) -> Ports {
    ranges.sort_unstable();
    let mut apart: Ports = Vec::new();
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => apart.push((first, last)),
        }
    }
    apart
}

fn places(ports: &[(u16, u16)]) -> usize {
    ports.iter().map(|(first, last)| if first == last { 1 } else { 2 }).sum()
}
