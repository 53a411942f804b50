//! What a clause asks: terms, and how the criteria of one rule become products of them.
//!
//! Named ports are gone: a criterion with them becomes one product for each (protocol, port) that the named port
//! stands for (M-25), and a negated one becomes products that veto the rule (M-18).

use std::ops::Index;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::named::{NamedPorts, named_services};
use super::point::OPAQUE;
use crate::flow::protocol;
use crate::program::{AddressSet, AddressSetId, PortMatch, PortSetId, Program, Rule, Side};

/// Inclusive ranges of ports, ICMP keys or [`OPAQUE`]: sorted, disjoint.
pub type Ranges = Vec<(u32, u32)>;

/// IP protocol numbers as a bit set.
pub type Protocols = [u64; 4];

const EVERY_PROTOCOL: Protocols = [u64::MAX; 4];

/// An address set of the program, or the addresses behind one (protocol, port) of a named port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(u32);

impl SetId {
    pub fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("sets have 32-bit ids, derived ones are members of port sets"))
    }

    /// The index, for slices.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Sets that must each hold the address, and sets that must not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressTerm {
    /// All of these hold it.
    pub within: SmallVec<[SetId; 4]>,
    /// None of these holds it.
    pub outside: SmallVec<[SetId; 4]>,
}

/// Protocol and second key: both must be in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceTerm {
    /// Protocols.
    pub protocols: Protocols,
    /// Destination ports, ICMP keys, or [`OPAQUE`].
    pub keys: Ranges,
}

/// All sets that clauses speak of: those of the program, then the derived ones.
pub struct Sets<'p> {
    pub program: &'p Program,
    pub named: NamedPorts,
    pub derived: Vec<Arc<AddressSet>>,
    /// Of each port set: the first of its derived ones.
    first: FxHashMap<PortSetId, usize>,
}

impl<'p> Sets<'p> {
    pub fn of(program: &'p Program, named: NamedPorts) -> Self {
        Self { program, named, derived: Vec::new(), first: FxHashMap::default() }
    }

    /// What a named port stands for.
    pub fn services(&mut self, id: PortSetId) -> impl Iterator<Item = (u8, u16, SetId)> {
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

/// Address terms; equal ones are one.
#[derive(Default)]
pub struct AddressTerms {
    all: Vec<AddressTerm>,
    /// Of those of one set, by the number of the set and one, and of that of no set, at 0: the index and one; 0: not yet.
    plain: Vec<u32>,
    others: FxHashMap<AddressTerm, u32>,
}

impl AddressTerms {
    /// The index of what a side asks.
    pub fn of(&mut self, side: &Side) -> u32 {
        match (&side.in_sets[..], &side.not_in_sets[..]) {
            ([], []) => self.plain(0, AddressTerm::default),
            ([set], []) => self.plain(set.index() + 1, || term(side)),
            _ => self.insert(term(side)),
        }
    }

    /// The index of a term.
    pub fn insert(&mut self, term: AddressTerm) -> u32 {
        match (&term.within[..], &term.outside[..]) {
            ([], []) => self.plain(0, || term),
            ([set], []) => self.plain(set.index() + 1, || term),
            _ => *self.others.entry(term).or_insert_with_key(|term| {
                self.all.push(term.clone());
                narrow(self.all.len() - 1)
            }),
        }
    }

    fn plain(&mut self, place: usize, term: impl FnOnce() -> AddressTerm) -> u32 {
        if self.plain.len() <= place {
            self.plain.resize(place + 1, 0);
        }
        if self.plain[place] == 0 {
            self.all.push(term());
            self.plain[place] = narrow(self.all.len());
        }
        self.plain[place] - 1
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }
}

impl Index<u32> for AddressTerms {
    type Output = AddressTerm;

    fn index(&self, index: u32) -> &AddressTerm {
        &self.all[index as usize]
    }
}

/// A clause that is being made.
#[derive(Clone, Debug)]
pub struct Draft {
    pub families: [bool; 2],
    pub source: AddressTerm,
    pub destination: AddressTerm,
    pub service: ServiceTerm,
    pub source_ports: Ranges,
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

pub fn term(side: &Side) -> AddressTerm {
    AddressTerm { within: ids(&side.in_sets), outside: ids(&side.not_in_sets) }
}

/// Those that a rule's clauses exist for.
pub fn families(rule: &Rule) -> [bool; 2] {
    rule.families
}

/// Everything but named ports; `None` where it can match nothing.
pub fn base(rule: &Rule) -> Option<Draft> {
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
pub fn alternatives(
    sets: &mut Sets<'_>,
    draft: Draft,
    is_source: bool,
    ports: Option<&PortMatch>,
) -> Vec<Draft> {
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
pub fn named(sets: &mut Sets<'_>, draft: &Draft, is_source: bool, set: PortSetId) -> Vec<Draft> {
    let services = sets.services(set);
    services
        .filter_map(|(protocol, port, members)| draft.narrowed(is_source, protocol, port, members))
        .collect()
}

fn wide(ports: &PortMatch) -> Ranges {
    ports.ranges.iter().map(|&(first, last)| (u32::from(first), u32::from(last))).collect()
}

fn ids(sets: &[AddressSetId]) -> SmallVec<[SetId; 4]> {
    let mut ids: SmallVec<[_; 4]> = sets.iter().map(|set| SetId::new(set.index())).collect();
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

/// As an index of clauses.
pub fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("clauses are fewer, and so are rules and terms")
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
