//! The first bytes of the transport headers: ports (TCP, UDP, SCTP and UDP-Lite have them at the same place), or
//! ICMP type and code.

use super::{View, WireError};
use crate::flow::{Family, Transport, protocol};

/// Reads the part of the header that policy asks for. ICMP of the other family has no type that policy could mean
/// (M-11).
pub(super) fn read(family: Family, number: u8, payload: View) -> Result<Transport, WireError> {
    match (number, family) {
        (protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE, _) => {
            let [s0, s1, d0, d1] = payload.head()?;
            Ok(Transport::Ports {
                source: u16::from_be_bytes([s0, s1]),
                destination: u16::from_be_bytes([d0, d1]),
            })
        }
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
            let [kind, code] = payload.head()?;
            Ok(Transport::Icmp { kind, code })
        }
        _ => Ok(Transport::Opaque),
    }
}
