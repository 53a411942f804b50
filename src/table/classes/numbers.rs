//! Classes of all chains together: of addresses by family, of services and of source ports; and the terms of clauses
//! as sets of them.

use std::sync::Arc;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use super::limits::{Limits, MOST_CLASSES, Refused};
use super::local::Term;
use super::partition::{Partition, Value};
use super::ranges::Keys;
use crate::flow::Family;
use crate::program::AddressSet;
use crate::table::flat::{Clause, Flats};
use crate::table::point::OPAQUE;
use crate::table::terms::{Protocols, Ranges, ServiceTerm, SetId, has_protocol};

/// A rule list of the chains that tables are made for.
pub struct Listed<'f> {
    /// Its clauses.
    pub clauses: &'f [Clause],
    /// How many of the chains have it.
    pub chains: usize,
}

/// Classes of one dimension.
pub struct Numbers<P, S> {
    /// The classes.
    pub partition: Partition<P>,
    /// As clauses number the terms, with sets of the partition; those that no clause of interest has are empty.
    pub terms: Vec<Term>,
    /// The sets, as the partition numbers them.
    pub sets: Vec<S>,
}

/// Of the addresses of a family.
pub type Addresses<P> = Numbers<P, Arc<AddressSet>>;

/// The classes that a dimension may have.
pub fn most_classes(limits: &Limits) -> usize {
    limits.classes.min(MOST_CLASSES)
}

impl<P: Value, S> Numbers<P, S> {
    /// `of_clause` gives the terms of a clause.
    fn of<'a, const N: usize>(
        ranges: impl ExactSizeIterator<Item = &'a [(P, P)]>,
        terms: Vec<Term>,
        sets: Vec<S>,
        lists: &[Listed<'_>],
        of_clause: fn(&Clause) -> [u32; N],
        limits: &Limits,
        of: &'static str,
    ) -> Result<Self, Refused>
    where
        P: 'a,
    {
        let most = most_classes(limits);
        let mut partition = Partition::of(ranges, most).map_err(|_| Refused::Classes { of, most })?;
        partition.sort(&uses(partition.set_count(), &terms, lists, of_clause));
        Ok(Self { partition, terms, sets })
    }
}

/// Of each set, how many chains name it.
fn uses<const N: usize>(
    sets: usize,
    terms: &[Term],
    lists: &[Listed<'_>],
    of_clause: fn(&Clause) -> [u32; N],
) -> Vec<usize> {
    let mut uses = vec![0; sets];
    let mut counted = vec![usize::MAX; sets];
    for (number, list) in lists.iter().enumerate() {
        let terms = list.clauses.iter().flat_map(of_clause).map(|term| &terms[term as usize]);
        for set in terms.flat_map(Term::sets) {
            if std::mem::replace(&mut counted[set as usize], number) != number {
                uses[set as usize] += list.chains;
            }
        }
    }
    uses
}

fn clauses<'f>(lists: &[Listed<'f>]) -> impl Iterator<Item = &'f Clause> {
    lists.iter().flat_map(|list| list.clauses)
}

