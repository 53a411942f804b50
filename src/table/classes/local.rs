//! Classes as one chain tells them apart: by the clauses that hold, nothing else.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::BLOCK;
use super::limits::{Refused, Steps};
use super::numbers::Numbers;
use super::partition::{Partition, Value};

/// Clauses by index, as a bit set.
pub type Bits = Vec<u64>;

/// Sets (by their number in a partition) that all hold a value, and sets of which none does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    /// All of these hold it.
    pub within: Vec<u32>,
    /// None of these holds it.
    pub outside: Vec<u32>,
}

impl Term {
    /// All of them.
    pub fn sets(&self) -> impl Iterator<Item = u32> {
        self.within.iter().chain(&self.outside).copied()
    }
}

/// One dimension of one chain: class of the partition to local class. Most classes are in none of the sets that a chain
/// names; blocks of those are not looked at.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Classes of the partition.
    pub classes: usize,
    /// Local classes of a block of classes, by its index, ascending.
    pub blocks: Vec<(usize, [u16; BLOCK])>,
    /// Local class of all classes in other blocks.
    pub other: u16,
    /// The clauses that hold somewhere, each once.
    pub bits: Vec<Bits>,
    /// Where those of `bits` hold: local classes, which are fewer where answers are the same.
    pub locals: Vec<u16>,
    /// The sets that tell values apart here, ascending.
    pub sets: Vec<u32>,
    /// Clause to term.
    pub of_clause: Vec<u32>,
}

impl Axis {
    /// All classes are local class 0.
    pub fn single(classes: usize, bits: Bits, of_clause: Vec<u32>) -> Self {
        let (blocks, sets) = (Vec::new(), Vec::new());
        Self { classes, blocks, other: 0, bits: vec![bits], locals: vec![0], sets, of_clause }
    }

    /// How many local classes there are.
    pub fn count(&self) -> usize {
        self.locals.iter().max().map_or(0, |&most| usize::from(most) + 1)
    }

    /// Whether the chain does not look at this dimension.
    pub fn is_single(&self) -> bool {
        self.count() == 1
    }

    /// Local classes by their new names.
    pub fn rename(&mut self, names: &[usize]) {
        let name = |local: u16| narrow_local(names[usize::from(local)]);
        self.other = name(self.other);
        let blocks = self.blocks.iter_mut().flat_map(|(_, block)| block);
        for local in blocks.chain(&mut self.locals) {
            *local = name(*local);
        }
        if self.is_single() {
            self.blocks.clear();
        }
    }
}

fn narrow_local(local: usize) -> u16 {
    u16::try_from(local).expect("no more than classes, which fit 16 bits")
}

/// What is kept of an [`Axis`]: enough to find the local class of a class that comes later.
pub struct KeptAxis {
    /// As in [`Axis`].
    pub sets: Vec<u32>,
    of_clause: Vec<u32>,
    /// By the digest of the clauses that hold: of thousands, those themselves would take more than all tables.
    locals: FxHashMap<u128, u16>,
    digest: Digest,
}

/// Equal digests are taken for equal bits. The keys are random and known to nobody, so that no two can be made alike.
struct Digest([RandomState; 2]);

impl Digest {
    fn of(&self, bits: &[u64]) -> u128 {
        let [low, high] = self.0.each_ref().map(|keys| keys.hash_one(bits));
        u128::from(high) << 64 | u128::from(low)
    }
}

/// The term of a clause that holds nowhere.
pub const NEVER: u32 = u32::MAX;

impl KeptAxis {
    /// Of an axis whose local classes have their last names.
    pub fn of(Axis { bits, locals, sets, of_clause, .. }: Axis) -> Self {
        let digest = Digest([RandomState::new(), RandomState::new()]);
        let locals = bits.iter().zip(locals).map(|(bits, local)| (digest.of(bits), local)).collect();
        Self { sets, of_clause, locals, digest }
    }

    /// The local class of what exactly these sets hold; none if there is no such one yet.
    pub fn local(&self, terms: &[Term], is_held: &[bool]) -> Option<u16> {
        let mut bits = vec![0; self.of_clause.len().div_ceil(64)];
        for (clause, &term) in self.of_clause.iter().enumerate().filter(|&(_, &term)| term != NEVER) {
            let Term { within, outside } = &terms[term as usize];
            let held = |set: &u32| is_held[*set as usize];
            let holds = within.iter().all(held) && !outside.iter().any(held);
            bits[clause / 64] |= u64::from(holds) << (clause % 64);
        }
        self.locals.get(&self.digest.of(&bits)).copied()
    }
}

