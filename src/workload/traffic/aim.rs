//! Questions aimed at rules: a point in the sets and ports of a rule that the endpoint has, now and then at their very
//! edges; between them what else comes in: addresses of the cluster, strangers, usual and unusual protocols.

use indexmap::IndexMap;

use super::{Asked, NOBODY, Question, Questions, Target};
use crate::flow::{Direction, Family, InterfaceId, address_number, protocol};
use crate::model::Model;
use crate::program::{AddressSetId, ChainEnd, PortSet, PortSetId, Program, Rule, Side};
use crate::workload::Random;

/// How questions are made.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// Of a hundred questions, those that are aimed at a rule; of the others a fifth comes from a random address, so
    /// that with 50 every tenth is from outside.
    pub aimed: u64,
    /// Whether the far side is the endpoint of another target, too.
    pub between: bool,
    /// How many.
    pub count: usize,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// Ports that the rest of the traffic goes to, the usual ones first.
const PORTS: [u16; 16] =
    [443, 80, 53, 8080, 8443, 22, 5432, 3306, 6379, 9090, 9100, 9200, 27017, 5672, 3000, 8000];

/// Questions to the targets, of which there is at least one, by family and by whom they are put to. `model` tells who
/// else is there.
pub fn aim(program: &Program, model: &Model, targets: &[Target<'_>], aim: Aim) -> Vec<Questions> {
    let mut aimer = Aimer::new(program, model, targets, aim);
    let mut groups: IndexMap<(Asked, Family), Questions> = IndexMap::new();
    for _ in 0..aim.count {
        let target = aimer.random.pick(targets);
        let family = aimer.family(target);
        let question = aimer.question(target, family);
        let group = groups.entry((target.asked, family));
        group.or_insert_with(|| Questions::new(target.asked, family)).push(&question);
    }
    groups.into_values().collect()
}

struct Aimer<'a> {
    program: &'a Program,
    random: Random,
    aimed: u64,
    /// Whom far sides are chosen from, if they are endpoints of targets: addresses and interfaces, by family.
    neighbours: [Vec<(u128, InterfaceId)>; 2],
    /// Addresses of workloads and host endpoints, by family.
    members: [Vec<u128>; 2],
    /// Those that members or sets have an address of.
    families: Vec<Family>,
}