/// Of the addresses that the clauses tell apart in a family.
pub fn addresses<P: Value>(
    flats: &Flats<'_>,
    lists: &[Listed<'_>],
    family: Family,
    ranges: impl Fn(&AddressSet) -> &[(P, P)],
    limits: &Limits,
) -> Result<Addresses<P>, Refused> {
    let own = clauses(lists).filter(|clause| clause.families[family as usize]);
    let mut number_of = vec![None; flats.set_count()];
    let mut used: Vec<SetId> = Vec::new();
    let mut number = |set: SetId| {
        *number_of[set.index()].get_or_insert_with(|| {
            used.push(set);
            narrow(used.len() - 1)
        })
    };
    // The first one stands in for those of clauses that do not exist for the family, also where there is no clause yet.
    let mut terms = vec![Term::default(); flats.addresses.len().max(1)];
    for index in own.flat_map(|clause| [clause.source, clause.destination]) {
        let (made, asked) = (&mut terms[index as usize], &flats.addresses[index]);
        if *made == Term::default() {
            made.within = asked.within.iter().map(|&set| number(set)).collect();
            made.outside = asked.outside.iter().map(|&set| number(set)).collect();
        }
    }
    let of = if family == Family::V4 { "IPv4 addresses" } else { "IPv6 addresses" };
    let sets: Vec<Arc<AddressSet>> = used.iter().map(|&set| Arc::clone(flats.set(set))).collect();
    let partition = used.iter().map(|&set| ranges(flats.set(set)));
    Numbers::of(partition, terms, sets, lists, |clause| [clause.source, clause.destination], limits, of)
}

/// Of the source ports that the clauses tell apart.
pub fn source_ports(
    flats: &Flats<'_>,
    lists: &[Listed<'_>],
    limits: &Limits,
) -> Result<Numbers<u32, Ranges>, Refused> {
    let asked = clauses(lists).map(|clause| clause.source_ports);
    let (sets, terms) = single_sets(asked, &flats.source_ports, is_every_key);
    let ranges = sets.iter().map(|set| set.as_slice());
    let sets = sets.iter().copied().cloned().collect();
    Numbers::of(ranges, terms, sets, lists, |clause| [clause.source_ports], limits, "source ports")
}

/// Of protocol and second key.
pub struct Services {
    /// By [`Keys::number`] of group and key.
    pub numbers: Numbers<u32, ServiceTerm>,
    /// Protocol to its group: protocols that no term tells apart.
    pub groups: Vec<u8>,
}

/// Of the services that the clauses tell apart.
pub fn services(flats: &Flats<'_>, lists: &[Listed<'_>], limits: &Limits) -> Result<Services, Refused> {
    let asked = clauses(lists).map(|clause| clause.service);
    let (used, terms) = single_sets(asked, &flats.services, is_every_service);
    let masks: IndexSet<Protocols, FxBuildHasher> = used.iter().map(|term| term.protocols).collect();
    let mut kinds: IndexSet<Vec<bool>, FxBuildHasher> = IndexSet::default();
    let groups: Vec<u8> = (0..=255)
        .map(|protocol| {
            let kind = masks.iter().map(|mask| has_protocol(mask, protocol)).collect();
            u8::try_from(kinds.insert_full(kind).0).expect("no more groups than protocols")
        })
        .collect();
    let ranges = used.iter().map(|term| ranges_of_groups(term, &groups).expect("groups are made of these"));
    let ranges: Vec<Ranges> = ranges.collect();
    let sets = used.into_iter().cloned().collect();
    let of_sets = ranges.iter().map(Vec::as_slice);
    let numbers = Numbers::of(of_sets, terms, sets, lists, |clause| [clause.service], limits, "services")?;
    Ok(Services { numbers, groups })
}

/// The keys of a term among those of all groups; none if it tells protocols of a group apart.
pub fn ranges_of_groups(term: &ServiceTerm, groups: &[u8]) -> Option<Ranges> {
    let mut holding = [None; 256];
    for (protocol, &group) in (0..=255).zip(groups) {
        let holds = has_protocol(&term.protocols, protocol);
        if *holding[usize::from(group)].get_or_insert(holds) != holds {
            return None;
        }
    }
    let with = (0..).zip(holding).filter(|(_, holds)| *holds == Some(true));
    let numbers = with.flat_map(|(group, _)| {
        let keys = term.keys.iter();
        keys.map(move |&(first, last)| (Keys::number(group, first), Keys::number(group, last)))
    });
    Some(numbers.collect())
}

/// Terms that are one set each, or hold everywhere: the sets, and the terms by the index that clauses have.
fn single_sets<T>(
    asked: impl Iterator<Item = u32>,
    all: &IndexSet<T, FxBuildHasher>,
    is_everything: fn(&T) -> bool,
) -> (Vec<&T>, Vec<Term>) {
    let mut terms = vec![Term::default(); all.len()];
    let mut used = Vec::new();
    for index in asked {
        let (made, set) = (&mut terms[index as usize], &all[index as usize]);
        if made.within.is_empty() && !is_everything(set) {
            made.within.push(narrow(used.len()));
            used.push(set);
        }
    }
    (used, terms)
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("sets and terms have 32-bit ids")
}

pub fn is_every_key(ranges: &Ranges) -> bool {
    ranges[..] == [(0, OPAQUE)]
}

pub fn is_every_service(term: &ServiceTerm) -> bool {
    term.protocols == [u64::MAX; 4] && is_every_key(&term.keys)
}