/// Every bit of `count` clauses.
pub fn every(count: usize) -> Bits {
    let mut bits = vec![u64::MAX; count.div_ceil(64)];
    if let Some(last) = bits.last_mut()
        && !count.is_multiple_of(64)
    {
        *last = (1 << (count % 64)) - 1;
    }
    bits
}

/// Classes that the sets of a chain do not tell apart.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The part that it was split from, and the set that did it: the two differ in that set only.
    parent: u32,
    by: u32,
    /// The set that split it last, and what the split made.
    split: (u32, u32),
}

const NONE: u32 = u32::MAX;

/// Splits the classes of a partition by the sets that a chain names; keeps its buffers between chains.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Class to part; classes that are in none of the sets are in part 0.
    part: Vec<u32>,
    /// Blocks with a class in another part, as a bit set.
    touched: Vec<u64>,
    parts: Vec<Part>,
    /// Set to whether it holds the part that is looked at.
    held: Vec<bool>,
}

impl Splitter {
    /// The axis of a chain whose clauses have these of the terms.
    pub fn axis<P: Value, S>(
        &mut self,
        Numbers { partition, terms, .. }: &Numbers<P, S>,
        of_clause: Vec<u32>,
        steps: &mut Steps,
    ) -> Result<Axis, Refused> {
        let looks = Looks::of(&of_clause, terms);
        if looks.sets.is_empty() {
            return Ok(Axis::single(partition.count(), every(of_clause.len()), of_clause));
        }
        self.split_by(partition, &looks.sets, steps)?;
        steps.take(partition.count() / BLOCK + looks.clauses.len())?;
        self.held.resize(partition.set_count().max(self.held.len()), false);
        for &set in &looks.sets {
            self.held[set as usize] = partition.half(set).is_outside;
        }
        let mut first = vec![0; of_clause.len().div_ceil(64)];
        for place in 0..looks.terms.len() {
            looks.note(place, &self.held, &mut first);
        }
        let mut found: IndexMap<Bits, usize, FxBuildHasher> = IndexMap::default();
        let mut found_of_part = vec![0; self.parts.len()];
        for (part, size) in (0..).zip(self.sizes(partition.count())).filter(|(_, size)| *size > 0) {
            self.toggle_path(part);
            let entry = found.entry(self.holding(part, &looks, first.clone(), steps)?);
            self.toggle_path(part);
            found_of_part[part as usize] = entry.index();
            *entry.or_default() += size;
        }
        let (names, bits) = largest_first(found);
        let local = |part: u32| narrow_local(names[found_of_part[part as usize]]);
        let locals = |block: &[u32]| std::array::from_fn(|class| local(block[class]));
        let mut axis = Axis {
            classes: partition.count(),
            blocks: self
                .touched()
                .map(|block| (block, locals(&self.part[block * BLOCK..][..BLOCK])))
                .collect(),
            other: local(0),
            locals: (0..bits.len()).map(narrow_local).collect(),
            bits,
            sets: looks.sets,
            of_clause,
        };
        if axis.is_single() {
            axis.blocks.clear();
        }
        Ok(axis)
    }

    /// Of each part, how many classes are left in it.
    fn sizes(&self, classes: usize) -> Vec<usize> {
        let mut sizes = vec![0; self.parts.len()];
        sizes[0] = classes;
        for block in self.touched() {
            let block = &self.part[block * BLOCK..classes.min((block + 1) * BLOCK)];
            sizes[0] -= block.len();
            for &part in block {
                sizes[part as usize] += 1;
            }
        }
        sizes
    }

    fn touched(&self) -> impl Iterator<Item = usize> {
        (0..64 * self.touched.len()).filter(|block| self.touched[block / 64] >> (block % 64) & 1 == 1)
    }

    /// All classes are in part 0 again.
    fn reset(&mut self, classes: usize) {
        for block in self.touched().collect::<Vec<_>>() {
            self.part[block * BLOCK..][..BLOCK].fill(0);
        }
        self.touched.fill(0);
        let blocks = classes.div_ceil(BLOCK);
        self.part.resize(self.part.len().max(blocks * BLOCK), 0);
        self.touched.resize(self.touched.len().max(blocks.div_ceil(64)), 0);
        self.parts.clear();
        self.parts.push(Part { parent: NONE, by: NONE, split: (NONE, 0) });
    }

