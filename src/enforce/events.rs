//! What somebody wants to see of packets as they are answered: denials, and the Log rules that packets met.
//!
//! Each rule (each outcome id) is told so many times a second by each worker, and each policy so many times, so that a
//! flood of one hides no other; the rest is counted. Nothing is allocated, and nobody is waited for: what nobody takes
//! in time is forgotten, and counted.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::Decide;
use super::counters::Count;
use super::header::Header;
use super::hits::{Hits, Told, WorkerHits};
use crate::flow::{FlowKey, OutcomeId, Verdict};

/// Events that wait to be taken.
const ROOM: usize = 4096;
/// Policies that are told apart, by a hash of their names: two that fall together share what may be told of one.
const POLICIES: usize = 4096;
/// Events of a second, of all workers: whoever takes them looks at all rules of a chain for each, a quarter of a
/// millisecond for 10,000 rules.
pub const MOST_TOLD: u32 = 400;

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
    /// ifindexes of in- and out-interface; 0: none.
    pub interfaces: (u32, u32),
    /// Its beginning.
    pub header: Header,
    /// The hook's answer.
    pub verdict: Verdict,
    /// What decided, or a chain that let the packet through behind a Log rule, or that rule.
    pub outcome: OutcomeId,
    /// Of which step of the evaluation that is, counted from 0; None: of the one that decided.
    pub step: Option<usize>,
    /// An interface of the packet is gone: it was denied, and no table was asked. `key` has no interfaces.
    pub is_orphan: bool,
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

/// Events that nobody will see, and how many packets staged policies would deny.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Untold {
    /// Too many of one rule or of one policy within a second.
    pub limited: u64,
    /// Nobody took them in time.
    pub lost: u64,
    /// All packets that only staged policies would deny, told or not.
    pub staged_denials: u64,
}

/// How often events are told each second by each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of one rule; 0: no events at all.
    pub rule: u32,
    /// Of one policy; but each of its rules once. In all there are [`MOST_TOLD`].
    pub policy: u32,
}

/// What one worker has told.
#[derive(Debug)]
struct Telling {
    limited: Count,
    lost: Count,
    /// Packets that only staged policies would deny, told or not.
    staged: Count,
    /// By the hash of the policy.
    policies: Box<[Told]>,
    /// Packets of interfaces that are gone.
    orphans: Told,
    all: Told,
}

impl Telling {
    fn new() -> Self {
        let policies = (0..POLICIES).map(|_| Told::default()).collect();
        let [limited, lost, staged] = [(); 3].map(|()| Count::default());
        Self { limited, lost, staged, policies, orphans: Told::default(), all: Told::default() }
    }
}

/// Where events go and are taken from.
#[derive(Debug)]
pub struct Events<D> {
    rates: Rates,
    /// Of [`MOST_TOLD`], for each worker.
    share: u32,
    sender: SyncSender<Event<D>>,
    receiver: Mutex<Receiver<Event<D>>>,
    workers: Vec<Telling>,
}

impl<D: Decide> Events<D> {
    /// None where nothing is told.
    pub fn new(rates: Rates, workers: usize) -> Option<Self> {
        let (sender, receiver) = sync_channel(ROOM);
        let share = (MOST_TOLD / u32::try_from(workers).unwrap_or(MOST_TOLD).max(1)).max(1);
        let workers = (0..workers).map(|_| Telling::new()).collect();
        (rates.rule > 0).then(|| Self { rates, share, sender, receiver: Mutex::new(receiver), workers })
    }

    /// Tells that a packet met this, unless that was told too often; the event is made only then.
    pub fn tell(&self, worker: usize, met: &Met<'_, D>, now: u64, event: impl FnOnce() -> Event<D>) {
        let telling = &self.workers[worker];
        if !self.may_tell(worker, met, now) {
            telling.limited.add(1);
        } else if self.sender.try_send(event()).is_err() {
            telling.lost.add(1);
        }
    }

    /// One more packet that only staged policies would deny, told or not.
    pub fn count_staged(&self, worker: usize) {
        self.workers[worker].staged.add(1);
    }

    /// Whether one more may be told. What all rules have in common is looked at last: seldom.
    fn may_tell(&self, worker: usize, met: &Met<'_, D>, now: u64) -> bool {
        self.is_wanted(worker, met, now) && self.has_room(worker, now)
    }

