//! Which policies govern a local endpoint, by kind and direction (E-1, E-10..E-28), and its profiles (E-20.8).

use std::collections::BTreeMap;

use super::addresses;
use super::error::CompileError;
use super::members::{as_nets, effective, is_present, profile_labels};
use super::order::{OrderedPolicy, PolicyOrder};
use super::rules::{RuleBuilder, RuleSource};
use crate::flow::Direction;
use crate::labels::InheritedLabels;
use crate::model::{Host, Model, Profile, Workload};
use crate::program::{
    Attachment, Chain, ChainEnd, ChainId, Directed, Endpoint, EndpointKind, Reason, RuleListId, RuleOrigin,
    Tier, TierEnd,
};

/// E-10.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Untracked,
    Prednat,
    Normal,
    Forward,
}

impl Kind {
    /// E-10: which of an endpoint's lists the policy is in.
    fn holds(self, ordered: &OrderedPolicy<'_>) -> bool {
        let policy = ordered.policy;
        match self {
            Self::Untracked => policy.do_not_track,
            Self::Prednat => policy.pre_dnat && !policy.do_not_track,
            Self::Normal => !policy.do_not_track && !policy.pre_dnat,
            Self::Forward => !policy.do_not_track && !policy.pre_dnat && policy.apply_on_forward,
        }
    }
}

/// E-14: the direction is in the policy's types.
fn governs(ordered: &OrderedPolicy<'_>, direction: Direction) -> bool {
    match direction {
        Direction::Ingress => ordered.policy.applies_ingress,
        Direction::Egress => ordered.policy.applies_egress,
    }
}

/// The policies that select one endpoint, tier by tier.
struct Selected<'a> {
    tiers: Vec<(&'a str, bool, Vec<&'a OrderedPolicy<'a>>)>,
}

impl Selected<'_> {
    fn has(&self, kind: Kind) -> bool {
        self.tiers.iter().any(|(_, _, policies)| policies.iter().any(|policy| kind.holds(policy)))
    }

    fn has_directed(&self, kind: Kind, direction: Direction) -> bool {
        let here = |policy: &&OrderedPolicy<'_>| kind.holds(policy) && governs(policy, direction);
        self.tiers.iter().any(|(_, _, policies)| policies.iter().any(here))
    }
}

pub struct Chains<'m, 'b> {
    model: &'m Model,
    order: &'m PolicyOrder<'m>,
    builder: &'b mut RuleBuilder<'m>,
    warnings: &'b mut Vec<String>,
    profiles: BTreeMap<&'m str, &'m Profile>,
    profile_labels: BTreeMap<&'m str, &'m BTreeMap<String, String>>,
}

impl<'m, 'b> Chains<'m, 'b> {
    pub fn new(
        model: &'m Model,
        order: &'m PolicyOrder<'m>,
        builder: &'b mut RuleBuilder<'m>,
        warnings: &'b mut Vec<String>,
    ) -> Self {
        let profiles = model.profiles.iter().map(|profile| (profile.name.as_str(), profile)).collect();
        Self { model, order, builder, warnings, profiles, profile_labels: profile_labels(model) }
    }

    /// The endpoints of the node (all workloads where none is given), hosts first, sorted by name.
    pub fn endpoints(mut self, node: Option<&str>) -> Result<Vec<Endpoint>, CompileError> {
        let model = self.model;
        let mut hosts: Vec<_> = model.hosts.iter().filter(|host| Some(host.node.as_str()) == node).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let is_local =
            |workload: &&Workload| is_present(workload) && node.is_none_or(|node| workload.node == node);
        let mut workloads: Vec<_> = model.workloads.iter().filter(is_local).collect();
        workloads.sort_by(|a, b| a.name.cmp(&b.name));
        let mut endpoints = Vec::with_capacity(hosts.len() + workloads.len());
        for host in hosts {
            endpoints.push(self.host(host)?);
        }
        for workload in workloads {
            endpoints.push(self.workload(workload, node.is_none())?);
        }
        Ok(endpoints)
    }

