//! How often each outcome of a table was met, and when last: rules are counted by it.
//!
//! Each worker has an array of its own, indexed by outcome id, and alone writes there; it is made with the table. When
//! no worker can be with a table any more its arrays are read a last time and handed over, so that nothing is lost
//! and nothing is counted twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::counters::Count;
use crate::flow::OutcomeId;
use crate::table::{Decision, Passing, Tally, Topic};

/// All words of one outcome, side by side: a hit touches one line of memory.
#[derive(Debug)]
#[repr(align(32))]
struct Hit {
    packets: Count,
    last: AtomicU64,
    told: Told,
    topic: Topic,
}

/// The second in which something was told last, and above that how often. One thread writes.
#[derive(Debug, Default)]
pub struct Told(AtomicU64);

/// Seconds until the year 36000 fit below.
const TOLD: u32 = 40;

impl Told {
    /// How often it was told in this second before; None: `rate` times, and not once more.
    pub fn tell(&self, now: u64, rate: u32) -> Option<u64> {
        let (second, before) = (now / 1000, self.0.load(Ordering::Relaxed));
        let often = if before & ((1 << TOLD) - 1) == second { before >> TOLD } else { 0 };
        if often >= u64::from(rate) {
            return None;
        }
        self.0.store((often + 1) << TOLD | second, Ordering::Relaxed);
        Some(often)
    }
}

/// The hits of one worker.
#[derive(Debug)]
pub struct WorkerHits(Box<[Hit]>);

impl WorkerHits {
    /// The packets of one batch.
    pub fn add_all(&self, decisions: &[Decision], passing: &Passing, now: u64) {
        let passed = passing.passed().iter().map(|passed| passed.outcome);
        for outcome in decisions.iter().map(|decision| decision.outcome).chain(passed) {
            self.add(outcome, now);
        }
    }

    /// When the topic of an outcome was told.
    pub fn told(&self, outcome: OutcomeId) -> &Told {
        let topic = self.0[outcome.index()].topic.id;
        &self.0[topic.index()].told
    }

    /// Whether packets that met it are told of, also those that pass.
    #[inline]
    pub fn logs(&self, outcome: OutcomeId) -> bool {
        self.0[outcome.index()].topic.logs
    }

    /// One more packet.
    fn add(&self, outcome: OutcomeId, now: u64) {
        let hit = &self.0[outcome.index()];
        hit.packets.add(1);
        hit.last.store(now, Ordering::Relaxed);
    }
}

/// The hits of all workers on a table, whatever the interfaces it was bound to.
#[derive(Debug)]
pub struct Hits {
    /// Number of the table that they began with.
    pub generation: u64,
    workers: Box<[WorkerHits]>,
}

impl Hits {
    /// `topics` are those of all outcomes, by id.
    pub fn new(generation: u64, workers: usize, topics: &[Topic]) -> Arc<Self> {
        let hit = |&topic: &Topic| {
            let (packets, last, told) = <(Count, AtomicU64, Told)>::default();
            Hit { packets, last, told, topic }
        };
        let worker = |_| WorkerHits(topics.iter().map(hit).collect());
        Arc::new(Self { generation, workers: (0..workers).map(worker).collect() })
    }

    pub fn worker(&self, number: usize) -> &WorkerHits {
        &self.workers[number]
    }

    /// As many as there are workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What was met at all.
    fn tallies(&self) -> Vec<(OutcomeId, Tally)> {
        let mut tallies = Vec::new();
        for outcome in 0..self.workers.first().map_or(0, |worker| worker.0.len()) {
            let mut sum = Tally::default();
            for WorkerHits(hits) in &self.workers {
                let Hit { packets, last, .. } = &hits[outcome];
                sum.add(Tally { packets: packets.get(), last_hit: last.load(Ordering::Relaxed) });
            }
            if sum.packets > 0 {
                tallies.push((OutcomeId::new(outcome), sum));
            }
        }
        tallies
    }
}

/// What was met in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableHits<M> {
    /// Number of the table that was counted first with these outcome ids.
    pub generation: u64,
    /// No packet is answered by it any more: these are its last words.
    pub is_over: bool,
    /// What its outcome ids mean.
    pub meanings: M,
    /// By outcome id, in order.
    pub tallies: Vec<(OutcomeId, Tally)>,
}

