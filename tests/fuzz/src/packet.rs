//! Bytes to five-tuples: as etherparse reads them, and the same from any copy that is long enough.

use labelgate::flow::Family;
use labelgate::wire::{WireError, parse};

use crate::etherparse_oracle::oracle;

/// The copy of a queue, and some more.
const LONGEST_COPY: usize = 160;

/// Beyond what an IP length field can hold.
const SUPER_PACKET: usize = 70_000;

/// The bytes are the packet.
pub fn check(packet: &[u8]) {
    let expected = oracle(packet);
    for family in [Family::V4, Family::V6] {
        if let Some(tuple) = expected.filter(|tuple| tuple.family == family) {
            assert_eq!(parse(family, packet, packet.len()), Ok(tuple), "etherparse reads it so");
        }
        copies(family, packet);
        padding(family, packet);
        let _ = parse(family, packet, SUPER_PACKET);
    }
}

/// A shorter copy of a packet gives its answer or says that it is too short, and a longer copy is never worse.
fn copies(family: Family, packet: &[u8]) {
    let longer = [packet, &[0; 256]].concat();
    for whole in [packet, &longer] {
        let answer = parse(family, whole, whole.len());
        let mut is_answered = false;
        for copied in 0..=packet.len().min(LONGEST_COPY) {
            let partial = parse(family, &packet[..copied], whole.len());
            is_answered |= partial != Err(WireError::NotCopied);
            let expected = if is_answered { answer } else { Err(WireError::NotCopied) };
            assert_eq!(partial, expected, "a copy of {copied} bytes out of {}", whole.len());
            assert_eq!(
                parse(family, whole, copied),
                parse(family, &whole[..copied], copied),
                "nothing is read behind the length"
            );
        }
    }
}

/// What a link layer puts behind the packet changes nothing.
fn padding(family: Family, packet: &[u8]) {
    if let Ok(tuple) = parse(family, packet, packet.len()) {
        for bytes in [1, 46] {
            let padded = [packet, &vec![0xff; bytes]].concat();
            assert_eq!(parse(family, &padded, padded.len()), Ok(tuple), "{bytes} bytes of padding");
        }
    }
}
