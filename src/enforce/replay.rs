//! The packet loop on messages that were recorded: what tests and benchmarks drive without a kernel.

use std::io;
use std::sync::Arc;

use super::counters::{self, Counters};
use super::noted::Noted;
use super::worker::{HookQueue, Worker};
use super::{EnforcerConfig, check, queue_number, share};
use crate::flow::{Family, Hook};
use crate::nfqueue::{BATCH, Channel, Grant, Inbox, Queue, Received, interface_name};
use crate::table::DecisionTable;

/// One queue of the loop, fed from memory.
pub struct Replay {
    worker: Worker<Recording, DecisionTable>,
}

/// Says how many datagrams are in the inbox already.
struct Recording {
    count: usize,
    sent: Vec<u8>,
}

impl Channel for Recording {
    fn receive(&mut self, _: &mut Inbox) -> io::Result<Received> {
        Ok(Received::Datagrams(self.count))
    }

    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.sent.clear();
        self.sent.extend_from_slice(messages);
        Ok(())
    }
}

impl Replay {
    /// Of the first worker's queue of this hook and IP version.
    ///
    /// # Errors
    /// Where the configuration cannot be.
    pub fn new(
        config: &EnforcerConfig,
        table: Arc<DecisionTable>,
        interfaces: Vec<(u32, String)>,
        hook: Hook,
        family: Family,
    ) -> io::Result<Self> {
        check(config)?;
        let shared = share(config, table, interfaces, vec![Grant::default()])?;
        let queue = Queue::new(
            queue_number(config, hook, family, 0),
            Recording { count: 0, sent: Vec::with_capacity(BATCH * 128) },
        );
        let queues = vec![HookQueue { hook, family, queue, counts: 0 }];
        Ok(Self { worker: Worker::new(0, queues, Arc::new(shared), interface_name) })
    }

    /// Counts, tells and records nothing from now on: what that costs is seen beside one that does.
    #[must_use]
    pub fn without_counting(self) -> Self {
        self.worker.shared.noted.set(Noted::Nothing);
        self
    }

    /// Puts messages of the kernel where the loop finds them as one batch; 64 at most.
    pub fn load(&mut self, datagrams: &[Vec<u8>]) {
        self.worker.queues[0].queue.channel_mut().count = self.worker.inbox.fill(datagrams);
    }

    /// Takes the batch through the loop: read, decided, answered. What was sent to the kernel.
    pub fn step(&mut self) -> &[u8] {
        self.worker.serve(0).expect("memory does not fail");
        &self.worker.queues[0].queue.channel().sent
    }

    /// Takes the events that wait, as somebody does who follows them; how many there were.
    pub fn take_events(&self) -> usize {
        self.worker.shared.events.as_ref().map_or(0, |events| events.take(usize::MAX).len())
    }

    /// The counters of the hook.
    pub fn counters(&self) -> Counters {
        let [HookQueue { hook, counts, .. }] = &self.worker.queues[..] else { unreachable!("made with one") };
        counters::sum(1, [(*hook, &self.worker.shared.counts[*counts])])
    }
}
