//! Classes as one chain tells them apart: by the clauses that hold, nothing else.

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

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
    fn sets(&self) -> impl Iterator<Item = u32> {
        self.within.iter().chain(&self.outside).copied()
    }
}

/// One dimension of one chain.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Class of the partition to local class; empty where the chain does not look at this dimension.
    pub of_class: Vec<u16>,
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
    fn new(of_class: Vec<u16>, bits: Vec<Bits>, sets: Vec<u32>, of_clause: Vec<u32>) -> Self {
        let locals =
            (0..bits.len()).map(|local| u16::try_from(local).expect("no more than classes")).collect();
        Self { of_class, bits, locals, sets, of_clause }
    }

    /// How many local classes there are.
    pub fn count(&self) -> usize {
        self.locals.iter().max().map_or(0, |&most| usize::from(most) + 1)
    }

    /// Local classes by their new names.
    pub fn rename(&mut self, names: &[usize]) {
        for local in self.of_class.iter_mut().chain(&mut self.locals) {
            *local = u16::try_from(names[usize::from(*local)]).expect("no more than before");
        }
        if self.count() == 1 {
            self.of_class.clear();
        }
    }
}

/// What is kept of an [`Axis`]: enough to find the local class of a class that comes later.
pub struct KeptAxis {
    /// As in [`Axis`].
    pub sets: Vec<u32>,
    of_clause: Vec<u32>,
    /// One behind the other.
    bits: Vec<u64>,
    locals: Vec<u16>,
}

/// The term of a clause that holds nowhere.
pub const NEVER: u32 = u32::MAX;

impl KeptAxis {
    /// Of an axis whose local classes have their last names.
    pub fn of(Axis { bits, locals, sets, of_clause, .. }: Axis) -> Self {
        Self { sets, of_clause, bits: bits.concat(), locals }
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
        let place = self.bits.chunks_exact(bits.len().max(1)).position(|known| *known == bits[..])?;
        Some(self.locals[place])
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
    /// Class to part.
    part: Vec<u32>,
    parts: Vec<Part>,
    /// Set to whether it holds the part that is looked at.
    held: Vec<bool>,
    /// Term to whether it holds there.
    holds: Vec<bool>,
}

impl Splitter {
    /// The axis of a chain whose clauses have these of the terms.
    pub fn axis<P: Value, S>(
        &mut self,
        Numbers { partition, terms, .. }: &Numbers<P, S>,
        of_clause: Vec<u32>,
        steps: &mut Steps,
    ) -> Result<Axis, Refused> {
        let mut named = of_clause.clone();
        named.sort_unstable();
        named.dedup();
        let mut sets: Vec<u32> = named.iter().flat_map(|&term| terms[term as usize].sets()).collect();
        let evaluated = sets.len() + named.len() + of_clause.len();
        sets.sort_unstable();
        sets.dedup();
        if sets.is_empty() {
            return Ok(Axis::new(Vec::new(), vec![every(of_clause.len())], sets, of_clause));
        }
        self.split_by(partition, &sets, steps)?;
        steps.take(partition.count() + self.parts.len() * evaluated)?;
        self.held.resize(partition.set_count().max(self.held.len()), false);
        self.holds.resize(terms.len().max(self.holds.len()), false);
        for &set in &sets {
            self.held[set as usize] = partition.half(set).is_outside;
        }
        let mut local_of_part = vec![NONE; self.parts.len()];
        let mut bits: IndexSet<Bits, FxBuildHasher> = IndexSet::default();
        let mut of_class = Vec::with_capacity(self.part.len());
        for index in 0..self.part.len() {
            let part = self.part[index];
            let known = &mut local_of_part[part as usize];
            if *known == NONE {
                self.toggle_path(part);
                let holding = self.holding(terms, &named, &of_clause);
                self.toggle_path(part);
                *known = narrow(bits.insert_full(holding).0);
            }
            of_class.push(u16::try_from(*known).expect("no more than classes, which fit 16 bits"));
        }
        if bits.len() == 1 {
            of_class.clear();
        }
        Ok(Axis::new(of_class, bits.into_iter().collect(), sets, of_clause))
    }

    /// Afterwards two classes have one part exactly if the same of these sets hold them.
    fn split_by<P: Value>(
        &mut self,
        partition: &Partition<P>,
        sets: &[u32],
        steps: &mut Steps,
    ) -> Result<(), Refused> {
        self.part.clear();
        self.part.resize(partition.count(), 0);
        self.parts.clear();
        self.parts.push(Part { parent: NONE, by: NONE, split: (NONE, 0) });
        for &set in sets {
            let half = partition.half(set);
            steps.take(half.size)?;
            for class in half.runs.iter().cloned().flatten() {
                let part = &mut self.part[class as usize];
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

    fn holding(&mut self, terms: &[Term], named: &[u32], of_clause: &[u32]) -> Bits {
        for &number in named {
            let Term { within, outside } = &terms[number as usize];
            let held = |set: &u32| self.held[*set as usize];
            self.holds[number as usize] = within.iter().all(held) && !outside.iter().any(held);
        }
        let mut bits = vec![0; of_clause.len().div_ceil(64)];
        for (clause, &term) in of_clause.iter().enumerate() {
            bits[clause / 64] |= u64::from(self.holds[term as usize]) << (clause % 64);
        }
        bits
    }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("the steps of splitting are counted")
}
