//! One queue: batches in, replies out in as few messages as there can be, one send per batch.

use std::io;

use super::message::{
    Message, QueueOptions, QueuedPacket, Reply, messages, push_bind, push_verdict, push_verdict_batch,
};
use super::socket::{BATCH, Channel, Inbox, ReceiveBuffer, Received, Socket};

/// Bytes of one reply with a mark, and of the drop that may precede it.
const MOST_REPLY_BYTES: usize = 40 + 32;

/// What went wrong in one step; everything is survived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anomalies {
    /// The socket buffer was full (`ENOBUFS`): the kernel has dropped packets, or accepted them if fail-open.
    pub overruns: u64,
    /// The kernel refused a reply: mostly `ENOENT`, the packet is gone because its interface went down.
    pub errors: u64,
    /// A packet's message could not be read: it is dropped.
    pub unreadable: u64,
    /// Replies that could not be sent: their packets are dropped with the next batch.
    pub unsent: u64,
}

/// Who answers packets: many are read before the first is answered, so that what they need of memory is waited for
/// together.
pub trait Judge {
    /// Takes up a packet; at most 64 before an answer.
    fn read(&mut self, packet: &QueuedPacket);

    /// Tells the reply to each packet that was read since the last answer, by id and in the order read.
    fn answer(&mut self, reply: impl FnMut(u32, Reply));
}

/// A bound queue and the replies that it collects.
#[derive(Debug)]
pub struct Queue<C = Socket> {
    channel: C,
    outbox: Outbox,
}

impl Queue {
    /// Binds queue `number`, with a socket of its own whose buffer holds `options.maxlen` packets if it may. Does without
    /// `options.whole` on a kernel that does not know that.
    ///
    /// # Errors
    /// `EPERM` or `EBUSY` where another process has the queue, `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` where
    /// the kernel cannot fail open.
    pub fn open(number: u16, options: QueueOptions) -> io::Result<(Self, Grant)> {
        probe(options, |options| {
            let (socket, buffer) = Socket::open(options.maxlen)?;
            let mut request = Vec::new();
            push_bind(&mut request, number, options);
            socket.request(&request)?;
            Ok((Self::new(number, socket), Grant { buffer, segmented: !options.whole }))
        })
    }
}

/// What a queue got of what it asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Of its socket.
    pub buffer: ReceiveBuffer,
    /// Super-packets come segment by segment.
    pub segmented: bool,
}

/// Tries with everything, then without what can be done without. Each try has a socket of its own: one that failed may
/// have bound the queue.
pub(super) fn probe<T>(
    options: QueueOptions,
    mut open: impl FnMut(QueueOptions) -> io::Result<T>,
) -> io::Result<T> {
    match open(options) {
        Err(error) if options.whole && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            open(QueueOptions { whole: false, ..options })
        }
        result => result,
    }
}

impl<C: Channel> Queue<C> {
    /// A queue that is bound already.
    pub fn new(number: u16, channel: C) -> Self {
        Self { channel, outbox: Outbox::new(number) }
    }

    /// Where batches come from.
    pub fn channel(&self) -> &C {
        &self.channel
    }

    /// The same, for whoever plays the kernel.
    pub fn channel_mut(&mut self) -> &mut C {
        &mut self.channel
    }

    /// Takes at most one batch out of the kernel, without waiting; the number of datagrams in `inbox`.
    ///
    /// # Errors
    /// Where the socket is beyond repair. A full buffer is an anomaly, no error.
    pub fn receive(&mut self, inbox: &mut Inbox, anomalies: &mut Anomalies) -> io::Result<usize> {
        match self.channel.receive(inbox)? {
            Received::Datagrams(count) => Ok(count),
            Received::Overrun => {
                anomalies.overruns += 1;
                Ok(0)
            }
        }
    }

