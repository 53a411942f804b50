//! Rule lists that have been read: rules in their flat form, but that what several share has no numbers yet.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::addresses;
use super::error::{CompileError, Place};
use super::expression::Expression;
use super::nets::{RuleNets, SideNets, exists_in};
use super::sets::{NamedPorts, Sets};
use super::shared::Shared;
use crate::flow::{Direction, Family, OutcomeId};
use crate::model::{self, Entity, ServiceName};
use crate::program::{
    Action, AddressSet, AddressSetId, Icmp, Net, PortMatch, PortSetId, Reason, Rule, RuleList, RuleListId,
    RuleOrigin, Side,
};
use crate::selector::Selector;

/// Whose rules they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// [`super::order::OrderedPolicy::id`].
    Policy(usize),
    /// By name.
    Profile(String),
}

/// Rule lists that have been read.
pub type Templates = FxHashMap<(Owner, Direction), Template>;

/// Rules as they are written.
pub struct RuleSource<'a> {
    /// `Kind/namespace/name` or `Kind/name`.
    pub key: &'a str,
    /// Empty for global policies and profiles.
    pub namespace: &'a str,
    /// None for profiles.
    pub tier: Option<&'a str>,
    pub direction: Direction,
    pub rules: &'a [model::Rule],
}

/// A rule list, and what gives its rules numbers.
pub struct Template {
    /// With the numbers of the last compile that it was part of.
    list: Arc<RuleList>,
    /// What each rule means.
    pub origins: Vec<Arc<RuleOrigin>>,
    /// The sets that rules speak of, in the order in which they get numbers.
    pub criteria: Vec<Criterion>,
    /// How many rules somebody has written.
    pub written: usize,
    /// The last compile that it was part of, and its number there.
    pub used: (u64, RuleListId),
    numbers: Numbers,
}

/// Of the parts of a template.
#[derive(PartialEq)]
pub struct Numbers {
    /// That of the first rule's meaning; the others follow.
    pub outcome: OutcomeId,
    /// Of each criterion its set's.
    pub sets: Vec<u32>,
}

/// What the origins of a list's rules share.
struct Names {
    tier: Option<Arc<str>>,
    policy: Arc<str>,
}

/// What an address, or a port, of packets that a rule matches has to do with a set.
pub struct Criterion {
    /// The rule, by its place in the list.
    rule: u32,
    end: End,
    relation: Relation,
    pub part: Part,
}

/// Of a packet.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

#[derive(Clone, Copy)]
enum Relation {
    In,
    NotIn,
    Ports,
    NotPorts,
}

/// A set that a rule speaks of.
pub enum Part {
    Nets(Shared<AddressSet>),
    /// Of [`Sets::of_members`].
    Members(usize),
    /// Of [`Sets::of_ports`].
    NamedPorts(usize),
    ServiceAddresses(Box<ServiceName>),
    ServicePorts(Box<ServiceName>),
}

impl Template {
    pub fn read(source: &RuleSource<'_>, sets: &mut Sets) -> Result<Self, CompileError> {
        let names = Names { tier: source.tier.map(Arc::from), policy: Arc::from(source.key) };
        let count = source.rules.len();
        let (mut rules, mut origins) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut criteria = Vec::with_capacity(2 * count);
        for index in 0..u32::try_from(count).expect("a policy has at most 1024 rules") {
            let rule = read_rule(source, index, sets, &mut criteria)?;
            origins.push(Arc::new(origin(source, index, &names, rule.action)));
            rules.push(rule);
        }
        Ok(Self::new(source, rules, origins, criteria))
    }

    /// a profile that does not exist denies.
    pub fn missing_profile(key: &str, direction: Direction) -> Self {
        let reason = Reason::MissingProfile;
        let origin = RuleOrigin {
            tier: None,
            policy: Some(Arc::from(key)),
            direction: Some(direction),
            rule: None,
            action: reason.action(),
            reason,
        };
        let rule = Rule { families: [true, true], ..bare(Action::Deny) };
        let source = RuleSource { key, namespace: "", tier: None, direction, rules: &[] };
        Self::new(&source, vec![rule], vec![Arc::new(origin)], Vec::new())
    }

    fn new(
        source: &RuleSource<'_>,
        rules: Vec<Rule>,
        origins: Vec<Arc<RuleOrigin>>,
        criteria: Vec<Criterion>,
    ) -> Self {
        let tier = source.tier.unwrap_or_default().to_owned();
        let list = RuleList { policy: source.key.to_owned(), tier, direction: source.direction, rules };
        Self {
            list: Arc::new(list),
            origins,
            criteria,
            written: source.rules.len(),
            used: (0, RuleListId::new(0)),
            numbers: Numbers { outcome: OutcomeId::new(0), sets: Vec::new() },
        }
    }

