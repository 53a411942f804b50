//! The shared parts of a program, and their numbers.
//!
//! A rule list is read once, as a [`Template`]; each compile gives the parts of its rules their numbers, in the order of
//! their first use, so that equal sets, chains and outcomes are one, whatever has been compiled before.

use std::sync::Arc;

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::compiled::{Compiled, Origins, Replaceable, note};
use super::error::{CompileError, Place};
use super::members::Members;
use super::services::Services;
use super::sets::Sets;
use super::shared::Shared;
use super::template::{Numbers, Owner, Part, RuleSource, Template, Templates};
use crate::flow::{Direction, OutcomeId};
use crate::model::Limits;
use crate::program::{
    AddressSet, AddressSetId, Chain, ChainId, Endpoint, PortSet, PortSetId, Program, RuleList, RuleListId,
    RuleOrigin, Settings, reason_outcomes,
};

/// Equal values become one, numbered in the order of their first use.
type Interned<T> = IndexSet<T, FxBuildHasher>;

/// Equal sets become one, numbered in the order of their first use. Most are one range, which is looked for as such: in
/// the set itself it would be far away.
#[derive(Default)]
struct AddressSets {
    all: Vec<Shared<AddressSet>>,
    /// The numbers of those that are one range of IPv4.
    ranges: FxHashMap<(u32, u32), AddressSetId>,
    others: FxHashMap<Shared<AddressSet>, AddressSetId>,
}

impl AddressSets {
    fn with_capacity(ranges: usize, others: usize) -> Self {
        Self {
            all: Vec::with_capacity(ranges + others),
            ranges: FxHashMap::with_capacity_and_hasher(ranges, FxBuildHasher),
            others: FxHashMap::with_capacity_and_hasher(others, FxBuildHasher),
        }
    }

    /// Also says whether it is new.
    fn insert(&mut self, set: Shared<AddressSet>) -> (AddressSetId, bool) {
        let next = AddressSetId::new(self.all.len());
        let id = match (&set.get().v4[..], &set.get().v6[..]) {
            (&[range], []) => *self.ranges.entry(range).or_insert(next),
            _ => *self.others.entry(set.clone()).or_insert(next),
        };
        if id == next {
            self.all.push(set);
        }
        (id, id == next)
    }
}

/// Where the sets of rules come from.
pub struct Sources<'a, 'm> {
    pub members: &'a Members<'m>,
    pub services: &'a Services<'m>,
    pub sets: &'a mut Sets,
    pub templates: &'a mut Templates,
    /// The number of the compile at hand.
    pub now: u64,
}

/// How many parts a program has.
#[derive(Clone, Copy, Default)]
pub struct Size {
    /// Address sets of one range of IPv4.
    ranges: usize,
    /// Other address sets.
    others: usize,
    outcomes: usize,
    rule_lists: usize,
}

/// Collects the shared parts of a program, and gives them numbers.
pub struct RuleBuilder<'a, 'm> {
    from: Sources<'a, 'm>,
    limits: &'a Limits,
    address_sets: AddressSets,
    port_sets: Interned<Shared<PortSet>>,
    chains: Interned<Chain>,
    outcomes: Vec<Arc<RuleOrigin>>,
    /// Outcomes of what is no rule: several chains have them.
    ends: FxHashMap<RuleOrigin, OutcomeId>,
    rule_lists: Vec<Arc<RuleList>>,
    rule_count: usize,
    address_count: usize,
    address_origins: Origins,
    port_origins: Origins,
}

impl<'a, 'm> RuleBuilder<'a, 'm> {
    /// A program is mostly about as large as the one before it.
    pub fn new(from: Sources<'a, 'm>, settings: &Settings, limits: &'a Limits, last: Size) -> Self {
        from.sets.begin();
        let mut outcomes = Vec::with_capacity(last.outcomes);
        outcomes.extend(reason_outcomes(settings).into_iter().map(Arc::new));
        Self {
            from,
            limits,
            address_sets: AddressSets::with_capacity(last.ranges, last.others),
            port_sets: Interned::default(),
            chains: Interned::default(),
            outcomes,
            ends: FxHashMap::default(),
            rule_lists: Vec::with_capacity(last.rule_lists),
            rule_count: 0,
            address_count: 0,
            address_origins: Origins::new(),
            port_origins: Origins::new(),
        }
    }

    /// Of the program so far.
    pub fn size(&self) -> Size {
        Size {
            ranges: self.address_sets.ranges.len(),
            others: self.address_sets.others.len(),
            outcomes: self.outcomes.len(),
            rule_lists: self.rule_lists.len(),
        }
    }

    pub fn chain(&mut self, chain: Chain) -> ChainId {
        ChainId::new(self.chains.insert_full(chain).0)
    }