    /// Has every packet of the batch judged and sends the replies: those that let pass in the order of the packets.
    pub fn answer(&mut self, inbox: &Inbox, count: usize, anomalies: &mut Anomalies, judge: &mut impl Judge) {
        let (mut packets, mut unanswered) = (0, 0);
        for message in inbox.datagrams(count).flat_map(messages) {
            match message {
                Message::Packet(packet) => {
                    packets += 1;
                    unanswered += 1;
                    judge.read(&packet);
                    // A datagram may hold several messages.
                    if unanswered == BATCH {
                        unanswered = 0;
                        judge.answer(|id, reply| self.outbox.push(id, reply));
                    }
                }
                Message::Unreadable(id) => {
                    anomalies.unreadable += 1;
                    unanswered = 0;
                    judge.answer(|id, reply| self.outbox.push(id, reply));
                    match id {
                        Some(id) => self.outbox.push(id, Reply::DROP),
                        None => self.outbox.lose(),
                    }
                }
                Message::Error(_) => anomalies.errors += 1,
                Message::Acknowledged | Message::Other => {}
            }
        }
        judge.answer(|id, reply| self.outbox.push(id, reply));
        if !self.outbox.close().is_empty() && self.channel.send(self.outbox.close()).is_err() {
            anomalies.unsent += packets;
            self.outbox.lose();
        }
        self.outbox.clear();
    }
}

/// Replies on their way: runs of equal ones become one message.
///
/// A batch verdict answers every older packet of the queue that still waits, so runs are answered in order, and
/// one that could not be answered must not be caught up by the batch verdict of a later run: before the next
/// packet everything older is dropped.
///
/// What is dropped has no order. One drop between two runs that are alike goes ahead of both, and they become one: two
/// messages, not three. Longer runs of drops are a message each, so nothing is gained by parting them.
#[derive(Debug)]
struct Outbox {
    queue: u16,
    bytes: Vec<u8>,
    run: Option<Run>,
    /// A packet waits whose id is not known.
    has_lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    last_id: u32,
    is_single: bool,
    reply: Reply,
    /// One packet behind it is to be dropped, and the next may be of this run again.
    dropped: Option<u32>,
}

impl Run {
    fn new(id: u32, reply: Reply) -> Self {
        Self { last_id: id, is_single: true, reply, dropped: None }
    }

    fn extend(&mut self, id: u32) {
        self.last_id = id;
        self.is_single = false;
    }
}

impl Outbox {
    fn new(queue: u16) -> Self {
        Self { queue, bytes: Vec::with_capacity(BATCH * MOST_REPLY_BYTES), run: None, has_lost: false }
    }

    fn push(&mut self, id: u32, reply: Reply) {
        if self.has_lost {
            self.close();
            push_verdict_batch(&mut self.bytes, self.queue, id.wrapping_sub(1), Reply::DROP);
            self.has_lost = false;
        }
        match &mut self.run {
            Some(run) if run.reply == reply => {
                if let Some(dropped) = run.dropped.take() {
                    push_verdict(&mut self.bytes, self.queue, dropped, Reply::DROP);
                }
                run.extend(id);
            }
            Some(run) if run.dropped.is_none() && reply == Reply::DROP => run.dropped = Some(id),
            _ => self.begin(id, reply),
        }
    }

    /// Ends the run, and that of the one drop behind it, unless the packet is of that.
    fn begin(&mut self, id: u32, reply: Reply) {
        let dropped = self.end_run();
        self.run = dropped.map(|dropped| Run::new(dropped, Reply::DROP));
        match &mut self.run {
            Some(run) if run.reply == reply => run.extend(id),
            _ => {
                self.end_run();
                self.run = Some(Run::new(id, reply));
            }
        }
    }

    fn lose(&mut self) {
        self.has_lost = true;
    }

    /// Ends all runs; everything that is to be sent.
    fn close(&mut self) -> &[u8] {
        if let Some(dropped) = self.end_run() {
            push_verdict(&mut self.bytes, self.queue, dropped, Reply::DROP);
        }
        &self.bytes
    }

    /// The one packet behind the run that is to be dropped, if there is one.
    fn end_run(&mut self) -> Option<u32> {
        let run = self.run.take()?;
        let push = if run.is_single { push_verdict } else { push_verdict_batch };
        push(&mut self.bytes, self.queue, run.last_id, run.reply);
        run.dropped
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}
