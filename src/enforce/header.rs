//! What is kept of a packet that somebody is to see: its beginning, with the headers.

use crate::flow::Family;

/// Of a packet: both headers with the options that are usual.
pub const HEADER_BYTES: usize = 128;

/// The beginning of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; HEADER_BYTES],
    copied: usize,
    /// Bytes of the whole packet.
    pub length: u32,
}

impl Header {
    /// Of what was copied of a packet, and the bytes that the whole one has.
    pub fn new(payload: &[u8], length: u32) -> Self {
        let mut bytes = [0; HEADER_BYTES];
        let copied = payload.len().min(HEADER_BYTES);
        bytes[..copied].copy_from_slice(&payload[..copied]);
        Self { bytes, copied, length }
    }

    /// Source and destination of a packet that has been read: they have fixed places.
    pub fn addresses(&self) -> (Family, u128, u128) {
        let number = |at: usize, length: usize| {
            self.bytes[at..at + length].iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
        };
        if self.bytes[0] >> 4 == 6 {
            (Family::V6, number(8, 16), number(24, 16))
        } else {
            (Family::V4, number(12, 4), number(16, 4))
        }
    }

    /// What is kept of the packet, from its IP header on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.copied]
    }
}
