//! The chains of the local endpoints (E-10..E-28): what a packet meets, in order, by list and direction.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::addresses;
use super::error::{CompileError, Place};
use super::order::OrderedPolicy;
use super::rules::RuleBuilder;
use super::selection::{List, Selected, Selection};
use super::template::{Owner, RuleSource};
use crate::flow::{Direction, OutcomeId, number_address};
use crate::model::{Host, Profile, Workload};
use crate::program::{
    Attachment, Chain, ChainEnd, ChainId, Directed, Endpoint, EndpointKind, Net, Reason, RuleListId,
    RuleOrigin, Tier, TierEnd,
};

/// Profiles by name.
pub type Profiles<'m> = FxHashMap<String, Cow<'m, Profile>>;

pub struct Chains<'m, 'b> {
    pub builder: RuleBuilder<'b, 'm>,
    profiles: &'b Profiles<'m>,
    selection: Selection<'b, 'm>,
    /// Of endpoints with the same labels and profiles.
    normal: FxHashMap<usize, Directed<ChainId>>,
}

impl<'m, 'b> Chains<'m, 'b> {
    pub fn new(
        builder: RuleBuilder<'b, 'm>,
        profiles: &'b Profiles<'m>,
        selection: Selection<'b, 'm>,
    ) -> Self {
        Self { builder, profiles, selection, normal: FxHashMap::default() }
    }

    /// E-11: workloads have the normal list only. `last` is what was made of this workload before.
    pub fn workload(
        &mut self,
        workload: &Workload,
        attachment: impl FnOnce() -> Attachment,
        kind: usize,
        last: Option<&Arc<Endpoint>>,
    ) -> Result<Arc<Endpoint>, CompileError> {
        let normal = self.normal(kind, &workload.profiles)?;
        if let Some(last) = last {
            return Ok(if last.normal == normal {
                Arc::clone(last)
            } else {
                Arc::new(Endpoint { normal, ..Endpoint::clone(last) })
            });
        }
        let name = workload.name.as_str();
        let own = single_addresses(&Place::new(name, "spec.ipNetworks"), &workload.networks)?;
        let place = Place::new(name, "spec.allowSpoofedSourcePrefixes");
        let spoofed = workload.spoofed_prefixes.iter().map(|text| addresses::net(&place, text));
        let mut sources = spoofed.collect::<Result<Vec<_>, _>>()?;
        sources.extend(&own);
        sources.sort_unstable();
        sources.dedup();
        Ok(Arc::new(Endpoint {
            name: name.to_owned(),
            short_name: name.rsplit('/').next().unwrap_or_default().to_owned(),
            kind: EndpointKind::Workload,
            attachment: attachment(),
            addresses: as_addresses(&own),
            sources,
            normal,
            forward: None,
            untracked: None,
            prednat: None,
        }))
    }

    /// E-11: host endpoints have all four lists; none of untracked policy on `*` (E-47).
    pub fn host(
        &mut self,
        host: &Host,
        kind: usize,
        last: Option<&Arc<Endpoint>>,
    ) -> Result<Arc<Endpoint>, CompileError> {
        let selected = &self.selection.of(kind);
        let name = format!("HostEndpoint/{}", host.name);
        let attachment = match host.interface.as_str() {
            "" => Attachment::Address,
            "*" => Attachment::Any,
            interface => Attachment::Name(interface.to_owned()),
        };
        let has = |list| selected.enforced(list).next().is_some();
        let has_untracked = has(List::Untracked) && attachment != Attachment::Any;
        let own = single_addresses(&Place::new(&name, "spec.expectedIPs"), &host.addresses)?;
        let endpoint = Endpoint {
            short_name: host.name.clone(),
            kind: EndpointKind::Host,
            attachment,
            addresses: as_addresses(&own),
            sources: Vec::new(),
            normal: self.normal(kind, &host.profiles)?,
            forward: Some(self.forward(selected)?),
            untracked: has_untracked
                .then(|| self.directed(|this, direction| this.falling(selected, List::Untracked, direction)))
                .transpose()?,
            prednat: has(List::Prednat)
                .then(|| self.falling(selected, List::Prednat, Direction::Ingress))
                .transpose()?,
            name,
        };
        Ok(match last {
            Some(last) if **last == endpoint => Arc::clone(last),
            _ => Arc::new(endpoint),
        })
    }

    /// E-20.8.
    fn normal(&mut self, kind: usize, profiles: &[String]) -> Result<Directed<ChainId>, CompileError> {
        if let Some(&chains) = self.normal.get(&kind) {
            return Ok(chains);
        }
        let selected = &self.selection.of(kind);
        let chains = self.directed(|this, direction| {
            let tiers = this.tiers(selected, List::Normal, direction)?;
            let end = ChainEnd::Profiles(this.profile_lists(profiles, direction)?);
            Ok(this.builder.chain(Chain { tiers, end }))
        })?;
        self.normal.insert(kind, chains);
        Ok(chains)
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
                outcome: self.end_of_tier(tier.name, direction, end, reason),
            });
        }
        Ok(tiers)
    }

    fn end_of_tier(&mut self, tier: &str, direction: Direction, end: TierEnd, reason: Reason) -> OutcomeId {
        if end == TierEnd::Fall {
            return reason.outcome();
        }
        let (tier, direction) = (Some(tier.into()), Some(direction));
        let origin =
            RuleOrigin { tier, policy: None, direction, rule: None, action: reason.action(), reason };
        self.builder.end(origin)
    }

    fn policy_list(
        &mut self,
        ordered: &OrderedPolicy<'_>,
        tier: &str,
        direction: Direction,
    ) -> Result<RuleListId, CompileError> {
        let policy = &ordered.policy;
        self.builder.rule_list(Owner::Policy(ordered.id), direction, || {
            Some(RuleSource {
                key: &ordered.key,
                namespace: &policy.namespace,
                tier: Some(tier),
                direction,
                rules: if direction == Direction::Ingress { &policy.ingress } else { &policy.egress },
            })
        })
    }

    /// E-20.8, R-29.
    fn profile_lists(
        &mut self,
        names: &[String],
        direction: Direction,
    ) -> Result<Vec<RuleListId>, CompileError> {
        let profiles = self.profiles;
        let list = |name: &String| {
            let key = format!("Profile/{name}");
            let source = || {
                let profile = profiles.get(name)?;
                Some(RuleSource {
                    key: &key,
                    namespace: "",
                    tier: None,
                    direction,
                    rules: if direction == Direction::Ingress { &profile.ingress } else { &profile.egress },
                })
            };
            self.builder.rule_list(Owner::Profile(name.clone()), direction, source)
        };
        names.iter().map(list).collect()
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
