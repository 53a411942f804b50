//! Which chains decide alike, of one program or of many: for those who compare states of policy.

use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    Action, AddressSet, AddressSetId, Chain, ChainEnd, Icmp, PortMatch, PortSet, PortSetId, Program, Rule,
    RuleListId, Side, TierEnd,
};

/// Numbers of chains: one number for all that have the same rules in the same tiers, in whichever program they are.
///
/// Sets are compared by what they hold. Log rules, names and outcomes decide nothing: they are not compared.
#[derive(Default)]
pub struct Alike {
    addresses: FxHashMap<Arc<AddressSet>, usize>,
    ports: FxHashMap<Arc<PortSet>, usize>,
    lists: FxHashMap<Vec<Criteria>, usize>,
    chains: FxHashMap<Steps, usize>,
}

/// All of a rule that decides; sets by their number in [`Alike`].
type Criteria = (Action, [bool; 2], Option<u8>, Option<u8>, Option<Icmp>, Option<Icmp>, Side, Side);

/// All of a chain that decides; lists by their number in [`Alike`].
#[derive(PartialEq, Eq, Hash)]
struct Steps {
    tiers: Vec<(Vec<usize>, TierEnd)>,
    profiles: Vec<usize>,
    end: End,
}

#[derive(PartialEq, Eq, Hash)]
enum End {
    Deny,
    Accept,
    Unmarked,
}

/// One program in these numbers.
struct Numbered<'p> {
    program: &'p Program,
    addresses: Vec<AddressSetId>,
    ports: Vec<PortSetId>,
    /// Of those that a chain has named.
    lists: Vec<Option<usize>>,
}

impl Alike {
    /// The number of each chain of a program.
    pub fn chains(&mut self, program: &Program) -> Vec<usize> {
        let addresses = program.address_sets.iter();
        let ports = program.port_sets.iter();
        let mut numbered = Numbered {
            program,
            addresses: addresses
                .map(|set| AddressSetId::new(number(&mut self.addresses, Arc::clone(set))))
                .collect(),
            ports: ports.map(|set| PortSetId::new(number(&mut self.ports, Arc::clone(set)))).collect(),
            lists: vec![None; program.rule_lists.len()],
        };
        program.chains.iter().map(|chain| self.chain(chain, &mut numbered)).collect()
    }

    fn chain(&mut self, chain: &Chain, numbered: &mut Numbered<'_>) -> usize {
        let tiers = chain.tiers.iter().map(|tier| (self.lists(&tier.policies, numbered), tier.end)).collect();
        let (profiles, end) = match &chain.end {
            ChainEnd::Profiles(profiles) => (self.lists(profiles, numbered), End::Deny),
            ChainEnd::Accept => (Vec::new(), End::Accept),
            ChainEnd::Unmarked(_) => (Vec::new(), End::Unmarked),
        };
        number(&mut self.chains, Steps { tiers, profiles, end })
    }

    fn lists(&mut self, lists: &[RuleListId], numbered: &mut Numbered<'_>) -> Vec<usize> {
        let one = |list: &RuleListId| {
            if let Some(known) = numbered.lists[list.index()] {
                return known;
            }
            let rules = numbered.program.rule_lists[list.index()].rules.iter();
            let deciding = rules.filter(|rule| rule.action != Action::Log);
            let found = number(&mut self.lists, deciding.map(|rule| numbered.criteria(rule)).collect());
            numbered.lists[list.index()] = Some(found);
            found
        };
        lists.iter().map(one).collect()
    }
}

impl Numbered<'_> {
    fn criteria(&self, rule: &Rule) -> Criteria {
        let (source, destination) = (self.side(&rule.source), self.side(&rule.destination));
        (
            rule.action,
            rule.families,
            rule.protocol,
            rule.not_protocol,
            rule.icmp,
            rule.not_icmp,
            source,
            destination,
        )
    }

    fn side(&self, side: &Side) -> Side {
        let sets = |ids: &[AddressSetId]| ids.iter().map(|id| self.addresses[id.index()]).collect();
        let ports = |one: &Option<Arc<PortMatch>>| {
            one.as_ref().map(|found| {
                Arc::new(PortMatch {
                    ranges: found.ranges.clone(),
                    named: found.named.iter().map(|id| self.ports[id.index()]).collect(),
                })
            })
        };
        Side {
            in_sets: sets(&side.in_sets),
            not_in_sets: sets(&side.not_in_sets),
            ports: ports(&side.ports),
            not_ports: ports(&side.not_ports),
        }
    }
}

/// That of an equal value, or the next one.
fn number<K: Eq + Hash>(known: &mut FxHashMap<K, usize>, value: K) -> usize {
    let next = known.len();
    *known.entry(value).or_insert(next)
}