    fn has_room(&self, worker: usize, now: u64) -> bool {
        self.workers[worker].all.tell(now, self.share).is_some()
    }

    /// Tells a packet of an interface that is gone.
    pub fn tell_orphan(&self, worker: usize, event: impl FnOnce() -> Event<D>) {
        let (telling, now) = (&self.workers[worker], super::hits::now());
        if telling.orphans.tell(now, self.rates.rule).is_none() || !self.has_room(worker, now) {
            telling.limited.add(1);
        } else if self.sender.try_send(event()).is_err() {
            telling.lost.add(1);
        }
    }

    /// Whether its rule may be told once more, and its policy; that is not asked for the first of a rule.
    fn is_wanted(&self, worker: usize, met: &Met<'_, D>, now: u64) -> bool {
        match met.hits.told(met.outcome).tell(now, self.rates.rule) {
            None => false,
            Some(often) => {
                #[allow(clippy::cast_possible_truncation)] // Any bits of a hash do.
                let policy = met.table.policy_hash(met.outcome) as usize % POLICIES;
                let may = self.workers[worker].policies[policy].tell(now, self.rates.policy).is_some();
                may || often == 0
            }
        }
    }

    /// Those that wait, `most` at most.
    pub fn take(&self, most: usize) -> Vec<Event<D>> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.try_iter().take(most).collect()
    }

    pub fn untold(&self) -> Untold {
        let sum = |count: fn(&Telling) -> &Count| self.workers.iter().map(|one| count(one).get()).sum();
        Untold {
            limited: sum(|one| &one.limited),
            lost: sum(|one| &one.lost),
            staged_denials: sum(|one| &one.staged),
        }
    }
}

/// What is to be told of one packet.
pub struct Met<'a, D> {
    pub table: &'a Arc<D>,
    pub hits: &'a WorkerHits,
    pub outcome: OutcomeId,
    pub step: Option<usize>,
    pub staged: bool,
}

#[cfg(test)]
mod tests {
    use super::super::tests::Table;
    use super::*;
    use crate::table::Topic;

    #[test]
    fn a_policy_is_told_so_often_and_each_rule_of_it_once() {
        let (rates, table) = (Rates { rule: 3, policy: 4 }, Arc::new(Table::default()));
        assert!(Events::<Table>::new(Rates { rule: 0, ..rates }, 1).is_none());
        let (events, hits) = (Events::new(rates, 1).unwrap(), Hits::new(1, 1, &Table::default().topics()));
        let told = |outcome, now| {
            let (table, hits, outcome) = (&table, hits.worker(0), OutcomeId::new(outcome));
            events.may_tell(0, &Met { table, hits, outcome, step: None, staged: false }, now)
        };
        // All outcomes of this table are of one policy.
        assert_eq!([1; 5].map(|outcome| told(outcome, 1000)), [true, true, true, false, false]);
        assert_eq!([2; 3].map(|outcome| told(outcome, 1500)), [true, false, false]);
        assert_eq!([3; 2].map(|outcome| told(outcome, 1999)), [true, false]);
        assert_eq!([2; 4].map(|outcome| told(outcome, 2000)), [true, true, true, false]);
    }

    #[test]
    fn a_second_has_so_many_events_in_all() {
        let rules = 2 * MOST_TOLD as usize;
        let topics: Vec<_> = (0..rules).map(|id| Topic { id: OutcomeId::new(id), logs: false }).collect();
        let (table, rates) = (Arc::new(Table::default()), Rates { rule: 1, policy: 1 });
        for workers in [1, 4] {
            let (events, hits) = (Events::new(rates, workers).unwrap(), Hits::new(1, workers, &topics));
            let told = |worker, now| {
                let met = |outcome| Met {
                    table: &table,
                    hits: hits.worker(worker),
                    outcome,
                    step: None,
                    staged: false,
                };
                let may = |&outcome: &usize| events.may_tell(worker, &met(OutcomeId::new(outcome)), now);
                (0..rules).filter(may).count()
            };
            for second in [1000, 2000] {
                let all: usize = (0..workers).map(|worker| told(worker, second)).sum();
                assert_eq!(all, MOST_TOLD as usize);
            }
        }
    }
}
