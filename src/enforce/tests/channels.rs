//! What the loop asks of sockets, and what it does when one breaks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::{A, CONFIG, Table, packet, udp};
use crate::enforce::worker::{HookQueue, Worker};
use crate::enforce::{counters, share, spawn};
use crate::flow::{Family, Hook};
use crate::nfqueue::{Channel, Grant, Inbox, Queue, Received, Socket};

/// Counts what would be system calls.
struct Counting {
    batches: usize,
    received: usize,
    sent: usize,
}

impl Channel for Counting {
    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<Received> {
        self.received += 1;
        let marks = [0, 0, A, 0, 7];
        let batch: Vec<_> = (1..)
            .zip(0..64_u8)
            .map(|(id, place)| {
                packet(id, marks[usize::from(place) % marks.len()], (0, 0), &udp(1 + place % 4))
            })
            .collect();
        let is_full = self.received <= self.batches;
        Ok(Received::Datagrams(inbox.fill(if is_full { &batch } else { &batch[..9] })))
    }

    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        self.sent += 1;
        Ok(())
    }
}

/// Whatever the verdicts are, and without waiting in between while there is more.
#[test]
fn a_batch_is_one_receive_and_one_send() {
    for (batches, expected) in [(0, 1), (2, 3), (100, 4)] {
        let (table, grants) = (Arc::new(Table::default()), vec![Grant::default()]);
        let shared = Arc::new(share(&CONFIG, table, Vec::new(), grants).unwrap());
        let queue = Queue::new(4206, Counting { batches, received: 0, sent: 0 });
        let queues = vec![HookQueue { hook: Hook::FilterInput, family: Family::V4, queue, counts: 0 }];
        let mut worker = Worker::new(0, queues, Arc::clone(&shared), |_| None);
        worker.serve_busy(0).unwrap();
        let channel = worker.queues[0].queue.channel();
        assert_eq!((channel.received, channel.sent), (expected, expected), "{batches} full batches");
        let counted = counters::sum(1, [(Hook::FilterInput, &shared.counts[0])]);
        assert_eq!(counted.hooks["filter-input"].batches, expected as u64);
    }
}

/// Ready for ever, with nothing but an error to give.
struct Broken(Socket);

impl AsFd for Broken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel for Broken {
    fn receive(&mut self, _: &mut Inbox) -> io::Result<Received> {
        Err(io::Error::other("the socket is broken"))
    }

    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        unreachable!("nothing is received")
    }
}

#[test]
fn a_broken_socket_ends_the_loop_and_is_told() {
    let (table, grants) = (Arc::new(Table::default()), vec![Grant::default()]);
    let shared = Arc::new(share(&CONFIG, table, Vec::new(), grants).unwrap());
    let (socket, kernel) = Socket::pair();
    kernel.send(b"x").unwrap();
    let queue = Queue::new(4206, Broken(socket));
    let queues = vec![HookQueue { hook: Hook::FilterInput, family: Family::V4, queue, counts: 0 }];
    spawn(Arc::clone(&shared), 0, queues).unwrap().join().unwrap();
    assert_eq!(shared.progress().failure.as_deref(), Some("the socket is broken"));
}
