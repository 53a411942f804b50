//! A chain without its structure: clauses in order, each a plain product of address terms, services and source ports.
//! What the fast engines are made from.
//!
//! Named ports are gone: a criterion with them becomes one clause for each (protocol, port) that the named port
//! stands for (M-25), and a negated one becomes clauses that veto the rule (M-18).

use std::sync::Arc;

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use super::answer::End;
use super::asked::{Asked, Known, asked};
use super::named::{NamedPorts, named_services};
use super::point::OPAQUE;
use crate::flow::{OutcomeId, protocol};
use crate::program::{
    Action, AddressSet, AddressSetId, Chain, ChainEnd, ChainId, PortMatch, PortSetId, Program, Reason, Rule,
    RuleListId, Side, TierEnd,
};

/// Inclusive ranges of ports, ICMP keys or [`OPAQUE`]: sorted, disjoint.
pub type Ranges = Vec<(u32, u32)>;

/// IP protocol numbers as a bit set.
pub type Protocols = [u64; 4];

const EVERY_PROTOCOL: Protocols = [u64::MAX; 4];

/// An address set of the program, or the addresses behind one (protocol, port) of a named port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(u32);

impl SetId {
    fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("sets have 32-bit ids, derived ones are members of port sets"))
    }

    /// The index, for slices.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// All sets that clauses speak of: those of the program, then the derived ones.
struct Sets<'p> {
    program: &'p Program,
    named: NamedPorts,
    derived: Vec<Arc<AddressSet>>,
    /// Of each port set: the first of its derived ones.
    first: FxHashMap<PortSetId, usize>,
}

impl<'p> Sets<'p> {
    fn of(program: &'p Program, named: NamedPorts) -> Self {
        Self { program, named, derived: Vec::new(), first: FxHashMap::default() }
    }

    /// What a named port stands for.
    fn services(&mut self, id: PortSetId) -> impl Iterator<Item = (u8, u16, SetId)> {
        let services = self.named.entry(id);
        let services = services.or_insert_with(|| named_services(&self.program.port_sets[id.index()]));
        let first = *self.first.entry(id).or_insert_with(|| {
            let first = self.program.address_sets.len() + self.derived.len();
            self.derived.extend(services.iter().map(|(.., set)| Arc::clone(set)));
            first
        });
        let ids = (first..).map(SetId::new);
        services.iter().zip(ids).map(|(&(protocol, port, _), id)| (protocol, port, id))
    }
}

/// Sets that must each hold the address, and sets that must not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressTerm {
    /// All of these hold it.
    pub within: Vec<SetId>,
    /// None of these holds it.
    pub outside: Vec<SetId>,
}

/// Protocol and second key: both must be in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceTerm {
    /// Protocols.
    pub protocols: Protocols,
    /// Destination ports, ICMP keys, or [`OPAQUE`].
    pub keys: Ranges,
}

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

/// A clause that is being made.
#[derive(Clone, Debug)]
struct Draft {
    families: [bool; 2],
    source: AddressTerm,
    destination: AddressTerm,
    service: ServiceTerm,
    source_ports: Ranges,
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
    pub addresses: Interned<AddressTerm>,
    /// What clauses ask of protocols and second keys.
    pub services: Interned<ServiceTerm>,
    /// What clauses ask of source ports.
    pub source_ports: Interned<Ranges>,
    known: Known<'p>,
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
            addresses: Interned::default(),
            services: Interned::default(),
            source_ports: Interned::default(),
            known: Known::default(),
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
    fn plain(&mut self, list: &mut List, rule: &Rule, asked: Asked<'p>, most: usize) -> Result<(), TooMany> {
        let services = self.known.services(&asked).unwrap_or_else(|| {
            let found = self.services(rule);
            self.known.note_services(asked, found);
            found
        });
        let Some((service, source_ports)) = services else { return Ok(()) };
        let [source, destination] = [&rule.source, &rule.destination].map(|side| self.address(side));
        let families = families(rule);
        let number = narrow(list.rules.len());
        let clause =
            Clause { rule: number, is_veto: false, families, source, destination, service, source_ports };
        list.push(std::iter::once(clause), most)
    }

