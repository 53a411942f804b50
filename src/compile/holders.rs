//! Who has an address: a member that goes leaves it to the others that have it too. Asked only when one goes, so it is
//! known from the first time on.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::program::Net;

/// Members by their addresses and prefixes.
#[derive(Default)]
pub struct Holders {
    /// Of an address or prefix: all that have it, mostly one.
    members: FxHashMap<Net, SmallVec<[usize; 1]>>,
    /// By family: how many have prefixes with so many free bits. Few lengths are in use.
    lengths: [BTreeMap<u32, usize>; 2],
}

impl Holders {
    pub fn insert(&mut self, member: usize, nets: &[Net]) {
        for net in nets {
            self.members.entry(*net).or_default().push(member);
            *self.lengths[net.family as usize].entry(free_bits(net)).or_default() += 1;
        }
    }

    pub fn remove(&mut self, member: usize, nets: &[Net]) {
        for net in nets {
            if let Entry::Occupied(mut members) = self.members.entry(*net) {
                members.get_mut().retain(|other| *other != member);
                if members.get().is_empty() {
                    members.remove();
                }
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
        let prefixes = lengths.map(move |&free_bits| around(address, free_bits));
        prefixes.flat_map(|net| self.members.get(&net).into_iter().flatten().copied())
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
        assert!(holders.members.is_empty());
        assert!(holders.lengths.iter().all(BTreeMap::is_empty));
    }
}
