//! Which policies select which local endpoints, and into which of an endpoint's lists they go (E-1, E-10..E-15).

use super::index::LabelIndex;
use super::order::{OrderedPolicy, OrderedTier};
use crate::flow::Direction;

/// The four lists of an endpoint (E-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Untracked,
    Prednat,
    Normal,
    Forward,
}

impl List {
    fn holds(self, ordered: &OrderedPolicy<'_>) -> bool {
        let policy = ordered.policy;
        let is_tracked = !policy.do_not_track;
        match self {
            Self::Untracked => policy.do_not_track,
            Self::Prednat => is_tracked && policy.pre_dnat,
            Self::Normal => is_tracked && !policy.pre_dnat,
            Self::Forward => is_tracked && !policy.pre_dnat && policy.apply_on_forward,
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

/// The policies that select one endpoint: tiers in order, policies in order, no tier empty.
#[derive(Clone, Default)]
pub struct Selected<'a> {
    tiers: Vec<(&'a OrderedTier<'a>, Vec<&'a OrderedPolicy<'a>>)>,
}

/// What selects each of the endpoints whose labels are given.
pub fn select<'a>(tiers: &'a [OrderedTier<'a>], endpoints: &LabelIndex<'_>) -> Vec<Selected<'a>> {
    let mut selected = vec![Selected::default(); endpoints.count()];
    for tier in tiers {
        for policy in &tier.policies {
            for endpoint in endpoints.matching(&policy.subject) {
                selected[endpoint].push(tier, policy);
            }
        }
    }
    selected
}

impl<'a> Selected<'a> {
    fn push(&mut self, tier: &'a OrderedTier<'a>, policy: &'a OrderedPolicy<'a>) {
        match self.tiers.last_mut() {
            Some((last, policies)) if last.name == tier.name => policies.push(policy),
            _ => self.tiers.push((tier, vec![policy])),
        }
    }

    /// E-26: the tiers that have a policy in this list and direction, staged ones included.
    pub fn tiers(
        &self,
        list: List,
        direction: Direction,
    ) -> impl Iterator<Item = (&'a OrderedTier<'a>, Vec<&'a OrderedPolicy<'a>>)> {
        let is_here = move |policy: &&'a OrderedPolicy<'a>| list.holds(policy) && governs(policy, direction);
        self.tiers
            .iter()
            .map(move |&(tier, ref policies)| {
                (tier, policies.iter().copied().filter(is_here).collect::<Vec<_>>())
            })
            .filter(|(_, policies)| !policies.is_empty())
    }

    /// Whether a tier has a policy in this list and direction: also a staged one (E-28).
    pub fn has_tier(&self, list: List, direction: Direction) -> bool {
        self.tiers(list, direction).next().is_some()
    }

    /// The policies of a list that are enforced: staged ones count only at the end of a tier (E-15), so they alone
    /// give a host endpoint no untracked or preDNAT chain.
    pub fn enforced(&self, list: List) -> impl Iterator<Item = &'a OrderedPolicy<'a>> {
        let policies = self.tiers.iter().flat_map(|(_, policies)| policies.iter().copied());
        policies.filter(move |policy| list.holds(policy) && !policy.policy.staged)
    }
}
