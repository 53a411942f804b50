//! The packet loop: one thread, all queues.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use super::counters::QueueCounts;
use super::{Decide, Generation, Protocol, Shared};
use crate::flow::{CtState, Family, FlowKey, Hook, InterfaceId, Verdict};
use crate::nfqueue::{Anomalies, Channel, Inbox, Poller, Queue, QueuedPacket, Reply};
use crate::wire;

/// A queue and what its number means. The kernel's message does not tell raw from mangle PREROUTING.
#[derive(Debug)]
pub struct HookQueue<C> {
    pub hook: Hook,
    pub family: Family,
    pub queue: Queue<C>,
}

/// The loop and all that it alone touches.
pub struct Worker<C, D> {
    pub queues: Vec<HookQueue<C>>,
    pub shared: Arc<Shared<D>>,
    /// Where the kernel's name for an interface comes from.
    pub interface_name: fn(u32) -> Option<String>,
    pub inbox: Inbox,
    pub learned: Learned,
}

/// Interfaces that the generation does not list, by ifindex, as first met in it.
#[derive(Debug, Default)]
pub struct Learned {
    generation: u64,
    ids: FxHashMap<u32, InterfaceId>,
}

/// The latest request to hear when every queue has been found empty once.
#[derive(Default)]
pub struct Drain {
    /// Its number; 0: there has been none.
    pub ticket: u64,
    /// One bit for each queue that has not yet been empty; 0: the request is answered.
    waiting: u32,
}

impl<C: Channel + AsFd, D: Decide> Worker<C, D> {
    /// Answers packets until it is told to stop.
    ///
    /// # Errors
    /// Where waiting or a socket fails for good.
    pub fn run(&mut self) -> io::Result<()> {
        let sockets = self.queues.iter().map(|at| at.queue.channel().as_fd());
        let mut poller = Poller::new(sockets.chain([self.shared.wake.as_fd()]));
        let wake_place = self.queues.len();
        let mut drain = Drain::default();
        loop {
            drain.take_up(self.shared.drain_wanted.load(Ordering::Acquire), self.queues.len());
            poller.wait(drain.waiting == 0)?;
            if poller.is_ready(wake_place) {
                self.shared.wake.clear();
            }
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            for place in 0..self.queues.len() {
                if poller.is_ready(place) {
                    self.serve(place)?;
                } else if drain.ends_with(place) {
                    self.shared.report_drained(drain.ticket);
                }
            }
        }
    }
}

impl<C: Channel, D: Decide> Worker<C, D> {
    /// Answers one batch of one queue.
    pub fn serve(&mut self, place: usize) -> io::Result<()> {
        let HookQueue { hook, family, queue } = &mut self.queues[place];
        let counts = &self.shared.counts[place];
        let mut anomalies = Anomalies::default();
        let count = queue.receive(&mut self.inbox, &mut anomalies)?;
        if count > 0 {
            counts.batches.add(1);
            // Loaded behind the receive: packets that new rules led here meet the table that came before them.
            let generation = self.shared.generation.load();
            self.learned.forget_others(generation.number);
            let mut judge = Judge {
                hook: *hook,
                family: *family,
                protocol: self.shared.protocol(),
                malformed_accept: self.shared.malformed_accept,
                null: self.shared.null,
                may_repeat: self.shared.may_repeat(*hook),
                generation: &generation,
                learned: &mut self.learned,
                interface_name: self.interface_name,
                counts,
            };
            queue.answer(&self.inbox, count, &mut anomalies, |packet| judge.reply(packet));
        }
        counts.add_anomalies(anomalies);
        Ok(())
    }
}

impl Drain {
    /// A newer request takes the place of an older one, and answers it too.
    pub fn take_up(&mut self, wanted: u64, queues: usize) {
        if wanted != self.ticket {
            *self = Self { ticket: wanted, waiting: (1 << queues) - 1 };
        }
    }

    /// Notes that the queue at this place is empty; true if it was the last to wait for.
    pub fn ends_with(&mut self, place: usize) -> bool {
        let before = self.waiting;
        self.waiting &= !(1 << place);
        before != 0 && self.waiting == 0
    }
}

impl Learned {
    fn forget_others(&mut self, generation: u64) {
        if self.generation != generation {
            self.ids.clear();
            self.generation = generation;
        }
    }
}

/// Everything that answering a packet of one queue needs.
struct Judge<'a, D> {
    hook: Hook,
    family: Family,
    protocol: Protocol,
    malformed_accept: bool,
    null: Option<Verdict>,
    may_repeat: bool,
    generation: &'a Generation<D>,
    learned: &'a mut Learned,
    interface_name: fn(u32) -> Option<String>,
    counts: &'a QueueCounts,
}

impl<D: Decide> Judge<'_, D> {
    fn reply(&mut self, packet: &QueuedPacket) -> Reply {
        self.counts.packets.add(1);
        let marks = self.protocol.marks;
        // Where packets do not repeat, none goes round, and D is not ours.
        if self.may_repeat && packet.mark & marks.decided != 0 {
            self.counts.loop_guard.add(1);
            return self.protocol.stop_loop(packet.mark);
        }
        if let Some(verdict) = self.null {
            self.counts.add_verdict(verdict);
            let accepted = matches!(verdict, Verdict::AllowNotrack | Verdict::AllowSkipHep)
                || verdict == Verdict::Allow && self.hook == Hook::FilterForward;
            return self.protocol.reply(self.hook, verdict, accepted, self.may_repeat, packet.mark);
        }
        let tuple = match wire::parse(self.family, packet.payload, packet.length as usize) {
            Ok(tuple) => tuple,
            Err(kind) => return self.malformed(kind, packet.mark),
        };
        let (Some(input), Some(output)) = (self.interface(packet.input), self.interface(packet.output))
        else {
            self.counts.unknown_interface.add(1);
            return Reply::DROP;
        };
        let decision = self.generation.table.decide(&FlowKey {
            tuple,
            hook: self.hook,
            input,
            output,
            accepted: packet.mark & marks.accept != 0,
            // Kernel rules settle every other state ahead of the queue; untracked packets are judged as new ones.
            ct: CtState::New,
            // Kernel rules lead only DNATed flows here (E-37).
            dnatted: self.hook == Hook::ManglePostrouting,
        });
        self.counts.add_verdict(decision.verdict);
        if decision.verdict == Verdict::AllowNotrack && !self.may_repeat {
            self.counts.notrack_refused.add(1);
        }
        self.protocol.reply(self.hook, decision.verdict, decision.accepted, self.may_repeat, packet.mark)
    }

    fn malformed(&self, kind: wire::WireError, arrival: u32) -> Reply {
        self.counts.add_malformed(kind);
        if self.malformed_accept {
            self.protocol.pass_unread(self.hook, self.may_repeat, arrival)
        } else {
            Reply::DROP
        }
    }

    /// None where the interface is gone.
    fn interface(&mut self, index: u32) -> Option<InterfaceId> {
        if index == 0 {
            return Some(InterfaceId::NONE);
        }
        let listed = self.generation.interfaces.get(&index).or_else(|| self.learned.ids.get(&index));
        listed.copied().or_else(|| self.learn(index))
    }

    /// Off the fast path: once per interface and generation.
    #[cold]
    fn learn(&mut self, index: u32) -> Option<InterfaceId> {
        let id = self.generation.table.interface(&(self.interface_name)(index)?);
        self.learned.ids.insert(index, id);
        Some(id)
    }
}
