//! The chains of the local endpoints (E-10..E-28): what a packet meets, in order, by list and direction.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::addresses;
use super::error::{CompileError, Place};
use super::order::OrderedPolicy;
use super::rules::{RuleBuilder, RuleSource};
use super::selection::{List, Selected};
use crate::flow::{Direction, OutcomeId, number_address};
use crate::model::{Host, Model, Profile, Workload};
use crate::program::{
    Attachment, Chain, ChainEnd, ChainId, Directed, Endpoint, EndpointKind, Net, Reason, RuleListId,
    RuleOrigin, Tier, TierEnd,
};

pub struct Chains<'m, 'b> {
    builder: &'b mut RuleBuilder<'m>,
    profiles: BTreeMap<&'m str, &'m Profile>,
}

impl<'m, 'b> Chains<'m, 'b> {
    pub fn new(model: &'m Model, builder: &'b mut RuleBuilder<'m>) -> Self {
        let profiles = model.profiles.iter().map(|profile| (profile.name.as_str(), profile)).collect();
        Self { builder, profiles }
    }

    /// E-11: workloads have the normal list only.
    pub fn workload(
        &mut self,
        workload: &Workload,
        attachment: Attachment,
        selected: &Selected<'_>,
    ) -> Result<Endpoint, CompileError> {
        let name = workload.name.as_str();
        let own = single_addresses(&Place::new(name, "spec.ipNetworks"), &workload.networks)?;
        let place = Place::new(name, "spec.allowSpoofedSourcePrefixes");
        let spoofed = workload.spoofed_prefixes.iter().map(|text| addresses::net(&place, text));
        let mut sources = spoofed.collect::<Result<Vec<_>, _>>()?;
        sources.extend(&own);
        sources.sort_unstable();
        sources.dedup();
        Ok(Endpoint {
            name: name.to_owned(),
            short_name: name.rsplit('/').next().unwrap_or_default().to_owned(),
            kind: EndpointKind::Workload,
            attachment,
            addresses: as_addresses(&own),
            sources,
            normal: self.normal(selected, &workload.profiles)?,
            forward: None,
            untracked: None,
            prednat: None,
        })
    }

    /// E-11: host endpoints have all four lists; none of untracked policy on `*` (E-47).
    pub fn host(&mut self, host: &Host, selected: &Selected<'_>) -> Result<Endpoint, CompileError> {
        let name = format!("HostEndpoint/{}", host.name);
        let attachment = match host.interface.as_str() {
            "" => Attachment::Address,
            "*" => Attachment::Any,
            interface => Attachment::Name(interface.to_owned()),
        };
        let has = |list| selected.enforced(list).next().is_some();
        let has_untracked = has(List::Untracked) && attachment != Attachment::Any;
        let own = single_addresses(&Place::new(&name, "spec.expectedIPs"), &host.addresses)?;
        Ok(Endpoint {
            short_name: host.name.clone(),
            kind: EndpointKind::Host,
            attachment,
            addresses: as_addresses(&own),
            sources: Vec::new(),
            normal: self.normal(selected, &host.profiles)?,
            forward: Some(self.forward(selected)?),
            untracked: has_untracked
                .then(|| self.directed(|this, direction| this.falling(selected, List::Untracked, direction)))
                .transpose()?,
            prednat: has(List::Prednat)
                .then(|| self.falling(selected, List::Prednat, Direction::Ingress))
                .transpose()?,
            name,
        })
    }

    /// E-20.8.
    fn normal(
        &mut self,
        selected: &Selected<'_>,
        profiles: &[String],
    ) -> Result<Directed<ChainId>, CompileError> {
        self.directed(|this, direction| {
            let tiers = this.tiers(selected, List::Normal, direction)?;
            let end = ChainEnd::Profiles(this.profile_lists(profiles, direction)?);
            Ok(this.builder.chain(Chain { tiers, end }))
        })
    }

