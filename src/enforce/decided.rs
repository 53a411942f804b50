//! A batch behind its decisions: what of it is recorded, and what is told.

use std::sync::Arc;

use super::Decide;
use super::events::{Event, Events, Met, Staged};
use super::header::Header;
use super::hits::WorkerHits;
use super::recorder::{Batch, Recorder};
use super::shared::Generation;
use crate::flow::{FlowKey, Hook, OutcomeId, Verdict};
use crate::nfqueue::{Inbox, Place, Reply};
use crate::table::{Decision, Passing};

/// A packet that has been read.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub id: u32,
    pub mark: u32,
    /// ifindexes of in- and out-interface.
    pub interfaces: (u32, u32),
    /// Bytes of the whole packet.
    pub length: u32,
    /// What was copied of it.
    pub payload: Place,
    /// None: as the table says.
    pub reply: Option<Reply>,
}

/// A batch that has been decided.
pub struct Decided<'a, D> {
    pub worker: usize,
    pub generation: &'a Generation<D>,
    pub hook: Hook,
    pub hits: &'a WorkerHits,
    pub now: u64,
    /// Where the packets still are.
    pub inbox: &'a Inbox,
    pub waiting: &'a [Waiting],
    pub keys: &'a [FlowKey],
    pub decisions: &'a [Decision],
}

impl<D: Decide> Decided<'_, D> {
    /// The packets that the table was asked about, in the order of the decisions.
    fn asked(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|packet| packet.reply.is_none())
    }

    /// Keeps the denied ones in the flight recorder.
    pub fn record(&self, recorder: &Recorder) {
        let batch = Batch { time: self.now, generation: self.generation.number, hook: self.hook };
        for ((packet, decision), key) in self.asked().zip(self.decisions).zip(self.keys) {
            if decision.verdict == Verdict::Deny {
                let Waiting { interfaces, length, payload, .. } = *packet;
                let payload = self.inbox.at(payload);
                recorder.record(batch, decision.outcome, &key.tuple, interfaces, length, payload);
            }
        }
    }

    /// Tells what is to be told of it.
    pub fn tell(&self, events: &Events<D>, passing: &Passing) {
        for (place, decision) in self.decisions.iter().enumerate() {
            if decision.verdict == Verdict::Deny || self.hits.logs(decision.outcome) {
                self.tell_one(events, place, &self.met(decision.outcome, None));
            }
        }
        for passed in passing.passed() {
            if self.hits.logs(passed.outcome) {
                self.tell_one(events, passed.packet, &self.met(passed.outcome, Some(passed.step)));
            }
        }
    }

    /// Tells packets that pass, and would be denied if staged policies were in force.
    pub fn tell_staged(&self, events: &Events<D>, staged: &Staged<D>, second: &[Decision]) {
        for (place, (first, second)) in self.decisions.iter().zip(second).enumerate() {
            if second.verdict == Verdict::Deny && first.verdict != Verdict::Deny {
                let (table, hits) = (&staged.table, staged.hits.worker(self.worker));
                let met = Met { table, hits, outcome: second.outcome, step: None, staged: true };
                events.count_staged(self.worker);
                self.tell_one(events, place, &met);
            }
        }
    }

    fn met(&self, outcome: OutcomeId, step: Option<usize>) -> Met<'_, D> {
        Met { table: &self.generation.table, hits: self.hits, outcome, step, staged: false }
    }

    /// Most are not told: only of those that are the packet is looked for.
    fn tell_one(&self, events: &Events<D>, place: usize, met: &Met<'_, D>) {
        events.tell(self.worker, met, self.now, || {
            let packet = self.asked().nth(place).expect("each decision is of a packet that waits");
            Event {
                time: self.now,
                generation: self.generation.number,
                table: Arc::clone(met.table),
                key: self.keys[place],
                interfaces: packet.interfaces,
                header: Header::new(self.inbox.at(packet.payload), packet.length),
                verdict: self.decisions[place].verdict,
                outcome: met.outcome,
                step: met.step,
                is_orphan: false,
                staged: met.staged,
            }
        });
    }
}
