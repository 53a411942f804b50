//! The image of one program made from that of the one before: chains that are the same keep their tables, classes are
//! split where sets have other members, and what changes is written behind the rest.
//!
//! Nothing is ever merged or moved up. Where there is no room left, or more has been written than a fresh image has, or
//! anything is met that cannot be done in place, the answer is [`Outdated`]: a fresh image is due.

use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::build::{Frame, Writer, directions};
use super::limits::{Refused, Steps};
use super::local::Term;
use super::maps::Map;
use super::numbers::{Addresses, Numbers, is_every_key, is_every_service, most_classes, ranges_of_groups};
use super::partition::{Partition, TooMany, Value};
use super::patch::Patches;
use super::ranges::V4;
use super::refine::{Edge, Refined, differing_edges, edges};
use super::v6::V6;
use super::{BLOCK, CELLS, Classes};
use crate::flow::{Family, OutcomeId};
use crate::program::{AddressSet, ChainId, Program};
use crate::table::answer::Answers;
use crate::table::flat::{Clause, Flat, Flats, lists};
use crate::table::lineage::Lineage;
use crate::table::terms::{Ranges, ServiceTerm};

/// Sets and terms that small images may leave behind, and bytes: they are soon made, but need not be for a few edits.
const SPARE_PARTS: usize = 1024;
const SPARE_BYTES: usize = 256 << 10;

/// The image cannot be brought up to date in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outdated;

impl From<Refused> for Outdated {
    fn from(_: Refused) -> Self {
        Self
    }
}

impl From<TooMany> for Outdated {
    fn from(_: TooMany) -> Self {
        Self
    }
}

/// What is known of an image, for the next one.
pub struct Kept {
    writer: Writer,
    frame: Frame,
    v4: Addresses<u32>,
    v6: Addresses<u128>,
    known: Known,
    patches: Patches,
    /// Bytes of the fresh image, what was known of it ([`Kept::parts`]), and how often it has been edited since.
    fresh: usize,
    fresh_parts: usize,
    edits: usize,
}

/// Sets by what they are, as partitions number them. Address sets are known by where they are in memory, where they
/// stay as long as they are known.
struct Known {
    v4: FxHashMap<usize, u32>,
    v6: FxHashMap<usize, u32>,
    services: FxHashMap<ServiceTerm, u32>,
    source_ports: FxHashMap<Ranges, u32>,
}

/// Terms of a [`Flats`] as the partitions number them.
#[derive(Default)]
struct Terms {
    v4: FxHashMap<u32, u32>,
    v6: FxHashMap<u32, u32>,
    services: FxHashMap<u32, u32>,
    source_ports: FxHashMap<u32, u32>,
}

/// Where sets change, by dimension.
#[derive(Default)]
struct Edges {
    v4: Vec<Edge<u32>>,
    v6: Vec<Edge<u128>>,
    services: Vec<Edge<u32>>,
    source_ports: Vec<Edge<u32>>,
}

impl Edges {
    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.services.is_empty() && self.source_ports.is_empty()
    }
}

/// Where a set is.
fn address(set: &Arc<AddressSet>) -> usize {
    Arc::as_ptr(set) as usize
}

fn numbered<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> FxHashMap<K, u32> {
    keys.zip(0..).collect()
}

impl Kept {
    /// Of a fresh image in which every chain that it was made for has its tables.
    pub fn new(writer: Writer, frame: Frame, v4: Addresses<u32>, v6: Addresses<u128>) -> Self {
        let known = Known {
            v4: numbered(v4.sets.iter().map(address)),
            v6: numbered(v6.sets.iter().map(address)),
            services: numbered(frame.services.numbers.sets.iter().cloned()),
            source_ports: numbered(frame.source_ports.sets.iter().cloned()),
        };
        let fresh = writer.image.bytes();
        let patches = Patches::default();
        let mut kept = Self { writer, frame, v4, v6, known, patches, fresh, fresh_parts: 0, edits: 0 };
        kept.fresh_parts = kept.parts();
        kept
    }