    /// E-20.7, E-27, E-28.
    fn forward(&mut self, selected: &Selected<'_>) -> Result<Directed<ChainId>, CompileError> {
        let has = |direction| selected.has_tier(List::Forward, direction);
        let has_any = has(Direction::Ingress) || has(Direction::Egress);
        self.directed(|this, direction| {
            let tiers = this.tiers(selected, List::Forward, direction)?;
            let end = match (has_any, tiers.is_empty()) {
                (false, _) => ChainEnd::Accept,
                (true, true) => ChainEnd::Unmarked(Reason::ForwardOtherDirection.outcome()),
                (true, false) => ChainEnd::Unmarked(Reason::ForwardUnmarked.outcome()),
            };
            Ok(this.builder.chain(Chain { tiers, end }))
        })
    }

    /// E-22: untracked and preDNAT fall through.
    fn falling(
        &mut self,
        selected: &Selected<'_>,
        list: List,
        direction: Direction,
    ) -> Result<ChainId, CompileError> {
        let tiers = self.tiers(selected, list, direction)?;
        let end = ChainEnd::Unmarked(Reason::NoRuleMatched.outcome());
        Ok(self.builder.chain(Chain { tiers, end }))
    }

    fn directed(
        &mut self,
        mut chain: impl FnMut(&mut Self, Direction) -> Result<ChainId, CompileError>,
    ) -> Result<Directed<ChainId>, CompileError> {
        let ingress = chain(self, Direction::Ingress)?;
        let egress = chain(self, Direction::Egress)?;
        Ok(Directed { ingress, egress })
    }

    /// E-20.6, E-26: tiers without a policy here are invisible.
    fn tiers(
        &mut self,
        selected: &Selected<'_>,
        list: List,
        direction: Direction,
    ) -> Result<Vec<Tier>, CompileError> {
        let mut tiers = Vec::new();
        for (tier, policies) in selected.tiers(list, direction) {
            let enforced: Vec<_> = policies.iter().filter(|policy| !policy.policy.staged).collect();
            let (end, reason) = match (list, enforced.is_empty(), tier.is_pass) {
                (List::Untracked | List::Prednat, ..) => (TierEnd::Fall, Reason::NoRuleMatched),
                (_, true, _) => (TierEnd::Pass, Reason::EndOfTierStaged),
                (_, _, true) => (TierEnd::Pass, Reason::EndOfTierPass),
                (_, _, false) => (TierEnd::Deny, Reason::EndOfTier),
            };
            let lists = enforced.into_iter().map(|policy| self.policy_list(policy, tier.name, direction));
            tiers.push(Tier {
                name: tier.name.to_owned(),
                policies: lists.collect::<Result<_, _>>()?,
                end,
                outcome: self.end_of_tier(tier.name, end, reason),
            });
        }
        Ok(tiers)
    }

    fn end_of_tier(&mut self, tier: &str, end: TierEnd, reason: Reason) -> OutcomeId {
        if end == TierEnd::Fall {
            return reason.outcome();
        }
        let tier = Some(tier.to_owned());
        self.builder.outcome(RuleOrigin { tier, policy: None, rule: None, action: reason.action(), reason })
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
            lists.push(match self.profiles.get(name.as_str()) {
                None => self.builder.missing_profile(&key, direction),
                Some(profile) => self.builder.rule_list(&RuleSource {
                    key: &key,
                    namespace: "",
                    tier: None,
                    direction,
                    rules: if direction == Direction::Ingress { &profile.ingress } else { &profile.egress },
                })?,
            });
        }
        Ok(lists)
    }
}

/// Sorted, without duplicates.
fn single_addresses(place: &Place<'_>, texts: &[String]) -> Result<Vec<Net>, CompileError> {
    let read = texts.iter().map(|text| addresses::single(place, text));
    let mut nets = read.collect::<Result<Vec<_>, _>>()?;
    nets.sort_unstable();
    nets.dedup();
    Ok(nets)
}

fn as_addresses(nets: &[Net]) -> Vec<IpAddr> {
    nets.iter().map(|net| number_address(net.family, net.first)).collect()
}
