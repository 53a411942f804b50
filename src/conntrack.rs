//! Connections that the kernel tracks, read from the messages of `nfnetlink_conntrack`: pure, and without panic
//! whatever the bytes. Numbers are those of `linux/netfilter/nfnetlink_conntrack.h`.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::flow::Family;
use crate::netlink::{self, attributes, be16, be32};

/// `IPCTNL_MSG_CT_NEW` of `NFNL_SUBSYS_CTNETLINK`: a connection, asked for or not.
const CONNECTION: u16 = 1 << 8;
/// `nfgen_family`: `AF_INET` and `AF_INET6`.
const V4: u8 = 2;
const V6: u8 = 10;

/// Attributes of a connection.
mod attribute {
    pub const ORIGINAL: u16 = 1;
    pub const REPLY: u16 = 2;
    pub const STATUS: u16 = 3;
    pub const PROTOCOL_INFO: u16 = 4;
    pub const ZONE: u16 = 18;
}

/// Attributes of a tuple, and of what is in it.
mod tuple {
    pub const ADDRESSES: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ZONE: u16 = 3;
    pub const V4_SOURCE: u16 = 1;
    pub const V4_DESTINATION: u16 = 2;
    pub const V6_SOURCE: u16 = 3;
    pub const V6_DESTINATION: u16 = 4;
    pub const NUMBER: u16 = 1;
    pub const SOURCE_PORT: u16 = 2;
    pub const DESTINATION_PORT: u16 = 3;
    pub const ICMP_ID: u16 = 4;
    pub const ICMP_TYPE: u16 = 5;
    pub const ICMP_CODE: u16 = 6;
    pub const ICMPV6_ID: u16 = 7;
    pub const ICMPV6_TYPE: u16 = 8;
    pub const ICMPV6_CODE: u16 = 9;
}

/// `CTA_PROTOINFO_TCP`, and `CTA_PROTOINFO_TCP_STATE` in it.
const TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// `IPS_SEEN_REPLY`, `linux/netfilter/nf_conntrack_common.h`.
const SEEN_REPLY: u32 = 1 << 1;

/// How far a TCP connection is, as far as that matters here; others have no such state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `TCP_CONNTRACK_ESTABLISHED`, or a protocol without states.
    Established,
    /// `TIME_WAIT` and `CLOSE`: nothing is let through any more.
    Over,
    /// It begins or ends.
    Other,
}

/// One tracked connection, in the direction of its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Of all its addresses.
    pub family: Family,
    /// IP protocol number.
    pub protocol: u8,
    /// As the first packet had them, before DNAT.
    pub ends: Ends,
    /// Where DNAT sent it; the destination if it did not.
    pub target: u128,
    /// As `target`.
    pub target_port: u16,
    /// Of TCP.
    pub state: State,
    /// The other side has sent something.
    pub is_answered: bool,
    /// In no zone of its own.
    pub is_zoneless: bool,
}

/// Addresses and ports in the direction of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// An IPv4 address is in the low 32 bits.
    pub source: u128,
    /// As `source`.
    pub destination: u128,
    /// ICMP: the id.
    pub source_port: u16,
    /// ICMP: the type in the upper byte, the code in the lower one.
    pub destination_port: u16,
}

/// One message of the answer to a question about all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A connection.
    Tracked(Tracked),
    /// There are no more.
    Last,
    /// The question failed with this errno (positive).
    Error(i32),
    /// Nothing that is wanted, or nothing that can be read.
    Other,
}

/// The messages of one datagram.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message> {
    netlink::messages(datagram).map(|message| match message {
        Some(message) if message.kind == CONNECTION && !message.is_cut => {
            tracked(message.body).map_or(Message::Other, Message::Tracked)
        }
        Some(message) => match message.error() {
            Some(errno) if errno != 0 => Message::Error(errno),
            _ if message.is_last() => Message::Last,
            _ => Message::Other,
        },
        None => Message::Other,
    })
}

fn tracked(body: &[u8]) -> Option<Tracked> {
    let family = match *body.first()? {
        V4 => Family::V4,
        V6 => Family::V6,
        _ => return None,
    };
    let (mut there, mut back) = (None, None);
    let (mut status, mut state, mut is_zoneless) = (0, State::Established, true);
    // Family, version and a number that is not used here come first.
    for (number, value) in attributes(body.get(4..)?) {
        match number {
            attribute::ORIGINAL => there = Some(tuple(value)?),
            attribute::REPLY => back = Some(tuple(value)?),
            attribute::STATUS => status = be32(value)?,
            attribute::PROTOCOL_INFO => state = tcp_state(value),
            attribute::ZONE => is_zoneless &= be16(value)? == 0,
            _ => {}
        }
    }
    let (there, back) = (there?, back?);
    // What comes back has the type of the reply.
    let port = if there.is_icmp { there.ends.destination_port } else { back.ends.source_port };
    Some(Tracked {
        family,
        protocol: there.protocol,
        ends: there.ends,
        target: back.ends.source,
        target_port: port,
        state,
        is_answered: status & SEEN_REPLY != 0,
        is_zoneless: is_zoneless && there.zone == 0,
    })
}

#[derive(Default)]
struct Tuple {
    protocol: u8,
    is_icmp: bool,
    ends: Ends,
    zone: u16,
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let mut found = Tuple::default();
    for (number, value) in attributes(bytes) {
        match number {
            tuple::ADDRESSES => addresses(value, &mut found.ends)?,
            tuple::PROTOCOL => transport(value, &mut found)?,
            tuple::ZONE => found.zone = be16(value)?,
            _ => {}
        }
    }
    Some(found)
}

fn addresses(bytes: &[u8], ends: &mut Ends) -> Option<()> {
    for (number, value) in attributes(bytes) {
        match number {
            tuple::V4_SOURCE => ends.source = be32(value)?.into(),
            tuple::V4_DESTINATION => ends.destination = be32(value)?.into(),
            tuple::V6_SOURCE => ends.source = be128(value)?,
            tuple::V6_DESTINATION => ends.destination = be128(value)?,
            _ => {}
        }
    }
    Some(())
}

/// The protocol's number, and what it tells connections between the same addresses apart by.
fn transport(bytes: &[u8], found: &mut Tuple) -> Option<()> {
    let ends = &mut found.ends;
    for (number, value) in attributes(bytes) {
        match number {
            tuple::NUMBER => found.protocol = *value.first()?,
            tuple::SOURCE_PORT | tuple::ICMP_ID | tuple::ICMPV6_ID => ends.source_port = be16(value)?,
            tuple::DESTINATION_PORT => ends.destination_port = be16(value)?,
            tuple::ICMP_TYPE | tuple::ICMPV6_TYPE => {
                found.is_icmp = true;
                ends.destination_port |= u16::from(*value.first()?) << 8;
            }
            tuple::ICMP_CODE | tuple::ICMPV6_CODE => ends.destination_port |= u16::from(*value.first()?),
            _ => {}
        }
    }
    Some(())
}

fn tcp_state(bytes: &[u8]) -> State {
    let tcp = attributes(bytes).find(|(number, _)| *number == TCP).map(|(_, value)| value);
    let state = tcp.and_then(|tcp| attributes(tcp).find(|(number, _)| *number == TCP_STATE));
    // `linux/netfilter/nf_conntrack_tcp.h`.
    match state.and_then(|(_, value)| value.first()) {
        None | Some(3) => State::Established,
        Some(7 | 8) => State::Over,
        Some(_) => State::Other,
    }
}

fn be128(value: &[u8]) -> Option<u128> {
    value.first_chunk().map(|bytes| u128::from_be_bytes(*bytes))
}