    /// Afterwards two classes have one part exactly if the same of these sets hold them.
    fn split_by<P: Value>(
        &mut self,
        partition: &Partition<P>,
        sets: &[u32],
        steps: &mut Steps,
    ) -> Result<(), Refused> {
        self.reset(partition.count());
        for &set in sets {
            let half = partition.half(set);
            steps.take(half.size)?;
            for class in half.runs.iter().cloned().flatten() {
                let part = &mut self.part[class as usize];
                if *part == 0 {
                    let block = class as usize / BLOCK;
                    self.touched[block / 64] |= 1 << (block % 64);
                }
                let known = self.parts[*part as usize].split;
                *part = if known.0 == set {
                    known.1
                } else {
                    let made = narrow(self.parts.len());
                    self.parts[*part as usize].split = (set, made);
                    self.parts.push(Part { parent: *part, by: set, split: (NONE, 0) });
                    made
                };
            }
        }
        Ok(())
    }

    /// From the sets that hold the first part to those that hold this one, or back.
    fn toggle_path(&mut self, mut part: u32) {
        while part != 0 {
            let Part { parent, by, .. } = self.parts[part as usize];
            self.held[by as usize] ^= true;
            part = parent;
        }
    }

    /// The clauses that hold in a part, by those that hold in the first one: sets on the way to it have been toggled.
    fn holding(
        &self,
        mut part: u32,
        looks: &Looks<'_>,
        mut bits: Bits,
        steps: &mut Steps,
    ) -> Result<Bits, Refused> {
        let mut looked = bits.len();
        while part != 0 {
            let Part { parent, by, .. } = self.parts[part as usize];
            for &(_, place) in looks.of_set(by) {
                looked += looks.note(place as usize, &self.held, &mut bits);
            }
            part = parent;
        }
        steps.take(looked)?;
        Ok(bits)
    }
}

/// New names of local classes, and what they are by these: those of most classes come first. Chains that differ in a few
/// small sets then call most classes the same, and blocks of those are one.
fn largest_first(found: IndexMap<Bits, usize, FxBuildHasher>) -> (Vec<usize>, Vec<Bits>) {
    let mut order: Vec<_> = found.into_iter().enumerate().collect();
    order.sort_by_key(|&(_, (_, size))| Reverse(size));
    let mut names = vec![0; order.len()];
    for (name, &(local, _)) in order.iter().enumerate() {
        names[local] = name;
    }
    (names, order.into_iter().map(|(_, (bits, _))| bits).collect())
}

/// What the clauses of a chain look at in one dimension.
struct Looks<'t> {
    /// All that they name, ascending.
    sets: Vec<u32>,
    /// Each once, with where its clauses end in `clauses`; they begin where those of the one before it end.
    terms: Vec<(&'t Term, usize)>,
    /// Of each term.
    clauses: Vec<usize>,
    /// Set and place of a term that names it, ascending.
    naming: Vec<(u32, u32)>,
}

impl<'t> Looks<'t> {
    fn of(of_clause: &[u32], terms: &'t [Term]) -> Self {
        let mut clauses: Vec<usize> = (0..of_clause.len()).collect();
        clauses.sort_by_key(|&clause| of_clause[clause]);
        let (mut named, mut naming) = (Vec::new(), Vec::new());
        for same in clauses.chunk_by(|&a, &b| of_clause[a] == of_clause[b]) {
            let term = &terms[of_clause[same[0]] as usize];
            naming.extend(term.sets().map(|set| (set, narrow(named.len()))));
            let begin = named.last().map_or(0, |&(_, end)| end);
            named.push((term, begin + same.len()));
        }
        naming.sort_unstable();
        let mut sets: Vec<u32> = naming.iter().map(|&(set, _)| set).collect();
        sets.dedup();
        Self { sets, terms: named, clauses, naming }
    }

    /// The terms that name a set.
    fn of_set(&self, set: u32) -> &[(u32, u32)] {
        let first = self.naming.partition_point(|&(named, _)| named < set);
        let count = self.naming[first..].partition_point(|&(named, _)| named == set);
        &self.naming[first..first + count]
    }

    /// Notes in the bits of its clauses whether a term holds where these sets do; what that takes.
    fn note(&self, place: usize, held: &[bool], bits: &mut [u64]) -> usize {
        let (Term { within, outside }, end) = self.terms[place];
        let begin = place.checked_sub(1).map_or(0, |before| self.terms[before].1);
        let held = |set: &u32| held[*set as usize];
        let holds = within.iter().all(held) && !outside.iter().any(held);
        for clause in &self.clauses[begin..end] {
            let mask = 1 << (clause % 64);
            bits[clause / 64] = if holds { bits[clause / 64] | mask } else { bits[clause / 64] & !mask };
        }
        within.len() + outside.len() + end - begin
    }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("the steps of splitting are counted")
}
