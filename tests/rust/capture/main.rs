//! Captures as bytes, each with what made it, and the flows that they must give.
//!
//! Files of tcpdump: `tcpdump -i lo -c N -w FILE` in a fresh network namespace while Python sent; frames of other link
//! types hold the same packet behind a header by hand, after `https://www.tcpdump.org/linktypes.html`.

mod files;
mod flows;

use std::io::Cursor;

use labelgate::capture::{Capture, CaptureError, Flow};

/// Bytes from hexadecimal text; blanks are ignored.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0, "whole bytes");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// lo: `u.bind(("127.0.0.1", 40000)); u.sendto(b"hello", ("127.0.0.2", 7001))`
const UDP: &str = "4500 0021 5a46 4000 4011 e282 7f00 0001 7f00 0002 9c40 1b59 000d fe21 6865 6c6c 6f";

/// lo: `v.bind(("::1", 40000)); v.sendto(b"hello", ("::1", 7001))`
const UDP6: &str = "600d d055 000d 1140 0000 0000 0000 0000 0000 0000 0000 0001 0000 0000 0000 0000
                    0000 0000 0000 0001 9c40 1b59 000d 0020 6865 6c6c 6f";

/// A file of pcap: little endian, microseconds; frames of one link type, a second apart from 1000 on.
fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = bytes("d4c3b2a1 0200 0400 00000000 00000000 00000400");
    file.extend(link.to_le_bytes());
    for (second, frame) in (1000_u32..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [second, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

fn opened(file: &[u8], is_complete: bool) -> Result<Capture, CaptureError> {
    Capture::open(Cursor::new(file.to_vec()), 1000, is_complete, Vec::new())
}

/// All flows of a capture that can be read to its end, the one that was quiet first ahead.
fn read(capture: &mut Capture) -> Vec<Flow> {
    let mut flows = Vec::new();
    while capture.read(16, &mut flows).expect("the capture can be read") {}
    flows
}

fn flows_of(file: &[u8]) -> Vec<Flow> {
    read(&mut opened(file, false).expect("it is a capture"))
}
