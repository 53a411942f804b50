//! Datagrams to netlink messages and replies to bytes: as netlink-packet-core reads them.

use labelgate::nfqueue::message::{Message, messages, push_bind, push_verdict, push_verdict_batch};
use labelgate::nfqueue::{KernelVerdict, QueueOptions, QueuedPacket, Reply};
use netlink_packet_core::{NLA_F_NESTED, NLA_F_NET_BYTEORDER, NetlinkBuffer, NlasIterator};

/// Netlink's own words and those of `linux/netfilter/nfnetlink_queue.h`.
const ERROR: u16 = 2;
const PACKET: u16 = 0x300;
const VERDICT: u16 = 0x301;
const CONFIG: u16 = 0x302;
const VERDICT_BATCH: u16 = 0x303;

/// The bytes are a datagram; they are also the numbers of the messages that are built.
pub fn check(bytes: &[u8]) {
    received(bytes);
    sent(bytes);
}

/// What the other reader can tell apart are our messages; what it cannot is at most one more.
fn received(datagram: &[u8]) {
    let (mut ours, mut rest) = (messages(datagram), datagram);
    while let Ok(other) = NetlinkBuffer::new_checked(rest) {
        assert_eq!(ours.next(), Some(read(&other)));
        let next = (other.length() as usize).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    assert_eq!(ours.count(), usize::from(!rest.is_empty()), "what is left is one message");
}

fn read<'a>(message: &NetlinkBuffer<&'a [u8]>) -> Message<'a> {
    let payload = message.payload();
    match message.message_type() {
        PACKET => read_packet(payload),
        ERROR => match payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
            None => Message::Other,
            Some(0) => Message::Acknowledged,
            Some(code) => Message::Error(code.saturating_neg()),
        },
        _ => Message::Other,
    }
}

/// Struct `nfgenmsg`, then attributes, of which the last of a number counts.
fn read_packet(payload: &[u8]) -> Message<'_> {
    let mut packet = QueuedPacket { id: 0, mark: 0, input: 0, output: 0, length: 0, payload: &[] };
    let (mut id, mut length) = (None, None);
    for attribute in attributes(payload.get(4..).unwrap_or_default()) {
        let Some((number, value)) = attribute else { return Message::Unreadable(id) };
        let word = value.first_chunk().map(|word| u32::from_be_bytes(*word));
        match (number, word) {
            (1 | 3 | 5 | 6 | 13, None) => return Message::Unreadable(id),
            (1, word) => id = word,
            (13, word) => length = word,
            (3, Some(word)) => packet.mark = word,
            (5, Some(word)) => packet.input = word,
            (6, Some(word)) => packet.output = word,
            (10, _) => packet.payload = value,
            _ => {}
        }
    }
    let copied = u32::try_from(packet.payload.len()).expect("attributes are short");
    match id {
        None => Message::Unreadable(None),
        Some(id) => Message::Packet(QueuedPacket { id, length: length.unwrap_or(copied), ..packet }),
    }
}

/// Number, all bits of it, and value of each; None in the place of one that does not fit, which is the last.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute = attribute.ok()?;
        let nested = if attribute.nested_flag() { NLA_F_NESTED } else { 0 };
        let network_order = if attribute.network_byte_order_flag() { NLA_F_NET_BYTEORDER } else { 0 };
        let end = usize::from(attribute.length());
        Some((attribute.kind() | nested | network_order, &attribute.into_inner()[4..end]))
    })
}

/// What is sent reads as what was meant, one message after the other, and is nothing that we would take for ours.
fn sent(bytes: &[u8]) {
    let numbers: Vec<u32> =
        bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
    let [id, mark, maxlen, choice, ..] = numbers[..] else { return };
    let queue = u16::try_from(choice >> 16).expect("the upper half");
    let verdict = [KernelVerdict::Drop, KernelVerdict::Accept, KernelVerdict::Repeat][choice as usize % 3];
    let reply = Reply { verdict, mark: (choice & 4 != 0).then_some(mark) };
    let options =
        QueueOptions { maxlen, fail_open: choice & 8 != 0, whole: choice & 16 != 0, copied: maxlen };
    let mut buffer = Vec::new();
    push_bind(&mut buffer, queue, options);
    push_verdict(&mut buffer, queue, id, reply);
    push_verdict_batch(&mut buffer, queue, id, reply);
    assert!(messages(&buffer).all(|message| message == Message::Other));
    let meant =
        [(CONFIG, bound(options)), (VERDICT, replied(id, reply)), (VERDICT_BATCH, replied(id, reply))];
    let mut rest = &buffer[..];
    for (kind, expected) in meant {
        let message = NetlinkBuffer::new_checked(rest).expect("a whole message");
        assert_eq!(message.message_type(), kind);
        let (head, body) = message.payload().split_at(4);
        assert_eq!(head, [[0, 0], queue.to_be_bytes()].concat(), "the queue, in network order");
        let said: Option<Vec<_>> =
            attributes(body).map(|one| one.map(|(n, value)| (n, value.to_vec()))).collect();
        assert_eq!(said, Some(expected));
        rest = &rest[message.length() as usize..];
    }
    assert!(rest.is_empty(), "nothing is left");
}

/// Verdict header and mark.
fn replied(id: u32, reply: Reply) -> Vec<(u16, Vec<u8>)> {
    let header = [(reply.verdict as u32).to_be_bytes(), id.to_be_bytes()].concat();
    let mark = reply.mark.map(|mark| (3, mark.to_be_bytes().to_vec()));
    [(2, header)].into_iter().chain(mark).collect()
}

/// Bind; GSO and fail-open with their mask; length of the queue; copy the packet.
fn bound(options: QueueOptions) -> Vec<(u16, Vec<u8>)> {
    let (open, whole) = (u8::from(options.fail_open), if options.whole { 4 } else { 0 });
    vec![
        (1, vec![1, 0, 0, 0]),
        (5, vec![0, 0, 0, open | whole]),
        (4, vec![0, 0, 0, open | whole]),
        (3, options.maxlen.to_be_bytes().to_vec()),
        (2, [&options.copied.to_be_bytes()[..], &[2]].concat()),
    ]
}