    /// Of what is no rule.
    pub fn end(&mut self, origin: RuleOrigin) -> OutcomeId {
        *self.ends.entry(origin).or_insert_with_key(|origin| {
            self.outcomes.push(Arc::new(origin.clone()));
            OutcomeId::new(self.outcomes.len() - 1)
        })
    }

    /// The rules of one policy or profile in one direction; without a source a profile that does not exist.
    pub fn rule_list<'s>(
        &mut self,
        owner: Owner,
        direction: Direction,
        source: impl FnOnce() -> Option<RuleSource<'s>>,
    ) -> Result<RuleListId, CompileError> {
        let place = (owner, direction);
        if let Some(Template { used: (now, id), .. }) = self.from.templates.get(&place)
            && *now == self.from.now
        {
            return Ok(*id);
        }
        let mut template = match self.from.templates.remove(&place) {
            Some(template) => template,
            None => match (source(), &place.0) {
                (Some(source), _) => Template::read(&source, self.from.sets)?,
                (None, Owner::Profile(name)) => {
                    Template::missing_profile(&format!("Profile/{name}"), direction)
                }
                (None, Owner::Policy(_)) => unreachable!("a policy that selects something exists"),
            },
        };
        self.place(&mut template)?;
        let id = template.used.1;
        self.from.templates.insert(place, template);
        Ok(id)
    }

    fn place(&mut self, template: &mut Template) -> Result<(), CompileError> {
        self.rule_count += template.written;
        Place::new("limits", "rules").check_limit(self.rule_count, self.limits.rules)?;
        // No two rules mean the same: nobody has to look for what a list's rules mean.
        let next = if template.origins.is_empty() { 0 } else { self.outcomes.len() };
        let outcome = OutcomeId::new(next);
        self.outcomes.extend_from_slice(&template.origins);
        let sets = template.criteria.iter().map(|criterion| self.part(&criterion.part));
        let numbers = Numbers { outcome, sets: sets.collect::<Result<_, _>>()? };
        self.rule_lists.push(Arc::clone(template.numbered(numbers)));
        template.used = (self.from.now, RuleListId::new(self.rule_lists.len() - 1));
        Ok(())
    }

    fn part(&mut self, part: &Part) -> Result<u32, CompileError> {
        let Sources { members, services, sets, now, .. } = &mut self.from;
        match part {
            Part::Nets(set) => self.address_set(set.clone(), None),
            Part::Members(id) => {
                let set = sets.address_set(*id, *now, members);
                self.address_set(set, Some(*id))
            }
            Part::ServiceAddresses(name) => {
                let set = services.addresses(name);
                self.address_set(set, None)
            }
            Part::NamedPorts(id) => {
                let set = sets.port_set(*id, *now, members);
                self.port_set(set, Some(*id))
            }
            Part::ServicePorts(name) => {
                let set = services.ports(name);
                self.port_set(set, None)
            }
        }
    }

    fn address_set(&mut self, set: Shared<AddressSet>, id: Option<usize>) -> Result<u32, CompileError> {
        let size = set.get().v4.len() + set.get().v6.len();
        let (id_of_set, is_new) = self.address_sets.insert(set);
        self.count_addresses(if is_new { size } else { 0 })?;
        let number = id_of_set.number();
        note(&mut self.address_origins, number, id);
        Ok(number)
    }

    fn port_set(&mut self, set: Shared<PortSet>, id: Option<usize>) -> Result<u32, CompileError> {
        let size = set.get().len();
        let (index, is_new) = self.port_sets.insert_full(set);
        self.count_addresses(if is_new { size } else { 0 })?;
        let number = PortSetId::new(index).number();
        note(&mut self.port_origins, number, id);
        Ok(number)
    }

    fn count_addresses(&mut self, more: usize) -> Result<(), CompileError> {
        self.address_count += more;
        Place::new("limits", "addresses").check_limit(self.address_count, self.limits.addresses)
    }

    /// Forgets what earlier compiles had and this one has not.
    pub fn finish(
        self,
        node: Option<&str>,
        settings: Settings,
        endpoints: Vec<Arc<Endpoint>>,
        warnings: Vec<String>,
    ) -> Compiled {
        let Sources { sets, templates, now, .. } = self.from;
        sets.sweep(now);
        templates.retain(|_, template| template.used.0 == now);
        let addresses = Replaceable::of(&self.address_origins, self.address_sets.all.iter());
        let ports = Replaceable::of(&self.port_origins, self.port_sets.iter());
        let program = Program {
            node: node.map(str::to_owned),
            settings,
            endpoints: Arc::new(endpoints),
            chains: Arc::new(self.chains.into_iter().collect()),
            rule_lists: Arc::new(self.rule_lists),
            address_sets: self.address_sets.all.into_iter().map(Shared::into_value).collect(),
            port_sets: self.port_sets.into_iter().map(Shared::into_value).collect(),
            outcomes: Arc::new(self.outcomes),
            warnings,
        };
        Compiled { program: Arc::new(program), addresses, ports, address_count: self.address_count }
    }
}
