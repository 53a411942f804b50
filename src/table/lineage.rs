//! What a program has of the one before it: chains that are the same but for the members of their sets, and the sets
//! that have other members now.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::flat::lists;
use super::named::{NamedPorts, NamedService, named_services, named_services_after};
use crate::flow::{Direction, OutcomeId};
use crate::program::{
    AddressSet, AddressSetId, Chain, ChainEnd, ChainId, PortMatch, PortSetId, Program, Rule, RuleList,
    RuleListId, RuleOrigin, Side, Tier,
};

/// From an older program to a newer one.
#[derive(Debug, Default)]
pub struct Lineage {
    /// Of each new chain: the old one, if that has the same rules, each with the same sets or their successors.
    pub chains: Vec<Option<ChainId>>,
    /// Sets with their successors, where those have other members; those behind named ports too.
    pub sets: Vec<(Arc<AddressSet>, Arc<AddressSet>)>,
    /// Old outcome to the new one of the same meaning.
    pub outcomes: Vec<Option<OutcomeId>>,
    /// What named ports of the new program stand for, as far as it is known.
    pub named: NamedPorts,
}

impl Lineage {
    /// `named` is what named ports of the old program stand for, as far as it is known.
    pub fn of(old: &Program, new: &Program, named: NamedPorts) -> Self {
        let mut named = named;
        if let Some(lineage) = Self::by_number(old, new, &mut named) {
            return lineage;
        }
        let mut finder = Finder {
            old,
            new,
            old_named: named,
            named: NamedPorts::default(),
            changed: Vec::new(),
            sets: Pairs::of_shared(&old.address_sets, &new.address_sets),
            port_sets: Pairs::of_shared(&old.port_sets, &new.port_sets),
            outcomes: Pairs::of_shared(&old.outcomes, &new.outcomes),
        };
        finder.keep_named_ports();
        finder.pair_ends();
        let lists = finder.lists();
        let chains = finder.chains(&lists);
        let outcomes = finder.outcomes.new_of.iter().map(|new| new.map(OutcomeId::from_number)).collect();
        Self { chains, sets: finder.changed, outcomes, named: finder.named }
    }
}

/// Whether a chain has the very rules that one of another program has, with the same sets and the same meanings by the
/// same numbers: what has been made of the one does for the other.
pub fn is_same_chain((old, was): (&Program, ChainId), (new, is): (&Program, ChainId)) -> bool {
    let (before, after) = (old.chain(was), new.chain(is));
    let is_outcome = |id: OutcomeId| old.outcomes.get(id.index()) == new.outcomes.get(id.index());
    let is_tier = |(a, b): (&Tier, &Tier)| {
        a.policies.len() == b.policies.len()
            && a.end == b.end
            && a.outcome == b.outcome
            && is_outcome(a.outcome)
    };
    let is_end = match (&before.end, &after.end) {
        (ChainEnd::Profiles(a), ChainEnd::Profiles(b)) => a.len() == b.len(),
        (a, b) => a == b,
    };
    let is_side = |side: &Side| {
        let mut sets = side.in_sets.iter().chain(&side.not_in_sets).map(|set| set.index());
        let mut named = [&side.ports, &side.not_ports].into_iter().flatten().flat_map(|ports| &ports.named);
        sets.all(|set| Arc::ptr_eq(&old.address_sets[set], &new.address_sets[set]))
            && named.all(|set| Arc::ptr_eq(&old.port_sets[set.index()], &new.port_sets[set.index()]))
    };
    let is_list = |(a, b): (RuleListId, RuleListId)| {
        let (a, b) = (&old.rule_lists[a.index()], &new.rule_lists[b.index()]);
        let mut rules = a.rules.iter();
        Arc::ptr_eq(a, b)
            && rules
                .all(|rule| is_outcome(rule.outcome) && is_side(&rule.source) && is_side(&rule.destination))
    };
    is_end
        && before.tiers.len() == after.tiers.len()
        && before.tiers.iter().zip(&after.tiers).all(is_tier)
        && lists(before).zip(lists(after)).all(is_list)
}

/// Whether all parts are those of before, in their places.
fn are_same<T>(old: &Arc<Vec<Arc<T>>>, new: &Arc<Vec<Arc<T>>>) -> bool {
    Arc::ptr_eq(old, new)
        || old.len() == new.len() && old.iter().zip(&**new).all(|(old, new)| Arc::ptr_eq(old, new))
}

/// The numbers of sets that are others than before; `None` if one of those is in both programs.
fn replaced<T>(old: &[Arc<T>], new: &[Arc<T>]) -> Option<Vec<usize>> {
    let numbers = 0..old.len();
    let replaced: Vec<usize> = numbers.filter(|&number| !Arc::ptr_eq(&old[number], &new[number])).collect();
    let of =
        |sets: &[Arc<T>]| -> FxHashSet<_> { replaced.iter().map(|&set| Arc::as_ptr(&sets[set])).collect() };
    let (gone, come) = (of(old), of(new));
    let stays = |(old, new)| gone.contains(&Arc::as_ptr(new)) || come.contains(&Arc::as_ptr(old));
    (!old.iter().zip(new).any(stays)).then_some(replaced)
}

