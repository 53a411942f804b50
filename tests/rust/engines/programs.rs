//! Random programs, made directly: also what no policy compiles to today.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use labelgate::flow::{Direction, Family, OutcomeId, protocol};
use labelgate::model::HostFacts;
use labelgate::program::{
    Action, AddressSet, AddressSetId, Attachment, Chain, ChainEnd, ChainId, Directed, Endpoint, EndpointKind,
    EndpointToHost, Failsafe, ForwardUnmarked, Icmp, Net, PortMatch, PortSet, PortSetId, Program, Reason,
    Rule, RuleList, RuleListId, RuleOrigin, Settings, Side, Tier, TierEnd, reason_outcomes,
};

use crate::choices::Choices;

/// Every group of protocols that engines treat alike, and some in between.
pub const PROTOCOLS: [u8; 12] = [
    protocol::TCP,
    protocol::UDP,
    protocol::ICMP,
    protocol::ICMPV6,
    protocol::SCTP,
    protocol::UDPLITE,
    protocol::IPIP,
    47,
    0,
    63,
    64,
    255,
];

/// Edges and their neighbours.
pub const PORTS: [u16; 14] = [80, 443, 0, 1, 79, 81, 255, 256, 257, 1023, 1024, 4789, 65534, 65535];

/// Addresses that lie side by side, at the ends, and at the borders of 2^8 and 2^16.
pub const V4: [u32; 16] = [
    0x0a00_0001,
    0x0a00_0002,
    0x0a00_0003,
    0x0a00_00ff,
    0x0a00_0100,
    0x0a00_ffff,
    0x0a01_0000,
    0x0a01_0001,
    0,
    1,
    0xff,
    0x100,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
];

const FD: u128 = 0xfd00 << 112;

/// The same for IPv6.
pub const V6: [u128; 16] = [
    FD + 1,
    FD + 2,
    FD + 3,
    FD + 4,
    FD + 0xffff_ffff,
    FD + (1 << 32),
    FD + (1 << 64) - 1,
    FD + (1 << 64),
    0,
    1,
    2,
    (1 << 64) - 1,
    1 << 64,
    1 << 127,
    u128::MAX - 1,
    u128::MAX,
];

/// Interfaces of hosts and workloads, and ones that nobody has.
pub const INTERFACES: [&str; 7] = ["cali0", "eth0", "cali1", "eth1", "lo", "cali9", ""];

/// What [`program`]s are bound to.
pub fn host() -> HostFacts {
    let address = "10.0.0.1".parse().expect("an address");
    HostFacts {
        interfaces: ["lo", "eth0", "eth1"].map(|name| (name.to_owned(), vec![address])).into(),
        workload_prefixes: vec!["cali".to_owned()],
    }
}

/// A program with everything in it that a chain can meet.
pub fn program(choices: &mut Choices) -> Program {
    let settings = settings(choices);
    let source_ports = choices.chance(50);
    let outcomes = reason_outcomes(&settings);
    let mut make = Maker { choices, outcomes, address_sets: 0, port_sets: 0, source_ports };
    let address_sets = make.choices.list(9, address_set);
    let port_sets = make.choices.list(3, port_set);
    (make.address_sets, make.port_sets) = (address_sets.len(), port_sets.len());
    let mut rule_lists: Vec<_> = (0..=make.choices.below(6)).map(|number| make.rule_list(number)).collect();
    rule_lists.extend(make.choices.chance(15).then(|| make.long_list(rule_lists.len())));
    let chains: Vec<_> = (0..=make.choices.below(8)).map(|_| make.chain(rule_lists.len())).collect();
    let endpoints = endpoints(make.choices, chains.len());
    Program {
        node: Some("edge1".to_owned()),
        settings,
        endpoints: Arc::new(shared(endpoints)),
        chains: Arc::new(chains),
        rule_lists: Arc::new(shared(rule_lists)),
        address_sets: shared(address_sets),
        port_sets: shared(port_sets),
        outcomes: Arc::new(shared(make.outcomes)),
        warnings: Vec::new(),
    }
}

