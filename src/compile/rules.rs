//! Rules in their flat form: selectors resolved to sets of members, nets to ranges, names of ports to port sets.
//!
//! The builder owns everything that chains share, so that equal sets, chains and rule lists are one.

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::addresses;
use super::error::{CompileError, Place};
use super::expression::Expression;
use super::members::Members;
use super::nets::{RuleNets, SideNets, exists_in};
use super::services::Services;
use crate::flow::{Direction, Family, OutcomeId};
use crate::model::{self, Entity, Limits, ServiceName};
use crate::program::{
    Action, AddressSet, AddressSetId, Chain, ChainId, Endpoint, Icmp, Net, PortMatch, PortSet, PortSetId,
    Program, Reason, Rule, RuleList, RuleListId, RuleOrigin, Settings, Side, reason_outcomes,
};
use crate::selector::Selector;

/// Equal values become one, numbered in the order of their first use.
type Interned<T> = IndexSet<T, FxBuildHasher>;

/// Whose rules are compiled.
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

/// Collects the shared parts of a program.
pub struct RuleBuilder<'a> {
    members: &'a Members<'a>,
    services: &'a Services,
    limits: &'a Limits,
    address_sets: Interned<AddressSet>,
    port_sets: Interned<PortSet>,
    chains: Interned<Chain>,
    outcomes: Interned<RuleOrigin>,
    rule_lists: Vec<RuleList>,
    list_ids: FxHashMap<(String, Direction), RuleListId>,
    by_selector: FxHashMap<Selector, AddressSetId>,
    by_port: FxHashMap<(String, Option<u8>, Option<Selector>), PortSetId>,
    rule_count: usize,
    address_count: usize,
}

impl<'a> RuleBuilder<'a> {
    pub fn new(members: &'a Members<'a>, services: &'a Services, limits: &'a Limits) -> Self {
        Self {
            members,
            services,
            limits,
            address_sets: Interned::default(),
            port_sets: Interned::default(),
            chains: Interned::default(),
            outcomes: reason_outcomes().into_iter().collect(),
            rule_lists: Vec::new(),
            list_ids: FxHashMap::default(),
            by_selector: FxHashMap::default(),
            by_port: FxHashMap::default(),
            rule_count: 0,
            address_count: 0,
        }
    }

    pub fn chain(&mut self, chain: Chain) -> ChainId {
        ChainId::new(self.chains.insert_full(chain).0)
    }

    pub fn outcome(&mut self, origin: RuleOrigin) -> OutcomeId {
        OutcomeId::new(self.outcomes.insert_full(origin).0)
    }

    /// The rules of one policy or profile in one direction; compiled once.
    pub fn rule_list(&mut self, source: &RuleSource<'_>) -> Result<RuleListId, CompileError> {
        if let Some(&id) = self.list_ids.get(&(source.key.to_owned(), source.direction)) {
            return Ok(id);
        }
        self.rule_count += source.rules.len();
        Place::new("limits", "rules").check_limit(self.rule_count, self.limits.rules)?;
        let rules =
            (0..source.rules.len()).map(|index| self.rule(source, index)).collect::<Result<_, _>>()?;
        Ok(self.push_list(source.key, source.tier.unwrap_or_default(), source.direction, rules))
    }

    /// a profile that does not exist denies.
    pub fn missing_profile(&mut self, key: &str, direction: Direction) -> RuleListId {
        if let Some(&id) = self.list_ids.get(&(key.to_owned(), direction)) {
            return id;
        }
        let reason = Reason::MissingProfile;
        let policy = Some(key.to_owned());
        let outcome =
            self.outcome(RuleOrigin { tier: None, policy, rule: None, action: reason.action(), reason });
        let deny = Rule {
            action: Action::Deny,
            outcome,
            families: [true, true],
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Side::default(),
            destination: Side::default(),
        };
        self.push_list(key, "", direction, vec![deny])
    }

