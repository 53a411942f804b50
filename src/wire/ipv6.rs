//! The IPv6 header and its extension headers (RFC 8200; the authentication header is RFC 4302).

use super::{Headers, MAX_EXTENSION_HEADERS, View, WireError, transport};
use crate::flow::{Family, FiveTuple, Transport};

const HEADER: usize = 40;
const ADDRESS: usize = 16;

/// Next-header numbers of the headers that stand between the IPv6 header and the upper layer.
mod extension {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Reads the addresses, walks to the upper layer and reads its ports.
pub(super) fn parse(packet: View<'_>) -> Result<Headers<'_>, WireError> {
    let [_, _, _, _, length_high, length_low, next, _] = packet.head()?;
    let source = packet.skip(8)?.head::<ADDRESS>()?;
    let destination = packet.skip(8 + ADDRESS)?.head::<ADDRESS>()?;
    let stated = usize::from(u16::from_be_bytes([length_high, length_low]));
    let beyond_field = stated == 0 && packet.length > HEADER + usize::from(u16::MAX);
    let payload = packet.ending_at((!beyond_field).then_some(HEADER + stated))?.skip(HEADER)?;
    let upper = upper_layer(next, payload)?;
    let tuple = FiveTuple {
        family: Family::V6,
        source: u128::from_be_bytes(source),
        destination: u128::from_be_bytes(destination),
        protocol: upper.protocol,
        transport: match upper.payload {
            Some(payload) => transport::read(Family::V6, upper.protocol, payload)?,
            None => Transport::Opaque,
        },
    };
    Ok(Headers { tuple, payload: upper.payload.map(|payload| payload.copied) })
}

struct UpperLayer<'a> {
    protocol: u8,
    /// None in a later fragment. Its `protocol` is then what its fragment header names: the first header of the
    /// fragmented part, which may be an extension header that only the first fragment holds.
    payload: Option<View<'a>>,
}

fn upper_layer(first: u8, payload: View) -> Result<UpperLayer, WireError> {
    let (mut protocol, mut rest) = (first, payload);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let Some(header) = Extension::read(protocol, rest)? else {
            return Ok(UpperLayer { protocol, payload: Some(rest) });
        };
        protocol = header.next;
        if header.is_later_fragment {
            return Ok(UpperLayer { protocol, payload: None });
        }
        rest = rest.skip(header.length)?;
    }
    Err(WireError::ExtensionHeaders)
}

struct Extension {
    next: u8,
    /// In bytes.
    length: usize,
    is_later_fragment: bool,
}

impl Extension {
    /// The header of this number; none if it is no extension header.
    fn read(number: u8, view: View) -> Result<Option<Self>, WireError> {
        let header = match number {
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION_OPTIONS => {
                let [next, length] = view.head()?;
                Self { next, length: (usize::from(length) + 1) * 8, is_later_fragment: false }
            }
            extension::AUTHENTICATION => {
                let [next, length] = view.head()?;
                Self { next, length: (usize::from(length) + 2) * 4, is_later_fragment: false }
            }
            extension::FRAGMENT => {
                let [next, _, offset_high, offset_low, _, _, _, _] = view.head()?;
                let offset = u16::from_be_bytes([offset_high, offset_low]) >> 3;
                Self { next, length: 8, is_later_fragment: offset != 0 }
            }
            _ => return Ok(None),
        };
        Ok(Some(header))
    }
}