    /// Sets and terms, which are kept until a fresh image is made, also where nothing names them any more.
    fn parts(&self) -> usize {
        fn of<P: Value, S>(numbers: &Numbers<P, S>) -> usize {
            numbers.terms.len() + numbers.partition.set_count()
        }
        of(&self.v4) + of(&self.v6) + of(&self.frame.services.numbers) + of(&self.frame.source_ports)
    }

    /// Whether more is dead than alive, as far as sizes tell.
    fn is_worn(&self) -> bool {
        self.writer.image.bytes() > 2 * self.fresh + SPARE_BYTES
            || self.parts() > 2 * self.fresh_parts + SPARE_PARTS
    }

    /// How often the image has been edited, and how many bytes have been added.
    pub fn age(&self) -> (usize, usize) {
        (self.edits, self.writer.image.bytes() - self.fresh)
    }

    /// Makes the image of a program, with tables for the wanted chains. After an error, what is kept is good for nothing.
    pub fn update(
        &mut self,
        program: &Program,
        lineage: &mut Lineage,
        is_wanted: impl Fn(ChainId) -> bool,
    ) -> Result<(Classes, Answers), Outdated> {
        let chains = program.chains.len();
        if self.is_worn() || 2 * chains > self.writer.roots.record_count as usize {
            return Err(Outdated);
        }
        self.edits += 1;
        self.writer.steps = Steps::new(self.writer.limits.steps);
        self.writer.directions = directions(program);
        self.rename_outcomes(program.outcomes.len(), &lineage.outcomes);
        self.keep_tables(&lineage.chains);
        self.writer.free_passes();
        let mut edges = self.changed_sets(&lineage.sets);
        // Of equal chains the first one has got the tables of the old one.
        let is_new = |chain: &ChainId| is_wanted(*chain) && self.writer.tables[2 * chain.index()].is_none();
        let new: Vec<ChainId> = (0..chains).map(ChainId::new).filter(is_new).collect();
        let flats = Flats::of_chains(program, &new, &mut lineage.named);
        let terms = self.terms(&flats, &new, &mut edges)?;
        let stale = self.refine(edges)?;
        self.tables(&flats, &terms, &new)?;
        lineage.named = flats.into_named_ports();
        if !stale.is_empty() {
            for chain in &stale {
                self.writer.tables[2 * chain.index()..][..2].fill_with(|| None);
            }
            self.writer.free_passes();
            let flats = Flats::of_chains(program, &stale, &mut lineage.named);
            let mut edges = Edges::default();
            let terms = self.terms(&flats, &stale, &mut edges)?;
            debug_assert!(edges.is_empty(), "a chain that had tables names nothing that is new");
            if !edges.is_empty() {
                return Err(Outdated);
            }
            self.tables(&flats, &terms, &stale)?;
            lineage.named = flats.into_named_ports();
        }
        self.records();
        Ok((self.writer.classes()?, self.writer.answers.clone()))
    }

    /// Answers of tables that are kept say what they said, by the numbers of the new program.
    fn rename_outcomes(&mut self, outcomes: usize, new_of: &[Option<OutcomeId>]) {
        let is_same = (0..).zip(new_of).all(|(old, new)| *new == Some(OutcomeId::new(old)));
        if is_same && outcomes == new_of.len() {
            return;
        }
        let rename = self.writer.answers.rename(outcomes, new_of);
        for table in self.writer.tables.iter().flatten() {
            for word in self.writer.image.words_mut(table.record[CELLS], table.cells) {
                *word = rename(*word);
            }
        }
    }

    /// Tables of chains that are the same get the numbers that those have now.
    fn keep_tables(&mut self, chains: &[Option<ChainId>]) {
        let is_same = (0..).zip(chains).all(|(new, old)| *old == Some(ChainId::new(new)));
        if is_same && 2 * chains.len() == self.writer.tables.len() {
            return;
        }
        self.writer.answers.renumber_chains(chains);
        let mut old = std::mem::take(&mut self.writer.tables);
        for chain in chains {
            for family in 0..2 {
                let table = chain.and_then(|chain| old[2 * chain.index() + family].take());
                self.writer.tables.push(table);
            }
        }
    }