    /// The list with these numbers; the very list from before, if they are those from before.
    pub fn numbered(&mut self, numbers: Numbers) -> &Arc<RuleList> {
        if self.used.0 == 0 || self.numbers != numbers {
            // The first time, and where no program has it any more, in place.
            let rules = &mut Arc::make_mut(&mut self.list).rules;
            for (rule, outcome) in rules.iter_mut().zip(numbers.outcome.number()..) {
                rule.outcome = OutcomeId::from_number(outcome);
            }
            number(rules, &self.criteria, &numbers.sets, self.used.0 > 0);
            self.numbers = numbers;
        }
        &self.list
    }
}

/// Gives rules their sets, in the place of others if they have some.
fn number(rules: &mut [Rule], criteria: &[Criterion], numbers: &[u32], have_some: bool) {
    let mut numbers = numbers.iter().copied();
    for criteria in criteria.chunk_by(|a, b| a.rule == b.rule) {
        let rule = &mut rules[criteria[0].rule as usize];
        if have_some {
            clear(&mut rule.source);
            clear(&mut rule.destination);
        }
        for (criterion, number) in criteria.iter().zip(&mut numbers) {
            let side = match criterion.end {
                End::Source => &mut rule.source,
                End::Destination => &mut rule.destination,
            };
            match criterion.relation {
                Relation::In => side.in_sets.push(AddressSetId::from_number(number)),
                Relation::NotIn => side.not_in_sets.push(AddressSetId::from_number(number)),
                Relation::Ports => name_port(&mut side.ports, number),
                Relation::NotPorts => name_port(&mut side.not_ports, number),
            }
        }
    }
}

fn clear(side: &mut Side) {
    side.in_sets.clear();
    side.not_in_sets.clear();
    for ports in [&mut side.ports, &mut side.not_ports].into_iter().flatten() {
        if !ports.named.is_empty() {
            Arc::make_mut(ports).named.clear();
        }
    }
}

/// Sorted, without duplicates.
fn name_port(ports: &mut Option<Arc<PortMatch>>, number: u32) {
    let named = &mut Arc::make_mut(ports.get_or_insert_default()).named;
    let set = PortSetId::from_number(number);
    if let Err(place) = named.binary_search(&set) {
        named.insert(place, set);
    }
}

/// A rule that is for no family and has no criteria and no meaning yet.
fn bare(action: Action) -> Rule {
    Rule {
        action,
        outcome: OutcomeId::from_number(0),
        families: [false, false],
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Side::default(),
        destination: Side::default(),
    }
}

fn read_rule(
    source: &RuleSource<'_>,
    index: u32,
    sets: &mut Sets,
    criteria: &mut Vec<Criterion>,
) -> Result<Rule, CompileError> {
    let rule = &source.rules[index as usize];
    let list = match source.direction {
        Direction::Ingress => "spec.ingress",
        Direction::Egress => "spec.egress",
    };
    let place = Place::element(source.key, list, index as usize);
    let action = action(&place, &rule.action)?;
    check_version(&place, rule.ip_version)?;
    let nets = RuleNets::of(&place, rule)?;
    // M-33: without a type it imposes nothing beyond the protocol.
    let icmp = |icmp: Option<model::Icmp>| {
        icmp.and_then(|icmp| icmp.kind.map(|kind| Icmp { kind, code: icmp.code }))
    };
    let mut read = |field, end, entity, nets| {
        let mut reader =
            SideReader { list: source, protocol: rule.protocol, place: (index, end), sets, criteria };
        reader.read(&place.at(field), entity, nets)
    };
    Ok(Rule {
        families: [Family::V4, Family::V6].map(|family| exists_in(rule, &nets, family)),
        protocol: rule.protocol,
        not_protocol: rule.not_protocol,
        icmp: icmp(rule.icmp),
        not_icmp: icmp(rule.not_icmp),
        source: read("source", End::Source, &rule.source, &nets.source)?,
        destination: read("destination", End::Destination, &rule.destination, &nets.destination)?,
        ..bare(action)
    })
}

/// Reads a side of a rule; of sets only that it speaks of them.
struct SideReader<'a> {
    list: &'a RuleSource<'a>,
    protocol: Option<u8>,
    /// The rule and its side.
    place: (u32, End),
    sets: &'a mut Sets,
    criteria: &'a mut Vec<Criterion>,
}

