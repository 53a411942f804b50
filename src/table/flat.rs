//! A chain without its structure: clauses in order, each a plain product of address terms, services and source ports.
//! What the fast engines are made from.

use std::sync::Arc;

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use super::answer::End;
use super::asked::{Asked, Services, asked};
use super::named::NamedPorts;
use super::terms::{
    AddressTerms, Draft, Ranges, ServiceTerm, SetId, Sets, alternatives, base, families, named, narrow,
};
use crate::flow::OutcomeId;
use crate::program::{
    Action, AddressSet, Chain, ChainEnd, ChainId, Program, Reason, Rule, RuleListId, TierEnd,
};

/// A product of criteria: all of them hold. Equal criteria are one; a clause has their indices in [`Flats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The rule of [`Flat::rules`] that it belongs to.
    pub rule: u32,
    /// The rule does not match where this does.
    pub is_veto: bool,
    /// Families for which it exists.
    pub families: [bool; 2],
    /// On the source: an [`AddressTerm`].
    pub source: u32,
    /// On the destination: an [`AddressTerm`].
    pub destination: u32,
    /// On protocol and second key: a [`ServiceTerm`].
    pub service: u32,
    /// On the source port: [`Ranges`].
    pub source_ports: u32,
}

/// A rule list: the vetoes of a rule come before its other clauses.
#[derive(Clone, Debug, Default)]
struct List {
    clauses: Vec<Clause>,
    /// What each rule does and means.
    rules: Vec<(Action, OutcomeId)>,
}

/// Named ports make more clauses of rules than any engine takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// So many, and more.
    pub found: usize,
    /// Allowed.
    pub most: usize,
}

type Interned<T> = IndexSet<T, FxBuildHasher>;

/// The rule lists of a program as clauses; chains are made of them when they are asked for, so that memory is that of
/// the rules and not that of the chains.
pub struct Flats<'p> {
    sets: Sets<'p>,
    lists: Vec<Result<List, TooMany>>,
    /// What clauses ask of addresses.
    pub addresses: AddressTerms,
    /// What clauses ask of protocols and second keys.
    pub services: Interned<ServiceTerm>,
    /// What clauses ask of source ports.
    pub source_ports: Interned<Ranges>,
    /// What is known of rules that ask the same.
    known: FxHashMap<Asked, Services>,
}

/// Of one rule list, and of all.
const MOST_CLAUSES: (usize, usize) = (1 << 16, 1 << 22);

impl<'p> Flats<'p> {
    /// Of all rule lists of the program.
    pub fn of(program: &'p Program) -> Self {
        Self::some(program, |_| true, NamedPorts::default())
    }

    /// Of the rule lists of some chains; takes what is known of named ports.
    pub fn of_chains(program: &'p Program, chains: &[ChainId], named: &mut NamedPorts) -> Self {
        let mut is_wanted = vec![false; program.rule_lists.len()];
        for list in chains.iter().flat_map(|&chain| lists(program.chain(chain))) {
            is_wanted[list.index()] = true;
        }
        Self::some(program, |list| is_wanted[list.index()], std::mem::take(named))
    }

    /// Of those rule lists that are wanted; others have no clauses. Some named ports may be known already.
    pub fn some(program: &'p Program, is_wanted: impl Fn(RuleListId) -> bool, named: NamedPorts) -> Self {
        let mut flats = Self {
            sets: Sets::of(program, named),
            lists: Vec::with_capacity(program.rule_lists.len()),
            addresses: AddressTerms::default(),
            services: Interned::default(),
            source_ports: Interned::default(),
            known: FxHashMap::default(),
        };
        let mut left = MOST_CLAUSES.1;
        for (index, list) in program.rule_lists.iter().enumerate() {
            let rules = if is_wanted(RuleListId::new(index)) { &list.rules[..] } else { &[] };
            let list = flats.list(rules, left.min(MOST_CLAUSES.0));
            left -= list.as_ref().map_or(0, |list| list.clauses.len());
            flats.lists.push(list);
        }
        flats
    }

