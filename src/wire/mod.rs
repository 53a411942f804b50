//! Bytes to [`FiveTuple`].
//!
//! [`parse`] takes what was copied of a packet and how long the packet really is: a queue copies 128 bytes, so a
//! packet that goes on behind its copy is normal, and one that ends inside a header is not. Only what policy asks
//! for is read: addresses, protocol, ports or ICMP type and code. Checksums and everything else are the kernel's
//! business.
//!
//! Nothing here panics, whatever the bytes. What cannot be read is a [`WireError`] whose kind can be counted; it
//! never turns into a guess.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ipv4;
mod ipv6;
mod transport;

use thiserror::Error;

use crate::flow::{Family, FiveTuple};

/// Why no five-tuple can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[repr(u8)]
pub enum WireError {
    /// The version field is not that of the expected family.
    #[error("IP version is not the expected one")]
    Version = 0,
    /// An IPv4 header length below 20 bytes.
    #[error("IPv4 header length is below 20 bytes")]
    HeaderLength = 1,
    /// The IP length field says more than there is, or less than the header.
    #[error("IP length does not fit the packet")]
    TotalLength = 2,
    /// The packet ends inside a header that must be read.
    #[error("packet ends inside a header")]
    Truncated = 3,
    /// A header that must be read lies behind the copied bytes.
    #[error("header lies behind the copied bytes")]
    NotCopied = 4,
    /// More than [`MAX_EXTENSION_HEADERS`] IPv6 extension headers.
    #[error("more than {MAX_EXTENSION_HEADERS} IPv6 extension headers")]
    ExtensionHeaders = 5,
}

impl WireError {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::Version,
        Self::HeaderLength,
        Self::TotalLength,
        Self::Truncated,
        Self::NotCopied,
        Self::ExtensionHeaders,
    ];

    /// The packet may be sound, and longer than what is read of it: whoever sends it chooses that.
    pub const fn may_be_sound(self) -> bool {
        matches!(self, Self::NotCopied | Self::ExtensionHeaders)
    }

    /// The word used for its counter, for example `not-copied`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::HeaderLength => "header-length",
            Self::TotalLength => "total-length",
            Self::Truncated => "truncated",
            Self::NotCopied => "not-copied",
            Self::ExtensionHeaders => "extension-headers",
        }
    }
}

/// RFC 8200 section 4.1 lists seven headers in its recommended order, one of them (ESP) unreadable.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Reads the five-tuple of an IP packet of this family.
///
/// `copied` begins at the IP header and may be shorter than the packet; `length` is the whole packet in bytes. A
/// later fragment, and a protocol without ports, has [`Transport::Opaque`](crate::flow::Transport::Opaque).
///
/// # Errors
/// A [`WireError`] where a header that must be read is broken or out of reach.
///
/// ```
/// use labelgate::flow::{Family, Transport};
///
/// // 192.0.2.1:1000 > 192.0.2.2:53, UDP without data
/// let packet = [
///     0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x03, 0xe8, 0, 53, 0, 8, 0, 0,
/// ];
/// let tuple = labelgate::wire::parse(Family::V4, &packet, packet.len()).unwrap();
/// assert_eq!(tuple.transport, Transport::Ports { source: 1000, destination: 53 });
/// ```
pub fn parse(family: Family, copied: &[u8], length: usize) -> Result<FiveTuple, WireError> {
    headers(family, copied, length).map(|headers| headers.tuple)
}

/// What [`parse`] tells, and where the transport header begins: for who has to see more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    /// What policy asks for.
    pub tuple: FiveTuple,
    /// The copied bytes from the transport header on; `None` in a later fragment.
    pub payload: Option<&'a [u8]>,
}

/// As [`parse`].
///
/// # Errors
/// As [`parse`].
pub fn headers(family: Family, copied: &[u8], length: usize) -> Result<Headers<'_>, WireError> {
    let packet = View::new(copied, length);
    let [first] = packet.head()?;
    match (family, first >> 4) {
        (Family::V4, 4) => ipv4::parse(packet),
        (Family::V6, 6) => ipv6::parse(packet),
        _ => Err(WireError::Version),
    }
}

/// A packet from some header on: what was copied of it, and its length.
#[derive(Clone, Copy)]
struct View<'a> {
    /// Never longer than `length`.
    copied: &'a [u8],
    length: usize,
}

impl<'a> View<'a> {
    fn new(copied: &'a [u8], length: usize) -> Self {
        Self { copied: copied.get(..length).unwrap_or(copied), length }
    }

    /// The first `N` bytes.
    fn head<const N: usize>(self) -> Result<[u8; N], WireError> {
        if self.length < N {
            return Err(WireError::Truncated);
        }
        self.copied.first_chunk().copied().ok_or(WireError::NotCopied)
    }

    /// What follows the first `bytes`.
    fn skip(self, bytes: usize) -> Result<Self, WireError> {
        let length = self.length.checked_sub(bytes).ok_or(WireError::Truncated)?;
        Ok(Self { copied: self.copied.get(bytes..).unwrap_or_default(), length })
    }

    /// The same packet cut off where its IP header says that it ends: link layers pad. `stated` counts from the
    /// start of the view. `None`, where the field cannot hold the length, leaves the packet whole (a TCP
    /// super-packet beyond 64 KiB says 0).
    fn ending_at(self, stated: Option<usize>) -> Result<Self, WireError> {
        match stated {
            None => Ok(self),
            Some(stated) if stated > self.length => Err(WireError::TotalLength),
            Some(stated) => Ok(Self::new(self.copied, stated)),
        }
    }
}
