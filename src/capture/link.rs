//! From a frame of some link layer to the IP packet in it.
//!
//! The numbers of link types are those of `https://www.tcpdump.org/linktypes.html`.

use crate::flow::Family;

/// Link types that are read.
mod kind {
    pub const NULL: u16 = 0;
    pub const ETHERNET: u16 = 1;
    /// What `LINKTYPE_RAW` is called in files of some systems.
    pub const RAW_OF_BSD: u16 = 12;
    pub const RAW_OF_OPENBSD: u16 = 14;
    pub const RAW: u16 = 101;
    pub const LOOP: u16 = 108;
    pub const LINUX_SLL: u16 = 113;
    pub const IPV4: u16 = 228;
    pub const IPV6: u16 = 229;
    pub const LINUX_SLL2: u16 = 276;
}

/// `EtherTypes`.
mod ether {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q, 802.1ad and what was used before it.
    pub const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
}

/// More tags than anybody stacks.
const MAX_VLAN_TAGS: usize = 4;

/// `sll_pkttype` of what the host itself sent.
const OUTGOING: u8 = 4;

/// Which way a frame passed the interface that it was captured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Way {
    /// The file does not say.
    #[default]
    Unknown = 0,
    /// It came in.
    In = 1,
    /// It went out.
    Out = 2,
}

impl Way {
    /// That of the packets that are answered by what passes this way.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// The IP packet of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<'a> {
    /// As the link layer says; the packet itself may say otherwise.
    pub family: Family,
    /// What was captured of it.
    pub copied: &'a [u8],
    /// The whole packet in bytes, padding of the link layer included.
    pub length: usize,
    /// As the link layer says.
    pub way: Way,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPacket {
    /// ARP and whatever else is not IP.
    NotIp,
    /// The capture ends in the link layer's header.
    Truncated,
}

/// Whether frames of this link type can be read.
pub fn is_known(link: u16) -> bool {
    use kind::{ETHERNET, IPV4, IPV6, LINUX_SLL, LINUX_SLL2, LOOP, NULL, RAW, RAW_OF_BSD, RAW_OF_OPENBSD};
    matches!(
        link,
        NULL | ETHERNET | RAW_OF_BSD | RAW_OF_OPENBSD | RAW | LOOP | LINUX_SLL | IPV4 | IPV6 | LINUX_SLL2
    )
}

/// Finds the IP packet in a frame that [`is_known`]; `length` is that of the whole frame.
///
/// # Errors
/// A [`NoPacket`] where there is none.
pub fn strip(link: u16, frame: &[u8], length: usize) -> Result<Network<'_>, NoPacket> {
    let frame = Frame { copied: frame, length, way: Way::Unknown };
    match link {
        kind::ETHERNET => frame.skip(12)?.behind_ethertype(),
        kind::RAW | kind::RAW_OF_BSD | kind::RAW_OF_OPENBSD => frame.by_version(),
        kind::IPV4 => Ok(frame.holding(Family::V4)),
        kind::IPV6 => Ok(frame.holding(Family::V6)),
        // Address families differ between systems, and NULL is in the order of the machine that captured.
        kind::NULL | kind::LOOP => frame.skip(4)?.by_version(),
        kind::LINUX_SLL => {
            let [_, packet_type] = frame.head()?;
            frame.skip(14)?.going(packet_type).behind_ethertype()
        }
        kind::LINUX_SLL2 => {
            let [high, low] = frame.head()?;
            let [packet_type] = frame.skip(10)?.head()?;
            frame.skip(20)?.going(packet_type).of_type(u16::from_be_bytes([high, low]))
        }
        _ => Err(NoPacket::NotIp),
    }
}

#[derive(Clone, Copy)]
struct Frame<'a> {
    copied: &'a [u8],
    length: usize,
    way: Way,
}

impl<'a> Frame<'a> {
    fn skip(self, bytes: usize) -> Result<Self, NoPacket> {
        let copied = self.copied.get(bytes..).ok_or(NoPacket::Truncated)?;
        Ok(Self { copied, length: self.length.saturating_sub(bytes), ..self })
    }

    fn head<const N: usize>(self) -> Result<[u8; N], NoPacket> {
        self.copied.first_chunk().copied().ok_or(NoPacket::Truncated)
    }

    fn going(self, packet_type: u8) -> Self {
        Self { way: if packet_type == OUTGOING { Way::Out } else { Way::In }, ..self }
    }

    fn holding(self, family: Family) -> Network<'a> {
        Network { family, copied: self.copied, length: self.length, way: self.way }
    }

    fn by_version(self) -> Result<Network<'a>, NoPacket> {
        let [first] = self.head()?;
        match first >> 4 {
            4 => Ok(self.holding(Family::V4)),
            6 => Ok(self.holding(Family::V6)),
            _ => Err(NoPacket::NotIp),
        }
    }

    /// The frame begins with an `EtherType`.
    fn behind_ethertype(self) -> Result<Network<'a>, NoPacket> {
        let [high, low] = self.head()?;
        self.skip(2)?.of_type(u16::from_be_bytes([high, low]))
    }

    /// The frame goes on behind an `EtherType`: with the packet, or with VLAN tags.
    fn of_type(self, ethertype: u16) -> Result<Network<'a>, NoPacket> {
        let (mut frame, mut ethertype) = (self, ethertype);
        for _ in 0..=MAX_VLAN_TAGS {
            match ethertype {
                ether::IPV4 => return Ok(frame.holding(Family::V4)),
                ether::IPV6 => return Ok(frame.holding(Family::V6)),
                tag if ether::VLAN.contains(&tag) => {
                    let [_, _, high, low] = frame.head()?;
                    ethertype = u16::from_be_bytes([high, low]);
                    frame = frame.skip(4)?;
                }
                _ => break,
            }
        }
        Err(NoPacket::NotIp)
    }
}