    /// E-11: workloads have the normal list only.
    fn workload(&mut self, workload: &'m Workload, remote: bool) -> Result<Endpoint, CompileError> {
        let labels = effective(&workload.labels, &workload.profiles, &self.profile_labels);
        let selected = self.selected(&labels);
        let name = workload.name.as_str();
        let read = |text: &String| addresses::address(name, "ipNetworks", text);
        let addresses = workload.networks.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut sources: Vec<_> = as_nets(&addresses).collect();
        for prefix in &workload.spoofed_prefixes {
            sources.push(addresses::net(name, "allowSpoofedSourcePrefixes", prefix)?);
        }
        sources.sort_unstable();
        sources.dedup();
        Ok(Endpoint {
            name: name.to_owned(),
            short_name: name.rsplit('/').next().unwrap_or_default().to_owned(),
            kind: EndpointKind::Workload,
            attachment: if remote {
                Attachment::Remote
            } else {
                Attachment::Name(workload.interface.clone())
            },
            addresses,
            sources,
            normal: self.normal(&selected, &workload.profiles)?,
            forward: None,
            untracked: None,
            prednat: None,
        })
    }

    fn host(&mut self, host: &'m Host) -> Result<Endpoint, CompileError> {
        let labels = effective(&host.labels, &host.profiles, &self.profile_labels);
        let selected = self.selected(&labels);
        let name = format!("HostEndpoint/{}", host.name);
        let read = |text: &String| addresses::address(&name, "expectedIPs", text);
        let attachment = match host.interface.as_str() {
            "" => Attachment::Address,
            "*" => Attachment::Any,
            interface => Attachment::Name(interface.to_owned()),
        };
        let untracked =
            selected.has(Kind::Untracked) && !self.ignores_untracked(&name, &attachment, &selected);
        Ok(Endpoint {
            short_name: host.name.clone(),
            kind: EndpointKind::Host,
            attachment,
            addresses: host.addresses.iter().map(read).collect::<Result<_, _>>()?,
            sources: Vec::new(),
            normal: self.normal(&selected, &host.profiles)?,
            forward: Some(self.forward(&selected)?),
            untracked: if untracked { Some(self.falling(&selected, Kind::Untracked)?) } else { None },
            prednat: if selected.has(Kind::Prednat) {
                Some(self.falling(&selected, Kind::Prednat)?.ingress)
            } else {
                None
            },
            name,
        })
    }

    /// E-47: untracked policy is not supported on `*`.
    fn ignores_untracked(&mut self, name: &str, attachment: &Attachment, selected: &Selected<'_>) -> bool {
        let ignores = *attachment == Attachment::Any;
        if ignores {
            let policies = selected.tiers.iter().flat_map(|(_, _, policies)| policies);
            let keys = policies.filter(|policy| Kind::Untracked.holds(policy)).map(|policy| &policy.key);
            self.warnings.extend(keys.map(|key| {
                format!("{key}: untracked policy is ignored on {name}, whose interfaceName is `*` (E-47)")
            }));
        }
        ignores
    }

