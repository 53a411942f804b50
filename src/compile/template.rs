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

/// A rule list without numbers.
pub struct Template {
    policy: String,
    tier: String,
    direction: Direction,
    pub rules: Vec<TemplateRule>,
    /// How many rules somebody has written.
    pub written: usize,
    /// The last compile that it was part of, and its number there.
    pub used: (u64, RuleListId),
    /// Its parts' numbers there, in the order of `rules`.
    pub numbers: Vec<u32>,
    pub list: Option<Arc<RuleList>>,
}

pub struct TemplateRule {
    /// All of it that has no number.
    rule: Rule,
    pub origin: Shared<RuleOrigin>,
    source: Parts,
    destination: Parts,
}

/// What the origins of a list's rules share.
struct Names {
    tier: Option<Arc<str>>,
    policy: Arc<str>,
}

/// The sets of a side, in the order in which they get numbers.
type Parts = Vec<(Criterion, Part)>;

/// What a side's address, or port, has to do with a set.
#[derive(Clone, Copy)]
enum Criterion {
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
    ServiceAddresses(ServiceName),
    ServicePorts(ServiceName),
}

impl Template {
    pub fn read(source: &RuleSource<'_>, sets: &mut Sets) -> Result<Self, CompileError> {
        let names = Names { tier: source.tier.map(Arc::from), policy: Arc::from(source.key) };
        let rules = 0..source.rules.len();
        Ok(Self {
            policy: source.key.to_owned(),
            tier: source.tier.unwrap_or_default().to_owned(),
            direction: source.direction,
            rules: rules
                .map(|index| TemplateRule::read(source, index, &names, sets))
                .collect::<Result<_, _>>()?,
            written: source.rules.len(),
            used: (0, RuleListId::new(0)),
            numbers: Vec::new(),
            list: None,
        })
    }

    /// a profile that does not exist denies.
    pub fn missing_profile(key: &str, direction: Direction) -> Self {
        let reason = Reason::MissingProfile;
        let policy = Some(Arc::from(key));
        let rule = TemplateRule {
            rule: Rule { families: [true, true], ..bare(Action::Deny) },
            origin: Shared::new(RuleOrigin {
                tier: None,
                policy,
                direction: Some(direction),
                rule: None,
                action: reason.action(),
                reason,
            }),
            source: Vec::new(),
            destination: Vec::new(),
        };
        Self {
            policy: key.to_owned(),
            tier: String::new(),
            direction,
            rules: vec![rule],
            written: 0,
            used: (0, RuleListId::new(0)),
            numbers: Vec::new(),
            list: None,
        }
    }

    /// The list with these numbers: for each rule that of its origin, then those of its parts.
    pub fn numbered(&self, numbers: &[u32]) -> RuleList {
        let mut numbers = numbers.iter().copied();
        let rules = self.rules.iter().map(|template| {
            let mut rule = template.rule.clone();
            rule.outcome = OutcomeId::from_number(numbers.next().expect("one for each rule"));
            number(&mut rule.source, &template.source, &mut numbers);
            number(&mut rule.destination, &template.destination, &mut numbers);
            rule
        });
        let rules = rules.collect();
        RuleList { policy: self.policy.clone(), tier: self.tier.clone(), direction: self.direction, rules }
    }
}

/// Gives a side its sets.
fn number(side: &mut Side, parts: &Parts, numbers: &mut impl Iterator<Item = u32>) {
    for ((criterion, _), number) in parts.iter().zip(numbers) {
        match criterion {
            Criterion::In => side.in_sets.push(AddressSetId::from_number(number)),
            Criterion::NotIn => side.not_in_sets.push(AddressSetId::from_number(number)),
            Criterion::Ports => name_port(&mut side.ports, number),
            Criterion::NotPorts => name_port(&mut side.not_ports, number),
        }
    }
    for ports in [&mut side.ports, &mut side.not_ports].into_iter().flatten() {
        ports.named.sort_unstable();
        ports.named.dedup();
    }
}