    /// The program.
    pub fn program(&self) -> &'p Program {
        self.sets.program
    }

    /// What named ports stand for.
    pub fn into_named_ports(self) -> NamedPorts {
        self.sets.named
    }

    /// How many sets there are.
    pub fn set_count(&self) -> usize {
        self.program().address_sets.len() + self.sets.derived.len()
    }

    /// The members of a set.
    pub fn set(&self, id: SetId) -> &Arc<AddressSet> {
        let own = &self.program().address_sets;
        own.get(id.index()).unwrap_or_else(|| &self.sets.derived[id.index() - own.len()])
    }

    /// The clauses of a rule list; none of one that has too many.
    pub fn clauses(&self, list: RuleListId) -> &[Clause] {
        self.lists[list.index()].as_ref().map_or(&[], |list| &list.clauses)
    }

    /// How many clauses the chain has.
    pub fn count(&self, chain: &Chain) -> Result<usize, TooMany> {
        lists(chain)
            .map(|list| self.lists[list.index()].as_ref().map(|list| list.clauses.len()))
            .try_fold(0, |sum, count| Ok(sum + count.map_err(|&too_many| too_many)?))
    }

    /// How many kinds of clauses the chain has that differ in addresses or source ports; none if above `most`.
    pub fn kinds(&self, chain: &Chain, most: usize) -> Option<usize> {
        let mut kinds = FxHashSet::default();
        for clause in lists(chain).flat_map(|list| self.clauses(list)) {
            kinds.insert((clause.source, clause.destination, clause.source_ports));
            if kinds.len() > most {
                return None;
            }
        }
        Some(kinds.len())
    }

    /// The chain as clauses.
    pub fn chain(&self, chain: &Chain) -> Result<Flat, TooMany> {
        let end = match &chain.end {
            ChainEnd::Profiles(_) => End::Deny(Reason::NoProfileAllows.outcome()),
            ChainEnd::Accept => End::Accept(Reason::NoForwardPolicy.outcome()),
            ChainEnd::Unmarked(outcome) => End::Unmarked(*outcome),
        };
        let mut flat = Flat {
            clauses: Vec::with_capacity(self.count(chain)?),
            rules: Vec::new(),
            segments: Vec::new(),
            end,
        };
        for tier in &chain.tiers {
            flat.segments.push(Segment {
                first: flat.clauses.len(),
                deny: (tier.end == TierEnd::Deny).then_some(tier.outcome),
            });
            for list in &tier.policies {
                flat.extend(self.lists[list.index()].as_ref().map_err(|&too_many| too_many)?);
            }
        }
        if let ChainEnd::Profiles(profiles) = &chain.end {
            // M-54: a profile's Pass leads to the next profile.
            for list in profiles {
                flat.segments.push(Segment { first: flat.clauses.len(), deny: None });
                flat.extend(self.lists[list.index()].as_ref().map_err(|&too_many| too_many)?);
            }
        }
        Ok(flat)
    }

    fn list(&mut self, rules: &'p [Rule], most: usize) -> Result<List, TooMany> {
        let mut list = List::default();
        for rule in rules {
            match asked(rule) {
                Some(asked) => self.plain(&mut list, rule, asked, most)?,
                None => self.rule(&mut list, rule, most)?,
            }
            list.rules.push((rule.action, rule.outcome));
        }
        Ok(list)
    }

    /// A rule without named ports: one clause, or none.
    fn plain(&mut self, list: &mut List, rule: &Rule, asked: Asked, most: usize) -> Result<(), TooMany> {
        let services = if let Some(&known) = self.known.get(&asked) {
            known
        } else {
            let found = self.services(rule);
            self.known.insert(asked, found);
            found
        };
        let Some((service, source_ports)) = services else { return Ok(()) };
        let [source, destination] = [&rule.source, &rule.destination].map(|side| self.addresses.of(side));
        let families = families(rule);
        let number = narrow(list.rules.len());
        let clause =
            Clause { rule: number, is_veto: false, families, source, destination, service, source_ports };
        list.push(std::iter::once(clause), most)
    }

    /// What a rule without named ports asks of services and source ports.
    fn services(&mut self, rule: &Rule) -> Services {
        let draft = base(rule)?;
        let draft = alternatives(&mut self.sets, draft, true, rule.source.ports.as_deref()).pop()?;
        let draft = alternatives(&mut self.sets, draft, false, rule.destination.ports.as_deref()).pop()?;
        let service = narrow(self.services.insert_full(draft.service).0);
        Some((service, narrow(self.source_ports.insert_full(draft.source_ports).0)))
    }

    fn rule(&mut self, list: &mut List, rule: &Rule, most: usize) -> Result<(), TooMany> {
        let Some(base) = base(rule) else { return Ok(()) };
        for (is_source, side) in [(true, &rule.source), (false, &rule.destination)] {
            for &set in side.not_ports.iter().flat_map(|ports| &ports.named) {
                let vetoes = named(&mut self.sets, &base, is_source, set);
                self.push(list, vetoes, true, most)?;
            }
        }
        for draft in alternatives(&mut self.sets, base, true, rule.source.ports.as_deref()) {
            let drafts = alternatives(&mut self.sets, draft, false, rule.destination.ports.as_deref());
            self.push(list, drafts, false, most)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        list: &mut List,
        drafts: Vec<Draft>,
        is_veto: bool,
        most: usize,
    ) -> Result<(), TooMany> {
        let rule = narrow(list.rules.len());
        let clauses = drafts.into_iter().map(|draft| Clause {
            rule,
            is_veto,
            families: draft.families,
            source: self.addresses.insert(draft.source),
            destination: self.addresses.insert(draft.destination),
            service: narrow(self.services.insert_full(draft.service).0),
            source_ports: narrow(self.source_ports.insert_full(draft.source_ports).0),
        });
        list.push(clauses, most)
    }
}

