//! What somebody wants to see of packets as they are answered: denials, and the Log rules that packets met.
//!
//! Each rule (each outcome id) is told so many times a second by each worker, so that a flood of one hides no other; the
//! rest is counted. Nothing is allocated, and nobody is waited for: what nobody takes in time is forgotten, and counted.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::counters::Count;
use super::hits::{Hits, WorkerHits};
use super::{Decide, Generation};
use crate::flow::{FlowKey, OutcomeId, Verdict};
use crate::nfqueue::QueuedPacket;
use crate::table::{Decision, Passing};

/// Events that wait to be taken.
const ROOM: usize = 4096;
/// Of a packet: both headers with the options that are usual.
const HEADER_BYTES: usize = 128;

/// The beginning of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; HEADER_BYTES],
    copied: usize,
    /// Bytes of the whole packet.
    pub length: u32,
}

impl Header {
    const EMPTY: Self = Self { bytes: [0; HEADER_BYTES], copied: 0, length: 0 };

    /// In place: most packets are not told, and what is behind a short one is not read.
    fn set(&mut self, packet: &QueuedPacket) {
        self.copied = packet.payload.len().min(HEADER_BYTES);
        self.bytes[..self.copied].copy_from_slice(&packet.payload[..self.copied]);
        self.length = packet.length;
    }

    /// What is kept of the packet, from its IP header on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.copied]
    }
}

/// Where a packet that waits for its answer is from.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// ifindexes of in- and out-interface; 0: none.
    pub interfaces: (u32, u32),
    /// Its beginning.
    pub header: Header,
}

impl Arrival {
    pub(super) const NONE: Self = Self { interfaces: (0, 0), header: Header::EMPTY };

    pub(super) fn set(&mut self, packet: &QueuedPacket) {
        self.interfaces = (packet.input, packet.output);
        self.header.set(packet);
    }
}

/// One packet that met something to be told.
#[derive(Clone, Debug)]
pub struct Event<D> {
    /// Milliseconds since 1970.
    pub time: u64,
    /// Number of the table that answered.
    pub generation: u64,
    /// That table.
    pub table: Arc<D>,
    /// The question; its interfaces are those of the table.
    pub key: FlowKey,
    /// As it came.
    pub arrival: Arrival,
    /// The hook's answer.
    pub verdict: Verdict,
    /// What decided, or a chain that let the packet through behind a Log rule.
    pub outcome: OutcomeId,
    /// `outcome` is what decided.
    pub decided: bool,
    /// Not so: `table` has staged policies in force too, and would deny by `outcome`.
    pub staged: bool,
}

/// The table in force, with staged policies in force too.
#[derive(Debug)]
pub struct Staged<D> {
    /// Number of the table beside which it is asked.
    pub generation: u64,
    pub table: Arc<D>,
    /// Of packets that only it denies.
    pub hits: Arc<Hits>,
}

/// Events that nobody will see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Untold {
    /// Too many of one rule within a second.
    pub limited: u64,
    /// Nobody took them in time.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct UntoldCounts {
    limited: Count,
    lost: Count,
}

/// Where events go and are taken from.
#[derive(Debug)]
pub struct Events<D> {
    /// Of one rule, each second and worker.
    rate: u32,
    sender: SyncSender<Event<D>>,
    receiver: Mutex<Receiver<Event<D>>>,
    /// By worker.
    untold: Vec<UntoldCounts>,
}

impl<D: Decide> Events<D> {
    /// None for a rate of 0.
    pub fn new(rate: u32, workers: usize) -> Option<Self> {
        let (sender, receiver) = sync_channel(ROOM);
        let untold = (0..workers).map(|_| UntoldCounts::default()).collect();
        (rate > 0).then(|| Self { rate, sender, receiver: Mutex::new(receiver), untold })
    }

    /// Those that wait, `most` at most.
    pub fn take(&self, most: usize) -> Vec<Event<D>> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.try_iter().take(most).collect()
    }

    pub fn untold(&self) -> Untold {
        let sum = |count: fn(&UntoldCounts) -> &Count| self.untold.iter().map(|one| count(one).get()).sum();
        Untold { limited: sum(|one| &one.limited), lost: sum(|one| &one.lost) }
    }
}

/// A batch that has been decided.
pub struct Decided<'a, D> {
    pub worker: usize,
    pub generation: &'a Generation<D>,
    pub hits: &'a WorkerHits,
    pub now: u64,
    /// One for each decision at least, as the keys are.
    pub arrivals: &'a [Arrival],
    pub keys: &'a [FlowKey],
    pub decisions: &'a [Decision],
}

/// What is to be told of one packet.
struct Met<'a, D> {
    table: &'a Arc<D>,
    hits: &'a WorkerHits,
    outcome: OutcomeId,
    decided: bool,
    staged: bool,
}

impl<D: Decide> Decided<'_, D> {
    /// Tells what is to be told of it.
    pub fn tell(&self, events: &Events<D>, passing: &Passing) {
        let first_logged = self.generation.first_logged;
        for (place, decision) in self.decisions.iter().enumerate() {
            if decision.verdict == Verdict::Deny || decision.outcome.number() >= first_logged {
                self.tell_one(events, place, &self.met(decision.outcome, true));
            }
        }
        for passed in passing.passed() {
            if passed.outcome.number() >= first_logged {
                self.tell_one(events, passed.packet, &self.met(passed.outcome, false));
            }
        }
    }

    /// Tells packets that pass, and would be denied if staged policies were in force.
    pub fn tell_staged(&self, events: &Events<D>, staged: &Staged<D>, second: &[Decision]) {
        for (place, (first, second)) in self.decisions.iter().zip(second).enumerate() {
            if second.verdict == Verdict::Deny && first.verdict != Verdict::Deny {
                let (table, hits) = (&staged.table, staged.hits.worker(self.worker));
                let met = Met { table, hits, outcome: second.outcome, decided: true, staged: true };
                self.tell_one(events, place, &met);
            }
        }
    }

    fn met(&self, outcome: OutcomeId, decided: bool) -> Met<'_, D> {
        Met { table: &self.generation.table, hits: self.hits, outcome, decided, staged: false }
    }

    fn tell_one(&self, events: &Events<D>, place: usize, met: &Met<'_, D>) {
        let Met { table, hits, outcome, decided, staged } = *met;
        let untold = &events.untold[self.worker];
        if !hits.may_tell(outcome, self.now, events.rate) {
            untold.limited.add(1);
            return;
        }
        let event = Event {
            time: self.now,
            generation: self.generation.number,
            table: Arc::clone(table),
            key: self.keys[place],
            arrival: self.arrivals[place],
            verdict: self.decisions[place].verdict,
            outcome,
            decided,
            staged,
        };
        if events.sender.try_send(event).is_err() {
            untold.lost.add(1);
        }
    }
}
