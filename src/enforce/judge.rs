//! From queued packets to replies, a batch at a time: all are read first, then the table answers them together, so
//! that their loads wait for memory at the same time.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::counters::QueueCounts;
use super::decided::{Decided, Waiting};
use super::events::{Event, Events, Staged};
use super::header::Header;
use super::hits::{self, WorkerHits};
use super::recorder::Recorder;
use super::samples::{Sample, Sampler, Sampling};
use super::{Decide, Generation, Protocol};
use crate::flow::{CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, OutcomeId, Verdict};
use crate::nfqueue::{self, BATCH, Inbox, QueuedPacket, Reply};
use crate::table::{Decision, Passing};
use crate::wire;

/// Interfaces that the generation does not list, by ifindex, as first met in it.
#[derive(Debug, Default)]
pub struct Learned {
    generation: u64,
    ids: FxHashMap<u32, InterfaceId>,
}

impl Learned {
    pub fn forget_others(&mut self, generation: u64) {
        if self.generation != generation {
            self.ids.clear();
            self.generation = generation;
        }
    }
}

/// Room for one batch, used again and again.
#[derive(Debug)]
pub struct Scratch {
    waiting: Vec<Waiting>,
    /// Of those that wait without a reply, in their order.
    keys: Vec<FlowKey>,
    decisions: Vec<Decision>,
    passing: Passing,
    /// As staged policies would have it, and what was passed then.
    staged: (Vec<Decision>, Passing),
    sampler: Option<Sampler>,
}

impl Scratch {
    /// As large as it ever gets.
    pub fn new(sampling: Option<&Sampling>) -> Self {
        Self {
            waiting: Vec::with_capacity(BATCH),
            keys: Vec::with_capacity(BATCH),
            decisions: Vec::with_capacity(BATCH),
            passing: Passing::with_capacity(BATCH),
            staged: (Vec::with_capacity(BATCH), Passing::with_capacity(BATCH)),
            sampler: sampling.map(Sampling::sampler),
        }
    }
}

/// Everything that answering the packets of one queue needs.
pub struct Judge<'a, D> {
    pub hook: Hook,
    pub family: Family,
    pub protocol: Protocol,
    pub malformed_accept: bool,
    pub null: Option<Verdict>,
    pub may_repeat: bool,
    pub generation: &'a Generation<D>,
    pub learned: &'a mut Learned,
    pub interface_name: fn(u32) -> Option<String>,
    pub counts: &'a QueueCounts,
    pub hits: &'a WorkerHits,
    /// What is met is counted, and told and recorded where that is wanted.
    pub is_counting: bool,
    pub worker: usize,
    pub events: Option<&'a Events<D>>,
    pub staged: Option<&'a Staged<D>>,
    pub recorder: Option<&'a Recorder>,
    /// What the packets were read from.
    pub inbox: &'a Inbox,
    pub scratch: &'a mut Scratch,
}

impl<D: Decide> nfqueue::Judge for Judge<'_, D> {
    fn read(&mut self, packet: &QueuedPacket) {
        let reply = match self.question(packet) {
            Ok(key) => {
                self.scratch.keys.push(key);
                None
            }
            Err(reply) => Some(reply),
        };
        let QueuedPacket { id, mark, input, output, length, payload } = *packet;
        let (interfaces, payload) = ((input, output), self.inbox.place(payload));
        self.scratch.waiting.push(Waiting { id, mark, interfaces, length, payload, reply });
    }

    fn answer(&mut self, mut reply: impl FnMut(u32, Reply)) {
        self.decide();
        let Scratch { waiting, keys, decisions, sampler, .. } = &mut *self.scratch;
        self.counts.packets.add(waiting.len() as u64);
        let mut verdicts = [0; Verdict::ALL.len()];
        let mut decided = decisions.iter().zip(&*keys);
        for packet in &*waiting {
            let Some(settled) = packet.reply else {
                let (&decision, key) = decided.next().expect("the table answers every question");
                verdicts[decision.verdict as usize] += 1;
                if let Some(sampler) = sampler {
                    sampler.see(|| Sample::of(self.generation.number, key, packet.interfaces, decision));
                }
                reply(
                    packet.id,
                    self.protocol.reply(
                        self.hook,
                        decision.verdict,
                        decision.accepted,
                        self.may_repeat,
                        packet.mark,
                    ),
                );
                continue;
            };
            reply(packet.id, settled);
        }
        waiting.clear();
        keys.clear();
        self.counts.add_verdicts(verdicts);
        if !self.may_repeat {
            self.counts.notrack_refused.add(verdicts[Verdict::AllowNotrack as usize]);
        }
    }
}