    /// What a rule without named ports asks of services and source ports.
    fn services(&mut self, rule: &Rule) -> Option<(u32, u32)> {
        let draft = base(rule)?;
        let draft = alternatives(&mut self.sets, draft, true, rule.source.ports.as_ref()).pop()?;
        let draft = alternatives(&mut self.sets, draft, false, rule.destination.ports.as_ref()).pop()?;
        let service = narrow(self.services.insert_full(draft.service).0);
        Some((service, narrow(self.source_ports.insert_full(draft.source_ports).0)))
    }

    fn address(&mut self, side: &Side) -> u32 {
        let (addresses, term) = (&mut self.addresses, || term(side));
        self.known.address(side, || narrow(addresses.insert_full(term()).0))
    }

    fn rule(&mut self, list: &mut List, rule: &Rule, most: usize) -> Result<(), TooMany> {
        let Some(base) = base(rule) else { return Ok(()) };
        for (is_source, side) in [(true, &rule.source), (false, &rule.destination)] {
            for &set in side.not_ports.iter().flat_map(|ports| &ports.named) {
                let vetoes = named(&mut self.sets, &base, is_source, set);
                self.push(list, vetoes, true, most)?;
            }
        }
        for draft in alternatives(&mut self.sets, base, true, rule.source.ports.as_ref()) {
            let drafts = alternatives(&mut self.sets, draft, false, rule.destination.ports.as_ref());
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
            source: narrow(self.addresses.insert_full(draft.source).0),
            destination: narrow(self.addresses.insert_full(draft.destination).0),
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

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("clauses are fewer, and so are rules and terms")
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

impl Draft {
    /// The clause where a side's address is a member and its port is this one of this protocol.
    fn narrowed(&self, is_source: bool, protocol: u8, port: u16, members: SetId) -> Option<Self> {
        let mut draft = self.clone();
        let port = u32::from(port);
        let side = if is_source { &mut draft.source } else { &mut draft.destination };
        side.within.push(members);
        side.within.sort_unstable();
        side.within.dedup();
        let ports = if is_source { &mut draft.source_ports } else { &mut draft.service.keys };
        *ports = intersected(ports, &[(port, port)]);
        // M-19: a member of a protocol without ports is never met; the same number may be an ICMP type and code.
        draft.service.protocols = both(both(draft.service.protocols, only(&[protocol])), with_ports());
        draft.can_match().then_some(draft)
    }

    fn can_match(&self) -> bool {
        self.service.protocols != [0; 4] && !self.service.keys.is_empty() && !self.source_ports.is_empty()
    }
}

fn term(side: &Side) -> AddressTerm {
    AddressTerm { within: ids(&side.in_sets), outside: ids(&side.not_in_sets) }
}

/// Those that a rule's clauses exist for.
fn families(rule: &Rule) -> [bool; 2] {
    rule.families
}

/// Everything but named ports; `None` where it can match nothing.
fn base(rule: &Rule) -> Option<Draft> {
    let mut protocols = EVERY_PROTOCOL;
    if let Some(wanted) = rule.protocol {
        protocols = only(&[wanted]);
    }
    if let Some(unwanted) = rule.not_protocol {
        protocols = both(protocols, only(&[unwanted]).map(|bits| !bits));
    }
    let mut keys: Ranges = vec![(0, OPAQUE)];
    // M-33: only a packet with a readable type can match, also a negated one.
    for (icmp, negated) in [(rule.icmp, false), (rule.not_icmp, true)] {
        let Some(icmp) = icmp else { continue };
        let first = u32::from(icmp.kind) << 8 | u32::from(icmp.code.unwrap_or(0));
        let range = [(first, first | if icmp.code.is_none() { 0xff } else { 0 })];
        keys = intersected(&keys, &if negated { complement(&range) } else { range.to_vec() });
        protocols = both(protocols, only(&[protocol::ICMP, protocol::ICMPV6]));
    }
    let mut source_ports: Ranges = vec![(0, OPAQUE)];
    for (side, ports) in [(&rule.source, &mut source_ports), (&rule.destination, &mut keys)] {
        // M-19: a numeric range needs a readable port, also a negated one.
        let numeric = side.not_ports.as_ref().filter(|ports| !ports.ranges.is_empty());
        if let Some(unwanted) = numeric {
            *ports = intersected(ports, &complement(&wide(unwanted)));
            protocols = both(protocols, with_ports());
        }
    }
    let draft = Draft {
        families: families(rule),
        source: term(&rule.source),
        destination: term(&rule.destination),
        service: ServiceTerm { protocols, keys },
        source_ports,
    };
    draft.can_match().then_some(draft)
}

/// M-17: one clause for the numeric ranges, one for each service of each named port.
fn alternatives(sets: &mut Sets<'_>, draft: Draft, is_source: bool, ports: Option<&PortMatch>) -> Vec<Draft> {
    let Some(ports) = ports else {
        return vec![draft];
    };
    let named: Vec<Draft> = ports.named.iter().flat_map(|&set| named(sets, &draft, is_source, set)).collect();
    let mut numeric = draft;
    let narrowed = if is_source { &mut numeric.source_ports } else { &mut numeric.service.keys };
    *narrowed = intersected(narrowed, &wide(ports));
    numeric.service.protocols = both(numeric.service.protocols, with_ports());
    // Without ranges there are no ports to match.
    numeric.can_match().then_some(numeric).into_iter().chain(named).collect()
}

/// M-25: one clause for each service of a named port.
fn named(sets: &mut Sets<'_>, draft: &Draft, is_source: bool, set: PortSetId) -> Vec<Draft> {
    let services = sets.services(set);
    services
        .filter_map(|(protocol, port, members)| draft.narrowed(is_source, protocol, port, members))
        .collect()
}

fn wide(ports: &PortMatch) -> Ranges {
    ports.ranges.iter().map(|&(first, last)| (u32::from(first), u32::from(last))).collect()
}

fn ids(sets: &[AddressSetId]) -> Vec<SetId> {
    let mut ids: Vec<_> = sets.iter().map(|set| SetId::new(set.index())).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn only(protocols: &[u8]) -> Protocols {
    let mut bits = [0; 4];
    for &protocol in protocols {
        bits[usize::from(protocol >> 6)] |= 1 << (protocol & 63);
    }
    bits
}

fn with_ports() -> Protocols {
    only(&[protocol::TCP, protocol::UDP, protocol::SCTP, protocol::UDPLITE])
}

fn both(a: Protocols, b: Protocols) -> Protocols {
    std::array::from_fn(|word| a[word] & b[word])
}

/// Whether the set has the protocol.
pub fn has_protocol(protocols: &Protocols, protocol: u8) -> bool {
    protocols[usize::from(protocol >> 6)] >> (protocol & 63) & 1 == 1
}

/// Ports and keys that are not in the ranges; never [`OPAQUE`].
fn complement(ranges: &[(u32, u32)]) -> Ranges {
    let mut gaps = Vec::new();
    let mut from = 0;
    for &(first, last) in ranges {
        if from < first {
            gaps.push((from, first - 1));
        }
        from = last + 1;
    }
    if from < OPAQUE {
        gaps.push((from, OPAQUE - 1));
    }
    gaps
}

/// The parts that both lists have.
pub fn intersected<T: Copy + Ord>(a: &[(T, T)], b: &[(T, T)]) -> Vec<(T, T)> {
    let mut found = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (first, last) = (a[i].0.max(b[j].0), a[i].1.min(b[j].1));
        if first <= last {
            found.push((first, last));
        }
        if a[i].1 < b[j].1 {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_exactly() {
        assert_eq!(complement(&[(0, 5), (7, 9)]), [(6, 6), (10, 0xffff)]);
        assert_eq!(complement(&[(0, 0xffff)]), []);
        assert_eq!(intersected(&[(0, OPAQUE)], &[(3, 4), (9, 9)]), [(3, 4), (9, 9)]);
        assert_eq!(intersected(&[(0, 3), (8, 20)], &[(2, 9), (20, 30)]), [(2, 3), (8, 9), (20, 20)]);
    }

    #[test]
    fn protocols_are_bits() {
        let bits = only(&[0, 63, 64, 255]);
        for protocol in 0..=255 {
            assert_eq!(has_protocol(&bits, protocol), [0, 63, 64, 255].contains(&protocol), "{protocol}");
        }
    }
}