/// A program of one chain, which every endpoint has everywhere: one tier with these rules, then deny. Outcomes are
/// numbered in the order of the rules.
pub fn of_rules(rules: Vec<Rule>, address_sets: Vec<AddressSet>, port_sets: Vec<PortSet>) -> Program {
    let choices = &mut Choices::Listed(Vec::new().into_iter());
    let settings = settings(choices);
    let mut outcomes = reason_outcomes(&settings);
    let end = RuleOrigin {
        tier: None,
        policy: None,
        direction: None,
        rule: None,
        action: None,
        reason: Reason::EndOfTier,
    };
    outcomes.extend((0..).zip(&rules).map(|(number, rule)| RuleOrigin {
        rule: Some(number),
        action: Some(rule.action),
        ..end.clone()
    }));
    outcomes.push(end);
    let outcome = |number| OutcomeId::new(Reason::ALL.len() + number);
    let rules: Vec<_> =
        (0..).zip(rules).map(|(number, rule)| Rule { outcome: outcome(number), ..rule }).collect();
    let tier = Tier {
        name: "default".to_owned(),
        policies: vec![RuleListId::new(0)],
        end: TierEnd::Deny,
        outcome: outcome(rules.len()),
    };
    Program {
        node: Some("edge1".to_owned()),
        settings,
        endpoints: Arc::new(shared(endpoints(choices, 1))),
        chains: Arc::new(vec![Chain { tiers: vec![tier], end: ChainEnd::Profiles(Vec::new()) }]),
        rule_lists: Arc::new(shared(vec![named_list(0, rules)])),
        address_sets: shared(address_sets),
        port_sets: shared(port_sets),
        outcomes: Arc::new(shared(outcomes)),
        warnings: Vec::new(),
    }
}

fn shared<T>(parts: Vec<T>) -> Vec<Arc<T>> {
    parts.into_iter().map(Arc::new).collect()
}

/// One that matches everything; its outcome is given later.
pub fn plain(action: Action) -> Rule {
    Rule {
        action,
        outcome: Reason::RuleAllow.outcome(),
        families: [true, true],
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Side::default(),
        destination: Side::default(),
    }
}

/// Ports by number.
pub fn numeric(ranges: Vec<(u16, u16)>) -> Arc<PortMatch> {
    Arc::new(PortMatch { ranges, named: Vec::new() })
}

/// Ports by name.
pub fn named(set: usize) -> Arc<PortMatch> {
    Arc::new(PortMatch { ranges: Vec::new(), named: vec![PortSetId::new(set)] })
}

/// The program, to be read beside a failure.
pub fn shown(program: &Program) -> String {
    let mut text: String = program
        .to_string()
        .lines()
        .map(|line| line.chars().take(300).chain(['\n']).collect::<String>())
        .collect();
    for (number, set) in program.address_sets.iter().enumerate() {
        let few = |set: &str| set.chars().take(200).collect::<String>();
        let (v4, v6) = (format!("{:x?}", set.v4), format!("{:x?}", set.v6));
        writeln!(text, "set {number}: {} {}", few(&v4), few(&v6)).expect("text");
    }
    text
}

struct Maker<'c> {
    choices: &'c mut Choices,
    outcomes: Vec<RuleOrigin>,
    address_sets: usize,
    port_sets: usize,
    /// Rules may ask for source ports: of most policies none does.
    source_ports: bool,
}