impl List {
    /// Adds clauses, unless there are more than `most` then.
    fn push(&mut self, clauses: impl ExactSizeIterator<Item = Clause>, most: usize) -> Result<(), TooMany> {
        let found = self.clauses.len() + clauses.len();
        if found > most {
            return Err(TooMany { found, most });
        }
        self.clauses.extend(clauses);
        Ok(())
    }
}

/// The rule lists that a chain meets, in order.
pub fn lists(chain: &Chain) -> impl Iterator<Item = RuleListId> {
    let profiles = match &chain.end {
        ChainEnd::Profiles(profiles) => &profiles[..],
        ChainEnd::Accept | ChainEnd::Unmarked(_) => &[],
    };
    chain.tiers.iter().flat_map(|tier| &tier.policies).chain(profiles).copied()
}

/// A tier or a profile: a run of clauses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its clauses begin here and end where the next segment begins.
    pub first: usize,
    /// What its end denies with; `None`: the next segment follows.
    pub deny: Option<OutcomeId>,
}

/// A chain as clauses.
#[derive(Clone, Debug)]
pub struct Flat {
    /// In order of evaluation; the vetoes of a rule come before its other clauses.
    pub clauses: Vec<Clause>,
    /// What each rule does and means.
    pub rules: Vec<(Action, OutcomeId)>,
    /// In order.
    pub segments: Vec<Segment>,
    /// Behind the last segment.
    pub end: End,
}

impl Flat {
    fn extend(&mut self, list: &List) {
        let before = narrow(self.rules.len());
        self.clauses
            .extend(list.clauses.iter().map(|&clause| Clause { rule: before + clause.rule, ..clause }));
        self.rules.extend_from_slice(&list.rules);
    }

    /// The clauses of a segment, by index.
    pub fn clauses_of(&self, segment: usize) -> std::ops::Range<usize> {
        let end = self.segments.get(segment + 1).map_or(self.clauses.len(), |next| next.first);
        self.segments[segment].first..end
    }

    /// The answer where exactly these clauses match; `passed` receives the Log and Pass rules on the way.
    ///
    /// `next` gives the first matching clause at or behind an index.
    pub fn walk(
        &self,
        next: impl Fn(usize) -> Option<usize>,
        passed: &mut impl FnMut(Action, OutcomeId),
    ) -> End {
        'segments: for (number, segment) in self.segments.iter().enumerate() {
            let clauses = self.clauses_of(number);
            let mut done = None;
            let mut from = clauses.start;
            while let Some(index) = next(from).filter(|index| clauses.contains(index)) {
                from = index + 1;
                let clause = &self.clauses[index];
                // A veto, or an alternative of a Log rule that has been counted.
                if done == Some(clause.rule) {
                    continue;
                }
                if clause.is_veto {
                    done = Some(clause.rule);
                    continue;
                }
                let (action, outcome) = self.rules[clause.rule as usize];
                match action {
                    Action::Allow => return End::Accept(outcome),
                    Action::Deny => return End::Deny(outcome),
                    Action::Pass => {
                        passed(action, outcome);
                        continue 'segments;
                    }
                    Action::Log => {
                        passed(action, outcome);
                        done = Some(clause.rule);
                    }
                }
            }
            if let Some(outcome) = segment.deny {
                return End::Deny(outcome);
            }
        }
        self.end
    }
}
