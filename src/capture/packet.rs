//! What of a packet tells which flow it belongs to, and whether conntrack would begin one with it.

use crate::flow::{Family, FiveTuple, Transport, protocol};
use crate::wire::{self, Headers};

/// Of a TCP header.
mod tcp {
    pub const FLAGS_AT: usize = 13;
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// Where an ICMP message of an error holds the packet that it is about, and an echo its id.
const ICMP_INNER_AT: usize = 8;
const ICMP_ID_AT: usize = 4;
/// The packet in an error is cut; what its header says of its length is not checked.
const UNCHECKED: usize = 1 << 17;

/// What a packet is to conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Belongs to the flow of its tuple, and begins it if there is none: UDP, and all that has no handshake.
    Any,
    /// TCP with SYN alone, or a request of ICMP: begins a flow.
    First,
    /// TCP with SYN and ACK, or a reply of ICMP: there was a first packet the other way.
    Reply,
    /// TCP without SYN: goes on with a flow.
    Later {
        /// FIN or RST: the flow is over.
        closes: bool,
        /// RST: whoever sends it refuses.
        refuses: bool,
        /// RST, FIN or nothing set: no flow begins so, not even where it was picked up in its middle.
        is_bare: bool,
    },
    /// An ICMP error about a packet of this key, sent by whom it was meant for or by a router.
    About(Key),
    /// What conntrack leaves alone: neighbour discovery and multicast listening.
    Unwatched,
    /// What conntrack cannot place: an ICMP message that is neither request, reply nor readable error.
    Unplaced,
}

/// The ends of a flow in the direction of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Of both addresses.
    pub family: Family,
    /// IP protocol number.
    pub protocol: u8,
    /// An IPv4 address is in the low 32 bits.
    pub source: u128,
    /// As `source`.
    pub destination: u128,
    /// ICMP: the id of requests and their replies.
    pub source_port: u16,
    /// ICMP: type in the upper byte, code in the lower one.
    pub destination_port: u16,
}

impl Key {
    /// The same flow as the other side sends it.
    #[must_use]
    pub fn reversed(self) -> Self {
        let (source, destination) = (self.destination, self.source);
        if is_icmp(self.family, self.protocol) {
            let [kind, code] = self.destination_port.to_be_bytes();
            let kind = match message(self.family, kind) {
                Message::RequestFor(reply) => reply,
                Message::ReplyTo(request) => request,
                Message::Error | Message::Unwatched | Message::Other => kind,
            };
            return Self { source, destination, destination_port: u16::from_be_bytes([kind, code]), ..self };
        }
        let (source_port, destination_port) = (self.destination_port, self.source_port);
        Self { source, destination, source_port, destination_port, ..self }
    }
}

/// One packet as the flows see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// In the direction of this packet.
    pub key: Key,
    /// What it does to its flow.
    pub role: Role,
}

impl Seen {
    /// `None` for a later fragment: it is judged with its first one.
    pub fn of(headers: &Headers) -> Option<Self> {
        let payload = headers.payload?;
        let tuple = &headers.tuple;
        Some(match tuple.transport {
            Transport::Ports { source, destination } => {
                let role = if tuple.protocol == protocol::TCP { tcp_role(payload) } else { Role::Any };
                Self { key: key(tuple, source, destination), role }
            }
            Transport::Icmp { kind, code } => icmp(tuple, kind, code, payload),
            Transport::Opaque => Self { key: key(tuple, 0, 0), role: Role::Any },
        })
    }
}

fn key(tuple: &FiveTuple, source_port: u16, destination_port: u16) -> Key {
    Key {
        family: tuple.family,
        protocol: tuple.protocol,
        source: tuple.source,
        destination: tuple.destination,
        source_port,
        destination_port,
    }
}

pub(super) fn is_icmp(family: Family, number: u8) -> bool {
    (family, number) == (Family::V4, protocol::ICMP) || (family, number) == (Family::V6, protocol::ICMPV6)
}

fn tcp_role(header: &[u8]) -> Role {
    // Where the flags were not captured nothing says that a flow begins here.
    let flags = header.get(tcp::FLAGS_AT).copied().unwrap_or(tcp::ACK);
    let has = |flag| flags & flag != 0;
    if has(tcp::SYN) && !has(tcp::RST) && !has(tcp::FIN) {
        return if has(tcp::ACK) { Role::Reply } else { Role::First };
    }
    Role::Later {
        closes: has(tcp::RST) || has(tcp::FIN),
        refuses: has(tcp::RST),
        is_bare: has(tcp::RST) || has(tcp::FIN) || !has(tcp::ACK),
    }
}

/// What ICMP messages are, by family.
#[derive(Clone, Copy)]
enum Message {
    /// To be answered by this type.
    RequestFor(u8),
    /// To a request of this type.
    ReplyTo(u8),
    Error,
    Unwatched,
    Other,
}

/// As `nf_conntrack_proto_icmp.c` and `nf_conntrack_proto_icmpv6.c` have them (`invmap`, `valid_new`).
const fn message(family: Family, kind: u8) -> Message {
    match (family, kind) {
        (Family::V4, 8) => Message::RequestFor(0),
        (Family::V4, 13 | 15 | 17) | (Family::V6, 128 | 139) => Message::RequestFor(kind + 1),
        (Family::V4, 0) => Message::ReplyTo(8),
        (Family::V4, 14 | 16 | 18) | (Family::V6, 129 | 140) => Message::ReplyTo(kind - 1),
        (Family::V4, 3 | 4 | 5 | 11 | 12) | (Family::V6, 1..=127) => Message::Error,
        (Family::V6, 130..=136 | 143) => Message::Unwatched,
        _ => Message::Other,
    }
}

fn icmp(tuple: &FiveTuple, kind: u8, code: u8, payload: &[u8]) -> Seen {
    let of = |kind: u8, id| key(tuple, id, u16::from_be_bytes([kind, code]));
    let id =
        payload.get(ICMP_ID_AT..).and_then(|rest| rest.first_chunk()).map_or(0, |id| u16::from_be_bytes(*id));
    let (key, role) = match message(tuple.family, kind) {
        Message::RequestFor(_) => (of(kind, id), Role::First),
        Message::ReplyTo(_) => (of(kind, id), Role::Reply),
        Message::Error => {
            let about = payload.get(ICMP_INNER_AT..).and_then(|inner| about(tuple.family, inner));
            (of(kind, 0), about.map_or(Role::Unplaced, Role::About))
        }
        Message::Unwatched => (of(kind, 0), Role::Unwatched),
        Message::Other => (of(kind, 0), Role::Unplaced),
    };
    Seen { key, role }
}

/// The flow of the packet that an error is about.
fn about(family: Family, inner: &[u8]) -> Option<Key> {
    let headers = wire::headers(family, inner, UNCHECKED).ok()?;
    let payload = headers.payload?;
    let tuple = &headers.tuple;
    Some(match tuple.transport {
        Transport::Ports { source, destination } => key(tuple, source, destination),
        Transport::Opaque => key(tuple, 0, 0),
        Transport::Icmp { kind, code } => match message(family, kind) {
            Message::RequestFor(_) | Message::ReplyTo(_) => icmp(tuple, kind, code, payload).key,
            // Errors about errors are not sent.
            Message::Error | Message::Unwatched | Message::Other => return None,
        },
    })
}