    fn selected(&self, labels: &InheritedLabels<'_>) -> Selected<'m> {
        let tiers = self.order.tiers.iter().map(|tier| {
            let policies = tier.policies.iter().filter(|policy| policy.subject.matches(labels)).collect();
            (tier.name, tier.is_pass, policies)
        });
        Selected { tiers: tiers.collect() }
    }

    fn normal(
        &mut self,
        selected: &Selected<'m>,
        profiles: &[String],
    ) -> Result<Directed<ChainId>, CompileError> {
        self.directed(|this, direction| {
            let end = ChainEnd::Profiles(this.profile_lists(profiles, direction)?);
            Ok(Chain { tiers: this.tiers(selected, Kind::Normal, direction)?, end })
        })
    }

    /// E-20.7, E-27, E-28.
    fn forward(&mut self, selected: &Selected<'m>) -> Result<Directed<ChainId>, CompileError> {
        let has = |direction| selected.has_directed(Kind::Forward, direction);
        let has_any = has(Direction::Ingress) || has(Direction::Egress);
        self.directed(|this, direction| {
            let end = match (has(direction), has_any) {
                (_, false) => ChainEnd::Accept,
                (false, true) => ChainEnd::Unmarked(Reason::ForwardOtherDirection.outcome()),
                (true, true) => ChainEnd::Unmarked(Reason::ForwardUnmarked.outcome()),
            };
            Ok(Chain { tiers: this.tiers(selected, Kind::Forward, direction)?, end })
        })
    }

    /// E-22: untracked and preDNAT fall through.
    fn falling(&mut self, selected: &Selected<'m>, kind: Kind) -> Result<Directed<ChainId>, CompileError> {
        self.directed(|this, direction| {
            let end = ChainEnd::Unmarked(Reason::NoRuleMatched.outcome());
            Ok(Chain { tiers: this.tiers(selected, kind, direction)?, end })
        })
    }

    fn directed(
        &mut self,
        mut chain: impl FnMut(&mut Self, Direction) -> Result<Chain, CompileError>,
    ) -> Result<Directed<ChainId>, CompileError> {
        let ingress = chain(self, Direction::Ingress)?;
        let egress = chain(self, Direction::Egress)?;
        Ok(Directed { ingress: self.builder.chain(ingress), egress: self.builder.chain(egress) })
    }

    /// E-20.6, E-26: tiers without a policy here are invisible.
    fn tiers(
        &mut self,
        selected: &Selected<'m>,
        kind: Kind,
        direction: Direction,
    ) -> Result<Vec<Tier>, CompileError> {
        let mut tiers = Vec::new();
        for (name, is_pass, policies) in &selected.tiers {
            let here: Vec<_> =
                policies.iter().filter(|policy| kind.holds(policy) && governs(policy, direction)).collect();
            if here.is_empty() {
                continue;
            }
            let all_staged = here.iter().all(|policy| policy.policy.staged);
            let (end, reason) = match (kind, all_staged, is_pass) {
                (Kind::Untracked | Kind::Prednat, ..) => (TierEnd::Fall, Reason::NoRuleMatched),
                (_, true, _) => (TierEnd::Pass, Reason::EndOfTierStaged),
                (_, _, true) => (TierEnd::Pass, Reason::EndOfTierPass),
                (_, _, false) => (TierEnd::Deny, Reason::EndOfTier),
            };
            let origin = RuleOrigin {
                tier: Some((*name).to_owned()),
                policy: None,
                rule: None,
                action: reason.action(),
                reason,
            };
            let enforced = here.iter().filter(|policy| !policy.policy.staged);
            let lists =
                enforced.map(|policy| self.policy_list(policy, name, direction)).collect::<Result<_, _>>()?;
            let outcome = self.builder.outcome(origin);
            tiers.push(Tier { name: (*name).to_owned(), policies: lists, end, outcome });
        }
        Ok(tiers)
    }

    fn policy_list(
        &mut self,
        ordered: &OrderedPolicy<'_>,
        tier: &str,
        direction: Direction,
    ) -> Result<RuleListId, CompileError> {
        let policy = ordered.policy;
        self.builder.rule_list(&RuleSource {
            key: &ordered.key,
            namespace: &policy.namespace,
            tier: Some(tier),
            direction,
            rules: if direction == Direction::Ingress { &policy.ingress } else { &policy.egress },
        })
    }

    /// E-20.8, R-29.
    fn profile_lists(
        &mut self,
        names: &[String],
        direction: Direction,
    ) -> Result<Vec<RuleListId>, CompileError> {
        let mut lists = Vec::with_capacity(names.len());
        for name in names {
            let key = format!("Profile/{name}");
            let Some(profile) = self.profiles.get(name.as_str()) else {
                lists.push(self.builder.missing_profile(&key, direction));
                continue;
            };
            lists.push(self.builder.rule_list(&RuleSource {
                key: &key,
                namespace: "",
                tier: None,
                direction,
                rules: if direction == Direction::Ingress { &profile.ingress } else { &profile.egress },
            })?);
        }
        Ok(lists)
    }
}