impl Lineage {
    /// Of programs that differ in nothing but the members of their sets: those keep their numbers then.
    fn by_number(old: &Program, new: &Program, named: &mut NamedPorts) -> Option<Self> {
        let is_same = are_same(&old.rule_lists, &new.rule_lists)
            && are_same(&old.outcomes, &new.outcomes)
            && old.chains == new.chains
            && old.address_sets.len() == new.address_sets.len()
            && old.port_sets.len() == new.port_sets.len();
        if !is_same {
            return None;
        }
        let sets = replaced(&old.address_sets, &new.address_sets)?;
        let both =
            |number: usize| (Arc::clone(&old.address_sets[number]), Arc::clone(&new.address_sets[number]));
        let mut sets: Vec<_> = sets.into_iter().map(both).collect();
        let mut after = Vec::new();
        for number in replaced(&old.port_sets, &new.port_sets)? {
            // One that nobody has asked about yet stays so.
            if let Some(was) = named.get(&PortSetId::new(number)) {
                let is = named_services_after(was, &old.port_sets[number], &new.port_sets[number])?;
                sets.extend(successors(was, &is));
                after.push((PortSetId::new(number), is));
            }
        }
        named.extend(after);
        Some(Self {
            chains: (0..new.chains.len()).map(|chain| Some(ChainId::new(chain))).collect(),
            sets,
            outcomes: (0..new.outcomes.len()).map(|outcome| Some(OutcomeId::new(outcome))).collect(),
            named: std::mem::take(named),
        })
    }
}

/// The sets behind a named port that have other members now.
fn successors(was: &[NamedService], is: &[NamedService]) -> Vec<(Arc<AddressSet>, Arc<AddressSet>)> {
    let both = was.iter().zip(is).map(|((.., was), (.., is))| (was, is));
    let changed = both.filter(|(was, is)| !Arc::ptr_eq(was, is));
    changed.map(|(was, is)| (Arc::clone(was), Arc::clone(is))).collect()
}

/// Which old part a new one is, both ways.
struct Pairs {
    new_of: Vec<Option<u32>>,
    old_of: Vec<Option<u32>>,
}

impl Pairs {
    /// Parts that are in both programs.
    fn of_shared<T>(old: &[Arc<T>], new: &[Arc<T>]) -> Self {
        let ids: FxHashMap<_, u32> = old.iter().map(Arc::as_ptr).zip(0..).collect();
        let mut pairs = Self { new_of: vec![None; old.len()], old_of: vec![None; new.len()] };
        for (part, new) in new.iter().zip(0..) {
            if let Some(&old) = ids.get(&Arc::as_ptr(part)) {
                pairs.join(old, new);
            }
        }
        pairs
    }

    fn join(&mut self, old: u32, new: u32) {
        (self.new_of[old as usize], self.old_of[new as usize]) = (Some(new), Some(old));
    }

    /// Whether they are one, if one of the two is known.
    fn known(&self, old: u32, new: u32) -> Option<bool> {
        match (self.new_of[old as usize], self.old_of[new as usize]) {
            (None, None) => None,
            (next, last) => Some(next == Some(new) && last == Some(old)),
        }
    }
}

struct Finder<'a> {
    old: &'a Program,
    new: &'a Program,
    old_named: NamedPorts,
    named: NamedPorts,
    changed: Vec<(Arc<AddressSet>, Arc<AddressSet>)>,
    sets: Pairs,
    port_sets: Pairs,
    outcomes: Pairs,
}