fn name_port(ports: &mut Option<PortMatch>, number: u32) {
    ports.get_or_insert_default().named.push(PortSetId::from_number(number));
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

impl TemplateRule {
    /// The sets that it speaks of, in the order in which they get numbers.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.source.iter().chain(&self.destination).map(|(_, part)| part)
    }

    fn read(
        source: &RuleSource<'_>,
        index: usize,
        names: &Names,
        sets: &mut Sets,
    ) -> Result<Self, CompileError> {
        let rule = &source.rules[index];
        let list = match source.direction {
            Direction::Ingress => "spec.ingress",
            Direction::Egress => "spec.egress",
        };
        let place = Place::element(source.key, list, index);
        let action = action(&place, &rule.action)?;
        check_version(&place, rule.ip_version)?;
        let nets = RuleNets::of(&place, rule)?;
        // M-33: without a type it imposes nothing beyond the protocol.
        let icmp = |icmp: Option<model::Icmp>| {
            icmp.and_then(|icmp| icmp.kind.map(|kind| Icmp { kind, code: icmp.code }))
        };
        let mut reader = SideReader { list: source, protocol: rule.protocol, sets };
        let (own, peer) = (place.at("source"), place.at("destination"));
        let (from, from_parts) = reader.read(&own, &rule.source, &nets.source)?;
        let (to, to_parts) = reader.read(&peer, &rule.destination, &nets.destination)?;
        Ok(Self {
            rule: Rule {
                families: [Family::V4, Family::V6].map(|family| exists_in(rule, &nets, family)),
                protocol: rule.protocol,
                not_protocol: rule.not_protocol,
                icmp: icmp(rule.icmp),
                not_icmp: icmp(rule.not_icmp),
                source: from,
                destination: to,
                ..bare(action)
            },
            origin: Shared::new(origin(source, index, names, action)),
            source: from_parts,
            destination: to_parts,
        })
    }
}

/// Reads the sides of one rule.
struct SideReader<'a> {
    list: &'a RuleSource<'a>,
    protocol: Option<u8>,
    sets: &'a mut Sets,
}

impl SideReader<'_> {
    fn read(
        &mut self,
        place: &Place<'_>,
        entity: &Entity,
        nets: &SideNets,
    ) -> Result<(Side, Parts), CompileError> {
        let expression = Expression::of(place, self.list.namespace, entity)?;
        let union = |nets: &[Net]| {
            let given = !nets.is_empty();
            given.then(|| Part::Nets(Shared::new(addresses::union(nets.iter().copied()))))
        };
        let mut members =
            |selector: &Option<Selector>| Some(Part::Members(self.sets.of_members(selector.as_ref()?)));
        let sets = [
            (Criterion::In, union(&nets.nets)),
            (Criterion::NotIn, union(&nets.not_nets)),
            (Criterion::In, members(&expression.positive)),
            (Criterion::NotIn, members(&expression.negative)),
        ];
        let mut parts: Parts =
            sets.into_iter().filter_map(|(criterion, part)| Some((criterion, part?))).collect();
        let mut side = Side::default();
        // M-25, M-27: a positive expression narrows the named ports of its side, of negated ones too.
        let of = expression.positive.as_ref();
        let given = (&entity.ports[..], &entity.named_ports[..]);
        side.ports = self.ports(&place.at("ports"), given, of, Criterion::Ports, &mut parts)?;
        let given = (&entity.not_ports[..], &entity.not_named_ports[..]);
        side.not_ports = self.ports(&place.at("notPorts"), given, of, Criterion::NotPorts, &mut parts)?;
        if let Some(service) = &entity.service {
            parts.push(self.service(place, service, &side)?);
        }
        Ok((side, parts))
    }

    /// M-17, M-18, M-25, M-27.
    fn ports(
        &mut self,
        place: &Place<'_>,
        (ranges, names): (&[(u16, u16)], &[String]),
        of: Option<&Selector>,
        criterion: Criterion,
        parts: &mut Parts,
    ) -> Result<Option<PortMatch>, CompileError> {
        if ranges.is_empty() && names.is_empty() {
            return Ok(None);
        }
        // Sorted before ids are given: the order in the list must not show.
        let mut names: Vec<_> = names.iter().collect();
        names.sort_unstable();
        for name in names {
            let set = NamedPorts { name: name.clone(), protocol: self.protocol, of: of.cloned() };
            parts.push((criterion, Part::NamedPorts(self.sets.of_ports(&set))));
        }
        Ok(Some(PortMatch { ranges: merged_ports(place, ranges)?, named: Vec::new() }))
    }

    /// M-31: the destination of egress is an address, protocol and port of a backend, so there are no other ports
    /// (V-53). M-32: the source of ingress is the address of a backend.
    fn service(
        &self,
        place: &Place<'_>,
        service: &ServiceName,
        side: &Side,
    ) -> Result<(Criterion, Part), CompileError> {
        match self.list.direction {
            Direction::Ingress => Ok((Criterion::In, Part::ServiceAddresses(service.clone()))),
            Direction::Egress if side.ports.is_some() => {
                Err(place.at("services").error("found together with ports, expected alone (V-53)"))
            }
            Direction::Egress => Ok((Criterion::Ports, Part::ServicePorts(service.clone()))),
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

fn origin(source: &RuleSource<'_>, index: usize, names: &Names, action: Action) -> RuleOrigin {
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
        rule: Some(u32::try_from(index).expect("a policy has at most 1024 rules")),
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
