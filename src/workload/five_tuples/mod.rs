//! Five-tuple rule sets in the image of ClassBench (Taylor and Turner, IEEE/ACM Transactions on Networking, 2007), and packets for them.
//!
//! ClassBench draws filters from measured distributions: of the protocol with its classes of source and destination
//! port, of the pair of prefix lengths, and of addresses as a walk down a binary trie whose nodes, level by level, have
//! one child or two, and share the filters between two with a skew. The same quantities are tables in `families`,
//! for access lists, firewalls and chains of packet filters; equal rules are left out, and more specific rules come
//! first, so that hardly a rule is hidden.

mod families;
mod ports;
mod trie;

use std::collections::HashSet;

use super::Random;
pub use families::Family;
use families::{AddressPair, PortClass};

/// Source address, destination address, source port, destination port, protocol.
pub const FIELDS: usize = 5;
/// Highest value of each field.
const TOP: [u32; FIELDS] = [u32::MAX, u32::MAX, 65535, 65535, 255];

/// One rule: a range, ends inclusive, in each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Lowest values.
    pub low: [u32; FIELDS],
    /// Highest values.
    pub high: [u32; FIELDS],
}

impl Rule {
    /// Whether the rule holds a packet.
    pub fn contains(&self, packet: &[u32; FIELDS]) -> bool {
        (0..FIELDS).all(|field| self.low[field] <= packet[field] && packet[field] <= self.high[field])
    }

    /// Binary logarithm of how many packets it holds, in 256ths; of two nested rules the inner one has less.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 104 * 256")]
    fn scope(&self) -> u32 {
        let bits = |field| (f64::from(self.high[field] - self.low[field]) + 1.0).log2();
        ((0..FIELDS).map(bits).sum::<f64>() * 256.0) as u32
    }

    fn random_packet(&self, random: &mut Random) -> [u32; FIELDS] {
        std::array::from_fn(|field| match random.below(16) {
            0 => self.low[field],
            1 => self.high[field],
            _ => random.between(self.low[field], self.high[field]),
        })
    }
}

/// Rules of a family, in order of precedence, all different. `count` of them, or fewer if the family's tables do not
/// give so many.
pub fn rules(family: Family, count: usize, seed: u64) -> Vec<Rule> {
    let mut random = Random::new(seed);
    let drawn = count + count / 2 + 16;
    let pairs: Vec<&AddressPair> =
        (0..drawn).map(|_| random.weighted(family.address_pairs(), |pair| pair.weight)).collect();
    let mut side = |trie: &trie::Trie, lengths: fn(&AddressPair) -> &'static [(u8, u32)]| {
        let lengths = pairs.iter().map(|pair| random.weighted(lengths(pair), |choice| choice.1).0);
        let lengths = lengths.collect();
        trie.addresses(lengths, count, &mut random)
    };
    let sources = side(family.sources(), |pair| pair.source);
    let destinations = side(family.destinations(), |pair| pair.destination);
    let mut known = HashSet::new();
    let mut rules = Vec::with_capacity(count);
    for ((pair, source), destination) in pairs.iter().zip(sources).zip(destinations) {
        let service = random.weighted(pair.services, |service| service.weight);
        let first = port(family.source_ports(), service.source, &mut random);
        let second = port(family.destination_ports(), service.destination, &mut random);
        let protocol = service.protocol.map_or((0, TOP[4]), |number| (number.into(), number.into()));
        let fields = [source, destination, first, second, protocol];
        let rule = Rule { low: fields.map(|range| range.0), high: fields.map(|range| range.1) };
        if rules.len() < count && known.insert(rule) {
            rules.push(rule);
        }
    }
    rules.sort_by_key(Rule::scope);
    rules
}

fn port(listed: &[(u16, u16, u32)], class: PortClass, random: &mut Random) -> (u32, u32) {
    let is_single = |&&(low, high, _): &&(u16, u16, u32)| low == high;
    let choices: Vec<_> = match class {
        PortClass::Any => return (0, 65535),
        PortClass::High => return (1024, 65535),
        PortClass::One => listed.iter().filter(is_single).collect(),
        PortClass::Range => listed.iter().filter(|range| !is_single(range)).collect(),
    };
    let &&(low, high, _) = random.weighted(&choices, |choice| choice.2);
    (low.into(), high.into())
}

/// Packets for rules: 95 of 100 are a random point of a random rule, often at its edges; the rest have one field of
/// another rule's point. Panics if there are no rules.
pub fn trace(rules: &[Rule], count: usize, seed: u64) -> Vec<[u32; FIELDS]> {
    let mut random = Random::new(seed);
    let mut packets = Vec::with_capacity(count);
    for index in 0..count {
        let mut packet = rules[random.index(rules.len())].random_packet(&mut random);
        if index % 20 == 0 {
            let other = rules[random.index(rules.len())].random_packet(&mut random);
            let field = random.index(FIELDS);
            packet[field] = other[field];
        }
        packets.push(packet);
    }
    packets
}

#[cfg(test)]
mod tests;