    /// Sets that have other members now keep their numbers.
    fn changed_sets(&mut self, sets: &[(Arc<AddressSet>, Arc<AddressSet>)]) -> Edges {
        let mut found = Edges::default();
        for (old, new) in sets {
            if let Some(number) = self.known.v4.remove(&address(old)) {
                differing_edges(&old.v4, &new.v4, number, &mut found.v4);
                self.known.v4.insert(address(new), number);
                self.v4.sets[number as usize] = Arc::clone(new);
            }
            if let Some(number) = self.known.v6.remove(&address(old)) {
                differing_edges(&old.v6, &new.v6, number, &mut found.v6);
                self.known.v6.insert(address(new), number);
                self.v6.sets[number as usize] = Arc::clone(new);
            }
        }
        found
    }

    /// The terms of chains, with new sets where they name such.
    fn terms(&mut self, flats: &Flats<'_>, chains: &[ChainId], found: &mut Edges) -> Result<Terms, Outdated> {
        let mut terms = Terms::default();
        let program = flats.program();
        for list in chains.iter().flat_map(|&chain| lists(program.chain(chain))) {
            for clause in flats.clauses(list) {
                self.clause(flats, clause, &mut terms, found)?;
            }
        }
        Ok(terms)
    }

    fn clause(
        &mut self,
        flats: &Flats<'_>,
        clause: &Clause,
        terms: &mut Terms,
        found: &mut Edges,
    ) -> Result<(), Outdated> {
        for index in [clause.source, clause.destination] {
            if clause.families[Family::V4 as usize] && !terms.v4.contains_key(&index) {
                let mut add = |set: &AddressSet, number| edges(&set.v4, number, &mut found.v4);
                terms
                    .v4
                    .insert(index, address_term(flats, index, &mut self.v4, &mut self.known.v4, &mut add));
            }
            if clause.families[Family::V6 as usize] && !terms.v6.contains_key(&index) {
                let mut add = |set: &AddressSet, number| edges(&set.v6, number, &mut found.v6);
                terms
                    .v6
                    .insert(index, address_term(flats, index, &mut self.v6, &mut self.known.v6, &mut add));
            }
        }
        if let Entry::Vacant(place) = terms.services.entry(clause.service) {
            let term = &flats.services[clause.service as usize];
            let ranges = ranges_of_groups(term, &self.frame.services.groups).ok_or(Outdated)?;
            let (numbers, known) = (&mut self.frame.services.numbers, &mut self.known.services);
            let is_all = is_every_service(term);
            place.insert(single_term(term, is_all, &ranges, numbers, known, &mut found.services));
        }
        if let Entry::Vacant(place) = terms.source_ports.entry(clause.source_ports) {
            let term = &flats.source_ports[clause.source_ports as usize];
            let (numbers, known) = (&mut self.frame.source_ports, &mut self.known.source_ports);
            let is_all = is_every_key(term);
            place.insert(single_term(term, is_all, term, numbers, known, &mut found.source_ports));
        }
        Ok(())
    }

    /// Classes as the sets are now, in the image and in the tables that are kept; gives the chains whose tables do not
    /// do any more.
    fn refine(&mut self, edges: Edges) -> Result<Vec<ChainId>, Outdated> {
        let Self { writer, frame, v4, v6, patches, .. } = self;
        let mut stale = Vec::new();
        if let Some(refined) = refined(&mut v4.partition, edges.v4, writer, 0)? {
            patch_v4(writer, patches, &v4.partition, &refined)?;
            for axis in [0, 1] {
                relocate(writer, patches, v4, &refined, (axis, Some(Family::V4)), &mut stale)?;
            }
        }
        if let Some(refined) = refined(&mut v6.partition, edges.v6, writer, 1)? {
            patch_v6(writer, &v6.partition, &refined)?;
            for axis in [0, 1] {
                relocate(writer, patches, v6, &refined, (axis, Some(Family::V6)), &mut stale)?;
            }
        }
        let services = &mut frame.services.numbers;
        if let Some(refined) = refined(&mut services.partition, edges.services, writer, 2)? {
            for &moved in &refined.moved {
                let groups = &frame.services.groups;
                patches.keys(&mut writer.image, writer.roots.services, groups, moved)?;
            }
            relocate(writer, patches, services, &refined, (2, None), &mut stale)?;
        }
        let ports = &mut frame.source_ports;
        if let Some(refined) = refined(&mut ports.partition, edges.source_ports, writer, 3)? {
            for &moved in &refined.moved {
                patches.keys(&mut writer.image, writer.roots.source_ports, &[0; 256], moved)?;
            }
            relocate(writer, patches, ports, &refined, (3, None), &mut stale)?;
        }
        let counts = &mut writer.counts;
        (counts.v4, counts.v6) = (v4.partition.count(), v6.partition.count());
        counts.services = frame.services.numbers.partition.count();
        counts.source_ports = frame.source_ports.partition.count();
        stale.sort_unstable();
        stale.dedup();
        Ok(stale)
    }

