//! What the workers have in common with each other and with whoever asks the enforcer: the table in force, counters, the
//! end.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustc_hash::FxHashMap;

use super::config::EnforcerConfig;
use super::counters::{QueueCounts, Turns};
use super::events::{Events, Staged};
use super::hits::{self, Hits, Ledger, TableHits};
use super::marks::{Marks, Protocol};
use super::recorder::{Recorded, Recorder};
use super::samples::Sampling;
use super::{Decide, noted};
use crate::flow::{Hook, InterfaceId, Verdict};
use crate::nfqueue::{Grant, Wake, thread_id};

/// One table and the interfaces of the host as they were when it came into force.
pub struct Generation<D> {
    pub number: u64,
    pub table: Arc<D>,
    pub interfaces: FxHashMap<u32, InterfaceId>,
    pub hits: Arc<Hits>,
}

impl<D: Decide> Generation<D> {
    pub fn first(workers: usize, table: Arc<D>, interfaces: Vec<(u32, String)>) -> Self {
        let hits = Hits::new(1, workers, &table.topics());
        Self::new(1, table, interfaces, hits)
    }

    /// The same program on other interfaces is counted on.
    pub fn after(before: &Self, number: u64, table: Arc<D>, interfaces: Vec<(u32, String)>) -> Self {
        let hits = if table.counts_as(&before.table) {
            Arc::clone(&before.hits)
        } else {
            Hits::new(number, before.hits.workers(), &table.topics())
        };
        Self::new(number, table, interfaces, hits)
    }

    fn new(number: u64, table: Arc<D>, interfaces: Vec<(u32, String)>, hits: Arc<Hits>) -> Self {
        let id = |(index, name): (u32, String)| (index, table.interface(&name));
        let interfaces = interfaces.into_iter().map(id).collect();
        Self { number, table, interfaces, hits }
    }
}

/// What the workers and the others have in common.
pub struct Shared<D: Decide> {
    pub marks: Marks,
    pub filter_reject: AtomicBool,
    pub filter_return: AtomicBool,
    pub malformed_accept: bool,
    pub null: Option<Verdict>,
    pub generation: ArcSwap<Generation<D>>,
    /// Held while tables change, and while their hits are read.
    pub ledger: Mutex<Ledger<D::Meanings>>,
    /// In the order of the queues.
    pub counts: Vec<QueueCounts>,
    /// One bit for each hook.
    pub without_repeat: AtomicU64,
    pub sampling: Option<Sampling>,
    pub events: Option<Events<D>>,
    pub staged: ArcSwapOption<Staged<D>>,
    pub noted: noted::Switch,
    /// By worker.
    pub recorders: Vec<Option<Recorder>>,
    /// One for each worker.
    pub wakes: Vec<Wake>,
    /// By worker.
    pub turns: Vec<Turns>,
    /// Ready when the workers have ended.
    pub ended: Wake,
    pub stop: AtomicBool,
    pub alive: AtomicBool,
    /// Number of the latest drain asked for.
    pub drain_wanted: AtomicU64,
    pub progress: Mutex<Progress>,
    pub progressed: Condvar,
}

#[derive(Debug, Default)]
pub struct Progress {
    /// By worker: number of the table that it answers by.
    pub followed: Vec<u64>,
    /// By worker: how often it has met the others on its way to the next table.
    pub met: Vec<usize>,
    /// By worker: number of the latest drain done.
    pub drained: Vec<u64>,
    /// Workers that have ended.
    pub ended: usize,
    /// Thread ids of workers, for whoever pins or measures them.
    pub threads: Vec<u32>,
    /// Why the first of those that ended by themselves did.
    pub failure: Option<String>,
}

impl Progress {
    /// How far a worker has come, over all tables.
    fn place(&self, worker: usize) -> (u64, usize) {
        (self.followed[worker], self.met[worker])
    }
}

