//! Tracked connections from bytes of a real kernel, and from bytes that no kernel sends.

use labelgate::conntrack::{Ends, Message, State, Tracked, messages};
use labelgate::flow::Family;
use proptest::prelude::*;

/// A dump (x86-64, 6.18) of a fresh namespace with 198.51.100.1 on `lo`, after `iptables -t nat -A OUTPUT -p tcp -d
/// 198.51.100.1 --dport 9000 -j DNAT --to-destination 127.0.0.2:9001` and `-t raw -A OUTPUT -p udp --dport 5 -j CT --zone
/// 7`, a connection from 198.51.100.1:40000 to 198.51.100.1:9000, datagrams from port 5555 to ports 5 and 6, which nobody
/// answers, and an echo request with the id 7 to `::1`.
const ECHO: &str = "e4000000 00010200 00000000 0f040000 0a000000 54000180 2c000180 14000300 00000000 00000000
    00000000 00000001 14000400 00000000 00000000 00000000 00000001 24000280 05000100 3a000000 06000700 00070000
    05000800 80000000 05000900 00000000 54000280 2c000180 14000300 00000000 00000000 00000000 00000001 14000400
    00000000 00000000 00000000 00000001 24000280 05000100 3a000000 06000700 00070000 05000800 81000000 05000900
    00000000 08000300 0000000a 08000800 00000000 08000c00 fe4d2f14 08000b00 00000001 08000700 00000000";
const UNANSWERED: &str = "a4000000 00010200 00000000 0f040000 02000000 34000180 14000180 08000100 7f000001 08000200
    7f000001 1c000280 05000100 11000000 06000200 15b30000 06000300 00060000 34000280 14000180 08000100 7f000001
    08000200 7f000001 1c000280 05000100 11000000 06000200 00060000 06000300 15b30000 08000300 00000188 08000800
    00000000 08000c00 82143165 08000b00 00000001 08000700 00000000";
const TRANSLATED: &str = "d4000000 00010200 00000000 0f040000 02000000 34000180 14000180 08000100 c6336401 08000200
    c6336401 1c000280 05000100 06000000 06000200 9c400000 06000300 23280000 34000280 14000180 08000100 7f000002
    08000200 c6336401 1c000280 05000100 06000000 06000200 23290000 06000300 9c400000 08000300 000001ae 08000800
    00000000 08000c00 d19518bd 08000b00 00000001 08000700 00069797 30000480 2c000180 05000100 03000000 05000200
    0a000000 05000300 0a000000 06000400 23000000 06000500 23000000";
const IN_A_ZONE: &str = "ac000000 00010200 00000000 0f040000 02000000 34000180 14000180 08000100 7f000001 08000200
    7f000001 1c000280 05000100 11000000 06000200 15b30000 06000300 00050000 34000280 14000180 08000100 7f000001
    08000200 7f000001 1c000280 05000100 11000000 06000200 00050000 06000300 15b30000 06001200 00070000 08000300
    00000188 08000800 00000000 08000c00 ee0cc572 08000b00 00000001 08000700 00000000";
const DONE: &str = "14000000 03000200 00000000 0f040000 00000000";
/// `EPERM`.
const REFUSED: &str = "24000000 02000000 00000000 0f040000 ffffffff 14000000 01010003 00000000 00000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn read(hex: &str) -> Vec<Message> {
    messages(&bytes(hex)).collect()
}

fn one(hex: &str) -> Tracked {
    match read(hex)[..] {
        [Message::Tracked(found)] => found,
        ref other => panic!("one connection, not {other:?}"),
    }
}

#[test]
fn a_connection_that_dnat_sends_elsewhere() {
    let host = 0xC633_6401;
    let expected = Tracked {
        family: Family::V4,
        protocol: 6,
        ends: Ends { source: host, destination: host, source_port: 40000, destination_port: 9000 },
        target: 0x7F00_0002,
        target_port: 9001,
        state: State::Established,
        is_answered: true,
        is_zoneless: true,
    };
    assert_eq!(one(TRANSLATED), expected);
}

#[test]
fn an_echo_request() {
    let found = one(ECHO);
    let ends = Ends { source: 1, destination: 1, source_port: 7, destination_port: 128 << 8 };
    assert_eq!((found.family, found.protocol, found.ends), (Family::V6, 58, ends));
    assert_eq!((found.target, found.target_port), (1, 128 << 8), "not the type of the reply");
    assert!(found.is_answered);
}

#[test]
fn a_datagram_without_an_answer() {
    let found = one(UNANSWERED);
    assert_eq!((found.ends.source_port, found.ends.destination_port, found.target_port), (5555, 6, 6));
    assert_eq!((found.state, found.is_answered, found.is_zoneless), (State::Established, false, true));
}

#[test]
fn zones() {
    assert!(!one(IN_A_ZONE).is_zoneless);
    // Of the original direction alone: CTA_TUPLE_ZONE in its tuple.
    let whole = bytes(UNANSWERED);
    let mut zoned = whole.clone();
    zoned.splice(72..72, bytes("06000300 00070000"));
    zoned[0] += 8;
    zoned[20] += 8;
    let [Message::Tracked(found)] = messages(&zoned).collect::<Vec<_>>()[..] else { panic!("a connection") };
    assert!(!found.is_zoneless);
}

#[test]
fn states_of_tcp() {
    let state = |number: u8| {
        let mut changed = bytes(TRANSLATED);
        let at = changed.windows(4).position(|four| four == [5, 0, 1, 0]).expect("a protocol's number");
        let at =
            at + 4 + changed[at + 4..].windows(5).position(|five| five == [5, 0, 1, 0, 3]).expect("a state");
        changed[at + 4] = number;
        match messages(&changed).next() {
            Some(Message::Tracked(found)) => found.state,
            other => panic!("a connection, not {other:?}"),
        }
    };
    assert_eq!((1..=9).filter(|number| state(*number) == State::Established).collect::<Vec<_>>(), [3]);
    assert_eq!((1..=9).filter(|number| state(*number) == State::Over).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn an_answer_ends_or_fails() {
    assert_eq!(read(DONE), [Message::Last]);
    assert_eq!(read(REFUSED), [Message::Error(1)]);
    let all = format!("{ECHO} {UNANSWERED} {TRANSLATED} {IN_A_ZONE} {DONE}");
    let found = read(&all);
    assert_eq!(found.len(), 5);
    assert_eq!(found[4], Message::Last);
}

#[test]
fn what_is_cut_is_no_connection() {
    let whole = bytes(TRANSLATED);
    for length in 0..whole.len() {
        let found: Vec<_> = messages(&whole[..length]).collect();
        assert!(found.iter().all(|message| *message == Message::Other), "{length} bytes: {found:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(at in prop::collection::vec((0_usize..1000, any::<u8>()), 0..8), which in 0_usize..6) {
        let mut datagram = bytes([ECHO, UNANSWERED, TRANSLATED, IN_A_ZONE, DONE, REFUSED][which]);
        for (at, byte) in at {
            let length = datagram.len();
            datagram[at % length] = byte;
        }
        prop_assert!(messages(&datagram).count() <= datagram.len());
    }
}
