//! The codec against bytes of a real kernel, and the queue against a kernel that is played.

mod drops;

use std::io;

use proptest::prelude::*;

use super::fake_kernel::{self, bytes};
use super::message::{Message, messages, push_bind, push_verdict, push_verdict_batch};
use super::queue::probe;
use super::socket::{BATCH, Channel, Inbox, Poller, Received, Socket, Wake, without_datagrams};
use super::{Anomalies, Judge, KernelVerdict, Queue, QueueOptions, QueuedPacket, Reply};

const QUEUE: u16 = 4206;
const ACCEPT: Reply = Reply { verdict: KernelVerdict::Accept, mark: None };
const MARKED: Reply = Reply { verdict: KernelVerdict::Repeat, mark: Some(0x0500) };

/// A message from the kernel (x86-64, 6.18): queue 4206 bound in a fresh namespace, `iptables-legacy -A INPUT -p udp
/// --dport 7001 -j MARK --set-mark 0x305` and `-j NFQUEUE --queue-num 4206`, then in Python
/// `u.bind(("127.0.0.1", 40000)); u.sendto(b"hello, world", ("127.0.0.2", 7001))`.
const INCOMING: &str = "74000000 00030000 00000000 00000000 0200106e 0b000100 00000001 08000100
    08000500 00000001 08000300 00000305 10000900 00060000 00000000 00000000 08000e00 00000001
    2c000a00 45000028 c2ef4000 401179d2 7f000001 7f000002 9c401b59 0014fe28 68656c6c 6f2c2077 6f726c64";

/// From `-A OUTPUT -p udp --dport 7002 -j NFQUEUE`, `u.sendto(b"hello", ("127.0.0.2", 7002))`: no padding at the end.
const OUTGOING: &str = "55000000 00030000 00000000 00000000 0200106e 0b000100 00000002 08000300
    08000600 00000001 08000e00 00000001 25000a00 450000 21c2f040 00401179 d87f0000 017f0000 029c401b
    5a000dfe 2168656c 6c6f";

/// The kernel's answer to a verdict for an id that does not wait: `ENOENT`.
const NOT_FOUND: &str = "34000000 02000000 00000000 99650000 feffffff 20000000 01030100 00000000 00000000
    0000106e 0c000200 00000001 0000004d";

/// The kernel's answer to a bind with `NLM_F_ACK`.
const ACKNOWLEDGED: &str = "24000000 02000001 00000000 99650000 00000000 40000000 02030500 00000000 00000000";

fn read(datagram: &[u8]) -> Vec<Message<'_>> {
    messages(datagram).collect()
}

/// A packet without payload.
fn packet(id: u32, mark: u32) -> Vec<u8> {
    fake_kernel::packet(id, mark, (0, 0), &[])
}

#[test]
fn a_packet_on_its_way_in() {
    let datagram = bytes(INCOMING);
    let expected = QueuedPacket {
        id: 1,
        mark: 0x305,
        input: 1,
        output: 0,
        length: 40,
        payload: &datagram[datagram.len() - 40..],
    };
    assert_eq!(read(&datagram), [Message::Packet(expected)]);
}

#[test]
fn a_packet_on_its_way_out() {
    let datagram = bytes(OUTGOING);
    let expected = QueuedPacket {
        id: 2,
        mark: 0,
        input: 0,
        output: 1,
        length: 33,
        payload: &datagram[datagram.len() - 33..],
    };
    assert_eq!(read(&datagram), [Message::Packet(expected)]);
}

#[test]
fn a_copy_tells_the_length_of_the_packet() {
    // by hand: attribute 13 (the packet has 4000 bytes) ahead of four bytes of payload
    let mut datagram = packet(7, 0);
    datagram.truncate(datagram.len() - 4);
    datagram.extend_from_slice(&bytes("08000d00 00000fa0 08000a00 45000fa0"));
    let length = u32::try_from(datagram.len()).unwrap();
    datagram[..4].copy_from_slice(&length.to_ne_bytes());
    let payload = &datagram[datagram.len() - 4..];
    let expected = QueuedPacket { id: 7, mark: 0, input: 0, output: 0, length: 4000, payload };
    assert_eq!(read(&datagram), [Message::Packet(expected)]);
}

