//! Messages of `nfnetlink_queue`, to and from bytes: pure, and without panic whatever the bytes.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::netlink::{self, ATTRIBUTE_HEADER, aligned, be32, next_attribute};

/// `nlmsg_type`: subsystem in the upper byte, message of it in the lower.
mod kind {
    const SUBSYSTEM_QUEUE: u16 = 3 << 8;
    pub const PACKET: u16 = SUBSYSTEM_QUEUE;
    pub const VERDICT: u16 = SUBSYSTEM_QUEUE | 1;
    pub const CONFIG: u16 = SUBSYSTEM_QUEUE | 2;
    pub const VERDICT_BATCH: u16 = SUBSYSTEM_QUEUE | 3;
}

/// `nlmsg_flags`.
mod flag {
    pub const REQUEST: u16 = 1;
    pub const ACKNOWLEDGE: u16 = 4;
}

/// Attributes of packets and verdicts.
mod attribute {
    pub const PACKET_HEADER: u16 = 1;
    pub const VERDICT_HEADER: u16 = 2;
    pub const MARK: u16 = 3;
    pub const INPUT: u16 = 5;
    pub const OUTPUT: u16 = 6;
    pub const PAYLOAD: u16 = 10;
    pub const PACKET_LENGTH: u16 = 13;
}

/// Attributes of a configuration message, and their values.
mod config {
    pub const COMMAND: u16 = 1;
    pub const PARAMETERS: u16 = 2;
    pub const MAXLEN: u16 = 3;
    pub const MASK: u16 = 4;
    pub const FLAGS: u16 = 5;
    pub const COMMAND_BIND: u8 = 1;
    pub const MODE_COPY_PACKET: u8 = 2;
    pub const FLAG_FAIL_OPEN: u32 = 1;
    pub const FLAG_GSO: u32 = 4;
}

/// What the kernel does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum KernelVerdict {
    /// `NF_DROP`.
    Drop = 0,
    /// `NF_ACCEPT`: leaves the whole table; the next hook function sees it.
    Accept = 1,
    /// `NF_REPEAT`: passes the same table again from the top. Without a mark that a rule there catches this never
    /// ends.
    Repeat = 4,
}

/// The answer to one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    /// What the kernel does with it.
    pub verdict: KernelVerdict,
    /// Replaces the whole packet mark; None leaves it.
    pub mark: Option<u32>,
}

impl Reply {
    /// Drops the packet.
    pub const DROP: Self = Self { verdict: KernelVerdict::Drop, mark: None };
}

/// A packet that waits in the kernel for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedPacket<'a> {
    /// Counts up within its queue.
    pub id: u32,
    /// Packet mark on arrival.
    pub mark: u32,
    /// ifindex of the in-interface; 0: none.
    pub input: u32,
    /// ifindex of the out-interface; 0: none.
    pub output: u32,
    /// Bytes of the whole packet.
    pub length: u32,
    /// What was copied of it, from the IP header on.
    pub payload: &'a [u8],
}

/// One netlink message from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A packet.
    Packet(QueuedPacket<'a>),
    /// A request was done as asked.
    Acknowledged,
    /// A request failed with this errno (positive).
    Error(i32),
    /// A packet whose message cannot be read; its id, if at least that can.
    Unreadable(Option<u32>),
    /// Nothing that a queue must know.
    Other,
}

/// The messages of one datagram. One that says it is longer than the datagram is the last.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    netlink::messages(datagram).map(|message| match message {
        None => Message::Unreadable(None),
        Some(message) if message.kind == kind::PACKET => packet(message.body, message.is_cut),
        Some(message) => match message.error() {
            Some(0) => Message::Acknowledged,
            Some(errno) => Message::Error(errno),
            None => Message::Other,
        },
    })
}

/// Whatever cannot be read has a place in the queue all the same: its id is kept if it is known.
fn packet(body: &[u8], is_cut: bool) -> Message<'_> {
    let mut id = None;
    let mut packet = QueuedPacket { id: 0, mark: 0, input: 0, output: 0, length: 0, payload: &[] };
    let mut whole_length = None;
    // Family, version and queue number come first; the socket tells the queue.
    let mut rest = body.get(4..).unwrap_or_default();
    while !rest.is_empty() {
        let Some((number, value)) = next_attribute(&mut rest) else { return Message::Unreadable(id) };
        let known = match number {
            attribute::PACKET_HEADER => store(&mut id, be32(value)),
            attribute::MARK => assign(&mut packet.mark, be32(value)),
            attribute::INPUT => assign(&mut packet.input, be32(value)),
            attribute::OUTPUT => assign(&mut packet.output, be32(value)),
            attribute::PACKET_LENGTH => store(&mut whole_length, be32(value)),
            attribute::PAYLOAD => {
                packet.payload = value;
                Some(())
            }
            _ => Some(()),
        };
        if known.is_none() {
            return Message::Unreadable(id);
        }
    }
    let copied = u32::try_from(packet.payload.len()).unwrap_or(u32::MAX);
    match id {
        Some(id) if !is_cut => {
            Message::Packet(QueuedPacket { id, length: whole_length.unwrap_or(copied), ..packet })
        }
        _ => Message::Unreadable(id),
    }
}

