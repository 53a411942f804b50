//! Classes as one chain tells them apart: by the clauses that hold, nothing else.

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap};

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
    fn is_trivial(&self) -> bool {
        self.within.is_empty() && self.outside.is_empty()
    }

    fn sets(&self) -> impl Iterator<Item = u32> {
        self.within.iter().chain(&self.outside).copied()
    }
}

/// One dimension of one chain.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Class of the partition to local class; empty where the chain does not look at this dimension.
    pub of_class: Vec<u16>,
    /// Local class to the clauses that hold there.
    pub bits: Vec<Bits>,
}

/// Local classes do not fit their 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany(pub usize);

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

/// Splits the classes of a partition by the sets that a chain names; keeps its buffers between chains.
#[derive(Debug, Default)]
pub struct Splitter {
    part: Vec<u32>,
    /// Of each part: the set that split it last, and what it became.
    split: Vec<(u32, u32)>,
    held: Vec<bool>,
}

impl Splitter {
    /// The axis of a chain whose clauses have these terms.
    pub fn axis<P: Value>(&mut self, partition: &Partition<P>, terms: &[Term]) -> Result<Axis, TooMany> {
        let mut sets: Vec<u32> = terms.iter().flat_map(Term::sets).collect();
        sets.sort_unstable();
        sets.dedup();
        if sets.is_empty() {
            return Ok(Axis { of_class: Vec::new(), bits: vec![every(terms.len())] });
        }
        self.split_by(partition, &sets);
        let distinct: IndexSet<&Term, FxBuildHasher> = terms.iter().collect();
        let number_of: Vec<usize> =
            terms.iter().map(|term| distinct.get_index_of(term).expect("collected above")).collect();
        self.held.resize(partition.classes_of.len(), false);
        let mut local_of_part: FxHashMap<u32, u16> = FxHashMap::default();
        let mut bits: IndexSet<Bits, FxBuildHasher> = IndexSet::default();
        let mut of_class = Vec::with_capacity(self.part.len());
        for (class, &part) in self.part.iter().enumerate() {
            let local = if let Some(&local) = local_of_part.get(&part) {
                local
            } else {
                let holding = &partition.sets_of[class];
                let local =
                    bits.insert_full(holding_clauses(&mut self.held, holding, &distinct, &number_of)).0;
                let local = u16::try_from(local).map_err(|_| TooMany(local + 1))?;
                local_of_part.insert(part, local);
                local
            };
            of_class.push(local);
        }
        Ok(Axis { of_class, bits: bits.into_iter().collect() })
    }

    /// Afterwards two classes have one part exactly if the same of these sets hold them.
    fn split_by<P: Value>(&mut self, partition: &Partition<P>, sets: &[u32]) {
        self.part.clear();
        self.part.resize(partition.count(), 0);
        self.split.clear();
        self.split.push((u32::MAX, 0));
        for &set in sets {
            for &class in &partition.classes_of[set as usize] {
                let part = &mut self.part[class as usize];
                let known = self.split[*part as usize];
                let new = if known.0 == set {
                    known.1
                } else {
                    let new = u32::try_from(self.split.len()).expect("no more parts than classes and sets");
                    self.split[*part as usize] = (set, new);
                    self.split.push((u32::MAX, 0));
                    new
                };
                *part = new;
            }
        }
    }
}

fn holding_clauses(
    held: &mut [bool],
    holding: &[u32],
    distinct: &IndexSet<&Term, FxBuildHasher>,
    number_of: &[usize],
) -> Bits {
    for &set in holding {
        held[set as usize] = true;
    }
    let holds: Vec<bool> = distinct
        .iter()
        .map(|term| {
            term.is_trivial()
                || (term.within.iter().all(|&set| held[set as usize])
                    && !term.outside.iter().any(|&set| held[set as usize]))
        })
        .collect();
    for &set in holding {
        held[set as usize] = false;
    }
    let mut bits = vec![0; number_of.len().div_ceil(64)];
    for (clause, &number) in number_of.iter().enumerate() {
        bits[clause / 64] |= u64::from(holds[number]) << (clause % 64);
    }
    bits
}