    fn push_list(&mut self, key: &str, tier: &str, direction: Direction, rules: Vec<Rule>) -> RuleListId {
        let id = RuleListId::new(self.rule_lists.len());
        self.rule_lists.push(RuleList { policy: key.to_owned(), tier: tier.to_owned(), direction, rules });
        self.list_ids.insert((key.to_owned(), direction), id);
        id
    }

    fn rule(&mut self, source: &RuleSource<'_>, index: usize) -> Result<Rule, CompileError> {
        let rule = &source.rules[index];
        let direction = source.direction.name().to_lowercase();
        let place = Place::new(source.key, format!("spec.{direction}[{index}]"));
        let action = action(&place, &rule.action)?;
        check_version(&place, rule.ip_version)?;
        let nets = RuleNets::of(&place, rule)?;
        // M-33: without a type it imposes nothing beyond the protocol.
        let icmp = |icmp: Option<model::Icmp>| {
            icmp.and_then(|icmp| icmp.kind.map(|kind| Icmp { kind, code: icmp.code }))
        };
        Ok(Rule {
            action,
            outcome: self.outcome(origin(source, index, action)),
            families: [Family::V4, Family::V6].map(|family| exists_in(rule, &nets, family)),
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            icmp: icmp(rule.icmp),
            not_icmp: icmp(rule.not_icmp),
            source: self.side(&place.at("source"), source, rule.protocol, &rule.source, &nets.source)?,
            destination: self.side(
                &place.at("destination"),
                source,
                rule.protocol,
                &rule.destination,
                &nets.destination,
            )?,
        })
    }

    fn side(
        &mut self,
        place: &Place<'_>,
        source: &RuleSource<'_>,
        protocol: Option<u8>,
        entity: &Entity,
        nets: &SideNets,
    ) -> Result<Side, CompileError> {
        let expression = Expression::of(place, source.namespace, entity)?;
        let mut side = Side::default();
        if !nets.nets.is_empty() {
            side.in_sets.push(self.net_set(&nets.nets)?);
        }
        if !nets.not_nets.is_empty() {
            side.not_in_sets.push(self.net_set(&nets.not_nets)?);
        }
        if let Some(positive) = &expression.positive {
            side.in_sets.push(self.member_set(positive)?);
        }
        if let Some(negative) = &expression.negative {
            side.not_in_sets.push(self.member_set(negative)?);
        }
        // M-25, M-27: a positive expression narrows the named ports of its side, of negated ones too.
        let positive = expression.positive.as_ref();
        let mut ports = |field, ranges: &[_], names: &[_]| {
            self.port_match(&place.at(field), protocol, (ranges, names), positive)
        };
        side.ports = ports("ports", &entity.ports, &entity.named_ports)?;
        side.not_ports = ports("notPorts", &entity.not_ports, &entity.not_named_ports)?;
        if let Some(service) = &entity.service {
            self.add_service(place, source.direction, service, &mut side)?;
        }
        Ok(side)
    }

    /// M-31: the destination of egress is an address, protocol and port of a backend, so there are no other ports
    /// (V-53). M-32: the source of ingress is the address of a backend.
    fn add_service(
        &mut self,
        place: &Place<'_>,
        direction: Direction,
        service: &ServiceName,
        side: &mut Side,
    ) -> Result<(), CompileError> {
        match direction {
            Direction::Ingress => side.in_sets.push(self.address_set(self.services.addresses(service))?),
            Direction::Egress if side.ports.is_some() => {
                return Err(place.at("services").error("found together with ports, expected alone (V-53)"));
            }
            Direction::Egress => {
                let named = vec![self.port_set(self.services.ports(service))?];
                side.ports = Some(PortMatch { ranges: Vec::new(), named });
            }
        }
        Ok(())
    }

    fn net_set(&mut self, nets: &[Net]) -> Result<AddressSetId, CompileError> {
        self.address_set(addresses::union(nets.iter().copied()))
    }

    fn member_set(&mut self, selector: &Selector) -> Result<AddressSetId, CompileError> {
        if let Some(&id) = self.by_selector.get(selector) {
            return Ok(id);
        }
        let id = self.address_set(self.members.addresses(selector))?;
        self.by_selector.insert(selector.clone(), id);
        Ok(id)
    }

