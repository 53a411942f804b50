//! A five-tuple rule set as policies of one host endpoint: rules in order, as in a router or a packet filter.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::five_tuples::{FIELDS, Rule};
use super::{Naive, NaiveAnswer};
use crate::flow::{Direction, FiveTuple, Transport};
use crate::model::{self, Entity, Host, HostFacts, Model, Policy, Tier};
use crate::program::Reason;

/// The node of the host endpoint.
pub const NODE: &str = "node0";
/// Where all packets come in.
pub const UPLINK: &str = "eth0";
/// Rules of one policy: about what a policy can hold in the API's store.
const RULES: usize = 1024;
const TIER: &str = "default";
const SOURCE: usize = 0;
const DESTINATION: usize = 1;
const SOURCE_PORT: usize = 2;
const DESTINATION_PORT: usize = 3;
const PROTOCOL: usize = 4;

/// Rules allow and deny in turn; what none of them holds is denied.
fn allows(index: usize) -> bool {
    index.is_multiple_of(2)
}

/// The policies of the rules.
pub fn model(rules: &[Rule]) -> Model {
    let host = Host {
        name: "router".to_owned(),
        node: NODE.to_owned(),
        interface: "*".to_owned(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        profiles: Vec::new(),
        ports: Vec::new(),
    };
    let policies = rules.chunks(RULES).enumerate();
    Model {
        hosts: vec![host],
        tiers: vec![Tier { name: TIER.to_owned(), order: 1.0, pass: false }],
        policies: policies.map(|(index, rules)| policy(index, rules)).collect(),
        ..Model::default()
    }
}

/// What the node looks like.
pub fn host() -> HostFacts {
    HostFacts { interfaces: BTreeMap::from([(UPLINK.to_owned(), Vec::new())]), ..HostFacts::default() }
}

#[allow(clippy::cast_precision_loss)] // Far fewer policies than 2^52.
fn policy(index: usize, rules: &[Rule]) -> Policy {
    let rules = rules.iter().enumerate().map(|(number, of)| rule(index * RULES + number, of));
    Policy {
        kind: "GlobalNetworkPolicy".to_owned(),
        namespace: String::new(),
        name: format!("rules{index}"),
        tier: TIER.to_owned(),
        order: Some(index as f64),
        selector: String::new(),
        namespace_selector: String::new(),
        service_account_selector: String::new(),
        applies_ingress: true,
        applies_egress: false,
        ingress: rules.collect(),
        egress: Vec::new(),
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
        staged: false,
    }
}

fn rule(index: usize, rule: &Rule) -> model::Rule {
    let one_protocol = rule.low[PROTOCOL] == rule.high[PROTOCOL];
    model::Rule {
        action: if allows(index) { "Allow" } else { "Deny" }.to_owned(),
        protocol: one_protocol.then(|| number(rule.low[PROTOCOL])),
        source: entity(rule, SOURCE, SOURCE_PORT),
        destination: entity(rule, DESTINATION, DESTINATION_PORT),
        ..model::Rule::default()
    }
}

/// Full ranges are no criteria.
fn entity(rule: &Rule, address: usize, port: usize) -> Entity {
    let (first, last) = (rule.low[address], rule.high[address]);
    let length = (first ^ last).leading_zeros();
    let ports = (number(rule.low[port]), number(rule.high[port]));
    Entity {
        nets: if length == 0 { Vec::new() } else { vec![format!("{}/{length}", Ipv4Addr::from_bits(first))] },
        ports: if ports == (0, u16::MAX) { Vec::new() } else { vec![ports] },
        ..Entity::default()
    }
}

/// A field in its own width.
pub fn number<T: TryFrom<u32>>(field: u32) -> T {
    T::try_from(field).ok().expect("fields hold numbers of their width")
}

/// The rules in order, one after the other.
#[derive(Debug)]
pub struct NaiveRules {
    rules: Vec<Rule>,
    names: Vec<String>,
}

impl NaiveRules {
    /// Of [`model`].
    pub fn new(rules: &[Rule]) -> Self {
        let names = (0..rules.len().div_ceil(RULES)).map(|index| format!("GlobalNetworkPolicy/rules{index}"));
        Self { names: names.collect(), rules: rules.to_vec() }
    }
}

impl Naive for NaiveRules {
    fn judge(&self, tuple: &FiveTuple) -> Option<NaiveAnswer> {
        // Rules with ports have a protocol with ports: to others it does not matter what stands for them.
        let (source_port, destination_port) = match tuple.transport {
            Transport::Ports { source, destination } => (source, destination),
            Transport::Icmp { .. } | Transport::Opaque => (0, 0),
        };
        let mut packet = [0; FIELDS];
        packet[SOURCE] = u32::try_from(tuple.source).ok()?;
        packet[DESTINATION] = u32::try_from(tuple.destination).ok()?;
        packet[SOURCE_PORT] = source_port.into();
        packet[DESTINATION_PORT] = destination_port.into();
        packet[PROTOCOL] = tuple.protocol.into();
        let found = self.rules.iter().position(|rule| rule.contains(&packet));
        Some(NaiveAnswer {
            allows: found.is_some_and(allows),
            direction: Direction::Ingress,
            rule: found.map(|index| (index / RULES, index % RULES)).ok_or(Reason::EndOfTier),
        })
    }

    fn policy(&self, index: usize) -> &str {
        &self.names[index]
    }
}
