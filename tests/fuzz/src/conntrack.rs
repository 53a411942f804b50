//! Datagrams to tracked connections: as netlink-packet-core finds messages and attributes in them.

use labelgate::conntrack::{Ends, Message, State, Tracked, messages};
use labelgate::flow::Family;
use netlink_packet_core::{NetlinkBuffer, NlasIterator};

/// `IPCTNL_MSG_CT_NEW`, and netlink's own words.
const CONNECTION: u16 = 0x100;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The bytes are a datagram. What the other reader can tell apart are our messages; what it cannot is at most one
/// more, and no connection.
pub fn check(datagram: &[u8]) {
    let (mut ours, mut rest) = (messages(datagram), datagram);
    while let Ok(other) = NetlinkBuffer::new_checked(rest) {
        let payload = other.payload();
        let errno = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        let expected = match other.message_type() {
            CONNECTION => connection(payload).map_or(Message::Other, Message::Tracked),
            ERROR if errno != 0 => Message::Error(errno.saturating_neg()),
            ERROR | DONE => Message::Last,
            _ => Message::Other,
        };
        assert_eq!(ours.next(), Some(expected));
        rest = rest.get((other.length() as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    let left: Vec<_> = ours.collect();
    assert_eq!(left.len(), usize::from(!rest.is_empty()), "what is left is one message");
    assert!(left.iter().all(|message| !matches!(message, Message::Tracked(_))));
}

/// Of each number the last one counts, and all must be long enough.
fn connection(payload: &[u8]) -> Option<Tracked> {
    let family = match payload.first()? {
        2 => Family::V4,
        10 => Family::V6,
        _ => return None,
    };
    let (mut there, mut back, mut status, mut tcp, mut zones) = (None, None, 0, None, vec![]);
    for (number, value) in attributes(payload.get(4..)?) {
        match number {
            1 => there = Some(tuple(value)?),
            2 => back = Some(tuple(value)?),
            3 => status = word(value, 4)?,
            4 => tcp = first(value, 1).and_then(|tcp| first(tcp, 1)).and_then(|state| state.first().copied()),
            18 => zones.push(word(value, 2)?),
            _ => {}
        }
    }
    let (there, back) = (there?, back?);
    Some(Tracked {
        family,
        protocol: there.protocol,
        ends: there.ends,
        target: back.ends.source,
        target_port: if there.is_icmp { there.ends.destination_port } else { back.ends.source_port },
        state: match tcp {
            None | Some(3) => State::Established,
            Some(7 | 8) => State::Over,
            Some(_) => State::Other,
        },
        is_answered: status & 2 != 0,
        is_zoneless: there.zone == 0 && zones.iter().all(|zone| *zone == 0),
    })
}

#[derive(Default)]
struct Tuple {
    protocol: u8,
    is_icmp: bool,
    ends: Ends,
    zone: u128,
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let mut found = Tuple::default();
    let ends = &mut found.ends;
    for (number, value) in attributes(bytes) {
        for (inner, value) in attributes(value).filter(|_| number < 3) {
            match (number, inner) {
                (1, 1) => ends.source = word(value, 4)?,
                (1, 2) => ends.destination = word(value, 4)?,
                (1, 3) => ends.source = word(value, 16)?,
                (1, 4) => ends.destination = word(value, 16)?,
                (2, 1) => found.protocol = *value.first()?,
                (2, 2 | 4 | 7) => ends.source_port = u16::try_from(word(value, 2)?).ok()?,
                (2, 3) => ends.destination_port = u16::try_from(word(value, 2)?).ok()?,
                (2, 5 | 8) => {
                    found.is_icmp = true;
                    ends.destination_port |= u16::from(*value.first()?) << 8;
                }
                (2, 6 | 9) => ends.destination_port |= u16::from(*value.first()?),
                _ => {}
            }
        }
        if number == 3 {
            found.zone = word(value, 2)?;
        }
    }
    Some(found)
}

/// Number and value of each, up to one that does not fit.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let end = usize::from(attribute.length());
        (attribute.kind(), &attribute.into_inner()[4..end])
    })
}

fn first(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == number).map(|(_, value)| value)
}

/// A big-endian number of so many bytes.
fn word(value: &[u8], bytes: usize) -> Option<u128> {
    value.get(..bytes).map(|value| value.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte)))
}
