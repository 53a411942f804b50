//! What packets are to engines: numbers only, one packet or many by column.

use std::hint::select_unpredictable;

use crate::flow::{Family, FiveTuple, Transport};

/// The second key of a packet without readable ports or ICMP type, and its source port (M-19).
pub const OPAQUE: u32 = 0x1_0000;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// IP version.
    pub family: Family,
    /// Source address.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port or [`OPAQUE`].
    pub source_port: u32,
    /// Destination port, ICMP `type << 8 | code`, or [`OPAQUE`].
    pub service: u32,
}

impl Point {
    /// The same packet; [`Transport`] says ports and ICMP only of protocols that have them.
    #[inline]
    pub fn of(tuple: &FiveTuple) -> Self {
        let FiveTuple { family, source, destination, protocol, ref transport } = *tuple;
        let (source_port, service) = (Self::source_port_of(transport), Self::service_of(transport));
        Self { family, source, destination, protocol, source_port, service }
    }

    /// The source port, without branches: protocols alternate, and a wrong guess costs more than both.
    #[inline]
    #[allow(clippy::trivially_copy_pass_by_ref)] // Read where it is.
    pub fn source_port_of(transport: &Transport) -> u32 {
        let port = if let Transport::Ports { source, .. } = transport { u32::from(*source) } else { 0 };
        select_unpredictable(matches!(transport, Transport::Ports { .. }), port, OPAQUE)
    }

    /// The service alone, in the same way.
    #[inline]
    #[allow(clippy::trivially_copy_pass_by_ref)] // Read where it is.
    pub fn service_of(transport: &Transport) -> u32 {
        let key = match *transport {
            Transport::Opaque => 0,
            Transport::Ports { destination, .. } => destination,
            Transport::Icmp { kind, code } => u16::from_be_bytes([kind, code]),
        };
        select_unpredictable(matches!(transport, Transport::Opaque), OPAQUE, key.into())
    }
}

/// How the ports of a column become keys: what of a number is kept, and what is put in its place.
#[derive(Clone, Copy)]
struct Form {
    kept: u32,
    put: u32,
}

impl Form {
    const READ: Self = Self { kept: 0xffff, put: 0 };
    const OPAQUE: Self = Self { kept: 0, put: OPAQUE };

    #[inline]
    const fn key(self, number: u16) -> u32 {
        number as u32 & self.kept | self.put
    }
}

/// Of source ports and services, by protocol, as [`Transport::of`] knows it. Looked up, not branched on: protocols
/// alternate.
const FORMS: [[Form; 2]; 256] = {
    let (mut forms, mut protocol) = ([[Form::OPAQUE; 2]; 256], 0);
    while protocol < 256 {
        #[allow(clippy::cast_possible_truncation)] // Below 256.
        let transport = Transport::of(protocol as u8, 0, 0);
        forms[protocol] = match transport {
            Transport::Ports { .. } => [Form::READ, Form::READ],
            Transport::Icmp { .. } => [Form::OPAQUE, Form::READ],
            Transport::Opaque => [Form::OPAQUE, Form::OPAQUE],
        };
        protocol += 1;
    }
    forms
};

/// Packets of one family, by column; none is a later fragment.
#[derive(Clone, Copy, Debug)]
pub struct PointBlock<'a, const N: usize> {
    /// Both addresses.
    pub addresses: AddressBlock<'a, N>,
    /// IP protocol numbers.
    pub protocol: &'a [u8; N],
    /// Source ports; without meaning for protocols that have none.
    pub source_port: &'a [u16; N],
    /// Destination ports, or `type << 8 | code`.
    pub destination_port: &'a [u16; N],
}

impl<const N: usize> PointBlock<'_, N> {
    /// As in [`Point`], of one of them.
    #[inline]
    pub fn source_port(&self, index: usize) -> u32 {
        FORMS[usize::from(self.protocol[index])][0].key(self.source_port[index])
    }

    /// As in [`Point`], of one of them.
    #[inline]
    pub fn service(&self, index: usize) -> u32 {
        FORMS[usize::from(self.protocol[index])][1].key(self.destination_port[index])
    }

    /// One of them.
    #[inline]
    pub fn point(&self, index: usize) -> Point {
        let (family, source, destination) = self.addresses.at(index);
        let (source_port, service) = (self.source_port(index), self.service(index));
        Point { family, source, destination, protocol: self.protocol[index], source_port, service }
    }
}

/// Addresses, by column.
#[derive(Clone, Copy, Debug)]
pub enum AddressBlock<'a, const N: usize> {
    /// IPv4.
    V4 {
        /// Sources.
        source: &'a [u32; N],
        /// Destinations.
        destination: &'a [u32; N],
    },
    /// IPv6, in network byte order.
    V6 {
        /// Sources.
        source: &'a [[u8; 16]; N],
        /// Destinations.
        destination: &'a [[u8; 16]; N],
    },
}

impl<const N: usize> AddressBlock<'_, N> {
    /// Of all of them.
    pub const fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }

    /// Family, source and destination of one of them.
    #[inline]
    pub fn at(&self, index: usize) -> (Family, u128, u128) {
        match self {
            Self::V4 { source, destination } => (Family::V4, source[index].into(), destination[index].into()),
            Self::V6 { source, destination } => {
                (Family::V6, u128::from_be_bytes(source[index]), u128::from_be_bytes(destination[index]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of columns are those of packets, for every protocol.
    #[test]
    fn columns_have_the_keys_of_packets() {
        for protocol in 0..=255 {
            let (source_port, destination_port) = (0x1234, 0x0805);
            let transport = Transport::of(protocol, source_port, destination_port);
            let tuple = FiveTuple { family: Family::V4, source: 1, destination: 2, protocol, transport };
            let block = PointBlock {
                addresses: AddressBlock::V4 { source: &[1], destination: &[2] },
                protocol: &[protocol],
                source_port: &[source_port],
                destination_port: &[destination_port],
            };
            assert_eq!(block.point(0), Point::of(&tuple));
            assert_eq!(Point::service_of(&transport), block.service(0));
        }
    }
}
