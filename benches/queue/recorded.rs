//! Packets as the kernel would hand them to a queue: bytes on the wire in an `NFQUEUE` message.

use labelgate::flow::{Family, FlowKey, Hook, InterfaceId, Transport, protocol};

/// The message of a packet that this key asks about; `ifindex` is the kernel's number of an interface.
pub fn message(id: u32, key: &FlowKey, ifindex: impl Fn(InterfaceId) -> u32) -> Vec<u8> {
    let payload = packet(key);
    let hook = match key.hook {
        Hook::RawPrerouting | Hook::ManglePrerouting => 0,
        Hook::FilterInput => 1,
        Hook::FilterForward => 2,
        Hook::RawOutput | Hook::FilterOutput => 3,
        Hook::ManglePostrouting => 4,
    };
    // struct nlmsghdr (the length comes last), struct nfgenmsg
    let mut message = vec![0; 20];
    message[4..6].copy_from_slice(&0x0300_u16.to_ne_bytes());
    let mut attribute = |number: u16, value: &[u8]| {
        let length = u16::try_from(4 + value.len()).expect("a short value");
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&number.to_ne_bytes());
        message.extend_from_slice(value);
        message.resize(message.len().next_multiple_of(4), 0);
    };
    let mut header = id.to_be_bytes().to_vec();
    header.extend_from_slice(&[8, 0, hook]);
    attribute(1, &header);
    for (number, interface) in [(5, key.input), (6, key.output)] {
        if interface != InterfaceId::NONE {
            attribute(number, &ifindex(interface).to_be_bytes());
        }
    }
    if key.accepted {
        attribute(3, &0x0100_u32.to_be_bytes());
    }
    attribute(9, &[0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0]); // the link-layer source
    attribute(14, &1_u32.to_be_bytes()); // the checksum is not computed yet
    attribute(10, &payload);
    let length = u32::try_from(message.len()).expect("a short message");
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// An IP packet with the transport header, and data up to what a queue copies at least.
fn packet(key: &FlowKey) -> Vec<u8> {
    const DATA: usize = 64;
    let tuple = &key.tuple;
    let mut packet = match tuple.family {
        Family::V4 => {
            let mut header = vec![0x45, 0, 0, 20 + 8 + 64, 0, 0, 0, 0, 64, tuple.protocol, 0, 0];
            if tuple.transport == Transport::Opaque && has_ports(tuple.protocol) {
                header[7] = 1; // a later fragment
            }
            for address in [tuple.source, tuple.destination] {
                header.extend_from_slice(&u32::try_from(address).expect("an IPv4 address").to_be_bytes());
            }
            header
        }
        Family::V6 => {
            let mut header = vec![0x60, 0, 0, 0, 0, 8 + 64, tuple.protocol, 64];
            header.extend_from_slice(&tuple.source.to_be_bytes());
            header.extend_from_slice(&tuple.destination.to_be_bytes());
            header
        }
    };
    packet.extend_from_slice(&match tuple.transport {
        Transport::Opaque => [0; 8],
        Transport::Ports { source, destination } => {
            let ([s0, s1], [d0, d1]) = (source.to_be_bytes(), destination.to_be_bytes());
            [s0, s1, d0, d1, 0, 0, 0, 0]
        }
        Transport::Icmp { kind, code } => [kind, code, 0, 0, 0, 0, 0, 0],
    });
    packet.resize(packet.len() + DATA, 0);
    packet
}

const fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE)
}