fn assign<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn store<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
    *place = Some(value?);
    Some(())
}

/// How a queue is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Packets that may wait; one more is dropped, or accepted if `fail_open`.
    pub maxlen: u32,
    /// Accept what the queue or its socket cannot hold.
    pub fail_open: bool,
    /// Super-packets as one message, not one for each segment: bulk traffic then costs a ninth.
    pub whole: bool,
    /// Bytes of a packet that are copied.
    pub copied: u32,
}

/// Appends the request that binds a queue and sets all its options. One message: between two, packets of the queue
/// would be dropped.
pub fn push_bind(buffer: &mut Vec<u8>, queue: u16, options: QueueOptions) {
    let flag = |is_wanted, flag| if is_wanted { flag } else { 0 };
    // Also the mask: what is not named there a kernel need not know, and is off in a queue that is bound anew.
    let flags = flag(options.whole, config::FLAG_GSO) | flag(options.fail_open, config::FLAG_FAIL_OPEN);
    let [c0, c1, c2, c3] = options.copied.to_be_bytes();
    push_message(buffer, kind::CONFIG, flag::REQUEST | flag::ACKNOWLEDGE, queue, |body| {
        push_attribute(body, config::COMMAND, &[config::COMMAND_BIND, 0, 0, 0]);
        push_attribute(body, config::FLAGS, &flags.to_be_bytes());
        push_attribute(body, config::MASK, &flags.to_be_bytes());
        push_attribute(body, config::MAXLEN, &options.maxlen.to_be_bytes());
        push_attribute(body, config::PARAMETERS, &[c0, c1, c2, c3, config::MODE_COPY_PACKET]);
    });
}

/// Appends the reply to one packet.
pub fn push_verdict(buffer: &mut Vec<u8>, queue: u16, id: u32, reply: Reply) {
    push_reply(buffer, kind::VERDICT, queue, id, reply);
}

/// Appends one reply to *every* packet of the queue up to this id that still waits.
pub fn push_verdict_batch(buffer: &mut Vec<u8>, queue: u16, last_id: u32, reply: Reply) {
    push_reply(buffer, kind::VERDICT_BATCH, queue, last_id, reply);
}

/// Struct `nlmsghdr`, struct `nfgenmsg`, then one attribute, or two: written as a whole, for where verdicts are mixed
/// each packet has one.
fn push_reply(buffer: &mut Vec<u8>, kind: u16, queue: u16, id: u32, reply: Reply) {
    let [q0, q1] = queue.to_be_bytes();
    let verdict = [
        if reply.mark.is_some() { 40_u32 } else { 32 }.to_ne_bytes(),
        pair(kind, flag::REQUEST),
        [0; 4], // sequence number: unused, as port, family and version
        [0; 4],
        [0, 0, q0, q1],
        pair(12, attribute::VERDICT_HEADER),
        (reply.verdict as u32).to_be_bytes(),
        id.to_be_bytes(),
    ];
    buffer.extend_from_slice(verdict.as_flattened());
    if let Some(mark) = reply.mark {
        buffer.extend_from_slice([pair(8, attribute::MARK), mark.to_be_bytes()].as_flattened());
    }
}

/// Two numbers in the byte order of the machine.
const fn pair(one: u16, other: u16) -> [u8; 4] {
    let ([a0, a1], [b0, b1]) = (one.to_ne_bytes(), other.to_ne_bytes());
    [a0, a1, b0, b1]
}

fn push_message(buffer: &mut Vec<u8>, kind: u16, flags: u16, queue: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]); // the length, known at the end
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&[0; 8]); // sequence number and port: unused
    buffer.extend_from_slice(&[0; 2]); // family and version: unused
    buffer.extend_from_slice(&queue.to_be_bytes());
    body(buffer);
    let length = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = buffer.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}

fn push_attribute(buffer: &mut Vec<u8>, number: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    buffer.extend_from_slice(&length.to_ne_bytes());
    buffer.extend_from_slice(&number.to_ne_bytes());
    buffer.extend_from_slice(value);
    buffer.resize(aligned(buffer.len()), 0);
}
