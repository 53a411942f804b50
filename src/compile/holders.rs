//! Who has an address: a member that goes leaves it to the others that have it too. Asked only when one goes, so it is
//! known from the first time on.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::program::Net;

/// Members by their addresses and prefixes.
#[derive(Default)]
pub struct Holders {
    /// Of an address or prefix: one that has it.
    first: FxHashMap<Net, usize>,
    /// The others, where it has more than one.
    more: FxHashMap<Net, Vec<usize>>,
    /// By family: how many have prefixes with so many free bits. Few lengths are in use.
    lengths: [BTreeMap<u32, usize>; 2],
}

impl Holders {
    pub fn insert(&mut self, member: usize, nets: &[Net]) {
        for net in nets {
            let first = *self.first.entry(*net).or_insert(member);
            if first != member {
                self.more.entry(*net).or_default().push(member);
            }
            *self.lengths[net.family as usize].entry(free_bits(net)).or_default() += 1;
        }
    }

    pub fn remove(&mut self, member: usize, nets: &[Net]) {
        for net in nets {
            let next = self.more.get_mut(net).and_then(|more| {
                more.retain(|&other| other != member);
                if self.first.get(net) == Some(&member) { more.pop() } else { None }
            });
            match next {
                Some(other) => drop(self.first.insert(*net, other)),
                None if self.first.get(net) == Some(&member) => drop(self.first.remove(net)),
                None => {}
            }
            if self.more.get(net).is_some_and(Vec::is_empty) {
                self.more.remove(net);
            }
            let lengths = &mut self.lengths[net.family as usize];
            let count = lengths.get_mut(&free_bits(net)).expect("it was counted");
            *count -= 1;
            if *count == 0 {
                lengths.remove(&free_bits(net));
            }
        }
    }

    /// Those that have an address, alone or in a prefix.
    pub fn of(&self, address: Net) -> impl Iterator<Item = usize> {
        let lengths = self.lengths[address.family as usize].keys();
        lengths.map(move |&free_bits| around(address, free_bits)).flat_map(|net| {
            let more = self.more.get(&net).into_iter().flatten();
            self.first.get(&net).into_iter().chain(more).copied()
        })
    }
}

fn free_bits(net: &Net) -> u32 {
    (net.first ^ net.last).count_ones()
}

/// The prefix with so many free bits that an address lies in.
fn around(address: Net, free_bits: u32) -> Net {
    let free = 1_u128.checked_shl(free_bits).map_or(u128::MAX, |next| next - 1);
    Net { first: address.first & !free, last: address.first | free, ..address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Family;

    fn net(first: u128, last: u128) -> Net {
        Net { family: Family::V4, first, last }
    }

    #[test]
    fn an_address_has_who_is_left() {
        let mut holders = Holders::default();
        let (one, two) = (net(1, 1), net(2, 2));
        for (member, nets) in [vec![one], vec![one, two], vec![net(0, 7)], vec![one]].iter().enumerate() {
            holders.insert(member, nets);
        }
        let of = |holders: &Holders, net: &Net| {
            let mut found: Vec<usize> = holders.of(*net).collect();
            found.sort_unstable();
            found
        };
        assert_eq!((of(&holders, &one), of(&holders, &two)), (vec![0, 1, 2, 3], vec![1, 2]));
        holders.remove(0, &[one]);
        assert_eq!(of(&holders, &one), [1, 2, 3]);
        holders.remove(1, &[one, two]);
        assert_eq!((of(&holders, &one), of(&holders, &two)), (vec![2, 3], vec![2]));
        holders.remove(2, &[net(0, 7)]);
        holders.remove(3, &[one]);
        assert_eq!(of(&holders, &one), [] as [usize; 0]);
        assert!(holders.first.is_empty() && holders.more.is_empty());
        assert!(holders.lengths.iter().all(BTreeMap::is_empty));
    }
}
