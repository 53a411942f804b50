//! Denied packets among allowed ones: each has its own verdict, and the kernel few messages.

use std::io;
use std::sync::Arc;

use super::{CONFIG, D, R, Table, packet, queue_number, udp};
use crate::enforce::worker::{HookQueue, Worker};
use crate::enforce::{EnforcerConfig, counters, share};
use crate::flow::{Family, Hook};
use crate::nfqueue::fake_kernel::Waiting;
use crate::nfqueue::{Channel, Grant, Inbox, Queue, Received};

const HOOK: Hook = Hook::FilterInput;

/// Has one batch, and lets go what is answered.
struct Once {
    batch: Vec<Vec<u8>>,
    kernel: Waiting,
}

impl Channel for Once {
    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<Received> {
        Ok(Received::Datagrams(inbox.fill(&std::mem::take(&mut self.batch))))
    }

    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.kernel.take(messages);
        Ok(())
    }
}

/// What came of packets with these ports, from id 1 on: 1 is denied, 2 allowed, 0 no IPv4 at all.
fn answered(config: &EnforcerConfig, ports: &[u8]) -> Waiting {
    let (table, grants) = (Arc::new(Table::default()), vec![Grant::default()]);
    let shared = Arc::new(share(config, table, Vec::new(), grants).unwrap());
    let payload = |port: u8| if port == 0 { vec![0x60; 40] } else { udp(port).to_vec() };
    let batch = (1..).zip(ports).map(|(id, &port)| packet(id, 0, (0, 0), &payload(port)));
    let ids = (1..).take(ports.len()).collect();
    let channel = Once { batch: batch.collect(), kernel: Waiting { ids, ..Waiting::default() } };
    let queue = Queue::new(queue_number(config, HOOK, Family::V4, 0), channel);
    let queues = vec![HookQueue { hook: HOOK, family: Family::V4, queue, counts: 0 }];
    let mut worker = Worker::new(0, queues, Arc::clone(&shared), |_| None);
    worker.serve_busy(0).unwrap();
    let counted = counters::sum(1, [(HOOK, &shared.counts[0])]);
    let denied = ports.iter().map(|&port| u64::from(port == 1)).sum::<u64>();
    assert_eq!(counted.hooks[HOOK.name()].verdicts["deny"], denied);
    assert_eq!(counted.hooks[HOOK.name()].packets, ports.len() as u64);
    std::mem::take(&mut worker.queues[0].queue.channel_mut().kernel)
}

#[test]
fn one_batch_verdict_is_for_all_that_passes() {
    let found = answered(&CONFIG, &[2, 1, 2, 0, 2, 1, 2]);
    let (dropped, passed) = ([2, 4, 6].map(|id| (id, 0, None)), [1, 3, 5, 7].map(|id| (id, 1, None)));
    assert_eq!(found.answered, [&dropped[..], &passed[..]].concat());
    assert_eq!((found.messages, found.ids), (4, vec![]));
}

#[test]
fn a_whole_batch_of_both_in_turn_is_half_as_many_messages() {
    let ports: Vec<_> = [2, 1].into_iter().cycle().take(64).collect();
    assert_eq!(answered(&CONFIG, &ports).messages, 33, "the last drop is behind all that passes");
}

/// It gets an answer, and so has a place among those that pass.
#[test]
fn what_is_rejected_keeps_its_order() {
    let config = EnforcerConfig { filter_reject: true, ..CONFIG };
    let found = answered(&config, &[2, 1, 2]);
    assert_eq!(found.answered, [(1, 1, None), (2, 4, Some(D | R)), (3, 1, None)]);
}