    /// Makes the tables of chains anew.
    fn tables(&mut self, flats: &Flats<'_>, terms: &Terms, chains: &[ChainId]) -> Result<(), Outdated> {
        let program = flats.program();
        for &chain in chains {
            let flat = flats.chain(program.chain(chain)).map_err(|_| Outdated)?;
            if flat.clauses.len() > self.writer.limits.clauses {
                return Err(Outdated);
            }
            let frame = Ok(&self.frame);
            let of_v4 = translated(&flat, terms, &terms.v4);
            self.writer.chain(2 * chain.index(), &of_v4, Family::V4, Ok(&self.v4), frame)?;
            let of_v6 = translated(&flat, terms, &terms.v6);
            self.writer.chain(2 * chain.index() + 1, &of_v6, Family::V6, Ok(&self.v6), frame)?;
        }
        Ok(())
    }

    /// Writes where the tables of chains are.
    fn records(&mut self) {
        let writer = &mut self.writer;
        writer.counts.cells = 0;
        for record in 0..writer.tables.len() {
            let Some(table) = &writer.tables[record] else {
                writer.clear_record(record);
                continue;
            };
            writer.counts.cells += table.cells;
            let (words, width) = (table.record, table.width);
            writer.record(record, &words, width);
        }
    }
}

fn address_term<P: Value>(
    flats: &Flats<'_>,
    index: u32,
    numbers: &mut Addresses<P>,
    known: &mut FxHashMap<usize, u32>,
    add: &mut impl FnMut(&AddressSet, u32),
) -> u32 {
    let asked = &flats.addresses[index];
    let mut number = |set| {
        let set = flats.set(set);
        *known.entry(address(set)).or_insert_with(|| {
            let number = numbers.partition.add_set();
            numbers.sets.push(Arc::clone(set));
            add(set, number);
            number
        })
    };
    let within = asked.within.iter().map(|&set| number(set)).collect();
    let outside = asked.outside.iter().map(|&set| number(set)).collect();
    push_term(&mut numbers.terms, Term { within, outside })
}

fn single_term<S: Clone + Eq + Hash>(
    term: &S,
    is_everything: bool,
    ranges: &Ranges,
    numbers: &mut Numbers<u32, S>,
    known: &mut FxHashMap<S, u32>,
    found: &mut Vec<Edge<u32>>,
) -> u32 {
    if is_everything {
        return push_term(&mut numbers.terms, Term::default());
    }
    let number = known.get(term).copied().unwrap_or_else(|| {
        let number = numbers.partition.add_set();
        numbers.sets.push(term.clone());
        known.insert(term.clone(), number);
        edges(ranges, number, found);
        number
    });
    push_term(&mut numbers.terms, Term { within: vec![number], outside: Vec::new() })
}

fn push_term(terms: &mut Vec<Term>, term: Term) -> u32 {
    terms.push(term);
    u32::try_from(terms.len() - 1).expect("terms have 32-bit ids")
}

/// With terms as the partitions number them; a clause that does not exist for the family may have any.
fn translated(flat: &Flat, terms: &Terms, addresses: &FxHashMap<u32, u32>) -> Flat {
    let mut flat = flat.clone();
    for clause in &mut flat.clauses {
        clause.source = addresses.get(&clause.source).copied().unwrap_or_default();
        clause.destination = addresses.get(&clause.destination).copied().unwrap_or_default();
        clause.service = terms.services[&clause.service];
        clause.source_ports = terms.source_ports[&clause.source_ports];
    }
    flat
}

