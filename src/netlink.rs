//! What all messages of netlink have in common: headers and attributes, to and from bytes, without panic whatever
//! the bytes.
//!
//! Netlink's own fields are in the byte order of the machine; everything that netfilter puts into them is big-endian,
//! here read through `be16` and `be32` only.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

const MESSAGE_HEADER: usize = 16;
/// Struct `nlattr`: length and number.
pub const ATTRIBUTE_HEADER: usize = 4;
/// `NLMSG_ERROR` and `NLMSG_DONE`: what a request, or the answer to one, ended in.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLA_TYPE_MASK`: the number of an attribute without the flags that say what is in it.
const NUMBER: u16 = 0x3FFF;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// What follows the header, as far as it is there.
    pub body: &'a [u8],
    /// It says that it is longer than the datagram.
    pub is_cut: bool,
}

impl Message<'_> {
    /// The errno (positive) if this says how a request has ended, 0 if well; None if it says something else.
    pub fn error(&self) -> Option<i32> {
        let errno = self.body.first_chunk().map(|errno| i32::from_ne_bytes(*errno))?;
        (self.kind == ERROR).then(|| errno.saturating_neg())
    }

    /// Whether it is the last one of an answer in several messages.
    pub fn is_last(&self) -> bool {
        matches!(self.kind, ERROR | DONE)
    }
}

/// The messages of one datagram; None, as the last one, for what is no message. One that is cut is the last, too.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = first(&mut rest);
        if message.is_none() {
            rest = &[];
        }
        Some(message)
    })
}

fn first<'a>(rest: &mut &'a [u8]) -> Option<Message<'a>> {
    let [l0, l1, l2, l3, k0, k1, ..] = *rest.first_chunk::<MESSAGE_HEADER>()?;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let is_cut = length > rest.len();
    let body = rest.get(MESSAGE_HEADER..length.min(rest.len()))?;
    *rest = rest.get(aligned(length)..).unwrap_or_default();
    Some(Message { kind: u16::from_ne_bytes([k0, k1]), body, is_cut })
}

/// Number and value of the first attribute; moves behind it. None where its length does not fit.
pub fn next_attribute<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let [l0, l1, n0, n1] = *rest.first_chunk::<ATTRIBUTE_HEADER>()?;
    let length = usize::from(u16::from_ne_bytes([l0, l1]));
    let value = rest.get(ATTRIBUTE_HEADER..length)?;
    *rest = rest.get(aligned(length)..).unwrap_or_default();
    Some((u16::from_ne_bytes([n0, n1]), value))
}

/// The attributes of a message or of another attribute, up to one whose length does not fit.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || next_attribute(&mut rest).map(|(number, value)| (number & NUMBER, value)))
}

/// The big-endian number that the value begins with.
pub fn be16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The big-endian number that the value begins with.
pub fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Messages and attributes begin at multiples of four bytes.
pub const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}