impl Maker<'_> {
    /// One that nothing else has, so that no two rules can be taken for each other.
    fn outcome(&mut self, action: Action, reason: Reason) -> OutcomeId {
        let rule = u32::try_from(self.outcomes.len()).ok();
        self.outcomes.push(RuleOrigin {
            tier: None,
            policy: None,
            direction: None,
            rule,
            action: Some(action),
            reason,
        });
        OutcomeId::new(self.outcomes.len() - 1)
    }

    fn rule_list(&mut self, number: usize) -> RuleList {
        let count = self.choices.below(6);
        named_list(number, (0..count).map(|_| self.rule()).collect())
    }

    /// Around the words of bit sets.
    fn long_list(&mut self, number: usize) -> RuleList {
        let count = self.choices.of(&[63, 64, 65, 127, 128, 129, 200]);
        let rules = (0..count).map(|number| {
            let port = 20 + number * 3;
            let action = self.choices.of(&[Action::Allow, Action::Deny, Action::Log, Action::Pass]);
            let mut rule = self.plain(action);
            rule.destination.ports = Some(numeric(vec![(port, port + 4)]));
            if self.choices.chance(30) {
                rule.source.in_sets = self.sets().into();
            }
            rule
        });
        named_list(number, rules.collect())
    }

    fn plain(&mut self, action: Action) -> Rule {
        Rule { outcome: self.outcome(action, Reason::RuleAllow), ..plain(action) }
    }

    fn rule(&mut self) -> Rule {
        let actions = [Action::Allow, Action::Deny, Action::Pass, Action::Log];
        let action = self.choices.of(&actions);
        let rule = self.plain(action);
        let choices = &mut *self.choices;
        let families =
            [[true, true], [true, true], [true, true], [true, false], [false, true], [false, false]];
        Rule {
            families: choices.of(&families),
            protocol: choices.maybe(40, |choices| choices.of(&PROTOCOLS)),
            not_protocol: choices.maybe(10, |choices| choices.of(&PROTOCOLS)),
            icmp: choices.maybe(10, icmp),
            not_icmp: choices.maybe(10, icmp),
            source: self.side(self.source_ports),
            destination: self.side(true),
            ..rule
        }
    }

    fn side(&mut self, has_ports: bool) -> Side {
        Side {
            in_sets: self.sets().into(),
            not_in_sets: if self.choices.chance(30) { self.sets() } else { Vec::new() }.into(),
            ports: (has_ports && self.choices.chance(35)).then(|| self.port_match()),
            not_ports: (has_ports && self.choices.chance(15)).then(|| self.port_match()),
        }
    }

    fn sets(&mut self) -> Vec<AddressSetId> {
        let count = self.address_sets;
        if count == 0 {
            return Vec::new();
        }
        self.choices.list(2, |choices| AddressSetId::new(choices.below(count)))
    }

    fn port_match(&mut self) -> Arc<PortMatch> {
        let mut ranges = self.choices.list(3, |choices| {
            let (a, b) = (choices.of(&PORTS), choices.of(&PORTS));
            if choices.chance(50) { (a, a) } else { (a.min(b), a.max(b)) }
        });
        ranges.sort_unstable();
        let ranges = merged(ranges, |last| last.checked_add(1));
        let count = self.port_sets;
        let named = if count == 0 {
            Vec::new()
        } else {
            self.choices.list(2, |choices| PortSetId::new(choices.below(count)))
        };
        Arc::new(PortMatch { ranges, named })
    }

    fn chain(&mut self, lists: usize) -> Chain {
        let rule_lists = |choices: &mut Choices, most: usize| {
            choices.list(most, |choices| RuleListId::new(choices.below(lists)))
        };
        // Of untracked and preDNAT chains no tier denies, of others every one can.
        let falls = self.choices.chance(20);
        let count = self.choices.below(4);
        let tiers = (0..count).map(|number| {
            let end = match (falls, self.choices.chance(35)) {
                (true, _) => TierEnd::Fall,
                (false, true) => TierEnd::Pass,
                (false, false) => TierEnd::Deny,
            };
            let action = if end == TierEnd::Pass { Action::Pass } else { Action::Deny };
            Tier {
                name: format!("tier{number}"),
                // None: all policies of the tier are staged.
                policies: rule_lists(self.choices, 3),
                end,
                outcome: self.outcome(action, Reason::EndOfTier),
            }
        });
        let tiers = tiers.collect();
        let end = match self.choices.below(4) {
            0 | 1 => ChainEnd::Profiles(rule_lists(self.choices, 3)),
            2 => ChainEnd::Accept,
            _ => ChainEnd::Unmarked(Reason::ForwardUnmarked.outcome()),
        };
        Chain { tiers, end }
    }
}

fn named_list(number: usize, rules: Vec<Rule>) -> RuleList {
    let policy = format!("GlobalNetworkPolicy/p{number}");
    RuleList { policy, tier: "default".to_owned(), direction: Direction::Ingress, rules }
}

fn icmp(choices: &mut Choices) -> Icmp {
    Icmp {
        kind: choices.of(&[8, 0, 3, 128, 255]),
        code: choices.maybe(50, |choices| choices.of(&[0, 1, 255])),
    }
}

