//! A chain of a program as plain five-tuple rules for one endpoint, the first match of which decides.

use std::collections::BTreeMap;

use labelgate::flow::{Family, OutcomeId, protocol};
use labelgate::program::{
    Action, AddressSetId, Chain, ChainEnd, PortMatch, Program, Reason, Rule, RuleListId, Side, TierEnd,
};
use labelgate::workload::five_tuples::{self, FIELDS};

/// Inclusive, sorted, disjoint.
type Ranges = Vec<(u32, u32)>;

/// Source address, destination address, source port, destination port (ICMP: type and code), protocol.
type Product = [Ranges; FIELDS];

const SOURCE: usize = 0;
const DESTINATION: usize = 1;
const SOURCE_PORT: usize = 2;
const KEY: usize = 3;
const PROTOCOL: usize = 4;

/// What a packet meets that no rule of its tier or profile decides.
enum End {
    Deny(OutcomeId),
    Next,
}

/// Rules in order, and their end.
struct Segment<'p> {
    lists: &'p [RuleListId],
    end: End,
}

/// Writes the rules of chains.
pub struct Expander<'p> {
    program: &'p Program,
    /// Each with what it means.
    pub rules: Vec<(five_tuples::Rule, OutcomeId)>,
}

impl<'p> Expander<'p> {
    pub fn new(program: &'p Program) -> Self {
        Self { program, rules: Vec::new() }
    }

    /// For packets to an address.
    pub fn to(&mut self, chain: &'p Chain, address: u32) {
        let all: Product = [
            vec![(0, u32::MAX)],
            vec![(address, address)],
            vec![(0, 65535)],
            vec![(0, 65535)],
            vec![(0, 255)],
        ];
        let ChainEnd::Profiles(profiles) = &chain.end else { panic!("a workload's chain ends in profiles") };
        let tiers = chain.tiers.iter().map(|tier| Segment {
            lists: &tier.policies,
            end: if tier.end == TierEnd::Deny { End::Deny(tier.outcome) } else { End::Next },
        });
        let profiles = profiles.chunks(1).map(|lists| Segment { lists, end: End::Next });
        let last = Segment { lists: &[], end: End::Deny(Reason::NoProfileAllows.outcome()) };
        let segments: Vec<_> = tiers.chain(profiles).chain([last]).collect();
        self.segments(&segments, &all);
    }

