//! Text to addresses and prefixes, and prefixes to sorted, disjoint, maximal ranges.

use std::hash::Hash;
use std::net::IpAddr;

use super::error::{CompileError, Place};
use super::shared::{Shared, part};
use crate::flow::{Family, address_number};
use crate::program::{AddressSet, Net};

/// A CIDR or a bare address; host bits may be set and are cleared.
pub fn net(place: &Place<'_>, text: &str) -> Result<Net, CompileError> {
    parse_net(text).ok_or_else(|| place.unexpected(text, "a CIDR such as 10.0.0.0/8 or fd00::/8"))
}

/// A bare address or a prefix of full length.
pub fn single(place: &Place<'_>, text: &str) -> Result<Net, CompileError> {
    parse_net(text)
        .filter(|net| net.first == net.last)
        .ok_or_else(|| place.unexpected(text, "a single address such as 10.0.0.1 or fd00::1"))
}

fn parse_net(text: &str) -> Option<Net> {
    let (address, length) = match text.split_once('/') {
        // Parsing numbers would take a sign.
        Some((address, length)) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            (address, Some(length.parse::<u32>().ok()?))
        }
        Some(_) => return None,
        None => (text, None),
    };
    let (family, number) = address_number(address.parse::<IpAddr>().ok()?);
    let width = if family == Family::V4 { 32 } else { 128 };
    let length = length.unwrap_or(width);
    let host_bits = width.checked_sub(length)?;
    let mask = if host_bits == 128 { u128::MAX } else { (1_u128 << host_bits) - 1 };
    Some(Net { family, first: number & !mask, last: number | mask })
}

/// The union of prefixes.
pub fn union(nets: impl IntoIterator<Item = Net>) -> AddressSet {
    let mut set = AddressSet::default();
    for net in nets {
        match net.family {
            Family::V4 => set.v4.push(narrow(net)),
            Family::V6 => set.v6.push((net.first, net.last)),
        }
    }
    let left = merge(&mut set.v4, |last| last.checked_add(1));
    set.v4.truncate(left);
    let left = merge(&mut set.v6, |last| last.checked_add(1));
    set.v6.truncate(left);
    set
}

#[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
fn narrow(net: Net) -> (u32, u32) {
    (net.first as u32, net.last as u32)
}

/// Sorted, disjoint, maximal: ranges that touch become one. Says how many are left, at the front.
fn merge<T: Copy + Ord>(ranges: &mut [(T, T)], next: impl Fn(T) -> Option<T>) -> usize {
    ranges.sort_unstable();
    let mut left = 0;
    for at in 0..ranges.len() {
        let (first, last) = ranges[at];
        match ranges[..left].last_mut() {
            Some(open) if next(open.1).is_none_or(|next| next >= first) => open.1 = open.1.max(last),
            _ => {
                ranges[left] = (first, last);
                left += 1;
            }
        }
    }
    left
}

/// The set with more prefixes; none if it holds them all.
pub fn with(set: &Shared<AddressSet>, nets: &[Net]) -> Option<Shared<AddressSet>> {
    let mut larger: Option<Shared<AddressSet>> = None;
    for net in nets {
        let known = larger.as_ref().unwrap_or(set);
        if let Some(grown) = known.get().with(net.family, net.first, net.last) {
            let change = match net.family {
                Family::V4 => growth(&known.get().v4, &grown.v4, narrow(*net).0),
                Family::V6 => growth(&known.get().v6, &grown.v6, net.first),
            };
            larger = Some(known.after(grown, change));
        }
    }
    larger
}

/// What the sum of ranges has grown by, where a value has come in.
fn growth<T: Copy + Ord + Hash>(old: &[(T, T)], new: &[(T, T)], value: T) -> u64 {
    let holder = new[new.partition_point(|&(first, _)| first <= value) - 1];
    let before = old.partition_point(|&(first, _)| first < holder.0);
    let behind = old.partition_point(|&(first, _)| first <= holder.1);
    let gone = old[before..behind].iter().map(part).fold(0, u64::wrapping_add);
    part(&holder).wrapping_sub(gone)
}

/// The set without a prefix; none if it holds nothing of it.
pub fn without(set: &Shared<AddressSet>, net: &Net) -> Option<Shared<AddressSet>> {
    let known = set.get();
    let less = known.without(net.family, net.first, net.last)?;
    let change = match net.family {
        Family::V4 => loss(&known.v4, &less.v4, narrow(*net)),
        Family::V6 => loss(&known.v6, &less.v6, (net.first, net.last)),
    };
    Some(set.after(less, change))
}

