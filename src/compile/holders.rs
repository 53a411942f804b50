//! Who has an address: a member that goes leaves it to the others that have it too. Asked only when one goes, so it is
//! known from the first time on.

use rustc_hash::FxHashMap;

use crate::program::Net;

/// Members by their addresses.
#[derive(Default)]
pub struct Holders {
    /// Of a single address: one that has it.
    first: FxHashMap<Net, usize>,
    /// The others, where an address has more than one.
    more: FxHashMap<Net, Vec<usize>>,
    /// Those that have prefixes.
    wide: Vec<usize>,
}

impl Holders {
    pub fn insert(&mut self, member: usize, nets: &[Net]) {
        for net in nets.iter().filter(|net| net.is_single()) {
            let first = *self.first.entry(*net).or_insert(member);
            if first != member {
                self.more.entry(*net).or_default().push(member);
            }
        }
        if !nets.iter().all(Net::is_single) {
            self.wide.push(member);
        }
    }

    pub fn remove(&mut self, member: usize, nets: &[Net]) {
        for net in nets.iter().filter(|net| net.is_single()) {
            if let Some(more) = self.more.get_mut(net) {
                more.retain(|&other| other != member);
            }
            if self.first.get(net) == Some(&member) {
                match self.more.get_mut(net).and_then(Vec::pop) {
                    Some(other) => drop(self.first.insert(*net, other)),
                    None => drop(self.first.remove(net)),
                }
            }
            self.more.retain(|_, more| !more.is_empty());
        }
        self.wide.retain(|&other| other != member);
    }

    /// Those that have the address, and those that may have it among others.
    pub fn of(&self, net: Net) -> impl Iterator<Item = usize> {
        let more = self.more.get(&net).into_iter().flatten();
        self.first.get(&net).into_iter().chain(more).chain(&self.wide).copied()
    }
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
        assert!(holders.more.is_empty());
    }
}