impl SideReader<'_> {
    fn read(&mut self, place: &Place<'_>, entity: &Entity, nets: &SideNets) -> Result<Side, CompileError> {
        let expression = Expression::of(place, self.list.namespace, entity)?;
        let union = |nets: &[Net]| {
            let given = !nets.is_empty();
            given.then(|| Part::Nets(Shared::new(addresses::union(nets.iter().copied()))))
        };
        let mut members =
            |selector: &Option<Selector>| Some(Part::Members(self.sets.of_members(selector.as_ref()?)));
        let sets = [
            (Relation::In, union(&nets.nets)),
            (Relation::NotIn, union(&nets.not_nets)),
            (Relation::In, members(&expression.positive)),
            (Relation::NotIn, members(&expression.negative)),
        ];
        for (relation, part) in sets {
            if let Some(part) = part {
                self.add(relation, part);
            }
        }
        let mut side = Side::default();
        // M-25, M-27: a positive expression narrows the named ports of its side, of negated ones too.
        let of = expression.positive.as_ref();
        let given = (&entity.ports[..], &entity.named_ports[..]);
        side.ports = self.ports(&place.at("ports"), given, of, Relation::Ports)?;
        let given = (&entity.not_ports[..], &entity.not_named_ports[..]);
        side.not_ports = self.ports(&place.at("notPorts"), given, of, Relation::NotPorts)?;
        if let Some(service) = &entity.service {
            let (relation, part) = self.service(place, service, &side)?;
            self.add(relation, part);
        }
        Ok(side)
    }

    fn add(&mut self, relation: Relation, part: Part) {
        let (rule, end) = self.place;
        self.criteria.push(Criterion { rule, end, relation, part });
    }

    /// M-17, M-18, M-25, M-27.
    fn ports(
        &mut self,
        place: &Place<'_>,
        (ranges, names): (&[(u16, u16)], &[String]),
        of: Option<&Selector>,
        relation: Relation,
    ) -> Result<Option<Arc<PortMatch>>, CompileError> {
        if ranges.is_empty() && names.is_empty() {
            return Ok(None);
        }
        let merged = || merged_ports(place, ranges);
        if names.is_empty() {
            return self.sets.of_numbers(ranges, merged).map(Some);
        }
        // Sorted before ids are given: the order in the list must not show.
        let mut names: Vec<_> = names.iter().collect();
        names.sort_unstable();
        for name in names {
            let set = NamedPorts { name: name.clone(), protocol: self.protocol, of: of.cloned() };
            let part = Part::NamedPorts(self.sets.of_ports(&set));
            self.add(relation, part);
        }
        Ok(Some(Arc::new(PortMatch { ranges: merged()?, named: Vec::new() })))
    }

    /// M-31: the destination of egress is an address, protocol and port of a backend, so there are no other ports
    /// (V-53). M-32: the source of ingress is the address of a backend.
    fn service(
        &self,
        place: &Place<'_>,
        service: &ServiceName,
        side: &Side,
    ) -> Result<(Relation, Part), CompileError> {
        match self.list.direction {
            Direction::Ingress => Ok((Relation::In, Part::ServiceAddresses(Box::new(service.clone())))),
            Direction::Egress if side.ports.is_some() => {
                Err(place.at("services").error("found together with ports, expected alone (V-53)"))
            }
            Direction::Egress => Ok((Relation::Ports, Part::ServicePorts(Box::new(service.clone())))),
        }
    }
}

fn action(place: &Place<'_>, text: &str) -> Result<Action, CompileError> {
    [Action::Allow, Action::Deny, Action::Pass, Action::Log]
        .into_iter()
        .find(|action| action.name() == text)
        .ok_or_else(|| place.at("action").unexpected(text, "Allow, Deny, Pass or Log"))
}

/// Any other version would make a rule that matches nothing, silently.
fn check_version(place: &Place<'_>, version: Option<u8>) -> Result<(), CompileError> {
    match version {
        None | Some(4 | 6) => Ok(()),
        Some(other) => Err(place.at("ipVersion").unexpected(&other.to_string(), "4 or 6")),
    }
}

fn origin(source: &RuleSource<'_>, index: u32, names: &Names, action: Action) -> RuleOrigin {
    let Names { tier, policy } = names;
    let reason = match (source.tier, action) {
        (None, _) => Reason::ProfileRule,
        (Some(_), Action::Allow) => Reason::RuleAllow,
        (Some(_), Action::Deny) => Reason::RuleDeny,
        (Some(_), Action::Pass) => Reason::RulePass,
        (Some(_), Action::Log) => Reason::RuleLog,
    };
    RuleOrigin {
        tier: tier.clone(),
        policy: Some(Arc::clone(policy)),
        direction: Some(source.direction),
        rule: Some(index),
        action: Some(action),
        reason,
    }
}

/// Sorted, disjoint, maximal.
fn merged_ports(place: &Place<'_>, ranges: &[(u16, u16)]) -> Result<Vec<(u16, u16)>, CompileError> {
    let mut merged = ranges.to_vec();
    if let Some((first, last)) = ranges.iter().filter(|(first, last)| last < first).min() {
        return Err(place.unexpected(&format!("{first}:{last}"), "the smaller port first"));
    }
    merged.sort_unstable();
    merged.dedup_by(|&mut (first, last), open| {
        let touches = open.1.saturating_add(1) >= first;
        if touches {
            open.1 = open.1.max(last);
        }
        touches
    });
    Ok(merged)
}