impl Finder<'_> {
    fn keep_named_ports(&mut self) {
        for (old, new) in (0..).zip(&self.port_sets.new_of) {
            if let Some(new) = new
                && let Some(services) = self.old_named.remove(&PortSetId::new(old))
            {
                self.named.insert(PortSetId::from_number(*new), services);
            }
        }
    }

    /// Outcomes without a rule are made anew for each program.
    fn pair_ends(&mut self) {
        fn ends(outcomes: &[Arc<RuleOrigin>]) -> impl Iterator<Item = (&RuleOrigin, u32)> {
            outcomes.iter().map(|origin| &**origin).zip(0..).filter(|(origin, _)| origin.rule.is_none())
        }
        let ids: FxHashMap<&RuleOrigin, u32> = ends(&self.old.outcomes).collect();
        for (origin, new) in ends(&self.new.outcomes) {
            if let Some(&old) = ids.get(origin) {
                self.outcomes.join(old, new);
            }
        }
    }

    /// New rule list to the old one that it is.
    fn lists(&mut self) -> Vec<Option<RuleListId>> {
        fn key(list: &RuleList) -> (&str, Direction) {
            (&list.policy, list.direction)
        }
        let (old_lists, new_lists) = (&self.old.rule_lists, &self.new.rule_lists);
        let ids: FxHashMap<_, usize> = old_lists.iter().map(|list| key(list)).zip(0..).collect();
        let mut same = |(index, list): (usize, &Arc<RuleList>)| {
            // Mostly where it was.
            let here = old_lists.get(index).filter(|old| Arc::ptr_eq(old, list));
            let id = here.map(|_| index).or_else(|| ids.get(&key(list)).copied())?;
            let (old, new) = (&old_lists[id].rules, &list.rules);
            let is_same =
                old.len() == new.len() && old.iter().zip(new).all(|(old, new)| self.is_same(old, new));
            is_same.then(|| RuleListId::new(id))
        };
        new_lists.iter().enumerate().map(&mut same).collect()
    }

    fn is_same(&mut self, old: &Rule, new: &Rule) -> bool {
        let Rule {
            action,
            outcome: _,
            families,
            protocol,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
        } = old;
        *action == new.action
            && *families == new.families
            && *protocol == new.protocol
            && *not_protocol == new.not_protocol
            && *icmp == new.icmp
            && *not_icmp == new.not_icmp
            && self.is_same_outcome(old.outcome, new.outcome)
            && self.is_same_side(source, &new.source)
            && self.is_same_side(destination, &new.destination)
    }

    fn is_same_outcome(&mut self, old: OutcomeId, new: OutcomeId) -> bool {
        self.outcomes.known(old.number(), new.number()).unwrap_or_else(|| {
            let is_same = self.old.outcome(old) == self.new.outcome(new);
            if is_same {
                self.outcomes.join(old.number(), new.number());
            }
            is_same
        })
    }

    fn is_same_side(&mut self, old: &Side, new: &Side) -> bool {
        self.are_same_sets(&old.in_sets, &new.in_sets)
            && self.are_same_sets(&old.not_in_sets, &new.not_in_sets)
            && self.are_same_ports(old.ports.as_deref(), new.ports.as_deref())
            && self.are_same_ports(old.not_ports.as_deref(), new.not_ports.as_deref())
    }

    fn are_same_sets(&mut self, old: &[AddressSetId], new: &[AddressSetId]) -> bool {
        old.len() == new.len() && old.iter().zip(new).all(|(&old, &new)| self.is_same_set(old, new))
    }

    fn is_same_set(&mut self, old: AddressSetId, new: AddressSetId) -> bool {
        self.sets.known(old.number(), new.number()).unwrap_or_else(|| {
            self.sets.join(old.number(), new.number());
            let sets = (&self.old.address_sets[old.index()], &self.new.address_sets[new.index()]);
            self.changed.push((Arc::clone(sets.0), Arc::clone(sets.1)));
            true
        })
    }

    fn are_same_ports(&mut self, old: Option<&PortMatch>, new: Option<&PortMatch>) -> bool {
        match (old, new) {
            (None, None) => true,
            (Some(old), Some(new)) => {
                old.ranges == new.ranges
                    && old.named.len() == new.named.len()
                    && old.named.iter().zip(&new.named).all(|(&old, &new)| self.is_same_named_port(old, new))
            }
            _ => false,
        }
    }

    /// A named port with other members, but none on a port that it has not stood for.
    fn is_same_named_port(&mut self, old: PortSetId, new: PortSetId) -> bool {
        self.port_sets.known(old.number(), new.number()).unwrap_or_else(|| {
            let (before, after) = (&self.old.port_sets[old.index()], &self.new.port_sets[new.index()]);
            let was = self.old_named.entry(old).or_insert_with(|| named_services(before));
            let Some(is) = named_services_after(was, before, after) else { return false };
            self.changed.extend(successors(was, &is));
            self.port_sets.join(old.number(), new.number());
            self.named.insert(new, is);
            true
        })
    }

    fn chains(&self, lists: &[Option<RuleListId>]) -> Vec<Option<ChainId>> {
        let ids: FxHashMap<&Chain, usize> = self.old.chains.iter().zip(0..).collect();
        let find = |chain| Some(ChainId::new(*ids.get(&self.as_before(chain, lists)?)?));
        self.new.chains.iter().map(find).collect()
    }

    /// A new chain with the ids of the old program.
    fn as_before(&self, chain: &Chain, lists: &[Option<RuleListId>]) -> Option<Chain> {
        let before = |ids: &[RuleListId]| ids.iter().map(|id| lists[id.index()]).collect::<Option<Vec<_>>>();
        let outcome = |new: OutcomeId| Some(OutcomeId::from_number(self.outcomes.old_of[new.index()]?));
        let tier = |tier: &Tier| {
            let (policies, outcome) = (before(&tier.policies)?, outcome(tier.outcome)?);
            Some(Tier { name: tier.name.clone(), policies, end: tier.end, outcome })
        };
        Some(Chain {
            tiers: chain.tiers.iter().map(tier).collect::<Option<_>>()?,
            end: match &chain.end {
                ChainEnd::Profiles(lists) => ChainEnd::Profiles(before(lists)?),
                ChainEnd::Accept => ChainEnd::Accept,
                ChainEnd::Unmarked(reason) => ChainEnd::Unmarked(outcome(*reason)?),
            },
        })
    }
}