impl<D: Decide> Judge<'_, D> {
    /// Asks the table about all that wait for it; counts what was met, tells it and records it.
    fn decide(&mut self) {
        let Scratch { waiting, keys, decisions, passing, staged: (second, ignored), .. } = &mut *self.scratch;
        self.generation.table.decide_packets(keys, decisions, passing);
        if !self.is_counting {
            return;
        }
        let Self { worker, generation, hook, hits, inbox, .. } = *self;
        let now = hits::now();
        hits.add_all(decisions, passing, now);
        let decided = Decided { worker, generation, hook, hits, now, inbox, waiting, keys, decisions };
        if let Some(recorder) = self.recorder {
            decided.record(recorder);
        }
        let Some(events) = self.events else { return };
        decided.tell(events, passing);
        if let Some(staged) = self.staged {
            staged.table.decide_packets(keys, second, ignored);
            decided.tell_staged(events, staged, second);
        }
    }

    /// What the table is to be asked, or a reply that does not need it.
    fn question(&mut self, packet: &QueuedPacket) -> Result<FlowKey, Reply> {
        let marks = self.protocol.marks;
        // Where packets do not repeat, none goes round, and D is not ours.
        if self.may_repeat && packet.mark & marks.decided != 0 {
            self.counts.loop_guard.add(1);
            return Err(self.protocol.stop_loop(packet.mark));
        }
        if let Some(verdict) = self.null {
            return Err(self.blind(verdict, packet.mark));
        }
        let tuple = wire::parse(self.family, packet.payload, packet.length as usize)
            .map_err(|kind| self.malformed(kind, packet.mark))?;
        let (Some(input), Some(output)) = (self.interface(packet.input), self.interface(packet.output))
        else {
            self.counts.unknown_interface.add(1);
            self.tell_orphan(tuple, packet);
            return Err(Reply::DROP);
        };
        Ok(FlowKey {
            tuple,
            hook: self.hook,
            input,
            output,
            accepted: packet.mark & marks.accept != 0,
            // Kernel rules settle every other state ahead of the queue; untracked packets are judged as new ones.
            ct: CtState::New,
            // Kernel rules lead only DNATed flows here (E-37).
            dnatted: self.hook == Hook::ManglePostrouting,
        })
    }

    /// Denied, and no table is asked.
    #[cold]
    fn tell_orphan(&self, tuple: FiveTuple, packet: &QueuedPacket) {
        let Some(events) = self.events.filter(|_| self.is_counting) else { return };
        let (input, output) = (InterfaceId::NONE, InterfaceId::NONE);
        let (accepted, dnatted) = (false, false);
        let key = FlowKey { tuple, hook: self.hook, input, output, accepted, ct: CtState::New, dnatted };
        events.tell_orphan(self.worker, || Event {
            time: hits::now(),
            generation: self.generation.number,
            table: Arc::clone(&self.generation.table),
            key,
            interfaces: (packet.input, packet.output),
            header: Header::new(packet.payload, packet.length),
            verdict: Verdict::Deny,
            outcome: OutcomeId::new(0),
            step: None,
            is_orphan: true,
            staged: false,
        });
    }

    /// What a table would have answered that gave this verdict.
    fn blind(&self, verdict: Verdict, arrival: u32) -> Reply {
        self.counts.add_verdict(verdict);
        let accepted = match verdict {
            Verdict::AllowNotrack | Verdict::AllowSkipHep => true,
            Verdict::Allow => self.hook == Hook::FilterForward,
            Verdict::Deny | Verdict::Continue => false,
        };
        self.protocol.reply(self.hook, verdict, accepted, self.may_repeat, arrival)
    }

    fn malformed(&self, kind: wire::WireError, arrival: u32) -> Reply {
        self.counts.add_malformed(kind);
        if self.malformed_accept && !kind.may_be_sound() {
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