/// What the sum of ranges has changed by, where values have gone.
fn loss<T: Copy + Ord + Hash>(old: &[(T, T)], new: &[(T, T)], (first, last): (T, T)) -> u64 {
    let before = old.partition_point(|&(_, end)| end < first);
    let behind = old.partition_point(|&(start, _)| start <= last);
    let sum = |ranges: &[(T, T)]| ranges.iter().map(part).fold(0, u64::wrapping_add);
    let left = &new[before..new.len() - (old.len() - behind)];
    sum(left).wrapping_sub(sum(&old[before..behind]))
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;

    fn union_of(texts: &[&str]) -> AddressSet {
        union(texts.iter().map(|text| parse_net(text).expect("a CIDR")))
    }

    #[test]
    fn ranges_are_disjoint_and_maximal() {
        let set =
            union_of(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.7", "10.0.3.9/24", "fd00::1", "fd00::/127"]);
        assert_eq!(set.v4[..], [(0x0a00_0000, 0x0a00_01ff), (0x0a00_0300, 0x0a00_03ff)]);
        assert_eq!(set.v6, [(0xfd00 << 112, (0xfd00 << 112) + 1)]);
        let everything = union_of(&["0.0.0.0/0", "::/0", "255.255.255.255", "ffff::/16"]);
        assert_eq!((&everything.v4[..], &everything.v6[..]), (&[(0, u32::MAX)][..], &[(0, u128::MAX)][..]));
    }

    proptest::proptest! {
        /// One by one or all at once: the same ranges.
        #[test]
        fn a_set_grows_to_the_union(nets in proptest::collection::vec((0..40_u8, 27..=32_u8, 0..2_u8), 0..12)) {
            let texts = nets.iter().map(|(host, length, end)| match end {
                0 => format!("0.0.0.{host}/{length}"),
                _ => format!("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff{:x}/{}", 255 - host, length + 96),
            });
            let nets: Vec<Net> = texts.map(|text| parse_net(&text).expect("a CIDR")).collect();
            let mut grown = Shared::new(AddressSet::default());
            for at in 0..nets.len() {
                let before = Shared::new(union(nets[..at].iter().copied()));
                proptest::prop_assert_eq!((grown.get(), grown.hash()), (before.get(), before.hash()));
                grown = with(&grown, &nets[at..=at]).unwrap_or(grown);
            }
            let empty = Shared::new(AddressSet::default());
            let at_once = with(&empty, &nets).unwrap_or(empty);
            proptest::prop_assert_eq!((at_once.get(), at_once.hash()), (grown.get(), grown.hash()));
        }

        /// What is taken out is out, the rest is in, and the ranges are those of a set that is made so.
        #[test]
        fn a_set_shrinks_to_what_is_left(
            nets in proptest::collection::vec((0..40_u8, 28..=32_u8), 0..6),
            gone in proptest::collection::vec((0..40_u8, 28..=32_u8), 1..4),
        ) {
            let net = |(host, length): (u8, u8)| parse_net(&format!("255.255.255.{}/{length}", 255 - host));
            let nets: Vec<Net> = nets.into_iter().filter_map(net).collect();
            let mut set = Shared::new(union(nets.iter().copied()));
            let mut left: Vec<u32> = (0..=60).map(|host| u32::MAX - 60 + host).collect();
            left.retain(|&address| set.get().contains(Family::V4, address.into()));
            for gone in gone.into_iter().filter_map(net) {
                let (first, last) = narrow(gone);
                let held = left.len();
                left.retain(|address| !(first..=last).contains(address));
                let less = without(&set, &gone);
                proptest::prop_assert_eq!(less.is_some(), left.len() < held);
                set = less.unwrap_or(set);
                let single = |&address: &u32| (address, address);
                let mut v4: SmallVec<[(u32, u32); 2]> = left.iter().map(single).collect();
                let left = merge(&mut v4, |last| last.checked_add(1));
                v4.truncate(left);
                let expected = Shared::new(AddressSet { v4, v6: Vec::new() });
                proptest::prop_assert_eq!((set.get(), set.hash()), (expected.get(), expected.hash()));
            }
        }
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for text in
            ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "x/8"]
        {
            assert_eq!(parse_net(text), None, "{text}");
        }
        let place = Place::new("HostEndpoint/a", "spec.expectedIPs");
        let said = |result: Result<Net, CompileError>| result.expect_err("refused").to_string();
        assert_eq!(
            said(single(&place, "10.0.0.0/24")),
            "HostEndpoint/a: spec.expectedIPs: found `10.0.0.0/24`, expected a single address such as 10.0.0.1 or \
             fd00::1"
        );
        assert_eq!(
            said(net(&place, "eth0")),
            "HostEndpoint/a: spec.expectedIPs: found `eth0`, expected a CIDR such as 10.0.0.0/8 or fd00::/8"
        );
    }
}