    /// What packets meet from a segment on. Pass leads to the next one, so that is written for what passes alone.
    fn segments(&mut self, segments: &[Segment<'p>], within: &Product) {
        let Some((segment, next)) = segments.split_first() else { return };
        for list in segment.lists {
            for rule in &self.program.rule_lists[list.index()].rules {
                for product in self.products(rule) {
                    let held = both(&product, within);
                    if held.iter().any(Vec::is_empty) {
                        continue;
                    }
                    match rule.action {
                        Action::Allow | Action::Deny => self.write(&held, rule.outcome),
                        Action::Pass => self.segments(next, &held),
                        Action::Log => {}
                    }
                }
            }
        }
        match segment.end {
            End::Deny(outcome) => self.write(within, outcome),
            End::Next => self.segments(next, within),
        }
    }

    fn products(&self, rule: &Rule) -> Vec<Product> {
        assert!(rule.not_protocol.is_none() && rule.not_icmp.is_none(), "no workload has negated protocols");
        if !rule.families[Family::V4 as usize] {
            return Vec::new();
        }
        let (source, destination) = (&rule.source, &rule.destination);
        let asks_ports = source.ports.is_some() || destination.ports.is_some();
        let protocols = match rule.protocol {
            Some(number) => vec![(number.into(), number.into())],
            None if asks_ports => WITH_PORTS.map(|number| (number.into(), number.into())).to_vec(),
            None => vec![(0, 255)],
        };
        let keys = rule.icmp.map_or((0, 65535), |icmp| {
            let first = u32::from(icmp.kind) << 8 | u32::from(icmp.code.unwrap_or(0));
            (first, first | if icmp.code.is_none() { 0xff } else { 0 })
        });
        let product =
            [self.addresses(source), self.addresses(destination), vec![(0, 65535)], vec![keys], protocols];
        let by_source = self.with_ports(product, source.ports.as_deref(), SOURCE, SOURCE_PORT);
        let ports = destination.ports.as_deref();
        by_source.into_iter().flat_map(|product| self.with_ports(product, ports, DESTINATION, KEY)).collect()
    }

    fn addresses(&self, side: &Side) -> Ranges {
        assert!(side.not_ports.is_none(), "no workload has negated ports");
        let members = |id: &AddressSetId| &self.program.address_sets[id.index()].v4[..];
        let inside = side.in_sets.iter().fold(vec![(0, u32::MAX)], |all, id| shared(&all, members(id)));
        side.not_in_sets.iter().fold(inside, |all, id| shared(&all, &gaps(members(id))))
    }

    /// One product for the numbers, and one for each port that a name stands for.
    fn with_ports(
        &self,
        product: Product,
        ports: Option<&PortMatch>,
        address: usize,
        port: usize,
    ) -> Vec<Product> {
        let Some(PortMatch { ranges, named }) = ports else { return vec![product] };
        let mut by_service: BTreeMap<(u8, u16), Ranges> = BTreeMap::new();
        let members = named.iter().flat_map(|id| self.program.port_sets[id.index()].members());
        for (_, member, protocol, number) in members.filter(|member| member.0 == Family::V4) {
            let member = u32::try_from(member).expect("an IPv4 address");
            by_service.entry((protocol, number)).or_default().push((member, member));
        }
        let named = by_service.into_iter().map(|((protocol, number), mut members)| {
            members.sort_unstable();
            let mut all = product.clone();
            all[address] = shared(&all[address], &members);
            all[port] = vec![(number.into(), number.into())];
            all[PROTOCOL] = shared(&all[PROTOCOL], &[(protocol.into(), protocol.into())]);
            all
        });
        let mut found: Vec<Product> = named.collect();
        let mut numeric = product;
        numeric[port] = ranges.iter().map(|&(first, last)| (first.into(), last.into())).collect();
        found.push(numeric);
        found
    }

    /// Addresses as prefixes, which is all that a peer takes.
    fn write(&mut self, product: &Product, outcome: OutcomeId) {
        let [sources, destinations, ports, keys, protocols] = product;
        for source in sources.iter().copied().flat_map(prefixes) {
            for destination in destinations.iter().copied().flat_map(prefixes) {
                for &port in ports {
                    for &key in keys {
                        for &protocol in protocols {
                            let sides = [source, destination, port, key, protocol];
                            let (low, high) = (sides.map(|side| side.0), sides.map(|side| side.1));
                            self.rules.push((five_tuples::Rule { low, high }, outcome));
                        }
                    }
                }
            }
        }
    }
}

const WITH_PORTS: [u8; 4] = [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::UDPLITE];

fn both(a: &Product, b: &Product) -> Product {
    std::array::from_fn(|field| shared(&a[field], &b[field]))
}

fn shared(a: &[(u32, u32)], b: &[(u32, u32)]) -> Ranges {
    let (mut a, mut b, mut found) = (a, b, Vec::new());
    while let (Some(left), Some(right)) = (a.first(), b.first()) {
        let (first, last) = (left.0.max(right.0), left.1.min(right.1));
        if first <= last {
            found.push((first, last));
        }
        if left.1 < right.1 { a = &a[1..] } else { b = &b[1..] }
    }
    found
}

/// What the ranges leave out.
fn gaps(ranges: &[(u32, u32)]) -> Ranges {
    let starts = ranges.iter().map(|range| range.1.checked_add(1));
    let ends = ranges.iter().map(|range| range.0.checked_sub(1)).chain([Some(u32::MAX)]);
    let gaps = std::iter::once(Some(0)).chain(starts).zip(ends);
    gaps.filter_map(|(first, last)| Some((first?, last?))).filter(|(first, last)| first <= last).collect()
}

/// The prefixes that a range is made of.
fn prefixes((first, last): (u32, u32)) -> Vec<(u32, u32)> {
    let (mut at, end, mut found) = (u64::from(first), u64::from(last) + 1, Vec::new());
    while at < end {
        let aligned = if at == 0 { 32 } else { at.trailing_zeros().min(32) };
        let size = 1_u64 << aligned.min((end - at).ilog2());
        let narrow = |number: u64| u32::try_from(number).expect("within the range");
        found.push((narrow(at), narrow(at + size - 1)));
        at += size;
    }
    found
}
