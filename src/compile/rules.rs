//! Rules in their flat form: selectors resolved to sets of members, nets to ranges, names of ports to port sets.
//!
//! The builder owns everything that chains share, so that equal sets, chains and rule lists are one.

use rustc_hash::FxHashMap;

use super::addresses;
use super::error::CompileError;
use super::intern::Interner;
use super::members::Members;
use super::order::{NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL, parse};
use crate::flow::{Direction, Family, OutcomeId, protocol};
use crate::model::{self, Entity};
use crate::program::{
    Action, AddressSet, AddressSetId, Chain, ChainId, Endpoint, Icmp, Net, PortMatch, PortSet, PortSetId,
    Program, Reason, Rule, RuleList, RuleListId, RuleOrigin, Settings, Side, reason_outcomes,
};
use crate::selector::Selector;

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
    address_sets: Interner<AddressSet>,
    port_sets: Interner<PortSet>,
    chains: Interner<Chain>,
    outcomes: Vec<RuleOrigin>,
    outcome_ids: FxHashMap<RuleOrigin, OutcomeId>,
    rule_lists: Vec<RuleList>,
    list_ids: FxHashMap<(String, Direction), RuleListId>,
    by_selector: FxHashMap<Selector, AddressSetId>,
}

impl<'a> RuleBuilder<'a> {
    pub fn new(members: &'a Members<'a>) -> Self {
        Self {
            members,
            address_sets: Interner::new(),
            port_sets: Interner::new(),
            chains: Interner::new(),
            outcomes: reason_outcomes(),
            outcome_ids: FxHashMap::default(),
            rule_lists: Vec::new(),
            list_ids: FxHashMap::default(),
            by_selector: FxHashMap::default(),
        }
    }

    pub fn chain(&mut self, chain: Chain) -> ChainId {
        ChainId::new(self.chains.index(chain))
    }

    pub fn outcome(&mut self, origin: RuleOrigin) -> OutcomeId {
        let next = OutcomeId::new(self.outcomes.len());
        let id = *self.outcome_ids.entry(origin.clone()).or_insert(next);
        if id == next {
            self.outcomes.push(origin);
        }
        id
    }

    /// The rules of one policy or profile in one direction; compiled once.
    pub fn rule_list(&mut self, source: &RuleSource<'_>) -> Result<RuleListId, CompileError> {
        let name = (source.key.to_owned(), source.direction);
        if let Some(&id) = self.list_ids.get(&name) {
            return Ok(id);
        }
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
        let place = Place { key: source.key, field: format!("spec.{direction}[{index}]") };
        let action = action(&place, &rule.action)?;
        let reason = match (source.tier, action) {
            (None, _) => Reason::ProfileRule,
            (Some(_), Action::Allow) => Reason::RuleAllow,
            (Some(_), Action::Deny) => Reason::RuleDeny,
            (Some(_), Action::Pass) => Reason::RulePass,
            (Some(_), Action::Log) => Reason::RuleLog,
        };
        let outcome = self.outcome(RuleOrigin {
            tier: source.tier.map(str::to_owned),
            policy: Some(source.key.to_owned()),
            rule: Some(u32::try_from(index).expect("a policy has at most 1024 rules")),
            action: Some(action),
            reason,
        });
        let icmp = |icmp: Option<model::Icmp>| {
            icmp.and_then(|icmp| icmp.kind.map(|kind| Icmp { kind, code: icmp.code }))
        };
        let nets = RuleNets::of(&place, rule)?;
        Ok(Rule {
            action,
            outcome,
            families: [Family::V4, Family::V6].map(|family| exists_in(rule, &nets, family)),
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            icmp: icmp(rule.icmp),
            not_icmp: icmp(rule.not_icmp),
            source: self.side(&place.at("source"), source, rule, &rule.source, &nets.source)?,
            destination: self.side(
                &place.at("destination"),
                source,
                rule,
                &rule.destination,
                &nets.destination,
            )?,
        })
    }

    fn side(
        &mut self,
        place: &Place<'_>,
        source: &RuleSource<'_>,
        rule: &model::Rule,
        entity: &Entity,
        nets: &SideNets,
    ) -> Result<Side, CompileError> {
        let expression = Expression::of(place, source.namespace, entity)?;
        let mut side = Side::default();
        if !nets.nets.is_empty() {
            side.in_sets.push(self.net_set(&nets.nets));
        }
        if !nets.not_nets.is_empty() {
            side.not_in_sets.push(self.net_set(&nets.not_nets));
        }
        if let Some(positive) = &expression.positive {
            side.in_sets.push(self.member_set(positive));
        }
        if let Some(negative) = &expression.negative {
            side.not_in_sets.push(self.member_set(negative));
        }
        let positive = expression.positive.as_ref();
        side.ports = self.port_match(rule, &entity.ports, &entity.named_ports, positive);
        side.not_ports = self.port_match(rule, &entity.not_ports, &entity.not_named_ports, positive);
        Ok(side)
    }

    fn net_set(&mut self, nets: &[Net]) -> AddressSetId {
        AddressSetId::new(self.address_sets.index(addresses::union(nets.iter().copied())))
    }

    fn member_set(&mut self, selector: &Selector) -> AddressSetId {
        if let Some(&id) = self.by_selector.get(selector) {
            return id;
        }
        let id = AddressSetId::new(self.address_sets.index(self.members.addresses(selector)));
        self.by_selector.insert(selector.clone(), id);
        id
    }