/// Tables before the one in force whose meanings the flight recorder may ask for.
const REMEMBERED: usize = 4;

/// The tables before the one in force that a worker may still be with, or whose hits nobody has read since.
#[derive(Debug)]
pub struct Ledger<M> {
    kept: Vec<(M, Arc<Hits>)>,
    /// With the numbers that they began with, in order.
    remembered: VecDeque<(u64, M)>,
}

impl<M> Default for Ledger<M> {
    fn default() -> Self {
        Self { kept: Vec::new(), remembered: VecDeque::new() }
    }
}

impl<M: Clone> Ledger<M> {
    /// Keeps the hits of a table that is no longer in force.
    pub fn keep(&mut self, meanings: M, hits: Arc<Hits>) {
        self.kept.push((meanings, hits));
    }

    /// Notes what outcome ids of the table meant that began with this number, and is no longer in force.
    pub fn remember(&mut self, meanings: M, generation: u64) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((generation, meanings));
    }

    /// What they meant under this number, before the table in force; None: too long ago.
    pub fn remembered(&self, generation: u64) -> Option<M> {
        let found = self.remembered.iter().rfind(|(first, _)| *first <= generation);
        found.map(|(_, meanings)| meanings.clone())
    }

    /// Their hits now. Those of tables that nobody is with any more are given this once.
    pub fn read(&mut self) -> Vec<TableHits<M>> {
        let mut found = Vec::with_capacity(self.kept.len());
        self.kept.retain_mut(|(meanings, hits)| {
            // Sees everything that was written before the last of the others let go of it.
            let is_over = Arc::get_mut(hits).is_some();
            found.push(table_hits(meanings.clone(), hits, is_over));
            !is_over
        });
        found
    }
}

/// The hits of a table now.
pub fn table_hits<M>(meanings: M, hits: &Hits, is_over: bool) -> TableHits<M> {
    TableHits { generation: hits.generation, is_over, meanings, tallies: hits.tallies() }
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(outcomes: usize) -> Vec<Topic> {
        (0..outcomes).map(|id| Topic { id: OutcomeId::new(id), logs: false }).collect()
    }

    fn tally(packets: u64, last_hit: u64) -> Tally {
        Tally { packets, last_hit }
    }

    #[test]
    fn workers_are_summed() {
        let hits = Hits::new(1, 2, &topics(9));
        for (worker, outcome, now) in [(0, 3, 500), (0, 3, 700), (1, 3, 600), (1, 8, 400)] {
            hits.worker(worker).add(OutcomeId::new(outcome), now);
        }
        let expected = [(OutcomeId::new(3), tally(3, 700)), (OutcomeId::new(8), tally(1, 400))];
        assert_eq!(hits.tallies(), expected);
    }

    #[test]
    fn an_outcome_is_told_so_often_a_second() {
        let hits = Hits::new(1, 1, &topics(2));
        let (flood, rare) = (OutcomeId::new(0), OutcomeId::new(1));
        let told = |outcome, now| hits.worker(0).told(outcome).tell(now, 2).is_some();
        assert_eq!([1000, 1500, 1999].map(|now| told(flood, now)), [true, true, false]);
        assert!(told(rare, 1999));
        assert_eq!([2000, 2001, 2002].map(|now| told(flood, now)), [true, true, false]);
    }

    #[test]
    fn a_table_is_over_when_nobody_is_with_it() {
        let (hits, mut ledger) = (Hits::new(7, 1, &topics(4)), Ledger::default());
        ledger.keep("meanings", Arc::clone(&hits));
        hits.worker(0).add(OutcomeId::new(1), 5);
        let read = |ledger: &mut Ledger<_>| {
            let tables = ledger.read();
            tables
                .into_iter()
                .map(|table| (table.generation, table.is_over, table.tallies))
                .collect::<Vec<_>>()
        };
        assert_eq!(read(&mut ledger), [(7, false, vec![(OutcomeId::new(1), tally(1, 5))])]);
        // A worker that was slow.
        hits.worker(0).add(OutcomeId::new(1), 6);
        drop(hits);
        assert_eq!(read(&mut ledger), [(7, true, vec![(OutcomeId::new(1), tally(2, 6))])]);
        assert_eq!(read(&mut ledger), []);
    }
}