/// Splits classes at edges, as far as maps have room for them.
fn refined<P: Value>(
    partition: &mut Partition<P>,
    edges: Vec<Edge<P>>,
    writer: &Writer,
    dimension: usize,
) -> Result<Option<Refined<P>>, Outdated> {
    if edges.is_empty() {
        return Ok(None);
    }
    let room = writer.rooms[dimension] * BLOCK;
    Ok(Some(partition.refine(edges, most_classes(&writer.limits).min(room))?))
}

fn patch_v4(
    writer: &mut Writer,
    patches: &mut Patches,
    partition: &Partition<u32>,
    refined: &Refined<u32>,
) -> Result<(), Outdated> {
    if writer.roots.v4.root == 0 {
        // A single class had no tables.
        if partition.count() > 1 {
            writer.roots.v4 = V4::build(&mut writer.image, &partition.intervals)?;
        }
        return Ok(());
    }
    for &moved in &refined.moved {
        patches.v4(&mut writer.image, writer.roots.v4.root, moved)?;
    }
    Ok(())
}

fn patch_v6(
    writer: &mut Writer,
    partition: &Partition<u128>,
    refined: &Refined<u128>,
) -> Result<(), Outdated> {
    let v6 = &mut writer.roots.v6;
    let is_done = v6.is_built() && v6.renew(&mut writer.image, &partition.intervals, &refined.moved)?;
    if !is_done && partition.count() > 1 {
        writer.roots.v6 = V6::build(&mut writer.image, &partition.intervals)?;
    }
    Ok(())
}

/// Gives classes that are new, or in other sets than before, their place in the tables that are kept.
fn relocate<P: Value, S>(
    writer: &mut Writer,
    patches: &mut Patches,
    Numbers { partition, terms, .. }: &Numbers<P, S>,
    refined: &Refined<P>,
    (axis, family): (usize, Option<Family>),
    stale: &mut Vec<ChainId>,
) -> Result<(), Outdated> {
    if refined.made.is_empty() && refined.flipped.is_empty() {
        return Ok(());
    }
    let made = (refined.first_made..).zip(&refined.made);
    let made = made.map(|(class, (parent, sets))| (class, Some(*parent), sets));
    let flipped = refined.flipped.iter().map(|(class, sets)| (*class, None, sets));
    let is_asked = sets_of_tables(writer, partition.set_count(), axis);
    let mut is_held = vec![false; partition.set_count()];
    for (class, parent, sets) in made.chain(flipped) {
        if sets.iter().any(|&set| is_asked[set as usize]) {
            for (set, is_held) in (0..).zip(&mut is_held) {
                *is_held = partition.holds(set, class);
            }
        } else if parent.is_none() {
            continue;
        }
        let zeros = writer.zeros;
        for record in 0..writer.tables.len() {
            let Some(table) = &writer.tables[record] else { continue };
            if family.is_some_and(|family| record % 2 != family as usize) {
                continue;
            }
            let map = Map { at: table.record[axis], width: table.width_of(axis, &writer.maps) };
            let is_told = sets.iter().any(|set| table.axes[axis].sets.binary_search(set).is_ok());
            let local = match (is_told, parent) {
                (true, _) => table.axes[axis].local(terms, &is_held),
                (false, Some(parent)) if map.at != zeros => Some(local_class(writer, map, parent)),
                (false, _) => continue,
            };
            match local {
                Some(0) if map.at == zeros => {}
                Some(local) if map.at != zeros => {
                    patches.local(&mut writer.image, &writer.maps, map, class, local)?;
                }
                _ => stale.push(ChainId::new(record / 2)),
            }
        }
    }
    Ok(())
}

/// For each set of a dimension whether a table that is kept tells values apart by it.
fn sets_of_tables(writer: &Writer, sets: usize, axis: usize) -> Vec<bool> {
    let mut is_asked = vec![false; sets];
    for set in writer.tables.iter().flatten().flat_map(|table| &table.axes[axis].sets) {
        // Those of the other family may be more.
        if let Some(is_asked) = is_asked.get_mut(*set as usize) {
            *is_asked = true;
        }
    }
    is_asked
}

fn local_class(writer: &Writer, map: Map, class: u32) -> u16 {
    u16::try_from(writer.maps.local(&writer.image, map, class)).expect("at most 16 bits")
}
