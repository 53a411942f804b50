//! Sets that criteria of rules name: of addresses, and of ports of addresses.

use smallvec::SmallVec;

use crate::flow::Family;

/// A set of addresses: sorted, disjoint, maximal ranges per family. Most are one network of IPv4, which stands in the set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressSet {
    /// Inclusive IPv4 ranges.
    pub v4: SmallVec<[(u32, u32); 2]>,
    /// Inclusive IPv6 ranges.
    pub v6: Vec<(u128, u128)>,
}

impl AddressSet {
    /// Adds an address that is not below those that are in.
    #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
    pub fn push(&mut self, family: Family, address: u128) {
        /// A range of its own, if it does not go on with the last one.
        fn apart<T: Copy + Ord>(ranges: &mut [(T, T)], address: T, before: Option<T>) -> Option<(T, T)> {
            match ranges.last_mut() {
                Some((_, last)) if *last >= address => None,
                Some((_, last)) if Some(*last) == before => {
                    *last = address;
                    None
                }
                _ => Some((address, address)),
            }
        }
        match family {
            Family::V4 => {
                let address = address as u32;
                let new = apart(&mut self.v4, address, address.checked_sub(1));
                self.v4.extend(new);
            }
            Family::V6 => {
                let new = apart(&mut self.v6, address, address.checked_sub(1));
                self.v6.extend(new);
            }
        }
    }

    /// The set with all addresses from the first to the last; `None` if it holds them.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
    pub fn with(&self, family: Family, first: u128, last: u128) -> Option<Self> {
        let Self { v4, v6 } = self;
        match family {
            Family::V4 => {
                let v4 = ranges_with(v4, (first as u32, last as u32), |last| last.checked_add(1))?;
                Some(Self { v4: v4.into(), v6: v6.clone() })
            }
            Family::V6 => {
                let v6 = ranges_with(v6, (first, last), |last| last.checked_add(1))?;
                Some(Self { v4: v4.clone(), v6 })
            }
        }
    }

    /// The set without the addresses from the first to the last; `None` if it holds none of them.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
    pub fn without(&self, family: Family, first: u128, last: u128) -> Option<Self> {
        let Self { v4, v6 } = self;
        match family {
            Family::V4 => {
                let v4 = ranges_without(v4, (first as u32, last as u32), |first| first - 1, |last| last + 1)?;
                Some(Self { v4: v4.into(), v6: v6.clone() })
            }
            Family::V6 => {
                let v6 = ranges_without(v6, (first, last), |first| first - 1, |last| last + 1)?;
                Some(Self { v4: v4.clone(), v6 })
            }
        }
    }

    /// Whether the address is a member; O(log n).
    pub fn contains(&self, family: Family, address: u128) -> bool {
        match family {
            Family::V4 => u32::try_from(address).is_ok_and(|address| in_ranges(&self.v4, address)),
            Family::V6 => in_ranges(&self.v6, address),
        }
    }
}

fn ranges_with<T: Copy + Ord>(
    ranges: &[(T, T)],
    (first, last): (T, T),
    next: impl Fn(T) -> Option<T>,
) -> Option<Vec<(T, T)>> {
    // Those that begin behind the new range without touching it, and those that end before.
    let behind = ranges.partition_point(|&(other, _)| next(last).is_none_or(|next| other <= next));
    let before = ranges.partition_point(|&(_, end)| next(end).is_some_and(|next| next < first));
    let (touched, mut new) = (&ranges[before..behind], (first, last));
    if let (Some(&(from, _)), Some(&(_, to))) = (touched.first(), touched.last()) {
        if touched.len() == 1 && from <= first && last <= to {
            return None;
        }
        new = (from.min(first), to.max(last));
    }
    Some([&ranges[..before], &[new], &ranges[behind..]].concat())
}

fn ranges_without<T: Copy + Ord>(
    ranges: &[(T, T)],
    (first, last): (T, T),
    before: impl Fn(T) -> T,
    next: impl Fn(T) -> T,
) -> Option<Vec<(T, T)>> {
    let from = ranges.partition_point(|&(_, end)| end < first);
    let behind = ranges.partition_point(|&(start, _)| start <= last);
    let (touched, untouched) = (ranges.get(from..behind)?, &ranges[behind..]);
    let ((begin, _), (_, end)) = (*touched.first()?, *touched.last()?);
    let left = (begin < first).then(|| (begin, before(first)));
    let right = (last < end).then(|| (next(last), end));
    Some([&ranges[..from], left.as_slice(), right.as_slice(), untouched].concat())
}

fn in_ranges<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after > 0 && ranges[after - 1].1 >= address
}

/// An address, a protocol, a port.
pub type PortMember = (Family, u128, u8, u16);

/// A set of (address, protocol, port): sorted, without duplicates. There may be one for each pod of a cluster, and an edit
/// copies them: those of IPv4 are a quarter as large.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortSet {
    /// Of IPv4 addresses.
    pub v4: Vec<(u32, u8, u16)>,
    /// Of IPv6 addresses.
    pub v6: Vec<(u128, u8, u16)>,
}

impl PortSet {
    /// All members, in their order: those of IPv4 first.
    pub fn members(&self) -> impl Iterator<Item = PortMember> {
        (0..self.len()).map(|index| self.member(index))
    }

    /// A member by its place in the order. Panics beyond the last one.
    pub fn member(&self, index: usize) -> PortMember {
        if let Some(&(address, protocol, port)) = self.v4.get(index) {
            return (Family::V4, address.into(), protocol, port);
        }
        let (address, protocol, port) = self.v6[index - self.v4.len()];
        (Family::V6, address, protocol, port)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the tuple is a member; O(log n).
    pub fn contains(&self, family: Family, address: u128, protocol: u8, port: u16) -> bool {
        match family {
            Family::V4 => u32::try_from(address)
                .is_ok_and(|address| self.v4.binary_search(&(address, protocol, port)).is_ok()),
            Family::V6 => self.v6.binary_search(&(address, protocol, port)).is_ok(),
        }
    }
}

impl FromIterator<PortMember> for PortSet {
    #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
    fn from_iter<I: IntoIterator<Item = PortMember>>(members: I) -> Self {
        let mut set = Self::default();
        for (family, address, protocol, port) in members {
            match family {
                Family::V4 => set.v4.push((address as u32, protocol, port)),
                Family::V6 => set.v6.push((address, protocol, port)),
            }
        }
        set.v4.sort_unstable();
        set.v4.dedup();
        set.v6.sort_unstable();
        set.v6.dedup();
        set
    }
}