    /// M-17, M-18, M-25, M-27.
    fn port_match(
        &mut self,
        rule: &model::Rule,
        ranges: &[(u16, u16)],
        names: &[String],
        positive: Option<&Selector>,
    ) -> Option<PortMatch> {
        if ranges.is_empty() && names.is_empty() {
            return None;
        }
        let mut sets: Vec<PortSetId> = names
            .iter()
            .map(|name| self.members.ports(name, rule.protocol, positive))
            .map(|set| PortSetId::new(self.port_sets.index(set)))
            .collect();
        sets.sort_unstable();
        sets.dedup();
        Some(PortMatch { ranges: merged_ports(ranges), named: sets })
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
            chains: self.chains.into_values(),
            rule_lists: self.rule_lists,
            address_sets: self.address_sets.into_values(),
            port_sets: self.port_sets.into_values(),
            outcomes: self.outcomes,
            warnings,
        }
    }
}

/// Where in a resource something stands, for messages.
struct Place<'a> {
    key: &'a str,
    field: String,
}

impl Place<'_> {
    fn at(&self, field: &str) -> Self {
        Self { key: self.key, field: format!("{}.{field}", self.field) }
    }
}

fn action(place: &Place<'_>, text: &str) -> Result<Action, CompileError> {
    [Action::Allow, Action::Deny, Action::Pass, Action::Log]
        .into_iter()
        .find(|action| action.name() == text)
        .ok_or_else(|| {
            CompileError::unexpected(place.key, &place.at("action").field, text, "Allow, Deny, Pass or Log")
        })
}

/// The CIDR lists of a rule.
struct RuleNets {
    source: SideNets,
    destination: SideNets,
}

struct SideNets {
    nets: Vec<Net>,
    not_nets: Vec<Net>,
}

impl RuleNets {
    fn of(place: &Place<'_>, rule: &model::Rule) -> Result<Self, CompileError> {
        let list = |place: &Place<'_>, texts: &[String]| {
            texts
                .iter()
                .map(|text| addresses::net(place.key, &place.field, text))
                .collect::<Result<Vec<_>, _>>()
        };
        let side = |place: &Place<'_>, entity: &Entity| {
            let (nets, not_nets) = (&entity.nets, &entity.not_nets);
            Ok(SideNets {
                nets: list(&place.at("nets"), nets)?,
                not_nets: list(&place.at("notNets"), not_nets)?,
            })
        };
        Ok(Self {
            source: side(&place.at("source"), &rule.source)?,
            destination: side(&place.at("destination"), &rule.destination)?,
        })
    }
}

/// M-10..M-14: whether the rule exists for packets of this family.
fn exists_in(rule: &model::Rule, nets: &RuleNets, family: Family) -> bool {
    let (version, other_icmp) = match family {
        Family::V4 => (4, protocol::ICMPV6),
        Family::V6 => (6, protocol::ICMP),
    };
    let all_of_other_family = |list: &[Net]| !list.is_empty() && list.iter().all(|net| net.family != family);
    let last = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
    let holds_everything =
        |list: &[Net]| list.iter().any(|net| net.family == family && net.first == 0 && net.last == last);
    rule.ip_version.is_none_or(|wanted| wanted == version)
        && rule.protocol != Some(other_icmp)
        && [&nets.source, &nets.destination].into_iter().all(|side| {
            !all_of_other_family(&side.nets)
                && !all_of_other_family(&side.not_nets)
                && !holds_everything(&side.not_nets)
        })
}

/// M-21, M-24: what one entity says about members.
struct Expression {
    /// The address belongs to a member that satisfies this.
    positive: Option<Selector>,
    /// The address belongs to no member that satisfies this.
    negative: Option<Selector>,
}

impl Expression {
    fn of(place: &Place<'_>, namespace: &str, entity: &Entity) -> Result<Self, CompileError> {
        let read = |field: &str, text: &str| {
            let given = !text.is_empty();
            given.then(|| parse(place.key, &place.at(field).field, text)).transpose()
        };
        let mut parts = Vec::new();
        if let Some(accounts) = &entity.service_accounts {
            let selector = read("serviceAccounts.selector", &accounts.selector)?;
            parts.extend(selector.map(|selector| selector.prefixed("pcsa.")));
            if !accounts.names.is_empty() {
                parts.push(Selector::one_of(SERVICE_ACCOUNT_LABEL, accounts.names.iter().cloned()));
            }
        }
        parts.extend(read("selector", &entity.selector)?);
        let not_selector = read("notSelector", &entity.not_selector)?;
        let namespace_selector = read("namespaceSelector", &entity.namespace_selector)?;
        let speaks_of_members = !parts.is_empty() || not_selector.is_some() || namespace_selector.is_some();
        let namespace_part = namespace_selector.as_ref().map(in_namespaces).or_else(|| {
            let is_namespaced = !namespace.is_empty();
            is_namespaced.then(|| Selector::equals(NAMESPACE_LABEL, namespace))
        });
        if let Some(part) = namespace_part.filter(|_| speaks_of_members) {
            parts.insert(0, part);
        }
        if parts.is_empty() {
            return Ok(Self { positive: None, negative: not_selector });
        }
        parts.extend(not_selector.map(|selector| !selector));
        Ok(Self { positive: Some(Selector::and(parts)), negative: None })
    }
}

/// M-21.3, M-22.
fn in_namespaces(selector: &Selector) -> Selector {
    let has_namespace = Selector::has(NAMESPACE_LABEL);
    selector.prefixed("pcns.").with_all_and_global(&has_namespace, &!has_namespace.clone())
}

/// Sorted, disjoint, maximal.
fn merged_ports(ranges: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(open) if open.1.saturating_add(1) >= first => open.1 = open.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}