impl<D: Decide> Shared<D> {
    /// Two callers at once get two numbers; the later table wins.
    pub fn swap(&self, table: Arc<D>, interfaces: Vec<(u32, String)>) -> u64 {
        let mut ledger = self.ledger();
        let before = self.generation.load_full();
        let number = before.number + 1;
        let new = Arc::new(Generation::after(&before, number, table, interfaces));
        let is_counted_on = Arc::ptr_eq(&before.hits, &new.hits);
        self.generation.store(new);
        self.wake_all();
        if !is_counted_on {
            ledger.keep(before.table.meanings(), Arc::clone(&before.hits));
            if self.recorders.iter().any(Option::is_some) {
                ledger.remember(before.table.meanings(), before.hits.generation);
            }
        }
        number
    }

    /// What the flight recorders hold, the oldest first, each with what outcome ids meant then, if that is still known.
    pub fn recorded(&self) -> Vec<(Recorded, Option<D::Meanings>)> {
        let mut found: Vec<_> = self.recorders.iter().flatten().flat_map(Recorder::packets).collect();
        found.sort_by_key(|packet| packet.time);
        let ledger = self.ledger();
        let now = self.generation.load();
        let meanings = |number| {
            let is_now = number >= now.hits.generation;
            if is_now { Some(now.table.meanings()) } else { ledger.remembered(number) }
        };
        found.into_iter().map(|packet| (packet, meanings(packet.generation))).collect()
    }

    /// What is asked beside the table of this number, where events are told.
    pub fn staged_beside(&self, generation: u64) -> Option<Arc<Staged<D>>> {
        self.events.as_ref()?;
        let staged = self.staged.load();
        let beside = staged.as_ref().filter(|staged| staged.generation == generation);
        beside.map(Arc::clone)
    }

    pub fn stage(&self, generation: u64, table: Option<Arc<D>>) {
        let workers = self.wakes.len();
        let staged = table.map(|table| {
            let hits = Hits::new(generation, workers, &table.topics());
            Arc::new(Staged { generation, table, hits })
        });
        self.staged.store(staged);
    }

    /// Nothing that is done under the lock can panic: a poisoned one is as good.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger<D::Meanings>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hits of the tables before, as far as they have not been given as over, and of the one in force.
    pub fn hits(&self) -> Vec<TableHits<D::Meanings>> {
        let mut ledger = self.ledger();
        let mut found = ledger.read();
        let generation = self.generation.load();
        found.push(hits::table_hits(generation.table.meanings(), &generation.hits, false));
        found
    }

    pub fn protocol(&self) -> Protocol {
        Protocol {
            marks: self.marks,
            filter_reject: self.filter_reject.load(Ordering::Relaxed),
            filter_return: self.filter_return.load(Ordering::Relaxed),
        }
    }

    pub fn set_filter_actions(&self, reject: bool, returns: bool) {
        self.filter_reject.store(reject, Ordering::Relaxed);
        self.filter_return.store(returns, Ordering::Relaxed);
    }

    pub fn may_repeat(&self, hook: Hook) -> bool {
        self.without_repeat.load(Ordering::Relaxed) & (1 << hook as u64) == 0
    }

    pub fn set_without_repeat(&self, hooks: [bool; 7]) {
        let bits = Hook::ALL.iter().filter(|&&hook| hooks[hook as usize]);
        self.without_repeat.store(bits.fold(0, |all, &hook| all | 1 << hook as u64), Ordering::Relaxed);
    }

