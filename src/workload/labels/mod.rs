//! Clusters governed by label policies: namespaces of apps, pods in the /24 of their node, policies that select by
//! one to three labels and hold one to four ordered rules each.
//!
//! A [`Cluster`] is what the seed gives, before it is text: [`Cluster::model`] writes it for the compiler, and
//! [`NaiveCluster`] judges flows by it directly, without compiler and table.

mod generate;
mod model;
mod naive;

use crate::flow::{Direction, Family, protocol};
use crate::program::Action;

pub use model::{NODE, UPLINK, host};
pub use naive::NaiveCluster;

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pods of all nodes.
    pub endpoints: usize,
    /// Policies of all namespaces.
    pub policies: usize,
    /// Namespaces.
    pub namespaces: u16,
    /// Apps of each namespace.
    pub apps: u16,
}

/// Pods of the node whose view is taken ([`NODE`]).
pub const LOCAL: usize = 200;
/// Policies that are not of a namespace; the others are.
pub const CLUSTER_WIDE: usize = 30;

/// A label key. The namespace is a label that comes with the namespace's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Key {
    Namespace,
    App,
    Tier,
    Env,
    Version,
    Team,
}

/// The values of a pod, by [`Key`].
type Labels = [u16; 6];

/// All of these.
type Terms = Vec<(Key, u16)>;

/// Named ports of the pods of an app, all TCP.
#[derive(Clone, Copy, Debug)]
struct NamedPort {
    name: &'static str,
    port: u16,
}

#[derive(Clone, Debug)]
struct App {
    labels: Labels,
    ports: Vec<NamedPort>,
}

#[derive(Clone, Copy, Debug)]
struct Pod {
    address: u32,
    node: u32,
    app: usize,
    labels: Labels,
}

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    first: u32,
    length: u8,
}

#[derive(Clone, Debug)]
enum Peer {
    Any,
    Pods(Terms),
    Nets { within: Vec<Block>, except: Option<Block> },
}

#[derive(Clone, Debug)]
enum Service {
    Any,
    Protocol(u8),
    /// ICMP, or its `ICMPv6` twin.
    Icmp(Option<u8>),
    Ports(u8, Vec<(u16, u16)>),
    /// TCP to the port of this name.
    Named(&'static str),
}

#[derive(Clone, Debug)]
struct Rule {
    action: Action,
    peer: Peer,
    service: Service,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    /// Before the other; ends in Pass.
    Security,
    /// Ends in Deny.
    Default,
}

#[derive(Clone, Debug)]
struct Policy {
    tier: Tier,
    /// None: cluster-wide.
    namespace: Option<u16>,
    subject: Terms,
    ingress: Vec<Rule>,
    /// None: egress is not governed.
    egress: Option<Vec<Rule>>,
}

impl Policy {
    fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => Some(&self.ingress),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Everything that a seed gives.
#[derive(Clone, Debug)]
pub struct Cluster {
    apps: Vec<App>,
    pods: Vec<Pod>,
    /// In the order in which they are asked within their tier.
    policies: Vec<Policy>,
}

/// The first 40 bits of the IPv6 twins.
const TWIN: u128 = 0x00fd_6c61_6265;

/// An address in the family. The IPv6 twin of an IPv4 address has its first 24 bits in the network part and the last
/// 8 at the end: every node's /24 becomes a /64.
fn address(family: Family, v4: u32) -> u128 {
    let number = u128::from(v4);
    match family {
        Family::V4 => number,
        Family::V6 => TWIN << 88 | (number >> 8) << 64 | number & 0xff,
    }
}

impl Block {
    fn last(self) -> u32 {
        self.first | u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0)
    }

    /// Length of the same prefix in the family.
    fn length_in(self, family: Family) -> u8 {
        match (family, self.length) {
            (Family::V4, length) => length,
            (Family::V6, length @ 0..=24) => 40 + length,
            (Family::V6, length) => 96 + length,
        }
    }

    /// First and last address of the same prefix in the family.
    fn range_in(self, family: Family) -> (u128, u128) {
        let first = address(family, self.first);
        let width = if family == Family::V4 { 32 } else { 128 };
        let host_bits = width - u32::from(self.length_in(family));
        (first, first | ((1 << host_bits) - 1))
    }
}

/// The number of a protocol in the family: ICMP is `ICMPv6` there.
fn protocol_in(family: Family, number: u8) -> u8 {
    match (family, number) {
        (Family::V6, protocol::ICMP) => protocol::ICMPV6,
        (_, number) => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prefix holds the twin of an address if and only if it holds the address.
    #[test]
    fn twins_keep_prefixes() {
        for length in 8..=32 {
            let block = Block { first: 0x0a01_8000 & (u32::MAX << (32 - length)), length };
            let (first, last) = block.range_in(Family::V6);
            for v4 in [block.first.wrapping_sub(1), block.first, block.last(), block.last().wrapping_add(1)] {
                let twin = address(Family::V6, v4);
                let inside = block.first <= v4 && v4 <= block.last();
                assert_eq!(first <= twin && twin <= last, inside, "{block:?} {v4:x}");
            }
        }
    }
}
