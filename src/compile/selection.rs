//! Which policies select which local endpoints, and into which of an endpoint's lists they go (E-1, E-10..E-15).

use rustc_hash::FxHashMap;
use slab::Slab;

use super::order::{OrderedPolicy, Tiers};
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
        let policy = &ordered.policy;
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
#[derive(Default)]
pub struct Selected<'a> {
    tiers: Vec<(SelectedTier<'a>, Vec<&'a OrderedPolicy<'a>>)>,
}

/// Which policies select whom.
#[derive(Clone, Copy)]
pub struct Selection<'a, 'm> {
    pub policies: &'a Slab<OrderedPolicy<'m>>,
    pub tiers: &'a Tiers<'m>,
    /// Of a kind of endpoints: the ids of policies, in order.
    pub selected: &'a FxHashMap<usize, Vec<usize>>,
}

impl<'a> Selection<'a, '_> {
    /// What selects the endpoints of a kind.
    pub fn of(&self, kind: usize) -> Selected<'a> {
        Selected::of(self.selected[&kind].iter().map(|&id| &self.policies[id]), self.tiers)
    }
}

/// A tier of which a policy selects the endpoint.
#[derive(Clone, Copy)]
pub struct SelectedTier<'a> {
    pub name: &'a str,
    /// `defaultAction: Pass`.
    pub is_pass: bool,
}

impl<'a> Selected<'a> {
    /// Of policies in their order.
    fn of(policies: impl IntoIterator<Item = &'a OrderedPolicy<'a>>, order: &Tiers<'_>) -> Self {
        let mut tiers: Vec<(SelectedTier<'a>, Vec<_>)> = Vec::new();
        for ordered in policies {
            let name = ordered.policy.tier.as_str();
            match tiers.last_mut() {
                Some((last, policies)) if last.name == name => policies.push(ordered),
                _ => tiers.push((SelectedTier { name, is_pass: order.is_pass(name) }, vec![ordered])),
            }
        }
        Self { tiers }
    }

    /// E-26: the tiers that have a policy in this list and direction, staged ones included.
    pub fn tiers(
        &self,
        list: List,
        direction: Direction,
    ) -> impl Iterator<Item = (SelectedTier<'a>, Vec<&'a OrderedPolicy<'a>>)> {
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