    /// Nothing that is done under the lock can panic: a poisoned one is as good.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn report_followed(&self, worker: usize, number: u64) {
        let mut progress = self.progress();
        progress.followed[worker] = number;
        progress.met[worker] = 0;
        self.progressed.notify_all();
    }

    /// Waits until all workers have come as far on their way to the next table as this one, or until that has taken
    /// too long.
    pub fn meet(&self, worker: usize, until: Instant) {
        let mut progress = self.progress();
        progress.met[worker] += 1;
        self.progressed.notify_all();
        let here = progress.place(worker);
        let waits = |progress: &mut Progress| {
            let is_behind = |other| progress.place(other) < here;
            (0..progress.met.len()).any(is_behind) && !self.stop.load(Ordering::Acquire)
        };
        let left = until.saturating_duration_since(Instant::now());
        drop(self.progressed.wait_timeout_while(progress, left, waits));
    }

    /// Waits until all workers answer by this table or a later one; false if that took too long.
    pub fn is_followed(&self, number: u64, patience: Duration) -> bool {
        let is_done = |progress: &Progress| progress.followed.iter().all(|&followed| followed >= number);
        let waits = |progress: &mut Progress| !is_done(progress) && self.alive.load(Ordering::Acquire);
        let waited = self.progressed.wait_timeout_while(self.progress(), patience, waits);
        is_done(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    pub fn report_drained(&self, worker: usize, ticket: u64) {
        self.progress().drained[worker] = ticket;
        self.progressed.notify_all();
    }

    pub fn drain(&self, timeout: Duration) -> bool {
        let progress = self.progress();
        let ticket = self.drain_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake_all();
        let is_done = |progress: &Progress| progress.drained.iter().all(|&drained| drained >= ticket);
        let waits = |progress: &mut Progress| !is_done(progress) && self.alive.load(Ordering::Acquire);
        let waited = self.progressed.wait_timeout_while(progress, timeout, waits);
        is_done(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits until so many workers have ended; false if that took too long.
    pub fn have_ended(&self, workers: usize, patience: Duration) -> bool {
        let waits = |progress: &mut Progress| progress.ended < workers;
        let waited = self.progressed.wait_timeout_while(self.progress(), patience, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended >= workers
    }

    pub fn wake_all(&self) {
        self.wakes.iter().for_each(Wake::wake);
    }

    pub fn report_begin(&self, worker: usize) {
        self.progress().threads[worker] = thread_id();
        self.progressed.notify_all();
    }

    /// The others end, too: packets of half of the queues answered and half not is nothing that anybody chose.
    pub fn report_end(&self, failure: Option<String>) {
        self.stop.store(true, Ordering::Release);
        self.wake_all();
        let mut progress = self.progress();
        progress.ended += 1;
        progress.failure = progress.failure.take().or(failure);
        if progress.ended == self.wakes.len() {
            self.alive.store(false, Ordering::Release);
            self.ended.wake();
        }
        self.progressed.notify_all();
    }
}

pub fn share<D: Decide>(
    config: &EnforcerConfig,
    table: Arc<D>,
    interfaces: Vec<(u32, String)>,
    grants: Vec<Grant>,
) -> io::Result<Shared<D>> {
    let workers = usize::from(config.workers);
    let wakes = (0..workers).map(|_| Wake::new()).collect::<io::Result<_>>()?;
    let shared = Shared {
        marks: config.marks,
        filter_reject: AtomicBool::new(config.filter_reject),
        filter_return: AtomicBool::new(config.filter_return),
        malformed_accept: config.malformed_accept,
        null: config.null,
        generation: ArcSwap::from_pointee(Generation::first(workers, table, interfaces)),
        ledger: Mutex::default(),
        counts: grants.into_iter().map(QueueCounts::new).collect(),
        without_repeat: AtomicU64::new(0),
        turns: (0..workers).map(|_| Turns::default()).collect(),
        sampling: Sampling::new(config.sample_every),
        events: Events::new(config.event_rates, workers),
        recorders: (0..workers).map(|_| Recorder::new(config.recorded)).collect(),
        staged: ArcSwapOption::empty(),
        noted: noted::Switch::default(),
        wakes,
        ended: Wake::new()?,
        stop: AtomicBool::new(false),
        alive: AtomicBool::new(true),
        drain_wanted: AtomicU64::new(0),
        progress: Mutex::new(Progress {
            followed: vec![1; workers],
            met: vec![0; workers],
            drained: vec![0; workers],
            threads: vec![0; workers],
            ..Progress::default()
        }),
        progressed: Condvar::new(),
    };
    shared.set_without_repeat(config.without_repeat);
    Ok(shared)
}