impl<'a> Aimer<'a> {
    fn new(program: &'a Program, model: &Model, targets: &[Target<'_>], aim: Aim) -> Self {
        let workloads = model.workloads.iter().flat_map(|workload| &workload.networks);
        let hosts = model.hosts.iter().flat_map(|host| &host.addresses);
        let mut members = [Vec::new(), Vec::new()];
        for text in workloads.chain(hosts) {
            let address = text.split('/').next().unwrap_or_default();
            // The compiler has refused what cannot be read.
            if let Ok((family, number)) = address.parse().map(address_number) {
                members[family as usize].push(number);
            }
        }
        let has_v4 = program.address_sets.iter().any(|set| !set.v4.is_empty());
        let has_v6 = program.address_sets.iter().any(|set| !set.v6.is_empty());
        let mut families = Vec::new();
        for (family, in_sets) in [(Family::V4, has_v4), (Family::V6, has_v6)] {
            let is_owned = targets.iter().any(|target| target.own.iter().any(|own| own.0 == family));
            if in_sets || is_owned || !members[family as usize].is_empty() {
                families.push(family);
            }
        }
        if families.is_empty() {
            families.push(Family::V4);
        }
        let neighbours = [Family::V4, Family::V6].map(|family| {
            let ingress =
                targets.iter().filter(|target| target.direction == Direction::Ingress && aim.between);
            let own = ingress.flat_map(|target| target.own.iter().map(|own| (own, target.output)));
            own.filter(|(own, _)| own.0 == family).map(|(own, output)| (own.1, output)).collect()
        });
        Self { program, random: Random::new(aim.seed), aimed: aim.aimed, neighbours, members, families }
    }

    fn family(&mut self, target: &Target<'_>) -> Family {
        if target.own.is_empty() {
            return *self.random.pick(&self.families);
        }
        self.random.pick(&target.own).0
    }

    fn question(&mut self, target: &Target<'_>, family: Family) -> Question {
        let rule = if self.random.below(100) < self.aimed { self.rule(target, family) } else { None };
        let addresses: Vec<_> = target.own.iter().filter(|own| own.0 == family).collect();
        let own = if addresses.is_empty() { None } else { Some(self.random.pick(&addresses).1) };
        let mut question = match rule {
            Some(rule) => self.at_rule(target, rule, family, own),
            None => self.other(family),
        };
        match (own, target.direction) {
            (Some(address), Direction::Ingress) => question.destination = address,
            (Some(address), Direction::Egress) => question.source = address,
            (None, _) => {}
        }
        question =
            Question { input: target.input, output: target.output, workload: target.endpoint, ..question };
        match target.direction {
            Direction::Ingress => {
                let sets = rule.map_or(&[][..], |rule| &rule.source.in_sets);
                if let Some(from) = self.neighbour(sets, family, question.destination) {
                    (question.source, question.input) = from;
                }
            }
            Direction::Egress => {
                let sets = rule.map_or(&[][..], |rule| &rule.destination.in_sets);
                if let Some(to) = self.neighbour(sets, family, question.source) {
                    (question.destination, question.output) = to;
                }
            }
        }
        question
    }

    /// One that is in all sets, if there is one; never the endpoint itself.
    fn neighbour(&mut self, sets: &[AddressSetId], family: Family, own: u128) -> Option<(u128, InterfaceId)> {
        let neighbours = &self.neighbours[family as usize];
        if neighbours.is_empty() {
            return None;
        }
        let (before, from) = neighbours.split_at(self.random.index(neighbours.len()));
        let mut others = from.iter().chain(before).filter(|(address, _)| *address != own);
        let is_meant = |(address, _): &&(u128, InterfaceId)| {
            sets.iter().all(|set| self.program.address_sets[set.index()].contains(family, *address))
        };
        others.clone().find(is_meant).or(others.next()).copied()
    }

    /// A rule of the chain that exists in the family: every policy is as likely.
    fn rule(&mut self, target: &Target<'_>, family: Family) -> Option<&'a Rule> {
        let program = self.program;
        let profiles = match &target.chain.end {
            ChainEnd::Profiles(profiles) => profiles.as_slice(),
            ChainEnd::Accept | ChainEnd::Unmarked(_) => &[],
        };
        let policies = target.chain.tiers.iter().flat_map(|tier| &tier.policies);
        let lists: Vec<_> = policies.collect();
        let lists = if lists.is_empty() { profiles.iter().collect() } else { lists };
        if lists.is_empty() {
            return None;
        }
        let rules = &program.rule_lists[self.random.pick(&lists).index()].rules;
        if rules.is_empty() {
            return None;
        }
        let rule = self.random.pick(rules);
        rule.families[family as usize].then_some(rule)
    }

    /// A point in the rule; one question in twenty has one field of another kind.
    fn at_rule(&mut self, target: &Target<'_>, rule: &Rule, family: Family, own: Option<u128>) -> Question {
        let other = if self.random.one_in(20) { self.rule(target, family) } else { None };
        let replaced = self.random.below(3);
        let of = |field| other.filter(|_| replaced == field).unwrap_or(rule);
        let source = self.address(&of(0).source, family);
        let destination = self.address(&of(1).destination, family);
        let (protocol, source_port, destination_port) = self.service(of(2), family, own);
        Question { source, destination, protocol, source_port, destination_port, ..self.other(family) }
    }

    fn address(&mut self, side: &Side, family: Family) -> u128 {
        match side.in_sets.as_slice() {
            [] => self.peer(family),
            sets => {
                let set = *self.random.pick(sets);
                self.member(set, family).unwrap_or_else(|| self.peer(family))
            }
        }
    }

    fn member(&mut self, set: AddressSetId, family: Family) -> Option<u128> {
        let set = &self.program.address_sets[set.index()];
        let (first, last) = match family {
            Family::V4 if set.v4.is_empty() => return None,
            Family::V6 if set.v6.is_empty() => return None,
            Family::V4 => {
                let &(first, last) = self.random.pick(&set.v4);
                (first.into(), last.into())
            }
            Family::V6 => *self.random.pick(&set.v6),
        };
        Some(point(&mut self.random, first, last, end(family)))
    }

    /// Protocol, source port, destination port. A named port is the endpoint's own, if it has it.
    fn service(&mut self, rule: &Rule, family: Family, own: Option<u128>) -> (u8, u16, u16) {
        let (protocol, source_port, destination_port) = self.other_service(family);
        if let Some(icmp) = rule.icmp {
            let code = icmp.code.unwrap_or_else(|| u8::from(self.random.one_in(4)));
            return (icmp_of(family), source_port, u16::from_be_bytes([icmp.kind, code]));
        }
        let by_ports = rule.source.ports.is_some() || rule.destination.ports.is_some();
        let any_with_ports = if self.random.one_in(4) { protocol::UDP } else { protocol::TCP };
        let protocol = rule.protocol.unwrap_or(if by_ports { any_with_ports } else { protocol });
        let (named_source, source_port) = self.port(&rule.source, (family, own), source_port);
        let (named, destination_port) = self.port(&rule.destination, (family, own), destination_port);
        (rule.protocol.or(named).or(named_source).unwrap_or(protocol), source_port, destination_port)
    }

    /// The protocol, if the port has a name, and the port.
    fn port(&mut self, side: &Side, own: (Family, Option<u128>), other: u16) -> (Option<u8>, u16) {
        let Some(ports) = &side.ports else {
            return (None, other);
        };
        let choices = ports.ranges.len() + ports.named.len();
        if choices == 0 {
            return (None, other);
        }
        let choice = self.random.index(choices);
        if let Some(&(first, last)) = ports.ranges.get(choice) {
            let port = point(&mut self.random, first.into(), last.into(), u16::MAX.into());
            return (None, u16::try_from(port).unwrap_or(u16::MAX));
        }
        let named = self.named_port(ports.named[choice - ports.ranges.len()], own);
        named.map_or((None, other), |(protocol, port)| (Some(protocol), port))
    }

    fn named_port(&mut self, set: PortSetId, (family, own): (Family, Option<u128>)) -> Option<(u8, u16)> {
        let set = &*self.program.port_sets[set.index()];
        let of_own = own.and_then(|own| first_of(set, family, own));
        of_own.or_else(|| {
            let number = (!set.is_empty()).then(|| self.random.index(set.len()))?;
            let (.., protocol, port) = set.member(number);
            Some((protocol, port))
        })
    }

    /// A question that is aimed at no rule.
    fn other(&mut self, family: Family) -> Question {
        let source = if self.random.one_in(5) { self.stranger(family) } else { self.peer(family) };
        let (protocol, source_port, destination_port) = self.other_service(family);
        Question {
            source,
            destination: self.peer(family),
            protocol,
            source_port,
            destination_port,
            input: InterfaceId::NONE,
            output: InterfaceId::NONE,
            workload: NOBODY,
        }
    }

    /// A member of the cluster; a stranger where there is none.
    fn peer(&mut self, family: Family) -> u128 {
        match self.members[family as usize].as_slice() {
            [] => self.stranger(family),
            members => *self.random.pick(members),
        }
    }

    /// Any IPv4 address; any IPv6 address of the global unicast space.
    fn stranger(&mut self, family: Family) -> u128 {
        match family {
            Family::V4 => self.random.between_wide(0, u32::MAX.into()),
            Family::V6 => 1 << 125 | self.random.wide() >> 3,
        }
    }

    #[allow(clippy::cast_possible_truncation)] // Drawn below their bounds.
    fn other_service(&mut self, family: Family) -> (u8, u16, u16) {
        let source_port = self.random.bits() as u16;
        let usual = PORTS[self.random.skewed(PORTS.len())];
        let any = 1024 + self.random.below(60_000) as u16;
        match self.random.below(20) {
            0 => (icmp_of(family), source_port, (self.random.below(16) as u16) << 8),
            1 => (self.random.below(256) as u8, source_port, any),
            2..5 => (protocol::UDP, source_port, if self.random.one_in(2) { 53 } else { usual }),
            _ => (protocol::TCP, source_port, if self.random.one_in(4) { any } else { usual }),
        }
    }
}

fn icmp_of(family: Family) -> u8 {
    match family {
        Family::V4 => protocol::ICMP,
        Family::V6 => protocol::ICMPV6,
    }
}

fn end(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    }
}

/// A number of a range; one in eight is its first, its last, or the one next to them outside.
fn point(random: &mut Random, first: u128, last: u128, end: u128) -> u128 {
    if !random.one_in(8) {
        return random.between_wide(first, last);
    }
    *random.pick(&[first, last, first.saturating_sub(1), end.min(last.saturating_add(1))])
}

/// The first protocol and port of an address.
fn first_of(set: &PortSet, family: Family, address: u128) -> Option<(u8, u16)> {
    fn first<T: Copy + Ord>(members: &[(T, u8, u16)], address: T) -> Option<(u8, u16)> {
        let (found, protocol, port) = *members.get(members.partition_point(|member| member.0 < address))?;
        (found == address).then_some((protocol, port))
    }
    match family {
        Family::V4 => first(&set.v4, u32::try_from(address).ok()?),
        Family::V6 => first(&set.v6, address),
    }
}
