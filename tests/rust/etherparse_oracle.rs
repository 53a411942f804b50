//! What another parser, etherparse, makes of a packet.

use etherparse::{IpSlice, Ipv6ExtensionSlice};
use labelgate::flow::{Family, FiveTuple, Transport, protocol};

/// IPv4 with AH is left out: etherparse looks behind it there, labelgate (as iptables) does not.
pub const AUTHENTICATION: u8 = 51;

/// What etherparse makes of a whole packet; None where it refuses it, or where the transport header is too short.
pub fn oracle(packet: &[u8]) -> Option<FiveTuple> {
    match IpSlice::from_slice(packet).ok()? {
        IpSlice::Ipv4(slice) => {
            let header = slice.header();
            if header.protocol().0 == AUTHENTICATION {
                return None;
            }
            Some(FiveTuple {
                family: Family::V4,
                source: u128::from(u32::from(header.source_addr())),
                destination: u128::from(u32::from(header.destination_addr())),
                protocol: slice.payload().ip_number.0,
                transport: if header.fragments_offset().value() == 0 {
                    oracle_transport(Family::V4, slice.payload().ip_number.0, slice.payload().payload)?
                } else {
                    Transport::Opaque
                },
            })
        }
        // etherparse takes a payload length of 0 for "all there is", labelgate (as the kernel, which cuts the packet
        // there) only where the field could not hold the length.
        IpSlice::Ipv6(slice) if slice.header().payload_length() == 0 => None,
        IpSlice::Ipv6(slice) => {
            let extensions = slice.extensions().clone().into_iter();
            let later_fragment = extensions.into_iter().find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(header) => {
                    (header.fragment_offset().value() != 0).then_some(header)
                }
                _ => None,
            });
            // Behind the header of a later fragment is user data, which etherparse would take for headers.
            let payload = slice.payload();
            let (protocol, transport) = match later_fragment {
                Some(header) => (header.next_header().0, Transport::Opaque),
                None => {
                    (payload.ip_number.0, oracle_transport(Family::V6, payload.ip_number.0, payload.payload)?)
                }
            };
            Some(FiveTuple {
                family: Family::V6,
                source: u128::from(slice.header().source_addr()),
                destination: u128::from(slice.header().destination_addr()),
                protocol,
                transport,
            })
        }
    }
}

fn oracle_transport(family: Family, number: u8, payload: &[u8]) -> Option<Transport> {
    match (number, family) {
        (protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE, _) => {
            let header = etherparse::UdpHeaderSlice::from_slice(payload).ok()?;
            Some(Transport::Ports { source: header.source_port(), destination: header.destination_port() })
        }
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
            Some(Transport::Icmp { kind: *payload.first()?, code: *payload.get(1)? })
        }
        _ => Some(Transport::Opaque),
    }
}
