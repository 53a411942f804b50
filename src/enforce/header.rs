//! What is kept of a packet that somebody is to see: its beginning, with the headers.

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

    /// What is kept of the packet, from its IP header on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.copied]
    }
}
