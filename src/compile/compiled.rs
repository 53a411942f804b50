//! A program that can be given sets with other members, as long as nothing else of it would change by that.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::members::Members;
use super::sets::Sets;
use super::shared::Shared;
use crate::model::Limits;
use crate::program::{AddressSet, Program};

/// Where the sets of a program come from, by number: one of [`Sets`], if nothing else gives the same.
pub type Origins = Vec<Option<usize>>;

/// Notes one of the origins of a number; numbers come in order.
pub fn note(origins: &mut Origins, number: u32, id: Option<usize>) {
    match origins.get_mut(number as usize) {
        Some(known) if *known != id => *known = None,
        Some(_) => {}
        None => origins.push(id),
    }
}

/// A program, with what there has to be known to give its sets other members.
pub struct Compiled {
    pub program: Arc<Program>,
    pub addresses: Replaceable,
    pub ports: Replaceable,
    /// Of the limit.
    pub address_count: usize,
}

/// Sets of a program that can be replaced.
#[derive(Default)]
pub struct Replaceable {
    /// Of [`Sets`] to the number that nothing else has.
    numbers: FxHashMap<usize, usize>,
    /// Of all sets: how many have it; made when first asked for.
    hashes: Option<FxHashMap<u64, usize>>,
    /// Of each set.
    hash_of: Vec<u64>,
}

impl Replaceable {
    pub fn of<'s, T: 's>(origins: &Origins, sets: impl Iterator<Item = &'s Shared<T>>) -> Self {
        let hash_of = sets.map(Shared::hash).collect();
        let numbers = origins.iter().zip(0..).filter_map(|(id, number)| Some(((*id)?, number))).collect();
        Self { numbers, hashes: None, hash_of }
    }

    /// Puts another set in the place of one; gives its number. None where numbers could change by that.
    fn replace<T: Eq>(&mut self, id: usize, sets: &mut [Arc<T>], new: &Shared<T>) -> Option<usize> {
        let number = *self.numbers.get(&id)?;
        let old = std::mem::replace(&mut sets[number], Arc::clone(new.value()));
        let hashes = self.hashes.get_or_insert_with(|| counts(&self.hash_of));
        if hashes.contains_key(&new.hash()) {
            // As it was, or as another one is.
            return (old == *new.value()).then_some(number);
        }
        let hash = std::mem::replace(&mut self.hash_of[number], new.hash());
        match hashes.get_mut(&hash) {
            Some(1) => drop(hashes.remove(&hash)),
            Some(count) => *count -= 1,
            None => {}
        }
        hashes.insert(new.hash(), 1);
        Some(number)
    }
}

fn counts(hashes: &[u64]) -> FxHashMap<u64, usize> {
    let mut counts = FxHashMap::default();
    for hash in hashes {
        *counts.entry(*hash).or_default() += 1;
    }
    counts
}

impl Compiled {
    /// The program after sets, of members and of ports, have got other members. None where more than the sets may be
    /// other than before; this is good for nothing then.
    pub fn with_changed(
        &mut self,
        changed: [Vec<usize>; 2],
        sets: &mut Sets,
        members: &Members<'_>,
        now: u64,
        limits: &Limits,
    ) -> Option<Arc<Program>> {
        if changed.iter().all(Vec::is_empty) {
            return Some(Arc::clone(&self.program));
        }
        let mut program = Program::clone(&self.program);
        let [of_members, of_ports] = changed;
        for id in of_members {
            let new = sets.address_set(id, now, members);
            let number = self.addresses.replace(id, &mut program.address_sets, &new)?;
            let size = |set: &AddressSet| set.v4.len() + set.v6.len();
            self.address_count += size(new.get());
            self.address_count -= size(&self.program.address_sets[number]);
        }
        for id in of_ports {
            let new = sets.port_set(id, now, members);
            let number = self.ports.replace(id, &mut program.port_sets, &new)?;
            self.address_count += new.get().len();
            self.address_count -= self.program.port_sets[number].len();
        }
        self.program = Arc::new(program);
        (self.address_count <= limits.addresses).then(|| Arc::clone(&self.program))
    }
}