    fn address_set(&mut self, set: AddressSet) -> Result<AddressSetId, CompileError> {
        let size = set.v4.len() + set.v6.len();
        let (index, is_new) = self.address_sets.insert_full(set);
        self.count_addresses(if is_new { size } else { 0 })?;
        Ok(AddressSetId::new(index))
    }

    /// M-17, M-18, M-25, M-27.
    fn port_match(
        &mut self,
        place: &Place<'_>,
        protocol: Option<u8>,
        (ranges, names): (&[(u16, u16)], &[String]),
        positive: Option<&Selector>,
    ) -> Result<Option<PortMatch>, CompileError> {
        if ranges.is_empty() && names.is_empty() {
            return Ok(None);
        }
        // Sorted before ids are given: the order in the list must not show.
        let mut names: Vec<_> = names.iter().map(String::as_str).collect();
        names.sort_unstable();
        let mut sets = names
            .into_iter()
            .map(|name| self.named_port(name, protocol, positive))
            .collect::<Result<Vec<_>, _>>()?;
        sets.sort_unstable();
        sets.dedup();
        Ok(Some(PortMatch { ranges: merged_ports(place, ranges)?, named: sets }))
    }

    fn named_port(
        &mut self,
        name: &str,
        protocol: Option<u8>,
        positive: Option<&Selector>,
    ) -> Result<PortSetId, CompileError> {
        let key = (name.to_owned(), protocol, positive.cloned());
        if let Some(&id) = self.by_port.get(&key) {
            return Ok(id);
        }
        let id = self.port_set(self.members.ports(name, protocol, positive))?;
        self.by_port.insert(key, id);
        Ok(id)
    }

    fn port_set(&mut self, set: PortSet) -> Result<PortSetId, CompileError> {
        let size = set.members.len();
        let (index, is_new) = self.port_sets.insert_full(set);
        self.count_addresses(if is_new { size } else { 0 })?;
        Ok(PortSetId::new(index))
    }

    fn count_addresses(&mut self, more: usize) -> Result<(), CompileError> {
        self.address_count += more;
        Place::new("limits", "addresses").check_limit(self.address_count, self.limits.addresses)
    }

    pub fn into_program(
        self,
        node: Option<&str>,
        settings: Settings,
        endpoints: Vec<Endpoint>,
        warnings: Vec<String>,
    ) -> Program {
        Program {
            node: node.map(str::to_owned),
            settings,
            endpoints,
            chains: self.chains.into_iter().collect(),
            rule_lists: self.rule_lists,
            address_sets: self.address_sets.into_iter().collect(),
            port_sets: self.port_sets.into_iter().collect(),
            outcomes: self.outcomes.into_iter().collect(),
            warnings,
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

fn origin(source: &RuleSource<'_>, index: usize, action: Action) -> RuleOrigin {
    let reason = match (source.tier, action) {
        (None, _) => Reason::ProfileRule,
        (Some(_), Action::Allow) => Reason::RuleAllow,
        (Some(_), Action::Deny) => Reason::RuleDeny,
        (Some(_), Action::Pass) => Reason::RulePass,
        (Some(_), Action::Log) => Reason::RuleLog,
    };
    RuleOrigin {
        tier: source.tier.map(str::to_owned),
        policy: Some(source.key.to_owned()),
        rule: Some(u32::try_from(index).expect("a policy has at most 1024 rules")),
        action: Some(action),
        reason,
    }
}

/// Sorted, disjoint, maximal.
fn merged_ports(place: &Place<'_>, ranges: &[(u16, u16)]) -> Result<Vec<(u16, u16)>, CompileError> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        if last < first {
            return Err(place.unexpected(&format!("{first}:{last}"), "the smaller port first"));
        }
        match merged.last_mut() {
            Some(open) if open.1.saturating_add(1) >= first => open.1 = open.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Ok(merged)
}
