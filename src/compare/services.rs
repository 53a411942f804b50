//! Classes of services: protocols with ports, ICMP types and codes, and packets that show neither.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::criteria::Asked;
use super::settled::End;
use crate::flow::Family;
use crate::flow::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE};

const WITH_PORTS: [u8; 4] = [TCP, UDP, SCTP, UDPLITE];
const WITH_TYPES: [u8; 2] = [ICMP, ICMPV6];
const WHOLE: (u16, u16) = (0, u16::MAX);
const USUAL_SOURCE_PORT: u16 = 40_000;
/// A protocol number that nothing real has (RFC 3692), where any will do.
const EXPERIMENTAL: u8 = 253;

/// Packets of some protocols, with ports, or types and codes, in a rectangle; or with none to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Ascending.
    pub protocols: Vec<u8>,
    /// Later fragments (M-19), or protocols that have neither ports nor types.
    pub is_opaque: bool,
    /// Inclusive; without meaning where opaque, and for ICMP.
    pub source_ports: (u16, u16),
    /// Inclusive; of ICMP `type << 8 | code`; without meaning where opaque.
    pub destination_ports: (u16, u16),
}

/// A packet of a class, a usual one if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// IP protocol number.
    pub protocol: u8,
    /// 0 where it shows none.
    pub source_port: u16,
    /// Of ICMP `type << 8 | code`.
    pub destination_port: u16,
    /// A later fragment.
    pub fragment: bool,
}

/// What rules tell apart beside addresses.
#[derive(Debug)]
pub struct ServiceClasses {
    /// Of each class what it is made of, disjoint.
    pub pieces: Vec<Vec<Piece>>,
    /// One of each class.
    pub samples: Vec<Sample>,
}

impl ServiceClasses {
    /// The coarsest that all that is asked answers constantly, numbered as their first pieces come; shown by
    /// packets that the family has, where a class has any: rules may leave ICMP in a class of IPv6.
    pub fn of(asked: &Asked, family: Family) -> Self {
        let stray = if family == Family::V4 { ICMPV6 } else { ICMP };
        let mut found = Self { pieces: Vec::new(), samples: Vec::new() };
        let mut numbers = FxHashMap::default();
        for piece in pieces(asked) {
            let sample = Sample::of(&piece);
            let class = *numbers.entry(signature(asked, sample)).or_insert(found.len());
            if class == found.len() {
                found.samples.push(sample);
                found.pieces.push(Vec::new());
            } else if found.samples[class].protocol == stray && sample.protocol != stray {
                found.samples[class] = sample;
            }
            found.pieces[class].push(piece);
        }
        found
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // There is one at least.
    pub fn len(&self) -> usize {
        self.samples.len()
    }
}

/// The packet space, cut wherever one of the criteria changes.
fn pieces(asked: &Asked) -> Vec<Piece> {
    let named = asked.named.iter().map(|&(_, protocol, _)| protocol);
    let known: BTreeSet<u8> =
        asked.protocols.iter().copied().chain(named).chain(WITH_PORTS).chain(WITH_TYPES).collect();
    let types = intervals(asked.types.iter().copied());
    let mut found = Vec::new();
    for &protocol in &known {
        let mut add = |is_opaque, source_ports, destination_ports| {
            found.push(Piece { protocols: vec![protocol], is_opaque, source_ports, destination_ports });
        };
        if WITH_PORTS.contains(&protocol) {
            let destination = ports(asked, End::Destination, protocol);
            for source in ports(asked, End::Source, protocol) {
                for &destination in &destination {
                    add(false, source, destination);
                }
            }
        } else if WITH_TYPES.contains(&protocol) {
            for &kinds in &types {
                add(false, WHOLE, kinds);
            }
        }
        add(true, WHOLE, WHOLE);
    }
    let rest: Vec<u8> = (0..=u8::MAX).filter(|protocol| !known.contains(protocol)).collect();
    if !rest.is_empty() {
        found.push(Piece { protocols: rest, is_opaque: true, source_ports: WHOLE, destination_ports: WHOLE });
    }
    found
}

fn ports(asked: &Asked, end: End, protocol: u8) -> Vec<(u16, u16)> {
    let of_rules = asked.ranges.iter().filter(|(of, at, _)| *at == end && of.is_none_or(|of| of == protocol));
    let named = asked.named.iter().filter(|one| (one.0, one.1) == (end, protocol));
    intervals(
        of_rules.flat_map(|(_, _, ranges)| ranges.iter().copied()).chain(named.map(|one| (one.2, one.2))),
    )
}

/// 0..=65535, cut at the ends of inclusive ranges.
fn intervals(ranges: impl Iterator<Item = (u16, u16)>) -> Vec<(u16, u16)> {
    let mut starts = BTreeSet::from([0]);
    for (first, last) in ranges {
        starts.insert(first);
        starts.extend(last.checked_add(1));
    }
    let ends = starts.iter().skip(1).map(|&start| start - 1).chain([u16::MAX]);
    starts.iter().copied().zip(ends).collect()
}

impl Sample {
    fn of(piece: &Piece) -> Self {
        let is_any = piece.protocols.contains(&EXPERIMENTAL);
        let protocol = if is_any { EXPERIMENTAL } else { piece.protocols[0] };
        if piece.is_opaque {
            let fragment = WITH_PORTS.contains(&protocol) || WITH_TYPES.contains(&protocol);
            return Self { protocol, source_port: 0, destination_port: 0, fragment };
        }
        let within =
            |(first, last): (u16, u16), wanted| if (first..=last).contains(&wanted) { wanted } else { first };
        let (destination, source) = match protocol {
            ICMP => (8 << 8, None), // Echo requests.
            ICMPV6 => (128 << 8, None),
            _ => (1, Some(USUAL_SOURCE_PORT)),
        };
        Self {
            protocol,
            source_port: source.map_or(0, |port| within(piece.source_ports, port)),
            destination_port: within(piece.destination_ports, destination),
            fragment: false,
        }
    }