#[test]
fn answers_of_the_kernel() {
    assert_eq!(read(&bytes(NOT_FOUND)), [Message::Error(libc::ENOENT)]);
    assert_eq!(read(&bytes(ACKNOWLEDGED)), [Message::Acknowledged]);
}

#[test]
fn several_messages_in_one_datagram() {
    let datagram = [bytes(NOT_FOUND), packet(3, 0), bytes(ACKNOWLEDGED)].concat();
    let ids: Vec<_> = messages(&datagram)
        .map(|message| match message {
            Message::Packet(packet) => Some(packet.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids, [None, Some(3), None]);
}

#[test]
fn a_packet_that_cannot_be_read_keeps_its_id() {
    let whole = bytes(INCOMING);
    // cut off by a buffer that is too small: in the payload, at an attribute's end, ahead of the id
    assert_eq!(read(&whole[..100]), [Message::Unreadable(Some(1))]);
    assert_eq!(read(&whole[..32]), [Message::Unreadable(Some(1))]);
    assert_eq!(read(&whole[..24]), [Message::Unreadable(None)]);
    assert_eq!(read(&whole[..10]), [Message::Unreadable(None)]);
    // an attribute longer than the message; a mark of two bytes; no packet header; a message shorter than its header
    let damaged = |place: usize, byte: u8| {
        let mut datagram = whole.clone();
        datagram[place] = byte;
        match read(&datagram)[..] {
            [Message::Unreadable(id)] => id,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(damaged(72, 0xff), Some(1));
    assert_eq!(damaged(40, 6), Some(1));
    assert_eq!(damaged(22, 99), None);
    assert_eq!(damaged(0, 15), None);
}

#[test]
fn bind_is_one_message() {
    // struct nfqnl_msg_config_cmd {1, 0, 0}; flags GSO; mask GSO; maxlen 100; struct
    // nfqnl_msg_config_params {128, COPY_PACKET} with three bytes of padding; NLM_F_REQUEST | NLM_F_ACK
    let expected = "40000000 02030500 00000000 00000000 0000106e 08000100 01000000 08000500 00000004
        08000400 00000004 08000300 00000064 09000200 00000080 02000000";
    let mut request = Vec::new();
    push_bind(&mut request, QUEUE, QueueOptions { maxlen: 100, fail_open: false, whole: true, copied: 128 });
    assert_eq!(request, bytes(expected));
    request.clear();
    push_bind(&mut request, QUEUE, QueueOptions { maxlen: 100, fail_open: true, whole: true, copied: 128 });
    let open = expected.replace("08000500 00000004", "08000500 00000005");
    let open = open.replace("08000400 00000004", "08000400 00000005");
    assert_eq!(request, bytes(&open));
    request.clear();
    push_bind(&mut request, QUEUE, QueueOptions { maxlen: 100, fail_open: false, whole: false, copied: 256 });
    let without = expected.replace("08000500 00000004", "08000500 00000000");
    let without = without.replace("08000400 00000004", "08000400 00000000");
    assert_eq!(request, bytes(&without.replace("09000200 00000080", "09000200 00000100")));
}

#[test]
fn a_kernel_without_gso_is_asked_again_without() {
    let options = QueueOptions { maxlen: 100, fail_open: true, whole: true, copied: 128 };
    let ask = |errors: &[i32]| {
        let (mut asked, mut errors) = (Vec::new(), errors.iter());
        let result = probe(options, |options| {
            asked.push(options.whole);
            errors.next().map_or(Ok(options), |&error| Err(io::Error::from_raw_os_error(error)))
        });
        (result.map(|options| options.whole).map_err(|error| error.raw_os_error()), asked)
    };
    assert_eq!(ask(&[]), (Ok(true), vec![true]));
    assert_eq!(ask(&[libc::EOPNOTSUPP]), (Ok(false), vec![true, false]));
    assert_eq!(ask(&[libc::EPERM]), (Err(Some(libc::EPERM)), vec![true]));
    // Failing open cannot be done without.
    assert_eq!(ask(&[libc::EOPNOTSUPP; 2]), (Err(Some(libc::EOPNOTSUPP)), vec![true, false]));
}

/// A reply without mark; kind 1 is for one packet, 3 for all up to it.
fn plain(kind: u8, verdict: u8, id: u32) -> Vec<u8> {
    fake_kernel::reply(QUEUE, kind == 3, verdict, id, None)
}

fn marked(kind: u8, verdict: u8, id: u32, mark: u32) -> Vec<u8> {
    fake_kernel::reply(QUEUE, kind == 3, verdict, id, Some(mark))
}

#[test]
fn verdicts() {
    let mut sent = Vec::new();
    push_verdict(&mut sent, QUEUE, 77, Reply::DROP);
    push_verdict_batch(&mut sent, QUEUE, 78, ACCEPT);
    push_verdict(&mut sent, QUEUE, 0x0102_0304, MARKED);
    let expected = [plain(1, 0, 77), plain(3, 1, 78), marked(1, 4, 0x0102_0304, 0x500)].concat();
    assert_eq!(sent, expected);
}

proptest! {
    #[test]
    fn no_datagram_panics(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(messages(&datagram).count() <= datagram.len());
    }

    #[test]
    fn no_damaged_datagram_panics(place in 0..116_usize, byte in any::<u8>(), end in 0..=116_usize) {
        let mut datagram = bytes(INCOMING);
        datagram[place] = byte;
        prop_assert!(messages(&datagram[..end]).count() <= 8);
    }
}

/// Datagrams, or an overrun.
type Batch = Option<Vec<Vec<u8>>>;

/// Plays the kernel: what it has for the queue, and what it was sent.
#[derive(Default)]
struct Fake {
    batches: Vec<io::Result<Batch>>,
    refuses: bool,
    sent: Vec<Vec<u8>>,
}

impl Channel for Fake {
    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<Received> {
        if self.batches.is_empty() {
            return Ok(Received::Datagrams(0));
        }
        Ok(match self.batches.remove(0)? {
            Some(datagrams) => Received::Datagrams(inbox.fill(&datagrams)),
            None => Received::Overrun,
        })
    }

    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        self.sent.push(messages.to_vec());
        Ok(())
    }
}

/// Marks stand for replies, so that a test can write the batch that it means.
#[derive(Default)]
struct ByMark(Vec<(u32, Reply)>);

impl Judge for ByMark {
    fn read(&mut self, packet: &QueuedPacket) {
        let reply = match packet.mark {
            0 => Reply::DROP,
            1 => ACCEPT,
            mark => Reply { verdict: KernelVerdict::Repeat, mark: Some(mark) },
        };
        self.0.push((packet.id, reply));
        assert!(self.0.len() <= BATCH, "asked for an answer in time");
    }

    fn answer(&mut self, mut reply: impl FnMut(u32, Reply)) {
        self.0.drain(..).for_each(|(id, answer)| reply(id, answer));
    }
}

fn step(queue: &mut Queue<Fake>) -> Anomalies {
    let (mut inbox, mut anomalies) = (Inbox::default(), Anomalies::default());
    let count = queue.receive(&mut inbox, &mut anomalies).unwrap();
    queue.answer(&inbox, count, &mut anomalies, &mut ByMark::default());
    anomalies
}

fn queue_of(batches: Vec<Batch>) -> Queue<Fake> {
    Queue::new(QUEUE, Fake { batches: batches.into_iter().map(Ok).collect(), ..Fake::default() })
}

#[test]
fn runs_of_equal_replies_are_one_message_and_all_are_one_send() {
    let marks = [0, 0, 0, 1, 0x500, 0x500, 0x600, 1, 1];
    let batch = (10..).zip(marks).map(|(id, mark)| packet(id, mark)).collect();
    let mut queue = queue_of(vec![Some(batch)]);
    assert_eq!(step(&mut queue), Anomalies::default());
    let expected =
        [plain(3, 0, 12), plain(1, 1, 13), marked(3, 4, 15, 0x500), marked(1, 4, 16, 0x600), plain(3, 1, 18)];
    assert_eq!(queue.channel().sent, [expected.concat()]);
}

#[test]
fn each_batch_is_sent_on_its_own() {
    let mut queue = queue_of(vec![Some(vec![packet(1, 1)]), Some(vec![packet(2, 1), packet(3, 1)])]);
    step(&mut queue);
    step(&mut queue);
    assert_eq!(queue.channel().sent, [plain(1, 1, 1), plain(3, 1, 3)]);
}

#[test]
fn nothing_to_say_is_not_sent() {
    let mut queue = queue_of(vec![Some(vec![bytes(ACKNOWLEDGED)])]);
    assert_eq!(step(&mut queue), Anomalies::default());
    assert_eq!(step(&mut queue), Anomalies::default());
    assert_eq!(queue.channel().sent, Vec::<Vec<u8>>::new());
}

#[test]
fn a_full_buffer_and_errors_are_counted_and_survived() {
    let mut queue = queue_of(vec![None, Some(vec![bytes(NOT_FOUND), packet(4, 1)])]);
    assert_eq!(step(&mut queue), Anomalies { overruns: 1, ..Anomalies::default() });
    assert_eq!(step(&mut queue), Anomalies { errors: 1, ..Anomalies::default() });
    assert_eq!(queue.channel().sent, [plain(1, 1, 4)]);
}

#[test]
fn a_broken_socket_is_an_error() {
    let broken = vec![Err(io::Error::from_raw_os_error(libc::EBADF))];
    let mut queue = Queue::new(QUEUE, Fake { batches: broken, ..Fake::default() });
    let received = queue.receive(&mut Inbox::default(), &mut Anomalies::default());
    assert_eq!(received.unwrap_err().raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_packet_that_cannot_be_read_is_dropped() {
    let mut cut = packet(2, 1);
    cut.truncate(34);
    let mut queue = queue_of(vec![Some(vec![packet(1, 1), cut, packet(3, 1), packet(4, 1)])]);
    assert_eq!(step(&mut queue), Anomalies { unreadable: 1, ..Anomalies::default() });
    let expected = [plain(1, 0, 2), plain(3, 1, 4)];
    assert_eq!(queue.channel().sent, [expected.concat()]);
}

/// Otherwise the accepting batch verdict for 4 would release 2 as well.
#[test]
fn a_packet_without_an_id_is_dropped_before_the_next_one_is_answered() {
    let mut cut = packet(2, 1);
    cut.truncate(20);
    let mut queue = queue_of(vec![
        Some(vec![packet(1, 1), cut.clone(), packet(3, 1), packet(4, 1)]),
        Some(vec![packet(5, 1), cut]),
        Some(vec![packet(7, 1), packet(8, 1)]),
    ]);
    step(&mut queue);
    step(&mut queue);
    assert_eq!(step(&mut queue), Anomalies::default());
    let sent = [
        [plain(1, 1, 1), plain(3, 0, 2), plain(3, 1, 4)].concat(),
        plain(1, 1, 5),
        [plain(3, 0, 6), plain(3, 1, 8)].concat(),
    ];
    assert_eq!(queue.channel().sent, sent);
}

#[test]
fn packets_whose_replies_were_not_sent_are_dropped() {
    let mut queue = queue_of(vec![
        Some(vec![packet(u32::MAX - 1, 0), packet(u32::MAX, 1)]),
        Some(vec![packet(0, 1), packet(1, 1)]),
    ]);
    queue.channel_mut().refuses = true;
    assert_eq!(step(&mut queue), Anomalies { unsent: 2, ..Anomalies::default() });
    queue.channel_mut().refuses = false;
    assert_eq!(step(&mut queue), Anomalies::default());
    assert_eq!(queue.channel().sent, [[plain(3, 0, u32::MAX), plain(3, 1, 1)].concat()]);
}

#[test]
fn a_socket_gives_what_is_there_and_does_not_wait() {
    let (mut socket, kernel) = Socket::pair();
    let mut inbox = Inbox::default();
    assert_eq!(socket.receive(&mut inbox).unwrap(), Received::Datagrams(0));
    let datagrams = [packet(1, 2), vec![0xee; 3000], packet(3, 4)];
    for datagram in &datagrams {
        kernel.send(datagram).unwrap();
    }
    assert_eq!(socket.receive(&mut inbox).unwrap(), Received::Datagrams(3));
    let expected = [&datagrams[0][..], &datagrams[1][..1088], &datagrams[2][..]];
    assert_eq!(inbox.datagrams(3).collect::<Vec<_>>(), expected);
    socket.send(b"reply").unwrap();
    let mut answer = [0; 16];
    let length = kernel.recv(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"reply");
}

#[test]
fn a_batch_has_an_end() {
    let (mut socket, kernel) = Socket::pair();
    kernel.set_nonblocking(true).unwrap();
    let mut inbox = Inbox::default();
    let mut received = Vec::new();
    let mut receive = || match socket.receive(&mut inbox).unwrap() {
        Received::Datagrams(count) => {
            received.push(count);
            count > 0
        }
        Received::Overrun => panic!("a socket pair makes the sender wait"),
    };
    for id in 0..u32::try_from(BATCH).unwrap() + 3 {
        // a socket pair may hold fewer datagrams than a batch
        while kernel.send(&packet(id, 0)).is_err() {
            receive();
        }
    }
    while receive() {}
    assert_eq!(received.iter().sum::<usize>(), BATCH + 3);
    assert!(received.iter().all(|&count| count <= BATCH), "{received:?}");
}

#[test]
fn errors_that_pass_are_no_errors() {
    let outcome = |errno| without_datagrams(io::Error::from_raw_os_error(errno));
    assert_eq!(outcome(libc::EAGAIN).unwrap(), Received::Datagrams(0));
    assert_eq!(outcome(libc::EINTR).unwrap(), Received::Datagrams(0));
    assert_eq!(outcome(libc::ENOBUFS).unwrap(), Received::Overrun);
    assert_eq!(outcome(libc::EBADF).unwrap_err().raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_request_is_done_refused_or_proved_by_a_packet() {
    let (mut socket, kernel) = Socket::pair();
    kernel.send(&bytes(ACKNOWLEDGED)).unwrap();
    socket.request(b"bind").unwrap();
    kernel.send(&bytes(NOT_FOUND)).unwrap();
    assert_eq!(socket.request(b"bind").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    // rules that are there already: a packet may come before the answer, and is not lost
    kernel.send(&packet(9, 0)).unwrap();
    kernel.send(&bytes(ACKNOWLEDGED)).unwrap();
    socket.request(b"bind").unwrap();
    let mut inbox = Inbox::default();
    assert_eq!(socket.receive(&mut inbox).unwrap(), Received::Datagrams(2));
    assert_eq!(inbox.datagrams(1).next(), Some(&packet(9, 0)[..]));
}

#[test]
fn a_poller_tells_who_is_ready() {
    let (socket, kernel) = Socket::pair();
    let wake = Wake::new().unwrap();
    let mut poller =
        Poller::new([std::os::fd::AsFd::as_fd(&socket), std::os::fd::AsFd::as_fd(&wake)]).unwrap();
    let mut ready = |may_block| {
        poller.wait(may_block).unwrap();
        (poller.is_ready(0), poller.is_ready(1))
    };
    assert_eq!(ready(false), (false, false));
    wake.wake();
    assert_eq!(ready(true), (false, true));
    kernel.send(b"x").unwrap();
    assert_eq!(ready(true), (true, true));
    wake.clear();
    assert_eq!(ready(true), (true, false));
}

#[test]
fn interfaces_have_names() {
    assert_eq!(super::interface_name(1).as_deref(), Some("lo"));
    assert_eq!(super::interface_name(0), None);
    assert_eq!(super::socket::shown(b"cali\xff\xc3\xa9\xc3"), "cali/ff\u{e9}/c3");
}
