//! The IPv4 header (RFC 791).

use super::{Headers, View, WireError, transport};
use crate::flow::{Family, FiveTuple, Transport};

const MIN_HEADER: usize = 20;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Reads header and ports; options are skipped.
pub(super) fn parse(packet: View<'_>) -> Result<Headers<'_>, WireError> {
    #[rustfmt::skip]
    let [
        version_and_length, _, total_high, total_low,
        _, _, flags_and_offset, offset_low,
        _, protocol, _, _,
        s0, s1, s2, s3,
        d0, d1, d2, d3,
    ] = packet.head::<MIN_HEADER>()?;
    let header = usize::from(version_and_length & 0x0f) * 4;
    if header < MIN_HEADER {
        return Err(WireError::HeaderLength);
    }
    let total = u16::from_be_bytes([total_high, total_low]);
    let beyond_field = total == 0 && packet.length > usize::from(u16::MAX);
    let stated = (!beyond_field).then_some(usize::from(total));
    if stated.is_some_and(|stated| stated < header) {
        return Err(WireError::TotalLength);
    }
    let payload = packet.ending_at(stated)?.skip(header)?;
    let is_later_fragment = u16::from_be_bytes([flags_and_offset, offset_low]) & FRAGMENT_OFFSET != 0;
    let tuple = FiveTuple {
        family: Family::V4,
        source: u128::from(u32::from_be_bytes([s0, s1, s2, s3])),
        destination: u128::from(u32::from_be_bytes([d0, d1, d2, d3])),
        protocol,
        transport: if is_later_fragment {
            Transport::Opaque
        } else {
            transport::read(Family::V4, protocol, payload)?
        },
    };
    Ok(Headers { tuple, payload: (!is_later_fragment).then_some(payload.copied) })
}