    fn shows_ports(self) -> bool {
        WITH_PORTS.contains(&self.protocol) && !self.fragment
    }

    fn shows_types(self) -> bool {
        WITH_TYPES.contains(&self.protocol) && !self.fragment
    }

    fn has_port(self, end: End, (first, last): (u16, u16)) -> bool {
        let port = if end == End::Source { self.source_port } else { self.destination_port };
        self.shows_ports() && (first..=last).contains(&port)
    }
}

/// What each of the criteria says of a packet, 64 of them in a word.
fn signature(asked: &Asked, sample: Sample) -> Vec<u64> {
    let protocols = asked.protocols.iter().map(|&protocol| sample.protocol == protocol);
    let types = (asked.types.iter())
        .map(|&(first, last)| sample.shows_types() && (first..=last).contains(&sample.destination_port));
    let ranges = asked.ranges.iter().map(|(protocol, end, ranges)| {
        protocol.is_none_or(|protocol| sample.protocol == protocol)
            && ranges.iter().any(|&range| sample.has_port(*end, range))
    });
    let named = (asked.named.iter())
        .map(|&(end, protocol, port)| sample.protocol == protocol && sample.has_port(end, (port, port)));
    let visible = [asked.types_visible && sample.shows_types(), asked.ports_visible && sample.shows_ports()];
    let mut words = Vec::new();
    for (at, holds) in
        visible.into_iter().chain(protocols).chain(types).chain(ranges).chain(named).enumerate()
    {
        if at % 64 == 0 {
            words.push(0);
        }
        words[at / 64] |= u64::from(holds) << (at % 64);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_one_class() {
        assert_eq!(ServiceClasses::of(&Asked::default(), Family::V4).len(), 1);
    }

    #[test]
    fn intervals_are_cut_at_both_ends_of_each_range() {
        let found = intervals([(80, 89), (85, 100), (60_000, u16::MAX)].into_iter());
        assert_eq!(found, [(0, 79), (80, 84), (85, 89), (90, 100), (101, 59_999), (60_000, u16::MAX)]);
    }

    #[test]
    fn more_criteria_than_bits_in_a_word() {
        let mut asked = Asked::default();
        asked.ranges.extend((0..100).map(|port| (Some(TCP), End::Destination, vec![(port * 2, port * 2)])));
        assert_eq!(ServiceClasses::of(&asked, Family::V4).len(), 101);
    }
}