/// Of ranges that are sorted by their beginnings: disjoint and maximal.
fn merged<T: Copy + Ord>(sorted: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    let mut merged: Vec<(T, T)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(open) if next(open.1).is_none_or(|next| next >= first) => open.1 = open.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Empty, everything, or some ranges and single addresses that touch each other and the ends.
pub fn address_set(choices: &mut Choices) -> AddressSet {
    let v4 = ranges(choices, &V4, u32::MAX, Choices::address);
    let v6 = ranges(choices, &V6, u128::MAX, Choices::wide);
    AddressSet {
        v4: merged(v4, |last| last.checked_add(1)).into(),
        v6: merged(v6, |last| last.checked_add(1)),
    }
}

fn ranges<T: Copy + Ord + Default>(
    choices: &mut Choices,
    pool: &[T],
    most: T,
    any: impl Fn(&mut Choices) -> T,
) -> Vec<(T, T)> {
    let address = |choices: &mut Choices| if choices.chance(15) { any(choices) } else { choices.of(pool) };
    let mut ranges = match choices.below(12) {
        0 => vec![(most, most)],
        1 => Vec::new(),
        2 => vec![(T::default(), most)],
        3 => vec![(T::default(), address(choices))],
        4 => vec![(address(choices), most)],
        5..=8 => choices.list(6, |choices| {
            let single = address(choices);
            (single, single)
        }),
        _ => choices.list(4, |choices| {
            let (a, b) = (address(choices), address(choices));
            (a.min(b), a.max(b))
        }),
    };
    ranges.sort_unstable();
    ranges
}

pub fn port_set(choices: &mut Choices) -> PortSet {
    let members = choices.list(6, |choices| {
        let (family, address) = if choices.chance(50) {
            (Family::V6, choices.of(&V6))
        } else {
            (Family::V4, u128::from(choices.of(&V4)))
        };
        (family, address, choices.of(&PROTOCOLS), choices.of(&PORTS))
    });
    members.into_iter().collect()
}

fn settings(choices: &mut Choices) -> Settings {
    let failsafe = |choices: &mut Choices| Failsafe {
        protocol: choices.of(&[protocol::TCP, protocol::UDP]),
        net: choices.maybe(30, |_| Net { family: Family::V4, first: 0x0a00_0000, last: 0x0aff_ffff }),
        port: choices.of(&PORTS),
    };
    Settings {
        endpoint_to_host: choices.of(&[EndpointToHost::Drop, EndpointToHost::Accept, EndpointToHost::Return]),
        invalid_check: choices.chance(50),
        failsafe_inbound: choices.list(2, failsafe),
        failsafe_outbound: choices.list(2, failsafe),
        workload_vxlan_port: choices.maybe(50, |_| 4789),
        workload_ipip_denied: choices.chance(50),
        forward_unmarked: choices.of(&[
            ForwardUnmarked::Return,
            ForwardUnmarked::Accept,
            ForwardUnmarked::Deny,
        ]),
        exempt_loopback: choices.chance(20),
    }
}

/// Of a workload: none of a family, one, or several, at the edges of what sets hold.
fn own_addresses(choices: &mut Choices) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = choices.list(2, |choices| Ipv4Addr::from(choices.of(&V4)).into());
    addresses.extend(choices.list(2, |choices| IpAddr::from(Ipv6Addr::from(choices.of(&V6)))));
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// A host endpoint on `eth0`, often one on `*`, and the workloads of `cali0` and `cali1`, with any of the chains.
fn endpoints(choices: &mut Choices, chains: usize) -> Vec<Endpoint> {
    let both = |choices: &mut Choices| {
        let mut chain = || ChainId::new(choices.below(chains));
        Directed { ingress: chain(), egress: chain() }
    };
    let attachments = [("h0", Some("eth0")), ("h1", None), ("w0", Some("cali0")), ("w1", Some("cali1"))];
    let everything = [
        Net { family: Family::V4, first: 0, last: 0xffff_ffff },
        Net { family: Family::V6, first: 0, last: u128::MAX },
    ];
    // Without one on `*` there are packets that one chain decides.
    let has_any = choices.chance(50);
    attachments
        .into_iter()
        .filter(|(_, interface)| interface.is_some() || has_any)
        .map(|(name, interface)| {
            let is_host = name.starts_with('h');
            Endpoint {
                name: format!("Endpoint/{name}"),
                short_name: name.to_owned(),
                kind: if is_host { EndpointKind::Host } else { EndpointKind::Workload },
                attachment: interface.map_or(Attachment::Any, |name| Attachment::Name(name.to_owned())),
                addresses: if is_host { Vec::new() } else { own_addresses(choices) },
                sources: if is_host { Vec::new() } else { everything.to_vec() },
                normal: both(choices),
                forward: is_host.then(|| both(choices)),
                untracked: (is_host && interface.is_some()).then(|| both(choices)),
                prednat: is_host.then(|| both(choices).ingress),
            }
        })
        .collect()
}
